/*
 * RLIMIT_NOFILE of next to nothing, set before the first thread, after it, and while threads wait: below whatever a
 * library has open, too. Threads wait for descriptors, time and each other as ever.
 */
#include "test.h"

#include <sys/socket.h>

enum { READERS = 20, WHENS = 3 };

static int fds[2], got, limit, when;

static void *nothing(void *arg)
{
	return arg;
}

static void *reads_one(void *arg)
{
	char c;

	REQUIRE(read(fds[0], &c, 1) == 1);
	__atomic_add_fetch(&got, 1, __ATOMIC_RELAXED);
	usleep(100);
	return arg;
}

static void few(void)
{
	struct rlimit files = {limit, limit};

	REQUIRE(setrlimit(RLIMIT_NOFILE, &files) == 0);
}

static int threads(void)
{
	pthread_t t[READERS];
	struct pollfd none = {.fd = -1};

	close_range(3, ~0u, 0);
	REQUIRE(pipe(fds) == 0);
	if (when == 1)
		join(spawn(nothing, NULL));
	if (when < 2)
		few();
	for (int i = 0; i < READERS; i++)
		t[i] = spawn(reads_one, NULL);
	usleep(2000);
	if (when == 2)
		few();
	CHECK_EQ(poll(&none, 1, 1), 0);
	for (int i = 0; i < READERS; i++)
		REQUIRE(write(fds[1], "x", 1) == 1);
	for (int i = 0; i < READERS; i++)
		join(t[i]);
	CHECK_EQ(got, READERS);
	if (limit <= 5)
		CHECK_ERRNO(socket(AF_UNIX, SOCK_STREAM, 0), EMFILE);
	return 0;
}

static void limited(void)
{
	static const int limits[] = {3, 4, 5, 6, 10, 20, 65, 80, 1000, 2016};

	for (unsigned i = 0; i < COUNT(limits); i++) {
		for (when = 0; when < WHENS; when++) {
			limit = limits[i];
			int status = in_child(threads);
			if (status != 0)
				FAIL("limit %d, set at %d: status %#x", limit, when, status);
		}
	}
}

static const struct test_case cases[] = {{"limited", limited}};

TEST_MAIN(cases)
