/*
 * sched_yield lets others go on: threads that only yield while they wait for each other make
 * progress, on one processor too, and it always returns 0.
 */
#include "test.h"

static int turn;
enum { N = 8, ROUNDS = 500 };

static void *take_turns(void *arg)
{
	int me = (int)(intptr_t)arg;

	for (int r = 0; r < ROUNDS; r++) {
		while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) % N != me)
			CHECK_EQ(sched_yield(), 0);
		__atomic_add_fetch(&turn, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void round_robin(void)
{
	pthread_t t[N];

	turn = 0;
	for (int i = 0; i < N; i++)
		t[i] = spawn(take_turns, (void *)(intptr_t)i);
	for (int i = 0; i < N; i++)
		join(t[i]);
	CHECK_EQ(turn, N * ROUNDS);
}

static int done;

static void *set_done(void *arg)
{
	__atomic_add_fetch(&done, 1, __ATOMIC_RELEASE);
	return arg;
}

static void main_yields_to_new_threads(void)
{
	for (int i = 0; i < 100; i++) {
		done = 0;
		pthread_t t = spawn(set_done, NULL);
		while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE))
			sched_yield();
		join(t);
	}
}

/* Yielding threads must not keep sleepers and timers from their time. */
static int stop;

static void *yield_on(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		sched_yield();
	return arg;
}

static void sleepers_among_yielders(void)
{
	pthread_t t[N];

	stop = 0;
	for (int i = 0; i < N; i++)
		t[i] = spawn(yield_on, NULL);
	/* They yield until it has slept. */
	for (int i = 0; i < 20; i++)
		sleep_ms(5);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (int i = 0; i < N; i++)
		join(t[i]);
}

static int reading_ends;

/* Nearly all of its time is spent in libc's own code. */
static void *read_lines(void *arg)
{
	FILE *f = fopen("/proc/self/exe", "r");
	char *line = NULL;
	size_t room = 0;

	REQUIRE(f);
	while (!__atomic_load_n(&reading_ends, __ATOMIC_RELAXED)) {
		rewind(f);
		CHECK(getdelim(&line, &room, 256, f) > 0);
	}
	free(line);
	fclose(f);
	return arg;
}

/* Loops of library calls give way, though each of them can't be interrupted. */
static void loops_in_libc(void)
{
	pthread_t t[8];

	reading_ends = 0;
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(read_lines, NULL);
	for (int i = 0; i < 20; i++)
		sleep_ms(1);
	__atomic_store_n(&reading_ends, 1, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static const struct test_case cases[] = {
    {"round_robin", round_robin},
    {"main_yields_to_new_threads", main_yields_to_new_threads},
    {"sleepers_among_yielders", sleepers_among_yielders},
    {"loops_in_libc", loops_in_libc},
};

TEST_MAIN(cases)
