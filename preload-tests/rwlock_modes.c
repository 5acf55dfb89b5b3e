/*
 * Read-write locks: readers together, writers alone, the preference that was asked for, and the
 * timed forms.
 */
#include "test.h"

static pthread_rwlock_t rw;

struct op {
	int (*fn)(pthread_rwlock_t *);
};

static void *do_op(void *arg)
{
	struct op *op = arg;
	int rc = op->fn(&rw);

	if (rc == 0)
		pthread_rwlock_unlock(&rw);
	return (void *)(intptr_t)rc;
}

static int by_other(int (*fn)(pthread_rwlock_t *))
{
	struct op op = {fn};

	return (int)(intptr_t)join(spawn(do_op, &op));
}

static int timedrd(pthread_rwlock_t *l)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, 20);
	return pthread_rwlock_timedrdlock(l, &ts);
}

static int timedwr(pthread_rwlock_t *l)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, 20);
	return pthread_rwlock_timedwrlock(l, &ts);
}

static int clockrd(pthread_rwlock_t *l)
{
	struct timespec ts = after_ms(CLOCK_MONOTONIC, 20);
	return pthread_rwlock_clockrdlock(l, CLOCK_MONOTONIC, &ts);
}

static int clockwr(pthread_rwlock_t *l)
{
	struct timespec ts = after_ms(CLOCK_MONOTONIC, 20);
	return pthread_rwlock_clockwrlock(l, CLOCK_MONOTONIC, &ts);
}

static int badrd(pthread_rwlock_t *l)
{
	struct timespec ts = {time(NULL) + 1, 1000000000};
	return pthread_rwlock_timedrdlock(l, &ts);
}

static int badclock(pthread_rwlock_t *l)
{
	struct timespec ts = after_ms(CLOCK_MONOTONIC, 20);
	return pthread_rwlock_clockwrlock(l, CLOCK_PROCESS_CPUTIME_ID, &ts);
}

/* What another thread is answered while we hold it for reading, for writing, and not at all. */
static const struct {
	const char *name;
	int (*fn)(pthread_rwlock_t *);
	int held_rd, held_wr, is_free;
} table[] = {
    {"tryrdlock", pthread_rwlock_tryrdlock, 0, EBUSY, 0},
    {"trywrlock", pthread_rwlock_trywrlock, EBUSY, EBUSY, 0},
    {"timedrdlock", timedrd, 0, ETIMEDOUT, 0},
    {"timedwrlock", timedwr, ETIMEDOUT, ETIMEDOUT, 0},
    {"clockrdlock", clockrd, 0, ETIMEDOUT, 0},
    {"clockwrlock", clockwr, ETIMEDOUT, ETIMEDOUT, 0},
    {"clockwrlock with a bad clock", badclock, EINVAL, EINVAL, EINVAL},
    {"rdlock", pthread_rwlock_rdlock, 0, -1, 0},
    {"wrlock", pthread_rwlock_wrlock, -1, -1, 0},
};

static void answers(void)
{
	static const int kinds[] = {-1, PTHREAD_RWLOCK_PREFER_READER_NP,
				    PTHREAD_RWLOCK_PREFER_WRITER_NP,
				    PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP};

	for (unsigned k = 0; k < COUNT(kinds); k++) {
		pthread_rwlockattr_t attr;

		CHECK_EQ(pthread_rwlockattr_init(&attr), 0);
		if (kinds[k] >= 0)
			CHECK_EQ(pthread_rwlockattr_setkind_np(&attr, kinds[k]), 0);
		CHECK_EQ(pthread_rwlock_init(&rw, &attr), 0);
		for (unsigned i = 0; i < COUNT(table); i++) {
			int rc;

			CHECK_EQ(pthread_rwlock_rdlock(&rw), 0);
			if (table[i].held_rd >= 0 &&
			    (rc = by_other(table[i].fn)) != table[i].held_rd)
				FAIL("%s while read: %d, not %d", table[i].name, rc,
				     table[i].held_rd);
			CHECK_EQ(pthread_rwlock_unlock(&rw), 0);
			CHECK_EQ(pthread_rwlock_wrlock(&rw), 0);
			if (table[i].held_wr >= 0 &&
			    (rc = by_other(table[i].fn)) != table[i].held_wr)
				FAIL("%s while written: %d, not %d", table[i].name, rc,
				     table[i].held_wr);
			CHECK_EQ(pthread_rwlock_unlock(&rw), 0);
			if ((rc = by_other(table[i].fn)) != table[i].is_free)
				FAIL("%s while free: %d, not %d", table[i].name, rc,
				     table[i].is_free);
		}
		CHECK_EQ(pthread_rwlock_destroy(&rw), 0);
		pthread_rwlockattr_destroy(&attr);
	}
}

static void deadlock_by_owner(void)
{
	rw = (pthread_rwlock_t)PTHREAD_RWLOCK_INITIALIZER;
	CHECK_EQ(pthread_rwlock_wrlock(&rw), 0);
	CHECK_EQ(pthread_rwlock_wrlock(&rw), EDEADLK);
	CHECK_EQ(pthread_rwlock_rdlock(&rw), EDEADLK);
	CHECK_EQ(badrd(&rw), EINVAL);
	CHECK_EQ(pthread_rwlock_unlock(&rw), 0);
}

static long value;
static int readers, writers, peak;

static void *mixed(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg;

	for (int i = 0; i < 500; i++) {
		if (rand_r(&seed) % 5 == 0) {
			CHECK_EQ(pthread_rwlock_wrlock(&rw), 0);
			CHECK_EQ(__atomic_add_fetch(&writers, 1, __ATOMIC_SEQ_CST), 1);
			CHECK_EQ(__atomic_load_n(&readers, __ATOMIC_SEQ_CST), 0);
			value++;
			if (i % 8 == 0)
				sched_yield();
			__atomic_sub_fetch(&writers, 1, __ATOMIC_SEQ_CST);
		} else {
			CHECK_EQ(pthread_rwlock_rdlock(&rw), 0);
			int now = __atomic_add_fetch(&readers, 1, __ATOMIC_SEQ_CST);
			CHECK_EQ(__atomic_load_n(&writers, __ATOMIC_SEQ_CST), 0);
			int seen = __atomic_load_n(&peak, __ATOMIC_RELAXED);
			while (now > seen &&
			       !__atomic_compare_exchange_n(&peak, &seen, now, 0, __ATOMIC_RELAXED,
							    __ATOMIC_RELAXED))
				;
			long v = value;
			if (i % 8 == 0)
				sched_yield();
			CHECK_EQ(value, v);
			__atomic_sub_fetch(&readers, 1, __ATOMIC_SEQ_CST);
		}
		CHECK_EQ(pthread_rwlock_unlock(&rw), 0);
	}
	return NULL;
}

static void readers_and_writers(void)
{
	static const int kinds[] = {PTHREAD_RWLOCK_PREFER_READER_NP,
				    PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP};

	for (unsigned k = 0; k < COUNT(kinds); k++) {
		pthread_rwlockattr_t attr;
		pthread_t t[32];

		readers = writers = peak = 0;
		pthread_rwlockattr_init(&attr);
		pthread_rwlockattr_setkind_np(&attr, kinds[k]);
		pthread_rwlock_init(&rw, &attr);
		for (unsigned i = 0; i < COUNT(t); i++)
			t[i] = spawn(mixed, (void *)(intptr_t)(i + 1));
		for (unsigned i = 0; i < COUNT(t); i++)
			join(t[i]);
		CHECK(peak > 1);
		CHECK_EQ(pthread_rwlock_destroy(&rw), 0);
	}
}

static int waiting;

static void *wait_write(void *arg)
{
	__atomic_add_fetch(&waiting, 1, __ATOMIC_RELEASE);
	pthread_rwlock_wrlock(&rw);
	value++;
	pthread_rwlock_unlock(&rw);
	return arg;
}

static void *wait_read(void *arg)
{
	__atomic_add_fetch(&waiting, 1, __ATOMIC_RELEASE);
	pthread_rwlock_rdlock(&rw);
	pthread_rwlock_unlock(&rw);
	return arg;
}

static void hundreds_wait(void)
{
	enum { N = 200 };
	pthread_t t[N];

	value = waiting = 0;
	rw = (pthread_rwlock_t)PTHREAD_RWLOCK_INITIALIZER;
	pthread_rwlock_wrlock(&rw);
	for (int i = 0; i < N; i++)
		t[i] = spawn(i % 2 ? wait_read : wait_write, NULL);
	CHECK(wait_for(&waiting, N, 20000));
	sleep_ms(20);
	CHECK_EQ(value, 0);
	check_goroutines(N);
	pthread_rwlock_unlock(&rw);
	for (int i = 0; i < N; i++)
		join(t[i]);
	CHECK_EQ(value, N / 2);
}

/* With writer preference a waiting writer is not overtaken by new readers. */
static void *write_once(void *arg)
{
	pthread_rwlock_wrlock(&rw);
	__atomic_store_n((int *)arg, 1, __ATOMIC_RELEASE);
	pthread_rwlock_unlock(&rw);
	return NULL;
}

static void waiting_writer_goes_first(void)
{
	pthread_rwlockattr_t attr;
	int written = 0;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&rw, &attr);
	pthread_rwlock_rdlock(&rw);
	pthread_t t = spawn(write_once, &written);
	sleep_ms(100);
	CHECK_EQ(by_other(pthread_rwlock_tryrdlock), EBUSY);
	CHECK_EQ(by_other(timedrd), ETIMEDOUT);
	CHECK_EQ(written, 0);
	pthread_rwlock_unlock(&rw);
	join(t);
	CHECK_EQ(written, 1);
	CHECK_EQ(by_other(pthread_rwlock_tryrdlock), 0);
	pthread_rwlock_destroy(&rw);
}

/* A writer that gives up must let the readers behind it pass. */
static void *give_up(void *arg)
{
	struct timespec ts = after_ms(CLOCK_MONOTONIC, 100);
	(void)arg;
	return (void *)(intptr_t)pthread_rwlock_clockwrlock(&rw, CLOCK_MONOTONIC, &ts);
}

static void writer_that_gives_up(void)
{
	pthread_rwlockattr_t attr;
	pthread_t r[8];

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&rw, &attr);
	pthread_rwlock_rdlock(&rw);
	pthread_t w = spawn(give_up, NULL);
	sleep_ms(20);
	for (unsigned i = 0; i < COUNT(r); i++)
		r[i] = spawn(wait_read, NULL);
	CHECK_EQ((intptr_t)join(w), ETIMEDOUT);
	for (unsigned i = 0; i < COUNT(r); i++)
		join(r[i]);
	pthread_rwlock_unlock(&rw);
	CHECK_EQ(by_other(pthread_rwlock_trywrlock), 0);
	pthread_rwlock_destroy(&rw);
}

static const struct test_case cases[] = {
    {"answers", answers},
    {"deadlock_by_owner", deadlock_by_owner},
    {"readers_and_writers", readers_and_writers},
    {"hundreds_wait", hundreds_wait},
    {"waiting_writer_goes_first", waiting_writer_goes_first},
    {"writer_that_gives_up", writer_that_gives_up},
};

TEST_MAIN(cases)
