/*
 * Descriptors closed under the program's feet, by itself: daemons close everything from 3 on,
 * shells move descriptors about, and close_range takes whole ranges. Whatever the library uses for
 * itself, the program's waits go on.
 */
#include "test.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

static int fds[2], pairs[20][2], go;

static void *echo(void *arg)
{
	int fd = *(int *)arg;
	char ch;

	while (read(fd, &ch, 1) == 1)
		CHECK_EQ(write(fd, &ch, 1), 1);
	return NULL;
}

static void check_echoes(int n)
{
	char ch;

	for (int i = 0; i < n; i++) {
		ch = (char)i;
		CHECK_EQ(write(pairs[i][0], &ch, 1), 1);
	}
	for (int i = 0; i < n; i++) {
		CHECK_EQ(read(pairs[i][0], &ch, 1), 1);
		CHECK_EQ(ch, (char)i);
	}
}

static void close_others_by_close(int highest)
{
	for (int fd = 3; fd < 1024; fd++) {
		int ours = 0;

		for (unsigned i = 0; i < COUNT(pairs); i++)
			ours |= pairs[i][0] == fd || pairs[i][1] == fd;
		if (!ours)
			close(fd);
	}
	(void)highest;
}

static void close_others_by_close_range(int highest)
{
	close_range(highest + 1, ~0u, 0);
}

static void close_others_by_closefrom(int highest)
{
	closefrom(highest + 1);
}

/* By instructions that no library sees. */
static long inline_call(long nr, long a, long b, long c)
{
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(nr), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return r;
}

static void close_others_inline(int highest)
{
	for (int fd = highest + 1; fd < 5000; fd++)
		inline_call(SYS_close, fd, 0, 0);
}

static void close_others_by_close_range_inline(int highest)
{
	inline_call(SYS_close_range, highest + 1, ~0u, 0);
}

static void close_others_by_syscall(int highest)
{
	for (int fd = highest + 1; fd < 5000; fd++)
		syscall(SYS_close, fd);
}

/* Other files take all numbers there are. */
static void replace_others(int highest, int by, int unseen)
{
	for (int fd = highest + 1; fd < 3000; fd++) {
		if (fd == by)
			continue;
		if (unseen)
			inline_call(SYS_dup2, by, fd, 0);
		else
			dup2(by, fd);
	}
	close_range(highest + 1, by > highest + 1 ? by - 1 : highest + 1, 0);
	close_range(by, ~0u, 0);
}

static void replace_others_by_dup2(int highest)
{
	replace_others(highest, open("/dev/null", O_RDWR), 0);
}

static void replace_others_inline(int highest)
{
	replace_others(highest, open("/dev/null", O_RDWR), 1);
}

static void replace_others_by_eventfds_inline(int highest)
{
	replace_others(highest, eventfd(0, 0), 1);
}

static void everything_else(void)
{
	static void (*const ways[])(int) = {
	    close_others_by_close,
	    close_others_by_close_range,
	    close_others_by_closefrom,
	    close_others_by_syscall,
	    close_others_inline,
	    close_others_by_close_range_inline,
	    replace_others_by_dup2,
	    replace_others_inline,
	    replace_others_by_eventfds_inline,
	};

	for (unsigned w = 0; w < COUNT(ways); w++) {
		pthread_t t[COUNT(pairs)];
		int highest = 0;

		for (unsigned i = 0; i < COUNT(pairs); i++) {
			REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i]) == 0);
			highest = pairs[i][1] > highest ? pairs[i][1] : highest;
			t[i] = spawn(echo, &pairs[i][1]);
		}
		check_echoes(COUNT(pairs));
		sleep_ms(10);
		ways[w](highest);
		check_echoes(COUNT(pairs));
		/* New descriptors take the numbers that were closed. */
		int other[10];
		for (int i = 0; i < 10; i++)
			other[i] = i % 2 ? epoll_create1(0) : open("/dev/null", O_RDWR);
		check_echoes(COUNT(pairs));
		sleep_ms(5);
		check_echoes(COUNT(pairs));
		for (int i = 0; i < 10; i++)
			CHECK_EQ(close(other[i]), 0);
		check_echoes(COUNT(pairs));
		for (unsigned i = 0; i < COUNT(pairs); i++) {
			close(pairs[i][0]);
			join(t[i]);
			close(pairs[i][1]);
		}
	}
}

/* The library must not have taken numbers that the program counts on: the lowest free one is
 * given out. */
static void lowest_number_first(void)
{
	int a = open("/dev/null", O_RDONLY), b = open("/dev/null", O_RDONLY);

	CHECK(a >= 3 && b > a);
	close(a);
	int again = open("/dev/null", O_RDONLY);
	CHECK_EQ(again, a);
	close(again);
	close(b);
}

/* Waits end when another thread closes what they wait for, or go on with what took the number;
 * they do not hang on something that is gone once data is there. */
static void *read_one(void *arg)
{
	char ch = 0;
	ssize_t n;

	__atomic_store_n(&go, 1, __ATOMIC_RELEASE);
	n = read(fds[0], &ch, 1);
	(void)arg;
	return (void *)(intptr_t)(n == 1 ? ch : n);
}

static void closed_while_somebody_reads(void)
{
	for (int round = 0; round < 20; round++) {
		go = 0;
		REQUIRE(pipe(fds) == 0);
		pthread_t t = spawn(read_one, NULL);
		CHECK(wait_for(&go, 1, 10000));
		if (round % 2)
			sleep_ms(5);
		int r = fds[0], w = fds[1];
		close(r);
		/* Natively the reader still reads the old pipe; a library may also end it with
		 * EBADF. */
		ssize_t n = 0;
		if (round % 4 < 2) {
			signal(SIGPIPE, SIG_IGN);
			n = write(w, "d", 1);
		}
		close(w);
		intptr_t got = (intptr_t)join(t);
		CHECK(got == 'd' || got == 0 || got == -1);
		if (n != 1)
			CHECK(got != 'd');
	}
}

/* Closed and made anew by one thread while many others wait for theirs. */
static int stop;

static void *churn(void *arg)
{
	char ch;

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		int p[2];
		REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, p) == 0);
		CHECK_EQ(write(p[0], "c", 1), 1);
		CHECK_EQ(read(p[1], &ch, 1), 1);
		struct pollfd q = {p[1], POLLIN, 0};
		CHECK_EQ(poll(&q, 1, 1), 0);
		close(p[0]);
		CHECK_EQ(read(p[1], &ch, 1), 0);
		close(p[1]);
	}
	return arg;
}

static void among_churn(void)
{
	pthread_t t[COUNT(pairs)], x[6];

	stop = 0;
	for (unsigned i = 0; i < COUNT(pairs); i++) {
		REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i]) == 0);
		t[i] = spawn(echo, &pairs[i][1]);
	}
	for (unsigned i = 0; i < COUNT(x); i++)
		x[i] = spawn(churn, NULL);
	for (int i = 0; i < 200; i++)
		check_echoes(COUNT(pairs));
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT(x); i++)
		join(x[i]);
	for (unsigned i = 0; i < COUNT(pairs); i++) {
		close(pairs[i][0]);
		join(t[i]);
		close(pairs[i][1]);
	}
}

static const struct test_case cases[] = {
    {"lowest_number_first", lowest_number_first},
    {"everything_else", everything_else},
    {"closed_while_somebody_reads", closed_while_somebody_reads},
    {"among_churn", among_churn},
};

int main(int argc, char **argv)
{
	/* No watchdog's pipe: this test closes what it does not know. */
	struct rlimit many = {4096, 4096};

	if (!getenv("GOSHIM_TEST_MODE"))
		setenv("GOSHIM_TEST_MODE", "plain", 1);
	setrlimit(RLIMIT_NOFILE, &many);
	return test_run(argc, argv, cases, COUNT(cases));
}
