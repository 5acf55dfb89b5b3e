/*
 * proc.c - the scheduler.
 *
 * Its job: distribute runnable goroutines (G) over kernel threads (M) that
 * hold a processor (P). This file is the middle of it. An M alternates between
 * a goroutine's stack and its own, g0, on which schedule() runs:
 *
 *    goroutine:  gopark / gosched / goexit / exitsyscall without a P
 *         | mcall: save registers, take the M's stack and thread block
 *         v
 *    g0:  park_m ... -> schedule() -> findrunnable() -> execute(gp)
 *         | gogo: take gp's stack and thread block
 *         v
 *    goroutine: returns from its own mcall
 *
 * Where a G comes from, in findrunnable's order: every 61st time the global
 * queue (so that two goroutines readying each other on one P can't starve
 * it); timers that are due; the P's own queue; the global queue; the network
 * poller; another P's queue or timers, if not too many Ms search already.
 *
 * Parking and unparking of Ms. We need enough running Ms to use the CPUs and
 * not so many that they burn CPU looking for work. There is no central look at
 * the state, so:
 *  - an M is "spinning" when it is out of work and searches others' queues.
 *    At most half as many spin as Ps are busy;
 *  - whoever readies a G wakes another M only when a P is idle and nobody
 *    spins (wakep): the spinning one will find it;
 *  - the last M to stop spinning with success wakes another (resetspinning), so that a
 *    burst of work ramps up threads one by one;
 *  - an M that stops spinning without success decrements nmspinning first and looks at all queues once
 *    more after that: either it sees the new G, or the readier sees that
 *    nobody spins. (Go's argument, which needs both sides sequentially
 *    consistent.)
 *
 * Differences from Go, and why:
 *  - a P whose M waits in the kernel by intent (blockingsyscall) counts as
 *    available: wakep and exitsyscall take it at once, without sysmon. An
 *    unmodified server's threads sit in epoll_wait most of the time, and that
 *    wait must cost what it costs natively: no hand-off, no second system call;
 *  - sysmon sleeps whenever no work waits for a P, and polls the network then
 *    when no M does (sysmon.c). An idle program costs nothing;
 *  - sysmon may take the P of an M that runs user code which is blocked in
 *    the kernel through calls we don't see. Hence acquirem(): all code here
 *    that is entered from a goroutine goes through it.
 */
#include "runtime.h"

#include <errno.h>
#include <string.h>

Sched sched;
Debug debug = {.slice = 2000000,
	       .maxm = 10000,
	       .maxkblocked = -1,
	       .maxkwaits = 256,
	       .flightfiles = 10,
	       .flightdir = "/tmp",
	       .traceback = TracebackSingle};
Host host;
__thread G *goshim_g __attribute__((tls_model("initial-exec")));
bool have_fsgsbase;

_Static_assert(offsetof(G, sched.sp) == G_SCHED_SP, "offsets.h");
_Static_assert(offsetof(G, tls) == G_TLS, "offsets.h");

bool schedstarted(void)
{
	return atomic_load_explicit(&sched.started, memory_order_acquire);
}

int64_t goid(G *gp)
{
	return gp->goid;
}

void *ghost(G *gp)
{
	return gp->host;
}

/* --- roles ------------------------------------------------------------------ */

void check_g0(void) UNCHECKED_ROLES
{
	G *gp = getg();
	if (unlikely(!gp || gp != gp->m->g0))
		throw("check: not on g0");
}

void check_p(M *mp) UNCHECKED_ROLES
{
	if (unlikely(!getp(mp)))
		throw("check: called with mp->p == nil");
}

/*
 * Pins the caller to its M and P. A goroutine whose P sysmon took gets one
 * first, and may be on another M then.
 */
M *acquirem(void)
{
	G *gp = getg();
	if (!gp)
		return NULL;
	M *mp = gp->m;
	int32_t locks = atomic_load_explicit(&mp->locks, memory_order_relaxed);
	atomic_store_explicit(&mp->locks, locks + 1, memory_order_relaxed);
	/* sysmon's membarrier stands between its change of p and its look at
	 * locks: here the compiler's order is enough. */
	atomic_signal_fence(memory_order_seq_cst);
	uintptr_t p = atomic_load_explicit(&mp->p, memory_order_relaxed);
	if (unlikely((p == 0 || (p & 1)) && locks == 0))
		return acquirem_slow(gp);
	return mp;
}

void releasem(M *mp)
{
	if (!mp)
		return;
	int32_t locks = atomic_load_explicit(&mp->locks, memory_order_relaxed);
	if (unlikely(locks <= 0))
		throw("releasem: not acquired");
	atomic_signal_fence(memory_order_seq_cst);
	atomic_store_explicit(&mp->locks, locks - 1, memory_order_relaxed);
}

enum { SETMASK = 2 };

uint64_t maskall(void)
{
	uint64_t all = ~0ull, old = 0;
	sys4(14 /* rt_sigprocmask */, SETMASK, (long)&all, (long)&old, 8);
	return old;
}

void maskback(uint64_t mask)
{
	sys4(14, SETMASK, (long)&mask, 0, 8);
}

/* --- switching ---------------------------------------------------------------- */

void mcall(void (*fn)(G *gp))
{
	M *mp = acquirem();
	G *gp = getg();
	if (unlikely(gp == mp->g0))
		throw("mcall: called on g0");
	if (unlikely(mp->locks != 1))
		throw("mcall: holding locks");
	mcall0(fn, gp, mp->g0);
	/* Perhaps another M; execute() left us its one lock. */
	releasem(gp->m);
}

/* gp leaves the M, whose g0 we are on. */
void dropg(M *mp)
{
	G *gp = mp->curg;
	gp->m = NULL;
	mp->curg = NULL;
	atomic_signal_fence(memory_order_seq_cst); /* gcputime has the other half */
	if (unlikely(atomic_load_explicit(&gp->counted, memory_order_relaxed)))
		cpuout(gp);
}

void setkmask(M *mp, uint64_t mask)
{
	mp->kmask = mask;
	maskback(mask);
}

/* Runs gp on this M. inherittime: it goes on with the slice of the last one. */
void execute(G *gp, bool inherittime)
{
	M *mp = getg()->m;
	check_p(mp);
	P *pp = getp(mp);
	mp->curg = gp;
	gp->m = mp;
	atomic_signal_fence(memory_order_seq_cst);
	if (unlikely(atomic_load_explicit(&gp->counted, memory_order_relaxed)))
		cpuin(gp, mp);
	casgstatus(gp, Grunnable, Grunning);
	atomic_store_explicit(&pp->runstart, gp->since, memory_order_relaxed);
	if (!inherittime || gp->sliceused)
		atomic_store_explicit(&pp->slicestart, gp->since - gp->sliceused,
				      memory_order_relaxed);
	gp->sliceused = 0;
	if (!inherittime) {
		uint32_t tick = atomic_load_explicit(&pp->schedtick, memory_order_relaxed);
		atomic_store_explicit(&pp->schedtick, tick + 1, memory_order_relaxed);
	}
	if (unlikely(atomic_load_explicit(&pp->preempt, memory_order_relaxed)))
		atomic_store_explicit(&pp->preempt, PreemptNone, memory_order_relaxed);
	if (unlikely(mp->kmask != gp->kmask))
		setkmask(mp, gp->kmask);
	gogo(gp);
}

static void resetspinning(M *mp)
{
	mp->spinning = false;
	if (atomic_fetch_sub(&sched.nmspinning, 1) <= 0)
		throw("findrunnable: negative nmspinning");
	wakep();
}

static void becomespinning(M *mp)
{
	mp->spinning = true;
	atomic_fetch_add(&sched.nmspinning, 1);
}

/* --- finding work ---------------------------------------------------------------- */

/* The world stops: gives up the P, sleeps until it starts again. */
static void gcstopm(M *mp) UNCHECKED_ROLES
{
	if (mp->spinning) {
		mp->spinning = false;
		if (atomic_fetch_sub(&sched.nmspinning, 1) <= 0)
			throw("gcstopm: negative nmspinning");
	}
	P *pp = releasep(mp);
	lock(&sched.lock);
	atomic_store(&pp->status, Pgcstop);
	if (--sched.stopwait == 0)
		notewakeup(&sched.stopnote);
	unlock(&sched.lock);
	stopm();
}

/* Searches other Ps: their queues, and on the last round what they run next
 * and timers that they are late with. */
static G *stealwork(M *mp, P *pp, int64_t now) NEEDS_P
{
	int32_t n = sched.gomaxprocs;
	for (int round = 0; round < 4; round++) {
		bool last = round == 3;
		uint32_t start = fastrand(mp) % (uint32_t)n;
		for (int32_t i = 0; i < n; i++) {
			if (atomic_load_explicit(&sched.gcwaiting, memory_order_relaxed))
				return NULL;
			P *p2 = sched.allp[(start + (uint32_t)i) % (uint32_t)n];
			if (p2 == pp)
				continue;
			if (last && atomic_load(&p2->timer0when) <= now) {
				bool ran = false;
				checktimers(p2, now, &ran);
				G *gp = ran ? runqget(pp) : NULL;
				if (gp)
					return gp;
			}
			/* Not skipped when Pidle: one on its way to an M (handoffp, startm) may have a
			 * queue, and checkrunqsnop sends us here for it. */
			G *gp = runqsteal(pp, p2, last);
			if (gp) {
				metricscount(CountStolen);
				return gp;
			}
		}
	}
	return NULL;
}

/* Without a P: is there work on some queue, and a P to do it? Acquires it then. */
static P *checkrunqsnop(void)
{
	for (int32_t i = 0; i < sched.gomaxprocs; i++) {
		if (runqempty(sched.allp[i]))
			continue;
		lock(&sched.lock);
		P *pp = pidleget_locked();
		unlock(&sched.lock);
		return pp;
	}
	return NULL;
}

static void readylist(G *list, int32_t n, bool woken)
{
	if (!list)
		return;
	G *tail = list;
	for (G *gp = list; gp; gp = gp->schedlink) {
		casgstatus(gp, Gwaiting, Grunnable);
		tail = gp;
	}
	lock(&sched.lock);
	if (woken)
		globrunqputwoken_locked(list, tail, n);
	else
		globrunqputbatch_locked(list, tail, n);
	unlock(&sched.lock);
	/* As many Ms as there are idle Ps for them. */
	for (int32_t i = 0; i < n; i++) {
		if (atomic_load(&sched.npidle) == 0) {
			wakep();
			break;
		}
		startm(NULL, false);
	}
}

/* Readies a list of parked goroutines whose wakes were claimed. Callable with
 * or without a P. */
void injectglist(G *list, int32_t n)
{
	G *me = getg();
	readylist(list, n, !me || !getp(me->m)); /* who has a P comes to them soon */
}

/* The first of a netpoll list to run here, the rest readied. */
static G *takenetlist(G *list, int32_t n)
{
	G *gp = list;
	injectglist(list->schedlink, n - 1);
	gp->schedlink = NULL;
	casgstatus(gp, Gwaiting, Grunnable);
	return gp;
}

/*
 * The slice is over, and whoever had it has left by itself: those that it was
 * handed on to (runnext) wait in line as well. Two that keep readying each other
 * use up no turns, and where no signal can preempt them all others would starve.
 */
static void endslice(P *pp) NEEDS_P
{
	uint32_t why = atomic_exchange(&pp->preempt, PreemptNone);
	preempttaken(pp);
	G *gp = why == PreemptSlice ? atomic_exchange(&pp->runnext, NULL) : NULL;
	if (!gp)
		return;
	lock(&sched.lock);
	globrunqput_locked(gp);
	unlock(&sched.lock);
}

/*
 * Where there is always somebody in line no M would get to ask the network, and sysmon, which would be woken
 * by each event, would need a CPU for it.
 */
static bool polldue(P *pp)
{
	uint64_t minrun = atomic_load_explicit(&sched.minrun, memory_order_relaxed);
	int64_t ago = (int64_t)(atomic_load_explicit(&pp->runstart, memory_order_relaxed) -
				atomic_load_explicit(&sched.polledticks, memory_order_relaxed));
	return minrun && ago > 2 * (int64_t)minrun && netpollanywaiters() &&
	       atomic_load_explicit(&sched.lastpoll, memory_order_relaxed) != 0;
}

static void pollonce(void)
{
	int32_t n = 0;
	G *list = netpoll(0, &n);
	readylist(list, n, true);
}

/*
 * Nobody polls any more. The caller may be about to run something that lasts, and those that have looked for work
 * meanwhile have left timers and network to it: sysmon has to know, beside n that the caller has got.
 */
static void leavepoller(int32_t n)
{
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(&sched.sysmonforever) &&
	    (netpollwaiters() > n || timesleepuntil() != FOREVER))
		wakesysmon();
}

/* Finds a runnable goroutine; sleeps until there is one. */
static G *findrunnable(bool *inherittime) UNCHECKED_ROLES
{
	M *mp = getg()->m;
	for (;;) {
		P *pp = getp(mp);
		check_p(mp);
		*inherittime = false;
		if (unlikely(atomic_load(&sched.gcwaiting))) {
			gcstopm(mp);
			continue;
		}
		G *gp;
		int64_t now = 0;
		if (unlikely(atomic_load_explicit(&pp->timer0when, memory_order_relaxed) !=
			     FOREVER)) {
			bool ran = false;
			now = nanotime();
			checktimers(pp, now, &ran);
		}
		if (unlikely(atomic_load_explicit(&pp->preempt, memory_order_relaxed)))
			endslice(pp);
		if (unlikely(polldue(pp)))
			pollonce();
		/* Those that were woken are first, and in turn with others if they are many. */
		bool turn = pp->schedtick % 61 == 0 && sched.runqsize > 0;
		bool woken = !turn && sched.nwoken > 0 && !pp->tookwoken;
		pp->tookwoken = woken;
		if (turn || woken) {
			lock(&sched.lock);
			gp = turn ? globrunqgetinline_locked() : globrunqget_locked(pp, 1);
			unlock(&sched.lock);
			if (gp)
				return gp;
		}
		bool next = atomic_load_explicit(&pp->runnext, memory_order_relaxed) != NULL;
		gp = runqget(pp);
		if (gp) {
			*inherittime = next;
			return gp;
		}
		mp->lastmove = 0; /* from here on it takes its time */
		if (sched.runqsize > 0) {
			lock(&sched.lock);
			gp = globrunqget_locked(pp, 0);
			unlock(&sched.lock);
			if (gp)
				return gp;
		}
		int32_t n = 0;
		if (netpollinited() && netpollanywaiters() && atomic_load(&sched.lastpoll) != 0) {
			G *list = netpoll(0, &n);
			if (list) {
				crowdfew();
				return takenetlist(list, n);
			}
		}
		if (mp->spinning || 2 * sched.nmspinning < sched.gomaxprocs - sched.npidle) {
			if (!mp->spinning)
				becomespinning(mp);
			gp = stealwork(mp, pp, now ? now : nanotime());
			if (gp)
				return gp;
			if (atomic_load_explicit(&pp->timer0when, memory_order_relaxed) <=
			    nanotime())
				continue;
		}

		/* Nothing. Give up the P. */
		lock(&sched.lock);
		if (atomic_load(&sched.gcwaiting)) {
			unlock(&sched.lock);
			continue;
		}
		if (sched.runqsize > 0) {
			gp = globrunqget_locked(pp, 0);
			unlock(&sched.lock);
			return gp;
		}
		if (releasep(mp) != pp)
			throw("findrunnable: wrong p");
		pidleput_locked(pp);
		unlock(&sched.lock);

		/* The delicate moment (see the top): not spinning any more, then look again. */
		bool wasspinning = mp->spinning;
		if (wasspinning) {
			mp->spinning = false;
			if (atomic_fetch_sub(&sched.nmspinning, 1) <= 0)
				throw("findrunnable: negative nmspinning");
			atomic_thread_fence(memory_order_seq_cst);
			pp = checkrunqsnop();
			if (pp) {
				acquirep(mp, pp);
				becomespinning(mp);
				continue;
			}
		}

		/* One M waits for the network and the next timer. */
		int64_t until = timesleepuntil();
		if ((netpollanywaiters() || until != FOREVER) &&
		    atomic_exchange(&sched.lastpoll, 0) != 0) {
			atomic_store(&sched.polluntil, until);
			/* A timer added before polluntil was set didn't break us: look again. */
			int64_t again = timesleepuntil();
			if (again < until)
				until = again;
			crowdnone();
			now = nanotime();
			int64_t delay = until == FOREVER ? -1 : until > now ? until - now : 0;
			G *list = netpoll(delay, &n);
			atomic_store(&sched.polluntil, 0);
			atomic_store(&sched.lastpoll, nanotime());
			leavepoller(n);
			lock(&sched.lock);
			pp = pidleget_locked();
			unlock(&sched.lock);
			if (!pp)
				pp = retakesyscallp();
			if (!pp) {
				injectglist(list, n);
				sysmonneeded(); /* timers that are due wait for a P, too */
			} else {
				acquirep(mp, pp);
				if (list)
					return takenetlist(list, n);
				if (wasspinning)
					becomespinning(mp);
				continue;
			}
		}
		stopm();
	}
}

void schedule(void)
{
	check_g0();
	M *mp = getg()->m;
	if (unlikely(mp->locks != 1))
		throw("schedule: holding locks");
	if (unlikely(mp->lockedg)) {
		stoplockedm();
		check_p(mp);
		execute(mp->lockedg, false);
	}
	for (;;) {
		bool inherittime;
		G *gp = findrunnable(&inherittime);
		if (mp->spinning)
			resetspinning(mp);
		if (unlikely(gp->lockedm)) {
			startlockedm(gp);
			continue;
		}
		check_p(mp);
		execute(gp, inherittime);
	}
}

/* --- readying ------------------------------------------------------------------- */

/*
 * A P whose M waits in the kernel by intent, taken from it, or NULL. For who
 * needs a P and finds none idle. The P comes Pidle and on no list.
 */
P *retakesyscallp(void)
{
	for (int32_t i = 0; i < sched.gomaxprocs; i++) {
		P *pp = sched.allp[i];
		uint32_t s = Psyscall;
		if (atomic_load_explicit(&pp->status, memory_order_relaxed) != Psyscall ||
		    !atomic_load_explicit(&pp->longcall, memory_order_relaxed))
			continue;
		if (atomic_compare_exchange_strong(&pp->status, &s, Pidle)) {
			metricscount(CountRetaken);
			traceevent(TraceTaken, (uint64_t)pp->id);
			return pp;
		}
	}
	return NULL;
}

/* Work was queued: makes sure that somebody comes for it. */
void wakep(void)
{
	if (atomic_load(&sched.nmspinning) != 0)
		return;
	if (atomic_load(&sched.npidle) == 0) {
		P *pp = retakesyscallp();
		if (!pp) {
			sysmonneeded();
			return;
		}
		int32_t zero = 0;
		if (atomic_compare_exchange_strong(&sched.nmspinning, &zero, 1)) {
			startm(pp, true);
		} else {
			lock(&sched.lock);
			pidleput_locked(pp);
			unlock(&sched.lock);
		}
		return;
	}
	int32_t zero = 0;
	if (atomic_compare_exchange_strong(&sched.nmspinning, &zero, 1))
		startm(NULL, true);
}

/* Whoever gets true may, and must, ready gp. */
bool wakeclaim(G *gp, uint32_t why)
{
	uint32_t armed = WakeArmed;
	return atomic_compare_exchange_strong(&gp->waking, &armed, why);
}

/* Makes gp, whose wake the caller has claimed, runnable. Any thread; one
 * without a P, or with one just begun among others that have run for long, puts it on the global queue. */
void goready(G *gp, bool next) UNCHECKED_ROLES
{
	Section s = sectionenter();
	P *pp = s.mp ? getp(s.mp) : NULL;
	casgstatus(gp, Gwaiting, Grunnable);
	bool late = pp && ranlong(pp);
	if (pp && !late && atomic_load_explicit(&sched.longrunners, memory_order_relaxed) &&
	    atomic_load_explicit(&sched.npidle, memory_order_relaxed) == 0)
		pp = NULL;
	if (pp) {
		runqput(pp, gp, next || late);
	} else {
		lock(&sched.lock);
		globrunqputwoken_locked(gp, gp, 1);
		unlock(&sched.lock);
	}
	wakep();
	if (!pp)
		sysmonneededsoon();
	sectionleave(s);
}

/* --- parking -------------------------------------------------------------------- */

/* Before the caller makes itself findable: from now on, once unlockf has let
 * others look, exactly one wakeclaim succeeds. */
void parkarm(G *gp, bool intr)
{
	gp->wantintr = intr;
	atomic_store_explicit(&gp->waking, WakeArmed, memory_order_relaxed);
}

static void parktimeout(void *arg)
{
	G *gp = arg;
	if (wakeclaim(gp, WakeTimeout))
		goready(gp, true);
}

static void park_m(G *gp)
{
	check_g0();
	M *mp = getg()->m;
	bool (*unlockf)(G *, void *) = mp->waitunlockf;
	void *arg = mp->waitarg;
	Timer *t = mp->waittimer;
	casgstatus(gp, Grunning, Gwaiting);
	dropg(mp);
	/* From the first of the following steps on gp may be woken and run on
	 * another M. There it waits for gp->parking, so until we clear that its
	 * stack, with the timer on it, is still parked for us. */
	check_p(mp);
	if (t)
		addtimer(getp(mp), t);
	bool run = false;
	if (gp->wantintr) {
		atomic_store(&gp->parkintr, true);
		/* Pairs with ginterrupt: it sets intr, then looks at parkintr. */
		if (atomic_load(&gp->intr) && wakeclaim(gp, WakeIntr))
			run = true;
	}
	if (unlockf && !unlockf(gp, arg))
		run = true;
	/* Release: gopark's acquire of it sees all of the above done. */
	atomic_store_explicit(&gp->parking, false, memory_order_release);
	if (run) {
		casgstatus(gp, Gwaiting, Grunnable);
		execute(gp, true);
	}
	schedule();
}

uint32_t gopark(bool (*unlockf)(G *gp, void *arg), void *arg, WaitReason why, int64_t deadline)
{
	G *gp = getg();
	M *mp = gp->m;
	Timer t;
	if (unlikely(gp == mp->g0))
		throw("gopark: on g0");
	gp->waitreason = why;
	mp->waitunlockf = unlockf;
	mp->waitarg = arg;
	mp->waittimer = NULL;
	if (deadline != FOREVER) {
		memset(&t, 0, sizeof t);
		t.when = deadline;
		t.fn = parktimeout;
		t.arg = gp;
		mp->waittimer = &t;
	}
	/* The caller's own section (it holds the lock that unlockf releases) ends
	 * on g0: mcall0 directly. */
	if (unlikely(mp->locks != 1))
		throw("gopark: holding locks");
	atomic_store_explicit(&gp->parking, true, memory_order_relaxed);
	mcall0(park_m, gp, mp->g0);
	/* We are inside execute()'s section now, perhaps on another M. */
	for (int i = 0; atomic_load_explicit(&gp->parking, memory_order_acquire); i++)
		i < 100 ? procyield() : osyield();
	atomic_store_explicit(&gp->parkintr, false, memory_order_relaxed);
	uint32_t why_woken = atomic_load_explicit(&gp->waking, memory_order_relaxed);
	releasem(gp->m);
	if (deadline != FOREVER)
		deltimer(&t); /* also after a timeout: its fn may still be returning */
	gp->waitreason = WaitNone;
	return why_woken;
}
