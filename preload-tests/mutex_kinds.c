/*
 * The four kinds of mutex and every way to make one: what each answers to being locked again,
 * unlocked by the wrong thread, tried, destroyed. The static initialisers differ in one field only,
 * and must be told apart by it.
 */
#include "test.h"

enum how { STATIC, INIT, INIT_NULL };

struct kind {
	const char *name;
	int type;
	enum how how;
	pthread_mutex_t initial;
	int relock; /* lock while the caller owns it; -1: not tried, it would hang */
	int tryrelock;
	int unlock_other; /* unlock by a thread that does not own it; -1: undefined, not tried */
	int unlock_free;  /* unlock when nobody owns it; -1: undefined, not tried */
};

static const struct kind kinds[] = {
    {"static normal", PTHREAD_MUTEX_NORMAL, STATIC, PTHREAD_MUTEX_INITIALIZER, -1, EBUSY, -1, -1},
    {"static recursive", PTHREAD_MUTEX_RECURSIVE, STATIC, PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP, 0,
     0, EPERM, EPERM},
    {"static errorcheck", PTHREAD_MUTEX_ERRORCHECK, STATIC, PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP,
     EDEADLK, EBUSY, EPERM, EPERM},
    {"static adaptive", PTHREAD_MUTEX_ADAPTIVE_NP, STATIC, PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP,
     -1, EBUSY, -1, -1},
    {"init normal", PTHREAD_MUTEX_NORMAL, INIT, PTHREAD_MUTEX_INITIALIZER, -1, EBUSY, -1, -1},
    {"init recursive", PTHREAD_MUTEX_RECURSIVE, INIT, PTHREAD_MUTEX_INITIALIZER, 0, 0, EPERM,
     EPERM},
    {"init errorcheck", PTHREAD_MUTEX_ERRORCHECK, INIT, PTHREAD_MUTEX_INITIALIZER, EDEADLK, EBUSY,
     EPERM, EPERM},
    {"init adaptive", PTHREAD_MUTEX_ADAPTIVE_NP, INIT, PTHREAD_MUTEX_INITIALIZER, -1, EBUSY, -1,
     -1},
    {"init default", PTHREAD_MUTEX_DEFAULT, INIT_NULL, PTHREAD_MUTEX_INITIALIZER, -1, EBUSY, -1,
     -1},
};

static void make(const struct kind *k, pthread_mutex_t *m)
{
	pthread_mutexattr_t attr;
	int type = -1;

	switch (k->how) {
	case STATIC: *m = k->initial; break;
	case INIT_NULL:
		memset(m, 0x5a, sizeof *m);
		CHECK_EQ(pthread_mutex_init(m, NULL), 0);
		break;
	case INIT:
		memset(m, 0x5a, sizeof *m);
		CHECK_EQ(pthread_mutexattr_init(&attr), 0);
		CHECK_EQ(pthread_mutexattr_settype(&attr, k->type), 0);
		CHECK_EQ(pthread_mutexattr_gettype(&attr, &type), 0);
		CHECK_EQ(type, k->type);
		CHECK_EQ(pthread_mutex_init(m, &attr), 0);
		CHECK_EQ(pthread_mutexattr_destroy(&attr), 0);
		break;
	}
}

struct op {
	pthread_mutex_t *m;
	int (*fn)(pthread_mutex_t *);
};

static void *do_op(void *arg)
{
	struct op *op = arg;

	return (void *)(intptr_t)op->fn(op->m);
}

static int by_other(int (*fn)(pthread_mutex_t *), pthread_mutex_t *m)
{
	struct op op = {m, fn};

	return (int)(intptr_t)join(spawn(do_op, &op));
}

static int try_and_unlock(pthread_mutex_t *m)
{
	int rc = pthread_mutex_trylock(m);

	if (rc == 0)
		rc = pthread_mutex_unlock(m);
	return rc;
}

static int timed(pthread_mutex_t *m)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, 5);

	return pthread_mutex_timedlock(m, &ts);
}

static void check(const struct kind *k, const char *what, int got, int want)
{
	if (got != want)
		FAIL("%s: %s returns %d, not %d", k->name, what, got, want);
}

static void each_kind(void)
{
	for (unsigned i = 0; i < COUNT(kinds); i++) {
		const struct kind *k = &kinds[i];
		pthread_mutex_t m;

		make(k, &m);
		check(k, "lock", pthread_mutex_lock(&m), 0);
		check(k, "destroy while locked", pthread_mutex_destroy(&m), EBUSY);
		check(k, "trylock by another", by_other(pthread_mutex_trylock, &m), EBUSY);
		check(k, "timedlock by another", by_other(timed, &m), ETIMEDOUT);
		if (k->relock >= 0)
			check(k, "lock again", pthread_mutex_lock(&m), k->relock);
		if (k->relock > 0)
			check(k, "timedlock again", timed(&m), k->relock);
		check(k, "trylock again", pthread_mutex_trylock(&m), k->tryrelock);
		if (k->unlock_other >= 0)
			check(k, "unlock by another", by_other(pthread_mutex_unlock, &m),
			      k->unlock_other);
		if (k->relock == 0) {
			check(k, "unlock of three", pthread_mutex_unlock(&m), 0);
			check(k, "trylock by another", by_other(pthread_mutex_trylock, &m), EBUSY);
			check(k, "unlock of two", pthread_mutex_unlock(&m), 0);
			check(k, "trylock by another", by_other(pthread_mutex_trylock, &m), EBUSY);
		}
		check(k, "unlock", pthread_mutex_unlock(&m), 0);
		if (k->unlock_free >= 0)
			check(k, "unlock when free", pthread_mutex_unlock(&m), k->unlock_free);
		check(k, "trylock by another when free", by_other(try_and_unlock, &m), 0);
		check(k, "timedlock when free", timed(&m), 0);
		check(k, "unlock", pthread_mutex_unlock(&m), 0);
		check(k, "destroy", pthread_mutex_destroy(&m), 0);
	}
}

struct shared {
	pthread_mutex_t m;
	long count;
	int recursive;
};

static void *add(void *arg)
{
	struct shared *s = arg;

	for (int i = 0; i < 5000; i++) {
		int depth = s->recursive ? 1 + i % 3 : 1;
		for (int d = 0; d < depth; d++)
			if (i % 7 == 0 && d == 0) {
				while (pthread_mutex_trylock(&s->m) != 0)
					sched_yield();
			} else {
				pthread_mutex_lock(&s->m);
			}
		long c = s->count;
		if (i % 64 == 0)
			sched_yield();
		s->count = c + 1;
		for (int d = 0; d < depth; d++)
			pthread_mutex_unlock(&s->m);
	}
	return NULL;
}

static void each_kind_excludes(void)
{
	for (unsigned i = 0; i < COUNT(kinds); i++) {
		struct shared s = {.count = 0, .recursive = kinds[i].relock == 0};
		pthread_t t[8];

		make(&kinds[i], &s.m);
		for (unsigned k = 0; k < COUNT(t); k++)
			t[k] = spawn(add, &s);
		for (unsigned k = 0; k < COUNT(t); k++)
			join(t[k]);
		if (s.count != 5000 * (long)COUNT(t))
			FAIL("%s: counted %ld, not %ld", kinds[i].name, s.count,
			     5000 * (long)COUNT(t));
		CHECK_EQ(pthread_mutex_destroy(&s.m), 0);
	}
}

static void relock_of_normal_deadlocks(void)
{
	pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
	struct timespec ts = after_ms(CLOCK_REALTIME, 30);

	CHECK_EQ(pthread_mutex_lock(&m), 0);
	CHECK_EQ(pthread_mutex_timedlock(&m, &ts), ETIMEDOUT);
	CHECK_EQ(pthread_mutex_unlock(&m), 0);
}

static void bad_attributes(void)
{
	pthread_mutexattr_t attr;
	int v = -1;

	pthread_mutexattr_init(&attr);
	CHECK_EQ(pthread_mutexattr_settype(&attr, 99), EINVAL);
	CHECK_EQ(pthread_mutexattr_setpshared(&attr, 99), EINVAL);
	CHECK_EQ(pthread_mutexattr_setprotocol(&attr, 99), EINVAL);
	CHECK_EQ(pthread_mutexattr_setrobust(&attr, 99), EINVAL);
	CHECK_EQ(pthread_mutexattr_getpshared(&attr, &v), 0);
	CHECK_EQ(v, PTHREAD_PROCESS_PRIVATE);
	CHECK_EQ(pthread_mutexattr_getprotocol(&attr, &v), 0);
	CHECK_EQ(v, PTHREAD_PRIO_NONE);
	CHECK_EQ(pthread_mutexattr_getrobust(&attr, &v), 0);
	CHECK_EQ(v, PTHREAD_MUTEX_STALLED);
	pthread_mutexattr_destroy(&attr);
}

/* Locked before the first thread exists, contended after: the state must be the same protocol
 * all along. */
static void locked_before_the_first_thread(void)
{
	for (unsigned i = 0; i < COUNT(kinds); i++) {
		pthread_mutex_t m;

		make(&kinds[i], &m);
		pthread_mutex_lock(&m);
		CHECK_EQ(by_other(pthread_mutex_trylock, &m), EBUSY);
		CHECK_EQ(by_other(timed, &m), ETIMEDOUT);
		pthread_mutex_unlock(&m);
		CHECK_EQ(by_other(try_and_unlock, &m), 0);
	}
}

static const struct test_case cases[] = {
    {"locked_before_the_first_thread", locked_before_the_first_thread},
    {"each_kind", each_kind},
    {"each_kind_excludes", each_kind_excludes},
    {"relock_of_normal_deadlocks", relock_of_normal_deadlocks},
    {"bad_attributes", bad_attributes},
};

TEST_MAIN(cases)
