/*
 * kwait.c - waits that only the kernel can do, each of which takes a kernel thread.
 *
 * File locks, fsync, children, message queues: as many Ms as threads that wait so would be
 * what goroutines are to save, and where no more Ms are to be had (RLIMIT_NPROC, maxthreads)
 * nobody would be left to run the others. So there is a number of places; who comes when all
 * are taken stands in line, parked, and tracebacks say so ("kernel thread"). Who leaves gives
 * the place to the first in line.
 *
 * What those in the kernel wait for may be up to one in line: to unlock a file, say, after an
 * fsync. So places go round. While somebody stands in line sysmon calls back, turn after turn,
 * who was in the kernel at its last look, too: the call ends with -EINTR, of which the program
 * learns nothing, and goes to the end of the line. When a whole round has brought nobody's call to its
 * end, turns become longer.
 *
 * A wired goroutine needs no place: its M is of no use to others.
 */
#include "runtime.h"

#include <errno.h>

enum { LEAST = 1000000, MOST = 100000000 /* ns of a turn */ };

static _Atomic int32_t line;  /* who stands in it, or is about to */
static _Atomic int64_t lined; /* who ever did */
static _Atomic bool progress; /* a call has come to its end since sysmon's last look */
/* sysmon's: when it looks next (0: nobody stands in line), a turn, how many are still to have theirs in this round. */
static int64_t turnat, turn;
static int32_t rest;

static bool takeplace(void)
{
	int32_t n = atomic_load_explicit(&sched.nkblocked, memory_order_relaxed);
	do {
		if (n >= sched.maxkwaits)
			return false;
		/* Somebody has to be left. */
		if (n > 0 && unlikely(mshort()) && atomic_load(&sched.nmidle) == 0)
			return false;
	} while (!atomic_compare_exchange_weak(&sched.nkblocked, &n, n + 1));
	return true;
}

static bool noplace(void *unused)
{
	(void)unused;
	return !takeplace();
}

bool kwaitbegin(void)
{
	if (likely(atomic_load_explicit(&line, memory_order_relaxed) == 0) && likely(takeplace()))
		return true;
	/* Seq-cst: who leaves after our look sees us. */
	atomic_fetch_add(&line, 1);
	atomic_fetch_add_explicit(&lined, 1, memory_order_relaxed);
	sysmonneeded();
	int r = semapark(&line, noplace, NULL, NULL, 0, WaitKernel, FOREVER, ParkIntr);
	atomic_fetch_sub(&line, 1);
	return r != -EINTR;
}

/* Under the queue's lock: nobody can come between, and find no place. */
static void giveup(void *unused, int woken, int left)
{
	(void)unused;
	(void)left;
	if (woken == 0)
		atomic_fetch_sub(&sched.nkblocked, 1);
}

/* The caller's place becomes the next one's. False: nobody stands in line. */
static bool handover(void)
{
	return semaready(&line, 1, NULL, giveup, NULL, 0) > 0;
}

void kwaitend(bool done)
{
	if (unlikely(atomic_load_explicit(&line, memory_order_relaxed) != 0)) {
		if (done)
			atomic_store_explicit(&progress, true, memory_order_relaxed);
		handover();
		return;
	}
	atomic_fetch_sub(&sched.nkblocked, 1);
	if (unlikely(atomic_load(&line) != 0) && takeplace())
		handover();
}

void callback(M *mp)
{
	atomic_store(&mp->calledback, true);
	preemptm(mp);
}

bool kwaitasked(void)
{
	return atomic_load(&line) != 0 && turnat == 0;
}

int32_t kwaitline(int64_t *ever)
{
	*ever = atomic_load_explicit(&lined, memory_order_relaxed);
	return atomic_load_explicit(&line, memory_order_relaxed);
}

/* Calls back who has had a turn: how many. */
static int32_t callall(void)
{
	int32_t n = 0;
	for (M *mp = atomic_load(&sched.allm); mp; mp = mp->alllink) {
		if (atomic_load(&mp->kblocked) && atomic_exchange(&mp->kseen, true)) {
			callback(mp);
			n++;
		}
	}
	return n;
}

int64_t kwaitlook(int64_t now)
{
	int32_t n = atomic_load(&line);
	if (n == 0) {
		turnat = 0;
		return FOREVER;
	}
	if (turnat != 0 && now < turnat)
		return turnat;
	if (atomic_exchange(&progress, false) || turnat == 0) {
		turn = LEAST;
		rest = n + atomic_load(&sched.nkblocked);
	}
	/* There may be more Ms than there were. */
	while (takeplace() && handover())
		;
	rest -= callall();
	if (rest <= 0) {
		turn = 2 * turn < MOST ? 2 * turn : MOST;
		rest = n + atomic_load(&sched.nkblocked);
	}
	return turnat = now + turn;
}

void kwaitforkchild(void)
{
	atomic_store(&line, 0);
	atomic_store(&progress, false);
	turnat = 0;
}
