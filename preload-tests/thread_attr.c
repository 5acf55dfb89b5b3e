/*
 * Thread attributes: what is set is what the thread gets, and what pthread_getattr_np tells of a
 * running thread is true of the stack it runs on.
 *
 * The hard one is a stack given by the program: the moment pthread_join returns it may be unmapped,
 * so the last instruction executed on it must lie before the joiner's wake-up.
 */
#include "test.h"

#include <limits.h>
#include <sys/mman.h>

static void defaults(void)
{
	pthread_attr_t attr;
	size_t size = 0, guard = 0;
	int v = -1;
	struct rlimit rl;

	CHECK_EQ(pthread_attr_init(&attr), 0);
	CHECK_EQ(pthread_attr_getstacksize(&attr, &size), 0);
	CHECK_EQ(pthread_attr_getguardsize(&attr, &guard), 0);
	CHECK_EQ(guard, sysconf(_SC_PAGESIZE));
	getrlimit(RLIMIT_STACK, &rl);
	if (rl.rlim_cur != RLIM_INFINITY)
		CHECK_EQ(size, rl.rlim_cur);
	CHECK_EQ(pthread_attr_getscope(&attr, &v), 0);
	CHECK_EQ(v, PTHREAD_SCOPE_SYSTEM);
	CHECK_EQ(pthread_attr_getinheritsched(&attr, &v), 0);
	CHECK_EQ(v, PTHREAD_INHERIT_SCHED);
	CHECK_EQ(pthread_attr_getschedpolicy(&attr, &v), 0);
	CHECK_EQ(v, SCHED_OTHER);
	CHECK_EQ(pthread_attr_destroy(&attr), 0);
}

static void bad_values(void)
{
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	CHECK_EQ(pthread_attr_setstacksize(&attr, 0), EINVAL);
	CHECK_EQ(pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN - 1), EINVAL);
	CHECK_EQ(pthread_attr_setscope(&attr, PTHREAD_SCOPE_PROCESS), ENOTSUP);
	CHECK_EQ(pthread_attr_setscope(&attr, 99), EINVAL);
	CHECK_EQ(pthread_attr_setinheritsched(&attr, 99), EINVAL);
	CHECK_EQ(pthread_attr_setschedpolicy(&attr, 99), EINVAL);
	pthread_attr_destroy(&attr);
}

struct seen {
	void *addr;
	size_t size, guard;
	int detach;
	int inside;
	char *local;
};

static void look(struct seen *s)
{
	pthread_attr_t attr;
	char here;

	memset(s, 0, sizeof *s);
	CHECK_EQ(pthread_getattr_np(pthread_self(), &attr), 0);
	CHECK_EQ(pthread_attr_getstack(&attr, &s->addr, &s->size), 0);
	CHECK_EQ(pthread_attr_getguardsize(&attr, &s->guard), 0);
	CHECK_EQ(pthread_attr_getdetachstate(&attr, &s->detach), 0);
	s->local = &here;
	s->inside = &here >= (char *)s->addr && &here < (char *)s->addr + s->size;
	pthread_attr_destroy(&attr);
}

static void *look_thread(void *arg)
{
	look(arg);
	return NULL;
}

static void stack_sizes(void)
{
	static const size_t sizes[] = {16 << 10, 17 << 10, 64 << 10, 256 << 10,
				       1 << 20,  8 << 20,  64 << 20};

	for (unsigned i = 0; i < COUNT(sizes); i++) {
		pthread_attr_t attr;
		pthread_t t;
		struct seen s;
		size_t got = 0;

		if ((long)sizes[i] < PTHREAD_STACK_MIN)
			continue;
		pthread_attr_init(&attr);
		CHECK_EQ(pthread_attr_setstacksize(&attr, sizes[i]), 0);
		CHECK_EQ(pthread_attr_getstacksize(&attr, &got), 0);
		CHECK_EQ(got, sizes[i]);
		REQUIRE_OK(pthread_create(&t, &attr, look_thread, &s));
		join(t);
		if (!s.inside)
			FAIL("stack %p+%zu of a thread does not hold its local %p", s.addr, s.size,
			     s.local);
		if (s.size < sizes[i])
			FAIL("asked for %zu bytes of stack, got %zu", sizes[i], s.size);
		CHECK_EQ(s.detach, PTHREAD_CREATE_JOINABLE);
		pthread_attr_destroy(&attr);
	}
}

/* Touches most of the stack, page by page. */
static void *use_stack(void *arg)
{
	size_t size = (size_t)arg, off;
	volatile char *p = __builtin_alloca(size);

	for (off = 0; off < size; off += 4096)
		p[off] = (char)off;
	p[size - 1] = 1;
	return (void *)size;
}

static void stack_is_usable(void)
{
	static const struct {
		size_t stack, use;
	} table[] = {
	    {64 << 10, 40 << 10},
	    {1 << 20, 900 << 10},
	    {64 << 20, 60 << 20},
	};

	for (unsigned i = 0; i < COUNT(table); i++) {
		pthread_attr_t attr;
		pthread_t t;

		pthread_attr_init(&attr);
		pthread_attr_setstacksize(&attr, table[i].stack);
		REQUIRE_OK(pthread_create(&t, &attr, use_stack, (void *)table[i].use));
		CHECK_EQ((size_t)join(t), table[i].use);
		pthread_attr_destroy(&attr);
	}
}

static void guard_sizes(void)
{
	static const size_t guards[] = {0, 1, 4096, 12288, 65536, 1 << 20};

	/* The guard is not part of the stack's size, and may be larger. */
	for (unsigned i = 0; i < COUNT(guards) * 2; i++) {
		size_t guard = guards[i / 2], size = i % 2 ? 1 << 20 : 32 << 10;
		pthread_attr_t attr;
		pthread_t t;
		struct seen s;
		size_t got = 1234;

		pthread_attr_init(&attr);
		CHECK_EQ(pthread_attr_setstacksize(&attr, size), 0);
		CHECK_EQ(pthread_attr_setguardsize(&attr, guard), 0);
		CHECK_EQ(pthread_attr_getguardsize(&attr, &got), 0);
		CHECK_EQ(got, guard);
		REQUIRE_OK(pthread_create(&t, &attr, look_thread, &s));
		join(t);
		CHECK(s.inside);
		CHECK(s.size >= size);
		CHECK_EQ(s.guard, (guard + 4095) & ~(size_t)4095);
		pthread_attr_destroy(&attr);
	}
}

static void of_main(void)
{
	struct seen s;

	look(&s);
	if (!s.inside)
		FAIL("main's stack %p+%zu does not hold its local %p", s.addr, s.size, s.local);
	CHECK(s.size >= 1 << 20);
}

static pthread_t main_thread;

static void *look_at_main(void *arg)
{
	struct seen *s = arg;
	pthread_attr_t attr;

	CHECK_EQ(pthread_getattr_np(main_thread, &attr), 0);
	pthread_attr_getstack(&attr, &s->addr, &s->size);
	pthread_attr_destroy(&attr);
	return NULL;
}

static void of_main_seen_by_a_thread(void)
{
	struct seen s;

	main_thread = pthread_self();
	join(spawn(look_at_main, &s));
	CHECK((char *)&s > (char *)s.addr && (char *)&s < (char *)s.addr + s.size);
}

static void *on_given_stack(void *arg)
{
	struct seen *s = arg;

	look(s);
	/* Take part in everything that a thread does at its end. */
	free(malloc(1000));
	return arg;
}

static void given_stack_freed_after_join(void)
{
	enum { SIZE = 64 << 10 };

	for (int i = 0; i < scale(500, 3000); i++) {
		pthread_attr_t attr;
		pthread_t t;
		struct seen s;
		char *stack = mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

		REQUIRE(stack != MAP_FAILED);
		pthread_attr_init(&attr);
		CHECK_EQ(pthread_attr_setstack(&attr, stack, SIZE), 0);
		REQUIRE_OK(pthread_create(&t, &attr, on_given_stack, &s));
		CHECK(join(t) == &s);
		munmap(stack, SIZE);
		CHECK(s.inside);
		if (s.addr != stack || s.size != SIZE)
			FAIL("gave stack %p+%d, thread has %p+%zu", (void *)stack, SIZE, s.addr,
			     s.size);
		if (s.local < stack || s.local >= stack + SIZE)
			FAIL("gave stack %p+%d, thread ran at %p", (void *)stack, SIZE,
			     (void *)s.local);
		pthread_attr_destroy(&attr);
	}
}

static void *sleep_on_given_stack(void *arg)
{
	sleep_ms(5);
	for (int i = 0; i < 20; i++)
		sched_yield();
	return arg;
}

/* The same from malloc, several at once, with threads that block and migrate. */
static void given_stacks_of_many(void)
{
	enum { N = 50, SIZE = 64 << 10 };
	pthread_t t[N];
	char *stack[N];

	for (int round = 0; round < 10; round++) {
		for (int i = 0; i < N; i++) {
			pthread_attr_t attr;

			stack[i] = aligned_alloc(4096, SIZE);
			REQUIRE(stack[i]);
			pthread_attr_init(&attr);
			CHECK_EQ(pthread_attr_setstack(&attr, stack[i], SIZE), 0);
			REQUIRE_OK(pthread_create(&t[i], &attr, sleep_on_given_stack, stack[i]));
			pthread_attr_destroy(&attr);
		}
		for (int i = 0; i < N; i++) {
			CHECK(join(t[i]) == stack[i]);
			memset(stack[i], 0xa5, SIZE);
			free(stack[i]);
		}
	}
}

static void default_attr(void)
{
	pthread_attr_t attr, old;
	size_t size = 0;
	struct seen s;

	CHECK_EQ(pthread_getattr_default_np(&old), 0);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 3 << 20);
	CHECK_EQ(pthread_setattr_default_np(&attr), 0);
	pthread_attr_destroy(&attr);
	CHECK_EQ(pthread_getattr_default_np(&attr), 0);
	pthread_attr_getstacksize(&attr, &size);
	CHECK_EQ(size, 3 << 20);
	pthread_attr_destroy(&attr);
	join(spawn(look_thread, &s));
	CHECK(s.inside);
	/* More is allowed: a stack may be a used one. */
	CHECK(s.size >= 3 << 20);
	CHECK_EQ(pthread_setattr_default_np(&old), 0);
	pthread_attr_destroy(&old);
}

struct found {
	sigset_t mask;
	cpu_set_t cpus;
	int inherit, policy, priority;
};

static void *look_around(void *arg)
{
	struct found *f = arg;
	struct sched_param param;
	pthread_attr_t attr;

	CHECK_EQ(pthread_sigmask(SIG_SETMASK, NULL, &f->mask), 0);
	CHECK_EQ(pthread_getattr_np(pthread_self(), &attr), 0);
	pthread_attr_getaffinity_np(&attr, sizeof f->cpus, &f->cpus);
	pthread_attr_getinheritsched(&attr, &f->inherit);
	pthread_attr_getschedpolicy(&attr, &f->policy);
	pthread_attr_getschedparam(&attr, &param);
	f->priority = param.sched_priority;
	pthread_attr_destroy(&attr);
	return arg;
}

/* A thread made by attr, and one that gets attr by default: 0, or what pthread_create says. */
static int both_ways(const pthread_attr_t *attr, struct found f[2])
{
	pthread_attr_t old;
	pthread_t t;

	memset(f, 0, 2 * sizeof *f);
	int err = pthread_create(&t, attr, look_around, &f[0]);
	if (err)
		return err;
	join(t);
	CHECK_EQ(pthread_getattr_default_np(&old), 0);
	CHECK_EQ(pthread_setattr_default_np(attr), 0);
	join(spawn(look_around, &f[1]));
	CHECK_EQ(pthread_setattr_default_np(&old), 0);
	pthread_attr_destroy(&old);
	return 0;
}

static void mask_by_attr(void)
{
	pthread_attr_t attr;
	struct found f[2];
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_attr_init(&attr);
	CHECK_EQ(pthread_attr_setsigmask_np(&attr, &set), 0);
	REQUIRE_OK(both_ways(&attr, f));
	for (int i = 0; i < 2; i++)
		for (int sig = 1; sig <= SIGSYS; sig++)
			CHECK_EQ(sigismember(&f[i].mask, sig), sig == SIGUSR2);
	pthread_attr_destroy(&attr);
}

static void affinity_by_attr(void)
{
	pthread_attr_t attr;
	struct found f[2];
	cpu_set_t all, one;
	int cpu = 0;

	CHECK_EQ(pthread_getaffinity_np(pthread_self(), sizeof all, &all), 0);
	while (!CPU_ISSET(cpu, &all))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	pthread_attr_init(&attr);
	CHECK_EQ(pthread_attr_setaffinity_np(&attr, sizeof one, &one), 0);
	REQUIRE_OK(both_ways(&attr, f));
	CHECK(CPU_EQUAL(&f[0].cpus, &one));
	CHECK(CPU_EQUAL(&f[1].cpus, &one));
	join(spawn(look_around, f));
	CHECK(CPU_EQUAL(&f[0].cpus, &all));
	pthread_attr_destroy(&attr);
}

static void scheduling_by_attr(void)
{
	struct sched_param param = {.sched_priority = 7};
	pthread_attr_t attr;
	struct found f[2];

	pthread_attr_init(&attr);
	CHECK_EQ(pthread_attr_setinheritsched(&attr, PTHREAD_EXPLICIT_SCHED), 0);
	CHECK_EQ(pthread_attr_setschedpolicy(&attr, SCHED_RR), 0);
	CHECK_EQ(pthread_attr_setschedparam(&attr, &param), 0);
	int err = both_ways(&attr, f);
	pthread_attr_destroy(&attr);
	if (err == EPERM)
		SKIP_CASE("no right to SCHED_RR");
	CHECK_EQ(err, 0);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(f[i].inherit, PTHREAD_EXPLICIT_SCHED);
		CHECK_EQ(f[i].policy, SCHED_RR);
		CHECK_EQ(f[i].priority, 7);
	}
}

static const struct test_case cases[] = {
    {"defaults", defaults},
    {"bad_values", bad_values},
    {"stack_sizes", stack_sizes},
    {"stack_is_usable", stack_is_usable},
    {"guard_sizes", guard_sizes},
    {"of_main", of_main},
    {"of_main_seen_by_a_thread", of_main_seen_by_a_thread},
    {"given_stack_freed_after_join", given_stack_freed_after_join},
    {"given_stacks_of_many", given_stacks_of_many},
    {"default_attr", default_attr},
    {"mask_by_attr", mask_by_attr},
    {"affinity_by_attr", affinity_by_attr},
    {"scheduling_by_attr", scheduling_by_attr},
};

TEST_MAIN(cases)
