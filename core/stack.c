/*
 * stack.c - goroutine stacks.
 *
 * The problem: unmodified programs expect their 8 MiB, a guard below, and use
 * two pages of it. A mapping and a guard for each costs two kernel mappings of
 * 65,530 allowed, some 20 us to make, and 8 KiB of page tables.
 *
 * The design: arenas of address space, reserved without access rights, so that
 * neither RLIMIT_DATA nor strict overcommit nor mlockall count what nobody
 * uses yet. From an arena come chunks of equal slots for a size class; slots are
 * opened in small groups and get their guard when first handed out:
 *
 *	| guard | usable ............ | guard | usable ............ | ...
 *
 * Where the kernel can (6.13), guards are markers in the page table
 * (MADV_GUARD_INSTALL) and an arena, but for its first stacks, stays one mapping. Elsewhere the guard is left
 * closed and each stack costs two mappings; at the map limit creation fails
 * with EAGAIN. A stack's hot end and its upper neighbour's guard lie on
 * adjacent pages, so they share a page of the page table: one each, not two.
 * Rounding slots to powers of two was rejected, since it would put
 * that border onto the border of page-table pages each time.
 *
 * Freed stacks are pooled by class, last in first out, and handed out dirty:
 * a reuse costs a lock and a list operation. stacktrim gives pages back
 * later, when there are many. Their bookkeeping lies outside of them, because
 * programs write through pointers into dead stacks.
 *
 * The usable end is moved down by a multiple of 64 bytes that differs between
 * neighbours (a colour). Otherwise the hottest lines of all stacks would fall
 * into the same few sets of the first-level cache.
 *
 * Very large stacks, and all of them when address space is limited, have a
 * mapping of their own that can be given back.
 */
#include "stack.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "api.h"
#include "arch/x86_64/arch.h"
#include "lock.h"
#include "mem.h"
#include "os.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

enum {
	Page = 4096,
	Colours = 16,
	ColourStep = 64,
	FineSizes = 64,  /* up to so many pages each size is a class of its own */
	Steps = 16,      /* above, so many classes to each doubling */
	MaxSlots = 4096, /* in a chunk */
	MaxOpen = 16,    /* slots opened at once */
	Buckets = 64,
	MaxKept = 4,
};
#define OWNMAPPING ((size_t)256 * 1024 * 1024)
/* So many stacks have a closed page for a guard also where markers can be had: gdb's gcore gives a
 * mapping up at the first marker it meets, and all stacks above with it. */
enum { CLOSEDGUARDS = 4096 };
#define ARENAMIN ((size_t)256 * 1024 * 1024)
#define ARENAMAX ((size_t)64 * 1024 * 1024 * 1024)
#define SIZEMAX ((size_t)1 << 46)

typedef struct Chunk Chunk;
typedef struct Class Class;

struct StackSlot {
	StackSlot *next; /* in the class's pool; protected by stacks.lock */
	Chunk *chunk;
	uint32_t index;
	bool inuse;
};

/* Equal slots in a row. Chunks are never freed; those with a mapping of their
 * own have base 0 while that is given back. */
struct Chunk {
	Chunk *next; /* stacks.chunks: append only */
	Chunk *nextunmapped;
	Class *class;
	StackSlot *slots;       /* [cap] */
	_Atomic uintptr_t base; /* read by stackguarded */
	_Atomic uint32_t n;     /* slots with guard, handed out at least once */
	uint32_t opened, cap;
	bool own; /* one slot in a mapping of its own */
};

struct Class {
	Class *next;            /* in its bucket */
	size_t guard, slotsize; /* bytes; the guard is part of the slot */
	/* Protected by stacks.lock. */
	StackSlot *dirty; /* pooled with its pages */
	StackSlot *clean; /* pooled without */
	Chunk *chunk;     /* has slots never used */
	Chunk *unmapped;  /* of their own mapping, without it */
	uint32_t nextcap; /* slots of the next chunk */
	size_t ncarved;
};

typedef enum GuardBy { GuardUnknown, GuardMarkers, GuardProtection } GuardBy;

static struct {
	Lock lock; /* guards what follows */
	Class *_Atomic bucket[Buckets];
	uintptr_t arena, arenaend; /* not yet given to chunks */
	size_t reserved;
	GuardBy guardby;
	int nclosed; /* guards that are closed though markers can be had */
	size_t inuse, pooled;
	/* After a fork: the pools are to be made anew. */
	bool forked;
	uintptr_t kept[MaxKept];
	int nkept;

	/* Written under the lock, read without. */
	Chunk *_Atomic chunks;
} stacks = {.lock = LOCK_INIT(RankStack)};

/* to: a power of two */
static size_t roundup(size_t n, size_t to)
{
	return (n + to - 1) & ~(to - 1);
}

/* Bytes rounded up to a class of sizes. */
static size_t classsize(size_t n)
{
	size_t step = Page;

	n = roundup(n, Page);
	while (n / step > FineSizes)
		step *= 2;
	/* FineSizes/2 < n/step <= FineSizes: at least that many steps a doubling. */
	return roundup(n, step * (step == Page ? 1 : FineSizes / 2 / Steps));
}

static Class *classget_locked(size_t guard, size_t usable)
{
	Class *_Atomic *head;
	Class *c;

	head = &stacks.bucket[(usable / Page * 31 + guard / Page) % Buckets];
	for (c = atomic_load_explicit(head, memory_order_relaxed); c != NULL; c = c->next)
		if (c->guard == guard && c->slotsize == guard + usable)
			return c;
	c = persistentalloc(sizeof(*c), 0);
	if (c == NULL)
		return NULL;
	c->guard = guard;
	c->slotsize = guard + usable;
	c->nextcap = 1;
	c->next = atomic_load_explicit(head, memory_order_relaxed);
	/* Ordered, because a fork may come between and the child walks these. */
	atomic_store_explicit(head, c, memory_order_release);
	return c;
}

/* --- address space ------------------------------------------------------------ */

static bool addressspacelimited(void)
{
	enum { RlimitAS = 9 };
	uint64_t lim[2];

	return sys4(SYS_prlimit64, 0, RlimitAS, 0, (long)lim) == 0 && lim[0] != UINT64_MAX;
}

/* n bytes without access rights, out of an arena; 0: none to be had. */
static uintptr_t arenaalloc_locked(size_t n)
{
	uintptr_t p;
	size_t want = stacks.reserved;

	if (stacks.arenaend - stacks.arena < n) {
		if (want > ARENAMAX)
			want = ARENAMAX;
		if (want < ARENAMIN)
			want = ARENAMIN;
		if (want < n)
			want = n;
		p = (uintptr_t)sysreserveclosed(want);
		if (p == 0 && want > n) {
			want = n;
			p = (uintptr_t)sysreserveclosed(want);
		}
		if (p == 0)
			return 0;
		sysnohugepages((void *)p, want);
		stacks.reserved += want;
		/* Of two neighbouring arenas the rest of the upper follows
		 * what is new; any other rest stays unused. */
		if (p + want != stacks.arena)
			stacks.arenaend = p + want;
		stacks.arena = p;
	}
	p = stacks.arena;
	stacks.arena += n;
	return p;
}

/* --- chunks ------------------------------------------------------------------- */

static Chunk *chunknew_locked(Class *c, uint32_t cap)
{
	Chunk *k = persistentalloc(sizeof(*k), 0);
	StackSlot *slots = persistentalloc(cap * sizeof(*slots), 0);

	if (k == NULL || slots == NULL)
		return NULL;
	k->class = c;
	k->slots = slots;
	k->cap = cap;
	k->next = atomic_load_explicit(&stacks.chunks, memory_order_relaxed);
	/* Pairs with the acquire in stackguarded. */
	atomic_store_explicit(&stacks.chunks, k, memory_order_release);
	return k;
}

/* A chunk whose only slot has a mapping of its own. */
static Chunk *ownchunk_locked(Class *c)
{
	Chunk *k = c->unmapped;
	uintptr_t p = (uintptr_t)sysreserveclosed(c->slotsize);

	if (p == 0)
		return NULL;
	sysnohugepages((void *)p, c->slotsize);
	if (k != NULL)
		c->unmapped = k->nextunmapped;
	else
		k = chunknew_locked(c, 1);
	if (k == NULL) {
		sysfree((void *)p, c->slotsize);
		return NULL;
	}
	k->own = true;
	k->opened = 0;
	atomic_store_explicit(&k->n, 0, memory_order_relaxed);
	atomic_store_explicit(&k->base, p, memory_order_release);
	return k;
}

static Chunk *arenachunk_locked(Class *c)
{
	uint32_t cap = c->nextcap;
	Chunk *k;
	uintptr_t p;

	p = arenaalloc_locked(cap * c->slotsize);
	while (p == 0 && cap > 1) {
		cap /= 2;
		p = arenaalloc_locked(cap * c->slotsize);
	}
	if (p == 0)
		return NULL;
	k = chunknew_locked(c, cap);
	if (k == NULL) {
		stacks.arena = p;
		return NULL;
	}
	atomic_store_explicit(&k->base, p, memory_order_release);
	if (c->nextcap < MaxSlots)
		c->nextcap *= 2;
	return k;
}

/* Closes and forgets the mapping of a pooled or failed slot. */
static void unmap_locked(Chunk *k)
{
	uintptr_t p = atomic_load_explicit(&k->base, memory_order_relaxed);

	atomic_store_explicit(&k->base, 0, memory_order_relaxed);
	atomic_store_explicit(&k->n, 0, memory_order_relaxed);
	sysfree((void *)p, k->class->slotsize);
	k->nextunmapped = k->class->unmapped;
	k->class->unmapped = k;
}

/* Takes what can be unmapped out of a pool. */
static void unmaplist_locked(StackSlot **link)
{
	StackSlot *s;

	while ((s = *link) != NULL) {
		if (s->chunk->own) {
			*link = s->next;
			stacks.pooled--;
			unmap_locked(s->chunk);
		} else {
			link = &s->next;
		}
	}
}

static void unmappooled_locked(void)
{
	for (int i = 0; i < Buckets; i++) {
		Class *c = atomic_load_explicit(&stacks.bucket[i], memory_order_relaxed);

		for (; c != NULL; c = c->next) {
			unmaplist_locked(&c->dirty);
			unmaplist_locked(&c->clean);
		}
	}
}

/* --- guards --------------------------------------------------------------------- */

static int installguard(uintptr_t p, size_t n)
{
	long r;

	do
		r = sys3(SYS_madvise, (long)p, (long)n, MADV_GUARD_INSTALL);
	while (r == -EINTR || r == -EAGAIN);
	return (int)r;
}

/* Asks the kernel once. The page is unlocked first: before 6.15 locked memory
 * is refused its guards, which says nothing about other memory. */
static GuardBy probeguards(void)
{
	void *p = sysalloc(Page);
	int r;

	if (p == NULL)
		return GuardProtection;
	sys2(SYS_munlock, (long)p, Page);
	r = installguard((uintptr_t)p, Page);
	sysfree(p, Page);
	return r == 0 ? GuardMarkers : GuardProtection;
}

/* Makes slot i of k usable. */
static int openslot_locked(Chunk *k, uint32_t i)
{
	Class *c = k->class;
	uintptr_t p = atomic_load_explicit(&k->base, memory_order_relaxed) + i * c->slotsize;
	size_t ahead;
	int r;

	if (stacks.guardby == GuardProtection && c->guard > 0)
		return sysopen((void *)(p + c->guard), c->slotsize - c->guard);
	if (i >= k->opened) {
		/* Few at first: locked memory is filled when it is opened. */
		ahead = c->ncarved / 4;
		if (ahead > MaxOpen)
			ahead = MaxOpen;
		if (ahead > k->cap - i)
			ahead = k->cap - i;
		if (ahead < 1)
			ahead = 1;
		r = sysopen((void *)p, ahead * c->slotsize);
		if (r != 0 && ahead > 1) {
			ahead = 1;
			r = sysopen((void *)p, c->slotsize);
		}
		if (r != 0)
			return r;
		k->opened = i + (uint32_t)ahead;
	}
	if (c->guard == 0)
		return 0;
	if (stacks.nclosed < CLOSEDGUARDS && sysclose((void *)p, c->guard) == 0) {
		stacks.nclosed++;
		return 0;
	}
	r = installguard(p, c->guard);
	return r == 0 ? 0 : sysclose((void *)p, c->guard);
}

/* A slot of class c that was never used. NULL when something is exhausted. */
static StackSlot *carve_locked(Class *c)
{
	Chunk *k = c->chunk;
	StackSlot *s;
	uint32_t i;

	if (stacks.guardby == GuardUnknown)
		stacks.guardby = probeguards();
	if (c->slotsize >= OWNMAPPING) {
		k = ownchunk_locked(c);
	} else if (k == NULL) {
		k = addressspacelimited() ? ownchunk_locked(c) : arenachunk_locked(c);
		if (k != NULL && !k->own)
			c->chunk = k;
	}
	if (k == NULL)
		return NULL;
	i = atomic_load_explicit(&k->n, memory_order_relaxed);
	if (openslot_locked(k, i) != 0) {
		if (k->own)
			unmap_locked(k);
		return NULL;
	}
	s = &k->slots[i];
	s->chunk = k;
	s->index = i;
	/* Pairs with the acquire in stackguarded, and with a fork's child. */
	atomic_store_explicit(&k->n, i + 1, memory_order_release);
	c->ncarved++;
	if (i + 1 == k->cap)
		c->chunk = NULL;
	return s;
}

/* --- the calls --------------------------------------------------------------------- */

static Stack stackof(StackSlot *s)
{
	Class *c = s->chunk->class;
	uintptr_t p =
	    atomic_load_explicit(&s->chunk->base, memory_order_relaxed) + s->index * c->slotsize;

	return (Stack){
	    .guard = p,
	    .lo = p + c->guard,
	    .hi = p + c->slotsize - s->index % Colours * ColourStep,
	    .slot = s,
	};
}

/* Pools every slot of the parent's but the kept ones. */
static void rebuild_locked(void)
{
	Chunk *k;
	StackSlot *s;
	Stack st;

	stacks.forked = false;
	for (k = atomic_load_explicit(&stacks.chunks, memory_order_relaxed); k != NULL;
	     k = k->next) {
		uint32_t n = atomic_load_explicit(&k->n, memory_order_relaxed);

		if (atomic_load_explicit(&k->base, memory_order_relaxed) == 0)
			continue;
		for (uint32_t i = 0; i < n; i++) {
			s = &k->slots[i];
			st = stackof(s);
			s->inuse = false;
			for (int j = 0; j < stacks.nkept; j++)
				if (stacks.kept[j] >= st.guard &&
				    stacks.kept[j] < st.guard + k->class->slotsize)
					s->inuse = true;
			if (s->inuse) {
				stacks.inuse++;
				continue;
			}
			s->next = k->class->dirty;
			k->class->dirty = s;
			stacks.pooled++;
		}
	}
}

int stackalloc(size_t size, size_t guardsize, Stack *st)
{
	size_t guard = 0;
	StackSlot *s;
	Class *c;

	if (size > SIZEMAX || guardsize > SIZEMAX)
		return -EAGAIN;
	if (guardsize > 0)
		for (guard = Page; guard < guardsize; guard *= 2)
			;
	size = classsize(size + (Colours - 1) * ColourStep);
	lock(&stacks.lock);
	if (unlikely(stacks.forked))
		rebuild_locked();
	c = classget_locked(guard, size);
	if (c == NULL) {
		unlock(&stacks.lock);
		return -EAGAIN;
	}
	if (c->dirty != NULL) {
		s = c->dirty;
		c->dirty = s->next;
		stacks.pooled--;
	} else if (c->clean != NULL) {
		s = c->clean;
		c->clean = s->next;
		stacks.pooled--;
	} else {
		s = carve_locked(c);
		if (s == NULL) {
			unmappooled_locked();
			s = carve_locked(c);
		}
	}
	if (s != NULL) {
		s->next = NULL;
		s->inuse = true;
		stacks.inuse++;
		*st = stackof(s);
	}
	unlock(&stacks.lock);
	return s != NULL ? 0 : -EAGAIN;
}

void stackfree(Stack st)
{
	StackSlot *s = st.slot;
	Class *c;

	lock(&stacks.lock);
	if (unlikely(stacks.forked))
		rebuild_locked();
	c = s->chunk->class;
	if (!s->inuse || stackof(s).hi != st.hi)
		throw("stackfree: stack is not in use");
	s->inuse = false;
	stacks.inuse--;
	if (c->slotsize >= OWNMAPPING) {
		unmap_locked(s->chunk);
	} else {
		s->next = c->dirty;
		c->dirty = s;
		stacks.pooled++;
	}
	unlock(&stacks.lock);
}

/* Takes the dirty stacks of c beyond *keep out of the pool. */
static StackSlot *detach_locked(Class *c, size_t *keep)
{
	StackSlot **link = &c->dirty, *rest;

	for (; *link != NULL && *keep > 0; link = &(*link)->next)
		--*keep;
	rest = *link;
	*link = NULL;
	return rest;
}

/* Without the lock, so that threads can be made meanwhile: these stacks are ours. */
static void trimclass(Class *c, size_t *keep)
{
	StackSlot *s, *last = NULL, *list;
	Stack st;

	lock(&stacks.lock);
	list = detach_locked(c, keep);
	unlock(&stacks.lock);
	for (s = list; s != NULL; s = s->next) {
		st = stackof(s);
		sysunused((void *)st.lo, c->slotsize - c->guard);
		last = s;
	}
	if (last == NULL)
		return;
	lock(&stacks.lock);
	last->next = c->clean;
	c->clean = list;
	unlock(&stacks.lock);
}

void stacktrim(size_t keep)
{
	for (int i = 0; i < Buckets; i++) {
		/* Pairs with the release in classget_locked. */
		Class *c = atomic_load_explicit(&stacks.bucket[i], memory_order_acquire);

		for (; c != NULL; c = c->next)
			trimclass(c, &keep);
	}
}

bool stackguarded(uintptr_t addr)
{
	Chunk *k;

	for (k = atomic_load_explicit(&stacks.chunks, memory_order_acquire); k != NULL;
	     k = k->next) {
		uint32_t n = atomic_load_explicit(&k->n, memory_order_acquire);
		uintptr_t base = atomic_load_explicit(&k->base, memory_order_acquire);

		if (base != 0 && addr >= base && addr - base < n * k->class->slotsize)
			return (addr - base) % k->class->slotsize < k->class->guard;
	}
	return false;
}

void stackstats(size_t *inuse, size_t *pooled)
{
	lock(&stacks.lock);
	if (unlikely(stacks.forked))
		rebuild_locked();
	*inuse = stacks.inuse;
	*pooled = stacks.pooled;
	unlock(&stacks.lock);
}

/*
 * The lists may be torn, since a vanished thread may have held the lock. The
 * chunks and their counts are not: they are published last. So the pools are
 * made anew from these, by the first who wants one: most children exec.
 */
void stackforkchild(const uintptr_t *keep, int n)
{
	lockinit(&stacks.lock, RankStack);
	for (int i = 0; i < Buckets; i++) {
		Class *c = atomic_load_explicit(&stacks.bucket[i], memory_order_relaxed);

		for (; c != NULL; c = c->next) {
			c->dirty = c->clean = NULL;
			c->chunk = c->unmapped = NULL;
		}
	}
	stacks.arena = stacks.arenaend = 0;
	stacks.inuse = stacks.pooled = 0;
	if (n > MaxKept)
		throw("stackforkchild: too many stacks to keep");
	for (int i = 0; i < n; i++)
		stacks.kept[i] = keep[i];
	stacks.nkept = n;
	stacks.forked = true;
}
