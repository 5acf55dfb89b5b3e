/*
 * goshim_requests.h - what goshim stat says of requests.
 */
#ifndef GOSHIM_REQUESTS_TABLE_H
#define GOSHIM_REQUESTS_TABLE_H

#include "metrics_read.h"

void requeststable(const Metrics *m);
void requestsjson(const Metrics *m); /* `,"requests":[...]` */
void requestsprometheus(const Metrics *m, const char *labels);

/* goshim_stat.c */
double mean(const Metric *h);

#endif
