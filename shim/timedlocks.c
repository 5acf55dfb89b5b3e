/*
 * timedlocks.c - kernel mode: locks, conditions and semaphores are libc's, and the waits for them are timed and recorded.
 *
 * What can be had at once is no wait, so that is tried first: libc does the same. Waits for conditions can't be tried.
 *
 * A record's link, and when the lock was locked, need room in an object whose layout is libc's. A private mutex has it where robust ones
 * are listed (Mutex), a read-write lock in its padding, a private semaphore behind what libc knows of it. A condition has none, nor
 * has what the kernel or other processes know: their records are found by address (lockmade).
 *
 * With GOSHIM=locks each lock is counted; what isn't locked or unlocked by a call of the program (the mutex in a condition
 * wait) is taken for locked and unlocked around that call.
 */
#include "sync.h"
#include "timed.h"

#include "tls.h"

#include <linux/futex.h>

/* --- records ------------------------------------------------------------------------------ */

/* A wait for a lock, as WAITING. */
typedef struct LockTimed {
	WaitReason why;
	uint64_t begin;
	LockRecord *record;
} LockTimed;

static noinline_fn LockTimed lockbegins(WaitReason why, const void *lock, LockLink *link,
					uint64_t site)
{
	LockTimed w = {why, timedbegins(why), NULL};
	if (w.begin)
		w.record = lockwaited(lock, why, link, site);
	return w;
}

static void lockends(const LockTimed *w)
{
	int64_t ticks = timedends(w->why, w->begin);
	if (ticks >= 0)
		lockwaitended(w->record, (uint64_t)ticks, false);
}

#define LOCKING(why, lock, link, site)                                   \
	__attribute__((cleanup(lockends), unused)) LockTimed locktimed = \
	    lockbegins(why, lock, link, site)

/* --- mutexes ------------------------------------------------------------------------------ */

/* libc's function, unless it can be had by `try`, which says `busy` if not. */
#define TRYFIRST(got, try, busy, call, ...)      \
	do {                                     \
		(got) = (try);                   \
		if (unlikely((got) == (busy))) { \
			LOCKING(__VA_ARGS__);    \
			(got) = (call);          \
		}                                \
	} while (0)

/* What libc refuses before it looks at the lock. */
static bool refused(clockid_t clock, const struct timespec *abs)
{
	return (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC) || abs->tv_nsec < 0 ||
	       abs->tv_nsec >= 1000000000;
}

static inline int kindof(const Mutex *m)
{
	return atomic_load_explicit(&m->kind, memory_order_relaxed);
}

static inline bool isrecursive(const Mutex *m)
{
	return (kindof(m) & KindTypeMask) == PTHREAD_MUTEX_RECURSIVE;
}

static inline bool owned(const Mutex *m)
{
	return atomic_load_explicit(&m->owner, memory_order_relaxed) == selftid();
}

/*
 * Can libc be asked for m without waiting, and nothing else be different? Its trylock takes a robust one that can't be recovered, and
 * keeps it. Of such and of those that know priorities, the word that says who has it is looked at; and who has one that
 * checks that is told so.
 */
static inline bool maytry(const Mutex *m)
{
	enum { Simple = KindTypeMask | KindShared | KindElision };
	int kind = kindof(m);
	return !(kind & ~Simple) &&
	       ((kind & KindTypeMask) != PTHREAD_MUTEX_ERRORCHECK || !owned(m));
}

static bool held(const Mutex *m)
{
	enum { WithCeiling = 0x7ffff };
	uint32_t mask = kindof(m) & KindProtect ? WithCeiling : FUTEX_TID_MASK;
	return atomic_load_explicit(&m->word, memory_order_relaxed) & mask && !owned(m);
}

/* m was locked; not yet if it is a recursive one and was so before. */
static noinline_fn void locked(Mutex *m)
{
	if (timedcounts() && mutexisours(m) && (!isrecursive(m) || m->count == 1))
		mutextaken(m, selftid());
}

/* m is about to be unlocked. False: it doesn't count. */
static noinline_fn bool unlocking(Mutex *m)
{
	int type = kindof(m) & KindTypeMask;
	bool checks = type == PTHREAD_MUTEX_RECURSIVE || type == PTHREAD_MUTEX_ERRORCHECK;
	if (!timedcounts() || !mutexisours(m) || (checks && !owned(m)) ||
	    (isrecursive(m) && m->count != 1))
		return false;
	mutexgiven(m);
	return true;
}

#define LOCK(pm, try, busy, call)                                                                  \
	do {                                                                                       \
		Mutex *mutex = (Mutex *)(pm);                                                      \
		bool own = mutexisours(mutex);                                                     \
		int got;                                                                           \
		if (likely(maytry(mutex)))                                                         \
			TRYFIRST(got, try, busy, call, WaitMutex, mutex,                           \
				 own ? &mutex->link : NULL,                                        \
				 own ? mutexsite(mutex) : lockmaker(mutex));                       \
		else                                                                               \
			TRYFIRST(got, held(mutex) ? (busy) : (call), busy, call, WaitMutex, mutex, \
				 NULL, lockmaker(mutex));                                          \
		if (unlikely(lockscounted) && got == 0)                                            \
			locked(mutex);                                                             \
		return got;                                                                        \
	} while (0)

TIMED(int, pthread_mutex_init, pthread_mutex_t *m, const pthread_mutexattr_t *attr)
{
	int err = real.pthread_mutex_init(m, attr);
	if (!err)
		mutexmade((Mutex *)m, CALLER());
	return err;
}

TIMED(int, pthread_mutex_lock, pthread_mutex_t *m)
{
	LOCK(m, real.pthread_mutex_trylock(m), EBUSY, real.pthread_mutex_lock(m));
}

TIMED(int, pthread_mutex_timedlock, pthread_mutex_t *m, const struct timespec *abs)
{
	LOCK(m, real.pthread_mutex_trylock(m), EBUSY, real.pthread_mutex_timedlock(m, abs));
}

TIMED(int, pthread_mutex_clocklock, pthread_mutex_t *m, clockid_t clock, const struct timespec *abs)
{
	if (refused(clock, &(struct timespec){0}))
		return real.pthread_mutex_clocklock(m, clock, abs);
	LOCK(m, real.pthread_mutex_trylock(m), EBUSY, real.pthread_mutex_clocklock(m, clock, abs));
}

TIMED(int, pthread_mutex_trylock, pthread_mutex_t *m)
{
	int err = real.pthread_mutex_trylock(m);
	if (unlikely(lockscounted) && err == 0)
		locked((Mutex *)m);
	return err;
}

TIMED(int, pthread_mutex_unlock, pthread_mutex_t *m)
{
	if (unlikely(lockscounted))
		unlocking((Mutex *)m);
	return real.pthread_mutex_unlock(m);
}

TIMED(int, mtx_init, mtx_t *m, int type)
{
	int r = real.mtx_init(m, type);
	if (r == thrd_success)
		mutexmade((Mutex *)m, CALLER());
	return r;
}

TIMED(int, mtx_lock, mtx_t *m)
{
	LOCK(m, real.mtx_trylock(m), thrd_busy, real.mtx_lock(m));
}

TIMED(int, mtx_timedlock, mtx_t *m, const struct timespec *abs)
{
	LOCK(m, real.mtx_trylock(m), thrd_busy, real.mtx_timedlock(m, abs));
}

TIMED(int, mtx_trylock, mtx_t *m)
{
	return timed_pthread_mutex_trylock((pthread_mutex_t *)m) ? thrd_busy : thrd_success;
}

TIMED(int, mtx_unlock, mtx_t *m)
{
	if (unlikely(lockscounted))
		unlocking((Mutex *)m);
	return real.mtx_unlock(m);
}

/* --- read-write locks --------------------------------------------------------------------- */

/* Of libc's object, what is its padding. */
typedef struct RWLock {
	uint32_t libcs[4];
	_Atomic uint32_t counted; /* readers whose locking was */
	uint32_t pad;
	_Atomic uint32_t writer; /* libc's: the writer that holds it, or 0 */
	int32_t shared;          /* libc's */
	uint32_t unused;
	LockLink link;
	uint64_t
	    when; /* with the upper bit set, ticks: when its writer got it. Else what has initialised it */
	uint32_t flags, pad2;
} RWLock;
_Static_assert(sizeof(RWLock) == sizeof(pthread_rwlock_t), "RWLock lies over pthread_rwlock_t");
_Static_assert(offsetof(RWLock, counted) == offsetof(pthread_rwlock_t, __data.__pad3), "padding");
_Static_assert(offsetof(RWLock, writer) == offsetof(pthread_rwlock_t, __data.__cur_writer),
	       "writer");
_Static_assert(offsetof(RWLock, shared) == offsetof(pthread_rwlock_t, __data.__shared), "shared");
_Static_assert(offsetof(RWLock, link) > offsetof(pthread_rwlock_t, __data.__pad1), "padding");
_Static_assert(offsetof(RWLock, when) == offsetof(pthread_rwlock_t, __data.__pad2), "padding");
_Static_assert(offsetof(RWLock, flags) == offsetof(pthread_rwlock_t, __data.__flags), "flags");

#define WHENTICKS (1ull << 63)

static uint64_t siteof(const RWLock *l)
{
	return l->shared ? lockmaker(l) : l->when & WHENTICKS ? 0 : l->when;
}

static inline bool writes(const RWLock *l)
{
	return atomic_load_explicit(&l->writer, memory_order_relaxed) == selftid();
}

static noinline_fn void rwlocked(RWLock *l, bool write)
{
	if (!timedcounts() || l->shared)
		return;
	LockRecord *r = lockrecordof(&l->link, l);
	if (!r && !(r = lockfirst(l, siteof(l), LockRWLock, &l->link)))
		return;
	if (write) {
		lockcount(r, selftid());
		l->when = ticksnow() | WHENTICKS;
	} else {
		atomic_fetch_add_explicit(&l->counted, 1, memory_order_relaxed);
		locksharedbegins(r);
	}
}

static noinline_fn void rwunlocking(RWLock *l)
{
	LockRecord *r = timedcounts() && !l->shared ? lockrecordof(&l->link, l) : NULL;
	if (!r)
		return;
	if (!writes(l)) {
		if (lockreaderleaves(&l->counted))
			locksharedends(r);
	} else if ((l->when & ~WHENTICKS) && (l->when & WHENTICKS)) {
		lockheld(r, ((ticksnow() - l->when) << 1) >> 1);
		l->when = WHENTICKS;
	}
}

TIMED(int, pthread_rwlock_init, pthread_rwlock_t *pl, const pthread_rwlockattr_t *attr)
{
	RWLock *l = (RWLock *)pl;
	int err = real.pthread_rwlock_init(pl, attr);
	if (!err && l->shared)
		lockmade(l, CALLER());
	else if (!err)
		l->when = CALLER();
	return err;
}

/* Who has it for writing is told so, and does not wait. */
#define RWLOCK(name, trylock, write, refuse, params, args)                                       \
	TIMED(int, pthread_rwlock_##name, UNPACKED params)                                       \
	{                                                                                        \
		RWLock *l = (RWLock *)pl;                                                        \
		int got;                                                                         \
		if ((refuse) || writes(l))                                                       \
			return real.pthread_rwlock_##name args;                                  \
		TRYFIRST(got, real.pthread_rwlock_##trylock(pl), EBUSY,                          \
			 real.pthread_rwlock_##name args, (write) ? WaitRWMutexW : WaitRWMutexR, \
			 l, l->shared ? NULL : &l->link, siteof(l));                             \
		if (unlikely(lockscounted) && got == 0)                                          \
			rwlocked(l, write);                                                      \
		return got;                                                                      \
	}
#define RWLOCKS(lock, trylock, write)                                                \
	RWLOCK(lock, trylock, write, false, (pthread_rwlock_t * pl), (pl))           \
	RWLOCK(timed##lock, trylock, write, refused(CLOCK_REALTIME, abs),            \
	       (pthread_rwlock_t * pl, const struct timespec *abs), (pl, abs))       \
	RWLOCK(clock##lock, trylock, write, refused(clock, abs),                     \
	       (pthread_rwlock_t * pl, clockid_t clock, const struct timespec *abs), \
	       (pl, clock, abs))                                                     \
	TIMED(int, pthread_rwlock_##trylock, pthread_rwlock_t *pl)                   \
	{                                                                            \
		int got = real.pthread_rwlock_##trylock(pl);                         \
		if (unlikely(lockscounted) && got == 0)                              \
			rwlocked((RWLock *)pl, write);                               \
		return got;                                                          \
	}
RWLOCKS(rdlock, tryrdlock, false)
RWLOCKS(wrlock, trywrlock, true)

TIMED(int, pthread_rwlock_unlock, pthread_rwlock_t *l)
{
	if (unlikely(lockscounted))
		rwunlocking((RWLock *)l);
	return real.pthread_rwlock_unlock(l);
}

/* --- conditions ------------------------------------------------------------------------- */

TIMED(int, pthread_cond_init, pthread_cond_t *c, const pthread_condattr_t *attr)
{
	int err = real.pthread_cond_init(c, attr);
	if (!err)
		lockmade(c, CALLER());
	return err;
}

TIMED(int, cnd_init, cnd_t *c)
{
	int r = real.cnd_init(c);
	if (r == thrd_success)
		lockmade(c, CALLER());
	return r;
}

static void relocked(Mutex **m)
{
	if (*m)
		locked(*m);
}

/* The wait for the mutex afterwards is a part of it: libc makes both. */
#define COND(c, m, call)                                                        \
	do {                                                                    \
		bool gives = unlikely(lockscounted) && unlocking((Mutex *)(m)); \
		__attribute__((cleanup(relocked), unused)) Mutex *given =       \
		    gives ? (Mutex *)(m) : NULL;                                \
		LOCKING(WaitCond, c, NULL, lockmaker(c));                       \
		return call;                                                    \
	} while (0)

TIMED(int, pthread_cond_wait, pthread_cond_t *c, pthread_mutex_t *m)
{
	COND(c, m, real.pthread_cond_wait(c, m));
}

TIMED(int, pthread_cond_timedwait, pthread_cond_t *c, pthread_mutex_t *m,
      const struct timespec *abs)
{
	if (refused(CLOCK_REALTIME, abs))
		return real.pthread_cond_timedwait(c, m, abs);
	COND(c, m, real.pthread_cond_timedwait(c, m, abs));
}

TIMED(int, pthread_cond_clockwait, pthread_cond_t *c, pthread_mutex_t *m, clockid_t clock,
      const struct timespec *abs)
{
	if (refused(clock, abs))
		return real.pthread_cond_clockwait(c, m, clock, abs);
	COND(c, m, real.pthread_cond_clockwait(c, m, clock, abs));
}

TIMED(int, cond_wait_old, pthread_cond_t *c, pthread_mutex_t *m)
{
	COND(c, m, real.cond_wait_old(c, m));
}

TIMED(int, cond_timedwait_old, pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *abs)
{
	if (refused(CLOCK_REALTIME, abs))
		return real.cond_timedwait_old(c, m, abs);
	COND(c, m, real.cond_timedwait_old(c, m, abs));
}

TIMED(int, cnd_wait, cnd_t *c, mtx_t *m)
{
	COND(c, m, real.cnd_wait(c, m));
}

TIMED(int, cnd_timedwait, cnd_t *c, mtx_t *m, const struct timespec *abs)
{
	if (refused(CLOCK_REALTIME, abs))
		return real.cnd_timedwait(c, m, abs);
	COND(c, m, real.cnd_timedwait(c, m, abs));
}

/* --- semaphores, barriers, once ---------------------------------------------------------- */

TIMED(int, sem_init, sem_t *s, int shared, unsigned value)
{
	int r = real.sem_init(s, shared, value);
	if (r == 0)
		semmade((Sem *)s, CALLER());
	return r;
}

static int take(sem_t *s)
{
	KEEP_ERRNO;
	return sem_trywait(s);
}

#define SEM(ps, call)                                                                            \
	do {                                                                                     \
		Sem *sem = (Sem *)(ps);                                                          \
		int got;                                                                         \
		TRYFIRST(got, take(ps), -1, call, WaitSem, sem, sem->shared ? NULL : &sem->link, \
			 sem->shared ? lockmaker(sem) : sem->site);                              \
		return got;                                                                      \
	} while (0)

TIMED(int, sem_wait, sem_t *s)
{
	real.pthread_testcancel();
	SEM(s, real.sem_wait(s));
}

TIMED(int, sem_timedwait, sem_t *s, const struct timespec *abs)
{
	if (refused(CLOCK_REALTIME, abs))
		return real.sem_timedwait(s, abs);
	real.pthread_testcancel(); /* sem_clockwait is cancelled only in a wait */
	SEM(s, real.sem_timedwait(s, abs));
}

TIMED(int, sem_clockwait, sem_t *s, clockid_t clock, const struct timespec *abs)
{
	if (refused(clock, abs))
		return real.sem_clockwait(s, clock, abs);
	SEM(s, real.sem_clockwait(s, clock, abs));
}

TIMED(int, pthread_barrier_wait, pthread_barrier_t *b)
{
	WAITING(WaitBarrier);
	return real.pthread_barrier_wait(b);
}

/* Does another run the initialiser? Who runs it itself does not wait. */
static bool running(const int *control)
{
	enum { InProgress = 1, Done = 2 };
	return (__atomic_load_n(control, __ATOMIC_RELAXED) & (InProgress | Done)) == InProgress;
}

TIMED(int, pthread_once, pthread_once_t *control, void (*init)(void))
{
	UNLESS(!running(control), WaitOnce, real.pthread_once(control, init));
}

TIMED(void, call_once, once_flag *flag, void (*init)(void))
{
	timed_pthread_once((pthread_once_t *)flag, init);
}
