/*
 * Names for addresses, from the symbols of the files that were loaded there.
 *
 * Files are found by the process's own root, by their path, or by their build id among debugging symbols, and are believed if their
 * program headers are what the process has in memory. They are read, not mapped, and nothing in them is
 * trusted: a file may be cut off, or hostile.
 */
#define _GNU_SOURCE
#include "goshim_names.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	MOSTSYMBOLS = 20000000,
	MOSTSTRINGS = 1 << 30,
	MOSTSECTIONS = 10000,
	MOSTNOTES = 1 << 16,
};

typedef struct Entry {
	uint64_t address, size;
	uint32_t name;
	bool data, sized;
	uint8_t underscores; /* that it begins with */
} Entry;

/* A program or library in the process. */
typedef struct Module {
	ProfileObjectRecord at;
	Entry *entry; /* by address */
	size_t nentries;
	char *strings;
	size_t nstrings;
	struct Module *next;
} Module;
static Module *modules;

/* --- files --------------------------------------------------------------------------------- */

static bool readat(int fd, uint64_t at, void *buf, size_t n)
{
	return at <= INT64_MAX && pread(fd, buf, n, (off_t)at) == (ssize_t)n;
}

static void *readpiece(int fd, uint64_t at, uint64_t n, uint64_t most)
{
	off_t size = lseek(fd, 0, SEEK_END);
	if (n == 0 || n > most || size < 0 || at > (uint64_t)size || n > (uint64_t)size - at)
		return NULL;
	void *p = malloc(n);
	if (p && !readat(fd, at, p, n)) {
		free(p);
		p = NULL;
	}
	return p;
}

static bool readheader(int fd, Elf64_Ehdr *eh)
{
	return readat(fd, 0, eh, sizeof *eh) && !memcmp(eh->e_ident, ELFMAG, SELFMAG) &&
	       eh->e_ident[EI_CLASS] == ELFCLASS64 && eh->e_phentsize == sizeof(Elf64_Phdr) &&
	       (eh->e_shnum == 0 || eh->e_shentsize == sizeof(Elf64_Shdr));
}

/* Another build has other segments. */
static bool isloaded(int fd, const ProfileObjectRecord *r)
{
	Elf64_Ehdr eh;
	if (!readheader(fd, &eh) || r->nheaders > eh.e_phnum)
		return false;
	uint64_t n = r->nheaders * sizeof(Elf64_Phdr);
	void *ph = readpiece(fd, eh.e_phoff, n, 1 << 20);
	bool same = ph && profiledigest(ph, n) == r->headers;
	free(ph);
	return same;
}

static int openloaded(int pid, const ProfileObjectRecord *r)
{
	char path[320];
	for (int i = 0; i < 3; i++) {
		if (i == 0)
			snprintf(path, sizeof path, "/proc/%d/root%s", pid, r->path);
		else if (i == 1)
			snprintf(path, sizeof path, "%s", r->path);
		else /* the program's own file may have been replaced, or be another root's */
			snprintf(path, sizeof path, "/proc/%d/exe", pid);
		int fd = r->path[0] == '/' ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
		if (fd >= 0 && isloaded(fd, r))
			return fd;
		if (fd >= 0)
			close(fd);
	}
	return -1;
}

/* The file with the debugging symbols of fd's, or -1. */
static int opendebug(int fd)
{
	Elf64_Ehdr eh;
	Elf64_Phdr ph;
	if (!readheader(fd, &eh))
		return -1;
	for (unsigned i = 0; i < eh.e_phnum; i++) {
		if (!readat(fd, eh.e_phoff + i * sizeof ph, &ph, sizeof ph) || ph.p_type != PT_NOTE)
			continue;
		unsigned char *notes = readpiece(fd, ph.p_offset, ph.p_filesz, MOSTNOTES);
		for (size_t at = 0; notes && at + sizeof(Elf64_Nhdr) <= ph.p_filesz;) {
			Elf64_Nhdr nh;
			memcpy(&nh, notes + at, sizeof nh);
			size_t id = at + sizeof nh + ((nh.n_namesz + 3ul) & ~3ul);
			size_t end = id + ((nh.n_descsz + 3ul) & ~3ul);
			if (end > ph.p_filesz || end <= at)
				break;
			if (nh.n_type == NT_GNU_BUILD_ID && nh.n_namesz == 4 && nh.n_descsz > 2 &&
			    nh.n_descsz <= 64 && !memcmp(notes + at + sizeof nh, "GNU", 4)) {
				char path[200];
				int n = snprintf(path, sizeof path,
						 "/usr/lib/debug/.build-id/%02x/", notes[id]);
				for (unsigned k = 1; k < nh.n_descsz; k++)
					n += snprintf(path + n, sizeof path - (size_t)n, "%02x",
						      notes[id + k]);
				snprintf(path + n, sizeof path - (size_t)n, ".debug");
				free(notes);
				return open(path, O_RDONLY | O_CLOEXEC);
			}
			at = end;
		}
		free(notes);
	}
	return -1;
}

/* --- symbols --------------------------------------------------------------------------------- */

static int byaddress(const void *a, const void *b)
{
	const Entry *x = a, *y = b;
	if (x->address != y->address)
		return x->address < y->address ? -1 : 1;
	/* Of names for the same place the last one is found: one with a size, and rather what people call it. */
	if (x->sized != y->sized)
		return x->sized - y->sized;
	return (int)y->underscores - (int)x->underscores;
}

static bool wanted(const Elf64_Sym *s, bool loaders)
{
	int type = ELF64_ST_TYPE(s->st_info);
	if (s->st_shndx == SHN_UNDEF || !s->st_name)
		return false;
	if (type == STT_OBJECT)
		return s->st_size > 0;
	/* The loader's table lacks too many to tell where one without a size ends. */
	return (type == STT_FUNC || type == STT_GNU_IFUNC || type == STT_NOTYPE) &&
	       (s->st_size > 0 || !loaders);
}

static bool takesymbols(Module *m, int fd, const Elf64_Shdr *table, const Elf64_Shdr *strings)
{
	bool loaders = table->sh_type == SHT_DYNSYM;
	size_t n = table->sh_size / sizeof(Elf64_Sym);
	Elf64_Sym *s =
	    readpiece(fd, table->sh_offset, n * sizeof *s, (uint64_t)MOSTSYMBOLS * sizeof *s);
	m->strings = readpiece(fd, strings->sh_offset, strings->sh_size, MOSTSTRINGS);
	m->entry = s && m->strings ? malloc(n * sizeof *m->entry) : NULL;
	if (!m->entry) {
		free(s);
		free(m->strings);
		m->strings = NULL;
		return false;
	}
	m->nstrings = strings->sh_size;
	m->strings[m->nstrings - 1] = 0;
	for (size_t i = 0; i < n; i++) {
		if (!wanted(&s[i], loaders) || s[i].st_name >= m->nstrings)
			continue;
		m->entry[m->nentries++] =
		    (Entry){.address = s[i].st_value,
			    .size = s[i].st_size,
			    .name = s[i].st_name,
			    .data = ELF64_ST_TYPE(s[i].st_info) == STT_OBJECT,
			    .sized = s[i].st_size > 0,
			    .underscores = (uint8_t)(strspn(m->strings + s[i].st_name, "_") & 15)};
	}
	free(s);
	qsort(m->entry, m->nentries, sizeof *m->entry, byaddress);
	return true;
}

/* The table of that kind. */
static bool readtable(Module *m, int fd, uint32_t kind)
{
	Elf64_Ehdr eh;
	bool got = false;
	if (!readheader(fd, &eh) || eh.e_shnum > MOSTSECTIONS)
		return false;
	Elf64_Shdr *sh =
	    readpiece(fd, eh.e_shoff, eh.e_shnum * sizeof *sh, MOSTSECTIONS * sizeof *sh);
	for (unsigned i = 0; sh && i < eh.e_shnum && !got; i++)
		if (sh[i].sh_type == kind && sh[i].sh_link < eh.e_shnum)
			got = takesymbols(m, fd, &sh[i], &sh[sh[i].sh_link]);
	free(sh);
	return got;
}

static void readsymbols(Module *m, int pid)
{
	int fd = openloaded(pid, &m->at);
	if (fd < 0)
		return;
	if (!readtable(m, fd, SHT_SYMTAB)) {
		int debug = opendebug(fd);
		if (debug < 0 || !readtable(m, debug, SHT_SYMTAB))
			readtable(m, fd, SHT_DYNSYM);
		if (debug >= 0)
			close(debug);
	}
	close(fd);
}

void namesadd(int pid, const ProfileObjectRecord *r)
{
	Module *m;
	for (m = modules; m; m = m->next)
		if (m->at.lo == r->lo && m->at.hi == r->hi && m->at.headers == r->headers)
			break;
	if (m && m == modules)
		return;
	if (!m) {
		m = calloc(1, sizeof *m);
		if (!m)
			return;
		m->at = *r;
		m->at.path[sizeof m->at.path - 1] = 0;
		readsymbols(m, pid);
	} else { /* again, before all others */
		Module **to = &modules;
		while (*to != m)
			to = &(*to)->next;
		*to = m->next;
	}
	m->next = modules;
	modules = m;
}

/* The last one that begins at or before address, and has it in it. */
static const Entry *find(const Module *m, uint64_t address, bool data)
{
	size_t lo = 0, hi = m->nentries;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (m->entry[mid].address <= address)
			lo = mid + 1;
		else
			hi = mid;
	}
	/* Some lie in others, so the nearest need not be it; but not far away. */
	for (size_t i = lo; i-- > 0 && lo - i <= 64;) {
		const Entry *e = &m->entry[i];
		if (e->data == data && (!e->sized || address - e->address < e->size))
			return e;
	}
	return NULL;
}

void nameof(uint64_t address, bool data, Name *name)
{
	*name = (Name){.address = address};
	Module *m = modules;
	while (m && (address < m->at.lo || address >= m->at.hi))
		m = m->next;
	if (!m)
		return;
	const char *slash = strrchr(m->at.path, '/');
	snprintf(name->file, sizeof name->file, "%.63s", slash ? slash + 1 : m->at.path);
	name->own = m->at.own;
	name->address = address - m->at.base;
	const Entry *e = find(m, name->address, data);
	if (!e)
		return;
	snprintf(name->text, sizeof name->text, "%s", m->strings + e->name);
	name->offset = name->address - e->address;
	/* Without its version; ours by the name of what is called, without what the compiler has added. */
	name->text[1 + strcspn(name->text + 1, name->own ? "@." : "@")] = 0;
	if (name->own && !strncmp(name->text, "shim_", 5))
		memmove(name->text, name->text + 5, strlen(name->text + 5) + 1);
}
