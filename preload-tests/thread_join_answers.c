/*
 * Who joins whom: what each way to join and to detach answers for a thread that runs, has ended, is detached,
 * is joined by another, is the caller, waits for the caller; and joins that race the end of the thread, its
 * detaching, their own deadline and cancellation.
 */
#include "test.h"

static volatile int gate, here;
static int value[1]; /* an address */

static void *until_gate(void *arg)
{
	while (!gate)
		usleep(200);
	return arg;
}

static void *end_now(void *arg)
{
	return arg;
}

static int timed(pthread_t t, void **ret, long ms)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, ms);
	return pthread_timedjoin_np(t, ret, &ts);
}

static int clocked(pthread_t t, void **ret, clockid_t clock, long ms)
{
	struct timespec ts = after_ms(clock == CLOCK_MONOTONIC ? clock : CLOCK_REALTIME, ms);
	return pthread_clockjoin_np(t, ret, clock, &ts);
}

/* --- states ------------------------------------------------------------------------------------ */

static void running(void)
{
	void *ret = &ret;

	gate = 0;
	pthread_t t = spawn(until_gate, value);
	CHECK_EQ(pthread_tryjoin_np(t, &ret), EBUSY);
	CHECK_EQ(timed(t, &ret, 5), ETIMEDOUT);
	CHECK_EQ(timed(t, &ret, -5), ETIMEDOUT);
	CHECK_EQ(clocked(t, &ret, CLOCK_MONOTONIC, 5), ETIMEDOUT);
	CHECK_EQ(clocked(t, &ret, CLOCK_MONOTONIC, -5000), ETIMEDOUT);
	CHECK_EQ(clocked(t, &ret, CLOCK_REALTIME, 5), ETIMEDOUT);
	CHECK_EQ(clocked(t, &ret, CLOCK_BOOTTIME, 5), EINVAL);
	CHECK_EQ(clocked(t, &ret, CLOCK_PROCESS_CPUTIME_ID, 5), EINVAL);
	CHECK(ret == &ret);
	gate = 1;
	CHECK_EQ(pthread_timedjoin_np(t, &ret, NULL), 0);
	CHECK(ret == value);
}

static int join_by(int way, pthread_t t, void **ret)
{
	switch (way) {
	case 0: return pthread_join(t, ret);
	case 1: return timed(t, ret, -5);
	case 2: return clocked(t, ret, CLOCK_MONOTONIC, 20000);
	case 3: return clocked(t, ret, CLOCK_MONOTONIC, -5);
	}
	return pthread_tryjoin_np(t, ret);
}

/* The deadline is not looked at, once it has ended. */
static void ended(void)
{
	for (int way = 0; way < 5; way++) {
		void *ret = NULL;
		pthread_t t = spawn(end_now, value);
		int r;

		while ((r = join_by(way, t, &ret)) == EBUSY || r == ETIMEDOUT)
			sched_yield();
		CHECK_EQ(r, 0);
		CHECK(ret == value);
	}
}

static void detached(void)
{
	pthread_attr_t a;
	pthread_t t;

	for (int made_so = 0; made_so < 2; made_so++) {
		gate = 0;
		pthread_attr_init(&a);
		if (made_so)
			pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
		REQUIRE_OK(pthread_create(&t, &a, until_gate, NULL));
		pthread_attr_destroy(&a);
		if (!made_so)
			CHECK_EQ(pthread_detach(t), 0);
		CHECK_EQ(pthread_detach(t), EINVAL);
		CHECK_EQ(pthread_join(t, NULL), EINVAL);
		CHECK_EQ(timed(t, NULL, 5), EINVAL);
		CHECK_EQ(clocked(t, NULL, CLOCK_MONOTONIC, 5), EINVAL);
		gate = 1;
	}
}

/* --- oneself, and cycles ------------------------------------------------------------------------ */

static void *join_self(void *arg)
{
	pthread_t self = pthread_self();

	CHECK_EQ(pthread_join(self, NULL), EDEADLK);
	CHECK_EQ(timed(self, NULL, 5), EDEADLK);
	CHECK_EQ(clocked(self, NULL, CLOCK_MONOTONIC, 5), EDEADLK);
	CHECK_EQ(pthread_tryjoin_np(self, NULL), EBUSY);
	return arg;
}

static void of_oneself(void)
{
	join_self(NULL);
	CHECK(join(spawn(join_self, value)) == value);
}

struct one {
	pthread_t t, other;
	volatile int told;
};

/* Two that look at the same moment may both wait, in libc: so for a while only. */
static void *join_until_told(void *arg)
{
	struct one *me = arg;
	unsigned seed = (unsigned)(uintptr_t)&me;
	int r;

	while (!gate)
		usleep(100);
	do {
		usleep(rand_r(&seed) % 500);
		r = timed(me->other, NULL, 1 + rand_r(&seed) % 3);
	} while (r == ETIMEDOUT);
	me->told = r;
	return NULL;
}

/* One waits for the other, which is told and ends, and so does the wait. */
static void cycle_of_two(void)
{
	if (!under_shim())
		SKIP_CASE("libc 2.36 does not note who joins whom");
	for (int round = 0; round < 30; round++) {
		struct one pair[2] = {{.told = -1}, {.told = -1}};
		int i = 0;

		gate = 0;
		for (i = 0; i < 2; i++)
			pair[i].t = pair[!i].other = spawn(join_until_told, &pair[i]);
		gate = 1;
		/* It has joined the other, and is left to us. */
		for (i = 0; pair[i].told != 0; i = !i)
			usleep(500);
		join(pair[i].t);
		CHECK_EQ(pair[!i].told, EDEADLK);
	}
}

static struct one ring[5];

static void *join_the_next(void *arg)
{
	struct one *me = arg;

	while (!gate)
		usleep(100);
	me->told = pthread_join(me->other, NULL);
	return NULL;
}

/* Whoever closes a ring is told, and nobody else; then it comes undone from there. */
static void cycle_of_many(void)
{
	if (!under_shim())
		SKIP_CASE("libc 2.36 does not note who joins whom");
	for (int round = 0; round < 200; round++) {
		int n = 2 + round % 4, told = 0, last = -1;

		gate = 0;
		for (int i = 0; i < n; i++)
			ring[i].t = spawn(join_the_next, &ring[i]);
		for (int i = 0; i < n; i++) {
			ring[i].other = ring[(i + 1) % n].t;
			ring[i].told = -1;
		}
		gate = 1;
		/* The thread after the one that was told has nobody to join it but us. */
		for (int i = 0; last < 0; i = (i + 1) % n) {
			if (ring[i].told == EDEADLK)
				last = (i + 1) % n;
			usleep(100);
		}
		join(ring[last].t);
		for (int i = 0; i < n; i++)
			told += ring[i].told == EDEADLK;
		CHECK_EQ(told, 1);
	}
}

static void cycle_with_main(void)
{
	if (!under_shim())
		SKIP_CASE("libc 2.36 does not note who joins whom");
	for (int round = 0; round < 30; round++) {
		struct one it = {.other = pthread_self(), .told = -1};
		int r;

		gate = 1;
		it.t = spawn(join_until_told, &it);
		while ((r = timed(it.t, NULL, 2)) == ETIMEDOUT || r == EDEADLK)
			;
		CHECK_EQ(r, 0);
		CHECK_EQ(it.told, EDEADLK);
	}
}

/* --- two who join ------------------------------------------------------------------------------- */

static void *join_it(void *arg)
{
	void *ret = NULL;

	here = 1;
	CHECK_EQ(pthread_join(*(pthread_t *)arg, &ret), 0);
	return ret;
}

static void joined_by_another(void)
{
	if (!under_shim())
		SKIP_CASE("libc 2.36 does not note who joins whom");
	for (int round = 0; round < 20; round++) {
		gate = here = 0;
		pthread_t t = spawn(until_gate, value);
		pthread_t j = spawn(join_it, &t);
		CHECK(wait_for(&here, 1, 20000));
		sleep_ms(2);
		CHECK_EQ(pthread_join(t, NULL), EINVAL);
		CHECK_EQ(timed(t, NULL, 5), EINVAL);
		CHECK_EQ(clocked(t, NULL, CLOCK_MONOTONIC, 5), EINVAL);
		CHECK_EQ(pthread_tryjoin_np(t, NULL), EBUSY);
		gate = 1;
		CHECK(join(j) == value);
	}
}

static void end_in_handler(int sig)
{
	(void)sig;
	pthread_exit(PTHREAD_CANCELED);
}

/* A joiner that gave up, was cancelled or ended in a handler leaves the thread to others. */
static void *join_and_give_up(void *arg)
{
	here = 1;
	return (void *)(intptr_t)timed(*(pthread_t *)arg, NULL, 5);
}

static void joiners_that_leave(void)
{
	signal(SIGUSR1, end_in_handler);
	for (int round = 0; round < 80; round++) {
		gate = here = 0;
		pthread_t t = spawn(until_gate, value);
		pthread_t j = spawn(round & 1 ? join_it : join_and_give_up, &t);
		CHECK(wait_for(&here, 1, 20000));
		if (round & 1) {
			if (round & 2)
				sleep_ms(1);
			CHECK_EQ(round & 4 ? pthread_cancel(j) : pthread_kill(j, SIGUSR1), 0);
			CHECK(join(j) == PTHREAD_CANCELED);
		} else {
			CHECK_EQ((intptr_t)join(j), ETIMEDOUT);
		}
		CHECK_EQ(pthread_tryjoin_np(t, NULL), EBUSY);
		gate = 1;
		CHECK(join(t) == value);
	}
}

/* --- races -------------------------------------------------------------------------------------- */

static void *end_at_a_random_time(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg;

	for (volatile int n = rand_r(&seed) % 20000; n > 0; n--)
		;
	if (rand_r(&seed) % 2)
		usleep(rand_r(&seed) % 300);
	return arg;
}

static void *race(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg;

	for (int i = 1; i <= scale(100, 300); i++) {
		void *ret = NULL, *want = (void *)(intptr_t)(i * 1000 + (int)(intptr_t)arg);
		pthread_t t = spawn(end_at_a_random_time, want);
		int r = 0, way = rand_r(&seed) % 5;

		if (rand_r(&seed) % 2)
			usleep(rand_r(&seed) % 300);
		switch (way) {
		case 0: r = pthread_join(t, &ret); break;
		case 1:
			while ((r = pthread_tryjoin_np(t, &ret)) == EBUSY)
				sched_yield();
			break;
		case 2:
			do {
				struct timespec ts = after_ms(CLOCK_MONOTONIC, 0);
				ts.tv_nsec += rand_r(&seed) % 200000;
				ts.tv_sec += ts.tv_nsec / 1000000000;
				ts.tv_nsec %= 1000000000;
				r = pthread_clockjoin_np(t, &ret, CLOCK_MONOTONIC, &ts);
			} while (r == ETIMEDOUT);
			break;
		case 3:
			do
				r = timed(t, &ret, rand_r(&seed) % 2);
			while (r == ETIMEDOUT);
			break;
		case 4:
			r = pthread_detach(t);
			ret = want;
			break;
		}
		CHECK_EQ(r, 0);
		if (ret != want)
			FAIL("way %d: %p, not %p", way, ret, want);
	}
	return NULL;
}

static void races(void)
{
	pthread_t t[12];

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(race, (void *)(intptr_t)(i + 1));
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static const struct test_case cases[] = {
    {"running", running},
    {"ended", ended},
    {"detached", detached},
    {"of_oneself", of_oneself},
    {"cycle_of_two", cycle_of_two},
    {"cycle_of_many", cycle_of_many},
    {"cycle_with_main", cycle_with_main},
    {"joined_by_another", joined_by_another},
    {"joiners_that_leave", joiners_that_leave},
    {"races", races},
};

TEST_MAIN(cases)
