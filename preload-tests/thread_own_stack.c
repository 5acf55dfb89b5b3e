/*
 * Detached threads, one after the other on one stack of the program's own. Each says by a semaphore that it is about
 * to end, and the stack is given to the next. Natively that is right but for a microsecond, so there
 * the kernel thread's end is waited for.
 */
#include "test.h"

#include <semaphore.h>

enum { SIZE = 64 * 1024, ROUNDS = 3000 };

static sem_t ending;
static char *stack;
static int ran;

static int depth(int n)
{
	volatile char frame[256];
	memset((char *)frame, n, sizeof frame);
	return n ? depth(n - 1) + frame[n] - n + 1 : 0;
}

static void *run(void *arg)
{
	char here;
	CHECK(&here >= stack && &here < stack + SIZE);
	CHECK_EQ(depth(20), 20);
	ran += arg == &ending;
	sem_post(&ending);
	return NULL;
}

static void reused(void)
{
	pthread_attr_t attr;
	pthread_t t;

	stack = aligned_alloc(4096, SIZE);
	CHECK_EQ(sem_init(&ending, 0, 0), 0);
	CHECK_EQ(pthread_attr_init(&attr), 0);
	CHECK_EQ(pthread_attr_setstack(&attr, stack, SIZE), 0);
	CHECK_EQ(pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED), 0);
	for (int i = 0; i < ROUNDS; i++) {
		CHECK_EQ(pthread_create(&t, &attr, run, &ending), 0);
		while (sem_wait(&ending) != 0)
			;
		while (!under_shim() && kernel_threads() > 1)
			sched_yield();
	}
	CHECK_EQ(ran, ROUNDS);
}

static const struct test_case cases[] = {
    {"reused", reused},
};

TEST_MAIN(cases)
