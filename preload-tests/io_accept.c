/*
 * accept and connect: both block and are woken by the other, errors are the kernel's, and a server
 * with a thread for each connection keeps its word to every client.
 */
#include "test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_in address;

static int listen_tcp(int backlog)
{
	socklen_t len = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	memset(&address, 0, sizeof address);
	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	REQUIRE(bind(fd, (void *)&address, sizeof address) == 0);
	REQUIRE(listen(fd, backlog) == 0);
	REQUIRE(getsockname(fd, (void *)&address, &len) == 0);
	return fd;
}

static int connect_tcp(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (connect(fd, (void *)&address, sizeof address) != 0) {
		FAIL("connect: errno %d", errno);
		close(fd);
		return -1;
	}
	return fd;
}

static void *connect_later(void *arg)
{
	sleep_ms(30);
	int fd = connect_tcp();
	CHECK_EQ(write(fd, "hi", 2), 2);
	close(fd);
	return arg;
}

static void accept_waits_for_connect(void)
{
	static const int flags[] = {-1, 0, SOCK_CLOEXEC, SOCK_NONBLOCK | SOCK_CLOEXEC};
	int l = listen_tcp(10);

	for (unsigned i = 0; i < COUNT(flags); i++) {
		struct sockaddr_in from = {0};
		socklen_t len = sizeof from;
		char buf[10];

		pthread_t t = spawn(connect_later, NULL);
		int fd = flags[i] < 0 ? accept(l, (void *)&from, &len)
				      : accept4(l, (void *)&from, &len, flags[i]);
		REQUIRE(fd >= 0);
		CHECK_EQ(from.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
		CHECK_EQ(len, sizeof from);
		CHECK_EQ(!!(fcntl(fd, F_GETFL) & O_NONBLOCK),
			 flags[i] > 0 && (flags[i] & SOCK_NONBLOCK));
		CHECK_EQ(!!(fcntl(fd, F_GETFD) & FD_CLOEXEC), flags[i] > 0);
		join(t);
		CHECK_EQ(read(fd, buf, sizeof buf), 2);
		close(fd);
	}
	CHECK_EQ(fcntl(l, F_GETFL) & O_NONBLOCK, 0);
	close(l);
}

static void errors(void)
{
	int l = listen_tcp(10);
	int fd;
	struct timeval tv = {0, 50000};

	CHECK_ERRNO(accept(-1, NULL, NULL), EBADF);
	fd = open("/dev/null", O_RDONLY);
	CHECK_ERRNO(accept(fd, NULL, NULL), ENOTSOCK);
	close(fd);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	CHECK_ERRNO(accept(fd, NULL, NULL), EINVAL);
	close(fd);
	fcntl(l, F_SETFL, O_NONBLOCK);
	CHECK_ERRNO(accept(l, NULL, NULL), EAGAIN);
	fcntl(l, F_SETFL, 0);
	CHECK_EQ(setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv), 0);
	struct moment start = moment();
	CHECK_ERRNO(accept(l, NULL, NULL), EAGAIN);
	CHECK(ns_since(start) >= 40000000);
	close(l);
	/* Nobody listens there any more. */
	fd = socket(AF_INET, SOCK_STREAM, 0);
	CHECK_ERRNO(connect(fd, (void *)&address, sizeof address), ECONNREFUSED);
	close(fd);
	CHECK_ERRNO(connect(-1, (void *)&address, sizeof address), EBADF);
}

static void nonblocking_connect(void)
{
	int l = listen_tcp(10);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	int err = -1;
	socklen_t len = sizeof err;

	int rc = connect(fd, (void *)&address, sizeof address);
	CHECK(rc == 0 || errno == EINPROGRESS);
	struct pollfd p = {fd, POLLOUT, 0};
	CHECK_EQ(poll(&p, 1, 10000), 1);
	CHECK_EQ(getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len), 0);
	CHECK_EQ(err, 0);
	/* Linux answers a first connect after EINPROGRESS with 0, and the next with EISCONN. */
	connect(fd, (void *)&address, sizeof address);
	CHECK_ERRNO(connect(fd, (void *)&address, sizeof address), EISCONN);
	close(fd);
	close(l);
}

/* A unix socket with a full queue: connect itself waits. */
static struct sockaddr_un un;
static int connected;

static void *connect_unix(void *arg)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	CHECK_EQ(connect(fd, (void *)&un, sizeof un), 0);
	__atomic_add_fetch(&connected, 1, __ATOMIC_RELEASE);
	char c;
	CHECK_EQ(read(fd, &c, 1), 0);
	close(fd);
	return arg;
}

static void connect_waits_for_room(void)
{
	enum { N = 20 };
	pthread_t t[N];
	const char *dir = getenv("TMPDIR");

	un.sun_family = AF_UNIX;
	snprintf(un.sun_path, sizeof un.sun_path, "%s/goshim-test-%d", dir ? dir : "/tmp",
		 (int)getpid());
	unlink(un.sun_path);
	int l = socket(AF_UNIX, SOCK_STREAM, 0);
	REQUIRE(bind(l, (void *)&un, sizeof un) == 0 && listen(l, 1) == 0);
	connected = 0;
	for (int i = 0; i < N; i++)
		t[i] = spawn(connect_unix, NULL);
	sleep_ms(100);
	CHECK(__atomic_load_n(&connected, __ATOMIC_ACQUIRE) < N);
	for (int i = 0; i < N; i++) {
		int fd = accept(l, NULL, NULL);
		CHECK(fd >= 0);
		close(fd);
	}
	for (int i = 0; i < N; i++)
		join(t[i]);
	CHECK_EQ(connected, N);
	close(l);
	unlink(un.sun_path);
}

/* The server: one thread per connection. */
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static int open_now, served;

static void *serve(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char buf[256];
	ssize_t n;

	pthread_mutex_lock(&m);
	open_now++;
	pthread_mutex_unlock(&m);
	while ((n = read(fd, buf, sizeof buf)) > 0)
		CHECK_EQ(write(fd, buf, n), n);
	CHECK_EQ(n, 0);
	close(fd);
	pthread_mutex_lock(&m);
	open_now--;
	served++;
	pthread_mutex_unlock(&m);
	return NULL;
}

static int listener;

static void *accept_loop(void *arg)
{
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	for (;;) {
		pthread_t t;
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			break;
		REQUIRE_OK(pthread_create(&t, &attr, serve, (void *)(intptr_t)fd));
	}
	return arg;
}

static pthread_barrier_t all_connected;

static void *client(void *arg)
{
	int id = (int)(intptr_t)arg;
	int fd = connect_tcp();
	char out[64], in[64];

	pthread_barrier_wait(&all_connected);
	for (int i = 0; i < 30; i++) {
		int n = snprintf(out, sizeof out, "client %d message %d", id, i);
		CHECK_EQ(write(fd, out, n), n);
		int at = 0;
		while (at < n) {
			ssize_t r = read(fd, in + at, n - at);
			if (r <= 0) {
				FAIL("client %d: read gives %zd, errno %d", id, r, errno);
				close(fd);
				return NULL;
			}
			at += r;
		}
		if (memcmp(in, out, n) != 0)
			FAIL("client %d: wrong answer to message %d", id, i);
	}
	pthread_barrier_wait(&all_connected);
	pthread_barrier_wait(&all_connected);
	close(fd);
	return NULL;
}

static void thread_per_connection(void)
{
	int n = scale(100, 400);
	pthread_t *t = malloc(n * sizeof *t), acceptors[3];

	served = open_now = 0;
	listener = listen_tcp(128);
	pthread_barrier_init(&all_connected, NULL, n + 1);
	for (unsigned i = 0; i < COUNT(acceptors); i++)
		acceptors[i] = spawn(accept_loop, NULL);
	for (int i = 0; i < n; i++)
		t[i] = spawn(client, (void *)(intptr_t)i);
	pthread_barrier_wait(&all_connected);
	pthread_barrier_wait(&all_connected);
	/* n clients and n servers are there now. */
	check_goroutines(2 * n);
	CHECK_EQ(__atomic_load_n(&open_now, __ATOMIC_RELAXED), n);
	pthread_barrier_wait(&all_connected);
	for (int i = 0; i < n; i++)
		join(t[i]);
	CHECK(wait_for(&served, n, 20000));
	/* shutdown wakes those in accept. */
	CHECK_EQ(shutdown(listener, SHUT_RDWR), 0);
	for (unsigned i = 0; i < COUNT(acceptors); i++)
		join(acceptors[i]);
	close(listener);
	free(t);
}

static const struct test_case cases[] = {
    {"accept_waits_for_connect", accept_waits_for_connect},
    {"errors", errors},
    {"nonblocking_connect", nonblocking_connect},
    {"connect_waits_for_room", connect_waits_for_room},
    {"thread_per_connection", thread_per_connection},
};

TEST_MAIN(cases)
