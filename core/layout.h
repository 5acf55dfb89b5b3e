/*
 * layout.h - how debuggers and tools read the records of this library in a process or a core
 * file, with no debug information for it.
 *
 * The library exports one object, goshim_layout. It names fields of records with their
 * offsets and sizes, constants with their values, and addresses of variables. A reader looks names up
 * and ignores what it doesn't know; LAYOUT_VERSION changes when a name that readers rely on
 * goes away or changes its meaning. It holds pointers, so the loader writes to it, and a core file
 * contains it also when the library's file is gone.
 */
#ifndef GOSHIM_LAYOUT_H
#define GOSHIM_LAYOUT_H

#include <stdint.h>

enum { LAYOUT_VERSION = 2 };

/* A field: "G.goid", offset and size in bytes. A constant: "Gwaiting", value and 0. */
typedef struct LayoutEntry {
	char name[32];
	uint32_t value, size;
} LayoutEntry;

/* A variable, at its address; or a text for people: "waitreason.1", with the text at its address. */
typedef struct LayoutAddress {
	char name[24];
	const void *address;
} LayoutAddress;

typedef struct Layout {
	char magic[8]; /* "goshim" and zeros */
	uint32_t version;
	uint32_t size; /* of this struct */
	uint32_t nentries, naddresses;
	const LayoutEntry *entries;
	const LayoutAddress *addresses;
	const struct Layout *next; /* NULL: the last; the scheduler's is linked from the shim's */
} Layout;

extern const Layout core_layout;

#define LAYOUT_FIELD(type, field, as)                                           \
	{                                                                       \
#type "." as, offsetof(type, field), sizeof(((type *)0)->field) \
	}
#define LAYOUT_CONST(name)     \
	{                      \
#name, name, 0 \
	}
#define LAYOUT_MAGIC "goshim\0"

#endif
