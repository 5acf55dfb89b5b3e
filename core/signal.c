/*
 * signal.c - what a kernel thread of ours needs for signals.
 *
 * Every M has a stack for handlers (gsignal): the goroutine's own may be any
 * size, and its overflow is one of the things to be reported. Asynchronous
 * signals are blocked on Ms, since the program addresses threads that are
 * goroutines; one thread, sysmon, receives what is meant for the process, and
 * the host routes it (shim/signal.c). Open on every M are SIGURG, and what a
 * goroutine itself causes.
 */
#include "runtime.h"

#include <errno.h>
#include <signal.h>

enum { GSIGNAL = 64 << 10 };

/* Before mp's thread is made, which could not do without. */
int sigstackalloc(M *mp)
{
	Stack s;
	if (mp->gsignallo)
		return 0;
	if (stackalloc(GSIGNAL, 4096, &s))
		return -ENOMEM;
	mp->gsignallo = s.lo;
	mp->gsignalhi = s.hi;
	return 0;
}

void minitsignals(M *mp)
{
	stack_t ss = {.ss_sp = (void *)mp->gsignallo,
		      .ss_flags = 0,
		      .ss_size = mp->gsignalhi - mp->gsignallo};
	/* A filter may refuse it: then signals come on the stack of whoever runs. */
	if (unlikely(sys2(131 /* sigaltstack */, (long)&ss, 0)) && sys2(131, 0, (long)&ss) == 0 &&
	    ss.ss_flags & SS_ONSTACK)
		throw("minitsignals: on another signal stack");
	setkmask(mp, sched.basekmask);
}

/* --- interrupting goroutines -------------------------------------------------------- */

void ginterrupt(G *gp)
{
	atomic_store(&gp->intr, 1);
	if (atomic_load(&gp->parkintr)) {
		if (wakeclaim(gp, WakeIntr))
			goready(gp, true);
		return;
	}
	GStatus s = readgstatus(gp);
	if (s == Grunning || s == Gsyscall) {
		M *mp = gp->m;
		if (mp && mp->curg == gp)
			preemptm(mp);
	}
	/* If the signal comes at a bad moment sysmon asks again. */
	atomic_store(&sched.intrpending, 1);
	wakesysmon();
}

bool ginterrupted(void)
{
	G *gp = getg();
	return gp && atomic_load_explicit(&gp->intr, memory_order_relaxed);
}

void gkeepinterrupt(void)
{
	uint32_t none = IntrNone;
	G *gp = getg();
	if (gp)
		atomic_compare_exchange_strong(&gp->intr, &none, IntrKept);
}

void gclearinterrupt(void)
{
	atomic_store(&getg()->intr, 0);
}

void gsetkmask(uint64_t mask)
{
	G *gp = getg();
	if (!gp)
		return;
	M *mp = acquirem();
	gp->kmask = mask;
	if (mp->kmask != mask)
		setkmask(mp, mask);
	releasem(mp);
}

uint64_t ggetkmask(void)
{
	G *gp = getg();
	return gp ? gp->kmask : 0;
}

void *mblock(void)
{
	G *gp = getg();
	return gp ? gp->m->tls : NULL;
}
