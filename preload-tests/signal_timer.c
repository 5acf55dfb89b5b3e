/*
 * Signals of timers: alarm, setitimer and timer_create reach a handler while threads wait, compute
 * or both, and end the waits that signals end.
 */
#include "test.h"

#include <sys/time.h>

/* volatile: handlers change them behind the compiler's back. */
static volatile int fired;
static volatile pthread_t fired_in;

static void on_timer(int sig)
{
	(void)sig;
	fired_in = pthread_self();
	__atomic_add_fetch(&fired, 1, __ATOMIC_RELEASE);
}

static void install(int sig, int flags)
{
	struct sigaction sa = {.sa_handler = on_timer, .sa_flags = flags};

	REQUIRE(sigaction(sig, &sa, NULL) == 0);
}

static int stop;

static void *compute(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		;
	return arg;
}

static void *block_all(void *arg)
{
	sigset_t set;

	sigfillset(&set);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	return compute(arg);
}

static void alarm_ends_pause(void)
{
	pthread_t t[4];

	stop = fired = 0;
	install(SIGALRM, SA_RESTART);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(block_all, NULL);
	sleep_ms(20);
	/* Again and again, for one may come before the wait. */
	struct itimerval it = {{0, 30000}, {0, 30000}}, off = {{0, 0}, {0, 0}};
	CHECK_EQ(setitimer(ITIMER_REAL, &it, NULL), 0);
	CHECK_ERRNO(pause(), EINTR);
	CHECK_EQ(setitimer(ITIMER_REAL, &off, NULL), 0);
	CHECK(fired >= 1);
	CHECK(pthread_equal(fired_in, pthread_self()));
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(alarm(100), 0);
	unsigned left = alarm(0);
	CHECK(left == 100 || left == 99);
}

static void interval_while_main_computes(void)
{
	struct itimerval it = {{0, 5000}, {0, 5000}}, off = {{0, 0}, {0, 0}};
	pthread_t t[3];

	stop = fired = 0;
	install(SIGALRM, SA_RESTART);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(compute, NULL);
	CHECK_EQ(setitimer(ITIMER_REAL, &it, NULL), 0);
	int64_t end = now_ms() + 30000;
	while (fired < 10 && now_ms() < end)
		;
	CHECK(fired >= 10);
	CHECK_EQ(setitimer(ITIMER_REAL, &off, NULL), 0);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static void *alarm_in_cond_wait(void *arg)
{
	pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t c = PTHREAD_COND_INITIALIZER;
	struct itimerval it = {{0, 0}, {0, 20000}};
	struct timespec ts = after_ms(CLOCK_REALTIME, 100);

	fired = 0;
	CHECK_EQ(setitimer(ITIMER_REAL, &it, NULL), 0);
	pthread_mutex_lock(&m);
	int rc = 0;
	/* Handlers do not end it with an error. */
	while (rc == 0)
		rc = pthread_cond_timedwait(&c, &m, &ts);
	CHECK_EQ(rc, ETIMEDOUT);
	pthread_mutex_unlock(&m);
	CHECK(wait_for(&fired, 1, 5000));
	return arg;
}

static void during_cond_wait(void)
{
	install(SIGALRM, 0);
	alarm_in_cond_wait(NULL);
	join(spawn(alarm_in_cond_wait, NULL));
}

static void posix_timers(void)
{
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 5};
	struct itimerspec its = {{0, 3000000}, {0, 3000000}};
	timer_t timer;

	install(SIGRTMIN + 5, SA_RESTART);
	fired = 0;
	REQUIRE(timer_create(CLOCK_MONOTONIC, &ev, &timer) == 0);
	CHECK_EQ(timer_settime(timer, 0, &its, NULL), 0);
	for (int i = 0; i < 1000 && fired < 10; i++)
		sleep_ms(5);
	CHECK(fired >= 10);
	CHECK_EQ(timer_delete(timer), 0);
	sleep_ms(10);
	signal(SIGRTMIN + 5, SIG_IGN);
}

/* Profiling: signals come while threads compute, and nothing else breaks. */
static void profiling(void)
{
	struct itimerval it = {{0, 1000}, {0, 1000}}, off = {{0, 0}, {0, 0}};
	pthread_t t[4];

	stop = fired = 0;
	install(SIGPROF, SA_RESTART);
	CHECK_EQ(setitimer(ITIMER_PROF, &it, NULL), 0);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(compute, NULL);
	for (int i = 0; i < 1000 && fired < 20; i++)
		sleep_ms(5);
	CHECK(fired >= 20);
	CHECK_EQ(setitimer(ITIMER_PROF, &off, NULL), 0);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	sleep_ms(10);
	signal(SIGPROF, SIG_IGN);
}

/* The same of threads that are in libc most of the time, and so lose their processor without being asked. */
static void *searches(void *arg)
{
	static char zeros[4 << 20];

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		for (int i = 0; i < 50; i++)
			CHECK(memchr(zeros, 'x', sizeof zeros) == NULL);
	return arg;
}

static void profiling_libc(void)
{
	struct itimerval it = {{0, 1000}, {0, 1000}}, off = {{0, 0}, {0, 0}};
	pthread_t t[4];

	stop = fired = 0;
	install(SIGPROF, SA_RESTART);
	CHECK_EQ(setitimer(ITIMER_PROF, &it, NULL), 0);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(searches, NULL);
	while (fired < 100)
		sleep_ms(5);
	CHECK_EQ(setitimer(ITIMER_PROF, &off, NULL), 0);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	sleep_ms(10);
	signal(SIGPROF, SIG_IGN);
}

static int die_by_alarm(void)
{
	stop = 0;
	for (int i = 0; i < 4; i++)
		spawn(compute, NULL);
	struct itimerval it = {{0, 0}, {0, 20000}};
	signal(SIGALRM, SIG_DFL);
	setitimer(ITIMER_REAL, &it, NULL);
	for (;;)
		pause();
	return 0;
}

static void default_action(void)
{
	CHECK_EQ(in_child(die_by_alarm), SIGALRM);
}

static const struct test_case cases[] = {
    {"alarm_ends_pause", alarm_ends_pause},
    {"interval_while_main_computes", interval_while_main_computes},
    {"during_cond_wait", during_cond_wait},
    {"posix_timers", posix_timers},
    {"profiling", profiling},
    {"profiling_libc", profiling_libc},
    {"default_action", default_action},
};

TEST_MAIN(cases)
