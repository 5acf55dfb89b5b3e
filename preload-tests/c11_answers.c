/*
 * What every function of C11's <threads.h> answers: each result code that glibc has for it, on success and
 * on every failure that can be had.
 */
#include "test.h"

#include <limits.h>
#include <threads.h>

static mtx_t m;
static cnd_t c;
static tss_t key;

static struct timespec in_ms(long ms)
{
	return after_ms(CLOCK_REALTIME, ms);
}

/* --- threads ----------------------------------------------------------------------------------- */

static int give(void *arg)
{
	return (int)(intptr_t)arg;
}

static int leave(void *arg)
{
	thrd_exit((int)(intptr_t)arg);
}

static int join_self(void *arg)
{
	(void)arg;
	return thrd_join(thrd_current(), NULL);
}

static int detach_self_twice(void *arg)
{
	(void)arg;
	int first = thrd_detach(thrd_current());
	return first == thrd_success ? thrd_detach(thrd_current()) : -1;
}

static volatile int detached_says;

static int detached(void *arg)
{
	detached_says = detach_self_twice(arg) == thrd_error ? 1 : 2;
	return 0;
}

static void threads(void)
{
	static const int values[] = {0, 1, -1, INT_MAX, INT_MIN};
	thrd_t t, u;
	int res;

	for (unsigned i = 0; i < COUNT(values) * 2; i++) {
		int v = values[i / 2];

		res = 77;
		CHECK_EQ(thrd_create(&t, i & 1 ? leave : give, (void *)(intptr_t)v), thrd_success);
		CHECK_EQ(thrd_join(t, &res), thrd_success);
		CHECK_EQ(res, v);
	}
	CHECK_EQ(thrd_create(&t, join_self, NULL), thrd_success);
	CHECK_EQ(thrd_join(t, &res), thrd_success);
	CHECK_EQ(res, thrd_error);
	CHECK_EQ(thrd_create(&t, detached, NULL), thrd_success);
	CHECK(wait_for((volatile int *)&detached_says, 1, 20000));
	CHECK_EQ(thrd_create(&t, give, NULL), thrd_success);
	CHECK_EQ(thrd_create(&u, give, NULL), thrd_success);
	CHECK(thrd_equal(t, t) != 0);
	CHECK(thrd_equal(t, u) == 0);
	CHECK(thrd_equal(thrd_current(), t) == 0);
	CHECK(thrd_equal(thrd_current(), thrd_current()) != 0);
	CHECK_EQ(thrd_join(t, NULL), thrd_success);
	CHECK_EQ(thrd_join(u, NULL), thrd_success);
	CHECK_EQ(thrd_join(thrd_current(), NULL), thrd_error);
}

/* A stack beyond all limits: pthread_create's EAGAIN, which is no result of its own here. */
static int no_room_child(void)
{
	pthread_attr_t a;
	thrd_t t;

	CHECK_EQ(thrd_create(&t, give, NULL), thrd_success);
	CHECK_EQ(thrd_join(t, NULL), thrd_success);
	REQUIRE_OK(pthread_getattr_default_np(&a));
	REQUIRE_OK(pthread_attr_setstacksize(&a, 1ul << 50));
	REQUIRE_OK(pthread_setattr_default_np(&a));
	pthread_attr_destroy(&a);
	return thrd_create(&t, give, NULL);
}

static void no_room(void)
{
	int status = in_child(no_room_child);

	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), thrd_error);
}

static volatile int handled;

static void on_usr1(int sig)
{
	(void)sig;
	handled = 1;
}

static thrd_t sleeper;
static volatile int sleeping;

static int sleep_long(void *arg)
{
	struct timespec left = {-1, -1};

	(void)arg;
	sleeping = 1;
	int r = thrd_sleep(&(struct timespec){3600, 0}, &left);
	CHECK(left.tv_sec >= 3500 && left.tv_sec < 3600);
	return r;
}

static void sleeps(void)
{
	struct sigaction sa = {.sa_handler = on_usr1};
	struct timespec left = {7, 7};
	int res = 77;

	int64_t start = now_ns();
	CHECK_EQ(thrd_sleep(&(struct timespec){0, 5000000}, &left), 0);
	CHECK(now_ns() - start >= 5000000);
	CHECK_EQ(thrd_sleep(&(struct timespec){0, 0}, NULL), 0);
	CHECK_EQ(thrd_sleep(&(struct timespec){0, 1000000000}, NULL), -2);
	CHECK_EQ(thrd_sleep(&(struct timespec){0, -1}, NULL), -2);
	CHECK_EQ(thrd_sleep(&(struct timespec){-1, 0}, NULL), -2);
	REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
	CHECK_EQ(thrd_create(&sleeper, sleep_long, NULL), thrd_success);
	CHECK(wait_for(&sleeping, 1, 20000));
	while (!handled) {
		REQUIRE_OK(pthread_kill(sleeper, SIGUSR1));
		sleep_ms(20);
	}
	CHECK_EQ(thrd_join(sleeper, &res), thrd_success);
	CHECK_EQ(res, -1);
	thrd_yield();
}

/* --- mutexes ----------------------------------------------------------------------------------- */

static int by_other(int (*fn)(void *))
{
	thrd_t t;
	int res = -77;

	CHECK_EQ(thrd_create(&t, fn, NULL), thrd_success);
	CHECK_EQ(thrd_join(t, &res), thrd_success);
	return res;
}

static int try_it(void *arg)
{
	int r = mtx_trylock(&m);

	(void)arg;
	if (r == thrd_success)
		CHECK_EQ(mtx_unlock(&m), thrd_success);
	return r;
}

static int time_it(void *arg)
{
	struct timespec ts = in_ms(5);

	(void)arg;
	return mtx_timedlock(&m, &ts);
}

static int time_it_in_the_past(void *arg)
{
	struct timespec ts = {1, 0};

	(void)arg;
	return mtx_timedlock(&m, &ts);
}

static int time_it_badly(void *arg)
{
	struct timespec ts = {time(NULL) + 1000, 1000000000};

	(void)arg;
	return mtx_timedlock(&m, &ts);
}

static int unlock_it(void *arg)
{
	(void)arg;
	return mtx_unlock(&m);
}

static void mutexes(void)
{
	static const int good[] = {mtx_plain, mtx_timed, mtx_plain | mtx_recursive,
				   mtx_timed | mtx_recursive};

	for (unsigned i = 0; i < COUNT(good); i++) {
		int recursive = good[i] & mtx_recursive;

		memset(&m, 0x5a, sizeof m);
		CHECK_EQ(mtx_init(&m, good[i]), thrd_success);
		CHECK_EQ(by_other(try_it), thrd_success);
		CHECK_EQ(mtx_lock(&m), thrd_success);
		CHECK_EQ(by_other(try_it), thrd_busy);
		CHECK_EQ(by_other(time_it), thrd_timedout);
		CHECK_EQ(by_other(time_it_in_the_past), thrd_timedout);
		CHECK_EQ(by_other(time_it_badly), thrd_error);
		CHECK_EQ(mtx_trylock(&m), recursive ? thrd_success : thrd_busy);
		if (recursive) {
			CHECK_EQ(by_other(unlock_it), thrd_error);
			CHECK_EQ(mtx_lock(&m), thrd_success);
			CHECK_EQ(time_it(NULL), thrd_success);
			CHECK_EQ(mtx_unlock(&m), thrd_success);
			CHECK_EQ(mtx_unlock(&m), thrd_success);
			CHECK_EQ(mtx_unlock(&m), thrd_success);
		} else {
			CHECK_EQ(time_it(NULL), thrd_timedout);
		}
		CHECK_EQ(mtx_unlock(&m), thrd_success);
		if (recursive)
			CHECK_EQ(mtx_unlock(&m), thrd_error);
		CHECK_EQ(time_it_in_the_past(NULL), thrd_success);
		CHECK_EQ(mtx_unlock(&m), thrd_success);
		mtx_destroy(&m);
	}
}

/* --- conditions -------------------------------------------------------------------------------- */

static int waiting, go;

static int wait_go(void *arg)
{
	CHECK_EQ(mtx_lock(&m), thrd_success);
	waiting++;
	while (!go) {
		struct timespec ts = in_ms(600000);
		CHECK_EQ(arg ? cnd_timedwait(&c, &m, &ts) : cnd_wait(&c, &m), thrd_success);
	}
	CHECK_EQ(by_other(try_it), thrd_busy);
	CHECK_EQ(mtx_unlock(&m), thrd_success);
	return 0;
}

static void conditions(void)
{
	for (int i = 0; i < 4; i++) {
		thrd_t t[3];
		struct timespec ts = in_ms(5);
		int r;

		waiting = go = 0;
		memset(&c, 0x5a, sizeof c);
		CHECK_EQ(cnd_init(&c), thrd_success);
		CHECK_EQ(mtx_init(&m, i & 1 ? mtx_timed : mtx_plain), thrd_success);
		CHECK_EQ(cnd_signal(&c), thrd_success);
		CHECK_EQ(cnd_broadcast(&c), thrd_success);
		CHECK_EQ(mtx_lock(&m), thrd_success);
		while ((r = cnd_timedwait(&c, &m, &ts)) == thrd_success)
			;
		CHECK_EQ(r, thrd_timedout);
		ts = (struct timespec){time(NULL) + 1000, -1};
		CHECK_EQ(cnd_timedwait(&c, &m, &ts), thrd_error);
		CHECK_EQ(mtx_unlock(&m), thrd_success);
		for (unsigned k = 0; k < COUNT(t); k++)
			CHECK_EQ(thrd_create(&t[k], wait_go, i & 2 ? &c : NULL), thrd_success);
		CHECK(wait_for(&waiting, COUNT(t), 20000));
		CHECK_EQ(mtx_lock(&m), thrd_success);
		go = 1;
		CHECK_EQ(cnd_signal(&c), thrd_success);
		CHECK_EQ(cnd_broadcast(&c), thrd_success);
		CHECK_EQ(mtx_unlock(&m), thrd_success);
		cnd_destroy(&c);
		for (unsigned k = 0; k < COUNT(t); k++)
			CHECK_EQ(thrd_join(t[k], NULL), thrd_success);
		/* Not its owner's. */
		mtx_destroy(&m);
		CHECK_EQ(cnd_init(&c), thrd_success);
		CHECK_EQ(mtx_init(&m, mtx_plain | mtx_recursive), thrd_success);
		CHECK_EQ(cnd_wait(&c, &m), thrd_error);
		ts = in_ms(600000);
		CHECK_EQ(cnd_timedwait(&c, &m, &ts), thrd_error);
		mtx_destroy(&m);
		cnd_destroy(&c);
	}
}

/* --- keys and once ----------------------------------------------------------------------------- */

static int destroyed;

static void destroy(void *value)
{
	CHECK(value == &key);
	__atomic_add_fetch(&destroyed, 1, __ATOMIC_RELAXED);
	if (destroyed < TSS_DTOR_ITERATIONS)
		CHECK_EQ(tss_set(key, value), thrd_success);
}

static int set_key(void *arg)
{
	(void)arg;
	CHECK(tss_get(key) == NULL);
	CHECK_EQ(tss_set(key, &key), thrd_success);
	CHECK(tss_get(key) == &key);
	return 0;
}

static void keys(void)
{
	static tss_t all[PTHREAD_KEYS_MAX + 1];
	unsigned n = 0;

	CHECK_EQ(tss_create(&key, destroy), thrd_success);
	CHECK_EQ(by_other(set_key), 0);
	CHECK_EQ(destroyed, TSS_DTOR_ITERATIONS);
	CHECK(tss_get(key) == NULL);
	tss_delete(key);
	CHECK_EQ(tss_set(key, &key), thrd_error);
	CHECK(tss_get(key) == NULL);
	while (n < COUNT(all) && tss_create(&all[n], NULL) == thrd_success)
		n++;
	CHECK(n > 128 && n <= PTHREAD_KEYS_MAX);
	CHECK_EQ(tss_create(&all[n], NULL), thrd_error);
	while (n-- > 0)
		tss_delete(all[n]);
	CHECK_EQ(tss_set((tss_t)-1, &key), thrd_error);
	CHECK(tss_get((tss_t)-1) == NULL);
}

static once_flag flag = ONCE_FLAG_INIT;
static int runs;

static void run(void)
{
	runs++;
}

static void once(void)
{
	for (int i = 0; i < 3; i++)
		call_once(&flag, run);
	CHECK_EQ(runs, 1);
}

static const struct test_case cases[] = {
    {"threads", threads},       {"no_room", no_room}, {"sleeps", sleeps}, {"mutexes", mutexes},
    {"conditions", conditions}, {"keys", keys},       {"once", once},
};

TEST_MAIN(cases)
