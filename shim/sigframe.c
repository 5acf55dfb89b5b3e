/*
 * sigframe.c - what a handler is told of the place that it interrupts, and what it may change there.
 *
 * Where the kernel has interrupted a goroutine its frame was copied, and is restored by the kernel in the end:
 * all that the handler writes into it takes effect. At a call of ours there is none, so the registers
 * of that place are taken down, from which an unwinder finds the callers as natively; and a handler that sets
 * another program counter or stack pointer is followed there.
 *
 * The alternate stack is part of the frame: it is what the thread had when the signal came, and what it has
 * again afterwards, whatever the handler has set. The rules are the kernel's (do_sigaltstack).
 */
#include "sigcore.h"

#include <stdalign.h>

enum {
	MINSTACK = 2048,
	AUTODISARM = (int)(1u << 31),
	SEGMENTS = 6, /* uc_flags: ss is in the context and is to be restored */
};

/* In entry.S. Writes the registers with which the caller goes on; floating point as fxsave does. */
void herecontext(greg_t *gregs, void *fx);
noreturn_fn void jumpcontext(ucontext_t *uc);

static bool within(const Thread *th, uintptr_t sp)
{
	uintptr_t lo = (uintptr_t)th->altstack.ss_sp;
	return th->altstack.ss_size && sp > lo && sp <= lo + th->altstack.ss_size;
}

bool onaltstack(Thread *th, uintptr_t sp)
{
	return within(th, sp) && !(th->altstack.ss_flags & AUTODISARM);
}

uintptr_t handlerstack(Thread *th, const struct sigaction *sa, uintptr_t sp)
{
	if (!(sa->sa_flags & SA_ONSTACK) || !th->altstack.ss_size || within(th, sp))
		return 0;
	return ((uintptr_t)th->altstack.ss_sp + th->altstack.ss_size) & ~(uintptr_t)63;
}

/* 0 or the error; sp: where the caller's stack is. */
static int setaltstack(Thread *th, const stack_t *ss, uintptr_t sp)
{
	int mode = ss->ss_flags & ~AUTODISARM;

	if (onaltstack(th, sp))
		return EPERM;
	if (mode != SS_DISABLE && mode != SS_ONSTACK && mode != 0)
		return EINVAL;
	if (mode == SS_DISABLE)
		th->altstack = (stack_t){.ss_flags = ss->ss_flags};
	else if (ss->ss_size < MINSTACK)
		return ENOMEM;
	else
		th->altstack = *ss;
	return 0;
}

SHIM(int, sigaltstack, const stack_t *ss, stack_t *old)
{
	Thread *th = curthread();
	if (!th)
		return real.sigaltstack(ss, old);
	stack_t new = {.ss_flags = 0}, before = th->altstack;
	if (ss)
		new = *ss; /* faults here, with nothing changed */
	before.ss_flags &= AUTODISARM;
	if (!before.ss_size)
		before.ss_flags |= SS_DISABLE;
	else if (onaltstack(th, currentsp()))
		before.ss_flags |= SS_ONSTACK;
	int err = ss ? setaltstack(th, &new, currentsp()) : 0;
	if (err) {
		errno = err;
		return -1;
	}
	if (old)
		*old = before;
	return 0;
}

/* Runs the handler in *uc, where the mask was `mask`; afterwards mask and alternate stack are what *uc says. */
static void runin(Thread *th, const struct sigaction *sa, siginfo_t *info, ucontext_t *uc,
		  uint64_t mask)
{
	uintptr_t sp = handlerstack(th, sa, currentsp());
	int err = errno;

	/* The kernel's frame has room for 64 signals only. */
	memcpy(&uc->uc_sigmask, &mask, 8);
	uc->uc_stack = th->altstack;
	if (!th->altstack.ss_size)
		uc->uc_stack.ss_flags |= SS_DISABLE;
	if (th->altstack.ss_flags & AUTODISARM)
		th->altstack = (stack_t){.ss_flags = SS_DISABLE};
	/* The kernel makes the frames of all first: what else is open interrupts this handler as it begins. */
	bool restart;
	while (sigpendingopen())
		deliver(NULL, &restart);
	if (sp)
		callonstack(sa->sa_sigaction, info->si_signo, info, uc, sp);
	else
		sa->sa_sigaction(info->si_signo, info, uc);
	errno = err;
	th = curthread();
	setaltstack(th, &uc->uc_stack, (uintptr_t)uc->uc_mcontext.gregs[REG_RSP]);
	memcpy(&mask, &uc->uc_sigmask, 8);
	setmask(th, mask & ~NEVERMASKED);
}

__attribute__((noinline)) static void runhere(Thread *th, const struct sigaction *sa,
					      siginfo_t *info, uint64_t mask)
{
	alignas(64) char fx[sizeof(struct _libc_fpstate)];
	ucontext_t uc;
	greg_t *r = uc.uc_mcontext.gregs;

	memset(&uc, 0, sizeof uc);
	memset(fx, 0, sizeof fx);
	uc.uc_flags = SEGMENTS;
	uc.uc_mcontext.fpregs = (fpregset_t)fx;
	herecontext(r, fx);
	greg_t pc = r[REG_RIP], sp = r[REG_RSP];
	runin(th, sa, info, &uc, mask);
	if (r[REG_RIP] == pc && r[REG_RSP] == sp)
		return;
	sigresume(&uc);
	jumpcontext(&uc);
}

void runhandler(Thread *th, const struct sigaction *sa, siginfo_t *info, ucontext_t *ctx,
		uint64_t mask)
{
	if (ctx)
		runin(th, sa, info, ctx, mask);
	else
		runhere(th, sa, info, mask);
}
