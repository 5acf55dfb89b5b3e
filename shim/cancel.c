/*
 * cancel.c - thread cancellation.
 *
 * State and type stay where libc keeps them, in the block's cancelhandling
 * word: pthread_setcancelstate, cleanup buffers and the unwinding are libc's
 * own, working on the block in FS, and so are the cancellation points that we
 * don't interpose. What is ours is the asking: libc would send a signal to a
 * kernel thread; we mark the word, and interrupt the goroutine's wait. Only one
 * that is in the native bracket runs on a kernel thread of its own, in libc's
 * functions: it is sent libc's signal, where these have opened themselves to it.
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

/* libc's handler is installed by its first pthread_cancel: of a thread that is none. */
static void sigcancelinstall(void)
{
	static _Atomic bool done;
	if (atomic_load(&done))
		return;
	char *nobody = calloc(1, tls.size);
	if (!nobody)
		return;
	TLSFIELD(nobody, int, tls.tid) = -1; /* "is alive"; nothing is sent to it */
	real.pthread_cancel((pthread_t)nobody);
	free(nobody);
	atomic_store(&done, true);
}

/*
 * Cancels th by libc's signal if it is in the bracket and open to that now. False: it is
 * not, and whatever it does next looks at the word.
 */
static bool cancelnative(Thread *th)
{
	enum { SIGCANCEL = 32 };
	int tid = atomic_load(&th->native);
	if (tid == 0)
		return false;
	sigcancelinstall();
	do {
		if (tid < 0)
			tid = -tid; /* somebody else is at it */
		if (tid == 0)
			return false;
	} while (!atomic_compare_exchange_weak(&th->native, &tid, -tid));
	bool open;
	int w = atomic_load(word(th->block));
	do /* as libc: its handler completes it, and who closes the gate waits for that */
		open = (w & CancelAsync) && wanted(w | CancelCanceled) && !(w & CancelCanceled);
	while (!atomic_compare_exchange_weak(word(th->block), &w,
					     w | CancelCanceling | (open ? 0 : CancelCanceled)));
	if (open) {
		th->cancelsent = true;
		sys3(SYS_tgkill, sys0(SYS_getpid), tid, SIGCANCEL);
	}
	atomic_store(&th->native, tid);
	return open;
}

SHIM(int, pthread_cancel, pthread_t t)
{
	Thread *th = threadof(t);
	if (!th)
		return real.pthread_cancel(t);
	if (atomic_load(&th->state) & ThreadExited)
		return 0;
	bool self = th->block == selfblock(); /* also in a fork child, which is no goroutine */
	if (!self && cancelnative(th))
		return 0;
	int old = atomic_fetch_or(word(th->block), CancelCanceling | CancelCanceled);
	if (self) {
		if (wanted(old | CancelCanceled) && (old & CancelAsync))
			cancelself();
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
