/*
 * Threads that use malloc come and go, many at a time: memory does not grow with the rounds.
 */
#include "test.h"

enum { ALIVE = 1000, ROUNDS = 24, SETTLED = 8 };

static pthread_barrier_t all;

/* Leaves malloc a cache to keep for the thread, of several sizes. */
static void *allocates(void *arg)
{
	void *p[32];

	for (int i = 0; i < 32; i++) {
		p[i] = malloc(16 + 32 * (size_t)i);
		REQUIRE(p[i] != NULL);
		memset(p[i], 1, 16 + 32 * (size_t)i);
	}
	pthread_barrier_wait(&all);
	for (int i = 0; i < 32; i++)
		free(p[i]);
	return arg;
}

static void rounds(void)
{
	static pthread_t t[ALIVE];
	long settled = 0;

	for (int round = 0; round < ROUNDS; round++) {
		REQUIRE_OK(pthread_barrier_init(&all, NULL, ALIVE));
		for (int i = 0; i < ALIVE; i++)
			t[i] = spawn(allocates, NULL);
		for (int i = 0; i < ALIVE; i++)
			join(t[i]);
		pthread_barrier_destroy(&all);
		if (round + 1 == SETTLED)
			settled = rss_kib();
	}
	long grown = rss_kib() - settled;

	/* What a thread could leave behind is some 17 KiB, and then each round would. malloc's arenas grow a
	 * little as luck has it, natively too. */
	if (grown > (ROUNDS - SETTLED) * ALIVE / 20 * 17)
		FAIL("%ld KiB more after %d rounds than after %d", grown, ROUNDS, SETTLED);
}

static const struct test_case cases[] = {
    {"rounds", rounds},
};

TEST_MAIN(cases)
