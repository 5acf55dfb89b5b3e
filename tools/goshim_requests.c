/*
 * goshim stat's part on requests, by listening socket: how long they took, of what that consisted for all and for
 * the slowest, and what the figures don't say.
 */
#include "goshim_requests.h"

#include "goshim.h"
#include "goshim_stat.h"

#include <stdio.h>
#include <string.h>

static const char *const timenames[RequestTimes] = {"read", "first", "last"};
static const char *const timetitles[RequestTimes] = {"  to the first read",
						     "  ... first byte written",
						     "  ... last byte written"};
static const char *const partnames[Parts] = {"run queue", "cpu", "lock",        "wait",
					     "sleep",     "io",  "system call", "elsewhere"};
static const char *const countnames[RequestCounts] = {
    "requests",    "at_least",    "at_most", "streamed", "unclear",
    "connections", "spoke_first", "unasked", "copied",
};

static const Metric *ofkind(const Metrics *m, MetricKind kind, unsigned i, const char *what,
			    uint32_t least)
{
	char name[48];
	snprintf(name, sizeof name, "requests.%u.%s", i, what);
	const Metric *x = metricnamed(m, name);
	return x && x->kind == kind && x->nwords >= least ? x : NULL;
}

bool listener(const Metrics *m, unsigned i, Listener *l)
{
	if (!listenername(m, i, l->name))
		return false;
	bool ok = true;
	for (int t = 0; t < RequestTimes; t++)
		ok &= (l->times[t] = ofkind(m, MetricRequestTimes, i, timenames[t], 1)) != NULL;
	l->split = ofkind(m, MetricRequestSplit, i, "split", Parts);
	const Metric *counts = ofkind(m, MetricRequestCounts, i, "counts", RequestCounts);
	l->counts = counts ? counts->words : NULL;
	return ok && l->split && counts;
}

uint64_t splitsum(const Listener *l, uint32_t from, uint64_t parts[Parts])
{
	uint64_t all = 0;
	memset(parts, 0, Parts * sizeof *parts);
	for (uint32_t row = from; row < l->split->nwords / Parts; row++)
		for (int p = 0; p < Parts; p++) {
			parts[p] += l->split->words[row * Parts + p];
			all += l->split->words[row * Parts + p];
		}
	return all;
}

static void printsplit(const char *of, const Listener *l, uint32_t from)
{
	uint64_t parts[Parts], all = splitsum(l, from, parts);
	if (!all)
		return;
	printf("  %-18s", of);
	for (int p = 0, n = 0; p < Parts; p++)
		if (parts[p] * 1000 >= all)
			printf("%s%s %.1f %%", n++ ? ", " : " ", partnames[p],
			       100.0 * (double)parts[p] / (double)all);
	putchar('\n');
}

static void note(uint64_t n, const char *what)
{
	if (n)
		printf("  %llu %s\n", (unsigned long long)n, what);
}

void requeststable(const Metrics *m)
{
	Listener l;
	bool head = false;
	for (unsigned i = 0; i < MOSTLISTENERS; i++) {
		if (!listener(m, i, &l) || !l.counts[ConnsAccepted])
			continue;
		if (!head)
			printf("\n%-24s %10s %9s %9s %9s %9s %9s %9s %9s\n", "requests", "count",
			       "total", "mean", "p50", "p90", "p99", "p99.9", "max");
		head = true;
		printf("%s: %llu on %llu connections\n", l.name,
		       (unsigned long long)l.counts[RequestsDone],
		       (unsigned long long)l.counts[ConnsAccepted]);
		for (int t = 0; t < RequestTimes; t++) {
			const Metric *x = l.times[t];
			if (x->total)
				printf("%-24s %10llu %9s %9s %9s %9s %9s %9s %9s\n", timetitles[t],
				       (unsigned long long)x->total, duration((double)x->value),
				       duration(mean(x)), duration(metricquantile(m, x, 0.5)),
				       duration(metricquantile(m, x, 0.9)),
				       duration(metricquantile(m, x, 0.99)),
				       duration(metricquantile(m, x, 0.999)),
				       duration(metricmax(m, x)));
		}
		/* The power of two that the slowest hundredth has reached. */
		double p99 = metricquantile(m, l.times[RequestLast], 0.99) / m->nspertick;
		uint32_t from = histpower(p99 > 0 ? (uint64_t)p99 : 0);
		char slow[64];
		snprintf(slow, sizeof slow,
			 "%s and more:", duration((double)(1ull << from) * m->nspertick));
		printsplit("all:", &l, 0);
		if (l.times[RequestLast]->total >= 100)
			printsplit(slow, &l, from);
		note(l.counts[RequestsAtLeast],
		     "took so long at least: when they became readable was not seen");
		note(
		    l.counts[RequestsAtMost],
		    "took so long at most: others were readable first, and these were found with them");
		note(l.counts[RequestsStreamed],
		     "answers went on for more than a second: their ends are not in these figures");
		note(l.counts[RequestsUnclear],
		     "requests are in no figure: two threads were at their connections at once");
		note(
		    l.counts[ConnsSpokeFirst],
		    "connections where the server spoke first: what looks like a request there may be an answer");
		note(
		    l.counts[ConnsUnasked],
		    "connections where it wrote again when the answer was over: that is in no figure");
		note(l.counts[ConnsCopied],
		     "descriptors were duplicated: what went on by the copies was not seen");
	}
}

void requestsjson(const Metrics *m)
{
	static const double quantiles[] = {0.5, 0.9, 0.99, 0.999};
	static const char *const names[] = {"p50", "p90", "p99", "p99_9"};
	Listener l;
	uint64_t parts[Parts];
	printf(",\"requests\":[");
	for (unsigned i = 0, n = 0; i < MOSTLISTENERS; i++) {
		if (!listener(m, i, &l))
			continue;
		printf("%s{\"listener\":\"%s\",\"number\":%u", n++ ? "," : "", l.name, i);
		for (int c = 0; c < RequestCounts; c++)
			printf(",\"%s\":%llu", countnames[c], (unsigned long long)l.counts[c]);
		for (int t = 0; t < RequestTimes; t++) {
			const Metric *x = l.times[t];
			printf(",\"%s\":{\"count\":%llu,\"sum_ns\":%llu,\"mean_ns\":%.1f",
			       timenames[t], (unsigned long long)x->total,
			       (unsigned long long)x->value, mean(x));
			for (int k = 0; k < 4; k++)
				printf(",\"%s_ns\":%.0f", names[k],
				       metricquantile(m, x, quantiles[k]));
			printf(",\"max_ns\":%.0f}", metricmax(m, x));
		}
		splitsum(&l, 0, parts);
		printf(",\"split_ns\":{");
		for (int p = 0; p < Parts; p++)
			printf("%s\"%s\":%llu", p ? "," : "", partnames[p],
			       (unsigned long long)parts[p]);
		printf("}}");
	}
	printf("]");
}

void requestsprometheus(const Metrics *m, const char *labels)
{
	Listener l;
	uint64_t parts[Parts];
	for (unsigned i = 0; i < MOSTLISTENERS; i++) {
		if (!listener(m, i, &l))
			continue;
		for (int c = 0; c < RequestCounts; c++)
			printf("goshim_request_%s_total{%s,listener=\"%s\"} %llu\n", countnames[c],
			       labels, l.name, (unsigned long long)l.counts[c]);
		for (int t = 0; t < RequestTimes; t++)
			printf("goshim_request_%s_seconds_sum{%s,listener=\"%s\"} %.9f\n"
			       "goshim_request_%s_seconds_count{%s,listener=\"%s\"} %llu\n",
			       timenames[t], labels, l.name, (double)l.times[t]->value / 1e9,
			       timenames[t], labels, l.name, (unsigned long long)l.times[t]->total);
		splitsum(&l, 0, parts);
		for (int p = 0; p < Parts; p++)
			printf(
			    "goshim_request_part_seconds_total{%s,listener=\"%s\",part=\"%s\"} %.9f\n",
			    labels, l.name, partnames[p], (double)parts[p] / 1e9);
	}
}
