/*
 * sigold.c - the calls for signals of before POSIX's.
 *
 * libc makes them of sigprocmask and sigaction, by ways that nobody else sees: they would
 * change the mask of a kernel thread that is nobody's, and take handlers past
 * us. So they are made here of ours, which before the scheduler's start are libc's.
 */
#include "sigcore.h"

static _Atomic uint64_t interrupts; /* siginterrupt asked for: signal() sets no SA_RESTART */

bool sigrestarts(int sig)
{
	return !(atomic_load(&interrupts) & BIT(sig));
}

static int badnumber(int sig)
{
	if (sig >= 1 && sig <= NSIGS)
		return 0;
	errno = EINVAL;
	return -1;
}

static int maskone(int how, int sig, sigset_t *old)
{
	sigset_t set;
	if (badnumber(sig))
		return -1;
	bitsset(&set, BIT(sig));
	return shim_sigprocmask(how, &set, old);
}

SHIM(int, sighold, int sig)
{
	return maskone(SIG_BLOCK, sig, NULL);
}

SHIM(int, sigrelse, int sig)
{
	return maskone(SIG_UNBLOCK, sig, NULL);
}

SHIM(int, sigignore, int sig)
{
	struct sigaction sa = {.sa_handler = SIG_IGN};
	return badnumber(sig) ? -1 : shim_sigaction(sig, &sa, NULL);
}

SHIM(sighandler_t, sigset, int sig, sighandler_t h)
{
	struct sigaction sa = {.sa_handler = h}, before;
	sigset_t old;
	if (h == SIG_ERR || badnumber(sig)) {
		errno = EINVAL;
		return SIG_ERR;
	}
	bool hold = h == SIG_HOLD;
	if (shim_sigaction(sig, hold ? NULL : &sa, &before) < 0 ||
	    maskone(hold ? SIG_BLOCK : SIG_UNBLOCK, sig, &old) < 0)
		return SIG_ERR;
	return sigismember(&old, sig) ? SIG_HOLD : before.sa_handler;
}

/* Masks of the first 32 signals. */
static int mask32(int how, int mask)
{
	sigset_t set, old;
	uint64_t before;
	bitsset(&set, (uint32_t)mask);
	if (shim_sigprocmask(how, &set, &old) < 0)
		return -1;
	memcpy(&before, &old, 8);
	return (int)before;
}

SHIM(int, sigblock, int mask)
{
	return mask32(SIG_BLOCK, mask);
}

SHIM(int, sigsetmask, int mask)
{
	return mask32(SIG_SETMASK, mask);
}

SHIM(int, siggetmask, void)
{
	return mask32(SIG_BLOCK, 0);
}

SHIM(int, siginterrupt, int sig, int interrupt)
{
	struct sigaction sa;
	if (badnumber(sig) || shim_sigaction(sig, NULL, &sa) < 0)
		return -1;
	if (interrupt) {
		atomic_fetch_or(&interrupts, BIT(sig));
		sa.sa_flags &= ~SA_RESTART;
	} else {
		atomic_fetch_and(&interrupts, ~BIT(sig));
		sa.sa_flags |= SA_RESTART;
	}
	if (!schedstarted())
		return real.siginterrupt(sig, interrupt); /* libc's signal() has its own note */
	return shim_sigaction(sig, &sa, NULL);
}

/* A stack of unknown size: libc takes its address for that. */
SHIM(int, sigstack, struct sigstack *ss, struct sigstack *old)
{
	stack_t new = {.ss_sp = ss ? ss->ss_sp : NULL, .ss_size = ss ? (size_t)ss->ss_sp : 0},
		before;
	if (shim_sigaltstack(ss ? &new : NULL, &before) < 0)
		return -1;
	if (old) {
		old->ss_sp = before.ss_sp;
		old->ss_onstack = (before.ss_flags & SS_ONSTACK) != 0;
	}
	return 0;
}

/* No header has had these since glibc 2.21. */
struct sigvec {
	sighandler_t handler;
	int mask, flags;
};
enum { SvOnStack = 1, SvInterrupt = 2, SvResetHand = 4 };

SHIM(int, sigvec, int sig, const struct sigvec *vec, struct sigvec *old)
{
	struct sigaction sa = {.sa_handler = NULL}, before;
	if (vec) {
		sa.sa_handler = vec->handler;
		sa.sa_flags = (vec->flags & SvOnStack ? SA_ONSTACK : 0) |
			      (vec->flags & SvInterrupt ? 0 : SA_RESTART) |
			      (vec->flags & SvResetHand ? (int)SA_RESETHAND : 0);
		bitsset(&sa.sa_mask, (uint32_t)vec->mask);
	}
	if (shim_sigaction(sig, vec ? &sa : NULL, &before) < 0)
		return -1;
	if (old) {
		old->handler = before.sa_handler;
		old->mask = (int)setbits(&before.sa_mask);
		old->flags = (before.sa_flags & SA_ONSTACK ? SvOnStack : 0) |
			     (before.sa_flags & SA_RESTART ? 0 : SvInterrupt) |
			     (before.sa_flags & (int)SA_RESETHAND ? SvResetHand : 0);
	}
	return 0;
}
