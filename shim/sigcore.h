/*
 * sigcore.h - what the files of signals share: sigqueue.c (who blocks what), sigpending.c (what
 * waits), sigrun.c and sigframe.c (handlers), signal.c (the program's calls).
 */
#ifndef GOSHIM_SIGCORE_H
#define GOSHIM_SIGCORE_H

#include "signal.h"
#include "thread.h"

#include <stdatomic.h>
#include <ucontext.h>

#define BIT(sig) (1ull << ((sig)-1))

enum { NSIGS = 64, RING = 256 };

/* Caused by the thread that gets them. */
#define SYNCSIGS \
	(BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGFPE) | BIT(SIGILL) | BIT(SIGTRAP) | BIT(SIGSYS))
/* Addressed by the kernel to the thread whose call earned them. */
#define CALLSIGS (BIT(SIGPIPE) | BIT(SIGXFSZ))
/* Sent by the kernel to the process for what one thread does; it prefers that thread, or has it ask whether
 * it blocks them (terminals). */
#define TIMESIGS (BIT(SIGPROF) | BIT(SIGVTALRM) | BIT(SIGXCPU))
#define TTYSIGS (BIT(SIGTTIN) | BIT(SIGTTOU))
/* So the kernel is to see them as the goroutine has them. */
#define OWNSIGS (CALLSIGS | TIMESIGS | TTYSIGS)
/* Those whose default action is written about before it is taken (sigfatal.c). */
#define TRACEDSIGS (SYNCSIGS | BIT(SIGABRT) | BIT(SIGQUIT))
/* Queued, so that their order counts. */
#define QUEUEDSIGS (~0ull << (SIGRTMIN - 1))
/* Whose default action is to do nothing. */
#define IDLESIGS (BIT(SIGCONT) | BIT(SIGCHLD) | BIT(SIGURG) | BIT(SIGWINCH))
#define NEVERMASKED (BIT(SIGKILL) | BIT(SIGSTOP) | BIT(32) | BIT(33))

struct SigNode {
	SigNode *next;          /* of the same number, in the order in which they were sent */
	SigNode *last, *others; /* of the first one: the last, and the first of the next number */
	siginfo_t info;
};

typedef struct Sigs {
	SpinLock lock;
	struct sigaction act[NSIGS + 1];
	void (*restorer)(void); /* libc's */
	SigNode *free;
	/* How many signals are pending, as many as may be, and whether that is near. */
	uint32_t nqueued, bound;
	bool crowded;
	/* How many threads block each signal, and how many there are. */
	int32_t nblocked[NSIGS + 1], nlive;
	/* sysmon's mask, and the handshake for changing it. */
	_Atomic uint64_t sysmonmask;
	/* What the kernel keeps, where all that came before is routed; and sysmon waits for a thread to leave the kernel. */
	_Atomic uint64_t kept;
	_Atomic bool leave;
	/* One of each is pending for sysmon's thread, which had no room for it. */
	_Atomic uint64_t returned;
	/* Whose default action, which the program has left them, ends or stops the process; where the kernel takes it. */
	_Atomic uint64_t endings;
	_Atomic uint32_t maskwant, maskdone;
	/* How many threads call exec just now. */
	uint32_t execs;
} Sigs;
extern Sigs sigs;

/* Stands for the process: what was sent to it and has been received waits here for a thread that takes it. */
extern Thread process;

static inline Section siglock(void)
{
	return spinlock(&sigs.lock);
}
static inline void sigunlock(Section s)
{
	spinunlock(&sigs.lock, s);
}

static inline uint64_t setbits(const sigset_t *set)
{
	uint64_t m;
	memcpy(&m, set, 8);
	return m & ~NEVERMASKED;
}

static inline void bitsset(sigset_t *set, uint64_t m)
{
	sigemptyset(set);
	memcpy(set, &m, 8);
}

/* signal()'s handlers of sig are SA_RESTART (siginterrupt says otherwise). */
bool sigrestarts(int sig);

/* Has the program a handler for sig? */
static inline bool handled(int sig)
{
	void (*h)(int) = sigs.act[sig].sa_handler;
	return h != SIG_DFL && h != SIG_IGN;
}

/* The action for sig has changed. */
void noteaction_locked(int sig);
/* Will sig end the process, with a traceback first? */
static inline bool fatal(int sig)
{
	return (BIT(sig) & TRACEDSIGS) && sigs.act[sig].sa_handler == SIG_DFL;
}

/*
 * sig, which is fatal, has met the caller. Writes the traceback: in a handler of the kernel's (uc: its context) and
 * otherwise (NULL). Then in a handler the process ends when that returns, else at once.
 */
void sigfatal(siginfo_t *info, ucontext_t *uc);

/* The calling goroutine's mask becomes m; what that opens is pending for it when this returns. */
void setmask(Thread *th, uint64_t m);
/* The same for a mask that blocks more, until its handler has run. It may wait for sysmon. */
void addmask(Thread *th, uint64_t m);
uint64_t kmaskfor(uint64_t mask);
/* Queues info for th. 0 or EAGAIN (real-time signals only, as long as there is memory). */
int post(Thread *th, const siginfo_t *info);
/* The same while the record is that of thread tid (0: whoever's): ESRCH if it is no more. */
int queue(Thread *th, const siginfo_t *info, uint32_t tid);
/* Has th a signal of `bit` open, or waits for it? */
static inline bool takes(Thread *th, uint64_t bit)
{
	return !th->exiting && (!(th->mask & bit) || (atomic_load(&th->waitset) & bit));
}
/* What waits for th: sent to it, or to the process, and th was told. */
static inline uint64_t waiting(Thread *th)
{
	return atomic_load(&th->pending) | (atomic_load(&th->told) & atomic_load(&process.pending));
}
/* Takes one of those that is in `set`. */
bool take(Thread *th, uint64_t set, siginfo_t *info);
/* The same of all that wait for the process: th has asked for them. */
bool takeasked(Thread *th, uint64_t set, siginfo_t *info);
/* One of `set` that waits for the process is given away, in order, and waits on if `give` can't. False: then, or none. */
bool giveshared(uint64_t set, bool (*give)(const siginfo_t *info));
/* What was sent to th, which ends, is lost. */
void dropall_locked(Thread *th);
/* The caller, th, has opened `set`: what waits for the process it takes, too. */
void tellself(Thread *th, uint64_t set);
/* th takes less than it did: of what waits for the process, and was to be its, another is told. */
void handon(Thread *th);
/* Nobody has a signal of `set` pending any more. */
void sigdrop(uint64_t set);
/* sig is about to be sent: what it revokes (SIGCONT the signals that stop, and they it) is pending no more. */
void sigcounter(int sig);
/* The overrun of the signal of timer `id` that was taken last; -1: not known. */
int timeroverrun(int id);
void forgettimer(int id);
/* From a handler: to be routed to some thread by sysmon. False: no room. SIGSAFE. */
bool ringput(const siginfo_t *info);
/* What the process sends to itself. 0; EAGAIN: there is no room for it; ESRCH: all block it, and the kernel keeps it. */
int sendprocess(const siginfo_t *info);
/* sig was sent to pid by the kernel. */
void sigsentbykernel(pid_t pid, int sig);
/* Gives a descriptor's signal to the threads that own it; false: it is the process's. */
bool routetoowner(const siginfo_t *info);
/* It is about to be queued for a thread that blocks it: has it gone to the process, for its signalfd? */
bool forsignalfd(const siginfo_t *info);
/* So does what waits for the process, if all block it. */
void tosignalfd(void);
/* The tid that the timer with the kernel's number `id` signals; 0: the process; one that no
 * thread has: the timer is deleted. */
uint32_t timertarget(int id);
/* Has sysmon's mask follow those of the threads, and waits until it has, and until all
 * that the process was sent before is routed. */
void sigsettle(void);
/* sysmon has to look at masks again. SIGSAFE. */
void maskagain(void);
void sigqueueforkchild(void);
/* Is this kernel thread sysmon's? */
extern __thread bool issysmon __attribute__((tls_model("initial-exec")));

/* Runs what is pending and open for the caller. True when a handler ran; *restart:
 * the first of them with SA_RESTART. ctx: the interrupted context, or NULL at a call. */
bool deliver(ucontext_t *ctx, bool *restart);
/* Is sp on an alternate stack that the thread may not change? */
bool onaltstack(Thread *th, uintptr_t sp);
/* Where the stack of a handler begins that interrupts at sp; 0: there. SIGSAFE. */
uintptr_t handlerstack(Thread *th, const struct sigaction *sa, uintptr_t sp);
/* Runs sa's handler, whose mask the caller has set by addmask, in the interrupted context, or (NULL) at the caller's
 * place, where it was `mask`; then mask and alternate stack are what the handler has left there. May not return. */
void runhandler(Thread *th, const struct sigaction *sa, siginfo_t *info, ucontext_t *ctx,
		uint64_t mask);
/* fn(sig, info, uc) on the stack that ends at sp; in entry.S. */
void callonstack(void (*fn)(int, siginfo_t *, void *), int sig, siginfo_t *info, void *uc,
		 uintptr_t sp);
static inline uintptr_t currentsp(void)
{
	return (uintptr_t)__builtin_frame_address(0);
}
/* Installs what the kernel needs to know of the program's action for sig. */
int install(int sig, const struct sigaction *sa);
/* sigaction() of a child that has our memory and actions of its own: they are the kernel's. */
int sigactionapart(int sig, const struct sigaction *sa, struct sigaction *old);

#endif
