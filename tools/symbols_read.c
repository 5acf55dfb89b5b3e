/*
 * symbols_read.c - names of addresses, by the symbols of files.
 *
 * A file is read once: its symbols are kept in the order of their addresses. Stripped ones have a debug file, if
 * it is installed, at a path made of the build id; else the linker's symbols have to do, which name what
 * other files may use and nothing else: so of these only such with a size are believed, since most are missing.
 */
#define _GNU_SOURCE
#include "symbols_read.h"

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	MOSTBYTES = 1 << 28, /* of one table; others are not believed */
	MOSTNOTES = 1 << 16,
};

typedef struct Name {
	uint64_t at, size;
	uint32_t text; /* in strings */
	bool data;
} Name;

typedef struct Table {
	struct Table *next;
	char root[64];
	Module module;
	Name *names;
	size_t n;
	char *strings; /* ends with a zero */
	size_t nstrings;
} Table;

static Table *tables;

/* --- reading ---------------------------------------------------------------------------------- */

static bool get(int fd, uint64_t at, void *buf, size_t n)
{
	return at <= INT64_MAX && pread(fd, buf, n, (off_t)at) == (ssize_t)n;
}

/* malloc'ed, a zero behind it. */
static char *part(int fd, uint64_t at, uint64_t n)
{
	struct stat st;
	if (n > MOSTBYTES || fstat(fd, &st) || n > (uint64_t)st.st_size)
		return NULL;
	char *p = malloc(n + 1);
	if (p && !get(fd, at, p, n)) {
		free(p);
		return NULL;
	}
	if (p)
		p[n] = 0;
	return p;
}

static bool isid(const char *notes, size_t n, const Module *m)
{
	for (size_t at = 0; n - at >= 12 && at < n;) {
		uint32_t h[3];
		memcpy(h, notes + at, sizeof h);
		size_t name = (h[0] + 3ul) & ~3ul, text = (h[1] + 3ul) & ~3ul;
		if (name > n - at - 12 || text > n - at - 12 - name)
			return false;
		if (h[2] == NT_GNU_BUILD_ID && h[0] == 4 && h[1] == m->idsize &&
		    !memcmp(notes + at + 12, "GNU", 4))
			return !memcmp(notes + at + 12 + name, m->id, m->idsize);
		at += 12 + name + text;
	}
	return false;
}

typedef struct File {
	int fd;
	Elf64_Shdr *sections;
	unsigned n;
} File;

/* Is it the file that was loaded, as far as that can be told? */
static bool samefile(const File *f, const Module *m)
{
	bool same = m->idsize == 0;
	for (unsigned i = 0; i < f->n && !same; i++) {
		const Elf64_Shdr *s = &f->sections[i];
		char *notes = s->sh_type == SHT_NOTE && s->sh_size <= MOSTNOTES
				  ? part(f->fd, s->sh_offset, s->sh_size)
				  : NULL;
		same = notes && isid(notes, s->sh_size, m);
		free(notes);
	}
	return same;
}

static bool openfile(File *f, const char *path, const Module *m)
{
	Elf64_Ehdr h;
	struct stat st;
	*f = (File){.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
	if (f->fd >= 0 && fstat(f->fd, &st) == 0 && S_ISREG(st.st_mode) &&
	    get(f->fd, 0, &h, sizeof h) && !memcmp(h.e_ident, ELFMAG, SELFMAG) &&
	    h.e_ident[EI_CLASS] == ELFCLASS64 && h.e_shentsize == sizeof *f->sections) {
		f->sections = (Elf64_Shdr *)part(f->fd, h.e_shoff, h.e_shnum * sizeof *f->sections);
		f->n = f->sections ? h.e_shnum : 0;
	}
	if (f->n && samefile(f, m))
		return true;
	free(f->sections);
	if (f->fd >= 0)
		close(f->fd);
	return false;
}

static int byaddress(const void *a, const void *b)
{
	const Name *x = a, *y = b;
	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	/* Of names for the same place, the one with a size. */
	return (x->size != 0) - (y->size != 0);
}

static void names(Table *t, const File *f, const Elf64_Shdr *s)
{
	if (s->sh_link >= f->n || s->sh_entsize != sizeof(Elf64_Sym))
		return;
	const Elf64_Shdr *strings = &f->sections[s->sh_link];
	Elf64_Sym *syms = (Elf64_Sym *)part(f->fd, s->sh_offset, s->sh_size);
	size_t n = syms ? s->sh_size / sizeof *syms : 0;
	t->strings = part(f->fd, strings->sh_offset, strings->sh_size);
	t->nstrings = strings->sh_size;
	t->names = t->strings ? malloc((n + 1) * sizeof *t->names) : NULL;
	for (size_t i = 0; t->names && i < n; i++) {
		int type = ELF64_ST_TYPE(syms[i].st_info);
		bool data = type == STT_OBJECT,
		     text = type == STT_FUNC || type == STT_GNU_IFUNC ||
			    (type == STT_NOTYPE && s->sh_type == SHT_SYMTAB);
		if (syms[i].st_shndx == SHN_UNDEF || syms[i].st_shndx == SHN_ABS ||
		    !(data || text) || syms[i].st_name >= t->nstrings ||
		    !t->strings[syms[i].st_name] ||
		    (syms[i].st_size == 0 && (data || s->sh_type == SHT_DYNSYM)))
			continue;
		t->names[t->n++] = (Name){syms[i].st_value, syms[i].st_size, syms[i].st_name, data};
	}
	free(syms);
	if (t->names)
		qsort(t->names, t->n, sizeof *t->names, byaddress);
}

/* False: there are none of that kind. */
static bool namesof(Table *t, const char *path, uint32_t kind)
{
	File f;
	if (!openfile(&f, path, &t->module))
		return false;
	for (unsigned i = 0; i < f.n && !t->n; i++) {
		if (f.sections[i].sh_type != kind)
			continue;
		free(t->names);
		free(t->strings);
		t->names = NULL;
		t->strings = NULL;
		names(t, &f, &f.sections[i]);
	}
	free(f.sections);
	close(f.fd);
	return t->n != 0;
}

static void load(Table *t)
{
	char path[2][PATH_MAX], debug[PATH_MAX] = "";
	const Module *m = &t->module;
	snprintf(path[0], sizeof path[0], "%s%s", t->root, m->path);
	snprintf(path[1], sizeof path[1], "%s", m->path);
	int n = snprintf(debug, sizeof debug, "/usr/lib/debug/.build-id/%02x/", m->id[0]);
	for (unsigned i = 1; i < m->idsize; i++)
		n += snprintf(debug + n, sizeof debug - (size_t)n, "%02x", m->id[i]);
	snprintf(debug + n, sizeof debug - (size_t)n, ".debug");
	bool file = m->path[0] == '/';
	if ((file && (namesof(t, path[0], SHT_SYMTAB) || namesof(t, path[1], SHT_SYMTAB))) ||
	    (m->idsize > 1 && namesof(t, debug, SHT_SYMTAB)))
		return;
	if (file && !namesof(t, path[0], SHT_DYNSYM))
		namesof(t, path[1], SHT_DYNSYM);
}

static const Table *tableof(const char *root, const Module *m)
{
	for (Table *t = tables; t; t = t->next)
		if (!memcmp(&t->module, m, sizeof *m) && !strcmp(t->root, root))
			return t;
	Table *t = calloc(1, sizeof *t);
	if (!t)
		return NULL;
	snprintf(t->root, sizeof t->root, "%s", root);
	t->module = *m;
	load(t);
	t->next = tables;
	tables = t;
	return t;
}

/* --- asking ------------------------------------------------------------------------------------- */

bool symbolat(const char *root, const Module *m, uint64_t address, bool data, char name[SymbolSize],
	      uint64_t *offset)
{
	const Table *t = tableof(root, m);
	size_t lo = 0, hi = t ? t->n : 0, steps = 0;
	while (lo < hi) { /* the first that begins beyond it */
		size_t mid = lo + (hi - lo) / 2;
		if (t->names[mid].at <= address)
			lo = mid + 1;
		else
			hi = mid;
	}
	/* It may lie in one that begins before others do: a label in a function. */
	while (lo-- > 0 && steps++ < 64) {
		const Name *s = &t->names[lo];
		if (s->data != data || (s->size && address - s->at >= s->size))
			continue;
		size_t n = strcspn(t->strings + s->text, "@");
		*offset = address - s->at;
		snprintf(name, SymbolSize, "%.*s", n < SymbolSize ? (int)n : SymbolSize - 1,
			 t->strings + s->text);
		return true;
	}
	return false;
}

void symbolsfree(void)
{
	while (tables) {
		Table *t = tables;
		tables = t->next;
		free(t->names);
		free(t->strings);
		free(t);
	}
}
