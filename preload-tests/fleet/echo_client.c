/*
 * Load for an echo server: many connections from one epoll loop, every byte of every answer
 * checked.
 *
 *	echo_client PORT CONNECTIONS SECONDS
 *
 * All connections are made first ("connected" is printed), then each has one message under way at a
 * time until the time is over; what comes back is compared with the generator that made it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LARGEST = 3000 };

struct conn {
	int fd;
	uint32_t seed; /* of the message under way */
	int size, sent, got;
	uint32_t out, in; /* generator states */
	long messages;
};

static long long errors, bytes;

static unsigned char next_byte(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return (unsigned char)(*state >> 24);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void begin(struct conn *c)
{
	c->seed = c->seed * 69069u + 12345u;
	c->size = 1 + (c->seed >> 8) % (c->messages % 10 == 9 ? LARGEST : 200);
	c->sent = c->got = 0;
	c->out = c->in = c->seed;
}

/* Sends what fits. Returns 0 if the connection is broken. */
static int push(struct conn *c)
{
	while (c->sent < c->size) {
		unsigned char buf[LARGEST];
		uint32_t state = c->out;
		int n = c->size - c->sent;

		for (int i = 0; i < n; i++)
			buf[i] = next_byte(&state);
		ssize_t w = send(c->fd, buf, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (w < 0 && (errno == EAGAIN || errno == EINTR))
			return 1;
		if (w <= 0)
			return 0;
		for (ssize_t i = 0; i < w; i++)
			next_byte(&c->out);
		c->sent += (int)w;
	}
	return 1;
}

/* Receives and compares. Returns 0 if the connection is broken, 2 when the message is complete. */
static int pull(struct conn *c)
{
	unsigned char buf[LARGEST];

	while (c->got < c->size) {
		ssize_t n = recv(c->fd, buf, c->size - c->got, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return 1;
		if (n <= 0)
			return 0;
		for (ssize_t i = 0; i < n; i++)
			if (buf[i] != next_byte(&c->in))
				errors++;
		c->got += (int)n;
		bytes += n;
	}
	return 2;
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	if (argc != 4) {
		fprintf(stderr, "usage: echo_client PORT CONNECTIONS SECONDS\n");
		return 2;
	}
	a.sin_port = htons(atoi(argv[1]));
	int n = atoi(argv[2]), open_now = n, ep = epoll_create1(EPOLL_CLOEXEC);
	double seconds = atof(argv[3]);
	struct conn *conns = calloc(n, sizeof *conns);

	for (int i = 0; i < n; i++) {
		struct conn *c = &conns[i];

		c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (c->fd < 0 || connect(c->fd, (void *)&a, sizeof a) != 0) {
			fprintf(stderr, "echo_client: connection %d: %s\n", i, strerror(errno));
			return 1;
		}
		c->seed = (uint32_t)i * 2654435761u + 1;
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
		epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev);
	}
	printf("connected\n");
	fflush(stdout);
	double start = now(), end = start + seconds, last = start;
	for (int i = 0; i < n; i++) {
		begin(&conns[i]);
		if (!push(&conns[i]))
			errors++;
	}
	while (open_now > 0) {
		struct epoll_event ev[256];
		int k = epoll_wait(ep, ev, 256, 1000);
		double t = now();

		if (k > 0)
			last = t;
		if (t - last > 20) {
			fprintf(stderr, "echo_client: nothing came for 20 s on %d connections\n",
				open_now);
			errors++;
			break;
		}
		for (int i = 0; i < k; i++) {
			struct conn *c = ev[i].data.ptr;
			int alive = push(c), state = alive ? pull(c) : 0;

			if (state == 0) {
				errors++;
				fprintf(stderr, "echo_client: connection broken: %s\n",
					strerror(errno));
				close(c->fd);
				open_now--;
			} else if (state == 2) {
				c->messages++;
				if (t >= end) {
					close(c->fd);
					open_now--;
				} else {
					begin(c);
					push(c);
				}
			}
		}
	}
	long messages = 0, least = -1;
	for (int i = 0; i < n; i++) {
		messages += conns[i].messages;
		if (least < 0 || conns[i].messages < least)
			least = conns[i].messages;
	}
	printf("connections=%d messages=%ld least=%ld bytes=%lld errors=%lld per_second=%.0f\n", n,
	       messages, least, bytes, errors, messages / (now() - start));
	return errors != 0 || least < 1;
}
