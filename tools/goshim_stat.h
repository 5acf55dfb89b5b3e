/*
 * goshim_stat.h - what goshim stat calls the figures, and makes of them, for others who show them.
 */
#ifndef GOSHIM_STAT_H
#define GOSHIM_STAT_H

#include "metrics_read.h"

/* Statuses of a goroutine: rows and columns of "moves". */
enum { RUNNABLE = 1, RUNNING, SYSCALL, WAITING, DEAD };

/* Counts that are moves from one status to another, any if < 0. */
typedef struct Counter {
	const char *name;
	int from, to;
	const char *help;
} Counter;
enum { NCOUNTERS = 6 };
extern const Counter counters[NCOUNTERS];

/* Of a histogram, for people. */
const char *title(const char *name);
/* Is it not a part of a goroutine's life? */
bool schedulers(const Metric *x);
/* How often a wait began, which has ended as often as its histogram has values. */
bool iswaits(const Metric *x);
/* How many goroutines wait for x, a histogram, now. */
uint64_t waiting(const Metrics *m, const Metric *x);
uint64_t gauge(const Metrics *m, const char *name);
double mean(const Metric *h);
double seconds(const Metrics *m); /* that it has counted */

#endif
