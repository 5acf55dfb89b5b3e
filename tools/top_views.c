/*
 * top_views.c - the tables of goshim top: what is in their cells, and what those are sorted by.
 *
 * A row is made when it is drawn: of 100,000 goroutines a screen shows fifty.
 */
#define _GNU_SOURCE
#include "top.h"

#include "goshim.h"
#include "goshim_requests.h"
#include "goshim_stat.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- cells ------------------------------------------------------------------------------------- */

static Key text(char *buf, const char *s)
{
	snprintf(buf, TopCell, "%s", s);
	return (Key){.text = buf};
}

static Key count(char *buf, double n)
{
	snprintf(buf, TopCell, n < 0 ? "-" : "%.0f", n);
	return (Key){.number = n};
}

static Key rate(char *buf, double n)
{
	if (n >= 1e6)
		snprintf(buf, TopCell, "%.2fM", n / 1e6);
	else
		snprintf(buf, TopCell, "%.*f", n > 0 && n < 99.95 ? 1 : 0, n);
	return (Key){.number = n};
}

static Key percent(char *buf, double part, double whole)
{
	double p = whole > 0 ? 100 * part / whole : 0;
	snprintf(buf, TopCell, "%.1f", p);
	return (Key){.number = p};
}

static Key timed(char *buf, double ns, bool known)
{
	snprintf(buf, TopCell, "%s", known ? duration(ns) : "-");
	return (Key){.number = known ? ns : -1};
}

static double asecond(const Top *t, double n)
{
	return t->seconds > 0 ? n / t->seconds : 0;
}

/* --- goroutines by name ------------------------------------------------------------------------ */

static int namerows(const Top *t)
{
	return t->nnames;
}

static Key namecell(const Top *t, int row, int column, char buf[TopCell])
{
	const TopName *n = &t->name[row];
	switch (column) {
	case 0: return text(buf, n->name);
	case 1: return percent(buf, n->ran, t->seconds * 1e9);
	case 2: return count(buf, n->all);
	case 7:
		if (!n->waiting)
			return text(buf, "");
		snprintf(buf, TopCell, "%d %s", n->waiting, goroutinewait(n->wait));
		return (Key){.text = goroutinewait(n->wait)};
	}
	static const GoroutineState states[] = {GoroutineRunning, GoroutineRunnable,
						GoroutineSyscall, GoroutineWaiting};
	return count(buf, n->all < 0 ? -1 : n->count[states[column - 3]]);
}

static const char *namenote(const Top *t, char buf[TopCell])
{
	if (t->ngoroutines >= 0 && !metricskernel(&t->now.m))
		return NULL;
	if (t->ngoroutines >= 0)
		return "Kernel mode: RUN has those in a run queue, too, and RAN is on a CPU";
	snprintf(buf, TopCell, "How many there are of each: %s",
		 t->why[0] ? t->why : "not known of one that has ended");
	return buf;
}

/* --- each goroutine ---------------------------------------------------------------------------- */

static int goroutinerows(const Top *t)
{
	return t->ngoroutines < 0 ? 0 : t->ngoroutines;
}

/* A lock of that kind in which the address lies. */
static const LockFigures *lockat(const Top *t, uint64_t address, const char *wait)
{
	enum { LONGEST = 56 }; /* bytes, of the objects */
	int lo = 0, hi = t->nlocks;
	while (lo < hi) { /* the first that begins beyond it */
		int mid = lo + (hi - lo) / 2;
		if (t->byaddress[mid]->address <= address)
			lo = mid + 1;
		else
			hi = mid;
	}
	const LockFigures *l = lo > 0 ? t->byaddress[lo - 1] : NULL;
	return l && l->address && address - l->address < LONGEST &&
		       !strncmp(wait, lockkind(l->kind), strlen(lockkind(l->kind)))
		   ? l
		   : NULL;
}

static void waitsfor(const Top *t, const Goroutine *g, char buf[TopCell])
{
	const char *wait = goroutinewait(g->wait);
	const LockFigures *l = g->object && !g->descriptor ? lockat(t, g->object, wait) : NULL;
	size_t n = (size_t)snprintf(buf, TopCell, "%s", wait);
	if (l) {
		char name[LockFullName];
		lockname(l, name, sizeof name);
		snprintf(buf, TopCell, "%.*s%s%.*s", l->isstatic ? 14 : 0, wait,
			 l->isstatic ? " " : "", (int)TopCell - 20, name);
	} else if (g->descriptor && g->object <= INT32_MAX)
		snprintf(buf + n, TopCell - n, " fd %" PRIu64, g->object);
	else if (g->object)
		snprintf(buf + n, TopCell - n, " 0x%" PRIx64, g->object);
}

static Key goroutinecell(const Top *t, int row, int column, char buf[TopCell])
{
	static const char *const states[] = {"runnable", "running", "syscall", "waiting"};
	const Goroutine *g = &t->goroutine[row];
	const TickPoints *p = &t->now.m.header.ticks;
	char name[METRICSNAME + 1];
	switch (column) {
	case 0:
		metricsname(&t->now.m, g->slot, name);
		/* There may be more names than the metrics have room for. */
		if (!strcmp(name, "(others)") && t->memory && !t->ended)
			goroutinename(t->memory, g, name);
		return text(buf, name);
	case 1: return count(buf, (double)g->goid);
	case 2: return text(buf, states[g->state]);
	case 3: {
		double ns = !g->since ? -1
				      : t->goroutinesat - (double)p->startns -
					    (double)(int64_t)(g->since - p->startticks) *
						t->now.m.nspertick;
		return timed(buf, ns, ns >= 0);
	}
	}
	waitsfor(t, g, buf);
	return (Key){.text = buf};
}

static const char *goroutinenote(const Top *t, char buf[TopCell])
{
	double age = monotonicns() - t->goroutinesat;
	bool kernel = metricskernel(&t->now.m);
	if (t->ngoroutines < 0)
		snprintf(buf, TopCell, "Which there are: %s",
			 t->why[0] ? t->why : "not known of one that has ended");
	else if (t->ended)
		snprintf(buf, TopCell, "These were there when it was looked at last");
	else if (kernel)
		snprintf(buf, TopCell, "Kernel mode: these are its threads");
	else if (t->goroutinesnext - t->goroutinesat > 1e9 && age > 1e9)
		snprintf(buf, TopCell, "As they were %s ago: to read them takes %s", duration(age),
			 duration((t->goroutinesnext - t->goroutinesat) / 10));
	else
		return NULL;
	return buf;
}

/* --- locks ------------------------------------------------------------------------------------- */

static int lockrows(const Top *t)
{
	return t->nlocks;
}

static Key lockcell(const Top *t, int row, int column, char buf[TopCell])
{
	const TopLock *l = &t->lock[row];
	switch (column) {
	case 0: lockname(l->now, buf, TopCell); return (Key){.text = buf};
	case 1: return text(buf, lockkind(l->now->kind));
	case 2: return count(buf, (double)l->now->waiting);
	case 3: return count(buf, l->contended);
	case 4:
		timed(buf, l->waited, true);
		/* As goshim locks: who has nothing to do waits for these. */
		return (Key){.number = lockisidle(l->now) ? l->waited - 1e19 : l->waited};
	case 5: return timed(buf, l->ended > 0 ? l->waited / l->ended : 0, l->ended > 0);
	case 6: return timed(buf, l->now->maxwait, l->now->maxwait > 0);
	case 7: return count(buf, l->now->counted ? l->locked : -1);
	}
	return l->now->counted ? percent(buf, l->held, t->seconds * 1e9) : count(buf, -1);
}

static const char *locknote(const Top *t, char buf[TopCell])
{
	bool counted = false;
	for (int i = 0; i < t->nlocks; i++)
		counted |= t->lock[i].now->counted;
	if (counted)
		return NULL;
	snprintf(
	    buf, TopCell, "%s",
	    t->nlocks
		? "How often they were locked, and for how long: not counted, start it with --locks"
		: "No lock was waited for");
	return buf;
}

/* --- sockets ----------------------------------------------------------------------------------- */

static int socketrows(const Top *t)
{
	Listener l;
	int n = 0;
	for (unsigned i = 0; i < MOSTLISTENERS; i++)
		n += listener(&t->now.m, i, &l) && l.counts[ConnsAccepted];
	return n;
}

static Key socketcell(const Top *t, int row, int column, char buf[TopCell])
{
	enum { Others = 1 << PartWait | 1 << PartSleep | 1 << PartIO | 1 << PartSyscall };
	static const int parts[] = {1 << PartQueue, 1 << PartCPU, 1 << PartLock, Others,
				    1 << PartElsewhere};
	Listener now, part;
	uint64_t split[Parts], some = 0;
	unsigned i = 0;
	for (;; i++) {
		if (i == MOSTLISTENERS)
			return text(buf, "");
		if (listener(&t->now.m, i, &now) && now.counts[ConnsAccepted] && row-- == 0)
			break;
	}
	if (!listener(&t->part, i, &part))
		return text(buf, "");
	const Metric *last = part.times[RequestLast];
	switch (column) {
	case 0: return text(buf, now.name);
	case 1: return rate(buf, asecond(t, (double)part.counts[RequestsDone]));
	case 2: return count(buf, (double)part.counts[RequestsDone]);
	case 3: return count(buf, (double)part.counts[ConnsAccepted]);
	case 4: return timed(buf, mean(last), last->total);
	case 5: return timed(buf, metricquantile(&t->part, last, 0.5), last->total);
	case 6: return timed(buf, metricquantile(&t->part, last, 0.99), last->total);
	case 7: return timed(buf, metricmax(&t->part, last), last->total);
	}
	uint64_t all = splitsum(&part, 0, split);
	for (int k = 0; k < Parts; k++)
		some += parts[column - 8] & 1 << k ? split[k] : 0;
	return percent(buf, (double)some, (double)all);
}

static const char *socketnote(const Top *t, char buf[TopCell])
{
	if (socketrows(t))
		return NULL;
	snprintf(buf, TopCell, "No request was timed: that begins with goshim --requests");
	return buf;
}

/* --- the scheduler ----------------------------------------------------------------------------- */

static bool shown(const Metric *x)
{
	return (x->kind == MetricHistogram && x->total) ||
	       (x->kind == MetricCounter && x->value && !iswaits(x));
}

static int schedulerrows(const Top *t)
{
	int n = 0;
	for (int i = 0; i < t->now.m.nmetrics; i++)
		n += shown(&t->now.m.metric[i]);
	return n + NCOUNTERS;
}

/* The index of that one of a kind; -1: row is less by as many as there are. */
static int ofkind(const Top *t, MetricKind kind, int *row)
{
	for (int i = 0; i < t->part.nmetrics; i++) {
		const Metric *x = &t->now.m.metric[i];
		if (x->kind == kind && shown(x) && (*row)-- == 0)
			return i;
	}
	return -1;
}

/* First histograms, then moves, then counters. */
static Key schedulercell(const Top *t, int row, int column, char buf[TopCell])
{
	const Metrics *m = &t->part;
	int i = ofkind(t, MetricHistogram, &row);
	if (i < 0 && row < NCOUNTERS) {
		const Counter *c = &counters[row];
		double n = (double)metricmoves(m, c->from, c->to);
		return column == 0   ? text(buf, c->name)
		       : column == 1 ? rate(buf, asecond(t, n))
		       : column == 2 ? count(buf, n)
				     : timed(buf, 0, false);
	}
	if (i < 0) {
		row -= NCOUNTERS;
		i = ofkind(t, MetricCounter, &row);
	}
	if (i < 0)
		return text(buf, "");
	const Metric *x = &m->metric[i];
	bool some = x->kind == MetricHistogram && x->total, values = some && !x->bare;
	switch (column) {
	case 0: return text(buf, x->kind == MetricHistogram ? title(x->name) : x->name);
	case 1:
		return rate(buf,
			    asecond(t, (double)(x->kind == MetricHistogram ? x->total : x->value)));
	case 2: return count(buf, (double)(x->kind == MetricHistogram ? x->total : x->value));
	case 3: return timed(buf, (double)x->value, some);
	case 4: return timed(buf, mean(x), some);
	case 5: return timed(buf, metricquantile(m, x, 0.5), values);
	case 6: return timed(buf, metricquantile(m, x, 0.9), values);
	case 7: return timed(buf, metricquantile(m, x, 0.99), values);
	}
	return timed(buf, metricmax(m, x), values);
}

static const char *nonote(const Top *t, char buf[TopCell])
{
	(void)t, (void)buf;
	return NULL;
}

/* ----------------------------------------------------------------------------------------------- */

const View views[NVIEWS] = {
    {"names",
     8,
     1,
     false,
     {{"THREADS", 16, true},
      {"RAN %", 7, 0},
      {"ALL", 7, 0},
      {"RUN", 5, 0},
      {"QUEUE", 6, 0},
      {"CALL", 6, 0},
      {"WAIT", 7, 0},
      {"MOST OF THESE FOR", 20, true}},
     namerows,
     namecell,
     namenote},
    {"goroutines",
     5,
     3,
     false,
     {{"THREAD", 16, true},
      {"GOROUTINE", 9, 0},
      {"DOES", 9, true},
      {"FOR", 8, 0},
      {"WAITS FOR", 36, true}},
     goroutinerows,
     goroutinecell,
     goroutinenote},
    {"locks",
     9,
     4,
     false,
     {{"LOCK", 20, true},
      {"KIND", 6, true},
      {"NOW", 5, 0},
      {"WAITS", 8, 0},
      {"WAITED", 8, 0},
      {"MEAN", 8, 0},
      {"LONGEST", 8, 0},
      {"LOCKED", 9, 0},
      {"HELD %", 7, 0}},
     lockrows,
     lockcell,
     locknote},
    {"sockets",
     13,
     1,
     false,
     {{"SOCKET", 16, true},
      {"REQ/S", 8, 0},
      {"REQUESTS", 8, 0},
      {"CONNS", 7, 0},
      {"MEAN", 8, 0},
      {"P50", 8, 0},
      {"P99", 8, 0},
      {"MAX", 8, 0},
      {"QUEUE%", 6, 0},
      {"CPU%", 6, 0},
      {"LOCK%", 6, 0},
      {"OTHER%", 6, 0},
      {"ELSE%", 6, 0}},
     socketrows,
     socketcell,
     socketnote},
    {"scheduler",
     9,
     -1,
     false,
     {{"WHAT", 18, true},
      {"A SECOND", 9, 0},
      {"COUNT", 10, 0},
      {"TOTAL", 8, 0},
      {"MEAN", 8, 0},
      {"P50", 8, 0},
      {"P90", 8, 0},
      {"P99", 8, 0},
      {"MAX", 8, 0}},
     schedulerrows,
     schedulercell,
     nonote},
};

/* How many there are, and what they do. */
static void population(const Metrics *m, char *buf, size_t size)
{
	static const struct {
		int status;
		const char *name;
	} states[] = {{RUNNING, "running"},
		      {RUNNABLE, "runnable"},
		      {SYSCALL, "in system calls"},
		      {WAITING, "waiting"}};
	bool kernel =
	    metricskernel(m); /* then only that they are is known, and what they wait for */
	int64_t all = 0;
	size_t n;
	for (int i = 0; i < 4; i++)
		all += metricstatus(m, states[i].status);
	n = (size_t)snprintf(buf, size, "%s: %" PRId64, kernel ? "threads" : "goroutines", all);
	for (int i = 0; i < 4 && !kernel && n < size; i++)
		n += (size_t)snprintf(buf + n, size - n, "%s %" PRId64 " %s", i ? "," : ":",
				      metricstatus(m, states[i].status), states[i].name);
	for (int i = 0, some = 0; i < m->nmetrics && n < size; i++)
		if (waiting(m, &m->metric[i]))
			n += (size_t)snprintf(buf + n, size - n, "%s%" PRIu64 " %s",
					      some++   ? ", "
					      : kernel ? ", waiting: "
						       : ": ",
					      waiting(m, &m->metric[i]),
					      m->metric[i].name + strlen("wait."));
}

/* What the process is, how its goroutines are, and what they had to wait for processors. */
void topsummary(const Top *t, int line, char *buf, size_t size)
{
	const Metrics *m = &t->now.m;
	const Metric *q = metricnamed(&t->part, "runqueue");
	size_t n;
	switch (line) {
	case 0:
		n = (size_t)snprintf(buf, size, "%s, process %d, %s%s: ", m->header.name,
				     t->source.pid, t->ended ? "ended after " : "for ",
				     duration(seconds(m) * 1e9));
		if (n < size && metricskernel(m))
			snprintf(buf + n, size - n, "mode kernel");
		else if (n < size)
			snprintf(buf + n, size - n,
				 "%" PRIu64 " processors, %" PRIu64 " kernel threads",
				 gauge(m, "gomaxprocs"), gauge(m, "threads"));
		break;
	case 1: population(m, buf, size); break;
	default:
		if (!q || !q->total) {
			snprintf(buf, size, "run queue: nobody was there");
			break;
		}
		n = (size_t)snprintf(buf, size, "run queue: %.0f/s, %s on average",
				     asecond(t, (double)q->total), duration(mean(q)));
		if (n < size && !q->bare)
			snprintf(buf + n, size - n, ", %s for one in a hundred",
				 duration(metricquantile(&t->part, q, 0.99)));
	}
}
