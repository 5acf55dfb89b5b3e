/*
 * What every function of a read-write lock answers, for every kind of preference, shared and not: held
 * for reading, for writing, with a writer waiting; asked again by its holder; timed on both clocks,
 * with bad times; destroyed; and what attributes refuse.
 */
#include "test.h"

static const struct kind {
	const char *name;
	int kind; /* -1: as the attribute has it at first */
	int writers_first;
} kinds[] = {
    {"default", -1, 0},
    {"readers", PTHREAD_RWLOCK_PREFER_READER_NP, 0},
    {"writers, in name", PTHREAD_RWLOCK_PREFER_WRITER_NP, 0},
    {"writers", PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP, 1},
};

static pthread_rwlock_t l;
static const char *name;

#define ANSWER(call, want)                                                     \
	do {                                                                   \
		int got_ = call;                                               \
		if (got_ != (want))                                            \
			FAIL("%s: %s is %d, not %d", name, #call, got_, want); \
	} while (0)

static void make(const struct kind *k, int shared)
{
	pthread_rwlockattr_t a;
	int v = -1;

	name = k->name;
	memset(&a, 0x5a, sizeof a);
	ANSWER(pthread_rwlockattr_init(&a), 0);
	if (k->kind >= 0)
		ANSWER(pthread_rwlockattr_setkind_np(&a, k->kind), 0);
	ANSWER(pthread_rwlockattr_getkind_np(&a, &v), 0);
	CHECK_EQ(v, k->kind < 0 ? PTHREAD_RWLOCK_DEFAULT_NP : k->kind);
	ANSWER(pthread_rwlockattr_setpshared(&a, shared), 0);
	ANSWER(pthread_rwlockattr_getpshared(&a, &v), 0);
	CHECK_EQ(v, shared);
	memset(&l, 0x5a, sizeof l);
	ANSWER(pthread_rwlock_init(&l, &a), 0);
	ANSWER(pthread_rwlockattr_destroy(&a), 0);
}

/* --- every way to lock ------------------------------------------------------------------------- */

static int rd(void)
{
	return pthread_rwlock_rdlock(&l);
}

static int wr(void)
{
	return pthread_rwlock_wrlock(&l);
}

static int tryrd(void)
{
	return pthread_rwlock_tryrdlock(&l);
}

static int trywr(void)
{
	return pthread_rwlock_trywrlock(&l);
}

static int timed(int write, clockid_t clock, long ms)
{
	struct timespec ts = after_ms(clock == CLOCK_MONOTONIC ? clock : CLOCK_REALTIME, ms);

	return write ? pthread_rwlock_clockwrlock(&l, clock, &ts)
		     : pthread_rwlock_clockrdlock(&l, clock, &ts);
}

static int timedrd(void)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, 3);
	return pthread_rwlock_timedrdlock(&l, &ts);
}

static int timedwr(void)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, 3);
	return pthread_rwlock_timedwrlock(&l, &ts);
}

static int clockrd(void)
{
	return timed(0, CLOCK_MONOTONIC, 3);
}

static int clockwr(void)
{
	return timed(1, CLOCK_MONOTONIC, 3);
}

static int realrd(void)
{
	return timed(0, CLOCK_REALTIME, 3);
}

static int realwr(void)
{
	return timed(1, CLOCK_REALTIME, 3);
}

static int pastrd(void)
{
	return timed(0, CLOCK_MONOTONIC, -1000);
}

static int pastwr(void)
{
	return timed(1, CLOCK_REALTIME, -1000);
}

static const struct {
	const char *name;
	int (*lock)(void);
	int write, busy; /* what it answers when it would have to wait */
} ways[] = {
    {"tryrdlock", tryrd, 0, EBUSY},
    {"trywrlock", trywr, 1, EBUSY},
    {"timedrdlock", timedrd, 0, ETIMEDOUT},
    {"timedwrlock", timedwr, 1, ETIMEDOUT},
    {"clockrdlock", clockrd, 0, ETIMEDOUT},
    {"clockwrlock", clockwr, 1, ETIMEDOUT},
    {"clockrdlock, real time", realrd, 0, ETIMEDOUT},
    {"clockwrlock, real time", realwr, 1, ETIMEDOUT},
    {"clockrdlock in the past", pastrd, 0, ETIMEDOUT},
    {"clockwrlock in the past", pastwr, 1, ETIMEDOUT},
    {"rdlock", rd, 0, -1},
    {"wrlock", wr, 1, -1},
};

static void *lock_and_unlock(void *arg)
{
	int (*lock)(void) = (int (*)(void))arg;
	int r = lock();

	if (r == 0)
		ANSWER(pthread_rwlock_unlock(&l), 0);
	return (void *)(intptr_t)r;
}

enum held { FREE, READ, WRITTEN };

/* Each way to lock, by another thread or by the one that holds the lock; those that would wait for ever
 * are left out. */
static void each_way(enum held held, int writer_waits, int writers_first, int again)
{
	for (unsigned i = 0; i < COUNT(ways); i++) {
		int waits = held == WRITTEN || (held == READ && ways[i].write) ||
			    (writer_waits && writers_first);
		int want = !waits ? 0 : ways[i].busy;
		/* The writer itself is known to libc. */
		if (again && held == WRITTEN && want != EBUSY)
			want = EDEADLK;
		if (want < 0)
			continue;
		int got =
		    (int)(intptr_t)(again ? lock_and_unlock((void *)ways[i].lock)
					  : join(spawn(lock_and_unlock, (void *)ways[i].lock)));
		if (got != want)
			FAIL("%s, %s%s: %s%s is %d, not %d", name,
			     held == FREE   ? "free"
			     : held == READ ? "held for reading"
					    : "held for writing",
			     writer_waits ? ", a writer waits" : "", ways[i].name,
			     again ? " by the holder" : "", got, want);
	}
}

static void bad_times(void)
{
	static const long bad[] = {-1, 1000000000, 2000000000};

	for (unsigned i = 0; i < COUNT(bad); i++) {
		struct timespec ts = {time(NULL) + 1000, bad[i]};

		ANSWER(pthread_rwlock_timedrdlock(&l, &ts), EINVAL);
		ANSWER(pthread_rwlock_timedwrlock(&l, &ts), EINVAL);
		ANSWER(pthread_rwlock_clockrdlock(&l, CLOCK_MONOTONIC, &ts), EINVAL);
		ANSWER(pthread_rwlock_clockwrlock(&l, CLOCK_REALTIME, &ts), EINVAL);
	}
	ANSWER(timed(0, CLOCK_PROCESS_CPUTIME_ID, 3), EINVAL);
	ANSWER(timed(1, CLOCK_BOOTTIME, 3), EINVAL);
	ANSWER(timed(0, 99, 3), EINVAL);
}

static int waiting;

static void *write_once(void *arg)
{
	__atomic_store_n(&waiting, 1, __ATOMIC_RELEASE);
	ANSWER(wr(), 0);
	ANSWER(pthread_rwlock_unlock(&l), 0);
	return arg;
}

/* Whether a writer waits can be seen from outside for a lock that then keeps readers out. */
static pthread_t waiting_writer(int writers_first)
{
	waiting = 0;
	pthread_t t = spawn(write_once, NULL);
	CHECK(wait_for(&waiting, 1, 20000));
	for (int i = 0; writers_first ? tryrd() == 0 : i < 10; i++) {
		if (writers_first)
			ANSWER(pthread_rwlock_unlock(&l), 0);
		sleep_ms(1);
	}
	return t;
}

static void every_way(const struct kind *k, int shared)
{
	make(k, shared);
	each_way(FREE, 0, k->writers_first, 0);
	each_way(FREE, 0, k->writers_first, 1);
	bad_times();

	ANSWER(rd(), 0);
	each_way(READ, 0, k->writers_first, 0);
	each_way(READ, 0, k->writers_first, 1);
	bad_times();
	pthread_t t = waiting_writer(k->writers_first);
	each_way(READ, 1, k->writers_first, 0);
	each_way(READ, 1, k->writers_first, 1);
	ANSWER(pthread_rwlock_unlock(&l), 0);
	join(t);

	ANSWER(wr(), 0);
	each_way(WRITTEN, 0, k->writers_first, 0);
	each_way(WRITTEN, 0, k->writers_first, 1);
	bad_times();
	t = waiting_writer(k->writers_first);
	each_way(WRITTEN, 1, k->writers_first, 0);
	each_way(WRITTEN, 1, k->writers_first, 1);
	ANSWER(pthread_rwlock_unlock(&l), 0);
	join(t);
	each_way(FREE, 0, k->writers_first, 0);
	ANSWER(pthread_rwlock_destroy(&l), 0);
}

static void *private_locks(void *arg)
{
	for (unsigned i = 0; i < COUNT(kinds); i++)
		every_way(&kinds[i], PTHREAD_PROCESS_PRIVATE);
	return arg;
}

static void *shared_locks(void *arg)
{
	for (unsigned i = 0; i < COUNT(kinds); i++)
		every_way(&kinds[i], PTHREAD_PROCESS_SHARED);
	return arg;
}

static void by_main(void)
{
	private_locks(NULL);
	shared_locks(NULL);
}

static void by_a_thread(void)
{
	join(spawn(private_locks, NULL));
	join(spawn(shared_locks, NULL));
}

/* As each static initialiser has it. */
static void initialisers(void)
{
	static const pthread_rwlock_t readers = PTHREAD_RWLOCK_INITIALIZER,
				      writers = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;

	name = "initialiser";
	for (int i = 0; i < 2; i++) {
		l = i ? writers : readers;
		ANSWER(rd(), 0);
		ANSWER(rd(), 0);
		pthread_t t = waiting_writer(i);
		each_way(READ, 1, i, 0);
		each_way(READ, 1, i, 1);
		ANSWER(pthread_rwlock_unlock(&l), 0);
		ANSWER(pthread_rwlock_unlock(&l), 0);
		join(t);
		ANSWER(pthread_rwlock_destroy(&l), 0);
	}
}

/* A writer that gave up keeps no reader out, nor a reader a writer. */
static void *give_up(void *arg)
{
	struct timespec ts = after_ms(CLOCK_MONOTONIC, 20);

	__atomic_store_n(&waiting, 1, __ATOMIC_RELEASE);
	ANSWER(pthread_rwlock_clockwrlock(&l, CLOCK_MONOTONIC, &ts), ETIMEDOUT);
	return arg;
}

static void *read_once(void *arg)
{
	ANSWER(rd(), 0);
	ANSWER(pthread_rwlock_unlock(&l), 0);
	return arg;
}

static void writers_that_give_up(void)
{
	for (unsigned i = 0; i < COUNT(kinds) * 2; i++) {
		make(&kinds[i / 2], i & 1);
		ANSWER(rd(), 0);
		waiting = 0;
		pthread_t w = spawn(give_up, NULL);
		CHECK(wait_for(&waiting, 1, 20000));
		sleep_ms(2);
		/* Enters at once, or when the writer has gone. */
		pthread_t r = spawn(read_once, NULL);
		join(w);
		join(r);
		ANSWER(pthread_rwlock_unlock(&l), 0);
		ANSWER(trywr(), 0);
		ANSWER(pthread_rwlock_unlock(&l), 0);
		ANSWER(pthread_rwlock_destroy(&l), 0);
	}
}

/* Nobody knows the readers. */
static void *unlock_it(void *arg)
{
	ANSWER(pthread_rwlock_unlock(&l), 0);
	return arg;
}

static void read_locks_unlocked_by_another(void)
{
	for (unsigned i = 0; i < COUNT(kinds) * 2; i++) {
		make(&kinds[i / 2], i & 1);
		ANSWER(rd(), 0);
		ANSWER(rd(), 0);
		join(spawn(unlock_it, NULL));
		ANSWER(trywr(), EBUSY);
		join(spawn(unlock_it, NULL));
		ANSWER(trywr(), 0);
		ANSWER(pthread_rwlock_unlock(&l), 0);
		ANSWER(pthread_rwlock_destroy(&l), 0);
	}
}

static void attributes(void)
{
	static const int bad[] = {-1, 3, 99};
	pthread_rwlockattr_t a;
	int v = -1;

	CHECK_EQ(pthread_rwlockattr_init(&a), 0);
	CHECK_EQ(pthread_rwlockattr_getkind_np(&a, &v), 0);
	CHECK_EQ(v, PTHREAD_RWLOCK_DEFAULT_NP);
	CHECK_EQ(pthread_rwlockattr_getpshared(&a, &v), 0);
	CHECK_EQ(v, PTHREAD_PROCESS_PRIVATE);
	for (unsigned i = 0; i < COUNT(bad); i++) {
		CHECK_EQ(pthread_rwlockattr_setkind_np(&a, bad[i]), EINVAL);
		CHECK_EQ(pthread_rwlockattr_setpshared(&a, bad[i]), EINVAL);
	}
	CHECK_EQ(pthread_rwlockattr_destroy(&a), 0);
}

static const struct test_case cases[] = {
    {"by_main", by_main},
    {"by_a_thread", by_a_thread},
    {"initialisers", initialisers},
    {"writers_that_give_up", writers_that_give_up},
    {"read_locks_unlocked_by_another", read_locks_unlocked_by_another},
    {"attributes", attributes},
};

TEST_MAIN(cases)
