/*
 * An echo server as one writes it first: a thread for each connection, blocking reads and writes,
 * statistics under a mutex. It says which port it has, and on SIGTERM what it did.
 *
 *	echo_server [PORT]
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t none_open = PTHREAD_COND_INITIALIZER;
static struct {
	long accepted, open, most, reads, errors;
	long long bytes;
} stats;
static int listener;
static volatile sig_atomic_t ending;

static void on_term(int sig)
{
	(void)sig;
	ending = 1;
	shutdown(listener, SHUT_RDWR);
}

static int write_all(int fd, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t w = write(fd, p, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return -1;
		p += w;
		n -= w;
	}
	return 0;
}

static void *serve(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char buf[4096];

	for (;;) {
		ssize_t n = read(fd, buf, sizeof buf);
		if (n < 0 && errno == EINTR)
			continue;
		int failed = n < 0 || (n > 0 && write_all(fd, buf, n) != 0);
		pthread_mutex_lock(&lock);
		stats.reads++;
		stats.bytes += n > 0 ? n : 0;
		stats.errors += failed;
		pthread_mutex_unlock(&lock);
		if (n <= 0 || failed)
			break;
	}
	close(fd);
	pthread_mutex_lock(&lock);
	if (--stats.open == 0)
		pthread_cond_signal(&none_open);
	pthread_mutex_unlock(&lock);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	struct sigaction sa = {.sa_handler = on_term};
	pthread_attr_t attr;
	int one = 1;

	a.sin_port = htons(argc > 1 ? atoi(argv[1]) : 0);
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGTERM, &sa, NULL);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (void *)&a, sizeof a) || listen(listener, 1024) ||
	    getsockname(listener, (void *)&a, &len)) {
		perror("echo_server");
		return 1;
	}
	printf("listening on %d\n", ntohs(a.sin_port));
	fflush(stdout);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	while (!ending) {
		pthread_t t;
		int fd = accept(listener, NULL, NULL);
		if (fd < 0) {
			if (errno == EINTR || errno == ECONNABORTED)
				continue;
			break;
		}
		pthread_mutex_lock(&lock);
		stats.accepted++;
		if (++stats.open > stats.most)
			stats.most = stats.open;
		pthread_mutex_unlock(&lock);
		int rc = pthread_create(&t, &attr, serve, (void *)(intptr_t)fd);
		if (rc != 0) {
			fprintf(stderr, "echo_server: pthread_create: %s\n", strerror(rc));
			close(fd);
			pthread_mutex_lock(&lock);
			stats.open--;
			stats.errors++;
			pthread_mutex_unlock(&lock);
		}
	}
	pthread_mutex_lock(&lock);
	while (stats.open > 0)
		pthread_cond_wait(&none_open, &lock);
	printf("accepted=%ld most=%ld reads=%ld bytes=%lld errors=%ld\n", stats.accepted,
	       stats.most, stats.reads, stats.bytes, stats.errors);
	pthread_mutex_unlock(&lock);
	return stats.errors != 0;
}
