/*
 * tls.c - a glibc thread block per goroutine.
 *
 * Everything that code reaches through %fs (errno, `__thread`, malloc's cache,
 * the locale, owners of FILE locks) lies in or below struct pthread, so a
 * goroutine that has a block of its own keeps all that when it changes kernel
 * threads. glibc makes and frees such blocks itself in pthread_create; it
 * exports what is needed to do the same (_dl_allocate_tls for dlmopen and
 * debuggers' sake, descriptors of field offsets for libthread_db). What it
 * does not export is found by looking at a real thread, and compared:
 * a glibc that differs in anything is not used.
 *
 * Blocks live in an arena of ours and are pooled. A pooled block is given its
 * initial TLS image again but for libc's own segment, where malloc keeps the
 * thread's cache and arena: glibc frees these in a function that is not
 * exported, so they stay with the block, and the next goroutine uses them.
 *
 * All blocks, pooled ones too, stay linked on _dl_stack_user: dlopen of a
 * library with initial-exec TLS writes its image into every block on that list.
 */
#include "tls.h"
#include "cancel.h"

#include <locale.h>
#include <malloc.h>
#include <netdb.h>
#include <stdatomic.h>
#include <sys/resource.h>

enum {
	TCB_SELF = 0x10,
	TCB_DTV = 0x08,
	TCB_MULTI = 0x18,
	TCB_STACKGUARD = 0x28,
	TCB_PTRGUARD = 0x30,
	TCB_FEATURE1 = 0x48,
	TCB_HEADERSIZE = 0x2c0,
	TIDMIN = 1 << 23,
	TIDMAX = 1 << 29,
};

/* --- the list of stacks, under glibc's own lock --------------------------------- */

void stackslock(void)
{
	_Atomic int *l = (_Atomic int *)tls.stacklock;
	int zero = 0;
	if (atomic_compare_exchange_strong(l, &zero, 1))
		return;
	while (atomic_exchange(l, 2) != 0) {
		entersyscall();
		sys4(SYS_futex, (long)l, 128 /* WAIT | PRIVATE */, 2, 0);
		exitsyscall();
	}
}

void stacksunlock(void)
{
	_Atomic int *l = (_Atomic int *)tls.stacklock;
	if (atomic_exchange(l, 0) == 2)
		sys3(SYS_futex, (long)l, 129 /* WAKE | PRIVATE */, 1);
}

static void linkblock(void *block)
{
	ListLink *user = tls.stackuser, *l = &TLSFIELD(block, ListLink, tls.list);
	stackslock();
	l->next = user->next;
	l->prev = user;
	user->next->prev = l;
	user->next = l;
	stacksunlock();
}

/* --- the arena and the pool --------------------------------------------------------- */

typedef union DtvEntry {
	size_t counter;
	struct {
		void *val, *tofree;
	} ptr;
} DtvEntry;

/*
 * A block is in use, pooled (finished, but linked and with its DTV), or raw: its memory
 * as before first use. Pooled ones beyond KEEP become raw again, if nothing of malloc's
 * hangs on them, and pages that only raw blocks cover go back to the system.
 */
enum { KEEP = 256, MANY = 16384 };
static struct {
	char *base, *end; /* reserved; of it is open, for reading and writing, */
	char *open;       /* what lies below */
	_Atomic(char *) brk;
	size_t stride;
	SpinLock lock;
	void *pool; /* by BlockTail.nextfree */
	void *kept; /* pooled ones that have a malloc cache: never raw again */
	int32_t npool;
	uint32_t generation; /* of the process: a fork child relinks what it reuses */
	uint32_t *raws;      /* stack of indexes of raw blocks below brk */
	uint8_t *israw;      /* by index */
	uint32_t nraw;
	_Atomic uint32_t freed; /* DTVs since malloc_trim */
} arena;

static Section poollock(void)
{
	return spinlock(&arena.lock);
}

static void poolunlock(Section s)
{
	spinunlock(&arena.lock, s);
}

void *blockextra(void *block)
{
	return (char *)block + ((tls.size + 63) & ~63u);
}

bool isblock(const void *p)
{
	return (const char *)p > arena.base && (const char *)p < atomic_load(&arena.brk);
}

/* What this file keeps at the end of the extra part. */
typedef struct BlockTail {
	void *nextfree;
	uint32_t generation;
} BlockTail;

static BlockTail *blocktail(void *block)
{
	return (BlockTail *)((char *)blockextra(block) + BLOCKEXTRA - sizeof(BlockTail));
}

static size_t pageup(size_t n)
{
	return (n + 4095) & ~(size_t)4095;
}

/* Static TLS lies below a block, and starts aligned as the block does. */
static size_t tlsbelow(void)
{
	return (tls.statictls - tls.size + tls.align - 1) & ~(tls.align - 1);
}

static bool arenainit(void)
{
	size_t below = tlsbelow();
	size_t above = ((tls.size + 63) & ~63u) + BLOCKEXTRA;
	arena.stride = (below + above + tls.align - 1) & ~(tls.align - 1);
	/* Room for millions; where address space is limited (ulimit -v) a part of it, since
	 * the stacks need many times as much. */
	size_t most = 64ul << 30;
	struct rlimit as;
	if (getrlimit(RLIMIT_AS, &as) == 0 && as.rlim_cur / 16 < most)
		most = as.rlim_cur / 16 & ~4095ul;
	for (size_t n = most; n >= 64 * arena.stride; n = n / 4 & ~4095ul) {
		size_t tables = pageup(n / arena.stride * sizeof *arena.raws);
		long r = sys6(SYS_mmap, 0, (long)(n + 2 * tables), 0 /* PROT_NONE */,
			      0x4022 /* PRIVATE|ANON|NORESERVE */, -1, 0);
		if (r < 0 && r > -4096)
			continue;
		arena.base = arena.open = (char *)r;
		arena.end = arena.base + n;
		arena.raws = (uint32_t *)arena.end;
		arena.israw = (uint8_t *)arena.end + tables;
		/* Blocks are small and scattered over time: huge pages would waste memory. */
		sys3(SYS_madvise, r, (long)n, 15 /* MADV_NOHUGEPAGE */);
		/* gdb's gcore would write it all. */
		sys3(SYS_madvise, r, (long)(n + 2 * tables), 16 /* MADV_DONTDUMP */);
		atomic_store(&arena.brk, arena.base);
		return true;
	}
	return false;
}

static bool openmemory(void *p, size_t n)
{
	n = pageup(n);
	if (sys3(SYS_mprotect, (long)p, (long)n, 3 /* read, write */))
		return false;
	sys3(SYS_madvise, (long)p, (long)n, 17 /* MADV_DODUMP */);
	return true;
}

/*
 * Opens room for more blocks, and the tables for as many. Not all at once:
 * what is open is filled by mlockall, walked for a core file, and counted by limits.
 */
static bool arenagrow(void)
{
	size_t had = (size_t)(arena.open - arena.base);
	size_t n = pageup(had / 8 + (256 << 10));
	if (n > (size_t)(arena.end - arena.open))
		n = (size_t)(arena.end - arena.open);
	size_t blocks = (had + n) / arena.stride;
	if (n < arena.stride || !openmemory(arena.open, n) ||
	    !openmemory(arena.raws, blocks * sizeof *arena.raws) ||
	    !openmemory(arena.israw, blocks))
		return false;
	arena.open += n;
	return true;
}

/* A zeroed block at its place in the arena, without TLS; NULL: full. */
static void *blockfresh(void)
{
	size_t below = (tls.statictls - tls.size + tls.align - 1) & ~(tls.align - 1);
	Section s = poollock();
	if (!arena.base && !arenainit()) {
		poolunlock(s);
		return NULL;
	}
	if (arena.nraw) {
		uint32_t i = arena.raws[--arena.nraw];
		arena.israw[i] = 0;
		poolunlock(s);
		char *raw = arena.base + (size_t)i * arena.stride;
		memset(raw, 0, arena.stride);
		return raw + below;
	}
	char *at = atomic_load(&arena.brk);
	if (at + arena.stride > arena.open && !arenagrow()) {
		poolunlock(s);
		return NULL;
	}
	atomic_store(&arena.brk, at + arena.stride);
	poolunlock(s);
	return at + below;
}

uint32_t tidalloc(void)
{
	static _Atomic uint32_t next;
	return TIDMIN + atomic_fetch_add(&next, 1) % (TIDMAX - TIDMIN);
}

/* Fields that say where a block is, and that nothing hangs on it. */
static void blockself(void *block)
{
	TLSFIELD(block, void *, 0) = block;
	TLSFIELD(block, void *, TCB_SELF) = block;
	char *head = (char *)block + tls.robusthead;
	TLSFIELD(block, void *, tls.robusthead - 8) = head;
	memcpy(head, selfblock() + tls.robusthead, 24); /* the offset of futex words */
	TLSFIELD(head, void *, 0) = head;
	TLSFIELD(head, void *, 16) = NULL;
	TLSFIELD(block, void *, tls.specific) = (char *)block + tls.specific1st;
	TLSFIELD(block, void *, tls.resp) = (char *)block + tls.res;
	if (tls.rseq)
		TLSFIELD((char *)block + tls.rseq, int32_t, 4) = -2; /* cpu_id: not registered */
}

/* Fields that a new thread's block has, whoever had it before. */
static void blockfill(void *block, uint32_t tid, uintptr_t lo, uintptr_t hi, size_t guard)
{
	char *self = selfblock();
	TLSFIELD(block, int, TCB_MULTI) = 1;
	TLSFIELD(block, uintptr_t, TCB_STACKGUARD) = TLSFIELD(self, uintptr_t, TCB_STACKGUARD);
	TLSFIELD(block, uintptr_t, TCB_PTRGUARD) = TLSFIELD(self, uintptr_t, TCB_PTRGUARD);
	TLSFIELD(block, uint32_t, TCB_FEATURE1) = TLSFIELD(self, uint32_t, TCB_FEATURE1);
	TLSFIELD(block, uint32_t, tls.tid) = tid;
	TLSFIELD(block, void *, tls.cleanup) = NULL;
	TLSFIELD(block, void *, tls.cleanupjmp) = NULL;
	TLSFIELD(block, int, tls.cancelhandling) = 0;
	TLSFIELD(block, int, tls.flags) = 0; /* libc has not read its priority */
	TLSFIELD(block, uint8_t, tls.userstack) = 1;
	TLSFIELD(block, uintptr_t, tls.stackblock) = lo - guard;
	TLSFIELD(block, size_t, tls.stackblock + 8) = hi - lo + guard;
	TLSFIELD(block, size_t, tls.stackblock + 16) = guard;
	TLSFIELD(block, size_t, tls.stackblock + 24) = guard;
	blockself(block);
}

void *blockcopy(void *top)
{
	char *self = selfblock(), *block = (char *)(((uintptr_t)top - tls.size) & ~(tls.align - 1));
	memcpy(block - tlsbelow(), self - tlsbelow(), tlsbelow() + tls.size);
	blockself(block);
	tlssetg(block, NULL);
	return block;
}

void *blockcopyend(void *block)
{
	return (void *)(((uintptr_t)block - tlsbelow()) & ~(uintptr_t)63);
}

/* What libc has allocated for the block's last thread. May park. */
static void blockclear(void *block)
{
	void **ceilings = &TLSFIELD(block, void *, tls.ceilings);
	free(*ceilings);
	*ceilings = NULL;
	DtvEntry *dtv = TLSFIELD(block, DtvEntry *, TCB_DTV);
	for (size_t i = 1; i <= dtv[-1].counter; i++)
		if (dtv[i].ptr.tofree)
			free(dtv[i].ptr.tofree);
}

/* Initial values for all modules but libc; dynamic ones are allocated at first use again. */
static bool blockreimage(void *block)
{
	char save[4096];
	memcpy(save, (char *)block + tls.libctls, tls.libctlssize);
	DtvEntry *dtv = TLSFIELD(block, DtvEntry *, TCB_DTV);
	blockclear(block);
	memset(dtv, 0, (dtv[-1].counter + 1) * sizeof *dtv);
	bool ok = tls.allocateinit(block, true) != NULL;
	char *seg = (char *)block + tls.libctls;
	memcpy(seg, save, tls.libctlssize);
	/* One that the last thread's keys have left there at its end is nobody's, as natively. */
	for (int i = 0; i < tls.ndtorwords; i++)
		TLSFIELD(seg, void *, tls.dtorword[i]) = NULL;
	return ok;
}

void *blockget(uint32_t tid, uintptr_t lo, uintptr_t hi, size_t guard)
{
	Section s = poollock();
	void **from = arena.kept ? &arena.kept : &arena.pool, *block = *from;
	if (block) {
		*from = blocktail(block)->nextfree;
		arena.npool -= from == &arena.pool;
	}
	poolunlock(s);
	if (block) {
		blockreimage(block);
	} else {
		block = blockfresh();
		if (!block)
			return NULL;
		/* libc takes the DTV from the program's malloc. */
		if (!tls.allocate(block)) {
			memset(block, 0, TCB_HEADERSIZE);
			return NULL;
		}
	}
	blockfill(block, tid, lo, hi, guard);
	BlockTail *tail = blocktail(block);
	if (tail->generation != arena.generation + 1) {
		tail->generation = arena.generation + 1;
		linkblock(block);
	}
	return block;
}

void blockput(void *block)
{
	Section s = poollock();
	blocktail(block)->nextfree = arena.pool;
	arena.pool = block;
	arena.npool++;
	poolunlock(s);
}

/* Does libc's malloc keep a cache for this block's threads? */
static bool mallocused(void *block)
{
	char *seg = (char *)block + tls.libctls;
	for (int i = 0; i < tls.nmallocwords; i++)
		if (TLSFIELD(seg, void *, tls.mallocword[i]))
			return true;
	return false;
}

/* The block's memory is not needed: nor are pages that belong to raw blocks alone. */
static void makeraw(void *block)
{
	size_t i = (size_t)((char *)block - arena.base) / arena.stride;
	Section s = poollock();
	arena.raws[arena.nraw++] = (uint32_t)i;
	arena.israw[i] = 1;
	size_t nblocks = (size_t)(atomic_load(&arena.brk) - arena.base) / arena.stride;
	size_t first = i * arena.stride >> 12, last = ((i + 1) * arena.stride - 1) >> 12;
	for (size_t page = first; page <= last; page++) {
		size_t b = (page << 12) / arena.stride;
		bool all = true;
		for (; all && b < nblocks && b * arena.stride < (page + 1) << 12; b++)
			all = arena.israw[b];
		if (all)
			sys3(SYS_madvise, (long)(arena.base + (page << 12)), 4096,
			     4 /* MADV_DONTNEED */);
	}
	poolunlock(s);
}

void blocktrim(void)
{
	uint32_t n = 0;
	while (arena.npool > KEEP) { /* a hint; looked at again under the lock */
		Section s = poollock();
		void *block = arena.npool > KEEP ? arena.pool : NULL;
		if (block) {
			arena.pool = blocktail(block)->nextfree;
			arena.npool--;
			if (mallocused(block)) {
				blocktail(block)->nextfree = arena.kept;
				arena.kept = block;
				poolunlock(s);
				continue;
			}
		}
		poolunlock(s);
		if (!block)
			break;
		ListLink *l = &TLSFIELD(block, ListLink, tls.list);
		if (blocktail(block)->generation == arena.generation + 1) {
			stackslock();
			l->next->prev = l->prev;
			l->prev->next = l->next;
			stacksunlock();
		}
		blockclear(block);
		free(TLSFIELD(block, DtvEntry *, TCB_DTV) - 1);
		makeraw(block);
		n++;
	}
	/* The DTVs leave holes in libc's heap, which gives back only what is at its end. */
	if (atomic_fetch_add(&arena.freed, n) + n >= MANY &&
	    libcsym("malloc", NULL) == (void *)malloc) {
		atomic_store(&arena.freed, 0);
		malloc_trim(0);
	}
}

void blockstart(void)
{
	errno = 0;
	h_errno = 0;
	uselocale(LC_GLOBAL_LOCALE);
	tls.ctypeinit();
}

/* --- the kernel's view of the main thread ----------------------------------------------- */

/*
 * The kernel writes to the rseq area of a thread whenever it is scheduled, and
 * kills the process if what it reads there makes no sense: the area must never be in
 * memory that is used for something else. Moves the calling kernel thread's
 * registration from one block to another.
 */
static void moverseq(void *from, void *to)
{
	enum { RSEQ_SIG = 0x53053053, UNREGISTER = 1, SIZE = 32 };
	if (!tls.rseq)
		return;
	char *a = (char *)from + tls.rseq, *b = (char *)to + tls.rseq;
	bool was = sys4(SYS_rseq, (long)a, SIZE, UNREGISTER, RSEQ_SIG) == 0;
	TLSFIELD(a, int32_t, 4) = -2; /* cpu_id: not registered */
	memset(b, 0, SIZE);
	if (!was || sys4(SYS_rseq, (long)b, SIZE, 0, RSEQ_SIG) < 0)
		TLSFIELD(b, int32_t, 4) = -2;
}

void *blockm0(void)
{
	void *block = blockfresh();
	if (!block || !tls.allocate(block))
		return NULL;
	blockfill(block, (uint32_t)sys0(SYS_gettid), 0, 0, 0);
	ListLink *l = &TLSFIELD(block, ListLink, tls.list);
	l->next = l->prev = l; /* libc never touches it */
	sys2(SYS_set_robust_list, (long)block + tls.robusthead, 24);
	sys1(SYS_set_tid_address, (long)block + tls.tid);
	moverseq(selfblock(), block);
	return block;
}

bool blockknown(void)
{
	void *head = NULL;
	size_t len = 0;
	if (getg())
		return true;
	sys3(SYS_get_robust_list, 0, (long)&head, (long)&len);
	return head == (char *)selfblock() + ROBUSTOFFSET &&
	       selftid() == (uint32_t)sys0(SYS_gettid);
}

void blockadopt(void)
{
	char *self = selfblock(), *head = self + ROBUSTOFFSET;
	TLSFIELD(self, int, TIDOFFSET) = (int)sys1(SYS_set_tid_address, (long)(self + TIDOFFSET));
	/* What the parent held it holds. */
	TLSFIELD(head, void *, -8) = TLSFIELD(head, void *, 0) = head;
	TLSFIELD(head, void *, 16) = NULL;
	sys2(SYS_set_robust_list, (long)head, 24);
}

void blockkernel(void)
{
	/* libc's fork has set tid, clear-tid and robust list of the block in FS. */
	moverseq(mblock(), selfblock());
}

void blockforkchild(void)
{
	/* libc's fork has emptied the list but for the caller; _Fork and clone have not. */
	ListLink *user = tls.stackuser;
	*tls.stacklock = 0;
	user->next = user->prev = user;
	/* (A foreign thread's may be on the list of stacks that libc made.) */
	if (TLSFIELD(selfblock(), uint8_t, tls.userstack))
		linkblock(selfblock());
	/* Blocks of the parent's goroutines stay where they are, like their stacks; free ones
	 * are reused, relinked first. */
	arena.generation++;
	if (isblock(selfblock()))
		blocktail(selfblock())->generation = arena.generation + 1;
	atomic_store(&arena.lock, 0);
}
