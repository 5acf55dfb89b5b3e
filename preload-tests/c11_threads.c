/*
 * C11 threads: the same objects by other names and with other result codes.
 */
#include "test.h"

#include <threads.h>

static mtx_t m;
static cnd_t c;
static tss_t key;
static int count, go, destroyed;
static once_flag flag = ONCE_FLAG_INIT;

static int plus_one(void *arg)
{
	return (int)(intptr_t)arg + 1;
}

static void create_and_join(void)
{
	thrd_t t[50];
	int res = -1;

	for (unsigned i = 0; i < COUNT(t); i++)
		CHECK_EQ(thrd_create(&t[i], plus_one, (void *)(intptr_t)i), thrd_success);
	for (unsigned i = 0; i < COUNT(t); i++) {
		CHECK_EQ(thrd_join(t[i], &res), thrd_success);
		CHECK_EQ(res, i + 1);
	}
	CHECK(thrd_equal(thrd_current(), thrd_current()));
}

static int leave(void *arg)
{
	thrd_exit((int)(intptr_t)arg);
}

static int signal_done(void *arg)
{
	__atomic_add_fetch((int *)arg, 1, __ATOMIC_RELEASE);
	return 0;
}

static void exit_and_detach(void)
{
	thrd_t t;
	int res = -1, done = 0;

	CHECK_EQ(thrd_create(&t, leave, (void *)77), thrd_success);
	CHECK_EQ(thrd_join(t, &res), thrd_success);
	CHECK_EQ(res, 77);
	CHECK_EQ(thrd_create(&t, signal_done, &done), thrd_success);
	CHECK_EQ(thrd_detach(t), thrd_success);
	CHECK(wait_for(&done, 1, 10000));
}

static int add(void *arg)
{
	for (int i = 0; i < 1000; i++) {
		CHECK_EQ(mtx_lock(&m), thrd_success);
		if (arg)
			CHECK_EQ(mtx_lock(&m), thrd_success);
		count++;
		if (i % 100 == 0)
			thrd_yield();
		if (arg)
			CHECK_EQ(mtx_unlock(&m), thrd_success);
		CHECK_EQ(mtx_unlock(&m), thrd_success);
	}
	return 0;
}

static int try_locked(void *arg)
{
	struct timespec ts;

	(void)arg;
	CHECK_EQ(mtx_trylock(&m), thrd_busy);
	timespec_get(&ts, TIME_UTC);
	ts.tv_nsec += 20000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	CHECK_EQ(mtx_timedlock(&m, &ts), thrd_timedout);
	return 0;
}

static void mutexes(void)
{
	static const int kinds[] = {mtx_plain, mtx_timed, mtx_plain | mtx_recursive,
				    mtx_timed | mtx_recursive};

	for (unsigned k = 0; k < COUNT(kinds); k++) {
		thrd_t t[8];

		count = 0;
		CHECK_EQ(mtx_init(&m, kinds[k]), thrd_success);
		for (unsigned i = 0; i < COUNT(t); i++)
			thrd_create(&t[i], add, kinds[k] & mtx_recursive ? &m : NULL);
		for (unsigned i = 0; i < COUNT(t); i++)
			thrd_join(t[i], NULL);
		CHECK_EQ(count, 1000 * COUNT(t));
		mtx_lock(&m);
		thrd_create(&t[0], try_locked, NULL);
		thrd_join(t[0], NULL);
		mtx_unlock(&m);
		mtx_destroy(&m);
	}
}

static int wait_go(void *arg)
{
	(void)arg;
	mtx_lock(&m);
	count++;
	while (!go)
		CHECK_EQ(cnd_wait(&c, &m), thrd_success);
	mtx_unlock(&m);
	return 0;
}

static void conditions(void)
{
	thrd_t t[100];
	struct timespec ts;

	count = go = 0;
	CHECK_EQ(mtx_init(&m, mtx_plain), thrd_success);
	CHECK_EQ(cnd_init(&c), thrd_success);
	for (unsigned i = 0; i < COUNT(t); i++)
		thrd_create(&t[i], wait_go, NULL);
	CHECK(wait_for(&count, COUNT(t), 20000));
	check_goroutines(COUNT(t));
	mtx_lock(&m);
	go = 1;
	CHECK_EQ(cnd_broadcast(&c), thrd_success);
	mtx_unlock(&m);
	for (unsigned i = 0; i < COUNT(t); i++)
		thrd_join(t[i], NULL);
	mtx_lock(&m);
	timespec_get(&ts, TIME_UTC);
	CHECK_EQ(cnd_timedwait(&c, &m, &ts), thrd_timedout);
	mtx_unlock(&m);
	CHECK_EQ(cnd_signal(&c), thrd_success);
	cnd_destroy(&c);
	mtx_destroy(&m);
}

static void destroy(void *value)
{
	CHECK(value == &key);
	__atomic_add_fetch(&destroyed, 1, __ATOMIC_RELAXED);
}

static int set_key(void *arg)
{
	CHECK(tss_get(key) == NULL);
	CHECK_EQ(tss_set(key, &key), thrd_success);
	thrd_yield();
	CHECK(tss_get(key) == &key);
	(void)arg;
	return 0;
}

static void init_once(void)
{
	thrd_sleep(&(struct timespec){0, 1000000}, NULL);
	count++;
}

static int once(void *arg)
{
	(void)arg;
	call_once(&flag, init_once);
	CHECK_EQ(count, 1);
	return 0;
}

static void keys_and_once(void)
{
	thrd_t t[20];

	destroyed = count = 0;
	CHECK_EQ(tss_create(&key, destroy), thrd_success);
	for (unsigned i = 0; i < COUNT(t); i++)
		thrd_create(&t[i], set_key, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		thrd_join(t[i], NULL);
	CHECK_EQ(destroyed, COUNT(t));
	tss_delete(key);
	for (unsigned i = 0; i < COUNT(t); i++)
		thrd_create(&t[i], once, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		thrd_join(t[i], NULL);
	CHECK_EQ(count, 1);
}

static const struct test_case cases[] = {
    {"create_and_join", create_and_join},
    {"exit_and_detach", exit_and_detach},
    {"mutexes", mutexes},
    {"conditions", conditions},
    {"keys_and_once", keys_and_once},
};

TEST_MAIN(cases)
