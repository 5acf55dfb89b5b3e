/*
 * What a running handler alone blocks, all others by their masks, waits for that handler's end though
 * its action is the default one, and comes from another process: to end the process, or to stop it.
 */
#include "test.h"

#include <sys/prctl.h>

static int held, to_parent[2], to_child[2];

static void tell(char what)
{
	REQUIRE(write(to_parent[1], &what, 1) == 1);
}

static void handler(int sig)
{
	char ch;

	(void)sig;
	tell('b');
	REQUIRE(read(to_child[0], &ch, 1) == 1);
	/* It was sent, and it would have come by now. */
	sleep_ms(30);
	tell('e');
}

static void *wait_for_ever(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static _Noreturn void receive(void)
{
	struct sigaction sa = {.sa_handler = handler};
	struct rlimit none = {0, 0};
	sigset_t all, before;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setpgid(
	    0, 0); /* not orphaned, as its parent is elsewhere in this session: it can be stopped */
	setrlimit(RLIMIT_CORE, &none);
	sigemptyset(&sa.sa_mask);
	sigaddset(&sa.sa_mask, held);
	REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
	sigfillset(&all);
	REQUIRE_OK(pthread_sigmask(SIG_SETMASK, &all, &before));
	for (int i = 0; i < 3; i++)
		spawn(wait_for_ever, NULL);
	REQUIRE_OK(pthread_sigmask(SIG_SETMASK, &before, NULL));
	raise(SIGUSR1);
	wait_for_ever(NULL);
	_exit(3);
}

static char told(void)
{
	char ch = '-';
	struct pollfd p = {to_parent[0], POLLIN, 0};

	return poll(&p, 1, 5000) == 1 && read(to_parent[0], &ch, 1) == 1 ? ch : '-';
}

static void holds(int sig)
{
	int status = -1;

	held = sig;
	REQUIRE(pipe(to_parent) == 0 && pipe(to_child) == 0);
	pid_t pid = fork();
	REQUIRE(pid >= 0);
	if (pid == 0) {
		close(to_parent[0]);
		receive();
	}
	close(to_parent[1]);
	CHECK_EQ(told(), 'b');
	CHECK_EQ(kill(pid, sig), 0);
	CHECK_EQ(write(to_child[1], "", 1), 1);
	CHECK_EQ(told(), 'e');
	CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
	if (sig == SIGTSTP) {
		CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == sig);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	} else {
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == sig);
	}
	close(to_parent[0]);
	close(to_child[0]);
	close(to_child[1]);
}

static void one_that_ends(void)
{
	holds(SIGTERM);
}

static void one_that_is_queued(void)
{
	holds(SIGRTMIN + 1);
}

static void one_with_a_core_file(void)
{
	holds(SIGQUIT);
}

static void one_that_stops(void)
{
	holds(SIGTSTP);
}

static const struct test_case cases[] = {
    {"one_that_ends", one_that_ends},
    {"one_that_is_queued", one_that_is_queued},
    {"one_with_a_core_file", one_with_a_core_file},
    {"one_that_stops", one_that_stops},
};

TEST_MAIN(cases)
