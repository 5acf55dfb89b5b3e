/*
 * Names for addresses in a process that is profiled: by what it says of its programs and libraries, and their symbols.
 */
#define _GNU_SOURCE
#include "goshim_names.h"

#include "symbols_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A program or library in the process. */
typedef struct Loaded {
	ProfileObjectRecord at;
	Module file;
	char root[40];
	struct Loaded *next;
} Loaded;
static Loaded *all;

void namesadd(int pid, const ProfileObjectRecord *r)
{
	Loaded **to = &all, *m;
	while ((m = *to) && (m->at.lo != r->lo || m->at.hi != r->hi || m->at.headers != r->headers))
		to = &m->next;
	if (m) { /* again, before all others */
		*to = m->next;
	} else {
		m = calloc(1, sizeof *m);
		if (!m)
			return;
		m->at = *r;
		m->at.path[sizeof m->at.path - 1] = 0;
		snprintf(m->file.path, sizeof m->file.path, "%s", m->at.path);
		m->file.headers = r->headers;
		m->file.nheaders = r->nheaders;
		snprintf(m->root, sizeof m->root, "/proc/%d/root", pid);
	}
	m->next = all;
	all = m;
}

void nameof(uint64_t address, bool data, Name *name)
{
	*name = (Name){.address = address};
	Loaded *m = all;
	while (m && (address < m->at.lo || address >= m->at.hi))
		m = m->next;
	if (!m)
		return;
	const char *slash = strrchr(m->at.path, '/');
	snprintf(name->file, sizeof name->file, "%.63s", slash ? slash + 1 : m->at.path);
	name->own = m->at.own;
	name->address = address - m->at.base;
	if (!m->file.nheaders ||
	    !symbolat(m->root, &m->file, name->address, data, name->text, &name->offset))
		name->text[0] = 0;
	if (!name->own || !name->text[0])
		return;
	/* Ours by the name of what is called, without what the compiler has added. */
	name->text[1 + strcspn(name->text + 1, ".")] = 0;
	if (!strncmp(name->text, "shim_", 5))
		memmove(name->text, name->text + 5, strlen(name->text + 5) + 1);
}
