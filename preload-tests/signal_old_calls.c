/*
 * The calls for signals of before POSIX's act on the calling thread, as those of today do.
 */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#include "test.h"

enum { USR2 = 1 << (SIGUSR2 - 1) };

static volatile int handled;

static void handler(int sig)
{
	(void)sig;
	handled++;
}

static int blocked(int sig)
{
	sigset_t set;

	pthread_sigmask(SIG_BLOCK, NULL, &set);
	return sigismember(&set, sig);
}

static void *hold(void *arg)
{
	(void)arg;
	handled = 0;
	REQUIRE(signal(SIGUSR1, handler) != SIG_ERR);
	CHECK_EQ(sighold(SIGUSR1), 0);
	CHECK(blocked(SIGUSR1));
	CHECK_EQ(raise(SIGUSR1), 0);
	CHECK_EQ(handled, 0);
	CHECK_EQ(sigrelse(SIGUSR1), 0);
	CHECK_EQ(handled, 1);
	CHECK(!blocked(SIGUSR1));
	CHECK_ERRNO(sighold(0), EINVAL);
	CHECK_ERRNO(sigrelse(SIGRTMAX + 1), EINVAL);
	return NULL;
}

static void *set(void *arg)
{
	(void)arg;
	handled = 0;
	REQUIRE(signal(SIGUSR1, SIG_DFL) != SIG_ERR);
	CHECK(sigset(SIGUSR1, handler) == SIG_DFL);
	CHECK_EQ(raise(SIGUSR1), 0);
	CHECK_EQ(handled, 1);
	CHECK(sigset(SIGUSR1, SIG_HOLD) == handler);
	CHECK(blocked(SIGUSR1));
	CHECK_EQ(raise(SIGUSR1), 0);
	CHECK_EQ(handled, 1);
	CHECK(sigset(SIGUSR1, SIG_HOLD) == SIG_HOLD);
	CHECK(sigset(SIGUSR1, handler) == SIG_HOLD);
	CHECK_EQ(handled, 2);
	CHECK_EQ(sigignore(SIGUSR1), 0);
	CHECK_EQ(raise(SIGUSR1), 0);
	CHECK_EQ(handled, 2);
	CHECK_ERRNO((intptr_t)sigset(SIGKILL, handler), EINVAL);
	return NULL;
}

static void *masks(void *arg)
{
	(void)arg;
	int before = sigblock(0);

	CHECK_EQ(sigblock(USR2), before);
	CHECK(blocked(SIGUSR2));
	CHECK_EQ(sigsetmask(before), before | USR2);
	CHECK(!blocked(SIGUSR2));
	return NULL;
}

static void *restarting(void *arg)
{
	struct sigaction sa;

	(void)arg;
	REQUIRE(signal(SIGUSR2, handler) != SIG_ERR);
	CHECK_EQ(siginterrupt(SIGUSR2, 1), 0);
	sigaction(SIGUSR2, NULL, &sa);
	CHECK(!(sa.sa_flags & SA_RESTART));
	REQUIRE(signal(SIGUSR2, handler) != SIG_ERR);
	sigaction(SIGUSR2, NULL, &sa);
	CHECK(!(sa.sa_flags & SA_RESTART));
	CHECK_EQ(siginterrupt(SIGUSR2, 0), 0);
	sigaction(SIGUSR2, NULL, &sa);
	CHECK(sa.sa_flags & SA_RESTART);
	CHECK_ERRNO(siginterrupt(0, 1), EINVAL);
	return NULL;
}

/* On main before any thread, then on a thread, with main's mask as it was. */
static void both(void *(*fn)(void *))
{
	fn(NULL);
	join(spawn(fn, NULL));
	CHECK(!blocked(SIGUSR1));
	CHECK(!blocked(SIGUSR2));
}

static void hold_and_release(void)
{
	both(hold);
}

static void set_and_ignore(void)
{
	both(set);
}

static void masks_of_32(void)
{
	both(masks);
}

static void interrupts(void)
{
	both(restarting);
}

static const struct test_case cases[] = {
    {"hold_and_release", hold_and_release},
    {"set_and_ignore", set_and_ignore},
    {"masks_of_32", masks_of_32},
    {"interrupts", interrupts},
};

TEST_MAIN(cases)
