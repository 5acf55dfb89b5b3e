/*
 * rwlock.c - read-write locks.
 *
 * One word holds the number of readers, or that a writer holds the lock, and
 * whether readers or writers are queued; uncontended, each operation is one
 * compare-and-swap. Readers and writers have a queue each, by the addresses of
 * different fields. Who unlocks with waiters hands the lock over: to the first
 * writer, or to all readers of the queue. No waiter competes again, so none can
 * be passed by for ever once it is its kind's turn.
 *
 * Whose turn it is follows libc: a lock of the default kind prefers readers (new
 * readers pass waiting writers while readers hold the lock, and so may recurse);
 * PREFER_WRITER_NONRECURSIVE_NP makes new readers wait for waiting writers.
 * PREFER_WRITER_NP is as the default in libc, and here.
 *
 * Shared locks are libc's: the real functions run, and the goroutine is wired
 * while it writes, since libc keeps the kernel's id of the writer.
 */
#include "sync.h"

#include <limits.h>

#include "deadline.h"
#include "sched.h"
#include "signal.h"
#include "tls.h"

/*
 * word:
 *   Writer         a writer holds the lock; no readers then
 *   ReadersQueued  readers may be in the queue
 *   WritersQueued  writers may be in the queue
 *   below          number of readers that hold it
 */
enum { Writer = 1u << 31, ReadersQueued = 1u << 30, WritersQueued = 1u << 29 };
enum { ReadersMax = WritersQueued - 1 };

typedef struct RWLock {
	_Atomic uint32_t word;
	_Atomic uint32_t contended; /* how often somebody had to wait */
	LockLink link;
	_Atomic uint32_t counted; /* readers whose locking was */
	uint64_t since;           /* writer only, ticks: when it got it; 0: not counted */
	_Atomic uint32_t writer;  /* selftid() of the writer that holds it, or 0 */
	int32_t shared;
	uint64_t site; /* what has initialised it, or 0 */
	uint64_t pad2;
	uint32_t kind;
	uint32_t pad3;
} RWLock;
_Static_assert(sizeof(RWLock) == sizeof(pthread_rwlock_t), "RWLock lies over pthread_rwlock_t");
_Static_assert(offsetof(RWLock, writer) == offsetof(pthread_rwlock_t, __data.__cur_writer), "");
_Static_assert(offsetof(RWLock, contended) == offsetof(pthread_rwlock_t, __data.__writers),
	       "layout.c");
_Static_assert(offsetof(RWLock, shared) == offsetof(pthread_rwlock_t, __data.__shared), "shared");
_Static_assert(offsetof(RWLock, kind) == offsetof(pthread_rwlock_t, __data.__flags), "kind");

typedef struct Limit {
	clockid_t clock;
	const struct timespec *abs;
} Limit;

static inline uint32_t load(RWLock *l)
{
	return atomic_load_explicit(&l->word, memory_order_relaxed);
}

static inline bool cas(RWLock *l, uint32_t *v, uint32_t nv)
{
	return atomic_compare_exchange_weak_explicit(&l->word, v, nv, memory_order_acq_rel,
						     memory_order_relaxed);
}

static inline bool preferswriters(const RWLock *l)
{
	return l->kind == PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP;
}

/* May a reader enter at v? While nobody holds the lock, queued writers have not been handed it
 * (they may be gone since a fork): then it may. */
static inline bool mayread(const RWLock *l, uint32_t v)
{
	if (v & Writer)
		return false;
	return !(v & WritersQueued) || (v & ReadersMax) == 0 || !preferswriters(l);
}

static inline bool maywrite(uint32_t v)
{
	return !(v & (Writer | ReadersMax));
}

/* Under the queue's lock: enters, or tells that a reader waits. */
static bool readcheck(void *arg)
{
	RWLock *l = arg;
	uint32_t v = load(l);
	for (;;) {
		bool enter = mayread(l, v) && (v & ReadersMax) != ReadersMax;
		if (cas(l, &v, enter ? v + 1 : v | ReadersQueued))
			return !enter;
	}
}

static bool writecheck(void *arg)
{
	RWLock *l = arg;
	uint32_t v = load(l);
	for (;;) {
		bool enter = maywrite(v);
		if (cas(l, &v, enter ? v | Writer : v | WritersQueued))
			return !enter;
	}
}

static inline const void *readerqueue(RWLock *l)
{
	return &l->word;
}

static inline const void *writerqueue(RWLock *l)
{
	return &l->writer;
}

/* The caller's hold on the lock, on its way to waiters. */
typedef struct Wake {
	RWLock *l;
	uint32_t held; /* Writer, 1 for a reader, 0: nothing (any more) */
} Wake;

/* Under the readers' queue lock: one more reader, in the caller's place. */
static int readpick(void *arg, uint64_t tag)
{
	(void)tag;
	Wake *w = arg;
	uint32_t v = load(w->l);
	do {
		if (!w->held && !mayread(w->l, v))
			return -1;
		if (((v - w->held) & ReadersMax) == ReadersMax)
			return -1;
	} while (!cas(w->l, &v, v - w->held + 1));
	w->held = 0;
	return 1;
}

/* Under the writers' queue lock: this writer in the caller's place, unless others have come. */
static int writepick(void *arg, uint64_t tag)
{
	(void)tag;
	Wake *w = arg;
	uint32_t v = load(w->l);
	do {
		if (!maywrite(v - w->held))
			return -1;
	} while (!cas(w->l, &v, (v - w->held) | Writer));
	w->held = 0;
	return 1;
}

static void readdone(void *arg, int woken, int left)
{
	(void)woken;
	Wake *w = arg;
	if (!left)
		atomic_fetch_and_explicit(&w->l->word, ~(uint32_t)ReadersQueued,
					  memory_order_relaxed);
}

static void writedone(void *arg, int woken, int left)
{
	(void)woken;
	Wake *w = arg;
	if (!left)
		atomic_fetch_and_explicit(&w->l->word, ~(uint32_t)WritersQueued,
					  memory_order_relaxed);
}

/* Gives up the caller's hold: to waiters if it is the last. */
static noinline_fn void release_slow(RWLock *l, uint32_t held)
{
	Wake w = {.l = l, .held = held};
	uint32_t v = load(l);
	while (w.held) {
		bool last = maywrite(v - held);
		if (!last || !(v & (ReadersQueued | WritersQueued))) {
			if (cas(l, &v, v - held))
				return;
			continue;
		}
		bool readersfirst = held == Writer && !preferswriters(l);
		if ((v & ReadersQueued) && (readersfirst || !(v & WritersQueued)))
			semaready(readerqueue(l), INT_MAX, readpick, readdone, &w, ParkHandoff);
		else
			semaready(writerqueue(l), 1, writepick, writedone, &w, ParkHandoff);
		if (w.held)
			v = load(l);
	}
}

/* A writer has left the queue by itself: readers that waited only for writers may enter. */
static void writerleft(RWLock *l)
{
	Wake w = {.l = l};
	semaready(writerqueue(l), 0, NULL, writedone, &w, 0);
	if (!(load(l) & (Writer | WritersQueued)) && (load(l) & ReadersQueued))
		semaready(readerqueue(l), INT_MAX, readpick, readdone, &w, ParkHandoff);
}

static int waitqueued(RWLock *l, bool write, Limit limit, LockWait *lw, Contention *c)
{
	int64_t deadline = deadlineat(limit.clock, limit.abs);
	int flags = ParkIntr;
	lockcontended(c, l, lw->why, &l->contended, &l->link, l->site);
	for (;;) {
		int r;
		if (!limit.abs)
			lockwait(lw);
		if (write)
			r = semapark(writerqueue(l), writecheck, NULL, l, 0, WaitRWMutexW, deadline,
				     flags);
		else
			r = semapark(readerqueue(l), readcheck, NULL, l, 0, WaitRWMutexR, deadline,
				     flags);
		parkedfor(c);
		if (r == 0 || r == -EAGAIN)
			return 0;
		if (r == -ETIMEDOUT && deadlinepassed(limit.clock, limit.abs)) {
			if (write)
				writerleft(l);
			return ETIMEDOUT;
		}
		lockwaitends(lw);
		if (r == -EINTR)
			(void)sigdeliver(true);
		else
			deadline = deadlineat(limit.clock, limit.abs);
		flags |= ParkLIFO;
	}
}

/* Waits as a writer or a reader: 0 with the lock, or ETIMEDOUT. */
static int queuewait(RWLock *l, bool write, Limit limit)
{
	LockWait lw = {.lock = l, .owner = &l->writer, .why = write ? WaitRWMutexW : WaitRWMutexR};
	Contention c = {NULL, 0, 0};
	int err = waitqueued(l, write, limit, &lw, &c);
	lockwaitends(&lw);
	contentionends(&c, false);
	return err;
}

static inline bool iswriter(RWLock *l)
{
	return atomic_load_explicit(&l->writer, memory_order_relaxed) == selftid();
}

static noinline_fn int read_slow(RWLock *l, Limit limit)
{
	uint32_t v = load(l);
	for (;;) {
		if ((v & Writer) && iswriter(l))
			return EDEADLK;
		if (!mayread(l, v))
			return queuewait(l, false, limit);
		if ((v & ReadersMax) == ReadersMax)
			return EAGAIN;
		if (cas(l, &v, v + 1))
			return 0;
	}
}

static noinline_fn int write_slow(RWLock *l, Limit limit)
{
	uint32_t v = load(l);
	while (maywrite(v)) {
		if (cas(l, &v, v | Writer))
			return 0;
	}
	if ((v & Writer) && iswriter(l))
		return EDEADLK;
	return queuewait(l, true, limit);
}

static inline void setwriter(RWLock *l, uint32_t tid)
{
	atomic_store_explicit(&l->writer, tid, memory_order_relaxed);
}

/* --- each lock counted ---------------------------------------------------------------- */

static LockRecord *recordof(RWLock *l)
{
	LockRecord *r = lockrecordof(&l->link, l);
	return r ? r : lockfirst(l, l->site, LockRWLock, &l->link);
}

static noinline_fn void countwriter(RWLock *l)
{
	LockRecord *r = recordof(l);
	l->since = 0;
	if (!r)
		return;
	lockcount(r, selftid());
	l->since = ticksnow();
}

static noinline_fn void countwriterleaves(RWLock *l)
{
	LockRecord *r = lockrecordof(&l->link, l);
	if (r && l->since)
		lockheld(r, ticksnow() - l->since);
	l->since = 0;
}

static noinline_fn void countreader(RWLock *l)
{
	LockRecord *r = recordof(l);
	if (!r)
		return;
	atomic_fetch_add_explicit(&l->counted, 1, memory_order_relaxed);
	locksharedbegins(r);
}

static noinline_fn void countreaderleaves(RWLock *l)
{
	LockRecord *r = lockrecordof(&l->link, l);
	if (lockreaderleaves(&l->counted) && r)
		locksharedends(r);
}

static int writelock(RWLock *l, Limit limit)
{
	uint32_t v = 0;
	if (unlikely(!atomic_compare_exchange_strong_explicit(&l->word, &v, Writer,
							      memory_order_acquire,
							      memory_order_relaxed))) {
		int err = write_slow(l, limit);
		if (err)
			return err;
	}
	setwriter(l, selftid());
	if (unlikely(lockscounted))
		countwriter(l);
	return 0;
}

static int readlock(RWLock *l, Limit limit)
{
	uint32_t v = load(l);
	bool fast = likely(!(v & ~(uint32_t)(ReadersMax >> 1))) && likely(cas(l, &v, v + 1));
	int err = fast ? 0 : read_slow(l, limit);
	if (unlikely(lockscounted) && err == 0)
		countreader(l);
	return err;
}

/* --- shared between processes: libc's ------------------------------------------------ */

/* In libc's word: 1 is the writers' phase, 2 that a writer has it or is next, the rest are readers. */
enum { LibcPhase = 1, LibcWriter = 2 };

static noinline_fn int sharedread(pthread_rwlock_t *pl, Limit limit, bool wait)
{
	int err;
	bool waits = wait && (load((RWLock *)pl) & LibcWriter);
	KernelWait w = kernelwait(pl, WaitRWMutexR, waits);
	bracketwait(waits);
	if (!wait)
		err = real.pthread_rwlock_tryrdlock(pl);
	else if (limit.abs)
		err = real.pthread_rwlock_clockrdlock(pl, limit.clock, limit.abs);
	else
		err = real.pthread_rwlock_rdlock(pl);
	bracketleave();
	kernelwaitends(&w);
	return err;
}

static noinline_fn int sharedwrite(pthread_rwlock_t *pl, Limit limit, bool wait)
{
	int err;
	wire();
	bool waits = wait && (load((RWLock *)pl) & ~(uint32_t)LibcPhase);
	KernelWait w = kernelwait(pl, WaitRWMutexW, waits);
	bracketwait(waits);
	if (!wait)
		err = real.pthread_rwlock_trywrlock(pl);
	else if (limit.abs)
		err = real.pthread_rwlock_clockwrlock(pl, limit.clock, limit.abs);
	else
		err = real.pthread_rwlock_wrlock(pl);
	bracketleave();
	kernelwaitends(&w);
	if (err)
		unwire();
	return err;
}

static noinline_fn int sharedunlock(pthread_rwlock_t *pl)
{
	bracketenter();
	bool writes = iswriter((RWLock *)pl);
	int err = real.pthread_rwlock_unlock(pl);
	bracketleave();
	if (writes)
		unwire();
	return err;
}

/* --- the interface ------------------------------------------------------------------- */

static inline bool validlimit(Limit limit)
{
	return waitclock(limit.clock) && validtimespec(limit.abs);
}

SHIM(int, pthread_rwlock_init, pthread_rwlock_t *pl, const pthread_rwlockattr_t *attr)
{
	RWLock *l = (RWLock *)pl;
	int err = real.pthread_rwlock_init(pl, attr);
	if (!err && l->shared)
		lockmade(l, CALLER());
	else if (!err)
		l->site = CALLER();
	return err;
}

SHIM(int, pthread_rwlock_rdlock, pthread_rwlock_t *pl)
{
	RWLock *l = (RWLock *)pl;
	if (unlikely(l->shared))
		return sharedread(pl, (Limit){0}, true);
	return readlock(l, (Limit){0});
}

SHIM(int, pthread_rwlock_clockrdlock, pthread_rwlock_t *pl, clockid_t clock,
     const struct timespec *abs)
{
	RWLock *l = (RWLock *)pl;
	Limit limit = {clock, abs};
	if (!validlimit(limit))
		return EINVAL;
	return l->shared ? sharedread(pl, limit, true) : readlock(l, limit);
}

SHIM(int, pthread_rwlock_timedrdlock, pthread_rwlock_t *pl, const struct timespec *abs)
{
	return shim_pthread_rwlock_clockrdlock(pl, CLOCK_REALTIME, abs);
}

SHIM(int, pthread_rwlock_tryrdlock, pthread_rwlock_t *pl)
{
	RWLock *l = (RWLock *)pl;
	if (unlikely(l->shared))
		return sharedread(pl, (Limit){0}, false);
	uint32_t v = load(l);
	do {
		if (!mayread(l, v)) {
			goyieldasked();
			return EBUSY;
		}
		if ((v & ReadersMax) == ReadersMax)
			return EAGAIN;
	} while (!cas(l, &v, v + 1));
	if (unlikely(lockscounted))
		countreader(l);
	return 0;
}

SHIM(int, pthread_rwlock_wrlock, pthread_rwlock_t *pl)
{
	RWLock *l = (RWLock *)pl;
	if (unlikely(l->shared))
		return sharedwrite(pl, (Limit){0}, true);
	return writelock(l, (Limit){0});
}

SHIM(int, pthread_rwlock_clockwrlock, pthread_rwlock_t *pl, clockid_t clock,
     const struct timespec *abs)
{
	RWLock *l = (RWLock *)pl;
	Limit limit = {clock, abs};
	if (!validlimit(limit))
		return EINVAL;
	return l->shared ? sharedwrite(pl, limit, true) : writelock(l, limit);
}

SHIM(int, pthread_rwlock_timedwrlock, pthread_rwlock_t *pl, const struct timespec *abs)
{
	return shim_pthread_rwlock_clockwrlock(pl, CLOCK_REALTIME, abs);
}

SHIM(int, pthread_rwlock_trywrlock, pthread_rwlock_t *pl)
{
	RWLock *l = (RWLock *)pl;
	if (unlikely(l->shared))
		return sharedwrite(pl, (Limit){0}, false);
	uint32_t v = load(l);
	do {
		if (!maywrite(v)) {
			goyieldasked();
			return EBUSY;
		}
	} while (!cas(l, &v, v | Writer));
	setwriter(l, selftid());
	if (unlikely(lockscounted))
		countwriter(l);
	return 0;
}

SHIM(int, pthread_rwlock_unlock, pthread_rwlock_t *pl)
{
	RWLock *l = (RWLock *)pl;
	if (unlikely(l->shared))
		return sharedunlock(pl);
	uint32_t v = load(l);
	uint32_t held = 1;
	if (v & Writer) {
		held = Writer;
		if (unlikely(v & (ReadersQueued | WritersQueued)) && !iswriter(l))
			lockhanded();
		if (unlikely(lockscounted))
			countwriterleaves(l);
		setwriter(l, 0);
	} else if (unlikely(lockscounted)) {
		countreaderleaves(l);
	}
	/* Alone, or not the last, with nobody queued: just go. */
	if (unlikely(v & (ReadersQueued | WritersQueued)) || !cas(l, &v, v - held))
		release_slow(l, held);
	return 0;
}
