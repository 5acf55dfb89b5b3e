/*
 * Locks and unlocks a mutex that nobody else wants. In a second thread, with main waiting to join
 * it: glibc leaves out the atomic instructions while a process has one thread only.
 */
#include "bench.h"

enum { BATCH = 10000 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static double seconds;
static volatile uint64_t counter;

static void *work(void *arg)
{
	uint64_t n = 0;
	double start = now(), took;
	do {
		for (int i = 0; i < BATCH; i++) {
			pthread_mutex_lock(&mutex);
			counter = counter + 1;
			pthread_mutex_unlock(&mutex);
		}
		n += BATCH;
	} while ((took = now() - start) < seconds);
	CHECK(counter == n);
	printf("ops=%llu\nns=%.2f\n", (unsigned long long)n, took * 1e9 / (double)n);
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t;
	seconds = option(argc, argv, "seconds", 1);
	OK(pthread_create(&t, NULL, work, NULL));
	OK(pthread_join(t, NULL));
}
