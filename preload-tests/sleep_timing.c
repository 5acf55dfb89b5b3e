/*
 * Sleeps last at least as long as asked, do not hold a processor, and end early only by a signal,
 * telling what is left.
 */
#include "test.h"

#include <sys/select.h>

static int by_nanosleep(long us)
{
	struct timespec ts = {us / 1000000, us % 1000000 * 1000};
	return nanosleep(&ts, NULL);
}

static int by_usleep(long us)
{
	return usleep(us);
}

static int by_clock_monotonic(long us)
{
	struct timespec ts = {us / 1000000, us % 1000000 * 1000};
	return clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
}

static int by_clock_realtime(long us)
{
	struct timespec ts = {us / 1000000, us % 1000000 * 1000};
	return clock_nanosleep(CLOCK_REALTIME, 0, &ts, NULL);
}

static int absolute(clockid_t clock, long us)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	ts.tv_sec += us / 1000000;
	ts.tv_nsec += us % 1000000 * 1000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	return clock_nanosleep(clock, TIMER_ABSTIME, &ts, NULL);
}

static int by_abs_monotonic(long us)
{
	return absolute(CLOCK_MONOTONIC, us);
}

static int by_abs_realtime(long us)
{
	return absolute(CLOCK_REALTIME, us);
}

static int by_select(long us)
{
	struct timeval tv = {us / 1000000, us % 1000000};
	return select(0, NULL, NULL, NULL, &tv);
}

static int by_poll(long us)
{
	return poll(NULL, 0, us / 1000);
}

static int by_sleep(long us)
{
	return us >= 1000000 ? (int)sleep(us / 1000000) : usleep(us);
}

static const struct {
	const char *name;
	int (*sleep)(long us);
	clockid_t clock; /* whose time it counts: the other may be set meanwhile */
} ways[] = {
    {"nanosleep", by_nanosleep, CLOCK_MONOTONIC},
    {"usleep", by_usleep, CLOCK_MONOTONIC},
    {"clock_nanosleep monotonic", by_clock_monotonic, CLOCK_MONOTONIC},
    {"clock_nanosleep realtime", by_clock_realtime, CLOCK_MONOTONIC},
    {"clock_nanosleep monotonic absolute", by_abs_monotonic, CLOCK_MONOTONIC},
    {"clock_nanosleep realtime absolute", by_abs_realtime, CLOCK_REALTIME},
    {"select", by_select, CLOCK_MONOTONIC},
    {"poll", by_poll, CLOCK_MONOTONIC},
    {"sleep", by_sleep, CLOCK_MONOTONIC},
};

static int64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void *sleep_all_ways(void *arg)
{
	static const long us[] = {0, 1000, 20000, 1000000};

	for (unsigned w = 0; w < COUNT(ways); w++)
		for (unsigned i = 0; i < COUNT(us); i++) {
			if (us[i] == 1000000 && w != COUNT(ways) - 1)
				continue;
			int64_t start = clock_ns(ways[w].clock);
			int rc = ways[w].sleep(us[i]);
			int64_t took = clock_ns(ways[w].clock) - start;
			if (rc != 0)
				FAIL("%s of %ld us returns %d", ways[w].name, us[i], rc);
			if (took < us[i] * 1000)
				FAIL("%s of %ld us took %lld ns", ways[w].name, us[i],
				     (long long)took);
		}
	return arg;
}

BY_MAIN_AND_A_THREAD(sleep_all_ways)

static int sleeping;

static void *sleep_half_second(void *arg)
{
	__atomic_add_fetch(&sleeping, 1, __ATOMIC_RELEASE);
	int64_t start = now_ns();
	switch ((intptr_t)arg % 4) {
	case 0: usleep(500000); break;
	case 1: by_nanosleep(500000); break;
	case 2: by_select(500000); break;
	case 3: by_poll(500000); break;
	}
	CHECK(now_ns() - start >= 499000000);
	return NULL;
}

static void many_sleep_at_once(void)
{
	int n = scale(200, 2000);
	pthread_t *t = malloc(n * sizeof *t);

	sleeping = 0;
	for (int i = 0; i < n; i++)
		t[i] = spawn(sleep_half_second, (void *)(intptr_t)i);
	CHECK(wait_for(&sleeping, n, 20000));
	for (int i = 0; i < n; i++)
		join(t[i]);
	/* One after another they would take n / 2 seconds: longer than a test may. */
	free(t);
}

static void *sleep_long(void *arg)
{
	__atomic_add_fetch(&sleeping, 1, __ATOMIC_RELEASE);
	by_nanosleep(1500000);
	return arg;
}

static void sleepers_are_parked(void)
{
	enum { N = 200 };
	pthread_t t[N];

	sleeping = 0;
	for (int i = 0; i < N; i++)
		t[i] = spawn(sleep_long, NULL);
	CHECK(wait_for(&sleeping, N, 20000));
	check_goroutines(N);
	for (int i = 0; i < N; i++)
		join(t[i]);
}

static void bad_values(void)
{
	struct timespec bad = {0, 1000000000}, negative = {-1, 0}, past = {1, 0};

	CHECK_ERRNO(nanosleep(&bad, NULL), EINVAL);
	CHECK_ERRNO(nanosleep(&negative, NULL), EINVAL);
	CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, 0, &bad, NULL), EINVAL);
	CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &past, NULL), 0);
	CHECK_EQ(clock_nanosleep(99, 0, &past, NULL), EINVAL);
	CHECK_EQ(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &past, NULL), EINVAL);
}

static void on_signal(int sig)
{
	(void)sig;
}

static pthread_t sleeper;

static void *interrupt(void *arg)
{
	sleep_ms(100);
	pthread_kill(sleeper, SIGUSR1);
	return arg;
}

static void a_signal_tells_what_is_left(void)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	struct timespec ts = {10, 0}, left = {0, 0};

	sigaction(SIGUSR1, &sa, NULL);
	sleeper = pthread_self();
	pthread_t t = spawn(interrupt, NULL);
	int64_t start = now_ms();
	CHECK_ERRNO(nanosleep(&ts, &left), EINTR);
	int64_t took = now_ms() - start;
	int64_t ms = left.tv_sec * 1000LL + left.tv_nsec / 1000000;
	if (ms < 10000 - took - 1 || ms >= 10000)
		FAIL("%lld ms are said to be left of 10 s after %lld ms", (long long)ms,
		     (long long)took);
	join(t);
	t = spawn(interrupt, NULL);
	CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, &left), EINTR);
	join(t);
	t = spawn(interrupt, NULL);
	unsigned seconds = sleep(10);
	if (seconds == 0 || seconds > 10)
		FAIL("sleep says %u s are left of 10 after a signal", seconds);
	join(t);
	signal(SIGUSR1, SIG_DFL);
}

static const struct test_case cases[] = {
    {"by_main", by_main},
    {"by_a_thread", by_a_thread},
    {"many_sleep_at_once", many_sleep_at_once},
    {"sleepers_are_parked", sleepers_are_parked},
    {"bad_values", bad_values},
    {"a_signal_tells_what_is_left", a_signal_tells_what_is_left},
};

TEST_MAIN(cases)
