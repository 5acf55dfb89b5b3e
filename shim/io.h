/*
 * io.h - the engine behind reading and writing (io.c), for the calls on
 * sockets too (socket.c).
 */
#ifndef GOSHIM_IO_H
#define GOSHIM_IO_H

#include <limits.h>

#include "fd.h"

/* Forms of Op.trynr that are no system call. */
enum {
	TryNever = -1, /* the native call is the only form */
	TryPoll = -2,  /* poll, then the native call */
	TryFile = -3,  /* the native call, which does not wait for long */
};

typedef struct Op {
	int fd, mode;
	long nr, a[6];    /* as the program made it */
	long trynr, t[6]; /* not waiting; or one of the above */
	int64_t deadline; /* SO_RCVTIMEO, SO_SNDTIMEO; 0: not asked yet */
	int how;          /* what EINTR means: block.h */
	int closes;       /* fdcloses when it began */
	bool nowait;      /* the program's own call does not wait */
	bool assocket;    /* the try takes fd for a socket: ENOTSOCK says no more than that */
	bool rest;        /* a part has gone through already */
	bool tried;       /* out: the result is the try's, not the kernel's last word */
	Conn *conn;       /* fd is one that is timed, */
	Seen seen;        /* ... and how it was waited for */
	uint64_t when;
	struct iovec one;
	struct msghdr msg;
} Op;

/* Makes the call, waiting as it has to. Where op->tried is set then, its result may be a part. */
long transfer(Op *op);

/* After `done` of the vector went through in op's call: the rest, as far as it goes. Returns the
 * sum. */
long finish(Op *op, const struct iovec *v, size_t n, long done);

/* Both, for a call that writes v. */
long transferall(Op *op, const struct iovec *v, size_t n);

/* The bytes of a vector. */
size_t vectorlen(const struct iovec *v, size_t n);

/* A call that cannot be told not to wait: when fd is ready for `mode`, it is made. */
long pollfirst(int mode, int how, int fd, long nr, long a, long b, long c, long d, long e, long f);

#endif
