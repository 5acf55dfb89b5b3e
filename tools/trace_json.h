/*
 * trace_json.h - the events of a process as JSON for ui.perfetto.dev and chrome://tracing.
 */
#ifndef GOSHIM_TRACE_JSON_H
#define GOSHIM_TRACE_JSON_H

#include "trace_read.h"

#include <stdio.h>

/* What people call an object in the process's memory, fit for a JSON string. */
typedef struct TraceNamer {
	const char *(*name)(void *arg, uint64_t address);
	void *arg;
} TraceNamer;

/* syscall_names.c: NULL: there is none of that number, or it is newer than this. */
const char *syscallname(uint64_t nr);

typedef struct TraceSummary {
	bool cut; /* it is not all: that would be too large */
	double seconds;
	size_t events, goroutines, arrows, gaps;
} TraceSummary;

/* Of the sorted events, at most so many bytes. The metrics are those of the process at the beginning and the end. */
void tracejson(FILE *f, const Tracing *t, const Metrics *before, const Metrics *after,
	       const TraceNamer *namer, size_t most, TraceSummary *summary);

#endif
