/*
 * What `goshim top` is to look at: so many threads of the crowd as the first argument says wait for a semaphore, three for a
 * mutex that main has, one sleeps, one reads from a pipe, one computes if there is a second argument. Prints "ready" when all of
 * them are there, and obeys lines from its input: "give" gives the mutex to each of the three once and takes it back,
 * "exec" becomes another program, "end" ends. Ends with its input, too.
 */
#include "../test.h"

#include <semaphore.h>
#include <stdbool.h>

enum { WAITERS = 3 };

static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;
static sem_t full;
static int ends[2];
static int began, got, rounds; /* rounds: of giving; a waiter waits once in each */

static void named(const char *name)
{
	CHECK(pthread_setname_np(pthread_self(), name) == 0);
	__atomic_fetch_add(&began, 1, __ATOMIC_RELAXED);
}

static void *crowd(void *arg)
{
	named("crowd");
	while (sem_wait(&full))
		;
	return arg;
}

static void until(int *n, int least)
{
	while (__atomic_load_n(n, __ATOMIC_ACQUIRE) < least)
		usleep(1000);
}

static void *waiter(void *arg)
{
	named("waiter");
	for (int round = 1;; round++) {
		pthread_mutex_lock(&held);
		pthread_mutex_unlock(&held);
		__atomic_fetch_add(&got, 1, __ATOMIC_RELEASE);
		until(&rounds, round);
	}
	return arg;
}

static void *sleeper(void *arg)
{
	named("sleeper");
	for (;;)
		sleep(1000);
	return arg;
}

static void *reader(void *arg)
{
	char byte;
	named("reader");
	while (read(ends[0], &byte, 1) > 0)
		;
	return arg;
}

static void *spinner(void *arg)
{
	named("spinner");
	for (;;)
		for (volatile int i = 0; i < 1000; i++)
			;
	return arg;
}

static void start(void *(*f)(void *))
{
	pthread_attr_t a;
	pthread_t t;
	CHECK(pthread_attr_init(&a) == 0 && pthread_attr_setstacksize(&a, 65536) == 0 &&
	      pthread_create(&t, &a, f, NULL) == 0);
}

/* stdio would read in libc itself. */
static bool line(char *buf, size_t size)
{
	size_t n = 0;
	while (n + 1 < size && read(0, buf + n, 1) == 1 && buf[n] != '\n')
		n++;
	buf[n] = 0;
	return n > 0;
}

int main(int argc, char **argv)
{
	int n = argc > 1 ? atoi(argv[1]) : 5;
	char what[32];
	CHECK(sem_init(&full, 0, 0) == 0 && pipe(ends) == 0);
	pthread_mutex_lock(&held);
	for (int i = 0; i < n; i++)
		start(crowd);
	for (int i = 0; i < WAITERS; i++)
		start(waiter);
	start(sleeper);
	start(reader);
	if (argc > 2)
		start(spinner);
	until(&began, n + WAITERS + 2 + (argc > 2));
	printf("ready\n");
	fflush(stdout);
	while (line(what, sizeof what) && strcmp(what, "end")) {
		if (!strcmp(what, "exec"))
			execlp("sleep", "sleep", "1000", NULL);
		pthread_mutex_unlock(&held);
		until(&got, WAITERS * (rounds + 1));
		pthread_mutex_lock(&held);
		__atomic_fetch_add(&rounds, 1, __ATOMIC_RELEASE);
		printf("given\n");
		fflush(stdout);
	}
	return 0;
}
