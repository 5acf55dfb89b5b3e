/*
 * Streams of bytes through pipes and sockets, read and written in every way there is, chosen at random: blocking,
 * with time limits, O_NONBLOCK, after poll, select or epoll, on duplicates whose original was closed, on numbers that
 * were another stream's a moment ago, by up to two readers in turn. What is written arrives, once and in order; the end
 * of a stream is seen by its reader; and no wait ends before its time.
 */
#include "test.h"

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { PAIRS = 24, STREAM = 300000, CHUNK = 70000 };

/* Both ends of a stream; byte i of it is pattern(i). */
struct stream {
	int in, out;
	int issocket;
	unsigned seed;
};

static uint64_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return *state >> 33;
}

static unsigned char pattern(size_t i)
{
	return (unsigned char)(i * 31 + i / 253 + i / 65521);
}

static int tcp_listener = -1;
static struct sockaddr_in tcp_address;
static pthread_mutex_t tcp_lock = PTHREAD_MUTEX_INITIALIZER;

static void make(struct stream *s, unsigned kind)
{
	int fds[2];

	s->issocket = kind != 0;
	if (kind == 0) {
		REQUIRE(pipe(fds) == 0);
	} else if (kind == 1) {
		REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	} else {
		/* One at a time, so that the two ends belong together. */
		pthread_mutex_lock(&tcp_lock);
		fds[1] = socket(AF_INET, SOCK_STREAM, 0);
		REQUIRE(connect(fds[1], (void *)&tcp_address, sizeof tcp_address) == 0);
		fds[0] = accept(tcp_listener, NULL, NULL);
		pthread_mutex_unlock(&tcp_lock);
		REQUIRE(fds[0] >= 0);
	}
	s->in = fds[0];
	s->out = fds[1];
}

/* Goes on with a duplicate, on another number. */
static void change_number(int *fd)
{
	int copy = dup(*fd);

	REQUIRE(copy >= 0);
	REQUIRE(close(*fd) == 0);
	*fd = copy;
}

/* Waits for one event in a random way, for ms at most (-1: no limit). Returns 1 or 0 (time is up). */
static int wait_ready(int fd, int forwrite, int ms, uint64_t *rnd)
{
	int64_t start = now_ns();
	int r = -1;

	switch (next_random(rnd) % 4) {
	case 0: {
		struct pollfd p = {fd, forwrite ? POLLOUT : POLLIN, 0};
		r = poll(&p, 1, ms);
		break;
	}
	case 1: {
		struct pollfd p[3] = {{-1, POLLIN, 0},
				      {fd, forwrite ? POLLOUT : POLLIN | POLLRDHUP, 0},
				      {-7, 0, 0}};
		struct timespec ts = {ms / 1000, ms % 1000 * 1000000};
		r = ppoll(p, 3, ms < 0 ? NULL : &ts, NULL);
		break;
	}
	case 2: {
		struct timeval tv = {ms / 1000, ms % 1000 * 1000};
		fd_set set;

		REQUIRE(fd < FD_SETSIZE);
		FD_ZERO(&set);
		FD_SET(fd, &set);
		r = select(fd + 1, forwrite ? NULL : &set, forwrite ? &set : NULL, NULL,
			   ms < 0 ? NULL : &tv);
		break;
	}
	default: {
		struct epoll_event e = {.events = forwrite ? EPOLLOUT : EPOLLIN}, got;
		int ep = epoll_create1(EPOLL_CLOEXEC);

		REQUIRE(ep >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e) == 0);
		r = epoll_wait(ep, &got, 1, ms);
		close(ep);
	}
	}
	if (r < 0)
		FAIL("waiting fails, errno %d", errno);
	if (r == 0 && ms >= 0 && now_ns() - start < ms * 1000000LL)
		FAIL("%d ms were over after %lld ns", ms, (long long)(now_ns() - start));
	return r > 0;
}

static void set_nonblocking(int fd, int on, uint64_t *rnd)
{
	if (next_random(rnd) % 2)
		REQUIRE(ioctl(fd, FIONBIO, &on) == 0);
	else
		REQUIRE(fcntl(fd, F_SETFL, on ? O_NONBLOCK : 0) == 0);
}

static ssize_t write_somehow(struct stream *s, const unsigned char *p, size_t n, uint64_t *rnd)
{
	struct iovec v[3] = {{(void *)p, n / 3},
			     {(void *)(p + n / 3), n / 5},
			     {(void *)(p + n / 3 + n / 5), n - n / 3 - n / 5}};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 3};
	ssize_t r;

	switch (next_random(rnd) % (s->issocket ? 6 : 3)) {
	case 0: return write(s->out, p, n);
	case 1: return writev(s->out, v, 3);
	case 2:
		set_nonblocking(s->out, 1, rnd);
		r = write(s->out, p, n);
		if (r < 0 && errno == EAGAIN) {
			wait_ready(s->out, 1, -1, rnd);
			r = write(s->out, p, n);
			if (r < 0 && errno == EAGAIN)
				r = 0; /* room, but less than the smallest write */
		}
		set_nonblocking(s->out, 0, rnd);
		return r;
	case 3: return send(s->out, p, n, MSG_NOSIGNAL);
	case 4: return sendmsg(s->out, &m, 0);
	default:
		r = send(s->out, p, n, MSG_DONTWAIT);
		if (r < 0 && errno == EAGAIN)
			r = 0;
		return r;
	}
}

static void *writer(void *arg)
{
	struct stream *s = arg;
	uint64_t rnd = s->seed * 2654435761u + 1;
	unsigned char *buf = malloc(CHUNK);
	size_t at = 0;

	while (at < STREAM) {
		size_t n = next_random(&rnd) % (next_random(&rnd) % 4 ? 2000 : CHUNK) + 1;

		if (n > STREAM - at)
			n = STREAM - at;
		for (size_t i = 0; i < n; i++)
			buf[i] = pattern(at + i);
		if (next_random(&rnd) % 8 == 0)
			change_number(&s->out);
		if (next_random(&rnd) % 16 == 0)
			sleep_ms(next_random(&rnd) % 3);
		ssize_t r = write_somehow(s, buf, n, &rnd);
		if (r < 0) {
			FAIL("writing fails, errno %d", errno);
			break;
		}
		at += r;
	}
	if (s->issocket && next_random(&rnd) % 2) {
		CHECK_EQ(shutdown(s->out, SHUT_WR), 0);
		sleep_ms(1);
	}
	close(s->out);
	free(buf);
	return NULL;
}

/* Reads up to n bytes; 0 is the end, -2: nothing yet. */
static ssize_t read_somehow(struct stream *s, unsigned char *p, size_t n, uint64_t *rnd)
{
	struct iovec v[2] = {{p, n / 2}, {p + n / 2, n - n / 2}};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
	struct timeval tv = {0, 2000}, none = {0, 0};
	struct moment start;
	ssize_t r;

	switch (next_random(rnd) % (s->issocket ? 9 : 5)) {
	case 0: return read(s->in, p, n);
	case 1: return readv(s->in, v, 2);
	case 2: return wait_ready(s->in, 0, next_random(rnd) % 4, rnd) ? read(s->in, p, n) : -2;
	case 3: wait_ready(s->in, 0, -1, rnd); return read(s->in, p, n);
	case 4:
		set_nonblocking(s->in, 1, rnd);
		r = read(s->in, p, n);
		if (r < 0 && errno == EAGAIN)
			r = -2;
		set_nonblocking(s->in, 0, rnd);
		return r;
	case 5: return recv(s->in, p, n, 0);
	case 6: return recvmsg(s->in, &m, next_random(rnd) % 2 ? MSG_WAITALL : 0);
	case 7: {
		if (n > 500)
			n = 500;
		memset(p, 0, n);
		ssize_t peeked = recv(s->in, p, n, MSG_PEEK);
		unsigned char first = p[0];

		r = recv(s->in, p, n, MSG_WAITALL);
		if (r < peeked || (peeked > 0 && p[0] != first) || (peeked == 0 && r != 0))
			FAIL("peeked %zd, then %zd", peeked, r);
		return r;
	}
	default:
		REQUIRE(setsockopt(s->in, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) == 0);
		start = moment();
		r = recv(s->in, p, n, 0);
		if (r < 0 && errno == EAGAIN) {
			r = -2;
			int64_t took = ns_since(start);
			if (took < 2000000)
				FAIL("2 ms were over after %lld ns", (long long)took);
		}
		REQUIRE(setsockopt(s->in, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none) == 0);
		return r;
	}
}

static void read_all(struct stream *s)
{
	uint64_t rnd = s->seed * 40503u + 7;
	unsigned char *buf = malloc(CHUNK);
	size_t at = 0;
	ssize_t r;

	for (;;) {
		size_t n = next_random(&rnd) % (next_random(&rnd) % 4 ? 3000 : CHUNK) + 2;

		if (next_random(&rnd) % 8 == 0)
			change_number(&s->in);
		if (next_random(&rnd) % 16 == 0)
			sleep_ms(next_random(&rnd) % 3);
		r = read_somehow(s, buf, n, &rnd);
		if (r == -2)
			continue;
		if (r <= 0)
			break;
		for (ssize_t i = 0; i < r; i++) {
			if (buf[i] != pattern(at + i)) {
				FAIL("byte %zu is %d, not %d", at + i, buf[i], pattern(at + i));
				goto out;
			}
		}
		at += r;
	}
	if (r < 0)
		FAIL("reading fails, errno %d", errno);
	CHECK_EQ(at, STREAM);
out:
	close(s->in);
	free(buf);
}

static int64_t deadline;
static int rounds;

static void *pair(void *arg)
{
	unsigned id = (unsigned)(intptr_t)arg;

	for (unsigned i = 0; (i == 0 || now_ms() < deadline) && !test_failures; i++) {
		struct stream s = {.seed = id * 1000 + i};

		make(&s, (id + i) % 3);
		pthread_t t = spawn(writer, &s);
		read_all(&s);
		join(t);
		__atomic_add_fetch(&rounds, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void run_for(int ms, int pairs)
{
	pthread_t t[PAIRS];

	deadline = now_ms() + ms;
	rounds = 0;
	for (int i = 0; i < pairs; i++)
		t[i] = spawn(pair, (void *)(intptr_t)i);
	for (int i = 0; i < pairs; i++)
		join(t[i]);
	CHECK(rounds > 0);
}

static void one_stream(void)
{
	run_for(1000, 1);
}

static void many_streams(void)
{
	run_for(5000, PAIRS);
}

static const struct test_case cases[] = {
    {"one_stream", one_stream},
    {"many_streams", many_streams},
};

int main(int argc, char **argv)
{
	socklen_t len = sizeof tcp_address;

	tcp_listener = socket(AF_INET, SOCK_STREAM, 0);
	tcp_address.sin_family = AF_INET;
	tcp_address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	REQUIRE(bind(tcp_listener, (void *)&tcp_address, len) == 0 &&
		listen(tcp_listener, 100) == 0);
	REQUIRE(getsockname(tcp_listener, (void *)&tcp_address, &len) == 0);
	return test_run(argc, argv, cases, COUNT(cases));
}
