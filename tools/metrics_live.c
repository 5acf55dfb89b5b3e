/*
 * metrics_live.c - kernel mode: what only the kernel knows of threads. A thread that ends writes it to the region itself; of those
 * that live it is asked here, in /proc/PID/task.
 */
#define _GNU_SOURCE
#include "metrics_read.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool metricskernel(const Metrics *m)
{
	const Metric *x = metricnamed(m, "kernelmode");
	return x && x->kind == MetricGauge && x->value == 1;
}

static Metric *find(Metrics *m, const char *name, MetricKind kind)
{
	for (int i = 0; i < m->nmetrics; i++)
		if (!strcmp(m->metric[i].name, name) && m->metric[i].kind == kind)
			return &m->metric[i];
	return NULL;
}

/* --- reading ------------------------------------------------------------------------------ */

static bool readone(int pid, const char *tid, LiveThread *t)
{
	char path[300];
	unsigned long long n[3];
	snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pid, tid);
	FILE *f = fopen(path, "re");
	bool ok = f && fscanf(f, "%llu %llu %llu", &n[0], &n[1], &n[2]) == 3;
	if (f)
		fclose(f);
	snprintf(path, sizeof path, "/proc/%d/task/%s/comm", pid, tid);
	f = ok ? fopen(path, "re") : NULL;
	memset(t->name, 0, sizeof t->name);
	if (f && fgets(t->name, sizeof t->name, f))
		t->name[strcspn(t->name, "\n")] = 0;
	if (f)
		fclose(f);
	for (int i = 0; ok && i < 3; i++)
		t->n[i] = n[i];
	return ok;
}

int livethreads(int pid, LiveThread **list)
{
	char path[64];
	int n = 0, room = 0;
	*list = NULL;
	snprintf(path, sizeof path, "/proc/%d/task", pid);
	DIR *d = opendir(path);
	for (struct dirent *e; d && (e = readdir(d));) {
		if (e->d_name[0] == '.')
			continue;
		if (n == room) {
			LiveThread *more =
			    realloc(*list, sizeof **list * (size_t)(room = room * 2 + 64));
			if (!more)
				break;
			*list = more;
		}
		n += readone(pid, e->d_name, &(*list)[n]);
	}
	if (d)
		closedir(d);
	return n;
}

/* --- adding ------------------------------------------------------------------------------- */

/* The place of a name among those of threads; a new one for who has not ended yet. */
static uint32_t slotof(Metrics *m, Metric *names, const char *name, uint32_t nslots)
{
	char have[METRICSNAME];
	if (!strcmp(m->header.name, name))
		return 0;
	for (uint32_t i = 1; i < nslots; i++) {
		metricsname(m, i, have);
		if (!*have && names && (size_t)i * 2 + 2 <= names->nwords)
			memcpy(names->words + (size_t)i * 2, name, METRICSNAME - 1);
		if (!*have || !strcmp(have, name))
			return i;
	}
	return nslots - 1;
}

static void byname(Metrics *m, const LiveThread *list, int n)
{
	Metric *x = find(m, "running.byname", MetricByName);
	Metric *names = find(m, "names", MetricNames);
	for (int i = 0; x && i < n; i++) {
		x->words[slotof(m, names, list[i].name, x->nwords)] += list[i].n[0];
		x->total += list[i].n[0];
	}
}

/* A histogram without values: the sum and the count are all that there is. */
static void fold(Metrics *m, const char *to, const char *sum)
{
	Metric *h = find(m, to, MetricHistogram), *s = find(m, sum, MetricCounter);
	const Metric *slices = metricnamed(m, "kernel.slices");
	if (!h || !s || !slices)
		return;
	h->value = s->value;
	h->total = slices->value;
	h->bare = true;
}

static void drop(Metrics *m, const char *name)
{
	Metric *x = find(m, name, MetricCounter);
	if (!x)
		return;
	free(x->words);
	memmove(x, x + 1, (size_t)(m->metric + --m->nmetrics - x) * sizeof *x);
}

void metricsaddlive(Metrics *m, const LiveThread *list, int n)
{
	static const char *const counters[] = {"kernel.running", "kernel.runqueue",
					       "kernel.slices"};
	for (int k = 0; k < 3; k++) {
		Metric *x = find(m, counters[k], MetricCounter);
		for (int i = 0; x && i < n; i++)
			x->value += list[i].n[k];
	}
	byname(m, list, n);
	fold(m, "running", counters[0]);
	fold(m, "runqueue", counters[1]);
	for (int k = 0; k < 3; k++)
		drop(m, counters[k]);
}

/* --- a process without ----------------------------------------------------------------------- */

static int parentof(int pid)
{
	char path[64], line[200];
	int parent = 0;
	snprintf(path, sizeof path, "/proc/%d/status", pid);
	FILE *f = fopen(path, "re");
	while (f && parent == 0 && fgets(line, sizeof line, f))
		sscanf(line, "PPid: %d", &parent);
	if (f)
		fclose(f);
	return parent;
}

/* A server that forks its workers makes no thread itself. */
bool metricsmissing(int pid, char *why)
{
	char list[80] = "";
	size_t n = 0;
	DIR *d = opendir(METRICS_DIR);
	for (struct dirent *e; d && (e = readdir(d));) {
		int child, at = 0;
		if (sscanf(e->d_name, METRICS_PREFIX "%*u.%d.%n", &child, &at) != 1 || !at ||
		    parentof(child) != pid)
			continue;
		if (n > 50) {
			snprintf(list + n, sizeof list - n, ", ...");
			break;
		}
		n += (size_t)snprintf(list + n, sizeof list - n, "%s%d", n ? ", " : "", child);
	}
	if (d)
		closedir(d);
	if (n)
		snprintf(why, WhySize, "process %d has no goroutines, but its children have: %s",
			 pid, list);
	else
		snprintf(
		    why, WhySize,
		    "process %d has no goroutines: it has made no thread yet, or goshim stepped aside and said why",
		    pid);
	return false;
}
