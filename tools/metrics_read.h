/*
 * metrics_read.h - the metrics of a process (core/metricsfile.h), as other commands see them.
 *
 * Whoever wrote the region may have been killed while it wrote, be of another version, or be hostile: what is read
 * is a copy, checked before it is believed, and figures that can't be are passed over.
 */
#ifndef GOSHIM_METRICS_READ_H
#define GOSHIM_METRICS_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../core/metricsfile.h"

/* One figure, the sum of all shards. */
typedef struct Metric {
	char name[sizeof((MetricEntry *)0)->name + 1];
	MetricKind kind;
	MetricUnit unit;
	unsigned subbits;
	uint64_t value; /* of a counter or gauge; of a histogram the sum of what it counts, in ns */
	uint64_t total; /* of a histogram: how many values */
	bool bare;      /* ... and which ones is not known */
	uint32_t nwords; /* buckets; cells of a square; of names; of figures by name, in ns */
	uint64_t *words;
} Metric;

typedef struct Metrics {
	MetricsHeader header;
	double nspertick;
	int64_t atns; /* CLOCK_MONOTONIC, when it was read; of one that has ended, its last word */
	int nmetrics;
	Metric *metric;
	uint32_t nlocks, nmodules; /* locks_read.h knows them */
	LockRecord *locks;
	ModuleRecord *modules;
} Metrics;

/* A process that has metrics, or had. */
typedef struct MetricsSource {
	int pid;
	int fd;          /* the file, or the process's memory, */
	uint64_t offset; /* where they are in that */
	bool dead;       /* it was, when it was looked for */
	char path[300];  /* of the file; "": none that can be reached */
} MetricsSource;

enum { WhySize = 200 };

/* pid may be one of a thread. False, and a line in why. */
bool metricsopen(MetricsSource *s, int pid, char *why);
/* Of a process that has the library, and no metrics: false, and why. */
bool metricsmissing(int pid, char *why);
void metricsclose(MetricsSource *s);
bool metricsalive(const MetricsSource *s);
/* As they are now. m is freed with metricsfree, also after a failure. */
bool metricsread(MetricsSource *s, Metrics *m, char *why);
/* The same of a copy of a region. */
bool metricsparse(const void *region, size_t size, Metrics *m, char *why);
void metricsfree(Metrics *m);
Metrics metricscopy(const Metrics *m);
/* What has happened between two readings, in `now`. */
void metricsdiff(Metrics *now, const Metrics *before);

/* metrics_live.c: kernel mode; ns on a CPU, ns in its queue, how often it got one. */
typedef struct LiveThread {
	uint64_t n[3];
	char name[METRICSNAME + 1];
} LiveThread;
bool metricskernel(const Metrics *m);
int livethreads(int pid, LiveThread **list);
void metricsaddlive(Metrics *m, const LiveThread *list, int n);

const Metric *metricnamed(const Metrics *m, const char *name);
/* Goroutines that have status `status`. How often they went from one to the other, any if < 0. */
int64_t metricstatus(const Metrics *m, int status);
uint64_t metricmoves(const Metrics *m, int from, int to);
/* Printable, and without what has a meaning in the formats of output. to has a byte more than n. */
void metricstext(char *to, const char *from, size_t n);
/* Name number i of threads. */
void metricsname(const Metrics *m, uint32_t i, char name[METRICSNAME]);
/* Of listening socket number i; false: there is none. */
bool listenername(const Metrics *m, uint32_t i, char name[LISTENERNAME]);
/* Of a histogram, in ns: the first value of bucket i, and the value that a part of all is not above. */
double metriclow(const Metrics *m, const Metric *h, uint32_t i);
double metricquantile(const Metrics *m, const Metric *h, double part);
double metricmax(const Metrics *m, const Metric *h);

#endif
