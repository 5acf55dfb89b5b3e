/*
 * asleep.c - all goroutines are asleep, and nothing is there that could wake one.
 *
 * A goroutine that waits for an object of this process alone is woken by another, by a timer, by
 * a handler of a signal that comes from outside, or by a kernel thread that runs none. When the
 * last processor becomes idle with no timer started, nobody waiting for a descriptor, no
 * goroutine in the kernel and no such handler installed, sysmon is asked to look again after a tick, which
 * finds most programs gone on or gone. If nothing has run since then it looks closely.
 *
 * What makes that exact: with all processors on the idle list and its lock held nobody gets one, so no goroutine
 * starts or goes on that needs one, and those that run without one are seen to run. So each that is alive is seen
 * to be parked at the same time. Kernel threads that are not the runtime's are looked for between two such looks:
 * had one of them done something meanwhile, a goroutine would have run.
 */
#include "runtime.h"

enum { TICK = 10000000 /* ns */ };

static _Atomic bool asked;     /* sysmon is to look */
static _Atomic bool outsiders; /* it has seen somebody else: no use */

/* sysmon's */
static int64_t lookat;    /* when to look closely, if still nothing has run; 0: not */
static uint32_t ticks;    /* then */
static int64_t told = -1; /* ticks of the last report */

bool deadlockwanted(void)
{
	return debug.deadlock != DeadlockOff;
}

void deadlockfound(void)
{
	if (debug.deadlock == DeadlockAbort)
		host.die();
}

/* May all be asleep? What rules it out most often, and is asked most cheaply, comes first. */
static bool quiet(void)
{
	if (atomic_load(&sched.npidle) != sched.gomaxprocs || !deadlockwanted() ||
	    atomic_load(&sched.nkblocked) != 0 || netpollanywaiters() || atomic_load(&outsiders) ||
	    timesleepuntil() != FOREVER)
		return false;
	for (M *mp = atomic_load(&sched.allm); mp; mp = mp->alllink)
		if (mp->curg)
			return false;
	return !host.handlers();
}

/* The caller's M is about to stop. */
void lastidle(void)
{
	if (likely(atomic_load_explicit(&sched.npidle, memory_order_relaxed) != sched.gomaxprocs) ||
	    !quiet())
		return;
	atomic_store(&asked, true);
	wakesysmon();
}

bool asleepasked(void)
{
	return atomic_load(&asked);
}

/* One that only another goroutine, or what was excluded, can wake. */
static bool asleep(G *gp)
{
	if (readgstatus(gp) != Gwaiting || atomic_load(&gp->waking) != WakeArmed ||
	    atomic_load(&gp->intr) == IntrAsked)
		return false;
	switch (gp->waitreason) {
	case WaitMutex:
	case WaitCond:
	case WaitRWMutexR:
	case WaitRWMutexW:
	case WaitSem:
	case WaitBarrier:
	case WaitOnce:
	case WaitJoin:
	case WaitFutex: return true;
	default: return false;
	}
}

static bool allasleep(void)
{
	bool all = atomic_load(&sched.nglive) > 0;
	lock(&sched.lock);
	all &= quiet() && sched.runqsize == 0 && !atomic_load(&sched.gcwaiting);
	for (G *gp = atomic_load(&sched.allg); gp && all; gp = gp->alllink) {
		GStatus s = readgstatus(gp);
		all = s == Gdead || s == Gidle || asleep(gp);
	}
	unlock(&sched.lock);
	return all;
}

/* Is tid a kernel thread that runs goroutines? */
static bool ismthread(int tid)
{
	for (M *mp = atomic_load(&sched.allm); mp; mp = mp->alllink)
		if (atomic_load(&mp->tid) == tid)
			return true;
	return tid == atomic_load(&sched.sysmontid);
}

int64_t asleepcheck(int64_t now)
{
	if (atomic_exchange(&asked, false) && schedticks() != told) {
		ticks = schedticks();
		lookat = now + TICK;
	}
	if (lookat == 0)
		return FOREVER;
	bool still = schedticks() == ticks && quiet();
	if (still && now < lookat)
		return lookat;
	lookat = 0;
	if (!still || !allasleep())
		return FOREVER;
	if (host.outsiders(ismthread)) {
		atomic_store(&outsiders, true);
		return FOREVER;
	}
	if (schedticks() == ticks && allasleep()) {
		told = ticks;
		tracebackall(2, "fatal error: all goroutines are asleep - deadlock!");
		deadlockfound();
	}
	return FOREVER;
}

void asleepforkchild(void)
{
	atomic_store(&asked, false);
	atomic_store(&outsiders, false);
	lookat = 0;
	told = -1;
}
