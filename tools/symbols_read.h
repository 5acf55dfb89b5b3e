/*
 * symbols_read.h - names of addresses in programs and libraries, by the symbols of their files.
 *
 * Files may be of any content: what is read is checked before it is believed.
 */
#ifndef GOSHIM_SYMBOLS_READ_H
#define GOSHIM_SYMBOLS_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A file that a process had loaded. Another one at that path is not asked, as far as it can be told. */
typedef struct Module {
	char path[257];
	unsigned idsize, nheaders; /* 0: not known */
	unsigned char id[28];      /* its build id */
	uint64_t headers; /* profiledigest of so many of its program headers (core/profile.h) */
} Module;

enum { SymbolSize = 200 };

/*
 * The symbol that `address` lies in, as the file counts addresses, and how far into it. data: an object, else a
 * function. By the file's symbols, by a debug file for its build id, else by those that the linker uses. root is put
 * before paths ("": the own root; "/proc/PID/root": that of a live process, whose program may also be found by /proc/PID/exe).
 * Names of C++ are as in the source, without parameters. What was read stays in memory until symbolsfree. False: no symbol.
 */
bool symbolat(const char *root, const Module *m, uint64_t address, bool data, char name[SymbolSize],
	      uint64_t *offset);
void symbolsfree(void);

#endif
