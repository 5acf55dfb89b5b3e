/*
 * Creates a thread and joins it, over and over: what a program pays that starts a thread for each
 * small piece of work. One thread is alive beside main at any time; a warm-up fills the pools.
 */
#include "bench.h"

static void *add(void *counter)
{
	++*(uint64_t *)counter;
	return counter;
}

static uint64_t go(double seconds, double *took)
{
	uint64_t n = 0, counter = 0;
	double start = now();
	do {
		for (int i = 0; i < 64; i++, n++) {
			pthread_t t;
			void *ret;
			OK(pthread_create(&t, NULL, add, &counter));
			OK(pthread_join(t, &ret));
			CHECK(ret == &counter);
		}
	} while ((*took = now() - start) < seconds);
	CHECK(counter == n);
	return n;
}

int main(int argc, char **argv)
{
	double took, seconds = option(argc, argv, "seconds", 1);
	go(seconds / 10, &took);
	uint64_t n = go(seconds, &took);
	printf("ops=%llu\nns=%.1f\n", (unsigned long long)n, took * 1e9 / (double)n);
}
