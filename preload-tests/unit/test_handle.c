/*
 * test_handle.c - permanent records of addresses: one each, the same for ever, whoever asks and from
 * where.
 */
#include "testsched.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/time.h>

enum { THREADS = 4, KEYS = 20011 /* a prime */, MANY = 1000000 };

static const void *key(size_t i)
{
	return (const void *)(0x600000000000 + i * 8);
}

Test(handle, addresses_have_one_record_each)
{
	static char object[64];

	cr_assert_null(handlefind(object));
	Handle *h = handleof(object);

	cr_assert_not_null(h);
	cr_assert_eq(h->addr, object);
	cr_assert_eq(h->contended, 0);
	cr_assert_eq(handleof(object), h);
	cr_assert_eq(handlefind(object), h);
	/* Inside one object they differ, too. */
	for (int i = 1; i < 64; i++) {
		cr_assert_null(handlefind(object + i));
		cr_assert_neq(handleof(object + i), h);
	}
	cr_assert_eq(handlecount(), 64);
	cr_assert_eq(handleof(NULL)->addr, NULL);
}

static Handle *seen[THREADS][KEYS];

/* All insert the same keys, in different orders. */
static void *inserts(void *arg)
{
	size_t me = (size_t)arg;

	for (size_t i = 0; i < KEYS; i++) {
		size_t k = (i * (2 * me + 1) + me * 7919) % KEYS;

		seen[me][k] = handleof(key(k));
	}
	return NULL;
}

static void together(void *(*fn)(void *))
{
	pthread_t t[THREADS];

	for (size_t i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, fn, (void *)i), 0);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
}

Test(handle, threads_that_insert_the_same_agree, .timeout = 60)
{
	together(inserts);
	for (size_t k = 0; k < KEYS; k++) {
		cr_assert_not_null(seen[0][k]);
		cr_assert_eq(seen[0][k]->addr, key(k));
		for (size_t i = 1; i < THREADS; i++)
			cr_assert_eq(seen[i][k], seen[0][k]);
	}
	cr_assert_eq(handlecount(), KEYS);
}

/* Keys that take the same way for twelve levels. */
static const void *alike[64];

static void *collides(void *arg)
{
	size_t me = (size_t)arg;

	for (size_t i = 0; i < 64; i++)
		seen[me][i] = handleof(alike[(i + me * 16) % 64]);
	return NULL;
}

static int depth(const Handle *h)
{
	int a, b;

	if (h == NULL)
		return 0;
	a = depth(h->child[0]);
	b = depth(h->child[1]);
	return 1 + (a > b ? a : b);
}

Test(handle, colliding_keys_part, .timeout = 60)
{
	size_t n = 0;

	for (size_t i = 0; n < 64; i++)
		if ((handlehash(key(i)) & 0xfff) == 0)
			alike[n++] = key(i);
	together(collides);
	cr_assert_eq(handlecount(), 64);
	/* Twelve levels hold one each, the others are below. */
	cr_assert_geq(depth(handles), 13 + 5);
	for (size_t i = 0; i < 64; i++) {
		cr_assert_eq(handlefind(alike[i])->addr, alike[i]);
		for (size_t t = 0; t < THREADS; t++)
			cr_assert_eq(seen[t][i]->addr, alike[(i + t * 16) % 64]);
	}
}

Test(handle, hashes_differ)
{
	/* Neighbours, and addresses that differ in high bits only. */
	for (int bit = 0; bit < 64; bit++)
		cr_assert_neq(handlehash((void *)(1ull << bit)), handlehash(NULL));
	for (size_t i = 1; i < 4096; i++)
		cr_assert_neq(handlehash(key(i)), handlehash(key(i - 1)));
}

static _Atomic int lookups;
static const void *wanted;

/* Interrupts insertions anywhere. */
static void looks(int sig)
{
	(void)sig;
	const Handle *h = handlefind(wanted);

	if (h == NULL || h->addr != wanted)
		abort();
	handlefind(key(MANY * 2)); /* not there */
	lookups++;
}

Test(handle, a_million_later_it_is_the_same, .timeout = 120)
{
	Handle *first[100];
	struct sigaction sa = {.sa_handler = looks};
	struct itimerval every = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};

	for (size_t i = 0; i < 100; i++)
		first[i] = handleof(key(i * 1000));
	wanted = key(0);
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	for (size_t i = 0; i < MANY; i++)
		cr_assert_not_null(handleof(key(i)));
	while (lookups < 10)
		;
	setitimer(ITIMER_REAL, &never, NULL);
	cr_assert_eq(handlecount(), MANY);
	for (size_t i = 0; i < 100; i++)
		cr_assert_eq(handlefind(key(i * 1000)), first[i]);
	for (size_t i = 0; i < MANY; i++)
		cr_assert_eq(handlefind(key(i))->addr, key(i));
	cr_assert_null(handlefind(key(MANY)));
	/* As deep as the number of records asks for, and some. */
	cr_assert_leq(depth(handles), 64);
}
