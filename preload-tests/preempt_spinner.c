/*
 * Loops without calls: a thread that spins on a flag must not keep from running whoever sets it,
 * with fewer processors than spinners, whichever of them is main. Only preemption helps here.
 *
 * Nothing is timed: the spinners go on until the one that waits has run, so that a case which comes to its
 * end has shown what it says, and one that is not preempted never ends.
 */
#include "test.h"

static int flag, started;

static void *spin(void *arg)
{
	__atomic_add_fetch(&started, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&flag, __ATOMIC_ACQUIRE))
		;
	return arg;
}

static void main_sets_it_after_a_sleep(void)
{
	pthread_t t[6];

	for (int round = 0; round < 2; round++) {
		flag = started = 0;
		for (unsigned i = 0; i < COUNT(t); i++)
			t[i] = spawn(spin, NULL);
		/* Each gets its turn although those before it spin, and so does the sleeper. */
		do
			sleep_ms(20);
		while (__atomic_load_n(&started, __ATOMIC_ACQUIRE) != (int)COUNT(t));
		__atomic_store_n(&flag, 1, __ATOMIC_RELEASE);
		for (unsigned i = 0; i < COUNT(t); i++)
			join(t[i]);
	}
}

static void *set_flag(void *arg)
{
	__atomic_store_n(&flag, 1, __ATOMIC_RELEASE);
	return arg;
}

static void main_spins(void)
{
	for (int round = 0; round < 10; round++) {
		flag = 0;
		pthread_t t = spawn(set_flag, NULL);
		while (!__atomic_load_n(&flag, __ATOMIC_ACQUIRE))
			;
		join(t);
	}
}

/* Each spins until its number comes up: as many switches as there are steps, none of them
 * voluntary. */
static int turn;
enum { CHAIN = 6, STEPS = 3 };

static void *spin_for_turn(void *arg)
{
	int me = (int)(intptr_t)arg;

	for (int s = 0; s < STEPS; s++) {
		while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) != s * CHAIN + me)
			;
		__atomic_add_fetch(&turn, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void chain_of_spinners(void)
{
	pthread_t t[CHAIN];

	turn = 0;
	for (int i = 0; i < CHAIN; i++)
		t[i] = spawn(spin_for_turn, (void *)(intptr_t)i);
	for (int i = 0; i < CHAIN; i++)
		join(t[i]);
	CHECK_EQ(turn, CHAIN * STEPS);
}

/* Wake-ups get through: a byte through pipes while spinners hold every processor. */
static int fds[2][2];

static void *echo(void *arg)
{
	char c;

	while (read(fds[0][0], &c, 1) == 1)
		CHECK_EQ(write(fds[1][1], &c, 1), 1);
	return arg;
}

static void wakeups_among_spinners(void)
{
	pthread_t t[6], e;
	char c = 'x';

	flag = started = 0;
	REQUIRE(pipe(fds[0]) == 0 && pipe(fds[1]) == 0);
	e = spawn(echo, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(spin, NULL);
	for (int i = 0; i < 5 || __atomic_load_n(&started, __ATOMIC_ACQUIRE) != (int)COUNT(t);
	     i++) {
		CHECK_EQ(write(fds[0][1], &c, 1), 1);
		CHECK_EQ(read(fds[1][0], &c, 1), 1);
	}
	__atomic_store_n(&flag, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	close(fds[0][1]);
	join(e);
	close(fds[0][0]);
	close(fds[1][0]);
	close(fds[1][1]);
}

/* Spinners share the processors: each does some of the work. */
static int64_t work[6];

static void *count_work(void *arg)
{
	int64_t *mine = arg;

	while (!__atomic_load_n(&flag, __ATOMIC_RELAXED))
		__atomic_store_n(mine, *mine + 1, __ATOMIC_RELAXED);
	return NULL;
}

static void spinners_share(void)
{
	pthread_t t[COUNT(work)];

	flag = 0;
	memset(work, 0, sizeof work);
	for (unsigned i = 0; i < COUNT(work); i++)
		t[i] = spawn(count_work, &work[i]);
	/* More than once: each gets its turn again. */
	for (int round = 0; round < 5; round++)
		for (unsigned i = 0; i < COUNT(work); i++) {
			int64_t before = __atomic_load_n(&work[i], __ATOMIC_RELAXED);
			while (__atomic_load_n(&work[i], __ATOMIC_RELAXED) == before)
				sleep_ms(5);
		}
	__atomic_store_n(&flag, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT(work); i++)
		join(t[i]);
}

/* A tight loop of two instructions, and one of nothing but a jump in assembly. */
static void *spin_tight(void *arg)
{
	__asm__ volatile("1: cmpl $0, %0\n\tje 1b" : : "m"(flag) : "cc", "memory");
	return arg;
}

static void tight_loop(void)
{
	pthread_t t[8];

	flag = 0;
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(spin_tight, NULL);
	sleep_ms(30);
	__atomic_store_n(&flag, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static const struct test_case cases[] = {
    {"main_sets_it_after_a_sleep", main_sets_it_after_a_sleep},
    {"main_spins", main_spins},
    {"chain_of_spinners", chain_of_spinners},
    {"wakeups_among_spinners", wakeups_among_spinners},
    {"spinners_share", spinners_share},
    {"tight_loop", tight_loop},
};

TEST_MAIN(cases)
