/*
 * What the threads of a server have spent beside running: from the metrics that the library keeps in each process.
 */
#define _GNU_SOURCE
#include "goshim_spent.h"

#include "locks_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int addlock(LockSum *list, int n, int most, const LockSum *l)
{
	LockSum sum = *l;
	int at = 0;
	while (at < n && (strcmp(list[at].name, l->name) || strcmp(list[at].kind, l->kind)))
		at++;
	if (at < n) {
		sum.waits += list[at].waits;
		sum.waited += list[at].waited;
		sum.max = list[at].max > l->max ? list[at].max : l->max;
	} else if (n < most) {
		n++;
	} else if (--at < 0 || list[at].waited >= sum.waited) {
		return n;
	}
	for (; at > 0 && list[at - 1].waited < sum.waited; at--)
		list[at] = list[at - 1];
	list[at] = sum;
	return n;
}

static double spentin(const Metrics *m, const char *name)
{
	const Metric *x = metricnamed(m, name);
	return x ? (double)x->value : 0;
}

static void addlocks(const MetricsSource *source, const Metrics *m, Spent *s)
{
	LockFigures *l = NULL;
	int n = lockfigures(source, m, &l);
	for (int i = 0; i < n; i++) {
		LockSum sum = {.kind = lockkind(l[i].kind),
			       .waits = (double)l[i].contended,
			       .waited = l[i].waited,
			       .max = l[i].maxwait};
		if (lockisidle(&l[i]) || !l[i].contended)
			continue;
		snprintf(sum.name, sizeof sum.name, "%s%.90s", l[i].isstatic ? "" : "in ",
			 l[i].name.name);
		s->nlocks = addlock(s->lock, s->nlocks, SPENTLOCKS, &sum);
	}
	free(l);
}

void spentby(int pid, Spent *s)
{
	static const char *const locks[] = {"wait.mutex", "wait.rwlock.read", "wait.rwlock.write",
					    "wait.once", "wait.futex"};
	MetricsSource source;
	Metrics m;
	char why[WhySize];
	if (!metricsopen(&source, pid, why))
		return;
	if (metricsread(&source, &m, why)) {
		s->there = true;
		s->queued += spentin(&m, "runqueue");
		for (unsigned i = 0; i < sizeof locks / sizeof locks[0]; i++)
			s->locks += spentin(&m, locks[i]);
		addlocks(&source, &m, s);
	}
	metricsfree(&m);
	metricsclose(&source);
}
