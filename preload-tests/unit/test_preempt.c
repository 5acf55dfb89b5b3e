/*
 * test_preempt.c - the processor is taken from goroutines that never call, with
 * every register as it was when they go on; not where it must not be taken, and
 * then soon after; and the frame that does it is one that unwinders know.
 */
#include "testsched.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

/* --- spinners --------------------------------------------------------------------------- */

static void preempts(void)
{
	for (int i = 0; i < 4; i++)
		spawn(spinner, NULL);
	while (tally.started < 4)
		gosched();
	/* On a busy machine sysmon takes the P of one that the kernel doesn't run;
	 * but not always. */
	while (metricscounted(CountPreempted) < 10)
		gosched();
	atomic_store(&tally.stop, true);
	joinall();
}

Test(preempt, spinners_take_turns, .timeout = 30)
{
	inscheduler(1, 4, preempts);
	inscheduler(2, 4, preempts);
}

static void lonely(void)
{
	M *mp;

	spawn(spinner, NULL);
	while (tally.started < 1)
		gosched();
	/* Nobody waits for its P: it is left alone. This one keeps the other. */
	mp = acquirem();
	usleep_os(20000);
	int64_t before = metricscounted(CountPreempted);

	usleep_os(100000);
	must(metricscounted(CountPreempted) == before);
	releasem(mp);
	atomic_store(&tally.stop, true);
	joinall();
}

Test(preempt, who_is_in_nobodys_way_is_left_alone, .timeout = 30)
{
	inscheduler(2, 1, lonely);
}

/* --- registers ---------------------------------------------------------------------------- */

/* Offsets are known to regspin. */
typedef struct Regs {
	uint64_t gpr[14];     /* 0: rax rbx rdx rsi rdi rbp r8-r15 */
	uint64_t flags;       /* 112 */
	uint32_t mxcsr;       /* 120 */
	uint16_t x87cw, pad0; /* 124 */
	uint64_t red[16];     /* 128: the red zone, downwards */
	uint64_t xmm[32];     /* 256 */
	uint64_t x87[2];      /* 512: ten bytes of st0 */
} Regs;
_Static_assert(offsetof(Regs, flags) == 112 && offsetof(Regs, red) == 128, "regspin");
_Static_assert(offsetof(Regs, xmm) == 256 && offsetof(Regs, x87) == 512, "regspin");

/*
 * Loads everything from *in, waits for stop by instructions that change rcx
 * only, and stores everything to *out.
 */
void regspin(const Regs *in, Regs *out, _Atomic uint64_t *stop);
_Atomic uint64_t regstop __attribute__((visibility("hidden")));

__asm__(".pushsection preemptible, \"ax\", @progbits\n"
	".globl regspin\n"
	".hidden regspin\n"
	".type regspin, @function\n"
	"regspin:\n"
	"	pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
	"	pushq %rsi\n"
	"	subq $8, %rsp\n"
	"	stmxcsr (%rsp)\n"
	"	fnstcw 4(%rsp)\n"
	"	.irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
	"	movups 256+16*\\n(%rdi), %xmm\\n\n"
	"	.endr\n"
	"	ldmxcsr 120(%rdi)\n"
	"	fldcw 124(%rdi)\n"
	"	fldt 512(%rdi)\n"
	"	pushq 112(%rdi)\n"
	"	popfq\n"
	"	.irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
	"	movq 128+8*\\n(%rdi), %rax\n"
	"	movq %rax, -8-8*\\n(%rsp)\n"
	"	.endr\n"
	"	movq 0(%rdi), %rax\n"
	"	movq 8(%rdi), %rbx\n"
	"	movq 16(%rdi), %rdx\n"
	"	movq 24(%rdi), %rsi\n"
	"	movq 40(%rdi), %rbp\n"
	"	movq 48(%rdi), %r8\n"
	"	movq 56(%rdi), %r9\n"
	"	movq 64(%rdi), %r10\n"
	"	movq 72(%rdi), %r11\n"
	"	movq 80(%rdi), %r12\n"
	"	movq 88(%rdi), %r13\n"
	"	movq 96(%rdi), %r14\n"
	"	movq 104(%rdi), %r15\n"
	"	movq 32(%rdi), %rdi\n"
	"1:	movq regstop(%rip), %rcx\n"
	"	jrcxz 1b\n"
	"	movq 8(%rsp), %rcx\n"
	"	movq %rax, 0(%rcx)\n"
	"	movq %rbx, 8(%rcx)\n"
	"	movq %rdx, 16(%rcx)\n"
	"	movq %rsi, 24(%rcx)\n"
	"	movq %rdi, 32(%rcx)\n"
	"	movq %rbp, 40(%rcx)\n"
	"	movq %r8, 48(%rcx)\n"
	"	movq %r9, 56(%rcx)\n"
	"	movq %r10, 64(%rcx)\n"
	"	movq %r11, 72(%rcx)\n"
	"	movq %r12, 80(%rcx)\n"
	"	movq %r13, 88(%rcx)\n"
	"	movq %r14, 96(%rcx)\n"
	"	movq %r15, 104(%rcx)\n"
	"	.irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
	"	movq -8-8*\\n(%rsp), %rax\n"
	"	movq %rax, 128+8*\\n(%rcx)\n"
	"	.endr\n"
	"	pushfq\n"
	"	popq 112(%rcx)\n"
	"	cld\n"
	"	stmxcsr 120(%rcx)\n"
	"	fnstcw 124(%rcx)\n"
	"	.irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
	"	movups %xmm\\n, 256+16*\\n(%rcx)\n"
	"	.endr\n"
	"	fstpt 512(%rcx)\n"
	"	ldmxcsr (%rsp)\n"
	"	fldcw 4(%rsp)\n"
	"	addq $16, %rsp\n"
	"	popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp\n"
	"	ret\n"
	".size regspin, .-regspin\n"
	".popsection\n");

enum {
	ARITHFLAGS = 0x8d5, /* carry, parity, adjust, zero, sign, overflow */
	DIRECTION = 0x400,
	FIXEDFLAGS = 0x202,
};

static void regs(void *arg)
{
	uint64_t me = (uint64_t)(uintptr_t)arg;
	static const uint32_t mxcsr[] = {0x1f80, 0x7f80, 0xff80, 0x3fc0};
	static const uint16_t x87cw[] = {0x37f, 0xf7f, 0x27f, 0x47f};
	static const uint64_t flags[] = {ARITHFLAGS | DIRECTION, 0, 0x855, DIRECTION | 0x81};
	Rand r = {me * 7919 + 1};
	long double x = 1.25L * (long double)(me + 3);
	Regs in, out;

	memset(&in, 0, sizeof(in));
	memset(&out, 0xa5, sizeof(out));
	for (int i = 0; i < 14; i++)
		in.gpr[i] = rnd(&r);
	for (int i = 0; i < 16; i++)
		in.red[i] = rnd(&r);
	for (int i = 0; i < 32; i++)
		in.xmm[i] = rnd(&r);
	in.flags = FIXEDFLAGS | flags[me % 4];
	in.mxcsr = mxcsr[me % 4];
	in.x87cw = x87cw[me % 4];
	memcpy(in.x87, &x, 10);
	atomic_fetch_add(&tally.started, 1);
	regspin(&in, &out, &regstop);
	must(memcmp(in.gpr, out.gpr, sizeof(in.gpr)) == 0);
	must(memcmp(in.red, out.red, sizeof(in.red)) == 0);
	must(memcmp(in.xmm, out.xmm, sizeof(in.xmm)) == 0);
	must(memcmp(in.x87, out.x87, 10) == 0);
	must((in.flags & (ARITHFLAGS | DIRECTION)) == (out.flags & (ARITHFLAGS | DIRECTION)));
	must(in.mxcsr == (out.mxcsr & ~0x3fu) + (in.mxcsr & 0x3f));
	must(in.x87cw == out.x87cw);
	atomic_fetch_add(&tally.ended, 1);
}

/* On a stack that the scheduler does not know. */
static void regsapart(void *arg)
{
	static _Alignas(64) char stacks[4][16384];

	onstack0(regs, arg, (uintptr_t)stacks[(uintptr_t)arg] + sizeof(stacks[0]));
}

static void registersof(void (*fn)(void *))
{
	for (int i = 0; i < 4; i++)
		spawn(fn, (void *)(uintptr_t)i);
	int64_t before = metricscounted(CountPreempted);
	while (tally.started < 4 || metricscounted(CountPreempted) < before + 40)
		gosched();
	atomic_store(&regstop, 1);
	joinall();
	must(tally.ended == 4);
}

static void registers(void)
{
	registersof(regs);
}

/* What their registers were kept in is given back when they end; Ms, of which there may be more by then, have stacks, too. */
static void registersapart(void)
{
	enum { ROUNDS = 6 };
	size_t first = 0, inuse = 0, pooled;

	for (int i = 0; i < ROUNDS; i++) {
		memset(&tally, 0, sizeof(tally));
		atomic_store(&regstop, 0);
		registersof(regsapart);
		stackstats(&inuse, &pooled);
		if (i == 0)
			first = inuse;
	}
	must(inuse < first + (ROUNDS - 1) * 4 / 2);
}

Test(preempt, every_register_survives, .timeout = 30)
{
	debug.slice = MS;
	inscheduler(1, 4, registers);
	inscheduler(2, 4, registers);
}

Test(preempt, every_register_survives_on_stacks_not_known, .timeout = 30)
{
	debug.slice = MS;
	inscheduler(1, 4, registersapart);
	inscheduler(2, 4, registersapart);
}

/* --- unsafe places -------------------------------------------------------------------------- */

static bool (*realunsafepc)(uintptr_t pc);
static _Atomic int refusals, badlypreempted;
static _Atomic bool open;

static bool refusepc(uintptr_t pc)
{
	if (realunsafepc(pc))
		return true;
	if (atomic_load(&open))
		return false;
	atomic_fetch_add(&refusals, 1);
	return true;
}

static bool refuseg(G *gp)
{
	(void)gp;
	if (atomic_load(&open))
		return true;
	atomic_fetch_add(&refusals, 1);
	return false;
}

/* When it has been refused a few times, and nothing has happened, allows it. */
static void *allow(void *arg)
{
	(void)arg;
	while (refusals < 3)
		usleep_os(100);
	if (metricscounted(CountPreempted) != 0)
		atomic_store(&badlypreempted, 1);
	atomic_store(&open, true);
	return NULL;
}

/* Work that waits: else nobody minds a spinner that goes on where its P was taken. */
static void waitsinline(void *unused)
{
	(void)unused;
	while (!atomic_load(&tally.stop))
		gosched();
}

static void refused(void)
{
	pthread_t t;

	spawn(spinner, NULL);
	spawn(waitsinline, NULL);
	must(pthread_create(&t, NULL, allow, NULL) == 0);
	/* With one P this comes back only when the spinner was taken off. */
	while (!open || metricscounted(CountPreempted) == 0)
		gosched();
	must(!badlypreempted && refusals >= 3);
	atomic_store(&tally.stop, true);
	joinall();
	pthread_join(t, NULL);
}

static void unsafe(void)
{
	realunsafepc = host.unsafepc;
	host.unsafepc = refusepc;
	refused();
}

static void notallowed(void)
{
	host.maypreempt = refuseg;
	refused();
}

Test(preempt, what_is_refused_is_asked_for_again, .timeout = 30)
{
	inscheduler(1, 2, unsafe);
	inscheduler(1, 2, notallowed);
}

PREEMPTIBLE static void spinsection(_Atomic bool *until)
{
	while (!atomic_load(until))
		;
}

static void sectioned(void *arg)
{
	M *mp = acquirem();

	(void)arg;
	spawn(yielder, NULL);
	atomic_fetch_add(&tally.started, 1);
	spinsection(&open);
	/* Nobody ran meanwhile. */
	must(metricscounted(CountPreempted) == 0 && tally.ended == 0);
	releasem(mp);
	spinsection(&tally.stop);
}

static void *leavesection(void *arg)
{
	(void)arg;
	while (tally.started == 0)
		usleep_os(100);
	usleep_os(100000);
	atomic_store(&open, true);
	return NULL;
}

static void section(void)
{
	pthread_t t;

	must(pthread_create(&t, NULL, leavesection, NULL) == 0);
	spawn(sectioned, NULL);
	while (tally.ended == 0)
		gosched();
	atomic_store(&tally.stop, true);
	joinall();
	must(open);
	pthread_join(t, NULL);
}

Test(preempt, a_section_is_left_before, .timeout = 30)
{
	inscheduler(1, 2, section);
}

/* --- the frame -------------------------------------------------------------------------------- */

static void target(int sig, siginfo_t *info, void *ctx)
{
	(void)sig;
	(void)info;
	(void)ctx;
}

static void layout(void)
{
	static _Alignas(64) char area[16384];
	uintptr_t top = (uintptr_t)area + sizeof(area) - 3;
	G *gp = getg();
	ucontext_t uc, *copy;
	siginfo_t info;

	memset(&info, 0, sizeof(info));
	must(getcontext(&uc) == 0);
	uc.uc_mcontext.gregs[REG_RIP] = 0x1234;
	uc.uc_mcontext.gregs[REG_EFL] = 0x10700 | 0x41;
	info.si_signo = SIGUSR1;
	info.si_pid = 4711;
	must(siginject(gp, target, SIGUSR1, &info, &uc, top));

	greg_t *r = uc.uc_mcontext.gregs;
	uintptr_t sp = (uintptr_t)r[REG_RSP];

	/* As after a call of target(sig, info, ctx). */
	must(r[REG_RIP] == (greg_t)target && r[REG_RDI] == SIGUSR1);
	must(sp % 16 == 8 && sp > (uintptr_t)area && sp < top);
	must((r[REG_EFL] & 0x10500) == 0 && (r[REG_EFL] & 0x241) == 0x241);
	must(*(void **)sp == sigrestorer());
	must(((siginfo_t *)r[REG_RSI])->si_pid == 4711);
	/* What was interrupted, with its FP state, lies in the frame whole. */
	copy = (ucontext_t *)r[REG_RDX];
	must(copy->uc_mcontext.gregs[REG_RIP] == 0x1234);
	must(copy->uc_mcontext.gregs[REG_EFL] == (0x10700 | 0x41));
	must((uintptr_t)copy->uc_mcontext.fpregs % 64 == 0);
	must((uintptr_t)copy->uc_mcontext.fpregs >= sp + 8);
	must((uintptr_t)copy->uc_mcontext.fpregs + 512 <= top);
	must(copy->uc_mcontext.fpregs->mxcsr == uc.__fpregs_mem.mxcsr);
	must(uc.uc_mcontext.fpregs == NULL);
}

Test(preempt, the_frame_is_the_kernels, .timeout = 30)
{
	inscheduler(1, 0, layout);
}

static void room(void *arg)
{
	G *gp = getg();
	siginfo_t info;
	ucontext_t uc;

	(void)arg;
	memset(&info, 0, sizeof(info));
	must(getcontext(&uc) == 0);
	ucontext_t before = uc;

	for (uintptr_t n = 1; n < 4096; n += 64) {
		uc.uc_mcontext.gregs[REG_RSP] = (greg_t)(gp->stacklo + 128 + n);
		before.uc_mcontext.gregs[REG_RSP] = uc.uc_mcontext.gregs[REG_RSP];
		must(!siginject(gp, target, SIGURG, &info, &uc, 0));
		must(memcmp(&uc, &before, sizeof(uc)) == 0);
	}
}

static void roomless(void)
{
	spawn(room, NULL);
	joinall();
}

Test(preempt, without_room_there_is_no_frame, .timeout = 30)
{
	inscheduler(1, 1, roomless);
}

static void strangers(void)
{
	siginfo_t info;
	ucontext_t uc;

	memset(&info, 0, sizeof(info));
	must(getcontext(&uc) == 0);
	/* Sent by others, and sent by us but not asked for. */
	getg()->m->sigurg = 1;
	info.si_code = SI_USER;
	info.si_pid = sched.pid;
	must(!sigpreempt(SIGURG, &info, &uc));
	info.si_code = SI_TKILL;
	info.si_pid = sched.pid + 1;
	must(!sigpreempt(SIGURG, &info, &uc));
	getg()->m->sigurg = 0;
	info.si_pid = sched.pid;
	must(!sigpreempt(SIGURG, &info, &uc));
	getg()->m->sigurg = 1;
	must(sigpreempt(SIGURG, &info, &uc) && getg()->m->sigurg == 0);
}

Test(preempt, a_strangers_signal_is_not_ours, .timeout = 30)
{
	inscheduler(1, 0, strangers);
}

/* From the injected function an unwinder gets to what was interrupted, and to
 * its callers. */
static G *_Atomic victim;
static _Atomic int sawspin, sawcaller, nframes, rightpc;

PREEMPTIBLE static void unwoundspin(void)
{
	while (!atomic_load(&tally.stop))
		;
}

__attribute__((noinline)) static void unwound(void *arg)
{
	(void)arg;
	atomic_store(&victim, getg());
	unwoundspin();
	atomic_fetch_add(&tally.ended, 1);
}

static _Unwind_Reason_Code frame(struct _Unwind_Context *c, void *arg)
{
	uintptr_t start = _Unwind_GetRegionStart(c);

	(void)arg;
	atomic_fetch_add(&nframes, 1);
	if (start == (uintptr_t)unwoundspin)
		atomic_store(&sawspin, 1);
	if (start == (uintptr_t)unwound && sawspin)
		atomic_store(&sawcaller, 1);
	return nframes < 100 ? _URC_NO_REASON : _URC_END_OF_STACK;
}

static void unwinds(void *ctx)
{
	ucontext_t *uc = ctx;

	gclearinterrupt();
	if (uc == NULL || host.unsafepc((uintptr_t)uc->uc_mcontext.gregs[REG_RIP]))
		return;
	atomic_store(&rightpc, 1);
	must(getg() == victim);
	_Unwind_Backtrace(frame, NULL);
	/* It may switch, and go on elsewhere. */
	gosched();
	gosleep(nanotime() + MS, 0);
	atomic_store(&tally.stop, true);
}

static void unwinding(void)
{
	host.interrupt = unwinds;
	spawn(unwound, NULL);
	while (victim == NULL)
		gosched();
	while (!rightpc) {
		ginterrupt(victim);
		gosleep(nanotime() + MS, 0);
	}
	joinall();
	must(sawspin && sawcaller && nframes < 100);
	must(tally.ended == 1);
}

Test(preempt, the_frame_unwinds, .timeout = 30)
{
	inscheduler(1, 1, unwinding);
	inscheduler(2, 1, unwinding);
}
