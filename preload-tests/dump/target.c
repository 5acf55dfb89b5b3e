/*
 * What `goshim dump` is to look at: threads that wait, and what the arguments ask for beside them. Prints
 * "ready", and at the end of its input what the dumps did to it.
 */
#include "../test.h"

#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <ucontext.h>

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static volatile int urgent, pipes, interrupted, wrong;

/* What threads do is not static: where the program's file can't be opened, only such names are known. */

void *waits_for_ever(void *arg)
{
	pthread_mutex_lock(&m);
	for (;;)
		pthread_cond_wait(&never, &m);
	return arg;
}

NAMED void *computes(void *arg)
{
	for (volatile long i = 0;; i++)
		;
	return arg;
}

void waits_in_handler(int sig)
{
	for (volatile long i = sig;; i++)
		;
}

void *is_interrupted(void *arg)
{
	void *volatile r = computes(arg); /* no tail call */

	return r;
}

NAMED void coroutine(int waits)
{
	void *volatile r = waits ? waits_for_ever(NULL) : computes(NULL);

	(void)r;
}

void *calls_coroutine(void *waits)
{
	enum { STACK = 64 << 10 };
	ucontext_t here, there;

	REQUIRE(getcontext(&there) == 0);
	there.uc_stack.ss_sp = malloc(STACK);
	there.uc_stack.ss_size = STACK;
	makecontext(&there, (void (*)(void))coroutine, 1, waits != NULL);
	swapcontext(&here, &there);
	return NULL;
}

static void handler(int sig)
{
	if (sig == SIGURG)
		urgent++;
	else
		pipes++;
}

static sigset_t only(int sig)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	return set;
}

void *reads_signalfd(void *arg)
{
	struct signalfd_siginfo info;
	sigset_t set = only(SIGURG);
	int fd = signalfd(-1, &set, 0);

	while (read(fd, &info, sizeof info) == sizeof info)
		urgent++;
	return arg;
}

void *waits_for_signal(void *arg)
{
	sigset_t set = only(SIGURG);

	while (sigwaitinfo(&set, NULL) == SIGURG)
		urgent++;
	return arg;
}

/* poll() without libc's: nobody restarts it. True: there is input, or its end. */
static bool polls_inline(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(SYS_poll), "D"(&p), "S"(1), "d"(-1)
			 : "rcx", "r11", "memory");
	interrupted += r == -EINTR;
	return r == 1;
}

void *waits_inline(void *arg)
{
	while (!polls_inline(-1))
		;
	return arg;
}

void *closes(void *arg)
{
	for (;;) {
		closefrom(3);
		sleep_ms(1);
	}
	return arg;
}

/* Children that live longer than somebody waits for an answer. */
void *forks(void *arg)
{
	for (;; sleep_ms(20)) {
		int status;

		if (fork() == 0) {
			for (int fd = 3; fd < 4000; fd++)
				if (fcntl(fd, F_GETFD) >= 0)
					_exit(1);
			sleep(60);
			_exit(0);
		}
		while (waitpid(-1, &status, WNOHANG) > 0)
			wrong++;
	}
	return arg;
}

void *locks_file(void *arg)
{
	int fd = open("/proc/self/exe", O_RDONLY);

	flock(fd, LOCK_EX);
	return arg;
}

static int (*volatile null)(void);

__attribute__((noinline)) static void *calls_null(void *arg)
{
	return null() ? arg : NULL;
}

static void filter(void)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = {1, &allow};

	REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	REQUIRE(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC,
			&program) == 0);
}

static void drop(const char *root)
{
	REQUIRE(chroot(root) == 0 && chdir("/") == 0 && setgroups(0, NULL) == 0 &&
		setgid(65534) == 0 && setuid(65534) == 0);
}

int main(int argc, char **argv)
{
	struct sigaction sa = {.sa_handler = handler};

	sigaction(SIGPIPE, &sa, NULL);
	for (int i = 1; i < argc; i++) {
		sigset_t set = only(SIGURG);

		if (!strcmp(argv[i], "early"))
			goto wait;
		if (!strcmp(argv[i], "signalfd") || !strcmp(argv[i], "sigwait"))
			sigprocmask(SIG_BLOCK, &set, NULL);
		if (!strcmp(argv[i], "blocked")) {
			sigfillset(&set);
			sigprocmask(SIG_SETMASK, &set, NULL);
		}
	}
	spawn(waits_for_ever, NULL);
	for (int i = 1; i < argc; i++) {
		const char *what = argv[i];

		if (!strcmp(what, "parked"))
			for (int n = atoi(argv[++i]); n > 0; n--)
				spawn(waits_for_ever, NULL);
		else if (!strcmp(what, "named"))
			pthread_setname_np(spawn(waits_for_ever, NULL), "a\n\033[7m\"b\177");
		else if (!strcmp(what, "spin"))
			for (int n = 0; n < 3; n++)
				spawn(computes, NULL);
		else if (!strcmp(what, "coroutines"))
			for (int n = 0; n < 4; n++)
				spawn(calls_coroutine, n == 0 ? &m : NULL);
		else if (!strcmp(what, "handles")) {
			signal(SIGUSR1, waits_in_handler);
			pthread_t t = spawn(is_interrupted, NULL);
			sleep_ms(20);
			pthread_kill(t, SIGUSR1);
		} else if (!strcmp(what, "handler"))
			sigaction(SIGURG, &sa, NULL);
		else if (!strcmp(what, "signalfd"))
			spawn(reads_signalfd, NULL);
		else if (!strcmp(what, "sigwait"))
			spawn(waits_for_signal, NULL);
		else if (!strcmp(what, "inline"))
			for (int n = 0; n < 6; n++)
				spawn(waits_inline, NULL);
		else if (!strcmp(what, "closes"))
			spawn(closes, NULL);
		else if (!strcmp(what, "null"))
			join(spawn(calls_null, NULL));
		else if (!strcmp(what, "forks"))
			spawn(forks, NULL);
		else if (!strcmp(what, "stuck"))
			for (int n = flock(open("/proc/self/exe", O_RDONLY), LOCK_EX); n < 7; n++)
				spawn(locks_file, NULL);
		else if (!strcmp(what, "filter"))
			filter();
		else if (!strcmp(what, "drop"))
			drop(argv[++i]);
		else if (!strcmp(what, "lend"))
			REQUIRE(setresuid(65534, 0, 0) == 0);
	}
	sleep_ms(100);
wait:
	say("ready");
	while (!polls_inline(0))
		;
	say("urgent=%d pipes=%d interrupted=%d wrong=%d", urgent, pipes, interrupted, wrong);
	return 0;
}
