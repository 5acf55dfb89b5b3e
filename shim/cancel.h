/*
 * cancel.h - thread cancellation.
 */
#ifndef GOSHIM_CANCEL_H
#define GOSHIM_CANCEL_H

#include "shim.h"

/* A cancellation point: ends the calling goroutine when its cancellation was asked
 * for and is enabled. Cleanup handlers run in the caller's state. */
void testcancel(void);
/* The same as a question. */
bool cancelwanted(void);

#endif
