/*
 * RLIMIT_CPU: SIGXCPU ends a process whose threads compute, and its handler runs in the thread that computes.
 */
#include "test.h"

static __thread volatile int computes;

static void *spin_for_ever(void *arg)
{
	for (;;)
		__asm__ volatile("" ::: "memory");
	return arg;
}

static int threads_beyond_limit(void)
{
	struct rlimit rl = {1, 3};

	REQUIRE(setrlimit(RLIMIT_CPU, &rl) == 0);
	for (int i = 0; i < 2; i++)
		spawn(spin_for_ever, NULL);
	for (;;)
		pause();
}

static void *compute(void *arg)
{
	computes = 1;
	return spin_for_ever(arg);
}

static void xcpu(int sig, siginfo_t *info, void *uc)
{
	(void)uc;
	_exit(sig == SIGXCPU && info->si_code == SI_KERNEL && computes ? 42 : 43);
}

static int handled_beyond_limit(void)
{
	struct rlimit rl = {1, 3};
	struct sigaction sa = {.sa_sigaction = xcpu, .sa_flags = SA_SIGINFO};

	REQUIRE(sigaction(SIGXCPU, &sa, NULL) == 0);
	REQUIRE(setrlimit(RLIMIT_CPU, &rl) == 0);
	spawn(compute, NULL);
	for (;;)
		pause();
}

static void cpu_limit(void)
{
	int status = in_child(threads_beyond_limit);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU);
	status = in_child(handled_beyond_limit);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

static const struct test_case cases[] = {
    {"cpu_limit", cpu_limit},
};

TEST_MAIN(cases)
