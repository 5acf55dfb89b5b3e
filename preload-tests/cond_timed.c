/*
 * Timed waits on a condition: the clock is the attribute's or the caller's, deadlines in the past
 * time out at once, bad ones are refused, and a signal that races the deadline is either taken or
 * left to another waiter, never lost.
 */
#include "test.h"

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;

static const struct {
	clockid_t attr; /* -1: no attribute */
	clockid_t wait; /* -1: timedwait, else clockwait with it */
	clockid_t base; /* whose time the deadline is */
	long ms;
	int want;
} table[] = {
    {-1, -1, CLOCK_REALTIME, 30, ETIMEDOUT},
    {-1, -1, CLOCK_REALTIME, 0, ETIMEDOUT},
    {-1, -1, CLOCK_REALTIME, -5000, ETIMEDOUT},
    {CLOCK_REALTIME, -1, CLOCK_REALTIME, 30, ETIMEDOUT},
    {CLOCK_MONOTONIC, -1, CLOCK_MONOTONIC, 30, ETIMEDOUT},
    {CLOCK_MONOTONIC, -1, CLOCK_MONOTONIC, -30, ETIMEDOUT},
    {-1, CLOCK_MONOTONIC, CLOCK_MONOTONIC, 30, ETIMEDOUT},
    {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_REALTIME, 30, ETIMEDOUT},
    {-1, CLOCK_REALTIME, CLOCK_REALTIME, -30, ETIMEDOUT},
    {-1, CLOCK_PROCESS_CPUTIME_ID, CLOCK_REALTIME, 30, EINVAL},
    {-1, 77, CLOCK_REALTIME, 30, EINVAL},
};

static void both_clocks(void)
{
	for (unsigned i = 0; i < COUNT(table); i++) {
		pthread_condattr_t attr;
		pthread_cond_t c;
		clockid_t clock = -1;
		int rc;

		CHECK_EQ(pthread_condattr_init(&attr), 0);
		if (table[i].attr != -1) {
			CHECK_EQ(pthread_condattr_setclock(&attr, table[i].attr), 0);
			CHECK_EQ(pthread_condattr_getclock(&attr, &clock), 0);
			CHECK_EQ(clock, table[i].attr);
		}
		memset(&c, 0x5a, sizeof c);
		CHECK_EQ(pthread_cond_init(&c, &attr), 0);
		pthread_condattr_destroy(&attr);
		pthread_mutex_lock(&m);
		int64_t start = now_ns();
		struct timespec ts = after_ms(table[i].base, table[i].ms);
		if (table[i].wait == -1)
			rc = pthread_cond_timedwait(&c, &m, &ts);
		else
			rc = pthread_cond_clockwait(&c, &m, table[i].wait, &ts);
		int64_t took = now_ns() - start;
		/* Owned again, whatever happened. */
		CHECK_EQ(pthread_mutex_trylock(&m), EBUSY);
		pthread_mutex_unlock(&m);
		if (rc != table[i].want)
			FAIL("row %u: %d, not %d", i, rc, table[i].want);
		if (rc == ETIMEDOUT && took < (table[i].ms - 1) * 1000000)
			FAIL("row %u: over in %lld ns", i, (long long)took);
		CHECK_EQ(pthread_cond_destroy(&c), 0);
	}
}

static void bad_values(void)
{
	pthread_cond_t c = PTHREAD_COND_INITIALIZER;
	pthread_condattr_t attr;
	static const long bad[] = {-1, 1000000000};

	pthread_mutex_lock(&m);
	for (unsigned i = 0; i < COUNT(bad); i++) {
		struct timespec ts = {time(NULL) + 1, bad[i]};
		CHECK_EQ(pthread_cond_timedwait(&c, &m, &ts), EINVAL);
		CHECK_EQ(pthread_cond_clockwait(&c, &m, CLOCK_MONOTONIC, &ts), EINVAL);
	}
	pthread_mutex_unlock(&m);
	pthread_condattr_init(&attr);
	CHECK_EQ(pthread_condattr_setclock(&attr, CLOCK_PROCESS_CPUTIME_ID), EINVAL);
	CHECK_EQ(pthread_condattr_setpshared(&attr, 99), EINVAL);
	pthread_condattr_destroy(&attr);
}

/* Deadlines in any order end in their order: each waiter notes when it was let go. */
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;

static void *wait_ms(void *arg)
{
	long ms = (long)(intptr_t)arg;
	int64_t start = now_ns();
	struct timespec ts = after_ms(CLOCK_MONOTONIC, ms);

	pthread_mutex_lock(&m);
	int rc;
	while ((rc = pthread_cond_clockwait(&never, &m, CLOCK_MONOTONIC, &ts)) == 0)
		;
	pthread_mutex_unlock(&m);
	CHECK_EQ(rc, ETIMEDOUT);
	int64_t took = now_ns() - start;
	if (took < ms * 1000000)
		FAIL("a wait of %ld ms took %lld ns", ms, (long long)took);
	return NULL;
}

static void many_deadlines(void)
{
	enum { N = 200 };
	pthread_t t[N];

	for (int i = 0; i < N; i++)
		t[i] = spawn(wait_ms, (void *)(intptr_t)(50 + i * 7919 % 400));
	for (int i = 0; i < N; i++)
		join(t[i]);
}

/* Waiters whose deadline races the signal: a token signalled is a token taken. */
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static int tokens, taken, timeouts, finished;

static void *impatient(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg;

	pthread_mutex_lock(&m);
	for (;;) {
		if (tokens > 0) {
			tokens--;
			taken++;
			continue;
		}
		if (finished)
			break;
		struct timespec ts = after_ms(CLOCK_MONOTONIC, rand_r(&seed) % 3);
		int rc = pthread_cond_clockwait(&c, &m, CLOCK_MONOTONIC, &ts);
		if (rc == ETIMEDOUT)
			timeouts++;
		else
			CHECK_EQ(rc, 0);
	}
	pthread_mutex_unlock(&m);
	return NULL;
}

static void signals_race_deadlines(void)
{
	pthread_t t[16];
	int given = 0;

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(impatient, (void *)(intptr_t)(i + 1));
	int64_t end = now_ms() + 500;
	while (now_ms() < end) {
		pthread_mutex_lock(&m);
		tokens++;
		given++;
		pthread_cond_signal(&c);
		pthread_mutex_unlock(&m);
		usleep(300);
	}
	pthread_mutex_lock(&m);
	finished = 1;
	pthread_cond_broadcast(&c);
	pthread_mutex_unlock(&m);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(taken, given);
	CHECK(timeouts > 0);
}

/* One waiter with a far deadline among impatient ones: the signal that they decline must reach
 * it. */
static int ready;

static void *patient(void *arg)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, 30000);

	pthread_mutex_lock(&m);
	int rc = 0;
	while (!ready && rc == 0)
		rc = pthread_cond_timedwait(&never, &m, &ts);
	pthread_mutex_unlock(&m);
	CHECK_EQ(rc, 0);
	return arg;
}

static void signalled_before_deadline(void)
{
	ready = 0;
	pthread_t t = spawn(patient, NULL);
	sleep_ms(30);
	int64_t start = now_ms();
	pthread_mutex_lock(&m);
	ready = 1;
	pthread_cond_signal(&never);
	pthread_mutex_unlock(&m);
	join(t);
	CHECK(now_ms() - start < 10000);
}

static const struct test_case cases[] = {
    {"both_clocks", both_clocks},
    {"bad_values", bad_values},
    {"many_deadlines", many_deadlines},
    {"signals_race_deadlines", signals_race_deadlines},
    {"signalled_before_deadline", signalled_before_deadline},
};

TEST_MAIN(cases)
