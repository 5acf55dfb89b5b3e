/*
 * sync.h - the layouts of the synchronization objects, and what their files
 * share.
 *
 * Every object keeps the size of libc's and the meaning of the fields that
 * static initialisers, attributes and debuggers touch (__kind, __owner,
 * __nusers, __flags, __shared, clock bits); all else in it is ours. Objects shared
 * between processes keep libc's protocol whole, since the other process may
 * run without us. Waiters are never in the object: they are in the scheduler's
 * queues, by its address. A child of fork finds the queues empty and the objects
 * as they were, so a bit that says "somebody waits" is only ever a hint to
 * look, and one that promises an action of a waiter carries forkgen.
 */
#ifndef GOSHIM_SYNC_H
#define GOSHIM_SYNC_H

#include <stdatomic.h>

#include "shim.h"

/* Processes since the library was loaded, counted along the line of forks; at
 * least 1. fork.c adds 1 in the child, before any other code of it runs. */
extern uint32_t forkgen;

/* --- contention.c ----------------------------------------------------------- */

/* A wait for a lock, or a condition. */
typedef struct Contention {
	LockRecord *record; /* NULL: there is none */
	uint64_t began, ended;
} Contention;

/*
 * Somebody has to wait: counts it at `count`, in the object (NULL: there is no place), when that is static in its
 * permanent record, where it can be found later, and in its record of the metrics. link: the object's, NULL: it
 * has no room; site: what has initialised it, 0: not known. The place of the caller's caller is kept
 * from the first wait. After each semapark parkedfor, and at the end contentionends; alone: nobody
 * else ends a wait for this object at the same time.
 */
void lockcontended(Contention *c, const void *lock, WaitReason why, _Atomic uint32_t *count,
		   LockLink *link, uint64_t site);
void contentionends(const Contention *c, bool alone);
/*
 * The same of a wait that is libc's, in two halves: it begins, and the answer is its record, or NULL; it has lasted so many ticks.
 */
LockRecord *lockwaited(const void *lock, WaitReason why, LockLink *link, uint64_t site);
void lockwaitended(LockRecord *r, uint64_t ticks, bool alone);

/* What has initialised an object that has no room to say so; lockmaker: 0, it isn't known (any more). */
void lockmade(const void *object, uintptr_t site);
uint64_t lockmaker(const void *object);

static inline void parkedfor(Contention *c)
{
	parkwatched(&c->began, &c->ended);
}

/* A wait by the kernel's means, for an object without room for a link; only if it `waits`. */
typedef struct KernelWait {
	LockRecord *record;
	uint64_t began;
} KernelWait;
static inline KernelWait kernelwait(const void *lock, WaitReason why, bool waits)
{
	KernelWait w = {NULL, ticksnow()};
	if (waits)
		w.record = lockwaited(lock, why, NULL, lockmaker(lock));
	return w;
}
static inline void kernelwaitends(const KernelWait *w)
{
	uint64_t t = w->record ? ticksnow() - w->began : 0;
	lockwaitended(w->record, (int64_t)t < 0 ? 0 : t, false);
}

/* The record of a lock that is being locked for the first time, when each is counted; may be NULL. */
LockRecord *lockfirst(const void *lock, uint64_t site, LockKind kind, LockLink *link);
/* r's lock was locked exclusively by `tid`. */
static inline void lockcount(LockRecord *r, uint32_t tid)
{
	bool alone = !lockmany(r);
	locksum(&r->locked, 1, alone);
	if (alone && r->owner && r->owner != tid)
		addonce(&r->changed, 1);
	__atomic_store_n(&r->owner, tid, __ATOMIC_RELAXED);
}
static inline void lockheld(LockRecord *r, uint64_t ticks)
{
	ticks = (int64_t)ticks < 0 ? 0 : ticks;
	locksum(&r->held, ticks, !lockmany(r));
	lockmax(&r->maxheld, ticks);
}
/* A reader has r's lock. When that one locked it isn't known at its end: but the sum of the ends less that of the starts is right. */
static inline void locksharedbegins(LockRecord *r)
{
	addatomic(&r->shared, 1);
	__atomic_fetch_add(&r->sharers, 1, __ATOMIC_RELAXED);
	addatomic(&r->sharedheld, -ticksnow());
}
static inline void locksharedends(LockRecord *r)
{
	addatomic(&r->sharedheld, ticksnow());
	__atomic_fetch_sub(&r->sharers, 1, __ATOMIC_RELAXED);
}
/* A reader leaves that may have locked before anything was counted: of `counted` such. True: it was counted. */
static inline bool lockreaderleaves(_Atomic uint32_t *counted)
{
	uint32_t n = atomic_load_explicit(counted, memory_order_relaxed);
	while (n &&
	       !atomic_compare_exchange_strong_explicit(counted, &n, n - 1, memory_order_relaxed,
							memory_order_relaxed))
		;
	return n != 0;
}
/* What goes on after the call of the function that says this: what initialises an object. */
#define CALLER() ((uintptr_t)__builtin_return_address(0))

/* --- deadlock.c ------------------------------------------------------------- */

/* A wait for a lock that one thread can own; on the waiter's stack. */
typedef struct LockWait {
	const void *lock;
	_Atomic uint32_t *owner; /* selftid() of who has it; 0: nobody, or it isn't known */
	WaitReason why;
	bool strict; /* nobody but its owner can unlock it */
	bool relock; /* that its owner waits for it is a mistake */
	/* deadlock.c's */
	uint32_t tid; /* the waiter's, while it is in the table */
	uint64_t number, cycle;
	struct Thread *th;
	struct LockWait *next, *prev;
} LockWait;
/* The caller is going to wait, without a deadline: reports what can't end any more. */
void lockwait(LockWait *w);
/* ... and does so no longer, or runs a signal handler. */
void lockwaitends(LockWait *w);
/* A lock that somebody waits for is unlocked by another than its owner. */
void lockhanded(void);
/* For core/host.h: selftid() of who has the lock that others wait for; 0: nobody, or it isn't known. */
uint32_t lockowner(uintptr_t lock, WaitReason why);
void deadlockforkchild(void);

/* --- mutex.c ---------------------------------------------------------------- */

/* As struct __pthread_mutex_s; mutex.c has the values of word. */
typedef struct Mutex {
	_Atomic uint32_t word;
	uint32_t count;         /* owner only: depth of a recursive one; who locked a normal one */
	_Atomic uint32_t owner; /* selftid() of the holder, 0 when free */
	uint32_t nusers;        /* holder only: holders and condition waiters */
	_Atomic int32_t kind;
	_Atomic uint32_t contended; /* how often somebody had to wait; libc's spins and elision */
	bool
	    heldright; /* its owner has unlocked it while others waited; from here on libc's list */
	LockLink link;
	/* With the upper bit set, ticks: when its holder got it. Else what has initialised it. */
	_Atomic uint64_t when;
} Mutex;
_Static_assert(sizeof(Mutex) == sizeof(pthread_mutex_t), "Mutex lies over pthread_mutex_t");
_Static_assert(offsetof(Mutex, kind) == offsetof(pthread_mutex_t, __data.__kind), "kind");
_Static_assert(offsetof(Mutex, owner) == offsetof(pthread_mutex_t, __data.__owner), "owner");
_Static_assert(offsetof(Mutex, nusers) == offsetof(pthread_mutex_t, __data.__nusers), "nusers");

/* Bits of kind, as libc has them. */
enum {
	KindTypeMask = 3, /* PTHREAD_MUTEX_NORMAL, _RECURSIVE, _ERRORCHECK, _ADAPTIVE_NP */
	KindRobust = 16,
	KindInherit = 32, /* the holder has its waiters' priority */
	KindProtect = 64, /* the holder has a priority that it brings */
	KindShared = 128,
	KindElision = 256 | 512, /* hints; settype(NORMAL) sets one */
};

/* Our protocol, not libc's: private to the process, not robust, PI or priority protected. */
static inline bool mutexisours(const Mutex *m)
{
	return !(atomic_load_explicit(&m->kind, memory_order_relaxed) &
		 ~(KindTypeMask | KindElision));
}

void condmade(pthread_cond_t *c, uintptr_t site); /* as mutexmade */

/* libc has initialised m, called by what goes on at `site`. */
void mutexmade(Mutex *m, uintptr_t site);
enum { WhenTicks = 63 };
/* What has initialised it, if that is still there to be read: of one of ours. */
static inline uint64_t mutexsite(const Mutex *m)
{
	uint64_t w = atomic_load_explicit(&m->when, memory_order_relaxed);
	return w >> WhenTicks ? 0 : w;
}
/* Every lock is counted: its holder, of that tid, has got one of ours, and is about to give it up. */
void mutextaken(Mutex *m, uint32_t tid);
void mutexgiven(Mutex *m);

/*
 * For a condition wait: unlocks m and locks it again later, the thread
 * counting as a user of it in between. Return 0 or what pthread_mutex_unlock
 * and pthread_mutex_lock would (condunlock: EPERM, and then still nothing has
 * changed).
 */
int mutexcondunlock(Mutex *m);
int mutexcondlock(Mutex *m);

/* --- sem.c ------------------------------------------------------------------ */

typedef struct Sem {
	_Atomic uint64_t data;
	int32_t shared; /* 0: of this process alone */
	LockLink link;  /* of a private one */
	uint64_t site;  /* ... what has initialised it */
	uint64_t pad;
} Sem;
_Static_assert(sizeof(Sem) == sizeof(sem_t), "Sem lies over sem_t");
void semmade(Sem *s, uintptr_t site); /* as mutexmade */

#endif
