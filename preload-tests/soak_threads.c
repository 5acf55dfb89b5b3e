/*
 * A crowd of 64 threads that makes and ends others: initialisers run once though some are left, each cancelled thread
 * runs its handlers, results come to who joins, each value set is destroyed.
 */
#include "soak.h"

#include <semaphore.h>

/* --- once -------------------------------------------------------------------------------------- */

/* Each control is called by all; whoever runs it may be cancelled in it, and then another does. */
enum { CONTROLS = 2000 };
static pthread_once_t controls[CONTROLS];
static int finished[CONTROLS], started[CONTROLS];
static pthread_barrier_t all_called;
static int rounds_end;
static __thread int current;

static void initialise(void)
{
	int first = __atomic_fetch_add(&started[current], 1, __ATOMIC_RELAXED) == 0;

	if (current % 5 == 0)
		sched_yield();
	if (first && current % 7 == 0)
		pthread_exit(NULL);
	__atomic_add_fetch(&finished[current], 1, __ATOMIC_RELAXED);
}

static void *call_all(void *arg)
{
	unsigned from = (unsigned)(intptr_t)arg;

	for (int i = 0; i < CONTROLS; i++) {
		current = (int)(i + from * 31 / 8) % CONTROLS;
		CHECK_EQ(pthread_once(&controls[current], initialise), 0);
		CHECK_EQ(__atomic_load_n(&finished[current], __ATOMIC_RELAXED), 1);
	}
	return arg;
}

static void *initialise_all(void *arg)
{
	for (;;) {
		/* Until none of its helpers was ended in an initialiser. */
		while (join(spawn(call_all, arg)) == NULL)
			;
		if (pthread_barrier_wait(&all_called) == PTHREAD_BARRIER_SERIAL_THREAD) {
			for (int i = 0; i < CONTROLS; i++) {
				CHECK_EQ(finished[i], 1);
				CHECK_EQ(started[i], i % 7 ? 1 : 2);
				controls[i] = PTHREAD_ONCE_INIT;
				started[i] = finished[i] = 0;
			}
			add(&ops, CONTROLS);
			rounds_end = !running();
		}
		pthread_barrier_wait(&all_called);
		if (rounds_end)
			return NULL;
	}
}

static void once(void)
{
	REQUIRE_OK(pthread_barrier_init(&all_called, NULL, CROWD));
	crowd(initialise_all);
	pthread_barrier_destroy(&all_called);
}

/* --- cancellation ------------------------------------------------------------------------------ */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int nothing_comes[2];
static sem_t no_token;
static int64_t cancelled_threads, cleaned;

static void clean(void *arg)
{
	add(&cleaned, 1);
	if (arg)
		CHECK_EQ(pthread_mutex_unlock(arg), 0);
}

static void wait_somewhere(int where)
{
	static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
	char ch;

	switch (where) {
	case 0: pause(); break;
	case 1: (void)!read(nothing_comes[0], &ch, 1); break;
	case 2: sem_wait(&no_token); break;
	case 3: poll(NULL, 0, -1); break;
	case 4:
		pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
		for (;;)
			__asm__ volatile("");
	case 5:
		for (;;) {
			pthread_testcancel();
			sched_yield();
		}
	case 6:
		for (;;)
			usleep(20);
	case 7:
		pthread_mutex_lock(&lock);
		pthread_cleanup_push(clean, &lock);
		add(&cleaned, -1);
		for (;;)
			pthread_cond_wait(&never, &lock);
		pthread_cleanup_pop(0);
	}
}

static void *victim(void *arg)
{
	pthread_cleanup_push(clean, NULL);
	wait_somewhere((int)(intptr_t)arg);
	pthread_cleanup_pop(0);
	FAIL("place %d was left", (int)(intptr_t)arg);
	return NULL;
}

static void *cancel_random(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg;
	int64_t n = 0, ran = 0;

	for (; running(); n++) {
		pthread_t t = spawn(victim, (void *)(intptr_t)(rnd(&seed) % 8));

		dawdle(&seed);
		CHECK_EQ(pthread_cancel(t), 0);
		CHECK(join(t) == PTHREAD_CANCELED);
		ran++;
	}
	add(&cancelled_threads, ran);
	add(&ops, n);
	return NULL;
}

static void cancellation(void)
{
	REQUIRE(pipe(nothing_comes) == 0);
	REQUIRE(sem_init(&no_token, 0, 0) == 0);
	cancelled_threads = cleaned = 0;
	crowd(cancel_random);
	/* None was cancelled before it had its handler: that takes a point. */
	CHECK_EQ(cleaned, cancelled_threads);
	CHECK_EQ(pthread_mutex_trylock(&lock), 0);
	CHECK_EQ(pthread_mutex_unlock(&lock), 0);
	close(nothing_comes[0]);
	close(nothing_comes[1]);
}

/* --- join and detach --------------------------------------------------------------------------- */

static int64_t begun, over;

static void *short_life(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg;

	add(&begun, 1);
	dawdle(&seed);
	add(&over, 1);
	return arg;
}

static void *join_or_detach(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg;
	int64_t n = 0;

	for (; running(); n++) {
		void *want = (void *)(intptr_t)(n * CROWD + (intptr_t)arg), *ret = NULL;
		pthread_t t = spawn(short_life, want);
		int r;

		if (rnd(&seed) % 4 == 0)
			dawdle(&seed);
		switch (rnd(&seed) % 4) {
		case 0:
			while ((r = pthread_tryjoin_np(t, &ret)) == EBUSY)
				sched_yield();
			break;
		case 1:
			do {
				struct timespec ts = within_us(rnd(&seed) % 100);
				r = pthread_clockjoin_np(t, &ret, CLOCK_MONOTONIC, &ts);
			} while (r == ETIMEDOUT);
			break;
		case 2:
			r = pthread_detach(t);
			ret = want;
			break;
		default: r = pthread_join(t, &ret);
		}
		CHECK_EQ(r, 0);
		CHECK(ret == want);
	}
	add(&ops, n);
	return NULL;
}

static void joins(void)
{
	begun = over = 0;
	crowd(join_or_detach);
	/* Those detached may live a little longer. */
	for (int i = 0; i < 20000 && __atomic_load_n(&over, __ATOMIC_ACQUIRE) != ops; i++)
		sleep_ms(1);
	CHECK_EQ(begun, ops);
	CHECK_EQ(over, ops);
}

/* --- thread-specific data ---------------------------------------------------------------------- */

enum { KEYS = 50 }; /* beyond those that lie in the thread's block */
static pthread_key_t keys[KEYS];
static int64_t sets, destroyed;

static void count_destroyed(void *value)
{
	CHECK(value != NULL);
	add(&destroyed, 1);
}

static void *set_some(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	intptr_t base = (intptr_t)arg * 1000;
	int64_t n = 0;

	for (int i = 0; i < KEYS; i++) {
		CHECK(pthread_getspecific(keys[i]) == NULL);
		if (rnd(&seed) % 2) {
			CHECK_EQ(pthread_setspecific(keys[i], (void *)(base + i)), 0);
			n++;
		}
		if (rnd(&seed) % 16 == 0)
			dawdle(&seed);
	}
	for (int i = 0; i < KEYS; i++) {
		void *v = pthread_getspecific(keys[i]);
		CHECK(v == NULL || v == (void *)(base + i));
	}
	add(&sets, n);
	return NULL;
}

static void *set_random(void *arg)
{
	int64_t n = 0;

	for (; running(); n++) {
		pthread_key_t own;

		join(spawn(set_some, (void *)((n << 6) + (intptr_t)arg)));
		CHECK_EQ(pthread_key_create(&own, NULL), 0);
		CHECK(pthread_getspecific(own) == NULL);
		CHECK_EQ(pthread_setspecific(own, arg), 0);
		sched_yield();
		CHECK(pthread_getspecific(own) == arg);
		CHECK_EQ(pthread_key_delete(own), 0);
	}
	add(&ops, n);
	return NULL;
}

static void specific_data(void)
{
	sets = destroyed = 0;
	for (int i = 0; i < KEYS; i++)
		REQUIRE_OK(pthread_key_create(&keys[i], count_destroyed));
	crowd(set_random);
	CHECK_EQ(destroyed, sets);
	for (int i = 0; i < KEYS; i++)
		CHECK_EQ(pthread_key_delete(keys[i]), 0);
}

static const struct test_case cases[] = {
    {"once", once},
    {"cancellation", cancellation},
    {"joins", joins},
    {"specific_data", specific_data},
};

TEST_MAIN(cases)
