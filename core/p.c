/*
 * p.c - processors and run queues.
 *
 * The queue of a P is a ring of 256 with one producer, its owner, and many
 * consumers: the owner and thieves. The tail is the owner's; the head moves by
 * compare-and-swap, so a thief that copied entries learns whether it got them.
 * runnext is a slot before the queue: what the running goroutine made ready
 * runs next and shares its time slice, which keeps a pair that hands work back
 * and forth on one P. The full queue spills half of itself to the global one.
 * (The structure and its names are those of Go's scheduler.)
 */
#include "runtime.h"

#include <string.h>

enum { RUNQ = 256 };
_Static_assert(nelem(((P *)0)->runq) == RUNQ, "ring size");

bool runqempty(P *pp)
{
	/* A runqput moves the old runnext to the tail: reading head, tail, next in this order and tail
	 * again tells "empty" only when all three were so at one time (Go runqempty). */
	for (;;) {
		uint32_t head = atomic_load(&pp->runqhead);
		uint32_t tail = atomic_load(&pp->runqtail);
		G *next = atomic_load(&pp->runnext);
		if (tail == atomic_load(&pp->runqtail))
			return head == tail && !next;
	}
}

/* Puts gp and half of pp's queue on the global one; false if thieves were quicker. */
static bool runqputslow(P *pp, G *gp, uint32_t h, uint32_t t)
{
	G *batch[RUNQ / 2 + 1];
	uint32_t n = (t - h) / 2;
	if (n != RUNQ / 2)
		throw("runqputslow: queue is not full");
	for (uint32_t i = 0; i < n; i++)
		batch[i] = atomic_load_explicit(&pp->runq[(h + i) % RUNQ], memory_order_relaxed);
	/* Release: the reads above are done before the slots are free. */
	if (!atomic_compare_exchange_strong_explicit(&pp->runqhead, &h, h + n, memory_order_release,
						     memory_order_relaxed))
		return false;
	batch[n] = gp;
	for (uint32_t i = 0; i < n; i++)
		batch[i]->schedlink = batch[i + 1];
	lock(&sched.lock);
	globrunqputbatch_locked(batch[0], batch[n], (int32_t)n + 1);
	unlock(&sched.lock);
	return true;
}

/* Puts gp on pp's queue; next: into runnext, whose occupant goes to the tail. */
void runqput(P *pp, G *gp, bool next)
{
	if (next) {
		gp = atomic_exchange(&pp->runnext, gp);
		if (!gp)
			return;
	}
	for (;;) {
		/* Acquire: pairs with the consumers' release of the slots. */
		uint32_t h = atomic_load_explicit(&pp->runqhead, memory_order_acquire);
		uint32_t t = atomic_load_explicit(&pp->runqtail, memory_order_relaxed);
		if (t - h < RUNQ) {
			atomic_store_explicit(&pp->runq[t % RUNQ], gp, memory_order_relaxed);
			/* Release: makes the slot visible to thieves (acquire of tail). */
			atomic_store_explicit(&pp->runqtail, t + 1, memory_order_release);
			return;
		}
		if (runqputslow(pp, gp, h, t))
			return;
	}
}

G *runqget(P *pp)
{
	G *next = atomic_load_explicit(&pp->runnext, memory_order_relaxed);
	/* A thief may empty the slot, nobody else fills it: one try is enough. */
	if (next && atomic_compare_exchange_strong(&pp->runnext, &next, NULL))
		return next;
	for (;;) {
		uint32_t h = atomic_load_explicit(&pp->runqhead, memory_order_acquire);
		uint32_t t = atomic_load_explicit(&pp->runqtail, memory_order_relaxed);
		if (t == h)
			return NULL;
		G *gp = atomic_load_explicit(&pp->runq[h % RUNQ], memory_order_relaxed);
		if (atomic_compare_exchange_strong_explicit(&pp->runqhead, &h, h + 1,
							    memory_order_release,
							    memory_order_relaxed))
			return gp;
	}
}

/*
 * Takes half of p2's queue into batch, a ring that begins at head. When only
 * runnext is left it is taken if stealrunnext, but its P is given time first
 * to run it: a pair handing over on one P shall not be torn apart.
 */
static uint32_t runqgrab(P *p2, G *_Atomic *batch, uint32_t head, bool stealrunnext)
{
	for (;;) {
		uint32_t h = atomic_load_explicit(&p2->runqhead, memory_order_acquire);
		uint32_t t = atomic_load_explicit(&p2->runqtail, memory_order_acquire);
		uint32_t n = t - h;
		n -= n / 2;
		if (n == 0) {
			G *next = stealrunnext ? atomic_load(&p2->runnext) : NULL;
			if (!next)
				return 0;
			if (atomic_load(&p2->status) == Prunning) {
				/* As Go: 3 us, about the time it takes to park; asleep, since looking
				 * costs the owner its cache lines. A P that has scheduled meanwhile
				 * hands over between two: the same pointer is no proof that it idles. */
				int64_t ts[2] = {0, 3000};
				uint32_t tick = atomic_load(&p2->schedtick);
				sys2(35 /* nanosleep */, (long)ts, 0);
				if (atomic_load(&p2->schedtick) != tick)
					return 0;
				if (debug.gomaxprocs == 1)
					osyield();
			}
			if (!atomic_compare_exchange_strong(&p2->runnext, &next, NULL))
				continue;
			atomic_store_explicit(&batch[head % RUNQ], next, memory_order_relaxed);
			return 1;
		}
		if (n > RUNQ / 2) /* head and tail were read at different times */
			continue;
		for (uint32_t i = 0; i < n; i++) {
			G *gp =
			    atomic_load_explicit(&p2->runq[(h + i) % RUNQ], memory_order_relaxed);
			atomic_store_explicit(&batch[(head + i) % RUNQ], gp, memory_order_relaxed);
		}
		if (atomic_compare_exchange_strong_explicit(&p2->runqhead, &h, h + n,
							    memory_order_release,
							    memory_order_relaxed))
			return n;
	}
}

/* Moves half of p2's queue to pp's and returns one of them, or NULL. */
G *runqsteal(P *pp, P *p2, bool stealrunnext)
{
	uint32_t t = atomic_load_explicit(&pp->runqtail, memory_order_relaxed);
	uint32_t n = runqgrab(p2, pp->runq, t, stealrunnext);
	if (n == 0)
		return NULL;
	n--;
	G *gp = atomic_load_explicit(&pp->runq[(t + n) % RUNQ], memory_order_relaxed);
	if (n == 0)
		return gp;
	uint32_t h = atomic_load_explicit(&pp->runqhead, memory_order_acquire);
	if (t - h + n >= RUNQ)
		throw("runqsteal: runq overflow");
	atomic_store_explicit(&pp->runqtail, t + n, memory_order_release);
	return gp;
}

/* --- the global queue, under sched.lock ---------------------------------- */

void globrunqputbatch_locked(G *head, G *tail, int32_t n)
{
	if (unlikely(n <= 0))
		throw("globrunqputbatch: bad count");
	tail->schedlink = NULL;
	if (sched.runqtail)
		sched.runqtail->schedlink = head;
	else
		sched.runqhead = head;
	sched.runqtail = tail;
	atomic_store_explicit(&sched.runqsize, sched.runqsize + n, memory_order_relaxed);
}

void globrunqput_locked(G *gp)
{
	globrunqputbatch_locked(gp, gp, 1);
}

/*
 * The same for goroutines that an event has woken while no P was free: before those that wait since
 * their slice was over, behind others that were woken. A crowd of them is no exception: all wait in one line.
 */
void globrunqputwoken_locked(G *head, G *tail, int32_t n)
{
	enum { CROWD = RUNQ / 2 };
	G *before = sched.runqwoken;
	if (unlikely(n <= 0))
		throw("globrunqputwoken: bad count");
	if (sched.runqsize >= CROWD) {
		globrunqputbatch_locked(head, tail, n);
		return;
	}
	tail->schedlink = before ? before->schedlink : sched.runqhead;
	if (before)
		before->schedlink = head;
	else
		sched.runqhead = head;
	if (!tail->schedlink)
		sched.runqtail = tail;
	sched.runqwoken = tail;
	atomic_store_explicit(&sched.nwoken, sched.nwoken + n, memory_order_relaxed);
	atomic_store_explicit(&sched.runqsize, sched.runqsize + n, memory_order_relaxed);
}

/* gp is off the queue; prev was before it. */
static void unwoken_locked(G *gp, G *prev)
{
	atomic_store_explicit(&sched.nwoken, sched.nwoken - 1, memory_order_relaxed);
	if (sched.runqwoken == gp)
		sched.runqwoken = prev;
}

static G *globrunqpop_locked(void)
{
	G *gp = sched.runqhead;
	sched.runqhead = gp->schedlink;
	if (!sched.runqhead)
		sched.runqtail = NULL;
	if (sched.nwoken > 0)
		unwoken_locked(gp, NULL);
	return gp;
}

/* Takes pp's share of the global queue, at most max (0: no limit): one is
 * returned, the rest goes to pp's own queue. */
G *globrunqget_locked(P *pp, int32_t max)
{
	int32_t size = sched.runqsize;
	if (size == 0)
		return NULL;
	int32_t n = size / sched.gomaxprocs + 1;
	if (n > size)
		n = size;
	if (max > 0 && n > max)
		n = max;
	if (n > RUNQ / 2)
		n = RUNQ / 2;
	atomic_store_explicit(&sched.runqsize, size - n, memory_order_relaxed);
	G *gp = globrunqpop_locked();
	while (--n > 0)
		runqput(pp, globrunqpop_locked(), false);
	return gp;
}

/* Takes the one behind prev (NULL: the first). */
static G *globrunqtake_locked(G *prev)
{
	G *gp = prev ? prev->schedlink : sched.runqhead;
	if (prev)
		prev->schedlink = gp->schedlink;
	else
		sched.runqhead = gp->schedlink;
	if (sched.runqtail == gp)
		sched.runqtail = prev;
	gp->schedlink = NULL;
	atomic_store_explicit(&sched.runqsize, sched.runqsize - 1, memory_order_relaxed);
	return gp;
}

/*
 * Takes the first of those that wait in line, behind the woken ones; if there are none, the first of all; or NULL. Now
 * and then, so that nobody starves, however many are woken.
 */
G *globrunqgetinline_locked(void)
{
	G *woken = sched.nwoken > 0 ? sched.runqwoken : NULL;
	if (woken && woken->schedlink)
		return globrunqtake_locked(woken);
	if (!sched.runqhead)
		return NULL;
	if (woken)
		unwoken_locked(sched.runqhead, NULL);
	return globrunqtake_locked(NULL);
}

/* Takes the first that is wired to an M, or NULL. */
G *globrunqtakewired_locked(void)
{
	G *prev = NULL;
	int32_t woken = sched.nwoken; /* of those ahead */
	for (G *gp = sched.runqhead; gp; prev = gp, gp = gp->schedlink, woken--) {
		if (!gp->lockedm)
			continue;
		if (woken > 0)
			unwoken_locked(gp, prev);
		return globrunqtake_locked(prev);
	}
	return NULL;
}

/* --- idle Ps, under sched.lock -------------------------------------------- */

void pidleput_locked(P *pp)
{
	if (!runqempty(pp))
		throw("pidleput: P has non-empty run queue");
	atomic_store(&pp->status, Pidle);
	pp->link = sched.pidle;
	sched.pidle = pp;
	atomic_fetch_add(&sched.npidle, 1);
}

P *pidleget_locked(void)
{
	P *pp = sched.pidle;
	if (pp) {
		sched.pidle = pp->link;
		atomic_fetch_sub(&sched.npidle, 1);
	}
	return pp;
}

/* --- number of Ps ----------------------------------------------------------- */

static P *pnew(int32_t id)
{
	P *pp = persistentalloc(sizeof *pp, 64);
	if (!pp)
		throw("procresize: out of memory");
	pp->id = id;
	pp->status = Pgcstop;
	lockinit(&pp->timerslock, RankTimers);
	atomic_store(&pp->timer0when, FOREVER);
	metricsmeter(&pp->meter, id);
	return pp;
}

/* Empties a P that is no longer wanted: queue, timers, finished Gs. */
static void pdestroy_locked(P *pp, P *heir) UNCHECKED_ROLES
{
	G *gp;
	while ((gp = runqget(pp)))
		globrunqput_locked(gp);
	movetimers_locked(pp, heir);
	while ((gp = pp->gfree)) {
		pp->gfree = gp->schedlink;
		gp->schedlink = sched.gfree;
		sched.gfree = gp;
		sched.ngfree++;
	}
	pp->ngfree = 0;
	pp->status = Pdead;
}

/*
 * Makes it n Ps. The world is stopped (or has not started) and sched.lock
 * held. Those with work or without go to the caller: P 0..n-1 are Pgcstop
 * after it, the caller starts them.
 */
void procresize(int32_t n) UNCHECKED_ROLES
{
	if (n <= 0)
		throw("procresize: invalid arg");
	if (n > sched.nallp) {
		P **all = persistentalloc((size_t)n * sizeof *all, 64);
		if (!all)
			throw("procresize: out of memory");
		if (sched.nallp) /* sched.allp is NULL the first time */
			memcpy(all, sched.allp, (size_t)sched.nallp * sizeof *all);
		for (int32_t i = sched.nallp; i < n; i++)
			all[i] = pnew(i);
		/* The old array stays: others may still walk it. */
		atomic_thread_fence(memory_order_release);
		sched.allp = all;
		sched.nallp = n;
	}
	for (int32_t i = 0; i < n; i++)
		if (sched.allp[i]->status == Pdead)
			sched.allp[i]->status = Pgcstop;
	for (int32_t i = n; i < sched.nallp; i++)
		if (sched.allp[i]->status != Pdead)
			pdestroy_locked(sched.allp[i], sched.allp[0]);
	atomic_store(&sched.gomaxprocs, n);
	metricsprocs(n);
}
