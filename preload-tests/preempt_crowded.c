/*
 * A thread that computes while other processes want its CPU: it is seldom running at the moment
 * when somebody looks, and must share its processor all the same.
 */
#include "test.h"

#include <sched.h>
#include <sys/wait.h>

enum { RIVALS = 6, NAPS = 10 };

static volatile int stop;
static volatile unsigned long turns;

static void *computes(void *arg)
{
	while (!stop)
		turns++;
	return arg;
}

static void naps_beside_a_spinner(void)
{
	pid_t rivals[RIVALS];
	cpu_set_t set;
	pthread_t t;

	/* All on one CPU. */
	REQUIRE(sched_getaffinity(0, sizeof set, &set) == 0);
	for (int i = 0, kept = 0; i < CPU_SETSIZE; i++) {
		if (CPU_ISSET(i, &set) && kept++)
			CPU_CLR(i, &set);
	}
	REQUIRE(sched_setaffinity(0, sizeof set, &set) == 0);
	for (int i = 0; i < RIVALS; i++) {
		rivals[i] = fork();
		if (rivals[i] == 0) {
			alarm(100);
			for (;;)
				turns++;
		}
		REQUIRE(rivals[i] > 0);
	}
	t = spawn(computes, NULL);
	int64_t start = now_ms();
	for (int i = 0; i < NAPS; i++)
		usleep(1000);
	int64_t took = now_ms() - start;
	stop = 1;
	join(t);
	for (int i = 0; i < RIVALS; i++) {
		kill(rivals[i], SIGKILL);
		waitpid(rivals[i], NULL, 0);
	}
	CHECK(turns > 0);
	/* Some 50 ms each when all have their turn. */
	if (took > 20000)
		FAIL("%d naps of 1 ms took %ld ms", NAPS, (long)took);
}

static const struct test_case cases[] = {
    {"naps_beside_a_spinner", naps_beside_a_spinner},
};

TEST_MAIN(cases)
