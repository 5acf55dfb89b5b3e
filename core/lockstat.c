/*
 * lockstat.c - which record of the metrics region is a lock's.
 *
 * The problem: who waits for a lock must find its record at once, wherever it waits, and a program
 * has as many locks as it likes, in memory that is another's tomorrow.
 *
 * So an object has a link to its record, if it has room, and a table by address and call site finds what
 * has no link. Records are never freed: a lock that is made at an address where there was one before, by the same
 * call, goes on with its record; made by another call it gets one of its own. When only a few records are left,
 * locks share one with all others of their call site: so what a server makes for each connection is told of by
 * the place in the code that makes it, and the last record is of all that have not even that.
 *
 * An insertion is one compare-and-swap of a slot; who loses it leaves a record unused.
 */
#include "lockstat.h"

#include "metrics.h"
#include "runtime.h"

#include <string.h>

enum {
	SLOTS = 2 * LockRecords,
	PROBES = 64,
	OWN = LockRecords - LockShared,
	LAST = LockRecords - 1
};

LockRecord *lockrecords;
uint32_t lockgeneration = 1;
bool lockscounted;

static ModuleRecord *modules;
static uint32_t nmodules;
static _Atomic uint16_t slots[SLOTS]; /* number of the record, and 1 */
static _Atomic uint32_t nown, nshared;

_Static_assert(LockRecords < 1 << LockLinkBits && LockRecords < UINT16_MAX, "it fits");

void lockstatinit(LockRecord *records, ModuleRecord *m)
{
	modules = m;
	lockrecords = records;
	lockscounted = records && debug.locks;
}

void lockstatforkchild(void)
{
	lockstatinit(NULL, NULL);
	lockgeneration = (lockgeneration + 1) & ((1u << (32 - LockLinkBits)) - 1);
	lockgeneration += lockgeneration == 0;
	memset(slots, 0, sizeof slots);
	atomic_store(&nown, 0);
	atomic_store(&nshared, 0);
	nmodules = 0;
}

static bool is(const LockRecord *r, uint64_t address, uint64_t site, LockKind kind)
{
	return r->address == address && r->site == site && r->kind == (uint32_t)kind;
}

/* A record that nobody has; NULL: there is none, or no memory for it. */
static LockRecord *fresh(_Atomic uint32_t *taken, uint32_t first, uint32_t end)
{
	if (atomic_load_explicit(taken, memory_order_relaxed) >= end - first)
		return NULL;
	uint32_t n = atomic_fetch_add_explicit(taken, 1, memory_order_relaxed);
	if (n >= end - first || !metricsrecord(&lockrecords[first + n]))
		return NULL;
	return &lockrecords[first + n];
}

/* counts: also those are that need not wait. */
static LockRecord *find(uint64_t address, uint64_t site, LockKind kind, bool counts)
{
	uint64_t hash = handlehash((const void *)(address ^ site * 0x9e3779b97f4a7c15u));
	LockRecord *mine = NULL;
	for (uint32_t i = 0; i < PROBES; i++) {
		_Atomic uint16_t *slot = &slots[(hash + i) % SLOTS];
		uint16_t at = atomic_load_explicit(slot, memory_order_acquire);
		if (!at && !mine) {
			mine = address ? fresh(&nown, 0, OWN) : fresh(&nshared, OWN, LAST);
			if (!mine)
				return NULL;
			mine->address = address;
			mine->site = site;
			mine->kind = (uint32_t)kind;
			mine->flags = counts ? LockCounts : 0;
		}
		uint16_t n = mine ? (uint16_t)(mine - lockrecords + 1) : 0;
		if (!at &&
		    atomic_compare_exchange_strong_explicit(slot, &at, n, memory_order_release,
							    memory_order_acquire))
			return mine;
		if (is(&lockrecords[at - 1], address, site, kind)) {
			if (mine)
				mine->kind = LockNone;
			return &lockrecords[at - 1];
		}
	}
	if (mine)
		mine->kind = LockNone;
	return NULL;
}

LockRecord *lockrecord(const void *lock, uint64_t site, LockKind kind, LockLink *link)
{
	if (!lockrecords)
		return NULL;
	uint32_t old = link ? atomic_load_explicit(link, memory_order_relaxed) : 0;
	bool counts = lockscounted && link;
	LockRecord *r = find((uintptr_t)lock, site, kind, counts);
	if (!r)
		r = find(0, site, kind, counts);
	if (!r && metricsrecord(&lockrecords[LAST])) {
		r = &lockrecords[LAST];
		r->kind = LockMixed;
		r->flags = lockscounted ? LockCounts : 0;
	}
	if (!r) {
		metricscount(CountLocksLost);
		return NULL;
	}
	uint32_t new = (lockgeneration << LockLinkBits) | (uint32_t)(r - lockrecords + 1);
	if (link ? atomic_compare_exchange_strong_explicit(link, &old, new, memory_order_release,
							   memory_order_relaxed)
		 : r->objects == 0)
		addatomic(&r->objects, 1);
	return r;
}

const LockRecord *lockrecordat(uint64_t address)
{
	const LockRecord *found = NULL;
	for (uint32_t i = 0; i < SLOTS; i++) {
		uint16_t n = atomic_load_explicit(&slots[i], memory_order_acquire);
		const LockRecord *r = n && lockrecords ? &lockrecords[n - 1] : NULL;
		if (r && r->address == address && (!found || r > found))
			found = r;
	}
	return found;
}

int lockmodule(const ModuleRecord *m)
{
	for (uint32_t i = 0; i < nmodules; i++)
		if (memcmp(&modules[i], m, sizeof *m) == 0)
			return (int)i;
	if (!modules || nmodules == Modules || !metricsrecord(&modules[nmodules]))
		return -1;
	modules[nmodules] = *m;
	return (int)nmodules++;
}

void parkwatch(void)
{
	G *gp = getg();
	if (gp)
		gp->parked = 0;
}

void parkwatched(uint64_t *began, uint64_t *ended)
{
	G *gp = getg();
	if (!gp) {
		*ended = ticksnow();
	} else if (gp->parked) {
		*began = *began ? *began : gp->parked;
		*ended = gp->since;
	}
}
