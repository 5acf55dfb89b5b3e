/*
 * goshim stat: what a process has counted of its goroutines, as tables, histograms, or for other programs.
 *
 * All forms are made of one reading, or of the difference of two (--interval).
 */
#define _GNU_SOURCE
#include "goshim_stat.h"

#include "goshim.h"
#include "goshim_requests.h"
#include "locks_read.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const Counter counters[NCOUNTERS] = {
    {"created", DEAD, -1, "goroutines made"},
    {"ended", -1, DEAD, "goroutines that have ended"},
    {"wakeups", WAITING, RUNNABLE, "goroutines made runnable again"},
    {"switches", RUNNABLE, RUNNING, "goroutines given a processor"},
    {"yields", RUNNING, RUNNABLE,
     "goroutines that left it while they could run on, preempted ones included"},
    {"syscalls", RUNNING, SYSCALL, "system calls that could wait"},
};

static const struct {
	const char *name;
	int status;
} states[] = {{"running", RUNNING},
	      {"runnable", RUNNABLE},
	      {"syscall", SYSCALL},
	      {"waiting", WAITING}};
enum { NSTATES = sizeof states / sizeof states[0] };

uint64_t gauge(const Metrics *m, const char *name)
{
	const Metric *x = metricnamed(m, name);
	return x ? x->value : 0;
}

double seconds(const Metrics *m)
{
	double s = ((double)m->atns - (double)m->header.ticks.startns) / 1e9;
	return s > 0 && s < 1e10 ? s : 0;
}

double mean(const Metric *h)
{
	return h->total ? (double)h->value / (double)h->total : 0;
}

/* --- for people ------------------------------------------------------------------------------ */

const char *title(const char *name)
{
	static const char *const titles[][2] = {
	    {"runqueue", "in a run queue"},     {"running", "running"},
	    {"syscall", "in a system call"},    {"syscall.lost", "... processor lost"},
	    {"late.timer", "timers late by"},   {"late.preemption", "preemptions late by"},
	    {"world.stopped", "world stopped"},
	};
	for (size_t i = 0; i < sizeof titles / sizeof titles[0]; i++)
		if (!strcmp(name, titles[i][0]))
			return titles[i][1];
	return name;
}

bool iswaits(const Metric *x)
{
	return !strncmp(x->name, "began.", 6);
}

static bool asdifference; /* of two readings: there is no now */

uint64_t waiting(const Metrics *m, const Metric *x)
{
	char name[64];
	if (x->kind != MetricHistogram || strncmp(x->name, "wait.", 5))
		return 0;
	snprintf(name, sizeof name, "began.%s", x->name);
	const Metric *began = metricnamed(m, name);
	return began && began->value > x->total ? began->value - x->total : 0;
}

bool schedulers(const Metric *x)
{
	return !strncmp(x->name, "late.", 5) || !strncmp(x->name, "world.", 6);
}

static void rows(const Metrics *m, const char *what, bool scheduler)
{
	bool head = false;
	for (int i = 0; i < m->nmetrics; i++) {
		const Metric *x = &m->metric[i];
		if (x->kind != MetricHistogram || !x->total || schedulers(x) != scheduler)
			continue;
		if (!head)
			printf("\n%-20s %10s %9s %9s %9s %9s %9s %9s %9s\n", what, "count", "total",
			       "mean", "p50", "p90", "p99", "p99.9", "max");
		head = true;
		if (x->bare) {
			printf("%-20s %10llu %9s %9s\n", title(x->name),
			       (unsigned long long)x->total, duration((double)x->value),
			       duration(mean(x)));
			continue;
		}
		printf("%-20s %10llu %9s %9s %9s %9s %9s %9s %9s\n", title(x->name),
		       (unsigned long long)x->total, duration((double)x->value), duration(mean(x)),
		       duration(metricquantile(m, x, 0.5)), duration(metricquantile(m, x, 0.9)),
		       duration(metricquantile(m, x, 0.99)), duration(metricquantile(m, x, 0.999)),
		       duration(metricmax(m, x)));
	}
}

/* The threads that ran most, by name, if they have names. */
static void names(const Metrics *m)
{
	const Metric *x = metricnamed(m, "running.byname");
	bool listed[256] = {false};
	if (!x || x->kind != MetricByName || !x->total || x->words[0] == x->total)
		return;
	printf("\n%-20s %10s %9s %9s\n", "running, by thread", "", "total", "part");
	for (int lines = 0; lines < 16; lines++) {
		uint32_t most = UINT32_MAX;
		char name[METRICSNAME];
		for (uint32_t i = 0; i < x->nwords && i < 256; i++)
			if (!listed[i] && x->words[i] &&
			    (most == UINT32_MAX || x->words[i] > x->words[most]))
				most = i;
		if (most == UINT32_MAX)
			break;
		listed[most] = true;
		metricsname(m, most, name);
		printf("%-20s %10s %9s %7.1f %%\n", name, "", duration((double)x->words[most]),
		       100.0 * (double)x->words[most] / (double)x->total);
	}
}

/* What goroutines, or threads, wait for now. */
static void waitingnow(const Metrics *m)
{
	for (int i = 0, n = 0; i < m->nmetrics; i++)
		if (waiting(m, &m->metric[i]))
			printf("%s%llu %s", n++ ? ", " : ": ",
			       (unsigned long long)waiting(m, &m->metric[i]),
			       m->metric[i].name + strlen("wait."));
	putchar('\n');
}

/* Kernel mode has threads, of which is known that they are, and what they wait for. */
static void kerneltable(const Metrics *m, double elapsed, bool interval)
{
	const MetricsHeader *h = &m->header;
	uint64_t wait = 0;
	for (int i = 0; i < m->nmetrics; i++)
		wait += waiting(m, &m->metric[i]);
	if (interval) {
		printf("--- %s\n", duration(elapsed * 1e9));
	} else {
		printf("%s, process %d, %s%s: mode kernel\n", h->name, h->pid,
		       h->state == MetricsEnded ? "ended after " : "for ", duration(elapsed * 1e9));
		printf("threads: %lld now: %llu waiting", (long long)metricstatus(m, RUNNING),
		       (unsigned long long)wait);
		waitingnow(m);
	}
	printf("%llu created, %llu ended\n", (unsigned long long)metricmoves(m, DEAD, -1),
	       (unsigned long long)metricmoves(m, -1, DEAD));
	rows(m, "threads' time", false);
	rows(m, "timers", true);
}

static void goroutinestable(const Metrics *m, double elapsed, bool interval)
{
	const MetricsHeader *h = &m->header;
	int64_t alive = 0;
	for (int i = 0; i < NSTATES; i++)
		alive += metricstatus(m, states[i].status);
	if (!interval)
		printf("%s, process %d, %s%s: %llu processors, %llu kernel threads\n", h->name,
		       h->pid, h->state == MetricsEnded ? "ended after " : "for ",
		       duration(elapsed * 1e9), (unsigned long long)gauge(m, "gomaxprocs"),
		       (unsigned long long)gauge(m, "threads"));
	else
		printf("--- %s\n", duration(elapsed * 1e9));
	if (!interval) {
		printf("goroutines: %lld now", (long long)alive);
		for (int i = 0; i < NSTATES; i++)
			printf("%s %lld %s", i ? "," : ":",
			       (long long)metricstatus(m, states[i].status),
			       states[i].status == SYSCALL ? "in system calls" : states[i].name);
		waitingnow(m);
	}
	for (int i = 0; i < NCOUNTERS; i++) {
		uint64_t n = metricmoves(m, counters[i].from, counters[i].to);
		printf("%s%llu %s", i ? ", " : "", (unsigned long long)n, counters[i].name);
		if (elapsed > 0 && interval)
			printf(" (%.0f/s)", (double)n / elapsed);
	}
	for (int i = 0; i < m->nmetrics; i++)
		if (m->metric[i].kind == MetricCounter && strcmp(m->metric[i].name, "lost") &&
		    !iswaits(&m->metric[i]))
			printf(", %llu %s", (unsigned long long)m->metric[i].value,
			       m->metric[i].name);
	putchar('\n');
	rows(m, "goroutines' time", false);
	rows(m, "the scheduler", true);
}

static void table(const Metrics *m, double elapsed, bool interval)
{
	(metricskernel(m) ? kerneltable : goroutinestable)(m, elapsed, interval);
	names(m);
	requeststable(m);
	const Metric *lost = metricnamed(m, "lost");
	if (lost && lost->value)
		printf("%llu values are not in this table: there was no memory for them\n",
		       (unsigned long long)lost->value);
}

enum { POWERS = 48, BAR = 40 };

/* The counts by powers of two of `unit` ns: [0] up to 1, [1] 2 to 3, [2] 4 to 7, ... */
static int bypowers(const Metrics *m, const Metric *h, double unit, uint64_t *counts)
{
	int top = 0;
	memset(counts, 0, POWERS * sizeof *counts);
	for (uint32_t i = 0; i < h->nwords; i++) {
		if (!h->words[i])
			continue;
		double v = (metriclow(m, h, i) + metriclow(m, h, i + 1)) / 2 / unit;
		int k = v < 2 ? 0 : ilogb(v);
		k = k >= POWERS ? POWERS - 1 : k;
		counts[k] += h->words[i];
		top = k > top ? k : top;
	}
	return top;
}

/* As bcc's runqlat prints it. */
static void bars(const Metrics *m, const Metric *h)
{
	uint64_t counts[POWERS], most = 1;
	bool small = metricmax(m, h) < 2000;
	int top = bypowers(m, h, small ? 1 : 1000, counts);
	for (int i = 0; i <= top; i++)
		most = counts[i] > most ? counts[i] : most;
	printf("\n%s\n     %-19s : count     distribution\n", title(h->name),
	       small ? "nsecs" : "usecs");
	for (int i = 0; h->total && i <= top; i++) {
		char bar[BAR + 1];
		int n = (int)((double)counts[i] * BAR / (double)most);
		memset(bar, '*', (size_t)n);
		bar[n] = 0;
		printf("%10llu -> %-10llu : %-8llu |%-*s|\n", i ? 1ull << i : 0ull,
		       (1ull << (i + 1)) - 1, (unsigned long long)counts[i], BAR, bar);
	}
}

/* --- for programs ---------------------------------------------------------------------------- */

/* The worst, since its start. */
static void worstlocks(const MetricsSource *s, const Metrics *m)
{
	enum { WORST = 10 };
	LockFigures *l;
	int n = asdifference ? 0 : lockfigures(s, m, &l);
	printf(",\"locks\":[");
	for (int i = 0; i < n && i < WORST; i++) {
		if (i)
			putchar(',');
		lockjson(s, m, &l[i]);
	}
	printf("]");
	if (!asdifference)
		free(l);
}

static void json(const MetricsSource *s, const Metrics *m, double elapsed)
{
	const MetricsHeader *h = &m->header;
	static const double parts[] = {0.5, 0.9, 0.99, 0.999};
	static const char *const names[] = {"p50", "p90", "p99", "p99_9"};
	printf(
	    "{\"version\":%u,\"mode\":\"%s\",\"pid\":%d,\"name\":\"%s\",\"ended\":%s,\"seconds\":%.6f,\"lost\":%llu,"
	    "\"gomaxprocs\":%llu,\"threads\":%llu,\"goroutines\":{",
	    h->version, metricskernel(m) ? "kernel" : "goroutines", h->pid, h->name,
	    h->state == MetricsEnded ? "true" : "false", elapsed,
	    (unsigned long long)gauge(m, "lost"), (unsigned long long)gauge(m, "gomaxprocs"),
	    (unsigned long long)gauge(m, "threads"));
	for (int i = 0; i < NSTATES; i++)
		printf("%s\"%s\":%lld", i ? "," : "", states[i].name,
		       (long long)metricstatus(m, states[i].status));
	printf("},\"counters\":{");
	for (int i = 0; i < NCOUNTERS; i++)
		printf("%s\"%s\":%llu", i ? "," : "", counters[i].name,
		       (unsigned long long)metricmoves(m, counters[i].from, counters[i].to));
	for (int i = 0; i < m->nmetrics; i++)
		if (m->metric[i].kind == MetricCounter && !iswaits(&m->metric[i]))
			printf(",\"%s\":%llu", m->metric[i].name,
			       (unsigned long long)m->metric[i].value);
	printf("},\"waiting\":{");
	for (int i = 0, n = 0; i < m->nmetrics && !asdifference; i++)
		if (waiting(m, &m->metric[i]))
			printf("%s\"%s\":%llu", n++ ? "," : "", m->metric[i].name,
			       (unsigned long long)waiting(m, &m->metric[i]));
	printf("},\"running_by_name_ns\":{");
	const Metric *byname = metricnamed(m, "running.byname");
	for (uint32_t i = 0, n = 0; byname && byname->kind == MetricByName && i < byname->nwords;
	     i++) {
		char name[METRICSNAME];
		metricsname(m, i, name);
		if (byname->words[i])
			printf("%s\"%s\":%llu", n++ ? "," : "", name,
			       (unsigned long long)byname->words[i]);
	}
	printf("},\"histograms\":{");
	for (int i = 0, n = 0; i < m->nmetrics; i++) {
		const Metric *x = &m->metric[i];
		if (x->kind != MetricHistogram)
			continue;
		printf("%s\"%s\":{\"count\":%llu,\"sum_ns\":%llu,\"mean_ns\":%.1f", n++ ? "," : "",
		       x->name, (unsigned long long)x->total, (unsigned long long)x->value,
		       mean(x));
		for (int k = 0; k < 4 && !x->bare; k++)
			printf(",\"%s_ns\":%.0f", names[k], metricquantile(m, x, parts[k]));
		if (!x->bare)
			printf(",\"max_ns\":%.0f", metricmax(m, x));
		printf(",\"buckets\":[");
		for (uint32_t k = 0, some = 0; k < x->nwords; k++)
			if (x->words[k])
				printf("%s[%.1f,%.1f,%llu]", some++ ? "," : "", metriclow(m, x, k),
				       metriclow(m, x, k + 1), (unsigned long long)x->words[k]);
		printf("]}");
	}
	printf("}");
	worstlocks(s, m);
	requestsjson(m);
	printf("}\n");
}

/* A name with dots, as Prometheus has them. */
static const char *promname(const char *name)
{
	static char buf[64];
	size_t i = 0;
	for (; name[i] && i < sizeof buf - 1; i++)
		buf[i] = (name[i] >= 'a' && name[i] <= 'z') || (name[i] >= '0' && name[i] <= '9')
			     ? name[i]
			     : '_';
	buf[i] = 0;
	return buf;
}

static void prometheus(const Metrics *m)
{
	const MetricsHeader *h = &m->header;
	char labels[64];
	snprintf(labels, sizeof labels, "pid=\"%d\",comm=\"%s\"", h->pid, h->name);
	printf("# TYPE goshim_goroutines gauge\n");
	for (int i = 0; i < NSTATES; i++)
		printf("goshim_goroutines{%s,state=\"%s\"} %lld\n", labels, states[i].name,
		       (long long)metricstatus(m, states[i].status));
	for (int i = 0; i < m->nmetrics; i++)
		if (m->metric[i].kind == MetricCounter && !iswaits(&m->metric[i]))
			printf("# TYPE goshim_%s_total counter\ngoshim_%s_total{%s} %llu\n",
			       promname(m->metric[i].name), promname(m->metric[i].name), labels,
			       (unsigned long long)m->metric[i].value);
	for (int i = 0; i < m->nmetrics; i++)
		if (m->metric[i].kind == MetricGauge)
			printf("# TYPE goshim_%s gauge\ngoshim_%s{%s} %llu\n",
			       promname(m->metric[i].name), promname(m->metric[i].name), labels,
			       (unsigned long long)m->metric[i].value);
	for (int i = 0; i < NCOUNTERS; i++)
		printf(
		    "# HELP goshim_%s_total %s\n# TYPE goshim_%s_total counter\ngoshim_%s_total{%s} %llu\n",
		    counters[i].name, counters[i].help, counters[i].name, counters[i].name, labels,
		    (unsigned long long)metricmoves(m, counters[i].from, counters[i].to));
	for (int i = 0; i < m->nmetrics; i++) {
		const Metric *x = &m->metric[i];
		uint64_t counts[POWERS], sum = 0;
		if (x->kind != MetricHistogram)
			continue;
		const char *name = promname(x->name);
		bypowers(m, x, 1000, counts);
		printf("# TYPE goshim_%s_seconds histogram\n", name);
		for (int k = 0; k < 36; k++) {
			sum += counts[k];
			printf("goshim_%s_seconds_bucket{%s,le=\"%.6f\"} %llu\n", name, labels,
			       (double)(1ull << (k + 1)) / 1e6, (unsigned long long)sum);
		}
		printf(
		    "goshim_%s_seconds_bucket{%s,le=\"+Inf\"} %llu\ngoshim_%s_seconds_sum{%s} %.9f\n"
		    "goshim_%s_seconds_count{%s} %llu\n",
		    name, labels, (unsigned long long)x->total, name, labels,
		    (double)x->value / 1e9, name, labels, (unsigned long long)x->total);
	}
	requestsprometheus(m, labels);
}

/* The percentile distribution of HdrHistogram, in ms: five lines to each halving of what is left. */
static void hgrm(const Metrics *m, const Metric *h)
{
	enum { STEPS = 5 };
	double avg = mean(h), spread = 0;
	printf("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
	uint64_t seen = 0;
	double next = 0;
	int level = 0, step = 0;
	for (uint32_t i = 0; i < h->nwords; i++) {
		if (!h->words[i])
			continue;
		double v = (metriclow(m, h, i) + metriclow(m, h, i + 1)) / 2;
		spread += (double)h->words[i] * (v - avg) * (v - avg);
		seen += h->words[i];
		double part = (double)seen / (double)h->total;
		while (seen < h->total && part >= next && next < 1) {
			printf("%12.6f %2.12f %10llu %14.2f\n", v / 1e6, next,
			       (unsigned long long)seen, 1 / (1 - next));
			if (++step > STEPS) {
				step = 1;
				level++;
			}
			next = 1 - ldexp(1, -level) + ldexp(1, -level - 1) * step / STEPS;
		}
		if (seen == h->total)
			printf("%12.6f %2.12f %10llu\n", v / 1e6, 1.0, (unsigned long long)seen);
	}
	printf(
	    "#[Mean    = %12.6f, StdDeviation   = %12.6f]\n#[Max     = %12.6f, Total count    = %12llu]\n"
	    "#[Buckets = %12u, SubBuckets     = %12u]\n",
	    avg / 1e6, h->total ? sqrt(spread / (double)h->total) / 1e6 : 0, metricmax(m, h) / 1e6,
	    (unsigned long long)h->total, h->nwords >> h->subbits, 1u << h->subbits);
}

/* --- the command ----------------------------------------------------------------------------- */

static const char *named[64]; /* histograms to show */
static int nnamed;
static bool asjson, asprometheus, ashgrm;
static const char *output; /* of the figures of a command */

static const Metric *histogram(const Metrics *m, const char *name)
{
	const Metric *x = metricnamed(m, name);
	char all[1024] = "";
	size_t n = 0;
	if (x && (x->kind == MetricHistogram || x->kind == MetricRequestTimes))
		return x;
	for (int i = 0; i < m->nmetrics && n < sizeof all; i++)
		if (m->metric[i].kind == MetricHistogram)
			n += (size_t)snprintf(all + n, sizeof all - n, "%s%s", n ? ", " : "",
					      m->metric[i].name);
	fail("stat: no histogram '%s'; there are %s", name, all);
}

static void show(const MetricsSource *s, const Metrics *m, double elapsed, bool interval)
{
	if (asjson)
		json(s, m, elapsed);
	else if (asprometheus)
		prometheus(m);
	else if (ashgrm)
		hgrm(m, histogram(m, named[0]));
	else {
		for (int i = 0; i < nnamed; i++)
			histogram(m, named[i]); /* or one line, before anything else */
		table(m, elapsed, interval);
		for (int i = 0; i < nnamed; i++)
			bars(m, histogram(m, named[i]));
	}
	if (fflush(stdout))
		fail("stdout: %s", strerror(errno));
}

static void report(MetricsSource *s, double interval, long count)
{
	char why[WhySize];
	Metrics now, before = {0};
	for (long i = 0; count == 0 || i < count; i++) {
		if (interval > 0) {
			struct timespec ts = {(time_t)interval, (long)(fmod(interval, 1) * 1e9)};
			if (i == 0 && !metricsread(s, &before, why))
				fail("%s", why);
			while (nanosleep(&ts, &ts) && errno == EINTR)
				;
			if (!metricsalive(s))
				fail("process %d has ended", s->pid);
		}
		if (!metricsread(s, &now, why))
			fail("%s", why);
		double elapsed = seconds(&now);
		asdifference = interval > 0;
		Metrics kept = {0};
		if (interval > 0) {
			elapsed = (double)(now.atns - before.atns) / 1e9;
			kept = metricscopy(&now);
			metricsdiff(&now, &before);
		}
		show(s, &now, elapsed, interval > 0);
		metricsfree(&now);
		metricsfree(&before);
		before = kept;
	}
	metricsfree(&before);
}

static void reportonce(MetricsSource *s)
{
	report(s, 0, 1);
}

int stat_(int argc, char **argv)
{
	enum { Interval = 1, Count, Histogram, Json, Prometheus, Hgrm, Output };
	static const struct option longs[] = {{"interval", 1, 0, Interval},
					      {"count", 1, 0, Count},
					      {"histogram", 1, 0, Histogram},
					      {"json", 0, 0, Json},
					      {"prometheus", 0, 0, Prometheus},
					      {"hgrm", 1, 0, Hgrm},
					      {"output", 1, 0, Output},
					      {0}};
	double interval = 0;
	long count = -1;
	int ch;
	opterr = 0;
	while ((ch = getopt_long(argc, argv, "+", longs, NULL)) != -1) {
		switch (ch) {
		case Interval: interval = number("stat: --interval", optarg, 0.01, 86400); break;
		case Count: count = wholenumber("stat: --count", optarg, 1, LONG_MAX); break;
		case Hgrm: ashgrm = true; /* fall through */
		case Histogram:
			if (nnamed == (int)(sizeof named / sizeof named[0]))
				fail("stat: too many histograms");
			named[nnamed++] = optarg;
			break;
		case Output: output = optarg; break;
		case Json: asjson = true; break;
		case Prometheus: asprometheus = true; break;
		default:
			fail("stat: %s: unknown, or its value is missing; see goshim stat --help",
			     argv[optind - 1]);
		}
	}
	if (asjson + asprometheus + ashgrm > 1 || (ashgrm && nnamed > 1))
		fail("stat: one of --json, --prometheus and --hgrm at a time");
	if (count > 0 && interval == 0)
		fail("stat: --count needs --interval");
	if (optind < argc && !strcmp(argv[optind - 1], "--")) {
		if (interval > 0)
			fail("stat: --interval is for a process id");
		return counted("stat", (const char *[]){NULL}, argv + optind, output, reportonce);
	}
	if (output)
		fail("stat: --output is for a command; redirect the output");
	if (optind + 1 != argc)
		fail("stat: want one process id, or -- and a command; see goshim stat --help");
	char why[WhySize];
	MetricsSource s;
	if (!metricsopen(&s, (int)wholenumber("stat: process", argv[optind], 1, INT_MAX), why))
		fail("%s", why);
	report(&s, interval, interval > 0 ? (count > 0 ? count : 0) : 1);
	metricsclose(&s);
	return 0;
}
