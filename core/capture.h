/*
 * capture.h - the stacks of goroutines, for tracebacks and profiles.
 */
#ifndef GOSHIM_CAPTURE_H
#define GOSHIM_CAPTURE_H

#include "runtime.h"

enum {
	COPYMAX = 64 << 10 /* of a stack, from its top on; deeper frames are read where they are */
};

/* A goroutine at one moment. */
struct Capture {
	_Atomic uint32_t done; /* futex: CaptureWanted until the handler has been */
	G *gp;
	Registers regs;
	uintptr_t lo;
	size_t n;
	char stack[COPYMAX];
};
enum { CaptureWanted, CaptureTaken, CaptureMissed };

/*
 * Calls fn(arg, capture) with room for a capture, one caller at a time, on a stack of our own, without signals, and
 * with getg() NULL, since what unwinds is a library that calls libc's functions, and so the shim. False: no memory.
 */
bool asnobody(void (*fn)(void *arg, Capture *c), void *arg);

/* gp, tried until it stood still. False: it did not, or can't be seen. *s: as what it was found. */
bool capture(Capture *c, G *gp, GStatus *s);
/* The same, once: of one that has status s and is parked or waits to run; in a system call that it announced, on mp;
 * that computes there, or its g0, waiting for it for ns (c->done: CaptureMissed if it was another by then); that is blocked there unannounced, or, *runs, isn't. */
bool captureparked(Capture *c, G *gp, GStatus s);
bool captureplace(Capture *c, G *gp, M *mp);
bool capturerunning(Capture *c, G *gp, M *mp, int64_t ns);
bool capturekernel(Capture *c, G *gp, M *mp, bool *runs);

/* What the handler of a signal is given. */
Registers contextregisters(const void *ctx);
/* From sp on, as much as there is; gp NULL: of an unknown stack. SIGSAFE */
bool copystack(Capture *c, G *gp, uintptr_t sp);

static inline StackCopy copyof(const Capture *c)
{
	return (StackCopy){c->lo, c->n, c->stack};
}

#endif
