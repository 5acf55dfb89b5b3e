/*
 * What an event of goshim's costs: calls that can wait and don't (a byte of a file), or switches between two threads
 * that yield, in batches with pauses, so that whoever records them comes along. The figure is the CPU time of the process
 * for one, that of the quickest quarter of batches at most: others on the machine are not in it. `ops` are all that were made.
 */
#include "bench.h"
#include <sched.h>
#include <sys/mman.h>

enum { BATCH = 2000, MOST = 20000, PAUSE = 1000 /* us */ };

static int file;
static bool yields;
static atomic_bool over, pausing;
static atomic_ulong others;

static double cpu(void)
{
	struct timespec ts;
	CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts) == 0);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void *other(void *arg)
{
	while (yields && !atomic_load_explicit(&over, memory_order_relaxed)) {
		if (atomic_load_explicit(&pausing, memory_order_relaxed))
			usleep(PAUSE);
		sched_yield();
		atomic_fetch_add_explicit(&others, 1, memory_order_relaxed);
	}
	return arg;
}

static void batch(void)
{
	char byte;
	for (int i = 0; i < BATCH; i++) {
		if (yields)
			sched_yield();
		else
			CHECK(pread(file, &byte, 1, 0) == 1);
	}
}

static int order(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	static double each[MOST];
	double seconds = option(argc, argv, "seconds", 1);
	unsigned long n = 0, ops = 0;
	pthread_t t;
	yields = option(argc, argv, "yields", 0) != 0;
	file = memfd_create("events", 0);
	CHECK(file >= 0 && write(file, "x", 1) == 1);
	OK(pthread_create(&t, NULL, other, NULL));
	for (double end = now() + seconds; now() < end && n < MOST; n++) {
		unsigned long before = atomic_load(&others);
		double start = cpu();
		batch();
		double took = cpu() - start;
		unsigned long did = BATCH + atomic_load(&others) - before;
		each[n] = took / (double)did;
		ops += did;
		atomic_store(&pausing, true);
		usleep(PAUSE);
		atomic_store(&pausing, false);
	}
	atomic_store(&over, true);
	OK(pthread_join(t, NULL));
	CHECK(n > 0);
	qsort(each, n, sizeof *each, order);
	printf("ops=%lu\nns=%.2f\n", ops, each[n / 4]);
	return 0;
}
