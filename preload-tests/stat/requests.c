/*
 * Servers that goshim stat is to time, with their clients: each request is handled in a known way, and the program
 * measures it by its own clock. Prints "ready"; then, when all connections are closed: how many requests; ns in all for
 * which handlers computed, napped, waited (for the mutex, or the rest of the request); ns that the requests took at least (from the
 * end of the first read to the beginning of the last write) and at most (from before the client's sending to the end of the last
 * write). In two more lines both of each request, in their order.
 */
#include "../test.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { CLIENTS = 2, ROUNDS = 10, MOST = 3 * ROUNDS };

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static const char *mode;
static union {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_un un;
} address;
static socklen_t length;
static long computed, napped, waited;
static long least[CLIENTS * MOST], most[CLIENTS * MOST];
static int requests;
/* When each client's request was sent, in their order. */
static long sent[CLIENTS][MOST];

static bool is(const char *what)
{
	return !strcmp(mode, what);
}

static long now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

static void add(long *sum, long n)
{
	__atomic_fetch_add(sum, n, __ATOMIC_RELAXED);
}

static void spin(long ns)
{
	for (long end = now() + ns; now() < end;)
		for (volatile int i = 0; i < 2000; i++)
			;
}

static void nap(long ns)
{
	struct timespec ts = {ns / 1000000000, ns % 1000000000};
	while (nanosleep(&ts, &ts))
		;
}

static void handle(void)
{
	long t0 = now();
	spin(2000000);
	long t1 = now();
	nap(3000000);
	long t2 = now();
	add(&computed, t1 - t0);
	add(&napped, t2 - t1);
	if (is("locks")) {
		pthread_mutex_lock(&m);
		add(&waited, now() - t2);
		pthread_mutex_unlock(&m);
	}
}

/* The first byte of a connection is its client's number. */
typedef struct Connection {
	int fd, client, done;
} Connection;

static void answer(Connection *c, char byte)
{
	long begin = now();
	if (c->client < 0)
		c->client = byte;
	int request = c->done++;
	if (is("pieces")) {
		long t0 = now();
		CHECK(read(c->fd, &byte, 1) == 1);
		add(&waited, now() - t0);
	}
	handle();
	int parts = is("streams") ? 6 : 2, n = 0;
	for (int i = 0; i < parts; i++) {
		if (i && is("streams"))
			nap(220000000);
		if (i == parts - 1) {
			n = __atomic_fetch_add(&requests, 1, __ATOMIC_RELAXED);
			least[n] = now() - begin;
		}
		CHECK(write(c->fd, "x", 1) == 1);
	}
	most[n] = now() - sent[c->client][request];
}

/* Who has read a request gives it to another thread, and waits until that has answered. */
static pthread_mutex_t handing = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t handed = PTHREAD_COND_INITIALIZER;
static Connection *given;
static char givenbyte;
static bool over;

static void *worker(void *arg)
{
	pthread_mutex_lock(&handing);
	for (;;) {
		while (!given && !over)
			pthread_cond_wait(&handed, &handing);
		if (!given)
			break;
		answer(given, givenbyte);
		given = NULL;
		pthread_cond_broadcast(&handed);
	}
	pthread_mutex_unlock(&handing);
	return arg;
}

static void hand(Connection *c, char byte)
{
	pthread_mutex_lock(&handing);
	while (given)
		pthread_cond_wait(&handed, &handing);
	given = c;
	givenbyte = byte;
	pthread_cond_broadcast(&handed);
	while (given == c)
		pthread_cond_wait(&handed, &handing);
	pthread_mutex_unlock(&handing);
}

static void *serve(void *arg)
{
	Connection c = {(int)(long)arg, -1, 0};
	char byte;
	if (is("speaks"))
		CHECK(write(c.fd, "!", 1) == 1);
	while (read(c.fd, &byte, 1) == 1)
		is("handed") ? hand(&c, byte) : answer(&c, byte);
	close(c.fd);
	return NULL;
}

static void serveall(int listening)
{
	pthread_t t[CLIENTS];
	for (int i = 0; i < CLIENTS; i++) {
		int fd = accept(listening, NULL, NULL);
		CHECK(fd >= 0 && pthread_create(&t[i], NULL, serve, (void *)(long)fd) == 0);
	}
	for (int i = 0; i < CLIENTS; i++)
		pthread_join(t[i], NULL);
}

/* One thread, which poll tells of connections. */
static void pollloop(int listening)
{
	Connection c[CLIENTS];
	struct pollfd p[CLIENTS];
	int open = CLIENTS;
	for (int i = 0; i < CLIENTS; i++) {
		c[i] = (Connection){accept4(listening, NULL, NULL, SOCK_NONBLOCK), -1, 0};
		p[i] = (struct pollfd){.fd = c[i].fd, .events = POLLIN};
		CHECK(c[i].fd >= 0);
	}
	while (open) {
		CHECK(poll(p, CLIENTS, -1) > 0);
		for (int i = 0; i < CLIENTS; i++) {
			char byte;
			if (!p[i].revents)
				continue;
			if (read(c[i].fd, &byte, 1) == 1) {
				answer(&c[i], byte);
			} else {
				close(c[i].fd);
				p[i].fd = -1;
				open--;
			}
		}
	}
}

/* One thread; epoll names connections by pointers. */
static void loop(int listening)
{
	Connection c[CLIENTS];
	struct epoll_event ev[CLIENTS] = {{.events = EPOLLIN}};
	int ep = epoll_create1(EPOLL_CLOEXEC), open = CLIENTS;
	for (int i = 0; i < CLIENTS; i++) {
		c[i] = (Connection){accept4(listening, NULL, NULL, SOCK_NONBLOCK), -1, 0};
		ev[0].data.ptr = &c[i];
		CHECK(c[i].fd >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, c[i].fd, &ev[0]) == 0);
	}
	while (open) {
		int n = epoll_wait(ep, ev, CLIENTS, -1);
		CHECK(n > 0);
		for (int i = 0; i < n; i++) {
			Connection *one = ev[i].data.ptr;
			char byte;
			if (read(one->fd, &byte, 1) == 1) {
				answer(one, byte);
			} else {
				close(one->fd);
				open--;
			}
		}
	}
	close(ep);
}

static void *client(void *arg)
{
	int me = (int)(long)arg, fd = socket(address.any.sa_family, SOCK_STREAM, 0);
	int rounds = is("streams") ? 1 : ROUNDS, batch = is("pipelined") ? 3 : 1;
	char byte[3] = {(char)me, (char)me, (char)me};
	CHECK(connect(fd, &address.any, length) == 0);
	if (is("speaks"))
		CHECK(read(fd, byte + 1, 1) == 1);
	for (int i = 0; i < rounds; i++) {
		nap(4000000);
		for (int k = 0; k < batch; k++)
			sent[me][i * batch + k] = now();
		CHECK(write(fd, byte, (size_t)batch) == batch);
		if (is("pieces")) {
			nap(2000000);
			CHECK(write(fd, byte, 1) == 1);
		}
		for (int k = is("streams") ? 6 : 2 * batch; k > 0; k--)
			CHECK(read(fd, byte + 1, 1) == 1);
		byte[1] = (char)me;
	}
	close(fd);
	return NULL;
}

static bool holds = true;

static void *holder(void *arg)
{
	while (__atomic_load_n(&holds, __ATOMIC_RELAXED)) {
		pthread_mutex_lock(&m);
		nap(5000000);
		pthread_mutex_unlock(&m);
		nap(1000000);
	}
	return arg;
}

static void print(const long *ns)
{
	for (int i = 0; i < requests; i++)
		printf("%ld ", ns[i]);
	putchar('\n');
}

static long sum(const long *ns)
{
	long s = 0;
	for (int i = 0; i < requests; i++)
		s += ns[i];
	return s;
}

int main(int argc, char **argv)
{
	mode = argc > 1 ? argv[1] : "threads";
	bool local = is("unix");
	int listening = socket(local ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
	pthread_t t[CLIENTS], h;
	length = local ? sizeof(sa_family_t) : sizeof address.in; /* the kernel gives it a name */
	if (local)
		address.un.sun_family = AF_UNIX;
	else
		address.in = (struct sockaddr_in){AF_INET, 0, {htonl(INADDR_LOOPBACK)}, {0}};
	CHECK(bind(listening, &address.any, length) == 0 && listen(listening, CLIENTS) == 0);
	length = sizeof address;
	CHECK(getsockname(listening, &address.any, &length) == 0);
	printf("ready\n");
	fflush(stdout);
	if (is("locks"))
		CHECK(pthread_create(&h, NULL, holder, NULL) == 0);
	if (is("handed"))
		CHECK(pthread_create(&h, NULL, worker, NULL) == 0);
	for (int i = 0; i < CLIENTS; i++)
		CHECK(pthread_create(&t[i], NULL, client, (void *)(long)i) == 0);
	is("epoll") ? loop(listening) : is("poll") ? pollloop(listening) : serveall(listening);
	for (int i = 0; i < CLIENTS; i++)
		pthread_join(t[i], NULL);
	__atomic_store_n(&holds, false, __ATOMIC_RELAXED);
	pthread_mutex_lock(&handing);
	over = true;
	pthread_cond_broadcast(&handed);
	pthread_mutex_unlock(&handing);
	if (is("locks") || is("handed"))
		pthread_join(h, NULL);
	if (local)
		printf("unix:@%.*s", (int)(length - sizeof(sa_family_t) - 1),
		       address.un.sun_path + 1);
	else
		printf("127.0.0.1:%d", ntohs(address.in.sin_port));
	printf(" %d %ld %ld %ld %ld %ld\n", requests, computed, napped, waited, sum(least),
	       sum(most));
	print(least);
	print(most);
	fflush(stdout);
	char byte;
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}
