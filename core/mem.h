/*
 * mem.h - memory of the runtime's own: malloc belongs to the program.
 */
#ifndef GOSHIM_MEM_H
#define GOSHIM_MEM_H

#include "annotate.h"
#include <stdbool.h>
#include <stddef.h>

/*
 * A free-list allocator over a growing region: blocks rounded to 64 bytes, kept in address order,
 * split and merged; memory is zero when handed out; the region grows in place
 * while its end is free, else a further region is added. NULL when memory is short.
 */
void *runtime_alloc(size_t n);
void runtime_free(void *p, size_t n); /* n as asked for */
/* Walks the free list for loops, order, overlap, blocks outside regions and non-zero free bytes; throws at
 * what it finds. Returns the number of free blocks. Run after every step when memcheck_on. */
int memcheck(void);
extern bool memcheck_on;
/* Memory that is never freed, aligned to `align` (a power of two; 0: 16), zero. */
void *persistentalloc(size_t n, size_t align);
/* In a forked child: nothing is free any more, and the parent's blocks stay as they are. */
void memforkchild(void);
/* Bytes taken from the system, bytes in use. */
void memstats(size_t *sys, size_t *inuse);

#endif
