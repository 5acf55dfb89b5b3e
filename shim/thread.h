/*
 * thread.h - a pthread that is a goroutine.
 *
 * Its record lies behind its thread block, so pthread_t (the block's address,
 * as in glibc) leads to it. main's record is a static one. Foreign kernel
 * threads have none.
 */
#ifndef GOSHIM_THREAD_H
#define GOSHIM_THREAD_H

#include "shim.h"
#include "tls.h"

typedef struct SigNode SigNode;
typedef struct Birth Birth;

/* Life of a thread's record. */
enum {
	ThreadJoinable = 0,
	ThreadDetached = 1, /* nobody will join; freed at its end */
	ThreadJoining = 2,  /* somebody waits in join */
	ThreadStateMask = 3,
	ThreadExited = 4, /* its goroutine is gone, stack and block are free of it */
	ThreadFreed = 8,  /* joined, or ended detached: ESRCH, until the record is reused */
};

typedef struct Thread {
	_Atomic uint32_t state;
	uint32_t tid;
	void *block;
	G *gp; /* while it lives */
	void *(*start)(void *);
	void *arg;
	void *result;
	Stack stack;                 /* ours, or the program's when userstack */
	size_t stacksize, guardsize; /* of ours: what was asked for */
	bool userstack;
	struct Thread *nextuser; /* ownstack.c */
	bool ismain;
	uintptr_t
	    clonedstack; /* where the one ends that clone() was given for this process; 0: none */
	bool ownsched;   /* made with PTHREAD_EXPLICIT_SCHED */
	bool exiting;    /* past its last cancellation point */
	struct Thread *joining; /* whom it waits for, for EDEADLK */
	/* Signals: under siglock (signal.c), mask is the owner's. */
	uint64_t mask;
	/* What sigs.nblocked has of the mask: not what a running handler adds, but for what ends or stops the process. */
	uint64_t counted;
	_Atomic uint64_t pending;
	/* The mask is sigsuspend's, ppoll's or such; that of before is the one that the first handler's frame is to have. */
	uint64_t savedmask;
	bool restoremask;
	_Atomic uint64_t waitset;   /* it is in sigwait for these */
	_Atomic uint64_t kernelset; /* ... and takes these, which are queued, from the kernel */
	_Atomic uint64_t told;      /* of those that wait for the process, it is to take these */
	SigNode *queue;
	stack_t altstack;
	struct Thread *next, *prev; /* all live threads */
	int bracket;                /* depth of the native bracket (host.c) */
	uint64_t bracketmask;
	Place bracketplace; /* who is in it */
	bool bracketwaits;  /* ... to wait there */
	/* The kernel thread of a goroutine in its bracket, for libc's cancellation signal;
	 * 0: not in one. Negative while one is being sent: it stays there meanwhile. */
	_Atomic int native;
	bool cancelsent; /* ... and one was */
	unsigned pinned; /* wired, having kernel state of its own: why (pin.h) */
	int ktid;        /* then, its kernel thread */
	Birth *birth;    /* while pthread_create waits for it (pin.c) */
	int wired;       /* depth of wire() */
	int inheriting;  /* holds of mutexes that inherit priority and are not robust */
	/* Its kernel thread is to end with it: where the kernel clears its id then. */
	_Atomic int *ends;
	int endtid;
	G *vforkgp;         /* while a vfork child runs on it */
	char name[16];      /* also main's, which the kernel has too */
	_Atomic bool named; /* by pthread_setname_np, perhaps before it had a goroutine */
	/* Who made it, and where that goes on; 0: a foreign thread. For debuggers. */
	int64_t creator;
	void *creatorpc;
} Thread;

/* Of the running goroutine; NULL when the caller is none. */
static inline Thread *curthread(void)
{
	G *gp = getg();
	return gp ? ghost(gp) : NULL;
}

static inline size_t pageup(size_t n)
{
	size_t page = 4096;
	return (n + page - 1) & ~(page - 1);
}

/* Of a pthread_t; NULL: it is no goroutine's (a foreign thread, or main before the start). */
Thread *threadof(pthread_t t);
extern Thread mainthread;
/* ownstack.c: waits until no thread is on that stack of the program's, for a while; th is to run on one; it is off it. */
void ownstackwait(uintptr_t lo, uintptr_t hi);
void ownstacktake(Thread *th);
void ownstackleave(Thread *th);
void ownstackforkchild(void);

/* Live threads: calls fn under the list's lock until it returns false. */
void threadseach(bool (*fn)(Thread *th, void *arg), void *arg);
Thread *threadwithtid(uint32_t tid); /* the live one, or NULL */
/* What the scheduler asks of a goroutine's (core/host.h). */
int64_t threadcreator(G *gp, uintptr_t *pc);
uint32_t threadid(G *gp);
void threadforkchild(Thread *self);
/* Main's name is the process's. */
void nameprocess(const char *name);
/* end.c: the calling thread has unwound, or returned: destructors, then threadgone, or the end of the
 * process; the same for main that has unwound; and for one that ends by the system call: no destructor runs. */
noreturn_fn void threadend(void *result);
noreturn_fn void mainend(void);
noreturn_fn void threadvanish(int code);
void endforkchild(void);
/* The caller, whose record this is, is nobody's any more: its goroutine ends. */
noreturn_fn void threadgone(Thread *th);
extern _Atomic int nthreads; /* live goroutines that are threads of the program */

/* Has the caller this of the process's (CLONE_FILES, CLONE_SIGHAND)? Not so the children that
 * vfork and clone() make in its memory; clone() was told what they share. */
bool hasprocess(int what);

/* cputime.c: the thread whose CPU time this clock is, NULL: another clock; that time, in ns, or
 * negative; and the kernel's clock for it, for which its thread is wired. */
Thread *cputhread(clockid_t clock);
int64_t cputimeof(Thread *th);
int kernelclock(clockid_t *clock);

/* tsd.c: runs the calling thread's key destructors. */
void tsdexit(void);

#endif
