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

/* What this process has computed so far, whatever else has had the CPU meanwhile. */
static int64_t cpu_ms(void)
{
	struct timespec ts;

	REQUIRE(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts) == 0);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
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
	int64_t start = cpu_ms();
	for (int i = 0; i < NAPS; i++)
		usleep(1000);
	int64_t spun = cpu_ms() - start;
	stop = 1;
	join(t);
	for (int i = 0; i < RIVALS; i++) {
		kill(rivals[i], SIGKILL);
		waitpid(rivals[i], NULL, 0);
	}
	CHECK(turns > 0);
	/* A slice or two for each when all have their turn. */
	if (spun > NAPS * 300)
		FAIL("%ld ms of computing beside %d naps of 1 ms", (long)spun, NAPS);
}

static const struct test_case cases[] = {
    {"naps_beside_a_spinner", naps_beside_a_spinner},
};

TEST_MAIN(cases)
