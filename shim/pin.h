/*
 * pin.h - goroutines that have a kernel thread of their own.
 */
#ifndef GOSHIM_PIN_H
#define GOSHIM_PIN_H

#include "thread.h"

/* Why a goroutine has a kernel thread of its own; bits. */
enum {
	PinSched = 1, /* affinity, class, nice value: until they are as those of all others again */
	PinPrivs = 2, /* no new privileges: until all have as few */
	PinMore = 4,  /* for good, and for threads that it makes, which inherit it */
	PinSelf = 8,  /* for good, but they don't */
};
/* Wires the calling goroutine to its kernel thread; those of why that are new. */
unsigned pin(unsigned why);
void unpin(unsigned why);
/* The system call nr, which sets something that the kernel keeps for the calling thread. */
long changes(unsigned why, long nr, const long *a);
long seccomp(const long *a); /* the system call */
long trace(const long *a);   /* ptrace, the system call */
/* The caller's affinity, class or nice value has been set: back to what all have? */
void settle(void);
/* Before the caller is wired to its kernel thread, which may have to end with it: not main's, unless it is main. */
void avoidmain(void);
/* The system call nr, by a goroutine, when it is about what the kernel keeps for a thread: true, and *r
 * is its result. Else it may have translated a tid among the arguments. */
bool pincall(long nr, long *a, long *r);
/* Wires th, which may be the caller; th->ktid is its kernel thread then. 0 or an error number. */
int pinthread(Thread *th, unsigned why);

/* The system call nr, when it is about threads and answered without the kernel: true, *r and errno
 * are the result. Else the kernel is to be asked, with arguments that may have changed. */
bool rawcall(long nr, long *a, long *r);
/* Any other system call: its result, and errno. */
long rawwait(long nr, const long *a);

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
	unsigned pinned;  /* why its creator is: it has the same state */
	int result;       /* 1: lives, else -errno */
	_Atomic int done; /* result, when it is known and nothing is left of one that does not */
};
int awaitbirth(Birth *b); /* 0 or an error number */
bool bear(Birth *b); /* on the new thread; false: it must not live, and birthdone when it is gone */
void birthdone(Birth *b);

/* The caller ends: robust mutexes that it holds learn of it. */
void robustexit(void);
/* The process (its forkgen) whose main's kernel thread is about to end, or has; 0: none. */
extern _Atomic uint32_t mainended;

#endif
