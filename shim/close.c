/*
 * close.c - the end of descriptors.
 *
 * A goroutine that waits for a descriptor keeps no reference to its file, as a thread
 * in the kernel would: when another closes it, no event comes any more. So
 * whoever closes a number, or makes it another file, tells those who wait for it. That
 * can be a foreign thread; libc itself, on behalf of a stream; or a raw system call. Only
 * inline system calls are not seen.
 *
 * Children of vfork and clone() can have descriptors of their own, in our memory: they tell nobody.
 */
#include "close.h"
#include "fd.h"
#include "pin.h"
#include "sched.h"
#include "thread.h"

#include <mqueue.h>

/* Are the caller's descriptors those that goroutines wait for? */
static bool waitedfor(void)
{
	return getg() || (schedstarted() && hasprocess(CLONE_FILES));
}

static void forget(int fd)
{
	requestclosed(fd);
	if ((unsigned)fd >= NFDHINT)
		return;
	uint16_t old = atomic_load_explicit(&fdhints[fd], memory_order_relaxed);

	while (!atomic_compare_exchange_weak_explicit(&fdhints[fd], &old,
						      (uint16_t)((old & ~FdHint) + FdOneClose),
						      memory_order_relaxed, memory_order_relaxed))
		;
}

/* Before: a wait for who gets the number next begins after it. */
static void closing(int fd)
{
	if (fd >= 0 && waitedfor())
		forget(fd);
}

static void closed(int fd)
{
	if (fd >= 0 && waitedfor())
		netpollclosed(fd);
}

/*
 * Lingering sockets and network files make close wait. It is never made twice,
 * not even after EINTR: the number may be another file's by then.
 */
long closefd(int fd)
{
	if (unlikely(ownfd(fd)))
		return -EBADF;
	closing(fd);
	entersyscall();
	closebegin();
	long r = sysnow(SYS_close, fd);

	closeend();
	exitsyscall();
	closed(fd);
	return r;
}

SHIM(int, close, int fd)
{
	if (getg()) {
		testcancel();
		return (int)callret(closefd(fd));
	}
	closing(fd);
	int r = real.close(fd);

	closed(fd);
	return r;
}

SHIM(int, mq_close, mqd_t q)
{
	closing(q);
	int r = real.mq_close(q);

	closed(q);
	return r;
}

/* All but ours; the kernel's answer. */
static long closeall(unsigned first, unsigned last)
{
	unsigned from = first, end = last < NFDHINT ? last : NFDHINT - 1;
	long r = 0;

	for (unsigned fd = first; fd <= end && r == 0; fd++) {
		if (fdword((int)fd))
			forget((int)fd);
		if (!ownfd((int)fd))
			continue;
		if (fd > from)
			r = sysnow(SYS_close_range, from, fd - 1, 0);
		from = fd + 1;
	}
	return r == 0 && from <= last ? sysnow(SYS_close_range, from, last, 0) : r;
}

/* Daemons close all there is. */
SHIM(int, close_range, unsigned first, unsigned last, int flags)
{
	if (getg() && (flags & CLOSE_RANGE_UNSHARE))
		pin(PinMore); /* as unshare(CLONE_FILES) */
	if (!waitedfor() || flags)
		return real.close_range(first, last, flags);
	closebegin();
	long r = closeall(first, last);

	closeend();
	for (unsigned fd = first; r == 0 && fd <= last && fd < NFDHINT; fd++)
		netpollclosed((int)fd);
	return (int)errnoret(r);
}

SHIM(void, closefrom, int first)
{
	if (!waitedfor() || shim_close_range(first < 0 ? 0 : (unsigned)first, ~0U, 0) < 0)
		real.closefrom(first);
}

/* --- another file in its place --------------------------------------------------- */

/* Who waits for `to` goes on with what it is now. */
int replaced(int to, int by)
{
	if (to >= 0 && to != by && waitedfor()) {
		fdsethint(to, fdhint(by));
		requestclosed(to);
		requestcopied(by);
		netpollclosed(to);
	}
	return to;
}

SHIM(int, dup2, int fd, int to)
{
	if (!getg())
		return replaced(real.dup2(fd, to), fd);
	closebegin();
	long r = sysnow(SYS_dup2, fd, to);

	closeend();
	return replaced((int)errnoret(r), fd);
}

SHIM(int, dup3, int fd, int to, int flags)
{
	if (!getg())
		return replaced(real.dup3(fd, to, flags), fd);
	closebegin();
	long r = sysnow(SYS_dup3, fd, to, flags);

	closeend();
	return replaced((int)errnoret(r), fd);
}

/* --- streams --------------------------------------------------------------------- */

/* -1: it has none, or none yet. */
static int streamfd(FILE *f)
{
	KEEP_ERRNO;
	return fileno_unlocked(f);
}

SHIM(int, fclose, FILE *f)
{
	int fd = streamfd(f);

	closing(fd);
	int r = real.fclose(f);

	closed(fd);
	return r;
}

SHIM(int, pclose, FILE *f)
{
	int fd = streamfd(f);

	closing(fd);
	int r = real.pclose(f);

	closed(fd);
	return r;
}

SHIM(FILE *, freopen, const char *path, const char *mode, FILE *f)
{
	int fd = streamfd(f);

	closing(fd);
	f = real.freopen(path, mode, f);
	closed(fd);
	return f;
}
