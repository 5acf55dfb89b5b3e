/*
 * Cancellation where libc itself does the waiting or the unwinding: conditions shared between
 * processes, system(), a type that becomes asynchronous with a request pending, and a joiner
 * that is cancelled while it is joined.
 */
#include "test.h"

#include <sys/mman.h>

static volatile int unwound, waiting;

static void note(void *arg)
{
	(void)arg;
	__atomic_add_fetch(&unwound, 1, __ATOMIC_SEQ_CST);
}

static struct shared {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
} * shared;

static void unlock(void *arg)
{
	note(NULL);
	CHECK_EQ(pthread_mutex_unlock(arg), 0);
}

static void *waiter(void *arg)
{
	(void)arg;
	REQUIRE_OK(pthread_mutex_lock(&shared->mutex));
	pthread_cleanup_push(unlock, &shared->mutex);
	waiting = 1;
	for (;;)
		pthread_cond_wait(&shared->cond, &shared->mutex);
	pthread_cleanup_pop(0);
	return NULL;
}

static void shared_cond(void)
{
	static const int types[] = {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ERRORCHECK,
				    PTHREAD_MUTEX_RECURSIVE};
	pthread_mutexattr_t ma;
	pthread_condattr_t ca;

	shared =
	    mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(shared != MAP_FAILED);
	for (int i = 0; i < 60; i++) {
		pthread_mutexattr_init(&ma);
		pthread_mutexattr_setpshared(&ma, PTHREAD_PROCESS_SHARED);
		pthread_mutexattr_settype(&ma, types[i % 3]);
		pthread_condattr_init(&ca);
		pthread_condattr_setpshared(&ca, PTHREAD_PROCESS_SHARED);
		REQUIRE_OK(pthread_mutex_init(&shared->mutex, &ma));
		REQUIRE_OK(pthread_cond_init(&shared->cond, &ca));
		unwound = waiting = 0;
		pthread_t t = spawn(waiter, NULL);
		REQUIRE(wait_for(&waiting, 1, 10000));
		if (i % 2)
			sleep_ms(2);
		CHECK_EQ(pthread_cancel(t), 0);
		CHECK(join(t) == PTHREAD_CANCELED);
		CHECK_EQ(unwound, 1);
		CHECK_EQ(pthread_mutex_trylock(&shared->mutex), 0);
		pthread_mutex_unlock(&shared->mutex);
	}
	munmap(shared, sizeof *shared);
}

static void *runner(void *arg)
{
	pthread_cleanup_push(note, NULL);
	waiting = 1;
	(void)!system(arg);
	pthread_cleanup_pop(0);
	return NULL;
}

/* The thread goes on working afterwards, and so does its kernel thread. */
static void system_call(void)
{
	for (int i = 0; i < 3; i++) {
		unwound = waiting = 0;
		pthread_t t = spawn(runner, "exec sleep 30");
		int64_t start = now_ms();
		REQUIRE(wait_for(&waiting, 1, 10000));
		sleep_ms(100);
		CHECK_EQ(pthread_cancel(t), 0);
		CHECK(join(t) == PTHREAD_CANCELED);
		CHECK(now_ms() - start < 20000);
		CHECK_EQ(unwound, 1);
	}
}

static void *becomes_async(void *arg)
{
	(void)arg;
	pthread_cleanup_push(note, NULL);
	pthread_cancel(pthread_self());
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	pthread_cleanup_pop(0);
	return NULL;
}

static void async_type_with_request(void)
{
	unwound = 0;
	CHECK(join(spawn(becomes_async, NULL)) == PTHREAD_CANCELED);
	CHECK_EQ(unwound, 1);
}

static void *joins(void *arg)
{
	waiting = 1;
	pthread_join(*(pthread_t *)arg, NULL);
	return NULL;
}

/* It is about to leave its join, so there is no deadlock to report. */
static void joiner_cancelled(void)
{
	for (int i = 0; i < 100; i++) {
		pthread_t self = pthread_self();
		waiting = 0;
		pthread_t t = spawn(joins, &self);
		REQUIRE(wait_for(&waiting, 1, 10000));
		sleep_ms(1);
		CHECK_EQ(pthread_cancel(t), 0);
		CHECK(join(t) == PTHREAD_CANCELED);
	}
}

static void *ends(void *arg)
{
	return arg;
}

/* As glibc, as long as nothing has taken the thread's place. */
static void joined_already(void)
{
	pthread_t t = spawn(ends, NULL);
	join(t);
	CHECK_EQ(pthread_join(t, NULL), ESRCH);
	CHECK_EQ(pthread_detach(t), ESRCH);
}

static const struct test_case cases[] = {
    {"shared_cond", shared_cond},
    {"system_call", system_call},
    {"async_type_with_request", async_type_with_request},
    {"joiner_cancelled", joiner_cancelled},
    {"joined_already", joined_already},
};

TEST_MAIN(cases)
