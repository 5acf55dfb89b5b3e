/*
 * pin.h - goroutines that have a kernel thread of their own.
 */
#ifndef GOSHIM_PIN_H
#define GOSHIM_PIN_H

#include "thread.h"

/* Wires the calling goroutine to its kernel thread for good. */
void pin(void);
/* Before the caller is wired to its kernel thread, which may have to end with it: not main's, unless it is main. */
void avoidmain(void);
/*
 * Before the system call nr of the calling goroutine: translates a tid among its arguments, and
 * wires the caller when the call changes what the kernel keeps for a thread. 0, or an error number:
 * the call may not be made.
 */
int pincall(long nr, long *a);
/* What `what` would need is to wire another thread than the caller: one line, ENOSYS. */
int refusepin(const char *what);

/* The system call nr, when it is about threads and answered without the kernel: true, *r and errno
 * are the result. Else the kernel is to be asked, with arguments that may have changed. */
bool rawcall(long nr, long *a, long *r);

/* Attributes of a new thread that the kernel keeps. */
typedef struct KernelWish {
	bool any, hasaffinity, hassched, explicit;
	cpu_set_t affinity;
	int policy;
	struct sched_param param;
} KernelWish;
void kernelwish(KernelWish *w, const pthread_attr_t *attr);

/* The creator of a thread that is pinned from the start waits until it is. */
struct Birth {
	const KernelWish *wish;
	KernelWish inherited;
	bool hasnice;
	int nice;
	_Atomic int done; /* 1: lives, else -errno */
};
void inheritwish(Birth *b, Thread *creator);
int awaitbirth(Birth *b); /* 0 or an error number */
bool bear(Birth *b);      /* on the new thread; false: it must not live */

/* The caller ends: robust mutexes that it holds learn of it. */
void robustexit(void);
/* The process (its forkgen) whose main's kernel thread is about to end, or has; 0: none. */
extern _Atomic uint32_t mainended;

#endif
