/*
 * Latencies in a log-linear histogram, and its distribution as HdrHistogram's tools write and read it.
 */
#include "load.h"
#include <inttypes.h>
#include <math.h>

enum { TICKS = 5 /* lines for each half of the distance to 100 %, HdrHistogram's default */ };

void hist_record(struct hist *h, uint64_t ns)
{
	unsigned shift = 63 - (unsigned)__builtin_clzll(ns | SUB) - SUB_BITS;
	h->count[(shift << SUB_BITS) + (ns >> shift)]++;
	h->total++;
	h->sum += ns;
	if (ns > h->max)
		h->max = ns;
}

void hist_add(struct hist *h, const struct hist *more)
{
	for (unsigned b = 0; b < BUCKETS; b++)
		h->count[b] += more->count[b];
	h->total += more->total;
	h->sum += more->sum;
	if (more->max > h->max)
		h->max = more->max;
}

/* Undoes hist_record: the first value of a bucket, and how many it has. */
static uint64_t bottom(unsigned b, uint64_t *width)
{
	unsigned shift = b < 2 * SUB ? 0 : (b >> SUB_BITS) - 1;
	*width = (uint64_t)1 << shift;
	return (uint64_t)(b - (shift << SUB_BITS)) << shift;
}

uint64_t hist_top(unsigned b)
{
	uint64_t width, low = bottom(b, &width);
	return low + width - 1;
}

uint64_t hist_value(const struct hist *h, double q)
{
	uint64_t seen = 0, want = (uint64_t)(q * (double)h->total + 0.5);
	if (want == 0)
		want = 1;
	for (unsigned b = 0; b < BUCKETS; b++) {
		seen += h->count[b];
		if (seen >= want)
			return hist_top(b) < h->max ? hist_top(b) : h->max;
	}
	return h->max;
}

static double deviation(const struct hist *h, double mean)
{
	double sum = 0;
	for (unsigned b = 0; b < BUCKETS; b++) {
		if (!h->count[b])
			continue;
		uint64_t width, low = bottom(b, &width);
		double d = (double)low + (double)(width - 1) / 2 - mean;
		sum += d * d * (double)h->count[b];
	}
	return h->total ? sqrt(sum / (double)h->total) : 0;
}

static void line(FILE *f, const struct hist *h, unsigned b, double q, uint64_t seen)
{
	uint64_t v = hist_top(b) < h->max ? hist_top(b) : h->max;
	fprintf(f, "%12.6f %2.12f %10" PRIu64, (double)v / 1e6, q, seen);
	if (q < 1)
		fprintf(f, " %14.2f", 1 / (1 - q));
	fputc('\n', f);
}

void hist_write(const struct hist *h, FILE *f)
{
	double mean = h->total ? (double)h->sum / (double)h->total : 0, q = 0;
	uint64_t seen = 0;
	fprintf(f, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount",
		"1/(1-Percentile)");
	for (unsigned b = 0; b < BUCKETS && seen < h->total; b++) {
		if (!h->count[b])
			continue;
		seen += h->count[b];
		/* Each step is a fifth of what was half the distance to 1 at the last halving. */
		while ((double)seen / (double)h->total >= q - 1e-12 && q < 1) {
			line(f, h, b, q, seen);
			q += 1 / (TICKS * exp2(floor(log2(1 / (1 - q))) + 1));
			if (seen == h->total)
				break;
		}
		if (seen == h->total)
			line(f, h, b, 1, seen);
	}
	fprintf(f, "#[Mean    = %12.6f, StdDeviation   = %12.6f]\n", mean / 1e6,
		deviation(h, mean) / 1e6);
	fprintf(f, "#[Max     = %12.6f, Total count    = %12" PRIu64 "]\n", (double)h->max / 1e6,
		h->total);
	fprintf(f, "#[Buckets = %12d, SubBuckets     = %12d]\n", 64 - SUB_BITS, 2 * SUB);
}
