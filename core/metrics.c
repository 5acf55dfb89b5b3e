/*
 * metrics.c - counting what the scheduler does, always.
 *
 * The problem: where time went is asked after the fact, of a process that was not prepared for it, so it
 * must be counted from the start and cost nothing to speak of. And the answer must be there
 * for another process, also when this one is dead or hangs. To know what that costs they can be switched off (GOSHIM=metrics=off).
 *
 * All of it hangs on one place: a goroutine's status changes in casgstatus alone, so what is counted there is
 * complete, and the times add up. The counter of the CPU is read at each change but the one
 * to Grunning that follows another goroutine's leaving at once: that moment is its own. Values are in ticks; the
 * reader has the rate.
 *
 * Who has a P writes to the P's shard, with plain additions of one instruction each: the next owner of the P goes on,
 * and a signal handler finds them done or not begun. All others share one, and lock the bus.
 *
 * A shard has half a megabyte of buckets, of which a program uses a few pages. So a page is
 * asked for when it is first written to (metricspage), and in a way that fails, rather than kills, when there is none.
 */
#include "metrics.h"

#include "runtime.h"

_Static_assert(MetricStatuses == Gdead + 1, "a row for each status");
_Static_assert(sizeof(Shard) <= ShardPages * 4096ul, "a bit for each page");

static void addto(uint64_t *to, uint64_t n, bool shared)
{
	if (shared)
		addatomic(to, n);
	else
		addonce(to, n);
}

static inline uint32_t pageof(const Meter *m, const uint64_t *bucket)
{
	return (uint32_t)((const char *)bucket - (const char *)m->shard) >> 12;
}

static inline bool havepage(const Meter *m, uint32_t page)
{
	return atomic_load_explicit(&m->have[page / 64], memory_order_relaxed) >> page % 64 & 1;
}

/* The histogram of the status that gp leaves. */
static inline Hist histof(const G *gp, uint32_t from)
{
	uint32_t h = gp->waitreason;
	h = from == Grunnable ? HistRunnable : h;
	return (Hist)(from == Grunning ? HistRunning : h);
}

/* What the other goroutine's leaving took until gp runs is nothing: one look at the counter less. */
static inline uint64_t movetime(const M *mp, uint32_t from, uint64_t now)
{
	return from == Grunnable && mp->lastmove ? mp->lastmove : now;
}

/* What gp's time in the status that it leaves is to a request that it serves. */
static const uint8_t partof[HistCount] = {
    [HistSyscall] = PartSyscall, [HistRunnable] = PartQueue, [HistRunning] = PartCPU,
    [WaitMutex] = PartLock,      [WaitCond] = PartWait,      [WaitRWMutexR] = PartLock,
    [WaitRWMutexW] = PartLock,   [WaitSem] = PartWait,       [WaitBarrier] = PartWait,
    [WaitOnce] = PartLock,       [WaitJoin] = PartWait,      [WaitFutex] = PartLock,
    [WaitSleep] = PartSleep,     [WaitIORead] = PartIO,      [WaitIOWrite] = PartIO,
    [WaitIOPoll] = PartIO,       [WaitSignal] = PartWait,    [WaitThread] = PartWait,
    [WaitKernel] = PartSyscall,
};

Meter *metermine(bool *shared)
{
	G *me = getg();
	P *pp = me && me->m ? getp(me->m) : NULL;
	Meter *threads = me ? NULL : timedmeter();
	*shared = !pp || !pp->meter.shard;
	if (threads)
		return threads;
	return *shared ? &nobodys : &pp->meter;
}

Part metricspart(WaitReason why)
{
	return (Part)partof[why];
}

/* Is there memory for that figure? */
static bool hasroom(Meter *m, const uint64_t *figure)
{
	uint32_t page = pageof(m, figure);
	return likely(havepage(m, page)) || metricspage(m, page);
}

void metricscountin(Meter *m, Hist h, uint64_t v, bool shared)
{
	uint64_t *b = &m->shard->buckets[h][histindex(v)];
	if (!hasroom(m, b))
		b = &m->shard->lost;
	addto(b, 1, shared);
	addto(&m->shard->sum[h], v, shared);
}

/* In all cases. Of what isn't counted the slice alone has to be known. */
static noinline_fn void moveslow(G *gp, uint32_t from, uint32_t to)
{
	if (debug.metricsoff) {
		if (to == Grunning && from != Gsyscall)
			gp->since = ticksnow();
		return;
	}
	bool shared;
	Meter *m = metermine(&shared);
	M *mp = getg() ? getg()->m : NULL;
	uint64_t since = gp->since, now = ticksnow();
	if (mp && to == Grunning)
		now = movetime(mp, from, now);
	/* CPUs' counters may differ a little. */
	if ((int64_t)(now - since) < 0)
		now = since;
	if (mp && from == Grunning)
		mp->lastmove = now;
	if (unlikely(gp->serving))
		gp->serving->sum[partof[histof(gp, from)]] += now - since;
	if (tracing(now))
		tracemove(m, shared, gp, from, to, now);
	gp->since = now;
	addto(&m->shard->moves[from][to], 1, shared);
	if (to == Gwaiting) {
		gp->parked = now;
		addto(&m->shard->began[gp->waitreason], 1, shared);
	}
	if (from == Gdead)
		return;
	if (from == Grunning)
		addto(&m->shard->running[gp->nameslot], now - since, shared);
	metricscountin(m, from == Gsyscall && gp->lostp ? HistSyscallLost : histof(gp, from),
		       now - since, shared);
	gp->lostp = false;
}

void metricsmove(G *gp, uint32_t from, uint32_t to)
{
	G *me = getg();
	if (unlikely(!me || atomic_load_explicit(&sched.slowmoves, memory_order_relaxed)))
		return moveslow(gp, from, to);
	M *mp = me->m;
	P *pp = getp(mp);
	uint64_t since = gp->since, now = mp->lastmove;
	if (from != Grunnable || to != Grunning || !now)
		now = cputicks();
	if (unlikely(!pp || !pp->meter.shard || from == Gdead || gp->lostp ||
		     (int64_t)(now - since) < 0))
		return moveslow(gp, from, to);
	Meter *m = &pp->meter;
	Hist h = histof(gp, from);
	uint64_t *b = &m->shard->buckets[h][histindex(now - since)];
	if (unlikely(!havepage(m, pageof(m, b))))
		return moveslow(gp, from, to);
	if (from == Grunning) {
		mp->lastmove = now;
		addonce(&m->shard->running[gp->nameslot], now - since);
	}
	if (to == Gwaiting) {
		gp->parked = now;
		addonce(&m->shard->began[gp->waitreason], 1);
	}
	if (unlikely(gp->serving))
		gp->serving->sum[partof[h]] += now - since;
	if (tracing(now))
		tracemove(m, false, gp, from, to, now);
	gp->since = now;
	addonce(&m->shard->moves[from][to], 1);
	addonce(b, 1);
	addonce(&m->shard->sum[h], now - since);
}

void metricscount(Count c)
{
	bool shared;
	Meter *m = metermine(&shared);
	addto(&m->shard->count[c], 1, shared);
	if (c != CountRetaken) /* those say which P it was */
		traceevent(TraceCount + c, 0);
}

void metricsvalue(Hist h, uint64_t value)
{
	bool shared;
	Meter *m = metermine(&shared);
	if (debug.metricsoff)
		return;
	metricscountin(m, h, (int64_t)value < 0 ? 0 : value, shared);
}

int64_t metricscounted(Count c)
{
	uint64_t n = __atomic_load_n(&nobodys.shard->count[c], __ATOMIC_RELAXED);
	for (int32_t i = 0; i < sched.nallp; i++) {
		Shard *s = sched.allp[i]->meter.shard;
		n += s ? __atomic_load_n(&s->count[c], __ATOMIC_RELAXED) : 0;
	}
	return (int64_t)n;
}

/* Counts are in the first page of a Served. */
_Static_assert(offsetof(Served, buckets) <= 4096, "sums and splits, too");

void metricsrequestcount(int listener, RequestCount c)
{
	bool shared;
	Meter *m = metermine(&shared);
	uint64_t *n = &m->shard->served[listener].count[c];
	addto(hasroom(m, n) ? n : &m->shard->lost, 1, shared);
}

void metricsrequest(int listener, const Took *t)
{
	bool shared;
	Meter *m = metermine(&shared);
	Served *s = &m->shard->served[listener];
	if (!hasroom(m, s->count)) {
		addto(&m->shard->lost, 1, shared);
		return;
	}
	addto(&s->count[RequestsDone], 1, shared);
	if (t->atleast)
		addto(&s->count[RequestsAtLeast], 1, shared);
	if (t->atmost)
		addto(&s->count[RequestsAtMost], 1, shared);
	if (t->streamed)
		addto(&s->count[RequestsStreamed], 1, shared);
	for (int i = 0; i < RequestTimes; i++) {
		uint64_t v = t->times[i], *b = &s->buckets[i][histindex(v)];
		if (i == RequestLast && t->streamed)
			return;
		addto(hasroom(m, b) ? b : &m->shard->lost, 1, shared);
		addto(&s->sum[i], v, shared);
	}
	uint64_t *split = s->split[histpower(t->times[RequestLast])];
	for (int i = 0; i < Parts; i++)
		if (t->parts[i])
			addto(&split[i], t->parts[i], shared);
}
