/*
 * sleep.c - sleeping, yielding, and waiting for nothing but a signal.
 *
 * A sleeping goroutine is a timer of the scheduler and needs no kernel thread.
 * The clocks that run with CLOCK_MONOTONIC are served so; a deadline on
 * CLOCK_REALTIME too, but that clock can be set: the sleeper looks at it again
 * every SETCHECK at least, so that it is never early and at most that much
 * late after a jump. Other clocks (process CPU time, boot time, alarms) sleep in the kernel.
 */
#include "block.h"

enum {
	SETCHECK = 1000000000, /* ns */
	OwnCPUTime = -6,       /* the kernel's id of the clock of process 0, the caller's own */
};

/* Until then; 0 or -EINTR when a handler ran. */
static int sleepuntil(int64_t deadline)
{
	testcancel();
	for (;;) {
		int r = gosleep(deadline, ParkIntr);

		if (r != -EINTR || !intragain(EndsOnSignal | Cancels))
			return r;
	}
}

static int sleeprealtime(const struct timespec *until)
{
	int64_t end = timens(until);
	struct timespec now;

	for (;;) {
		sysnow(SYS_clock_gettime, CLOCK_REALTIME, &now);
		int64_t left = end - timens(&now);

		if (left <= 0)
			return 0;
		int r = sleepuntil(deadlinein(left < SETCHECK ? left : SETCHECK));

		if (r < 0)
			return r;
	}
}

/* For clocks of the kernel's own: it says what is left. */
static int sleepinkernel(clockid_t clock, int flags, const struct timespec *req,
			 struct timespec *rem)
{
	struct timespec left = *req;

	testcancel();
	for (;;) {
		long r = sysblock(SYS_clock_nanosleep, clock, flags, req, &left);

		if (r != -EINTR)
			return (int)r;
		if (!intragain(EndsOnSignal | Cancels)) {
			if (rem && !(flags & TIMER_ABSTIME))
				*rem = left;
			return -EINTR;
		}
		if (!(flags & TIMER_ABSTIME))
			req = &left;
	}
}

/* Until th has computed so long: it can't have sooner than in that time. */
static int sleepforthread(Thread *th, int flags, const struct timespec *req, struct timespec *rem)
{
	enum { SHORTEST = 100000 };
	int64_t end = timens(req), left;

	if (!validtime(req) || th == curthread())
		return -EINVAL;
	if (!(flags & TIMER_ABSTIME) && end < FOREVER / 2)
		end += cputimeof(th);
	for (;;) {
		int64_t now = cputimeof(th);

		left = end - now;
		if (now < 0)
			return -ESRCH;
		if (left <= 0)
			return 0;
		if (sleepuntil(deadlinein(left < SHORTEST ? SHORTEST : left)) == -EINTR)
			break;
	}
	if (rem && !(flags & TIMER_ABSTIME))
		*rem = (struct timespec){left / 1000000000, left % 1000000000};
	return -EINTR;
}

static int sleepon(clockid_t clock, int flags, const struct timespec *req, struct timespec *rem)
{
	if (clock == CLOCK_THREAD_CPUTIME_ID)
		return -EINVAL;
	if (!readable(req, sizeof *req))
		return -EFAULT;
	if (clock == CLOCK_PROCESS_CPUTIME_ID)
		return sleepinkernel(OwnCPUTime, flags, req, rem);
	Thread *th = cputhread(clock);

	if (th)
		return sleepforthread(th, flags, req, rem);
	if (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC)
		return sleepinkernel(clock, flags, req, rem);
	if (!validtime(req))
		return -EINVAL;
	if (flags & TIMER_ABSTIME)
		return clock == CLOCK_MONOTONIC ? sleepuntil(timens(req)) : sleeprealtime(req);
	int64_t end = deadlinein(timens(req));
	int r = sleepuntil(end);

	if (r == -EINTR && rem && !timeleft(end, rem))
		*rem = *req;
	return r;
}

SHIM(int, nanosleep, const struct timespec *req, struct timespec *rem)
{
	if (!getg())
		return real.nanosleep(req, rem);
	return (int)callret(sleepon(CLOCK_REALTIME, 0, req, rem));
}

SHIM(int, clock_nanosleep, clockid_t clock, int flags, const struct timespec *req,
     struct timespec *rem)
{
	if (!getg())
		return real.clock_nanosleep(clock, flags, req, rem);
	int r = -sleepon(clock, flags, req, rem);

	callret(0);
	return r;
}

SHIM(int, usleep, useconds_t us)
{
	if (!getg())
		return real.usleep(us);
	return (int)callret(sleepuntil(deadlinein(us * 1000L)));
}

SHIM(unsigned, sleep, unsigned seconds)
{
	if (!getg())
		return real.sleep(seconds);
	struct timespec left = {0};
	int64_t end = deadlinein(seconds * 1000000000L);

	if (callret(sleepuntil(end)) == 0)
		return 0;
	timeleft(end, &left);
	return (unsigned)left.tv_sec;
}

/* C11: -1 for a signal, other negative values for errors. */
SHIM(int, thrd_sleep, const struct timespec *req, struct timespec *rem)
{
	if (!getg())
		return real.thrd_sleep(req, rem);
	int r = sleepon(CLOCK_REALTIME, 0, req, rem);

	callret(0);
	return r == -EINTR ? -1 : r < 0 ? -2 : 0;
}

SHIM(int, sched_yield, void)
{
	if (!getg())
		return real.sched_yield();
	gosched();
	return (int)callret(0);
}

SHIM(void, thrd_yield, void)
{
	shim_sched_yield();
}

/* --- until a handler has run ---------------------------------------------------- */

static int untilsignal(void)
{
	sleepuntil(FOREVER);
	return (int)callret(-EINTR);
}

SHIM(int, pause, void)
{
	if (!getg())
		return real.pause();
	return untilsignal();
}

SHIM(int, sigsuspend, const sigset_t *mask)
{
	if (!getg())
		return real.sigsuspend(mask);
	if (!readable(mask, 8))
		return (int)callret(-EFAULT);
	sigmaskfor(mask);
	untilsignal();
	sigmaskback();
	return (int)callret(-EINTR);
}

/* BSD's takes a mask, X/Open's the signal to unblock. */
SHIM(int, __sigpause, int sigormask, int issig)
{
	if (!getg())
		return real.__sigpause(sigormask, issig);
	sigset_t mask;

	if (!issig) {
		sigemptyset(&mask);
		for (int sig = 1; sig <= 32; sig++)
			if (sigormask & 1U << (sig - 1))
				sigaddset(&mask, sig);
	} else if (shim_pthread_sigmask(SIG_BLOCK, NULL, &mask) || sigdelset(&mask, sigormask)) {
		return -1;
	}
	return shim_sigsuspend(&mask);
}

SHIM(int, sigpause, int mask)
{
	return shim___sigpause(mask, 0);
}

SHIM(int, __xpg_sigpause, int sig)
{
	return shim___sigpause(sig, 1);
}
