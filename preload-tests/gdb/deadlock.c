/* Two threads that wait for each other's lock, for ever; a reader and a writer that do likewise. */
#include "../test.h"

static pthread_mutex_t lock_a = PTHREAD_MUTEX_INITIALIZER, lock_b = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t book = PTHREAD_RWLOCK_INITIALIZER;
static pthread_barrier_t both;

static void *takes_a_then_b(void *arg)
{
	volatile int answer = 42;

	pthread_setname_np(pthread_self(), "first");
	pthread_mutex_lock(&lock_a);
	pthread_barrier_wait(&both);
	pthread_mutex_lock(&lock_b);
	return answer ? arg : NULL;
}

static void *takes_b_then_a(void *arg)
{
	pthread_setname_np(pthread_self(), "second");
	pthread_mutex_lock(&lock_b);
	pthread_barrier_wait(&both);
	pthread_mutex_lock(&lock_a);
	return arg;
}

static void *reads_the_book(void *arg)
{
	pthread_setname_np(pthread_self(), "reader");
	pthread_rwlock_rdlock(&book);
	return arg;
}

/* Waited for, and free again: static, and not. */
static pthread_mutex_t past = PTHREAD_MUTEX_INITIALIZER;

static void *waits_a_little(void *arg)
{
	pthread_mutex_lock(arg);
	pthread_mutex_unlock(arg);
	return NULL;
}

static void contend(pthread_mutex_t *m)
{
	pthread_t t;

	pthread_mutex_lock(m);
	t = spawn(waits_a_little, m);
	sleep_ms(50);
	pthread_mutex_unlock(m);
	join(t);
}

static void *waits_on_the_heap(void *arg)
{
	pthread_mutex_lock(arg);
	return arg;
}

int main(void)
{
	pthread_mutex_t *heap = calloc(1, sizeof *heap);
	pthread_t t;

	pthread_barrier_init(&both, NULL, 3);
	pthread_rwlock_wrlock(&book);
	t = spawn(takes_a_then_b, NULL);
	spawn(takes_b_then_a, NULL);
	spawn(reads_the_book, NULL);
	pthread_barrier_wait(&both);
	for (int i = 0; i < 3; i++)
		contend(&past);
	contend(heap);
	pthread_mutex_lock(heap);
	spawn(waits_on_the_heap, heap);
	sleep_ms(200);
	say("ready");
	join(t);
	return 0;
}
