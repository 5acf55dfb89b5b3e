/*
 * What `goshim trace` is to look at: waits for a byte on stdin, does its work, says what it knows of it, and
 * waits for the end of stdin.
 */
#include "../test.h"

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 200, QUEUED = 10 };

static long now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

static void nap(long ns)
{
	struct timespec ts = {0, ns};
	while (nanosleep(&ts, &ts))
		;
}

static pthread_mutex_t themutex = PTHREAD_MUTEX_INITIALIZER, *heapmutex;
static pthread_cond_t thecond = PTHREAD_COND_INITIALIZER;
static sem_t held, ping, pong;
static bool gate;
static long waited;
static volatile bool forever;

static void *nothing(void *arg)
{
	return arg;
}

static void *holder(void *mutex)
{
	pthread_mutex_lock(mutex);
	sem_post(&held);
	nap(5000000);
	pthread_mutex_unlock(mutex);
	return NULL;
}

static void *waiter(void *mutex)
{
	sem_wait(&held);
	long since = now();
	pthread_mutex_lock(mutex);
	waited = now() - since;
	pthread_mutex_unlock(mutex);
	return NULL;
}

/* All become runnable at once, on one processor, and each computes for 500 us, which no slice ends. */
static void *queued(void *arg)
{
	pthread_mutex_lock(&themutex);
	while (!gate)
		pthread_cond_wait(&thecond, &themutex);
	pthread_mutex_unlock(&themutex);
	long end = now() + 500000;
	while (now() < end)
		;
	return arg;
}

static void *first(void *arg)
{
	for (int i = 0; forever || i < ROUNDS; i++) {
		sem_post(&ping);
		sem_wait(&pong);
	}
	return arg;
}

static void *second(void *arg)
{
	for (int i = 0; forever || i < ROUNDS; i++) {
		sem_wait(&ping);
		sem_post(&pong);
	}
	return arg;
}

static pthread_t startwith(void *(*fn)(void *), void *arg, const char *name)
{
	pthread_t t;
	CHECK(pthread_create(&t, NULL, fn, arg) == 0);
	if (name)
		pthread_setname_np(t, name);
	return t;
}

static pthread_t start(void *(*fn)(void *), const char *name)
{
	return startwith(fn, NULL, name);
}

static void lock(pthread_mutex_t *m)
{
	pthread_t a = startwith(holder, m, "holder"), b = startwith(waiter, m, "waiter");
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	printf("%ld\n", waited);
}

static void queue(void)
{
	pthread_t t[QUEUED];
	for (int i = 0; i < QUEUED; i++)
		t[i] = start(queued, "queued");
	nap(50000000);
	pthread_mutex_lock(&themutex);
	gate = true;
	pthread_cond_broadcast(&thecond);
	pthread_mutex_unlock(&themutex);
	for (int i = 0; i < QUEUED; i++)
		pthread_join(t[i], NULL);
	printf("%d\n", QUEUED);
}

static void game(void)
{
	pthread_t a = start(first, "first"), b = start(second, "second");
	if (forever)
		return;
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	printf("%d\n", ROUNDS);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "lock";
	char c;
	sem_init(&held, 0, 0);
	sem_init(&ping, 0, 0);
	sem_init(&pong, 0, 0);
	heapmutex = calloc(1, sizeof *heapmutex);
	pthread_mutex_init(heapmutex, NULL);
	pthread_join(start(nothing, NULL), NULL);
	printf("ready\n");
	fflush(stdout);
	if (read(0, &c, 1) != 1)
		return 0;
	if (!strcmp(what, "lock"))
		lock(&themutex);
	else if (!strcmp(what, "heap"))
		lock(heapmutex);
	else if (!strcmp(what, "queue"))
		queue();
	else if (!strcmp(what, "game"))
		game();
	else if (!strcmp(what, "fork")) {
		pid_t child = fork();
		if (child == 0) {
			game();
			_exit(0);
		}
		CHECK(waitpid(child, NULL, 0) == child);
		lock(&themutex);
	} else if (!strcmp(what, "exec")) {
		execl("/proc/self/exe", argv[0], "lock", (char *)NULL);
		return 1;
	} else {
		forever = true;
		game();
	}
	fflush(stdout);
	while (read(0, &c, 1) > 0)
		;
	return 0;
}
