/*
 * What the soak tests share: a crowd of threads that does one thing at random until it is told to stop. For
 * GOSHIM_TEST_SECONDS, or a moment.
 */
#ifndef SOAK_H
#define SOAK_H

#include "test.h"

enum { CROWD = 64 };

static int ending;
static int64_t ops;

static inline int running(void)
{
	return !__atomic_load_n(&ending, __ATOMIC_RELAXED);
}

static inline unsigned rnd(unsigned *seed)
{
	return *seed = *seed * 1103515245 + 12345, *seed >> 16 & 0x7fff;
}

static inline void add(int64_t *to, int64_t n)
{
	__atomic_add_fetch(to, n, __ATOMIC_RELAXED);
}

/* Something to do with the object in hand. */
static inline void dawdle(unsigned *seed)
{
	switch (rnd(seed) % 64) {
	case 0: usleep(50); break;
	case 1:
	case 2: sched_yield(); break;
	default:
		for (volatile int n = (int)(rnd(seed) % 100); n > 0; n--)
			;
	}
}

static inline struct timespec within_us(unsigned us)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_nsec += us * 1000;
	ts.tv_sec += ts.tv_nsec / 1000000000;
	ts.tv_nsec %= 1000000000;
	return ts;
}

/* Starts the crowd, ends it when it is time, and waits for all. */
static inline void crowd(void *(*fn)(void *))
{
	const char *s = getenv("GOSHIM_TEST_SECONDS");
	pthread_t t[CROWD];

	ending = 0;
	ops = 0;
	for (int i = 0; i < CROWD; i++)
		t[i] = spawn(fn, (void *)(intptr_t)(i + 1));
	sleep_ms(s ? atol(s) * 1000 : 250);
	__atomic_store_n(&ending, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < CROWD; i++)
		join(t[i]);
	CHECK(ops > 0);
	if (s)
		say("%lld", (long long)ops);
}

#endif
