/*
 * block.c - what a goroutine does when a system call of its was interrupted.
 *
 * blockingsyscall never lets the kernel restart a call: the handlers of a
 * goroutine run on its own stack, by the shim, not by the kernel inside the
 * call, so the kernel cannot know whether SA_RESTART was meant. An -EINTR that
 * comes back has one of three reasons: handlers are to run, cancellation was
 * asked for, or the runtime wanted something. Only the first is seen by the
 * program, and only where signal(7) says so.
 */
#include "block.h"

bool intragain(int how)
{
	bool again = sigdeliver(how & Restarts);

	if (how & Cancels)
		testcancel();
	return again;
}

long waitcall(int how, long nr, long a, long b, long c, long d, long e, long f)
{
	if (how & Cancels)
		testcancel();
	for (;;) {
		long r = how & Quick ? quicksyscall(nr, a, b, c, d, e, f)
				     : blockingsyscall(nr, a, b, c, d, e, f);

		if (r != -EINTR || !intragain(how))
			return r;
	}
}

/* There is no such way to change the mask, so nothing happens; but first it is read, unless it is NULL. */
static bool eightbytes(uintptr_t p)
{
	return p > 7 && sysnow(SYS_rt_sigprocmask, -1, p & ~7UL, NULL, 8) != -EFAULT;
}

bool kernelreads(const void *p, size_t n)
{
	enum { PAGE = 4096 };
	uintptr_t first = (uintptr_t)p, last = first + n - 1;

	return eightbytes(first) && (first / PAGE == last / PAGE || eightbytes(last));
}
