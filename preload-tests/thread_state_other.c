/*
 * Affinity, scheduling class, nice value and I/O priority of another thread, whatever that one is doing: it has them
 * from then on, the caller and the others have not.
 */
#include "test.h"

#include <sys/resource.h>

enum { IoprioProcess = 1, IoprioIdle = 3 << 13, IoprioBest7 = (2 << 13) | 7, Kinds = 7 };

static int fds[2], stop, looks, here;
static pid_t tid;
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static int cpu, ncpus;
static cpu_set_t all, one;

/* What is set, by another. */
struct kind {
	const char *name;
	int (*set)(pthread_t t);
	int (*seen)(pid_t who, int was_set); /* 0: this thread, itself */
};

static int set_affinity(pthread_t t)
{
	return pthread_setaffinity_np(t, sizeof one, &one);
}
static int set_affinity_by_tid(pthread_t t)
{
	(void)t;
	return sched_setaffinity(tid, sizeof one, &one) ? errno : 0;
}
static int affinity(pid_t who, int was_set)
{
	cpu_set_t got;

	return sched_getaffinity(who, sizeof got, &got) == 0 &&
	       CPU_EQUAL(&got, was_set ? &one : &all) && (who || !was_set || sched_getcpu() == cpu);
}
static int set_class(pthread_t t)
{
	struct sched_param p = {0};

	return pthread_setschedparam(t, SCHED_BATCH, &p);
}
static int set_class_by_tid(pthread_t t)
{
	struct sched_param p = {0};

	(void)t;
	return sched_setscheduler(tid, SCHED_BATCH, &p) ? errno : 0;
}
static int class(pid_t who, int was_set)
{
	return sched_getscheduler(who) == (was_set ? SCHED_BATCH : SCHED_OTHER);
}
static int set_nice(pthread_t t)
{
	(void)t;
	return setpriority(PRIO_PROCESS, (id_t)tid, 5) ? errno : 0;
}
static int nice_value(pid_t who, int was_set)
{
	return getpriority(PRIO_PROCESS, (id_t)who) == (was_set ? 5 : 0);
}
static int set_nice_by_call(pthread_t t)
{
	(void)t;
	return syscall(SYS_setpriority, PRIO_PROCESS, tid, 5) ? errno : 0;
}
static int set_ioprio(pthread_t t)
{
	(void)t;
	return syscall(SYS_ioprio_set, IoprioProcess, tid, IoprioBest7) ? errno : 0;
}
static int ioprio(pid_t who, int was_set)
{
	long got = syscall(SYS_ioprio_get, IoprioProcess, who);

	return was_set ? got == IoprioBest7 : got != IoprioBest7;
}

static const struct kind kinds[Kinds] = {
    {"pthread_setaffinity_np", set_affinity, affinity},
    {"sched_setaffinity", set_affinity_by_tid, affinity},
    {"pthread_setschedparam", set_class, class},
    {"sched_setscheduler", set_class_by_tid, class},
    {"setpriority", set_nice, nice_value},
    {"setpriority as a system call", set_nice_by_call, nice_value},
    {"ioprio_set", set_ioprio, ioprio},
};

/* What the thread does meanwhile. */
static void reads(void)
{
	char ch;

	CHECK_EQ(read(fds[0], &ch, 1), 1);
}
static void waits(void)
{
	pthread_mutex_lock(&m);
	while (!stop)
		pthread_cond_wait(&c, &m);
	pthread_mutex_unlock(&m);
}
static void sleeps(void)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		usleep(2000);
}
static void computes(void)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		;
}
static void allocates(void)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		for (int i = 0; i < 100; i++)
			free(malloc((size_t)i * 50));
}
static void yields(void)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		sched_yield();
}
static void calls(void)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		syscall(SYS_getppid);
}

static const struct {
	const char *name;
	void (*act)(void);
} acts[] = {
    {"reads", reads},         {"waits", waits},   {"sleeps", sleeps}, {"computes", computes},
    {"allocates", allocates}, {"yields", yields}, {"calls", calls},
};

struct target {
	const struct kind *kind;
	void (*act)(void);
};

static void *target(void *arg)
{
	struct target *t = arg;

	__atomic_store_n(&tid, gettid(), __ATOMIC_RELEASE);
	__atomic_store_n(&here, 1, __ATOMIC_RELEASE);
	t->act();
	for (int i = 0; i < 20; i++) {
		if (!t->kind->seen(0, 1) || !t->kind->seen(gettid(), 1))
			FAIL("%s: the thread has it not", t->kind->name);
		sched_yield();
		if (i % 5 == 0)
			usleep(100);
	}
	return NULL;
}

static void release(void)
{
	pthread_mutex_lock(&m);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&c);
	pthread_mutex_unlock(&m);
	CHECK_EQ(write(fds[1], "x", 1), 1);
}

static void *bystander(void *arg)
{
	while (!__atomic_load_n(&looks, __ATOMIC_ACQUIRE)) {
		for (int k = 0; k < Kinds; k++)
			if (!kinds[k].seen(0, 0))
				FAIL("%s: a bystander has it", kinds[k].name);
		usleep(500);
	}
	return arg;
}

static void *sets(void *arg)
{
	pthread_t by = spawn(bystander, NULL);

	looks = 0;
	for (unsigned i = 0; i < COUNT(acts); i++) {
		for (int k = 0; k < Kinds; k++) {
			struct target t = {&kinds[k], acts[i].act};
			char ch;

			stop = here = 0;
			pthread_t th = spawn(target, &t);
			CHECK(wait_for(&here, 1, 10000));
			int r = kinds[k].set(th);
			if (r)
				FAIL("%s of a thread that %s: %d", kinds[k].name, acts[i].name, r);
			CHECK(kinds[k].seen(tid, 1));
			CHECK(kinds[k].seen(0, 0));
			release();
			join(th);
			if (acts[i].act != reads)
				CHECK_EQ(read(fds[0], &ch, 1), 1);
		}
	}
	__atomic_store_n(&looks, 1, __ATOMIC_RELEASE);
	join(by);
	return arg;
}

static void prepare(void)
{
	REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
	ncpus = CPU_COUNT(&all);
	for (cpu = CPU_SETSIZE - 1; !CPU_ISSET(cpu, &all);)
		cpu--;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	REQUIRE(pipe(fds) == 0);
}

static void by_main(void)
{
	prepare();
	if (ncpus < 2)
		SKIP_CASE("one CPU");
	sets(NULL);
}

static void by_a_thread(void)
{
	prepare();
	if (ncpus < 2)
		SKIP_CASE("one CPU");
	join(spawn(sets, NULL));
}

/* A thread of threads of a class of its own sets another's: that has what was set, not what the setter has. */
static void *sets_wired(void *arg)
{
	struct sched_param p = {0};
	struct target t = {&kinds[0], sleeps};

	CHECK_EQ(pthread_setschedparam(pthread_self(), SCHED_IDLE, &p), 0);
	CHECK_EQ(kinds[0].set(*(pthread_t *)arg), 0);
	CHECK_EQ(sched_getscheduler(tid), SCHED_OTHER);
	CHECK(affinity(0, 0));
	(void)t;
	return NULL;
}

static void by_a_wired_one(void)
{
	struct target t = {&kinds[0], sleeps};

	prepare();
	if (ncpus < 2)
		SKIP_CASE("one CPU");
	stop = here = 0;
	pthread_t th = spawn(target, &t);
	CHECK(wait_for(&here, 1, 10000));
	join(spawn(sets_wired, &th));
	release();
	join(th);
}

static void *at_once(void *arg)
{
	cpu_set_t got;

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		usleep(1000);
	CHECK_EQ(sched_getaffinity(0, sizeof got, &got), 0);
	CHECK(CPU_EQUAL(&got, &one));
	return arg;
}

/* As OpenMP and servers do: a thread that has just been made, and perhaps has not run. */
static void many_that_were_just_made(void)
{
	enum { N = 32 };
	pthread_t t[N];

	prepare();
	stop = 0;
	for (int i = 0; i < N; i++) {
		t[i] = spawn(at_once, NULL);
		CHECK_EQ(pthread_setaffinity_np(t[i], sizeof one, &one), 0);
	}
	release();
	for (int i = 0; i < N; i++)
		join(t[i]);
}

static pthread_barrier_t all_set;

static void *to_each_other(void *arg)
{
	pthread_t *t = arg;

	while (!__atomic_load_n(&here, __ATOMIC_ACQUIRE))
		sched_yield();
	for (int i = 0; i < 8; i++)
		CHECK_EQ(pthread_setaffinity_np(t[i], sizeof one, &one), 0);
	pthread_barrier_wait(&all_set);
	CHECK(affinity(0, 1));
	return NULL;
}

static void each_other_at_the_same_time(void)
{
	pthread_t t[8];

	prepare();
	REQUIRE_OK(pthread_barrier_init(&all_set, NULL, COUNT(t)));
	for (int round = 0; round < 5; round++) {
		here = 0;
		for (unsigned i = 0; i < COUNT(t); i++)
			t[i] = spawn(to_each_other, t);
		__atomic_store_n(&here, 1, __ATOMIC_RELEASE);
		for (unsigned i = 0; i < COUNT(t); i++)
			join(t[i]);
	}
}

static void *returns(void *arg)
{
	return arg;
}

static void errors(void)
{
	struct sched_param bad = {1000}, none = {0};
	cpu_set_t empty;

	prepare();
	CPU_ZERO(&empty);
	stop = 0;
	struct target t = {&kinds[0], sleeps};
	here = 0;
	pthread_t th = spawn(target, &t);
	CHECK(wait_for(&here, 1, 10000));
	CHECK_EQ(pthread_setaffinity_np(th, sizeof empty, &empty), EINVAL);
	CHECK_EQ(pthread_setschedparam(th, SCHED_OTHER, &bad), EINVAL);
	CHECK_EQ(pthread_setschedparam(th, 99, &none), EINVAL);
	CHECK_EQ(pthread_setschedprio(th, 1), EINVAL);
	CHECK_ERRNO(sched_setscheduler(-1, SCHED_OTHER, &none), EINVAL);
	CHECK_EQ(pthread_setaffinity_np(th, sizeof one, &one), 0);
	release();
	join(th);
	th = spawn(returns, NULL);
	while (pthread_getschedparam(th, &(int){0}, &none) == 0)
		usleep(500);
	CHECK_EQ(pthread_setschedparam(th, SCHED_BATCH, &none), ESRCH);
	join(th);
}

static const struct test_case cases[] = {
    {"by_main", by_main},
    {"by_a_thread", by_a_thread},
    {"by_a_wired_one", by_a_wired_one},
    {"many_that_were_just_made", many_that_were_just_made},
    {"each_other_at_the_same_time", each_other_at_the_same_time},
    {"errors", errors},
};

TEST_MAIN(cases)
