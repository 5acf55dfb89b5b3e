/*
 * cond.c - condition variables, of both ABIs.
 *
 * The difficulty is the moment between unlocking the mutex and being in the queue.
 * A thread that has released the mutex counts as blocked (POSIX): a signal
 * given then must reach it, or another that was blocked already, but none
 * that came later. The mutex cannot be unlocked under the queue's lock (it may have waiters
 * to wake, and be of a kind that the kernel knows). So, as in Go's notifyList, a
 * waiter draws a ticket before it unlocks; until it has queued itself it is
 * "in transit". A signal
 *   - wakes the first of the queue, if there is one: that is always allowed;
 *   - else, when threads are in transit, leaves a credit that one of those who had a
 *     ticket then will find on arrival instead of queueing.
 * Credits carry the ticket at which eligibility ends. When everybody below
 * such a limit has a credit, "all below are woken" replaces the count, so there is
 * never more than one group with a count.
 *
 * A waiter interrupted by a signal handler is in transit again, with the
 * ticket it has, so nothing is lost while the handler runs and the wait just goes on.
 * One that gives up, by timeout or cancellation, says so under the queue's lock;
 * a credit it finds there is used (timeout) or passed on (cancellation).
 *
 * Rejected: Go's notify sequence (a ticket whose owner timed out would swallow a
 * signal); libc's groups (made for futexes, eight words).
 *
 * Conditions shared between processes are libc's: the real functions run, off the P.
 */
#include "sync.h"

#include <limits.h>

#include "cancel.h"
#include "deadline.h"
#include "sched.h"
#include "signal.h"

/* Tickets wrap; at most 2^31 threads are in transit. Fields but wseq are guarded by the lock of
 * the queue; signals read fin without it, after the waiter they are meant for has drawn its
 * ticket. */
typedef struct Cond {
	_Atomic uint32_t wseq; /* next ticket; drawn without the lock */
	_Atomic uint32_t fin;  /* waits that are over: woken, credited, given up */
	uint32_t allbelow;     /* arrivals with a lower ticket are woken */
	uint32_t nbelow;       /* ... of whom so many are in transit */
	uint32_t credits;      /* arrivals in [allbelow, limit) are woken, so many */
	uint32_t ngroup;       /* ... of that many in transit; credits < ngroup or both 0 */
	uint32_t limit;
	_Atomic uint32_t gen; /* forkgen of the tickets; others' owners do not exist */
	LockLink link;
	_Atomic uint32_t flags; /* where libc has __wrefs, whose low bits are the flags */
	uint64_t site;          /* what has initialised it, or 0 */
} Cond;
_Static_assert(sizeof(Cond) == sizeof(pthread_cond_t), "Cond lies over pthread_cond_t");
_Static_assert(offsetof(Cond, flags) == offsetof(pthread_cond_t, __data.__wrefs), "flags");

enum { FlagShared = 1, FlagMonotonic = 2 }; /* as pthread_cond_init sets them */

typedef struct CondWait {
	Cond *c;
	Mutex *m;
	uint32_t ticket;
	bool consumed; /* giving up found a credit */
	bool waiting;  /* has drawn a ticket that is not over, and m is unlocked */
	Contention contention;
} CondWait;

static inline bool before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static inline uint32_t flagsof(Cond *c)
{
	return atomic_load_explicit(&c->flags, memory_order_relaxed);
}

/* The lock of the queue orders all but the read of signal's fast path. */
static inline void finished(Cond *c, uint32_t n)
{
	atomic_store_explicit(&c->fin, atomic_load_explicit(&c->fin, memory_order_relaxed) + n,
			      memory_order_release);
}

/* Keeps credits < ngroup: when all of the group have one, they join those below. */
static void mergegroup(Cond *c)
{
	if (c->credits != 0 && c->credits >= c->ngroup) {
		c->allbelow = c->limit;
		c->nbelow += c->ngroup;
		c->credits = 0;
	}
	if (c->credits == 0)
		c->ngroup = 0;
}

/* Somebody in transit is under the lock: was a signal left for it? Its wait is over then. */
static bool arrive(CondWait *w)
{
	Cond *c = w->c;
	if (before(w->ticket, c->allbelow)) {
		c->nbelow--;
	} else if (c->credits > 0 && before(w->ticket, c->limit)) {
		c->credits--;
		c->ngroup--;
		mergegroup(c);
	} else {
		return false;
	}
	finished(c, 1);
	return true;
}

static bool waitcheck(void *arg)
{
	return !arrive(arg);
}

static void giveup_locked(void *arg, int woken, int left)
{
	(void)woken;
	(void)left;
	CondWait *w = arg;
	w->consumed = arrive(w);
	/* Without a credit it was in no group: those have one for each that arrives. */
	if (!w->consumed)
		finished(w->c, 1);
}

/* In transit, not going to wait any more. True: a signal had been left for it. */
static bool giveup(CondWait *w)
{
	w->consumed = false;
	semaready(w->c, 0, NULL, giveup_locked, w, 0);
	return w->consumed;
}

static void signaldone(void *arg, int woken, int left)
{
	(void)left;
	Cond *c = arg;
	if (woken) {
		finished(c, 1);
		return;
	}
	uint32_t w = atomic_load_explicit(&c->wseq, memory_order_relaxed);
	uint32_t transit = w - atomic_load_explicit(&c->fin, memory_order_relaxed);
	if (c->credits == 0) {
		if (transit == c->nbelow)
			return;
		c->ngroup = transit - c->nbelow;
		c->limit = w;
	}
	c->credits++;
	mergegroup(c);
}

static void broadcastdone(void *arg, int woken, int left)
{
	(void)left;
	Cond *c = arg;
	finished(c, (uint32_t)woken);
	uint32_t w = atomic_load_explicit(&c->wseq, memory_order_relaxed);
	c->allbelow = w;
	c->nbelow = w - atomic_load_explicit(&c->fin, memory_order_relaxed);
	c->credits = 0;
	c->ngroup = 0;
}

/* In a child of fork: nobody is in transit, whatever the counts say. */
static void newgen_locked(void *arg, int woken, int left)
{
	(void)woken;
	(void)left;
	Cond *c = arg;
	if (atomic_load_explicit(&c->gen, memory_order_relaxed) == forkgen)
		return;
	uint32_t w = atomic_load_explicit(&c->wseq, memory_order_relaxed);
	atomic_store_explicit(&c->fin, w, memory_order_relaxed);
	c->allbelow = w;
	c->nbelow = c->credits = c->ngroup = 0;
	atomic_store_explicit(&c->gen, forkgen, memory_order_release);
}

static uint32_t drawticket(Cond *c)
{
	if (unlikely(atomic_load_explicit(&c->gen, memory_order_acquire) != forkgen))
		semaready(c, 0, NULL, newgen_locked, c, 0);
	/* Pairs with the mutex: who signals after locking it sees the ticket. seq_cst, for those
	 * who signal without it. */
	return atomic_fetch_add_explicit(&c->wseq, 1, memory_order_seq_cst);
}

/* Does nobody wait, of this process? */
static bool nowaiters(Cond *c)
{
	return atomic_load_explicit(&c->wseq, memory_order_seq_cst) ==
	       atomic_load_explicit(&c->fin, memory_order_relaxed);
}

/* --- shared between processes -------------------------------------------------------- */

/*
 * libc's wait unlocks the mutex itself, by libc's protocol: right for the shared
 * mutexes that belong to a shared condition. For a mutex of ours there is no way to join
 * both without a gap in which a signal is lost; then the wait is cut into
 * short ones that return for no reason, as POSIX allows them to.
 */
static int unjoinedwait(Mutex *m, clockid_t clock, const struct timespec *abs)
{
	int err = mutexcondunlock(m);
	if (err)
		return err;
	gosleep(nanotime() + 1000000, 0);
	if (abs && deadlineat(clock, abs) <= nanotime())
		err = ETIMEDOUT;
	mutexcondlock(m);
	testcancel();
	return err;
}

/* Also when cancellation unwinds the real function: handlers run outside. */
static void leavenative(const int *unused)
{
	(void)unused;
	bracketleave();
	unwire();
}

static int sharedwait(Cond *c, Mutex *m, clockid_t clock, const struct timespec *abs)
{
	pthread_cond_t *pc = (pthread_cond_t *)c;
	pthread_mutex_t *pm = (pthread_mutex_t *)m;
	__attribute__((cleanup(kernelwaitends), unused)) KernelWait w =
	    kernelwait(c, WaitCond, true);
	if (mutexisours(m))
		return unjoinedwait(m, clock, abs);
	wire(); /* libc's cancellation signals the kernel thread that the block names */
	bracketwait(true);
	__attribute__((cleanup(leavenative), unused)) int native = 0;
	return abs ? real.pthread_cond_clockwait(pc, pm, clock, abs)
		   : real.pthread_cond_wait(pc, pm);
}

/* --- waiting ------------------------------------------------------------------------- */

/* One stay in the queue: 0 woken, or semapark's error; in transit then. */
static int stay(CondWait *w, int64_t deadline)
{
	int r = semapark(w->c, waitcheck, NULL, w, 0, WaitCond, deadline, ParkIntr);
	parkedfor(&w->contention);
	return r == -EAGAIN ? 0 : r;
}

/* A thread that is cancelled or exits uses up no signal that others wait for. */
static void abandon(CondWait *w)
{
	if (giveup(w))
		shim_pthread_cond_signal((pthread_cond_t *)w->c);
}

/* A signal handler has left by pthread_exit, or asynchronous cancellation acts. */
static void unwound(CondWait *w)
{
	if (!w->waiting)
		return;
	abandon(w);
	mutexcondlock(w->m);
	contentionends(&w->contention, true);
}

static int condwait(Cond *c, Mutex *m, clockid_t clock, const struct timespec *abs)
{
	if (unlikely(flagsof(c) & FlagShared))
		return sharedwait(c, m, clock, abs);
	testcancel();

	__attribute__((cleanup(unwound))) CondWait w = {.c = c, .m = m, .ticket = drawticket(c)};
	int64_t deadline = deadlineat(clock, abs);
	int err = mutexcondunlock(m);
	if (err) {
		abandon(&w);
		return err;
	}
	w.waiting = true;
	lockcontended(&w.contention, c, WaitCond, NULL, &c->link, c->site);
	for (;;) {
		int r = stay(&w, deadline);
		if (r == 0)
			break;
		if (r == -ETIMEDOUT && !deadlinepassed(clock, abs)) {
			deadline = deadlineat(clock, abs);
		} else if (r == -ETIMEDOUT) {
			err = giveup(&w) ? 0 : ETIMEDOUT;
			break;
		} else {
			(void)sigdeliver(true);
			/* It unwinds through here. */
			testcancel();
		}
	}
	w.waiting = false;
	int lockerr = mutexcondlock(m);
	contentionends(&w.contention, true);
	return lockerr ? lockerr : err;
}

void condmade(pthread_cond_t *pc, uintptr_t site)
{
	Cond *c = (Cond *)pc;
	if (!(flagsof(c) & FlagShared))
		c->site = site;
	else
		lockmade(c, site);
}

SHIM(int, pthread_cond_init, pthread_cond_t *pc, const pthread_condattr_t *attr)
{
	int err = real.pthread_cond_init(pc, attr);
	if (!err)
		condmade(pc, CALLER());
	return err;
}

SHIM(int, pthread_cond_wait, pthread_cond_t *pc, pthread_mutex_t *pm)
{
	return condwait((Cond *)pc, (Mutex *)pm, CLOCK_MONOTONIC, NULL);
}

SHIM(int, pthread_cond_timedwait, pthread_cond_t *pc, pthread_mutex_t *pm,
     const struct timespec *abs)
{
	if (!validtimespec(abs))
		return EINVAL;
	Cond *c = (Cond *)pc;
	clockid_t clock = flagsof(c) & FlagMonotonic ? CLOCK_MONOTONIC : CLOCK_REALTIME;
	return condwait(c, (Mutex *)pm, clock, abs);
}

SHIM(int, pthread_cond_clockwait, pthread_cond_t *pc, pthread_mutex_t *pm, clockid_t clock,
     const struct timespec *abs)
{
	if (!validtimespec(abs) || !waitclock(clock))
		return EINVAL;
	return condwait((Cond *)pc, (Mutex *)pm, clock, abs);
}

SHIM(int, pthread_cond_signal, pthread_cond_t *pc)
{
	Cond *c = (Cond *)pc;
	if (unlikely(flagsof(c) & FlagShared))
		return real.pthread_cond_signal(pc);
	if (!nowaiters(c))
		semaready(c, 1, NULL, signaldone, c, ParkHandoff);
	return 0;
}

SHIM(int, pthread_cond_broadcast, pthread_cond_t *pc)
{
	Cond *c = (Cond *)pc;
	if (unlikely(flagsof(c) & FlagShared))
		return real.pthread_cond_broadcast(pc);
	if (!nowaiters(c))
		semaready(c, INT_MAX, NULL, broadcastdone, c, ParkHandoff);
	return 0;
}

/*
 * May be called once all waiters are signalled, though some are still on their
 * way out: waits until none of them looks at the object any more. (Destroying with
 * waiters that nobody signalled waits for ever, as with libc.)
 */
SHIM(int, pthread_cond_destroy, pthread_cond_t *pc)
{
	Cond *c = (Cond *)pc;
	if (unlikely(flagsof(c) & FlagShared)) {
		entersyscall();
		int err = real.pthread_cond_destroy(pc);
		exitsyscall();
		return err;
	}
	while (!nowaiters(c) && atomic_load_explicit(&c->gen, memory_order_relaxed) == forkgen)
		gosleep(nanotime() + 50000, 0);
	return 0;
}

/* --- the ABI of before 2.3.2: a pointer to a condition of today's ------------------------ */

static pthread_cond_t *oldcond(pthread_cond_t *old)
{
	_Atomic(pthread_cond_t *) *p = (_Atomic(pthread_cond_t *) *)old;
	pthread_cond_t *c = atomic_load_explicit(p, memory_order_acquire);
	if (c)
		return c;
	pthread_cond_t *fresh = calloc(1, sizeof(*fresh));
	if (!fresh)
		return NULL;
	if (atomic_compare_exchange_strong_explicit(p, &c, fresh, memory_order_acq_rel,
						    memory_order_acquire))
		return fresh;
	free(fresh);
	return c;
}

SHIM(int, cond_destroy_old, pthread_cond_t *old)
{
	pthread_cond_t **p = (pthread_cond_t **)old;
	if (*p)
		shim_pthread_cond_destroy(*p);
	free(*p);
	*p = NULL;
	return 0;
}

SHIM(int, cond_wait_old, pthread_cond_t *old, pthread_mutex_t *pm)
{
	pthread_cond_t *c = oldcond(old);
	return c ? shim_pthread_cond_wait(c, pm) : ENOMEM;
}

SHIM(int, cond_timedwait_old, pthread_cond_t *old, pthread_mutex_t *pm, const struct timespec *abs)
{
	pthread_cond_t *c = oldcond(old);
	return c ? shim_pthread_cond_timedwait(c, pm, abs) : ENOMEM;
}

SHIM(int, cond_signal_old, pthread_cond_t *old)
{
	pthread_cond_t *c = oldcond(old);
	return c ? shim_pthread_cond_signal(c) : ENOMEM;
}

SHIM(int, cond_broadcast_old, pthread_cond_t *old)
{
	pthread_cond_t *c = oldcond(old);
	return c ? shim_pthread_cond_broadcast(c) : ENOMEM;
}
