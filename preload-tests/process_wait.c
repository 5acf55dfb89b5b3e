/*
 * wait and wait3: a thread that waits for a child leaves the others running; it gets the status and what the child used.
 */
#include "test.h"

static volatile int progress;

static void *goes_on(void *arg)
{
	while (!*(volatile int *)arg) {
		__atomic_add_fetch(&progress, 1, __ATOMIC_RELAXED);
		sched_yield();
	}
	return NULL;
}

static pid_t child(int status)
{
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (pid == 0) {
		sleep_ms(30);
		_exit(status);
	}
	return pid;
}

static void *waits(void *arg)
{
	struct rusage used;
	int status = -1, before;

	memset(&used, -1, sizeof used);
	for (int i = 1; i < 5; i++) {
		pid_t pid = child(i);
		before = progress;
		CHECK_EQ(wait(&status), pid);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == i);
		CHECK(progress > before);
		pid = child(10 + i);
		CHECK_EQ(wait3(&status, WNOHANG, NULL), 0);
		before = progress;
		CHECK_EQ(wait3(&status, 0, &used), pid);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 10 + i);
		CHECK(used.ru_utime.tv_sec >= 0 && used.ru_utime.tv_sec < 100);
		CHECK(progress > before);
	}
	CHECK_ERRNO(wait(NULL), ECHILD);
	CHECK_ERRNO(wait3(NULL, 0, NULL), ECHILD);
	return arg;
}

BY_MAIN_AND_A_THREAD(waits)

static void with_others(void (*fn)(void))
{
	pthread_t t[3];
	int stop = 0;

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(goes_on, &stop);
	fn();
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static void main_waits(void)
{
	with_others(by_main);
}

static void thread_waits(void)
{
	with_others(by_a_thread);
}

static const struct test_case cases[] = {
    {"main_waits", main_waits},
    {"thread_waits", thread_waits},
};

TEST_MAIN(cases)
