/*
 * tlsprobe.c - where glibc keeps what in a thread block.
 *
 * Offsets come from libthread_db's descriptors, from what the kernel and libc have registered, and from looking at a
 * real thread; a glibc that differs in one of them is refused.
 */
#include "tls.h"

#include <malloc.h>
#include <stdatomic.h>

TlsLayout tls;

typedef void StaticInfo(size_t *size, size_t *align);

enum { CANCELSIZE = 8, WORDS = nelem(tls.mallocword), KEYS1ST = 32 };

/* A descriptor of libthread_db: { size in bits, count, offset }. */
static bool dboffset(const char *name, uint32_t *off)
{
	const uint32_t *d = libcsym(name, "GLIBC_PRIVATE");
	if (!d)
		return false;
	*off = d[2];
	return true;
}

static int findlibcsegment(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	uintptr_t known = (uintptr_t)libcsym("gnu_get_libc_version", NULL);
	bool in = false;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		uintptr_t at = info->dlpi_addr + ph->p_vaddr;
		in |= ph->p_type == PT_LOAD && known >= at && known < at + ph->p_memsz;
	}
	for (int i = 0; in && i < info->dlpi_phnum; i++) {
		if (info->dlpi_phdr[i].p_type != PT_TLS || !info->dlpi_tls_data)
			continue;
		tls.libctls = (char *)info->dlpi_tls_data - (char *)selfblock();
		tls.libctlssize = info->dlpi_phdr[i].p_memsz;
	}
	return in;
}

size_t tlsstaticsize(void)
{
	StaticInfo *info = libcsym("_dl_get_tls_static_info", "GLIBC_PRIVATE");
	size_t size = 65536, align;
	if (info)
		info(&size, &align);
	return size;
}

static const char *probe(void *block, uintptr_t stackaddr, size_t stacksize)
{
	uint32_t seltid, rtld_user, rtld_used, listoff;
	tls.allocate = libcsym("_dl_allocate_tls", "GLIBC_PRIVATE");
	tls.allocateinit = libcsym("_dl_allocate_tls_init", "GLIBC_PRIVATE");
	StaticInfo *staticinfo = libcsym("_dl_get_tls_static_info", "GLIBC_PRIVATE");
	tls.ctypeinit = libcsym("__ctype_init", "GLIBC_PRIVATE");
	char *rtld = libcsym("_rtld_global", "GLIBC_PRIVATE");
	if (!tls.allocate || !tls.allocateinit || !staticinfo || !tls.ctypeinit || !rtld)
		return "private functions";
	uint32_t *size = libcsym("_thread_db_sizeof_pthread", "GLIBC_PRIVATE");
	if (!size || !dboffset("_thread_db_pthread_tid", &seltid) ||
	    !dboffset("_thread_db_pthread_list", &listoff) ||
	    !dboffset("_thread_db_pthread_cancelhandling", &tls.cancelhandling) ||
	    !dboffset("_thread_db_pthread_specific", &tls.specific) ||
	    !dboffset("_thread_db_pthread_start_routine", &tls.start) ||
	    !dboffset("_thread_db_rtld_global__dl_stack_used", &rtld_used) ||
	    !dboffset("_thread_db_rtld_global__dl_stack_user", &rtld_user))
		return "descriptors of struct pthread";
	tls.size = *size;
	tls.tid = seltid;
	tls.list = listoff;
	if (tls.tid != TIDOFFSET || tls.list != TIDOFFSET - 16)
		return "place of the thread id";
	char *self = selfblock();
	if (TLSFIELD(self, int, tls.tid) != (int)sys0(SYS_gettid))
		return "thread id";

	/* The kernel knows where the robust list is. */
	void *head = NULL;
	size_t len = 0;
	sys3(SYS_get_robust_list, 0, (long)&head, (long)&len);
	tls.robusthead = ROBUSTOFFSET;
	if ((char *)head != self + tls.robusthead || len != 24)
		return "robust list";
	tls.cleanup = tls.robusthead + 24;
	tls.cleanupjmp = tls.cleanup + 8;
	if (tls.cancelhandling != tls.cleanupjmp + 8 || tls.cancelhandling != CANCELOFFSET)
		return "cancellation state";
	tls.specific1st = tls.cancelhandling + CANCELSIZE;
	if (tls.specific != tls.specific1st + KEYS1ST * 16)
		return "thread-specific data";
	if (TLSFIELD(self, void *, tls.specific) != self + tls.specific1st ||
	    TLSFIELD(block, char *, tls.specific) != (char *)block + tls.specific1st)
		return "thread-specific data";
	tls.specificused = tls.specific + KEYS1ST * 8;
	tls.userstack = tls.specificused + 2;
	if (TLSFIELD(block, uint8_t, tls.userstack) != 1)
		return "stack flags";

	/* The stack that the real thread was given is written down somewhere. */
	for (uint32_t off = tls.specificused; off + 16 <= tls.size && !tls.stackblock; off += 8)
		if (TLSFIELD(block, uintptr_t, off) == stackaddr &&
		    TLSFIELD(block, size_t, off + 8) == stacksize)
			tls.stackblock = off;
	if (!tls.stackblock)
		return "stack bounds";
	tls.ceilings = tls.stackblock + 32;
	tls.flags = tls.cancelhandling + 4;

	if (!tls.libctlssize || tls.libctls >= 0 || tls.libctlssize > 4096)
		return "libc's thread-local segment";
	uintptr_t respoff = (uintptr_t)libcsym("__resp", "GLIBC_PRIVATE");
	if (respoff + 8 > tls.libctlssize)
		return "resolver state";
	tls.resp = tls.libctls + (ptrdiff_t)respoff;
	ptrdiff_t res = TLSFIELD(block, char *, tls.resp) - (char *)block;
	if (res <= 0 || res >= (ptrdiff_t)tls.size)
		return "resolver state";
	tls.res = (uint32_t)res;
	if (tls.res != tls.ceilings + 8)
		return "priority ceilings";

	staticinfo(&tls.statictls, &tls.align);
	if (tls.statictls < tls.size || tls.align < 16 || tls.align > 4096)
		return "static TLS size";

	/* _dl_stack_user, _dl_stack_cache, two words, the lock. */
	ListLink *user = (ListLink *)(rtld + rtld_user), *cache = user + 1;
	tls.stackuser = user;
	tls.stackused = (ListLink *)(rtld + rtld_used);
	tls.stacklock = (int *)((char *)(cache + 1) + 16);
	ListLink *mine = (ListLink *)(self + tls.list);
	if (user->next->prev != user || user->prev->next != user || cache->next->prev != cache ||
	    mine->next->prev != mine || *tls.stacklock != 0)
		return "lists of stacks";
	bool found = false;
	for (ListLink *l = user->next; l != user; l = l->next)
		found |= l == (ListLink *)((char *)block + tls.list);
	if (!found)
		return "list of user stacks";

	ptrdiff_t *rseqoff = libcsym("__rseq_offset", NULL);
	tls.rseq = rseqoff ? *rseqoff : 0;
	return NULL;
}

/* The words of libc's segment that differ from what they were. */
static int changedwords(const uint64_t *before, size_t n, uint16_t *word)
{
	const char *seg = (char *)selfblock() + tls.libctls;
	int found = 0;
	for (size_t i = 0; i < n; i++)
		if (memcmp(seg + i * 8, &before[i], 8) && found < WORDS)
			word[found++] = (uint16_t)(i * 8);
	return found;
}

static void nodtor(void *arg)
{
	(void)arg;
}

extern int __cxa_thread_atexit_impl(void (*fn)(void *), void *arg, void *dso);
extern void *__dso_handle;

/*
 * Finds the words of libc's segment where malloc keeps a thread's cache, those that a first malloc sets; and those
 * that a first destructor of a thread_local variable does.
 */
void tlsprobethread(void)
{
	enum { MAX = 4096 / 8 };
	uint64_t before[MAX];
	char *seg = (char *)selfblock() + tls.libctls;
	size_t n = tls.libctlssize / 8;
	void (*calldtors)(void) = libcsym("__call_tls_dtors", "GLIBC_PRIVATE");
	if (n > MAX || !calldtors)
		return; /* probe will not like it either */
	memcpy(before, seg, n * 8);
	void *volatile p = malloc(24); /* or the compiler leaves both calls out */
	free(p);
	tls.nmallocwords = changedwords(before, n, tls.mallocword);
	memcpy(before, seg, n * 8);
	__cxa_thread_atexit_impl(nodtor, NULL, &__dso_handle);
	tls.ndtorwords = changedwords(before, n, tls.dtorword);
	calldtors();
}

void tlsprobelibc(void)
{
	memset(&tls, 0, sizeof tls);
	real.dl_iterate_phdr(findlibcsegment, NULL);
}

void tlsprobe(void *realblock, uintptr_t stackaddr, size_t stacksize)
{
	tls.misfit = probe(realblock, stackaddr, stacksize);
	tls.ok = !tls.misfit;
}
