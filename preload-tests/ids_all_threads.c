/*
 * ids_all_threads.c - setuid and its kin change every kernel thread of the process, or none.
 *
 * Credentials are read back from /proc/self/task for all of them, while threads work; in a child, since
 * there is no way back. Needs root.
 */
#include "test.h"

#include <dirent.h>
#include <grp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int stop;

static void *busy(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		usleep(500);
	return arg;
}

static void *computes(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		;
	return arg;
}

/* Every thread's line `name:` in its status begins with want. Returns how many threads there were. */
static int all_have(const char *name, unsigned want)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	int n = 0;

	REQUIRE(d != NULL);
	while ((e = readdir(d)) != NULL) {
		char path[300], line[256];
		unsigned real = 0, effective = 0;

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
		FILE *f = fopen(path, "r");
		if (!f)
			continue;
		while (fgets(line, sizeof line, f))
			if (!strncmp(line, name, strlen(name)))
				sscanf(line + strlen(name), "%u %u", &real, &effective);
		fclose(f);
		CHECK_EQ(real, want);
		CHECK_EQ(effective, want);
		n++;
	}
	closedir(d);
	return n;
}

static int drop(void)
{
	pthread_t t[8];

	for (int i = 0; i < 8; i++)
		REQUIRE(pthread_create(&t[i], NULL, i < 2 ? computes : busy, NULL) == 0);
	usleep(20000);
	CHECK(all_have("Uid:", 0) >= 2);
	CHECK_EQ(setgroups(0, NULL), 0);
	CHECK_EQ(setgid(65534), 0);
	CHECK(all_have("Gid:", 65534) >= 2);
	CHECK_EQ(setuid(65534), 0);
	CHECK(all_have("Uid:", 65534) >= 2);
	/* None: the call fails, and nobody has changed. */
	CHECK_EQ(setuid(0), -1);
	CHECK(all_have("Uid:", 65534) >= 2);
	stop = 1;
	for (int i = 0; i < 8; i++)
		pthread_join(t[i], NULL);
	return 0;
}

static void under_work(void)
{
	CHECK_EQ(in_child(drop), 0);
}

static const struct test_case cases[] = {
    {"under_work", under_work},
};

int main(int argc, char **argv)
{
	if (geteuid() != 0)
		return 77;
	return test_run(argc, argv, cases, COUNT(cases));
}
