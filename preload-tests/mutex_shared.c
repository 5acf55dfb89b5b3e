/*
 * Mutexes that the kernel or another process knows: process-shared, robust and priority-inheriting
 * ones keep libc's protocol, since the other side may be native, and must work from any thread, in
 * company, and across fork.
 */
#include "test.h"

#include <sys/mman.h>

struct shared {
	pthread_mutex_t m;
	pthread_cond_t c;
	pthread_rwlock_t rw;
	pthread_barrier_t b;
	long count;
	int turn;
};

static struct shared *s;

static void make(int type, int robust, int protocol)
{
	pthread_mutexattr_t ma;
	pthread_condattr_t ca;
	pthread_rwlockattr_t ra;
	pthread_barrierattr_t ba;

	s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(s != MAP_FAILED);
	pthread_mutexattr_init(&ma);
	CHECK_EQ(pthread_mutexattr_setpshared(&ma, PTHREAD_PROCESS_SHARED), 0);
	CHECK_EQ(pthread_mutexattr_settype(&ma, type), 0);
	CHECK_EQ(pthread_mutexattr_setrobust(&ma, robust), 0);
	CHECK_EQ(pthread_mutexattr_setprotocol(&ma, protocol), 0);
	CHECK_EQ(pthread_mutex_init(&s->m, &ma), 0);
	pthread_mutexattr_destroy(&ma);
	pthread_condattr_init(&ca);
	CHECK_EQ(pthread_condattr_setpshared(&ca, PTHREAD_PROCESS_SHARED), 0);
	CHECK_EQ(pthread_cond_init(&s->c, &ca), 0);
	pthread_condattr_destroy(&ca);
	pthread_rwlockattr_init(&ra);
	CHECK_EQ(pthread_rwlockattr_setpshared(&ra, PTHREAD_PROCESS_SHARED), 0);
	CHECK_EQ(pthread_rwlock_init(&s->rw, &ra), 0);
	pthread_rwlockattr_destroy(&ra);
	pthread_barrierattr_init(&ba);
	CHECK_EQ(pthread_barrierattr_setpshared(&ba, PTHREAD_PROCESS_SHARED), 0);
	CHECK_EQ(pthread_barrier_init(&s->b, &ba, 2), 0);
	pthread_barrierattr_destroy(&ba);
}

static void *add(void *arg)
{
	for (int i = 0; i < 500; i++) {
		CHECK_EQ(pthread_mutex_lock(&s->m), 0);
		long c = s->count;
		if (i % 50 == 0)
			sched_yield();
		s->count = c + 1;
		CHECK_EQ(pthread_mutex_unlock(&s->m), 0);
	}
	return arg;
}

static int add_in_threads(void)
{
	pthread_t t[4];

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(add, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	return 0;
}

static void counted_by_two_processes(void)
{
	static const struct {
		int type, robust, protocol;
	} table[] = {
	    {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_STALLED, PTHREAD_PRIO_NONE},
	    {PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_STALLED, PTHREAD_PRIO_NONE},
	    {PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_STALLED, PTHREAD_PRIO_NONE},
	    {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ROBUST, PTHREAD_PRIO_NONE},
	    {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_STALLED, PTHREAD_PRIO_INHERIT},
	    {PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_ROBUST, PTHREAD_PRIO_INHERIT},
	};

	for (unsigned i = 0; i < COUNT(table); i++) {
		int status = -1;

		make(table[i].type, table[i].robust, table[i].protocol);
		pid_t pid = fork();
		if (pid == 0) {
			test_failures = 0;
			add_in_threads();
			exit(test_failures != 0);
		}
		add_in_threads();
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK_EQ(status, 0);
		if (s->count != 500 * 8)
			FAIL("row %u: counted %ld", i, s->count);
		munmap(s, sizeof *s);
	}
}

static void *ping(void *arg)
{
	int me = (int)(intptr_t)arg;

	for (int i = 0; i < 200; i++) {
		CHECK_EQ(pthread_mutex_lock(&s->m), 0);
		while (s->turn != me)
			CHECK_EQ(pthread_cond_wait(&s->c, &s->m), 0);
		s->turn = !me;
		CHECK_EQ(pthread_cond_broadcast(&s->c), 0);
		CHECK_EQ(pthread_mutex_unlock(&s->m), 0);
	}
	int rc = pthread_barrier_wait(&s->b);
	CHECK(rc == 0 || rc == PTHREAD_BARRIER_SERIAL_THREAD);
	for (int i = 0; i < 200; i++) {
		if ((i + me) % 2) {
			CHECK_EQ(pthread_rwlock_rdlock(&s->rw), 0);
		} else {
			CHECK_EQ(pthread_rwlock_wrlock(&s->rw), 0);
			s->count++;
		}
		CHECK_EQ(pthread_rwlock_unlock(&s->rw), 0);
	}
	return NULL;
}

static void other_objects_between_processes(void)
{
	int status = -1;

	make(PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_STALLED, PTHREAD_PRIO_NONE);
	pid_t pid = fork();
	if (pid == 0) {
		test_failures = 0;
		join(spawn(ping, (void *)1));
		exit(test_failures != 0);
	}
	join(spawn(ping, (void *)0));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	CHECK_EQ(s->count, 200);
	munmap(s, sizeof *s);
}

static void *lock_and_end(void *arg)
{
	CHECK_EQ(pthread_mutex_lock(&s->m), 0);
	return arg;
}

static void *lock_dead(void *arg)
{
	CHECK_EQ(pthread_mutex_lock(&s->m), EOWNERDEAD);
	CHECK_EQ(pthread_mutex_consistent(&s->m), 0);
	CHECK_EQ(pthread_mutex_unlock(&s->m), 0);
	CHECK_EQ(pthread_mutex_lock(&s->m), 0);
	CHECK_EQ(pthread_mutex_unlock(&s->m), 0);
	return arg;
}

/* The owner of a robust mutex ends: thread or process. */
static void robust_owner_dies(void)
{
	make(PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ROBUST, PTHREAD_PRIO_NONE);
	join(spawn(lock_and_end, NULL));
	join(spawn(lock_dead, NULL));
	pthread_t t = spawn(lock_and_end, NULL);
	join(t);
	lock_dead(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		pthread_mutex_lock(&s->m);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	lock_dead(NULL);
	/* Unlocked without being made consistent: of no use from then on. */
	join(spawn(lock_and_end, NULL));
	CHECK_EQ(pthread_mutex_lock(&s->m), EOWNERDEAD);
	CHECK_EQ(pthread_mutex_unlock(&s->m), 0);
	CHECK_EQ(pthread_mutex_lock(&s->m), ENOTRECOVERABLE);
	munmap(s, sizeof *s);
}

static void *hold_for_a_while(void *arg)
{
	CHECK_EQ(pthread_mutex_lock(&s->m), 0);
	__atomic_store_n(&s->turn, 1, __ATOMIC_RELEASE);
	CHECK(wait_for(&s->turn, 2, 30000));
	sleep_ms(10);
	CHECK_EQ(pthread_mutex_unlock(&s->m), 0);
	return arg;
}

static void timeouts(void)
{
	static const int protocols[] = {PTHREAD_PRIO_NONE, PTHREAD_PRIO_INHERIT};

	for (unsigned i = 0; i < COUNT(protocols); i++) {
		make(PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_STALLED, protocols[i]);
		pthread_t t = spawn(hold_for_a_while, NULL);
		CHECK(wait_for(&s->turn, 1, 10000));
		struct timespec ts = after_ms(CLOCK_REALTIME, 10);
		CHECK_EQ(pthread_mutex_trylock(&s->m), EBUSY);
		CHECK_EQ(pthread_mutex_timedlock(&s->m, &ts), ETIMEDOUT);
		__atomic_store_n(&s->turn, 2, __ATOMIC_RELEASE);
		CHECK_EQ(pthread_mutex_lock(&s->m), 0);
		CHECK_EQ(pthread_mutex_unlock(&s->m), 0);
		join(t);
		munmap(s, sizeof *s);
	}
}

static const struct test_case cases[] = {
    {"counted_by_two_processes", counted_by_two_processes},
    {"other_objects_between_processes", other_objects_between_processes},
    {"robust_owner_dies", robust_owner_dies},
    {"timeouts", timeouts},
};

TEST_MAIN(cases)
