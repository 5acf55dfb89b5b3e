/*
 * api.h - all that shim/ may see of the scheduler.
 *
 * A caller is one of three: a goroutine (getg() != NULL), a foreign kernel
 * thread, or the only thread of a process whose scheduler has not started
 * (getg() == NULL for both). Functions say what they do for which. Errors are
 * negative errno values; times are nanoseconds of CLOCK_MONOTONIC (nanotime()).
 */
#ifndef GOSHIM_API_H
#define GOSHIM_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "annotate.h"
#include "arch/x86_64/arch.h"
#include "lockstat.h"
#include "profile.h"
#include "stack.h"
#include "traceback.h"

typedef struct G G;
typedef struct M M;
typedef struct Sudog Sudog;

/* No deadline. */
#define FOREVER INT64_MAX

/* Why a goroutine waits; the text (waitreasonstr) is Go's where Go has one. */
typedef enum WaitReason {
	WaitNone,
	WaitMutex,
	WaitCond,
	WaitRWMutexR,
	WaitRWMutexW,
	WaitSem,
	WaitBarrier,
	WaitOnce,
	WaitJoin,
	WaitFutex,
	WaitSleep,
	WaitIORead,
	WaitIOWrite,
	WaitIOPoll,
	WaitSignal,
	WaitThread,
	WaitKernel,
	WaitReasonCount
} WaitReason;
const char *waitreasonstr(WaitReason r);

/* --- identity ----------------------------------------------------------- */

/* The running goroutine; NULL on a foreign thread and before the start. In the
 * runtime itself, on a g0 stack, it is that g0. */
static inline G *getg(void)
{
	G *gp;
	/* One instruction reads it: code that kept the thread pointer across a
	 * switch would read another goroutine's. */
	__asm__ volatile("movq goshim_g@gottpoff(%%rip), %0\n\tmovq %%fs:(%0), %0" : "=r"(gp));
	return gp;
}

/* For the child of vfork, which shares its parent's block: what getg() says there. */
static inline void goshim_setg(G *gp)
{
	uintptr_t t;
	__asm__ volatile("movq goshim_g@gottpoff(%%rip), %0\n\tmovq %1, %%fs:(%0)"
			 : "=&r"(t)
			 : "r"(gp)
			 : "memory");
}

void tlssetg(void *tls, G *gp); /* gp is what getg() says under that thread block */

bool schedstarted(void); /* the scheduler runs in this process */
int64_t goid(G *gp);
void *ghost(G *gp); /* the host's record of this goroutine, given to newproc */

/* --- goroutines --------------------------------------------------------- */

/*
 * Starts the scheduler: the calling kernel thread becomes M0 and the code that
 * runs on it goroutine 1 with the given stack bounds, thread block and host
 * record. kmask is the signal mask (bit sig-1) of Ms. Returns 0 or -errno
 * (nothing has changed then). The host starts sysmon and the template thread
 * after it.
 */
int schedinit(void *tls, void *hostg, uintptr_t stacklo, uintptr_t stackhi, uint64_t kmask);

/*
 * Makes a goroutine that runs fn(arg) on [stacklo, stackhi) with thread block
 * `tls` in FS, and puts it on the caller's run queue (a foreign thread: the
 * global queue). fn must end in goexit(). Callable by goroutines and foreign
 * threads. NULL when memory is short.
 */
G *newproc(void (*fn)(void *), void *arg, void *tls, void *host, uintptr_t stacklo,
	   uintptr_t stackhi);

/*
 * The same for a goroutine that is wired for good to an M of its own, which the caller's kernel thread
 * makes: it has what the kernel keeps for that one. NULL and *err, -errno.
 */
G *newprocwired(void (*fn)(void *), void *arg, void *tls, void *host, uintptr_t stacklo,
		uintptr_t stackhi, int *err);

/*
 * Ends the calling goroutine. `done(arg)` runs on g0, after stack and thread
 * block are out of use: it may wake joiners, and give both back.
 */
noreturn_fn void goexit(void (*done)(void *arg), void *arg);

int setgomaxprocs(int n); /* stops the world; 0, -EINVAL (1 to 1024), -EAGAIN (not a goroutine) */

/* The caller failed to get something and may try again in a loop: yields if its slice is over. SIGURG can't do it to
 * a loop that is practically always in this library. */
void goyieldasked(void);
/* The caller, an event loop, asks for events without waiting: yields now and then, if others wait for its P. */
void goturn(void);
void gosched(void); /* yields: puts the caller on the global run queue */
/* Moves the caller, unless it is wired, off main's kernel thread, which is the process to the
 * kernel and had better not end. Tries: there may be no other to be had. */
void leavemain(void);
void lockOSThread(void); /* wires the caller to its M; nests */
void unlockOSThread(void);
/* Wires the caller for good: its M has state of the kernel's that others must not
 * meet, and ends with it. */
void lockOSThreadForever(void);
void unlockOSThreadForever(void); /* its M is as all others again */
/*
 * Wires the goroutine gp, which has this host record, for good; wired(arg, tid) is called while no
 * goroutine runs, with the id of its kernel thread. By another goroutine. 0, -ESRCH: it has ended,
 * -EAGAIN: there is no kernel thread to be had.
 */
int lockOSThreadOther(G *gp, void *hostg, void (*wired)(void *arg, int tid), void *arg);
/* The same, and main's ends as well, which else only stops: it has what the kernel alone can give
 * up, at its end. */
void endOSThread(void);

/* Has fn called soon, on g0 of an M that has no P, or, while none can be had, on the template thread. From
 * sysmon; one at a time. */
void runonm(void (*fn)(void));

/* To make another M will be the process's death: sees to it that there are some for so many threads, all of
 * which may wait in the kernel, and for the Ps; none is made any more. 0: it won't be, after all. */
void lastms(int threads);

/* The M of the caller stays its own between the two; for a few instructions
 * of the shim that must not see the P taken away. No parking between. */
M *acquirem(void);
void releasem(M *mp);

/*
 * The same for any caller: what takes a lock of the runtime's, or of the shim's that spins,
 * holds it within a section. On a foreign thread no signal comes meanwhile: its handler could
 * want the lock that it has interrupted.
 */
typedef struct Section {
	M *mp;         /* NULL: a foreign thread */
	uint64_t mask; /* its signal mask */
} Section;
uint64_t
maskall(void); /* blocks all signals of the calling kernel thread; what it blocked before */
void maskback(uint64_t mask);
static inline Section sectionenter(void)
{
	Section s = {acquirem(), 0};
	if (unlikely(!s.mp))
		s.mask = maskall();
	return s;
}
static inline void sectionleave(Section s)
{
	if (likely(s.mp))
		releasem(s.mp);
	else
		maskback(s.mask);
}

/* A system call without libc: the kernel's result, -errno included. */
static inline long rawsyscall(long nr, long a, long b, long c, long d, long e, long f)
{
	return sys6(nr, a, b, c, d, e, f);
}

/* --- waiting by address --------------------------------------------------- */

enum {
	ParkLIFO = 1,    /* queue at the head (a waiter that was woken and lost) */
	ParkIntr = 2,    /* a signal or cancellation ends the wait with -EINTR */
	ParkHandoff = 4, /* semaready: run the woken one next on this P */
};

/*
 * Waits on addr. Under the lock of addr's queue, check(arg) is called first
 * (NULL: always true); false ends it with -EAGAIN, no wait. Otherwise the
 * caller is queued with `tag`, and sleeps until semaready picks it (0), the
 * deadline passes (-ETIMEDOUT) or, with ParkIntr, a signal for the goroutine
 * is to be handled or its cancellation was asked for (-EINTR). A waiter that
 * leaves by itself has left the queue when semapark returns, and then
 * leave(arg), if any, has been called once under the queue's lock, before
 * any later semaready could look. Works for all three kinds of caller; a
 * foreign thread sleeps in the kernel. check, leave: no blocking, no calls
 * into this interface.
 */
int semapark(const void *addr, bool (*check)(void *arg), void (*leave)(void *arg), void *arg,
	     uint64_t tag, WaitReason why, int64_t deadline, int flags);

/*
 * Wakes up to n waiters of addr, in queue order, only those for which
 * pick(arg, tag) holds (NULL: all); pick returns 1 to wake, 0 to skip, -1 to
 * stop looking. When done(arg, woken, left) is given it is called once under
 * the queue's lock, after the choice and before any of the chosen runs, with
 * how many were chosen and how many are left in the queue: the place to
 * update the object. Returns the number woken. SIGSAFE where the caller is a
 * goroutine outside the runtime (handlers run there only).
 */
int semaready(const void *addr, int n, int (*pick)(void *arg, uint64_t tag),
	      void (*done)(void *arg, int woken, int left), void *arg, int flags);

/*
 * Under the locks of both queues: when check(arg) holds, wakes up to nwake
 * waiters of `from` and moves up to nmove others to the tail of `to`.
 * Returns woken (*moved, if given, gets the moved), or -EAGAIN when check failed.
 */
int semarequeue(const void *from, const void *to, int nwake, int nmove, bool (*check)(void *arg),
		void *arg, int *moved);

/* The waiters of addr, for assertions and tests. */
int semawaiters(const void *addr);

/* Sleeps until `deadline`; 0, or -EINTR with ParkIntr. */
int gosleep(int64_t deadline, int flags);

/* --- system calls --------------------------------------------------------- */

/*
 * Around a system call that may block for a while: the P may be taken by
 * others between the two. exitsyscall returns with a P, perhaps on another M.
 * No-ops unless the caller is a goroutine. errno is untouched.
 */
void entersyscall(void);
void exitsyscall(void);
/* entersyscall for one that returns before the call is made: where a function goes on
 * that stays meanwhile, as CALLERSPLACE() has it, for tracebacks. `waits`: the call is
 * expected to last, and the P free to be taken at once. */
void entersyscallat(const Place *where, bool waits);
/* What tracebacks are to say of the caller meanwhile. */
void gosetwait(WaitReason why);
/* Of the caller of the function that says this. */
#define CALLERSPLACE()                                       \
	((Place){(uintptr_t)__builtin_return_address(0),     \
		 (uintptr_t)__builtin_frame_address(0) + 16, \
		 *(uintptr_t *)__builtin_frame_address(0)})

/*
 * A system call that can wait, for all callers: entersyscall, the call,
 * exitsyscall. Returns the kernel's result. When a signal handler of the
 * goroutine is to run, or its cancellation was asked for, the call is not
 * begun, or ends with -EINTR; it is never restarted by the kernel then, so the
 * caller decides (sigdeliver in shim/signal.c). An -EINTR without such a
 * reason (a runtime signal) may be returned as well: the caller asks again.
 */
long blockingsyscall(long nr, long a, long b, long c, long d, long e, long f);

/* The same for a call that most probably returns at once, though it could
 * wait: nobody is looked for to take the P over; sysmon takes it when it lasts. */
long quicksyscall(long nr, long a, long b, long c, long d, long e, long f);

/* A call that the program makes itself; `waits`: as the first, else as the second. -ERESTARTSYS where the
 * kernel would make it again after a handler with SA_RESTART, -EINTR where it would not. */
enum { ERESTARTSYS = 512 };
long programssyscall(bool waits, long nr, long a, long b, long c, long d, long e, long f);

/*
 * True when waiting in the kernel itself is the better wait now: nothing else
 * is runnable here and few Ms wait in the kernel. Then use blockingsyscall
 * directly; else try without blocking and park with netpollwait.
 */
bool maywaitinkernel(void);
/* That is the better wait as a rule, but work waits for the caller's P: lets it go first. False: it is not. */
bool givewayonce(void);
/* Few Ms do, at least: one more may for what costs much otherwise. */
bool fewwaitinkernel(void);

/* --- readiness of file descriptors ---------------------------------------- */

enum { PollRead = 1, PollWrite = 2, PollHup = 4 };

typedef struct PollDesc PollDesc;

/*
 * To wait for fd: take a ticket, try the operation without blocking, and when
 * it would block, wait with the ticket. Whatever becomes ready after the
 * ticket was taken ends the wait, so nothing is lost between; a wait may end
 * without reason (try again). Tickets are for goroutines only.
 * netpollticket returns 0 or -EPERM (fd cannot be polled: a regular file),
 * -EBADF, -ENOMEM, -EMFILE.
 */
typedef struct PollTicket {
	PollDesc *pd;
	int fd;
	int mode; /* PollRead or PollWrite */
	uint32_t seq;
} PollTicket;
int netpollticket(PollTicket *t, int fd, int mode);
PollTicket *netpolltickets(int n); /* room for so many, or NULL */
void netpollticketsfree(PollTicket *t, int n);
int netpollwait(PollTicket *t, int n, int64_t deadline, WaitReason why, int flags);
/* ^ waits for any of n tickets: 0, -ETIMEDOUT, -EINTR, or netpollticket's
 * errors from the registration, which happens here. */
/* When the first of what came since was seen to be readable: ticks, odd if it may have been so before; 0: nothing. */
uint64_t netpollwhen(const PollTicket *t, int n);
/* fd was closed or replaced by the program: whoever waits for it looks again. */
void netpollmade(int fd); /* fd is a new file: it means something else, though no close was seen */
void netpollclosed(int fd);
/* fd has got something to read, as far as the caller knows: who waits for it is readied, unless an M sleeps in
 * the poller, whom the kernel has told. */
void netpollhint(int fd);
/* fd is one of the poller's own, which the program never opened. */
bool netpollowns(int fd);

/*
 * Descriptors of the library's own. movehigh: fd gets out of the program's way if there is room; its new number.
 * One that is open for a moment is opened between ownfdmake and ownfdmade, which does the same (fd < 0: it
 * could not be), and closed by ownfdclose. On kernel threads that no fork has to wait for long. fork calls the other three.
 */
int movehigh(int fd);
void ownfdmake(void);
int ownfdmade(int fd);
void ownfdclose(int fd);
bool ownfd(int fd); /* is it one? */
/* Around a call of a goroutine that closes a number, or makes it another file: none of ours has it meanwhile. */
void closebegin(void);
void closeend(void);
void ownfdfork(void);
void ownfdforked(void);
void ownfdforkchild(void);

/* --- signals and cancellation --------------------------------------------- */

/* Tells that gp has something to handle (a signal, cancellation): ends its
 * interruptible wait or its blockingsyscall, or if it runs, makes it call
 * host.interrupt soon, at a safe point. Any thread, SIGSAFE. */
void ginterrupt(G *gp);
bool ginterrupted(void);    /* the caller has such a mark */
void gclearinterrupt(void); /* the caller is about to handle it */
/* Handled, but for what only a wait can act on (deferred cancellation): the
 * caller's next interruptible wait ends. Nobody is reminded of it. */
void gkeepinterrupt(void);

/*
 * For signal handlers on kernel threads. ctx is the kernel's ucontext_t.
 */
/* SIGURG on an M: ctx is the kernel's ucontext. True when the signal was ours. SIGSAFE. */
bool sigpreempt(int sig, void *info, void *ctx);
/* Makes the interrupted goroutine call fn(sig, siginfo *, ucontext *) on its own
 * stack at sp (0: where it is, past the red zone) when the handler returns, and
 * go on as the ucontext then says when fn returns. The frame is the
 * kernel's own layout, so that unwinders know it. False when there is no room or the
 * context is not a goroutine's. SIGSAFE. */
bool siginject(G *gp, void *fn, int sig, void *info, void *ctx, uintptr_t sp);
/* Is gp the goroutine that runs on this kernel thread now, outside the runtime's
 * sections? SIGSAFE. */
bool gcurrent(G *gp);
/* Does gp run at the moment? Any thread. */
bool grunning(G *gp);
/* Is this context one where the goroutine may be interrupted now? SIGSAFE. */
bool siginterruptible(G *gp, void *ctx);
/* The last act of an injected fn: makes *ctx resume right on this M. No preemption after it. */
void sigresume(void *ctx);

/* The CPU time in ns of gp, which has this host record: from the first question on, and
 * for goroutine 1 also until the start. -ESRCH: it has ended. Any thread. */
int64_t gcputime(G *gp, void *hostg);

void wakesysmon(void);   /* SIGSAFE */
void *sigrestorer(void); /* for rt_sigaction: code that returns from a handler */

/* The kernel's signal mask (bit sig-1) of whichever M runs the calling
 * goroutine, from now on. For all others it is the one given to schedinit. */
void gsetkmask(uint64_t mask);
uint64_t ggetkmask(void);
/* The thread block of the calling goroutine's M. */
void *mblock(void);

/* --- time ----------------------------------------------------------------- */

int64_t nanotime(void);  /* CLOCK_MONOTONIC, ns; SIGSAFE */
uint64_t ticksnow(void); /* the same in the metrics' unit, ticks of the CPU's counter */
void avoidtsc(
    void); /* from now on time is the kernel's alone to tell: somebody is denied the instruction */

/* --- permanent records ---------------------------------------------------- */

/* Of an address that is never freed: the same address has the same record for ever. */
typedef struct Handle Handle;
struct Handle {
	const void *addr;
	_Atomic uint64_t contended; /* a lock: how often somebody had to wait for it, */
	WaitReason why;             /* and, the last time, as what */
	Handle *_Atomic child[2];   /* handle.c's */
};
/* Made if there is none; NULL: out of memory. In a section while it allocates, so safe where handlers of
 * the program run: on a goroutine outside the runtime, on a foreign thread. */
Handle *handleof(const void *addr);
Handle *handlefind(const void *addr); /* or NULL. SIGSAFE, any thread */
int64_t handlecount(void);

/* --- metrics -------------------------------------------------------------- */

/* gp has that name, of less than 16 bytes, from now on; its children, too. Without one it is the process's. */
void gname(G *gp, const char *name);
void metricsend(void); /* the process ends in an orderly way */
void metricscomplete(
    void); /* the system may refuse to give memory from now on: gets what may be needed */

/* The flight recorder (flight.c) has something to write; writes it. On an M without a P, one at a time. */
bool flightasked(void);
void flightwrite(void);

/* --- requests (requests.c) ------------------------------------------------- */

/* A connection that was accepted. Its calls are no-ops where nothing is counted. */
typedef struct Conn Conn;

/* How it was learnt that a descriptor is readable. */
typedef enum Seen {
	SeenReady,  /* it was so already */
	SeenEvent,  /* the poller has woken the caller, at that moment (netpollwhen) */
	SeenKernel, /* the kernel has, of a wait of its own */
} Seen;

bool requestswanted(void);
Conn *requestconn(int fd);               /* NULL: none that we saw accepted */
void requestdata(int fd, uint64_t data); /* a program's epoll instance reports it as that */
Conn *requestbydata(uint64_t data);
bool requestlistens(int fd);
void requestlisten(int fd, const char *address); /* fd is a listening socket with that one */
void requestaccepted(int from, int fd);          /* fd is a connection of that one */
void requestclosed(int fd);                      /* or another file by now */
void requestcopied(int fd);
/* The caller is about to wait until c, or with NULL any of others, has something to read. */
void requestwaits(Conn *c);
/* The wait for c, or for one of `many`, is over, and nothing was read yet. The caller has waited as `seen` says. */
void requestready(Conn *c, bool many, Seen seen, uint64_t when);
void requestread(Conn *c, Seen seen,
		 uint64_t when); /* something was read; seen is of the read itself */
void requestwrote(Conn *c);
/* Kernel mode: the caller asks for what c has, in a call that may wait; and has got something. requestwaits, and how the wait
 * after it has ended. */
void requestcalls(Conn *c);
void requestcalled(Conn *c);
Seen requestseen(void);

/*
 * Kernel mode (timed.c). timedstart: makes the region, unless this process has one; calls ready() before. timedcounts: it has one. A wait begins; it ends after so
 * many ticks, and so does a call that counts as a wait if it took long. A sleep ended ns after it should have.
 * SIGSAFE, and errno is untouched.
 */
void timedstart(void (*ready)(void));
bool timedcounts(void);
uint64_t timedbegins(WaitReason why);
int64_t timedends(WaitReason why, uint64_t begin);
void timedcallends(WaitReason why, uint64_t begin);
void timedlate(int64_t ns);
int64_t timedclock(int clock); /* in ns */
void timedthreadbegins(void);
void timedthreadends(void);
void timedcomplete(void); /* as metricscomplete */
void timedend(void);      /* as metricsend */

/* --- debugging ------------------------------------------------------------ */

/* Ends the process: a broken invariant of ours. Writes `who: what`, the
 * goroutine and the scheduler's state to stderr with write(2) only, then aborts. */
noreturn_fn void throw(const char *what);
/* Writes one line "goshim: ..." to stderr; no malloc, no stdio. %s %d %x %p
 * take const char *, int64_t, uint64_t, void *. */
void warn(const char *fmt, ...);
/* Should deadlocks be looked for? One was found, and told of: ends the process, if it is to end then. */
bool deadlockwanted(void);
void deadlockfound(void);

#endif
