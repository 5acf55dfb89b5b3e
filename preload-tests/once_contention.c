/*
 * pthread_once: the routine runs once, everybody returns after it has finished, and waiting for it
 * is parking.
 *
 * The routine may block, create threads, use other once controls, or be left by pthread_exit, after
 * which another caller runs it.
 */
#include "test.h"

static int runs;

static void count_run(void)
{
	__atomic_add_fetch(&runs, 1, __ATOMIC_SEQ_CST);
}

static void runs_once(void)
{
	pthread_once_t once = PTHREAD_ONCE_INIT;

	runs = 0;
	for (int i = 0; i < 10; i++)
		CHECK_EQ(pthread_once(&once, count_run), 0);
	CHECK_EQ(runs, 1);
}

static pthread_once_t slow_once;
static int slow_done, arrived;

static void slow(void)
{
	count_run();
	sleep_ms(100);
	__atomic_store_n(&slow_done, 1, __ATOMIC_RELEASE);
}

static void *call_slow(void *arg)
{
	__atomic_add_fetch(&arrived, 1, __ATOMIC_RELEASE);
	CHECK_EQ(pthread_once(&slow_once, slow), 0);
	CHECK_EQ(__atomic_load_n(&slow_done, __ATOMIC_ACQUIRE), 1);
	return arg;
}

static void everybody_waits_for_it(void)
{
	enum { N = 200 };
	pthread_t t[N];

	slow_once = PTHREAD_ONCE_INIT;
	runs = slow_done = arrived = 0;
	for (int i = 0; i < N; i++)
		t[i] = spawn(call_slow, NULL);
	for (int i = 0; i < N; i++)
		join(t[i]);
	CHECK_EQ(runs, 1);
}

/* Goroutines wait for a routine that waits for them to be counted. */
static pthread_once_t held_once;
static int held_go;

static void held(void)
{
	count_run();
	CHECK(wait_for(&held_go, 1, 20000));
}

static void *call_held(void *arg)
{
	__atomic_add_fetch(&arrived, 1, __ATOMIC_RELEASE);
	pthread_once(&held_once, held);
	return arg;
}

static void waiting_is_parking(void)
{
	enum { N = 200 };
	pthread_t t[N];

	held_once = PTHREAD_ONCE_INIT;
	runs = arrived = held_go = 0;
	for (int i = 0; i < N; i++)
		t[i] = spawn(call_held, NULL);
	CHECK(wait_for(&arrived, N, 20000));
	sleep_ms(20);
	check_goroutines(N);
	__atomic_store_n(&held_go, 1, __ATOMIC_RELEASE);
	for (int i = 0; i < N; i++)
		join(t[i]);
	CHECK_EQ(runs, 1);
}

static pthread_once_t many_once[500];
static int many_runs[500];
static __thread int current;

static void many_routine(void)
{
	many_runs[current]++;
	if (current % 3 == 0)
		sched_yield();
}

static void *call_many(void *arg)
{
	for (unsigned i = 0; i < COUNT(many_once); i++) {
		current = (int)i;
		pthread_once(&many_once[i], many_routine);
		CHECK_EQ(__atomic_load_n(&many_runs[i], __ATOMIC_RELAXED), 1);
	}
	return arg;
}

static void many_controls(void)
{
	pthread_t t[16];

	for (unsigned i = 0; i < COUNT(many_once); i++)
		many_once[i] = PTHREAD_ONCE_INIT;
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(call_many, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static pthread_once_t outer_once = PTHREAD_ONCE_INIT, inner_once = PTHREAD_ONCE_INIT;

static void *in_thread(void *arg)
{
	pthread_once(&inner_once, count_run);
	return arg;
}

static void outer(void)
{
	join(spawn(in_thread, NULL));
	pthread_once(&inner_once, count_run);
}

static void nested_with_a_thread_inside(void)
{
	runs = 0;
	pthread_once(&outer_once, outer);
	CHECK_EQ(runs, 1);
}

static pthread_once_t left_once = PTHREAD_ONCE_INIT;
static int leave = 1;

static void left(void)
{
	count_run();
	if (leave) {
		leave = 0;
		sleep_ms(30);
		pthread_exit((void *)5);
	}
}

static void *call_left(void *arg)
{
	pthread_once(&left_once, left);
	return arg;
}

static void left_by_exit_runs_again(void)
{
	runs = 0;
	pthread_t a = spawn(call_left, NULL);
	sleep_ms(10);
	pthread_t b = spawn(call_left, NULL);
	CHECK_EQ((intptr_t)join(a), 5);
	CHECK_EQ((intptr_t)join(b), 0);
	CHECK_EQ(runs, 2);
	pthread_once(&left_once, left);
	CHECK_EQ(runs, 2);
}

static const struct test_case cases[] = {
    {"runs_once", runs_once},
    {"everybody_waits_for_it", everybody_waits_for_it},
    {"waiting_is_parking", waiting_is_parking},
    {"many_controls", many_controls},
    {"nested_with_a_thread_inside", nested_with_a_thread_inside},
    {"left_by_exit_runs_again", left_by_exit_runs_again},
};

TEST_MAIN(cases)
