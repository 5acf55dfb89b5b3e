/*
 * contention.c - how often locks were waited for, and for how long: where a debugger finds it, in the object itself
 * and, for static ones, in a record that outlives the waiting; and for `goshim locks` in the metrics (core/lockstat.c).
 *
 * Static is what lies in data of the program and of the libraries that are there when the
 * scheduler starts: those are not unloaded. Other memory may be another object tomorrow.
 *
 * In the metrics a lock is to have a name also after the process has died. So when a record is new, addresses
 * are turned into those of the files that are loaded, and the stack of who waits first is kept: some ten
 * microseconds, once. If just then others make a traceback, who waits next does it.
 */
#include "sync.h"

#include <link.h>

#include "real.h"
#include "sched.h"
#include "unwind.h"

static struct {
	uintptr_t lo, hi;
} statics[256];
static int nstatics;

static int notedata(struct dl_phdr_info *info, size_t size, void *unused)
{
	(void)size;
	(void)unused;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_W) || nstatics == nelem(statics))
			continue;
		statics[nstatics].lo = info->dlpi_addr + ph->p_vaddr;
		statics[nstatics++].hi = info->dlpi_addr + ph->p_vaddr + ph->p_memsz;
	}
	return 0;
}

void notestatics(void)
{
	nstatics = 0;
	real.dl_iterate_phdr(notedata, NULL);
}

static bool isstatic(const void *p)
{
	for (int i = 0; i < nstatics; i++)
		if ((uintptr_t)p >= statics[i].lo && (uintptr_t)p < statics[i].hi)
			return true;
	return false;
}

/* --- names ------------------------------------------------------------------------- */

/* The modules that have a number already. */
static struct {
	uint32_t generation;
	unsigned n;
	struct {
		uintptr_t lo, base, dynamic;
		int number;
	} known[Modules];
} modules;

/* The build id is in a note; where notes are, the program headers say. */
static void buildid(const Object *o, ModuleRecord *m)
{
	ElfW(Phdr) ph;
	uint32_t note[3];
	char name[4];
	for (int i = 0; i < o->nheaders; i++) {
		if (!peek(o->headers + (size_t)i * sizeof ph, &ph, sizeof ph))
			return;
		if (ph.p_type != PT_NOTE)
			continue;
		uintptr_t at = o->base + ph.p_vaddr, end = at + ph.p_memsz;
		while (at + sizeof note < end && peek(at, note, sizeof note)) {
			uintptr_t id = at + sizeof note + ((note[0] + 3) & ~3ul);
			if (note[2] == NT_GNU_BUILD_ID && note[0] == sizeof name &&
			    note[1] <= sizeof m->id && peek(at + sizeof note, name, sizeof name) &&
			    !memcmp(name, "GNU", 4) && peek(id, m->id, note[1])) {
				m->idsize = note[1];
				return;
			}
			at = id + ((note[1] + 3) & ~3ul);
		}
	}
}

static int numberof(const Object *o)
{
	if (modules.generation != lockgeneration)
		modules.n = 0;
	modules.generation = lockgeneration;
	for (unsigned i = 0; i < modules.n; i++)
		if (modules.known[i].lo == o->lo && modules.known[i].base == o->base &&
		    modules.known[i].dynamic == o->dynamic)
			return modules.known[i].number;
	ModuleRecord m = {.lo = o->lo, .hi = o->hi, .base = o->base};
	char path[sizeof m.path + 1];
	objectpath(o, path, sizeof path);
	if (strlen(path) < sizeof m.path)
		memcpy(m.path, path, strlen(path));
	buildid(o, &m);
	int number = lockmodule(&m);
	if (modules.n < nelem(modules.known)) {
		modules.known[modules.n].lo = o->lo;
		modules.known[modules.n].base = o->base;
		modules.known[modules.n].dynamic = o->dynamic;
		modules.known[modules.n++].number = number;
	}
	return number;
}

/* False: it is in no file. */
static bool placeof(uintptr_t at, uint64_t *place)
{
	Object o;
	*place = at;
	if (!at || !objectat(at, &o))
		return false;
	int number = numberof(&o);
	if (number >= 0)
		*place = (uint64_t)(number + 1) << 48 | (at - o.base);
	return true;
}

typedef struct Naming {
	LockRecord *record;
	bool stack;
} Naming;

/* Where tracebacks are made: one at a time. */
static void name(void *arg, const Frame *f, int n)
{
	Naming *w = arg;
	LockRecord *r = w->record;
	uint64_t at[LockFrames], place;
	int k = 0;
	for (int i = 0; i < n && k < LockFrames; i++)
		if (!f[i].signal && !owntext(f[i].pc))
			placeof(f[i].pc, &at[k++]);
	if (!r->name) {
		bool data = placeof(r->address, &place);
		if (!data && !placeof(r->site, &place))
			place = k && !lockmany(r) ? at[0] : 0;
		r->name = place;
		__atomic_fetch_or(&r->flags, data ? LockStatic : 0, __ATOMIC_RELAXED);
	}
	if (!w->stack || (r->flags & LockStack))
		return;
	memcpy(r->stack, at, (size_t)k * sizeof *at);
	__atomic_fetch_or(&r->flags, LockStack, __ATOMIC_RELEASE);
}

/* --- the records -------------------------------------------------------------------- */

static LockKind kindof(WaitReason why)
{
	switch (why) {
	case WaitMutex: return LockMutex;
	case WaitCond: return LockCond;
	case WaitSem: return LockSem;
	default: return LockRWLock;
	}
}

static noinline_fn void nameit(LockRecord *r, bool stack)
{
	Naming w = {r, stack};
	KEEP_ERRNO;
	/* Ours, too: they lead to the program's. */
	ownstack(CALLERSPLACE(), LockFrames + 6, name, &w);
}

LockRecord *lockfirst(const void *lock, uint64_t site, LockKind kind, LockLink *link)
{
	if (isnobody()) /* a lock of what makes them */
		return NULL;
	LockRecord *r = lockrecord(lock, site, kind, link);
	if (r && !r->name)
		nameit(r, false);
	return r;
}

void lockcontended(Contention *c, const void *lock, WaitReason why, _Atomic uint32_t *count,
		   LockLink *link, uint64_t site)
{
	if (count)
		atomic_fetch_add_explicit(count, 1, memory_order_relaxed);
	Handle *h = why != WaitCond && isstatic(lock) ? handleof(lock) : NULL;
	if (h) {
		atomic_fetch_add_explicit(&h->contended, 1, memory_order_relaxed);
		h->why = why;
	}
	LockRecord *r = link ? lockrecordof(link, lock) : NULL;
	if (unlikely(!r || !(r->flags & LockStack) || !getg())) {
		c->began = ticksnow();
		c->record = lockwaited(lock, why, link, site);
	} else {
		c->record = r;
		addatomic(&r->contended, 1);
	}
	parkwatch();
}

void contentionends(const Contention *c, bool alone)
{
	uint64_t t = (int64_t)(c->ended - c->began) > 0 ? c->ended - c->began : 0;
	lockwaitended(c->record, t, alone);
}

LockRecord *lockwaited(const void *lock, WaitReason why, LockLink *link, uint64_t site)
{
	LockRecord *r = link ? lockrecordof(link, lock) : NULL;
	r = r ? r : lockrecord(lock, site, kindof(why), link);
	if (r && !(r->flags & LockStack))
		nameit(r, true);
	if (r)
		addatomic(&r->contended, 1);
	return r;
}

void lockwaitended(LockRecord *r, uint64_t ticks, bool alone)
{
	if (!r)
		return;
	alone = alone && !lockmany(r);
	locksum(&r->waited, ticks, alone);
	lockmax(&r->maxwait, ticks);
	locksum(&r->ended, 1, alone);
}

/* --- who has made it ------------------------------------------------------------------ */

/* By address: the last of those that share a place. */
static struct {
	const void *_Atomic object;
	_Atomic uintptr_t site;
} made[1 << 12];

static uint64_t placeofmade(const void *object)
{
	return (uintptr_t)object * 0x9e3779b97f4a7c15ull >> 52;
}

void lockmade(const void *object, uintptr_t site)
{
	uint64_t i = placeofmade(object);
	atomic_store(&made[i].object, NULL);
	atomic_store(&made[i].site, site);
	atomic_store(&made[i].object, object);
}

uint64_t lockmaker(const void *object)
{
	uint64_t i = placeofmade(object);
	if (atomic_load(&made[i].object) != object)
		return 0;
	uintptr_t site = atomic_load(&made[i].site);
	return atomic_load(&made[i].object) == object ? site : 0;
}
