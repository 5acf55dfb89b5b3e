/*
 * cputime.c - the CPU time of a goroutine.
 *
 * The kernel's clocks are of kernel threads. A goroutine that somebody asks about is counted from
 * then on: what its M's clock gains while it runs there. That costs a system call at each switch, so nobody
 * else is. It is marked first; then either its M sees the mark at the next switch, or whoever
 * asks sees the M (membarrier stands between), and begins in its place.
 */
#include "runtime.h"

#include <errno.h>

/* gp begins to run on mp, which is the caller's or was seen by who asks. */
static void begin_locked(CPUTime *c, M *mp)
{
	if (!c->tid) {
		c->tid = atomic_load(&mp->tid);
		c->start = threadcputime(c->tid);
	}
}

void cpuin(G *gp, M *mp)
{
	CPUTime *c = gp->cpu;
	lock(&c->lock);
	begin_locked(c, mp);
	unlock(&c->lock);
}

static int64_t sum_locked(CPUTime *c)
{
	return c->sum + (c->tid ? threadcputime(c->tid) - c->start : 0);
}

void cpuout(G *gp)
{
	CPUTime *c = gp->cpu;
	lock(&c->lock);
	c->sum = sum_locked(c);
	c->tid = 0;
	unlock(&c->lock);
}

static CPUTime *account(G *gp)
{
	CPUTime *c = atomic_load(&gp->cpu), *none = NULL;
	if (c)
		return c;
	c = runtime_alloc(sizeof *c);
	if (!c)
		return NULL;
	lockinit(&c->lock, RankCpu);
	if (atomic_compare_exchange_strong(&gp->cpu, &none, c))
		return c;
	runtime_free(c, sizeof *c);
	return none;
}

void cpureset(G *gp, int64_t had)
{
	CPUTime *c = had ? account(gp) : atomic_load_explicit(&gp->cpu, memory_order_relaxed);
	atomic_store_explicit(&gp->counted, false, memory_order_relaxed);
	if (c) {
		c->tid = 0;
		c->sum = had;
	}
}

int64_t gcputime(G *gp, void *hostg)
{
	int64_t r = -ESRCH;
	Section s = sectionenter();
	CPUTime *c = account(gp);
	if (!c) {
		sectionleave(s);
		return -ENOMEM;
	}
	lock(&c->lock);
	if (gp->host == hostg) {
		if (!atomic_load_explicit(&gp->counted, memory_order_relaxed)) {
			atomic_store(&gp->counted, true);
			membarrier();
			M *mp = gp->m;
			if (mp)
				begin_locked(c, mp);
		}
		r = sum_locked(c);
	}
	unlock(&c->lock);
	sectionleave(s);
	return r;
}
