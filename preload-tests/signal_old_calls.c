/*
 * The calls for signals of before POSIX's act on the calling thread, as those of today do.
 */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#include "test.h"

/* Whose headers are gone, or have another call under the name. */
struct sigvec {
	void (*handler)(int);
	int mask, flags;
};
extern int old_sigvec(int sig, const struct sigvec *vec, struct sigvec *old);
__asm__(".symver old_sigvec, sigvec@GLIBC_2.2.5");
/* By version, or the linker warns of them. */
extern int old_sigstack(struct sigstack *ss, struct sigstack *old);
__asm__(".symver old_sigstack, sigstack@GLIBC_2.2.5");
extern int old_siggetmask(void);
__asm__(".symver old_siggetmask, siggetmask@GLIBC_2.2.5");
extern int bsd_sigpause(int mask) __asm__("sigpause");
extern int xpg_sigpause(int sig) __asm__("__xpg_sigpause");
extern int __sigpause(int sig_or_mask, int is_sig);

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

static void *once(void *arg)
{
	struct sigaction sa;

	handled = 0;
	CHECK(sysv_signal(SIGUSR1, handler) != SIG_ERR);
	sigaction(SIGUSR1, NULL, &sa);
	CHECK(sa.sa_handler == handler);
	CHECK_EQ(sa.sa_flags & (SA_RESTART | SA_NODEFER | (int)SA_RESETHAND),
		 SA_NODEFER | (int)SA_RESETHAND);
	CHECK_EQ(raise(SIGUSR1), 0);
	CHECK_EQ(handled, 1);
	CHECK(sysv_signal(SIGUSR1, SIG_IGN) == SIG_DFL);
	CHECK_ERRNO((intptr_t)sysv_signal(0, handler), EINVAL);
	return arg;
}

static void *sends(void *arg)
{
	sleep_ms(20);
	CHECK_EQ(pthread_kill(*(pthread_t *)arg, SIGUSR2), 0);
	return NULL;
}

/* Waits with SIGUSR2 open, by each of the calls. */
static void *pauses(void *arg)
{
	pthread_t self = pthread_self();

	REQUIRE(signal(SIGUSR2, handler) != SIG_ERR);
	handled = 0;
	for (int i = 0; i < 4; i++) {
		int before = sigblock(USR2);
		pthread_t t = spawn(sends, &self);

		CHECK_EQ(old_siggetmask(), before | USR2);
		if (i == 0)
			CHECK_ERRNO(bsd_sigpause(before), EINTR);
		else if (i == 1)
			CHECK_ERRNO(xpg_sigpause(SIGUSR2), EINTR);
		else if (i == 2)
			CHECK_ERRNO(__sigpause(before, 0), EINTR);
		else
			CHECK_ERRNO(__sigpause(SIGUSR2, 1), EINTR);
		CHECK_EQ(handled, i + 1);
		CHECK_EQ(old_siggetmask(), before | USR2);
		sigsetmask(before);
		join(t);
	}
	CHECK_ERRNO(xpg_sigpause(0), EINVAL);
	return arg;
}

/* What sigstack set is what sigaltstack knows; handlers with flags of old: 1 on that stack, 2 interrupts calls, 4 once. */
static void *vectors(void *arg)
{
	char *stack = malloc(256 << 10);
	struct sigstack ss = {.ss_sp = stack}, old;
	struct sigvec vec = {.handler = handler, .mask = USR2, .flags = 1}, was;
	struct sigaction sa;
	stack_t alt, none = {.ss_flags = SS_DISABLE};

	CHECK_EQ(old_sigstack(&ss, &old), 0);
	CHECK_EQ(sigaltstack(NULL, &alt), 0);
	CHECK(alt.ss_sp == stack);
	CHECK_EQ(old_sigstack(NULL, &old), 0);
	CHECK(old.ss_sp == stack);
	/* A stack that has no end includes this one, if it is above. */
	if (old.ss_onstack) {
		CHECK((char *)&ss > stack);
		CHECK_ERRNO(sigaltstack(&none, NULL), EPERM);
	} else {
		CHECK_EQ(sigaltstack(&none, NULL), 0);
	}
	signal(SIGUSR1, SIG_DFL);
	CHECK_EQ(old_sigvec(SIGUSR1, &vec, &was), 0);
	CHECK(was.handler == SIG_DFL);
	CHECK_EQ(sigaction(SIGUSR1, NULL, &sa), 0);
	CHECK_EQ(sa.sa_flags & (SA_ONSTACK | SA_RESTART), SA_ONSTACK | SA_RESTART);
	CHECK(sigismember(&sa.sa_mask, SIGUSR2));
	vec.flags = 2 | 4;
	CHECK_EQ(old_sigvec(SIGUSR1, &vec, &was), 0);
	CHECK(was.handler == handler);
	CHECK_EQ(was.flags, 1);
	CHECK_EQ(was.mask & USR2, USR2);
	handled = 0;
	CHECK_EQ(raise(SIGUSR1), 0);
	CHECK_EQ(handled, 1);
	CHECK_EQ(sigaction(SIGUSR1, NULL, &sa), 0);
	CHECK(sa.sa_handler == SIG_DFL);
	CHECK_EQ(old_sigvec(0, &vec, NULL), -1);
	return arg;
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

static void handlers_for_once(void)
{
	both(once);
}

static void pauses_of_three_kinds(void)
{
	both(pauses);
}

static void stacks_and_vectors(void)
{
	both(vectors);
}

static const struct test_case cases[] = {
    {"hold_and_release", hold_and_release},
    {"set_and_ignore", set_and_ignore},
    {"masks_of_32", masks_of_32},
    {"interrupts", interrupts},
    {"handlers_for_once", handlers_for_once},
    {"pauses_of_three_kinds", pauses_of_three_kinds},
    {"stacks_and_vectors", stacks_and_vectors},
};

TEST_MAIN(cases)
