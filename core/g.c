/*
 * g.c - goroutines as records: status changes and the pools of finished ones.
 *
 * A G is never freed: a debugger, a dump or a late signal may hold its
 * address, and a pooled one is cheaper than a new one. Each P keeps some
 * finished Gs for itself; what exceeds 64 goes to the scheduler's pool, half
 * at a time (as Go's gfput), so that a creator and a reaper on different Ps
 * meet there without taking its lock each time.
 */
#include "runtime.h"

enum { LOCALMAX = 64, LOCALHALF = 32 };

/*
 * The only place where a status changes. The owner named at GStatus calls it, so
 * this is a store; a `from` that differs means that two think they own gp.
 */
void casgstatus(G *gp, GStatus from, GStatus to)
{
	if (unlikely(atomic_load_explicit(&gp->status, memory_order_relaxed) != from)) {
		warn("goroutine %d: status %d, expected %d on the way to %d", gp->goid,
		     (int64_t)atomic_load(&gp->status), (int64_t)from, (int64_t)to);
		throw("casgstatus: bad incoming value");
	}
	/* Release: whoever reads the new status (readgstatus) sees what the owner wrote. */
	atomic_store_explicit(&gp->status, to, memory_order_release);
}

/* Moves finished Gs from the scheduler's pool to pp's. */
static void gfrefill(P *pp)
{
	lock(&sched.lock);
	while (pp->ngfree < LOCALHALF && sched.gfree) {
		G *gp = sched.gfree;
		sched.gfree = gp->schedlink;
		sched.ngfree--;
		gp->schedlink = pp->gfree;
		pp->gfree = gp;
		pp->ngfree++;
	}
	unlock(&sched.lock);
}

static G *gnew(void)
{
	G *gp = persistentalloc(sizeof *gp, 64);
	if (!gp)
		return NULL;
	atomic_store_explicit(&gp->status, Gdead, memory_order_relaxed);
	lock(&sched.allglock);
	gp->alllink = atomic_load_explicit(&sched.allg, memory_order_relaxed);
	/* Release: a reader of allg sees the record complete. */
	atomic_store_explicit(&sched.allg, gp, memory_order_release);
	unlock(&sched.allglock);
	return gp;
}

/* A Gdead G, the caller's own; NULL when memory is short. */
G *gfget(P *pp)
{
	G *gp = NULL;
	if (pp) {
		if (!pp->gfree && sched.ngfree) /* a hint; gfrefill looks under the lock */
			gfrefill(pp);
		gp = pp->gfree;
		if (gp) {
			pp->gfree = gp->schedlink;
			pp->ngfree--;
		}
	} else {
		lock(&sched.lock);
		gp = sched.gfree;
		if (gp) {
			sched.gfree = gp->schedlink;
			sched.ngfree--;
		}
		unlock(&sched.lock);
	}
	return gp ? gp : gnew();
}

void gfput(P *pp, G *gp)
{
	if (readgstatus(gp) != Gdead)
		throw("gfput: bad status (not Gdead)");
	if (!pp) {
		lock(&sched.lock);
		gp->schedlink = sched.gfree;
		sched.gfree = gp;
		sched.ngfree++;
		unlock(&sched.lock);
		return;
	}
	gp->schedlink = pp->gfree;
	pp->gfree = gp;
	if (++pp->ngfree < LOCALMAX)
		return;
	lock(&sched.lock);
	while (pp->ngfree > LOCALHALF) {
		gp = pp->gfree;
		pp->gfree = gp->schedlink;
		pp->ngfree--;
		gp->schedlink = sched.gfree;
		sched.gfree = gp;
		sched.ngfree++;
	}
	unlock(&sched.lock);
}
