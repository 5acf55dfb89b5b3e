/*
 * once.c - pthread_once and call_once.
 *
 * The control word is libc's: 0, in progress (with the generation of the process
 * that runs the initialiser: a child of fork may find one that nobody runs any more),
 * or done. An initialiser that is left by cancellation, pthread_exit or a C++
 * exception resets the word, and one of the waiters runs it again.
 */
#include "sync.h"

#include <limits.h>

#include "signal.h"

enum { InProgress = 1, Done = 2, GenShift = 2 };

typedef _Atomic uint32_t Once;
_Static_assert(sizeof(Once) == sizeof(pthread_once_t), "Once lies over pthread_once_t");

static inline uint32_t inprogress(void)
{
	return forkgen << GenShift | InProgress;
}

static bool stillrunning(void *arg)
{
	return atomic_load_explicit((Once *)arg, memory_order_acquire) == inprogress();
}

static void finish(Once *once, uint32_t v)
{
	atomic_store_explicit(once, v, memory_order_release);
	semaready(once, INT_MAX, NULL, NULL, NULL, 0);
}

/* The initialiser was unwound: once, though both ways of unwinding may call this. */
static void interrupted(Once *volatile *running)
{
	Once *once = *running;
	*running = NULL;
	if (once)
		finish(once, 0);
}

static void interrupted_compat(void *running)
{
	interrupted(running);
}

/*
 * Exceptions, and cancellation through code with unwind tables, find the cleanup
 * attribute. Cancellation of code without them jumps from handler to handler of libc's old
 * list, so it has to be there as well (as in libc's own pthread_once).
 */
static void run(Once *once, void (*init)(void))
{
	__attribute__((cleanup(interrupted))) Once *volatile running = once;
	struct _pthread_cleanup_buffer buffer;
	real._pthread_cleanup_push(&buffer, interrupted_compat, (void *)&running);
	init();
	real._pthread_cleanup_pop(&buffer, 0);
	running = NULL;
	finish(once, Done);
}

static noinline_fn int once_slow(Once *once, void (*init)(void))
{
	uint32_t v = atomic_load_explicit(once, memory_order_acquire);
	while (!(v & Done)) {
		if (v == inprogress()) {
			if (semapark(once, stillrunning, NULL, once, 0, WaitOnce, FOREVER,
				     ParkIntr) == -EINTR)
				(void)sigdeliver(true);
			v = atomic_load_explicit(once, memory_order_acquire);
		} else if (atomic_compare_exchange_weak_explicit(once, &v, inprogress(),
								 memory_order_acquire,
								 memory_order_acquire)) {
			run(once, init);
			return 0;
		}
	}
	return 0;
}

SHIM(int, pthread_once, pthread_once_t *control, void (*init)(void))
{
	Once *once = (Once *)control;
	if (likely(atomic_load_explicit(once, memory_order_acquire) & Done))
		return 0;
	return once_slow(once, init);
}

SHIM(void, call_once, once_flag *flag, void (*init)(void))
{
	shim_pthread_once((pthread_once_t *)flag, init);
}
