/*
 * sigexec.c - what of signals goes along when a goroutine calls exec.
 *
 * The new program gets the caller's mask, what is pending for it and for the process, and which signals are ignored. Some
 * of that only we know: the kernel knows a goroutine's mask in a native bracket, without SIGURG; pending signals
 * wait in our queues; and SIGURG has our handler, whatever the program says. So all that is told to the kernel before the
 * call. It may fail: what waits stays in our queues, too, and the kernel's copies are taken back.
 *
 * sysmon blocks all signals meanwhile: one that it has received would be lost with it.
 */
#include "sigcore.h"

/* All but the two that are libc's. */
#define ALL (~(BIT(32) | BIT(33)))

static void sysmonblocks(int more)
{
	Section l = siglock();
	sigs.execs += more;
	sigunlock(l);
}

/* To the caller's kernel thread, which blocks them: those of th's queue that th blocks. Timers' end with the process. */
static void copyqueue_locked(Thread *th, uint64_t mask, uint16_t *copied)
{
	long self = sys0(SYS_getpid), tid = sys0(SYS_gettid);
	for (SigNode *run = th->queue; run; run = run->others)
		for (SigNode *n = mask & BIT(run->info.si_signo) ? run : NULL; n; n = n->next)
			if (n->info.si_code != SI_TIMER && copied[n->info.si_signo] < UINT16_MAX &&
			    sys4(SYS_rt_tgsigqueueinfo, self, tid, n->info.si_signo,
				 (long)&n->info) == 0)
				copied[n->info.si_signo]++;
}

static void takeback(uint64_t set, int n)
{
	struct timespec now = {0, 0};
	while (n-- > 0 && sys4(SYS_rt_sigtimedwait, (long)&set, 0, (long)&now, 8) > 0)
		;
}

void sigexecbegin(void)
{
	sysmonblocks(1);
	sigsettle();
}

void sigexec(Thread *th, uint16_t *copied)
{
	gsetkmask(ALL);
	takeback(BIT(SIGURG), 1); /* the runtime's */
	if (sigs.act[SIGURG].sa_handler == SIG_IGN)
		real.sigaction(SIGURG, &sigs.act[SIGURG], NULL);
	Section l = siglock();
	copyqueue_locked(th, th->mask, copied);
	copyqueue_locked(&process, th->mask, copied);
	sigunlock(l);
	gsetkmask(th->mask);
}

void sigexecfailed(Thread *th, const uint16_t *copied)
{
	if (sigs.act[SIGURG].sa_handler == SIG_IGN)
		install(SIGURG, &sigs.act[SIGURG]);
	for (int s = 1; s <= NSIGS; s++)
		takeback(BIT(s), copied[s]);
	gsetkmask(th->mask & ~BIT(SIGURG));
}

void sigexecend(void)
{
	sysmonblocks(-1);
	maskagain();
}

void sigexecapart(void)
{
	struct sigaction sa;
	if (sigs.act[SIGURG].sa_handler == SIG_IGN && real.sigaction(SIGURG, NULL, &sa) == 0 &&
	    sa.sa_handler != SIG_DFL)
		real.sigaction(SIGURG, &sigs.act[SIGURG], NULL);
}
