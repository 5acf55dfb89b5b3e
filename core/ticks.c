/*
 * ticks.c - time as the CPU's counter tells it: 10 ns a look, where the kernel's clock takes 22.
 *
 * How long a tick is follows from two moments on both clocks, the start and another that is moved on now and
 * then. Who compares ticks with the kernel's time counts from the last.
 */
#include "metrics.h"
#include "runtime.h"

enum { EVERY = 1 << 24 }; /* ticks from one look to the next, at least: some ms */

TickPoints tickpoints;

/* In their place, from the moment on when the counter may not be read. */
static TickPoints slow;

#define GET(x) __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define SET(x, v) __atomic_store_n(&(x), v, __ATOMIC_RELAXED)

/* One moment on both clocks, as exactly as can be had in a few tries. */
static void bothclocks(uint64_t *t, int64_t *ns)
{
	uint64_t least = UINT64_MAX;
	for (int i = 0; i < 5 && least > 500; i++) {
		uint64_t before = cputicks();
		int64_t n = nanotime();
		uint64_t took = cputicks() - before;
		if (took >= least)
			continue;
		least = took;
		*t = before + took / 2;
		*ns = n;
	}
}

/* n * a / b */
static uint64_t scaled(uint64_t n, uint64_t a, uint64_t b)
{
	return b ? (uint64_t)((unsigned __int128)n * a / b) : 0;
}

void ticksstart(void)
{
	if (atomic_load(&sched.notsc))
		return;
	bothclocks(&tickpoints.startticks, &tickpoints.startns);
	tickpoints.lastticks = tickpoints.startticks;
	tickpoints.lastns = tickpoints.startns;
	tickpoints.seq = 0;
}

static void look(void)
{
	uint32_t seq = __atomic_load_n(&tickpoints.seq, __ATOMIC_ACQUIRE);
	if ((seq & 1) || !__atomic_compare_exchange_n(&tickpoints.seq, &seq, seq + 1, false,
						      __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		return; /* another does it */
	uint64_t t = 0;
	int64_t ns = 0;
	bothclocks(&t, &ns);
	SET(tickpoints.lastticks, t);
	SET(tickpoints.lastns, ns);
	metricsticks(&tickpoints);
	__atomic_store_n(&tickpoints.seq, seq + 2, __ATOMIC_RELEASE);
}

void tickslook(void)
{
	if (!atomic_load_explicit(&sched.notsc, memory_order_relaxed) &&
	    cputicks() - GET(tickpoints.lastticks) > EVERY)
		look();
}

uint64_t ticksnow(void)
{
	if (likely(!atomic_load_explicit(&sched.notsc, memory_order_relaxed)))
		return cputicks();
	return slow.lastticks + scaled((uint64_t)(nanotime() - slow.lastns),
				       slow.lastticks - slow.startticks,
				       (uint64_t)(slow.lastns - slow.startns));
}

int64_t ticksns(uint64_t n)
{
	if (GET(tickpoints.lastns) == tickpoints.startns)
		look(); /* a young process */
	return (int64_t)scaled(n, (uint64_t)(GET(tickpoints.lastns) - tickpoints.startns),
			       GET(tickpoints.lastticks) - tickpoints.startticks);
}

uint64_t nsticks(int64_t ns)
{
	ticksns(0);
	return scaled((uint64_t)ns, GET(tickpoints.lastticks) - tickpoints.startticks,
		      (uint64_t)(GET(tickpoints.lastns) - tickpoints.startns));
}

void ticksavoid(void)
{
	if (atomic_load(&sched.notsc))
		return;
	look();
	slow = tickpoints;
	/* Denied before the start, or in the same moment: any rate will do. */
	if (slow.lastns <= slow.startns || slow.lastticks <= slow.startticks) {
		slow = (TickPoints){.lastns = 1, .lastticks = 1};
		tickpoints = slow;
		metricsticks(&tickpoints);
	}
}
