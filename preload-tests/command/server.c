/*
 * A server for `goshim compare` to run: a thread a connection, which answers what it gets. What else it does is its second
 * argument.
 *
 *     command_server PORT [WHAT]
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *what = "";
static atomic_uint answers;

static int is(const char *name)
{
	return strcmp(what, name) == 0;
}

/* 2 ms of CPU, by the thread's own clock. */
static void spin(void)
{
	struct timespec from, now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
	do
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	while ((now.tv_sec - from.tv_sec) * 1000000000L + now.tv_nsec - from.tv_nsec < 2000000);
}

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static long waited, locked; /* under it */

static long now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

/* Has a lock for 2 ms, and counts how long it waited for that. */
static void lock(void)
{
	long before = now();
	pthread_mutex_lock(&one_at_a_time);
	waited += now() - before;
	locked++;
	usleep(2000);
	pthread_mutex_unlock(&one_at_a_time);
}

/* A file's name, with the mode. */
static const char *byname(const char *start)
{
	static char name[40];
	const char *mode = getenv("GOSHIM");
	snprintf(name, sizeof name, "%s-%s", start,
		 !mode                    ? "native"
		 : strstr(mode, "kernel") ? "kernel"
					  : "goroutines");
	return name;
}

/* Half a second after the first request nobody gets an answer for 100 ms, once. How long that was is written down. */
static void stall(void)
{
	static long first;
	pthread_mutex_lock(&one_at_a_time);
	long begin = now();
	first = first ? first : begin;
	if (!locked && begin - first > 500000000) {
		locked++;
		usleep(100000);
		FILE *f = fopen(byname("stall"), "w");
		fprintf(f, "%ld\n", now() - begin);
		fclose(f);
	}
	pthread_mutex_unlock(&one_at_a_time);
}

static void *say_at_term(void *arg)
{
	int sig;
	sigwait(arg, &sig);
	pthread_mutex_lock(&one_at_a_time);
	FILE *f = fopen(byname("waited"), "a");
	fprintf(f, "%ld %ld\n", waited, locked);
	exit(fclose(f));
}

static void *serve(void *arg)
{
	int fd = (int)(long)arg;
	const char *preload = getenv("LD_PRELOAD");
	int ours = preload && strstr(preload, "libgoshim.so");
	char buf[4096];
	ssize_t n;
	while ((n = read(fd, buf, sizeof buf)) > 0) {
		unsigned count = atomic_fetch_add(&answers, 1);
		if (is("slow") && ours)
			usleep(200000);
		if (is("spin"))
			spin();
		if (is("lock"))
			lock();
		if (is("stall"))
			stall();
		if (is("crash") && count > 20)
			abort();
		if (is("leave") && count > 20)
			exit(3);
		if (is("wrong") && count > 20)
			buf[n / 2] ^= 1;
		if (write(fd, buf, (size_t)n) != n)
			break;
	}
	close(fd);
	return NULL;
}

static int listener(int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons((unsigned short)port),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 128)) {
		perror("listen");
		exit(1);
	}
	return fd;
}

int main(int argc, char **argv)
{
	int port = argc > 1 ? atoi(argv[1]) : 0, one = 1;
	what = argc > 2 ? argv[2] : "";
	fprintf(stderr, "server %d '%s'\n", (int)getpid(), what);
	if (is("spin"))
		memset(malloc(64 << 20), 1, 64 << 20);
	if (is("exits"))
		return 7;
	if (is("silent"))
		pause();
	if (is("deaf"))
		signal(SIGTERM, SIG_IGN);
	if (is("bare") && getenv("LD_PRELOAD")) {
		unsetenv("LD_PRELOAD");
		execv("/proc/self/exe", argv);
	}
	if ((is("daemon") || is("leaves")) && fork() == 0) {
		setsid();
		if (fork() > 0)
			return 0;
		if (is("leaves"))
			pause();
	} else if (is("daemon")) {
		return 0;
	}
	if (is("forks") && fork() > 0)
		wait(NULL); /* its child serves */
	pthread_t t;
	sigset_t term;
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	if (is("lock") && (pthread_sigmask(SIG_BLOCK, &term, NULL) ||
			   pthread_create(&t, NULL, say_at_term, &term)))
		return 1;
	int fd = listener(port);
	for (;;) {
		int c = accept(fd, NULL, NULL);
		if (c < 0)
			return 1;
		setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		if (pthread_create(&t, NULL, serve, (void *)(long)c))
			return 1;
		pthread_detach(t);
	}
}
