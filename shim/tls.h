/*
 * tls.h - thread blocks: what %fs points to, as glibc lays it out.
 */
#ifndef GOSHIM_TLS_H
#define GOSHIM_TLS_H

#include "shim.h"

typedef struct ListLink {
	struct ListLink *next, *prev;
} ListLink;

/* Offsets in glibc's struct pthread (the block), and its functions, found at start by tlsprobe.c. */
typedef struct TlsLayout {
	bool ok;
	const char *misfit; /* what did not match, when !ok */
	uint32_t size;      /* of struct pthread */
	uint32_t tid, list, robusthead, cleanup, cleanupjmp, cancelhandling, flags, specific1st,
	    specific, specificused, userstack, stackblock, ceilings, res, start;
	ptrdiff_t resp;    /* __resp, from the block */
	ptrdiff_t libctls; /* libc's own TLS segment, from the block */
	size_t libctlssize;
	uint16_t mallocword[8]; /* places in libc's segment that malloc sets, */
	int nmallocwords;
	uint16_t dtorword[8]; /* and those that belong to destructors of thread_local variables */
	int ndtorwords;
	ptrdiff_t rseq; /* where libc has it, registered or not; 0: nowhere */
	size_t statictls, align;
	/* libc's lists of threads whose stack it was given and made, and their lock. */
	struct ListLink *stackuser, *stackused;
	int *stacklock;
	/* _dl_allocate_tls(mem) makes a DTV and the image for block mem; the image anew; libc's tables. */
	void *(*allocate)(void *);
	void *(*allocateinit)(void *, bool);
	void (*ctypeinit)(void);
} TlsLayout;
extern TlsLayout tls;

#define TLSFIELD(block, type, off) (*(type *)((char *)(block) + (off)))

/* The running thread's block; what pthread_self() returns. */
static inline void *selfblock(void)
{
	void *p;
	__asm__("movq %%fs:16, %0" : "=r"(p));
	return p;
}

/* glibc 2.36's offsets of the tid and of the state of cancellation (cancel.h), constants for the
 * sake of one instruction; tlsprobe refuses to start on any others. */
enum { TIDOFFSET = 0x2d0, ROBUSTOFFSET = TIDOFFSET + 16, CANCELOFFSET = 0x308 };

/* The thread id that identifies an owner: of a goroutine its own, outside the
 * kernel's range; of others the kernel's. */
static inline uint32_t selftid(void)
{
	uint32_t t;
	__asm__ volatile("movl %%fs:%c1, %0" : "=r"(t) : "i"(TIDOFFSET));
	return t;
}

/* The calling thread's word of cancellation state. */
static inline int selfcancelword(void)
{
	int w;
	__asm__ volatile("movl %%fs:%c1, %0" : "=r"(w) : "i"(CANCELOFFSET));
	return w;
}

/*
 * Three steps: on main; on a new real thread that has not allocated yet; and on main again,
 * where glibc's structures are compared with what this file knows, with the help of that
 * thread: its block, and the stack it was given. Sets tls.ok.
 */
void tlsprobelibc(void);
void tlsprobethread(void);
void tlsprobe(void *realblock, uintptr_t stackaddr, size_t stacksize);

/* Bytes of static TLS in a thread's stack, also before tlsprobe. */
size_t tlsstaticsize(void);

/*
 * A block for a goroutine with this tid and stack: fresh or reused, every
 * `__thread` variable at its initial value (libc's malloc cache is kept).
 * `extra` bytes of the owner's follow struct pthread, zero in a fresh block only.
 * May park (the allocator's locks): not on g0. NULL: out of memory.
 */
void *blockget(uint32_t tid, uintptr_t stacklo, uintptr_t stackhi, size_t guard);
/* Gives memory of pooled blocks beyond a few hundred back. May park. */
void blocktrim(void);
/* A copy of the caller's block at the end of memory that ends at top, for code that is no goroutine;
 * it begins at blockcopyend. */
void *blockcopy(void *top);
void *blockcopyend(void *block);
void blockput(void *block); /* any context, no locks of the program's */
void *blockextra(void *block);
enum { BLOCKEXTRA = 512 };
/* Is p the block of a goroutine (in use or pooled)? */
bool isblock(const void *p);
/* First act of a goroutine on its own block: what only code under its FS can do. */
void blockstart(void);
/* Second block for the main thread's M, with the kernel's per-thread
 * registrations moved to it (host.h). */
void *blockm0(void);
/* Makes the caller's block the one the kernel knows again (fork child). */
void blockkernel(void);
void blockforkchild(void);
/* Before a system call that makes a child: is the block as we know them? In the child: makes libc's view of
 * its thread, and the kernel's, as libc's own fork does. */
bool blockknown(void);
void blockadopt(void);
/* Around a look at libc's lists of threads. May park. */
void stackslock(void);
void stacksunlock(void);
/* tids for goroutines: beyond the kernel's (2^22), within futexes' 30 bits. */
uint32_t tidalloc(void);

#endif
