/*
 * requests.h - what a goroutine remembers of the request that it serves. See requests.c.
 */
#ifndef GOSHIM_REQUESTS_H
#define GOSHIM_REQUESTS_H

#include "api.h"
#include "metricsfile.h"

/* There when it is needed: goroutines may be a million. */
typedef struct Serving {
	uint64_t sum[Parts]; /* what it has spent, in ticks, up to G.since */
	Conn *conn; /* it has read or written there last, and has not waited for others since */
	/* The last wait for something to read: what had been spent when it began, at `waitat`. */
	uint64_t waitat, spent[Parts];
	bool fresh; /* it has touched no connection since */
} Serving;

void requestsforkchild(void);
/* When the request began that gp serves now, in ticks; 0: none. Another's look: a moment later it may be wrong. */
uint64_t requestbegan(const G *gp);

#endif
