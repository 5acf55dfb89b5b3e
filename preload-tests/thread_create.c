/*
 * Creating and joining threads: the argument goes in, the result comes out, and joins that cannot
 * work say so.
 *
 * Joins are where a thread's storage changes hands: the value must be the one returned, from
 * whichever thread joins, whether the target ended long ago, ends now, or ends only because of
 * something the joiner did before.
 */
#include "test.h"

static void *plus_one(void *arg)
{
	return (void *)((intptr_t)arg + 1);
}

static void value_in_and_out(void)
{
	static const intptr_t values[] = {0, 1, -1, -2, 42, INTPTR_MAX - 1, INTPTR_MIN};

	for (unsigned i = 0; i < COUNT(values); i++)
		CHECK_EQ((intptr_t)join(spawn(plus_one, (void *)values[i])), values[i] + 1);
}

static void one_after_another(void)
{
	for (int i = 0; i < scale(2000, 20000); i++)
		CHECK_EQ((intptr_t)join(spawn(plus_one, (void *)(intptr_t)i)), i + 1);
}

static void many_at_once(void)
{
	enum { N = 500 };
	pthread_t t[N];

	for (int round = 0; round < 4; round++) {
		for (int i = 0; i < N; i++)
			t[i] = spawn(plus_one, (void *)(intptr_t)i);
		for (int i = 0; i < N; i++)
			CHECK_EQ((intptr_t)join(t[round & 1 ? i : N - 1 - i]),
				 (round & 1 ? i : N - 1 - i) + 1);
	}
}

/* A tree: each thread makes two and adds up what they return. */
static void *tree(void *arg)
{
	intptr_t depth = (intptr_t)arg;

	if (depth == 0)
		return (void *)1;
	pthread_t left = spawn(tree, (void *)(depth - 1));
	pthread_t right = spawn(tree, (void *)(depth - 1));
	return (void *)((intptr_t)join(left) + (intptr_t)join(right));
}

static void created_by_threads(void)
{
	int depth = scale(7, 12);

	CHECK_EQ((intptr_t)join(spawn(tree, (void *)(intptr_t)depth)), 1 << depth);
}

static void *creator(void *arg)
{
	intptr_t sum = 0;

	for (int i = 0; i < 200; i++)
		sum += (intptr_t)join(spawn(plus_one, (void *)(intptr_t)i));
	(void)arg;
	return (void *)sum;
}

static void several_creators(void)
{
	pthread_t t[8];

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(creator, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		CHECK_EQ((intptr_t)join(t[i]), 200 * 201 / 2);
}

static void *store_late(void *arg)
{
	sleep_ms(30);
	__atomic_store_n((int *)arg, 1, __ATOMIC_RELAXED);
	return arg;
}

static void join_waits_for_the_end(void)
{
	int done = 0;

	CHECK(join(spawn(store_late, &done)) == &done);
	CHECK_EQ(done, 1);
}

static void *join_other(void *arg)
{
	return join(*(pthread_t *)arg);
}

static void joined_by_another(void)
{
	int done = 0;
	pthread_t a = spawn(store_late, &done);
	pthread_t b = spawn(join_other, &a);

	CHECK(join(b) == &done);
}

static void null_result_pointer(void)
{
	pthread_t t = spawn(plus_one, NULL);

	CHECK_EQ(pthread_join(t, NULL), 0);
}

static void *wait_mutex(void *arg)
{
	pthread_mutex_lock(arg);
	pthread_mutex_unlock(arg);
	return (void *)7;
}

static void join_of_self_is_a_deadlock(void)
{
	CHECK_EQ(pthread_join(pthread_self(), NULL), EDEADLK);
}

static void tryjoin(void)
{
	pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
	void *ret = NULL;

	pthread_mutex_lock(&gate);
	pthread_t t = spawn(wait_mutex, &gate);
	CHECK_EQ(pthread_tryjoin_np(t, &ret), EBUSY);
	pthread_mutex_unlock(&gate);
	int rc;
	while ((rc = pthread_tryjoin_np(t, &ret)) == EBUSY)
		sched_yield();
	CHECK_EQ(rc, 0);
	CHECK_EQ((intptr_t)ret, 7);
}

static void timedjoin(void)
{
	static const struct {
		clockid_t clock;
		long ms;
		int want;
	} table[] = {
	    {CLOCK_REALTIME, -1000, ETIMEDOUT},     {CLOCK_REALTIME, 30, ETIMEDOUT},
	    {CLOCK_MONOTONIC, -1000, ETIMEDOUT},    {CLOCK_MONOTONIC, 30, ETIMEDOUT},
	    {CLOCK_PROCESS_CPUTIME_ID, 30, EINVAL},
	};
	pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

	pthread_mutex_lock(&gate);
	pthread_t t = spawn(wait_mutex, &gate);
	for (unsigned i = 0; i < COUNT(table); i++) {
		struct timespec ts = after_ms(table[i].clock, table[i].ms);
		int64_t start = now_ns();
		CHECK_EQ(pthread_clockjoin_np(t, NULL, table[i].clock, &ts), table[i].want);
		if (table[i].want == ETIMEDOUT && table[i].ms > 0)
			CHECK(now_ns() - start >= (table[i].ms - 1) * 1000000);
	}
	struct timespec ts = after_ms(CLOCK_REALTIME, 20);
	CHECK_EQ(pthread_timedjoin_np(t, NULL, &ts), ETIMEDOUT);
	pthread_mutex_unlock(&gate);
	void *ret = NULL;
	ts = after_ms(CLOCK_REALTIME, 20000);
	CHECK_EQ(pthread_timedjoin_np(t, &ret, &ts), 0);
	CHECK_EQ((intptr_t)ret, 7);
}

static void *count_and_wait(void *arg)
{
	struct {
		pthread_mutex_t m;
		pthread_cond_t c;
		int here, go;
	} *s = arg;

	pthread_mutex_lock(&s->m);
	s->here++;
	pthread_cond_broadcast(&s->c);
	while (!s->go)
		pthread_cond_wait(&s->c, &s->m);
	pthread_mutex_unlock(&s->m);
	return NULL;
}

static void are_goroutines(void)
{
	enum { N = 200 };
	struct {
		pthread_mutex_t m;
		pthread_cond_t c;
		int here, go;
	} s = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};
	pthread_t t[N];

	for (int i = 0; i < N; i++)
		t[i] = spawn(count_and_wait, &s);
	pthread_mutex_lock(&s.m);
	while (s.here < N)
		pthread_cond_wait(&s.c, &s.m);
	pthread_mutex_unlock(&s.m);
	check_goroutines(N);
	pthread_mutex_lock(&s.m);
	s.go = 1;
	pthread_cond_broadcast(&s.c);
	pthread_mutex_unlock(&s.m);
	for (int i = 0; i < N; i++)
		join(t[i]);
}

static const struct test_case cases[] = {
    {"value_in_and_out", value_in_and_out},
    {"one_after_another", one_after_another},
    {"many_at_once", many_at_once},
    {"created_by_threads", created_by_threads},
    {"several_creators", several_creators},
    {"join_waits_for_the_end", join_waits_for_the_end},
    {"joined_by_another", joined_by_another},
    {"null_result_pointer", null_result_pointer},
    {"join_of_self_is_a_deadlock", join_of_self_is_a_deadlock},
    {"tryjoin", tryjoin},
    {"timedjoin", timedjoin},
    {"are_goroutines", are_goroutines},
};

TEST_MAIN(cases)
