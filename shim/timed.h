/*
 * timed.h - waits in kernel mode: WAITING(why) counts from there to the end of the block, also when the thread is
 * unwound; CALLING(why) does so for a system call that need not wait.
 */
#ifndef GOSHIM_TIMED_H
#define GOSHIM_TIMED_H

#include "shim.h"

#include <stdarg.h>

typedef struct TimedWait {
	WaitReason why;
	uint64_t begin;
} TimedWait;

static inline void waitends(const TimedWait *w)
{
	timedends(w->why, w->begin);
}

static inline void callends(const TimedWait *w)
{
	timedcallends(w->why, w->begin);
}

#define TIMEDBY(ends, why) \
	__attribute__((cleanup(ends), unused)) const TimedWait timedwait = {why, timedbegins(why)}
#define WAITING(why) TIMEDBY(waitends, why)
#define CALLING(why) TIMEDBY(callends, why)

/* Parameters in parentheses, without them. */
#define UNPACKED(...) __VA_ARGS__

/* Calls libc's and times it, unless `free`. */
#define UNLESS(free, why, call)      \
	do {                         \
		if (free)            \
			return call; \
		WAITING(why);        \
		return call;         \
	} while (0)

#endif
