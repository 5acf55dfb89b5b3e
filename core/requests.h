/*
 * requests.h - what a goroutine remembers of the request that it serves. See requests.c.
 */
#ifndef GOSHIM_REQUESTS_H
#define GOSHIM_REQUESTS_H

#include "api.h"
#include "metricsfile.h"

typedef struct Serving {
	Conn *conn; /* it has read or written there last, and has not waited for others since */
	/* The last wait for something to read: what had been spent when it began, at `waitat`. */
	uint64_t waitat, spent[Parts];
	bool fresh; /* it has touched no connection since */
} Serving;

void requestsforkchild(void);

#endif
