/*
 * Calls that go through in parts: a blocking write takes all there is to write however little room
 * there is, MSG_WAITALL gives all that was asked for, and what ends either in the middle (a signal,
 * a timeout, the other side) leaves the part as the result, and SIGPIPE and the error to whoever
 * they belong.
 *
 * Every case runs twice: alone, and while so many threads wait in read that a scheduler would
 * rather park.
 */
#include "crowd.h"

#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { BIG = 1 << 20 };

static unsigned char *data; /* BIG bytes, each different from its neighbours' */
static volatile sig_atomic_t sigpipes, sigusr1s;

static void on_sigpipe(int sig)
{
	(void)sig;
	sigpipes++;
}

static void on_sigusr1(int sig)
{
	(void)sig;
	sigusr1s++;
}

static void handle(int sig, void (*fn)(int), int flags)
{
	struct sigaction sa = {.sa_handler = fn, .sa_flags = flags};

	REQUIRE(sigaction(sig, &sa, NULL) == 0);
}

/* The kinds of pair that carry a stream, [0] reads and [1] writes. */
static void make_pipe(int fds[2])
{
	REQUIRE(pipe(fds) == 0);
}

static void make_unix(int fds[2])
{
	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
}

static void make_tcp(int fds[2])
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t len = sizeof a;
	int l = socket(AF_INET, SOCK_STREAM, 0), small = 32768;

	/* Small buffers, so that writers have to wait. */
	setsockopt(l, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	REQUIRE(bind(l, (void *)&a, sizeof a) == 0 && listen(l, 1) == 0);
	REQUIRE(getsockname(l, (void *)&a, &len) == 0);
	fds[1] = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
	REQUIRE(connect(fds[1], (void *)&a, sizeof a) == 0);
	fds[0] = accept(l, NULL, NULL);
	REQUIRE(fds[0] >= 0);
	close(l);
}

static const struct {
	const char *name;
	void (*make)(int fds[2]);
	int socket;
} kinds[] = {{"pipe", make_pipe, 0}, {"unix", make_unix, 1}, {"tcp", make_tcp, 1}};

/* The ways to write n bytes, as far as the kind has them. */
static struct iovec *split(size_t n, int *cnt)
{
	static __thread struct iovec v[64];
	size_t at = 0;
	int i;

	for (i = 0; i < 63 && at < n; i++) {
		size_t len = (i % 7 == 3) ? 0 : (size_t)(i * i * 37 % 9001);

		if (len > n - at)
			len = n - at;
		v[i] = (struct iovec){data + at, len};
		at += len;
	}
	v[i++] = (struct iovec){data + at, n - at};
	*cnt = i;
	return v;
}

static ssize_t way_write(int fd, size_t n)
{
	return write(fd, data, n);
}

static ssize_t way_writev(int fd, size_t n)
{
	int cnt;
	struct iovec *v = split(n, &cnt);

	return writev(fd, v, cnt);
}

static ssize_t way_pwritev2(int fd, size_t n)
{
	int cnt;
	struct iovec *v = split(n, &cnt);

	return pwritev2(fd, v, cnt, -1, 0);
}

static ssize_t way_send(int fd, size_t n)
{
	return send(fd, data, n, 0);
}

static ssize_t way_sendto(int fd, size_t n)
{
	return sendto(fd, data, n, MSG_NOSIGNAL, NULL, 0);
}

static ssize_t way_sendmsg(int fd, size_t n)
{
	struct msghdr m = {0};
	int cnt;

	m.msg_iov = split(n, &cnt);
	m.msg_iovlen = cnt;
	return sendmsg(fd, &m, 0);
}

static ssize_t way_sendmmsg(int fd, size_t n)
{
	struct iovec v[3] = {{data, n / 3},
			     {data + n / 3, n / 3},
			     {data + n / 3 * 2, n - n / 3 * 2}};
	struct mmsghdr m[3];
	ssize_t sum = 0;

	memset(m, 0, sizeof m);
	for (int i = 0; i < 3; i++) {
		m[i].msg_hdr.msg_iov = &v[i];
		m[i].msg_hdr.msg_iovlen = 1;
	}
	int r = sendmmsg(fd, m, 3, 0);
	for (int i = 0; i < r; i++)
		sum += m[i].msg_len;
	return r < 0 ? r : sum;
}

static const struct {
	const char *name;
	ssize_t (*write)(int fd, size_t n);
	int socket;
} ways[] = {{"write", way_write, 0},      {"writev", way_writev, 0}, {"pwritev2", way_pwritev2, 0},
	    {"send", way_send, 1},        {"sendto", way_sendto, 1}, {"sendmsg", way_sendmsg, 1},
	    {"sendmmsg", way_sendmmsg, 1}};

/* Reads slowly, in odd pieces, and compares; ends at limit bytes or at the end. */
struct reader {
	int fd;
	size_t limit, got;
};

static void *read_slowly(void *arg)
{
	struct reader *r = arg;
	unsigned char buf[30011];

	for (int i = 0; r->got < r->limit; i++) {
		size_t want = i % 3 == 0 ? 777 : sizeof buf;

		if (want > r->limit - r->got)
			want = r->limit - r->got;
		if (i % 16 == 0)
			sleep_ms(1);
		ssize_t n = read(r->fd, buf, want);
		if (n <= 0)
			break;
		if (memcmp(buf, data + r->got, n) != 0)
			FAIL("wrong bytes at %zu", r->got);
		r->got += n;
	}
	return NULL;
}

static void all_is_written(void)
{
	for (unsigned k = 0; k < COUNT(kinds); k++) {
		for (unsigned w = 0; w < COUNT(ways); w++) {
			struct reader r = {.limit = BIG};
			int fds[2];

			if (ways[w].socket && !kinds[k].socket)
				continue;
			kinds[k].make(fds);
			r.fd = fds[0];
			pthread_t t = spawn(read_slowly, &r);
			ssize_t n = ways[w].write(fds[1], BIG);
			if (n != BIG)
				FAIL("%s on %s gives %zd, errno %d", ways[w].name, kinds[k].name, n,
				     errno);
			close(fds[1]);
			join(t);
			CHECK_EQ(r.got, BIG);
			close(fds[0]);
		}
	}
}

/* The reader goes away in the middle: the part is the result, then EPIPE. */
static void *read_some_and_close(void *arg)
{
	struct reader *r = arg;

	read_slowly(r);
	sleep_ms(20);
	close(r->fd);
	return NULL;
}

static void broken_in_the_middle(void)
{
	handle(SIGPIPE, on_sigpipe, SA_RESTART);
	for (unsigned k = 0; k < COUNT(kinds); k++) {
		/* A reset connection is a matter of timing. */
		if (kinds[k].make == make_tcp)
			continue;
		for (unsigned w = 0; w < COUNT(ways); w++) {
			struct reader r = {.limit = 100000};
			int fds[2];

			if ((ways[w].socket && !kinds[k].socket) || ways[w].write == way_sendmmsg)
				continue;
			kinds[k].make(fds);
			r.fd = fds[0];
			sigpipes = 0;
			pthread_t t = spawn(read_some_and_close, &r);
			ssize_t n = ways[w].write(fds[1], BIG);
			if (n < 100000 || n >= BIG)
				FAIL("%s on %s gives %zd, errno %d", ways[w].name, kinds[k].name, n,
				     errno);
			/* Linux: a pipe signals with the part, a socket with the next call. */
			if (sigpipes != !kinds[k].socket)
				FAIL("%s on %s: %d SIGPIPE with the part", ways[w].name,
				     kinds[k].name, (int)sigpipes);
			join(t);
			sigpipes = 0;
			CHECK_ERRNO(ways[w].write(fds[1], 1), EPIPE);
			if (sigpipes != (ways[w].write != way_sendto))
				FAIL("%s on %s: %d SIGPIPE after it", ways[w].name, kinds[k].name,
				     (int)sigpipes);
			close(fds[1]);
		}
	}
	handle(SIGPIPE, SIG_DFL, 0);
}

/* A handler ends a write that has a part, even with SA_RESTART; one without is restarted. */
struct writer {
	int fd;
	ssize_t (*write)(int fd, size_t n);
	ssize_t result;
	int err, done;
};

static void *write_big(void *arg)
{
	struct writer *w = arg;

	errno = 0;
	w->result = w->write(w->fd, BIG);
	w->err = errno;
	__atomic_store_n(&w->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void signal_in_the_middle(void)
{
	for (unsigned k = 0; k < COUNT(kinds); k++) {
		for (int restart = 0; restart < 2; restart++) {
			struct writer w = {.write = restart ? way_write : way_writev};
			int fds[2], before, now = 0;

			kinds[k].make(fds);
			w.fd = fds[1];
			handle(SIGUSR1, on_sigusr1, restart ? SA_RESTART : 0);
			sigusr1s = 0;
			pthread_t t = spawn(write_big, &w);
			do { /* until it is stuck */
				before = now;
				sleep_ms(30);
				REQUIRE(ioctl(fds[0], FIONREAD, &now) == 0);
			} while (now == 0 || now != before);
			REQUIRE_OK(pthread_kill(t, SIGUSR1));
			CHECK(wait_for(&w.done, 1, 5000));
			if (!w.done) { /* let it end */
				close(fds[0]);
				join(t);
				close(fds[1]);
				continue;
			}
			join(t);
			CHECK_EQ(sigusr1s, 1);
			if (w.result <= 0 || w.result >= BIG)
				FAIL("%s: result %zd, errno %d", kinds[k].name, w.result, w.err);
			struct reader r = {.fd = fds[0], .limit = BIG};
			close(fds[1]);
			read_slowly(&r);
			CHECK_EQ(r.got, w.result);
			close(fds[0]);
		}
	}
}

/* MSG_WAITALL. */
struct sender {
	int fd;
	size_t n;
	int pieces, thenclose;
};

static void *send_pieces(void *arg)
{
	struct sender *s = arg;
	size_t at = 0;

	for (int i = 0; i < s->pieces; i++) {
		size_t n = i == s->pieces - 1 ? s->n - at : s->n / s->pieces;

		sleep_ms(3);
		CHECK_EQ(write(s->fd, data + at, n), n);
		at += n;
	}
	if (s->thenclose)
		close(s->fd);
	return NULL;
}

static ssize_t all_recv(int fd, void *buf, size_t n)
{
	return recv(fd, buf, n, MSG_WAITALL);
}

static ssize_t all_recvmsg(int fd, void *buf, size_t n)
{
	struct iovec v[3] = {{buf, n / 2}, {NULL, 0}, {(char *)buf + n / 2, n - n / 2}};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 3};

	return recvmsg(fd, &m, MSG_WAITALL);
}

static ssize_t all_recvmsg_control(int fd, void *buf, size_t n)
{
	char control[100];
	struct iovec v = {buf, n};
	struct msghdr m = {.msg_iov = &v,
			   .msg_iovlen = 1,
			   .msg_control = control,
			   .msg_controllen = sizeof control};

	return recvmsg(fd, &m, MSG_WAITALL);
}

static ssize_t all_peek_then_recv(int fd, void *buf, size_t n)
{
	ssize_t r = recv(fd, buf, n, MSG_PEEK);

	CHECK(r > 0 && memcmp(buf, data, r) == 0);
	return recv(fd, buf, n, MSG_WAITALL);
}

static void waitall(void)
{
	static ssize_t (*const ways[])(int, void *, size_t) = {all_recv, all_recvmsg,
							       all_recvmsg_control,
							       all_peek_then_recv};
	enum { N = 200000 };
	unsigned char *buf = malloc(N);

	for (unsigned k = 1; k < COUNT(kinds); k++) {
		for (unsigned w = 0; w < COUNT(ways); w++) {
			for (int early = 0; early < 2; early++) {
				struct sender s = {.n = early ? N / 2 : N,
						   .pieces = 10,
						   .thenclose = early};
				int fds[2];

				kinds[k].make(fds);
				s.fd = fds[1];
				pthread_t t = spawn(send_pieces, &s);
				memset(buf, 0, N);
				ssize_t n = ways[w](fds[0], buf, N);
				if (n != (ssize_t)s.n || memcmp(buf, data, s.n) != 0)
					FAIL("%s, way %u, early %d: %zd of %zu, errno %d",
					     kinds[k].name, w, early, n, s.n, errno);
				join(t);
				close(fds[0]);
				if (!early)
					close(fds[1]);
			}
		}
	}
	free(buf);
}

/* Time limits: a part when there is one, EAGAIN otherwise, never early. */
static void time_limits(void)
{
	struct timeval tv = {0, 150000}, none = {0, 0};
	unsigned char buf[1000];

	for (unsigned k = 1; k < COUNT(kinds); k++) {
		int fds[2];

		kinds[k].make(fds);
		CHECK_EQ(setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv), 0);
		CHECK_EQ(setsockopt(fds[1], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv), 0);
		struct moment start = moment();
		CHECK_ERRNO(read(fds[0], buf, sizeof buf), EAGAIN);
		CHECK(ns_since(start) >= 149000000);
		CHECK_EQ(write(fds[1], data, 10), 10);
		start = moment();
		CHECK_EQ(recv(fds[0], buf, sizeof buf, MSG_WAITALL), 10);
		CHECK(ns_since(start) >= 149000000);
		start = moment();
		ssize_t n = send(fds[1], data, BIG, 0);
		CHECK(n > 0 && n < BIG);
		CHECK(ns_since(start) >= 149000000);
		start = moment();
		CHECK_ERRNO(write(fds[1], data, BIG), EAGAIN);
		CHECK(ns_since(start) >= 149000000);
		/* Without the limit it waits again. */
		CHECK_EQ(setsockopt(fds[1], SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none), 0);
		close(fds[0]);
		close(fds[1]);
	}
}

static void low_water_mark(void)
{
	for (unsigned k = 1; k < COUNT(kinds); k++) {
		struct sender s = {.n = 1000, .pieces = 10};
		unsigned char buf[1000];
		int fds[2], low = 500;

		/* Only TCP heeds it in read. */
		if (kinds[k].make != make_tcp)
			continue;
		kinds[k].make(fds);
		s.fd = fds[1];
		CHECK_EQ(setsockopt(fds[0], SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low), 0);
		pthread_t t = spawn(send_pieces, &s);
		ssize_t n = read(fds[0], buf, sizeof buf);
		CHECK(n >= 500);
		while (n < 1000) {
			low = 1;
			setsockopt(fds[0], SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low);
			ssize_t r = read(fds[0], buf + n, sizeof buf - n);
			if (r <= 0)
				break;
			n += r;
		}
		join(t);
		CHECK(n == 1000 && memcmp(buf, data, n) == 0);
		close(fds[0]);
		close(fds[1]);
	}
}

/* O_NONBLOCK: what fits, then EAGAIN, through every way. */
static void nonblocking(void)
{
	for (unsigned k = 0; k < COUNT(kinds); k++) {
		for (unsigned w = 0; w < COUNT(ways); w++) {
			size_t sum = 0;
			ssize_t n;
			int fds[2];

			if (ways[w].socket && !kinds[k].socket)
				continue;
			kinds[k].make(fds);
			CHECK_EQ(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
			int one = 1;
			CHECK_EQ(ioctl(fds[1], FIONBIO, &one), 0);
			CHECK_ERRNO(read(fds[0], &n, sizeof n), EAGAIN);
			for (int i = 0; (n = ways[w].write(fds[1], 300000)) > 0 && i < 1000; i++)
				sum += n;
			if (n != -1 || errno != EAGAIN || sum == 0)
				FAIL("%s on %s: %zd, errno %d after %zu bytes", ways[w].name,
				     kinds[k].name, n, errno, sum);
			CHECK_ERRNO(ways[w].write(fds[1], 300000), EAGAIN);
			close(fds[0]);
			close(fds[1]);
		}
	}
}

/* A datagram for a peer whose queue is full: one's own socket has room, and yet it waits. */
static void *drain_datagrams(void *arg)
{
	int fd = *(int *)arg;
	char buf[100];
	long n = 0;

	sleep_ms(50);
	while (recv(fd, buf, sizeof buf, 0) > 1)
		n++;
	return (void *)n;
}

static void full_peer(void)
{
	int a = socket(AF_UNIX, SOCK_DGRAM, 0), b = socket(AF_UNIX, SOCK_DGRAM, 0);
	sa_family_t any = AF_UNIX; /* the kernel chooses an abstract name */
	struct sockaddr_storage to;
	socklen_t len = sizeof to;
	enum { N = 2000 };

	REQUIRE(bind(b, (void *)&any, sizeof any) == 0);
	REQUIRE(getsockname(b, (void *)&to, &len) == 0);
	pthread_t t = spawn(drain_datagrams, &b);
	for (int i = 0; i < N; i++)
		CHECK_EQ(sendto(a, "datagram", 9, 0, (void *)&to, len), 9);
	CHECK_EQ(sendto(a, "", 1, 0, (void *)&to, len), 1);
	CHECK_EQ((long)join(t), N);
	close(a);
	close(b);
}

#define CASES(X)                \
	X(all_is_written)       \
	X(broken_in_the_middle) \
	X(signal_in_the_middle) \
	X(waitall)              \
	X(time_limits)          \
	X(low_water_mark)       \
	X(nonblocking)          \
	X(full_peer)

CROWD_CASES

int main(int argc, char **argv)
{
	data = malloc(BIG);
	for (int i = 0; i < BIG; i++)
		data[i] = (unsigned char)(i * 7 + i / 251);
	return test_run(argc, argv, cases, COUNT(cases));
}
