/*
 * Servers that goshim stat is to time, with their clients: each request is handled in a known way, and the program
 * measures it by its own clock. Prints "ready"; then, when all connections are closed: how many requests; ns in all for
 * which handlers computed, napped, waited for the mutex; ns that the requests took at least (from the end of the first
 * read to the beginning of the last write) and at most (from before the client's sending to the end of the last write).
 */
#include "../test.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { CLIENTS = 2, ROUNDS = 10, MOST = 3 * ROUNDS };

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static const char *mode;
static struct sockaddr_in address;
static long computed, napped, locked, least, most;
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
		add(&locked, now() - t2);
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
	handle();
	int parts = is("streams") ? 6 : 2;
	for (int i = 0; i < parts; i++) {
		if (i && is("streams"))
			nap(220000000);
		if (i == parts - 1)
			add(&least, now() - begin);
		CHECK(write(c->fd, "x", 1) == 1);
	}
	add(&most, now() - sent[c->client][request]);
	__atomic_fetch_add(&requests, 1, __ATOMIC_RELAXED);
}

static void *serve(void *arg)
{
	Connection c = {(int)(long)arg, -1, 0};
	char byte;
	if (is("speaks"))
		CHECK(write(c.fd, "!", 1) == 1);
	while (read(c.fd, &byte, 1) == 1)
		answer(&c, byte);
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
	int me = (int)(long)arg, fd = socket(AF_INET, SOCK_STREAM, 0);
	int rounds = is("streams") ? 1 : ROUNDS, batch = is("pipelined") ? 3 : 1;
	char byte[3] = {(char)me, (char)me, (char)me};
	CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
	if (is("speaks"))
		CHECK(read(fd, byte + 1, 1) == 1);
	for (int i = 0; i < rounds; i++) {
		nap(4000000);
		for (int k = 0; k < batch; k++)
			sent[me][i * batch + k] = now();
		CHECK(write(fd, byte, (size_t)batch) == batch);
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

int main(int argc, char **argv)
{
	mode = argc > 1 ? argv[1] : "threads";
	int listening = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t len = sizeof address;
	pthread_t t[CLIENTS], h;
	address = (struct sockaddr_in){AF_INET, 0, {htonl(INADDR_LOOPBACK)}, {0}};
	CHECK(bind(listening, (struct sockaddr *)&address, len) == 0 &&
	      listen(listening, CLIENTS) == 0 &&
	      getsockname(listening, (struct sockaddr *)&address, &len) == 0);
	printf("ready\n");
	fflush(stdout);
	if (is("locks"))
		CHECK(pthread_create(&h, NULL, holder, NULL) == 0);
	for (int i = 0; i < CLIENTS; i++)
		CHECK(pthread_create(&t[i], NULL, client, (void *)(long)i) == 0);
	is("epoll") ? loop(listening) : serveall(listening);
	for (int i = 0; i < CLIENTS; i++)
		pthread_join(t[i], NULL);
	__atomic_store_n(&holds, false, __ATOMIC_RELAXED);
	if (is("locks"))
		pthread_join(h, NULL);
	printf("127.0.0.1:%d %d %ld %ld %ld %ld %ld\n", ntohs(address.sin_port), requests, computed,
	       napped, locked, least, most);
	fflush(stdout);
	char byte;
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}
