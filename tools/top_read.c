/*
 * top_read.c - the readings of goshim top, and what lies between two of them.
 *
 * All figures are the region's but for which goroutine does what now: that is in the process's memory. To read it takes a while
 * where there are many, and no more than a tenth of this command's time shall go there.
 */
#define _GNU_SOURCE
#include "top.h"

#include "goshim_stat.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double monotonicns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

/* --- reading ----------------------------------------------------------------------------------- */

static void freereading(Reading *r)
{
	metricsfree(&r->m);
	free(r->locks);
	memset(r, 0, sizeof *r);
}

/* Ns of CLOCK_MONOTONIC. */
static double momentof(const Metrics *m, uint64_t ticks)
{
	const TickPoints *p = &m->header.ticks;
	return (double)p->startns + (double)(int64_t)(ticks - p->startticks) * m->nspertick;
}

/* Those that are there now; false: not this time. */
static bool readgoroutines(Top *t)
{
	Goroutine *list;
	double begin = monotonicns();
	if (!t->memory || begin < t->goroutinesnext)
		return false;
	int n = goroutinesread(t->memory, &list);
	double end = monotonicns();
	t->goroutinesnext = end + 9 * (end - begin);
	if (n < 0) {
		t->gone = true;
		return false;
	}
	free(t->goroutine);
	t->goroutine = list;
	t->ngoroutines = n;
	t->goroutinesat = begin;
	return true;
}

/* A thread of the kernel's, as /proc shows it. */
static bool readthread(int pid, const char *tid, char name[TopNames][METRICSNAME], uint32_t slots,
		       Goroutine *g)
{
	char path[300], line[256] = "", comm[METRICSNAME] = "";
	snprintf(path, sizeof path, "/proc/%d/task/%s/stat", pid, tid);
	FILE *f = fopen(path, "re");
	if (f && !fgets(line, sizeof line, f))
		line[0] = 0;
	if (f)
		fclose(f);
	/* The name is in brackets, and may have brackets in it. */
	char *begin = strchr(line, '('), *end = strrchr(line, ')');
	if (!begin || !end || end[1] != ' ')
		return false;
	*end = 0;
	metricstext(comm, begin + 1, sizeof comm - 1);
	memset(g, 0, sizeof *g);
	g->goid = atoi(tid);
	g->wait = -1;
	g->state = end[2] == 'R'   ? GoroutineRunning
		   : end[2] == 'D' ? GoroutineSyscall
				   : GoroutineWaiting;
	while (g->slot + 1u < slots && strcmp(name[g->slot], comm))
		g->slot++; /* the last one is of all others */
	return true;
}

/* In kernel mode: its threads, by names of the reading r. */
static bool readthreads(Top *t, const Reading *r)
{
	char path[64], name[TopNames][METRICSNAME];
	size_t n = 0, room = 64;
	Goroutine *list = malloc(room * sizeof *list);
	snprintf(path, sizeof path, "/proc/%d/task", t->source.pid);
	DIR *d = opendir(path);
	const Metric *x = metricnamed(&r->m, "running.byname");
	uint32_t slots = !x ? 1 : x->nwords < TopNames ? x->nwords : TopNames;
	for (uint32_t i = 0; i < slots; i++)
		metricsname(&r->m, i, name[i]);
	t->goroutinesat = monotonicns();
	for (struct dirent *e; d && list && (e = readdir(d));) {
		Goroutine *more = n == room ? realloc(list, (room *= 2) * sizeof *list) : list;
		if (!more)
			break;
		list = more;
		n += e->d_name[0] != '.' &&
		     readthread(t->source.pid, e->d_name, name, slots, &list[n]);
	}
	if (d)
		closedir(d);
	if (!n) {
		free(list);
		return false;
	}
	free(t->goroutine);
	t->goroutine = list;
	t->ngoroutines = (int)n;
	return true;
}

/* What has run until now is counted when it stops to run. */
static void addongoing(const Top *t, Reading *r)
{
	for (int i = 0; i < t->ngoroutines; i++) {
		const Goroutine *g = &t->goroutine[i];
		double since = t->goroutinesat - momentof(&r->m, g->since);
		if (g->state == GoroutineRunning && since > 0)
			r->running[g->slot] += since;
	}
	r->ongoing = true;
}

bool topread(Top *t, char *why)
{
	Reading r = {0};
	bool alive = metricsalive(&t->source);
	bool fresh = alive && readgoroutines(t);
	if (!metricsread(&t->source, &r.m, why)) {
		freereading(&r);
		return false;
	}
	t->ended = !alive || t->gone || r.m.header.state == MetricsEnded;
	r.nlocks = lockfigures(&t->source, &r.m, &r.locks);
	const Metric *x = metricnamed(&r.m, "running.byname");
	for (uint32_t i = 0; x && x->kind == MetricByName && i < x->nwords && i < TopNames; i++)
		r.running[i] = (double)x->words[i];
	if (fresh)
		addongoing(t, &r);
	if (alive && metricskernel(&r.m))
		readthreads(t, &r);
	freereading(&t->before);
	t->before = t->now;
	t->now = r;
	return true;
}

/* --- looking ----------------------------------------------------------------------------------- */

bool topwhole(const Top *t)
{
	return t->whole || t->ended || !t->before.m.metric;
}

static double atleast0(double v)
{
	return v > 0 ? v : 0;
}

/* Ns, also of what has not ended yet if that is asked for. */
static double ranby(const Reading *r, uint32_t slot, bool ongoing)
{
	const Metric *x = metricnamed(&r->m, "running.byname");
	if (ongoing || !x || x->kind != MetricByName)
		return r->running[slot];
	return slot < x->nwords ? (double)x->words[slot] : 0;
}

/* Where a name was in the reading before: in kernel mode those of live threads have no place of their own. -1: nowhere. */
static int slotthen(const Top *t, uint32_t slot, const char *name)
{
	char old[METRICSNAME];
	if (!metricskernel(&t->now.m))
		return (int)slot;
	for (int i = 0; i < TopNames; i++) {
		metricsname(&t->before.m, (uint32_t)i, old);
		if (!strcmp(old, name))
			return i;
	}
	return -1;
}

static void looknames(Top *t)
{
	bool whole = topwhole(t), known = t->ngoroutines >= 0;
	static int waits[TopNames][GoroutineWaits];
	TopName *all = calloc(TopNames, sizeof *all);
	bool ongoing = t->now.ongoing && (whole || t->before.ongoing);
	memset(waits, 0, sizeof waits);
	t->nnames = 0;
	free(t->name);
	t->name = all;
	if (!all)
		return;
	for (int i = 0; i < t->ngoroutines; i++) {
		const Goroutine *g = &t->goroutine[i];
		all[g->slot].count[g->state]++;
		all[g->slot].all++;
		if (g->wait >= 0)
			waits[g->slot][g->wait]++;
	}
	for (uint32_t i = 0; i < TopNames; i++) {
		TopName n = all[i];
		metricsname(&t->now.m, i, n.name);
		double now = ranby(&t->now, i, ongoing);
		int old = whole ? -1 : slotthen(t, i, n.name);
		double before = old < 0 ? 0 : ranby(&t->before, (uint32_t)old, ongoing);
		n.ran = atleast0(now - before);
		if (!n.all && now <= 0)
			continue;
		n.all = known ? n.all : -1;
		for (int w = 0; w < GoroutineWaits; w++)
			if (waits[i][w] > n.waiting) {
				n.wait = w;
				n.waiting = waits[i][w];
			}
		all[t->nnames++] = n;
	}
}

static int byrecord(const void *a, const void *b)
{
	const LockFigures *x = a, *y = b;
	return (x->record > y->record) - (x->record < y->record);
}

static int byaddress(const void *a, const void *b)
{
	const LockFigures *x = *(const LockFigures *const *)a, *y = *(const LockFigures *const *)b;
	return (x->address > y->address) - (x->address < y->address);
}

static void looklocks(Top *t)
{
	static const LockFigures nothing;
	LockFigures *old = topwhole(t) ? NULL : t->before.locks;
	int nold = old ? t->before.nlocks : 0;
	free(t->lock);
	free(t->byaddress);
	t->nlocks = 0;
	t->lock = calloc((size_t)t->now.nlocks + 1, sizeof *t->lock);
	t->byaddress = calloc((size_t)t->now.nlocks + 1, sizeof(LockFigures *));
	if (nold)
		qsort(old, (size_t)nold, sizeof *old, byrecord);
	for (int i = 0; t->lock && t->byaddress && i < t->now.nlocks; i++) {
		const LockFigures *l = &t->now.locks[i];
		const LockFigures *o =
		    nold ? bsearch(l, old, (size_t)nold, sizeof *old, byrecord) : NULL;
		o = o ? o : &nothing;
		t->byaddress[t->nlocks] = l;
		t->lock[t->nlocks++] = (TopLock){
		    .now = l,
		    .contended = atleast0((double)l->contended - (double)o->contended),
		    .ended = atleast0((double)(l->contended - l->waiting) -
				      (double)(o->contended - o->waiting)),
		    .waited = atleast0(l->waited - o->waited),
		    .locked =
			atleast0((double)(l->locked + l->shared) - (double)(o->locked + o->shared)),
		    .held = atleast0(l->held + l->sharedheld - o->held - o->sharedheld),
		};
	}
	if (t->nlocks)
		qsort(t->byaddress, (size_t)t->nlocks, sizeof(LockFigures *), byaddress);
}

void toplook(Top *t)
{
	metricsfree(&t->part);
	t->part = metricscopy(&t->now.m);
	t->seconds = seconds(&t->now.m);
	if (!topwhole(t)) {
		metricsdiff(&t->part, &t->before.m);
		t->seconds = (double)(t->now.m.atns - t->before.m.atns) / 1e9;
	}
	looknames(t);
	looklocks(t);
}

void topfree(Top *t)
{
	freereading(&t->now);
	freereading(&t->before);
	metricsfree(&t->part);
	free(t->goroutine);
	free(t->name);
	free(t->lock);
	free(t->byaddress);
	goroutinesclose(t->memory);
	metricsclose(&t->source);
	symbolsfree();
}
