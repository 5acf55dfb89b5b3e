/*
 * yield.c - a goroutine leaves its P to others by itself: because it asks to, because
 * it has had its turns at an event loop, because its M is wanted back.
 */
#include "runtime.h"

/* gp, which runs here, waits in the line of all. The caller schedules. */
void putlast(G *gp)
{
	casgstatus(gp, Grunning, Grunnable);
	dropg(getg()->m);
	lock(&sched.lock);
	globrunqput_locked(gp);
	unlock(&sched.lock);
}

static void gosched_m(G *gp)
{
	check_g0();
	putlast(gp);
	schedule();
}

void gosched(void)
{
	if (getg())
		mcall(gosched_m);
}

/*
 * gp has had its turns. Nothing that others wait for is half done here, neither
 * by gp nor by this M: if the kernel has another thread for this CPU it had better
 * run now than in the middle of gp's next turn, which would wait with all it has
 * read until the kernel comes back. gp itself waits on the queue of all.
 */
static void turn_m(G *gp)
{
	check_g0();
	putlast(gp);
	osyield();
	schedule();
}

/* Has the goroutine on pp had its turn? Then the next one begins. */
static bool turnover(P *pp)
{
	enum { TURNS = 4 }; /* where time can't be told */
	uint32_t tick = atomic_load_explicit(&pp->schedtick, memory_order_relaxed);
	if (pp->turntick != tick) {
		pp->turntick = tick;
		pp->turns = 0;
		pp->turnstart = atomic_load_explicit(&pp->runstart, memory_order_relaxed);
	}
	uint64_t minrun = atomic_load_explicit(&sched.minrun, memory_order_relaxed);
	if (likely(minrun)) {
		uint64_t now = cputicks();
		if ((int64_t)(now - pp->turnstart) < 2 * (int64_t)minrun)
			return false;
		pp->turnstart = now;
		return true;
	}
	pp->turns = (pp->turns + 1) % TURNS;
	return pp->turns == 0;
}

/*
 * The caller, an event loop, is about to ask for events. As long as there always are
 * some it never parks, and would keep its P for whole slices, which is for others the
 * tail of their latency. So it goes to the end of the line when it has run for 200 us since it
 * got the P, or since it was last asked to, and work waits. Counted in questions instead, memcached's p99 with four workers on two Ps was
 * 3.4 ms at 2, 4.0 at 4 (natively 2.8), and stunnel, whose threads ask three times before they wait, paid two system calls a request for it.
 */
void goturn(void)
{
	M *mp = acquirem();
	if (!mp)
		return;
	P *pp = getp(mp);
	bool yield = false;
	if (turnover(pp)) {
		/* Work that nobody has seen yet counts, too. */
		if (netpollanywaiters() && atomic_load(&sched.lastpoll) != 0) {
			int32_t n;
			G *list = netpoll(0, &n);
			atomic_store_explicit(&sched.turnedat, sched.polledat,
					      memory_order_relaxed);
			injectglist(list, n);
		}
		yield = !runqempty(pp) || sched.runqsize != 0;
	}
	releasem(mp);
	if (yield)
		mcall(turn_m);
}

void slicebegins(P *pp)
{
	if (unlikely(!atomic_load_explicit(&sched.minrun, memory_order_relaxed)))
		return;
	uint64_t now = cputicks();
	atomic_store_explicit(&pp->runstart, now, memory_order_relaxed);
	atomic_store_explicit(&pp->slicestart, now, memory_order_relaxed);
}

bool ranlong(P *pp)
{
	uint64_t least = atomic_load_explicit(&sched.minrun, memory_order_relaxed);
	return least && atomic_load_explicit(&sched.npidle, memory_order_relaxed) == 0 &&
	       cputicks() - pp->runstart > least;
}

/* gp makes way: it is the next after that, and goes on with its slice. */
static void standaside(P *pp, G *gp) UNCHECKED_ROLES
{
	casgstatus(gp, Grunning, Grunnable);
	dropg(getg()->m);
	if (atomic_load_explicit(&sched.minrun, memory_order_relaxed) && pp->slicestart)
		gp->sliceused = cputicks() - pp->slicestart;
	runqput(pp, gp, true);
}

/* For one on the global queue. */
void maketheway_m(G *gp) UNCHECKED_ROLES
{
	check_g0();
	P *pp = getp(getg()->m);
	preempttaken(pp);
	pp->tookwoken = false;
	standaside(pp, gp);
	schedule();
}

/* For one that it has woken itself, which is its P's next. */
static void yieldtowoken_m(G *gp) UNCHECKED_ROLES
{
	check_g0();
	P *pp = getp(getg()->m);
	G *woken = runqget(pp);
	if (!woken) /* another has taken it */
		gogo(gp);
	standaside(pp, gp);
	if (likely(!woken->lockedm))
		execute(woken, false);
	lock(&sched.lock);
	globrunqputwoken_locked(woken, woken, 1);
	unlock(&sched.lock);
	schedule();
}

/*
 * Whoever was woken does not wait for the end of the waker's slice, as it would not natively. One that has run for a
 * moment only goes on: most wakers are about to wait themselves.
 */
void yieldtowoken(void)
{
	G *gp = getg();
	if (!gp || gp == gp->m->g0 || readgstatus(gp) != Grunning)
		return;
	M *mp = acquirem();
	bool yield = mp->locks == 1 && !gp->lockedm && ranlong(getp(mp));
	releasem(mp);
	if (yield)
		mcall(yieldtowoken_m);
}

/* The P goes with gp to whichever M is next; this one idles. */
static void leavemain0(G *gp) UNCHECKED_ROLES
{
	M *mp = getg()->m;
	putlast(gp);
	handoffp(releasep(mp));
	stopm();
	schedule();
}

void leavemain(void)
{
	enum { TRIES = 3 };
	G *gp = getg();
	for (int i = 0; i < TRIES && gp && !gp->lockedm && atomic_load(&gp->m->tid) == sched.pid;
	     i++)
		mcall(leavemain0);
}
