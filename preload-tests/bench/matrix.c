/*
 * Computes without a call: threads=NUMBER threads multiply matrices that fit into a cache of their CPU's, rounds=NUMBER times
 * each, and check the sum. What it costs is read from outside.
 */
#include "bench.h"

enum { N = 64 };

static unsigned rounds;

struct work {
	double a[N][N], b[N][N], c[N][N];
};

static void *multiply(void *arg)
{
	struct work *w = calloc(1, sizeof *w);
	double sum = 0;

	CHECK(w);
	for (unsigned i = 0; i < N; i++)
		for (unsigned j = 0; j < N; j++) {
			w->a[i][j] = i == j;
			w->b[i][j] = i + j;
		}
	for (unsigned r = 0; r < rounds; r++) {
		/* By another unit matrix each time, or the compiler multiplies once. */
		for (unsigned i = 0; i < N; i++)
			w->a[i][i] = 1 + r % 2;
		memset(w->c, 0, sizeof w->c);
		for (unsigned i = 0; i < N; i++)
			for (unsigned k = 0; k < N; k++)
				for (unsigned j = 0; j < N; j++)
					w->c[i][j] += w->a[i][k] * w->b[k][j];
		sum += w->c[r % N][N - 1];
	}
	double expected = 0;
	for (unsigned r = 0; r < rounds; r++)
		expected += (1 + r % 2) * (double)(r % N + N - 1);
	CHECK(sum == expected);
	free(w);
	return arg;
}

int main(int argc, char **argv)
{
	unsigned threads = (unsigned)option(argc, argv, "threads", 4);
	rounds = (unsigned)option(argc, argv, "rounds", 10000);
	pthread_t *t = calloc(threads, sizeof *t);

	CHECK(t && threads);
	for (unsigned i = 0; i < threads; i++)
		OK(pthread_create(&t[i], NULL, multiply, NULL));
	for (unsigned i = 0; i < threads; i++)
		OK(pthread_join(t[i], NULL));
	printf("products=%u\n", threads * rounds);
}
