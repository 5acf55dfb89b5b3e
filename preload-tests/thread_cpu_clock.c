/*
 * The CPU time of a thread, by all its names: it grows while that thread computes, stands still while it waits, is the
 * same for itself and for others, and has nothing of what others computed on the same kernel thread.
 */
#include "test.h"

#include <semaphore.h>

static int stop, here;
static sem_t go;

static int64_t ns_of(clockid_t clock)
{
	struct timespec ts = {-1, -1};

	CHECK_EQ(clock_gettime(clock, &ts), 0);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static int64_t own(void)
{
	return ns_of(CLOCK_THREAD_CPUTIME_ID);
}

static clockid_t clock_of(pthread_t t)
{
	clockid_t clock = 0;

	CHECK_EQ(pthread_getcpuclockid(t, &clock), 0);
	return clock;
}

/* Computes for so much CPU time. */
static void burn(int64_t ns)
{
	int64_t end = own() + ns, last = 0;

	for (;;) {
		for (volatile int i = 0; i < 10000; i++)
			;
		int64_t now = own();
		if (now < last)
			FAIL("the clock went back by %lld ns", (long long)(last - now));
		last = now;
		if (now >= end)
			return;
	}
}

static void *burns_and_yields(void *arg)
{
	int64_t start = own();

	for (int i = 0; i < 10; i++) {
		burn(3000000);
		sched_yield();
		usleep(100);
	}
	*(int64_t *)arg = own() - start;
	CHECK(*(int64_t *)arg >= 30000000);
	return NULL;
}

/* Together they can't have had more than the process has. */
static void of_several(void)
{
	pthread_t t[6];
	int64_t had[6], sum = 0, before = ns_of(CLOCK_PROCESS_CPUTIME_ID);

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(burns_and_yields, &had[i]);
	for (unsigned i = 0; i < COUNT(t); i++) {
		join(t[i]);
		sum += had[i];
	}
	int64_t all = ns_of(CLOCK_PROCESS_CPUTIME_ID) - before;
	if (sum > all)
		FAIL("threads had %lld ns, the process %lld", (long long)sum, (long long)all);
}

static void *computes(void *arg)
{
	__atomic_store_n(&here, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		;
	return arg;
}

static void *waits(void *arg)
{
	burn(1000000);
	*(int64_t *)arg = own();
	__atomic_store_n(&here, 1, __ATOMIC_RELEASE);
	while (sem_wait(&go) != 0)
		;
	return NULL;
}

/* While others compute, a clock that nobody had asked for yet grows as well. */
static void of_another(void)
{
	int64_t at = 0;

	REQUIRE(sem_init(&go, 0, 0) == 0);
	stop = here = 0;
	pthread_t w = spawn(waits, &at);
	CHECK(wait_for(&here, 1, 10000));
	here = 0;
	pthread_t c = spawn(computes, NULL);
	CHECK(wait_for(&here, 1, 10000));
	clockid_t cc = clock_of(c), cw = clock_of(w);
	int64_t c0 = ns_of(cc), w0 = ns_of(cw), m0 = own();
	while (ns_of(cc) < c0 + 30000000)
		sleep_ms(1);
	int64_t w1 = ns_of(cw), m1 = own();
	/* It was on its way to sleep, perhaps. */
	CHECK(w0 >= at && w1 - w0 < 10000000);
	/* This thread slept. */
	CHECK(m1 - m0 < 30000000);
	struct timespec ts = {0, 20000000};
	c0 = ns_of(cc);
	CHECK_EQ(clock_nanosleep(cc, 0, &ts, NULL), 0);
	CHECK(ns_of(cc) >= c0 + 20000000);
	int64_t until = ns_of(cc) + 20000000;
	ts = (struct timespec){until / 1000000000, until % 1000000000};
	CHECK_EQ(clock_nanosleep(cc, TIMER_ABSTIME, &ts, NULL), 0);
	CHECK(ns_of(cc) >= until);
	CHECK_EQ(clock_getres(cc, &ts), 0);
	CHECK(ts.tv_sec == 0 && ts.tv_nsec > 0);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	sem_post(&go);
	join(c);
	join(w);
	while (clock_gettime(cc, &ts) == 0)
		sleep_ms(1); /* the kernel forgets a thread a little later */
	CHECK_EQ(errno, EINVAL);
	CHECK_ERRNO(clock_getres(cc, &ts), EINVAL);
}

static int64_t by_call(clockid_t clock)
{
	struct timespec ts;

	CHECK_EQ(syscall(SYS_clock_gettime, clock, &ts), 0);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static int64_t by_usage(int raw)
{
	struct rusage ru;

	CHECK_EQ(raw ? syscall(SYS_getrusage, RUSAGE_THREAD, &ru) : getrusage(RUSAGE_THREAD, &ru),
		 0);
	return (ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1000000000LL +
	       (ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) * 1000LL;
}

static void *names_of_one_clock(void *arg)
{
	clockid_t mine = clock_of(pthread_self());
	struct timespec ts = {0, 1000};

	for (int i = 0; i < 20; i++) {
		int64_t a = own(), b = ns_of(mine), c = by_call(CLOCK_THREAD_CPUTIME_ID),
			d = by_call(mine), e = own();
		CHECK(a <= b && b <= c && c <= d && d <= e);
		/* Those of the kernel are counted by ticks, or lag behind by one. */
		int64_t u = by_usage(i % 2), after = own();
		CHECK(u <= after + 10000000);
		CHECK(u >= a - 20000000);
		burn(2000000);
		usleep(100);
	}
	CHECK_EQ(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &ts, NULL), EINVAL);
	CHECK_EQ(clock_nanosleep(mine, 0, &ts, NULL), EINVAL);
	return arg;
}

static void names_agree(void)
{
	names_of_one_clock(NULL);
	join(spawn(names_of_one_clock, NULL));
	/* With others that take turns on the same kernel threads. */
	pthread_t t[4];
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(names_of_one_clock, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static void *looks_at(void *arg)
{
	clockid_t clock = clock_of(*(pthread_t *)arg);
	int64_t last = ns_of(clock);

	for (int i = 0; i < 200; i++) {
		int64_t now = ns_of(clock);
		if (now < last)
			FAIL("another's clock went back by %lld ns", (long long)(last - now));
		last = now;
		if (i % 8 == 0)
			usleep(50);
	}
	return NULL;
}

/* Main, that computed before there was a thread, and never told anybody. */
static void of_main(void)
{
	pthread_t self = pthread_self(), t[3];

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(looks_at, &self);
	burn(20000000);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static volatile int fired;

static void on_timer(int sig)
{
	(void)sig;
	fired++;
}

static void *timed(void *arg)
{
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	struct itimerspec its = {{0, 0}, {0, 5000000}};
	timer_t timer;

	REQUIRE(signal(SIGUSR1, on_timer) != SIG_ERR);
	fired = 0;
	CHECK_EQ(timer_create(arg ? clock_of(pthread_self()) : CLOCK_THREAD_CPUTIME_ID, &ev,
			      &timer),
		 0);
	CHECK_EQ(timer_settime(timer, 0, &its, NULL), 0);
	sleep_ms(20);
	CHECK_EQ(fired, 0);
	burn(20000000);
	CHECK(wait_for(&fired, 1, 5000));
	CHECK_EQ(timer_delete(timer), 0);
	return NULL;
}

static void timers(void)
{
	join(spawn(timed, NULL));
	join(spawn(timed, &here));
}

/* First of all: a program with one thread. */
static void of_the_only_thread(void)
{
	int64_t before = own();

	burn(10000000);
	join(spawn(computes, (stop = 1, NULL)));
	CHECK(own() >= before + 10000000);
}

static const struct test_case cases[] = {
    {"of_the_only_thread", of_the_only_thread},
    {"of_several", of_several},
    {"of_another", of_another},
    {"names_agree", names_agree},
    {"of_main", of_main},
    {"timers", timers},
};

TEST_MAIN(cases)
