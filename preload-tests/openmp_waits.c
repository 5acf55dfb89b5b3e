/*
 * OpenMP's teams wait as they please: libgomp spins in its barriers and locks, for ever if it is told to
 * (OMP_WAIT_POLICY=active), and then waits by futex system calls of its own, inline. With fewer processors
 * than threads who spins must make way for those it spins for. The answers are those of one thread.
 */
#include "test.h"

#include <omp.h>

enum { ROUNDS = 12, TERMS = 200 };

/* Each round all write, and one sums up between two barriers. */
static void barriers(int n)
{
	long sum = 0, want = 0, *values = calloc((size_t)n, sizeof *values);

#pragma omp parallel num_threads(n)
	for (int i = 0; i < ROUNDS; i++) {
		values[omp_get_thread_num()] += i + omp_get_thread_num();
#pragma omp barrier
#pragma omp single
		for (int k = 0; k < n; k++)
			sum += values[k];
	}
	for (int k = 0; k < n; k++)
		for (int i = 0; i < ROUNDS; i++)
			want += (long)(ROUNDS - i) * (i + k);
	CHECK_EQ(sum, want);
	free(values);
}

static void nested(int n)
{
	long sum = 0;

#pragma omp parallel num_threads(n) reduction(+ : sum)
	{
		long inner = 0;

#pragma omp parallel num_threads(3) reduction(+ : inner)
		{
			inner += 1 + omp_get_thread_num();
#pragma omp barrier
		}
		sum += inner;
	}
	CHECK_EQ(sum, n * 6);
}

static long fibonacci(int i)
{
	long a, b;

	if (i < 2)
		return i;
#pragma omp task shared(a)
	a = fibonacci(i - 1);
#pragma omp task shared(b)
	b = fibonacci(i - 2);
#pragma omp taskwait
	return a + b;
}

static void tasks(int n)
{
	long got = 0;

#pragma omp parallel num_threads(n)
#pragma omp single
	got = fibonacci(10);
	CHECK_EQ(got, 55);
}

static void ordered(int n)
{
	unsigned long hash = 0, want = 0;

#pragma omp parallel for ordered schedule(dynamic, 3) num_threads(n)
	for (int i = 0; i < TERMS; i++) {
#pragma omp ordered
		hash = hash * 31 + (unsigned long)i;
	}
	for (int i = 0; i < TERMS; i++)
		want = want * 31 + (unsigned long)i;
	CHECK(hash == want);
}

static void locks(int n)
{
	long by_lock = 0, by_section = 0, by_atomic = 0;
	omp_lock_t lock;

	omp_init_lock(&lock);
#pragma omp parallel num_threads(n)
	for (int i = 0; i < TERMS; i++) {
		omp_set_lock(&lock);
		by_lock++;
		omp_unset_lock(&lock);
#pragma omp critical
		by_section++;
#pragma omp atomic
		by_atomic++;
	}
	CHECK_EQ(by_lock, (long)n * TERMS);
	CHECK_EQ(by_section, (long)n * TERMS);
	CHECK_EQ(by_atomic, (long)n * TERMS);
	omp_destroy_lock(&lock);
}

static int teams(void)
{
	static const int sizes[] = {1, 2, 3, 7};

	omp_set_dynamic(0);
	omp_set_max_active_levels(2);
	for (size_t i = 0; i < COUNT(sizes); i++) {
		barriers(sizes[i]);
		nested(sizes[i]);
		tasks(sizes[i]);
		ordered(sizes[i]);
		locks(sizes[i]);
	}
	return test_failures != 0;
}

/* The policy is read when the program starts. */
static int again(void)
{
	execl("/proc/self/exe", "openmp_waits", "teams", NULL);
	return 1;
}

static void by_policy(const char *policy)
{
	setenv("OMP_WAIT_POLICY", policy, 1);
	CHECK_EQ(in_child(again), 0);
	unsetenv("OMP_WAIT_POLICY");
}

static void active(void)
{
	by_policy("active");
}

static void passive(void)
{
	by_policy("passive");
}

/* Neither: it spins for a while. */
static void undecided(void)
{
	CHECK_EQ(in_child(again), 0);
}

static const struct test_case cases[] = {
    {"active", active},
    {"passive", passive},
    {"undecided", undecided},
};

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "teams") == 0)
		return teams();
	return test_run(argc, argv, cases, COUNT(cases));
}
