/*
 * runtime.h - G, M, P and the scheduler's state, for core/ and unit tests.
 *
 * A G is a goroutine, an M a kernel thread, a P the right to run goroutines:
 * there are GOMAXPROCS of them, and each has a queue of its own. docs/states.md
 * draws how the status values change.
 */
#ifndef GOSHIM_RUNTIME_H
#define GOSHIM_RUNTIME_H

#include <stdatomic.h>

#include "api.h"
#include "arch/x86_64/arch.h"
#include "host.h"
#include "lock.h"
#include "mem.h"
#include "metrics.h"
#include "os.h"
#include "requests.h"
#include "settings.h"
#include "stack.h"
#include "arch/x86_64/offsets.h"

typedef struct P P;
typedef struct Timer Timer;
typedef struct Capture Capture;

/* Status of a G. "Owner" may use the stack; queue membership as said. All
 * changes go through casgstatus. */
typedef enum GStatus {
	Gidle,     /* just allocated; its maker owns it */
	Grunnable, /* on one run queue, or in its maker's or readier's hand; stack owned by nobody */
	Grunning,  /* m->curg of one M, which owns the stack; usually with a P */
	Gsyscall,  /* m->curg of one M, in the kernel or on the way; M owns the stack, has no P */
	Gwaiting,  /* parked; whoever wins gp->waking readies it; on no run queue */
	Gdead,     /* finished or pooled; nobody owns the stack */
} GStatus;

typedef enum PStatus {
	Pidle,    /* on sched.pidle, or in its taker's hand */
	Prunning, /* m is its M, which alone touches the run queue's tail */
	Psyscall, /* its last M is in a system call; whoever CASes it to Pidle owns it */
	Pgcstop,  /* stopped with the world; owned by the stopper */
	Pdead,    /* beyond GOMAXPROCS */
} PStatus;

/* Its slice is over, or the world stops; one that was woken needs the P, and gets it back after. */
enum { PreemptNone, PreemptSlice, PreemptWoken };

/* Who ended a park: gp->waking goes from WakeArmed to one other value, once. */
/* gp->intr. Kept: for the next wait alone (gkeepinterrupt). */
enum { IntrNone, IntrAsked, IntrKept };

enum { WakeIdle, WakeArmed, WakeReady, WakeTimeout, WakeIntr };

typedef struct Gobuf {
	uintptr_t sp; /* callee-saved registers and return address lie at sp */
} Gobuf;

typedef struct CPUTime {
	Lock lock;
	int tid;       /* of the M that it runs on, 0: it doesn't run */
	int64_t start; /* that thread's clock when it began there */
	int64_t sum;   /* until it left the last one */
} CPUTime;

/* At the upper end of a stack for the state of a goroutine that is preempted (preempt.c). */
typedef struct IntrStack {
	Stack stack;
	const void *
	    ctx; /* ucontext_t: where the program was; valid while the goroutine's saved sp is on this stack */
} IntrStack;

struct G {
	/* Offsets known to asm.S: keep sched and tls first (arch.h asserts). */
	Gobuf sched;
	void *tls; /* FS base: the thread block */
	uintptr_t stacklo, stackhi;
	M *m; /* the M that runs it, or NULL */
	_Atomic uint32_t status;
	_Atomic uint32_t waking;
	_Atomic uint32_t intr; /* ginterrupt was called and not yet handled */
	_Atomic bool parking;  /* its M's g0 is not done with parking it */
	uint8_t nameslot;      /* gname */
	uint16_t callnr;       /* 1 + of the system call that it makes; 0: not known (owner) */
	bool lostp;            /* its P was taken in the system call that it is in (owner) */
	bool wantintr;         /* the coming park may be ended by ginterrupt (owner) */
	_Atomic bool parkintr; /* the current park may be ended by ginterrupt */
	_Atomic bool counted;  /* its CPU time is, in cpu */
	WaitReason waitreason;
	uint64_t since;  /* ticksnow() when it got its status; its owner's */
	uint64_t parked; /* ... when it got Gwaiting, the last time; parkwatch's */
	Serving *
	    serving; /* of one that has served requests, or whoever had the record before; its owner's */
	uint64_t sliceused; /* cputicks of its slice before it made way for one that was woken */
	/* The address or, for I/O, the (first) descriptor waited for; 0: none. Valid while Gwaiting. */
	uintptr_t waitobj;
	int64_t goid;
	G *schedlink; /* run queues, free lists */
	G *alllink;   /* sched.allg, append only */
	M *lockedm;   /* wired to this M */
	uint32_t lockedcount;
	bool mends;           /* its M ends with it (lockOSThreadForever) */
	bool mendsmain;       /* ... even if it is main's (endOSThread) */
	uint16_t sampledtick; /* profile.c's: the last tick with a sample, its lower half */
	void *host;
	void (*fn)(void *); /* what it begins with; at its end, what goexit was given */
	union {
		void *fnarg;
		IntrStack *intrstack; /* in between: preempt.c's, or NULL; its owner's */
	};
	uint64_t kmask;       /* kernel signal mask of the M that runs it */
	CPUTime *_Atomic cpu; /* kept for the next one that it becomes */
	/* profile.c's: its `since`, less the upper half, when it was sampled as waiting, and that stack's number. */
	uint32_t sampledsince, sampledid;
};

struct M {
	G *g0;
	G *curg; /* running goroutine, or NULL; owner only, others read it racily */
	/* The P, or 0; bit 0 set while sysmon is taking it (sysmon.c). */
	_Atomic uintptr_t p;
	P *nextp;               /* P to start with; set by the waker before notewakeup(park) */
	void (*mstartfn)(void); /* to be called before it looks for work; as nextp */
	P *oldp;                /* P before the system call; owner only */
	/* Critical sections entered: no switch, no taking of the P. Always > 0 on g0. */
	_Atomic int32_t locks;
	_Atomic bool spinning;   /* looking for work without having any */
	_Atomic bool taken;      /* sysmon took its P while it ran */
	_Atomic bool kblocked;   /* counted in sched.nkblocked, and waits in the kernel */
	_Atomic bool kseen;      /* sysmon has seen it there */
	_Atomic bool calledback; /* its call is to end with -EINTR */
	int64_t id;
	_Atomic int tid;
	void *tls; /* FS base of the M's own block */
	uintptr_t gsignallo, gsignalhi;
	Note park;
	G *lockedg;
	bool bornwired;       /* starts by waiting for the goroutine that is to be wired to it */
	_Atomic int32_t born; /* 1: it waits so; -errno: it could not be made */
	void *ending[5];      /* where its thread's first function goes on to end it */
	M *schedlink;         /* sched.midle, sched.mfree */
	M *alllink;           /* sched.allm, append only */
	uint64_t kmask;       /* its signal mask in the kernel; changed by setkmask only */
	uint32_t fastrand;
	_Atomic uint32_t sigurg; /* runtime signals on the way to it */
	/* A park's hand-over to g0 (gopark). */
	bool (*waitunlockf)(G *gp, void *arg);
	void *waitarg;
	Timer *waittimer;
	Place syscallplace;       /* of curg, valid while it is Gsyscall */
	Capture *_Atomic capture; /* the handler of the runtime's signal is to fill it */
	HeldLocks held;           /* lock ranks, in debug builds */
	uint64_t
	    lastmove; /* when a goroutine stopped to run here, and the M has only switched since; 0: not */
	int64_t takencputime; /* its CPU clock when sysmon took its P; sysmon only */
	int64_t sampledcpu;   /* profile.c's: its CPU clock at the last tick */
	G g0storage;
};

struct P {
	int32_t id;
	_Atomic uint32_t status;
	P *link;
	_Atomic uint32_t schedtick; /* +1 each execute() */
	_Atomic uint32_t syscalltick;
	M *_Atomic m;
	/* Run queue: head moved by anyone (CAS), tail by the owner. */
	_Atomic uint32_t runqhead;
	_Atomic uint32_t runqtail;
	G *_Atomic runq[256];
	G *_Atomic runnext;
	_Atomic uint64_t
	    askedat; /* ticksnow() when preempt was set; 0: it was not, or has been counted */
	_Atomic uint32_t preempt; /* its goroutine is asked to yield, and why (PreemptSlice...) */
	_Atomic bool longcall;    /* Psyscall: the call is expected to last; take the P at once */
	/* goturn, owner only: when the turn of turntick (a schedtick) began, in cputicks, and the times it has asked. */
	uint64_t turnstart;
	uint32_t turns, turntick;
	/* In cputicks(), written by the owner: when what it runs was given the P, and when its slice began. */
	_Atomic uint64_t runstart, slicestart;
	Meter meter;
	bool tookwoken; /* what it runs, or ran last, came from those (owner only) */
	/* Finished Gs, owner only; overflow goes to sched.gfree. */
	G *gfree;
	int32_t ngfree;
	/* Timers, under timerslock. A 4-ary heap, and those it had no memory for. */
	Lock timerslock;
	Timer **timers;
	int32_t ntimers, captimers;
	Timer *unsorted;
	_Atomic int64_t timer0when; /* earliest, or FOREVER */
	/* Waits that began here, on the poller and in the kernel: owner only. */
	_Atomic int64_t nnetwaits, nkernelwaits;
	struct {
		uint32_t schedtick, syscalltick;
		int64_t schedwhen, syscallwhen;
		int64_t cpuwhen, cputime;
	} sysmontick; /* sysmon only */
};

/* One-shot timer; storage belongs to the caller until it has fired or deltimer returned. */
struct Timer {
	int64_t when;
	void (*fn)(void *arg); /* on g0 or sysmon, without locks held, MAY_RUN_WITHOUT_P */
	void *arg;
	P *_Atomic pp;        /* heap it is in; NULL: in none (fired, deleted or new) */
	int32_t index;        /* in the heap */
	Timer *next;          /* on the list of the unsorted */
	_Atomic bool running; /* fn is being called */
};

typedef struct Sched {
	Lock lock; /* guards what follows */
	G *runqhead, *runqtail;
	_Atomic int32_t runqsize; /* read without the lock as a hint */
	/* The first of that queue were woken while no P was free: how many (a hint, too), and the last. */
	_Atomic int32_t nwoken;
	G *runqwoken;
	M *midle;
	_Atomic int32_t nmidle;
	P *pidle;
	_Atomic int32_t npidle;
	int32_t mcount, maxmcount;
	int64_t mnext;
	M *mfree;                /* records of Ms that ended, or could not be made */
	_Atomic int64_t mfailed; /* ns of the last such failure */
	G *gfree;
	int32_t ngfree;
	bool gcwaitinglocked;
	int32_t stopwait;
	Note stopnote;

	/* lock-free */
	_Atomic bool started;
	_Atomic uint32_t gcwaiting; /* the world is to stop */
	_Atomic int32_t nmspinning;
	_Atomic int64_t goidgen;
	_Atomic int64_t lastpoll;    /* ns of the last poll; 0: somebody is polling */
	_Atomic int64_t polluntil;   /* while somebody polls: until when at most */
	_Atomic uint32_t sysmonwait; /* how sysmon sleeps; wakesysmon() ends it */
	_Atomic bool sysmonpolls;    /* ... and does so in netpoll */
	_Atomic int64_t sysmonuntil; /* while it naps: until when at most */
	_Atomic bool sysmonforever;  /* it sleeps, or is about to, until it is woken */
	_Atomic bool longrunners;    /* at sysmon's last look every P had a long runner */
	_Atomic uint64_t
	    minrun;         /* MINRUN in cputicks; 0: not known yet, or cputicks not to be had */
	_Atomic bool notsc; /* avoidtsc was called */
	_Atomic bool
	    slowmoves; /* ... or nothing is counted: moves of goroutines are not metricsmove's */
	_Atomic int64_t polledat;     /* ns: when an M last asked the network */
	_Atomic uint64_t polledticks; /* ... in cputicks */
	_Atomic int64_t turnedat;     /* ... on its turn (goturn), and so will again */
	Note sysmonnote;
	int pid;
	_Atomic int sysmontid;
	uint64_t basekmask; /* what Ms block in the kernel, but for what a G's kmask says */
	_Atomic uint32_t intrpending; /* somebody is to be interrupted again (sysmon) */
	/* Ms that wait in the kernel: how many may by choice (maywaitinkernel), and where only the kernel can wait. */
	_Atomic int32_t nkblocked;
	int32_t maxkblocked, maxkwaits;
	_Atomic int32_t crowd; /* what the last waits met (syscall.c) */
	_Atomic bool crowded;  /* ... as a decision: event loops wait in the poller */
	_Atomic int64_t nglive, ngpeak;
	Lock allglock;
	G *_Atomic allg;
	M *_Atomic allm;
	_Atomic int32_t gomaxprocs;
	P **allp; /* [gomaxprocs max seen] */
	int32_t nallp;
} Sched;

extern Sched sched;
extern char waitreasons[WaitReasonCount][24];

extern __thread G *goshim_g __attribute__((tls_model("initial-exec")));

static inline P *getp(M *mp)
{
	/* Within a section the tag means that sysmon is about to undo its taking. */
	return (P *)(atomic_load_explicit(&mp->p, memory_order_relaxed) & ~(uintptr_t)1);
}

/* The checks behind ON_G0 and NEEDS_P. */
void check_g0(void) ASSERTS_G0;
void check_p(M *mp) ASSERTS_P;

/* handle.c */
extern Handle *_Atomic handles;        /* the trie's root */
uint64_t handlehash(const void *addr); /* its low bit decides first */

/* g.c */
void casgstatus(G *gp, GStatus from, GStatus to);
static inline GStatus readgstatus(G *gp)
{
	return (GStatus)atomic_load_explicit(&gp->status, memory_order_acquire);
}
G *gfget(P *pp);          /* from the pools, or new; Gdead. pp may be NULL */
void gfput(P *pp, G *gp); /* pp may be NULL */

/* Of a P's owner alone. */
static inline void bump(_Atomic int64_t *n)
{
	int64_t was = atomic_load_explicit(n, memory_order_relaxed);
	atomic_store_explicit(n, was + 1, memory_order_relaxed);
}

/* p.c: run queues (Go's runqput, runqget, runqgrab, runqsteal) */
void runqput(P *pp, G *gp, bool next) NEEDS_P;
G *runqget(P *pp) NEEDS_P;
bool runqempty(P *pp);
G *runqsteal(P *pp, P *p2, bool stealrunnext) NEEDS_P;
void globrunqput_locked(G *gp) MAY_RUN_WITHOUT_P;
void globrunqputbatch_locked(G *head, G *tail, int32_t n) MAY_RUN_WITHOUT_P;
void globrunqputwoken_locked(G *head, G *tail, int32_t n) MAY_RUN_WITHOUT_P;
G *globrunqget_locked(P *pp, int32_t max) NEEDS_P;
G *globrunqgetinline_locked(void);
G *globrunqtakewired_locked(void) MAY_RUN_WITHOUT_P;
void pidleput_locked(P *pp) MAY_RUN_WITHOUT_P;
P *pidleget_locked(void) MAY_RUN_WITHOUT_P;
void procresize(int32_t n); /* world stopped, sched.lock held */

/* m.c */
bool mshort(void) MAY_RUN_WITHOUT_P; /* within the last second no M could be made */
void mput_locked(M *mp) MAY_RUN_WITHOUT_P;
M *mget_locked(void) MAY_RUN_WITHOUT_P;
bool newm(P *pp, bool spinning) MAY_RUN_WITHOUT_P;
/* An M for a goroutine that is to be wired: made by the template, it waits already. NULL: none to be had. */
M *newmwired(void);
void sparem(void);     /* sees to it that some M is not wired */
M *newmhere(int *err); /* by the calling goroutine's kernel thread, for one that is to be wired */
/* A goroutine whose CPU time is counted comes to the M, and leaves it. */
void cpuin(G *gp, M *mp);
void cpuout(G *gp);
void cpureset(G *gp, int64_t had); /* nobody has asked for it */
void startm(P *pp, bool spinning) MAY_RUN_WITHOUT_P;
void stopm(void) ON_G0;
void handoffp(P *pp) MAY_RUN_WITHOUT_P;
void acquirep(M *mp, P *pp) GIVES_P;
P *releasep(M *mp) DROPS_P;
M *malloc_m(void);
void clearp(M *mp, P *pp);
void mexit(M *mp, bool mainstoo) ON_G0 noreturn_fn;
void mforkchild(void);
void startlockedm(G *gp) ON_G0;
void stoplockedm(void) ON_G0;
uint32_t fastrand(M *mp);

/* proc.c */
void schedule(void) ON_G0 noreturn_fn;
void injectglist(G *list, int32_t n) MAY_RUN_WITHOUT_P; /* of Gwaiting, by schedlink */
void wakep(void) MAY_RUN_WITHOUT_P;
P *retakesyscallp(void) MAY_RUN_WITHOUT_P;
void stopTheWorld(void);
void startTheWorld(void);
/* Waking rights: true when the caller has won the right to ready gp. */
bool wakeclaim(G *gp, uint32_t why);

/*
 * gopark: parks the caller. It has set gp->waking to WakeArmed (parkarm) before
 * it made itself findable. On g0, after the switch, unlockf(gp, arg) releases
 * what made it findable; false: run on at once. Returns who woke it.
 * The caller is in one acquirem section, which gopark ends (no releasem after
 * it: the M may be another), and holds no locks but those that unlockf
 * releases. gp's stack stays parked until unlockf has returned. It returns
 * false only if it has won the wakeclaim itself, or nobody else could.
 */
void parkarm(G *gp, bool intr);
uint32_t gopark(bool (*unlockf)(G *gp, void *arg), void *arg, WaitReason why, int64_t deadline);
void goready(G *gp, bool next); /* after wakeclaim; caller may be foreign, g0, or a goroutine */

/* Switches to g0 and runs fn(gp) there; returns when gp is run again, perhaps
 * on another M. The caller holds no locks. */
void mcall(void (*fn)(G *gp));
void execute(G *gp, bool inherittime) ON_G0 NEEDS_P noreturn_fn;
void dropg(M *mp);
void slicebegins(P *pp);             /* of the goroutine that was given pp just now (owner only) */
bool ranlong(P *pp);                 /* what it runs has, and no other P is free (owner only) */
void maketheway_m(G *gp) ON_G0;      /* gp, which runs here, lets one go first that was woken */
void yieldtowoken(void);             /* the caller has woken somebody, and its P has ranlong */
void putlast(G *gp) ON_G0;           /* the running gp to the end of the global queue */
void setkmask(M *mp, uint64_t mask); /* caller is mp */

/* asm.S */
void mcall0(void (*fn)(G *gp), G *gp, G *g0);
noreturn_fn void gogo(G *gp);
void gostart(void);
void onstack0(void (*fn)(void *), void *arg,
	      uintptr_t sp); /* calls fn(arg) on the stack that ends at sp */
long syscalltramp(long nr, long a, long b, long c, long d, long e, long f, _Atomic uint32_t *intr);
extern char syscalltramp_begin[], syscalltramp_end[], syscalltramp_intr[];
void __restore_rt(void);
extern bool have_fsgsbase;

/* sysmon.c */
enum { SysmonRuns, SysmonSleeps, SysmonNaps }; /* Sleeps: nobody waits for a P */
void sysmon(void *arg);
void wakesysmon(void); /* if it sleeps deeply; SIGSAFE */
/* What a wait met (syscall.c): its P idle, other work, or that n would have been better off in the poller. */
void crowdnone(void);
void crowdfew(void);
void crowdmet(int32_t n);
static inline void sysmonneeded(void)
{
	if (unlikely(atomic_load_explicit(&sched.sysmonwait, memory_order_relaxed) == SysmonSleeps))
		wakesysmon();
}
/* One that an event woke waits for a P; those that have them run for long. */
static inline void sysmonneededsoon(void)
{
	uint32_t w = atomic_load_explicit(&sched.sysmonwait, memory_order_relaxed);
	if (w == SysmonSleeps || (w == SysmonNaps && atomic_load(&sched.longrunners)))
		wakesysmon();
}
M *acquirem_slow(G *gp);
uint32_t schedticks(void); /* changes when goroutines are run */

void sysmonforkchild(void);

/* asleep.c */
void lastidle(void); /* called by an M that stops: it may be the last */
bool asleepasked(void);
/* sysmon with nothing else to do: reports that all goroutines sleep for ever. When to call it
 * again, at the latest. */
int64_t asleepcheck(int64_t now);
void asleepforkchild(void);

/* kwait.c */
bool kwaitbegin(void); /* a place to wait in the kernel; false: interrupted, in line for one */
void kwaitend(bool done) MAY_RUN_WITHOUT_P;
bool kwaitasked(void);                  /* kwaitlook is to be called */
int64_t kwaitlook(int64_t now);         /* sysmon: looks after the line. When to call it again */
int32_t kwaitline(int64_t *ever);       /* how many stand in line, and ever had to */
void callback(M *mp) MAY_RUN_WITHOUT_P; /* who waits there in the kernel comes back */
void kwaitforkchild(void);

/* syscall.c: a goroutine without a P gets one, or waits for one on the global queue */
void exitsyscall0(G *gp);

/* Does mp compute at this moment? One that is blocked in a system call is left
 * alone: SIGURG would end some calls with EINTR, whatever SA_RESTART says. */
bool computes(M *mp);
char threadstate(int tid); /* as /proc has it: 'R' if it has or wants a CPU; 0: there is none */

/* capture.c */
void capturesignal(M *mp, const void *ctx) SIGSAFE; /* if mp->capture is set */
bool forkstry(
    void); /* keeps forks waiting until forksmay; false: one is under way, and nothing keeps it */
void forksmay(void);
/* readfile, while nobody forks or closes a descriptor; else -EAGAIN. */
long readfileapart(const char *path, char *buf, size_t n);
void captureforkchild(void);

/* preempt.c */
void preempttaken(P *pp);
bool preemptone(P *pp, uint32_t why) SIGSAFE;
void preemptm(M *mp) SIGSAFE;
void preemptall(void);
void intrstackfree(G *gp); /* in a section of gp's */

/* signal.c */
int sigstackalloc(M *mp); /* gsignal, if it has none: 0 or -ENOMEM */
void minitsignals(M *mp); /* on the M itself: gsignal stack, mask */

/* time.c */
void addtimer(P *pp, Timer *t); /* any P; t->pp == NULL before */
bool deltimer(Timer *t); /* true: removed before firing. false: it fired; its fn has returned. */
/* Runs what is due on pp; returns the next deadline of pp or FOREVER. May be called by any M for
 * any P, and by sysmon. *ran: something fired. */
int64_t checktimers(P *pp, int64_t now, bool *ran) MAY_RUN_WITHOUT_P;
void wakepoller(int64_t when);          /* an idle P has a timer for then */
int64_t timesleepuntil(void);           /* earliest over all Ps */
void movetimers_locked(P *from, P *to); /* procresize */

/* netpoll.c */
int netpollinit(void); /* 0 or -errno; at the first need */
/* delay < 0: wait for ever, 0: don't, > 0: ns. Returns list of Gs (schedlink), claimed, still Gwaiting; *n their number. */
G *netpoll(int64_t delay, int32_t *n) MAY_RUN_WITHOUT_P;
void netpollBreak(void) SIGSAFE;
bool netpollinited(void);
bool netpollanywaiters(void);
int32_t netpollwaiters(void); /* goroutines in netpollwait */
bool netpolltrusts(void);     /* some wait for descriptors that are registered as far as we know */
bool netpollverify(void);     /* registers those that wait for long again; true: more to come */
void netpollforkchild(void);

/* sema.c */
void semainit(void);
void semaforkchild(void);

/* debug.c */
void schedtrace(bool detailed);

#endif
