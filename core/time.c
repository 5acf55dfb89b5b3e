/*
 * time.c - timers.
 *
 * The problem: every timed wait needs one, most are cancelled before they
 * fire, and firing late is felt as latency. A kernel timer each would cost two
 * system calls a wait.
 *
 * The design is Go's: each P has a heap of its own, ordered by time, so that
 * starting and cancelling is done on the P's own cache lines; an M looks at the
 * top whenever it schedules (checktimers), thieves look at the heaps of busy Ps,
 * and an M that goes idle sleeps in the poller until the earliest of all. A
 * heap of four children a node has half the levels of a binary one, and its
 * siblings lie in half a cache line. A wheel was rejected: idle Ms need the
 * exact next deadline, which a wheel has to search for.
 *
 * Cancelling is exact. Timers live on the stack of the waiter, so deltimer must
 * not return while anybody may still touch one: whoever fires a timer marks
 * it running before taking it out of the heap, clears the mark as the last
 * access to it, and deltimer waits for that.
 *
 * When the heap cannot grow, a timer goes to a list that needs no memory
 * (unsorted): searched one by one, but a wait that has begun cannot fail.
 */
#include "runtime.h"

#include <string.h>

enum { Arity = 4, FirstTimers = 64, Unsorted = -1 };

/* --- the heap, under timerslock ---------------------------------------------- */

static void place(P *pp, int32_t i, Timer *t)
{
	pp->timers[i] = t;
	t->index = i;
}

/* Moves t, which belongs at i or above, to its place. */
static void siftup(P *pp, int32_t i, Timer *t)
{
	while (i > 0) {
		int32_t parent = (i - 1) / Arity;

		if (pp->timers[parent]->when <= t->when)
			break;
		place(pp, i, pp->timers[parent]);
		i = parent;
	}
	place(pp, i, t);
}

/* Moves t, which belongs at i or below, to its place. */
static void siftdown(P *pp, int32_t i, Timer *t)
{
	int32_t n = pp->ntimers;

	for (;;) {
		int32_t first = i * Arity + 1, least = first;

		if (first >= n)
			break;
		for (int32_t c = first + 1; c < first + Arity && c < n; c++)
			if (pp->timers[c]->when < pp->timers[least]->when)
				least = c;
		if (t->when <= pp->timers[least]->when)
			break;
		place(pp, i, pp->timers[least]);
		i = least;
	}
	place(pp, i, t);
}

/* The earliest of those for which the heap had no room, or NULL. */
static Timer *earliestunsorted(P *pp)
{
	Timer *first = pp->unsorted;

	for (Timer *t = first; t != NULL; t = t->next)
		if (t->when < first->when)
			first = t;
	return first;
}

static Timer *earliest(P *pp)
{
	Timer *t = pp->ntimers > 0 ? pp->timers[0] : NULL;

	if (unlikely(pp->unsorted != NULL)) {
		Timer *u = earliestunsorted(pp);

		if (t == NULL || u->when < t->when)
			return u;
	}
	return t;
}

/* Seq-cst, because addtimer looks for a poller after it and a poller looks at
 * the timers after it has announced itself: one of them sees the other. */
static void publish(P *pp)
{
	Timer *t = earliest(pp);

	atomic_store(&pp->timer0when, t != NULL ? t->when : FOREVER);
}

/* False: out of memory. */
static bool growtimers(P *pp)
{
	int32_t cap = pp->captimers > 0 ? 2 * pp->captimers : FirstTimers;
	Timer **timers = runtime_alloc((size_t)cap * sizeof(Timer *));

	if (timers == NULL)
		return false;
	if (pp->ntimers > 0)
		memcpy(timers, pp->timers, (size_t)pp->ntimers * sizeof(Timer *));
	runtime_free(pp->timers, (size_t)pp->captimers * sizeof(Timer *));
	pp->timers = timers;
	pp->captimers = cap;
	return true;
}

static void insert(P *pp, Timer *t)
{
	if (unlikely(pp->ntimers == pp->captimers && !growtimers(pp))) {
		t->index = Unsorted;
		t->next = pp->unsorted;
		pp->unsorted = t;
	} else {
		siftup(pp, pp->ntimers++, t);
	}
	/* Release: deltimer finds the timer in this heap, with its index. */
	atomic_store_explicit(&t->pp, pp, memory_order_release);
}

/* Takes t out. Its pp is left to the caller. */
static void extract(P *pp, Timer *t)
{
	int32_t i = t->index;
	Timer *last;

	if (unlikely(i == Unsorted)) {
		Timer **link = &pp->unsorted;

		while (*link != t)
			link = &(*link)->next;
		*link = t->next;
		return;
	}
	last = pp->timers[--pp->ntimers];
	if (i == pp->ntimers)
		return;
	if (i > 0 && last->when < pp->timers[(i - 1) / Arity]->when)
		siftup(pp, i, last);
	else
		siftdown(pp, i, last);
}

/* --- starting and cancelling -------------------------------------------------- */

/* A new earliest timer of pp: if somebody sleeps in the poller beyond it, he
 * must wake up for it. */
static void newearliest(P *pp, int64_t when)
{
	if (atomic_load(&sched.lastpoll) == 0) {
		/* polluntil is 0 between the poller's two steps: it looks at the
		 * timers once more after that. */
		if (atomic_load(&sched.polluntil) > when)
			netpollBreak();
	} else if (!runqempty(pp) || sched.runqsize > 0) {
		/* Nobody polls, and this P goes on with something else, perhaps
		 * for long. (With nothing else to do its M will poll.) */
		if (atomic_load(&sched.sysmonwait) == SysmonSleeps ||
		    (atomic_load(&sched.sysmonuntil) > when && atomic_load(&sched.longrunners)))
			wakesysmon();
	}
}

/* An idle P has a timer for that time: the poller, if there is one, must know; else
 * sysmon becomes it. */
void wakepoller(int64_t when)
{
	if (atomic_load(&sched.lastpoll) != 0)
		wakesysmon();
	else if (atomic_load(&sched.polluntil) > when)
		netpollBreak();
}

void addtimer(P *pp, Timer *t)
{
	bool first;
	int64_t when = t->when;

	if (atomic_load_explicit(&t->pp, memory_order_relaxed) != NULL)
		throw("addtimer: timer is active already");
	lock(&pp->timerslock);
	insert(pp, t);
	/* From the unlock on the timer may fire, and be gone. */
	first = t->index <= 0;
	if (first)
		publish(pp);
	unlock(&pp->timerslock);
	if (first)
		newearliest(pp, when);
}

bool deltimer(Timer *t)
{
	M *mp = acquirem();
	int spins = 0;
	P *pp;

	/* Acquire: pairs with insert, and with checktimers' clearing. */
	while ((pp = atomic_load_explicit(&t->pp, memory_order_acquire)) != NULL) {
		lock(&pp->timerslock);
		/* procresize may have moved it, or it fires just now. */
		if (atomic_load_explicit(&t->pp, memory_order_relaxed) == pp) {
			int32_t i = t->index;

			extract(pp, t);
			atomic_store_explicit(&t->pp, NULL, memory_order_relaxed);
			if (i <= 0)
				publish(pp);
			unlock(&pp->timerslock);
			releasem(mp);
			return true;
		}
		unlock(&pp->timerslock);
	}
	releasem(mp);
	/* Pairs with the release in checktimers: fn has returned. */
	while (atomic_load_explicit(&t->running, memory_order_acquire)) {
		if (++spins < 100)
			procyield();
		else
			osyield();
	}
	return false;
}

/* --- firing -------------------------------------------------------------------- */

int64_t checktimers(P *pp, int64_t now, bool *ran)
{
	int64_t next = atomic_load(&pp->timer0when);
	Timer *t;

	if (next > now)
		return next;
	lock(&pp->timerslock);
	while ((t = earliest(pp)) != NULL && t->when <= now) {
		extract(pp, t);
		publish(pp);
		/* In this order: who sees it in no heap sees it running. */
		atomic_store_explicit(&t->running, true, memory_order_relaxed);
		atomic_store_explicit(&t->pp, NULL, memory_order_release);
		unlock(&pp->timerslock);
		metricsvalue(HistTimer, (uint64_t)(now - t->when));
		traceevent(TraceTimer, (uint64_t)(now - t->when));
		t->fn(t->arg);
		/* Release: the last access; deltimer returns after it. */
		atomic_store_explicit(&t->running, false, memory_order_release);
		*ran = true;
		lock(&pp->timerslock);
	}
	next = atomic_load_explicit(&pp->timer0when, memory_order_relaxed);
	unlock(&pp->timerslock);
	return next;
}

int64_t timesleepuntil(void)
{
	int64_t next = FOREVER;

	for (int32_t i = 0; i < sched.nallp; i++) {
		int64_t when = atomic_load(&sched.allp[i]->timer0when);

		if (when < next)
			next = when;
	}
	return next;
}

void movetimers_locked(P *from, P *to)
{
	P *low = from < to ? from : to, *high = from < to ? to : from;

	lock(&low->timerslock);
	lock(&high->timerslock);
	for (int32_t i = 0; i < from->ntimers; i++)
		insert(to, from->timers[i]);
	from->ntimers = 0;
	while (from->unsorted != NULL) {
		Timer *t = from->unsorted;

		from->unsorted = t->next;
		insert(to, t);
	}
	publish(from);
	publish(to);
	unlock(&high->timerslock);
	unlock(&low->timerslock);
}
