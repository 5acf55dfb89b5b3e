/*
 * mem.c - memory of the runtime's own.
 *
 * The problem: malloc belongs to the program. It may be the program's own, it
 * may hold a lock that a parked goroutine owns, and it calls into us when it
 * waits. So the runtime has an allocator that depends on nothing but mmap.
 *
 * The design: regions of address space, and in them free blocks, in units of
 * 64 bytes. A free block describes itself in its first bytes, the rest of it is
 * zero, so memory is zero when handed out and a stray write through a dangling
 * pointer is found by memcheck. Blocks that are handed out carry no header:
 * the caller knows the size, and a block of 64 bytes takes 64.
 *
 * The free list is kept in address order, so that a freed block meets its
 * neighbours and merges with them, and allocation takes the lowest block that
 * fits, which keeps the region's end free. 100,000 goroutines can leave half
 * as many holes, and walking those one by one would make freeing quadratic;
 * so the list is threaded through a treap: a search tree by address, in heap
 * order of a hash of the address, each node knowing the largest block below
 * it. Finding the place, the neighbours and the lowest fit take O(log n). Size
 * classes were rejected: they never merge, and few sizes are asked for here.
 *
 * A region is first mapped at the lower end of a large hole in the address space,
 * and grows upwards into it while it is free. Nothing is reserved: a reserved
 * gigabyte counts against the program's RLIMIT_AS. When somebody else has
 * mapped something into the hole, a further region is begun.
 */
#include "mem.h"

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "api.h"
#include "lock.h"
#include "os.h"

enum {
	Unit = 64,
	Page = 4096,
	MaxDepth = 256,        /* of the treap: far beyond what chance can build */
	GiveBack = 256 * 1024, /* freed blocks from this size on return their pages */
};
#define GROWMIN ((size_t)256 * 1024)
#define GROWMAX ((size_t)4 * 1024 * 1024)
#define HOLE ((size_t)1024 * 1024 * 1024)
#define PERSISTENTCHUNK ((size_t)256 * 1024)

/* A free block's first bytes. */
typedef struct Free Free;
struct Free {
	size_t size; /* bytes, a multiple of Unit */
	size_t max;  /* largest size in the subtree */
	Free *left, *right;
};
_Static_assert(sizeof(Free) <= Unit, "a free block must be able to describe itself");

typedef struct Region {
	uintptr_t lo, hi;
} Region;

/* Protected by lock. */
static struct {
	Lock lock;
	Free *root;
	int nfree;
	size_t freebytes;
	Region *regions; /* a block of its own in the first region */
	int nregions, capregions;
	Region first[8];
	size_t sys;
} mem = {.lock = LOCK_INIT(RankMem)};

/* Protected by its lock. */
static struct {
	Lock lock;
	uintptr_t next, end;
	size_t sys, inuse;
} persistent = {.lock = LOCK_INIT(RankMem)};

/* Regions of before the last fork: what is freed there is left alone. */
static _Atomic uint32_t forks;

bool memcheck_on;

static size_t roundup(size_t n, size_t to)
{
	return (n + to - 1) & ~(to - 1);
}

/* --- the treap ------------------------------------------------------------- */

static uint64_t priority(const Free *f)
{
	uint64_t x = (uintptr_t)f;

	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdULL;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53ULL;
	return x ^ x >> 33;
}

static size_t maxof(const Free *f)
{
	return f == NULL ? 0 : f->max;
}

static void update(Free *f)
{
	f->max = f->size;
	if (maxof(f->left) > f->max)
		f->max = f->left->max;
	if (maxof(f->right) > f->max)
		f->max = f->right->max;
}

/* Everything in a lies below everything in b. */
static Free *join(Free *a, Free *b)
{
	if (a == NULL)
		return b;
	if (b == NULL)
		return a;
	if (priority(a) > priority(b)) {
		a->right = join(a->right, b);
		update(a);
		return a;
	}
	b->left = join(a, b->left);
	update(b);
	return b;
}

/* Splits t into what lies below `at` and what lies above. */
static void split(Free *t, uintptr_t at, Free **a, Free **b)
{
	if (t == NULL) {
		*a = *b = NULL;
	} else if ((uintptr_t)t < at) {
		split(t->right, at, &t->right, b);
		*a = t;
		update(t);
	} else {
		split(t->left, at, a, &t->left);
		*b = t;
		update(t);
	}
}

static Free *insert(Free *t, Free *f)
{
	if (t == NULL || priority(f) > priority(t)) {
		split(t, (uintptr_t)f, &f->left, &f->right);
		t = f;
	} else if ((uintptr_t)f < (uintptr_t)t) {
		t->left = insert(t->left, f);
	} else {
		t->right = insert(t->right, f);
	}
	update(t);
	return t;
}

static Free *delete (Free *t, Free *f)
{
	if (t == NULL)
		throw("mem: free block lost");
	if (t == f)
		return join(t->left, t->right);
	if ((uintptr_t)f < (uintptr_t)t)
		t->left = delete (t->left, f);
	else
		t->right = delete (t->right, f);
	update(t);
	return t;
}

/* The block nearest below `at`, and the one nearest at or above it. */
static void neighbours(uintptr_t at, Free **below, Free **above)
{
	Free *t = mem.root;

	*below = *above = NULL;
	while (t != NULL) {
		if ((uintptr_t)t < at) {
			*below = t;
			t = t->right;
		} else {
			*above = t;
			t = t->left;
		}
	}
}

static Free *lowestfit(size_t n)
{
	Free *t = mem.root;

	if (maxof(t) < n)
		return NULL;
	for (;;) {
		if (maxof(t->left) >= n)
			t = t->left;
		else if (t->size >= n)
			return t;
		else
			t = t->right;
	}
}

static void addfree(uintptr_t p, size_t n)
{
	Free *f = (Free *)p;

	f->size = n;
	mem.root = insert(mem.root, f);
	mem.nfree++;
	mem.freebytes += n;
}

static void dropfree(Free *f)
{
	mem.root = delete (mem.root, f);
	mem.nfree--;
	mem.freebytes -= f->size;
	memset(f, 0, sizeof(*f));
}

/* --- regions ---------------------------------------------------------------- */

static Region *regionof(uintptr_t p)
{
	for (int i = 0; i < mem.nregions; i++)
		if (p >= mem.regions[i].lo && p < mem.regions[i].hi)
			return &mem.regions[i];
	return NULL;
}

/* Does p end one region and begin another? Blocks don't merge across. */
static bool isborder(uintptr_t p)
{
	for (int i = 0; i < mem.nregions; i++)
		if (p == mem.regions[i].lo)
			return true;
	return false;
}

/* Puts [p, p+n), zero and in one region, among the free blocks. */
static void merge(uintptr_t p, size_t n)
{
	Free *below, *above;

	neighbours(p, &below, &above);
	if ((below != NULL && (uintptr_t)below + below->size > p) ||
	    (above != NULL && p + n > (uintptr_t)above))
		throw("runtime_free: memory is free already");
	if (above != NULL && p + n == (uintptr_t)above && !isborder((uintptr_t)above)) {
		n += above->size;
		dropfree(above);
	}
	if (below != NULL && (uintptr_t)below + below->size == p && !isborder(p)) {
		p = (uintptr_t)below;
		n += below->size;
		dropfree(below);
	}
	addfree(p, n);
}

/* The lower end of a large hole, or wherever there is room. */
static void *mapregion(size_t n)
{
	void *hole = sysreserveclosed(HOLE + n);

	if (hole != NULL) {
		sysfree(hole, HOLE + n);
		if (sysallocat(hole, n))
			return hole;
	}
	return sysalloc(n);
}

/* Gets at least n more bytes in one piece. */
static bool grow(size_t n)
{
	Region *r = mem.nregions > 0 ? &mem.regions[mem.nregions - 1] : NULL;
	size_t chunk = roundup(mem.sys / 8, Page);
	uintptr_t p;

	if (chunk < GROWMIN)
		chunk = GROWMIN;
	if (chunk > GROWMAX)
		chunk = GROWMAX;
	if (chunk < n)
		chunk = roundup(n, Page);
	if (r != NULL && sysallocat((void *)r->hi, chunk)) {
		p = r->hi;
		r->hi += chunk;
		mem.sys += chunk;
		merge(p, chunk);
		return true;
	}
	if (mem.nregions == mem.capregions) {
		if (mem.capregions == 0) {
			mem.regions = mem.first;
			mem.capregions = nelem(mem.first);
		} else {
			/* Pages of their own: a table in the memory that it describes
			 * would have to be grown while that is short. The old one is
			 * given back only if it was not the first. */
			size_t had = (size_t)mem.capregions * sizeof(Region);
			size_t want = roundup(2 * had, Page);
			Region *table = sysalloc(want);

			if (table == NULL)
				return false;
			memcpy(table, mem.regions, had);
			if (mem.regions != mem.first)
				sysfree(mem.regions, had);
			mem.regions = table;
			mem.capregions = (int)(want / sizeof(Region));
		}
	}
	p = (uintptr_t)mapregion(chunk);
	if (p == 0)
		return false;
	mem.regions[mem.nregions++] = (Region){p, p + chunk};
	mem.sys += chunk;
	merge(p, chunk);
	return true;
}

/* --- the two calls ------------------------------------------------------------ */

static int memcheck_locked(void);

void *runtime_alloc(size_t n)
{
	Free *f;
	uintptr_t p = 0;
	size_t rest;

	if (n == 0)
		n = 1;
	if (n > (size_t)1 << 46)
		return NULL;
	n = roundup(n, Unit);
	lock(&mem.lock);
	if (memcheck_on)
		memcheck_locked();
	f = lowestfit(n);
	if (f == NULL && grow(n))
		f = lowestfit(n);
	if (f != NULL) {
		p = (uintptr_t)f;
		rest = f->size - n;
		dropfree(f);
		if (rest > 0)
			addfree(p + n, rest);
	}
	if (memcheck_on)
		memcheck_locked();
	unlock(&mem.lock);
	return (void *)p;
}

/* Zeroes what comes back, by dropping the pages when there are many. */
static void clean(uintptr_t p, size_t n)
{
	uintptr_t lo, hi;

	if (n < GiveBack) {
		memset((void *)p, 0, n);
		return;
	}
	lo = roundup(p, Page);
	hi = (p + n) & ~(uintptr_t)(Page - 1);
	memset((void *)p, 0, lo - p);
	/* Locked memory (mlockall) is not given back, and stays as it was. */
	if (sysunused((void *)lo, hi - lo) != 0)
		memset((void *)lo, 0, hi - lo);
	memset((void *)hi, 0, p + n - hi);
}

void runtime_free(void *v, size_t n)
{
	uintptr_t p = (uintptr_t)v;
	Region *r;

	if (v == NULL)
		return;
	n = roundup(n == 0 ? 1 : n, Unit);
	lock(&mem.lock);
	r = regionof(p);
	if (r == NULL || p % Unit != 0 || p + n > r->hi) {
		if (atomic_load_explicit(&forks, memory_order_relaxed) == 0)
			throw("runtime_free: memory is not the allocator's");
		unlock(&mem.lock);
		return;
	}
	clean(p, n);
	merge(p, n);
	if (memcheck_on)
		memcheck_locked();
	unlock(&mem.lock);
}

void *persistentalloc(size_t n, size_t align)
{
	uintptr_t p = 0;

	if (align == 0)
		align = 16;
	if ((align & (align - 1)) != 0)
		throw("persistentalloc: align is not a power of two");
	if (align > Page || n > (size_t)1 << 46)
		return NULL;
	lock(&persistent.lock);
	if (n >= PERSISTENTCHUNK / 4) {
		n = roundup(n, Page);
		p = (uintptr_t)sysalloc(n);
		if (p != 0)
			persistent.sys += n;
	} else {
		p = roundup(persistent.next, align);
		if (persistent.next == 0 || p + n > persistent.end) {
			p = (uintptr_t)sysalloc(PERSISTENTCHUNK);
			if (p != 0) {
				persistent.sys += PERSISTENTCHUNK;
				persistent.end = p + PERSISTENTCHUNK;
			}
		}
		if (p != 0)
			persistent.next = p + n;
	}
	if (p != 0)
		persistent.inuse += n;
	unlock(&persistent.lock);
	return (void *)p;
}

void memstats(size_t *sys, size_t *inuse)
{
	lock(&mem.lock);
	*sys = mem.sys;
	*inuse = mem.sys - mem.freebytes;
	unlock(&mem.lock);
	lock(&persistent.lock);
	*sys += persistent.sys;
	*inuse += persistent.inuse;
	unlock(&persistent.lock);
}

/*
 * A vanished thread may have held the locks and left anything half done: the
 * child begins with nothing, and the parent's blocks, some of which it
 * goes on to use, are never freed.
 */
void memforkchild(void)
{
	atomic_fetch_add_explicit(&forks, 1, memory_order_relaxed);
	memset(&mem, 0, sizeof(mem));
	lockinit(&mem.lock, RankMem);
	memset(&persistent, 0, sizeof(persistent));
	lockinit(&persistent.lock, RankMem);
}

/* --- memcheck ----------------------------------------------------------------- */

typedef struct Walk {
	uintptr_t end; /* of the block before in address order */
	int nfree;
	size_t bytes;
} Walk;

/* Everything below f must lie in [lo, hi). */
static void checktree(Free *f, uintptr_t lo, uintptr_t hi, int depth, Walk *w)
{
	const uint64_t *zero, *end;
	Region *r;

	if (f == NULL)
		return;
	if (depth > MaxDepth || w->nfree > mem.nfree)
		throw("memcheck: loop in the free list");
	r = regionof((uintptr_t)f);
	if (r == NULL || (uintptr_t)f % Unit != 0)
		throw("memcheck: free block outside regions");
	if (f->size == 0 || f->size % Unit != 0 || f->size > r->hi - (uintptr_t)f)
		throw("memcheck: free block of bad size");
	if ((uintptr_t)f < lo || (uintptr_t)f >= hi)
		throw("memcheck: free list out of order");
	checktree(f->left, lo, (uintptr_t)f, depth + 1, w);

	if ((uintptr_t)f < w->end)
		throw("memcheck: free blocks overlap");
	if ((uintptr_t)f == w->end && !isborder(w->end))
		throw("memcheck: neighbours not merged");
	w->end = (uintptr_t)f + f->size;
	w->nfree++;
	w->bytes += f->size;

	checktree(f->right, (uintptr_t)f + 1, hi, depth + 1, w);
	end = (const uint64_t *)((uintptr_t)f + f->size);
	for (zero = (const uint64_t *)(f + 1); zero < end; zero++)
		if (*zero != 0)
			throw("memcheck: free memory was written to");
	if ((f->left != NULL && priority(f->left) > priority(f)) ||
	    (f->right != NULL && priority(f->right) > priority(f)))
		throw("memcheck: treap out of heap order");
	if (f->max < f->size || f->max < maxof(f->left) || f->max < maxof(f->right) ||
	    (f->max != f->size && f->max != maxof(f->left) && f->max != maxof(f->right)))
		throw("memcheck: wrong largest block");
}

static int memcheck_locked(void)
{
	Walk w = {0, 0, 0};

	checktree(mem.root, 0, UINTPTR_MAX, 0, &w);
	if (w.nfree != mem.nfree || w.bytes != mem.freebytes)
		throw("memcheck: free blocks lost");
	return w.nfree;
}

int memcheck(void)
{
	int n;

	lock(&mem.lock);
	n = memcheck_locked();
	unlock(&mem.lock);
	return n;
}
