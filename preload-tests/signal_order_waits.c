/*
 * Queued signals from another process come in order to each thread: to one that waits for them, while another opens and
 * blocks them, and to that one's handler.
 */
#include "test.h"

#include <sys/prctl.h>

enum { SIGNALS = 5000 };

static int stop, handled, disorder;
static __thread int last;

static sigset_t queued(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 3);
	return set;
}

static void note(const siginfo_t *info)
{
	if (info->si_value.sival_int <= last)
		__atomic_add_fetch(&disorder, 1, __ATOMIC_RELAXED);
	last = info->si_value.sival_int;
}

static void handler(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	note(info);
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELAXED);
}

static void while_ns(int64_t ns)
{
	for (int64_t end = now_ns() + ns; now_ns() < end;)
		;
}

/* Which pause is a sleep: that with them open, none, or that with them blocked. */
enum { SleepsOpen, Never, SleepsBlocked };

static void *open_and_block(void *arg)
{
	sigset_t set = queued();
	int how = (int)(intptr_t)arg;

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		pthread_sigmask(SIG_UNBLOCK, &set, NULL);
		if (how == SleepsOpen)
			sleep_ms(1);
		else
			while_ns(2000);
		pthread_sigmask(SIG_BLOCK, &set, NULL);
		while_ns(2000);
		if (how == SleepsBlocked)
			sleep_ms(1);
	}
	return NULL;
}

static _Noreturn void sender(pid_t to)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 1; i <= SIGNALS; i++) {
		while (sigqueue(to, SIGRTMIN + 3, (union sigval){.sival_int = i}) != 0)
			sched_yield();
		if (i % 8 == 0)
			usleep(20);
	}
	_exit(0);
}

static void order(int how)
{
	sigset_t set = queued();
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
	int taken = 0;
	int64_t end = now_ns() + 20000000000;
	pid_t self = getpid();

	stop = handled = disorder = last = 0;
	REQUIRE(sigaction(SIGRTMIN + 3, &sa, NULL) == 0);
	REQUIRE_OK(pthread_sigmask(SIG_BLOCK, &set, NULL));
	pthread_t t = spawn(open_and_block, (void *)(intptr_t)how);
	pid_t pid = fork();
	REQUIRE(pid >= 0);
	if (pid == 0)
		sender(self);
	/* The last may be one that the handler has: no wait lasts for good. */
	while (taken + __atomic_load_n(&handled, __ATOMIC_RELAXED) < SIGNALS && now_ns() < end) {
		siginfo_t info;
		struct timespec soon = {0, 20000000};

		if (sigtimedwait(&set, &info, &soon) > 0) {
			note(&info);
			taken++;
		}
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	join(t);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	CHECK_EQ(disorder, 0);
	CHECK_EQ(taken + handled, SIGNALS);
}

static void beside_one_that_sleeps_with_them_open(void)
{
	order(SleepsOpen);
}

static void beside_one_that_never_sleeps(void)
{
	order(Never);
}

static void beside_one_that_sleeps_with_them_blocked(void)
{
	order(SleepsBlocked);
}

static const struct test_case cases[] = {
    {"beside_one_that_sleeps_with_them_open", beside_one_that_sleeps_with_them_open},
    {"beside_one_that_never_sleeps", beside_one_that_never_sleeps},
    {"beside_one_that_sleeps_with_them_blocked", beside_one_that_sleeps_with_them_blocked},
};

TEST_MAIN(cases)
