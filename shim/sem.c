/*
 * sem.c - semaphores, private and shared, named and not.
 *
 * The layout is libc's: the value in the low half of one 64-bit word, who waits
 * in the high half. In a private semaphore the high half only says that the queue
 * may not be empty; a post then hands its token to the first waiter under
 * the queue's lock, and the value stays zero. So a poster cannot take its own
 * token back from a thread that waits for it, and a waiter wakes once. Without
 * waiters both operations are one compare-and-swap.
 *
 * In a shared one (sem_open's are) the high half counts waiters, the value is the
 * futex, and each waiter competes: libc's protocol, as the other process may
 * run without us.
 */
#include "sync.h"

#include <limits.h>
#include <linux/futex.h>

#include "cancel.h"
#include "deadline.h"
#include "signal.h"

#define WAITER (1ull << 32)

/* Not timed: abs == NULL. */
typedef struct Limit {
	clockid_t clock;
	const struct timespec *abs;
} Limit;

static inline uint32_t value(uint64_t d)
{
	return (uint32_t)d;
}

static inline bool take(Sem *s)
{
	uint64_t d = atomic_load_explicit(&s->data, memory_order_relaxed);
	while (value(d) != 0) {
		if (atomic_compare_exchange_weak_explicit(&s->data, &d, d - 1, memory_order_acquire,
							  memory_order_relaxed))
			return true;
	}
	return false;
}

/* --- private ------------------------------------------------------------------------- */

/* Under the queue's lock: takes a token, or says that we wait. */
static bool waitcheck(void *arg)
{
	Sem *s = arg;
	uint64_t d = atomic_load_explicit(&s->data, memory_order_relaxed);
	for (;;) {
		uint64_t nd = value(d) ? d - 1 : WAITER;
		if (atomic_compare_exchange_weak_explicit(&s->data, &d, nd, memory_order_acquire,
							  memory_order_relaxed))
			return value(d) == 0;
	}
}

/* Under the queue's lock: the token is the woken one's, else goes to the value. */
static void postdone(void *arg, int woken, int left)
{
	Sem *s = arg;
	uint64_t d = atomic_load_explicit(&s->data, memory_order_relaxed);
	uint64_t nd;
	do {
		nd = value(d) + (woken ? 0 : 1);
		if (left)
			nd |= WAITER;
	} while (!atomic_compare_exchange_weak_explicit(&s->data, &d, nd, memory_order_release,
							memory_order_relaxed));
}

static void leftdone(void *arg, int woken, int left)
{
	Sem *s = arg;
	(void)woken;
	if (!left)
		atomic_fetch_and_explicit(&s->data, WAITER - 1, memory_order_relaxed);
}

/* A waiter has left the queue by itself: the last of them takes the mark away. */
static void left(Sem *s)
{
	semaready(s, 0, NULL, leftdone, s, 0);
}

/* 0, or an errno. Returns EINTR only when a handler without SA_RESTART has run. */
static int waitqueued(Sem *s, Limit limit, Contention *c)
{
	int64_t deadline = deadlineat(limit.clock, limit.abs);
	int flags = ParkIntr;
	for (;;) {
		int r = semapark(s, waitcheck, NULL, s, 0, WaitSem, deadline, flags);
		parkedfor(c);
		switch (r) {
		case 0:
		case -EAGAIN: return 0;
		case -ETIMEDOUT:
			if (deadlinepassed(limit.clock, limit.abs)) {
				left(s);
				return ETIMEDOUT;
			}
			deadline = deadlineat(limit.clock, limit.abs);
			break;
		case -EINTR: {
			left(s);
			bool again = sigdeliver(!limit.abs);
			testcancel();
			if (!again)
				return EINTR;
			break;
		}
		default: throw("sem: semapark failed");
		}
		flags |= ParkLIFO;
	}
}

/* Also when cancellation unwinds the wait. The object may be gone then. */
static void nolongercontends(const Contention *c)
{
	contentionends(c, false);
}

static int wait_private(Sem *s, Limit limit)
{
	__attribute__((cleanup(nolongercontends))) Contention c = {NULL, 0, 0};
	lockcontended(&c, s, WaitSem, NULL, &s->link, s->site);
	return waitqueued(s, limit, &c);
}

/* --- shared between processes ---------------------------------------------------------- */

static inline uint32_t *futexof(Sem *s)
{
	return (uint32_t *)&s->data; /* the low half */
}

/* Runs also when cancellation unwinds the wait. */
static void nolongerwaiter(Sem **s)
{
	if (*s)
		atomic_fetch_sub_explicit(&(*s)->data, WAITER, memory_order_relaxed);
}

static int wait_shared(Sem *s, Limit limit)
{
	int op = FUTEX_WAIT_BITSET;
	if (limit.abs && limit.clock == CLOCK_REALTIME)
		op |= FUTEX_CLOCK_REALTIME;
	if (limit.abs && limit.abs->tv_sec < 0)
		return ETIMEDOUT;
	__attribute__((cleanup(kernelwaitends), unused)) KernelWait w =
	    kernelwait(s, WaitSem, true);
	atomic_fetch_add_explicit(&s->data, WAITER, memory_order_relaxed);
	__attribute__((cleanup(nolongerwaiter), unused)) Sem *registered = s;
	while (!take(s)) {
		long r = blockingsyscall(SYS_futex, (long)futexof(s), op, 0, (long)limit.abs, 0,
					 (long)FUTEX_BITSET_MATCH_ANY);
		if (r == -ETIMEDOUT)
			return ETIMEDOUT;
		if (r == -EINTR) {
			bool again = sigdeliver(!limit.abs);
			testcancel();
			if (!again)
				return EINTR;
		}
	}
	return 0;
}

/* --- the interface --------------------------------------------------------------------- */

static noinline_fn int wait_slow(Sem *s, Limit limit)
{
	int err = s->shared ? wait_shared(s, limit) : wait_private(s, limit);
	if (err == 0)
		return 0;
	errno = err;
	return -1;
}

static inline int semwait(Sem *s, Limit limit)
{
	testcancel();
	return likely(take(s)) ? 0 : wait_slow(s, limit);
}

void semmade(Sem *s, uintptr_t site)
{
	if (s->shared) {
		lockmade(s, site);
		return;
	}
	atomic_store_explicit(&s->link, 0, memory_order_relaxed);
	s->site = site;
}

SHIM(int, sem_init, sem_t *s, int shared, unsigned value)
{
	int r = real.sem_init(s, shared, value);
	if (r == 0)
		semmade((Sem *)s, CALLER());
	return r;
}

SHIM(int, sem_wait, sem_t *ps)
{
	return semwait((Sem *)ps, (Limit){0});
}

SHIM(int, sem_clockwait, sem_t *ps, clockid_t clock, const struct timespec *abs)
{
	if (!waitclock(clock) || !validtimespec(abs)) {
		errno = EINVAL;
		return -1;
	}
	return semwait((Sem *)ps, (Limit){clock, abs});
}

SHIM(int, sem_timedwait, sem_t *ps, const struct timespec *abs)
{
	return shim_sem_clockwait(ps, CLOCK_REALTIME, abs);
}

static noinline_fn int wakeshared(Sem *s)
{
	KEEP_ERRNO;
	real.syscall(SYS_futex, futexof(s), FUTEX_WAKE, 1, NULL, NULL, 0);
	return 0;
}

/* There are waiters, or as many tokens as there may be. */
static noinline_fn int post_slow(Sem *s)
{
	int shared = s->shared; /* after the post the object may be gone */
	uint64_t d = atomic_load_explicit(&s->data, memory_order_relaxed);
	do {
		if (value(d) == SEM_VALUE_MAX) {
			errno = EOVERFLOW;
			return -1;
		}
		if (!shared && d >= WAITER) {
			semaready(s, 1, NULL, postdone, s, ParkHandoff);
			return 0;
		}
	} while (!atomic_compare_exchange_weak_explicit(&s->data, &d, d + 1, memory_order_release,
							memory_order_relaxed));
	return d >= WAITER ? wakeshared(s) : 0;
}

SHIM(int, sem_post, sem_t *ps)
{
	Sem *s = (Sem *)ps;
	uint64_t d = atomic_load_explicit(&s->data, memory_order_relaxed);
	while (likely(d < SEM_VALUE_MAX)) {
		if (likely(atomic_compare_exchange_weak_explicit(&s->data, &d, d + 1,
								 memory_order_release,
								 memory_order_relaxed)))
			return 0;
	}
	return post_slow(s);
}
