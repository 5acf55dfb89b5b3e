/*
 * goshim locks: which locks a process waits for, as mutrace's table has them: those first for which most time was lost,
 * and below how the first to wait came there.
 *
 * What threads with nothing to do wait for is apart: a condition or a semaphore is no harm by itself.
 */
#define _GNU_SOURCE
#include "goshim.h"
#include "locks_read.h"

#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool asjson;
static long top = 20, stacks = 5;

static const char *count(bool known, uint64_t n)
{
	static char bufs[8][24];
	static int next;
	char *buf = bufs[next++ % 8];
	snprintf(buf, sizeof bufs[0], known ? "%" PRIu64 : "-", n);
	return buf;
}

static void row(const LockFigures *l)
{
	char name[LockFullName];
	uint64_t ended = l->contended - l->waiting;
	lockname(l, name, sizeof name);
	printf("%-36s %-6s %9" PRIu64 " %5s %9s %9s %9s", name, lockkind(l->kind), l->contended,
	       count(l->waiting > 0, l->waiting), duration(l->waited),
	       duration(ended ? l->waited / (double)ended : 0), duration(l->maxwait));
	if (l->counted)
		printf(" %10" PRIu64 " %9s %9s %9s", l->locked + l->shared,
		       count(l->address, l->changed), duration(l->held + l->sharedheld),
		       duration(l->maxheld));
	putchar('\n');
}

/* Those that are idle or not; returns how many there are. */
static long rows(const LockFigures *l, int n, bool idle, const char *what, bool counted)
{
	long lines = 0;
	for (int i = 0; i < n; i++) {
		if (lockisidle(&l[i]) != idle)
			continue;
		if (lines++ >= top)
			continue;
		if (lines == 1) {
			printf("\n%-36s %-6s %9s %5s %9s %9s %9s", what, "kind", "contended", "now",
			       "waited", "mean", "max");
			if (counted && !idle)
				printf(" %10s %9s %9s %9s", "locked", "changed", "held", "max");
			putchar('\n');
		}
		row(&l[i]);
	}
	if (lines > top)
		printf("... and %ld more (--top N)\n", lines - top);
	return lines;
}

static void table(const MetricsSource *s, const Metrics *m, LockFigures *l, int n)
{
	const MetricsHeader *h = &m->header;
	bool counted = false;
	long shown = 0;
	for (int i = 0; i < n; i++)
		counted |= l[i].counted;
	double ns = (double)m->atns - (double)h->ticks.startns;
	printf("%s, process %d, %s%s\n", h->name, h->pid,
	       h->state == MetricsEnded ? "ended after " : "for ",
	       duration(ns > 0 && ns < 1e19 ? ns : 0));
	if (!m->locks)
		printf("its version of goshim has not counted locks\n");
	else if (!rows(l, n, false, "locks", counted))
		printf("no lock was waited for%s\n", counted ? ", or even locked" : "");
	rows(l, n, true, "conditions and semaphores", counted);
	if (m->locks && n && !counted)
		printf(
		    "\nHow often they were locked, and for how long: not counted, start it with --locks\n");
	const Metric *lost = metricnamed(m, "locks.lost");
	if (lost && lost->value)
		printf("\n%" PRIu64 " waits are not shown: there was no memory for their records\n",
		       lost->value);
	for (int i = 0; i < n && shown < stacks; i++) {
		char name[LockFullName];
		if (lockisidle(&l[i]) || !l[i].nframes)
			continue;
		shown++;
		lockstack(s, m, &l[i]);
		lockname(&l[i], name, sizeof name);
		printf("\n%s: who waited first was at\n", name);
		for (int k = 0; k < l[i].nframes; k++)
			printf("    %-40s %s\n", l[i].frames[k].name, l[i].frames[k].file);
	}
}

static void json(const MetricsSource *s, const Metrics *m, LockFigures *l, int n)
{
	const MetricsHeader *h = &m->header;
	const Metric *lost = metricnamed(m, "locks.lost");
	printf("{\"pid\":%d,\"name\":\"%s\",\"ended\":%s,\"lost\":%" PRIu64 ",\"locks\":[", h->pid,
	       h->name, h->state == MetricsEnded ? "true" : "false", lost ? lost->value : 0);
	for (int i = 0; i < n; i++) {
		printf("%s\n", i ? "," : "");
		lockjson(s, m, &l[i]);
	}
	printf("]}\n");
}

static void report(MetricsSource *s)
{
	char why[WhySize];
	Metrics m;
	LockFigures *l;
	if (!metricsread(s, &m, why))
		fail("%s", why);
	int n = lockfigures(s, &m, &l);
	if (asjson)
		json(s, &m, l, n);
	else
		table(s, &m, l, n);
	free(l);
	metricsfree(&m);
	symbolsfree();
}

int locks(int argc, char **argv)
{
	enum { Json = 1, Top, Stacks, Output };
	static const struct option longs[] = {{"json", 0, 0, Json},
					      {"top", 1, 0, Top},
					      {"stacks", 1, 0, Stacks},
					      {"output", 1, 0, Output},
					      {0}};
	const char *output = NULL;
	char why[WhySize];
	MetricsSource s;
	int ch;
	opterr = 0;
	while ((ch = getopt_long(argc, argv, "+", longs, NULL)) != -1) {
		switch (ch) {
		case Json: asjson = true; break;
		case Top: top = wholenumber("locks: --top", optarg, 1, LONG_MAX); break;
		case Stacks: stacks = wholenumber("locks: --stacks", optarg, 0, LONG_MAX); break;
		case Output: output = optarg; break;
		default:
			fail("locks: %s: unknown, or its value is missing; see goshim locks --help",
			     argv[optind - 1]);
		}
	}
	if (optind < argc && !strcmp(argv[optind - 1], "--"))
		return counted("locks", (const char *[]){"--locks", NULL}, argv + optind, output,
			       report);
	if (output)
		fail("locks: --output is for a command; redirect the output");
	if (optind + 1 != argc)
		fail("locks: want one process id, or -- and a command; see goshim locks --help");
	if (!metricsopen(&s, (int)wholenumber("locks: process", argv[optind], 1, INT_MAX), why))
		fail("%s", why);
	report(&s);
	metricsclose(&s);
	return 0;
}
