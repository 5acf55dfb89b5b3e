/*
 * fd.h - what a descriptor was when it was last looked at.
 *
 * How to ask for data without waiting depends on what the descriptor is, and
 * whether to wait at all on its O_NONBLOCK. Both could be asked of the kernel each
 * time; that costs more than many a read. So one byte a descriptor remembers
 * the last answer. Descriptors are closed and reused where we do not see it
 * (libc's inside, raw system calls), so an answer may be stale: every use has to be right even
 * then, and only costs more. "Non-blocking" therefore means no more than that the
 * program's own call may be made as it is.
 */
#ifndef GOSHIM_FD_H
#define GOSHIM_FD_H

#include <stdatomic.h>

#include "block.h"

enum {
	FdUnknown, /* ask fstat */
	/* Only the program's own call will do: regular files and the like, always ready. */
	FdFile,
	FdStream,   /* RWF_NOWAIT works */
	FdSocket,   /* MSG_DONTWAIT works, and read is recv */
	FdReads,    /* RWF_NOWAIT works for reading only (eventfd); poll before writing */
	FdPolled,   /* neither works: poll first */
	FdTerminal, /* the program's own call: poll does not tell when read returns (VMIN, VTIME) */
	FdKind = 7,
	FdNonblock = 8, /* fcntl said O_NONBLOCK */
};

/* The byte above the hint counts how often the number was closed. */
enum { NFDHINT = 1 << 16, FdHint = 15, FdOneClose = 16 };
extern _Atomic uint16_t fdhints[NFDHINT];

static inline int fdword(int fd)
{
	return (unsigned)fd < NFDHINT ? atomic_load_explicit(&fdhints[fd], memory_order_relaxed)
				      : FdUnknown;
}

static inline int fdhint(int fd)
{
	return fdword(fd) & FdHint;
}

/* Differs between two calls when fd was closed between, which makes a wait for it void. */
static inline int fdcloses(int fd)
{
	return fdword(fd) & ~FdHint;
}

static inline void fdsethint(int fd, int hint)
{
	int old = fdword(fd);

	if ((unsigned)fd >= NFDHINT || (old & FdHint) == hint)
		return;
	uint16_t seen = (uint16_t)old;

	/* Whoever changes it meanwhile knows better. */
	atomic_compare_exchange_strong_explicit(&fdhints[fd], &seen,
						(uint16_t)((old & ~FdHint) | hint),
						memory_order_relaxed, memory_order_relaxed);
}

/* fd was just made, by a call that we see. */
static inline void fdmade(int fd, int hint)
{
	netpollmade(fd);
	fdsethint(fd, hint);
}

/* The kind, asked for if need be; FdFile for what fstat does not know (the
 * program's own call will say EBADF). */
int fdkind(int fd);

/* fd, the end of a pipe that is written, was written to: tells who waits at the other end, if both were made here. */
void fdwritten(int fd);

/* Is it O_NONBLOCK? Asks the kernel, and remembers. */
bool fdnonblock(int fd);

/*
 * Some socket of the process may have a limit on the time of its calls or a
 * low-water mark (setsockopt was called for one, or an inherited one had it): until then nobody
 * has to ask.
 */
extern _Atomic bool fdtimed;
extern _Atomic bool fdlowat;
/* The absolute time at which a call on socket fd has to give up. */
int64_t fddeadline(int fd, int mode);
bool fdhaslowat(int fd);

#endif
