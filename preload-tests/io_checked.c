/*
 * The names under which programs that were built with _FORTIFY_SOURCE call read, recv, poll and open: they wait
 * as the plain ones do, leave the others running, and end the process where the buffer is too small.
 */
#include "test.h"

#include <sys/socket.h>

extern ssize_t __read_chk(int fd, void *buf, size_t n, size_t len);
extern ssize_t __pread64_chk(int fd, void *buf, size_t n, off_t offset, size_t len);
extern ssize_t __pread_chk(int fd, void *buf, size_t n, off_t offset, size_t len);
extern ssize_t __recv_chk(int fd, void *buf, size_t n, size_t len, int flags);
extern ssize_t __recvfrom_chk(int fd, void *buf, size_t n, size_t len, int flags,
			      struct sockaddr *addr, socklen_t *addrlen);
extern int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t len);
extern int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
		       const sigset_t *mask, size_t len);
extern int __open_2(const char *path, int flags);
extern int __open64_2(const char *path, int flags);
extern int __openat_2(int dir, const char *path, int flags);
extern int __openat64_2(int dir, const char *path, int flags);

static int fds[2], file;
static char buf[8];

static long reads(size_t len)
{
	return __read_chk(fds[0], buf, 4, len);
}
static long receives(size_t len)
{
	return __recv_chk(fds[0], buf, 4, len, 0);
}
static long receives_from(size_t len)
{
	return __recvfrom_chk(fds[0], buf, 4, len, 0, NULL, NULL);
}
static long polls(size_t len)
{
	struct pollfd p = {fds[0], POLLIN, 0};
	int r = __poll_chk(&p, 1, 10000, len * sizeof p / 4);

	return r == 1 ? read(fds[0], buf, 4) : r;
}
static long ppolls(size_t len)
{
	struct pollfd p = {fds[0], POLLIN, 0};
	struct timespec ts = {10, 0};
	int r = __ppoll_chk(&p, 1, &ts, NULL, len * sizeof p / 4);

	return r == 1 ? read(fds[0], buf, 4) : r;
}
static long reads_file(size_t len)
{
	return __pread64_chk(file, buf, 4, 4, len);
}
static long reads_file_too(size_t len)
{
	return __pread_chk(file, buf, 4, 4, len);
}

static const struct {
	const char *name;
	long (*call)(size_t len);
} calls[] = {
    {"__read_chk", reads},           {"__recv_chk", receives}, {"__recvfrom_chk", receives_from},
    {"__poll_chk", polls},           {"__ppoll_chk", ppolls},  {"__pread64_chk", reads_file},
    {"__pread_chk", reads_file_too},
};

static void *answers(void *arg)
{
	sleep_ms(10);
	CHECK_EQ(write(fds[1], "abcd", 4), 4);
	return arg;
}

static void setup(void)
{
	char name[] = "/tmp/io_checked.XXXXXX";

	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	file = mkstemp(name);
	REQUIRE(file >= 0);
	unlink(name);
	REQUIRE(write(file, "0123abcd", 8) == 8);
}

static void *every_call(void *arg)
{
	for (unsigned i = 0; i < COUNT(calls); i++) {
		int socket = calls[i].call != reads_file && calls[i].call != reads_file_too;
		pthread_t t = 0;

		memset(buf, 0, sizeof buf);
		if (socket)
			t = spawn(answers, NULL);
		if (calls[i].call(4) != 4 || memcmp(buf, "abcd", 4) != 0)
			FAIL("%s: wrong data", calls[i].name);
		if (socket)
			join(t);
	}
	return arg;
}

static void waits(void)
{
	setup();
	every_call(NULL);
	join(spawn(every_call, NULL));
}

static unsigned wrong;

static void *overflows(void *arg)
{
	calls[wrong].call(3);
	return arg;
}

static int overflow_in_child(void)
{
	int null = open("/dev/null", O_WRONLY);

	dup2(null, 2);
	join(spawn(overflows, NULL));
	return 0;
}

static void too_small(void)
{
	setup();
	for (wrong = 0; wrong < COUNT(calls); wrong++) {
		int status = in_child(overflow_in_child);

		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
			FAIL("%s: status %x, not ended by SIGABRT", calls[wrong].name, status);
	}
}

static int create_without_mode(void)
{
	int null = open("/dev/null", O_WRONLY);

	dup2(null, 2);
	return __open_2("x", O_CREAT);
}

static void *opens(void *arg)
{
	int dir = open("/dev", O_RDONLY | O_DIRECTORY), got[4];

	got[0] = __open_2("/dev/null", O_RDWR);
	got[1] = __open64_2("/dev/null", O_RDWR);
	got[2] = __openat_2(dir, "null", O_RDWR);
	got[3] = __openat64_2(dir, "null", O_RDWR);
	for (unsigned i = 0; i < COUNT(got); i++) {
		CHECK_EQ(write(got[i], "x", 1), 1);
		close(got[i]);
	}
	CHECK_ERRNO(__open_2("/nowhere/at/all", O_RDONLY), ENOENT);
	CHECK_ERRNO(__openat_2(-1, "x", O_RDONLY), EBADF);
	close(dir);
	return arg;
}

static void opened(void)
{
	join(spawn(opens, NULL));
	opens(NULL);
	int status = in_child(create_without_mode);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static const struct test_case cases[] = {
    {"waits", waits},
    {"too_small", too_small},
    {"opened", opened},
};

TEST_MAIN(cases)
