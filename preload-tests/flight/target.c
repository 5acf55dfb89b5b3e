/*
 * What the flight recorder is to notice: waits whose cause is known. Waits for a byte on stdin, does its work, says
 * how long it has taken in ns, and waits for the end of stdin.
 */
#include "../test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WAITERS = 3 };

static long ms;
static pthread_mutex_t thelock = PTHREAD_MUTEX_INITIALIZER, *heaplock;
static pthread_rwlock_t thebook = PTHREAD_RWLOCK_INITIALIZER;
static sem_t held;
static long longest;

static long now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

static void nap(void)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000};
	while (nanosleep(&ts, &ts))
		;
}

/* As long as the pause, whatever else the CPUs do. */
__attribute__((noinline)) static void spins_for_long(void)
{
	long end = now() + ms * 1000000;
	while (now() < end)
		;
}

static pthread_t start(void *(*fn)(void *), void *arg, const char *name)
{
	pthread_t t;
	CHECK(pthread_create(&t, NULL, fn, arg) == 0);
	if (name)
		pthread_setname_np(t, name);
	return t;
}

static void *nothing(void *arg)
{
	return arg;
}

/* --- a lock that one of four has for long ------------------------------------------------------- */

static void *holds_it(void *lock)
{
	pthread_mutex_lock(lock);
	for (int i = 0; i < WAITERS; i++)
		sem_post(&held);
	nap();
	pthread_mutex_unlock(lock);
	return NULL;
}

static void *wants_it(void *lock)
{
	sem_wait(&held);
	long since = now();
	pthread_mutex_lock(lock);
	longest = now() - since > longest ? now() - since : longest;
	pthread_mutex_unlock(lock);
	return NULL;
}

static void lock(pthread_mutex_t *m)
{
	pthread_t t[WAITERS + 1];
	t[WAITERS] = start(holds_it, m, "holder");
	for (int i = 0; i < WAITERS; i++)
		t[i] = start(wants_it, m, "waiter");
	for (int i = 0; i <= WAITERS; i++)
		pthread_join(t[i], NULL);
}

/* Who has one lock waits, later on, for another one, which somebody has for longer. */
static void *holds_another(void *arg)
{
	pthread_mutex_lock(heaplock);
	sem_post(&held);
	usleep(900000);
	pthread_mutex_lock(&thelock);
	pthread_mutex_unlock(&thelock);
	pthread_mutex_unlock(heaplock);
	return arg;
}

static void chain(void)
{
	pthread_t t[3] = {start(holds_it, &thelock, "holder")};
	for (int i = 0; i < WAITERS; i++)
		sem_wait(&held);
	t[1] = start(holds_another, NULL, "middle");
	t[2] = start(wants_it, heaplock, "waiter");
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
}

static void *writes_it(void *arg)
{
	pthread_rwlock_wrlock(&thebook);
	sem_post(&held);
	nap();
	pthread_rwlock_unlock(&thebook);
	return arg;
}

static void book(void)
{
	pthread_t t = start(writes_it, NULL, "writer");
	sem_wait(&held);
	long since = now();
	pthread_rwlock_rdlock(&thebook);
	longest = now() - since;
	pthread_rwlock_unlock(&thebook);
	pthread_join(t, NULL);
}

/* --- a processor that one has for long ----------------------------------------------------------- */

static void *computes(void *made)
{
	long late = now() - *(long *)made;
	pthread_setname_np(pthread_self(), "hog");
	spins_for_long();
	pthread_mutex_lock(&thelock);
	longest = late > longest ? late : longest;
	pthread_mutex_unlock(&thelock);
	return NULL;
}

/* With one processor the second waits for the first. */
static void queue(void)
{
	pthread_t t[2];
	long made[2];
	for (int i = 0; i < 2; i++) {
		made[i] = now();
		t[i] = start(computes, &made[i], NULL);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

/* --- a request that takes long -------------------------------------------------------------------- */

static void *serves(void *arg)
{
	int l = (int)(long)arg, fd = accept(l, NULL, NULL);
	char c;
	while (read(fd, &c, 1) == 1) {
		if (c == 's')
			nap();
		if (write(fd, &c, 1) != 1)
			break;
	}
	close(fd);
	return NULL;
}

static void request(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof a;
	char c;
	int l = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(bind(l, (struct sockaddr *)&a, sizeof a) == 0 && listen(l, 5) == 0 &&
	      getsockname(l, (struct sockaddr *)&a, &n) == 0);
	pthread_t t = start(serves, (void *)(long)l, "server");
	CHECK(connect(fd, (struct sockaddr *)&a, n) == 0);
	for (const char *p = "fsf"; *p; p++) {
		long since = now();
		CHECK(write(fd, p, 1) == 1 && read(fd, &c, 1) == 1 && c == *p);
		longest = now() - since > longest ? now() - since : longest;
	}
	close(fd);
	pthread_join(t, NULL);
	close(l);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "lock";
	char c;
	ms = argc > 2 ? atol(argv[2]) : 30;
	sem_init(&held, 0, 0);
	heaplock = calloc(1, sizeof *heaplock);
	pthread_mutex_init(heaplock, NULL);
	pthread_join(start(nothing, NULL, NULL), NULL);
	printf("ready\n");
	fflush(stdout);
	if (read(0, &c, 1) != 1)
		return 0;
	if (!strcmp(what, "lock"))
		lock(&thelock);
	else if (!strcmp(what, "heap"))
		lock(heaplock);
	else if (!strcmp(what, "chain"))
		chain();
	else if (!strcmp(what, "book"))
		book();
	else if (!strcmp(what, "queue"))
		queue();
	else if (!strcmp(what, "request"))
		request();
	else if (!strcmp(what, "exit")) {
		lock(&thelock);
		return 0;
	} else if (!strcmp(what, "fork")) {
		pid_t child = fork();
		if (child == 0) {
			lock(&thelock);
			exit(0);
		}
		CHECK(waitpid(child, NULL, 0) == child);
		printf("%d\n", (int)child);
		longest = 0;
	} else if (!strcmp(what, "filter")) {
		/* One that allows everything, of the caller alone. */
		struct {
			unsigned short code;
			unsigned char t, f;
			unsigned k;
		} allow = {6, 0, 0, 0x7fff0000};
		struct {
			unsigned short n;
			void *p;
		} program = {1, &allow};
		CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
		CHECK(prctl(PR_SET_SECCOMP, 2, &program) == 0);
		lock(&thelock);
	} else {
		for (;;)
			lock(&thelock);
	}
	if (strcmp(what, "fork"))
		printf("%ld\n", longest);
	fflush(stdout);
	while (read(0, &c, 1) > 0)
		;
	return 0;
}
