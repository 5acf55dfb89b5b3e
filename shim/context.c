/*
 * context.c - getcontext and its kin with the goroutine's signal mask.
 *
 * A context keeps a signal mask, and libc's functions have the kernel save and set it, which knows
 * the kernel thread's only. So registers are kept here as libc keeps them (entry.S), and the mask is the goroutine's; that a
 * goroutine goes on elsewhere does no harm, since nothing of a kernel thread is in a context. For who is no goroutine
 * all is libc's but makecontext: the function of libc's returns to libc's setcontext, by a name that can't be taken.
 *
 * Rejected: libc's setcontext on a copy with the kernel thread's mask. The copy would lie on the stack, where a handler that
 * interrupts between the switch of stacks and the last register may overwrite it; and it is a system call.
 */
#include "sigcore.h"

#include <stdarg.h>

/* In entry.S, or called there. */
void contextmask(ucontext_t *uc);
noreturn_fn void contextend(const ucontext_t *link);
noreturn_fn void loadcontext(const ucontext_t *uc);
void contextstart(void);

/* As much as the kernel writes. */
void contextmask(ucontext_t *uc)
{
	uint64_t m = curthread()->mask;
	memcpy(&uc->uc_sigmask, &m, 8);
}

SHIM(int, setcontext, const ucontext_t *uc)
{
	if (!getg())
		return real.setcontext(uc);
	/* As the kernel would: handlers of what this opens run first, on the stack that is left. */
	shim_pthread_sigmask(SIG_SETMASK, &uc->uc_sigmask, NULL);
	loadcontext(uc);
}

/* The function of a context has returned. */
void contextend(const ucontext_t *link)
{
	exit(link ? shim_setcontext(link) : 0);
}

SHIM(void, makecontext, ucontext_t *uc, void (*fn)(void), int argc, ...)
{
	static const int inreg[] = {REG_RDI, REG_RSI, REG_RDX, REG_RCX, REG_R8, REG_R9};
	greg_t *r = uc->uc_mcontext.gregs;
	size_t onstack = argc > (int)nelem(inreg) ? (size_t)argc - nelem(inreg) : 0;
	uintptr_t top = (uintptr_t)uc->uc_stack.ss_sp + uc->uc_stack.ss_size;
	/* From here up: the return address, arguments, the context that follows. */
	uintptr_t *sp = (uintptr_t *)((top - (onstack + 1) * sizeof *sp) & ~(uintptr_t)15) - 1;
	va_list ap;

	sp[0] = (uintptr_t)contextstart;
	sp[onstack + 1] = (uintptr_t)uc->uc_link;
	r[REG_RIP] = (greg_t)fn;
	r[REG_RSP] = (greg_t)sp;
	r[REG_RBX] = (greg_t)&sp[onstack + 1];
	va_start(ap, argc);
	for (int i = 0; i < argc; i++) {
		greg_t v = va_arg(ap, greg_t);
		if (i < (int)nelem(inreg))
			r[inreg[i]] = v;
		else
			sp[1 + i - (int)nelem(inreg)] = (uintptr_t)v;
	}
	va_end(ap);
}
