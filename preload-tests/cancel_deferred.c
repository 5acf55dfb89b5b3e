/*
 * Deferred cancellation: a thread ends at a cancellation point, with its cleanup handlers run and
 * PTHREAD_CANCELED for the joiner; not elsewhere, not while disabled, and a cond_wait that is
 * cancelled owns the mutex in its handlers.
 */
#include "test.h"

#include <semaphore.h>

static int fds[2], here, cleaned;
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static sem_t sem;
static pthread_t never;

static void count_clean(void *arg)
{
	(void)arg;
	__atomic_add_fetch(&cleaned, 1, __ATOMIC_RELAXED);
}

static void unlock_and_count(void *arg)
{
	/* Owned: nobody else can have it. */
	CHECK_EQ(pthread_mutex_trylock(arg), EBUSY);
	CHECK_EQ(pthread_mutex_unlock(arg), 0);
	cleaned++;
}

static void at_read(void)
{
	char ch;

	if (read(fds[0], &ch, 1) < 0)
		return;
}

static void at_cond_wait(void)
{
	pthread_mutex_lock(&m);
	pthread_cleanup_push(unlock_and_count, &m);
	for (;;)
		pthread_cond_wait(&c, &m);
	pthread_cleanup_pop(0);
}

static void at_cond_timedwait(void)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, 100000);

	pthread_mutex_lock(&m);
	pthread_cleanup_push(unlock_and_count, &m);
	for (;;)
		pthread_cond_timedwait(&c, &m, &ts);
	pthread_cleanup_pop(0);
}

static void at_sem_wait(void)
{
	sem_wait(&sem);
}

static void at_nanosleep(void)
{
	sleep_ms(100000);
}

static void at_poll(void)
{
	poll(NULL, 0, 100000);
}

static void at_join(void)
{
	pthread_join(never, NULL);
}

static void at_testcancel(void)
{
	for (;;) {
		pthread_testcancel();
		sched_yield();
	}
}

static void at_pause(void)
{
	pause();
}

static const struct {
	const char *name;
	void (*wait)(void);
	int handlers;
} points[] = {
    {"read", at_read, 1},
    {"cond_wait", at_cond_wait, 2},
    {"cond_timedwait", at_cond_timedwait, 2},
    {"sem_wait", at_sem_wait, 1},
    {"nanosleep", at_nanosleep, 1},
    {"poll", at_poll, 1},
    {"pthread_join", at_join, 1},
    {"testcancel", at_testcancel, 1},
    {"pause", at_pause, 1},
};

static unsigned which;

static void *wait_at_point(void *arg)
{
	pthread_cleanup_push(count_clean, NULL);
	__atomic_store_n(&here, 1, __ATOMIC_RELEASE);
	points[which].wait();
	pthread_cleanup_pop(0);
	return arg;
}

static void *wait_for_gate(void *arg)
{
	char ch;

	CHECK_EQ(read(*(int *)arg, &ch, 1), 0);
	return NULL;
}

static void each_point(void)
{
	int gate[2];

	REQUIRE(pipe(fds) == 0 && pipe(gate) == 0);
	sem_init(&sem, 0, 0);
	never = spawn(wait_for_gate, &gate[0]);
	for (which = 0; which < COUNT(points); which++) {
		here = cleaned = 0;
		pthread_t t = spawn(wait_at_point, NULL);
		CHECK(wait_for(&here, 1, 10000));
		sleep_ms(20);
		CHECK_EQ(pthread_cancel(t), 0);
		void *ret = join(t);
		if (ret != PTHREAD_CANCELED)
			FAIL("%s: joined with %p", points[which].name, ret);
		if (cleaned != points[which].handlers)
			FAIL("%s: %d handlers ran, not %d", points[which].name, cleaned,
			     points[which].handlers);
		/* A cancelled wait took nothing with it. */
		CHECK_EQ(pthread_mutex_trylock(&m), 0);
		pthread_mutex_unlock(&m);
	}
	close(gate[1]);
	join(never);
	close(gate[0]);
	close(fds[0]);
	close(fds[1]);
}

/* A request that comes first is acted upon at the next point, at once. */
static int go;

static void *cancelled_before(void *arg)
{
	pthread_cleanup_push(count_clean, NULL);
	while (!__atomic_load_n(&go, __ATOMIC_ACQUIRE))
		;
	points[which].wait();
	pthread_cleanup_pop(0);
	return arg;
}

static void requested_before_the_point(void)
{
	REQUIRE(pipe(fds) == 0);
	for (which = 0; which < COUNT(points); which++) {
		if (points[which].wait == at_join)
			continue;
		go = cleaned = 0;
		pthread_t t = spawn(cancelled_before, NULL);
		CHECK_EQ(pthread_cancel(t), 0);
		sleep_ms(5);
		CHECK_EQ(cleaned, 0);
		__atomic_store_n(&go, 1, __ATOMIC_RELEASE);
		CHECK(join(t) == PTHREAD_CANCELED);
		CHECK_EQ(cleaned, points[which].handlers);
	}
	close(fds[0]);
	close(fds[1]);
}

static void *disabled(void *arg)
{
	int old = -1;

	CHECK_EQ(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old), 0);
	CHECK_EQ(old, PTHREAD_CANCEL_ENABLE);
	__atomic_store_n(&here, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&go, __ATOMIC_ACQUIRE))
		usleep(1000);
	pthread_testcancel();
	CHECK_EQ(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old), 0);
	CHECK_EQ(old, PTHREAD_CANCEL_DISABLE);
	*(int *)arg = 1;
	pthread_testcancel();
	*(int *)arg = 2;
	return NULL;
}

static void while_disabled(void)
{
	int stage = 0;

	here = go = 0;
	pthread_t t = spawn(disabled, &stage);
	CHECK(wait_for(&here, 1, 10000));
	CHECK_EQ(pthread_cancel(t), 0);
	sleep_ms(20);
	__atomic_store_n(&go, 1, __ATOMIC_RELEASE);
	CHECK(join(t) == PTHREAD_CANCELED);
	CHECK_EQ(stage, 1);
}

static void *own_request(void *arg)
{
	int old;

	CHECK_EQ(pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &old), 0);
	CHECK_EQ(old, PTHREAD_CANCEL_DEFERRED);
	CHECK_EQ(pthread_setcanceltype(99, &old), EINVAL);
	CHECK_EQ(pthread_setcancelstate(99, &old), EINVAL);
	CHECK_EQ(pthread_cancel(pthread_self()), 0);
	/* Mutexes are no cancellation points. */
	pthread_mutex_lock(&m);
	pthread_mutex_unlock(&m);
	cleaned = 7;
	sleep_ms(1);
	cleaned = 8;
	return arg;
}

static void of_oneself(void)
{
	cleaned = 0;
	CHECK(join(spawn(own_request, NULL)) == PTHREAD_CANCELED);
	CHECK_EQ(cleaned, 7);
}

/* A cancelled waiter must not swallow the signal that another needs. */
static int tokens, got;

static void release(void *arg)
{
	pthread_mutex_unlock(arg);
}

static void *take(void *arg)
{
	pthread_mutex_lock(&m);
	pthread_cleanup_push(release, &m);
	while (tokens == 0)
		pthread_cond_wait(&c, &m);
	tokens--;
	got++;
	pthread_cleanup_pop(1);
	return arg;
}

static void signals_race_requests(void)
{
	for (int round = 0; round < 100; round++) {
		pthread_t a, b;
		void *ra, *rb;

		tokens = got = 0;
		a = spawn(take, NULL);
		b = spawn(take, NULL);
		if (round % 2)
			usleep(500);
		pthread_mutex_lock(&m);
		tokens = 1;
		pthread_cond_signal(&c);
		pthread_mutex_unlock(&m);
		pthread_cancel(a);
		ra = join(a);
		if (ra == PTHREAD_CANCELED) {
			/* Then the token is b's, who may have been signalled or must be now. */
			pthread_mutex_lock(&m);
			pthread_cond_signal(&c);
			pthread_mutex_unlock(&m);
		} else {
			pthread_cancel(b);
		}
		rb = join(b);
		CHECK((ra == PTHREAD_CANCELED) != (rb == PTHREAD_CANCELED));
		CHECK_EQ(got, 1);
		CHECK_EQ(tokens, 0);
	}
}

/* Requests that come just as the wait begins: none may be lost between the look and the wait. */
static void *wait_at(void *arg)
{
	points[(uintptr_t)arg].wait();
	return NULL;
}

static void *race_requests(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (unsigned i = 0; i < COUNT(points); i++) {
		if (points[i].wait == at_join)
			continue;
		for (int round = 0; round < scale(20, 100); round++) {
			pthread_t t = spawn(wait_at, (void *)(uintptr_t)i);
			void *ret = NULL;

			for (int n = rand_r(&seed) % 3; n > 0; n--)
				sched_yield();
			for (volatile int n = rand_r(&seed) % 3000; n > 0; n--)
				;
			CHECK_EQ(pthread_cancel(t), 0);
			struct timespec ts = after_ms(CLOCK_REALTIME, 20000);
			int rc = pthread_timedjoin_np(t, &ret, &ts);
			if (rc != 0) {
				FAIL("%s: a request was lost in round %d", points[i].name, round);
				return NULL;
			}
			CHECK(ret == PTHREAD_CANCELED);
		}
	}
	return NULL;
}

static void requests_race_waits(void)
{
	pthread_t t[12];

	REQUIRE(pipe(fds) == 0);
	sem_init(&sem, 0, 0);
	cleaned = 0;
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(race_requests, (void *)(uintptr_t)(i + 1));
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	close(fds[0]);
	close(fds[1]);
}

static void *end_now(void *arg)
{
	return arg;
}

static void of_ended_threads(void)
{
	pthread_t t = spawn(end_now, NULL);

	sleep_ms(20);
	CHECK_EQ(pthread_cancel(t), 0);
	CHECK(join(t) == NULL);
}

static const struct test_case cases[] = {
    {"each_point", each_point},
    {"requested_before_the_point", requested_before_the_point},
    {"while_disabled", while_disabled},
    {"of_oneself", of_oneself},
    {"signals_race_requests", signals_race_requests},
    {"of_ended_threads", of_ended_threads},
    {"requests_race_waits", requests_race_waits},
};

TEST_MAIN(cases)
