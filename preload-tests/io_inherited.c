/*
 * Limits on a socket's time that another process has set: they hold for each call that waits on it, and no call
 * returns before them.
 */
#include "crowd.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* In ms. The kernel counts in ticks, and a wait may begin within one. */
enum { LIMIT = 30, TICK = 10 };
static int pair[2], listener;

/* The same open file, by a process of its own. */
static void limit_elsewhere(int fd, int opt)
{
	struct timeval tv = {0, LIMIT * 1000};
	pid_t child = fork();
	int status;

	REQUIRE(child >= 0);
	if (child == 0)
		_exit(setsockopt(fd, SOL_SOCKET, opt, &tv, sizeof tv) != 0);
	REQUIRE(waitpid(child, &status, 0) == child && status == 0);
}

static void fill(int fd)
{
	static const char zeros[4096];

	while (send(fd, zeros, sizeof zeros, MSG_DONTWAIT) > 0)
		;
}

static char ch;
static struct iovec one = {&ch, 1};

static long by_recv(void)
{
	return recv(pair[0], &ch, 1, 0);
}

static long by_recvmsg(void)
{
	struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1};
	return recvmsg(pair[0], &m, 0);
}

static long by_recvmmsg(void)
{
	struct mmsghdr m = {.msg_hdr = {.msg_iov = &one, .msg_iovlen = 1}};
	return recvmmsg(pair[0], &m, 1, MSG_WAITFORONE, NULL);
}

static long by_read(void)
{
	return read(pair[0], &ch, 1);
}

static long by_readv(void)
{
	return readv(pair[0], &one, 1);
}

static long by_accept(void)
{
	return accept(listener, NULL, NULL);
}

static long by_send(void)
{
	return send(pair[0], &ch, 1, 0);
}

static long by_write(void)
{
	return write(pair[0], &ch, 1);
}

static const struct row {
	const char *name;
	long (*call)(void);
	int opt;
} rows[] = {
    {"recv", by_recv, SO_RCVTIMEO},         {"recvmsg", by_recvmsg, SO_RCVTIMEO},
    {"recvmmsg", by_recvmmsg, SO_RCVTIMEO}, {"read", by_read, SO_RCVTIMEO},
    {"readv", by_readv, SO_RCVTIMEO},       {"accept", by_accept, SO_RCVTIMEO},
    {"send", by_send, SO_SNDTIMEO},         {"write", by_write, SO_SNDTIMEO},
};

static const struct row *row;

static void times_out(void)
{
	struct moment start = moment();

	errno = 0;
	long r = row->call();
	if (r != -1 || errno != EAGAIN)
		FAIL("%s: %ld, errno %d", row->name, r, errno);
	int64_t took = ns_since(start);
	if (took < (LIMIT - TICK) * 1000000LL)
		FAIL("%s: %lld ns", row->name, (long long)took);
}

static void *in_a_thread(void *arg)
{
	times_out();
	return arg;
}

static void in_all_ways(void)
{
	join(spawn(in_a_thread, NULL));
	times_out();
}

/* Each in a process that has heard of no limit yet. */
static void every_call(void)
{
	for (unsigned i = 0; i < COUNT(rows); i++) {
		int status;
		pid_t child = fork();

		REQUIRE(child >= 0);
		if (child == 0) {
			row = &rows[i];
			REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
			listener = socket(AF_INET, SOCK_STREAM, 0);
			REQUIRE(listen(listener, 1) == 0);
			if (row->opt == SO_SNDTIMEO)
				fill(pair[0]);
			limit_elsewhere(row->call == by_accept ? listener : pair[0], row->opt);
			twice(in_all_ways);
			_exit(test_failures != 0);
		}
		REQUIRE(waitpid(child, &status, 0) == child);
		CHECK_EQ(status, 0);
	}
}

static const struct test_case cases[] = {
    {"every_call", every_call},
};

TEST_MAIN(cases)
