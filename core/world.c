/*
 * world.c - the scheduler's start, the number of Ps, and its end in a fork
 * child.
 *
 * The number of Ps changes only while the world is stopped: all Ps are the
 * stopper's then, and no other goroutine runs.
 */
#include "runtime.h"

#include <errno.h>
#include <string.h>

/* --- the world ------------------------------------------------------------------------ */

static uint64_t stoppedat;         /* ticksnow(); the stopper's */
static _Atomic uint32_t worldlock; /* one stopper at a time; spins through the scheduler */

/*
 * Stops all other goroutines: on return every P is the caller's. The caller
 * must not park until startTheWorld. For changes of the number of Ps.
 */
void stopTheWorld(void)
{
	while (atomic_exchange(&worldlock, 1))
		gosched();
	M *mp = acquirem();
	stoppedat = ticksnow();
	lock(&sched.lock);
	sched.stopwait = sched.gomaxprocs;
	atomic_store(&sched.gcwaiting, 1);
	preemptall();
	getp(mp)->status = Pgcstop;
	sched.stopwait--;
	for (int32_t i = 0; i < sched.gomaxprocs; i++) {
		uint32_t s = Psyscall;
		if (atomic_compare_exchange_strong(&sched.allp[i]->status, &s, Pgcstop))
			sched.stopwait--;
	}
	P *pp;
	while ((pp = pidleget_locked())) {
		atomic_store(&pp->status, Pgcstop);
		sched.stopwait--;
	}
	bool wait = sched.stopwait > 0;
	unlock(&sched.lock);
	/* sysmon takes the Ps of those that are stuck in the kernel: when it has seen their CPU
	 * clocks stand still, which they don't while they are signalled. So ask less and less. */
	int64_t ns = 100000;
	while (wait && !notetsleep(&sched.stopnote, ns)) {
		preemptall();
		wakesysmon();
		if (ns < 50000000)
			ns *= 2;
	}
	noteclear(&sched.stopnote);
	if (sched.stopwait != 0)
		throw("stopTheWorld: not stopped (stopwait != 0)");
}

/* The world goes on, with the number of Ps it has now. */
void startTheWorld(void) UNCHECKED_ROLES
{
	M *mp = getg()->m;
	P *mine = getp(mp);
	lock(&sched.lock);
	if (mine->status == Pdead) { /* procresize dropped it: take another */
		mine->m = NULL;
		atomic_store(&mp->p, 0);
		mine = sched.allp[0];
		mine->status = Pidle;
		mine->m = NULL;
		acquirep(mp, mine);
	}
	mine->status = Prunning;
	atomic_store(&sched.gcwaiting, 0);
	for (int32_t i = 0; i < sched.gomaxprocs; i++) {
		P *pp = sched.allp[i];
		if (pp == mine || pp->status != Pgcstop)
			continue;
		pp->m = NULL;
		if (runqempty(pp)) {
			pidleput_locked(pp);
			continue;
		}
		G *gp;
		while ((gp = runqget(pp)))
			globrunqput_locked(gp);
		pidleput_locked(pp);
	}
	unlock(&sched.lock);
	for (int32_t i = sched.runqsize; i > 0 && atomic_load(&sched.npidle) > 0; i--)
		startm(NULL, false);
	wakep();
	uint64_t stood = ticksnow() - stoppedat;
	metricsvalue(HistWorld, stood);
	traceevent(TraceWorld, stood);
	releasem(mp);
	atomic_store(&worldlock, 0);
}

int setgomaxprocs(int n)
{
	if (n < 1 || n > MAXPROCS)
		return -EINVAL;
	if (!getg())
		return -EAGAIN;
	stopTheWorld();
	lock(&sched.lock);
	procresize(n);
	unlock(&sched.lock);
	startTheWorld();
	return 0;
}

/* --- the start --------------------------------------------------------------------------- */

static void initsignals(void *m0)
{
	minitsignals(m0);
}

int schedinit(void *tls, void *hostg, uintptr_t stacklo, uintptr_t stackhi,
	      uint64_t kmask) UNCHECKED_ROLES
{
	if (schedstarted())
		throw("schedinit: started twice");
	have_fsgsbase = host.fsgsbase && !debug.nofsgsbase;
	if (membarrierregister() < 0)
		return -ENOSYS;
	lockinit(&sched.lock, RankSched);
	lockinit(&sched.allglock, RankAllg);
	sched.maxmcount = (int32_t)debug.maxm;
	sched.basekmask = kmask;
	sched.pid = (int)sys0(39 /* getpid */);
	int32_t n = debug.gomaxprocs ? (int32_t)debug.gomaxprocs : ncpu();
	sched.maxkblocked = debug.maxkblocked >= 0 ? (int32_t)debug.maxkblocked : n + 6;
	/* One M for each P has to be left, and one to spare. */
	int64_t left = debug.maxm - n - 1;
	sched.maxkwaits = (int32_t)(left < 1 ? 1 : left < debug.maxkwaits ? left : debug.maxkwaits);
	Stack g0stack;
	M *m0 = malloc_m();
	G *gp = gfget(NULL);
	if (!m0 || !gp || sigstackalloc(m0) || stackalloc(256 << 10, 4096, &g0stack))
		return -ENOMEM;
	void *block = host.m0block();
	if (!block)
		return -ENOMEM;
	ticksstart();
	atomic_store(&sched.slowmoves, sched.notsc || debug.metricsoff);
	metricsinit(n, false);
	lock(&sched.lock);
	procresize(n);
	for (int32_t i = n - 1; i > 0; i--)
		pidleput_locked(sched.allp[i]);
	unlock(&sched.lock);
	semainit();
	atomic_store(&sched.lastpoll, nanotime());
	G *g0 = m0->g0;
	m0->tls = g0->tls = block;
	m0->tid = gettid_os();
	g0->stacklo = g0stack.lo;
	g0->stackhi = g0stack.hi;
	g0->sched.sp = g0stack.hi & ~(uintptr_t)63;
	tlssetg(block, g0);
	gp->goid = ++sched.goidgen;
	gp->tls = tls;
	gp->host = hostg;
	gp->stacklo = stacklo;
	gp->stackhi = stackhi;
	gp->kmask = kmask;
	gp->intrstack = NULL;
	cpureset(gp, threadcputime(gettid_os())); /* it was all there was */
	gp->m = m0;
	m0->curg = gp;
	sched.nglive = 1;
	sched.ngpeak = 1;
	sched.allp[0]->status = Pidle;
	acquirep(m0, sched.allp[0]);
	/* Not on this stack: it may be the program's alternate one, which the kernel would keep. */
	onstack0(initsignals, m0, g0->sched.sp);
	goshim_g = gp;
	casgstatus(gp, Gdead, Grunning);
	atomic_store(&m0->locks, 0);
	atomic_store_explicit(&sched.started, true, memory_order_release);
	return 0;
}

/* In the child of fork, on its only thread: as if never started. Records of
 * the parent's threads stay behind in memory, unreachable. */
void schedforkchild(void)
{
	/* Still in use: this stack, the goroutine's if that is another, the M's signal stack, and its own,
	 * where the block lies that the kernel has registered. */
	G *gp = getg();
	M *mp = gp ? gp->m : NULL; /* a foreign thread has none of them */
	uintptr_t keep[] = {(uintptr_t)__builtin_frame_address(0), gp ? gp->stacklo : 0,
			    mp ? mp->gsignallo : 0, mp ? mp->g0->stacklo : 0};
	goshim_g = NULL;
	memforkchild();
	stackforkchild(keep, mp ? nelem(keep) : 0);
	memset(&sched, 0, sizeof sched);
	metricsforkchild();
	requestsforkchild();
	atomic_store(&worldlock, 0);
	mforkchild();
	captureforkchild();
	semaforkchild();
	netpollforkchild();
	sysmonforkchild();
	kwaitforkchild();
}
