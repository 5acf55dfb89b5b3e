/*
 * barrier.c - barriers.
 *
 * Arrivals are counted under the lock of the queue; the last of a round opens
 * the next and then wakes those of the old one. A woken thread does not look at
 * the object again, so it may be destroyed once any of them has returned;
 * destroy has to wait only for those that are in a signal handler.
 *
 * Shared barriers are libc's: the real functions run, in the native bracket.
 */
#include "sync.h"

#include <limits.h>

#include "sched.h"
#include "signal.h"

/* Guarded by the lock of the queue, but for count and shared, which do not change. */
typedef struct Barrier {
	uint32_t in; /* arrived in this round */
	uint32_t round;
	uint32_t count;
	int32_t shared;
	_Atomic uint32_t away; /* arrived, and now in a signal handler */
	_Atomic uint32_t gen;  /* forkgen of away */
	uint32_t pad[2];
} Barrier;
_Static_assert(sizeof(Barrier) == sizeof(pthread_barrier_t), "Barrier lies over pthread_barrier_t");
_Static_assert(offsetof(Barrier, count) == 8 && offsetof(Barrier, shared) == 12,
	       "as struct pthread_barrier in libc");

/* On the stack of who waits, pointed to by its tag. */
typedef struct Arrival {
	Barrier *b;
	uint32_t round;
	bool arrived;
	bool last;
} Arrival;

static bool arrivecheck(void *arg)
{
	Arrival *a = arg;
	Barrier *b = a->b;
	if (a->arrived) { /* back from a handler */
		atomic_fetch_sub_explicit(&b->away, 1, memory_order_release);
		return b->round == a->round;
	}
	a->arrived = true;
	a->round = b->round;
	if (++b->in < b->count)
		return true;
	b->in = 0;
	b->round++;
	a->last = true;
	return false;
}

static void goaway(void *arg)
{
	Barrier *b = ((Arrival *)arg)->b;
	if (atomic_load_explicit(&b->gen, memory_order_relaxed) != forkgen) {
		atomic_store_explicit(&b->away, 0, memory_order_relaxed);
		atomic_store_explicit(&b->gen, forkgen, memory_order_relaxed);
	}
	atomic_fetch_add_explicit(&b->away, 1, memory_order_relaxed);
}

static int roundpick(void *arg, uint64_t tag)
{
	return ((Arrival *)(uintptr_t)tag)->round == ((Arrival *)arg)->round;
}

SHIM(int, pthread_barrier_wait, pthread_barrier_t *pb)
{
	Barrier *b = (Barrier *)pb;
	if (unlikely(b->shared)) {
		BRACKETWAIT;
		return real.pthread_barrier_wait(pb);
	}
	Arrival a = {.b = b};
	while (semapark(b, arrivecheck, goaway, &a, (uintptr_t)&a, WaitBarrier, FOREVER,
			ParkIntr) == -EINTR)
		(void)sigdeliver(true);
	if (!a.last)
		return 0;
	semaready(b, INT_MAX, roundpick, NULL, &a, 0);
	return PTHREAD_BARRIER_SERIAL_THREAD;
}

SHIM(int, pthread_barrier_destroy, pthread_barrier_t *pb)
{
	Barrier *b = (Barrier *)pb;
	if (unlikely(b->shared)) {
		entersyscall();
		int r = real.pthread_barrier_destroy(pb);
		exitsyscall();
		return r;
	}
	while (atomic_load_explicit(&b->gen, memory_order_relaxed) == forkgen &&
	       atomic_load_explicit(&b->away, memory_order_acquire) != 0)
		gosleep(nanotime() + 50000, 0);
	return 0;
}
