/*
 * requests.h - what a goroutine remembers of the request that it serves. See requests.c.
 */
#ifndef GOSHIM_REQUESTS_H
#define GOSHIM_REQUESTS_H

#include "api.h"
#include "metricsfile.h"

/* There when it is needed: goroutines may be a million. */
typedef struct Serving {
	uint64_t sum
	    [Parts]; /* what it has spent, in ticks, up to G.since; of a kernel thread, up to `at` */
	Conn *conn;  /* it has read or written there last, and has not waited for others since */
	/* The last wait for something to read: what had been spent when it began, at `waitat`. */
	uint64_t waitat, spent[Parts];
	bool fresh; /* it has touched no connection since */
	G *gp;      /* NULL: a kernel thread's, in kernel mode (timed.c), and so is the rest */
	uint64_t at;
	int64_t cpu, queued;               /* ns that the kernel had counted until then, */
	int64_t pushed;                    /* ... and how often others were put in its place */
	bool waited;                       /* its last call that need not wait has */
	uint64_t callat, callspent[Parts]; /* when that began; as waitat, spent */
	int64_t waitpushed, callpushed;
	struct Serving *next;
} Serving;

/* timed.c: the calling kernel thread's, made if it has none; NULL: there is no kernel mode, or no memory. Counts what was spent
 * up to now. In a section. */
Serving *timedserving(void);
void timedspent(Serving *sv);

void requestsforkchild(void);
/* When the request began that gp serves now, in ticks; 0: none. Another's look: a moment later it may be wrong. */
uint64_t requestbegan(const G *gp);

#endif
