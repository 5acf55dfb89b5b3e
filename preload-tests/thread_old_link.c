/*
 * A program that was linked before glibc 2.34, when the functions for threads were in libpthread.so.0: its threads
 * are goroutines all the same.
 */
#include "test.h"

#include <semaphore.h>

enum { N = 100 };

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static sem_t arrived;
static int go;

static void *waits(void *arg)
{
	sem_post(&arrived);
	pthread_mutex_lock(&m);
	while (!go)
		pthread_cond_wait(&c, &m);
	pthread_mutex_unlock(&m);
	return arg;
}

static void threads(void)
{
	pthread_t t[N];

	REQUIRE(sem_init(&arrived, 0, 0) == 0);
	for (intptr_t i = 0; i < N; i++)
		t[i] = spawn(waits, (void *)i);
	for (int i = 0; i < N; i++)
		CHECK_EQ(sem_wait(&arrived), 0);
	check_goroutines(N);
	pthread_mutex_lock(&m);
	go = 1;
	pthread_cond_broadcast(&c);
	pthread_mutex_unlock(&m);
	for (intptr_t i = 0; i < N; i++)
		CHECK(join(t[i]) == (void *)i);
}

static const struct test_case cases[] = {
    {"threads", threads},
};

TEST_MAIN(cases)
