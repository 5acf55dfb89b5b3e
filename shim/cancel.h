/*
 * cancel.h - thread cancellation.
 */
#ifndef GOSHIM_CANCEL_H
#define GOSHIM_CANCEL_H

#include "tls.h"

/* libc's bits in the word of state. */
enum {
	CancelDisabled = 1,
	CancelAsync = 2,
	CancelCanceling = 4,
	CancelCanceled = 8,
	CancelExiting = 16,
};

/* Has the cancellation of the caller, a goroutine, been asked for, and is it enabled? */
static inline bool cancelwanted(void)
{
	int w = selfcancelword();
	return (w & (CancelDisabled | CancelCanceled | CancelExiting)) == CancelCanceled &&
	       getg() != NULL;
}

/* Ends the calling goroutine. */
void cancelself(void);

/* A cancellation point: ends the calling goroutine when that was asked
 * for and is enabled. Cleanup handlers run in the caller's state. */
static inline void testcancel(void)
{
	if (unlikely(cancelwanted()))
		cancelself();
}

#endif
