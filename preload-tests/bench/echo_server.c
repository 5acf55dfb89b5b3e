/*
 * The simplest server there is: a thread for each connection, blocking read and write, statistics
 * under a mutex. Listens on a port of the system's choice on 127.0.0.1, prints port=N, and serves
 * until SIGTERM, when it prints its statistics.
 */
#include "bench.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t connections, reads, bytes;

static void *serve(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char buf[4096];
	ssize_t n;
	while ((n = read(fd, buf, sizeof buf)) > 0) {
		for (ssize_t done = 0, w; done < n; done += w)
			if ((w = write(fd, buf + done, (size_t)(n - done))) <= 0)
				goto out;
		OK(pthread_mutex_lock(&mutex));
		reads++;
		bytes += (uint64_t)n;
		OK(pthread_mutex_unlock(&mutex));
	}
out:
	close(fd);
	return NULL;
}

static void *accept_all(void *arg)
{
	int listener = (int)(intptr_t)arg, one = 1;
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		CHECK(fd >= 0);
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		pthread_t t;
		OK(pthread_create(&t, NULL, serve, (void *)(intptr_t)fd));
		OK(pthread_detach(t));
		OK(pthread_mutex_lock(&mutex));
		connections++;
		OK(pthread_mutex_unlock(&mutex));
	}
	return NULL;
}

int main(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof sa;
	sigset_t term;
	int sig, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	OK(pthread_sigmask(SIG_BLOCK, &term, NULL));
	CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof sa) == 0 && listen(fd, 4096) == 0);
	CHECK(getsockname(fd, (struct sockaddr *)&sa, &len) == 0);
	printf("port=%u\n", ntohs(sa.sin_port));
	fflush(stdout);
	pthread_t t;
	OK(pthread_create(&t, NULL, accept_all, (void *)(intptr_t)fd));
	OK(sigwait(&term, &sig));
	OK(pthread_mutex_lock(&mutex));
	printf("connections=%llu\nreads=%llu\nbytes=%llu\n", (unsigned long long)connections,
	       (unsigned long long)reads, (unsigned long long)bytes);
	fflush(stdout);
	_exit(0);
}
