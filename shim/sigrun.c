/*
 * sigrun.c - running the program's handlers, and the one handler that the
 * kernel calls (signal.c says how it all works).
 */
#include "cancel.h"
#include "dump.h"
#include "sched.h"
#include "sigcore.h"

/* --- running handlers --------------------------------------------------------------------------- */

/* Does what the kernel does by default, on the calling goroutine's kernel thread. */
static void defaultaction(siginfo_t *info)
{
	int sig = info->si_signo;
	if (fatal(sig))
		sigfatal(info, NULL);
	lockOSThread();
	uint64_t k = ggetkmask();
	gsetkmask(k & ~BIT(sig));
	sys3(SYS_tgkill, sys0(SYS_getpid), sys0(SYS_gettid), sig);
	gsetkmask(k); /* it was ignored, or the process was stopped and continued */
	unlockOSThread();
}

/* Those that the kernel begins again after any handler. */
static bool alwaysrestarts(const greg_t *r)
{
	enum { LOCK_PI = 6, LOCK_PI2 = 13, CMD = 127 };

	switch (r[REG_RAX]) {
	case SYS_futex: return (r[REG_RSI] & CMD) == LOCK_PI || (r[REG_RSI] & CMD) == LOCK_PI2;
	case SYS_fork:
	case SYS_vfork:
	case SYS_clone:
	case SYS_clone3: return true;
	}
	return false;
}

/* A system call that libc or the program makes itself was interrupted, and the
 * kernel has set the context to begin it again: without SA_RESTART it fails. */
static void failrestart(ucontext_t *uc)
{
	greg_t *r = uc->uc_mcontext.gregs;
	const uint8_t *pc = (const uint8_t *)r[REG_RIP];
	if (r[REG_RCX] != r[REG_RIP] + 2 || pc[0] != 0x0f || pc[1] != 0x05 || alwaysrestarts(r))
		return;
	r[REG_RAX] = -EINTR;
	r[REG_RIP] += 2;
}

/* Runs the action of one signal. True when a handler ran. The first one decides what becomes of the call that it
 * interrupts: *restart is cleared unless it had SA_RESTART. */
static bool act(Thread *th, siginfo_t *info, ucontext_t *ctx, bool first, bool *restart)
{
	int sig = info->si_signo;
	Section l = siglock();
	struct sigaction sa = sigs.act[sig];
	bool reset = handled(sig) && (sa.sa_flags & SA_RESETHAND);
	if (reset) {
		sigs.act[sig].sa_handler = SIG_DFL;
		noteaction_locked(sig);
	}
	sigunlock(l);
	if (sa.sa_handler == SIG_IGN)
		return false;
	if (sa.sa_handler == SIG_DFL) {
		defaultaction(info);
		return false;
	}
	/* Before anything of libc's is called, where another may interrupt: that would be the next of the same. */
	uint64_t meanwhile = th->mask, before = th->restoremask ? th->savedmask : meanwhile;
	th->restoremask = false;
	addmask(th, meanwhile | setbits(&sa.sa_mask) | (sa.sa_flags & SA_NODEFER ? 0 : BIT(sig)));
	if (reset) {
		struct sigaction dfl = {.sa_handler = SIG_DFL};
		real.sigaction(sig, &dfl, NULL);
	}
	if (first && !(sa.sa_flags & SA_RESTART)) {
		*restart = false;
		if (ctx)
			failrestart(ctx);
	}
	runhandler(th, &sa, info, ctx, before);
	return true;
}

/* Runs what is pending and open. True when a handler ran. */
bool deliver(ucontext_t *ctx, bool *restart)
{
	Thread *th = curthread();
	bool ran = false;
	siginfo_t info;
	*restart = true;
	gclearinterrupt();
	while (take(th, ~th->mask, &info)) {
		ran |= act(th, &info, ctx, !ran, restart);
		th = curthread();
	}
	return ran;
}

bool sigpendingopen(void)
{
	Thread *th = curthread();
	return th && (waiting(th) & ~th->mask);
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
	/* A deferred request may have come after the last cancellation point's look: the wait
	 * that it is about to begin must not miss it. */
	if (cancelwanted())
		gkeepinterrupt();
}

/* --- the kernel's handler --------------------------------------------------------------------------- */

/* Called on the goroutine's stack by siginject: the signal it caused. */
static void ownfault(int sig, siginfo_t *info, void *ctx)
{
	bool restart = true;
	(void)sig;
	act(curthread(), info, ctx, true, &restart);
	sigresume(ctx);
}

/* The end, by what a goroutine has caused itself. */
static void endbyfault(int sig, siginfo_t *info, ucontext_t *uc)
{
	G *gp = getg();
	Thread *th = gp ? ghost(gp) : NULL;
	bool fault = sig == SIGSEGV || sig == SIGBUS;
	if (fault && info->si_code > 0 && stackguarded((uintptr_t)info->si_addr) && th)
		warn("goroutine %d%s%s: stack overflow (stack of %d KiB, address %p)", goid(gp),
		     th->name[0] ? " " : "", th->name,
		     (int64_t)((th->stack.hi - th->stack.lo) >> 10), info->si_addr);
	sigfatal(info, uc);
}

static void syncsignal(int sig, siginfo_t *info, ucontext_t *uc)
{
	G *gp = getg();
	Thread *th = gp ? ghost(gp) : NULL;
	uintptr_t sp = (uintptr_t)uc->uc_mcontext.gregs[REG_RSP];
	if (!th || !gcurrent(gp)) {
		if (gp)
			warn("signal %d at pc=%p addr=%p in the runtime", (int64_t)sig,
			     (void *)uc->uc_mcontext.gregs[REG_RIP], info->si_addr);
		endbyfault(sig, info, uc);
		return;
	}
	/* The kernel, too, takes the default action if what it raised is blocked or ignored. */
	if (!handled(sig) || (th->mask & BIT(sig))) {
		endbyfault(sig, info, uc);
		return;
	}
	uintptr_t at = handlerstack(th, &sigs.act[sig], sp);
	if (!siginject(gp, ownfault, sig, info, uc, at))
		endbyfault(sig, info, uc);
}

/* On a foreign kernel thread: as the kernel would have called the program's handler. */
static void foreignsignal(int sig, siginfo_t *info, ucontext_t *uc)
{
	struct sigaction sa = sigs.act[sig];
	if (!handled(sig)) {
		if (fatal(sig) || (info->si_code > 0 && (BIT(sig) & SYNCSIGS)))
			sigfatal(info, uc);
		return;
	}
	uint64_t m;
	memcpy(&m, &uc->uc_sigmask, 8);
	m |= setbits(&sa.sa_mask) | (sa.sa_flags & SA_NODEFER ? 0 : BIT(sig));
	sys4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&m, 0, 8);
	sa.sa_sigaction(sig, info, uc);
}

/* Did the code that was interrupted earn the signal? */
static bool earned(const siginfo_t *info)
{
	uint64_t bit = BIT(info->si_signo);
	if (bit & CALLSIGS)
		return info->si_code == SI_USER && info->si_pid == (pid_t)sys0(SYS_getpid);
	return (bit & TIMESIGS) && info->si_code == SI_KERNEL;
}

/* All block it, so it is kept whatever its action. Ours without value and sender is none of the program's. */
static bool keptblocked(const siginfo_t *info)
{
	return (atomic_load(&sigs.sysmonmask) & BIT(info->si_signo)) &&
	       !(info->si_code == SI_USER && info->si_pid == 0);
}

static void sighandler(int sig, siginfo_t *info, void *ctx)
{
	int err = errno;
	ucontext_t *uc = ctx;
	G *gp = getg();
	if (sig == SIGURG && (dumpasked(info) || sigpreempt(sig, info, ctx))) {
		errno = err;
		return;
	}
	if (issysmon) {
		/* SIGURG is open here for requests of ours, whatever the program thinks of it. They come
		 * without value and sender when the process has too many signals pending. */
		if (sig == SIGURG && (!(handled(sig) || keptblocked(info)) ||
				      (info->si_code == SI_USER && info->si_pid == 0))) {
			errno = err;
			return;
		}
		if (!ringput(
			info)) { /* full: it waits in the kernel, until the next change of masks */
			uint64_t m;
			memcpy(&m, &uc->uc_sigmask, 8);
			m |= BIT(sig);
			memcpy(&uc->uc_sigmask, &m, 8);
			sys4(SYS_rt_tgsigqueueinfo, sys0(SYS_getpid), sys0(SYS_gettid), sig,
			     (long)info);
			atomic_fetch_or(&sigs.returned, BIT(sig));
			maskagain();
		}
	} else if (!gp) {
		foreignsignal(sig, info, uc);
	} else if ((BIT(sig) & SYNCSIGS) && info->si_code > 0) {
		syncsignal(sig, info, uc);
	} else {
		/* A goroutine in a native bracket, or what it earned, or libc's raise. What its call earned is its
		 * own wherever the call was made; the other may find it in a section, with our lock. */
		Thread *th = ghost(gp);
		bool here = th && gcurrent(gp), own = info->si_code == SI_TKILL || earned(info);
		if (own && (here || (th && (BIT(sig) & CALLSIGS)))) {
			if (here && fatal(sig) && !(th->mask & BIT(sig)))
				sigfatal(info, uc);
			else if (!here || !siginterruptible(gp, uc) || (th->mask & BIT(sig)) ||
				 !handled(sig) || !siginject(gp, ownfault, sig, info, uc, 0))
				post(th, info);
		} else if (handled(sig) || fatal(sig) || (sig == SIGURG && keptblocked(info))) {
			ringput(info);
		}
	}
	errno = err;
}

/* Signals for which the kernel has had our handler: a fork child has to undo no others. */
static _Atomic uint64_t ourssince;

/* Installs what the kernel needs to know of the program's action for sig. */
int install(int sig, const struct sigaction *sa)
{
	void (*h)(int) = sa->sa_handler;
	bool ours = (h != SIG_DFL && h != SIG_IGN) || sig == SIGURG ||
		    ((BIT(sig) & TRACEDSIGS) && h == SIG_DFL);
	if (!ours)
		return real.sigaction(sig, sa, NULL);
	atomic_fetch_or(&ourssince, BIT(sig));
	struct sigaction k = {.sa_sigaction = sighandler};
	sigfillset(&k.sa_mask);
	k.sa_flags =
	    SA_SIGINFO | SA_ONSTACK | (sa->sa_flags & (SA_NOCLDSTOP | SA_NOCLDWAIT | SA_RESTART));
	if (sig == SIGURG)
		k.sa_flags |= SA_RESTART;
	return real.sigaction(sig, &k, NULL);
}

int sigactionapart(int sig, const struct sigaction *sa, struct sigaction *old)
{
	struct sigaction before;
	int r = real.sigaction(sig, sa, &before);
	if (r == 0 && old) /* ours is there for what the parent had when it was made */
		*old = before.sa_sigaction == sighandler ? sigs.act[sig] : before;
	return r;
}

/* --- start and fork -------------------------------------------------------------------------------------- */

/* Takes over all actions. On main, with all signals blocked. */
void signalsstart(void)
{
	for (int s = 1; s <= NSIGS; s++) {
		if (BIT(s) & NEVERMASKED)
			continue;
		real.sigaction(s, NULL, &sigs.act[s]);
		noteaction_locked(s); /* no other thread yet */
	}
	for (int s = 1; s <= NSIGS; s++)
		if (!(BIT(s) & NEVERMASKED) && (handled(s) || fatal(s) || s == SIGURG))
			install(s, &sigs.act[s]);
	struct sigaction ours;
	real.sigaction(SIGURG, NULL, &ours);
	sigs.restorer = ours.sa_restorer;
}

void signalsadopt(Thread *th, uint64_t process)
{
	uint64_t mine;
	siginfo_t info;
	struct timespec now = {0, 0};
	sys2(SYS_rt_sigpending, (long)&mine, 8);
	mine &= ~process & ~NEVERMASKED;
	while (mine && sys4(SYS_rt_sigtimedwait, (long)&mine, (long)&info, (long)&now, 8) > 0)
		post(th, &info);
}

void signalsundo(void)
{
	uint64_t bits = atomic_exchange(&ourssince, 0);
	for (int s = 1; s <= NSIGS; s++)
		if (BIT(s) & bits)
			real.sigaction(s, &sigs.act[s], NULL);
}

/* In a fork child, single-threaded again: actions, mask and alternate stack are the kernel's. */
void signalsforkchild(Thread *self)
{
	sigqueueforkchild();
	signalsundo();
	if (!self) /* a foreign thread's are the kernel's already */
		return;
	/* Pending signals are not inherited. */
	self->queue = NULL;
	atomic_store(&self->pending, 0);
	atomic_store(&self->told, 0);
	atomic_store(&self->kernelset, 0);
	stack_t none = {.ss_flags = SS_DISABLE};
	real.sigaltstack(self->altstack.ss_size ? &self->altstack : &none, NULL);
	uint64_t m = self->mask;
	sys4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&m, 0, 8);
}

/* First thing on a new thread. */
void sigthreadstart(Thread *th)
{
	if (th->mask & OWNSIGS)
		gsetkmask(kmaskfor(th->mask));
	bool restart;
	tellself(th, ~th->mask); /* what came while all others blocked it */
	if (waiting(th) & ~th->mask)
		deliver(NULL, &restart);
}
