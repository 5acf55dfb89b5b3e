/*
 * trace_json.c - what a process did, as Chrome's and Perfetto's JSON: one track for each processor, one for each
 * goroutine, arrows, counters.
 *
 * The text is made in the order of the events, where each thing ends, and so is complete wherever it is cut off for
 * its size; then it is put in the order of its times. After events were lost nothing is drawn that would
 * have to be guessed: what a goroutine did in that time is left open.
 */
#include "trace_json.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Statuses of a goroutine, as in the moves. */
enum { IDLE, RUNNABLE, RUNNING, SYSCALL, WAITING, DEAD, STATUSES };

/* By WaitReason, and is what is waited for an object in memory, or a descriptor? */
static const struct {
	const char *name;
	enum { Nothing, Object, Descriptor } on;
} reasons[] = {
    {"", Nothing},
    {"mutex", Object},
    {"cond", Object},
    {"rwlock.read", Object},
    {"rwlock.write", Object},
    {"sem", Object},
    {"barrier", Object},
    {"once", Object},
    {"join", Nothing},
    {"futex", Object},
    {"sleep", Nothing},
    {"io.read", Descriptor},
    {"io.write", Descriptor},
    {"io.poll", Nothing},
    {"signal", Nothing},
    {"thread", Nothing},
    {"kernel thread", Nothing},
};

static const char *const counts[] = {"steal", "hand-off", "retake", "preempted",
				     "kernel thread starts"};

typedef struct Go {
	int64_t id; /* 0: a free place in the table */
	uint8_t status, why;
	uint8_t name; /* the last that it has */
	bool known;   /* what it did since then */
	uint64_t since, obj, call;
	unsigned ring; /* where it runs */
	bool seen, shown;
	/* The one that made it runnable, if that ran there then. */
	int64_t waker;
	uint64_t wokenat;
	unsigned wokenon;
} Go;

typedef struct Proc {
	int64_t runs;
	uint64_t since, last, thread; /* last: it still ran then */
	bool shown;
} Proc;

typedef struct Piece {
	int64_t ns;
	size_t at;
	uint32_t size, number;
} Piece;

static struct {
	const Tracing *t;
	const Metrics *names;
	const TraceNamer *namer;
	Go *gos;
	size_t ngos, room;
	Proc *procs;
	char *text;
	size_t size, most; /* of the text */
	Piece *pieces;
	size_t npieces, pieceroom;
	int64_t number[STATUSES];
	int64_t countedns, nextflow;
	bool full;
	TraceSummary *summary;
} j;

enum { PROCESSORS = 1, GOROUTINES };

static void *grow(void *p, size_t n)
{
	p = realloc(p, n);
	if (!p)
		abort();
	return p;
}

#define MOSTNS 1e17 /* three years: others are nonsense */

static int64_t nsof(uint64_t ticks)
{
	double ns = (double)(int64_t)(ticks - j.t->startticks) * j.t->nspertick;
	return ns > 0 ? (int64_t)(ns < MOSTNS ? ns : MOSTNS) : 0;
}

/* --- text ----------------------------------------------------------------------------------- */

static char line[2048];
static int used;

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(line + used, sizeof line - (size_t)used, fmt, ap);
	va_end(ap);
	used += n < (int)sizeof line - used ? n : (int)sizeof line - used - 1;
}

/* The line is complete, and belongs to that time. */
static void done(int64_t ns)
{
	if (j.size + 2 * j.npieces + (size_t)used + 2 > j.most)
		j.full = true;
	if (!j.full) {
		if (j.npieces == j.pieceroom) {
			j.pieceroom = j.pieceroom ? 2 * j.pieceroom : 4096;
			j.pieces = grow(j.pieces, j.pieceroom * sizeof *j.pieces);
		}
		memcpy(j.text + j.size, line, (size_t)used);
		j.pieces[j.npieces] = (Piece){ns, j.size, (uint32_t)used, (uint32_t)j.npieces};
		j.npieces++;
		j.size += (size_t)used;
	}
	used = 0;
}

static void begin(const char *phase, int track, int64_t thread, int64_t ns)
{
	say("{\"ph\":\"%s\",\"pid\":%d,\"tid\":%" PRId64 ",\"ts\":%" PRId64 ".%03" PRId64, phase,
	    track, thread, ns / 1000, ns % 1000);
}

static void lasts(int64_t ns)
{
	say(",\"dur\":%" PRId64 ".%03" PRId64, ns / 1000, ns % 1000);
}

static void metadata(const char *what, int track, int64_t thread, const char *name)
{
	say("{\"ph\":\"M\",\"pid\":%d,\"tid\":%" PRId64
	    ",\"name\":\"%s\",\"args\":{\"name\":\"%s\"}}",
	    track, thread, what, name);
	done(-1);
}

static const char *gname(const Go *g)
{
	static char name[64];
	char own[METRICSNAME];
	metricsname(j.names, g->name, own);
	snprintf(name, sizeof name, "%s %" PRId64, own, g->id);
	return name;
}

static const char *callname(uint64_t callnr)
{
	static char number[40];
	const char *name = callnr ? syscallname(callnr - 1) : "system call";
	snprintf(number, sizeof number, "system call %" PRIu64, callnr - 1);
	return name ? name : number;
}

static const char *doing(const Go *g)
{
	if (g->status == WAITING)
		return g->why < sizeof reasons / sizeof reasons[0] ? reasons[g->why].name : "wait";
	return g->status == RUNNING   ? "running"
	       : g->status == SYSCALL ? callname(g->call)
				      : "runnable";
}

/* --- tracks --------------------------------------------------------------------------------- */

static void showproc(unsigned ring)
{
	char name[32] = "no processor";
	if (ring + 1 < j.t->header.nrings)
		snprintf(name, sizeof name, "P%u", ring);
	if (!j.procs[ring].shown)
		metadata("thread_name", PROCESSORS, ring + 1, name);
	j.procs[ring].shown = true;
}

static void showgo(Go *g)
{
	if (!g->shown)
		metadata("thread_name", GOROUTINES, g->id, gname(g));
	g->shown = true;
}

static Go *place(int64_t id)
{
	size_t i = (uint64_t)id * 0x9e3779b97f4a7c15u >> 20 & (j.room - 1);
	while (j.gos[i].id && j.gos[i].id != id)
		i = (i + 1) & (j.room - 1);
	return &j.gos[i];
}

static Go *goroutine(int64_t id, bool *new)
{
	if (2 * (j.ngos + 1) > j.room) {
		Go *old = j.gos;
		size_t n = j.room;
		j.room = n ? 2 * n : 1024;
		j.gos = grow(NULL, j.room * sizeof *j.gos);
		memset(j.gos, 0, j.room * sizeof *j.gos);
		for (size_t i = 0; i < n; i++)
			if (old[i].id)
				*place(old[i].id) = old[i];
		free(old);
	}
	Go *g = place(id);
	*new = g->id == 0;
	if (*new) {
		*g = (Go){.id = id};
		j.ngos++;
	}
	return g;
}

/* --- what is drawn -------------------------------------------------------------------------- */

/* The processor was the goroutine's until then. */
static void procslice(unsigned ring, uint64_t until, const Go *g, const char *then)
{
	Proc *p = &j.procs[ring];
	int64_t from = nsof(p->since);
	showproc(ring);
	begin("X", PROCESSORS, ring + 1, from);
	lasts(nsof(until) - from);
	say(",\"name\":\"%s\",\"args\":{\"goroutine\":%" PRId64, gname(g), g->id);
	if (p->thread)
		say(",\"thread\":%" PRIu64, p->thread);
	say(",\"then\":\"%s\"}}", then);
	done(from);
	p->runs = 0;
}

/* What came after the last that is known of it is not. */
static void dropproc(unsigned ring)
{
	Proc *p = &j.procs[ring];
	bool new;
	if (p->runs)
		procslice(ring, p->last, goroutine(p->runs, &new), "not recorded");
}

static void goslice(Go *g, uint64_t until, int64_t by)
{
	int64_t from = nsof(g->since);
	showgo(g);
	begin("X", GOROUTINES, g->id, from);
	lasts(nsof(until) - from);
	say(",\"name\":\"%s\",\"cat\":\"%s\",\"args\":{", doing(g),
	    (const char *[]){"", "runnable", "running", "syscall", "wait", ""}[g->status]);
	const char *comma = "";
	if (g->status == WAITING && g->why < sizeof reasons / sizeof reasons[0]) {
		if (reasons[g->why].on == Object && g->obj) {
			say("\"on\":\"%s\",\"address\":\"0x%" PRIx64 "\"",
			    j.namer->name(j.namer->arg, g->obj), g->obj);
			comma = ",";
		} else if (reasons[g->why].on == Descriptor) {
			say("\"descriptor\":%" PRIu64, g->obj);
			comma = ",";
		}
	}
	if (g->status == RUNNING) {
		say("\"processor\":%u", g->ring);
		comma = ",";
	}
	if (g->status == WAITING && by)
		say("%s\"woken by\":%" PRId64, comma, by);
	say("}}");
	done(from);
}

static void arrow(const Go *g, uint64_t ticks, unsigned ring)
{
	int64_t ns[2] = {nsof(g->wokenat), nsof(ticks)}, id = ++j.nextflow;
	unsigned rings[2] = {g->wokenon, ring};
	size_t size = j.size, n = j.npieces;
	for (int i = 0; i < 2; i++) {
		begin(i ? "f" : "s", PROCESSORS, rings[i] + 1, ns[i]);
		say(",\"id\":%" PRId64 ",\"name\":\"wakes\",\"cat\":\"wake\"%s}", id,
		    i ? ",\"bp\":\"e\"" : "");
		done(ns[i]);
	}
	if (j.full) { /* both or none */
		j.size = size;
		j.npieces = n;
		return;
	}
	j.summary->arrows++;
}

static void counters(int64_t ns)
{
	begin("C", PROCESSORS, 0, ns);
	say(",\"name\":\"goroutines\",\"args\":{\"running\":%" PRId64 ",\"runnable\":%" PRId64
	    ",\"system call\":%" PRId64 ",\"waiting\":%" PRId64 "}}",
	    j.number[RUNNING], j.number[RUNNABLE], j.number[SYSCALL], j.number[WAITING]);
	done(ns);
}

/* Counters stand for the time after them: of changes that are closer together than this only the last is shown. */
enum { CLOSE = 2000 };

static void counted(int64_t ns)
{
	if (j.countedns >= 0 && ns - j.countedns >= CLOSE)
		counters(j.countedns);
	j.countedns = -1;
}

static void instant(unsigned ring, uint64_t ticks, const char *name, const char *key, uint64_t arg)
{
	int64_t ns = nsof(ticks);
	showproc(ring);
	begin("i", PROCESSORS, ring + 1, ns);
	say(",\"s\":\"t\",\"name\":\"%s\",\"args\":{", name);
	if (key)
		say("\"%s\":%" PRIu64, key, arg);
	say("}}");
	done(ns);
}

/* --- events --------------------------------------------------------------------------------- */

static void leaves(Go *g, uint64_t ticks, unsigned to)
{
	Proc *p = &j.procs[g->ring];
	if (p->runs != g->id)
		return;
	Go then = *g;
	then.status = (uint8_t)to;
	procslice(g->ring, ticks, g, to == DEAD ? "ended" : doing(&then));
}

static void move(const Taken *e)
{
	unsigned from = takentype(e) / 8, to = takentype(e) % 8, ring = takenring(e);
	int64_t id = (int64_t)(e->what >> 24);
	bool new;
	if (from >= STATUSES || to >= STATUSES || !id)
		return; /* nonsense */
	Go *g = goroutine(id, &new);
	new = !g->seen;
	if (new) {
		g->seen = true;
		/* So it has been from the beginning on, unless that was lost. */
		g->status = (uint8_t)from;
		g->since = j.t->startticks;
		g->known = !j.summary->gaps;
		g->why = (uint8_t)(e->what >> 8);
		g->ring = ring;
		if (from == RUNNING && g->known && !j.procs[ring].runs)
			j.procs[ring] = (Proc){.runs = id,
					       .since = j.t->startticks,
					       .last = j.t->startticks,
					       .shown = j.procs[ring].shown};
	}
	if (g->status != from) {
		if (g->since == e->ticks && !new &&from == RUNNING)
			return; /* it ran for no time at all, and what came first stands second */
		g->known = false;
		if (j.procs[g->ring].runs == id)
			dropproc(g->ring);
	}
	/* What it is going to do. */
	Go next = *g;
	next.status = (uint8_t)to;
	next.since = e->ticks;
	next.known = true;
	next.why = (uint8_t)(e->what >> 8);
	next.obj = to == WAITING ? e->arg : 0;
	next.call = to == SYSCALL ? e->arg : 0;
	if (from == RUNNING) {
		Go at = next;
		at.ring = g->ring;
		leaves(&at, e->ticks, to);
	}
	int64_t by = to == RUNNABLE ? (int64_t)e->arg : 0;
	if (g->known && from != DEAD)
		goslice(g, e->ticks, by);
	if (to == RUNNABLE && (from == WAITING || from == DEAD)) {
		next.waker = by && j.procs[ring].runs == by ? by : 0;
		next.wokenat = e->ticks;
		next.wokenon = ring;
		j.procs[ring].last = e->ticks;
	}
	if (to == RUNNING) {
		if (next.waker)
			arrow(&next, e->ticks, ring);
		next.waker = 0;
		next.ring = ring;
		dropproc(ring);
		j.procs[ring].runs = id;
		j.procs[ring].since = j.procs[ring].last = e->ticks;
		j.procs[ring].thread = e->arg;
	}
	next.shown = g->shown;
	*g = next;
	counted(nsof(e->ticks));
	j.number[from] -= from != DEAD && j.number[from] > 0;
	j.number[to]++;
	j.countedns = nsof(e->ticks);
}

static void lost(const Taken *e, unsigned ring)
{
	/* Nobody's state is known any more. */
	for (size_t i = 0; i < j.room; i++)
		j.gos[i].known = false;
	for (uint32_t i = 0; i < j.t->header.nrings; i++)
		dropproc(i);
	j.summary->gaps++;
	if (takentype(e) == TraceLost)
		instant(ring, e->ticks, "events lost", "events", e->arg);
	else
		instant(ring, e->ticks, "not recorded", "ns", e->arg);
}

/* What the flight recorder has written this for. */
static void stalled(const Taken *e, unsigned ring)
{
	bool new;
	const Go *g = e->what >> 24 ? goroutine((int64_t)(e->what >> 24), &new) : NULL;
	showproc(ring);
	begin("i", PROCESSORS, ring + 1, nsof(e->ticks));
	say(",\"s\":\"g\",\"name\":\"waited too long\",\"args\":{\"ns\":%" PRIu64,
	    (uint64_t)((double)e->arg * j.t->nspertick));
	if (g)
		say(",\"goroutine\":%" PRId64 ",\"thread\":\"%s\"", g->id, gname(g));
	say("}}");
	done(nsof(e->ticks));
}

static void other(const Taken *e)
{
	unsigned ring = takenring(e), type = takentype(e);
	if (type >= TraceCount && type < TraceCount + sizeof counts / sizeof counts[0])
		return instant(ring, e->ticks, counts[type - TraceCount], NULL, 0);
	switch (type) {
	case TraceTimer: return instant(ring, e->ticks, "timer", "ns late", e->arg);
	case TraceAsked: return instant(ring, e->ticks, "preemption asked", "processor", e->arg);
	case TraceWorld:
		return instant(ring, e->ticks, "world stopped", "ns",
			       (uint64_t)nsof(j.t->startticks + e->arg));
	case TraceTaken: {
		instant(ring, e->ticks, "retake", "processor", e->arg);
		Proc *p = e->arg < j.t->header.nrings ? &j.procs[e->arg] : NULL;
		bool new;
		if (p && p->runs)
			procslice((unsigned)e->arg, e->ticks, goroutine(p->runs, &new),
				  "processor taken");
		return;
	}
	case TraceStall: return stalled(e, ring);
	case TraceLost:
	case TracePaused: return lost(e, ring);
	case TraceThreads:
		begin("C", PROCESSORS, 0, nsof(e->ticks));
		say(",\"name\":\"kernel threads\",\"args\":{\"threads\":%" PRIu64 "}}", e->arg);
		return done(nsof(e->ticks));
	default: return;
	}
}

/* Goroutines by status when it began: of those that did anything what their first event says, of others what both
 * counts, that of the beginning and that of the end, have more. */
static void startnumbers(const Metrics *before, const Metrics *after)
{
	int64_t first[STATUSES] = {0}, last[STATUSES] = {0};
	for (size_t i = 0; i < j.t->ntaken; i++) {
		const Taken *e = &j.t->taken[i];
		unsigned from = takentype(e) / 8, to = takentype(e) % 8;
		bool new;
		if (takentype(e) >= TraceCount || from >= STATUSES || to >= STATUSES ||
		    !(e->what >> 24))
			continue;
		Go *g = goroutine((int64_t)(e->what >> 24), &new);
		if (new)
			first[from]++;
		else
			last[g->status]--;
		g->status = (uint8_t)to;
		g->name = (uint8_t)(e->what >> 16);
		last[to]++;
	}
	for (int s = RUNNABLE; s < DEAD; s++) {
		int64_t a = metricstatus(before, s) - first[s],
			b = metricstatus(after, s) - last[s];
		a = a < b ? a : b;
		j.number[s] = first[s] + (a > 0 ? a : 0);
	}
}

static int byns(const void *a, const void *b)
{
	const Piece *x = a, *y = b;
	if (x->ns != y->ns)
		return x->ns < y->ns ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

void tracejson(FILE *f, const Tracing *t, const Metrics *before, const Metrics *after,
	       const TraceNamer *namer, size_t most, TraceSummary *summary)
{
	enum { AROUND = 2048 }; /* what is always there */
	memset(&j, 0, sizeof j);
	memset(summary, 0, sizeof *summary);
	j.t = t;
	j.names = after;
	j.namer = namer;
	j.summary = summary;
	j.most = most > AROUND ? most - AROUND : 0;
	j.text = grow(NULL, j.most + 1);
	j.procs = grow(NULL, t->header.nrings * sizeof *j.procs);
	memset(j.procs, 0, t->header.nrings * sizeof *j.procs);
	bool new;
	goroutine(1, &new);
	memset(j.gos, 0, j.room * sizeof *j.gos);
	j.ngos = 0;
	startnumbers(before, after);
	metadata("process_name", PROCESSORS, 0, "processors");
	metadata("process_name", GOROUTINES, 0, "goroutines");
	j.countedns = -1;
	counters(0);
	size_t i = 0, events = 0;
	uint64_t ticks = t->startticks;
	for (; i < t->ntaken; i++)
		events += takentype(&t->taken[i]) < TraceLost;
	summary->events = events;
	i = 0;
	for (; i < t->ntaken && !j.full; i++) {
		const Taken *e = &t->taken[i];
		ticks = e->ticks;
		if (takentype(e) < TraceCount)
			move(e);
		else
			other(e);
	}
	if (j.countedns >= 0)
		counters(j.countedns);
	/* What goes on when the record ends. */
	uint64_t end = i < t->ntaken || t->endticks < ticks ? ticks : t->endticks;
	for (size_t k = 0; k < j.room; k++) {
		Go *g = &j.gos[k];
		if (!g->seen || !g->known || g->status == DEAD)
			continue;
		if (g->status == RUNNING && j.procs[g->ring].runs == g->id)
			procslice(g->ring, end, g, "not recorded");
		goslice(g, end, 0);
	}
	summary->cut = j.full;
	summary->seconds = (double)nsof(end) / 1e9;
	summary->goroutines = j.ngos;
	qsort(j.pieces, j.npieces, sizeof *j.pieces, byns);
	fputs("{\"traceEvents\":[\n", f);
	for (size_t k = 0; k < j.npieces; k++)
		fprintf(f, "%.*s%s\n", (int)j.pieces[k].size, j.text + j.pieces[k].at,
			k + 1 < j.npieces ? "," : "");
	fprintf(
	    f,
	    "],\n\"displayTimeUnit\":\"ns\",\n\"otherData\":{\"program\":\"%s\",\"pid\":%d,\"seconds\":%.9f,"
	    "\"events\":%zu,\"lost\":%" PRIu64 ",\"not recorded ns\":%" PRId64
	    ",\"cut\":%s,\"goroutines\":%zu,\"arrows\":%zu}}\n",
	    after->header.name, after->header.pid, summary->seconds, events, t->lost, t->pausedns,
	    j.full ? "true" : "false", j.ngos, summary->arrows);
	free(j.gos);
	free(j.procs);
	free(j.text);
	free(j.pieces);
}
