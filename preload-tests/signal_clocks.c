/*
 * Signals of clocks: each kind of timer says what it is and how often it has expired since the last time, and an interval
 * timer of CPU time interrupts the thread whose time it tells. And what a call earns: SIGXFSZ, SIGPIPE.
 */
#include "test.h"

#include <sys/resource.h>
#include <sys/time.h>
#include <ucontext.h>

static volatile int stop, fired, overrun, blocking;
static volatile int64_t expired;
static timer_t timer;
static siginfo_t last;

static void on(int sig, void (*fn)(int, siginfo_t *, void *))
{
	struct sigaction sa = {.sa_sigaction = fn, .sa_flags = SA_SIGINFO | SA_RESTART};

	REQUIRE(sigaction(sig, &sa, NULL) == 0);
	fired = 0;
}

static void *idle(void *arg)
{
	while (!stop)
		sleep_ms(1);
	return arg;
}

/* Has no signal open from its first moment on. */
static pthread_t spawn_idle(void)
{
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	pthread_t t = spawn(idle, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return t;
}

static void spin_ms(int64_t ms)
{
	int64_t end = now_ms() + ms;

	while (now_ms() < end)
		;
}

/* --- overruns ------------------------------------------------------------------------------------------------------- */

/* Each expiry is counted once: by a signal, or as an overrun of one. */
static void count_expiries(int sig, siginfo_t *info, void *uc)
{
	(void)sig, (void)uc;
	fired++;
	CHECK_EQ(info->si_code, SI_TIMER);
	CHECK_EQ(info->si_value.sival_int, 4711);
	CHECK(info->si_overrun >= 0);
	int n = timer_getoverrun(timer);
	if (n != info->si_overrun)
		FAIL("overrun %d, by the signal %d", n, info->si_overrun);
	expired += 1 + n;
	overrun += n;
	if (blocking) {
		blocking--;
		spin_ms(10);
	}
}

enum { PERIOD_US = 500 };

/* sig: of the timer; the thread that has it open computes, sleeps, or stays in the handler, and blocks it for a while. */
static void *count_overruns(void *arg)
{
	int sig = (int)(intptr_t)arg;
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = sig};
	struct itimerspec its = {{0, PERIOD_US * 1000}, {0, PERIOD_US * 1000}},
			  off = {{0, 0}, {0, 0}};
	sigset_t set, old;

	sigemptyset(&set);
	sigaddset(&set, sig);
	on(sig, count_expiries);
	ev.sigev_value.sival_int = 4711;
	expired = overrun = 0;
	REQUIRE(timer_create(CLOCK_MONOTONIC, &ev, &timer) == 0);
	CHECK_EQ(timer_getoverrun(timer), 0);
	int64_t start = now_ns();
	REQUIRE(timer_settime(timer, 0, &its, NULL) == 0);
	spin_ms(20);
	sleep_ms(20);
	blocking = 4;
	while (blocking)
		;
	pthread_sigmask(SIG_BLOCK, &set, &old);
	/* Expiries so far are counted: what comes now is one signal, whatever its number. */
	int before = fired;
	sleep_ms(30);
	CHECK_EQ(fired, before);
	int64_t counted = expired;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	CHECK(fired >= before + 1);
	CHECK(expired - counted >= 30000 / PERIOD_US / 2);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	sleep_ms(10);
	REQUIRE(timer_settime(timer, 0, &off, NULL) == 0);
	int64_t took = now_ns() - start;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	sleep_ms(5);
	int64_t want = took / (PERIOD_US * 1000);
	/* Setting it anew forgets what has not been delivered. */
	if (expired > want + 1)
		FAIL("signal %d: %ld expiries, there were %ld", sig, (long)expired, (long)want);
	CHECK(overrun >= 40000 / PERIOD_US / 2);
	CHECK_EQ(timer_delete(timer), 0);
	signal(sig, SIG_IGN);
	return NULL;
}

static void overruns(void)
{
	count_overruns((void *)SIGALRM);
	count_overruns((void *)(intptr_t)(SIGRTMIN + 2));
	stop = 0;
	pthread_t t = spawn_idle();
	count_overruns((void *)SIGUSR2);
	count_overruns((void *)(intptr_t)(SIGRTMIN + 3));
	stop = 1;
	join(t);
}

/* Taken by sigwaitinfo, while others have the signal open and while all block it. */
static void *wait_for_expiries(void *arg)
{
	int sig = SIGRTMIN + 4;
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = sig};
	struct itimerspec its = {{0, 2000000}, {0, 2000000}};
	sigset_t set, old;
	siginfo_t info;
	timer_t t;

	sigemptyset(&set);
	sigaddset(&set, sig);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	ev.sigev_value.sival_int = 17;
	REQUIRE(timer_create(CLOCK_REALTIME, &ev, &t) == 0);
	REQUIRE(timer_settime(t, 0, &its, NULL) == 0);
	for (int i = 0; i < 10; i++) {
		if (i % 3 == 2)
			sleep_ms(11);
		CHECK_EQ(sigwaitinfo(&set, &info), sig);
		CHECK_EQ(info.si_code, SI_TIMER);
		CHECK_EQ(info.si_value.sival_int, 17);
		CHECK_EQ(info.si_overrun, timer_getoverrun(t));
		if (i % 3 == 2)
			CHECK(info.si_overrun >= 3);
	}
	CHECK_EQ(timer_delete(t), 0);
	CHECK_ERRNO(timer_getoverrun(t), EINVAL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return arg;
}

static void waited_for(void)
{
	on(SIGRTMIN + 4, count_expiries);
	wait_for_expiries(NULL);
	sigset_t set, old;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 4);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	join(spawn(wait_for_expiries, NULL));
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	CHECK_EQ(fired, 0);
	signal(SIGRTMIN + 4, SIG_IGN);
}

/* --- SIGEV_NONE and SIGEV_THREAD ---------------------------------------------------------------------------------- */

/* A count of its own: on a busy machine such threads still come when the timer is no more. */
static int noticed;

static void in_thread(union sigval v)
{
	CHECK_EQ(v.sival_int, 99);
	__atomic_add_fetch(&noticed, 1, __ATOMIC_RELEASE);
}

static void kinds_of_notice(void)
{
	struct sigevent none = {.sigev_notify = SIGEV_NONE},
			thread = {.sigev_notify = SIGEV_THREAD};
	struct itimerspec its = {{0, 2000000}, {0, 2000000}}, left;
	timer_t t;

	REQUIRE(timer_create(CLOCK_MONOTONIC, &none, &t) == 0);
	its.it_value.tv_sec = 100;
	CHECK_EQ(timer_settime(t, 0, &its, NULL), 0);
	CHECK_EQ(timer_gettime(t, &left), 0);
	CHECK(left.it_value.tv_sec >= 99 && left.it_interval.tv_nsec == 2000000);
	CHECK_EQ(timer_delete(t), 0);
	its.it_value.tv_sec = 0;
	thread.sigev_notify_function = in_thread;
	thread.sigev_value.sival_int = 99;
	REQUIRE(timer_create(CLOCK_MONOTONIC, &thread, &t) == 0);
	CHECK_EQ(timer_settime(t, 0, &its, NULL), 0);
	while (__atomic_load_n(&noticed, __ATOMIC_ACQUIRE) < 10)
		sleep_ms(5);
	CHECK_EQ(timer_delete(t), 0);
}

/* --- interval timers ------------------------------------------------------------------------------------------------- */

static void note(int sig, siginfo_t *info, void *uc)
{
	(void)sig, (void)uc;
	last = *info;
	fired++;
}

static const struct itimerval OFF = {{0, 0}, {0, 0}};

static void *interval_timers_by(void *arg)
{
	static const struct {
		int which, sig;
	} kinds[] = {{ITIMER_REAL, SIGALRM}, {ITIMER_VIRTUAL, SIGVTALRM}, {ITIMER_PROF, SIGPROF}};

	for (unsigned i = 0; i < COUNT(kinds); i++) {
		struct itimerval it = {{0, 10000}, {0, 10000}}, got;

		on(kinds[i].sig, note);
		CHECK_EQ(setitimer(kinds[i].which, &it, NULL), 0);
		CHECK_EQ(getitimer(kinds[i].which, &got), 0);
		CHECK(got.it_interval.tv_usec >= 10000 && got.it_interval.tv_usec <= 14000);
		while (fired < 3)
			;
		CHECK_EQ(setitimer(kinds[i].which, &OFF, &got), 0);
		CHECK_EQ(last.si_signo, kinds[i].sig);
		CHECK_EQ(last.si_code, SI_KERNEL);
		signal(kinds[i].sig, SIG_IGN);
	}
	return arg;
}

static void interval_timers(void)
{
	interval_timers_by(NULL);
	join(spawn(interval_timers_by, NULL));
}

/* Two threads compute, three wait, and main waits: it is those two that a profiler finds. */
static __thread volatile int samples, computes;
static volatile int hits, misses;

static void sample(int sig, siginfo_t *info, void *uc)
{
	(void)sig, (void)info, (void)uc;
	samples++;
	__atomic_add_fetch(computes ? &hits : &misses, 1, __ATOMIC_RELAXED);
}

static void *compute(void *arg)
{
	computes = 1;
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE) && hits < 100000)
		;
	*(int *)arg = samples;
	return NULL;
}

static void *wait_much(void *arg)
{
	while (!stop)
		sleep_ms(50);
	return arg;
}

static void profiled_as(int which, int sig)
{
	struct itimerval it = {{0, 1000}, {0, 1000}};
	pthread_t t[5];
	int seen[2] = {0, 0};

	stop = hits = misses = 0;
	on(sig, sample);
	for (int i = 0; i < 5; i++)
		t[i] = spawn(i < 2 ? compute : wait_much, &seen[i % 2]);
	CHECK_EQ(setitimer(which, &it, NULL), 0);
	while (hits + misses < 60)
		sleep_ms(20);
	CHECK_EQ(setitimer(which, &OFF, NULL), 0);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (int i = 0; i < 5; i++)
		join(t[i]);
	if (hits < misses * 3)
		FAIL("%d samples in threads that compute, %d in others", hits, misses);
	CHECK(seen[0] > 0 && seen[1] > 0);
	signal(sig, SIG_IGN);
}

static void profiled(void)
{
	profiled_as(ITIMER_PROF, SIGPROF);
	profiled_as(ITIMER_VIRTUAL, SIGVTALRM);
}

/* Blocked where it is earned, and by all. */
static void profile_blocked(void)
{
	struct itimerval it = {{0, 1000}, {0, 1000}};
	sigset_t set, old, now;
	siginfo_t info;

	sigemptyset(&set);
	sigaddset(&set, SIGPROF);
	on(SIGPROF, note);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	stop = 0;
	pthread_t t = spawn_idle();
	CHECK_EQ(setitimer(ITIMER_PROF, &it, NULL), 0);
	spin_ms(50);
	do
		sigpending(&now);
	while (!sigismember(&now, SIGPROF));
	CHECK_EQ(fired, 0);
	CHECK_EQ(sigwaitinfo(&set, &info), SIGPROF);
	CHECK_EQ(info.si_code, SI_KERNEL);
	CHECK_EQ(setitimer(ITIMER_PROF, &OFF, NULL), 0);
	stop = 1;
	join(t);
	signal(SIGPROF, SIG_IGN);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* --- limits ------------------------------------------------------------------------------------------------------------ */

/* Beyond the size allowed: EFBIG, and SIGXFSZ to the writer alone, unless it is blocked or ignored. */
static int filefd;
static pthread_t writer;

static void xfsz(int sig, siginfo_t *info, void *uc)
{
	(void)sig, (void)info, (void)uc;
	CHECK(pthread_equal(pthread_self(), writer));
	fired++;
}

static void *write_beyond(void *arg)
{
	sigset_t set, old, now;

	writer = pthread_self();
	for (int i = 1; i <= 5; i++) {
		CHECK_ERRNO(pwrite(filefd, "x", 1, 1 << 20), EFBIG);
		CHECK_EQ(fired, i);
		CHECK_ERRNO(ftruncate(filefd, 2 << 20), EFBIG);
		CHECK_EQ(fired, ++i);
	}
	sigemptyset(&set);
	sigaddset(&set, SIGXFSZ);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	fired = 0;
	CHECK_ERRNO(pwrite(filefd, "x", 1, 1 << 20), EFBIG);
	CHECK_EQ(fired, 0);
	sigpending(&now);
	CHECK(sigismember(&now, SIGXFSZ));
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	CHECK_EQ(fired, 1);
	fired = 0;
	return arg;
}

static int write_and_die(void)
{
	signal(SIGXFSZ, SIG_DFL);
	join(spawn_idle());
	return 0;
}

static void *write_on(void *arg)
{
	ssize_t n = pwrite(filefd, "x", 1, 1 << 20);
	(void)n;
	return arg;
}

static int thread_writes_and_dies(void)
{
	signal(SIGXFSZ, SIG_DFL);
	join(spawn(write_on, NULL));
	return 0;
}

static void file_limit(void)
{
	struct rlimit rl, old;
	char path[] = "/tmp/size-XXXXXX";

	filefd = mkstemp(path);
	REQUIRE(filefd >= 0);
	unlink(path);
	getrlimit(RLIMIT_FSIZE, &old);
	rl = old;
	rl.rlim_cur = 1 << 20;
	REQUIRE(setrlimit(RLIMIT_FSIZE, &rl) == 0);
	on(SIGXFSZ, xfsz);
	write_beyond(NULL);
	join(spawn(write_beyond, NULL));
	stop = 1;
	CHECK_EQ(in_child(write_and_die), 0);
	int status = in_child(thread_writes_and_dies);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ);
	signal(SIGXFSZ, SIG_IGN);
	CHECK_ERRNO(pwrite(filefd, "x", 1, 1 << 20), EFBIG);
	setrlimit(RLIMIT_FSIZE, &old);
	close(filefd);
}

/* SIGPIPE is the writer's. */
static void *write_to_nobody(void *arg)
{
	int fds[2];

	REQUIRE(pipe(fds) == 0);
	close(fds[0]);
	writer = pthread_self();
	fired = 0;
	for (int i = 1; i <= 5; i++) {
		CHECK_ERRNO(write(fds[1], "x", 1), EPIPE);
		CHECK_EQ(fired, i);
	}
	close(fds[1]);
	return arg;
}

static void broken_pipes(void)
{
	on(SIGPIPE, xfsz);
	stop = 0;
	pthread_t t = spawn_idle();
	write_to_nobody(NULL);
	join(spawn(write_to_nobody, NULL));
	stop = 1;
	join(t);
	signal(SIGPIPE, SIG_DFL);
}

static const struct test_case cases[] = {
    {"overruns", overruns},
    {"waited_for", waited_for},
    {"kinds_of_notice", kinds_of_notice},
    {"interval_timers", interval_timers},
    {"profiled", profiled},
    {"profile_blocked", profile_blocked},
    {"file_limit", file_limit},
    {"broken_pipes", broken_pipes},
};

TEST_MAIN(cases)
