/*
 * wait and wait3: a thread that waits for a child leaves the others running; it gets the status and what the child used.
 */
#include "test.h"

static volatile int progress, wanted;
static int gate[2];

/* Lets the child of a waiter end once the others have gone on for a while. */
static void *lets_end(void *arg)
{
	while (!__atomic_load_n((int *)arg, __ATOMIC_ACQUIRE)) {
		int before = __atomic_load_n(&wanted, __ATOMIC_ACQUIRE);

		sleep_ms(5);
		if (!before || __atomic_load_n(&progress, __ATOMIC_RELAXED) - before < 100)
			continue;
		__atomic_store_n(&wanted, 0, __ATOMIC_RELAXED);
		REQUIRE(write(gate[1], "", 1) == 1);
	}
	return NULL;
}

static void *goes_on(void *arg)
{
	while (!__atomic_load_n((int *)arg, __ATOMIC_ACQUIRE)) {
		__atomic_add_fetch(&progress, 1, __ATOMIC_RELAXED);
		sched_yield();
	}
	return NULL;
}

static pid_t child(int status)
{
	pid_t pid = fork();
	char c;

	REQUIRE(pid >= 0);
	if (pid == 0)
		_exit(read(gate[0], &c, 1) == 1 ? status : 99);
	return pid;
}

/* From here on who waits for the child gets it only if the others run. */
static void may_end(void)
{
	__atomic_store_n(&wanted, __atomic_load_n(&progress, __ATOMIC_RELAXED) | 1,
			 __ATOMIC_RELEASE);
}

static void *waits(void *arg)
{
	struct rusage used;
	int status = -1;

	memset(&used, -1, sizeof used);
	for (int i = 1; i < 5; i++) {
		pid_t pid = child(i);
		may_end();
		CHECK_EQ(wait(&status), pid);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == i);
		pid = child(10 + i);
		CHECK_EQ(wait3(&status, WNOHANG, NULL), 0);
		may_end();
		CHECK_EQ(wait3(&status, 0, &used), pid);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 10 + i);
		CHECK(used.ru_utime.tv_sec >= 0 && used.ru_utime.tv_sec < 100);
	}
	CHECK_ERRNO(wait(NULL), ECHILD);
	CHECK_ERRNO(wait3(NULL, 0, NULL), ECHILD);
	return arg;
}

BY_MAIN_AND_A_THREAD(waits)

static void with_others(void (*fn)(void))
{
	pthread_t t[4];
	int stop = 0;

	REQUIRE(pipe(gate) == 0);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(i ? goes_on : lets_end, &stop);
	fn();
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	close(gate[0]);
	close(gate[1]);
}

static void main_waits(void)
{
	with_others(by_main);
}

static void thread_waits(void)
{
	with_others(by_a_thread);
}

/* SIGCHLD was sent before: who waited and has it open has handled it by then. */
static volatile int ended;

static void on_end(int sig)
{
	(void)sig;
	ended++;
}

static void *wait_with_handler(void *arg)
{
	struct sigaction sa = {.sa_handler = on_end, .sa_flags = SA_RESTART}, before;
	siginfo_t info;

	REQUIRE(sigaction(SIGCHLD, &sa, &before) == 0);
	for (int i = 0; i < 100; i++) {
		pid_t pid = fork();

		REQUIRE(pid >= 0);
		if (pid == 0)
			_exit(0);
		if (i & 1)
			CHECK_EQ(waitpid(pid, NULL, 0), pid);
		else
			CHECK_EQ(waitid(P_PID, (id_t)pid, &info, WEXITED), 0);
		CHECK_EQ(ended, 1);
		ended = 0;
	}
	sigaction(SIGCHLD, &before, NULL);
	return arg;
}

static void *block_and_sleep(void *arg)
{
	sigset_t set;

	sigfillset(&set);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	while (!__atomic_load_n((int *)arg, __ATOMIC_ACQUIRE))
		sleep_ms(5);
	return arg;
}

static void handled_before_it_returns(void)
{
	int stop = 0;
	pthread_t t = spawn(block_and_sleep, &stop);

	wait_with_handler(NULL);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	join(t);
}

static const struct test_case cases[] = {
    {"handled_before_it_returns", handled_before_it_returns},
    {"main_waits", main_waits},
    {"thread_waits", thread_waits},
};

TEST_MAIN(cases)
