/*
 * traceback.h - stacks for people: what every goroutine does, and how it came there.
 *
 * The scheduler knows where a goroutine stopped, and copies its stack; the host, which knows
 * the program's objects, makes frames and names of that.
 */
#ifndef GOSHIM_TRACEBACK_H
#define GOSHIM_TRACEBACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where a function goes on that waits for one that it has called. */
typedef struct Place {
	uintptr_t pc, sp, bp;
} Place;

/* What a frame begins with: the registers that a call preserves, and the two that say where. */
typedef struct Registers {
	uintptr_t pc, sp, bp, bx, r12, r13, r14, r15;
} Registers;

/* A piece of stack as it was at one time: [lo, lo + n) is at `copy`. */
typedef struct StackCopy {
	uintptr_t lo;
	size_t n;
	const void *copy;
} StackCopy;

typedef struct Frame {
	uintptr_t pc;
	bool interrupted; /* pc is where it was interrupted; else where a call returns to */
	bool signal;      /* what a signal handler returns to: no function of anybody's */
	bool data;        /* no code at all: an object of the program's */
} Frame;

/* Where a pc is. Empty strings: unknown. */
typedef struct Symbol {
	char function[120]; /* as the linker knows it; long ones are cut */
	uint64_t offset;    /* of the pc in the function */
	char object[256];   /* path of the program or library */
	uint64_t address;   /* of the pc in that file, as addr2line takes it */
	bool own;           /* in this library */
} Symbol;

/* A program or library that is loaded. */
typedef struct Loaded {
	uintptr_t lo, hi, base; /* where it is; what is added to addresses in its file */
	uint64_t headers;       /* profiledigest of that many program headers */
	uint32_t nheaders;
	bool own; /* this library */
	char path[256];
} Loaded;

/* GOTRACEBACK, as in Go. Crash ends no differently here: a fatal signal always leaves what it leaves natively. */
typedef enum TracebackLevel {
	TracebackNone,   /* no stacks */
	TracebackSingle, /* of a fatal signal: the goroutine that met it */
	TracebackAll,    /* ... and all others */
	TracebackSystem, /* with this library's own frames */
} TracebackLevel;

/*
 * Writes to fd, in Go's layout, what goroutines do: those with the given ids in that order, or all when n is
 * 0, whatever the level. Any kernel thread, with or without a P; a goroutine calls it between
 * entersyscall and exitsyscall. Takes no lock of the program's or of libc's, waits for nobody but another
 * traceback, and gives up on a reader that takes nothing for some seconds: false then. Never ends in SIGPIPE.
 */
bool traceback(int fd, const int64_t *ids, size_t n);

/*
 * The caller's own stack, from a place in it on: calls found(arg, frames, n), up to `max`, as tracebacks call the
 * host, by the same rules. Waits for nobody, and for no traceback: false then, and nothing was called. Makes
 * no system call that a process could be forbidden.
 */
bool ownstack(Place from, int max, void (*found)(void *arg, const Frame *f, int n), void *arg);
bool isnobody(void); /* the caller is called by what makes tracebacks */
/* Is there memory? By a call that every process may make, and that does nothing but look. SIGSAFE */
bool memreadable(uintptr_t at);

/* All, after a line for a title. */
void tracebackall(int fd, const char *title);

/* One of a circle of goroutines: it waits for a lock that the next one has. */
typedef struct CircleWait {
	int64_t id;
	const char *kind; /* of the lock */
	const void *lock;
} CircleWait;
/* Tells of a circle of `total`, and the stacks, of n of them; that many and the next one are in `w`. */
void tracebackcircle(int fd, const CircleWait *w, size_t n, size_t total);

/*
 * A signal is about to end the process: writes to stderr what GOTRACEBACK wants; of all goroutines if `all` and it
 * wants any. name: as "SIGSEGV: segmentation violation"; info: its siginfo_t; ctx: in the kernel's handler, its
 * ucontext_t, else NULL. SIGSAFE
 */
void tracebackfatal(const char *name, const void *info, const void *ctx, bool all);

#endif
