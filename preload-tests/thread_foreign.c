/*
 * A thread that libc itself has made, for a timer's function, named by its pthread_t: other threads are told of it, and
 * do to it, what they are and do with those of pthread_create. It is detached.
 */
#include "test.h"

#include <semaphore.h>

static sem_t there, leave, left;
static pthread_t foreign;
static pid_t tid;
static uintptr_t frame;
static volatile int handled;
static volatile pthread_t handled_by;

static void on_signal(int sig)
{
	(void)sig;
	handled_by = pthread_self();
	handled++;
}

static void waits(void)
{
	while (sem_wait(&leave) != 0)
		CHECK_EQ(errno, EINTR);
}

static void in_timer(union sigval v)
{
	int here;

	(void)v;
	foreign = pthread_self();
	tid = gettid();
	frame = (uintptr_t)&here;
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	sem_post(&there);
	waits();
	sem_post(&left);
}

static void *asks(void *arg)
{
	pthread_attr_t attr;
	struct sched_param param;
	struct timespec ts;
	cpu_set_t set;
	clockid_t clock;
	void *stack, *result;
	size_t size;
	int state = -1, policy = -1;
	char name[16] = "";

	CHECK(!pthread_equal(foreign, pthread_self()));
	CHECK(tid != gettid() && tid != getpid());
	CHECK_EQ(pthread_getattr_np(foreign, &attr), 0);
	CHECK_EQ(pthread_attr_getstack(&attr, &stack, &size), 0);
	CHECK(frame > (uintptr_t)stack && frame < (uintptr_t)stack + size);
	CHECK_EQ(pthread_attr_getdetachstate(&attr, &state), 0);
	CHECK_EQ(state, PTHREAD_CREATE_DETACHED);
	pthread_attr_destroy(&attr);
	CHECK_EQ(pthread_join(foreign, &result), EINVAL);
	CHECK_EQ(pthread_tryjoin_np(foreign, &result), EBUSY);
	CHECK_EQ(pthread_detach(foreign), EINVAL);
	CHECK_EQ(pthread_setname_np(foreign, "of libc"), 0);
	CHECK_EQ(pthread_getname_np(foreign, name, sizeof name), 0);
	CHECK_EQ(strcmp(name, "of libc"), 0);
	CHECK_EQ(pthread_getschedparam(foreign, &policy, &param), 0);
	CHECK_EQ(policy, SCHED_OTHER);
	CHECK_EQ(pthread_setschedparam(foreign, SCHED_OTHER, &param), 0);
	CHECK_EQ(pthread_getaffinity_np(foreign, sizeof set, &set), 0);
	CHECK(CPU_COUNT(&set) > 0);
	CHECK_EQ(pthread_setaffinity_np(foreign, sizeof set, &set), 0);
	CHECK_EQ(sched_getaffinity(tid, sizeof set, &set), 0);
	CHECK_EQ(getpriority(PRIO_PROCESS, (id_t)tid), 0);
	CHECK_EQ(pthread_getcpuclockid(foreign, &clock), 0);
	CHECK_EQ(clock_gettime(clock, &ts), 0);
	CHECK_EQ(pthread_kill(foreign, 0), 0);
	handled = 0;
	CHECK_EQ(pthread_kill(foreign, SIGUSR1), 0);
	CHECK(wait_for(&handled, 1, 10000));
	CHECK(pthread_equal(handled_by, foreign));
	CHECK_EQ(tgkill(getpid(), tid, SIGUSR1), 0);
	CHECK(wait_for(&handled, 2, 10000));
	CHECK(pthread_equal(handled_by, foreign));
	CHECK_EQ(pthread_sigqueue(foreign, SIGUSR1, (union sigval){.sival_int = 1}), 0);
	CHECK(wait_for(&handled, 3, 10000));
	CHECK(pthread_equal(handled_by, foreign));
	return arg;
}

static void *concurrency(void *arg)
{
	int before = pthread_getconcurrency();

	CHECK_EQ(pthread_setconcurrency(before + 3), 0);
	CHECK_EQ(pthread_getconcurrency(), before + 3);
	CHECK_EQ(pthread_setconcurrency(-1), EINVAL);
	CHECK_EQ(pthread_setconcurrency(before), 0);
	return arg;
}

static void *returns(void *arg)
{
	return arg;
}

static void told_apart(void)
{
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = in_timer};
	struct itimerspec its = {{0, 0}, {0, 1000000}};
	timer_t timer;

	REQUIRE(sem_init(&there, 0, 0) == 0 && sem_init(&leave, 0, 0) == 0 &&
		sem_init(&left, 0, 0) == 0);
	REQUIRE(signal(SIGUSR1, on_signal) != SIG_ERR);
	join(spawn(returns, NULL));
	REQUIRE(timer_create(CLOCK_MONOTONIC, &ev, &timer) == 0);
	REQUIRE(timer_settime(timer, 0, &its, NULL) == 0);
	while (sem_wait(&there) != 0)
		;
	asks(NULL);
	join(spawn(asks, NULL));
	sem_post(&leave);
	while (sem_wait(&left) != 0)
		;
	timer_delete(timer);
}

static void concurrency_is_a_number(void)
{
	concurrency(NULL);
	join(spawn(concurrency, NULL));
}

static const struct test_case cases[] = {
    {"told_apart", told_apart},
    {"concurrency_is_a_number", concurrency_is_a_number},
};

TEST_MAIN(cases)
