/*
 * What every function of a mutex answers, for every combination of type, robustness, protocol and
 * sharing: locked, tried, timed on both clocks, unlocked by the wrong thread, inherited from an owner
 * that died, given up for good, destroyed; and what attributes refuse.
 */
#include "test.h"

enum { NORMAL = PTHREAD_MUTEX_NORMAL, RECURSIVE, ERRORCHECK, ADAPTIVE };

static const char *const types[] = {"normal", "recursive", "errorcheck", "adaptive"};
static const char *const protocols[] = {"", " inherit", " protect"};
static char name[80]; /* of the mutex under test */
static pthread_mutex_t m;

static void answer(int line, const char *call, int got, int want)
{
	if (got != want)
		FAIL("line %d, %s: %s is %d, not %d", line, name, call, got, want);
}
#define ANSWER(call, want) answer(__LINE__, #call, call, want)

static int make(int type, int robust, int protocol, int shared)
{
	pthread_mutexattr_t a;
	int v = -1;

	snprintf(name, sizeof name, "%s%s%s%s", types[type], robust ? " robust" : "",
		 protocols[protocol], shared ? " shared" : "");
	memset(&a, 0x5a, sizeof a);
	ANSWER(pthread_mutexattr_init(&a), 0);
	ANSWER(pthread_mutexattr_settype(&a, type), 0);
	ANSWER(pthread_mutexattr_setrobust(&a, robust), 0);
	ANSWER(pthread_mutexattr_setprotocol(&a, protocol), 0);
	ANSWER(pthread_mutexattr_setpshared(&a, shared), 0);
	ANSWER(pthread_mutexattr_gettype(&a, &v), 0);
	CHECK_EQ(v, type);
	ANSWER(pthread_mutexattr_getrobust(&a, &v), 0);
	CHECK_EQ(v, robust);
	ANSWER(pthread_mutexattr_getprotocol(&a, &v), 0);
	CHECK_EQ(v, protocol);
	ANSWER(pthread_mutexattr_getpshared(&a, &v), 0);
	CHECK_EQ(v, shared);
	memset(&m, 0x5a, sizeof m);
	int r = pthread_mutex_init(&m, &a);
	ANSWER(pthread_mutexattr_destroy(&a), 0);
	return r;
}

/* Robust is not to be had with a ceiling. */
static void each(int protocols_from, int protocols_to, void (*fn)(int type, int robust))
{
	for (int p = protocols_from; p <= protocols_to; p++)
		for (int i = 0; i < 16; i++) {
			int type = i & 3, robust = i >> 2 & 1, shared = i >> 3;

			if (robust && p == PTHREAD_PRIO_PROTECT) {
				ANSWER(make(type, robust, p, shared), ENOTSUP);
				continue;
			}
			ANSWER(make(type, robust, p, shared), 0);
			fn(type, robust);
		}
}

static int timed(clockid_t clock, long ms)
{
	struct timespec ts = after_ms(clock, ms);

	return pthread_mutex_clocklock(&m, clock, &ts);
}

static int timed_default(void)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, 2);

	return pthread_mutex_timedlock(&m, &ts);
}

static int timed_bad(clockid_t clock, long ns)
{
	struct timespec ts = {time(NULL) + 1000, ns};

	return pthread_mutex_clocklock(&m, clock, &ts);
}

/* --- calls by another thread ------------------------------------------------------------------- */

static void *call(void *fn)
{
	return (void *)(intptr_t)((int (*)(void))fn)();
}

static int other(int (*fn)(void))
{
	return (int)(intptr_t)join(spawn(call, (void *)fn));
}

static int lock(void)
{
	return pthread_mutex_lock(&m);
}

static int trylock(void)
{
	return pthread_mutex_trylock(&m);
}

static int unlock(void)
{
	return pthread_mutex_unlock(&m);
}

static int consistent(void)
{
	return pthread_mutex_consistent(&m);
}

static int lock_realtime(void)
{
	return timed(CLOCK_REALTIME, 2);
}

static int lock_monotonic(void)
{
	return timed(CLOCK_MONOTONIC, 2);
}

static int lock_past(void)
{
	return timed(CLOCK_MONOTONIC, -2);
}

static int lock_bad_ns(void)
{
	return timed_bad(CLOCK_REALTIME, 1000000000);
}

static int lock_negative_ns(void)
{
	return timed_bad(CLOCK_MONOTONIC, -1);
}

/* --- the owner and the others ------------------------------------------------------------------ */

static void held_and_free(int type, int robust)
{
	int inherits = strstr(name, "inherit") != NULL;
	/* Whose owner is looked at when it is unlocked. */
	int checked = type == RECURSIVE || type == ERRORCHECK || robust;

	if (checked)
		ANSWER(unlock(), EPERM);
	ANSWER(lock(), 0);
	/* Robust ones are not asked. */
	if (!robust)
		ANSWER(pthread_mutex_destroy(&m), EBUSY);
	ANSWER(other(trylock), EBUSY);
	ANSWER(other(timed_default), ETIMEDOUT);
	ANSWER(other(lock_realtime), ETIMEDOUT);
	ANSWER(other(lock_monotonic), ETIMEDOUT);
	ANSWER(other(lock_past), ETIMEDOUT);
	ANSWER(other(lock_bad_ns), EINVAL);
	ANSWER(other(lock_negative_ns), EINVAL);
	ANSWER(timed(CLOCK_PROCESS_CPUTIME_ID, 1), EINVAL);
	ANSWER(timed(CLOCK_BOOTTIME, 1), EINVAL);
	ANSWER(pthread_mutex_consistent(&m), EINVAL);
	if (checked)
		ANSWER(other(unlock), EPERM);
	if (type == RECURSIVE) {
		ANSWER(lock(), 0);
		ANSWER(trylock(), 0);
		ANSWER(lock_realtime(), 0);
		ANSWER(lock_past(), 0);
		ANSWER(other(trylock), EBUSY);
		for (int i = 0; i < 4; i++)
			ANSWER(unlock(), 0);
		ANSWER(other(trylock), EBUSY);
	} else {
		/* POSIX has EBUSY for all. */
		int edeadlk = type == ERRORCHECK && (robust || inherits);
		ANSWER(trylock(), edeadlk ? EDEADLK : EBUSY);
		ANSWER(lock_realtime(), type == ERRORCHECK ? EDEADLK : ETIMEDOUT);
		ANSWER(lock_monotonic(), type == ERRORCHECK ? EDEADLK : ETIMEDOUT);
	}
	if (type == ERRORCHECK)
		ANSWER(lock(), EDEADLK);
	ANSWER(unlock(), 0);
	if (checked)
		ANSWER(unlock(), EPERM);
	/* Free, it is taken without a look at the time. */
	ANSWER(lock_past(), 0);
	ANSWER(unlock(), 0);
	ANSWER(timed_default(), 0);
	ANSWER(unlock(), 0);
	ANSWER(timed(CLOCK_THREAD_CPUTIME_ID, 1), EINVAL);
	ANSWER(trylock(), 0);
	if (!robust)
		ANSWER(pthread_mutex_destroy(&m), EBUSY);
	ANSWER(unlock(), 0);
	/* Without an owner to look at, any thread may unlock; the kernel has the owner's id otherwise. */
	if (!checked && !inherits) {
		ANSWER(lock(), 0);
		ANSWER(other(unlock), 0);
		ANSWER(trylock(), 0);
		ANSWER(unlock(), 0);
	}
	ANSWER(pthread_mutex_destroy(&m), 0);
}

static void every_kind(void)
{
	each(PTHREAD_PRIO_NONE, PTHREAD_PRIO_INHERIT, held_and_free);
}

static void *every_kind_by_a_thread(void *arg)
{
	every_kind();
	return arg;
}

static void by_main(void)
{
	every_kind();
}

static void by_a_thread(void)
{
	join(spawn(every_kind_by_a_thread, NULL));
}

/* The depth lies in the object where libc's headers say. */
static void deepest(int type, int robust)
{
	(void)robust;
	if (type == RECURSIVE) {
		ANSWER(lock(), 0);
		m.__data.__count = -1u;
		ANSWER(lock(), EAGAIN);
		ANSWER(trylock(), EAGAIN);
		ANSWER(lock_realtime(), EAGAIN);
		ANSWER(lock_past(), EAGAIN);
		CHECK_EQ(m.__data.__count, -1u);
		ANSWER(unlock(), 0);
		ANSWER(lock(), 0);
		m.__data.__count = 1;
		ANSWER(unlock(), 0);
		ANSWER(unlock(), EPERM);
	}
	ANSWER(pthread_mutex_destroy(&m), 0);
}

static void depth_overflows(void)
{
	each(PTHREAD_PRIO_NONE, PTHREAD_PRIO_INHERIT, deepest);
}

static void destroyed_mutex(void)
{
	each(PTHREAD_PRIO_NONE, PTHREAD_PRIO_NONE, held_and_free);
	ANSWER(lock(), EINVAL);
	ANSWER(trylock(), EINVAL);
	ANSWER(lock_realtime(), EINVAL);
	ANSWER(unlock(), EINVAL);
	ANSWER(pthread_mutex_init(&m, NULL), 0);
	ANSWER(lock(), 0);
	ANSWER(unlock(), 0);
}

/* --- owners that die --------------------------------------------------------------------------- */

static int lock_twice(void)
{
	CHECK_EQ(lock(), 0);
	return m.__data.__kind & 3 ? trylock() : 0;
}

static int lock_within_a_minute(void)
{
	return timed(CLOCK_MONOTONIC, 60000);
}

static int hold_for_a_while(void)
{
	CHECK_EQ(lock(), 0);
	sleep_ms(5);
	return 0;
}

static void inherited(int type, int robust)
{
	static int (*const ways[])(void) = {lock, trylock, lock_realtime, lock_monotonic};
	int busy = type == RECURSIVE ? 0 : type == ERRORCHECK ? EDEADLK : EBUSY;

	if (!robust) {
		ANSWER(consistent(), EINVAL);
		ANSWER(pthread_mutex_destroy(&m), 0);
		return;
	}
	for (unsigned i = 0; i < COUNT(ways); i++) {
		other(lock_twice);
		ANSWER(ways[i](), EOWNERDEAD);
		ANSWER(other(trylock), EBUSY);
		ANSWER(other(lock_monotonic), ETIMEDOUT);
		ANSWER(other(unlock), EPERM);
		ANSWER(consistent(), 0);
		ANSWER(consistent(), EINVAL);
		ANSWER(trylock(), busy);
		if (busy == 0)
			ANSWER(unlock(), 0);
		ANSWER(unlock(), 0);
		ANSWER(unlock(), EPERM);
	}
	/* Who inherits it may die, too. */
	other(lock);
	ANSWER(other(lock), EOWNERDEAD);
	ANSWER(other(lock_monotonic), EOWNERDEAD);
	ANSWER(lock(), EOWNERDEAD);
	ANSWER(consistent(), 0);
	ANSWER(unlock(), 0);
	ANSWER(lock(), 0);
	ANSWER(unlock(), 0);
	/* Unlocked as it is: of no use any more, also for one that waits already. */
	other(lock);
	ANSWER(lock(), EOWNERDEAD);
	pthread_t waiter = spawn(call, (void *)(type & 1 ? lock_within_a_minute : lock));
	sleep_ms(5);
	ANSWER(unlock(), 0);
	CHECK_EQ((intptr_t)join(waiter), ENOTRECOVERABLE);
	for (unsigned i = 0; i < COUNT(ways); i++) {
		if (ways[i] == trylock)
			continue;
		ANSWER(ways[i](), ENOTRECOVERABLE);
		ANSWER(other(ways[i]), ENOTRECOVERABLE);
	}
	ANSWER(unlock(), EPERM);
	ANSWER(consistent(), EINVAL);
	/* Last: libc's keeps the lock of those without inheritance. */
	ANSWER(trylock(), ENOTRECOVERABLE);
	ANSWER(pthread_mutex_destroy(&m), 0);
}

static void owners_that_die(void)
{
	each(PTHREAD_PRIO_NONE, PTHREAD_PRIO_INHERIT, inherited);
}

/* The owner ends while others wait: one of them gets it, and the others after it. */
static void *inherit_or_lock(void *arg)
{
	int r = lock();

	if (r == EOWNERDEAD) {
		CHECK_EQ(__atomic_add_fetch((int *)arg, 1, __ATOMIC_RELAXED), 1);
		ANSWER(consistent(), 0);
	} else {
		CHECK_EQ(r, 0);
	}
	ANSWER(unlock(), 0);
	return NULL;
}

static void inherited_in_the_wait(int type, int robust)
{
	pthread_t t[3], owner;
	int heirs = 0;

	(void)type;
	if (robust) {
		owner = spawn(call, (void *)hold_for_a_while);
		for (unsigned i = 0; i < COUNT(t); i++)
			t[i] = spawn(inherit_or_lock, &heirs);
		join(owner);
		for (unsigned i = 0; i < COUNT(t); i++)
			join(t[i]);
		int r = lock();
		if (heirs == 0) { /* all came before the owner */
			CHECK_EQ(r, EOWNERDEAD);
			ANSWER(consistent(), 0);
		} else {
			CHECK_EQ(r, 0);
		}
		ANSWER(unlock(), 0);
	}
	ANSWER(pthread_mutex_destroy(&m), 0);
}

static void owners_that_die_waited_for(void)
{
	each(PTHREAD_PRIO_NONE, PTHREAD_PRIO_INHERIT, inherited_in_the_wait);
}

/* --- priority ceilings ------------------------------------------------------------------------- */

static int priority(void)
{
	struct sched_param p;

	CHECK_EQ(sched_getparam(0, &p), 0);
	return p.sched_priority;
}

/* A thread without a real-time class can't have a ceiling's priority. libc refuses it once. */
static void no_real_time_class(int type, int robust)
{
	int v = -1;

	(void)type;
	(void)robust;
	ANSWER(pthread_mutex_getprioceiling(&m, &v), 0);
	CHECK_EQ(v, sched_get_priority_min(SCHED_FIFO));
	ANSWER(other(lock), EINVAL);
	ANSWER(other(trylock), EINVAL);
	ANSWER(other(lock_realtime), EINVAL);
	ANSWER(pthread_mutex_destroy(&m), 0);
}

static void ceilings_without_a_class(void)
{
	each(PTHREAD_PRIO_PROTECT, PTHREAD_PRIO_PROTECT, no_real_time_class);
}

static void ceiling(int type, int robust)
{
	int max = sched_get_priority_max(SCHED_FIFO), min = sched_get_priority_min(SCHED_FIFO);
	int old = -1, v = -1;

	(void)robust;
	ANSWER(pthread_mutex_setprioceiling(&m, 10, &old), 0);
	CHECK_EQ(old, min);
	ANSWER(pthread_mutex_setprioceiling(&m, max + 1, &old), EINVAL);
	ANSWER(pthread_mutex_setprioceiling(&m, min - 1, &old), EINVAL);
	ANSWER(pthread_mutex_getprioceiling(&m, &v), 0);
	CHECK_EQ(v, 10);
	CHECK_EQ(priority(), 5);
	for (int i = 0; i < 3; i++) {
		ANSWER(i == 0 ? lock() : i == 1 ? trylock() : lock_realtime(), 0);
		CHECK_EQ(priority(), 10);
		if (type == RECURSIVE) {
			ANSWER(lock(), 0);
			ANSWER(unlock(), 0);
			CHECK_EQ(priority(), 10);
		} else if (type == ERRORCHECK) {
			ANSWER(lock(), EDEADLK);
			ANSWER(lock_realtime(), EDEADLK);
			ANSWER(trylock(), EDEADLK);
		} else {
			ANSWER(trylock(), EBUSY);
		}
		ANSWER(other(trylock), EBUSY);
		ANSWER(other(lock_monotonic), ETIMEDOUT);
		if (type == RECURSIVE || type == ERRORCHECK)
			ANSWER(other(unlock), EPERM);
		CHECK_EQ(priority(), 10);
		ANSWER(pthread_mutex_destroy(&m), EBUSY);
		ANSWER(unlock(), 0);
		CHECK_EQ(priority(), 5);
	}
	/* The caller is above it. */
	ANSWER(pthread_mutex_setprioceiling(&m, 4, &old), 0);
	ANSWER(lock(), EINVAL);
	ANSWER(trylock(), EINVAL);
	ANSWER(lock_realtime(), EINVAL);
	CHECK_EQ(priority(), 5);
	if (type == RECURSIVE || type == ERRORCHECK)
		ANSWER(unlock(), EPERM);
	ANSWER(pthread_mutex_setprioceiling(&m, 5, &old), 0);
	CHECK_EQ(old, 4);
	ANSWER(lock(), 0);
	/* Changed by the holder: recursive ones let it, others know better or would wait for it. */
	if (type == RECURSIVE || type == ERRORCHECK)
		ANSWER(pthread_mutex_setprioceiling(&m, 6, &old), type == RECURSIVE ? 0 : EDEADLK);
	ANSWER(unlock(), 0);
	ANSWER(pthread_mutex_destroy(&m), 0);
}

static int no_right_to_it;

static void *with_a_class(void *arg)
{
	struct sched_param p = {.sched_priority = 5};

	no_right_to_it = pthread_setschedparam(pthread_self(), SCHED_FIFO, &p) == EPERM;
	if (!no_right_to_it)
		each(PTHREAD_PRIO_PROTECT, PTHREAD_PRIO_PROTECT, ceiling);
	return arg;
}

static void ceilings(void)
{
	join(spawn(with_a_class, NULL));
	if (no_right_to_it)
		SKIP_CASE("no real-time classes for this user");
}

/* A thread that ends with a mutex leaves the next one nothing of its priorities. */
static void *end_above(void *arg)
{
	struct sched_param p = {.sched_priority = 9};

	CHECK_EQ(pthread_setschedparam(pthread_self(), SCHED_FIFO, &p), 0);
	ANSWER(pthread_mutex_setprioceiling(&m, 20, &p.sched_priority), 0);
	ANSWER(lock(), 0);
	CHECK_EQ(priority(), 20);
	return arg;
}

static void *start_below(void *arg)
{
	struct sched_param p = {.sched_priority = 5};

	CHECK_EQ(pthread_setschedparam(pthread_self(), SCHED_FIFO, &p), 0);
	ANSWER(pthread_mutex_setprioceiling(&m, 10, &p.sched_priority), 0);
	ANSWER(lock(), 0);
	CHECK_EQ(priority(), 10);
	ANSWER(unlock(), 0);
	CHECK_EQ(priority(), 5);
	return arg;
}

static void ceilings_end_with_their_thread(void)
{
	if (no_right_to_it)
		SKIP_CASE("no real-time classes for this user");
	for (int i = 0; i < 5; i++) {
		ANSWER(make(NORMAL, 0, PTHREAD_PRIO_PROTECT, 0), 0);
		join(spawn(end_above, NULL));
		ANSWER(make(NORMAL, 0, PTHREAD_PRIO_PROTECT, 0), 0);
		join(spawn(start_below, NULL));
	}
}

static void not_a_ceiling(int type, int robust)
{
	int v = 77;

	(void)type;
	(void)robust;
	ANSWER(pthread_mutex_getprioceiling(&m, &v), EINVAL);
	ANSWER(pthread_mutex_setprioceiling(&m, 10, &v), EINVAL);
	CHECK_EQ(v, 77);
	ANSWER(pthread_mutex_destroy(&m), 0);
}

static void ceilings_of_others(void)
{
	each(PTHREAD_PRIO_NONE, PTHREAD_PRIO_INHERIT, not_a_ceiling);
}

/* --- attributes -------------------------------------------------------------------------------- */

static void attributes(void)
{
	int max = sched_get_priority_max(SCHED_FIFO), min = sched_get_priority_min(SCHED_FIFO);
	static const int bad[] = {-1, 4, 99};
	pthread_mutexattr_t a;
	int v = -1;

	snprintf(name, sizeof name, "attributes");
	ANSWER(pthread_mutexattr_init(&a), 0);
	ANSWER(pthread_mutexattr_gettype(&a, &v), 0);
	CHECK_EQ(v, PTHREAD_MUTEX_DEFAULT);
	ANSWER(pthread_mutexattr_getpshared(&a, &v), 0);
	CHECK_EQ(v, PTHREAD_PROCESS_PRIVATE);
	ANSWER(pthread_mutexattr_getrobust(&a, &v), 0);
	CHECK_EQ(v, PTHREAD_MUTEX_STALLED);
	ANSWER(pthread_mutexattr_getprotocol(&a, &v), 0);
	CHECK_EQ(v, PTHREAD_PRIO_NONE);
	ANSWER(pthread_mutexattr_getprioceiling(&a, &v), 0);
	CHECK_EQ(v, min);
	for (unsigned i = 0; i < COUNT(bad); i++) {
		ANSWER(pthread_mutexattr_settype(&a, bad[i]), EINVAL);
		ANSWER(pthread_mutexattr_setpshared(&a, bad[i]), EINVAL);
		ANSWER(pthread_mutexattr_setrobust(&a, bad[i]), EINVAL);
		ANSWER(pthread_mutexattr_setprotocol(&a, bad[i]), EINVAL);
	}
	ANSWER(pthread_mutexattr_setprioceiling(&a, max + 1), EINVAL);
	ANSWER(pthread_mutexattr_setprioceiling(&a, min - 1), EINVAL);
	ANSWER(pthread_mutexattr_setprioceiling(&a, max), 0);
	ANSWER(pthread_mutexattr_getprioceiling(&a, &v), 0);
	CHECK_EQ(v, max);
	ANSWER(pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_PROTECT), 0);
	ANSWER(pthread_mutex_init(&m, &a), 0);
	ANSWER(pthread_mutex_getprioceiling(&m, &v), 0);
	CHECK_EQ(v, max);
	ANSWER(pthread_mutex_destroy(&m), 0);
	ANSWER(pthread_mutexattr_destroy(&a), 0);
}

static const struct test_case cases[] = {
    {"by_main", by_main},
    {"by_a_thread", by_a_thread},
    {"depth_overflows", depth_overflows},
    {"destroyed_mutex", destroyed_mutex},
    {"owners_that_die", owners_that_die},
    {"owners_that_die_waited_for", owners_that_die_waited_for},
    {"ceilings_without_a_class", ceilings_without_a_class},
    {"ceilings", ceilings},
    {"ceilings_end_with_their_thread", ceilings_end_with_their_thread},
    {"ceilings_of_others", ceilings_of_others},
    {"attributes", attributes},
};

TEST_MAIN(cases)
