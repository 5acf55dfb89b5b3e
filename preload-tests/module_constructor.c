/*
 * A module whose constructor makes a thread and waits for it, as libraries with a worker do; its
 * destructor ends one more. See process_constructors.c.
 */
#include <pthread.h>

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static int stop;
static pthread_t worker;
int module_ready;

static void *end_now(void *arg)
{
	return arg;
}

static void *work(void *arg)
{
	pthread_mutex_lock(&m);
	while (!stop)
		pthread_cond_wait(&c, &m);
	pthread_mutex_unlock(&m);
	return arg;
}

__attribute__((constructor)) static void start(void)
{
	pthread_t t;
	void *ret = NULL;

	if (pthread_create(&t, NULL, end_now, &m) == 0 && pthread_join(t, &ret) == 0 && ret == &m &&
	    pthread_create(&worker, NULL, work, NULL) == 0)
		module_ready = 1;
}

__attribute__((destructor)) static void end(void)
{
	pthread_mutex_lock(&m);
	stop = 1;
	pthread_cond_signal(&c);
	pthread_mutex_unlock(&m);
	pthread_join(worker, NULL);
}
