/*
 * Changing the user: setuid and its relatives act on the whole process, which libc brings about by
 * signalling every thread. All kernel threads of the process must have changed when the call
 * returns, whatever they were doing, or none.
 */
#include "test.h"

#include <dirent.h>
#include <grp.h>

enum { USER = 54321, GROUP = 54322 };
static int fds[2], stop, here;

static void *blocked(void *arg)
{
	char ch;

	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	CHECK_EQ(read(fds[0], &ch, 1), 0);
	CHECK_EQ(getuid(), USER);
	CHECK_EQ(syscall(SYS_getegid), GROUP);
	return arg;
}

static void *spinning(void *arg)
{
	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		;
	CHECK_EQ(geteuid(), USER);
	return arg;
}

static void *sleeping(void *arg)
{
	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		usleep(1000);
	CHECK_EQ(getuid(), USER);
	return arg;
}

/* Counts the kernel threads of which some id is not the wanted one. */
static int unchanged(const char *field, unsigned want)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	int wrong = 0, seen = 0;

	REQUIRE(d);
	while ((e = readdir(d))) {
		char path[300], line[200];
		unsigned id[4];

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
		FILE *f = fopen(path, "r");
		if (!f)
			continue; /* ended meanwhile */
		while (fgets(line, sizeof line, f))
			if (strncmp(line, field, strlen(field)) == 0 &&
			    sscanf(line + strlen(field), "%u %u %u %u", &id[0], &id[1], &id[2],
				   &id[3]) == 4) {
				seen++;
				for (int i = 0; i < 4; i++)
					if (id[i] != want) {
						wrong++;
						break;
					}
			}
		fclose(f);
	}
	closedir(d);
	CHECK(seen >= 1);
	return wrong;
}

static int caller_is_main;

static void *change(void *arg)
{
	gid_t groups[] = {GROUP};

	CHECK_EQ(setgroups(1, groups), 0);
	CHECK_EQ(setresgid(GROUP, GROUP, GROUP), 0);
	CHECK_EQ(unchanged("Gid:", GROUP), 0);
	CHECK_EQ(setuid(USER), 0);
	CHECK_EQ(unchanged("Uid:", USER), 0);
	CHECK_ERRNO(setuid(0), EPERM);
	CHECK_ERRNO(setgid(0), EPERM);
	CHECK_EQ(getuid(), USER);
	return arg;
}

static void *nothing(void *arg)
{
	CHECK_EQ(getuid(), USER);
	CHECK_EQ(syscall(SYS_getuid), USER);
	return arg;
}

static int change_user(void)
{
	pthread_t t[30];

	REQUIRE(pipe(fds) == 0);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(i % 10 == 9 ? spinning : i % 2 ? blocked : sleeping, NULL);
	CHECK(wait_for(&here, COUNT(t), 20000));
	sleep_ms(20);
	if (caller_is_main)
		change(NULL);
	else
		join(spawn(change, NULL));
	/* New ones, and those that waited. */
	join(spawn(nothing, NULL));
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	close(fds[1]);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(unchanged("Uid:", USER), 0);
	return 0;
}

static void by_main(void)
{
	if (geteuid() != 0)
		SKIP_CASE("needs root");
	caller_is_main = 1;
	CHECK_EQ(in_child(change_user), 0);
}

static void by_a_thread(void)
{
	if (geteuid() != 0)
		SKIP_CASE("needs root");
	caller_is_main = 0;
	CHECK_EQ(in_child(change_user), 0);
}

/* Before any thread: as ever. */
static int change_alone(void)
{
	change(NULL);
	join(spawn(nothing, NULL));
	return 0;
}

static void before_any_thread(void)
{
	if (geteuid() != 0)
		SKIP_CASE("needs root");
	CHECK_EQ(in_child(change_alone), 0);
}

/* Effective ids may go there and back, as servers do. */
static int there_and_back(void)
{
	pthread_t t[4];

	stop = here = 0;
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(sleeping, NULL);
	for (int i = 0; i < 20; i++) {
		CHECK_EQ(seteuid(USER), 0);
		CHECK_EQ(geteuid(), USER);
		CHECK_EQ(seteuid(0), 0);
		CHECK_EQ(geteuid(), 0);
	}
	CHECK_EQ(setresuid(USER, USER, USER), 0);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	return 0;
}

static void effective_ids(void)
{
	if (geteuid() != 0)
		SKIP_CASE("needs root");
	CHECK_EQ(in_child(there_and_back), 0);
}

static const struct test_case cases[] = {
    {"before_any_thread", before_any_thread},
    {"by_main", by_main},
    {"by_a_thread", by_a_thread},
    {"effective_ids", effective_ids},
};

TEST_MAIN(cases)
