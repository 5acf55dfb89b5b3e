/*
 * signal.c - signals belong to goroutines.
 *
 * The kernel sends signals to kernel threads; the program addresses threads
 * that are goroutines. So Ms keep asynchronous signals blocked, and sysmon's
 * thread receives what is sent to the process, for as long as some goroutine
 * has it unblocked: its handler notes it in a ring, sysmon routes it (sigtick)
 * to a goroutine as the kernel would choose, main first. If all block it, so
 * does sysmon, and it stays pending in the kernel, where sigwait, sigpending
 * and signalfd find it.
 *
 * The program's handler runs on the goroutine's own stack, or its alternate
 * stack, as an ordinary call at a place where a signal could have come
 * (siginject in core/preempt.c) or where a wait was interrupted: so it may
 * block, migrate, or leave by siglongjmp. What a goroutine causes itself
 * (SIGSEGV, ...) arrives on its M and is given to it at once.
 *
 * Before the scheduler's start, and again in a fork child, all this is
 * absent: actions are the kernel's.
 */
#include "signal.h"
#include "cancel.h"
#include "sched.h"
#include "thread.h"

#include <setjmp.h>
#include <stdatomic.h>
#include <ucontext.h>

#define BIT(sig) (1ull << ((sig)-1))

enum { NSIGS = 64, RING = 256, NODES = 4096 };

/* Caused by the thread that gets them. */
#define SYNCSIGS                                                                                   \
	(BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGFPE) | BIT(SIGILL) | BIT(SIGTRAP) | BIT(SIGSYS))
/* Addressed by the kernel to the thread whose call earned them. */
#define CALLSIGS (BIT(SIGPIPE) | BIT(SIGXFSZ))
#define NEVERMASKED (BIT(SIGKILL) | BIT(SIGSTOP) | BIT(32) | BIT(33))

struct SigNode {
	SigNode *next;
	siginfo_t info;
};

static struct {
	_Atomic uint32_t lock;
	struct sigaction act[NSIGS + 1];
	SigNode nodes[NODES];
	SigNode *free;
	uint32_t used;
	/* How many threads block each signal, and how many there are. */
	int32_t nblocked[NSIGS + 1], nlive;
	/* sysmon's mask, and the handshake for changing it. */
	_Atomic uint64_t sysmonmask;
	_Atomic uint32_t maskwant, maskdone;
} sigs;

/* Received by sysmon (or by an M in a native bracket), not yet routed. */
static struct {
	_Atomic uint32_t state; /* 0 free, 1 being written, 2 full */
	siginfo_t info;
} ring[RING];
static _Atomic uint32_t ringused;

static __thread bool issysmon;

/* Stands for the process: signals that sysmon had received when the last thread
 * blocked them. They wait for one that opens them, or asks. */
static Thread process = { .mask = ~0ull };

/* --- the lock ---------------------------------------------------------------------- */

typedef struct SigLocked {
	M *mp;
	uint64_t mask;
} SigLocked;

static SigLocked siglock(void)
{
	SigLocked l = { acquirem(), 0 };
	uint64_t all = ~0ull;
	if (!l.mp)
		sys4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&l.mask, 8);
	while (atomic_exchange_explicit(&sigs.lock, 1, memory_order_acquire))
		for (int i = 0; atomic_load_explicit(&sigs.lock, memory_order_relaxed); i++)
			i < 100 ? procyield() : (void)sys0(SYS_sched_yield);
	return l;
}

static void sigunlock(SigLocked l)
{
	atomic_store_explicit(&sigs.lock, 0, memory_order_release);
	if (l.mp)
		releasem(l.mp);
	else
		sys4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&l.mask, 0, 8);
}

static SigNode *nodeget_locked(void)
{
	SigNode *n = sigs.free;
	if (n)
		sigs.free = n->next;
	else if (sigs.used < NODES)
		n = &sigs.nodes[sigs.used++];
	return n;
}

static void nodeput_locked(SigNode *n)
{
	n->next = sigs.free;
	sigs.free = n;
}

/* --- who blocks what -------------------------------------------------------------------- */

static uint64_t setbits(const sigset_t *set)
{
	uint64_t m;
	memcpy(&m, set, 8);
	return m & ~NEVERMASKED;
}

static void bitsset(sigset_t *set, uint64_t m)
{
	sigemptyset(set);
	memcpy(set, &m, 8);
}

static bool handled(int sig)
{
	void (*h)(int) = sigs.act[sig].sa_handler;
	return h != SIG_DFL && h != SIG_IGN;
}

/* What sysmon should block: what all threads block. */
static uint64_t wantmask_locked(void)
{
	uint64_t m = 0;
	for (int s = 1; s <= NSIGS; s++)
		if (sigs.nblocked[s] >= sigs.nlive)
			m |= BIT(s);
	return m & ~NEVERMASKED;
}

/* Counts a change of some thread's mask. True: sysmon has to change its own. */
static bool maskcount_locked(uint64_t old, uint64_t mask)
{
	for (uint64_t diff = old ^ mask; diff; diff &= diff - 1) {
		int s = __builtin_ctzll(diff) + 1;
		sigs.nblocked[s] += mask & BIT(s) ? 1 : -1;
	}
	return wantmask_locked() != atomic_load(&sigs.sysmonmask);
}

/* Has sysmon's mask follow, and waits until it has: what it then receives has been routed. */
static void masksync(void)
{
	uint32_t want = atomic_fetch_add(&sigs.maskwant, 1) + 1;
	wakesysmon();
	entersyscall();
	for (;;) {
		uint32_t done = atomic_load(&sigs.maskdone);
		if ((int32_t)(done - want) >= 0)
			break;
		struct timespec ts = { 0, 10000000 };
		sys4(SYS_futex, (long)&sigs.maskdone, 128, done, (long)&ts);
		wakesysmon();
	}
	exitsyscall();
}

static uint64_t kmaskfor(uint64_t mask)
{
	return (sigbasekmask() & ~CALLSIGS) | (mask & CALLSIGS);
}

static int post(Thread *th, const siginfo_t *info);
static bool take(Thread *th, uint64_t set, siginfo_t *info);

/* The calling goroutine's mask becomes m. */
static void setmask(Thread *th, uint64_t m)
{
	uint64_t old = th->mask;
	if (old == m)
		return;
	SigLocked l = siglock();
	th->mask = m;
	/* One that is being routed may be for what this opens. */
	bool sync = maskcount_locked(old, m) || ((old & ~m) && sigtickneeded());
	sigunlock(l);
	if ((old ^ m) & CALLSIGS)
		gsetkmask((ggetkmask() & ~CALLSIGS) | (m & CALLSIGS));
	if (sync)
		masksync();
	siginfo_t info;
	while (take(&process, ~m, &info))
		post(th, &info);
	if (atomic_load(&th->pending) & ~m)
		ginterrupt(th->gp);
}

uint64_t sigbasekmask(void)
{
	return ~(SYNCSIGS | CALLSIGS | BIT(SIGURG) | NEVERMASKED);
}

/* --- posting --------------------------------------------------------------------------------- */

/* Queues info for th. 0 or EAGAIN (real-time signals only). */
static int post(Thread *th, const siginfo_t *info)
{
	int sig = info->si_signo;
	SigLocked l = siglock();
	bool pending = atomic_load(&th->pending) & BIT(sig);
	int r = 0;
	if (!pending || sig >= SIGRTMIN) {
		SigNode *n = nodeget_locked();
		if (n) {
			SigNode **p = &th->queue;
			n->info = *info;
			n->next = NULL;
			/* Lower numbers first, equal ones in order. */
			while (*p && (*p)->info.si_signo <= sig)
				p = &(*p)->next;
			n->next = *p;
			*p = n;
			atomic_fetch_or(&th->pending, BIT(sig));
		} else {
			r = EAGAIN;
		}
	}
	G *gp = th->gp;
	bool open = !(th->mask & BIT(sig)) || (atomic_load(&th->waitset) & BIT(sig));
	sigunlock(l);
	if (gp && open)
		ginterrupt(gp);
	return r;
}

/* Takes a pending signal of `set` from th's queue. */
static bool take(Thread *th, uint64_t set, siginfo_t *info)
{
	if (!(atomic_load_explicit(&th->pending, memory_order_acquire) & set))
		return false;
	SigLocked l = siglock();
	bool found = false;
	for (SigNode **p = &th->queue; *p; p = &(*p)->next) {
		SigNode *n = *p;
		int sig = n->info.si_signo;
		if (!(set & BIT(sig)))
			continue;
		*info = n->info;
		*p = n->next;
		if (!*p || (*p)->info.si_signo != sig)
			atomic_fetch_and(&th->pending, ~BIT(sig));
		nodeput_locked(n);
		found = true;
		break;
	}
	sigunlock(l);
	return found;
}

/* --- routing, on sysmon ------------------------------------------------------------------------- */

/* From a handler: to be routed to some thread. */
static bool ringput(const siginfo_t *info)
{
	for (uint32_t i = 0; i < RING; i++) {
		uint32_t zero = 0;
		if (!atomic_compare_exchange_strong(&ring[i].state, &zero, 1))
			continue;
		ring[i].info = *info;
		atomic_store(&ring[i].state, 2);
		atomic_fetch_add(&ringused, 1);
		wakesysmon();
		return true;
	}
	return false;
}

struct choice {
	uint64_t bit;
	Thread *th;
};

static bool choose(Thread *th, void *arg)
{
	struct choice *c = arg;
	if (th->exiting || ((th->mask & c->bit) && !(atomic_load(&th->waitset) & c->bit)))
		return true;
	c->th = th;
	return false;
}


/* Gives a process-directed signal to a thread; false: all block it. */
static bool route(const siginfo_t *info)
{
	struct choice c = { BIT(info->si_signo), NULL };
	threadseach(choose, &c);
	if (!c.th)
		return false;
	/* It may end meanwhile: then its record is only pooled, and what is queued
	 * is routed anew at its end (sigthreadexit). */
	post(c.th, info);
	return true;
}

static void sysmonsetmask(uint64_t m)
{
	uint64_t k = m | BIT(SIGURG);
	k &= ~NEVERMASKED;
	atomic_store(&sigs.sysmonmask, m);
	sys4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&k, 0, 8);
}

void sysmonthreadinit(void)
{
	issysmon = true;
	SigLocked l = siglock();
	uint64_t m = wantmask_locked();
	sigunlock(l);
	sysmonsetmask(m);
}

bool sigtickneeded(void)
{
	return atomic_load(&ringused) || atomic_load(&sigs.maskwant) != atomic_load(&sigs.maskdone);
}

void sigtick(void)
{
	uint32_t want = atomic_load(&sigs.maskwant);
	if (want != atomic_load(&sigs.maskdone)) {
		SigLocked l = siglock();
		uint64_t m = wantmask_locked();
		sigunlock(l);
		sysmonsetmask(m); /* what was pending arrives here, in the ring */
	}
	for (uint32_t i = 0; i < RING && atomic_load(&ringused); i++) {
		if (atomic_load(&ring[i].state) != 2)
			continue;
		siginfo_t info = ring[i].info;
		atomic_store(&ring[i].state, 0);
		atomic_fetch_sub(&ringused, 1);
		if (!route(&info))
			post(&process, &info); /* blocked everywhere, since we received it */
	}
	if (want != atomic_load(&sigs.maskdone)) {
		atomic_store(&sigs.maskdone, want);
		sys3(SYS_futex, (long)&sigs.maskdone, 129, INT32_MAX);
	}
}

/* --- running handlers --------------------------------------------------------------------------- */

/* Does what the kernel does by default, on the calling goroutine's kernel thread. */
static void defaultaction(Thread *th, const siginfo_t *info)
{
	int sig = info->si_signo;
	(void)th;
	lockOSThread();
	uint64_t k = ggetkmask();
	gsetkmask(k & ~BIT(sig));
	sys3(SYS_tgkill, sys0(SYS_getpid), sys0(SYS_gettid), sig);
	gsetkmask(k); /* it was ignored, or the process was stopped and continued */
	unlockOSThread();
}

static bool onaltstack(Thread *th, uintptr_t sp)
{
	uintptr_t lo = (uintptr_t)th->altstack.ss_sp;
	return !(th->altstack.ss_flags & SS_DISABLE) && th->altstack.ss_size && sp > lo &&
	       sp <= lo + th->altstack.ss_size;
}

static uintptr_t currentsp(void)
{
	return (uintptr_t)__builtin_frame_address(0);
}

/* fn(sig, info, uc) on the stack that ends at sp; in entry.S. */
void callonstack(void (*fn)(int, siginfo_t *, void *), int sig, siginfo_t *info, void *uc,
		 uintptr_t sp);

static void callhandler(Thread *th, const struct sigaction *sa, siginfo_t *info, ucontext_t *uc)
{
	void (*fn)(int, siginfo_t *, void *) = sa->sa_sigaction;
	bool alt = (sa->sa_flags & SA_ONSTACK) && th->altstack.ss_size &&
		   !(th->altstack.ss_flags & SS_DISABLE) && !onaltstack(th, currentsp());
	if (!alt) {
		fn(info->si_signo, info, uc);
		return;
	}
	uintptr_t top = (uintptr_t)th->altstack.ss_sp + th->altstack.ss_size;
	callonstack(fn, info->si_signo, info, uc, top & ~(uintptr_t)63);
}

/* A system call that libc or the program makes itself was interrupted, and the
 * kernel has set the context to begin it again: without SA_RESTART it fails. */
static void failrestart(ucontext_t *uc)
{
	greg_t *r = uc->uc_mcontext.gregs;
	const uint8_t *pc = (const uint8_t *)r[REG_RIP];
	if (r[REG_RCX] != r[REG_RIP] + 2 || pc[0] != 0x0f || pc[1] != 0x05)
		return;
	r[REG_RAX] = -EINTR;
	r[REG_RIP] += 2;
}

/* Runs the action of one signal. True when a handler ran; *restart is cleared
 * unless it had SA_RESTART. */
static bool act(Thread *th, siginfo_t *info, ucontext_t *ctx, bool *restart)
{
	int sig = info->si_signo;
	SigLocked l = siglock();
	struct sigaction sa = sigs.act[sig];
	bool reset = handled(sig) && (sa.sa_flags & SA_RESETHAND);
	if (reset)
		sigs.act[sig].sa_handler = SIG_DFL;
	sigunlock(l);
	if (sa.sa_handler == SIG_IGN)
		return false;
	if (sa.sa_handler == SIG_DFL) {
		defaultaction(th, info);
		return false;
	}
	if (reset) {
		struct sigaction dfl = { .sa_handler = SIG_DFL };
		real.sigaction(sig, &dfl, NULL);
	}
	if (!(sa.sa_flags & SA_RESTART)) {
		*restart = false;
		if (ctx)
			failrestart(ctx);
	}
	uint64_t old = th->mask;
	uint64_t m = old | setbits(&sa.sa_mask) | (sa.sa_flags & SA_NODEFER ? 0 : BIT(sig));
	ucontext_t own, *uc = ctx;
	if (!uc) {
		/* At a call: where the program is, as far as there is a meaning to it. */
		memset(&own, 0, sizeof own);
		own.uc_mcontext.gregs[REG_RSP] = (greg_t)currentsp();
		own.uc_mcontext.gregs[REG_RIP] = (greg_t)__builtin_return_address(0);
		own.uc_stack = th->altstack;
		uc = &own;
	}
	/* The kernel's frame has room for 64 signals only. */
	uint64_t savedmask = old;
	memcpy(&uc->uc_sigmask, &savedmask, 8);
	setmask(th, m);
	int err = errno;
	callhandler(th, &sa, info, uc);
	errno = err;
	th = curthread();
	memcpy(&savedmask, &uc->uc_sigmask, 8);
	setmask(th, savedmask & ~NEVERMASKED);
	return true;
}

/* Runs what is pending and open. True when a handler ran. */
static bool deliver(ucontext_t *ctx, bool *restart)
{
	Thread *th = curthread();
	bool ran = false;
	siginfo_t info;
	*restart = true;
	gclearinterrupt();
	while (take(th, ~th->mask, &info)) {
		ran |= act(th, &info, ctx, restart);
		th = curthread();
	}
	return ran;
}

bool sigpendingopen(void)
{
	Thread *th = curthread();
	return th && (atomic_load(&th->pending) & ~th->mask);
}

/* Asynchronous cancellation acts anywhere. */
static void asynccancel(void)
{
	enum { ASYNC = 2 };
	if (cancelwanted() && (TLSFIELD(curthread()->block, int, tls.cancelhandling) & ASYNC))
		testcancel();
}

bool sigdeliver(bool restartable)
{
	if (!getg())
		return false; /* the kernel ran handlers, and says EINTR where it meant it */
	bool restart;
	bool ran = deliver(NULL, &restart);
	asynccancel();
	return !ran || (restartable && restart);
}

/* host.interrupt: on the goroutine, at a safe point; ctx: the interrupted context. */
void siginterrupt_host(void *ctx)
{
	bool restart;
	Thread *th = curthread();
	if (!th) {
		gclearinterrupt();
		return;
	}
	deliver(ctx, &restart);
	asynccancel();
}

/* --- the kernel's handler --------------------------------------------------------------------------- */

/* Called on the goroutine's stack by siginject: the signal it caused. */
static void ownfault(int sig, siginfo_t *info, void *ctx)
{
	bool restart = true;
	(void)sig;
	act(curthread(), info, ctx, &restart);
	sigresume(ctx);
}

/* Back to the default action, which the returning instruction meets again. */
static void die(int sig)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	real.sigaction(sig, &dfl, NULL);
}

static void syncsignal(int sig, siginfo_t *info, ucontext_t *uc)
{
	G *gp = getg();
	Thread *th = gp ? ghost(gp) : NULL;
	uintptr_t sp = (uintptr_t)uc->uc_mcontext.gregs[REG_RSP];
	bool fault = sig == SIGSEGV || sig == SIGBUS;
	if (fault && info->si_code > 0 && stackguarded((uintptr_t)info->si_addr) && th)
		warn("goroutine %d%s%s: stack overflow (stack of %d KiB, address %p)", goid(gp),
		     th->name[0] ? " " : "", th->name,
		     (int64_t)((th->stack.hi - th->stack.lo) >> 10), info->si_addr);
	if (!th || !gcurrent(gp)) {
		if (gp)
			warn("signal %d at pc=%p addr=%p in the runtime", (int64_t)sig,
			     (void *)uc->uc_mcontext.gregs[REG_RIP], info->si_addr);
		die(sig);
		return;
	}
	if (!handled(sig) || (th->mask & BIT(sig))) {
		if (sigs.act[sig].sa_handler == SIG_IGN && info->si_code <= 0)
			return;
		die(sig);
		return;
	}
	bool alt = (sigs.act[sig].sa_flags & SA_ONSTACK) && th->altstack.ss_size &&
		   !(th->altstack.ss_flags & SS_DISABLE) && !onaltstack(th, sp);
	uintptr_t at = alt ? (uintptr_t)th->altstack.ss_sp + th->altstack.ss_size : 0;
	if (!siginject(gp, ownfault, sig, info, uc, at))
		die(sig);
}

/* On a foreign kernel thread: as the kernel would have called the program's handler. */
static void foreignsignal(int sig, siginfo_t *info, ucontext_t *uc)
{
	struct sigaction sa = sigs.act[sig];
	if (!handled(sig)) {
		if (BIT(sig) & SYNCSIGS)
			die(sig);
		return;
	}
	uint64_t m;
	memcpy(&m, &uc->uc_sigmask, 8);
	m |= setbits(&sa.sa_mask) | (sa.sa_flags & SA_NODEFER ? 0 : BIT(sig));
	sys4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&m, 0, 8);
	sa.sa_sigaction(sig, info, uc);
}

static void sighandler(int sig, siginfo_t *info, void *ctx)
{
	int err = errno;
	ucontext_t *uc = ctx;
	G *gp = getg();
	if (sig == SIGURG && sigpreempt(sig, info, ctx)) {
		errno = err;
		return;
	}
	if (issysmon) {
		if (!ringput(info)) { /* full: it waits in the kernel, until the next change of masks */
			uint64_t m;
			memcpy(&m, &uc->uc_sigmask, 8);
			m |= BIT(sig);
			memcpy(&uc->uc_sigmask, &m, 8);
			sys4(SYS_rt_tgsigqueueinfo, sys0(SYS_getpid), sys0(SYS_gettid), sig,
			     (long)info);
			atomic_fetch_add(&sigs.maskwant, 1);
			wakesysmon();
		}
	} else if (!gp) {
		foreignsignal(sig, info, uc);
	} else if (BIT(sig) & SYNCSIGS) {
		syncsignal(sig, info, uc);
	} else {
		/* A goroutine in a native bracket, or what its call earned, or libc's raise. */
		Thread *th = ghost(gp);
		if (th && gcurrent(gp) && (info->si_code == SI_TKILL || (BIT(sig) & CALLSIGS))) {
			if (siginterruptible(gp, uc) && !(th->mask & BIT(sig)) && handled(sig))
				siginject(gp, ownfault, sig, info, uc, 0);
			else
				post(th, info);
		} else if (handled(sig)) {
			ringput(info);
		}
	}
	errno = err;
}

/* Installs what the kernel needs to know of the program's action for sig. */
static int install(int sig, const struct sigaction *sa)
{
	void (*h)(int) = sa->sa_handler;
	bool ours = (h != SIG_DFL && h != SIG_IGN) || sig == SIGURG ||
		    ((sig == SIGSEGV || sig == SIGBUS) && h == SIG_DFL);
	if (!ours)
		return real.sigaction(sig, sa, NULL);
	struct sigaction k = { .sa_sigaction = sighandler };
	sigfillset(&k.sa_mask);
	k.sa_flags = SA_SIGINFO | SA_ONSTACK |
		     (sa->sa_flags & (SA_NOCLDSTOP | SA_NOCLDWAIT | SA_RESTART));
	if (sig == SIGURG)
		k.sa_flags |= SA_RESTART;
	return real.sigaction(sig, &k, NULL);
}

/* --- start and fork -------------------------------------------------------------------------------------- */

/* Takes over all actions. On main, with all signals blocked. */
void signalsstart(void)
{
	for (int s = 1; s <= NSIGS; s++) {
		if (BIT(s) & NEVERMASKED)
			continue;
		real.sigaction(s, NULL, &sigs.act[s]);
	}
	for (int s = 1; s <= NSIGS; s++)
		if (!(BIT(s) & NEVERMASKED) &&
		    (handled(s) || s == SIGURG || s == SIGSEGV || s == SIGBUS))
			install(s, &sigs.act[s]);
}

void signalsundo(void)
{
	for (int s = 1; s <= NSIGS; s++)
		if (!(BIT(s) & NEVERMASKED))
			real.sigaction(s, &sigs.act[s], NULL);
}

/* In a fork child, single-threaded again: actions, mask and alternate stack are the kernel's. */
void signalsforkchild(Thread *self)
{
	atomic_store(&sigs.lock, 0);
	atomic_store(&ringused, 0);
	for (int i = 0; i < RING; i++)
		atomic_store(&ring[i].state, 0);
	sigs.free = NULL;
	sigs.used = 0;
	memset(sigs.nblocked, 0, sizeof sigs.nblocked);
	sigs.nlive = 0;
	atomic_store(&sigs.maskwant, 0);
	atomic_store(&sigs.maskdone, 0);
	/* Pending signals are not inherited. */
	process.queue = NULL;
	atomic_store(&process.pending, 0);
	self->queue = NULL;
	atomic_store(&self->pending, 0);
	signalsundo();
	stack_t none = { .ss_flags = SS_DISABLE };
	real.sigaltstack(self->altstack.ss_size ? &self->altstack : &none, NULL);
	uint64_t m = self->mask;
	sys4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&m, 0, 8);
}

void sigthreadinit(Thread *th, Thread *creator)
{
	if (creator) {
		th->mask = creator->mask;
	} else {
		uint64_t m = 0;
		sys4(SYS_rt_sigprocmask, SIG_BLOCK, 0, (long)&m, 8);
		th->mask = m & ~NEVERMASKED;
	}
}

/* Its mask counts from now on. */
void sigthreadcount(Thread *th)
{
	SigLocked l = siglock();
	sigs.nlive++;
	bool sync = maskcount_locked(0, th->mask);
	sigunlock(l);
	if (sync && schedstarted()) {
		atomic_fetch_add(&sigs.maskwant, 1);
		wakesysmon();
	}
}

void sigthreadexit(Thread *th)
{
	SigLocked l = siglock();
	bool sync = maskcount_locked(th->mask, 0);
	sigs.nlive--;
	sync |= wantmask_locked() != atomic_load(&sigs.sysmonmask);
	while (th->queue) {
		SigNode *n = th->queue;
		th->queue = n->next;
		nodeput_locked(n);
	}
	atomic_store(&th->pending, 0);
	sigunlock(l);
	if (sync) {
		atomic_fetch_add(&sigs.maskwant, 1);
		wakesysmon();
	}
}

/* First thing on a new thread. */
void sigthreadstart(Thread *th)
{
	if (th->mask & CALLSIGS)
		gsetkmask(kmaskfor(th->mask));
	bool restart;
	if (atomic_load(&th->pending) & ~th->mask)
		deliver(NULL, &restart);
}

/* --- the program's calls --------------------------------------------------------------------------------------- */

SHIM(int, sigaction, int sig, const struct sigaction *sa, struct sigaction *old)
{
	if (!schedstarted() || sig < 1 || sig > NSIGS || (BIT(sig) & NEVERMASKED))
		return real.sigaction(sig, sa, old);
	struct sigaction new = { .sa_handler = NULL };
	if (sa)
		new = *sa; /* faults here, not under the lock */
	SigLocked l = siglock();
	struct sigaction before = sigs.act[sig];
	if (sa)
		sigs.act[sig] = new;
	sigunlock(l);
	if (sa)
		install(sig, &new);
	if (old)
		*old = before;
	return 0;
}

/* signal(): BSD meaning, as glibc's. */
SHIM(sighandler_t, signal, int sig, sighandler_t h)
{
	struct sigaction sa = { .sa_handler = h, .sa_flags = SA_RESTART }, old;
	if (!schedstarted())
		return real.signal(sig, h);
	if (h == SIG_ERR || sig < 1 || sig > NSIGS) {
		errno = EINVAL;
		return SIG_ERR;
	}
	sigemptyset(&sa.sa_mask);
	sigaddset(&sa.sa_mask, sig);
	return shim_sigaction(sig, &sa, &old) < 0 ? SIG_ERR : old.sa_handler;
}

SHIM(sighandler_t, sysv_signal, int sig, sighandler_t h)
{
	struct sigaction sa = { .sa_handler = h, .sa_flags = SA_RESETHAND | SA_NODEFER }, old;
	if (!schedstarted())
		return real.sysv_signal(sig, h);
	if (h == SIG_ERR || sig < 1 || sig > NSIGS) {
		errno = EINVAL;
		return SIG_ERR;
	}
	return shim_sigaction(sig, &sa, &old) < 0 ? SIG_ERR : old.sa_handler;
}

static int changemask(int how, const sigset_t *set, sigset_t *old)
{
	Thread *th = curthread();
	uint64_t before = th->mask, m = before;
	if (set) {
		uint64_t s = setbits(set);
		if (how == SIG_BLOCK)
			m |= s;
		else if (how == SIG_UNBLOCK)
			m &= ~s;
		else if (how == SIG_SETMASK)
			m = s;
		else
			return EINVAL;
	}
	if (old)
		bitsset(old, before);
	setmask(th, m);
	/* POSIX: at least one that this opened is delivered before it returns. */
	if (atomic_load(&th->pending) & ~m) {
		bool restart;
		deliver(NULL, &restart);
	}
	return 0;
}

SHIM(int, pthread_sigmask, int how, const sigset_t *set, sigset_t *old)
{
	if (!getg())
		return real.pthread_sigmask(how, set, old);
	return changemask(how, set, old);
}

SHIM(int, sigprocmask, int how, const sigset_t *set, sigset_t *old)
{
	if (!getg())
		return real.sigprocmask(how, set, old);
	int r = changemask(how, set, old);
	if (r) {
		errno = r;
		return -1;
	}
	return 0;
}

void sigmaskswap(const sigset_t *set, sigset_t *old)
{
	Thread *th = curthread();
	if (old)
		bitsset(old, th->mask);
	setmask(th, setbits(set));
}

/* Is sig something that can be sent? */
static bool badsig(int sig)
{
	return sig < 0 || sig > NSIGS || sig == 32 || sig == 33;
}

static void selfinfo(siginfo_t *info, int sig, int code)
{
	memset(info, 0, sizeof *info);
	info->si_signo = sig;
	info->si_code = code;
	info->si_pid = (pid_t)sys0(SYS_getpid);
	info->si_uid = (uid_t)sys0(SYS_getuid);
}

static int sendto_thread(Thread *th, int sig, const siginfo_t *info)
{
	if (badsig(sig))
		return EINVAL;
	if (sig == 0 || (atomic_load(&th->state) & ThreadExited) || th->exiting)
		return 0;
	if (sig == SIGKILL || sig == SIGSTOP)
		return (int)-sys2(SYS_kill, sys0(SYS_getpid), sig);
	if (sigs.act[sig].sa_handler == SIG_IGN && !(th->mask & BIT(sig)))
		return 0;
	int r = post(th, info);
	bool restart;
	if (th == curthread() && !(th->mask & BIT(sig)))
		deliver(NULL, &restart);
	return r;
}

static int killthread(Thread *th, int sig)
{
	KEEP_ERRNO;
	siginfo_t info;
	selfinfo(&info, sig, SI_TKILL);
	return sendto_thread(th, sig, &info);
}

SHIM(int, pthread_kill, pthread_t t, int sig)
{
	Thread *th = threadof(t);
	return th && schedstarted() ? killthread(th, sig) : real.pthread_kill(t, sig);
}

SHIM(int, pthread_kill_old, pthread_t t, int sig)
{
	Thread *th = threadof(t);
	if (!th || !schedstarted())
		return real.pthread_kill_old(t, sig);
	return atomic_load(&th->state) & ThreadExited ? ESRCH : killthread(th, sig);
}

SHIM(int, pthread_sigqueue, pthread_t t, int sig, const union sigval value)
{
	Thread *th = threadof(t);
	if (!th || !schedstarted())
		return real.pthread_sigqueue(t, sig, value);
	siginfo_t info;
	selfinfo(&info, sig, SI_QUEUE);
	info.si_value = value;
	return sendto_thread(th, sig, &info);
}

/*
 * To the process from within it: routed at once. So the caller, if it is
 * the one, has handled the signal when this returns (POSIX); and another has it queued.
 * False: all block it, or it isn't for goroutines to handle: the kernel's.
 */
static bool killself(int sig, siginfo_t *info)
{
	if (!getg() || badsig(sig) || sig == 0 || sig == SIGKILL || sig == SIGSTOP || !handled(sig))
		return false;
	if (!route(info))
		return false;
	bool restart;
	if (sigpendingopen())
		deliver(NULL, &restart);
	return true;
}

SHIM(int, kill, pid_t pid, int sig)
{
	siginfo_t info;
	if (getg() && pid == (pid_t)sys0(SYS_getpid)) {
		selfinfo(&info, sig, SI_USER);
		if (killself(sig, &info))
			return 0;
	}
	return (int)errnoret(sys2(SYS_kill, pid, sig));
}

SHIM(int, sigqueue, pid_t pid, int sig, const union sigval value)
{
	siginfo_t info;
	if (getg() && pid == (pid_t)sys0(SYS_getpid)) {
		selfinfo(&info, sig, SI_QUEUE);
		info.si_value = value;
		if (killself(sig, &info))
			return 0;
	}
	return real.sigqueue(pid, sig, value);
}

SHIM(int, raise, int sig)
{
	Thread *th = curthread();
	if (!th)
		return real.raise(sig);
	int r = killthread(th, sig);
	if (r) {
		errno = r;
		return -1;
	}
	return 0;
}

struct bytid {
	uint32_t tid;
	Thread *th;
};

static bool tidmatches(Thread *th, void *arg)
{
	struct bytid *b = arg;
	if (th->tid != b->tid)
		return true;
	b->th = th;
	return false;
}

SHIM(int, tgkill, pid_t pid, pid_t tid, int sig)
{
	struct bytid b = { (uint32_t)tid, NULL };
	if (!schedstarted() || pid != (pid_t)sys0(SYS_getpid))
		return real.tgkill(pid, tid, sig);
	threadseach(tidmatches, &b);
	if (!b.th)
		return real.tgkill(pid, tid, sig);
	return (int)errnoret(-killthread(b.th, sig));
}

SHIM(int, sigaltstack, const stack_t *ss, stack_t *old)
{
	Thread *th = curthread();
	if (!th)
		return real.sigaltstack(ss, old);
	bool on = onaltstack(th, currentsp());
	stack_t before = th->altstack;
	if (!before.ss_size)
		before.ss_flags |= SS_DISABLE;
	if (on)
		before.ss_flags |= SS_ONSTACK;
	if (ss) {
		if (on) {
			errno = EPERM;
			return -1;
		}
		if (ss->ss_flags & ~(SS_DISABLE | SS_ONSTACK | (int)(1u << 31))) {
			errno = EINVAL;
			return -1;
		}
		if (ss->ss_flags & SS_DISABLE) {
			memset(&th->altstack, 0, sizeof th->altstack);
			th->altstack.ss_flags = SS_DISABLE;
		} else if (ss->ss_size < 2048) {
			errno = ENOMEM;
			return -1;
		} else {
			th->altstack = *ss;
			th->altstack.ss_flags = 0;
		}
	}
	if (old)
		*old = before;
	return 0;
}

SHIM(int, sigpending, sigset_t *set)
{
	Thread *th = curthread();
	int r = real.sigpending(set);
	if (r == 0 && th) {
		uint64_t m;
		memcpy(&m, set, 8);
		bitsset(set, (m | atomic_load(&th->pending) | atomic_load(&process.pending)) &
				     th->mask);
	}
	return r;
}

int sigtake(const sigset_t *set, siginfo_t *info)
{
	Thread *th = curthread();
	uint64_t want = setbits(set);
	siginfo_t si;
	/* From here on one that arrives interrupts the wait, though it is blocked. */
	atomic_store(&th->waitset, want);
	if (!take(th, want, &si) && !take(&process, want, &si))
		return 0;
	atomic_store(&th->waitset, 0);
	if (info)
		*info = si;
	return si.si_signo;
}

void sigtakedone(void)
{
	atomic_store(&curthread()->waitset, 0);
}
