/*
 * Two threads pass a turn to and fro with a mutex and a condition variable each: the cost of waking
 * the one and putting the other to sleep. One hand-off is half a round trip.
 */
#include "bench.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned[2] = {PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER};
static int turn;
static bool stop;
static uint64_t handoffs;
static double seconds, took;

static void *play(void *arg)
{
	int me = arg != NULL;
	double start = now();
	OK(pthread_mutex_lock(&mutex));
	while (!stop) {
		while (turn != me && !stop)
			OK(pthread_cond_wait(&turned[me], &mutex));
		if (stop)
			break;
		turn = !me;
		handoffs++;
		if (handoffs % 1024 == 0 && (took = now() - start) >= seconds)
			stop = true;
		OK(pthread_cond_signal(&turned[!me]));
	}
	OK(pthread_mutex_unlock(&mutex));
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[2];
	seconds = option(argc, argv, "seconds", 1);
	for (int i = 0; i < 2; i++)
		OK(pthread_create(&t[i], NULL, play, i ? &turn : NULL));
	for (int i = 0; i < 2; i++)
		OK(pthread_join(t[i], NULL));
	CHECK(handoffs > 0 && handoffs % 1024 == 0);
	printf("ops=%llu\nns=%.1f\n", (unsigned long long)handoffs, took * 1e9 / (double)handoffs);
}
