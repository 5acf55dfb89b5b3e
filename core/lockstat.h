/*
 * lockstat.h - what is counted of each lock, in the metrics region, where `goshim locks` finds it.
 *
 * A lock gets its record when somebody first waits for it, or, if each lock is counted (lockscounted),
 * when it is first locked. The object keeps a link to it. See lockstat.c.
 */
#ifndef GOSHIM_LOCKSTAT_H
#define GOSHIM_LOCKSTAT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "annotate.h"
#include "arch/x86_64/arch.h"
#include "metricsfile.h"

enum {
	LockLinkBits = 13,
	LockRecords = 4096, /* of which */
	LockShared = 256,   /* the last are of call sites, whose locks have none of their own */
	Modules = 128,
};

/* In an object: 0, or the number of its record and 1, and above that the process's line of forks. Anything
 * else that may be there is no link. */
typedef _Atomic uint32_t LockLink;

extern LockRecord *lockrecords; /* NULL: nothing is counted */
extern uint32_t lockgeneration; /* of links, shifted */
extern bool lockscounted;       /* GOSHIM=locks: also those that need not wait */

/* The record of the lock that has this link; NULL: it has none. */
static inline LockRecord *lockrecordof(const LockLink *link, const void *lock)
{
	uint32_t l = atomic_load_explicit(link, memory_order_acquire);
	uint32_t i = (l & ((1u << LockLinkBits) - 1)) - 1;
	if (!lockrecords || i >= LockRecords || l >> LockLinkBits != lockgeneration)
		return NULL;
	LockRecord *r = &lockrecords[i];
	return r->address == (uintptr_t)lock || r->address == 0 ? r : NULL;
}

/*
 * The record of a lock that has no link, found or made. site: what initialised it, 0: not known. link: where the
 * object keeps it, or NULL: then only waits for it are counted. NULL: nothing is counted. No lock is taken; SIGSAFE.
 */
LockRecord *lockrecord(const void *lock, uint64_t site, LockKind kind, LockLink *link);
/* Adds n, and, if the caller is `alone` with the record, for less. */
static inline void locksum(uint64_t *sum, uint64_t n, bool alone)
{
	if (alone)
		addonce(sum, n);
	else
		addatomic(sum, n);
}
static inline void lockmax(uint64_t *max, uint64_t v)
{
	uint64_t old = __atomic_load_n(max, __ATOMIC_RELAXED);
	while (unlikely(old < v) &&
	       !__atomic_compare_exchange_n(max, &old, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}
/* The record of the lock at that address, the last of several; NULL: none. Slow. */
const LockRecord *lockrecordat(uint64_t address);

/* Is the record of many locks, which may be locked at the same time? */
static inline bool lockmany(const LockRecord *r)
{
	return r->address == 0;
}

/* The number of that module in the table, -1: there is no room. One thread at a time. */
int lockmodule(const ModuleRecord *m);

/*
 * For how long the caller waits, in ticks: parkwatch before semapark, parkwatched after it. *began, if 0, is when it
 * was parked, *ended when it ran again. A goroutine that was not parked leaves both; for others time is only looked at.
 */
void parkwatch(void);
void parkwatched(uint64_t *began, uint64_t *ended);

#endif
