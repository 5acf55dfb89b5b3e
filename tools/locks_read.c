/*
 * locks_read.c - what a process has counted of its locks, with names.
 *
 * The region has places, of a file and an address in it, and a table of the files: so the names can also be had of a
 * process that is no more. An address of which the process found no time to say where it lies is looked for in that table.
 */
#define _GNU_SOURCE
#include "locks_read.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *lockkind(LockKind kind)
{
	static const char *const names[] = {"?", "mutex", "rwlock", "cond", "sem", "mixed"};
	return kind <= LockMixed ? names[kind] : names[0];
}

void lockname(const LockFigures *l, char *buf, size_t size)
{
	if (l->isstatic)
		snprintf(buf, size, "%s", l->name.name);
	else if (l->kind == LockMixed)
		snprintf(buf, size, "(all others)");
	else if (l->address)
		snprintf(buf, size, "%s in %s", lockkind(l->kind), l->name.name);
	else
		snprintf(buf, size, "%" PRIu64 " %ss in %s", l->objects, lockkind(l->kind),
			 l->name.name);
}

/* The file of a place, and the address there; NULL: none. */
static const ModuleRecord *moduleof(const Metrics *m, uint64_t place, uint64_t *address)
{
	uint64_t number = place >> 48;
	*address = place & ((1ull << 48) - 1);
	if (number)
		return number <= m->nmodules ? &m->modules[number - 1] : NULL;
	for (uint32_t i = 0; place && i < m->nmodules; i++) {
		const ModuleRecord *r = &m->modules[i];
		if (place >= r->lo && place < r->hi) {
			*address = place - r->base;
			return r;
		}
	}
	return NULL;
}

/* Printable: it goes to terminals and into JSON. */
static void printable(char *s)
{
	for (; *s; s++)
		if (*s < ' ' || *s >= 127 || strchr("\"\\", *s))
			*s = '?';
}

static void nameplace(const MetricsSource *s, const Metrics *m, uint64_t place, bool data,
		      LockPlace *out)
{
	uint64_t address, offset;
	char root[40] = "", symbol[SymbolSize];
	const ModuleRecord *r = moduleof(m, place, &address);
	memset(out, 0, sizeof *out);
	if (!place) {
		snprintf(out->name, sizeof out->name, "?");
		return;
	}
	if (!r) {
		snprintf(out->name, sizeof out->name, "0x%" PRIx64, address);
		return;
	}
	Module file = {.idsize = r->idsize <= sizeof file.id ? r->idsize : 0};
	memcpy(file.id, r->id, file.idsize);
	memcpy(file.path, r->path, sizeof r->path);
	if (s && !s->dead)
		snprintf(root, sizeof root, "/proc/%d/root", s->pid);
	const char *base = strrchr(file.path, '/');
	snprintf(out->file, sizeof out->file, "%.63s", base ? base + 1 : file.path);
	/* The call's own address: what follows it may be another function. */
	if (!symbolat(root, &file, data ? address : address - 1, data, symbol, &offset))
		snprintf(out->name, sizeof out->name, "%s+0x%" PRIx64,
			 out->file[0] ? out->file : "?", address);
	else if (data && offset == 0)
		snprintf(out->name, sizeof out->name, "%s", symbol);
	else
		snprintf(out->name, sizeof out->name, "%s+0x%" PRIx64, symbol, offset + !data);
	printable(out->name);
	printable(out->file);
}

static double ns(const Metrics *m, uint64_t ticks)
{
	return (double)ticks * m->nspertick;
}

/* Readers that are there now are in the sum with their starts only. */
static double sharedheld(const Metrics *m, const LockRecord *r)
{
	double now = (double)m->header.ticks.startticks +
		     ((double)m->atns - (double)m->header.ticks.startns) / m->nspertick;
	double sum = (double)(int64_t)r->sharedheld + (double)r->sharers * now;
	return sum > 0 ? sum * m->nspertick : 0;
}

static bool figures(const MetricsSource *s, const Metrics *m, const LockRecord *r, LockFigures *l)
{
	memset(l, 0, sizeof *l);
	if (r->kind <= LockNone || r->kind > LockMixed ||
	    (!r->contended && !r->locked && !r->shared))
		return false;
	l->record = (uint32_t)(r - m->locks);
	l->kind = (LockKind)r->kind;
	l->address = r->address;
	l->objects = r->objects;
	l->contended = r->contended;
	l->waiting = r->contended > r->ended ? r->contended - r->ended : 0;
	l->waited = ns(m, r->waited);
	l->maxwait = ns(m, r->maxwait);
	l->counted = (r->flags & LockCounts) && !lockisidle(l);
	l->locked = r->locked;
	l->changed = r->changed;
	l->shared = r->shared;
	l->held = ns(m, r->held);
	l->maxheld = ns(m, r->maxheld);
	l->sharedheld = sharedheld(m, r);
	/* It has no name if others were given theirs whenever it was waited for. */
	uint64_t at, place = r->name ? r->name : r->site;
	l->isstatic = r->name ? r->flags & LockStatic : moduleof(m, r->address, &at) != NULL;
	nameplace(s, m, l->isstatic && !r->name ? r->address : place, l->isstatic, &l->name);
	memcpy(l->stack, r->stack, sizeof l->stack);
	while (l->nframes < LockFrames && (r->flags & LockStack) && r->stack[l->nframes])
		l->nframes++;
	return true;
}

static int byhurt(const void *a, const void *b)
{
	const LockFigures *x = a, *y = b;
	if (lockisidle(x) != lockisidle(y))
		return lockisidle(x) - lockisidle(y);
	if (x->waited != y->waited)
		return x->waited > y->waited ? -1 : 1;
	if (x->contended != y->contended)
		return x->contended > y->contended ? -1 : 1;
	if (x->held != y->held)
		return x->held > y->held ? -1 : 1;
	return (x->address > y->address) - (x->address < y->address);
}

int lockfigures(const MetricsSource *s, const Metrics *m, LockFigures **locks)
{
	int n = 0;
	*locks = calloc((size_t)m->nlocks + 1, sizeof **locks);
	for (uint32_t i = 0; *locks && i < m->nlocks; i++)
		n += figures(s, m, &m->locks[i], &(*locks)[n]);
	if (*locks)
		qsort(*locks, (size_t)n, sizeof **locks, byhurt);
	return n;
}

bool lockcalled(const MetricsSource *s, const Metrics *m, uint64_t address,
		char name[LockName + 16])
{
	const LockRecord *r = NULL;
	LockPlace place;
	/* Of several that were there one after the other the last. */
	for (uint32_t i = 0; i < m->nlocks; i++)
		if (m->locks[i].kind > LockNone && m->locks[i].kind < LockMixed &&
		    m->locks[i].address == address)
			r = &m->locks[i];
	if (!r || !address || !(r->name || r->site))
		return false;
	bool data = r->flags & LockStatic;
	nameplace(s, m, r->name ? r->name : r->site, data, &place);
	snprintf(name, LockName + 16, "%s%s%s", data ? "" : lockkind((LockKind)r->kind),
		 data ? "" : " in ", place.name);
	return true;
}

void lockstack(const MetricsSource *s, const Metrics *m, LockFigures *l)
{
	for (int i = 0; i < l->nframes; i++)
		nameplace(s, m, l->stack[i], false, &l->frames[i]);
}

void lockjson(const MetricsSource *s, const Metrics *m, LockFigures *l)
{
	lockstack(s, m, l);
	printf("{\"kind\":\"%s\",\"%s\":\"%s\",\"file\":\"%s\",\"address\":\"0x%" PRIx64
	       "\",\"objects\":%" PRIu64 ",\"contended\":%" PRIu64 ",\"waiting\":%" PRIu64
	       ",\"waited_ns\":%.0f,\"max_wait_ns\":%.0f",
	       lockkind(l->kind), l->isstatic ? "symbol" : "site", l->name.name, l->name.file,
	       l->address, l->objects, l->contended, l->waiting, l->waited, l->maxwait);
	if (l->counted)
		printf(",\"locked\":%" PRIu64 ",\"changed\":%" PRIu64
		       ",\"held_ns\":%.0f,\"max_held_ns\":%.0f"
		       ",\"read_locked\":%" PRIu64 ",\"read_held_ns\":%.0f",
		       l->locked, l->changed, l->held, l->maxheld, l->shared, l->sharedheld);
	printf(",\"stack\":[");
	for (int i = 0; i < l->nframes; i++)
		printf("%s{\"at\":\"%s\",\"file\":\"%s\"}", i ? "," : "", l->frames[i].name,
		       l->frames[i].file);
	printf("]}");
}
