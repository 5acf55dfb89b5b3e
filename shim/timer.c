/*
 * timer.c - POSIX timers that signal one thread (SIGEV_THREAD_ID).
 *
 * The kernel would send the signal to whatever has that tid: nothing, for a goroutine. So
 * its timer signals the process, and the signal, which says which timer it is of, is routed to
 * the goroutine that was named. It may end before: then the signal is lost, as natively.
 */
#include "pin.h"
#include "sigcore.h"
#include "signal.h"
#include "sync.h"
#include "thread.h"

#include <stdatomic.h>

enum { TIMERS = 4096, Claimed = 1, Deleted = 0x7ffffffe };

/*
 * owner: the generation of the process (forkgen) and a tid, in one word, since a child of fork inherits
 * the table but no timer: what is of an older generation is free, as 0 is. The id is written between the claim and
 * the tid. One that was deleted keeps its number, for signals of it that are still on their way: natively
 * there are none.
 */
static struct {
	_Atomic uint64_t owner;
	_Atomic int id;
} timers[TIMERS];

static uint64_t ownedby(uint32_t tid)
{
	return (uint64_t)forkgen << 32 | tid;
}

/* 0: nobody's in this process. */
static uint32_t ownertid(uint64_t owner)
{
	return owner >> 32 == ownedby(0) >> 32 ? (uint32_t)owner : 0;
}

uint32_t timertarget(int id)
{
	for (int i = 0; i < TIMERS; i++) {
		uint32_t tid = ownertid(atomic_load(&timers[i].owner));
		if (tid > Claimed && atomic_load(&timers[i].id) == id)
			return tid;
	}
	return 0;
}

/* The number is a new timer's. */
static void forget(int id)
{
	forgettimer(id);
	for (int i = 0; i < TIMERS; i++) {
		uint64_t deleted = ownedby(Deleted);
		if (atomic_load(&timers[i].owner) == deleted && atomic_load(&timers[i].id) == id)
			atomic_compare_exchange_strong(&timers[i].owner, &deleted, 0);
	}
}

/* again: places of deleted timers may be taken as well. */
static bool remember(int id, uint32_t tid, bool again)
{
	for (int i = 0; i < TIMERS; i++) {
		uint64_t owner = atomic_load(&timers[i].owner);
		uint32_t old = ownertid(owner);
		if (old && !(again && old == Deleted))
			continue;
		if (!atomic_compare_exchange_strong(&timers[i].owner, &owner, ownedby(Claimed)))
			continue;
		atomic_store(&timers[i].id, id);
		atomic_store(&timers[i].owner, ownedby(tid));
		return true;
	}
	return false;
}

SHIM(int, timer_create, clockid_t clock, struct sigevent *ev, timer_t *timer)
{
	int err = kernelclock(&clock);
	if (err) {
		errno = err;
		return -1;
	}
	uint32_t tid = ev && ev->sigev_notify == SIGEV_THREAD_ID ? (uint32_t)ev->_sigev_un._tid : 0;
	if (!tid || !threadwithtid(tid)) {
		int plain = real.timer_create(clock, ev, timer);
		if (plain == 0 && getg())
			forget((int)(intptr_t)*timer);
		return plain;
	}
	struct sigevent process = *ev;
	process.sigev_notify = SIGEV_SIGNAL;
	int r = real.timer_create(clock, &process, timer);
	/* libc's value for it is the kernel's own. */
	int id = r == 0 ? (int)(intptr_t)*timer : 0;
	if (r == 0)
		forget(id);
	if (r == 0 && !remember(id, tid, false) && !remember(id, tid, true)) {
		real.timer_delete(*timer);
		errno = EAGAIN;
		return -1;
	}
	return r;
}

SHIM(int, timer_delete, timer_t timer)
{
	int r = real.timer_delete(timer), id = (int)(intptr_t)timer;
	for (int i = 0; r == 0 && i < TIMERS; i++)
		if (ownertid(atomic_load(&timers[i].owner)) > Claimed &&
		    atomic_load(&timers[i].id) == id)
			atomic_store(&timers[i].owner, ownedby(Deleted));
	return r;
}

/* libc's own of a timer that starts threads are told by the sign; signals of these never come our way. */
SHIM(int, timer_getoverrun, timer_t timer)
{
	int r = real.timer_getoverrun(timer);
	int ours = r >= 0 && schedstarted() && (intptr_t)timer >= 0
		       ? timeroverrun((int)(intptr_t)timer)
		       : -1;
	return ours >= 0 ? ours : r;
}

/*
 * The functions of before timer_t was a pointer: a timer is a place in a table, which is ours since libc does not show its own.
 * Who refers to them without a version gets these as well, as a profiler does that is not linked with the library
 * that once had them.
 */
static struct {
	_Atomic bool taken;
	_Atomic(timer_t) timer;
} oldtimers[256];

/* False, with errno set, if there is no such timer. */
static bool oldtimer(int number, timer_t *timer)
{
	bool ok = (unsigned)number < sizeof oldtimers / sizeof oldtimers[0] &&
		  atomic_load(&oldtimers[number].taken);
	if (ok)
		*timer = atomic_load(&oldtimers[number].timer);
	else
		errno = EINVAL;
	return ok;
}

SHIM(int, timer_create_old, clockid_t clock, struct sigevent *ev, int *number)
{
	timer_t timer;
	if (shim_timer_create(clock, ev, &timer) != 0)
		return -1;
	for (unsigned i = 0; i < sizeof oldtimers / sizeof oldtimers[0]; i++) {
		if (atomic_exchange(&oldtimers[i].taken, true))
			continue;
		atomic_store(&oldtimers[i].timer, timer);
		*number = (int)i;
		return 0;
	}
	shim_timer_delete(timer);
	errno = EINVAL;
	return -1;
}

SHIM(int, timer_delete_old, int number)
{
	timer_t timer;
	if (!oldtimer(number, &timer) || shim_timer_delete(timer) != 0)
		return -1;
	atomic_store(&oldtimers[number].taken, false);
	return 0;
}

SHIM(int, timer_settime_old, int number, int flags, const struct itimerspec *value,
     struct itimerspec *old)
{
	timer_t timer;
	return oldtimer(number, &timer) ? real.timer_settime(timer, flags, value, old) : -1;
}

SHIM(int, timer_gettime_old, int number, struct itimerspec *value)
{
	timer_t timer;
	return oldtimer(number, &timer) ? real.timer_gettime(timer, value) : -1;
}

SHIM(int, timer_getoverrun_old, int number)
{
	timer_t timer;
	return oldtimer(number, &timer) ? shim_timer_getoverrun(timer) : -1;
}
