/*
 * capture.c - the stack of a goroutine as it is at one moment, while the program runs.
 *
 * Nothing is stopped, no lock is taken but our own. The stack of a parked goroutine is copied, and the copy is
 * good if the goroutine is parked in the same place afterwards. One that computes is sent SIGURG, and the handler makes
 * the copy at whatever instruction that is, also where preemption is refused. One in a system call that
 * it announced left word from where (entersyscall). One that is blocked in the kernel without our knowledge is
 * left alone, since a signal might end its call; of it /proc tells, where there is one.
 */
#include "capture.h"

#include "text.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>

enum {
	STACK = 128 << 10, /* of who is nobody */
	TRIES = 20,
	SIGNALWAIT = 20000000, /* ns, each time */
};

/* Copies memory that may not be there. */
static bool copyout(void *to, uintptr_t from, size_t n)
{
	struct {
		void *p;
		size_t n;
	} local = {to, n}, remote = {(void *)from, n};
	return sys6(SYS_process_vm_readv, sys0(SYS_getpid), (long)&local, 1, (long)&remote, 1, 0) ==
	       (long)n;
}

bool copystack(Capture *c, G *gp, uintptr_t sp)
{
	size_t n = COPYMAX;
	c->lo = sp;
	c->n = 0;
	if (gp && sp >= gp->stacklo && sp < gp->stackhi && gp->stackhi - sp < n)
		n = gp->stackhi - sp;
	while (!copyout(c->stack, sp, n)) {
		/* It ends before: at a page. */
		n = n > 4096 ? (n / 2 > 4096 ? n / 2 : 4096 - sp % 4096) : 0;
		if (n == 0)
			return false;
	}
	c->n = n;
	return true;
}

/*
 * gp was preempted on a stack of the program's own, and its state is on its interrupt stack, where its saved sp is: *r is what
 * the program had there. That stack may be another's by now: only what the caller finds true afterwards counts.
 */
static bool keptapart(G *gp, uintptr_t sp, Registers *r)
{
	IntrStack is;
	ucontext_t uc;
	if (!copyout(&is, (uintptr_t)gp->intrstack, sizeof is) || sp < is.stack.lo ||
	    sp >= is.stack.hi || !copyout(&uc, (uintptr_t)is.ctx, offsetof(ucontext_t, uc_sigmask)))
		return false;
	*r = contextregisters(&uc);
	return true;
}

/* What gogo would pop: control words, r15 to r12, rbx, rbp, the return address (asm.S). */
bool captureparked(Capture *c, G *gp, GStatus s)
{
	uintptr_t sp = gp->sched.sp;
	uint64_t since = gp->since;
	Registers r;
	bool apart = (sp < gp->stacklo || sp >= gp->stackhi) && keptapart(gp, sp, &r);
	if (!copystack(c, gp, apart ? r.sp : sp) || (!apart && c->n < 64))
		return false;
	atomic_thread_fence(memory_order_seq_cst);
	if (readgstatus(gp) != s || gp->sched.sp != sp || gp->since != since)
		return false;
	if (apart) {
		c->regs = r;
		return true;
	}
	uint64_t saved[8];
	memcpy(saved, c->stack, sizeof saved);
	c->regs = (Registers){.r15 = saved[1],
			      .r14 = saved[2],
			      .r13 = saved[3],
			      .r12 = saved[4],
			      .bx = saved[5],
			      .bp = saved[6],
			      .pc = saved[7],
			      .sp = sp + sizeof saved};
	return true;
}

bool captureplace(Capture *c, G *gp, M *mp)
{
	Place at = mp->syscallplace;
	if (!copystack(c, gp, at.sp))
		return false;
	c->regs = (Registers){.pc = at.pc, .sp = at.sp, .bp = at.bp};
	return readgstatus(gp) == Gsyscall && mp->curg == gp && mp->syscallplace.sp == at.sp &&
	       mp->syscallplace.pc == at.pc;
}

Registers contextregisters(const void *ctx)
{
	const ucontext_t *uc = ctx;
	const greg_t *r = uc->uc_mcontext.gregs;
	return (Registers){.pc = (uintptr_t)r[REG_RIP],
			   .sp = (uintptr_t)r[REG_RSP],
			   .bp = (uintptr_t)r[REG_RBP],
			   .bx = (uintptr_t)r[REG_RBX],
			   .r12 = (uintptr_t)r[REG_R12],
			   .r13 = (uintptr_t)r[REG_R13],
			   .r14 = (uintptr_t)r[REG_R14],
			   .r15 = (uintptr_t)r[REG_R15]};
}

void capturesignal(M *mp, const void *ctx)
{
	Capture *c = atomic_exchange(&mp->capture, NULL);
	if (!c)
		return;
	G *gp = getg();
	bool his = gp == c->gp;
	if (his) {
		c->regs = contextregisters(ctx);
		copystack(c, gp, c->regs.sp);
	}
	atomic_store(&c->done, his ? CaptureTaken : CaptureMissed);
	futexwakeup(&c->done, 1);
}

bool capturerunning(Capture *c, G *gp, M *mp, int64_t ns)
{
	c->gp = gp;
	atomic_store(&c->done, CaptureWanted);
	atomic_store(&mp->capture, c);
	preemptm(mp);
	futexsleep(&c->done, CaptureWanted, ns);
	Capture *mine = c;
	if (atomic_load(&c->done) == CaptureWanted &&
	    atomic_compare_exchange_strong(&mp->capture, &mine, NULL))
		return false;
	while (atomic_load(&c->done) == CaptureWanted) /* the handler is at it */
		futexsleep(&c->done, CaptureWanted, ns);
	return atomic_load(&c->done) == CaptureTaken;
}

/* One that is blocked in the kernel: "number arguments... sp pc", in hexadecimal but for the first. *runs: it isn't. */
bool capturekernel(Capture *c, G *gp, M *mp, bool *runs)
{
	char path[64], buf[256];
	Text t = textin(path, sizeof path);
	textput(&t, "/proc/self/task/%d/syscall", (int64_t)atomic_load(&mp->tid));
	ownfdmake();
	long n = readfile(textend(&t), buf, sizeof buf);
	ownfdmade(-1);
	uintptr_t sp = 0, pc = 0;
	*runs = n > 0 && buf[0] == 'r'; /* "running" */
	if (n <= 0 || *runs)
		return false;
	for (long i = 0; i + 1 < n; i++) {
		if (buf[i] != '0' || buf[i + 1] != 'x')
			continue;
		sp = pc;
		pc = 0;
		for (i += 2; i < n && buf[i] > ' '; i++)
			pc =
			    pc << 4 | (uintptr_t)(buf[i] <= '9' ? buf[i] - '0' : buf[i] - 'a' + 10);
	}
	if (!copystack(c, gp, sp))
		return false;
	c->regs = (Registers){.pc = pc, .sp = sp};
	return mp->curg == gp;
}

bool capture(Capture *c, G *gp, GStatus *s)
{
	for (int tries = 0; tries < TRIES; tries++) {
		*s = readgstatus(gp);
		M *mp = gp->m;
		if (*s == Gwaiting || *s == Grunnable) {
			if (captureparked(c, gp, *s))
				return true;
		} else if (*s == Gsyscall) {
			if (mp && captureplace(c, gp, mp))
				return true;
		} else if (*s != Grunning) {
			return false;
		} else if (mp && mp->curg == gp) {
			bool runs = computes(mp);
			if (!runs && capturekernel(c, gp, mp, &runs))
				return true;
			if (runs && capturerunning(c, gp, mp, SIGNALWAIT))
				return true;
			usleep_os(1000);
		}
	}
	return false;
}

/* --- nobody -------------------------------------------------------------------------- */

static struct {
	Lock lock;
	char *stack;
	Capture capture;
} nobody;

typedef struct Call {
	void (*fn)(void *arg, Capture *c);
	void *arg;
} Call;

static void call(void *arg)
{
	Call *c = arg;
	c->fn(c->arg, &nobody.capture);
}

/* wait: for others that do it; else also no fork has to wait for it. */
static bool callasnobody(void (*fn)(void *arg, Capture *c), void *arg, bool wait)
{
	Call c = {fn, arg};
	uint64_t mask = maskall();
	G *gp = getg();
	bool can = true;
	goshim_g = NULL;
	if (wait)
		lock(&nobody.lock);
	else
		can = trylock(&nobody.lock);
	if (can) {
		if (!nobody.stack)
			nobody.stack = sysalloc(STACK);
		can = nobody.stack != NULL;
		if (can)
			onstack0(call, &c, (uintptr_t)nobody.stack + STACK);
		unlock(&nobody.lock);
	}
	goshim_g = gp;
	maskback(mask);
	return can;
}

bool asnobody(void (*fn)(void *arg, Capture *c), void *arg)
{
	return callasnobody(fn, arg, true);
}

bool isnobody(void)
{
	uintptr_t sp = (uintptr_t)__builtin_frame_address(0), lo = (uintptr_t)nobody.stack;
	return lo && sp - lo < STACK;
}

/* --- the caller's own ---------------------------------------------------------------------- */

typedef struct Self {
	Registers regs;
	const G *gp;
	int max;
	void (*found)(void *arg, const Frame *f, int n);
	void *arg;
} Self;

bool memreadable(uintptr_t at)
{
	enum { NOTHING = -1 };
	return sys4(SYS_rt_sigprocmask, NOTHING, (long)at, 0, 8) == -EINVAL;
}

/* By no call but that one. */
static void copyown(Capture *c, const G *gp, uintptr_t sp)
{
	enum { MOST = 16 << 10 };
	uintptr_t end = sp + MOST, at = sp;
	if (gp && sp >= gp->stacklo && sp < gp->stackhi && gp->stackhi < end)
		end = gp->stackhi;
	while (at < end && memreadable(at & ~7ul))
		at = (at | 4095) + 1;
	c->lo = sp;
	c->n = (at < end ? at : end) - sp;
	memcpy(c->stack, (const void *)sp, c->n);
}

static void self(void *arg, Capture *c)
{
	enum { MOST = 32 };
	Frame f[MOST];
	Self *s = arg;
	copyown(c, s->gp, s->regs.sp);
	StackCopy copy = copyof(c);
	host.unwindbegin(true);
	s->found(s->arg, f, host.unwind(&s->regs, &copy, f, s->max < MOST ? s->max : MOST));
}

bool ownstack(Place from, int max, void (*found)(void *arg, const Frame *f, int n), void *arg)
{
	G *gp = getg();
	Self s = {{.pc = from.pc, .sp = from.sp, .bp = from.bp}, gp, max, found, arg};
	if (!forkstry())
		return false;
	bool done = callasnobody(self, &s, false);
	forksmay();
	return done;
}

void captureforkchild(void)
{
	lockinit(&nobody.lock, RankUnranked);
}
