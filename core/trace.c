/*
 * trace.c - recording what happens, one event after the other, for `goshim trace`.
 *
 * Metrics say how much and how often; why this request was late says the order of events. They are recorded where
 * they are counted (metrics.c), by the owner of a P in the P's ring, with no lock and no system call: the rings are in
 * the metrics region, and a reader in another process takes them out as they fill. So nothing has to be asked of
 * this process, which may hang, or have a filter for system calls. Switched off it is one comparison with
 * a word of the region (tracing).
 *
 * A signal handler may come at any instruction and record something itself: its place is the next, and a reader waits for
 * the one before it (tracefile.h).
 */
#include "flight.h"
#include "runtime.h"

static uint64_t never, always = UINT64_MAX;
uint64_t *traceuntil = &never;

static void record(const TraceRing *r, bool shared, uint64_t ticks, uint64_t what, uint64_t arg)
{
	if (unlikely(!r->events))
		return;
	uint64_t n = shared ? __atomic_fetch_add(&r->head->next, 1, __ATOMIC_RELAXED)
			    : takeonce(&r->head->next);
	TraceEvent *e = &r->events[n & r->mask];
	/* Release, each: who sees the event sees that its place is taken, and who sees seq the event. */
	__atomic_store_n(&e->ticks, ticks, __ATOMIC_RELEASE);
	e->what = what;
	e->arg = arg;
	__atomic_store_n(&e->seq, n + 1, __ATOMIC_RELEASE);
}

/* What is to be known of the change beside the statuses. */
static uint64_t argof(const G *gp, uint32_t from, uint32_t to)
{
	G *me = getg();
	switch (to) {
	case Gwaiting: return gp->waitobj;
	case Gsyscall: return gp->callnr;
	case Grunning: return me ? (uint64_t)atomic_load(&me->m->tid) : 0;
	/* The maker or readier, unless it is a g0, whose number is 0. */
	case Grunnable: return me && (from == Gwaiting || from == Gdead) ? (uint64_t)me->goid : 0;
	default: return 0;
	}
}

noinline_fn void tracemove(const Meter *m, bool shared, const G *gp, uint32_t from, uint32_t to,
			   uint64_t now)
{
	record(&m->ring, shared, now,
	       TRACEWHAT(from * 8 + to, gp->waitreason, gp->nameslot, gp->goid),
	       argof(gp, from, to));
	if (unlikely(now - gp->since > flightlimit))
		flightmove(gp, from, to, now);
}

void traceof(int64_t goid, uint32_t type, uint64_t arg)
{
	if (likely(!__atomic_load_n(traceuntil, __ATOMIC_RELAXED)))
		return;
	uint64_t now = ticksnow();
	if (!tracing(now))
		return;
	bool shared;
	Meter *m = metermine(&shared);
	record(&m->ring, shared, now, TRACEWHAT(type, 0, 0, goid), arg);
}

void traceevent(uint32_t type, uint64_t arg)
{
	G *me = getg();
	traceof(me ? me->goid : 0, type, arg);
}

void tracealways(void)
{
	traceuntil = &always;
}

void traceforkchild(void)
{
	traceuntil = &never;
}
