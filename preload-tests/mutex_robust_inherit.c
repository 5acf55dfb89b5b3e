/*
 * Robust mutexes whose owner ends: the next one to lock is told, whether or not it was waiting
 * already, and also when the mutex inherits priority, so that the kernel keeps its owner.
 */
#include "test.h"

enum { HELD = 3 };

static pthread_mutex_t held[HELD];
static pthread_barrier_t ready;
static volatile int waiting;

static void make(int protocol)
{
	pthread_mutexattr_t a;

	pthread_mutexattr_init(&a);
	REQUIRE_OK(pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST));
	REQUIRE_OK(pthread_mutexattr_setprotocol(&a, protocol));
	for (int i = 0; i < HELD; i++)
		REQUIRE_OK(pthread_mutex_init(&held[i], &a));
}

static void *owner(void *arg)
{
	for (int i = 0; i < HELD; i++)
		CHECK_EQ(pthread_mutex_lock(&held[i]), 0);
	pthread_barrier_wait(&ready);
	if (arg)
		REQUIRE(wait_for(&waiting, 1, 10000));
	if (arg)
		sleep_ms(5);
	return NULL;
}

static void *waiter(void *arg)
{
	waiting = 1;
	CHECK_EQ(pthread_mutex_lock(arg), EOWNERDEAD);
	CHECK_EQ(pthread_mutex_consistent(arg), 0);
	CHECK_EQ(pthread_mutex_unlock(arg), 0);
	return NULL;
}

static void takeover(pthread_mutex_t *m)
{
	CHECK_EQ(pthread_mutex_lock(m), EOWNERDEAD);
	CHECK_EQ(pthread_mutex_consistent(m), 0);
	CHECK_EQ(pthread_mutex_unlock(m), 0);
}

static void owner_ends(int protocol, int contended)
{
	REQUIRE_OK(pthread_barrier_init(&ready, NULL, 2));
	for (int round = 0; round < 20; round++) {
		pthread_t w = 0;

		make(protocol);
		waiting = 0;
		pthread_t t = spawn(owner, contended ? &ready : NULL);
		pthread_barrier_wait(&ready);
		if (contended)
			w = spawn(waiter, &held[1]);
		join(t);
		if (contended)
			join(w);
		for (int i = 0; i < HELD; i++)
			if (i != 1 || !contended)
				takeover(&held[i]);
		for (int i = 0; i < HELD; i++)
			CHECK_EQ(pthread_mutex_destroy(&held[i]), 0);
	}
	pthread_barrier_destroy(&ready);
}

static void plain_free(void)
{
	owner_ends(PTHREAD_PRIO_NONE, 0);
}

static void plain_contended(void)
{
	owner_ends(PTHREAD_PRIO_NONE, 1);
}

static void inheriting_free(void)
{
	owner_ends(PTHREAD_PRIO_INHERIT, 0);
}

static void inheriting_contended(void)
{
	owner_ends(PTHREAD_PRIO_INHERIT, 1);
}

/* --- one that is not robust ------------------------------------------------------------------------ */

static int contended;

static void *ends_as_owner(void *arg)
{
	CHECK_EQ(pthread_mutex_lock(arg), 0);
	pthread_barrier_wait(&ready);
	if (contended)
		REQUIRE(wait_for(&waiting, 1, 10000));
	if (contended)
		sleep_ms(50);
	return NULL;
}

static void *wants_it(void *arg)
{
	waiting = 1;
	pthread_mutex_lock(arg);
	return NULL;
}

static int stalled(void)
{
	pthread_mutexattr_t a;
	pthread_mutex_t m;

	/* libc says what it asserts. */
	REQUIRE(!contended || dup2(open("/dev/null", O_WRONLY), 2) == 2);
	REQUIRE_OK(pthread_barrier_init(&ready, NULL, 2));
	pthread_mutexattr_init(&a);
	pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT);
	REQUIRE_OK(pthread_mutex_init(&m, &a));
	waiting = 0;
	pthread_t t = spawn(ends_as_owner, &m);
	pthread_barrier_wait(&ready);
	if (contended)
		join(spawn(wants_it, &m));
	join(t);
	for (int i = 0; i < 3; i++) {
		struct timespec ts = after_ms(CLOCK_REALTIME, 5);

		CHECK_EQ(pthread_mutex_trylock(&m), EBUSY);
		CHECK_EQ(pthread_mutex_timedlock(&m, &ts), ETIMEDOUT);
	}
	return 0;
}

/* Nobody gets it any more. Who has waited for it before gets it from the kernel, which libc has not thought of. */
static void stalled_free(void)
{
	contended = 0;
	CHECK_EQ(in_child(stalled), 0);
}

static void stalled_contended(void)
{
	contended = 1;
	int status = in_child(stalled);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static pthread_mutex_t used;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int done;

static void *wait_with(void *arg)
{
	CHECK_EQ(pthread_mutex_lock(&used), 0);
	__atomic_store_n(&waiting, 1, __ATOMIC_RELEASE);
	while (!done)
		CHECK_EQ(pthread_cond_wait(&cond, &used), 0);
	CHECK_EQ(pthread_mutex_unlock(&used), 0);
	return arg;
}

/* Who waits for a condition with a mutex is a user of it, and no more than one. */
static void used_by_condition_wait(void)
{
	static const struct {
		int type, protocol;
	} table[] = {
	    {PTHREAD_MUTEX_NORMAL, PTHREAD_PRIO_INHERIT},
	    {PTHREAD_MUTEX_RECURSIVE, PTHREAD_PRIO_INHERIT},
	    {PTHREAD_MUTEX_ERRORCHECK, PTHREAD_PRIO_INHERIT},
	    {PTHREAD_MUTEX_NORMAL, PTHREAD_PRIO_NONE},
	};
	for (unsigned i = 0; i < COUNT(table) * 3; i++) {
		pthread_mutexattr_t a;

		pthread_mutexattr_init(&a);
		pthread_mutexattr_settype(&a, table[i / 3].type);
		pthread_mutexattr_setprotocol(&a, table[i / 3].protocol);
		REQUIRE_OK(pthread_mutex_init(&used, &a));
		done = waiting = 0;
		pthread_t t = spawn(wait_with, NULL);
		REQUIRE(wait_for(&waiting, 1, 30000));
		for (int n = 0; n < 3; n++) {
			/* Through the mutex: it waits, or has gone round again. */
			CHECK_EQ(pthread_mutex_lock(&used), 0);
			CHECK_EQ(pthread_cond_signal(&cond), 0);
			CHECK_EQ(pthread_mutex_unlock(&used), 0);
			CHECK_EQ(pthread_mutex_destroy(&used), EBUSY);
		}
		CHECK_EQ(pthread_mutex_lock(&used), 0);
		done = 1;
		CHECK_EQ(pthread_cond_signal(&cond), 0);
		CHECK_EQ(pthread_mutex_unlock(&used), 0);
		join(t);
		CHECK_EQ(pthread_mutex_destroy(&used), 0);
	}
}

static const struct test_case cases[] = {
    {"plain_free", plain_free},
    {"plain_contended", plain_contended},
    {"inheriting_free", inheriting_free},
    {"inheriting_contended", inheriting_contended},
    {"stalled_free", stalled_free},
    {"stalled_contended", stalled_contended},
    {"used_by_condition_wait", used_by_condition_wait},
};

TEST_MAIN(cases)
