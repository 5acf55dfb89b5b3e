/*
 * metrics_read.c - finding the metrics of a process, and reading them.
 *
 * A live process's region is what its memory map says, wherever its root directory is now and whoever it has become: by
 * the file's path, by that from its root, or in its memory. Of one that has ended there may be the file. The
 * file is read, not mapped: somebody may cut it off meanwhile.
 */
#define _GNU_SOURCE
#include "metrics_read.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

enum {
	MOSTREGION = 1 << 30, /* bytes; others are not believed */
	MOSTENTRIES = 4096,
	MOSTSHARDS = 4096,
	MOSTWORDS = 1 << 22, /* of all figures together */
	MOSTRECORDS = 1 << 16,
};

__attribute__((format(printf, 2, 3))) static bool because(char *why, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(why, WhySize, fmt, ap);
	va_end(ap);
	return false;
}

static int64_t monotonic(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

/* --- what a region says -------------------------------------------------------------------- */

/* Measured here: for a process that was too young to know. */
static double ownrate(void)
{
	static double rate;
	struct timespec nap = {0, 20000000};
	if (rate > 0)
		return rate;
	int64_t ns = monotonic();
	uint64_t ticks = __builtin_ia32_rdtsc();
	nanosleep(&nap, NULL);
	ns = monotonic() - ns;
	ticks = __builtin_ia32_rdtsc() - ticks;
	rate = ticks ? (double)ns / (double)ticks : 1;
	return rate;
}

static double rateof(const TickPoints *t)
{
	enum { ENOUGH = 20000000 }; /* ns */
	int64_t ns;
	uint64_t ticks = t->lastticks - t->startticks;
	double rate = 0;
	if (!__builtin_sub_overflow(t->lastns, t->startns, &ns) && ns >= ENOUGH && ticks)
		rate = (double)ns / (double)ticks;
	/* Between 10 MHz and 100 GHz, or it is none. */
	return rate >= 0.01 && rate <= 100 ? rate : ownrate();
}

/* Of ticks: what is more than the type has is its most. */
static uint64_t nsof(const Metrics *m, uint64_t ticks)
{
	double ns = (double)ticks * m->nspertick;
	return ns < 0x1p63 ? (uint64_t)ns : (uint64_t)INT64_MAX;
}

typedef struct Bytes {
	const unsigned char *p;
	size_t n;
} Bytes;

static bool inside(Bytes b, uint64_t at, uint64_t n)
{
	return at <= b.n && n <= b.n - at;
}

static uint64_t word(Bytes b, uint64_t at)
{
	uint64_t w;
	memcpy(&w, b.p + at, sizeof w);
	return w;
}

/* words[0..n) plus what is at `at`; false: there is no such place. */
static bool addwords(Bytes b, uint64_t at, uint32_t n, uint64_t *words)
{
	if (!inside(b, at, 8ull * n))
		return false;
	for (uint32_t i = 0; i < n; i++)
		words[i] += word(b, at + 8ull * i);
	return true;
}

void metricstext(char *to, const char *from, size_t n)
{
	for (size_t i = 0; i < n && from[i]; i++)
		*to++ =
		    from[i] > ' ' && from[i] < 127 && !strchr("\"\\{},", from[i]) ? from[i] : '?';
	*to = 0;
}

static bool addmetric(Metrics *m, Bytes b, const MetricEntry *e, uint64_t *left)
{
	Metric *x = &m->metric[m->nmetrics];
	bool histogram = e->kind == MetricHistogram || e->kind == MetricRequestTimes;
	uint32_t namewords = e->kind == MetricNames       ? METRICSNAME / 8
			     : e->kind == MetricListeners ? LISTENERNAME / 8
							  : 0;
	if (namewords && (e->sharded || e->count > *left / namewords))
		return false;
	if (!(e->kind >= MetricCounter && e->kind <= MetricByName) &&
	    !(e->kind >= MetricListeners && e->kind <= MetricRequestCounts))
		return false;
	if (e->unit > MetricNs || e->subbits > 16 || e->count == 0 || e->count > *left ||
	    (histogram &&
	     (e->count >> e->subbits) + e->subbits > 62) || /* more than numbers have */
	    (e->count != 1 && (e->kind == MetricCounter || e->kind == MetricGauge)))
		return false; /* of another version, or nonsense */
	memset(x, 0, sizeof *x);
	metricstext(x->name, e->name, sizeof e->name);
	x->kind = (MetricKind)e->kind;
	x->unit = (MetricUnit)e->unit;
	x->subbits = e->subbits;
	x->nwords = namewords ? e->count * namewords : e->count;
	x->words = calloc(x->nwords, sizeof *x->words);
	if (!x->words)
		return false;
	*left -= x->nwords;
	bool ok = true;
	uint32_t n = e->sharded ? m->header.nshards : 1;
	for (uint32_t i = 0; i < n && ok; i++) {
		uint64_t base =
		    e->sharded ? m->header.shards + (uint64_t)m->header.shardsize * i : 0;
		if (!histogram)
			ok = addwords(b, base + e->offset, x->nwords, x->words);
		else
			ok = addwords(b, base + e->offset, 1, &x->value) &&
			     addwords(b, base + e->buckets, e->count, x->words);
	}
	if (!ok) {
		free(x->words);
		return false;
	}
	for (uint32_t i = 0; i < x->nwords; i++) {
		if ((x->kind == MetricByName || x->kind == MetricRequestSplit) &&
		    x->unit == MetricTicks)
			x->words[i] = nsof(m, x->words[i]);
		x->total += x->words[i];
	}
	if (!histogram)
		x->value = x->words[0];
	else if (x->unit == MetricTicks)
		x->value = nsof(m, x->value);
	m->nmetrics++;
	return true;
}

/* e's records, of `size` bytes here: what other versions' have beyond that is passed over, what they lack is 0. */
static void *records(Bytes b, const MetricEntry *e, size_t size, uint32_t *n)
{
	*n = 0;
	if (e->sharded || e->count > MOSTRECORDS || e->buckets % 8 || !e->buckets ||
	    !inside(b, e->offset, (uint64_t)e->count * e->buckets))
		return NULL;
	char *all = calloc(e->count + 1, size);
	for (uint32_t i = 0; all && i < e->count; i++)
		memcpy(all + i * size, b.p + e->offset + (size_t)i * e->buckets,
		       e->buckets < size ? e->buckets : size);
	*n = all ? e->count : 0;
	return all;
}

bool metricsparse(const void *region, size_t size, Metrics *m, char *why)
{
	Bytes b = {region, size};
	MetricsHeader *h = &m->header;
	uint64_t left = MOSTWORDS;
	memset(m, 0, sizeof *m);
	/* What every version has: magic and version. */
	static const char none[sizeof h->magic];
	if (size >= 12 && !memcmp(region, none, sizeof none))
		return because(why, "metrics that are not complete yet");
	if (size < 12 || memcmp(region, METRICS_MAGIC, sizeof h->magic))
		return because(why, "not metrics of goshim");
	memcpy(&h->version, b.p + 8, 4);
	if (h->version == 0)
		return because(why, "metrics that are not complete yet");
	if (h->version == METRICS_OFF)
		return because(why, "no metrics: it was started with GOSHIM=metrics=off");
	if (h->version != METRICS_VERSION)
		return because(
		    why,
		    "metrics of version %u; this command knows %d: use the goshim that belongs to that library",
		    h->version, METRICS_VERSION);
	if (size < sizeof *h)
		return because(why, "metrics that are damaged");
	memcpy(h, region, sizeof *h);
	if (h->headersize < sizeof *h || h->entrysize < sizeof(MetricEntry) ||
	    h->nentries > MOSTENTRIES || h->nshards > MOSTSHARDS || h->shards > size ||
	    !inside(b, h->headersize, (uint64_t)h->entrysize * h->nentries))
		return because(why, "metrics that are damaged");
	metricstext(h->name, h->name, sizeof h->name - 1);
	m->nspertick = rateof(&h->ticks);
	m->atns = h->ticks.lastns;
	m->metric = calloc(h->nentries + 1, sizeof *m->metric);
	if (!m->metric)
		return because(why, "out of memory");
	for (uint32_t i = 0; i < h->nentries; i++) {
		MetricEntry e;
		memcpy(&e, b.p + h->headersize + (size_t)h->entrysize * i, sizeof e);
		if (e.kind == MetricLocks && !m->locks)
			m->locks = records(b, &e, sizeof *m->locks, &m->nlocks);
		else if (e.kind == MetricModules && !m->modules)
			m->modules = records(b, &e, sizeof *m->modules, &m->nmodules);
		else
			addmetric(m, b, &e, &left);
	}
	return true;
}

Metrics metricscopy(const Metrics *m)
{
	Metrics c = *m;
	c.nmetrics = 0;
	c.nlocks = c.nmodules = 0;
	c.locks = NULL;
	c.modules = NULL;
	c.metric = calloc((size_t)m->nmetrics + 1, sizeof *c.metric);
	for (int i = 0; c.metric && i < m->nmetrics; i++) {
		Metric *x = &c.metric[c.nmetrics];
		*x = m->metric[i];
		x->words = malloc(x->nwords * sizeof *x->words);
		if (!x->words)
			break;
		memcpy(x->words, m->metric[i].words, x->nwords * sizeof *x->words);
		c.nmetrics++;
	}
	return c;
}

void metricsfree(Metrics *m)
{
	for (int i = 0; i < m->nmetrics; i++)
		free(m->metric[i].words);
	free(m->metric);
	free(m->locks);
	free(m->modules);
	memset(m, 0, sizeof *m);
}

/* --- figures ------------------------------------------------------------------------------- */

const Metric *metricnamed(const Metrics *m, const char *name)
{
	for (int i = 0; i < m->nmetrics; i++)
		if (!strcmp(m->metric[i].name, name))
			return &m->metric[i];
	return NULL;
}

/* Shards are read one after the other, and a goroutine moves meanwhile: what is below zero is that. */
static uint64_t atleast0(uint64_t now, uint64_t before)
{
	return (int64_t)(now - before) < 0 ? 0 : now - before;
}

void metricsdiff(Metrics *now, const Metrics *before)
{
	for (int i = 0; i < now->nmetrics; i++) {
		Metric *x = &now->metric[i];
		const Metric *y = metricnamed(before, x->name);
		if (x->kind == MetricGauge || x->kind == MetricNames ||
		    x->kind == MetricListeners || !y || y->kind != x->kind ||
		    y->nwords != x->nwords)
			continue;
		x->value = atleast0(x->value, y->value);
		x->total = x->bare ? atleast0(x->total, y->total) : 0;
		for (uint32_t k = 0; k < x->nwords; k++) {
			x->words[k] = atleast0(x->words[k], y->words[k]);
			x->total += x->words[k];
		}
	}
}

static const Metric *square(const Metrics *m, int *side)
{
	const Metric *x = metricnamed(m, "moves");
	*side = 0;
	while (x && x->kind == MetricMoves && (uint32_t)(*side * *side) < x->nwords)
		++*side;
	return x && (uint32_t)(*side * *side) == x->nwords ? x : NULL;
}

uint64_t metricmoves(const Metrics *m, int from, int to)
{
	int side;
	uint64_t n = 0;
	const Metric *x = square(m, &side);
	for (int f = 0; x && f < side; f++)
		for (int t = 0; t < side; t++)
			n += (from < 0 || f == from) && (to < 0 || t == to) ? x->words[f * side + t]
									    : 0;
	return n;
}

int64_t metricstatus(const Metrics *m, int status)
{
	int64_t n = (int64_t)(metricmoves(m, -1, status) - metricmoves(m, status, -1));
	return n < 0 || n > INT64_MAX / 16 ? 0 : n; /* nobody has so many */
}

void metricsname(const Metrics *m, uint32_t i, char name[METRICSNAME])
{
	const Metric *x = metricnamed(m, "names");
	name[0] = 0;
	if (i == 0)
		memcpy(name, m->header.name, METRICSNAME);
	else if (x && x->kind == MetricNames && i < x->nwords / 2)
		metricstext(name, (const char *)(x->words + (size_t)i * 2), METRICSNAME - 1);
}

bool listenername(const Metrics *m, uint32_t i, char name[LISTENERNAME])
{
	const Metric *x = metricnamed(m, "listeners");
	name[0] = 0;
	if (x && x->kind == MetricListeners && i < x->nwords / (LISTENERNAME / 8))
		metricstext(name, (const char *)x->words + (size_t)i * LISTENERNAME,
			    LISTENERNAME - 1);
	return name[0] != 0;
}

double metriclow(const Metrics *m, const Metric *h, uint32_t i)
{
	return (double)histlow(i, h->subbits) * (h->unit == MetricTicks ? m->nspertick : 1);
}

static bool ishistogram(const Metric *h)
{
	return h->kind == MetricHistogram || h->kind == MetricRequestTimes;
}

double metricquantile(const Metrics *m, const Metric *h, double part)
{
	double want = part * (double)h->total;
	uint64_t seen = 0;
	for (uint32_t i = 0; ishistogram(h) && i < h->nwords; i++) {
		seen += h->words[i];
		if (h->words[i] && (double)seen >= want)
			return (metriclow(m, h, i) + metriclow(m, h, i + 1)) / 2;
	}
	return 0;
}

double metricmax(const Metrics *m, const Metric *h)
{
	for (uint32_t i = ishistogram(h) ? h->nwords : 0; i-- > 0;)
		if (h->words[i])
			return (metriclow(m, h, i) + metriclow(m, h, i + 1)) / 2;
	return 0;
}

/* --- where it is ---------------------------------------------------------------------------- */

/* What follows `name:` and a tab in a status file, as a number; -1: not there. */
static long statusnumber(int pid, const char *name)
{
	char path[64], line[256];
	size_t n = strlen(name);
	long v = -1;
	snprintf(path, sizeof path, "/proc/%d/status", pid);
	FILE *f = fopen(path, "re");
	while (f && fgets(line, sizeof line, f))
		if (!strncmp(line, name, n) && line[n] == ':')
			v = strtol(line + n + 1, NULL, 10);
	if (f)
		fclose(f);
	return v;
}

/* Its number in its own namespace: the last of a line of them. */
static long ownnumber(int pid)
{
	char path[64], line[256];
	long v = -1;
	snprintf(path, sizeof path, "/proc/%d/status", pid);
	FILE *f = fopen(path, "re");
	while (f && fgets(line, sizeof line, f)) {
		char *p = line + strlen(line);
		if (strncmp(line, "NSpid:", 6))
			continue;
		while (p > line && !(p[-1] == '\t' && p[0] >= '0' && p[0] <= '9'))
			p--;
		v = strtol(p, NULL, 10);
	}
	if (f)
		fclose(f);
	return v;
}

/* Is the region that was opened that process's, not of the one that forked it? */
static bool itsown(MetricsSource *s)
{
	MetricsHeader h;
	long pid = ownnumber(s->pid);
	if (pread(s->fd, &h, sizeof h, (off_t)s->offset) != sizeof h || pid < 0 || h.pid == pid)
		return true;
	close(s->fd);
	*s = (MetricsSource){.pid = s->pid, .fd = -1};
	return false;
}

/* The file that is mapped, by one of the ways to it. */
static bool openmapped(MetricsSource *s, const char *path, unsigned long device,
		       unsigned long inode)
{
	char roots[2][40] = {""};
	snprintf(roots[1], sizeof roots[1], "/proc/%d/root", s->pid);
	for (int i = 0; i < 2; i++) {
		struct stat st;
		if ((size_t)snprintf(s->path, sizeof s->path, "%s%s", roots[i], path) >=
		    sizeof s->path)
			continue;
		s->fd = open(s->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
		if (s->fd >= 0 && fstat(s->fd, &st) == 0 && st.st_ino == inode &&
		    st.st_dev == device)
			return true;
		if (s->fd >= 0)
			close(s->fd);
	}
	s->path[0] = 0;
	s->fd = -1;
	return false;
}

/* In the process's own memory. */
static bool openmemory(MetricsSource *s, uint64_t at)
{
	char path[64], magic[8];
	snprintf(path, sizeof path, "/proc/%d/mem", s->pid);
	s->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (s->fd < 0)
		return false;
	s->offset = at;
	if (pread(s->fd, magic, sizeof magic, (off_t)at) == sizeof magic &&
	    !memcmp(magic, METRICS_MAGIC, sizeof magic))
		return true;
	close(s->fd);
	s->fd = -1;
	return false;
}

enum Found { Found, NoRegion, NoLibrary, NotShown, Empty };

/* Empty: the process has no memory any more. (So it is with the kernel's threads, too.) */
static enum Found lookinmaps(MetricsSource *s)
{
	char path[64], *line = NULL;
	size_t size = 0;
	enum Found found = Empty;
	snprintf(path, sizeof path, "/proc/%d/maps", s->pid);
	FILE *f = fopen(path, "re");
	if (!f)
		return errno == EACCES || errno == EPERM ? NotShown : Empty;
	while (found != Found && getline(&line, &size, f) > 0) {
		unsigned long lo, inode = 0;
		unsigned major, minor;
		char rights[5] = "";
		int at = 0;
		line[strcspn(line, "\n")] = 0;
		if (sscanf(line, "%lx-%*x %4s %*x %x:%x %lu %n", &lo, rights, &major, &minor,
			   &inode, &at) < 5)
			continue;
		const char *name = line + at;
		if (found == Empty)
			found = NoLibrary;
		if (strstr(name, "/libgoshim.so"))
			found = NoRegion;
		if (rights[3] != 's')
			continue;
		char *gone = strstr(name, " (deleted)");
		if (!strcmp(name, "/dev/zero (deleted)") && openmemory(s, lo) && itsown(s))
			found = Found;
		else if (strstr(name, "/" METRICS_PREFIX)) {
			if (gone)
				*gone = 0;
			if (((!gone && openmapped(s, name, makedev(major, minor), inode)) ||
			     openmemory(s, lo)) &&
			    itsown(s))
				found = Found;
		}
	}
	free(line);
	fclose(f);
	return found;
}

/* The newest file of a process with that number, alive or not. False and errno: EACCES, ENOENT. */
static bool lookindirectory(MetricsSource *s)
{
	DIR *d = opendir(METRICS_DIR);
	struct stat st, newest = {0};
	int err = ENOENT;
	for (struct dirent *e; d && (e = readdir(d));) {
		char path[300];
		int pid, at = 0;
		unsigned user;
		if (sscanf(e->d_name, METRICS_PREFIX "%u.%d.%n", &user, &pid, &at) != 2 || !at ||
		    pid != s->pid)
			continue;
		snprintf(path, sizeof path, METRICS_DIR "%s", e->d_name);
		int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
		if (fd < 0) {
			err = s->fd < 0 ? errno : err;
			continue;
		}
		/* Anybody may make files of that name there. */
		if (fstat(fd, &st) || st.st_uid != user ||
		    (s->fd >= 0 && st.st_ctime <= newest.st_ctime)) {
			close(fd);
			continue;
		}
		if (s->fd >= 0)
			close(s->fd);
		s->fd = fd;
		newest = st;
		memcpy(s->path, path, sizeof path);
	}
	if (d)
		closedir(d);
	errno = err;
	return s->fd >= 0;
}

bool metricsopen(MetricsSource *s, int pid, char *why)
{
	char proc[32];
	*s = (MetricsSource){.pid = pid, .fd = -1};
	snprintf(proc, sizeof proc, "/proc/%d", pid);
	s->dead = access(proc, F_OK) != 0;
	if (s->dead) {
		if (lookindirectory(s))
			return true;
		return because(why,
			       errno == EACCES
				   ? "process %d has ended, and its metrics belong to another user"
				   : "no process %d, and none of that number has left metrics",
			       pid);
	}
	long tgid = statusnumber(pid, "Tgid");
	if (tgid > 0)
		s->pid = (int)tgid;
	enum Found found = lookinmaps(s);
	/* On its way out it may be shown as running still. */
	for (int tries = 0; found == Empty && tries < 100 && metricsalive(s); tries++) {
		usleep(1000);
		found = lookinmaps(s);
	}
	switch (found) {
	case Found: return true;
	case NoRegion: return metricsmissing(s->pid, why);
	case Empty:
		if (metricsalive(s)) /* the kernel's */
			return because(why, "process %d does not run under goshim", s->pid);
		break;
	case NoLibrary: return because(why, "process %d does not run under goshim", s->pid);
	case NotShown: break;
	}
	if (lookindirectory(s))
		return true;
	if (!metricsalive(s))
		return because(why, "process %d has ended", s->pid);
	return because(why,
		       "process %d belongs to another user, or may not be looked into: ask as root",
		       s->pid);
}

void metricsclose(MetricsSource *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

/* All that can be had of n bytes. */
static size_t readall(const MetricsSource *s, void *buf, size_t n)
{
	size_t have = 0;
	while (have < n) {
		ssize_t r = pread(s->fd, (char *)buf + have, n - have, (off_t)(s->offset + have));
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			break;
		have += (size_t)r;
	}
	return have;
}

bool metricsalive(const MetricsSource *s)
{
	char path[64], state = 'X';
	snprintf(path, sizeof path, "/proc/%d/stat", s->pid);
	FILE *f = s->dead ? NULL : fopen(path, "re");
	char line[512];
	char *end = f && fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL;
	if (end && end[1] == ' ')
		state = end[2];
	if (f)
		fclose(f);
	return state != 'X' && state != 'Z';
}

static bool readonce(MetricsSource *s, Metrics *m, char *why)
{
	MetricsHeader h;
	char reason[WhySize];
	memset(m, 0, sizeof *m);
	size_t n = readall(s, &h, sizeof h);
	if (n == 0 && s->path[0]) /* it was killed when it had made the file */
		return because(why, "process %d has metrics that are not complete yet", s->pid);
	if (n < 12)
		return because(why,
			       metricsalive(s) ? "process %d: its metrics can't be read"
					       : "process %d has ended",
			       s->pid);
	size_t size = sizeof h;
	if (h.version == METRICS_VERSION && h.size > size && h.size <= MOSTREGION)
		size = (size_t)h.size;
	char *copy = malloc(size);
	if (!copy)
		return because(why, "out of memory");
	size = readall(s, copy, size);
	bool ok = metricsparse(copy, size, m, reason);
	free(copy);
	if (!ok) {
		metricsfree(m);
		return because(why, "process %d has %s", s->pid, reason);
	}
	if (m->header.state == MetricsRuns && metricsalive(s))
		m->atns = monotonic();
	return true;
}

/* How many of its threads have not ended, by the region. */
static int64_t living(const Metrics *m)
{
	enum { RUNNING = 2 };
	return metricstatus(m, RUNNING);
}

bool metricsread(MetricsSource *s, Metrics *m, char *why)
{
	LiveThread *list = NULL;
	int n = 0;
	if (!readonce(s, m, why))
		return false;
	if (!metricskernel(m))
		return true;
	/* A thread that ends is in the region, then no more in /proc: as long as there are as many here as there, none
	 * is in both or in none. Some may be of nobody that we know: then, the last of a few readings. */
	for (int tries = 0; tries < 10 && m->header.state == MetricsRuns && metricsalive(s);
	     tries++) {
		uint64_t ended = metricmoves(m, 2, -1);
		metricsfree(m);
		free(list);
		n = livethreads(s->pid, &list);
		if (!readonce(s, m, why)) {
			free(list);
			return false;
		}
		if (ended == metricmoves(m, 2, -1) && living(m) == n)
			break;
		usleep(1000);
	}
	metricsaddlive(m, list, n);
	free(list);
	return true;
}
