/*
 * locks_read.h - what a process has counted of its locks, with names.
 */
#ifndef GOSHIM_LOCKS_READ_H
#define GOSHIM_LOCKS_READ_H

#include "metrics_read.h"
#include "symbols_read.h"

enum { LockName = SymbolSize + 24 };

/* An address for people. */
typedef struct LockPlace {
	char name[LockName]; /* symbol+0x1f, else file+0x1234, else 0x7f0123456789 */
	char file[64];       /* the last part of its path; "": not known */
} LockPlace;

/* Of one lock, or of all (many) of one call site that had no record of their own. */
typedef struct LockFigures {
	uint32_t record; /* its number in the region, of each reading the same */
	LockKind kind;
	uint64_t address; /* 0: many */
	uint64_t objects; /* that were there one after the other, or of that site */
	bool isstatic;    /* `name` is its own, else where it was initialised or first locked */
	LockPlace name;
	uint64_t contended, waiting; /* waits; those that have not ended */
	double waited, maxwait;      /* ns, of those that have */
	bool counted;                /* what follows */
	uint64_t locked, changed,
	    shared; /* exclusively, of these by another than before; by readers */
	double held, maxheld, sharedheld;
	int nframes;
	LockPlace frames[LockFrames]; /* of the first wait; only asked for (lockstack) */
	uint64_t stack[LockFrames];
} LockFigures;

/* Is it waited for by who has nothing to do? */
static inline bool lockisidle(const LockFigures *l)
{
	return l->kind == LockCond || l->kind == LockSem;
}

/*
 * All locks that were waited for, or were locked at all where that is counted, those first for which most time was
 * lost, conditions and semaphores after the others. How many; *locks is malloc'ed. The names of a live process's files
 * are looked for under its own root.
 */
int lockfigures(const MetricsSource *s, const Metrics *m, LockFigures **locks);
/* What the lock at that address is called, if it was waited for; false: it is not known. */
bool lockcalled(const MetricsSource *s, const Metrics *m, uint64_t address,
		char name[LockName + 16]);
/* Names of the stack, in l. */
void lockstack(const MetricsSource *s, const Metrics *m, LockFigures *l);
const char *lockkind(LockKind kind);
/* Its own name, or whose call made it. */
enum { LockFullName = LockName + 40 };
void lockname(const LockFigures *l, char *buf, size_t size);
/* To stdout, as an object. */
void lockjson(const MetricsSource *s, const Metrics *m, LockFigures *l);

#endif
