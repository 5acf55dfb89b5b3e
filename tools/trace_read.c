/*
 * trace_read.c - taking events out of a process's rings.
 *
 * Each piece of a ring is copied twice. What the first copy shows to be complete was so before the second was made,
 * and the event of that is whole; and what had not been overwritten when both were made was not while they were.
 */
#define _GNU_SOURCE
#include "trace_read.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	MOSTRINGS = 4096,
	MOSTEVENTS = 1 << 24, /* of a ring */
	AHEAD = 2000000000,   /* ns that are recorded with nobody to take them, at most */
};

static int64_t monotonic(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

static uint64_t ticksat(const Tracing *t, int64_t ns)
{
	double since = ((double)ns - (double)t->points.lastns) / t->nspertick;
	return t->points.lastticks + (fabs(since) < 0x1p62 ? (uint64_t)(int64_t)since : 0);
}

/* When it is read; of what is over, its end. */
static uint64_t readat(const Tracing *t)
{
	return t->endticks ? t->endticks : ticksat(t, monotonic());
}

/* All n bytes at `at` in the region. */
static bool get(const Tracing *t, void *to, size_t n, uint64_t at)
{
	return pread(t->source->fd, to, n, (off_t)(t->source->offset + at)) == (ssize_t)n;
}

static bool put(const Tracing *t, uint64_t value)
{
	uint64_t at = t->source->offset + t->at + offsetof(TraceHeader, until);
	return pwrite(t->source->fd, &value, sizeof value, (off_t)at) == sizeof value;
}

static void add(Tracing *t, unsigned ring, uint64_t ticks, uint64_t what, uint64_t arg)
{
	if (t->ntaken == t->room) {
		t->room = t->room ? 2 * t->room : 1 << 16;
		Taken *more = realloc(t->taken, t->room * sizeof *more);
		if (!more)
			abort();
		t->taken = more;
	}
	t->taken[t->ntaken] = (Taken){ticks, what, arg, (uint64_t)ring << 48 | t->ntaken};
	t->ntaken++;
}

/* --- switching ------------------------------------------------------------------------------ */

static bool find(Tracing *t, const MetricsHeader *h)
{
	const TraceHeader *x = &t->header;
	bool found = false;
	for (uint32_t i = 0; i < h->nentries && !found; i++) {
		MetricEntry e;
		if (!get(t, &e, sizeof e, h->headersize + (uint64_t)h->entrysize * i))
			return false;
		found = e.kind == MetricTrace && !e.sharded;
		t->at = e.offset;
	}
	return found && get(t, &t->header, sizeof t->header, t->at) &&
	       x->version == TRACE_VERSION && x->eventsize == sizeof(TraceEvent) && x->nrings > 0 &&
	       x->nrings <= MOSTRINGS && x->nevents > 1 && x->nevents <= MOSTEVENTS &&
	       !(x->nevents & (x->nevents - 1)) && x->headsize >= 2 * sizeof(uint64_t) &&
	       x->headsize <= 4096 && x->ringsize >= (uint64_t)x->nevents * sizeof(TraceEvent) &&
	       x->ringsize < 1ull << 40 && x->heads < 1ull << 40 && x->rings < 1ull << 40;
}

/* That field of all. */
static bool heads(const Tracing *t, size_t field, uint64_t *value)
{
	static char buf[MOSTRINGS * 64];
	size_t n = (size_t)t->header.nrings * t->header.headsize;
	if (n > sizeof buf || !get(t, buf, n, t->header.heads))
		return false;
	for (uint32_t i = 0; i < t->header.nrings; i++)
		memcpy(&value[i], buf + (size_t)i * t->header.headsize + field, sizeof *value);
	return true;
}

static bool copies(Tracing *t)
{
	for (int i = 0; i < 2; i++)
		t->copy[i] = malloc((size_t)t->header.nevents * sizeof(TraceEvent));
	return t->copy[0] && t->copy[1];
}

/* Goes on for some time. */
static bool prolong(Tracing *t)
{
	int64_t now = monotonic();
	uint64_t is = 0;
	if (!get(t, &is, sizeof is, t->at + offsetof(TraceHeader, until)))
		return false;
	if (t->until && (now > t->untilns || is < t->until)) {
		/* We were kept from it for too long, or another reader has switched it off. */
		int64_t ns = now > t->untilns ? now - t->untilns : 0;
		t->paused = true;
		t->pausedns += ns;
		add(t, 0, ticksat(t, now), TracePaused, (uint64_t)ns);
	}
	t->untilns = now + AHEAD;
	t->until = ticksat(t, t->untilns);
	return put(t, t->until);
}

bool tracebegin(Tracing *t, MetricsSource *s, const Metrics *m, char *why)
{
	char path[64];
	memset(t, 0, sizeof *t);
	t->source = s;
	t->nspertick = m->nspertick;
	t->points = m->header.ticks;
	snprintf(path, sizeof path, "/proc/self/fd/%d", s->fd);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		snprintf(why, WhySize, "process %d: its metrics can't be written to: %s", s->pid,
			 strerror(errno));
		return false;
	}
	close(s->fd);
	s->fd = fd;
	if (!find(t, &m->header)) {
		snprintf(why, WhySize,
			 "process %d can't be traced: it has no rings, or those of another version",
			 s->pid);
		return false;
	}
	uint64_t size = t->header.ringsize * t->header.nrings;
	struct stat st;
	if (!s->offset && (fstat(fd, &st) || t->header.rings + size > (uint64_t)st.st_size)) {
		snprintf(why, WhySize, "process %d can't be traced: its rings are damaged", s->pid);
		return false;
	}
	if (!s->offset && fallocate(fd, 0, (off_t)t->header.rings, (off_t)size)) {
		snprintf(why, WhySize, "no room for %llu KiB of events in " METRICS_DIR ": %s",
			 (unsigned long long)size >> 10, strerror(errno));
		return false;
	}
	if (!copies(t) || !heads(t, offsetof(TraceHead, next), t->next)) {
		snprintf(why, WhySize, "process %d: its events can't be read", s->pid);
		return false;
	}
	t->startticks = ticksat(t, monotonic());
	if (prolong(t))
		return true;
	snprintf(why, WhySize, "process %d: its metrics can't be written to: %s", s->pid,
		 strerror(errno));
	return false;
}

bool traceload(Tracing *t, MetricsSource *s, const Metrics *m)
{
	double fullest;
	memset(t, 0, sizeof *t);
	t->source = s;
	t->nspertick = m->nspertick;
	t->points = m->header.ticks;
	if (!find(t, &m->header) || !copies(t) || !heads(t, offsetof(TraceHead, first), t->next) ||
	    t->header.to < t->header.from)
		return false;
	t->startticks = t->header.from;
	t->endticks = t->header.to;
	if (!tracetake(t, true, &fullest))
		return false;
	tracesort(t);
	size_t before = 0; /* of rings that reach further back than others */
	while (before < t->ntaken && t->taken[before].ticks < t->startticks)
		before++;
	t->ntaken -= before;
	if (t->ntaken)
		memmove(t->taken, t->taken + before, t->ntaken * sizeof *t->taken);
	return true;
}

void traceend(Tracing *t)
{
	uint64_t is = 0;
	/* Unless another reader has prolonged it meanwhile. */
	if (get(t, &is, sizeof is, t->at + offsetof(TraceHeader, until)) && is == t->until)
		put(t, 0);
	t->endticks = ticksat(t, monotonic());
}

void tracefree(Tracing *t)
{
	free(t->copy[0]);
	free(t->copy[1]);
	free(t->taken);
}

/* --- taking --------------------------------------------------------------------------------- */

static bool copyring(const Tracing *t, unsigned ring, uint64_t from, uint64_t n, TraceEvent *to)
{
	uint64_t size = t->header.nevents, at = from & (size - 1);
	uint64_t base = t->header.rings + t->header.ringsize * ring;
	uint64_t first = n < size - at ? n : size - at;
	return get(t, to, first * sizeof *to, base + at * sizeof *to) &&
	       (n == first || get(t, to + first, (n - first) * sizeof *to, base));
}

static void lose(Tracing *t, unsigned ring, uint64_t n, uint64_t ticks)
{
	t->lost += n;
	add(t, ring, ticks, TraceLost, n);
}

/* The events of one ring from t->next to `to`, so far as they are complete. */
static bool takering(Tracing *t, unsigned ring, uint64_t to, bool dead)
{
	static uint64_t after[MOSTRINGS];
	uint64_t size = t->header.nevents, from = t->next[ring], missing = 0;
	if (to - from > size) {
		missing = to - size - from;
		from = to - size;
	}
	uint64_t n = to - from;
	if (!copyring(t, ring, from, n, t->copy[0]) || !copyring(t, ring, from, n, t->copy[1]) ||
	    !heads(t, offsetof(TraceHead, next), after))
		return false;
	for (uint64_t i = 0; i < n; i++) {
		const TraceEvent *e = &t->copy[1][i];
		if (after[ring] - (from + i) > size) { /* overwritten meanwhile, or being so */
			missing++;
			continue;
		}
		if (t->copy[0][i].seq != from + i + 1) {
			if (!dead) {
				n = i; /* somebody is at it: later */
				break;
			}
			missing++; /* who wrote it was killed */
			continue;
		}
		if (missing)
			lose(t, ring, missing, e->ticks);
		missing = 0;
		add(t, ring, e->ticks, e->what, e->arg);
	}
	if (missing)
		lose(t, ring, missing, readat(t));
	t->next[ring] = from + n;
	return true;
}

bool tracetake(Tracing *t, bool dead, double *fullest)
{
	static uint64_t next[MOSTRINGS];
	uint64_t threads, most = 0;
	if ((!dead && !prolong(t)) || !heads(t, offsetof(TraceHead, next), next))
		return false;
	for (uint32_t i = 0; i < t->header.nrings; i++) {
		uint64_t n = next[i] - t->next[i];
		if ((int64_t)n <= 0) /* less than before: nonsense */
			continue;
		most = n > most ? n : most;
		if (!takering(t, i, next[i], dead))
			return false;
	}
	if (get(t, &threads, sizeof threads, offsetof(MetricsHeader, threads)) &&
	    threads != t->threads) {
		t->threads = threads;
		add(t, 0, readat(t), TraceThreads, threads);
	}
	*fullest = (double)most / t->header.nevents;
	return true;
}

/* At the same moment: who leaves a processor before who comes to it. */
static int rank(const Taken *e)
{
	enum { RUNNING = 2 };
	return takentype(e) % 8 == RUNNING && takentype(e) < TraceCount;
}

static int inorder(const void *a, const void *b)
{
	const Taken *x = a, *y = b;
	const uint64_t mask = (1ull << 48) - 1;
	if (x->ticks != y->ticks)
		return x->ticks < y->ticks ? -1 : 1;
	if (rank(x) != rank(y))
		return rank(x) - rank(y);
	return (x->order & mask) < (y->order & mask) ? -1 : 1;
}

void tracesort(Tracing *t)
{
	if (t->ntaken)
		qsort(t->taken, t->ntaken, sizeof *t->taken, inorder);
}
