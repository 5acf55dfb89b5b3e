/*
 * syscall.c - system calls that may block.
 *
 * entersyscall leaves the P in status Psyscall: the M still thinks of it
 * (oldp), and takes it back with one compare-and-swap if nobody else has. Who
 * may take it, and when: sysmon, after it has been gone for a tick, when work
 * waits (retake); and for calls that wait by intent (blockingsyscall) anyone
 * who needs a P, at once (retakesyscallp). So a server thread that waits in
 * epoll_wait costs no hand-off, and yet holds nobody up.
 */
#include "runtime.h"

#include <errno.h>

/* sysmon polls network and timers when no M does. It must know that the last
 * M that would is about to wait in the kernel. */
static inline void pollhandover(void)
{
	if (likely(!atomic_load_explicit(&sched.sysmonwait, memory_order_relaxed)) ||
	    atomic_load_explicit(&sched.lastpoll, memory_order_relaxed) == 0)
		return;
	if (netpollanywaiters() || timesleepuntil() != FOREVER)
		wakesysmon();
}

static void reentersyscall(const Place *where, bool longcall)
{
	M *mp = acquirem();
	G *gp = mp->curg;
	mp->syscallplace = *where;
	P *pp = getp(mp);
	if (longcall)
		bump(&pp->nkernelwaits);
	casgstatus(gp, Grunning, Gsyscall);
	mp->oldp = pp;
	clearp(mp, pp);
	atomic_store_explicit(&pp->m, NULL, memory_order_relaxed);
	atomic_store_explicit(&pp->longcall, longcall, memory_order_relaxed);
	/* Seq-cst: the status is visible before we look whether the world stops or work waits. */
	atomic_store(&pp->status, Psyscall);
	if (unlikely(atomic_load(&sched.gcwaiting))) {
		lock(&sched.lock);
		uint32_t s = Psyscall;
		if (sched.stopwait > 0 &&
		    atomic_compare_exchange_strong(&pp->status, &s, Pgcstop) &&
		    --sched.stopwait == 0)
			notewakeup(&sched.stopnote);
		unlock(&sched.lock);
	} else if (unlikely(!runqempty(pp) || sched.runqsize != 0)) {
		/* Work waits for this P. */
		uint32_t s = Psyscall;
		if (!longcall)
			sysmonneeded();
		else if (atomic_compare_exchange_strong(&pp->status, &s, Pidle))
			handoffp(pp);
	}
	if (longcall)
		pollhandover();
	releasem(mp);
}

/* On g0: gp runs without a P (after a system call, or sysmon took it) and
 * there is none: it waits on the global queue. */
void exitsyscall0(G *gp) UNCHECKED_ROLES
{
	check_g0();
	M *mp = getg()->m;
	bool insyscall = readgstatus(gp) == Gsyscall;
	casgstatus(gp, insyscall ? Gsyscall : Grunning, Grunnable);
	dropg(mp);
	lock(&sched.lock);
	/* It may have been wired meanwhile: to this M before, to another after dropg. */
	bool locked = gp->lockedm == mp, elsewhere = gp->lockedm && !locked;
	P *pp = elsewhere ? NULL : pidleget_locked();
	if (!pp && insyscall)
		globrunqputwoken_locked(gp, gp, 1);
	else if (!pp)
		globrunqput_locked(gp);
	unlock(&sched.lock);
	if (pp) {
		acquirep(mp, pp);
		execute(gp, false);
	}
	if (insyscall)
		sysmonneededsoon();
	else
		sysmonneeded(); /* somebody waits for a P now */
	if (locked) {
		stoplockedm();
		execute(gp, false);
	}
	stopm();
	schedule();
}

/* A P for the caller, which has none: its old one, an idle one, one whose M
 * waits in the kernel. In a section; false: there is none. */
static bool exitsyscallp(M *mp, P *oldp) UNCHECKED_ROLES
{
	uint32_t s = Psyscall;
	if (oldp && atomic_compare_exchange_strong(&oldp->status, &s, Pidle)) {
		acquirep(mp, oldp);
		uint32_t tick = atomic_load_explicit(&oldp->syscalltick, memory_order_relaxed);
		atomic_store_explicit(&oldp->syscalltick, tick + 1, memory_order_relaxed);
		if (atomic_load_explicit(&oldp->longcall, memory_order_relaxed))
			slicebegins(oldp);
		return true;
	}
	mp->curg->lostp = oldp != NULL;
	if (atomic_load(&sched.gcwaiting))
		return false;
	P *pp = NULL;
	if (atomic_load(&sched.npidle) > 0) {
		lock(&sched.lock);
		pp = pidleget_locked();
		unlock(&sched.lock);
	}
	if (!pp)
		pp = retakesyscallp();
	if (!pp)
		return false;
	acquirep(mp, pp);
	slicebegins(pp);
	return true;
}

static void reexitsyscall(void)
{
	G *gp = getg();
	M *mp = gp->m;
	/* Not acquirem: we have no P, and that is right so far. */
	atomic_store_explicit(&mp->locks, mp->locks + 1, memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);
	P *oldp = mp->oldp;
	mp->oldp = NULL;
	bool got = exitsyscallp(mp, oldp);
	if (unlikely(!got) && !atomic_load_explicit(&sched.crowded, memory_order_relaxed) &&
	    !atomic_load_explicit(&sched.longrunners, memory_order_relaxed)) {
		/* More have woken than there are Ps, now and then: whoever has one and not the CPU
		 * that we are on waits again soon. */
		crowdmet(1);
		osyield();
		got = exitsyscallp(mp, NULL);
	}
	if (likely(got)) {
		casgstatus(gp, Gsyscall, Grunning);
		bool asked = atomic_load_explicit(&getp(mp)->preempt, memory_order_relaxed);
		releasem(mp);
		if (unlikely(asked))
			goyieldasked();
		return;
	}
	mcall0(exitsyscall0, gp, mp->g0);
	releasem(gp->m);
}

void entersyscall(void)
{
	Place here = CALLERSPLACE();
	G *gp = getg();
	if (!gp)
		return;
	gp->callnr = 0;
	reentersyscall(&here, false);
}

void entersyscallat(const Place *where, bool waits)
{
	G *gp = getg();
	if (!gp)
		return;
	gp->callnr = 0;
	reentersyscall(where, waits);
}

void exitsyscall(void)
{
	if (getg())
		reexitsyscall();
}

void gosetwait(WaitReason why)
{
	if (getg())
		getg()->waitreason = why;
}

/* In a handler that the kernel has called: that can't go on elsewhere, and does without a P. */
static bool onsignalstack(const M *mp)
{
	uintptr_t sp = (uintptr_t)__builtin_frame_address(0);
	return sp > mp->gsignallo && sp <= mp->gsignalhi;
}

/* acquirem found no P: sysmon has taken it, or is about to. */
M *acquirem_slow(G *gp)
{
	M *mp = gp->m;
	for (;;) {
		uintptr_t p;
		while ((p = atomic_load_explicit(&mp->p, memory_order_acquire)) & 1)
			procyield();
		if (p || gp == mp->g0 || onsignalstack(mp))
			return mp;
		GStatus s = readgstatus(gp);
		if (s == Gsyscall) /* between entersyscall and exitsyscall it owns none */
			return mp;
		atomic_store_explicit(&mp->taken, false, memory_order_relaxed);
		if (exitsyscallp(mp, NULL))
			return mp;
		mcall0(exitsyscall0, gp, mp->g0);
		mp = gp->m; /* in execute()'s section, with a P */
	}
}

bool fewwaitinkernel(void)
{
	return atomic_load_explicit(&sched.nkblocked, memory_order_relaxed) < sched.maxkblocked &&
	       !mshort();
}

/*
 * Where event loops had better wait. In the kernel a wait is one system call, and each M
 * sleeps for itself: right while Ps are idle, and costly when more wake than
 * there are Ps, since those without one sleep again. In the poller one M wakes for all: right when
 * Ps are busy, and for more waiters than may sleep in the kernel. What each wait meets is
 * added up, so that single ones do not change the way.
 */
enum {
	CROWDMAX = 64,
	CROWDED = 40, /* from here on the poller, */
	ROOMY = 8,    /* and down to this */
	WEIGHT = 8,   /* one that found no P, against one that left its P idle */
};

static void crowdadd(int32_t by)
{
	/* A lost update is one look more. */
	int32_t was = atomic_load_explicit(&sched.crowd, memory_order_relaxed), is = was + by;
	is = is < 0 ? 0 : is > CROWDMAX ? CROWDMAX : is;
	if (is == was)
		return;
	atomic_store_explicit(&sched.crowd, is, memory_order_relaxed);
	if (is >= CROWDED && !atomic_load_explicit(&sched.crowded, memory_order_relaxed))
		atomic_store_explicit(&sched.crowded, true, memory_order_relaxed);
	else if (is <= ROOMY && atomic_load_explicit(&sched.crowded, memory_order_relaxed))
		atomic_store_explicit(&sched.crowded, false, memory_order_relaxed);
}

void crowdnone(void)
{
	if (atomic_load_explicit(&sched.nkblocked, memory_order_relaxed) + netpollwaiters() <
	    sched.maxkblocked)
		crowdadd(-1);
}

void crowdfew(void)
{
	crowdadd(1);
}

void crowdmet(int32_t n)
{
	crowdadd(n < CROWDMAX / WEIGHT ? n * WEIGHT : CROWDMAX);
}

bool maywaitinkernel(void)
{
	M *mp = acquirem();
	if (!mp)
		return true;
	/* A wired one's M is of no use to others meanwhile. */
	bool may = mp->lockedg != NULL;
	if (!may) {
		bool idle = runqempty(getp(mp)) && sched.runqsize == 0;
		may = idle && fewwaitinkernel() &&
		      (!atomic_load_explicit(&sched.crowded, memory_order_relaxed) ||
		       !netpollanywaiters());
		if (!idle)
			crowdfew();
		else if (may)
			crowdnone();
	}
	releasem(mp);
	return may;
}

bool givewayonce(void)
{
	if (atomic_load_explicit(&sched.crowded, memory_order_relaxed) || !fewwaitinkernel())
		return false;
	gosched();
	return true;
}

static _Atomic uint32_t never;

/* Most callers judge both alike. */
static inline long eintr(long r)
{
	return unlikely(r == -ERESTARTSYS) ? -EINTR : r;
}

/* The call, off the P, which others may have at once if it waits. `again`: who makes it asks again after -EINTR, so it
 * may be called back, and takes a place. */
static inline long offp(const Place *where, bool waits, bool again, long nr, long a, long b, long c,
			long d, long e, long f)
{
	G *gp = getg();
	if (!gp)
		return syscalltramp(nr, a, b, c, d, e, f, &never);
	/* Nobody else may be there to do the work: abandonp has called us back for it. */
	if (again && unlikely(mshort()) && sched.runqsize != 0)
		gosched();
	bool place = again && !gp->lockedm;
	if (place && !kwaitbegin())
		return -ERESTARTSYS;
	gp->callnr = (uint16_t)(nr + 1);
	reentersyscall(where, waits);
	M *mp = gp->m;
	if (place) {
		atomic_store_explicit(&mp->calledback, false, memory_order_relaxed);
		atomic_store_explicit(&mp->kseen, false, memory_order_relaxed);
		atomic_store_explicit(&mp->kblocked, true, memory_order_relaxed);
	}
	long r = syscalltramp(nr, a, b, c, d, e, f, &gp->intr);
	if (place) {
		atomic_store_explicit(&mp->kblocked, false, memory_order_relaxed);
		kwaitend(eintr(r) != -EINTR);
	}
	reexitsyscall();
	return r;
}

long blockingsyscall(long nr, long a, long b, long c, long d, long e, long f)
{
	Place here = CALLERSPLACE();
	return eintr(offp(&here, true, true, nr, a, b, c, d, e, f));
}

long quicksyscall(long nr, long a, long b, long c, long d, long e, long f)
{
	Place here = CALLERSPLACE();
	return eintr(offp(&here, false, false, nr, a, b, c, d, e, f));
}

long programssyscall(bool waits, long nr, long a, long b, long c, long d, long e, long f)
{
	Place here = CALLERSPLACE();
	return offp(&here, waits, false, nr, a, b, c, d, e, f);
}
