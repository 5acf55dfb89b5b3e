/*
 * A thread that does nothing but raw system calls, which no signal can interrupt, still runs its
 * handlers between them.
 */
#include "test.h"

static volatile int stop;

static void onalarm(int sig)
{
	(void)sig;
	stop = 1;
}

/* MEMBARRIER_CMD_GLOBAL: waits in the kernel for a while, uninterruptibly. */
static void *barriers(void *arg)
{
	long n = 0;

	while (!stop) {
		if (syscall(SYS_membarrier, 1, 0, 0) != 0)
			sleep_ms(1);
		n++;
	}
	CHECK(n > 0 || arg == NULL);
	return NULL;
}

static void handler_between_calls(void)
{
	pthread_t t[3];
	int64_t start = now_ms();

	stop = 0;
	REQUIRE(signal(SIGALRM, onalarm) != SIG_ERR);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(barriers, NULL);
	alarm(1);
	barriers(NULL);
	CHECK(now_ms() - start < 10000);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static const struct test_case cases[] = {
    {"handler_between_calls", handler_between_calls},
};

TEST_MAIN(cases)
