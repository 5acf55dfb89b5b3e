/*
 * Threads that met at a mutex once do not stay a queue there: when it is free for nearly all of the time, whoever runs
 * gets it at once, though others still wait. Else each pass would cost every thread a wait for all others.
 */
#include "test.h"

enum { OTHERS = 1000, PASSES = 10, TRIALS = 3, WORK = 20000, CONVOY = OTHERS * PASSES };

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static unsigned passes;
static int waiting, stop;

static void *other(void *arg)
{
	__atomic_add_fetch(&waiting, 1, __ATOMIC_RELAXED);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		REQUIRE_OK(pthread_mutex_lock(&m));
		passes++;
		REQUIRE_OK(pthread_mutex_unlock(&m));
		for (volatile int i = 0; i < WORK; i++)
			;
		sched_yield();
	}
	return arg;
}

/* How often others had the mutex while the caller had it PASSES times. */
static unsigned others_passes(void)
{
	unsigned before = 0, after = 0;

	for (int i = 0; i < PASSES; i++) {
		REQUIRE_OK(pthread_mutex_lock(&m));
		after = passes;
		if (i == 0)
			before = after;
		REQUIRE_OK(pthread_mutex_unlock(&m));
	}
	return after - before;
}

static void dissolves(void)
{
	pthread_t t[OTHERS];
	unsigned least = ~0u;

	REQUIRE_OK(pthread_mutex_lock(&m));
	for (int i = 0; i < OTHERS; i++)
		t[i] = spawn(other, NULL);
	CHECK(wait_for(&waiting, OTHERS, 20000));
	sleep_ms(5); /* now nearly all are in the queue, for longer than a waiter's patience */
	REQUIRE_OK(pthread_mutex_unlock(&m));
	for (int i = 0; i < TRIALS; i++) {
		unsigned n = others_passes();
		least = n < least ? n : least;
		sleep_ms(1);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < OTHERS; i++)
		join(t[i]);
	/* A queue that stays lets all others pass each time. */
	if (least >= CONVOY / 4)
		FAIL("others passed %u times or more while this thread passed %d times", least,
		     PASSES);
}

static const struct test_case cases[] = {
    {"dissolves", dissolves},
};

TEST_MAIN(cases)
