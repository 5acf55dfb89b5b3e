/*
 * goshim_requests.h - what goshim stat and goshim top say of requests.
 */
#ifndef GOSHIM_REQUESTS_TABLE_H
#define GOSHIM_REQUESTS_TABLE_H

#include "metrics_read.h"

void requeststable(const Metrics *m);
void requestsjson(const Metrics *m); /* `,"requests":[...]` */
void requestsprometheus(const Metrics *m, const char *labels);

/* One listening socket. */
typedef struct Listener {
	char name[LISTENERNAME];
	const Metric *times[RequestTimes], *split;
	const uint64_t *counts;
} Listener;
enum { MOSTLISTENERS = 64 };

/* Number i; false: there is none. */
bool listener(const Metrics *m, unsigned i, Listener *l);
/* Of all requests that took 1 << from ticks and more: how much each part took; returns the sum. */
uint64_t splitsum(const Listener *l, uint32_t from, uint64_t parts[Parts]);

#endif
