/*
 * What of signals a new program finds that a thread among others has called exec for: those that are pending for the
 * thread, with what was sent along, and for the process; the whole mask; and which are ignored. An exec that fails takes
 * nothing away and adds nothing.
 */
#include "test.h"

static const int ignored[] = {SIGURG, SIGHUP, SIGCHLD, SIGQUIT};
static int urgent_ignored, fail_first;

enum { QUEUED = 3 };

static int took(int want, int code, int value)
{
	struct timespec now = {0, 0};
	siginfo_t si;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, want);
	if (sigtimedwait(&set, &si, &now) != want)
		return 0;
	return si.si_code == code && si.si_pid == getpid() &&
	       (code != SI_QUEUE || si.si_value.sival_int == value);
}

/* 0, or the number of what is not as it should be. */
static int all_there(void)
{
	sigset_t set;

	sigpending(&set);
	for (int i = 0; i < QUEUED; i++)
		if (!took(SIGRTMIN + 3, SI_QUEUE, 10 + i))
			return 10 + i;
	for (int i = 0; i < QUEUED; i++)
		if (!took(SIGRTMIN + 4, SI_QUEUE, 20 + i))
			return 20 + i;
	if (!took(SIGUSR1, SI_USER, 0))
		return 30;
	if (!took(SIGUSR2, SI_USER, 0))
		return 31;
	if (!took(SIGSEGV, SI_USER, 0))
		return 32;
	sigpending(&set);
	for (int sig = 1; sig < SIGRTMAX; sig++)
		if (sigismember(&set, sig) == 1)
			return 100 + sig;
	return 0;
}

static int started(int urgent)
{
	struct sigaction sa;
	sigset_t set;

	pthread_sigmask(SIG_BLOCK, NULL, &set);
	if (!sigismember(&set, SIGURG) || !sigismember(&set, SIGUSR1) || sigismember(&set, SIGTERM))
		return 2;
	for (unsigned i = !urgent; i < COUNT(ignored); i++)
		if (sigaction(ignored[i], NULL, &sa) != 0 || sa.sa_handler != SIG_IGN)
			return 3;
	int r = all_there();
	return r ? r : 42;
}

static void send_all(void)
{
	for (int i = 0; i < QUEUED; i++) {
		union sigval thread = {.sival_int = 10 + i}, process = {.sival_int = 20 + i};
		CHECK_EQ(pthread_sigqueue(pthread_self(), SIGRTMIN + 3, thread), 0);
		CHECK_EQ(sigqueue(getpid(), SIGRTMIN + 4, process), 0);
	}
	CHECK_EQ(pthread_kill(pthread_self(), SIGUSR1), 0);
	CHECK_EQ(kill(getpid(), SIGUSR2), 0);
	CHECK_EQ(raise(SIGSEGV), 0);
}

static void execs(void)
{
	char *args[] = {"process_exec_signals", "started", urgent_ignored ? "1" : "0", NULL};
	char *none[] = {NULL};

	send_all();
	if (fail_first) {
		for (int i = 0; i < 3; i++) {
			CHECK_ERRNO(execl("/nowhere", "nowhere", NULL), ENOENT);
			CHECK_ERRNO(execve("/", none, none), EACCES);
		}
		CHECK_EQ(all_there(), 0);
		send_all();
	}
	if (!test_failures)
		execv("/proc/self/exe", args);
	_exit(5);
}

static void on_term(int sig)
{
	(void)sig;
	execs();
}

/* All is blocked by the thread, or by the handler that calls exec alone. */
static void *blocks(void *in_handler)
{
	struct sigaction sa = {.sa_handler = on_term};
	sigset_t set;

	sigfillset(&sa.sa_mask);
	sigdelset(&sa.sa_mask, SIGTERM);
	sa.sa_flags = SA_NODEFER;
	sigaction(SIGTERM, &sa, NULL);
	if (!in_handler)
		execs();
	sigemptyset(&set);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	raise(SIGTERM);
	return NULL;
}

static void *computes(void *arg)
{
	for (;;)
		(*(volatile long *)arg)++;
	return NULL;
}

static void in_company(int by_thread)
{
	static long n;

	for (int way = 0; way < 8; way++) {
		int status = -1;
		pid_t pid = fork();

		REQUIRE(pid >= 0);
		if (pid == 0) {
			test_failures = 0;
			void *in_handler = way & 4 ? &n : NULL;
			sigset_t set;

			urgent_ignored = way & 1;
			fail_first = way & 2;
			sigfillset(&set);
			sigdelset(&set, SIGTERM);
			pthread_sigmask(SIG_SETMASK, &set, NULL);
			spawn(computes, &n);
			for (unsigned i = !urgent_ignored; i < COUNT(ignored); i++)
				signal(ignored[i], SIG_IGN);
			if (by_thread)
				join(spawn(blocks, in_handler));
			else
				blocks(in_handler);
			_exit(6);
		}
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		if (status != 42 << 8)
			FAIL("way %d %s: status %#x", way, by_thread ? "by a thread" : "by main",
			     status);
	}
}

static void by_main(void)
{
	in_company(0);
}

static void by_a_thread(void)
{
	in_company(1);
}

static const struct test_case cases[] = {
    {"by_main", by_main},
    {"by_a_thread", by_a_thread},
};

int main(int argc, char **argv)
{
	if (argc > 2 && strcmp(argv[1], "started") == 0)
		return started(argv[2][0] == '1');
	return test_run(argc, argv, cases, COUNT(cases));
}
