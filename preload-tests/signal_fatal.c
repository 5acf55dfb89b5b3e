/*
 * Signals that end the process by default: it ends by them as natively, whoever sends them, and with
 * the library the stacks of goroutines are on stderr first, as GOTRACEBACK wants. Nothing is
 * written where the program handles, ignores or blocks the signal.
 */
#include "test.h"

static int sig;
static void (*meet)(void);
static int fds[2];

static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;

/* At the end of a NAMED one: it is not left by its last call. */
#define STAYS __asm__ volatile("" ::: "memory")

NAMED static void waits_for_the_lock(void)
{
	pthread_mutex_lock(&held);
	STAYS;
}

static void *waiter(void *arg)
{
	waits_for_the_lock();
	return arg;
}

NAMED static void meets_the_signal(void)
{
	meet();
	STAYS;
}

static void *victim(void *arg)
{
	meets_the_signal();
	sleep_ms(30);
	return arg;
}

static void by_raise(void)
{
	raise(sig);
}

static void by_pthread_kill(void)
{
	pthread_kill(pthread_self(), sig);
}

static void by_kill(void)
{
	kill(getpid(), sig);
	sleep_ms(2000);
}

static void by_tgkill(void)
{
	syscall(SYS_tgkill, getpid(), (int)syscall(SYS_gettid), sig);
}

/* From outside; the victim computes. */
static void by_another_process(void)
{
	pid_t pid = fork();
	if (pid == 0) {
		kill(getppid(), sig);
		_exit(0);
	}
	for (volatile int spin = 1; spin;)
		;
}

static void by_abort(void)
{
	abort();
}

static void by_instruction(void)
{
	volatile uintptr_t address = 24;

	switch (sig) {
	case SIGTRAP: __asm__ volatile("int3"); break;
	case SIGILL: __asm__ volatile("ud2"); break;
	case SIGFPE: __asm__ volatile("divl %0" ::"r"(0) : "eax", "edx", "cc"); break;
	default: *(volatile int *)address = 1;
	}
}

static int with_threads(void)
{
	dup2(fds[1], 2);
	pthread_mutex_lock(&held);
	pthread_t t = spawn(waiter, NULL);
	sleep_ms(20);
	join(spawn(victim, NULL));
	pthread_mutex_unlock(&held);
	join(t);
	return 0;
}

/* What the child wrote to stderr. */
static char text[16384];

static int child(void)
{
	ssize_t n, len = 0;

	REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
	int status = in_child(with_threads);
	close(fds[1]);
	while ((n = read(fds[0], text + len, sizeof text - 1 - len)) > 0)
		len += n;
	close(fds[0]);
	text[len] = '\0';
	return status;
}

static const struct {
	const char *name;
	int sig;
	void (*meet)(void);
	int elsewhere; /* the process got it: no goroutine in particular */
} deadly[] = {
    {"raise(SIGSEGV)", SIGSEGV, by_raise, 0},
    {"raise(SIGQUIT)", SIGQUIT, by_raise, 0},
    {"raise(SIGABRT)", SIGABRT, by_raise, 0},
    {"raise(SIGTRAP)", SIGTRAP, by_raise, 0},
    {"pthread_kill(SIGBUS)", SIGBUS, by_pthread_kill, 0},
    {"pthread_kill(SIGFPE)", SIGFPE, by_pthread_kill, 0},
    {"tgkill(SIGILL)", SIGILL, by_tgkill, 0},
    {"tgkill(SIGSYS)", SIGSYS, by_tgkill, 0},
    {"kill(SIGSEGV)", SIGSEGV, by_kill, 1},
    {"kill(SIGABRT)", SIGABRT, by_kill, 1},
    {"kill(SIGQUIT)", SIGQUIT, by_kill, 1},
    {"another's SIGQUIT", SIGQUIT, by_another_process, 1},
    {"another's SIGABRT", SIGABRT, by_another_process, 1},
    {"another's SIGSEGV", SIGSEGV, by_another_process, 1},
    {"abort()", SIGABRT, by_abort, 0},
    {"null pointer", SIGSEGV, by_instruction, 0},
    {"int3", SIGTRAP, by_instruction, 0},
    {"ud2", SIGILL, by_instruction, 0},
    {"division", SIGFPE, by_instruction, 0},
};

static int has(const char *what)
{
	return strstr(text, what) != NULL;
}

static void check_text(const char *name, int all, int elsewhere)
{
	if (!under_shim()) {
		if (text[0])
			FAIL("%s: stderr says %.100s", name, text);
		return;
	}
	char title[16] = "SIG";
	snprintf(title, sizeof title, "SIG%s: ", sigabbrev_np(sig));
	if (!has(title))
		FAIL("%s: no %s in %.200s", name, title, text);
	/* Without optimization spawn is a function. */
	int created = has("created by with_threads in goroutine 1\n") ||
		      has("created by spawn in goroutine 1\n");
	if (!elsewhere && (!has("[running") || !has("meets_the_signal(...)\n\t/") || !created))
		FAIL("%s: no stack of the goroutine in %.300s", name, text);
	int others = has("waits_for_the_lock(...)\n\t/") &&
		     has(" [sync.Mutex.Lock]:\npthread_mutex_lock(...)");
	if (all != others)
		FAIL("%s: the others' stacks are %s in %.400s", name, all ? "missing" : "there",
		     text);
}

static void deaths(void)
{
	for (size_t i = 0; i < COUNT(deadly); i++) {
		sig = deadly[i].sig;
		meet = deadly[i].meet;
		int status = child();
		if (!WIFSIGNALED(status) || WTERMSIG(status) != sig)
			FAIL("%s: wait status %#x", deadly[i].name, status);
		check_text(deadly[i].name, sig == SIGQUIT, deadly[i].elsewhere);
	}
}

/* --- not deadly ------------------------------------------------------------------ */

static volatile sig_atomic_t ran;

static void handler(int s)
{
	(void)s;
	ran++;
}

static void handled_raise(void)
{
	struct sigaction sa = {.sa_handler = handler}, old;

	sigaction(sig, &sa, &old);
	CHECK(old.sa_handler == SIG_DFL);
	raise(sig);
	CHECK_EQ(ran, 1);
	sigaction(sig, &old, &sa);
	CHECK(sa.sa_handler == handler);
}

static void ignored_raise(void)
{
	signal(sig, SIG_IGN);
	raise(sig);
	kill(getpid(), sig);
}

static void blocked_raise(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	raise(sig);
	pthread_kill(pthread_self(), sig);
	sigpending(&set);
	CHECK(sigismember(&set, sig));
}

static void harmless(void)
{
	static const int sigs[] = {SIGQUIT, SIGABRT, SIGSEGV, SIGBUS,
				   SIGFPE,  SIGILL,  SIGTRAP, SIGSYS};
	static void (*const ways[])(void) = {handled_raise, ignored_raise, blocked_raise};

	for (size_t i = 0; i < COUNT(sigs); i++) {
		for (size_t w = 0; w < COUNT(ways); w++) {
			sig = sigs[i];
			meet = ways[w];
			/* Blocked, it stays with the victim, which ends. */
			int status = child();
			if (status != 0)
				FAIL("%s, way %zu: wait status %#x", sigabbrev_np(sig), w, status);
			if (text[0])
				FAIL("%s, way %zu: stderr says %.200s", sigabbrev_np(sig), w, text);
		}
	}
}

/* A fault that is blocked or ignored ends the process nevertheless. */
static void blocked_fault(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	by_instruction();
}

static void ignored_fault(void)
{
	signal(sig, SIG_IGN);
	by_instruction();
}

static void faults_cannot_be_kept_out(void)
{
	static const int sigs[] = {SIGSEGV, SIGFPE, SIGILL, SIGTRAP};

	for (size_t i = 0; i < COUNT(sigs); i++) {
		for (int blocked = 0; blocked < 2; blocked++) {
			sig = sigs[i];
			meet = blocked ? blocked_fault : ignored_fault;
			int status = child();
			if (!WIFSIGNALED(status) || WTERMSIG(status) != sig)
				FAIL("%s %s: wait status %#x", sigabbrev_np(sig),
				     blocked ? "blocked" : "ignored", status);
		}
	}
}

/* A reader of stderr that is gone, or never reads, changes nothing. */
static int full_stderr(void)
{
	char junk[4096] = {0};

	dup2(fds[1], 2);
	fcntl(2, F_SETFL, O_NONBLOCK);
	while (write(2, junk, sizeof junk) > 0)
		;
	fcntl(2, F_SETFL, 0);
	join(spawn(victim, NULL));
	return 0;
}

static int gone_stderr(void)
{
	dup2(fds[1], 2);
	close(fds[0]);
	close(fds[1]);
	join(spawn(victim, NULL));
	return 0;
}

static void stderr_of_no_use(void)
{
	static int (*const ways[])(void) = {full_stderr, gone_stderr};

	sig = SIGSEGV;
	meet = by_raise;
	for (size_t i = 0; i < COUNT(ways); i++) {
		REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
		int status = in_child(ways[i]);
		close(fds[0]);
		close(fds[1]);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV)
			FAIL("way %zu: wait status %#x", i, status);
	}
}

/* It ends by what it has sent to itself, whoever else may have it open, and not by what it does next. */
static int kill_and_exit(void)
{
	pthread_t t = spawn(waiter, NULL);

	(void)t;
	dup2(fds[1], 2);
	meet();
	_exit(0);
}

static void with_kill(void)
{
	kill(getpid(), sig);
}

static void with_sigqueue(void)
{
	sigqueue(getpid(), sig, (union sigval){.sival_int = 1});
}

static void with_kill_of_group(void)
{
	setpgid(0, 0);
	kill(0, sig);
}

static void ends_before_it_goes_on(void)
{
	static const int sigs[] = {SIGQUIT, SIGABRT, SIGSEGV, SIGTERM};
	static void (*const ways[])(void) = {with_kill, with_sigqueue, with_kill_of_group};

	pthread_mutex_lock(&held);
	REQUIRE((fds[1] = open("/dev/null", O_WRONLY | O_CLOEXEC)) >= 0);
	for (size_t i = 0; i < COUNT(sigs) * COUNT(ways); i++) {
		sig = sigs[i / COUNT(ways)];
		meet = ways[i % COUNT(ways)];
		int status = in_child(kill_and_exit);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != sig)
			FAIL("%s, way %zu: wait status %#x", sigabbrev_np(sig), i % COUNT(ways),
			     status);
	}
	close(fds[1]);
	pthread_mutex_unlock(&held);
}

static const struct test_case cases[] = {
    {"ends before it goes on", ends_before_it_goes_on},
    {"deaths", deaths},
    {"handled, ignored or blocked", harmless},
    {"faults that can't be blocked or ignored", faults_cannot_be_kept_out},
    {"a stderr that takes nothing", stderr_of_no_use},
};

TEST_MAIN(cases)
