/*
 * Threads that are made faster than memory allows for: a creator that just tries again gets on,
 * since those it made before end meanwhile.
 */
#include "test.h"

enum { CREATORS = 2, THREADS = 5000 };

static int created;
static pthread_attr_t detached;

static void *nothing(void *arg)
{
	return arg;
}

static void *creator(void *arg)
{
	pthread_t t;

	(void)arg;
	while (__atomic_load_n(&created, __ATOMIC_RELAXED) < THREADS)
		if (pthread_create(&t, &detached, nothing, NULL) == 0)
			__atomic_add_fetch(&created, 1, __ATOMIC_RELAXED);
	return NULL;
}

static int limited(void)
{
	struct rlimit limit = {800 << 20, 800 << 20};
	pthread_t t[CREATORS];
	int64_t start = now_ms();

	REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	REQUIRE_OK(pthread_attr_setstacksize(&detached, 16 << 20));
	for (int i = 0; i < CREATORS; i++)
		REQUIRE_OK(pthread_create(&t[i], NULL, creator, NULL));
	for (int i = 0; i < CREATORS; i++)
		join(t[i]);
	say("%d threads in %lld ms", created, (long long)(now_ms() - start));
	return 0;
}

static void tries_again(void)
{
	CHECK_EQ(in_child(limited), 0);
}

static const struct test_case cases[] = {
    {"tries_again", tries_again},
};

TEST_MAIN(cases)
