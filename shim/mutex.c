/*
 * mutex.c - pthread mutexes of all kinds.
 *
 * Free and uncontended, a mutex is one compare-and-swap of its word, as libc's;
 * who has to wait is parked by the mutex's address, as in Go's sync.Mutex, whose
 * two modes these are. Normally the unlocker frees the word and wakes the first
 * waiter, which then competes with whoever comes by: a thread that is running
 * anyway gets the mutex without a switch. A waiter that was woken and has lost against
 * such ones for a millisecond is handed the mutex instead (starvation), so the tail of the
 * waiting times is bounded. While one woken waiter is on its way no other is woken.
 *
 * Rejected: libc's protocol with the futex call replaced (0, 1, 2: the word says 2
 * for too long, and nothing bounds how often a waiter loses); always handing over
 * (every contended unlock costs two switches); handing over to whoever has waited for long,
 * woken before or not: once a thousand wait each gets the mutex so, and stays a waiter for ever,
 * since nobody who runs anyway finds it free. An acceptor that locked it once a connection
 * took 15 connections a second then.
 *
 * Robust, priority-inheriting and priority-protected mutexes live on the kernel's
 * knowledge of thread ids: the real functions run for them, with the goroutine
 * wired to its kernel thread while it holds one. So do shared recursive and
 * error-checking ones, whose owner must be unique in all processes. Other
 * shared ones follow libc's protocol here, to wait as goroutines wait.
 */
#include "sync.h"

#include <linux/futex.h>
#include <sys/single_threaded.h>

#include "deadline.h"
#include "pin.h"
#include "sched.h"
#include "signal.h"
#include "tls.h"

uint32_t forkgen = 1;

/*
 * word of a mutex that is ours:
 *   Locked    somebody has it (or was handed it and has not run yet)
 *   Waiters   somebody may be in the queue; set by a waiter under the queue's
 *             lock, cleared by whoever finds the queue empty
 *   forkgen in the bits above: the waiter that was woken last is on its way and
 *             will lock, or queue again; not so if it is another forkgen
 * All zero: free.
 */
enum { Locked = 1, Waiters = 2, WokenShift = 8, WokenMask = -1u << WokenShift };

/* word of a shared mutex: libc's. In that of one with a ceiling this has the upper bits. */
enum { HeldMask = (1 << 19) - 1 };
enum { SharedFree = 0, SharedLocked = 1, SharedWaiters = 2 };

/* A waiter that was woken and has lost for so long is handed the mutex. As Go's starvationThresholdNs. */
enum { StarvationNs = 1000000 };

/* How long to wait, and for which clock's time; abs NULL: for ever. */
typedef struct Limit {
	clockid_t clock;
	const struct timespec *abs;
} Limit;

/* A goroutine that waits; on its stack, pointed to by its tag in the queue. */
typedef struct Waiter {
	Mutex *m;
	int64_t since; /* nanotime() when it was woken in vain for the first time; 0: never */
	bool woken;    /* it is the one that word's upper bits speak of */
	bool granted;  /* unlocker, under the queue's lock: the mutex is yours */
} Waiter;

static inline int kindof(const Mutex *m)
{
	return atomic_load_explicit(&m->kind, memory_order_relaxed);
}

/* One of ours that its owner alone can unlock. */
static inline bool checksowner(int kind)
{
	int type = kind & KindTypeMask;
	return type == PTHREAD_MUTEX_RECURSIVE || type == PTHREAD_MUTEX_ERRORCHECK;
}

static inline uint32_t wokennow(void)
{
	return forkgen << WokenShift;
}

static inline bool singlethreaded(void)
{
	return __libc_single_threaded;
}

static inline bool cas(Mutex *m, uint32_t *v, uint32_t nv, memory_order order)
{
	return atomic_compare_exchange_strong_explicit(&m->word, v, nv, order,
						       memory_order_relaxed);
}

static inline bool lock_atomic(Mutex *m)
{
	uint32_t free = 0;
	return cas(m, &free, Locked, memory_order_acquire);
}

/* Free to Locked, if it is all free. Not for shared ones, which another process may
 * be about to lock. */
static inline bool lock_fast(Mutex *m)
{
	if (singlethreaded() && atomic_load_explicit(&m->word, memory_order_relaxed) == 0) {
		atomic_store_explicit(&m->word, Locked, memory_order_relaxed);
		return true;
	}
	return lock_atomic(m);
}

/* Locked to free, if nobody waits. */
static inline bool unlock_fast(Mutex *m)
{
	uint32_t locked = Locked;
	if (singlethreaded() && atomic_load_explicit(&m->word, memory_order_relaxed) == Locked) {
		atomic_store_explicit(&m->word, 0, memory_order_relaxed);
		return true;
	}
	return cas(m, &locked, 0, memory_order_release);
}

/* word without the promise of a waiter, if it is ours or nobody's any more. */
static inline uint32_t dropwoken(uint32_t v, bool ours)
{
	return ours || (v & WokenMask) != wokennow() ? v & ~WokenMask : v;
}

/* Under the queue's lock: takes the mutex if it has become free, else tells that we wait. */
static bool lockcheck(void *arg)
{
	Waiter *w = arg;
	uint32_t v = atomic_load_explicit(&w->m->word, memory_order_relaxed);
	for (;;) {
		uint32_t nv = dropwoken(v, w->woken) | (v & Locked ? Waiters : Locked);
		if (cas(w->m, &v, nv, memory_order_acquire)) {
			w->woken = false;
			return v & Locked;
		}
	}
}

static bool lock_try(Mutex *m, bool woken)
{
	uint32_t v = atomic_load_explicit(&m->word, memory_order_relaxed);
	while (!(v & Locked)) {
		if (cas(m, &v, dropwoken(v, woken) | Locked, memory_order_acquire))
			return true;
	}
	return false;
}

/*
 * Waits for the mutex: 0, ETIMEDOUT, or EINVAL for a bad time. Signal handlers of
 * the goroutine run meanwhile; the wait goes on after them.
 */
static int waitlock(Mutex *m, Limit limit, LockWait *lw, Contention *c)
{
	Waiter w = {.m = m};
	int64_t deadline = FOREVER;
	int flags = ParkIntr;

	if (lock_try(m, false))
		return 0;
	if (limit.abs && !validtimespec(limit.abs))
		return EINVAL;
	lockcontended(c, m, WaitMutex, &m->contended, &m->link, mutexsite(m));
	deadline = deadlineat(limit.clock, limit.abs);
	for (;;) {
		if (!limit.abs)
			lockwait(lw);
		int r = semapark(m, lockcheck, NULL, &w, (uintptr_t)&w, WaitMutex, deadline, flags);
		parkedfor(c);
		switch (r) {
		case 0:
			w.woken = true;
			if (w.granted || lock_try(m, true))
				return 0;
			if (w.since == 0)
				w.since = nanotime();
			break;
		case -EAGAIN: return 0;
		case -ETIMEDOUT:
			if (deadlinepassed(limit.clock, limit.abs))
				return ETIMEDOUT;
			deadline = deadlineat(limit.clock, limit.abs);
			break;
		case -EINTR:
			lockwaitends(lw);
			(void)sigdeliver(true);
			break;
		default: throw("mutex: semapark failed");
		}
		/* It has been in the queue: back to its head. */
		flags |= ParkLIFO;
	}
}

static noinline_fn int lock_slow(Mutex *m, Limit limit)
{
	LockWait lw = {.lock = m,
		       .owner = &m->owner,
		       .why = WaitMutex,
		       .strict = checksowner(kindof(m)),
		       .relock = m->heldright};
	Contention c = {NULL, 0, 0};
	int err = waitlock(m, limit, &lw, &c);
	lockwaitends(&lw);
	contentionends(&c, err == 0);
	return err;
}

typedef struct Unlock {
	Mutex *m;
	bool handoff;
} Unlock;

static int unlockpick(void *arg, uint64_t tag)
{
	Unlock *u = arg;
	Waiter *w = (Waiter *)(uintptr_t)tag;
	if (w->since != 0 && nanotime() - w->since >= StarvationNs)
		u->handoff = w->granted = true;
	return 1;
}

/* Under the queue's lock, the word Locked|Waiters: nobody else changes it. Its store gives
 * the mutex, and its memory, away. */
static void unlockdone(void *arg, int woken, int left)
{
	Unlock *u = arg;
	uint32_t v = left ? Waiters : 0;
	if (u->handoff)
		v |= Locked;
	else if (woken)
		v |= wokennow();
	atomic_store_explicit(&u->m->word, v, memory_order_release);
}

/* Frees the mutex and wakes a waiter, or hands it over. */
static noinline_fn void unlock_slow(Mutex *m)
{
	uint32_t v = atomic_load_explicit(&m->word, memory_order_relaxed);
	bool recursive = (kindof(m) & KindTypeMask) == PTHREAD_MUTEX_RECURSIVE;
	if (unlikely(!recursive && m->count != selftid()))
		lockhanded();
	else if (unlikely(!m->heldright))
		m->heldright = true;
	while (v & Locked) {
		if ((v & Waiters) && (v & WokenMask) != wokennow()) {
			Unlock u = {.m = m};
			semaready(m, 1, unlockpick, unlockdone, &u, ParkHandoff);
			return;
		}
		if (cas(m, &v, v & ~Locked, memory_order_release))
			return;
	}
}

/* --- shared between processes: libc's protocol --------------------------------- */

static int sharedlock_slow(Mutex *m, Limit limit)
{
	int op = FUTEX_WAIT_BITSET;
	if (limit.abs) {
		if (!validtimespec(limit.abs))
			return EINVAL;
		if (limit.abs->tv_sec < 0)
			return ETIMEDOUT;
		if (limit.clock == CLOCK_REALTIME)
			op |= FUTEX_CLOCK_REALTIME;
	}
	__attribute__((cleanup(kernelwaitends), unused)) KernelWait w =
	    kernelwait(m, WaitMutex, true);
	while (atomic_exchange_explicit(&m->word, SharedWaiters, memory_order_acquire) !=
	       SharedFree) {
		long r = blockingsyscall(SYS_futex, (long)&m->word, op, SharedWaiters,
					 (long)limit.abs, 0, (long)FUTEX_BITSET_MATCH_ANY);
		if (r == -ETIMEDOUT)
			return ETIMEDOUT;
		if (r == -EINTR)
			(void)sigdeliver(true);
	}
	return 0;
}

static void sharedunlock(Mutex *m)
{
	if (atomic_exchange_explicit(&m->word, SharedFree, memory_order_release) > SharedLocked) {
		KEEP_ERRNO;
		real.syscall(SYS_futex, &m->word, FUTEX_WAKE, 1, NULL, NULL, 0);
	}
}

/* --- owners ----------------------------------------------------------------------------- */

/* Of our protocol, and without a check of the owner. */
static inline bool isplain(int kind)
{
	return !(kind & ~KindElision);
}

static inline bool isours(int kind)
{
	return !(kind & ~(KindTypeMask | KindElision));
}

/* Normal or adaptive, shared between processes, and nothing else. */
static inline bool isshared(int kind)
{
	int type = kind & KindTypeMask;
	return (kind & ~(KindTypeMask | KindElision)) == KindShared &&
	       (type == PTHREAD_MUTEX_NORMAL || type == PTHREAD_MUTEX_ADAPTIVE_NP);
}

static inline void setowner(Mutex *m, uint32_t tid)
{
	atomic_store_explicit(&m->owner, tid, memory_order_relaxed);
}

static inline bool owned(Mutex *m)
{
	return atomic_load_explicit(&m->owner, memory_order_relaxed) == selftid();
}

/* Its holder locks a mutex again: 0 or an error. -1: the caller is not the holder, or it is of
 * the kinds that wait for themselves. */
static inline int relock(Mutex *m, int kind)
{
	int type = kind & KindTypeMask;
	if (type == PTHREAD_MUTEX_RECURSIVE && owned(m)) {
		if (m->count + 1 == 0)
			return EAGAIN;
		m->count++;
		return 0;
	}
	if (type == PTHREAD_MUTEX_ERRORCHECK && owned(m))
		return EDEADLK;
	return -1;
}

noinline_fn void mutextaken(Mutex *m, uint32_t tid)
{
	LockRecord *r = lockrecordof(&m->link, m);
	if (!r && mutexisours(m))
		r = lockfirst(m, mutexsite(m), LockMutex, &m->link);
	if (!r)
		return;
	lockcount(r, tid);
	atomic_store_explicit(&m->when, ticksnow() | 1ull << WhenTicks, memory_order_relaxed);
}

noinline_fn void mutexgiven(Mutex *m)
{
	uint64_t w = atomic_load_explicit(&m->when, memory_order_relaxed);
	LockRecord *r = lockrecordof(&m->link, m);
	if (!r || !(w >> WhenTicks))
		return;
	/* (The upper bit is lost in the shift.) */
	lockheld(r, ((ticksnow() - w) << 1) >> 1);
	atomic_store_explicit(&m->when, 1ull << WhenTicks, memory_order_relaxed);
}

/* The caller has got the mutex, not a recursive one. */
static inline int locked(Mutex *m, uint32_t users)
{
	uint32_t tid = selftid();
	setowner(m, tid);
	if (unlikely(lockscounted))
		mutextaken(m, tid);
	m->count = tid;
	m->nusers += users;
	return 0;
}

/* Any. */
static inline int lockedkind(Mutex *m, int kind, uint32_t users)
{
	locked(m, users);
	if ((kind & KindTypeMask) == PTHREAD_MUTEX_RECURSIVE)
		m->count = 1;
	return 0;
}

/* --- the real functions ---------------------------------------------------------- */

/* The real functions count users, too, but a condition wait stays one: called by the holder. */
static void stayuser(Mutex *m, uint32_t by)
{
	int type = kindof(m) & KindTypeMask;
	if (type != PTHREAD_MUTEX_RECURSIVE || m->count == 1)
		m->nusers += by;
}

/* Whoever ends with it, only the kernel can tell those that wait. */
static void inheriting(const Mutex *m, int by)
{
	Thread *th = curthread();
	if (th && (kindof(m) & (KindInherit | KindRobust)) == KindInherit)
		th->inheriting += by;
}

/* By the caller, whose id there is the kernel's. */
static bool heldhere(const Mutex *m)
{
	return atomic_load_explicit(&m->owner, memory_order_relaxed) == (uint32_t)sys0(SYS_gettid);
}

/* A goroutine that holds such a mutex stays on its kernel thread, once for each lock. */
static int wiredlock(pthread_mutex_t *pm, Limit limit, bool wait, uint32_t users)
{
	int err;
	/* If it ends as the owner, so must its kernel thread (robustexit). */
	if (kindof((Mutex *)pm) & KindInherit)
		avoidmain();
	wire();
	/* Somebody's, unless it is a ceiling; a hint. */
	uint32_t held = atomic_load_explicit(&((Mutex *)pm)->word, memory_order_relaxed) & HeldMask;
	bool waits = wait && held && !heldhere((Mutex *)pm);
	KernelWait w = kernelwait(pm, WaitMutex, waits);
	bracketwait(waits);
	if (!wait)
		err = real.pthread_mutex_trylock(pm);
	else if (!limit.abs)
		err = real.pthread_mutex_lock(pm);
	else
		err = real.pthread_mutex_clocklock(pm, limit.clock, limit.abs);
	if (!users && (err == 0 || err == EOWNERDEAD))
		stayuser((Mutex *)pm, -1u);
	bracketleave();
	kernelwaitends(&w);
	if (err && err != EOWNERDEAD)
		unwire();
	else
		inheriting((Mutex *)pm, 1);
	return err;
}

static int wiredunlock(pthread_mutex_t *pm, uint32_t users)
{
	Mutex *m = (Mutex *)pm;
	bracketenter();
	bool held = !users && heldhere(m); /* only its holder may write to it */
	if (held)
		stayuser(m, 1);
	int err = real.pthread_mutex_unlock(pm);
	if (held && err)
		stayuser(m, -1u);
	bracketleave();
	if (err == EPERM || err == EINVAL)
		return err;
	inheriting(m, -1);
	unwire();
	return err;
}

/* --- the interface ----------------------------------------------------------------------- */

/* All kinds. `users`: 1, or 0 for a condition wait, which has stayed a user. */
static noinline_fn int lock_kinds(Mutex *m, Limit limit, uint32_t users)
{
	int kind = kindof(m);
	int err;
	if (likely(isours(kind))) {
		err = relock(m, kind);
		if (err >= 0)
			return err;
		err = lock_fast(m) ? 0 : lock_slow(m, limit);
	} else if (kind < 0) { /* destroyed */
		return EINVAL;
	} else if (isshared(kind)) {
		err = lock_atomic(m) ? 0 : sharedlock_slow(m, limit);
	} else {
		return wiredlock((pthread_mutex_t *)m, limit, true, users);
	}
	return err ? err : lockedkind(m, kind, users);
}

/* The kinds that are not ours. */
static noinline_fn int unlock_libc(Mutex *m, int kind, uint32_t users)
{
	if (kind < 0)
		return EINVAL;
	if (!isshared(kind))
		return wiredunlock((pthread_mutex_t *)m, users);
	setowner(m, 0);
	m->nusers -= users;
	sharedunlock(m);
	return 0;
}

/* All kinds, for good or (users 0) for a condition wait. */
static inline int unlock_kinds(Mutex *m, uint32_t users)
{
	int kind = kindof(m);
	if (unlikely(!isplain(kind))) {
		int type = kind & KindTypeMask;
		if (!isours(kind))
			return unlock_libc(m, kind, users);
		/* Who unlocks a normal mutex that another holds unlocks it, as with libc. */
		if (type != PTHREAD_MUTEX_ADAPTIVE_NP && !owned(m))
			return EPERM;
		if (type == PTHREAD_MUTEX_RECURSIVE && --m->count != 0)
			return 0;
	}
	if (unlikely(lockscounted))
		mutexgiven(m);
	setowner(m, 0);
	m->nusers -= users;
	if (unlikely(!unlock_fast(m)))
		unlock_slow(m);
	return 0;
}

void mutexmade(Mutex *m, uintptr_t site)
{
	if (mutexisours(m))
		atomic_store_explicit(&m->when, site, memory_order_relaxed);
	else
		lockmade(m, site);
}

SHIM(int, pthread_mutex_init, pthread_mutex_t *pm, const pthread_mutexattr_t *attr)
{
	int err = real.pthread_mutex_init(pm, attr);
	if (!err)
		mutexmade((Mutex *)pm, CALLER());
	return err;
}

SHIM(int, pthread_mutex_lock, pthread_mutex_t *pm)
{
	Mutex *m = (Mutex *)pm;
	int kind = kindof(m);
	if (unlikely(!isplain(kind))) {
		int err = isours(kind) ? relock(m, kind) : -1;
		if (err >= 0)
			return err;
		if (isours(kind) && lock_fast(m))
			return lockedkind(m, kind, 1);
	} else if (likely(lock_fast(m))) {
		return locked(m, 1);
	}
	return lock_kinds(m, (Limit){0}, 1);
}

SHIM(int, pthread_mutex_clocklock, pthread_mutex_t *pm, clockid_t clock, const struct timespec *abs)
{
	if (!waitclock(clock))
		return EINVAL;
	return lock_kinds((Mutex *)pm, (Limit){clock, abs}, 1);
}

SHIM(int, pthread_mutex_timedlock, pthread_mutex_t *pm, const struct timespec *abs)
{
	return lock_kinds((Mutex *)pm, (Limit){CLOCK_REALTIME, abs}, 1);
}

SHIM(int, pthread_mutex_trylock, pthread_mutex_t *pm)
{
	Mutex *m = (Mutex *)pm;
	int kind = kindof(m);
	if (likely(isours(kind))) {
		if ((kind & KindTypeMask) == PTHREAD_MUTEX_RECURSIVE && owned(m))
			return relock(m, kind);
		if (likely(lock_fast(m) || lock_try(m, false)))
			return lockedkind(m, kind, 1);
		goyieldasked();
		return EBUSY;
	}
	if (kind < 0)
		return EINVAL;
	if (isshared(kind))
		return lock_atomic(m) ? locked(m, 1) : EBUSY;
	return wiredlock(pm, (Limit){0}, false, 1);
}

SHIM(int, pthread_mutex_unlock, pthread_mutex_t *pm)
{
	return unlock_kinds((Mutex *)pm, 1);
}

int mutexcondunlock(Mutex *m)
{
	return unlock_kinds(m, 0);
}

int mutexcondlock(Mutex *m)
{
	return lock_kinds(m, (Limit){0}, 0);
}

SHIM(int, pthread_mutex_consistent, pthread_mutex_t *pm)
{
	bracketenter();
	int err = real.pthread_mutex_consistent(pm);
	bracketleave();
	return err;
}

SHIM(int, pthread_mutex_setprioceiling, pthread_mutex_t *pm, int ceiling, int *old)
{
	bracketenter();
	int err = real.pthread_mutex_setprioceiling(pm, ceiling, old);
	bracketleave();
	return err;
}
