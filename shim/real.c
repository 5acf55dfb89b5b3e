/*
 * real.c - finds libc's functions in the loader's own tables.
 *
 * _r_debug lists the loaded objects (it is what debuggers read); of each the
 * dynamic section names the hash table, the symbols and their versions. For what
 * we call we look only into libc.so.6 and ld.so, known by DT_SONAME, so an
 * interposer between us and libc is passed by: it would call back into us.
 *
 * Rejected: dlsym and dlvsym (lock, malloc, and before glibc 2.36 RTLD_NEXT
 * found the oldest version of a symbol); lazy resolution (first use may be in a
 * signal handler or under a lock); a constructor (those of other libraries, and
 * malloc replacements, may run and lock mutexes before ours). The way to run first
 * is an indirect function: its resolver is called while the loader relocates
 * us, single-threaded, all objects mapped and libc relocated before us. The loader
 * does indirect relocations last, but may come to the PLT's later still: this file
 * calls other objects through the GOT only (-fno-plt).
 *
 * There, too, is decided what the exported functions are. Each is a jump by a table (entries): to the shim's functions,
 * or, with GOSHIM=mode=kernel, to libc's own and those of ours that time them. It can't change later, since
 * a lock of one is none of the other's; and a test in each function would be as dear and could be forgotten. The table is
 * read-only once the loader has relocated us.
 */
#include "keys.h"
#include "shim.h"

#include <stddef.h>

struct Real real;

static const struct Row {
	const char *name, *version;
	size_t offset;
	bool optional;
	int entry;   /* of what is exported; -1: it is not */
	void *timed; /* its function in kernel mode; NULL: libc's own */
} rows[] = {
#include "symbols.inc"
};

static const char *missing;

/* The tables of one loaded object. */
typedef struct Object {
	uintptr_t base;
	const uint32_t *gnuhash;
	const uint32_t *hash; /* the older table; Go's linker writes no other */
	const ElfW(Sym) * symtab;
	const char *strtab;
	const ElfW(Half) * versym;
	const char *verdef;
	const char *soname;
} Object;

static bool streq(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

/* False when symbols can't be looked up (the vdso of some kernels, old objects). */
static bool readobject(const struct link_map *map, Object *o)
{
	*o = (Object){.base = map->l_addr};
	size_t soname = 0;
	for (const ElfW(Dyn) *d = map->l_ld; d && d->d_tag != DT_NULL; d++) {
		/* The loader has made these absolute, save in objects it may not write. */
		uintptr_t p = d->d_un.d_ptr;
		if (p < o->base)
			p += o->base;
		switch (d->d_tag) {
		case DT_GNU_HASH: o->gnuhash = (const uint32_t *)p; break;
		case DT_HASH: o->hash = (const uint32_t *)p; break;
		case DT_SYMTAB: o->symtab = (const ElfW(Sym) *)p; break;
		case DT_STRTAB: o->strtab = (const char *)p; break;
		case DT_VERSYM: o->versym = (const ElfW(Half) *)p; break;
		case DT_VERDEF: o->verdef = (const char *)p; break;
		case DT_SONAME: soname = d->d_un.d_val; break;
		}
	}
	if (o->gnuhash && o->gnuhash[0] == 0)
		o->gnuhash = NULL;
	if ((!o->gnuhash && !o->hash) || !o->symtab || !o->strtab)
		return false;
	if (soname)
		o->soname = o->strtab + soname;
	return true;
}

static const char *versionname(const Object *o, unsigned index)
{
	const char *p = o->verdef;
	for (;;) {
		const ElfW(Verdef) *def = (const ElfW(Verdef) *)p;
		if (def->vd_ndx == index)
			return o->strtab + ((const ElfW(Verdaux) *)(p + def->vd_aux))->vda_name;
		if (def->vd_next == 0)
			return "";
		p += def->vd_next;
	}
}

/* version NULL: the default one, whose hidden bit is clear, or an object without versions. */
static bool rightversion(const Object *o, uint32_t sym, const char *version)
{
	if (!o->versym)
		return !version;
	unsigned v = o->versym[sym];
	if (!version)
		return !(v & 0x8000);
	return streq(versionname(o, v & 0x7fff), version);
}

static void *symaddress(const Object *o, const ElfW(Sym) * sym)
{
	unsigned type = ELF64_ST_TYPE(sym->st_info);
	if (type == STT_TLS)
		return (void *)sym->st_value;
	uintptr_t addr = o->base + sym->st_value;
	if (type == STT_GNU_IFUNC)
		return ((void *(*)(void))addr)();
	return (void *)addr;
}

static uint32_t hashname(const char *s)
{
	uint32_t h = 5381;
	for (; *s; s++)
		h = h * 33 + (unsigned char)*s;
	return h;
}

static bool defines(const Object *o, uint32_t i, const char *name, const char *version)
{
	const ElfW(Sym) *sym = &o->symtab[i];
	return sym->st_shndx != SHN_UNDEF && streq(o->strtab + sym->st_name, name) &&
	       rightversion(o, i, version);
}

/* The GNU hash table: header, Bloom filter (skipped), buckets, then chains in
 * which the lowest bit of a hash marks the end. */
static void *lookup(const Object *o, const char *name, uint32_t hash, const char *version)
{
	if (!o->gnuhash) {
		for (uint32_t i = 1; i < o->hash[1]; i++)
			if (defines(o, i, name, version))
				return symaddress(o, &o->symtab[i]);
		return NULL;
	}
	uint32_t nbuckets = o->gnuhash[0], symbias = o->gnuhash[1], maskwords = o->gnuhash[2];
	const uint32_t *buckets = o->gnuhash + 4 + maskwords * (sizeof(ElfW(Addr)) / 4);
	const uint32_t *chains = buckets + nbuckets;

	uint32_t i = buckets[hash % nbuckets];
	if (i < symbias)
		return NULL;
	for (;; i++) {
		uint32_t h = chains[i - symbias];
		if ((h | 1) == (hash | 1) && defines(o, i, name, version))
			return symaddress(o, &o->symtab[i]);
		if (h & 1)
			return NULL;
	}
}

/* Found once: these two stay, but the list they are in changes under others' dlopen and dlclose. */
static Object libc, ldso;

static void findlibc(void)
{
	for (const struct link_map *map = _r_debug.r_map; map; map = map->l_next) {
		Object o;
		if (!readobject(map, &o) || !o.soname || !o.versym || !o.verdef)
			continue;
		if (streq(o.soname, "libc.so.6"))
			libc = o;
		else if (streq(o.soname, "ld-linux-x86-64.so.2"))
			ldso = o;
	}
}

void *libcsym(const char *name, const char *version)
{
	uint32_t hash = hashname(name);
	void *p = NULL;
	if (libc.soname)
		p = lookup(&libc, name, hash, version);
	if (!p && ldso.soname)
		p = lookup(&ldso, name, hash, version);
	return p;
}

void *firstdefinition(const char *name)
{
	uint32_t hash = hashname(name);
	void *p = NULL;
	for (const struct link_map *map = _r_debug.r_map; map && !p; map = map->l_next) {
		Object o;
		if (readobject(map, &o))
			p = lookup(&o, name, hash, NULL);
	}
	return p;
}

int (*realsigsetjmp)(struct __jmp_buf_tag *, int);
int (*realgetcontext)(ucontext_t *);
int (*realswapcontext)(ucontext_t *, const ucontext_t *);
long (*realsyscall)(long, ...);

bool realinit(void)
{
	const char *lack = NULL;

	findlibc();
	if (!libc.soname) {
		missing = "libc.so.6";
		return false;
	}
	for (size_t i = 0; i < nelem(rows); i++) {
		void *p = lookup(&libc, rows[i].name, hashname(rows[i].name), rows[i].version);
		*(void **)((char *)&real + rows[i].offset) = p;
		if (!p && !rows[i].optional && !lack)
			lack = rows[i].name;
	}
	realsigsetjmp = real.__sigsetjmp;
	realgetcontext = real.getcontext;
	realswapcontext = real.swapcontext;
	realsyscall = real.syscall;
	missing = lack;
	return lack == NULL;
}

const char *realmissing(void)
{
	return missing;
}

/* --- kernel mode -------------------------------------------------------------------------- */

bool kernelmode;

/* Is s, up to a comma or its end, this word? */
static bool isitem(const char *s, const char *word)
{
	while (*s && *s == *word) {
		s++;
		word++;
	}
	return !*word && (!*s || *s == ',');
}

/* The last word on it counts, as with all settings. */
static bool askskernelmode(const char *goshim)
{
	bool asks = false;
	size_t n = 0;
	while (goshim[n])
		n++;
	if (n > MAXSETTINGS)
		return false;
	for (const char *s = goshim; *s; s++) {
		if (s != goshim && s[-1] != ',')
			continue;
		if (isitem(s, "mode=kernel"))
			asks = true;
		else if (isitem(s, "mode=goroutines"))
			asks = false;
	}
	return asks;
}

/* The environment as the program was given it: no code of the program has run. */
static const char *environment(const char *name)
{
	uintptr_t *end = libcsym("__libc_stack_end", NULL);
	if (!end || !*end)
		return NULL;
	long argc = *(long *)*end;
	for (char **e = (char **)*end + 1 + argc + 1; *e; e++) {
		const char *s = *e, *n = name;
		while (*n && *s == *n) {
			s++;
			n++;
		}
		if (!*n && *s == '=')
			return s + 1;
	}
	return NULL;
}

/* symbols.def's functions, each behind an exported jump; on goroutines they are the shim's. */
extern void *entries[] shim_hidden;

static void bindkernelmode(void)
{
	for (size_t i = 0; i < nelem(rows); i++) {
		void *p =
		    rows[i].timed ? rows[i].timed : *(void **)((char *)&real + rows[i].offset);
		if (p && rows[i].entry >= 0)
			entries[rows[i].entry] = p;
	}
}

static void nothing(void)
{
}

__attribute__((used)) static void (*atrelocation(void))(void)
{
	const char *goshim;
	if (realinit() && (goshim = environment("GOSHIM"))) {
		kernelmode = askskernelmode(goshim);
		if (kernelmode)
			bindkernelmode();
	}
	return nothing;
}

/* Its address must be needed by a relocation for the loader to resolve it. */
shim_hidden void realhook(void) __attribute__((ifunc("atrelocation")));
__attribute__((used)) static void (*const volatile realhookp)(void) = realhook;
