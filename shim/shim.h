/*
 * shim.h - what all of shim/ shares.
 *
 * shim/ is what the program sees: libc's types come in, calls of core/api.h go
 * out. A function of the shim decides who owns the call, calls the scheduler,
 * and converts errors: core answers -errno; pthread_* return the number,
 * others -1 with errno.
 */
#ifndef GOSHIM_SHIM_H
#define GOSHIM_SHIM_H

#include "api.h"
#include "real.h"

/* 0 or positive results as they are, -errno to -1 and errno. */
static inline long errnoret(long r)
{
	if (unlikely((unsigned long)r > -4096UL)) {
		errno = (int)-r;
		return -1;
	}
	return r;
}

/* For the length of a scope: errno afterwards is as before. */
static inline void errnorestore(const int *saved)
{
	errno = *saved;
}
#define KEEP_ERRNO __attribute__((cleanup(errnorestore), unused)) const int errnosaved = errno

#endif
