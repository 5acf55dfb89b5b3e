/*
 * rawwait.c - syscall() of calls that wait.
 *
 * Those that name signals mean the caller's, which are not the kernel thread's: they are made by the
 * functions of the same name, but are no cancellation points. All others go to the kernel as
 * they are, and a handler meanwhile is the goroutine's; whether the call is made again then is
 * what the kernel would have done.
 */
#include "block.h"
#include "pin.h"
#include "signal.h"

#include <linux/futex.h>

/* One of the few that are made again after any handler. */
static bool alwaysagain(long nr, const long *a)
{
	long op = a[1] & FUTEX_CMD_MASK;

	return nr == SYS_futex && (op == FUTEX_LOCK_PI || op == FUTEX_LOCK_PI2);
}

/* Is it made to wait, as a rule? */
static bool waits(long nr, const long *a)
{
	switch (nr) {
	case SYS_read:
	case SYS_recvfrom:
	case SYS_recvmsg:
	case SYS_accept:
	case SYS_accept4:
	case SYS_connect:
	case SYS_nanosleep:
	case SYS_clock_nanosleep:
	case SYS_wait4:
	case SYS_waitid:
	case SYS_flock:
	case SYS_select:
	case SYS_pselect6:
	case SYS_ppoll:
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
	case SYS_semop:
	case SYS_semtimedop:
	case SYS_msgrcv:
	case SYS_mq_timedreceive:
	case SYS_io_getevents:
	case SYS_futex_waitv: return true;
	case SYS_poll: return a[2] != 0;
	case SYS_epoll_wait: return a[3] != 0;
	case SYS_io_uring_enter: return a[2] > 0;
	case SYS_futex:
		return (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT ||
		       (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET;
	}
	return false;
}

/* Which argument limits the time that it takes, in milliseconds or a timespec; others tell what is left, or end at a
 * time of a clock. */
typedef struct Limit {
	int8_t ms, spec;
} Limit;

static Limit limitof(long nr, const long *a)
{
	switch (nr) {
	case SYS_poll: return (Limit){2, -1};
	case SYS_epoll_wait:
	case SYS_epoll_pwait: return (Limit){3, -1};
	case SYS_epoll_pwait2:
	case SYS_semtimedop: return (Limit){-1, 3};
	case SYS_io_getevents: return (Limit){-1, 4};
	case SYS_nanosleep: return (Limit){-1, 0};
	case SYS_clock_nanosleep: return (Limit){-1, a[1] & TIMER_ABSTIME ? -1 : 2};
	case SYS_futex: return (Limit){-1, (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT ? 3 : -1};
	}
	return (Limit){-1, -1};
}

/* a, for what is left at `now` of the time that the program gave at `start`. */
static void shorten(long *a, const long *given, Limit limit, int64_t passed, struct timespec *left)
{
	if (limit.ms >= 0 && (int)given[limit.ms] > 0) {
		int64_t ms = (int)given[limit.ms] - passed / 1000000;

		a[limit.ms] = ms > 0 ? ms : 0;
	} else if (limit.spec >= 0 && given[limit.spec]) {
		int64_t ns = timens((const struct timespec *)given[limit.spec]);

		if (ns == FOREVER)
			return;
		ns = ns > passed ? ns - passed : 0;
		*left = (struct timespec){ns / 1000000000, ns % 1000000000};
		a[limit.spec] = (long)left;
	}
}

static long made(long nr, const long *given)
{
	long a[6];
	struct timespec left;
	Limit limit = limitof(nr, given);
	int64_t start = limit.ms >= 0 || limit.spec >= 0 ? nanotime() : 0;

	memcpy(a, given, sizeof a);
	for (;;) {
		long r = programssyscall(waits(nr, a), nr, a[0], a[1], a[2], a[3], a[4], a[5]);

		if (r == -EINTR) {
			/* The runtime's own signal may have met a call that Linux doesn't restart. */
			if (!waits(nr, a) || !sigdeliver(false))
				return r;
			if (start)
				shorten(a, given, limit, nanotime() - start, &left);
		} else if (r != -ERESTARTSYS) {
			return r;
		} else if (!sigdeliver(true) && !alwaysagain(nr, a)) {
			return -EINTR;
		}
	}
}

/* The kernel's masks have 64 signals. */
static const sigset_t *maskof(long mask, sigset_t *set)
{
	if (!mask)
		return NULL;
	sigemptyset(set);
	memcpy(set, (const void *)mask, 8);
	return set;
}

/* The kernel says what is wrong with others. */
static bool good(long mask)
{
	return mask && readable((const void *)mask, 8);
}

/* pselect6 has its mask behind a pointer to two words. */
static long pselectmask(const long *a)
{
	return a[5] && readable((const void *)a[5], 16) ? *(const long *)a[5] : 0;
}

/* The system call tells how much of the time is left, the function does not. */
static long timed(struct timespec *timeout, long r, int64_t end)
{
	KEEP_ERRNO;
	if (timeout && end > 0)
		timeleft(end, timeout);
	return r;
}

static int64_t endof(const struct timespec *timeout)
{
	return timeout && readable(timeout, sizeof *timeout) && validtime(timeout)
		   ? deadlinein(timens(timeout))
		   : -1;
}

static bool bysignals(long nr, const long *a, long *r)
{
	struct timespec *timeout;
	int64_t end;
	sigset_t set;

	switch (nr) {
	case SYS_pause: *r = shim_pause(); return true;
	case SYS_rt_sigsuspend:
		if (a[1] != 8 || !good(a[0]))
			return false;
		*r = shim_sigsuspend(maskof(a[0], &set));
		return true;
	case SYS_rt_sigtimedwait:
		if (a[3] != 8 || !good(a[0]))
			return false;
		timeout = (struct timespec *)a[2];
		*r = shim_sigtimedwait(maskof(a[0], &set), (siginfo_t *)a[1], timeout);
		return true;
	case SYS_rt_sigpending:
		if (a[1] != 8 || !good(a[0]))
			return false;
		*r = shim_sigpending(&set);
		if (*r == 0)
			memcpy((void *)a[0], &set, 8);
		return true;
	case SYS_ppoll:
		if (!good(a[3]) || a[4] != 8)
			return false;
		timeout = (struct timespec *)a[2];
		end = endof(timeout);
		*r = shim_ppoll((struct pollfd *)a[0], (nfds_t)a[1], timeout, maskof(a[3], &set));
		*r = timed(timeout, *r, end);
		return true;
	case SYS_pselect6:
		if (!good(pselectmask(a)))
			return false;
		timeout = (struct timespec *)a[4];
		end = endof(timeout);
		*r = shim_pselect((int)a[0], (fd_set *)a[1], (fd_set *)a[2], (fd_set *)a[3],
				  timeout, maskof(pselectmask(a), &set));
		*r = timed(timeout, *r, end);
		return true;
	case SYS_epoll_pwait:
		if (!good(a[4]) || a[5] != 8)
			return false;
		*r = shim_epoll_pwait((int)a[0], (struct epoll_event *)a[1], (int)a[2], (int)a[3],
				      maskof(a[4], &set));
		return true;
	case SYS_epoll_pwait2:
		if (!good(a[4]) || a[5] != 8)
			return false;
		*r = shim_epoll_pwait2((int)a[0], (struct epoll_event *)a[1], (int)a[2],
				       (const struct timespec *)a[3], maskof(a[4], &set));
		return true;
	}
	return false;
}

long rawwait(long nr, const long *a)
{
	bool answered = false;
	int state;
	long r;

	if (!getg())
		return real.syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	switch (nr) {
	case SYS_pause:
	case SYS_rt_sigsuspend:
	case SYS_rt_sigtimedwait:
	case SYS_rt_sigpending:
	case SYS_ppoll:
	case SYS_pselect6:
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
		shim_pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
		answered = bysignals(nr, a, &r);
		shim_pthread_setcancelstate(state, NULL);
	}
	return answered ? r : callret(made(nr, a));
}
