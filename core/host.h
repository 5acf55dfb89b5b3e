/*
 * host.h - all that the scheduler asks of its host.
 *
 * The host knows what a thread is to the program (libc's thread block, its
 * signals); the scheduler sees opaque pointers and these calls. shim/host.c
 * implements them over glibc; unit tests bring a small host of their own.
 */
#ifndef GOSHIM_HOST_H
#define GOSHIM_HOST_H

#include "api.h"
#include "settings.h"

typedef struct Host {
	/*
	 * Starts a kernel thread on a stack of its own that the runtime never
	 * frees, with asynchronous signals blocked; it calls fn(arg) with its own
	 * thread block in FS. Called on the template thread only. The stack
	 * bounds go to *lo, *hi. Returns 0 or -errno.
	 */
	int (*newosproc)(void (*fn)(void *), void *arg, uintptr_t *lo, uintptr_t *hi);
	/* A second block for the kernel thread of main, with its real tid, and
	 * what the kernel keeps for a thread (robust list, clear-tid, rseq) moved
	 * to it. NULL: out of memory. Called once, by schedinit, on main. */
	void *(*m0block)(void);
	/* Runs on a goroutine at a safe point after ginterrupt: signal handlers,
	 * cancellation. ctx is the interrupted ucontext_t, or NULL when it happens at a
	 * call. May park, migrate, or never return. */
	void (*interrupt)(void *ctx);
	/* Is gp, which is in a system call for the scheduler, in the host's native bracket: in code of
	 * others that may be interrupted? SIGSAFE. Then that is done by interruptnative. */
	bool (*innative)(G *gp);
	void (*interruptnative)(void *ctx);
	/* Must code at pc not be switched away from? (libc, ld.so, the vdso, the
	 * program's allocator, the library itself.) SIGSAFE. */
	bool (*unsafepc)(uintptr_t pc);
	/* Is pc in this library's own text? Nothing runs there unexpectedly. SIGSAFE. */
	bool (*owntext)(uintptr_t pc);
	/* May the current goroutine be switched away from at all (no vfork
	 * child is running on it)? SIGSAFE. */
	bool (*maypreempt)(G *gp);
	/* sysmon, about to sleep or just woken: route signals it has received. */
	void (*sysmontick)(void);
	bool (*signalspending)(void); /* sysmontick has something to do */
	/* Has the program a handler for a signal that may come from outside? */
	bool (*handlers)(void);
	/* Is there anybody who could wake a goroutine and is neither one nor sysmon: another kernel thread of the
	 * process (known: the scheduler's), another process in this memory? True if that can't be told. */
	bool (*outsiders)(bool (*known)(int tid));
	noreturn_fn void (*die)(void); /* abort natively: SIGABRT by default action */
	/* Writes the name that the program has given to a goroutine to buf; "": none. */
	void (*describe)(G *gp, char *buf, size_t n);
	/*
	 * For tracebacks, which one thread makes at a time. unwindbegin: what was remembered of the program's
	 * objects may be wrong by now; own: of the caller's stack alone, memory is asked for by memreadable(). unwind: up to max frames, the innermost first, of a stack that was copied; how
	 * many. symbolize: where a frame is. creator: who made gp, and where that went on; 0: no
	 * goroutine. They take no lock, and believe nothing that they read.
	 */
	void (*unwindbegin)(bool own);
	int (*unwind)(const Registers *regs, const StackCopy *stack, Frame *frames, int max);
	void (*symbolize)(const Frame *frame, Symbol *symbol);
	int64_t (*creator)(G *gp, uintptr_t *pc);
	/* Who has the lock that others wait for, by the number that it has as a thread; 0: nobody, or it isn't known. Between
	 * unwindbegin and the next one. */
	uint32_t (*lockowner)(uintptr_t lock, WaitReason why);
	uint32_t (*threadid)(G *gp); /* that number; 0: it has none yet, or any more */
	bool (*loadedat)(uintptr_t addr, Loaded *l); /* between unwindbegin and the next one, too */
	int (*clock_gettime)(int clock, void *timespec);
	bool fsgsbase; /* AT_HWCAP2 bit 1: user code may write FS base */
} Host;

/* Set before schedinit; all members are required. */
extern Host host;

/* Bodies of the kernel threads that the host starts itself, on clean foreign
 * threads; neither returns. */
void templatethread(void *unused); /* makes the Ms */
void sysmon(void *unused);

/* fork: in the child, forget every thread but the caller; the scheduler is
 * as before the first start. */
void schedforkchild(void);

#endif
