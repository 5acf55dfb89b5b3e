/*
 * g.c - goroutines as records: status changes, birth and death, and the pools of
 * finished ones.
 *
 * A G is never freed: a debugger, a dump or a late signal may hold its
 * address, and a pooled one is cheaper than a new one. Each P keeps some
 * finished Gs for itself; what exceeds 64 goes to the scheduler's pool, half
 * at a time (as Go's gfput), so that a creator and a reaper on different Ps
 * meet there without taking its lock each time.
 */
#include "runtime.h"

#include <errno.h>
#include <string.h>

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
	metricsmove(gp, from, to);
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

/* Records stay when their threads have gone, and may be a million: what few need belongs elsewhere. */
_Static_assert(sizeof(G) <= 192, "three cache lines");

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

/* --- birth and death -------------------------------------------------------------- */

/* gostart calls it: first C code of a goroutine, in execute()'s section. */
void goroutinestart(void);
void goroutinestart(void)
{
	G *gp = getg();
	void *arg = gp->fnarg;
	gp->intrstack = NULL;
	releasem(gp->m);
	gp->fn(arg);
	throw("goroutine returned");
}

/* The goroutine of a thread block: where goshim_g lies in it. */
void tlssetg(void *tls, G *gp)
{
	*(G **)((char *)tls + ((char *)&goshim_g - (char *)fsbase())) = gp;
}

static void gpeak(int64_t live)
{
	int64_t peak = atomic_load_explicit(&sched.ngpeak, memory_order_relaxed);
	while (live > peak && !atomic_compare_exchange_weak(&sched.ngpeak, &peak, live))
		;
}

/* A goroutine that nobody knows of yet. In a section. */
static G *gmake(P *pp, void (*fn)(void *), void *arg, void *tls, void *hostg, uintptr_t stacklo,
		uintptr_t stackhi)
{
	G *gp = gfget(pp);
	if (!gp)
		return NULL;
	gp->goid = atomic_fetch_add_explicit(&sched.goidgen, 1, memory_order_relaxed) + 1;
	gp->tls = tls;
	gp->host = hostg;
	gp->fn = fn;
	gp->fnarg = arg;
	gp->stacklo = stacklo;
	gp->stackhi = stackhi;
	gp->lockedm = NULL;
	gp->lockedcount = 0;
	gp->kmask = sched.basekmask;
	gp->nameslot = getg() ? getg()->nameslot : 0;
	cpureset(gp, 0);
	gp->waitreason = WaitNone;
	atomic_store_explicit(&gp->intr, 0, memory_order_relaxed);
	tlssetg(tls, gp);
	/* What gogo pops: control words, six registers, gostart; 16-aligned at gostart's call. */
	uint64_t *sp = (uint64_t *)(stackhi & ~(uintptr_t)15) - 2;
	sp[0] = sp[1] = 0;
	*--sp = (uint64_t)gostart;
	for (int i = 0; i < 6; i++)
		*--sp = 0;
	uint32_t cw[2];
	getcontrolwords(cw); /* a new thread has its creator's rounding mode */
	memcpy(--sp, cw, 8);
	gp->sched.sp = (uintptr_t)sp;
	return gp;
}

/* It may run from here on. In the same section. */
static void gbegin(P *pp, G *gp) UNCHECKED_ROLES
{
	gpeak(atomic_fetch_add_explicit(&sched.nglive, 1, memory_order_relaxed) + 1);
	casgstatus(gp, Gdead, Grunnable);
	if (pp) {
		runqput(pp, gp, true);
	} else {
		lock(&sched.lock);
		globrunqput_locked(gp);
		unlock(&sched.lock);
	}
	wakep();
}

G *newproc(void (*fn)(void *), void *arg, void *tls, void *hostg, uintptr_t stacklo,
	   uintptr_t stackhi) UNCHECKED_ROLES
{
	Section s = sectionenter();
	P *pp = s.mp ? getp(s.mp) : NULL;
	G *gp = gmake(pp, fn, arg, tls, hostg, stacklo, stackhi);
	if (gp)
		gbegin(pp, gp);
	sectionleave(s);
	return gp;
}

G *newprocwired(void (*fn)(void *), void *arg, void *tls, void *hostg, uintptr_t stacklo,
		uintptr_t stackhi, int *err) UNCHECKED_ROLES
{
	M *mp = newmhere(err);
	if (!mp)
		return NULL;
	Section s = sectionenter();
	P *pp = getp(s.mp);
	G *gp = gmake(pp, fn, arg, tls, hostg, stacklo, stackhi);
	if (gp) {
		gp->lockedm = mp;
		gp->lockedcount = 1;
		gp->mends = true;
		mp->lockedg = gp;
		gbegin(pp, gp);
	} else {
		*err = -EAGAIN;
		notewakeup(&mp->park); /* without a P: it ends */
	}
	sectionleave(s);
	return gp;
}

static void goexit0(G *gp)
{
	check_g0();
	M *mp = getg()->m;
	check_p(mp);
	void (*done)(void *) = gp->fn;
	void *arg = gp->fnarg;
	casgstatus(gp, Grunning, Gdead);
	dropg(mp);
	bool mends = gp->mends, mainstoo = gp->mendsmain;
	if (gp->lockedm) {
		gp->mends = gp->mendsmain = false;
		gp->lockedm = NULL;
		mp->lockedg = NULL;
		gp->lockedcount = 0;
	}
	gp->host = NULL;
	gp->tls = NULL;
	atomic_fetch_sub_explicit(&sched.nglive, 1, memory_order_relaxed);
	gfput(getp(mp), gp);
	done(arg); /* stack and block are free now */
	if (mends)
		mexit(mp, mainstoo);
	schedule();
}

void goexit(void (*done)(void *arg), void *arg)
{
	G *gp = getg();
	M *mp = acquirem();
	intrstackfree(gp);
	releasem(mp);
	gp->fn = done;
	gp->fnarg = arg;
	mcall(goexit0);
	throw("goexit: returned");
}
