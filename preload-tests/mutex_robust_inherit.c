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
    {"used_by_condition_wait", used_by_condition_wait},
};

TEST_MAIN(cases)
