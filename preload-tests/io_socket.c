/*
 * The read, write, recv and send families over every kind of socket, between two threads: what is
 * sent arrives, calls block when they should and for as long as the socket's own timeouts say, and
 * flags mean what they say.
 */
#include "test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

/* Connected pairs. */
static int make_pair(int domain, int type, int fds[2])
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)},
			   b = a;
	socklen_t len = sizeof a;

	if (domain == AF_UNIX)
		return socketpair(AF_UNIX, type, 0, fds);
	if (type == SOCK_DGRAM) {
		fds[0] = socket(AF_INET, type, 0);
		fds[1] = socket(AF_INET, type, 0);
		if (bind(fds[0], (void *)&a, len) || bind(fds[1], (void *)&b, len) ||
		    getsockname(fds[0], (void *)&a, &len) || getsockname(fds[1], (void *)&b, &len))
			return -1;
		return connect(fds[0], (void *)&b, len) || connect(fds[1], (void *)&a, len) ? -1
											    : 0;
	}
	int l = socket(AF_INET, type, 0);
	if (bind(l, (void *)&a, len) || listen(l, 1) || getsockname(l, (void *)&a, &len))
		return -1;
	fds[0] = socket(AF_INET, type, 0);
	if (connect(fds[0], (void *)&a, len))
		return -1;
	fds[1] = accept(l, NULL, NULL);
	close(l);
	return fds[1] < 0 ? -1 : 0;
}

static const struct {
	const char *name;
	int domain, type;
} kinds[] = {
    {"unix stream", AF_UNIX, SOCK_STREAM},
    {"unix dgram", AF_UNIX, SOCK_DGRAM},
    {"unix seqpacket", AF_UNIX, SOCK_SEQPACKET},
    {"tcp", AF_INET, SOCK_STREAM},
    {"udp", AF_INET, SOCK_DGRAM},
};

static ssize_t by_write(int fd, void *p, size_t n)
{
	return write(fd, p, n);
}

static ssize_t by_send(int fd, void *p, size_t n)
{
	return send(fd, p, n, MSG_NOSIGNAL);
}

static ssize_t by_sendto(int fd, void *p, size_t n)
{
	return sendto(fd, p, n, 0, NULL, 0);
}

static ssize_t by_sendmsg(int fd, void *p, size_t n)
{
	struct iovec iov[2] = {{p, n / 2}, {(char *)p + n / 2, n - n / 2}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
	return sendmsg(fd, &m, 0);
}

static ssize_t by_sendmmsg(int fd, void *p, size_t n)
{
	struct iovec iov = {p, n};
	struct mmsghdr m = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};
	int rc = sendmmsg(fd, &m, 1, 0);
	return rc == 1 ? (ssize_t)m.msg_len : rc;
}

static ssize_t by_writev(int fd, void *p, size_t n)
{
	struct iovec iov[2] = {{p, 1}, {(char *)p + 1, n - 1}};
	return writev(fd, iov, 2);
}

static ssize_t by_read(int fd, void *p, size_t n)
{
	return read(fd, p, n);
}

static ssize_t by_recv(int fd, void *p, size_t n)
{
	return recv(fd, p, n, 0);
}

static ssize_t by_recvfrom(int fd, void *p, size_t n)
{
	struct sockaddr_storage from;
	socklen_t len = sizeof from;
	return recvfrom(fd, p, n, 0, (void *)&from, &len);
}

static ssize_t by_recvmsg(int fd, void *p, size_t n)
{
	struct iovec iov[2] = {{p, n / 3}, {(char *)p + n / 3, n - n / 3}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
	return recvmsg(fd, &m, 0);
}

static ssize_t by_recvmmsg(int fd, void *p, size_t n)
{
	struct iovec iov = {p, n};
	struct mmsghdr m = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};
	int rc = recvmmsg(fd, &m, 1, 0, NULL);
	return rc == 1 ? (ssize_t)m.msg_len : rc;
}

static ssize_t by_readv(int fd, void *p, size_t n)
{
	struct iovec iov[2] = {{p, n / 5}, {(char *)p + n / 5, n - n / 5}};
	return readv(fd, iov, 2);
}

static const struct {
	const char *name;
	ssize_t (*send)(int, void *, size_t), (*recv)(int, void *, size_t);
} ways[] = {
    {"write read", by_write, by_read},
    {"send recv", by_send, by_recv},
    {"sendto recvfrom", by_sendto, by_recvfrom},
    {"sendmsg recvmsg", by_sendmsg, by_recvmsg},
    {"sendmmsg recvmmsg", by_sendmmsg, by_recvmmsg},
    {"writev readv", by_writev, by_readv},
};

struct job {
	int fd;
	unsigned way;
	int delay_us;
};

enum { MESSAGE = 400, MESSAGES = 60 };

static void *echo(void *arg)
{
	struct job *j = arg;
	char buf[MESSAGE];

	for (int i = 0; i < MESSAGES; i++) {
		size_t at = 0;
		while (at < MESSAGE) {
			ssize_t n = ways[j->way].recv(j->fd, buf + at, MESSAGE - at);
			if (n <= 0) {
				FAIL("echo: %s receives %zd, errno %d", ways[j->way].name, n,
				     errno);
				return NULL;
			}
			at += n;
		}
		if (i % 20 == 0 && j->delay_us)
			usleep(j->delay_us);
		if (ways[j->way].send(j->fd, buf, MESSAGE) != MESSAGE) {
			FAIL("echo: %s sends less, errno %d", ways[j->way].name, errno);
			return NULL;
		}
	}
	return NULL;
}

static void every_call_over_every_socket(void)
{
	for (unsigned k = 0; k < COUNT(kinds); k++)
		for (unsigned w = 0; w < COUNT(ways); w++) {
			int fds[2];
			char out[MESSAGE], in[MESSAGE];

			REQUIRE(make_pair(kinds[k].domain, kinds[k].type, fds) == 0);
			struct job j = {fds[1], w, 3000};
			pthread_t t = spawn(echo, &j);
			for (int i = 0; i < MESSAGES; i++) {
				for (int b = 0; b < MESSAGE; b++)
					out[b] = (char)(i * 7 + b);
				CHECK_EQ(ways[w].send(fds[0], out, MESSAGE), MESSAGE);
				size_t at = 0;
				while (at < MESSAGE) {
					ssize_t n = ways[w].recv(fds[0], in + at, MESSAGE - at);
					if (n <= 0) {
						FAIL("%s by %s: received %zd, errno %d",
						     kinds[k].name, ways[w].name, n, errno);
						_exit(1);
					}
					at += n;
				}
				if (memcmp(in, out, MESSAGE) != 0)
					FAIL("%s by %s: message %d differs", kinds[k].name,
					     ways[w].name, i);
			}
			join(t);
			close(fds[0]);
			close(fds[1]);
		}
}

static void *send_back(void *arg)
{
	char c;

	while (read((int)(intptr_t)arg, &c, 1) == 1)
		if (write((int)(intptr_t)arg, &c, 1) != 1)
			break;
	return NULL;
}

static void hundreds_wait(void)
{
	enum { N = 100 };
	int fds[N][2];
	pthread_t t[N];
	char c;

	for (int i = 0; i < N; i++) {
		REQUIRE(make_pair(i % 2 ? AF_UNIX : AF_INET, SOCK_STREAM, fds[i]) == 0);
		t[i] = spawn(send_back, (void *)(intptr_t)fds[i][1]);
	}
	sleep_ms(50);
	check_goroutines(N);
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < N; i++) {
			c = (char)(i + round);
			CHECK_EQ(write(fds[i][0], &c, 1), 1);
		}
		for (int i = 0; i < N; i++) {
			CHECK_EQ(read(fds[i][0], &c, 1), 1);
			CHECK_EQ(c, (char)(i + round));
		}
	}
	for (int i = 0; i < N; i++) {
		CHECK_EQ(fcntl(fds[i][1], F_GETFL) & O_NONBLOCK, 0);
		shutdown(fds[i][0], SHUT_WR);
		join(t[i]);
		close(fds[i][0]);
		close(fds[i][1]);
	}
}

/* Both directions at once, both sides of one socket used by two threads. */
enum { BULK = 2 << 20 };

static void *pour(void *arg)
{
	char buf[8192];
	int fd = (int)(intptr_t)arg;

	for (size_t at = 0; at < BULK;) {
		for (unsigned i = 0; i < sizeof buf; i++)
			buf[i] = (char)((at + i) * 31 >> 3);
		ssize_t n = send(fd, buf, sizeof buf, MSG_NOSIGNAL);
		if (n <= 0) {
			FAIL("send gives %zd, errno %d", n, errno);
			break;
		}
		at += n;
	}
	return NULL;
}

static void *drain(void *arg)
{
	char buf[10000];
	int fd = (int)(intptr_t)arg;
	long wrong = 0;

	for (size_t at = 0; at < BULK;) {
		ssize_t n = recv(fd, buf, sizeof buf, 0);
		if (n <= 0) {
			FAIL("recv gives %zd, errno %d", n, errno);
			break;
		}
		for (ssize_t i = 0; i < n; i++)
			wrong += buf[i] != (char)((at + i) * 31 >> 3);
		at += n;
	}
	CHECK_EQ(wrong, 0);
	return NULL;
}

static void both_directions_at_once(void)
{
	for (unsigned k = 0; k < COUNT(kinds); k++) {
		int fds[2];
		pthread_t t[4];

		if (kinds[k].type != SOCK_STREAM)
			continue;
		REQUIRE(make_pair(kinds[k].domain, kinds[k].type, fds) == 0);
		for (int i = 0; i < 2; i++) {
			/* Small buffers, so that both sides block often; whole pieces of 8192
			 * bytes are sent at once. */
			t[i] = spawn(pour, (void *)(intptr_t)fds[i]);
			t[2 + i] = spawn(drain, (void *)(intptr_t)fds[i]);
		}
		for (int i = 0; i < 4; i++)
			join(t[i]);
		close(fds[0]);
		close(fds[1]);
	}
}

static void timeouts(void)
{
	static const long ms[] = {20, 150};

	for (unsigned k = 0; k < COUNT(kinds); k++)
		for (unsigned i = 0; i < COUNT(ms); i++) {
			int fds[2];
			char c;
			struct timeval tv = {0, ms[i] * 1000};

			REQUIRE(make_pair(kinds[k].domain, kinds[k].type, fds) == 0);
			CHECK_EQ(setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv), 0);
			for (unsigned w = 0; w < COUNT(ways); w++) {
				char buf[16];
				struct moment start = moment();
				CHECK_ERRNO(ways[w].recv(fds[0], buf, sizeof buf), EAGAIN);
				int64_t took = ns_since(start);
				/* The kernel rounds to its ticks. */
				if (took < (ms[i] - 10) * 1000000)
					FAIL("%s: SO_RCVTIMEO of %ld ms took %lld ns", ways[w].name,
					     ms[i], (long long)took);
				if (i > 0)
					break;
			}
			/* With something there it does not wait. */
			CHECK_EQ(write(fds[1], "x", 1), 1);
			CHECK_EQ(read(fds[0], &c, 1), 1);
			close(fds[0]);
			close(fds[1]);
		}
}

static void send_timeout(void)
{
	int fds[2];
	static char buf[1 << 16];
	struct timeval tv = {0, 50000};
	ssize_t n;

	REQUIRE(make_pair(AF_UNIX, SOCK_STREAM, fds) == 0);
	CHECK_EQ(setsockopt(fds[0], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv), 0);
	struct moment start = moment();
	int rounds = 0;
	while ((n = send(fds[0], buf, sizeof buf, 0)) > 0 && rounds < 1000)
		rounds++;
	CHECK(n == -1 && errno == EAGAIN);
	CHECK(ns_since(start) >= 40000000);
	close(fds[0]);
	close(fds[1]);
}

static void *shut_later(void *arg)
{
	sleep_ms(30);
	CHECK_EQ(shutdown((int)(intptr_t)arg, SHUT_RDWR), 0);
	return NULL;
}

static void shutdown_wakes_the_reader(void)
{
	for (unsigned k = 0; k < COUNT(kinds); k++)
		for (int own = 0; own < 2; own++) {
			int fds[2];
			char c;

			if (kinds[k].type == SOCK_DGRAM)
				continue;
			REQUIRE(make_pair(kinds[k].domain, kinds[k].type, fds) == 0);
			pthread_t t = spawn(shut_later, (void *)(intptr_t)fds[own]);
			CHECK_EQ(recv(fds[0], &c, 1, 0), 0);
			join(t);
			close(fds[0]);
			close(fds[1]);
		}
}

static void *send_in_pieces(void *arg)
{
	for (int i = 0; i < 10; i++) {
		CHECK_EQ(send((int)(intptr_t)arg, "0123456789", 10, 0), 10);
		sleep_ms(3);
	}
	return NULL;
}

static void flags(void)
{
	static const int domains[] = {AF_UNIX, AF_INET};

	for (unsigned d = 0; d < COUNT(domains); d++) {
		int fds[2];
		char buf[200];

		REQUIRE(make_pair(domains[d], SOCK_STREAM, fds) == 0);
		CHECK_ERRNO(recv(fds[0], buf, 1, MSG_DONTWAIT), EAGAIN);
		pthread_t t = spawn(send_in_pieces, (void *)(intptr_t)fds[1]);
		CHECK(recv(fds[0], buf, 100, MSG_PEEK) >= 10);
		CHECK_EQ(recv(fds[0], buf, 100, MSG_WAITALL), 100);
		for (int i = 0; i < 100; i++)
			CHECK_EQ(buf[i], '0' + i % 10);
		join(t);
		CHECK_ERRNO(recv(fds[0], buf, 1, MSG_DONTWAIT), EAGAIN);
		/* MSG_WAITALL ends with what there is when the other side does. */
		CHECK_EQ(send(fds[1], "abc", 3, 0), 3);
		t = spawn(shut_later, (void *)(intptr_t)fds[1]);
		CHECK_EQ(recv(fds[0], buf, 100, MSG_WAITALL), 3);
		join(t);
		CHECK_ERRNO(send(fds[1], "x", 1, MSG_NOSIGNAL), EPIPE);
		close(fds[0]);
		close(fds[1]);
	}
}

/* An fd goes through a socket to another thread, which waits for it. */
static void *send_fd(void *arg)
{
	int pipefd[2];
	char c = 'f', control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {&c, 1};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = control,
			   .msg_controllen = sizeof control};

	sleep_ms(20);
	REQUIRE(pipe(pipefd) == 0);
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &pipefd[0], sizeof(int));
	CHECK_EQ(sendmsg((int)(intptr_t)arg, &m, 0), 1);
	close(pipefd[0]);
	sleep_ms(20);
	CHECK_EQ(write(pipefd[1], "through", 7), 7);
	close(pipefd[1]);
	return NULL;
}

static void fd_passing(void)
{
	int fds[2], got = -1;
	char c, buf[10], control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {&c, 1};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = control,
			   .msg_controllen = sizeof control};

	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	pthread_t t = spawn(send_fd, (void *)(intptr_t)fds[1]);
	CHECK_EQ(recvmsg(fds[0], &m, MSG_CMSG_CLOEXEC), 1);
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	REQUIRE(h && h->cmsg_type == SCM_RIGHTS);
	memcpy(&got, CMSG_DATA(h), sizeof got);
	CHECK(fcntl(got, F_GETFD) & FD_CLOEXEC);
	CHECK_EQ(read(got, buf, sizeof buf), 7);
	join(t);
	close(got);
	close(fds[0]);
	close(fds[1]);
}

static void bad_fds(void)
{
	char c;
	int file = open("/dev/null", O_RDWR);

	CHECK_ERRNO(recv(-1, &c, 1, 0), EBADF);
	CHECK_ERRNO(send(-1, &c, 1, 0), EBADF);
	CHECK_ERRNO(recv(file, &c, 1, 0), ENOTSOCK);
	CHECK_EQ(read(file, &c, 1), 0);
	CHECK_EQ(write(file, &c, 1), 1);
	close(file);
	CHECK_ERRNO(recv(file, &c, 1, 0), EBADF);
}

static void udp_from_whom(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)},
			   b = a, from;
	socklen_t len = sizeof a;
	int x = socket(AF_INET, SOCK_DGRAM, 0), y = socket(AF_INET, SOCK_DGRAM, 0);
	char buf[10];

	REQUIRE(bind(x, (void *)&a, len) == 0 && bind(y, (void *)&b, len) == 0);
	getsockname(x, (void *)&a, &len);
	getsockname(y, (void *)&b, &len);
	CHECK_EQ(sendto(y, "hey", 3, 0, (void *)&a, sizeof a), 3);
	len = sizeof from;
	CHECK_EQ(recvfrom(x, buf, sizeof buf, 0, (void *)&from, &len), 3);
	CHECK_EQ(from.sin_port, b.sin_port);
	/* Cut short, and told so. */
	CHECK_EQ(sendto(y, "longer", 6, 0, (void *)&a, sizeof a), 6);
	CHECK_EQ(recvfrom(x, buf, 2, MSG_TRUNC, NULL, NULL), 6);
	close(x);
	close(y);
}

static const struct test_case cases[] = {
    {"every_call_over_every_socket", every_call_over_every_socket},
    {"hundreds_wait", hundreds_wait},
    {"both_directions_at_once", both_directions_at_once},
    {"timeouts", timeouts},
    {"send_timeout", send_timeout},
    {"shutdown_wakes_the_reader", shutdown_wakes_the_reader},
    {"flags", flags},
    {"fd_passing", fd_passing},
    {"bad_fds", bad_fds},
    {"udp_from_whom", udp_from_whom},
};

TEST_MAIN(cases)
