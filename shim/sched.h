/*
 * sched.h - the shim's side of the scheduler: its start, and the native bracket.
 */
#ifndef GOSHIM_SCHED_H
#define GOSHIM_SCHED_H

#include "shim.h"

/*
 * Starts the scheduler if it has not started. False: this process runs on
 * kernel threads (one line has said why), or the caller is not the thread
 * that could become goroutine 1; pthread_create then is libc's.
 */
bool startsched(void);
/* pthread_create for a process on kernel threads. */
int nativecreate(pthread_t *t, const pthread_attr_t *attr, void *(*start)(void *), void *arg);
void timedready(void); /* kernel mode: before anything is counted */
void notetexts(void);  /* where our code is, and that which must not lose the processor */
void parsesettings(char **envp);
void schedrestartable(void); /* in a fork child: the next thread starts it anew */

/*
 * The native bracket: between the two the caller is wired to its kernel
 * thread, which has the goroutine's signal mask, and holds no P. Whatever
 * is not done by the scheduler is right in it, if slow. It nests. No-op for
 * others than goroutines.
 */
void bracketenter(void);
/* The same for what will probably wait, if `waits`: the P is free to be taken at once. */
void bracketwait(bool waits);
void bracketleave(void);
/* For a scope that is a cancellation point: leaves also when libc unwinds it. */
void bracketunwind(const int *unused);
#define BRACKETEND __attribute__((cleanup(bracketunwind), unused)) const int bracketed = 0
#define BRACKET         \
	bracketenter(); \
	BRACKETEND
#define BRACKETWAIT        \
	bracketwait(true); \
	BRACKETEND

/* Wires the goroutine to its kernel thread under that thread's true tid and
 * robust list, while it holds a robust or PI mutex. Nests. */
void wire(void);
void unwire(void);

/* The kernel threads that the runtime made, and main's. */
void eachkernelthread(void (*fn)(int tid));
bool runtimesthread(void *start); /* does what libc has made begin so? */
bool unbornthreads(void);         /* some are being made, and not among those yet */
/* One that is as the process was at the start: nothing sets anything for it alone. */
int cleanthread(void);
/* All of the process, some perhaps more than once. False: there is no telling that these were all. */
bool alltasks(void (*fn)(int tid));

/* The system call nr on the kernel thread tid, which the runtime has made or is main's: its result. ESRCH: it is none of those. */
long syscallon(int tid, long nr, const long *a);

/* asleep.c; the first two for core/host.h */
bool hashandlers(void);
bool hasoutsiders(bool (*known)(int tid));
void sharesmemory(void); /* a process is made that shares our memory */

/* The system calls fork, clone and clone3 for a process with memory of its own; as syscall() returns. */
pid_t rawfork(long nr, const long *a);

void notestatics(void); /* contention.c, at the start */

/* An own text address? libc's or another's that must not lose the processor? SIGSAFE. */
bool owntext(uintptr_t pc);
bool unsafepc(uintptr_t pc);

#endif
