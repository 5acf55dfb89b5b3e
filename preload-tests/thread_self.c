/*
 * Who am I: pthread_self, gettid, names and CPU clocks answer for the thread, and keep answering
 * the same while it moves between kernel threads.
 */
#include "test.h"

enum { N = 64 };

static struct me {
	pthread_t self;
	pid_t tid;
	uintptr_t local;
} me[N];
static pthread_barrier_t all;
static __thread int mine;

static void *who(void *arg)
{
	struct me *m = arg;

	m->self = pthread_self();
	m->tid = gettid();
	m->local = (uintptr_t)&mine;
	CHECK(syscall(SYS_gettid) == m->tid);
	pthread_barrier_wait(&all);
	for (int i = 0; i < 300; i++) {
		sched_yield();
		CHECK(pthread_equal(pthread_self(), m->self));
		CHECK_EQ(gettid(), m->tid);
		CHECK((uintptr_t)&mine == m->local);
		CHECK_EQ(getpid(), getpid());
	}
	pthread_barrier_wait(&all);
	return NULL;
}

static void distinct_and_stable(void)
{
	pthread_t t[N];

	CHECK_EQ(gettid(), getpid());
	REQUIRE_OK(pthread_barrier_init(&all, NULL, N));
	for (int i = 0; i < N; i++)
		t[i] = spawn(who, &me[i]);
	for (int i = 0; i < N; i++) {
		join(t[i]);
		CHECK(pthread_equal(t[i], me[i].self));
	}
	for (int i = 0; i < N; i++) {
		CHECK(me[i].tid != getpid());
		CHECK(!pthread_equal(me[i].self, pthread_self()));
		for (int k = 0; k < i; k++) {
			CHECK(!pthread_equal(me[i].self, me[k].self));
			CHECK(me[i].tid != me[k].tid);
			CHECK(me[i].local != me[k].local);
		}
	}
	CHECK_EQ(gettid(), getpid());
}

static void *return_self(void *arg)
{
	*(pthread_t *)arg = pthread_self();
	return NULL;
}

static void known_to_the_creator(void)
{
	for (int i = 0; i < 200; i++) {
		pthread_t seen;
		pthread_t t = spawn(return_self, &seen);
		join(t);
		CHECK(pthread_equal(t, seen));
	}
}

static void *named(void *arg)
{
	char got[16] = "";
	char want[16];

	snprintf(want, sizeof want, "worker-%d", (int)(intptr_t)arg);
	CHECK_EQ(pthread_setname_np(pthread_self(), want), 0);
	for (int i = 0; i < 20; i++) {
		sched_yield();
		CHECK_EQ(pthread_getname_np(pthread_self(), got, sizeof got), 0);
		if (strcmp(got, want) != 0)
			FAIL("named %s, called %s", want, got);
	}
	CHECK_EQ(pthread_setname_np(pthread_self(), "a name that is too long"), ERANGE);
	CHECK_EQ(pthread_getname_np(pthread_self(), got, 3), ERANGE);
	return NULL;
}

static void names(void)
{
	pthread_t t[16];

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(named, (void *)(intptr_t)i);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static void *burn(void *arg)
{
	struct timespec ts;
	volatile unsigned long x = 0;
	int64_t end = now_ns() + 30000000;

	while (now_ns() < end)
		for (int i = 0; i < 1000; i++)
			x += i;
	CHECK(x > 0);
	CHECK_EQ(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts), 0);
	(void)arg;
	return NULL;
}

static void cpu_clock_exists(void)
{
	clockid_t clock;
	struct timespec ts;

	CHECK_EQ(pthread_getcpuclockid(pthread_self(), &clock), 0);
	CHECK_EQ(clock_gettime(clock, &ts), 0);
	join(spawn(burn, NULL));
	CHECK_EQ(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts), 0);
	CHECK(ts.tv_sec > 0 || ts.tv_nsec > 1000000);
}

static const struct test_case cases[] = {
    {"distinct_and_stable", distinct_and_stable},
    {"known_to_the_creator", known_to_the_creator},
    {"names", names},
    {"cpu_clock_exists", cpu_clock_exists},
};

TEST_MAIN(cases)
