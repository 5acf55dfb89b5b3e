/*
 * block.h - system calls of a goroutine: those that cannot wait, and those
 * that can.
 *
 * Both are made without libc's wrappers, whose cancellation points look at
 * libc's own state of a thread. Results are the kernel's, -errno included; the
 * wrapper that the program called turns them into errno, once.
 */
#ifndef GOSHIM_BLOCK_H
#define GOSHIM_BLOCK_H

#include <time.h>

#include "cancel.h"
#include "shim.h"
#include "signal.h"

/* The arguments of a system call, filled up to six. */
#define SIXARGS_(a, b, c, d, e, f, ...) \
	(long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f)
#define SIXARGS(...) SIXARGS_(__VA_ARGS__, 0, 0, 0, 0, 0, 0)

/* A call that cannot wait: nobody takes the P meanwhile. */
#define sysnow(nr, ...) sys6(nr, SIXARGS(__VA_ARGS__))
/*
 * The same for a question that the kernel answers with EINTR when a signal is
 * under way, though there is nothing to wait for (poll): only the runtime's own signals
 * do that to a goroutine.
 */
#define sysask(nr, ...) askagain(nr, SIXARGS(__VA_ARGS__))
static inline long askagain(long nr, long a, long b, long c, long d, long e, long f)
{
	long r;

	do
		r = sys6(nr, a, b, c, d, e, f);
	while (r == -EINTR);
	return r;
}
/* A call that can, once: an -EINTR of it is for the caller to judge. */
#define sysblock(nr, ...) blockingsyscall(nr, SIXARGS(__VA_ARGS__))
/* The same to its end: what EINTR means is said by `how`. */
#define syswait(how, nr, ...) waitcall(how, nr, SIXARGS(__VA_ARGS__))

enum {
	EndsOnSignal = 0, /* any handler makes it fail with EINTR (signal(7): never restarted) */
	Restarts = 1,     /* handlers with SA_RESTART do not */
	Cancels = 2,      /* it is a cancellation point */
	Quick = 4,        /* it returns at once, most probably */
};
long waitcall(int how, long nr, long a, long b, long c, long d, long e, long f);

/*
 * After an -EINTR: lets handlers run and cancellation act (it does not
 * return then). True when the call is to be made again, false when it has failed
 * with EINTR.
 */
bool intragain(int how);

/*
 * The end of a call. Handlers of signals that came before it run before the
 * program goes on, as natively: SIGPIPE, which the call itself has raised, and what was sent
 * while it waited. Then errno.
 */
static inline long callret(long r)
{
	if (unlikely(ginterrupted()))
		sigdeliver(true);
	return errnoret(r);
}

/*
 * May the program's memory at p be read? Where it may not the kernel's answer is EFAULT; a look of ours would be
 * a signal. It is asked, but for what lies near on the stack, as most of it does. n is at least 8.
 */
bool kernelreads(const void *p, size_t n);
static inline bool readable(const void *p, size_t n)
{
	enum { PAGE = 4096 };
	uintptr_t here = (uintptr_t)__builtin_frame_address(0), first = (uintptr_t)p;

	return ((first ^ here) | ((first + n - 1) ^ here)) < PAGE || kernelreads(p, n);
}

/*
 * Time. A duration or deadline that int64_t cannot hold is FOREVER.
 * validtime is the kernel's test (EINVAL).
 */
static inline bool validtime(const struct timespec *ts)
{
	return ts->tv_sec >= 0 && (unsigned long)ts->tv_nsec < 1000000000UL;
}

static inline int64_t timens(const struct timespec *ts)
{
	if (ts->tv_sec >= FOREVER / 1000000000 - 1)
		return FOREVER;
	return ts->tv_sec * 1000000000L + ts->tv_nsec;
}

/* `ns` from now. */
static inline int64_t deadlinein(int64_t ns)
{
	int64_t now = nanotime();

	return ns >= FOREVER - now ? FOREVER : now + ns;
}

/* What is left until then, never negative; NULL for FOREVER: the kernel's form of no limit. */
static inline struct timespec *timeleft(int64_t deadline, struct timespec *ts)
{
	if (deadline == FOREVER)
		return NULL;
	int64_t left = deadline - nanotime();

	if (left < 0)
		left = 0;
	ts->tv_sec = left / 1000000000;
	ts->tv_nsec = left % 1000000000;
	return ts;
}

#endif
