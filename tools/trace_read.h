/*
 * trace_read.h - taking the events that a process records (core/tracefile.h) out of its rings, as they come.
 */
#ifndef GOSHIM_TRACE_READ_H
#define GOSHIM_TRACE_READ_H

#include "metrics_read.h"

#include "../core/tracefile.h"

/* Beside those of the process. */
enum {
	TraceLost = 250, /* arg events of this ring are missing before this moment */
	TracePaused,     /* nothing was recorded for arg ns up to this moment */
	TraceThreads,    /* from now on there are arg kernel threads */
};

typedef struct Taken {
	uint64_t ticks, what, arg;
	uint64_t order; /* of their coming; the upper 16 bits are the ring's number */
} Taken;

static inline unsigned takenring(const Taken *e)
{
	return (unsigned)(e->order >> 48);
}

static inline unsigned takentype(const Taken *e)
{
	return (uint8_t)e->what;
}

typedef struct Tracing {
	MetricsSource *source;
	TraceHeader header;
	uint64_t at; /* its offset in the region */
	double nspertick;
	TickPoints points;
	uint64_t startticks, endticks;
	uint64_t next[4100]; /* the number of the next event of each ring */
	uint64_t until;      /* what was last written there, */
	int64_t untilns;     /* and what that is of CLOCK_MONOTONIC */
	uint64_t threads, lost;
	bool paused;
	int64_t pausedns;
	Taken *taken;
	size_t ntaken, room;
	TraceEvent *copy[2];
} Tracing;

/* Switches it on. False, and a line in why. */
bool tracebegin(Tracing *t, MetricsSource *s, const Metrics *m, char *why);
/* Of a file of the flight recorder, all of it, sorted. False: it is damaged. */
bool traceload(Tracing *t, MetricsSource *s, const Metrics *m);
/* Takes what there is. False: it can't be read any more. dead: nobody writes now. *fullest: the part of a ring that was
 * taken, the largest. */
bool tracetake(Tracing *t, bool dead, double *fullest);
void traceend(Tracing *t);
/* In the order in which it happened. */
void tracesort(Tracing *t);
void tracefree(Tracing *t);

#endif
