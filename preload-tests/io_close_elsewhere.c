/*
 * A descriptor that somebody waits for is closed in all the ways there are: by another thread, by one
 * that the program did not make, by libc on behalf of stdio, by a raw system call. Natively the wait
 * goes on with the file that was closed, a library may also end it; it must not outlast what the other
 * end does next.
 */
#include "foreign.h"

#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>

/* --- waits ---------------------------------------------------------------------------- */

static ssize_t by_read(int fd)
{
	char ch;

	return read(fd, &ch, 1);
}

static ssize_t by_recv(int fd)
{
	char ch;

	return recv(fd, &ch, 1, 0);
}

static ssize_t by_poll(int fd)
{
	struct pollfd p = {fd, POLLIN, 0};

	return poll(&p, 1, -1);
}

static ssize_t by_select(int fd)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(fd, &set);
	return select(fd + 1, &set, NULL, NULL, NULL);
}

/* --- ways to close -------------------------------------------------------------------- */

static FILE *stream;

static void by_close(int fd)
{
	close(fd);
}

static void by_dup2(int fd)
{
	int null = open("/dev/null", O_RDONLY);

	dup2(null, fd);
	close(null);
}

static void by_close_range(int fd)
{
	close_range((unsigned)fd, (unsigned)fd, 0);
}

static void by_syscall(int fd)
{
	syscall(SYS_close, fd);
}

static void by_raw_dup3(int fd)
{
	int null = open("/dev/null", O_RDONLY);

	syscall(SYS_dup3, null, fd, O_CLOEXEC);
	close(null);
}

static void by_fclose(int fd)
{
	(void)fd;
	fclose(stream);
}

static void by_freopen(int fd)
{
	(void)fd;
	stream = freopen("/dev/null", "r", stream);
}

static const struct way {
	const char *name;
	void (*close)(int fd);
	int stdio;
} ways[] = {
    {"close", by_close, 0},
    {"dup2", by_dup2, 0},
    {"close_range", by_close_range, 0},
    {"syscall(SYS_close)", by_syscall, 0},
    {"syscall(SYS_dup3)", by_raw_dup3, 0},
    {"fclose", by_fclose, 1},
    {"freopen", by_freopen, 1},
};

static const struct wait {
	const char *name;
	ssize_t (*wait)(int fd);
} waits[] = {
    {"read", by_read},
    {"recv", by_recv},
    {"poll", by_poll},
    {"select", by_select},
};

/* --- the runs ------------------------------------------------------------------------- */

static int fds[2], begun, over;
static const struct way *way;
static const struct wait *waitfor;

static void *waiter(void *arg)
{
	__atomic_store_n(&begun, 1, __ATOMIC_RELEASE);
	waitfor->wait(fds[0]);
	__atomic_store_n(&over, 1, __ATOMIC_RELEASE);
	return arg;
}

static void *closer(void *arg)
{
	way->close(fds[0]);
	return arg;
}

static void each(pthread_t (*create)(void *(*)(void *), void *))
{
	for (unsigned i = 0; i < COUNT(ways) * COUNT(waits); i++) {
		way = &ways[i / COUNT(waits)];
		waitfor = &waits[i % COUNT(waits)];
		begun = over = 0;
		REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
		if (way->stdio)
			REQUIRE((stream = fdopen(fds[0], "r+")) != NULL);
		pthread_t t = spawn(waiter, NULL);
		CHECK(wait_for(&begun, 1, 10000));
		sleep_ms(5);
		join(create(closer, NULL));
		send(fds[1], "x", 1, MSG_NOSIGNAL);
		close(fds[1]);
		if (!wait_for(&over, 1, 10000)) {
			FAIL("%s still waits after %s", waitfor->name, way->name);
			pthread_cancel(t);
		}
		join(t);
		if (way->close == by_dup2 || way->close == by_raw_dup3)
			close(fds[0]);
		else if (way->close == by_freopen)
			fclose(stream);
	}
}

/* Others wait all the time: a scheduler may have other ways of waiting then. */
static int idle[30][2];

static void *idles(void *arg)
{
	return (void *)by_read(*(int *)arg);
}

static void among_others(pthread_t (*create)(void *(*)(void *), void *))
{
	pthread_t t[COUNT(idle)];

	for (unsigned i = 0; i < COUNT(idle); i++) {
		REQUIRE(pipe(idle[i]) == 0);
		t[i] = spawn(idles, &idle[i][0]);
	}
	sleep_ms(20);
	each(create);
	for (unsigned i = 0; i < COUNT(idle); i++) {
		close(idle[i][1]);
		CHECK_EQ((intptr_t)join(t[i]), 0);
		close(idle[i][0]);
	}
}

static void by_a_thread(void)
{
	each(spawn);
	among_others(spawn);
}

static void by_a_foreign_thread(void)
{
	each(spawn_really);
	among_others(spawn_really);
}

static const struct test_case cases[] = {
    {"by_a_thread", by_a_thread},
    {"by_a_foreign_thread", by_a_foreign_thread},
};

TEST_MAIN(cases)
