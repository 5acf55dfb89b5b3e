/*
 * A process that is short of address space, or of kernel threads, from before its first thread
 * on: creation fails with EAGAIN, what was made works, timed waits too, and the process lives.
 */
#include "test.h"

#include <sys/resource.h>
#include <sys/wait.h>

enum { MOST = 300, MIB = 1 << 20, NOBODY = 54321 };

static volatile int stop;
static int least; /* so many threads there must be, with stacks of 8 MiB */
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static int ran;

/* Timed waits that begin when nothing is left. */
static void *naps(void *arg)
{
	while (!stop)
		usleep(5000);
	pthread_mutex_lock(&m);
	ran++;
	pthread_mutex_unlock(&m);
	return arg;
}

/* 0, or the line of what went wrong. */
static int fill(void)
{
	static pthread_t t[MOST];
	int n = 0, rc = 0;
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 8 * MIB);
	stop = ran = 0;
	while (n < MOST && (rc = pthread_create(&t[n], &attr, naps, t + MOST - n)) == 0)
		n++;
	if (rc && rc != EAGAIN)
		return __LINE__;
	if (n < least)
		return __LINE__;
	usleep(20000);
	stop = 1;
	for (int i = 0; i < n; i++) {
		void *result;

		if (pthread_join(t[i], &result) || result != t + MOST - i)
			return __LINE__;
	}
	return ran == n ? 0 : __LINE__;
}

static int in_limited_child(int resource, rlim_t value, int user)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct rlimit limit = {value, value};

		alarm(50);
		if (user && (setgid(user) || setuid(user)))
			_exit(1);
		if (setrlimit(resource, &limit))
			_exit(1);
		/* _exit takes a byte. */
		int line = fill();
		if (line)
			dprintf(2, "limit %lu: line %d\n", (unsigned long)value, line);
		_exit(line ? 1 : 0);
	}
	REQUIRE(pid > 0);
	REQUIRE(waitpid(pid, &status, 0) == pid);
	return status;
}

static long used(void)
{
	long pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	REQUIRE(f && fscanf(f, "%ld", &pages) == 1);
	fclose(f);
	return pages * 4096;
}

/* Whatever it is that meets the limit: each step of the start, a stack, a thread's own memory. */
static void address_space(void)
{
	for (long more = 0; more < 64; more += 1 + more / 24)
		CHECK_EQ(in_limited_child(RLIMIT_AS, used() + more * MIB, 0), 0);
	CHECK_EQ(in_limited_child(RLIMIT_AS, used() + 200l * MIB, 0), 0);
}

/* What the runtime itself takes of a limit leaves room for the threads. */
static void room_for_some(void)
{
	for (long more = 160; more < 500; more = more * 5 / 4) {
		least = 8;
		CHECK_EQ(in_limited_child(RLIMIT_AS, used() + more * MIB, 0), 0);
		least = 0;
	}
}

static void data_segment(void)
{
	for (long more = 0; more < 32; more++)
		CHECK_EQ(in_limited_child(RLIMIT_DATA, more * MIB, 0), 0);
}

static void processes(void)
{
	if (geteuid() != 0)
		SKIP_CASE("needs root");
	for (int n = 0; n < 6; n++)
		CHECK_EQ(in_limited_child(RLIMIT_NPROC, n, NOBODY), 0);
}

static const struct test_case cases[] = {
    {"address_space", address_space},
    {"room_for_some", room_for_some},
    {"data_segment", data_segment},
    {"processes", processes},
};

TEST_MAIN(cases)
