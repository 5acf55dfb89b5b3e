/*
 * process_vfork_handlers.c - a vfork child that resets signal handlers changes its own, not its parent's.
 *
 * Handlers belong to the child at once, although it shares the parent's memory (CLONE_VM without
 * CLONE_SIGHAND). Python's subprocess makes its children so.
 */
#include "test.h"

#include <sys/wait.h>

static volatile sig_atomic_t children, users;

static void on_signal(int sig)
{
	if (sig == SIGCHLD)
		children++;
	else
		users++;
}

static void *nothing(void *arg)
{
	return arg;
}

static void *spawns(void *arg)
{
	for (int i = 0; i < 20; i++) {
		int status = -1, before = children;
		pid_t pid = vfork();

		REQUIRE(pid >= 0);
		if (pid == 0) {
			for (int sig = 1; sig < 32; sig++)
				signal(sig, SIG_DFL);
			execl("/bin/true", "true", (char *)NULL);
			_exit(127);
		}
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK_EQ(status, 0);
		for (int ms = 0; children == before && ms < 10000; ms++)
			sleep_ms(1);
		CHECK(children > before);
		CHECK_EQ(raise(SIGUSR1), 0);
		CHECK_EQ(users, i + 1);
	}
	return arg;
}

static void parent_keeps_its_handlers(void)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	join(spawn(nothing, NULL));
	sigaction(SIGCHLD, &sa, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	users = 0;
	spawns(NULL);
	users = 0;
	join(spawn(spawns, NULL));
}

static const struct test_case cases[] = {
    {"parent_keeps_its_handlers", parent_keeps_its_handlers},
};

TEST_MAIN(cases)
