/*
 * goshim_spent.h - what the threads of a server have spent, for goshim compare; apart from compare.h, whose Metric is another
 * than that of metrics_read.h.
 */
#ifndef GOSHIM_SPENT_H
#define GOSHIM_SPENT_H

#include <stdbool.h>

enum { SPENTLOCKS = 16 };

/* Waits for a lock, or for all of one name. */
typedef struct LockSum {
	char name[100];
	const char *kind;
	double waits, waited, max; /* ns */
} LockSum;

typedef struct Spent {
	bool there;           /* there are threads that are counted */
	double queued, locks; /* ns: in a run queue, waiting for a lock; all threads together */
	int nlocks;
	LockSum lock[SPENTLOCKS]; /* those that were waited for longest */
} Spent;

/* Adds what a process has counted, if it has. */
void spentby(int pid, Spent *s);
/* Adds one to a list of those that were waited for longest, which has room for `most`. The new length. */
int addlock(LockSum *list, int n, int most, const LockSum *l);

#endif
