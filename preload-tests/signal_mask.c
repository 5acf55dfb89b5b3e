/*
 * Signal masks belong to threads: inherited at creation, kept while the thread moves between kernel
 * threads, changed by handlers only for their duration, and a blocked signal waits until it is
 * unblocked.
 */
#include "test.h"

#include <setjmp.h>

static void block(int sig)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	CHECK_EQ(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
}

static void unblock(int sig)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	CHECK_EQ(pthread_sigmask(SIG_UNBLOCK, &set, NULL), 0);
}

static int is_blocked(int sig)
{
	sigset_t set;

	CHECK_EQ(pthread_sigmask(SIG_SETMASK, NULL, &set), 0);
	return sigismember(&set, sig);
}

static void *own_mask(void *arg)
{
	int mine = SIGRTMIN + (int)(intptr_t)arg % 20;

	CHECK(is_blocked(SIGUSR2));
	block(mine);
	for (int i = 0; i < 100; i++) {
		sched_yield();
		if (i % 30 == 0)
			usleep(100);
		for (int s = SIGRTMIN; s < SIGRTMIN + 20; s++)
			CHECK_EQ(is_blocked(s), s == mine);
		CHECK(is_blocked(SIGUSR2));
	}
	return NULL;
}

static void one_for_each_thread(void)
{
	pthread_t t[40];

	block(SIGUSR2);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(own_mask, (void *)(intptr_t)i);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	for (int s = SIGRTMIN; s < SIGRTMIN + 20; s++)
		CHECK(!is_blocked(s));
	unblock(SIGUSR2);
}

static volatile int count[65];

static void on_signal(int sig)
{
	__atomic_add_fetch(&count[sig], 1, __ATOMIC_RELAXED);
}

static void *raise_blocked(void *arg)
{
	sigset_t pending;

	count[SIGUSR1] = 0;
	block(SIGUSR1);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(raise(SIGUSR1), 0);
		sched_yield();
	}
	CHECK_EQ(count[SIGUSR1], 0);
	CHECK_EQ(sigpending(&pending), 0);
	CHECK_EQ(sigismember(&pending, SIGUSR1), 1);
	CHECK_EQ(sigismember(&pending, SIGUSR2), 0);
	usleep(1000);
	unblock(SIGUSR1);
	/* Before the unblocking call returns, and once: standard signals do not queue. */
	CHECK_EQ(count[SIGUSR1], 1);
	CHECK_EQ(sigpending(&pending), 0);
	CHECK_EQ(sigismember(&pending, SIGUSR1), 0);
	return arg;
}

static void blocked_waits_until_unblocked(void)
{
	struct sigaction sa = {.sa_handler = on_signal};

	sigaction(SIGUSR1, &sa, NULL);
	raise_blocked(NULL);
	join(spawn(raise_blocked, NULL));
	raise_blocked(NULL);
	signal(SIGUSR1, SIG_DFL);
}

static void *queue_blocked(void *arg)
{
	int sig = SIGRTMIN + 1;

	count[sig] = 0;
	block(sig);
	for (int i = 0; i < 10; i++)
		CHECK_EQ(pthread_kill(pthread_self(), sig), 0);
	sched_yield();
	CHECK_EQ(count[sig], 0);
	unblock(sig);
	CHECK_EQ(count[sig], 10);
	return arg;
}

static void realtime_signals_queue(void)
{
	struct sigaction sa = {.sa_handler = on_signal};

	sigaction(SIGRTMIN + 1, &sa, NULL);
	queue_blocked(NULL);
	join(spawn(queue_blocked, NULL));
	signal(SIGRTMIN + 1, SIG_DFL);
}

/* Within a handler: its own signal and sa_mask are blocked; after it, and after migration in it,
 * the old mask is back. */
/* volatile: to the compiler raise() is a leaf that changes none of our variables. */
static volatile int seen_own, seen_masked, seen_other;

static void look_at_mask(int sig)
{
	sched_yield();
	seen_own = is_blocked(sig);
	seen_masked = is_blocked(SIGUSR2);
	seen_other = is_blocked(SIGHUP);
	usleep(200);
}

static void *handle_with_mask(void *arg)
{
	for (int i = 0; i < 20; i++) {
		seen_own = seen_masked = seen_other = -1;
		CHECK_EQ(raise(SIGUSR1), 0);
		CHECK_EQ(seen_own, 1);
		CHECK_EQ(seen_masked, 1);
		CHECK_EQ(seen_other, 0);
		CHECK(!is_blocked(SIGUSR1));
		CHECK(!is_blocked(SIGUSR2));
		sched_yield();
	}
	return arg;
}

static void masks_within_handlers(void)
{
	struct sigaction sa = {.sa_handler = look_at_mask};

	sigemptyset(&sa.sa_mask);
	sigaddset(&sa.sa_mask, SIGUSR2);
	sigaction(SIGUSR1, &sa, NULL);
	handle_with_mask(NULL);
	join(spawn(handle_with_mask, NULL));
	sa.sa_flags = SA_NODEFER;
	sigaction(SIGUSR1, &sa, NULL);
	raise(SIGUSR1);
	CHECK_EQ(seen_own, 0);
	CHECK_EQ(seen_masked, 1);
	sa.sa_flags = SA_RESETHAND;
	sigaction(SIGUSR1, &sa, NULL);
	raise(SIGUSR1);
	sigaction(SIGUSR1, NULL, &sa);
	CHECK(sa.sa_handler == SIG_DFL);
}

/* Handlers of several threads that yield inside: nobody's mask is left behind on anybody else. */
static int handled;

static void yield_inside(int sig)
{
	(void)sig;
	for (int i = 0; i < 5; i++)
		sched_yield();
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELAXED);
}

static void *raise_often(void *arg)
{
	for (int i = 0; i < 100; i++) {
		CHECK_EQ(raise(SIGUSR1), 0);
		CHECK(!is_blocked(SIGUSR1));
	}
	return arg;
}

static void yields_within_handlers(void)
{
	pthread_t t[20];
	struct sigaction sa = {.sa_handler = yield_inside};

	handled = 0;
	sigaction(SIGUSR1, &sa, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(raise_often, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(handled, 100 * COUNT(t));
	signal(SIGUSR1, SIG_DFL);
}

/* siglongjmp brings the mask back that sigsetjmp saved. */
static sigjmp_buf env;

static void jump(int sig)
{
	siglongjmp(env, sig);
}

static void *jump_out(void *arg)
{
	for (int i = 0; i < 20; i++) {
		volatile int round = i;
		int sig = sigsetjmp(env, 1);
		if (sig == 0) {
			raise(SIGUSR1);
			FAIL("handler did not jump");
		} else {
			CHECK_EQ(sig, SIGUSR1);
			CHECK_EQ(round, i);
			CHECK(!is_blocked(SIGUSR1));
		}
	}
	return arg;
}

static void jumps_out_of_handlers(void)
{
	struct sigaction sa = {.sa_handler = jump};

	sigaction(SIGUSR1, &sa, NULL);
	jump_out(NULL);
	join(spawn(jump_out, NULL));
	signal(SIGUSR1, SIG_DFL);
}

static void *attr_mask(void *arg)
{
	CHECK(is_blocked(SIGHUP));
	CHECK(!is_blocked(SIGUSR2));
	return arg;
}

static void mask_by_attribute(void)
{
	pthread_attr_t attr;
	sigset_t set;
	pthread_t t;

	block(SIGUSR2);
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	pthread_attr_init(&attr);
	CHECK_EQ(pthread_attr_setsigmask_np(&attr, &set), 0);
	REQUIRE_OK(pthread_create(&t, &attr, attr_mask, NULL));
	join(t);
	unblock(SIGUSR2);
	pthread_attr_destroy(&attr);
}

static void bad_values(void)
{
	sigset_t set;

	sigemptyset(&set);
	CHECK_EQ(pthread_sigmask(99, &set, NULL), EINVAL);
	CHECK_ERRNO(sigprocmask(99, &set, NULL), EINVAL);
	/* KILL and STOP cannot be blocked, silently. */
	sigaddset(&set, SIGKILL);
	CHECK_EQ(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
	CHECK(!is_blocked(SIGKILL));
}

/* The library's own signal is the program's like any other. */
static void *use_sigurg(void *arg)
{
	count[SIGURG] = 0;
	for (int i = 0; i < 10; i++)
		CHECK_EQ(raise(SIGURG), 0);
	CHECK_EQ(count[SIGURG], 10);
	return arg;
}

static void sigurg_is_the_programs(void)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, old;

	CHECK_EQ(sigaction(SIGURG, &sa, &old), 0);
	CHECK(old.sa_handler == SIG_DFL);
	use_sigurg(NULL);
	join(spawn(use_sigurg, NULL));
	CHECK_EQ(sigaction(SIGURG, NULL, &old), 0);
	CHECK(old.sa_handler == on_signal);
	/* None but ours arrive. */
	count[SIGURG] = 0;
	for (volatile int i = 0; i < 50000000; i++)
		;
	CHECK_EQ(count[SIGURG], 0);
	signal(SIGURG, SIG_DFL);
}

static const struct test_case cases[] = {
    {"one_for_each_thread", one_for_each_thread},
    {"blocked_waits_until_unblocked", blocked_waits_until_unblocked},
    {"realtime_signals_queue", realtime_signals_queue},
    {"masks_within_handlers", masks_within_handlers},
    {"yields_within_handlers", yields_within_handlers},
    {"jumps_out_of_handlers", jumps_out_of_handlers},
    {"mask_by_attribute", mask_by_attribute},
    {"bad_values", bad_values},
    {"sigurg_is_the_programs", sigurg_is_the_programs},
};

TEST_MAIN(cases)
