/*
 * Pipes between threads: reads block until there is something, writes until there is room, and both
 * end by the other side's close. A waiting thread is parked, so hundreds may wait on few kernel
 * threads, and nothing of how the library waits shows: an fd that the program made blocking stays
 * so.
 */
#include "test.h"

#include <sys/ioctl.h>
#include <sys/uio.h>

static int fds[2];

static void *write_later(void *arg)
{
	sleep_ms(30);
	CHECK_EQ(write(fds[1], arg, strlen(arg)), strlen(arg));
	return NULL;
}

static void read_waits_for_a_write(void)
{
	char buf[100];

	REQUIRE(pipe(fds) == 0);
	for (int i = 0; i < 5; i++) {
		pthread_t t = spawn(write_later, "hello");
		CHECK_EQ(read(fds[0], buf, sizeof buf), 5);
		CHECK(memcmp(buf, "hello", 5) == 0);
		join(t);
	}
	close(fds[0]);
	close(fds[1]);
}

static void *close_later(void *arg)
{
	sleep_ms(30);
	close(*(int *)arg);
	return NULL;
}

static void read_ends_by_close(void)
{
	char c;

	REQUIRE(pipe(fds) == 0);
	pthread_t t = spawn(close_later, &fds[1]);
	CHECK_EQ(read(fds[0], &c, 1), 0);
	join(t);
	close(fds[0]);
}

static char big[1 << 18];

static void *write_big(void *arg)
{
	(void)arg;
	return (void *)write(fds[1], big, sizeof big);
}

static void write_ends_by_close(void)
{
	void (*old)(int) = signal(SIGPIPE, SIG_IGN);
	char c;

	REQUIRE(pipe(fds) == 0);
	pthread_t t = spawn(write_big, NULL);
	CHECK_EQ(read(fds[0], &c, 1), 1);
	sleep_ms(30);
	close(fds[0]);
	/* Some of it was written before: a short count, or the error if the kernel counted
	 * nothing. */
	intptr_t n = (intptr_t)join(t);
	CHECK(n == -1 || (n > 0 && n < (intptr_t)sizeof big));
	CHECK_ERRNO(write(fds[1], big, 1), EPIPE);
	close(fds[1]);
	signal(SIGPIPE, old);
}

/* A stream far larger than the pipe, in odd pieces, by every pair of calls. */
enum { STREAM = 1 << 20 };

static unsigned char byte_at(size_t i)
{
	return (unsigned char)(i * 2654435761u >> 13);
}

static ssize_t put_write(int fd, const unsigned char *p, size_t n)
{
	return write(fd, p, n);
}

static ssize_t put_writev(int fd, const unsigned char *p, size_t n)
{
	struct iovec iov[3] = {{(void *)p, n / 3},
			       {(void *)(p + n / 3), 0},
			       {(void *)(p + n / 3), n - n / 3}};
	return writev(fd, iov, 3);
}

static ssize_t put_pwritev2(int fd, const unsigned char *p, size_t n)
{
	struct iovec iov = {(void *)p, n};
	return pwritev2(fd, &iov, 1, -1, 0);
}

static ssize_t get_read(int fd, unsigned char *p, size_t n)
{
	return read(fd, p, n);
}

static ssize_t get_readv(int fd, unsigned char *p, size_t n)
{
	struct iovec iov[2] = {{p, n / 2}, {p + n / 2, n - n / 2}};
	return readv(fd, iov, 2);
}

static ssize_t get_preadv2(int fd, unsigned char *p, size_t n)
{
	struct iovec iov = {p, n};
	return preadv2(fd, &iov, 1, -1, 0);
}

static ssize_t (*put)(int, const unsigned char *, size_t);
static ssize_t (*get)(int, unsigned char *, size_t);

static void *writer(void *arg)
{
	unsigned char buf[9000];
	unsigned seed = 1;

	(void)arg;
	for (size_t at = 0; at < STREAM;) {
		size_t n = 1 + rand_r(&seed) % sizeof buf;
		n = n > STREAM - at ? STREAM - at : n;
		for (size_t i = 0; i < n; i++)
			buf[i] = byte_at(at + i);
		ssize_t w = put(fds[1], buf, n);
		CHECK_EQ(w, n);
		if (w <= 0)
			break;
		at += w;
	}
	close(fds[1]);
	return NULL;
}

static void streams(void)
{
	static const struct {
		ssize_t (*put)(int, const unsigned char *, size_t);
		ssize_t (*get)(int, unsigned char *, size_t);
	} table[] = {
	    {put_write, get_read},
	    {put_writev, get_readv},
	    {put_pwritev2, get_preadv2},
	    {put_write, get_readv},
	};

	for (unsigned k = 0; k < COUNT(table); k++) {
		unsigned char buf[7001];
		size_t at = 0;
		ssize_t n;
		long wrong = 0;

		put = table[k].put;
		get = table[k].get;
		REQUIRE(pipe(fds) == 0);
		pthread_t t = spawn(writer, NULL);
		while ((n = get(fds[0], buf, sizeof buf)) > 0) {
			for (ssize_t i = 0; i < n; i++)
				wrong += buf[i] != byte_at(at + i);
			at += n;
		}
		CHECK_EQ(n, 0);
		CHECK_EQ(at, STREAM);
		CHECK_EQ(wrong, 0);
		join(t);
		close(fds[0]);
	}
}

/* Rings of threads that pass a byte through pipes. */
enum { RING = 100 };
static int ring[RING][2];
static int here;

static void *pass_on(void *arg)
{
	int i = (int)(intptr_t)arg;
	unsigned char c;

	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	while (read(ring[i][0], &c, 1) == 1) {
		c++;
		CHECK_EQ(write(ring[(i + 1) % RING][1], &c, 1), 1);
	}
	return NULL;
}

static void hundred_wait_in_a_ring(void)
{
	pthread_t t[RING];
	unsigned char c = 0;

	here = 0;
	for (int i = 0; i < RING; i++)
		REQUIRE(pipe(ring[i]) == 0);
	for (int i = 1; i < RING; i++)
		t[i] = spawn(pass_on, (void *)(intptr_t)i);
	CHECK(wait_for(&here, RING - 1, 20000));
	sleep_ms(50);
	check_goroutines(RING - 1);
	for (int i = 0; i < RING; i++)
		CHECK_EQ(fcntl(ring[i][0], F_GETFL) & O_NONBLOCK, 0);
	for (int round = 0; round < 20; round++) {
		CHECK_EQ(write(ring[1][1], &c, 1), 1);
		unsigned char want = (unsigned char)(c + RING - 1);
		CHECK_EQ(read(ring[0][0], &c, 1), 1);
		CHECK_EQ(c, want);
	}
	for (int i = 1; i < RING; i++) {
		close(ring[i][1]);
		join(t[i]);
		close(ring[i][0]);
	}
	close(ring[0][0]);
	close(ring[0][1]);
}

/* Several readers of one pipe: every message goes to one of them. */
static int sum;

static void *sum_up(void *arg)
{
	int v;

	while (read(fds[0], &v, sizeof v) == sizeof v)
		__atomic_add_fetch(&sum, v, __ATOMIC_RELAXED);
	return arg;
}

static void several_readers(void)
{
	pthread_t t[10];

	sum = 0;
	REQUIRE(pipe(fds) == 0);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(sum_up, NULL);
	for (int i = 1; i <= 2000; i++) {
		CHECK_EQ(write(fds[1], &i, sizeof i), sizeof i);
		if (i % 100 == 0)
			sleep_ms(1);
	}
	close(fds[1]);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(sum, 2000 * 2001 / 2);
	close(fds[0]);
}

static void nonblocking_stays_so(void)
{
	char c;

	REQUIRE(pipe2(fds, O_NONBLOCK | O_CLOEXEC) == 0);
	CHECK_ERRNO(read(fds[0], &c, 1), EAGAIN);
	ssize_t n = 0;
	while ((n = write(fds[1], big, 4096)) > 0)
		;
	CHECK(n == -1 && errno == EAGAIN);
	int left = 0;
	CHECK_EQ(ioctl(fds[0], FIONREAD, &left), 0);
	CHECK_EQ(left, 65536);
	CHECK(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
	close(fds[0]);
	close(fds[1]);
	CHECK_ERRNO(read(fds[0], &c, 1), EBADF);
	CHECK_ERRNO(read(-1, &c, 1), EBADF);
}

/* Blocking again by fcntl, through a duplicate: a wait looks at the fd as it is now. */
static void mode_changes_are_seen(void)
{
	char buf[10];

	REQUIRE(pipe2(fds, O_NONBLOCK) == 0);
	int copy = dup(fds[0]);
	CHECK_ERRNO(read(fds[0], buf, 1), EAGAIN);
	CHECK_EQ(fcntl(copy, F_SETFL, 0), 0);
	pthread_t t = spawn(write_later, "x");
	CHECK_EQ(read(fds[0], buf, sizeof buf), 1);
	join(t);
	int one = 1;
	CHECK_EQ(ioctl(copy, FIONBIO, &one), 0);
	CHECK_ERRNO(read(fds[0], buf, 1), EAGAIN);
	close(copy);
	close(fds[0]);
	close(fds[1]);
}

/* The same fd numbers for new pipes, again and again, by close, dup2 and fclose: no wait may
 * hang on an old one. */
static void wait_for_one_byte(void)
{
	char buf[10];
	pthread_t t = spawn(write_later, "a");

	CHECK_EQ(read(fds[0], buf, 1), 1);
	join(t);
}

static void wait_for_many_bytes(void)
{
	pthread_t t = spawn(write_big, NULL);
	ssize_t n, all = 0;

	while (all < (ssize_t)sizeof big && (n = read(fds[0], big, 65536)) > 0)
		all += n;
	CHECK_EQ(all, sizeof big);
	join(t);
}

static void replace_by_dup2(void)
{
	int other[2];
	char c = 0;

	REQUIRE(pipe(other) == 0);
	CHECK_EQ(dup2(other[0], fds[0]), fds[0]);
	CHECK_EQ(write(other[1], "z", 1), 1);
	CHECK_EQ(read(fds[0], &c, 1), 1);
	CHECK_EQ(c, 'z');
	close(other[0]);
	close(other[1]);
}

static void fds_are_reused(void)
{
	for (int i = 0; i < 300; i++) {
		REQUIRE(pipe(fds) == 0);
		if (i % 10 == 0)
			wait_for_one_byte();
		else
			wait_for_many_bytes();
		if (i % 4 == 1)
			replace_by_dup2();
		if (i % 4 == 2) {
			FILE *f = fdopen(fds[0], "r");
			fclose(f);
		} else {
			close(fds[0]);
		}
		close(fds[1]);
	}
}

static const struct test_case cases[] = {
    {"read_waits_for_a_write", read_waits_for_a_write},
    {"read_ends_by_close", read_ends_by_close},
    {"write_ends_by_close", write_ends_by_close},
    {"streams", streams},
    {"hundred_wait_in_a_ring", hundred_wait_in_a_ring},
    {"several_readers", several_readers},
    {"nonblocking_stays_so", nonblocking_stays_so},
    {"mode_changes_are_seen", mode_changes_are_seen},
    {"fds_are_reused", fds_are_reused},
};

TEST_MAIN(cases)
