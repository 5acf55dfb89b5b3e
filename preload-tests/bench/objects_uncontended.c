/*
 * Takes and releases objects that nobody else wants: a semaphore's token, a read-write lock for reading and for
 * writing, a spin lock. In a second thread, as mutex_uncontended.
 */
#include "bench.h"
#include <semaphore.h>

enum { BATCH = 10000 };

static sem_t sem;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_spinlock_t spin;
static double seconds;
static volatile uint64_t counter;

#define MEASURE(name, take, give)                                   \
	do {                                                        \
		uint64_t n = 0;                                     \
		double start = now(), took;                         \
		counter = 0;                                        \
		do {                                                \
			for (int i = 0; i < BATCH; i++) {           \
				take;                               \
				counter = counter + 1;              \
				give;                               \
			}                                           \
			n += BATCH;                                 \
		} while ((took = now() - start) < seconds / 4);     \
		CHECK(counter == n);                                \
		printf(#name "_ns=%.2f\n", took * 1e9 / (double)n); \
	} while (0)

static void *work(void *arg)
{
	MEASURE(sem, sem_wait(&sem), sem_post(&sem));
	MEASURE(read, pthread_rwlock_rdlock(&rwlock), pthread_rwlock_unlock(&rwlock));
	MEASURE(write, pthread_rwlock_wrlock(&rwlock), pthread_rwlock_unlock(&rwlock));
	MEASURE(spin, pthread_spin_lock(&spin), pthread_spin_unlock(&spin));
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t;
	seconds = option(argc, argv, "seconds", 1);
	CHECK(sem_init(&sem, 0, 1) == 0);
	OK(pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE));
	OK(pthread_create(&t, NULL, work, NULL));
	OK(pthread_join(t, NULL));
}
