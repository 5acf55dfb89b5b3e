/*
 * Waiting for signals: sigwait and its relatives take what is blocked, whether it was sent to the
 * process or to the thread, before or after they began to wait, and a signal handling thread among
 * workers is the classic use.
 */
#include "test.h"

#include <sys/signalfd.h>

static sigset_t set;

static void block_all_of_set(void)
{
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGRTMIN + 4);
	REQUIRE_OK(pthread_sigmask(SIG_BLOCK, &set, NULL));
}

static void *kill_later(void *arg)
{
	sleep_ms(30);
	CHECK_EQ(kill(getpid(), (int)(intptr_t)arg), 0);
	return NULL;
}

static void *take_each(void *arg)
{
	static const int sigs[] = {SIGUSR1, SIGUSR2, SIGTERM};
	int sig = 0;
	siginfo_t info;

	for (unsigned i = 0; i < COUNT(sigs); i++) {
		/* Pending before the wait. */
		CHECK_EQ(kill(getpid(), sigs[i]), 0);
		CHECK_EQ(sigwait(&set, &sig), 0);
		CHECK_EQ(sig, sigs[i]);
		CHECK_EQ(raise(sigs[i]), 0);
		CHECK_EQ(sigwait(&set, &sig), 0);
		CHECK_EQ(sig, sigs[i]);
		/* libc tells of it as of kill's. */
		CHECK_EQ(raise(sigs[i]), 0);
		CHECK_EQ(sigwaitinfo(&set, &info), sigs[i]);
		CHECK_EQ(info.si_code, SI_USER);
		/* And after it began. */
		pthread_t t = spawn(kill_later, (void *)(intptr_t)sigs[i]);
		CHECK_EQ(sigwait(&set, &sig), 0);
		CHECK_EQ(sig, sigs[i]);
		join(t);
		t = spawn(kill_later, (void *)(intptr_t)sigs[i]);
		CHECK_EQ(sigwaitinfo(&set, &info), sigs[i]);
		CHECK_EQ(info.si_pid, getpid());
		CHECK_EQ(info.si_code, SI_USER);
		join(t);
	}
	struct timespec ts = {0, 30000000};
	int64_t start = now_ns();
	CHECK_ERRNO(sigtimedwait(&set, &info, &ts), EAGAIN);
	CHECK(now_ns() - start >= 30000000);
	ts = (struct timespec){0, 0};
	CHECK_ERRNO(sigtimedwait(&set, &info, &ts), EAGAIN);
	return arg;
}

static void by_main(void)
{
	take_each(NULL);
}

static void by_a_thread(void)
{
	join(spawn(take_each, NULL));
}

static int taken, stop;

static void *signal_thread(void *arg)
{
	int sig;

	for (;;) {
		CHECK_EQ(sigwait(&set, &sig), 0);
		if (sig == SIGTERM)
			return arg;
		__atomic_add_fetch(&taken, 1, __ATOMIC_RELEASE);
	}
}

static void *work(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		sched_yield();
	return arg;
}

static void thread_that_handles_signals(void)
{
	pthread_t s, t[8];

	taken = stop = 0;
	s = spawn(signal_thread, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(work, NULL);
	for (int i = 1; i <= 50; i++) {
		CHECK_EQ(kill(getpid(), i % 2 ? SIGUSR1 : SIGUSR2), 0);
		CHECK(wait_for(&taken, i, 5000));
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(kill(getpid(), SIGTERM), 0);
	join(s);
}

/* To one thread of several that wait: each takes its own. */
static __thread int mine;
static int right;

static void *wait_own(void *arg)
{
	siginfo_t info;
	sigset_t rt;

	sigemptyset(&rt);
	sigaddset(&rt, SIGRTMIN + 4);
	mine = (int)(intptr_t)arg;
	for (int i = 0; i < 10; i++) {
		CHECK_EQ(sigwaitinfo(&rt, &info), SIGRTMIN + 4);
		CHECK_EQ(info.si_value.sival_int, mine);
		__atomic_add_fetch(&right, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void each_takes_its_own(void)
{
	pthread_t t[10];

	right = 0;
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(wait_own, (void *)(intptr_t)i);
	for (int round = 0; round < 10; round++)
		for (unsigned i = 0; i < COUNT(t); i++) {
			union sigval v = {.sival_int = (int)i};
			CHECK_EQ(pthread_sigqueue(t[i], SIGRTMIN + 4, v), 0);
		}
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(right, 100);
}

static void *read_signalfd(void *arg)
{
	struct signalfd_siginfo info;

	for (int i = 0; i < 10; i++) {
		CHECK_EQ(read((int)(intptr_t)arg, &info, sizeof info), sizeof info);
		CHECK_EQ(info.ssi_signo, i % 2 ? SIGUSR1 : SIGUSR2);
		__atomic_add_fetch(&taken, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void by_signalfd(void)
{
	int fd = signalfd(-1, &set, SFD_CLOEXEC);

	REQUIRE(fd >= 0);
	taken = 0;
	pthread_t t = spawn(read_signalfd, (void *)(intptr_t)fd);
	for (int i = 0; i < 10; i++) {
		CHECK_EQ(kill(getpid(), i % 2 ? SIGUSR1 : SIGUSR2), 0);
		CHECK(wait_for(&taken, i + 1, 5000));
	}
	join(t);
	close(fd);
}

/* sigsuspend: the mask is swapped and the wait begun in one step. */
static volatile int handled;

static void on_signal(int sig)
{
	(void)sig;
	handled++;
}

static void *suspend(void *arg)
{
	sigset_t wait_mask, now;

	pthread_sigmask(SIG_SETMASK, NULL, &wait_mask);
	sigdelset(&wait_mask, SIGUSR1);
	for (int i = 0; i < 10; i++) {
		handled = 0;
		if (i % 2)
			raise(SIGUSR1);
		pthread_t t = i % 2 ? 0 : spawn(kill_later, (void *)SIGUSR1);
		CHECK_EQ(handled, 0);
		CHECK_ERRNO(sigsuspend(&wait_mask), EINTR);
		CHECK_EQ(handled, 1);
		pthread_sigmask(SIG_SETMASK, NULL, &now);
		CHECK(sigismember(&now, SIGUSR1));
		if (t)
			join(t);
	}
	return arg;
}

static void by_sigsuspend(void)
{
	struct sigaction sa = {.sa_handler = on_signal};

	sigaction(SIGUSR1, &sa, NULL);
	suspend(NULL);
	join(spawn(suspend, NULL));
	signal(SIGUSR1, SIG_DFL);
}

/* ppoll and pselect with a mask. */
static void *ppoll_masked(void *arg)
{
	sigset_t wait_mask;

	pthread_sigmask(SIG_SETMASK, NULL, &wait_mask);
	sigdelset(&wait_mask, SIGUSR1);
	handled = 0;
	raise(SIGUSR1);
	CHECK_EQ(handled, 0);
	CHECK_ERRNO(ppoll(NULL, 0, NULL, &wait_mask), EINTR);
	CHECK_EQ(handled, 1);
	pthread_t t = spawn(kill_later, (void *)SIGUSR1);
	CHECK_ERRNO(ppoll(NULL, 0, NULL, &wait_mask), EINTR);
	CHECK_EQ(handled, 2);
	join(t);
	return arg;
}

static void by_ppoll(void)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	sigaction(SIGUSR1, &sa, NULL);
	ppoll_masked(NULL);
	join(spawn(ppoll_masked, NULL));
	signal(SIGUSR1, SIG_DFL);
}

static const struct test_case cases[] = {
    {"by_main", by_main},
    {"by_a_thread", by_a_thread},
    {"thread_that_handles_signals", thread_that_handles_signals},
    {"each_takes_its_own", each_takes_its_own},
    {"by_signalfd", by_signalfd},
    {"by_sigsuspend", by_sigsuspend},
    {"by_ppoll", by_ppoll},
};

int main(int argc, char **argv)
{
	block_all_of_set();
	return test_run(argc, argv, cases, COUNT(cases));
}
