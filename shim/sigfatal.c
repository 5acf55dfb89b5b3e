/*
 * sigfatal.c - the end of the process by a signal: with a traceback, and otherwise as natively.
 *
 * The kernel takes the default action, so exit status and core file are its own; it is given the signal once more with the
 * information that it had the first time, which the core file holds.
 */
#include "sigcore.h"

#include <sched.h>

static const char *nameof(int sig)
{
	switch (sig) {
	case SIGQUIT: return "SIGQUIT: quit";
	case SIGABRT: return "SIGABRT: abort";
	case SIGSEGV: return "SIGSEGV: segmentation violation";
	case SIGBUS: return "SIGBUS: bus error";
	case SIGFPE: return "SIGFPE: floating-point exception";
	case SIGILL: return "SIGILL: illegal instruction";
	case SIGTRAP: return "SIGTRAP: trace trap";
	case SIGSYS: return "SIGSYS: bad system call";
	default: return "signal";
	}
}

static void again(const siginfo_t *info)
{
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	real.sigaction(info->si_signo, &dfl, NULL);
	sys4(SYS_rt_tgsigqueueinfo, sys0(SYS_getpid), sys0(SYS_gettid), info->si_signo, (long)info);
}

void sigfatal(siginfo_t *info, ucontext_t *uc)
{
	uint64_t mask;
	if (hasprocess(CLONE_SIGHAND))
		tracebackfatal(nameof(info->si_signo), info, uc, info->si_signo == SIGQUIT);
	again(info);
	if (uc) {
		memcpy(&mask, &uc->uc_sigmask, 8);
		mask &= ~BIT(info->si_signo);
		memcpy(&uc->uc_sigmask, &mask, 8);
		return;
	}
	mask = ~BIT(info->si_signo);
	for (;;)
		sys4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&mask, 0, 8);
}
