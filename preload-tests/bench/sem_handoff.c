/*
 * Two threads wake each other through two semaphores. One hand-off is half a round trip.
 */
#include "bench.h"
#include <semaphore.h>

static sem_t ball[2];
static atomic_bool stop;
static uint64_t count[2];
static double seconds, took;

static void *play(void *arg)
{
	int me = arg != NULL;
	double start = now();
	for (;;) {
		CHECK(sem_wait(&ball[me]) == 0);
		count[me]++;
		bool last = atomic_load(&stop);
		if (!last && me && count[me] % 512 == 0 && (took = now() - start) >= seconds)
			atomic_store(&stop, true);
		CHECK(sem_post(&ball[!me]) == 0);
		if (last || (me && atomic_load(&stop)))
			return NULL;
	}
}

int main(int argc, char **argv)
{
	pthread_t t[2];
	seconds = option(argc, argv, "seconds", 1);
	CHECK(sem_init(&ball[0], 0, 1) == 0 && sem_init(&ball[1], 0, 0) == 0);
	for (int i = 0; i < 2; i++)
		OK(pthread_create(&t[i], NULL, play, i ? &stop : NULL));
	for (int i = 0; i < 2; i++)
		OK(pthread_join(t[i], NULL));
	/* The first player may be one ahead: it serves, and is told to stop by the second's last return. */
	CHECK(count[0] == count[1] + 1);
	uint64_t n = count[0] + count[1];
	printf("ops=%llu\nns=%.1f\n", (unsigned long long)n, took * 1e9 / (double)n);
}
