/*
 * symbols_read.c - names of addresses, by the symbols of files.
 *
 * A file is read once: its symbols are kept in the order of their addresses. Stripped ones have a debug file, if
 * it is installed, at a path made of the build id; else the linker's symbols have to do, which name what
 * other files may use and nothing else: so of these only such with a size are believed, since most are missing.
 */
#define _GNU_SOURCE
#include "symbols_read.h"

#include "../core/profile.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	MOSTBYTES = 1 << 30, /* of one table; others are not believed */
	MOSTNOTES = 1 << 16,
};

typedef struct Name {
	uint64_t at, size;
	uint32_t text; /* in strings */
	bool data;
	uint8_t underscores; /* that it begins with */
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

typedef struct File {
	int fd;
	Elf64_Ehdr head;
	Elf64_Shdr *sections;
	unsigned n;
} File;

/* A build id among notes; its size, 0: there is none. */
static unsigned noteid(const char *notes, size_t n, unsigned char id[sizeof((Module *)0)->id])
{
	for (size_t at = 0; n - at >= 12 && at < n;) {
		uint32_t h[3];
		memcpy(h, notes + at, sizeof h);
		size_t name = (h[0] + 3ul) & ~3ul, text = (h[1] + 3ul) & ~3ul;
		if (name > n - at - 12 || text > n - at - 12 - name)
			return 0;
		if (h[2] == NT_GNU_BUILD_ID && h[0] == 4 && h[1] <= sizeof((Module *)0)->id &&
		    !memcmp(notes + at + 12, "GNU", 4)) {
			memcpy(id, notes + at + 12 + name, h[1]);
			return h[1];
		}
		at += 12 + name + text;
	}
	return 0;
}

static unsigned buildid(const File *f, unsigned char id[sizeof((Module *)0)->id])
{
	unsigned size = 0;
	for (unsigned i = 0; i < f->n && !size; i++) {
		const Elf64_Shdr *s = &f->sections[i];
		char *notes = s->sh_type == SHT_NOTE && s->sh_size <= MOSTNOTES
				  ? part(f->fd, s->sh_offset, s->sh_size)
				  : NULL;
		size = notes ? noteid(notes, s->sh_size, id) : 0;
		free(notes);
	}
	return size;
}

/* Is it the file that was loaded, as far as that can be told? */
static bool samefile(const File *f, const Module *m)
{
	unsigned char id[sizeof m->id];
	if (m->nheaders) {
		uint64_t n = (uint64_t)m->nheaders * sizeof(Elf64_Phdr);
		char *headers =
		    m->nheaders <= f->head.e_phnum ? part(f->fd, f->head.e_phoff, n) : NULL;
		bool same = headers && profiledigest(headers, n) == m->headers;
		free(headers);
		return same;
	}
	return m->idsize == 0 || (buildid(f, id) == m->idsize && !memcmp(id, m->id, m->idsize));
}

static void closefile(File *f)
{
	free(f->sections);
	close(f->fd);
}

static bool openfile(File *f, const char *path, const Module *m)
{
	struct stat st;
	Elf64_Ehdr *h = &f->head;
	*f = (File){.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
	if (f->fd < 0)
		return false;
	if (fstat(f->fd, &st) == 0 && S_ISREG(st.st_mode) && get(f->fd, 0, h, sizeof *h) &&
	    !memcmp(h->e_ident, ELFMAG, SELFMAG) && h->e_ident[EI_CLASS] == ELFCLASS64 &&
	    h->e_shentsize == sizeof *f->sections && h->e_phentsize == sizeof(Elf64_Phdr)) {
		f->sections =
		    (Elf64_Shdr *)part(f->fd, h->e_shoff, h->e_shnum * sizeof *f->sections);
		f->n = f->sections ? h->e_shnum : 0;
	}
	if (f->n && samefile(f, m))
		return true;
	closefile(f);
	return false;
}

/* By the process's root, by the path alone, or as its program, which may have been replaced or be another root's. */
static bool openloaded(File *f, const char *root, const Module *m)
{
	char path[PATH_MAX];
	size_t n = strlen(root);
	if (m->path[0] != '/')
		return false;
	snprintf(path, sizeof path, "%s%s", root, m->path);
	if (openfile(f, path, m) || (n && openfile(f, m->path, m)))
		return true;
	if (n < 6 || strcmp(root + n - 5, "/root") != 0 || !(m->idsize || m->nheaders))
		return false;
	snprintf(path, sizeof path, "%.*s/exe", (int)n - 5, root);
	return openfile(f, path, m);
}

/* The file with debugging symbols of that id. */
static bool opendebug(File *f, const Module *m)
{
	char path[PATH_MAX];
	if (m->idsize < 2)
		return false;
	int n = snprintf(path, sizeof path, "/usr/lib/debug/.build-id/%02x/", m->id[0]);
	for (unsigned i = 1; i < m->idsize; i++)
		n += snprintf(path + n, sizeof path - (size_t)n, "%02x", m->id[i]);
	snprintf(path + n, sizeof path - (size_t)n, ".debug");
	return openfile(f, path, m);
}

static int byaddress(const void *a, const void *b)
{
	const Name *x = a, *y = b;
	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	/* Of names for the same place the last one is found: one with a size, and rather what people call it. */
	if ((x->size != 0) != (y->size != 0))
		return (x->size != 0) - (y->size != 0);
	return (int)y->underscores - (int)x->underscores;
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
		t->names[t->n++] =
		    (Name){syms[i].st_value, syms[i].st_size, syms[i].st_name, data,
			   (uint8_t)(strspn(t->strings + syms[i].st_name, "_") & 15)};
	}
	free(syms);
	if (t->names)
		qsort(t->names, t->n, sizeof *t->names, byaddress);
}

/* False: there are none of that kind. */
static bool namesof(Table *t, const File *f, uint32_t kind)
{
	for (unsigned i = 0; i < f->n && !t->n; i++) {
		if (f->sections[i].sh_type != kind)
			continue;
		free(t->names);
		free(t->strings);
		t->names = NULL;
		t->strings = NULL;
		names(t, f, &f->sections[i]);
	}
	return t->n != 0;
}

static void load(Table *t)
{
	File f, debug;
	Module id = t->module;
	bool loaded = openloaded(&f, t->root, &t->module);
	if (!loaded || !namesof(t, &f, SHT_SYMTAB)) {
		if (loaded && !id.idsize)
			id.idsize = buildid(&f, id.id);
		id.nheaders = 0;
		bool found = opendebug(&debug, &id);
		if (!(found && namesof(t, &debug, SHT_SYMTAB)) && loaded)
			namesof(t, &f, SHT_DYNSYM);
		if (found)
			closefile(&debug);
	}
	if (loaded)
		closefile(&f);
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

/* --- C++ ------------------------------------------------------------------------------------------ */

/* As in the source, by libstdc++ if it is there: who has programs in C++ has it. malloc'ed, or NULL. */
static char *demangled(const char *name)
{
	static char *(*demangle)(const char *, char *, size_t *, int *);
	static bool looked;
	if (name[0] != '_' || name[1] != 'Z')
		return NULL;
	if (!looked) {
		looked = true;
		void *library = dlopen("libstdc++.so.6", RTLD_NOW | RTLD_LOCAL);
		*(void **)&demangle = library ? dlsym(library, "__cxa_demangle") : NULL;
	}
	int status = -1;
	char *s = demangle ? demangle(name, NULL, NULL, &status) : NULL;
	return status == 0 ? s : NULL;
}

/* Without what the compiler has added, parameters, and what stands behind them. */
static void shorten(char *s)
{
	char *clone = strstr(s, " [clone ");
	if (clone)
		*clone = 0;
	char *end = strrchr(s, ')');
	if (!end || (end[1] && strcmp(end + 1, " const") != 0))
		return;
	int depth = 0;
	for (char *c = end; c > s; c--) {
		depth += (*c == ')') - (*c == '(');
		if (depth == 0) {
			*c = 0;
			return;
		}
	}
}

static void copyname(const char *from, char name[SymbolSize])
{
	size_t n = strcspn(from, "@"); /* of its version */
	snprintf(name, SymbolSize, "%.*s", n < SymbolSize ? (int)n : SymbolSize - 1, from);
	char *s = demangled(from);
	if (s) {
		shorten(s);
		snprintf(name, SymbolSize, "%s", s);
	}
	free(s);
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
		*offset = address - s->at;
		copyname(t->strings + s->text, name);
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
