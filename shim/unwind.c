/*
 * unwind.c - frames by libunwind's remote interface, of our own address space.
 *
 * Its local interface would do, but for what it takes for granted: that the stack stands still
 * while it is read, and that dl_iterate_phdr may be called, whose lock a parked goroutine may
 * hold. So the stack is a copy, all other memory is read by a system call that fails where there is
 * nothing, and objects are found by the loader's list, which debuggers read without a lock, too.
 *
 * libunwind.so exports _Unwind_* and backtrace: loaded with the program it could take them from
 * libgcc_s and libc. dlopen with RTLD_LOCAL keeps it to us.
 */
#include "unwind.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <libunwind-x86_64.h>
#include <link.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static struct {
	unw_addr_space_t space; /* NULL: it could not be loaded */
	__typeof__(&_Ux86_64_init_remote) init;
	__typeof__(&_Ux86_64_step) step;
	__typeof__(&_Ux86_64_get_reg) reg;
	__typeof__(&_Ux86_64_is_signal_frame) signal;
	int (*search)(unw_addr_space_t, unw_word_t, unw_dyn_info_t *, unw_proc_info_t *, int,
		      void *);
} lib;

/* --- memory ------------------------------------------------------------------ */

/* Whole words are asked for mostly, of the same places for every goroutine. */
typedef struct Page {
	uintptr_t addr; /* 0: empty */
	bool there;
	unsigned char bytes[4096];
} Page;
static Page pages[64];

typedef struct Reader {
	const Registers *regs;
	const StackCopy *stack;
} Reader;

/* Only what no correct program takes away is read: its own code's tables, and the loader's. */
static bool ownonly;

static bool peekown(uintptr_t addr, void *buf, size_t n)
{
	for (uintptr_t at = addr & ~4095ul; at < addr + n; at += 4096)
		if (!memreadable(at))
			return false;
	memcpy(buf, (const void *)addr, n);
	return true;
}

bool peek(uintptr_t addr, void *buf, size_t n)
{
	if (ownonly)
		return peekown(addr, buf, n);
	struct iovec to = {buf, n}, from = {(void *)addr, n};
	return sys6(SYS_process_vm_readv, sys0(SYS_getpid), (long)&to, 1, (long)&from, 1, 0) ==
	       (long)n;
}

static bool readmem(Reader *r, uintptr_t addr, void *buf, size_t n)
{
	const StackCopy *s = r->stack;
	if (addr >= s->lo && addr + n <= s->lo + s->n) {
		memcpy(buf, (const char *)s->copy + (addr - s->lo), n);
		return true;
	}
	uintptr_t at = addr & ~(uintptr_t)4095;
	if (addr < 4096 || addr + n > at + 4096)
		return peek(addr, buf, n);
	Page *p = &pages[(at >> 12) % nelem(pages)];
	if (p->addr != at) {
		p->addr = at;
		p->there = peek(at, p->bytes, sizeof p->bytes);
	}
	if (p->there)
		memcpy(buf, p->bytes + (addr - at), n);
	return p->there;
}

/* --- objects ----------------------------------------------------------------- */

/* The first one is the program: where its headers lie the kernel has said. */
static bool segments(const struct link_map *m, bool first, Object *o)
{
	ElfW(Ehdr) eh;
	ElfW(Phdr) ph[24];
	uintptr_t at;
	size_t n;

	if (first) {
		at = getauxval(AT_PHDR);
		n = getauxval(AT_PHNUM);
	} else {
		if (!peek(m->l_addr, &eh, sizeof eh) || memcmp(eh.e_ident, ELFMAG, SELFMAG))
			return false;
		at = m->l_addr + eh.e_phoff;
		n = eh.e_phnum;
	}
	if (n > nelem(ph))
		n = nelem(ph);
	if (!peek(at, ph, n * sizeof *ph))
		return false;
	*o = (Object){.base = m->l_addr,
		      .lo = UINTPTR_MAX,
		      .headers = at,
		      .nheaders = (int)n,
		      .dynamic = (uintptr_t)m->l_ld,
		      .name = (uintptr_t)m->l_name};
	for (size_t i = 0; i < n; i++) {
		uintptr_t lo = m->l_addr + ph[i].p_vaddr, hi = lo + ph[i].p_memsz;
		if (ph[i].p_type == PT_LOAD && lo < o->lo)
			o->lo = lo;
		if (ph[i].p_type == PT_LOAD && hi > o->hi)
			o->hi = hi;
		if (ph[i].p_type == PT_GNU_EH_FRAME)
			o->ehframehdr = lo;
	}
	return true;
}

static struct {
	Object object[32];
	unsigned next;
} known;

/* The loader answers without a lock, since glibc 2.35; what the caller runs in or waits for is not unloaded. */
static bool objectasked(uintptr_t pc, Object *o)
{
	static __typeof__(&_dl_find_object) find;
	struct dl_find_object found;
	if (!find)
		find = libcsym("_dl_find_object", "GLIBC_2.35");
	if (!find || find((void *)pc, &found))
		return false;
	const struct link_map *m = found.dlfo_link_map;
	return segments(m, m == _r_debug.r_map, o) && pc >= o->lo && pc < o->hi;
}

bool objectat(uintptr_t pc, Object *o)
{
	struct link_map m;

	for (unsigned i = 0; i < nelem(known.object); i++) {
		if (pc >= known.object[i].lo && pc < known.object[i].hi) {
			*o = known.object[i];
			return true;
		}
	}
	if (ownonly && objectasked(pc, o)) {
		known.object[known.next++ % nelem(known.object)] = *o;
		return true;
	}
	if (ownonly && libcsym("_dl_find_object", "GLIBC_2.35"))
		return false;
	uintptr_t at = (uintptr_t)_r_debug.r_map;
	for (int i = 0; at && i < 10000; i++, at = (uintptr_t)m.l_next) {
		if (!peek(at, &m, sizeof m))
			return false;
		if (segments(&m, i == 0, o) && pc >= o->lo && pc < o->hi) {
			known.object[known.next++ % nelem(known.object)] = *o;
			return true;
		}
	}
	return false;
}

/* --- libunwind's questions ------------------------------------------------------- */

/* The header that PT_GNU_EH_FRAME leads to, in the one form that linkers write. */
typedef struct EhFrameHdr {
	uint8_t version, frameenc, countenc, tableenc;
	int32_t frame;
	uint32_t count;
} EhFrameHdr;
enum { Version = 1, UData4 = 0x03, DataRelSData4 = 0x3b };

static int findprocinfo(unw_addr_space_t as, unw_word_t pc, unw_proc_info_t *pi, int needinfo,
			void *arg)
{
	Reader *r = arg;
	Object o;
	EhFrameHdr h;

	if (!objectat(pc, &o) || !o.ehframehdr || !readmem(r, o.ehframehdr, &h, sizeof h) ||
	    h.version != Version || h.countenc != UData4 || h.tableenc != DataRelSData4)
		return -UNW_ENOINFO;
	unw_dyn_info_t di = {
	    .start_ip = o.lo,
	    .end_ip = o.hi,
	    .format = UNW_INFO_FORMAT_REMOTE_TABLE,
	    .u.rti = {.segbase = o.ehframehdr,
		      .table_data = o.ehframehdr + sizeof h,
		      .table_len = h.count * 8 / sizeof(unw_word_t)},
	};
	return lib.search(as, pc, &di, pi, needinfo, arg);
}

static void putunwindinfo(unw_addr_space_t as, unw_proc_info_t *pi, void *arg)
{
	(void)as;
	(void)pi;
	(void)arg;
}

static int dyninfo(unw_addr_space_t as, unw_word_t *list, void *arg)
{
	(void)as;
	(void)list;
	(void)arg;
	return -UNW_ENOINFO;
}

static int accessmem(unw_addr_space_t as, unw_word_t addr, unw_word_t *value, int write, void *arg)
{
	(void)as;
	return !write && readmem(arg, addr, value, sizeof *value) ? 0 : -UNW_EINVAL;
}

static int accessreg(unw_addr_space_t as, unw_regnum_t reg, unw_word_t *value, int write, void *arg)
{
	const Registers *r = ((Reader *)arg)->regs;
	(void)as;
	if (write)
		return -UNW_EREADONLYREG;
	switch (reg) {
	case UNW_X86_64_RIP: *value = r->pc; return 0;
	case UNW_X86_64_RSP: *value = r->sp; return 0;
	case UNW_X86_64_RBP: *value = r->bp; return 0;
	case UNW_X86_64_RBX: *value = r->bx; return 0;
	case UNW_X86_64_R12: *value = r->r12; return 0;
	case UNW_X86_64_R13: *value = r->r13; return 0;
	case UNW_X86_64_R14: *value = r->r14; return 0;
	case UNW_X86_64_R15: *value = r->r15; return 0;
	default: *value = 0; return 0;
	}
}

static int accessfpreg(unw_addr_space_t as, unw_regnum_t reg, unw_fpreg_t *value, int write,
		       void *arg)
{
	(void)as;
	(void)reg;
	(void)value;
	(void)write;
	(void)arg;
	return -UNW_EBADREG;
}

static int resume(unw_addr_space_t as, unw_cursor_t *c, void *arg)
{
	(void)as;
	(void)c;
	(void)arg;
	return -UNW_EINVAL;
}

static int procname(unw_addr_space_t as, unw_word_t pc, char *buf, size_t n, unw_word_t *off,
		    void *arg)
{
	(void)as;
	(void)pc;
	(void)buf;
	(void)n;
	(void)off;
	(void)arg;
	return -UNW_ENOINFO;
}

/* --- frames ------------------------------------------------------------------------ */

static unw_accessors_t accessors = {
    .find_proc_info = findprocinfo,
    .put_unwind_info = putunwindinfo,
    .get_dyn_info_list_addr = dyninfo,
    .access_mem = accessmem,
    .access_reg = accessreg,
    .access_fpreg = accessfpreg,
    .resume = resume,
    .get_proc_name = procname,
};

/*
 * The library makes a pipe to try memory by, which it doesn't with accessors like ours. It would keep
 * two numbers that the program expects to get.
 */
static void withoutpipe(unw_addr_space_t space, __typeof__(&_Ux86_64_set_caching_policy) init)
{
	long fd[2];
	struct stat st[2];

	for (int i = 0; i < 2; i++)
		fd[i] = sys2(SYS_eventfd2, 0, O_CLOEXEC);
	for (int i = 0; i < 2; i++)
		sys1(SYS_close, fd[i]);
	init(space, UNW_CACHE_NONE);
	for (int i = 0; i < 2; i++)
		if (fstat((int)fd[i], &st[i]) || !S_ISFIFO(st[i].st_mode))
			return;
	for (int i = 0; i < 2 && st[0].st_ino == st[1].st_ino; i++)
		sys1(SYS_close, fd[i]);
}

void unwindinit(void)
{
	if (lib.space)
		return;
	void *h = dlopen("libunwind-x86_64.so.8", RTLD_NOW | RTLD_LOCAL);
	if (!h) {
		dlerror(); /* the program's next one is not to be this */
		return;
	}
	__typeof__(&_Ux86_64_create_addr_space) create = dlsym(h, "_Ux86_64_create_addr_space");
	__typeof__(&_Ux86_64_set_caching_policy) cache = dlsym(h, "_Ux86_64_set_caching_policy");
	lib.init = dlsym(h, "_Ux86_64_init_remote");
	lib.step = dlsym(h, "_Ux86_64_step");
	lib.reg = dlsym(h, "_Ux86_64_get_reg");
	lib.signal = dlsym(h, "_Ux86_64_is_signal_frame");
	lib.search = dlsym(h, "_Ux86_64_dwarf_search_unwind_table");
	if (!create || !cache || !lib.init || !lib.step || !lib.reg || !lib.signal || !lib.search)
		return;
	unw_addr_space_t space = create(&accessors, 0);
	if (!space)
		return;
	withoutpipe(space, cache);
	lib.space = space;
	/* What it does once it does now. */
	Registers here = {.pc = (uintptr_t)unwindinit};
	StackCopy none = {0, 0, NULL};
	Frame f[2];
	unwindstack(&here, &none, f, 2);
}

void unwindbegin(bool own)
{
	ownonly = own;
	memset(&known, 0, sizeof known);
	for (size_t i = 0; i < nelem(pages); i++)
		pages[i].addr = 0;
	symbolbegin();
}

int unwindstack(const Registers *regs, const StackCopy *stack, Frame *frames, int max)
{
	Reader r = {.regs = regs, .stack = stack};
	unw_cursor_t c;
	int n = 0;

	/* A call of a null pointer: no code, so no frame, but where it was made is on the stack. */
	Registers caller = *regs;
	if (regs->pc == 0 && readmem(&r, regs->sp, &caller.pc, sizeof caller.pc)) {
		frames[n++] = (Frame){.pc = 0, .interrupted = true};
		caller.sp += sizeof caller.pc;
		r.regs = &caller;
	}
	if (!lib.space || lib.init(&c, lib.space, &r)) {
		frames[0] = (Frame){.pc = regs->pc, .interrupted = true};
		return 1;
	}
	while (n < max) {
		unw_word_t pc = 0;
		if (lib.reg(&c, UNW_REG_IP, &pc) || pc == 0)
			break;
		/* Said of what a signal has interrupted; the frame before is the trampoline's. */
		bool interrupted = n == 0 || lib.signal(&c) > 0;
		if (n > 0)
			frames[n - 1].signal = interrupted;
		frames[n++] = (Frame){.pc = pc, .interrupted = interrupted};
		if (lib.step(&c) <= 0)
			break;
	}
	return n;
}
