/*
 * deadline.c - absolute times of the program's clocks as deadlines of the
 * scheduler.
 *
 * The scheduler's timers run on CLOCK_MONOTONIC. A time of CLOCK_REALTIME is
 * translated when the wait begins, and checked against the clock when the
 * timer fires: a clock set back in between prolongs the wait as it does
 * natively. A clock set forward is noticed late, at the time first computed;
 * a timer that is cancelled on set would need a file descriptor of the
 * program's table for it.
 */
#include "deadline.h"

#include "shim.h"

int64_t timespecns(const struct timespec *ts)
{
	int64_t ns;
	if (ts->tv_sec < 0)
		return 0;
	if (__builtin_mul_overflow((int64_t)ts->tv_sec, 1000000000, &ns) ||
	    __builtin_add_overflow(ns, (int64_t)ts->tv_nsec, &ns))
		return INT64_MAX;
	return ns;
}

static int64_t realtime(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return timespecns(&now);
}

int64_t deadlineat(clockid_t clock, const struct timespec *abs)
{
	if (!abs)
		return FOREVER;
	int64_t at = timespecns(abs);
	if (at == INT64_MAX || clock == CLOCK_MONOTONIC)
		return at;
	int64_t left = at - realtime();
	if (left <= 0)
		return 0;
	if (__builtin_add_overflow(nanotime(), left, &at))
		return FOREVER;
	return at;
}

bool deadlinepassed(clockid_t clock, const struct timespec *abs)
{
	return clock == CLOCK_MONOTONIC || realtime() >= timespecns(abs);
}
