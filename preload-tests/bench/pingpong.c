/*
 * Two threads send each other one byte through two pipes, with blocking reads. One hand-off is half a round trip.
 */
#include "bench.h"

static int ways[2][2];
static atomic_bool stop;
static uint64_t count[2];
static double seconds, took;

static void *play(void *arg)
{
	int me = arg != NULL;
	char ball = 0;
	double start = now();
	for (;;) {
		CHECK(read(ways[me][0], &ball, 1) == 1 && ball == (char)(2 * count[me] + me));
		count[me]++;
		bool last = atomic_load(&stop);
		if (!last && me && count[me] % 512 == 0 && (took = now() - start) >= seconds)
			atomic_store(&stop, true);
		ball++;
		CHECK(write(ways[!me][1], &ball, 1) == 1);
		if (last || (me && atomic_load(&stop)))
			return NULL;
	}
}

int main(int argc, char **argv)
{
	pthread_t t[2];
	seconds = option(argc, argv, "seconds", 1);
	CHECK(pipe(ways[0]) == 0 && pipe(ways[1]) == 0 && write(ways[0][1], "", 1) == 1);
	for (int i = 0; i < 2; i++)
		OK(pthread_create(&t[i], NULL, play, i ? &stop : NULL));
	for (int i = 0; i < 2; i++)
		OK(pthread_join(t[i], NULL));
	/* The first player may be one ahead: it serves, and is told to stop by the second's last return. */
	CHECK(count[0] == count[1] + 1);
	uint64_t n = count[0] + count[1];
	printf("ops=%llu\nns=%.1f\n", (unsigned long long)n, took * 1e9 / (double)n);
}
