/*
 * Timed locks: both clocks, past and future deadlines, bad ones, and a hand-over just before the
 * deadline.
 */
#include "test.h"

static const struct {
	clockid_t clock;
	long ms;
	int want;
} table[] = {
    {CLOCK_REALTIME, -100000, ETIMEDOUT},   {CLOCK_REALTIME, 0, ETIMEDOUT},
    {CLOCK_REALTIME, 1, ETIMEDOUT},         {CLOCK_REALTIME, 50, ETIMEDOUT},
    {CLOCK_MONOTONIC, -100, ETIMEDOUT},     {CLOCK_MONOTONIC, 0, ETIMEDOUT},
    {CLOCK_MONOTONIC, 1, ETIMEDOUT},        {CLOCK_MONOTONIC, 50, ETIMEDOUT},
    {CLOCK_PROCESS_CPUTIME_ID, 50, EINVAL}, {99, 50, EINVAL},
};

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;

static struct timespec deadline(clockid_t clock, long ms)
{
	return after_ms(clock == CLOCK_MONOTONIC ? clock : CLOCK_REALTIME, ms);
}

static void *deadlines(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < COUNT(table); i++) {
		int64_t start = now_ns();
		struct timespec ts = deadline(table[i].clock, table[i].ms);
		int rc = pthread_mutex_clocklock(&m, table[i].clock, &ts);
		int64_t took = now_ns() - start;

		if (rc != table[i].want)
			FAIL("clock %d, %ld ms: %d, not %d", table[i].clock, table[i].ms, rc,
			     table[i].want);
		if (rc == ETIMEDOUT && took < (table[i].ms - 1) * 1000000)
			FAIL("clock %d: %ld ms were over in %lld ns", table[i].clock, table[i].ms,
			     (long long)took);
	}
	static const long bad[] = {-1, 1000000000, 2000000000};
	for (unsigned i = 0; i < COUNT(bad); i++) {
		struct timespec ts = {time(NULL) + 1, bad[i]};
		CHECK_EQ(pthread_mutex_timedlock(&m, &ts), EINVAL);
		CHECK_EQ(pthread_mutex_clocklock(&m, CLOCK_MONOTONIC, &ts), EINVAL);
	}
	struct timespec before_epoch = {-5, 0};
	CHECK_EQ(pthread_mutex_timedlock(&m, &before_epoch), ETIMEDOUT);
	return NULL;
}

static void locked_by_another(void)
{
	pthread_mutex_lock(&m);
	join(spawn(deadlines, NULL));
	pthread_mutex_unlock(&m);
}

/* A free mutex is taken without a look at the time, however bad. */
static void free_mutex_ignores_the_time(void)
{
	struct timespec past = {1, 0}, bad = {1, 1000000000};

	CHECK_EQ(pthread_mutex_timedlock(&m, &past), 0);
	pthread_mutex_unlock(&m);
	CHECK_EQ(pthread_mutex_timedlock(&m, &bad), 0);
	pthread_mutex_unlock(&m);
}

static void *lock_within(void *arg)
{
	struct timespec ts = after_ms((clockid_t)(intptr_t)arg, 20000);
	int rc = pthread_mutex_clocklock(&m, (clockid_t)(intptr_t)arg, &ts);

	if (rc == 0)
		pthread_mutex_unlock(&m);
	return (void *)(intptr_t)rc;
}

static void unlocked_before_the_deadline(void)
{
	static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC};

	for (unsigned i = 0; i < COUNT(clocks); i++) {
		pthread_mutex_lock(&m);
		pthread_t t = spawn(lock_within, (void *)(intptr_t)clocks[i]);
		sleep_ms(20);
		int64_t start = now_ms();
		pthread_mutex_unlock(&m);
		CHECK_EQ((intptr_t)join(t), 0);
		CHECK(now_ms() - start < 10000);
	}
}

/*
 * Deadlines and hand-overs that race: a thread that gave up must not have been given the lock, and
 * one that was given it must own it.
 */
static long count;
static int inside;

static void *race(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg;
	intptr_t got = 0;

	for (int i = 0; i < 400; i++) {
		struct timespec ts;
		clock_gettime(CLOCK_MONOTONIC, &ts);
		ts.tv_nsec += rand_r(&seed) % 300000;
		if (ts.tv_nsec >= 1000000000) {
			ts.tv_nsec -= 1000000000;
			ts.tv_sec++;
		}
		int rc = pthread_mutex_clocklock(&m, CLOCK_MONOTONIC, &ts);
		if (rc == 0) {
			CHECK_EQ(__atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST), 1);
			count++;
			got++;
			if (rand_r(&seed) % 4 == 0)
				usleep(50);
			__atomic_sub_fetch(&inside, 1, __ATOMIC_SEQ_CST);
			pthread_mutex_unlock(&m);
		} else {
			CHECK_EQ(rc, ETIMEDOUT);
		}
	}
	return (void *)got;
}

static void deadline_races_unlock(void)
{
	pthread_t t[16];
	long got = 0;

	count = 0;
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(race, (void *)(intptr_t)(i + 1));
	for (unsigned i = 0; i < COUNT(t); i++)
		got += (intptr_t)join(t[i]);
	CHECK_EQ(count, got);
	CHECK(got > 0);
	CHECK_EQ(pthread_mutex_trylock(&m), 0);
	pthread_mutex_unlock(&m);
}

static const struct test_case cases[] = {
    {"locked_by_another", locked_by_another},
    {"free_mutex_ignores_the_time", free_mutex_ignores_the_time},
    {"unlocked_before_the_deadline", unlocked_before_the_deadline},
    {"deadline_races_unlock", deadline_races_unlock},
};

TEST_MAIN(cases)
