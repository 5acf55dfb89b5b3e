/*
 * cancel.c - thread cancellation.
 *
 * State and type stay where libc keeps them, in the block's cancelhandling
 * word: pthread_setcancelstate, cleanup buffers and the unwinding are libc's
 * own, working on the block in FS, and so are the cancellation points that we
 * don't interpose. What is ours is the asking: libc would send a signal to a
 * kernel thread; we mark the word, and interrupt the goroutine's wait.
 */
#include "cancel.h"
#include "signal.h"
#include "thread.h"

#include <stdatomic.h>

static _Atomic int *word(void *block)
{
	return (_Atomic int *)((char *)block + tls.cancelhandling);
}

static bool wanted(int w)
{
	return (w & (CancelDisabled | CancelCanceled | CancelExiting)) == CancelCanceled;
}

void cancelself(void)
{
	shim_pthread_exit(PTHREAD_CANCELED);
}

SHIM(void, pthread_testcancel, void)
{
	if (getg())
		testcancel();
	else
		real.pthread_testcancel();
}

SHIM(int, pthread_cancel, pthread_t t)
{
	Thread *th = threadof(t);
	if (!th)
		return real.pthread_cancel(t);
	if (atomic_load(&th->state) & ThreadExited)
		return 0;
	int old = atomic_fetch_or(word(th->block), CancelCanceling | CancelCanceled);
	if (th == curthread()) {
		if (wanted(old | CancelCanceled) && (old & CancelAsync))
			testcancel();
		return 0;
	}
	G *gp = th->gp;
	if (gp && !(old & CancelDisabled))
		ginterrupt(gp);
	return 0;
}

/* Opening the gate with a request behind it: an asynchronous one acts at once. */
SHIM(int, pthread_setcancelstate, int state, int *old)
{
	int r = real.pthread_setcancelstate(state, old);
	Thread *th = curthread();
	if (r == 0 && th && (atomic_load(word(th->block)) & CancelAsync))
		testcancel();
	return r;
}

SHIM(int, pthread_setcanceltype, int type, int *old)
{
	int r = real.pthread_setcanceltype(type, old);
	if (r == 0 && type == PTHREAD_CANCEL_ASYNCHRONOUS)
		testcancel();
	return r;
}
