/*
 * Four threads that do nothing but yield. The figure is wall time over all yields of all threads.
 */
#include "bench.h"
#include <sched.h>

enum { THREADS = 4, BATCH = 100 };

static double seconds;
static atomic_bool stop;

static void *work(void *arg)
{
	uint64_t n = 0;
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		for (int i = 0; i < BATCH; i++)
			CHECK(sched_yield() == 0);
		n += BATCH;
	}
	*(uint64_t *)arg = n;
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[THREADS];
	uint64_t n[THREADS], total = 0;
	seconds = option(argc, argv, "seconds", 1);
	double start = now();
	for (int i = 0; i < THREADS; i++)
		OK(pthread_create(&t[i], NULL, work, &n[i]));
	usleep((useconds_t)(seconds * 1e6));
	atomic_store(&stop, true);
	for (int i = 0; i < THREADS; i++) {
		OK(pthread_join(t[i], NULL));
		total += n[i];
	}
	CHECK(total > 0);
	printf("ops=%llu\nns=%.1f\n", (unsigned long long)total,
	       (now() - start) * 1e9 / (double)total);
}
