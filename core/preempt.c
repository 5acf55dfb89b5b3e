/*
 * preempt.c - taking the processor from a goroutine that runs.
 *
 * A goroutine calls the scheduler only when it waits; one that computes must
 * be interrupted. SIGURG does it: harmless to programs that don't expect it,
 * and rarely used. Its handler doesn't switch goroutines, since the frame of
 * a signal belongs to the kernel thread (its mask, its signal stack), and a
 * goroutine goes on elsewhere. Instead the handler copies the kernel's frame to
 * the goroutine's own stack and makes the context resume in asyncinterrupt
 * there. That is an ordinary function of the goroutine: it may yield, park,
 * migrate, run the program's signal handlers; when it returns, to
 * __restore_rt, the kernel restores from the copied frame every register that
 * it saved, whatever the CPU has. Only what belongs to the kernel thread, mask
 * and signal stack, is corrected first (sigresume).
 *
 * The program may have switched to a stack of its own (a coroutine's, that of sigaltstack), or be near its stack's end. Nothing says how
 * much may be written there, so the frame and asyncapart go to an interrupt stack, which the goroutine gets when it is first
 * preempted so and keeps until it ends. Only the yield is made there, never the program's handlers: these run where the
 * kernel would run them. So nobody jumps off that stack, nothing on it outlives a preemption, and the next one finds it free.
 * Rejected: state on the M's signal stack (the goroutine goes on elsewhere); interrupt stacks for all (8 KiB each, which few need).
 *
 * Rejected: saving registers by XSAVE in a trampoline of ours. Faster (0.3
 * against 2 us), at 100 preemptions a second of no weight; but one more way to
 * lose a register, and a frame that no debugger knows.
 *
 * Where a goroutine may not be switched away from (host.unsafepc: in libc, the
 * loader, the allocator, this library; or in a section) the mark stays and
 * sysmon asks again.
 */
#include "runtime.h"

#include <signal.h>
#include <string.h>
#include <ucontext.h>

enum {
	REDZONE = 128,
	HEADROOM = 4096,   /* stack for asyncinterrupt and what it calls, at least */
	FRAMESLACK = 128,  /* a frame is aligned */
	FPXSW_BYTES = 464, /* struct _fpx_sw_bytes in the legacy area, kernel ABI */
	XSTATEMAGIC1 = 0x46505853,
};

#define ASSERTREG(reg) \
	_Static_assert(offsetof(ucontext_t, uc_mcontext.gregs[REG_##reg]) == UC_##reg, "offsets.h")
ASSERTREG(R8);
ASSERTREG(R9);
ASSERTREG(R12);
ASSERTREG(R13);
ASSERTREG(R14);
ASSERTREG(R15);
ASSERTREG(RDI);
ASSERTREG(RSI);
ASSERTREG(RBP);
ASSERTREG(RBX);
ASSERTREG(RDX);
ASSERTREG(RCX);
ASSERTREG(RSP);
ASSERTREG(RIP);
_Static_assert(offsetof(ucontext_t, uc_mcontext.fpregs) == UC_FPREGS, "offsets.h");
_Static_assert(offsetof(ucontext_t, __fpregs_mem) == UC_FPENV, "offsets.h");
_Static_assert(offsetof(ucontext_t, __fpregs_mem.mxcsr) == UC_MXCSR, "offsets.h");

/* What the kernel puts on a signal stack, in its order. */
struct sigframe {
	uintptr_t pretcode;
	ucontext_t uc; /* its used part: see UCSIZE */
};

/* Kernel's struct ucontext: libc's is longer (mask of 1024 bits, room for fpregs). */
enum { UCSIZE = offsetof(ucontext_t, uc_sigmask) + 8 };

static size_t fpsize(const void *fp)
{
	uint32_t magic, size;
	memcpy(&magic, (const char *)fp + FPXSW_BYTES, 4);
	memcpy(&size, (const char *)fp + FPXSW_BYTES + 4, 4);
	return magic == XSTATEMAGIC1 && size >= 512 && size < (64 << 10) ? size : 512;
}

static inline bool onstack(G *gp, uintptr_t sp)
{
	return sp > gp->stacklo && sp <= gp->stackhi;
}

bool grunning(G *gp)
{
	return readgstatus(gp) == Grunning;
}

bool siginterruptible(G *gp, void *ctx)
{
	ucontext_t *uc = ctx;
	return gcurrent(gp) && readgstatus(gp) == Grunning &&
	       !host.owntext((uintptr_t)uc->uc_mcontext.gregs[REG_RIP]);
}

/* In libc's code, off its P: there too what waits must hear of signals. */
static bool nativeinterruptible(G *gp, ucontext_t *uc)
{
	return gcurrent(gp) && readgstatus(gp) == Gsyscall &&
	       !host.owntext((uintptr_t)uc->uc_mcontext.gregs[REG_RIP]) && host.innative(gp);
}

bool gcurrent(G *gp)
{
	M *mp = gp->m;
	return mp && gp != mp->g0 && mp->curg == gp &&
	       atomic_load_explicit(&mp->locks, memory_order_relaxed) == 0;
}

/* Is this a place where gp may lose the processor? */
static bool preemptible(G *gp, ucontext_t *uc)
{
	return siginterruptible(gp, uc) &&
	       !host.unsafepc((uintptr_t)uc->uc_mcontext.gregs[REG_RIP]) && host.maypreempt(gp);
}

/* ... on its own stack, with room for the program's handlers? */
static bool roomy(G *gp, ucontext_t *uc)
{
	uintptr_t sp = (uintptr_t)uc->uc_mcontext.gregs[REG_RSP];
	return onstack(gp, sp) && sp - gp->stacklo > HEADROOM + REDZONE + 8192;
}

/* Writes the frame below sp and has fn called there. Returns the ucontext of the frame. */
static ucontext_t *pushframe(void *fn, int sig, void *info, ucontext_t *uc, uintptr_t sp)
{
	greg_t *r = uc->uc_mcontext.gregs;
	void *fp = uc->uc_mcontext.fpregs;
	size_t nfp = fp ? fpsize(fp) : 0;

	sp = (sp - nfp) & ~(uintptr_t)63;
	void *newfp = nfp ? (void *)sp : NULL;
	if (nfp)
		memcpy(newfp, fp, nfp);
	/* Layout from here up: pretcode, ucontext, siginfo; sp is 8 below a multiple of 16, as after a call. */
	size_t n = sizeof(uintptr_t) + UCSIZE + sizeof(siginfo_t);
	sp = ((sp - n) & ~(uintptr_t)15) - 8;
	struct sigframe *fr = (struct sigframe *)sp;
	siginfo_t *newinfo = (siginfo_t *)((char *)&fr->uc + UCSIZE);
	fr->pretcode = (uintptr_t)__restore_rt;
	memcpy(&fr->uc, uc, UCSIZE);
	fr->uc.uc_mcontext.fpregs = newfp;
	memcpy(newinfo, info, sizeof *newinfo);

	r[REG_RIP] = (greg_t)fn;
	r[REG_RSP] = (greg_t)sp;
	r[REG_RDI] = sig;
	r[REG_RSI] = (greg_t)newinfo;
	r[REG_RDX] = (greg_t)&fr->uc;
	r[REG_RAX] = 0;
	r[REG_EFL] &= ~(greg_t)0x10500; /* direction, trap and resume flags */
	uc->uc_mcontext.fpregs = NULL;  /* resumes with fresh FP state */
	return &fr->uc;
}

/* What pushframe needs at most. */
static size_t framesize(const ucontext_t *uc)
{
	const void *fp = uc->uc_mcontext.fpregs;
	return (fp ? fpsize(fp) : 0) + sizeof(struct sigframe) + FRAMESLACK;
}

/* As siginject, with so much room below the frame. */
static bool inject(G *gp, void *fn, int sig, void *info, void *ctx, uintptr_t at, size_t room)
{
	ucontext_t *uc = ctx;
	uintptr_t sp = at ? at : (uintptr_t)uc->uc_mcontext.gregs[REG_RSP] - REDZONE;
	size_t n = framesize(uc);

	if (onstack(gp, sp) && sp - gp->stacklo < n + HEADROOM)
		return false;
	/* A stack may have guards of the program's own inside (JVM, SBCL): a fault here would be ours. */
	if (!at && !writable_os(sp - n - room, sp))
		return false;
	pushframe(fn, sig, info, uc, sp);
	return true;
}

bool siginject(G *gp, void *fn, int sig, void *info, void *ctx, uintptr_t at)
{
	return inject(gp, fn, sig, info, ctx, at, 0);
}

void *sigrestorer(void)
{
	return (void *)__restore_rt;
}

void sigresume(void *ctx)
{
	ucontext_t *uc = ctx;
	M *mp = getg()->m;
	memcpy(&uc->uc_sigmask, &mp->kmask, 8);
	uc->uc_stack.ss_sp = (void *)mp->gsignallo;
	uc->uc_stack.ss_size = mp->gsignalhi - mp->gsignallo;
	uc->uc_stack.ss_flags = 0;
}

/* What runs on pp was asked to leave, and does. */
void preempttaken(P *pp)
{
	uint64_t asked = atomic_exchange_explicit(&pp->askedat, 0, memory_order_relaxed);
	if (asked)
		metricsvalue(HistPreempt, ticksnow() - asked);
}

static void preempt_m(G *gp)
{
	check_g0();
	metricscount(CountPreempted);
	preempttaken(getp(getg()->m));
	putlast(gp);
	schedule();
}

/* The caller is asked to, and it is safe. */
static void doyield(uint32_t why)
{
	mcall(why == PreemptWoken ? maketheway_m : preempt_m);
}

void goyieldasked(void)
{
	if (!getg())
		return;
	M *mp = acquirem();
	uint32_t asked = atomic_load_explicit(&getp(mp)->preempt, memory_order_relaxed);
	releasem(mp);
	if (unlikely(asked))
		doyield(asked);
}

/* The same where the caller may have no P: it has one afterwards. */
static void yieldasked(void)
{
	M *mp = acquirem();
	uint32_t asked = atomic_exchange(&getp(mp)->preempt, PreemptNone);
	releasem(mp);
	if (asked)
		doyield(asked);
}

/* Runs on the goroutine's stack, called as if from the interrupted instruction. */
static void asyncinterrupt(int sig, siginfo_t *info, void *ctx)
{
	(void)sig;
	(void)info;
	G *gp = getg();
	yieldasked();
	if (atomic_load(&gp->intr) == IntrAsked)
		host.interrupt(ctx);
	sigresume(ctx);
}

/* As asyncinterrupt, on the interrupt stack. */
static void asyncapart(int sig, siginfo_t *info, void *ctx)
{
	(void)sig;
	(void)info;
	yieldasked();
	sigresume(ctx);
	G *gp = getg();
	if (atomic_load(&gp->intr) == IntrAsked) {
		/* Handlers run where the program was: the signal comes when the mask is that of ctx. */
		maskall();
		preemptm(gp->m);
	}
}

/* gp's interrupt stack, with n bytes below its record, or NULL. In the handler, where gcurrent(gp). */
static IntrStack *intrstackget(G *gp, size_t n)
{
	M *mp = gp->m;
	Stack st;

	if (likely(gp->intrstack && (uintptr_t)gp->intrstack - gp->intrstack->stack.lo >= n))
		return gp->intrstack;
	/* A section, but for getting a P if sysmon has taken it: no lock of ours is held by who was interrupted (gcurrent). */
	atomic_store(&mp->locks, 1);
	intrstackfree(gp);
	if (stackalloc(n + sizeof(IntrStack) + 64, 4096, &st) == 0) {
		gp->intrstack = (IntrStack *)((st.hi - sizeof(IntrStack)) & ~(uintptr_t)63);
		gp->intrstack->stack = st;
	}
	atomic_store(&mp->locks, 0);
	return gp->intrstack;
}

void intrstackfree(G *gp)
{
	IntrStack *st = gp->intrstack;
	if (!st)
		return;
	gp->intrstack = NULL;
	stackfree(st->stack);
}

/* Is the goroutine on mp to yield, or to get a P? */
static bool yieldwanted(M *mp)
{
	P *pp = getp(mp);
	return !pp || atomic_load_explicit(&pp->preempt, memory_order_relaxed) != PreemptNone;
}

static bool injectapart(G *gp, int sig, void *info, void *ctx)
{
	IntrStack *st = intrstackget(gp, framesize(ctx) + 2 * HEADROOM);
	if (!st)
		return false;
	st->ctx = pushframe(asyncapart, sig, info, ctx, (uintptr_t)st);
	return true;
}

/* At a safe place only the program's handlers run, without yielding. */
static void asynchandlers(int sig, siginfo_t *info, void *ctx)
{
	(void)sig;
	(void)info;
	host.interrupt(ctx);
	sigresume(ctx);
}

/* The kernel's mask there may have been changed by libc: unless the handler has set another it stays. */
static void nativehandlers(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;
	uint64_t libcs, before = ggetkmask();

	(void)sig;
	(void)info;
	memcpy(&libcs, &uc->uc_sigmask, 8);
	host.interruptnative(ctx);
	sigresume(ctx);
	if (ggetkmask() == before)
		memcpy(&uc->uc_sigmask, &libcs, 8);
}

bool sigpreempt(int sig, void *info, void *ctx)
{
	siginfo_t *si = info;
	ucontext_t *uc = ctx;
	G *gp = getg();
	if (!gp || si->si_code != SI_TKILL || si->si_pid != sched.pid)
		return false;
	M *mp = gp->m;
	if (atomic_exchange(&mp->sigurg, 0) == 0)
		return false;
	if (unlikely(atomic_load_explicit(&mp->capture, memory_order_relaxed) != NULL))
		capturesignal(mp, ctx);
	if (gp == mp->g0)
		return true;
	bool comeback = atomic_load(&mp->kblocked) && atomic_load(&mp->calledback);
	if (atomic_load(&gp->intr) || comeback) {
		/* A system call that is about to begin or to be restarted is called off. */
		uintptr_t pc = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
		if (pc >= (uintptr_t)syscalltramp_begin && pc < (uintptr_t)syscalltramp_end) {
			uc->uc_mcontext.gregs[REG_RIP] = (greg_t)syscalltramp_intr;
			return true;
		}
	}
	if (preemptible(gp, uc)) {
		if (roomy(gp, uc) && inject(gp, asyncinterrupt, sig, info, ctx, 0, HEADROOM))
			return true;
		if (yieldwanted(mp) && injectapart(gp, sig, info, ctx))
			return true;
	}
	if (atomic_load(&gp->intr) != IntrAsked)
		return true;
	void *fn = siginterruptible(gp, uc)      ? (void *)asynchandlers
		   : nativeinterruptible(gp, uc) ? (void *)nativehandlers
						 : NULL;
	if (!fn || !inject(gp, fn, sig, info, ctx, 0, HEADROOM))
		atomic_store(&sched.intrpending, 1);
	return true;
}

/* Sends mp the runtime's signal, once until it has handled it. */
void preemptm(M *mp)
{
	int tid = atomic_load_explicit(&mp->tid, memory_order_relaxed);
	if (tid == 0 || atomic_exchange(&mp->sigurg, 1) != 0)
		return;
	tgkill_os(tid, SIGURG);
}

/* Asks the goroutine on pp to yield; it does when it gets to a safe place. */
bool preemptone(P *pp, uint32_t why)
{
	M *mp = atomic_load(&pp->m);
	if (!mp || !mp->curg)
		return false;
	uint32_t none = PreemptNone;
	if (!atomic_load_explicit(&pp->preempt, memory_order_relaxed))
		atomic_store_explicit(&pp->askedat, ticksnow(), memory_order_relaxed);
	traceevent(TraceAsked, (uint64_t)pp->id);
	if (why == PreemptSlice)
		atomic_store(&pp->preempt, why);
	else
		atomic_compare_exchange_strong(&pp->preempt, &none, why);
	preemptm(mp);
	return true;
}

void preemptall(void)
{
	for (int32_t i = 0; i < sched.gomaxprocs; i++)
		if (sched.allp[i]->status == Prunning)
			preemptone(sched.allp[i], PreemptSlice);
}
