/*
 * contention.c - how often locks were waited for, where a debugger finds it: in the object itself
 * and, for static ones, in a record that outlives the waiting.
 *
 * Static is what lies in data of the program and of the libraries that are there when the
 * scheduler starts: those are not unloaded. Other memory may be another object tomorrow.
 */
#include "sync.h"

#include <link.h>

#include "real.h"
#include "sched.h"

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

void lockcontended(const void *lock, WaitReason why, _Atomic uint32_t *count)
{
	if (count)
		atomic_fetch_add_explicit(count, 1, memory_order_relaxed);
	Handle *h = isstatic(lock) ? handleof(lock) : NULL;
	if (h) {
		atomic_fetch_add_explicit(&h->contended, 1, memory_order_relaxed);
		h->why = why;
	}
}
