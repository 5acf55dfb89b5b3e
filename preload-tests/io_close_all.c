/*
 * A program that closes all numbers there are, as daemons do, and opens files anew keeps what it has opened, whatever else goes on
 * in its threads: they compute, and wait in calls that nobody sees.
 */
#include "test.h"

enum { FILES = 1, LAST = 6 };
static volatile int stop;

static long unseen(long nr, long a, long b)
{
	long r;

	__asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a), "S"(b) : "rcx", "r11", "memory");
	return r;
}

static void *waits(void *arg)
{
	struct timespec ts = {0, 3000000};

	while (!stop)
		unseen(SYS_nanosleep, (long)&ts, 0);
	return arg;
}

static void *computes(void *arg)
{
	while (!stop)
		;
	return arg;
}

static void close_one_by_one(void)
{
	for (int fd = 3; fd < LAST; fd++)
		close(fd);
}

static void close_at_once(void)
{
	CHECK_EQ(close_range(3, LAST, 0), 0);
}

static void replace(void)
{
	for (int fd = 3; fd < LAST; fd++)
		CHECK_EQ(dup2(0, fd), fd);
	close_at_once();
}

static void *keeps_files(void *arg)
{
	static void (*const ways[])(void) = {close_one_by_one, close_at_once, replace};
	int64_t end = now_ms() + 600;
	struct stat st;

	for (unsigned n = 0; now_ms() < end; n++) {
		int fd[FILES];

		ways[n % COUNT(ways)]();
		for (int i = 0; i < FILES; i++)
			REQUIRE((fd[i] = open("/dev/null", O_RDONLY)) >= 0);
		for (int i = 0; i < FILES; i++)
			if (fstat(fd[i], &st) != 0 || !S_ISCHR(st.st_mode))
				FAIL("%d is not what was opened: errno %d", fd[i], errno);
	}
	return arg;
}

BY_MAIN_AND_A_THREAD(keeps_files)

static void beside(void (*fn)(void))
{
	pthread_t t[6];

	stop = 0;
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(i % 4 ? waits : computes, NULL);
	fn();
	stop = 1;
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static void main_keeps_files(void)
{
	beside(by_main);
}

static void thread_keeps_files(void)
{
	beside(by_a_thread);
}

static const struct test_case cases[] = {
    {"main_keeps_files", main_keeps_files},
    {"thread_keeps_files", thread_keeps_files},
};

TEST_MAIN(cases)
