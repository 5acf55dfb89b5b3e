/*
 * Thread-specific data: values belong to the thread wherever it runs, start as NULL, and are given
 * to the destructors when the thread ends: repeatedly while destructors set new ones, at most
 * PTHREAD_DESTRUCTOR_ITERATIONS times.
 *
 * glibc keeps the first 32 keys in the thread block and the rest in allocated blocks: both must
 * work.
 */
#include "test.h"

#include <limits.h>

static pthread_key_t key;
static int destroyed;

static void count_destroyed(void *value)
{
	CHECK(value != NULL);
	__atomic_add_fetch(&destroyed, 1, __ATOMIC_RELAXED);
}

static void *set_and_check(void *arg)
{
	CHECK(pthread_getspecific(key) == NULL);
	CHECK_EQ(pthread_setspecific(key, arg), 0);
	for (int i = 0; i < 50; i++) {
		sched_yield();
		CHECK(pthread_getspecific(key) == arg);
	}
	return NULL;
}

static void one_value_per_thread(void)
{
	enum { N = 200 };
	pthread_t t[N];

	destroyed = 0;
	CHECK_EQ(pthread_key_create(&key, count_destroyed), 0);
	CHECK(pthread_getspecific(key) == NULL);
	for (int i = 0; i < N; i++)
		t[i] = spawn(set_and_check, (void *)(intptr_t)(i + 1));
	for (int i = 0; i < N; i++)
		join(t[i]);
	CHECK_EQ(destroyed, N);
	CHECK_EQ(pthread_key_delete(key), 0);
}

static void *null_again(void *arg)
{
	pthread_setspecific(key, &key);
	pthread_setspecific(key, NULL);
	return arg;
}

static void null_is_not_destroyed(void)
{
	destroyed = 0;
	pthread_key_create(&key, count_destroyed);
	join(spawn(null_again, NULL));
	CHECK_EQ(destroyed, 0);
	pthread_key_delete(key);
}

/* A value is NULL by the time its destructor is called. */
static void see_null(void *value)
{
	CHECK(value == &key);
	CHECK(pthread_getspecific(key) == NULL);
	destroyed++;
}

static void *set_key(void *arg)
{
	pthread_setspecific(key, &key);
	return arg;
}

static void null_inside_the_destructor(void)
{
	destroyed = 0;
	pthread_key_create(&key, see_null);
	join(spawn(set_key, NULL));
	CHECK_EQ(destroyed, 1);
	pthread_key_delete(key);
}

static int calls;

static void set_again(void *value)
{
	calls++;
	pthread_setspecific(key, value);
}

static void iterations_are_bounded(void)
{
	calls = 0;
	pthread_key_create(&key, set_again);
	join(spawn(set_key, NULL));
	CHECK_EQ(calls, PTHREAD_DESTRUCTOR_ITERATIONS);
	pthread_key_delete(key);
}

static void set_twice_more(void *value)
{
	if (++calls < 3)
		pthread_setspecific(key, value);
}

static void iterations_stop_early(void)
{
	calls = 0;
	pthread_key_create(&key, set_twice_more);
	join(spawn(set_key, NULL));
	CHECK_EQ(calls, 3);
	pthread_key_delete(key);
}

/* A destructor that sets another key, made before or after its own: both orders are seen to. */
static pthread_key_t first, second;
static int first_calls, second_calls;

static void first_destructor(void *value)
{
	if (first_calls++ == 0)
		pthread_setspecific(second, value);
}

static void second_destructor(void *value)
{
	if (second_calls++ == 0)
		pthread_setspecific(first, value);
}

static void *set_both(void *arg)
{
	pthread_setspecific(first, &first);
	pthread_setspecific(second, &second);
	return arg;
}

static void destructors_set_each_other(void)
{
	pthread_key_create(&first, first_destructor);
	pthread_key_create(&second, second_destructor);
	first_calls = second_calls = 0;
	join(spawn(set_both, NULL));
	CHECK(first_calls >= 2);
	CHECK(second_calls >= 1);
	pthread_key_delete(first);
	pthread_key_delete(second);
}

/* Destructors block, lock and migrate like anything else. */
static void blocking_destructor(void *value)
{
	static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;

	pthread_mutex_lock(&m);
	sched_yield();
	free(value);
	destroyed++;
	pthread_mutex_unlock(&m);
	usleep(100);
}

static void *set_malloced(void *arg)
{
	pthread_setspecific(key, malloc(100));
	return arg;
}

static void destructors_that_block(void)
{
	pthread_t t[100];

	destroyed = 0;
	pthread_key_create(&key, blocking_destructor);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(set_malloced, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(destroyed, COUNT(t));
	pthread_key_delete(key);
}

/* Many keys, past the 32 that the thread block has room for. */
enum { KEYS = 200 };
static pthread_key_t keys[KEYS];

static void *set_many(void *arg)
{
	intptr_t base = (intptr_t)arg * 1000;

	for (int i = 0; i < KEYS; i++) {
		CHECK(pthread_getspecific(keys[i]) == NULL);
		CHECK_EQ(pthread_setspecific(keys[i], (void *)(base + i + 1)), 0);
	}
	for (int round = 0; round < 5; round++) {
		sched_yield();
		for (int i = 0; i < KEYS; i++)
			CHECK((intptr_t)pthread_getspecific(keys[i]) == base + i + 1);
	}
	return NULL;
}

static void many_keys(void)
{
	pthread_t t[20];

	destroyed = 0;
	for (int i = 0; i < KEYS; i++)
		REQUIRE_OK(pthread_key_create(&keys[i], count_destroyed));
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(set_many, (void *)(intptr_t)(i + 1));
	set_many((void *)99);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(destroyed, KEYS * COUNT(t));
	for (int i = 0; i < KEYS; i++)
		CHECK_EQ(pthread_key_delete(keys[i]), 0);
}

static void limits_and_errors(void)
{
	pthread_key_t all[PTHREAD_KEYS_MAX + 1];
	int n = 0, rc = 0;

	while (n <= PTHREAD_KEYS_MAX && (rc = pthread_key_create(&all[n], NULL)) == 0)
		n++;
	CHECK_EQ(rc, EAGAIN);
	CHECK(n > 128 && n <= PTHREAD_KEYS_MAX);
	for (int i = 0; i < n; i++)
		CHECK_EQ(pthread_key_delete(all[i]), 0);
	CHECK_EQ(pthread_key_delete(all[0]), EINVAL);
	CHECK_EQ(pthread_setspecific(all[0], &n), EINVAL);
	CHECK(pthread_getspecific(all[0]) == NULL);
	CHECK_EQ(pthread_key_delete((pthread_key_t)-1), EINVAL);
	CHECK_EQ(pthread_setspecific((pthread_key_t)-1, &n), EINVAL);
}

/* A key deleted and made again reads NULL in threads that had set the old one. */
static pthread_barrier_t step;

static void *across_delete(void *arg)
{
	pthread_setspecific(key, arg);
	pthread_barrier_wait(&step);
	pthread_barrier_wait(&step);
	CHECK(pthread_getspecific(key) == NULL);
	pthread_setspecific(key, arg);
	CHECK(pthread_getspecific(key) == arg);
	return NULL;
}

static void deleted_and_made_again(void)
{
	pthread_t t[8];

	destroyed = 0;
	pthread_barrier_init(&step, NULL, COUNT(t) + 1);
	pthread_key_create(&key, count_destroyed);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(across_delete, &step);
	pthread_barrier_wait(&step);
	CHECK_EQ(pthread_key_delete(key), 0);
	CHECK_EQ(destroyed, 0);
	CHECK_EQ(pthread_key_create(&key, count_destroyed), 0);
	pthread_barrier_wait(&step);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(destroyed, COUNT(t));
	pthread_key_delete(key);
}

/* A thread made from the remains of another must not inherit its values. */
static void *leave_value(void *arg)
{
	CHECK(pthread_getspecific(key) == NULL);
	pthread_setspecific(key, arg);
	return NULL;
}

static void reused_threads_start_clean(void)
{
	pthread_key_create(&key, NULL);
	for (int i = 0; i < 500; i++)
		join(spawn(leave_value, &destroyed));
	pthread_key_delete(key);
}

/* exit() runs no destructors, for main or anyone. */
static void must_not_run(void *value)
{
	(void)value;
	say("destructor ran at exit");
	_exit(3);
}

static void *set_and_sleep(void *arg)
{
	pthread_setspecific(key, &key);
	__atomic_store_n((int *)arg, 1, __ATOMIC_RELEASE);
	for (;;)
		pause();
	return NULL;
}

static int exit_with_values(void)
{
	int here = 0;

	pthread_key_create(&key, must_not_run);
	pthread_setspecific(key, &key);
	spawn(set_and_sleep, &here);
	wait_for(&here, 1, 10000);
	exit(0);
}

static void exit_runs_no_destructors(void)
{
	CHECK_EQ(in_child(exit_with_values), 0);
}

static const struct test_case cases[] = {
    {"exit_runs_no_destructors", exit_runs_no_destructors},
    {"one_value_per_thread", one_value_per_thread},
    {"null_is_not_destroyed", null_is_not_destroyed},
    {"null_inside_the_destructor", null_inside_the_destructor},
    {"iterations_are_bounded", iterations_are_bounded},
    {"iterations_stop_early", iterations_stop_early},
    {"destructors_set_each_other", destructors_set_each_other},
    {"destructors_that_block", destructors_that_block},
    {"many_keys", many_keys},
    {"limits_and_errors", limits_and_errors},
    {"deleted_and_made_again", deleted_and_made_again},
    {"reused_threads_start_clean", reused_threads_start_clean},
};

TEST_MAIN(cases)
