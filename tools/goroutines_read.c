/*
 * goroutines_read.c - walking a live process's list of goroutines, by the description that its library exports.
 *
 * The library's own symbol table, as it lies in the process's memory, says where the description is: the file may be gone, or
 * another's. Records are never freed and only added at the head of their list, so the walk needs no lock; they lie side by side, and
 * memory is read by pages, which serve some twenty each: 100,000 take 10,000 system calls.
 */
#define _GNU_SOURCE
#include "goroutines_read.h"

#include "../core/layout.h"
#include "metrics_read.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	PAGE = 4096,
	PAGES = 64,               /* that are kept, of one walk */
	MOSTGOROUTINES = 1 << 22, /* others are not believed */
	MOSTENTRIES = 1024,
	MOSTRECORD = 4096,
};

typedef struct Field {
	uint32_t at, size;
} Field;

typedef enum Kind { OfNothing, OfAddress, OfDescriptor } Kind;

static const struct {
	const char *constant, *name;
	Kind kind;
} waits[] = {
    {"WaitMutex", "mutex", OfAddress},
    {"WaitCond", "cond", OfAddress},
    {"WaitRWMutexR", "rwlock.read", OfAddress},
    {"WaitRWMutexW", "rwlock.write", OfAddress},
    {"WaitSem", "sem", OfAddress},
    {"WaitBarrier", "barrier", OfAddress},
    {"WaitOnce", "once", OfAddress},
    {"WaitJoin", "join", OfNothing},
    {"WaitFutex", "futex", OfAddress},
    {"WaitSleep", "sleep", OfNothing},
    {"WaitIORead", "io.read", OfDescriptor},
    {"WaitIOWrite", "io.write", OfDescriptor},
    {"WaitIOPoll", "io.poll", OfDescriptor},
    {"WaitSignal", "signal", OfNothing},
    {"WaitThread", "thread", OfNothing},
    {"WaitKernel", "kernel thread", OfNothing},
};
enum { REASONS = 64 };
_Static_assert(sizeof waits / sizeof waits[0] == GoroutineWaits, "");

struct GoroutineSource {
	int mem;
	uint64_t allg; /* the address of the list's head */
	Field status, reason, since, object, goid, link, host, slot, name;
	uint32_t states[GoroutineStates];
	int8_t wait[REASONS]; /* of waits; -1: not known */
	struct {
		uint64_t address; /* 0: none */
		unsigned char bytes[PAGE];
	} page[PAGES];
};

/* --- memory ------------------------------------------------------------------------------------ */

static bool get(const GoroutineSource *s, uint64_t at, void *buf, size_t n)
{
	return at <= INT64_MAX && pread(s->mem, buf, n, (off_t)at) == (ssize_t)n;
}

static void forget(GoroutineSource *s)
{
	for (int i = 0; i < PAGES; i++)
		s->page[i].address = 0;
}

/* By pages, each of which is read once in a walk. */
static bool getkept(GoroutineSource *s, uint64_t at, void *buf, size_t n)
{
	for (size_t done = 0; done < n;) {
		uint64_t page = (at + done) & ~(uint64_t)(PAGE - 1);
		size_t from = (at + done) - page, part = PAGE - from;
		int i = (int)(page / PAGE % PAGES);
		if (page == 0)
			return false;
		if (s->page[i].address != page) {
			s->page[i].address = 0;
			if (!get(s, page, s->page[i].bytes, PAGE))
				return false;
			s->page[i].address = page;
		}
		part = part < n - done ? part : n - done;
		memcpy((char *)buf + done, s->page[i].bytes + from, part);
		done += part;
	}
	return true;
}

/* --- the description --------------------------------------------------------------------------- */

int librarybase(int pid, uint64_t *base)
{
	char path[64], *line = NULL;
	size_t size = 0;
	int found = 0;
	snprintf(path, sizeof path, "/proc/%d/maps", pid);
	FILE *f = fopen(path, "re");
	if (!f)
		return -1;
	while (!found && getline(&line, &size, f) > 0) {
		unsigned long lo, offset;
		if (strstr(line, "/libgoshim.so") &&
		    sscanf(line, "%lx-%*x %*s %lx", &lo, &offset) == 2 && offset == 0) {
			*base = lo;
			found = 1;
		}
	}
	if (ferror(f))
		found = -1;
	free(line);
	fclose(f);
	return found;
}

/* The loader adds the base to what the file has, or leaves that alone. */
static uint64_t based(uint64_t base, uint64_t address)
{
	return address < base ? base + address : address;
}

/* By the hash table for the loader. */
static uint64_t exported(const GoroutineSource *s, uint64_t base, const char *name)
{
	Elf64_Ehdr eh;
	Elf64_Phdr ph = {0};
	Elf64_Dyn d;
	uint64_t symbols = 0, strings = 0, table = 0;
	if (!get(s, base, &eh, sizeof eh) || memcmp(eh.e_ident, ELFMAG, SELFMAG) ||
	    eh.e_phentsize != sizeof ph)
		return 0;
	for (unsigned i = 0; i < eh.e_phnum && ph.p_type != PT_DYNAMIC; i++)
		if (!get(s, base + eh.e_phoff + i * sizeof ph, &ph, sizeof ph))
			return 0;
	for (uint64_t i = 0; ph.p_type == PT_DYNAMIC && i < MOSTENTRIES; i++) {
		if (!get(s, base + ph.p_vaddr + i * sizeof d, &d, sizeof d) || d.d_tag == DT_NULL)
			break;
		if (d.d_tag == DT_SYMTAB)
			symbols = based(base, d.d_un.d_ptr);
		if (d.d_tag == DT_STRTAB)
			strings = based(base, d.d_un.d_ptr);
		if (d.d_tag == DT_GNU_HASH)
			table = based(base, d.d_un.d_ptr);
	}
	uint32_t h[4], hash = 5381, at, chain;
	for (const char *c = name; *c; c++)
		hash = hash * 33 + (unsigned char)*c;
	if (!symbols || !strings || !table || !get(s, table, h, sizeof h) || h[0] == 0)
		return 0;
	uint64_t buckets = table + sizeof h + 8ull * h[2], chains = buckets + 4ull * h[0];
	if (!get(s, buckets + 4ull * (hash % h[0]), &at, sizeof at) || at < h[1])
		return 0;
	for (int i = 0; i < MOSTENTRIES; i++, at++) {
		Elf64_Sym sym;
		char text[64] = "";
		if (!get(s, chains + 4ull * (at - h[1]), &chain, sizeof chain))
			return 0;
		if ((chain | 1) == (hash | 1) &&
		    get(s, symbols + (uint64_t)at * sizeof sym, &sym, sizeof sym) &&
		    get(s, strings + sym.st_name, text, strlen(name) + 1) && !strcmp(text, name))
			return base + sym.st_value;
		if (chain & 1)
			return 0;
	}
	return 0;
}

static void takeentry(GoroutineSource *s, const LayoutEntry *e, Field *allg)
{
	const struct {
		const char *name;
		Field *field;
	} fields[] = {
	    {"G.status", &s->status},  {"G.waitreason", &s->reason}, {"G.since", &s->since},
	    {"G.waitobj", &s->object}, {"G.goid", &s->goid},         {"G.alllink", &s->link},
	    {"G.host", &s->host},      {"G.nameslot", &s->slot},     {"Thread.name", &s->name},
	    {"Sched.allg", allg},
	};
	static const char *const states[] = {"Grunnable", "Grunning", "Gsyscall", "Gwaiting"};
	if (e->size && e->value <= MOSTRECORD && e->size <= 16)
		for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
			if (!strncmp(e->name, fields[i].name, sizeof e->name))
				*fields[i].field = (Field){e->value, e->size};
	for (int i = 0; !e->size && i < GoroutineStates; i++)
		if (!strncmp(e->name, states[i], sizeof e->name))
			s->states[i] = e->value;
	for (int i = 0; !e->size && i < GoroutineWaits && e->value < REASONS; i++)
		if (!strncmp(e->name, waits[i].constant, sizeof e->name))
			s->wait[e->value] = (int8_t)i;
}

/* False: it is not what this reader knows. */
static bool describe(GoroutineSource *s, uint64_t at)
{
	Field allg = {0};
	uint64_t sched = 0;
	memset(s->wait, -1, sizeof s->wait);
	for (int depth = 0; at && depth < 8; depth++) {
		Layout l;
		if (!get(s, at, &l, sizeof l) || memcmp(l.magic, LAYOUT_MAGIC, sizeof l.magic) ||
		    l.version != LAYOUT_VERSION || l.nentries > MOSTENTRIES ||
		    l.naddresses > MOSTENTRIES)
			return false;
		for (uint32_t i = 0; i < l.nentries; i++) {
			LayoutEntry e;
			if (!get(s, (uintptr_t)(l.entries + i), &e, sizeof e))
				return false;
			takeentry(s, &e, &allg);
		}
		for (uint32_t i = 0; i < l.naddresses; i++) {
			LayoutAddress a;
			if (!get(s, (uintptr_t)(l.addresses + i), &a, sizeof a))
				return false;
			if (!strncmp(a.name, "sched", sizeof a.name))
				sched = (uintptr_t)a.address;
		}
		at = (uintptr_t)l.next;
	}
	s->allg = sched + allg.at;
	return sched && allg.size == 8 && s->status.size && s->reason.size && s->since.size == 8 &&
	       s->object.size == 8 && s->goid.size == 8 && s->link.size == 8 && s->slot.size == 1;
}

GoroutineSource *goroutinesopen(int pid, char *why)
{
	char path[64];
	GoroutineSource *s = calloc(1, sizeof *s);
	if (!s) {
		snprintf(why, WhySize, "out of memory");
		return NULL;
	}
	snprintf(path, sizeof path, "/proc/%d/mem", pid);
	s->mem = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t base = 0;
	if (s->mem >= 0)
		librarybase(pid, &base);
	uint64_t at = base ? exported(s, base, "goshim_layout") : 0;
	if (s->mem >= 0 && at && describe(s, at))
		return s;
	if (s->mem < 0)
		snprintf(why, WhySize, "its memory may not be read: %s", strerror(errno));
	else
		snprintf(why, WhySize,
			 "its library doesn't say where they are, as far as this command knows");
	goroutinesclose(s);
	return NULL;
}

void goroutinesclose(GoroutineSource *s)
{
	if (s && s->mem >= 0)
		close(s->mem);
	free(s);
}

/* --- the list ---------------------------------------------------------------------------------- */

const char *goroutinewait(int wait)
{
	return wait >= 0 && wait < GoroutineWaits ? waits[wait].name : "";
}

static uint64_t value(const unsigned char *record, Field f)
{
	uint64_t v = 0;
	memcpy(&v, record + f.at, f.size < sizeof v ? f.size : sizeof v);
	return v;
}

/* False: it is none at this moment. */
static bool take(GoroutineSource *s, const unsigned char *record, Goroutine *g)
{
	uint64_t status = value(record, s->status), reason = value(record, s->reason);
	memset(g, 0, sizeof *g);
	while (g->state < GoroutineStates && s->states[g->state] != status)
		g->state++;
	if (g->state == GoroutineStates)
		return false;
	g->goid = (int64_t)value(record, s->goid);
	g->since = value(record, s->since);
	g->slot = (uint8_t)value(record, s->slot);
	g->wait = g->state == GoroutineWaiting && reason < REASONS ? s->wait[reason] : -1;
	if (g->wait >= 0) {
		g->descriptor = waits[g->wait].kind == OfDescriptor;
		g->object = waits[g->wait].kind != OfNothing ? value(record, s->object) : 0;
	}
	g->host = s->host.size == 8 ? value(record, s->host) : 0;
	return true;
}

int goroutinesread(GoroutineSource *s, Goroutine **list)
{
	unsigned char record[MOSTRECORD + 16];
	const Field fields[] = {s->status, s->reason, s->since, s->object,
				s->goid,   s->link,   s->host,  s->slot};
	size_t n = 0, room = 256, size = 0;
	uint64_t at;
	for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
		if (size < fields[i].at + fields[i].size)
			size = fields[i].at + fields[i].size;
	forget(s);
	*list = malloc(room * sizeof **list);
	if (!*list || !get(s, s->allg, &at, sizeof at)) {
		free(*list);
		*list = NULL;
		return -1;
	}
	for (int walked = 0; at && walked < MOSTGOROUTINES; walked++) {
		if (n == room) {
			Goroutine *more = realloc(*list, (room *= 2) * sizeof **list);
			if (!more)
				break;
			*list = more;
		}
		if (!getkept(s, at, record, size))
			break;
		n += take(s, record, &(*list)[n]);
		at = value(record, s->link);
	}
	return (int)n;
}

void goroutinename(GoroutineSource *s, const Goroutine *g, char name[16])
{
	memset(name, 0, 16);
	if (!g->host || s->name.size != 16 || !get(s, g->host + s->name.at, name, 16))
		name[0] = 0;
	name[15] = 0;
	for (char *c = name; *c; c++)
		if (*c <= ' ' || *c >= 127)
			*c = '?';
}
