/*
 * What every function of a condition variable answers: with each kind of mutex and each way to wait,
 * woken, timed out, cancelled, without owning the mutex, with an owner that died; who is woken by a
 * signal and who is not; and what attributes refuse.
 */
#include "test.h"

#include <sys/mman.h>

enum { NORMAL = PTHREAD_MUTEX_NORMAL, RECURSIVE, ERRORCHECK, ADAPTIVE };

static const struct kind {
	const char *name;
	int type, robust, protocol, shared;
} kinds[] = {
    {"normal", NORMAL, 0, 0, 0},
    {"recursive", RECURSIVE, 0, 0, 0},
    {"errorcheck", ERRORCHECK, 0, 0, 0},
    {"adaptive", ADAPTIVE, 0, 0, 0},
    {"robust", NORMAL, 1, 0, 0},
    {"robust errorcheck", ERRORCHECK, 1, 0, 0},
    {"inherit", NORMAL, 0, PTHREAD_PRIO_INHERIT, 0},
    {"robust inherit", NORMAL, 1, PTHREAD_PRIO_INHERIT, 0},
    {"shared", NORMAL, 0, 0, 1},
    {"shared recursive", RECURSIVE, 0, 0, 1},
    {"shared robust", NORMAL, 1, 0, 1},
};

/* In memory that processes share. */
static struct {
	pthread_mutex_t m;
	pthread_cond_t c;
	int waiting, go;
} * s;
static const struct kind *kind;

static void make_cond(pthread_cond_t *c, int shared, clockid_t clock)
{
	pthread_condattr_t a;
	clockid_t got = -1;
	int v = -1;

	memset(&a, 0x5a, sizeof a);
	CHECK_EQ(pthread_condattr_init(&a), 0);
	CHECK_EQ(pthread_condattr_setpshared(&a, shared), 0);
	CHECK_EQ(pthread_condattr_getpshared(&a, &v), 0);
	CHECK_EQ(v, shared);
	CHECK_EQ(pthread_condattr_setclock(&a, clock), 0);
	CHECK_EQ(pthread_condattr_getclock(&a, &got), 0);
	CHECK_EQ(got, clock);
	memset(c, 0x5a, sizeof *c);
	CHECK_EQ(pthread_cond_init(c, &a), 0);
	CHECK_EQ(pthread_condattr_destroy(&a), 0);
}

static void make(const struct kind *k, int cond_shared, clockid_t clock)
{
	pthread_mutexattr_t a;

	kind = k;
	s->waiting = s->go = 0;
	pthread_mutexattr_init(&a);
	REQUIRE_OK(pthread_mutexattr_settype(&a, k->type));
	REQUIRE_OK(pthread_mutexattr_setrobust(&a, k->robust));
	REQUIRE_OK(pthread_mutexattr_setprotocol(&a, k->protocol));
	REQUIRE_OK(pthread_mutexattr_setpshared(&a, k->shared));
	memset(&s->m, 0x5a, sizeof s->m);
	REQUIRE_OK(pthread_mutex_init(&s->m, &a));
	pthread_mutexattr_destroy(&a);
	make_cond(&s->c, cond_shared, clock);
}

static void unmake(void)
{
	CHECK_EQ(pthread_cond_destroy(&s->c), 0);
	CHECK_EQ(pthread_mutex_destroy(&s->m), 0);
}

/* --- the ways to wait -------------------------------------------------------------------------- */

static clockid_t cond_clock;

/* A point in time, on both clocks: waits end early for no reason, and go on until the same. */
struct until {
	struct timespec realtime, monotonic;
};

static struct until in_ms(long ms)
{
	return (struct until){after_ms(CLOCK_REALTIME, ms), after_ms(CLOCK_MONOTONIC, ms)};
}

static int wait_plain(const struct until *u)
{
	(void)u;
	return pthread_cond_wait(&s->c, &s->m);
}

static int wait_timed(const struct until *u)
{
	return pthread_cond_timedwait(&s->c, &s->m,
				      cond_clock == CLOCK_MONOTONIC ? &u->monotonic : &u->realtime);
}

static int wait_realtime(const struct until *u)
{
	return pthread_cond_clockwait(&s->c, &s->m, CLOCK_REALTIME, &u->realtime);
}

static int wait_monotonic(const struct until *u)
{
	return pthread_cond_clockwait(&s->c, &s->m, CLOCK_MONOTONIC, &u->monotonic);
}

static int (*const ways[])(const struct until *u) = {wait_plain, wait_timed, wait_realtime,
						     wait_monotonic};

#define EXPECT(call, want)                                                                 \
	do {                                                                               \
		int got_ = call;                                                           \
		if (got_ != (want))                                                        \
			FAIL("%s, way %d: %s is %d, not %d", kind->name, way, #call, got_, \
			     (want));                                                      \
	} while (0)

static int way;
static struct until late;

static void *call_trylock(void *arg)
{
	int r = pthread_mutex_trylock(&s->m);

	(void)arg;
	if (r == 0)
		pthread_mutex_unlock(&s->m);
	return (void *)(intptr_t)r;
}

static void held_by_me(void)
{
	EXPECT((int)(intptr_t)join(spawn(call_trylock, NULL)), EBUSY);
}

static void *until_go(void *arg)
{
	EXPECT(pthread_mutex_lock(&s->m), 0);
	s->waiting++;
	while (!s->go)
		EXPECT(ways[way](&late), 0);
	held_by_me();
	EXPECT(pthread_mutex_unlock(&s->m), 0);
	return arg;
}

static void one_wait(void)
{
	for (;; sched_yield()) {
		EXPECT(pthread_mutex_lock(&s->m), 0);
		if (s->waiting)
			return; /* with the mutex */
		EXPECT(pthread_mutex_unlock(&s->m), 0);
	}
}

static void each_way(void)
{
	for (way = 0; way < (int)COUNT(ways); way++) {
		s->go = s->waiting = 0;
		pthread_t t = spawn(until_go, NULL);
		one_wait();
		s->go = 1;
		EXPECT(way & 1 ? pthread_cond_signal(&s->c) : pthread_cond_broadcast(&s->c), 0);
		EXPECT(pthread_mutex_unlock(&s->m), 0);
		join(t);
		if (way == 0)
			continue;
		/* Timed out, and the mutex held again; a time that can't be changes nothing. */
		EXPECT(pthread_mutex_lock(&s->m), 0);
		struct until soon = in_ms(3), past = in_ms(-5000);
		int r;
		while ((r = ways[way](&soon)) == 0)
			;
		EXPECT(r, ETIMEDOUT);
		held_by_me();
		while ((r = ways[way](&past)) == 0)
			;
		EXPECT(r, ETIMEDOUT);
		held_by_me();
		struct timespec bad = {time(NULL) + 1, 1000000000};
		EXPECT(pthread_cond_timedwait(&s->c, &s->m, &bad), EINVAL);
		EXPECT(pthread_cond_clockwait(&s->c, &s->m, CLOCK_MONOTONIC, &bad), EINVAL);
		bad.tv_nsec = -1;
		EXPECT(pthread_cond_timedwait(&s->c, &s->m, &bad), EINVAL);
		EXPECT(pthread_cond_clockwait(&s->c, &s->m, CLOCK_REALTIME, &bad), EINVAL);
		bad.tv_nsec = 0;
		EXPECT(pthread_cond_clockwait(&s->c, &s->m, CLOCK_PROCESS_CPUTIME_ID, &bad),
		       EINVAL);
		EXPECT(pthread_cond_clockwait(&s->c, &s->m, CLOCK_BOOTTIME, &bad), EINVAL);
		held_by_me();
		EXPECT(pthread_mutex_unlock(&s->m), 0);
	}
}

static void each_mutex(int cond_shared)
{
	for (unsigned i = 0; i < COUNT(kinds) * 2; i++) {
		cond_clock = i & 1 ? CLOCK_MONOTONIC : CLOCK_REALTIME;
		make(&kinds[i / 2], cond_shared, cond_clock);
		each_way();
		unmake();
	}
}

static void every_mutex(void)
{
	each_mutex(PTHREAD_PROCESS_PRIVATE);
}

static void every_mutex_cond_shared(void)
{
	each_mutex(PTHREAD_PROCESS_SHARED);
}

/* --- mutexes that are not the caller's --------------------------------------------------------- */

static void not_the_owner(void)
{
	for (unsigned i = 0; i < COUNT(kinds) * 2; i++) {
		const struct kind *k = &kinds[i / 2];

		if (k->type != RECURSIVE && k->type != ERRORCHECK && !k->robust)
			continue;
		cond_clock = CLOCK_REALTIME;
		make(k, i & 1, cond_clock);
		for (way = 0; way < (int)COUNT(ways); way++)
			EXPECT(ways[way](&late), EPERM);
		/* Nobody waits: this ends. */
		unmake();
	}
}

static void *lock_and_end(void *signals)
{
	EXPECT(pthread_mutex_lock(&s->m), 0);
	s->go = 1;
	if (signals)
		EXPECT(pthread_cond_signal(&s->c), 0);
	return NULL;
}

static void *wait_for_the_dead(void *arg)
{
	int r;

	EXPECT(pthread_mutex_lock(&s->m), 0);
	s->waiting++;
	do
		r = ways[way](&late);
	while (r == 0 && !s->go);
	EXPECT(r, EOWNERDEAD);
	held_by_me();
	EXPECT(pthread_mutex_consistent(&s->m), 0);
	EXPECT(pthread_mutex_unlock(&s->m), 0);
	return arg;
}

/* Who signalled died with the mutex: the wait ends as locking it would. */
static void owner_died(void)
{
	for (unsigned i = 0; i < COUNT(kinds); i++) {
		if (!kinds[i].robust)
			continue;
		for (way = 0; way < (int)COUNT(ways); way++) {
			cond_clock = CLOCK_MONOTONIC;
			make(&kinds[i], kinds[i].shared, cond_clock);
			pthread_t t = spawn(wait_for_the_dead, NULL);
			one_wait();
			EXPECT(pthread_mutex_unlock(&s->m), 0);
			join(spawn(lock_and_end, s));
			join(t);
			unmake();
		}
	}
}

static void *wait_for_the_useless(void *arg)
{
	int r;

	EXPECT(pthread_mutex_lock(&s->m), 0);
	s->waiting++;
	do
		r = ways[way](&late);
	while (r == 0 && !s->go);
	EXPECT(r, ENOTRECOVERABLE);
	return arg;
}

static void given_up_meanwhile(void)
{
	for (unsigned i = 0; i < COUNT(kinds); i++) {
		if (!kinds[i].robust)
			continue;
		for (way = 0; way < (int)COUNT(ways); way++) {
			cond_clock = CLOCK_REALTIME;
			make(&kinds[i], kinds[i].shared, cond_clock);
			pthread_t t = spawn(wait_for_the_useless, NULL);
			one_wait();
			EXPECT(pthread_mutex_unlock(&s->m), 0);
			join(spawn(lock_and_end, NULL));
			EXPECT(pthread_mutex_lock(&s->m), EOWNERDEAD);
			EXPECT(pthread_mutex_unlock(&s->m), 0);
			EXPECT(pthread_cond_signal(&s->c), 0);
			join(t);
			unmake();
		}
	}
}

/* --- cancellation ------------------------------------------------------------------------------ */

static int handlers;

static void must_hold(void *arg)
{
	(void)arg;
	handlers++;
	held_by_me();
	EXPECT(pthread_mutex_unlock(&s->m), 0);
}

static void *wait_cancelled(void *arg)
{
	EXPECT(pthread_mutex_lock(&s->m), 0);
	pthread_cleanup_push(must_hold, NULL);
	s->waiting++;
	for (;;)
		EXPECT(ways[way](&late), 0);
	pthread_cleanup_pop(0);
	return arg;
}

static void cancelled_with(int cond_shared)
{
	for (unsigned i = 0; i < COUNT(kinds); i++)
		for (way = 0; way < (int)COUNT(ways); way++) {
			cond_clock = CLOCK_REALTIME;
			make(&kinds[i], cond_shared, cond_clock);
			handlers = 0;
			pthread_t t = spawn(wait_cancelled, NULL);
			one_wait();
			/* With the mutex in our hands, so that it has to wait for it; and without. */
			if (way & 1)
				EXPECT(pthread_cancel(t), 0);
			EXPECT(pthread_mutex_unlock(&s->m), 0);
			if (!(way & 1))
				EXPECT(pthread_cancel(t), 0);
			CHECK(join(t) == PTHREAD_CANCELED);
			EXPECT(handlers, 1);
			EXPECT(pthread_mutex_trylock(&s->m), 0);
			EXPECT(pthread_mutex_unlock(&s->m), 0);
			unmake();
		}
}

static void cancelled(void)
{
	cancelled_with(PTHREAD_PROCESS_PRIVATE);
}

static void cancelled_cond_shared(void)
{
	cancelled_with(PTHREAD_PROCESS_SHARED);
}

/* --- whom a signal wakes ----------------------------------------------------------------------- */

static int woken;

static void *wait_once(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&s->m);
	s->waiting++;
	int r = pthread_cond_wait(&s->c, &s->m);
	EXPECT(r, 0);
	woken++;
	pthread_mutex_unlock(&s->m);
	return NULL;
}

/* A signal is for those who waited when it was given: who signals and then waits under the same mutex
 * takes none of its own. (A wait may end for no reason: those are asked again.) */
static void later_waiters_take_none(int shared)
{
	way = 0;
	for (int round = 0; round < 50; round++) {
		pthread_t t[3];

		make(&kinds[shared ? 8 : 0], shared, CLOCK_REALTIME);
		woken = 0;
		for (unsigned i = 0; i < COUNT(t); i++)
			t[i] = spawn(wait_once, NULL);
		for (;; sched_yield()) {
			pthread_mutex_lock(&s->m);
			if (s->waiting == (int)COUNT(t))
				break;
			pthread_mutex_unlock(&s->m);
		}
		/* One of three now, in any case; then the rest. */
		EXPECT(pthread_cond_signal(&s->c), 0);
		struct timespec soon = after_ms(CLOCK_REALTIME, 2);
		while (pthread_cond_timedwait(&s->c, &s->m, &soon) == 0)
			;
		if (woken == 0) {
			pthread_mutex_unlock(&s->m);
			CHECK(wait_for(&woken, 1, 20000));
			pthread_mutex_lock(&s->m);
		}
		EXPECT(pthread_cond_broadcast(&s->c), 0);
		soon = after_ms(CLOCK_REALTIME, 1);
		while (pthread_cond_timedwait(&s->c, &s->m, &soon) == 0)
			;
		pthread_mutex_unlock(&s->m);
		for (unsigned i = 0; i < COUNT(t); i++)
			join(t[i]);
		EXPECT(woken, 3);
		unmake();
	}
}

static void signals_and_later_waiters(void)
{
	later_waiters_take_none(0);
}

static void shared_signals_and_later_waiters(void)
{
	later_waiters_take_none(1);
}

/* As many signals as waiters wake all of them, given at once, with the mutex or without. */
static void signals_are_counted(void)
{
	way = 0;
	for (int round = 0; round < 60; round++) {
		pthread_t t[20];

		make(&kinds[round % 2 ? 8 : 0], round % 2, CLOCK_MONOTONIC);
		woken = 0;
		for (unsigned i = 0; i < COUNT(t); i++)
			t[i] = spawn(wait_once, NULL);
		for (;; sched_yield()) {
			pthread_mutex_lock(&s->m);
			if (s->waiting == (int)COUNT(t))
				break;
			pthread_mutex_unlock(&s->m);
		}
		if (round & 2)
			pthread_mutex_unlock(&s->m);
		for (unsigned i = 0; i < COUNT(t); i++)
			EXPECT(pthread_cond_signal(&s->c), 0);
		if (!(round & 2))
			pthread_mutex_unlock(&s->m);
		for (unsigned i = 0; i < COUNT(t); i++)
			join(t[i]);
		EXPECT(woken, (int)COUNT(t));
		unmake();
	}
}

/* --- the end of the object --------------------------------------------------------------------- */

static void release(void *m)
{
	pthread_mutex_unlock(m);
}

static void *wait_short(void *arg)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, (long)(intptr_t)arg);

	pthread_mutex_lock(&s->m);
	pthread_cleanup_push(release, &s->m);
	s->waiting++;
	while (!s->go && pthread_cond_timedwait(&s->c, &s->m, &ts) == 0)
		;
	pthread_cleanup_pop(1);
	return NULL;
}

/* Destroyed once all are told, though some time out or are cancelled at that very moment. */
static void destroyed_while_they_leave(int shared)
{
	way = 0;
	for (int round = 0; round < 100; round++) {
		pthread_t t[6];

		make(&kinds[shared ? 8 : 0], shared, CLOCK_REALTIME);
		for (unsigned i = 0; i < COUNT(t); i++)
			t[i] = spawn(wait_short, (void *)(intptr_t)(i < 3 ? 60000 : 1 + round % 3));
		for (;; sched_yield()) {
			pthread_mutex_lock(&s->m);
			if (s->waiting == (int)COUNT(t))
				break;
			pthread_mutex_unlock(&s->m);
		}
		s->go = 1;
		EXPECT(pthread_cond_broadcast(&s->c), 0);
		if (round & 1)
			pthread_cancel(t[0]);
		pthread_mutex_unlock(&s->m);
		EXPECT(pthread_cond_destroy(&s->c), 0);
		memset(&s->c, 0xff, sizeof s->c);
		for (unsigned i = 0; i < COUNT(t); i++)
			join(t[i]);
	}
}

static void destroyed_early(void)
{
	destroyed_while_they_leave(0);
}

static void destroyed_early_shared(void)
{
	destroyed_while_they_leave(1);
}

static void attributes(void)
{
	static const clockid_t bad_clocks[] = {-1,
					       CLOCK_PROCESS_CPUTIME_ID,
					       CLOCK_THREAD_CPUTIME_ID,
					       CLOCK_BOOTTIME,
					       CLOCK_MONOTONIC_RAW,
					       99};
	static const int bad[] = {-1, 2, 99};
	pthread_condattr_t a;
	clockid_t clock = -1;
	int v = -1;

	CHECK_EQ(pthread_condattr_init(&a), 0);
	CHECK_EQ(pthread_condattr_getclock(&a, &clock), 0);
	CHECK_EQ(clock, CLOCK_REALTIME);
	CHECK_EQ(pthread_condattr_getpshared(&a, &v), 0);
	CHECK_EQ(v, PTHREAD_PROCESS_PRIVATE);
	for (unsigned i = 0; i < COUNT(bad_clocks); i++)
		CHECK_EQ(pthread_condattr_setclock(&a, bad_clocks[i]), EINVAL);
	for (unsigned i = 0; i < COUNT(bad); i++)
		CHECK_EQ(pthread_condattr_setpshared(&a, bad[i]), EINVAL);
	CHECK_EQ(pthread_condattr_getclock(&a, &clock), 0);
	CHECK_EQ(clock, CLOCK_REALTIME);
	CHECK_EQ(pthread_condattr_destroy(&a), 0);
}

static const struct test_case cases[] = {
    {"every_mutex", every_mutex},
    {"every_mutex_cond_shared", every_mutex_cond_shared},
    {"not_the_owner", not_the_owner},
    {"owner_died", owner_died},
    {"given_up_meanwhile", given_up_meanwhile},
    {"cancelled", cancelled},
    {"cancelled_cond_shared", cancelled_cond_shared},
    {"signals_and_later_waiters", signals_and_later_waiters},
    {"shared_signals_and_later_waiters", shared_signals_and_later_waiters},
    {"signals_are_counted", signals_are_counted},
    {"destroyed_early", destroyed_early},
    {"destroyed_early_shared", destroyed_early_shared},
    {"attributes", attributes},
};

int main(int argc, char **argv)
{
	s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(s != MAP_FAILED);
	late = in_ms(600000);
	return test_run(argc, argv, cases, COUNT(cases));
}
