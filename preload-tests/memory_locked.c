/*
 * What a program with threads has mapped for reading and writing is what it uses, within reason:
 * mlockall fills it, a core file is as long as it, limits on data count it.
 */
#include "test.h"

#include <sys/mman.h>

enum { THREADS = 8, STACK = 256 << 10 };
#define LIMIT_KIB (1l << 20)

static void *touches(void *arg)
{
	volatile char page[4096];

	memset((char *)page, 1, sizeof page);
	return arg;
}

static void threads(void)
{
	pthread_t t[THREADS];
	pthread_attr_t attr;

	REQUIRE_OK(pthread_attr_init(&attr));
	REQUIRE_OK(pthread_attr_setstacksize(&attr, STACK));
	for (int i = 0; i < THREADS; i++)
		REQUIRE_OK(pthread_create(&t[i], &attr, touches, NULL));
	for (int i = 0; i < THREADS; i++)
		REQUIRE_OK(pthread_join(t[i], NULL));
	pthread_attr_destroy(&attr);
}

/* KiB mapped writable and private. */
static long writable_kib(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned long lo, hi, sum = 0;
	char line[4096], perms[5];

	REQUIRE(f != NULL);
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "%lx-%lx %4s", &lo, &hi, perms) == 3 && perms[1] == 'w' &&
		    perms[3] == 'p')
			sum += hi - lo;
	fclose(f);
	return (long)(sum >> 10);
}

static void after_threads(void)
{
	threads();
	long kib = writable_kib();

	CHECK(kib < LIMIT_KIB);
}

/* All that is and will be mapped is in memory at once, new threads' stacks too. */
static void locked(void)
{
	REQUIRE(writable_kib() < LIMIT_KIB);
	if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) {
		SKIP_CASE("mlockall is not allowed here");
	}
	threads();
	long kib = rss_kib();

	CHECK(kib > 0 && kib < LIMIT_KIB);
	REQUIRE_OK(munlockall());
}

/* The same, when locking begins before the first thread. */
static void locked_before(void)
{
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (pid == 0) {
		threads(); /* a fork child starts anew */
		if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
			_exit(0);
		threads();
		_exit(rss_kib() < LIMIT_KIB ? 0 : 1);
	}
	int status;

	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK(status == 0);
}

static const struct test_case cases[] = {
    {"after_threads", after_threads},
    {"locked", locked},
    {"locked_before", locked_before},
};

TEST_MAIN(cases)
