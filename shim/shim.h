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

#include <stdarg.h>
#include <stdatomic.h>

#include "api.h"
#include "real.h"

/* A lock of the shim's own, held for a few instructions; spinlock's section goes to spinunlock. */
typedef _Atomic uint32_t SpinLock;

static inline Section spinlock(SpinLock *l)
{
	Section s = sectionenter();
	while (atomic_exchange_explicit(l, 1, memory_order_acquire))
		for (int i = 0; atomic_load_explicit(l, memory_order_relaxed); i++)
			i < 100 ? procyield() : (void)sys0(SYS_sched_yield);
	return s;
}

static inline void spinunlock(SpinLock *l, Section s)
{
	atomic_store_explicit(l, 0, memory_order_release);
	sectionleave(s);
}

/* Makes an array of prctl's arguments after the first, where `kind` is the last that is named. */
#define PRCTLARGUMENTS(a, kind)                           \
	unsigned long a[4];                               \
	do {                                              \
		va_list ap;                               \
		va_start(ap, kind);                       \
		for (int i = 0; i < 4; i++)               \
			a[i] = va_arg(ap, unsigned long); \
		va_end(ap);                               \
	} while (0)

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
