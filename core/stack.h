/*
 * stack.h - goroutine stacks: one NORESERVE arena, guards at the low end.
 */
#ifndef GOSHIM_STACK_H
#define GOSHIM_STACK_H

#include "annotate.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct StackSlot StackSlot;

/* [lo, hi) is usable, [guard, lo) faults. hi is a multiple of 64, not of a page (stack.c: colours). */
typedef struct Stack {
	uintptr_t guard, lo, hi;
	StackSlot *slot; /* for stackfree */
} Stack;

/*
 * A stack with at least `size` usable bytes and a guard of at least
 * `guardsize` (0: none; rounded up to pages). Reused ones come back with
 * their guard (dirty: contents are what the last user left). 0, or -EAGAIN when memory, address space or the
 * map limit is exhausted. Any caller allowed to take runtime locks.
 */
int stackalloc(size_t size, size_t guardsize, Stack *s);
void stackfree(Stack s);
/* Gives the pages of pooled stacks beyond `keep` of them back to the system. */
void stacktrim(size_t keep);
/* Is addr in a guard that stackalloc made? SIGSAFE */
bool stackguarded(uintptr_t addr);
/* Numbers of stacks. */
void stackstats(size_t *inuse, size_t *pooled);
/* In a forked child, without other threads: every stack counts as free but
 * those that contain one of keep[0..n) (n at most 4). */
void stackforkchild(const uintptr_t *keep, int n);

#endif
