/*
 * goroutines_read.h - the goroutines of a live process, read from its memory as debuggers do (core/layout.h).
 *
 * The process is neither stopped nor asked. It goes on meanwhile, and may be hostile: each record is true for itself, as of
 * some moment, and what can't be true is passed over.
 */
#ifndef GOSHIM_GOROUTINES_READ_H
#define GOSHIM_GOROUTINES_READ_H

#include <stdbool.h>
#include <stdint.h>

typedef enum GoroutineState {
	GoroutineRunnable,
	GoroutineRunning,
	GoroutineSyscall,
	GoroutineWaiting,
	GoroutineStates
} GoroutineState;

typedef struct Goroutine {
	int64_t goid;
	uint64_t since;  /* when it got its state, in ticks of the CPU's counter */
	uint64_t object; /* that it waits for: an address, or a descriptor; 0: none */
	uint8_t state;   /* GoroutineState */
	uint8_t slot;    /* of its thread's name in the metrics */
	int8_t wait;     /* what for, if it waits: goroutinewait names it */
	bool descriptor;
	uint64_t host; /* goroutinename's */
} Goroutine;

enum { GoroutineWaits = 16 };
/* As the metrics call it; "": not known. */
const char *goroutinewait(int wait);

typedef struct GoroutineSource GoroutineSource;

/* Does the process have the library in it, and from what address on? 1, 0; -1: it can't be seen. */
int librarybase(int pid, uint64_t *base);

/* NULL, and a line in why (WhySize): it may not be looked into, or its library doesn't say how. */
GoroutineSource *goroutinesopen(int pid, char *why);
void goroutinesclose(GoroutineSource *s);
/* How many; *list is malloc'ed. -1: its memory can't be read any more. */
int goroutinesread(GoroutineSource *s, Goroutine **list);
/* Its thread's own name now, "" if it has none. */
void goroutinename(GoroutineSource *s, const Goroutine *g, char name[16]);

#endif
