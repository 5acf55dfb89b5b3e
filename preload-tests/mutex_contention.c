/*
 * Mutexes that many threads want: nobody is lost in the queue, nobody starves, the memory of a
 * mutex may be freed as soon as its last user has unlocked it, and waiting is parking (hundreds
 * wait on few kernel threads).
 */
#include "test.h"

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static long count;
static int stop;

static void *add(void *arg)
{
	for (int i = 0; i < 300; i++) {
		pthread_mutex_lock(&m);
		count++;
		if (i % 50 == 0)
			sched_yield();
		pthread_mutex_unlock(&m);
	}
	return arg;
}

static void hundreds_count(void)
{
	enum { N = 300 };
	pthread_t t[N];

	count = 0;
	for (int i = 0; i < N; i++)
		t[i] = spawn(add, NULL);
	for (int i = 0; i < N; i++)
		join(t[i]);
	CHECK_EQ(count, 300 * N);
}

static int waiting;

static void *wait_once(void *arg)
{
	__atomic_add_fetch(&waiting, 1, __ATOMIC_RELEASE);
	pthread_mutex_lock(&m);
	count++;
	pthread_mutex_unlock(&m);
	return arg;
}

static void hundreds_wait(void)
{
	enum { N = 300 };
	pthread_t t[N];

	count = 0;
	waiting = 0;
	pthread_mutex_lock(&m);
	for (int i = 0; i < N; i++)
		t[i] = spawn(wait_once, NULL);
	CHECK(wait_for(&waiting, N, 20000));
	sleep_ms(50);
	CHECK_EQ(count, 0);
	check_goroutines(N);
	pthread_mutex_unlock(&m);
	for (int i = 0; i < N; i++)
		join(t[i]);
	CHECK_EQ(count, N);
}

/* Threads that take it back at once, and one that needs it now and then. */
static void *hog(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		pthread_mutex_lock(&m);
		for (volatile int i = 0; i < 2000; i++)
			;
		pthread_mutex_unlock(&m);
	}
	return arg;
}

static void hogs_do_not_starve_others(void)
{
	pthread_t t[4];

	stop = 0;
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(hog, NULL);
	/* They go on until it has had its turns. */
	for (int i = 0; i < 20; i++) {
		pthread_mutex_lock(&m);
		pthread_mutex_unlock(&m);
		sleep_ms(2);
	}
	stop = 1;
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

/* The classic: a reference count in the same allocation as the mutex that guards it. */
struct object {
	pthread_mutex_t lock;
	int refs;
};

static void *drop(void *arg)
{
	struct object *o = arg;

	pthread_mutex_lock(&o->lock);
	int left = --o->refs;
	pthread_mutex_unlock(&o->lock);
	if (left == 0) {
		CHECK_EQ(pthread_mutex_destroy(&o->lock), 0);
		memset(o, 0xff, sizeof *o);
		free(o);
	}
	return NULL;
}

static void freed_by_its_last_user(void)
{
	enum { N = 8 };

	for (int round = 0; round < 300; round++) {
		struct object *o = malloc(sizeof *o);
		pthread_t t[N];

		pthread_mutex_init(&o->lock, NULL);
		o->refs = N;
		for (int i = 0; i < N; i++)
			t[i] = spawn(drop, o);
		for (int i = 0; i < N; i++)
			join(t[i]);
	}
}

/* Many mutexes near each other, locked in pairs: address-hashed queues must not mix them up. */
static pthread_mutex_t table[64];
static long counts[64];

static void *pairs(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg;

	for (int i = 0; i < 2000; i++) {
		unsigned a = rand_r(&seed) % COUNT(table), b = rand_r(&seed) % COUNT(table);
		if (a == b)
			continue;
		if (a > b) {
			unsigned c = a;
			a = b;
			b = c;
		}
		pthread_mutex_lock(&table[a]);
		if (i % 16 == 0)
			sched_yield();
		pthread_mutex_lock(&table[b]);
		counts[a]++;
		counts[b]--;
		pthread_mutex_unlock(&table[a]);
		pthread_mutex_unlock(&table[b]);
	}
	return NULL;
}

static void pairs_of_many(void)
{
	pthread_t t[32];
	long sum = 0;

	for (unsigned i = 0; i < COUNT(table); i++)
		pthread_mutex_init(&table[i], NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(pairs, (void *)(intptr_t)(i + 1));
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	for (unsigned i = 0; i < COUNT(table); i++) {
		sum += counts[i];
		CHECK_EQ(pthread_mutex_destroy(&table[i]), 0);
	}
	CHECK_EQ(sum, 0);
}

static const struct test_case cases[] = {
    {"hundreds_count", hundreds_count},
    {"hundreds_wait", hundreds_wait},
    {"hogs_do_not_starve_others", hogs_do_not_starve_others},
    {"freed_by_its_last_user", freed_by_its_last_user},
    {"pairs_of_many", pairs_of_many},
};

TEST_MAIN(cases)
