/*
 * symbol.c - which function an address is in, by the symbols of the file it was loaded from, or, where that can't
 * be had (a server in a chroot, a file that was replaced), by those that the loader uses.
 *
 * Files are read, not mapped: one that is truncated meanwhile must not end the process.
 */
#include "unwind.h"

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Symbols of an object, in its file or in memory. */
typedef struct Table {
	uintptr_t object; /* where that begins; 0: empty */
	bool infile;
	bool sized; /* those that have no size are left out: too many others are missing */
	uint64_t syms, nsyms, strs, nstrs;
} Table;

static struct {
	Table table[32];
	unsigned next;
	struct {
		Frame frame;
		Symbol symbol;
	} known[256];
	char exe[sizeof((Symbol *)0)->object]; /* the program's path */
} cache;

void symbolbegin(void)
{
	memset(cache.table, 0, sizeof cache.table);
	for (size_t i = 0; i < nelem(cache.known); i++)
		cache.known[i].frame.pc = 0;
	if (!cache.exe[0]) {
		long n = sys3(SYS_readlink, (long)"/proc/self/exe", (long)cache.exe,
			      sizeof cache.exe - 1);
		if (n <= 0) {
			const char *s = (const char *)getauxval(AT_EXECFN);
			n = s ? (long)strnlen(s, sizeof cache.exe - 1) : 0;
			memcpy(cache.exe, s, (size_t)n);
		}
		cache.exe[n] = '\0';
	}
}

/* --- reading ------------------------------------------------------------------------ */

static bool readat(int fd, uint64_t at, void *buf, size_t n)
{
	return sys4(SYS_pread64, fd, (long)buf, (long)n, (long)at) == (long)n;
}

/* Of a table: fd if it is in a file. */
static bool fetch(const Table *t, int fd, uint64_t at, void *buf, size_t n)
{
	return t->infile ? readat(fd, at, buf, n) : peek(at, buf, n);
}

/* As much of a string as fits. */
static void fetchstring(const Table *t, int fd, uint64_t at, char *buf, size_t size)
{
	size_t n = 0;
	while (n + 1 < size && fetch(t, fd, at + n, buf + n, 1) && buf[n])
		n++;
	buf[n] = '\0';
}

void objectpath(const Object *o, char *buf, size_t size)
{
	Table memory = {.infile = false};
	fetchstring(&memory, -1, o->name, buf, size);
	if (!buf[0])
		memcpy(buf, cache.exe, sizeof cache.exe < size ? sizeof cache.exe : size);
}

/* --- where the symbols are --------------------------------------------------------------- */

/* Is this the file that was loaded? Another build has other segments. */
static bool samefile(int fd, const ElfW(Ehdr) * eh, const Object *o)
{
	ElfW(Phdr) a[24], b[24];
	size_t n = eh->e_phnum < nelem(a) ? eh->e_phnum : nelem(a);
	return readat(fd, eh->e_phoff, a, n * sizeof *a) && peek(o->headers, b, n * sizeof *b) &&
	       !memcmp(a, b, n * sizeof *a);
}

/* In the file: the full table if it has one, else the loader's. */
static bool filetable(int fd, const Object *o, Table *t)
{
	ElfW(Ehdr) eh;
	ElfW(Shdr) sh, syms = {.sh_type = SHT_NULL}, strs;

	if (!readat(fd, 0, &eh, sizeof eh) || memcmp(eh.e_ident, ELFMAG, SELFMAG) ||
	    !samefile(fd, &eh, o))
		return false;
	for (unsigned i = 0; i < eh.e_shnum; i++) {
		if (!readat(fd, eh.e_shoff + i * sizeof sh, &sh, sizeof sh))
			return false;
		if (sh.sh_type == SHT_SYMTAB ||
		    (sh.sh_type == SHT_DYNSYM && syms.sh_type == SHT_NULL))
			syms = sh;
	}
	if (syms.sh_type == SHT_NULL ||
	    !readat(fd, eh.e_shoff + syms.sh_link * sizeof strs, &strs, sizeof strs))
		return false;
	*t = (Table){.object = o->lo,
		     .infile = true,
		     .sized = syms.sh_type == SHT_DYNSYM,
		     .syms = syms.sh_offset,
		     .nsyms = syms.sh_size / sizeof(ElfW(Sym)),
		     .strs = strs.sh_offset,
		     .nstrs = strs.sh_size};
	return true;
}

/* How many symbols the loader's hash table knows of: the last one of the last chain, and one. */
static uint64_t hashed(uintptr_t at)
{
	uint32_t h[4], last = 0, link; /* buckets, first symbol, words of the filter */
	if (!peek(at, h, sizeof h))
		return 0;
	uintptr_t buckets = at + sizeof h + 8ull * h[2], chains = buckets + 4ull * h[0];
	for (uint32_t i = 0, b; i < h[0]; i++) {
		if (!peek(buckets + 4ull * i, &b, sizeof b))
			return 0;
		last = b > last ? b : last;
	}
	if (last < h[1])
		return 0;
	do {
		if (!peek(chains + 4ull * (last - h[1]), &link, sizeof link))
			return 0;
		last++;
	} while (!(link & 1));
	return last;
}

static bool memorytable(const Object *o, Table *t)
{
	ElfW(Dyn) d;
	uintptr_t hash = 0;

	*t = (Table){.object = o->lo, .sized = true};
	for (uintptr_t at = o->dynamic; peek(at, &d, sizeof d) && d.d_tag != DT_NULL;
	     at += sizeof d) {
		/* The loader has added the base; the vdso's it leaves alone. */
		uintptr_t p = d.d_un.d_ptr < o->base ? d.d_un.d_ptr + o->base : d.d_un.d_ptr;
		switch (d.d_tag) {
		case DT_SYMTAB: t->syms = p; break;
		case DT_STRTAB: t->strs = p; break;
		case DT_STRSZ: t->nstrs = d.d_un.d_val; break;
		case DT_GNU_HASH: hash = p; break;
		}
	}
	t->nsyms = hash ? hashed(hash) : 0;
	return t->syms && t->strs && t->nsyms;
}

bool loadedat(uintptr_t addr, Loaded *l)
{
	ElfW(Phdr) ph[24];
	Object o;

	if (!objectat(addr, &o))
		return false;
	*l = (Loaded){.lo = o.lo, .hi = o.hi, .base = o.base, .own = owntext(addr)};
	l->nheaders = (uint32_t)o.nheaders;
	if (peek(o.headers, ph, l->nheaders * sizeof *ph))
		l->headers = profiledigest(ph, l->nheaders * sizeof *ph);
	objectpath(&o, l->path, sizeof l->path);
	return true;
}

/* --- names --------------------------------------------------------------------------- */

static const Table *tableof(const Object *o, int fd)
{
	for (unsigned i = 0; i < nelem(cache.table); i++)
		if (cache.table[i].object == o->lo)
			return &cache.table[i];
	Table *t = &cache.table[cache.next++ % nelem(cache.table)];
	if ((fd < 0 || !filetable(fd, o, t)) && !memorytable(o, t))
		*t = (Table){.object = o->lo};
	return t;
}

/* Is s a name for what is at addr? */
static bool names(const ElfW(Sym) * s, uint64_t addr, bool data, bool sized)
{
	int type = ELF64_ST_TYPE(s->st_info);
	if (s->st_shndx == SHN_UNDEF || s->st_value > addr)
		return false;
	if (data)
		return type == STT_OBJECT && addr < s->st_value + s->st_size;
	return (type == STT_FUNC || type == STT_GNU_IFUNC || type == STT_NOTYPE) &&
	       (s->st_size ? addr < s->st_value + s->st_size : !sized);
}

static void nearest(const Table *t, int fd, uint64_t addr, bool data, Symbol *out)
{
	ElfW(Sym) syms[128], best = {.st_name = 0};

	for (uint64_t i = 0; i < t->nsyms; i += nelem(syms)) {
		size_t n = t->nsyms - i < nelem(syms) ? t->nsyms - i : nelem(syms);
		if (!fetch(t, fd, t->syms + i * sizeof *syms, syms, n * sizeof *syms))
			return;
		for (ElfW(Sym) *s = syms; s < syms + n; s++) {
			if (!names(s, addr, data, t->sized) || s->st_value < best.st_value ||
			    s->st_name >= t->nstrs)
				continue;
			/* Of names for the same place, one with a size: it is the function's. */
			if (best.st_name && s->st_value == best.st_value &&
			    (best.st_size || !s->st_size))
				continue;
			best = *s;
		}
	}
	if (!best.st_name)
		return;
	fetchstring(t, fd, t->strs + best.st_name, out->function, sizeof out->function);
	out->offset = addr - best.st_value;
}

static void look(const Frame *frame, Symbol *out)
{
	/* The call's own address: what follows it may be another line, or another function. */
	uintptr_t pc = frame->pc - (frame->interrupted || frame->signal || frame->data ? 0 : 1);
	Object o;

	memset(out, 0, sizeof *out);
	out->own = owntext(pc);
	if (!objectat(pc, &o))
		return;
	objectpath(&o, out->object, sizeof out->object);
	out->address = pc - o.base;
	ownfdmake();
	int fd =
	    ownfdmade((int)sys4(SYS_openat, AT_FDCWD, (long)out->object, O_RDONLY | O_CLOEXEC, 0));
	const Table *t = tableof(&o, fd);
	if (!t->infile || fd >= 0)
		nearest(t, fd, out->address, frame->data, out);
	ownfdclose(fd);
	if (out->function[0])
		out->offset += frame->pc - pc;
}

void symbolize(const Frame *frame, Symbol *out)
{
	size_t i = frame->pc * 0x9e3779b97f4a7c15ull >> 56;
	if (cache.known[i].frame.pc != frame->pc ||
	    cache.known[i].frame.interrupted != frame->interrupted ||
	    cache.known[i].frame.data != frame->data) {
		look(frame, &cache.known[i].symbol);
		cache.known[i].frame = *frame;
	}
	*out = cache.known[i].symbol;
}
