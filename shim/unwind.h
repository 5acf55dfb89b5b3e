/*
 * unwind.h - frames and names for tracebacks (core/host.h: unwindbegin, unwind, symbolize).
 *
 * Nothing here takes a lock of the program's or the loader's, allocates by malloc, or trusts what it
 * reads: it serves when the program hangs or has damaged its memory. One thread at a time.
 */
#ifndef GOSHIM_UNWIND_H
#define GOSHIM_UNWIND_H

#include "sched.h"
#include "shim.h"

/* Loads libunwind, for this library alone. Once, when the scheduler starts; without it stacks have one frame. */
void unwindinit(void);

void unwindbegin(bool own);
void symbolbegin(void);
int unwindstack(const Registers *regs, const StackCopy *stack, Frame *frames, int max);
void symbolize(const Frame *frame, Symbol *symbol);

/* Reads memory that may not be there. */
bool peek(uintptr_t addr, void *buf, size_t n);

/* What is loaded at some place. */
typedef struct Object {
	uintptr_t base, lo, hi; /* what is added to addresses in the file; where it lies */
	uintptr_t headers;      /* its program headers */
	int nheaders;
	uintptr_t ehframehdr; /* 0: it has none */
	uintptr_t dynamic;    /* its dynamic section */
	uintptr_t name;       /* its path, a string; empty: the program's */
} Object;
bool objectat(uintptr_t pc, Object *o);
void objectpath(const Object *o, char *buf, size_t size); /* as much of it as fits */
bool loadedat(uintptr_t addr, Loaded *l);

#endif
