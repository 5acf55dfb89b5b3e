/*
 * deadline.h - absolute times of the program's clocks as deadlines of the
 * scheduler.
 */
#ifndef GOSHIM_DEADLINE_H
#define GOSHIM_DEADLINE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

static inline bool validtimespec(const struct timespec *ts)
{
	return ts->tv_nsec >= 0 && ts->tv_nsec < 1000000000;
}

/* The clocks that waits can be given. */
static inline bool waitclock(clockid_t clock)
{
	return clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC;
}

/* Nanoseconds of *ts; 0 when negative, INT64_MAX when beyond. */
int64_t timespecns(const struct timespec *ts);

/*
 * The time of nanotime() at which `clock` will show *abs if nobody sets it;
 * FOREVER for abs == NULL. After a wait has ended with -ETIMEDOUT,
 * deadlinepassed tells whether the clock shows that time: not if it
 * was set back, and then the wait goes on until a new deadlineat.
 */
int64_t deadlineat(clockid_t clock, const struct timespec *abs);
bool deadlinepassed(clockid_t clock, const struct timespec *abs);

#endif
