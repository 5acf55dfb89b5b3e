/* So many threads, parked on one condition. */
#include "../test.h"

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static volatile int here;

static void *waits_for_ever(void *arg)
{
	pthread_mutex_lock(&m);
	here++;
	for (;;)
		pthread_cond_wait(&never, &m);
	return arg;
}

int main(int argc, char **argv)
{
	int n = argc > 1 ? atoi(argv[1]) : 10000;

	for (int i = 0; i < n; i++)
		spawn(waits_for_ever, NULL);
	REQUIRE(wait_for(&here, n, 30000));
	sleep_ms(100);
	say("ready");
	pause();
	return 0;
}
