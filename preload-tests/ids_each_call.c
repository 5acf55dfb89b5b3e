/*
 * ids_each_call.c - of the calls that set credentials those for a real and an effective id, for the effective one, and
 * for all groups of a user: every thread has them; setfsuid and setfsgid are the caller's alone. In
 * children, since there is no way back. Needs root.
 */
#include "test.h"

#include <dirent.h>
#include <grp.h>
#include <sys/fsuid.h>

static int stop;

static void *busy(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		usleep(500);
	return arg;
}

/* The line of every thread's status is this. */
static void all_have(const char *line)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	int n = 0;

	REQUIRE(d != NULL);
	while ((e = readdir(d)) != NULL) {
		char path[300], got[2000] = "";

		snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
		int fd = e->d_name[0] == '.' ? -1 : open(path, O_RDONLY);
		if (fd < 0)
			continue;
		if (read(fd, got, sizeof got - 1) > 0 && !strstr(got, line))
			FAIL("thread %s has not: %s", e->d_name, line);
		close(fd);
		n++;
	}
	closedir(d);
	CHECK(n > 0);
}

static void *sets(void *arg)
{
	gid_t groups[64];

	CHECK_EQ(initgroups("nobody", 4711), 0);
	int n = getgroups(64, groups), found = 0;
	for (int i = 0; i < n; i++)
		found |= groups[i] == 4711;
	CHECK(found);
	CHECK_EQ(setgroups(1, (gid_t[]){4712}), 0);
	all_have("\nGroups:\t4712 \n");
	CHECK_EQ(setegid(11), 0);
	all_have("\nGid:\t0\t11\t0\t11\n");
	CHECK_EQ(setregid(12, 13), 0);
	all_have("\nGid:\t12\t13\t13\t13\n");
	CHECK_EQ(seteuid(21), 0);
	all_have("\nUid:\t0\t21\t0\t21\n");
	CHECK_EQ(seteuid(0), 0);
	CHECK_EQ(setreuid(22, 23), 0);
	all_have("\nUid:\t22\t23\t23\t23\n");
	CHECK_ERRNO(setreuid(0, 0), EPERM);
	CHECK_ERRNO(setregid(0, 0), EPERM);
	CHECK_ERRNO(setegid(0), EPERM);
	CHECK_ERRNO(setegid(-1), EINVAL);
	CHECK_ERRNO(initgroups("nobody", 1), EPERM);
	all_have("\nUid:\t22\t23\t23\t23\n");
	return arg;
}

static void *for_files(void *arg)
{
	CHECK_EQ(setfsuid(31), 0);
	CHECK_EQ(setfsgid(32), 0);
	for (int i = 0; i < 20; i++) {
		CHECK_EQ(setfsuid(-1), 31);
		CHECK_EQ(setfsgid(-1), 32);
		usleep(100);
	}
	return arg;
}

static int among_threads(void *(*fn)(void *), int by_thread)
{
	pthread_t t[8];

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(busy, NULL);
	if (by_thread)
		join(spawn(fn, NULL));
	else
		fn(NULL);
	if (fn == for_files && by_thread) {
		CHECK_EQ(setfsuid(-1), 0);
		CHECK_EQ(setfsgid(-1), 0);
	}
	stop = 1;
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	return 0;
}

#define IN_CHILDREN(name, fn)                         \
	static int name##_main(void)                  \
	{                                             \
		return among_threads(fn, 0);          \
	}                                             \
	static int name##_thread(void)                \
	{                                             \
		return among_threads(fn, 1);          \
	}                                             \
	static void name(void)                        \
	{                                             \
		if (geteuid() != 0)                   \
			SKIP_CASE("needs root");      \
		CHECK_EQ(in_child(name##_main), 0);   \
		CHECK_EQ(in_child(name##_thread), 0); \
	}

IN_CHILDREN(of_the_process, sets)
IN_CHILDREN(of_the_caller, for_files)

static const struct test_case cases[] = {
    {"of_the_process", of_the_process},
    {"of_the_caller", of_the_caller},
};

TEST_MAIN(cases)
