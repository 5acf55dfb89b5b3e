/*
 * Signals that wait for main, blocked, when the program's first thread is made: they are main's and
 * not the new thread's; those for the process are anybody's.
 */
#include "test.h"

static volatile int handled;
static pthread_t handler_thread;

static void handler(int sig)
{
	(void)sig;
	handled++;
	handler_thread = pthread_self();
}

static sigset_t both(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN);
	return set;
}

static void *looks(void *arg)
{
	sigset_t set, blocked, waits = both();
	struct timespec soon = {0, 20000000};

	(void)arg;
	CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &blocked), 0);
	CHECK(sigismember(&blocked, SIGUSR1));
	CHECK_EQ(sigpending(&set), 0);
	CHECK(!sigismember(&set, SIGUSR1));
	CHECK(!sigismember(&set, SIGRTMIN));
	CHECK(sigismember(&set, SIGUSR2));
	CHECK_ERRNO(sigtimedwait(&waits, NULL, &soon), EAGAIN);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	CHECK_EQ(sigtimedwait(&set, NULL, &soon), SIGUSR2);
	return NULL;
}

static int waiting_for_main(void)
{
	sigset_t set = both();
	siginfo_t info;
	union sigval value = {.sival_int = 7};

	sigaddset(&set, SIGUSR2);
	REQUIRE_OK(pthread_sigmask(SIG_BLOCK, &set, NULL));
	REQUIRE(signal(SIGUSR1, handler) != SIG_ERR);
	CHECK_EQ(raise(SIGUSR1), 0);
	CHECK_EQ(kill(getpid(), SIGUSR2), 0);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pthread_sigqueue(pthread_self(), SIGRTMIN, value), 0);
	join(spawn(looks, NULL));
	CHECK_EQ(sigpending(&set), 0);
	CHECK(sigismember(&set, SIGUSR1));
	CHECK(!sigismember(&set, SIGUSR2));
	set = both();
	sigdelset(&set, SIGUSR1);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(sigwaitinfo(&set, &info), SIGRTMIN);
		CHECK_EQ(info.si_value.sival_int, 7);
	}
	CHECK_EQ(handled, 0);
	set = both();
	REQUIRE_OK(pthread_sigmask(SIG_UNBLOCK, &set, NULL));
	CHECK_EQ(handled, 1);
	CHECK(pthread_equal(handler_thread, pthread_self()));
	return 0;
}

static void first_thread(void)
{
	CHECK_EQ(in_child(waiting_for_main), 0);
}

static const struct test_case cases[] = {
    {"first_thread", first_thread},
};

TEST_MAIN(cases)
