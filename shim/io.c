/*
 * io.c - reading and writing by goroutines: sockets, pipes, terminals, files.
 *
 * A call of the program becomes an Op: the system call as the program made it,
 * and the same call in a form that does not wait. One engine (transfer) brings it to its end:
 *
 *   - when waiting in the kernel is the better wait now (maywaitinkernel),
 *     when the descriptor was O_NONBLOCK when last asked, or when it is a regular file, the
 *     program's own call is made, under entersyscall. One system call, as natively.
 *   - else a ticket is taken from the poller, the form that does not wait is tried,
 *     and on EAGAIN the goroutine parks with the ticket.
 *   - writes mostly succeed at once, so they are tried before anything else.
 *
 * Only EAGAIN costs more questions: is it O_NONBLOCK (then the program's own
 * call says so itself), has the socket a time limit. O_NONBLOCK is never set: the
 * flag would be seen by every process that shares the open file.
 *
 * What the kernel does inside one blocking call and we do in several steps:
 * writing all of a buffer, and MSG_WAITALL. Between the steps nothing may be lost
 * that the kernel would have kept: a pending socket error stays for the next
 * call (dead()), SIGPIPE is not raised for a socket that took a part, and whatever ends
 * the wait after a part, the part is the result.
 */
#include "io.h"

#include <sys/ioctl.h>
#include <sys/stat.h>

/* What is left of a vector: `part` of an element, then whole ones. */
typedef struct Rest {
	struct iovec part;
	const struct iovec *v;
	size_t n;
} Rest;

static long native(Op *op)
{
	op->tried = false;
	if (op->conn && op->mode == PollRead) {
		requestwaits(op->conn);
		op->seen = SeenKernel;
	}
	return blockingsyscall(op->nr, op->a[0], op->a[1], op->a[2], op->a[3], op->a[4], op->a[5]);
}

/* A file, or O_NONBLOCK, when last looked at. */
static long unblocked(Op *op)
{
	op->tried = false;
	return quicksyscall(op->nr, op->a[0], op->a[1], op->a[2], op->a[3], op->a[4], op->a[5]);
}

static int readiness(int fd, int mode)
{
	struct pollfd p = {fd, mode == PollRead ? POLLIN : POLLOUT, 0};

	return sysask(SYS_poll, &p, 1, 0) > 0 ? p.revents : 0;
}

static bool issockcall(const Op *op)
{
	return op->nr == SYS_sendto || op->nr == SYS_sendmsg || op->nr == SYS_recvfrom ||
	       op->nr == SYS_recvmsg || op->assocket;
}

/* After a part: has the rest failed already, the error being for the program's next call? (A pipe
 * has no such error: the next part is told, with SIGPIPE.) */
static bool dead(Op *op)
{
	int unread = 0;

	if (!issockcall(op) || !(readiness(op->fd, op->mode) & POLLERR))
		return false;
	return op->mode == PollWrite || sysnow(SYS_ioctl, op->fd, FIONREAD, &unread) < 0 || !unread;
}

static long attempt(Op *op)
{
	op->tried = true;
	if (op->trynr == TryPoll)
		return readiness(op->fd, op->mode) ? unblocked(op) : -EAGAIN;
	long r = sys6(op->trynr, op->t[0], op->t[1], op->t[2], op->t[3], op->t[4], op->t[5]);

	if (r == -EOPNOTSUPP && (op->trynr == SYS_preadv2 || op->trynr == SYS_pwritev2)) {
		fdsethint(op->fd, op->mode == PollRead ? FdPolled : FdReads);
		op->trynr = TryPoll;
		return attempt(op);
	}
	if (r == -ENOTSOCK && op->assocket) {
		/* The descriptor is another one by now: learn anew, next time. */
		fdsethint(op->fd, FdUnknown);
		op->assocket = false;
		op->trynr = TryPoll;
		return attempt(op);
	}
	return r;
}

/*
 * The try said EAGAIN. Parks; true when the call is to be tried again.
 * Else *r is its result.
 */
static bool parked(Op *op, PollTicket *t, long *r)
{
	if (maywaitinkernel()) {
		*r = native(op);
		if (*r == -EAGAIN)
			fdnonblock(op->fd); /* remember it */
		return false;
	}
	if (fdnonblock(op->fd)) {
		*r = unblocked(op);
		return false;
	}
	if (!op->deadline)
		op->deadline = fddeadline(op->fd, op->mode);
	/* Room, but not for this: a datagram for a peer whose queue is full. No event tells when. */
	if (op->mode == PollWrite && readiness(op->fd, PollWrite)) {
		*r = native(op);
		return false;
	}
	if (op->conn && op->mode == PollRead)
		requestwaits(op->conn);
	long w = netpollwait(t, 1, op->deadline, op->mode == PollRead ? WaitIORead : WaitIOWrite,
			     ParkIntr);
	switch (w) {
	case 0:
		op->when = op->conn ? netpollwhen(t, 1) : 0;
		op->seen = op->when ? SeenEvent : SeenReady;
		*r = fdcloses(op->fd) != op->closes ? -EBADF : -EPIPE;
		return *r == -EPIPE && (!op->rest || !dead(op));
	case -ETIMEDOUT: *r = attempt(op); return false;
	case -EINTR: *r = w; return false;
	default: /* no poller for it */ *r = native(op); return false;
	}
}

static bool again(Op *op)
{
	if (!op->deadline)
		op->deadline = fddeadline(op->fd, op->mode);
	/* A time limit makes calls on sockets fail with EINTR after any handler. */
	return intragain(op->deadline == FOREVER ? op->how : op->how & ~Restarts);
}

static long move(Op *op)
{
	PollTicket t;
	long r;

	if (op->how & Cancels)
		testcancel();
	op->tried = false;
	op->closes = fdcloses(op->fd);
	if (op->nowait)
		return sys6(op->nr, op->a[0], op->a[1], op->a[2], op->a[3], op->a[4], op->a[5]);
	if (op->mode == PollWrite && op->trynr >= 0) {
		r = attempt(op);
		if (r > 0 && op->trynr == SYS_pwritev2)
			fdwritten(op->fd);
		if (r != -EAGAIN && r != -EINTR)
			return r;
	}
	for (;;) {
		if (fdhint(op->fd) & FdNonblock || op->trynr == TryFile) {
			r = unblocked(op);
		} else if (op->trynr == TryNever || (op->trynr == TryPoll && maywaitinkernel())) {
			r = native(op);
		} else if (netpollticket(&t, op->fd, op->mode) < 0) {
			r = native(op);
		} else {
			r = attempt(op);
			if (r == -EAGAIN && op->tried && parked(op, &t, &r))
				continue;
		}
		if (r != -EINTR || !again(op))
			return r;
	}
}

long transfer(Op *op)
{
	op->conn = requestconn(op->fd);
	long r = move(op);

	if (op->conn && r > 0 && op->mode == PollRead)
		requestread(op->conn, op->seen, op->when);
	else if (op->conn && r > 0)
		requestwrote(op->conn);
	return r;
}

/* --- parts ------------------------------------------------------------------ */

size_t vectorlen(const struct iovec *v, size_t n)
{
	size_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += v[i].iov_len;
	return sum;
}

static void advance(Rest *rest, size_t n)
{
	if (rest->part.iov_len) {
		rest->part.iov_base = (char *)rest->part.iov_base + n;
		rest->part.iov_len -= n;
		return;
	}
	while (rest->n && n >= rest->v->iov_len) {
		n -= rest->v->iov_len;
		rest->v++;
		rest->n--;
	}
	if (n) {
		rest->part.iov_base = (char *)rest->v->iov_base + n;
		rest->part.iov_len = rest->v->iov_len - n;
		rest->v++;
		rest->n--;
	}
}

/* The flags of a socket call that was made, for its next part. */
static int restflags(const Op *op)
{
	long flags = 0;

	if (op->nr == SYS_sendto || op->nr == SYS_recvfrom)
		flags = op->a[3];
	else if (op->nr == SYS_sendmsg || op->nr == SYS_recvmsg)
		flags = op->a[2];
	if (op->mode == PollWrite)
		flags = (flags | MSG_NOSIGNAL) & ~MSG_FASTOPEN;
	return (int)flags;
}

/* The call for one part more, and its length. */
static size_t restop(Op *step, const Op *op, Rest *rest)
{
	const struct iovec *v = rest->part.iov_len ? &rest->part : rest->v;
	size_t n = rest->part.iov_len ? 1 : rest->n;

	*step = (Op){
	    .fd = op->fd,
	    .mode = op->mode,
	    .trynr = op->trynr,
	    .deadline = op->deadline,
	    .how = Cancels,
	    .rest = true,
	};
	if (issockcall(op)) {
		int flags = restflags(op);

		step->msg = (struct msghdr){.msg_iov = (struct iovec *)v, .msg_iovlen = n};
		step->nr = op->mode == PollRead ? SYS_recvmsg : SYS_sendmsg;
		memcpy(step->a, (long[6]){op->fd, (long)&step->msg, flags}, sizeof step->a);
		memcpy(step->t, (long[6]){op->fd, (long)&step->msg, flags | MSG_DONTWAIT},
		       sizeof step->t);
		if (step->trynr >= 0)
			step->trynr = step->nr;
		return vectorlen(v, n);
	}
	long flags = op->nr == SYS_pwritev2 ? op->a[5] : 0;

	step->nr = SYS_pwritev2;
	memcpy(step->a, (long[6]){op->fd, (long)v, (long)n, -1, 0, flags}, sizeof step->a);
	memcpy(step->t, (long[6]){op->fd, (long)v, (long)n, -1, 0, flags | RWF_NOWAIT},
	       sizeof step->t);
	return vectorlen(v, n);
}

/* The kernel's last word was a part. Was it interrupted by something that the program does not see? */
static bool interrupted(const Op *op)
{
	return fddeadline(op->fd, op->mode) == FOREVER && sigdeliver(false);
}

long finish(Op *op, const struct iovec *v, size_t n, long done)
{
	Rest rest = {.v = v, .n = n};
	Op step;

	if (op->nowait || op->trynr == TryNever || op->trynr == TryFile || fdnonblock(op->fd))
		return done;
	if (!op->tried && !interrupted(op))
		return done;
	for (advance(&rest, (size_t)done); rest.part.iov_len || rest.n;) {
		size_t len = restop(&step, op, &rest);

		if (dead(&step))
			break;
		long r = transfer(&step);

		if (r <= 0)
			break;
		done += r;
		advance(&rest, (size_t)r);
		op->deadline = step.deadline;
		if (!step.tried && (size_t)r < len && !interrupted(&step))
			break;
	}
	return done;
}

long transferall(Op *op, const struct iovec *v, size_t n)
{
	long r = transfer(op);

	if (r <= 0 || (size_t)r == vectorlen(v, n))
		return r;
	return finish(op, v, n, r);
}

long pollfirst(int mode, int how, int fd, long nr, long a, long b, long c, long d, long e, long f)
{
	Op op = {.fd = fd,
		 .mode = mode,
		 .nr = nr,
		 .a = {a, b, c, d, e, f},
		 .trynr = TryPoll,
		 .how = how};

	return transfer(&op);
}

/* --- read and write --------------------------------------------------------- */

/*
 * Fills in how not to wait: v is what the call moves. `flags` is of preadv2, or 0.
 * Zero bytes are for the kernel: for it a datagram or nothing at all.
 */
static void rwop(Op *op, const struct iovec *v, long n, long flags)
{
	bool in = op->mode == PollRead;
	int hint = fdhint(op->fd);

	op->how = Restarts | Cancels;
	op->trynr = TryNever;
	if (n <= 0 || n > IOV_MAX || (v == &op->one && v->iov_len == 0) || flags & RWF_NOWAIT ||
	    (in && hint & FdNonblock))
		return;
	switch (fdkind(op->fd)) {
	case FdFile: op->trynr = TryFile; return;
	case FdPolled: op->trynr = TryPoll; return;
	case FdTerminal: return;
	case FdSocket:
		if (flags || (in && fdhaslowat(op->fd)))
			return;
		op->assocket = true;
		if (v == &op->one) {
			op->trynr = in ? SYS_recvfrom : SYS_sendto;
			memcpy(op->t,
			       (long[6]){op->fd, (long)v->iov_base, (long)v->iov_len, MSG_DONTWAIT},
			       sizeof op->t);
		} else {
			op->trynr = in ? SYS_recvmsg : SYS_sendmsg;
			op->msg =
			    (struct msghdr){.msg_iov = (struct iovec *)v, .msg_iovlen = (size_t)n};
			memcpy(op->t, (long[6]){op->fd, (long)&op->msg, MSG_DONTWAIT},
			       sizeof op->t);
		}
		return;
	default:
		op->trynr = in ? SYS_preadv2 : SYS_pwritev2;
		memcpy(op->t, (long[6]){op->fd, (long)v, n, -1, 0, flags | RWF_NOWAIT},
		       sizeof op->t);
	}
}

/* A file of a length. Timers, signalfds and the like can be sought, too, as far as lseek tells. */
static bool haslength(int fd)
{
	struct stat st;

	return sysnow(SYS_lseek, fd, 0, SEEK_CUR) >= 0 && sysnow(SYS_fstat, fd, &st) == 0 &&
	       (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));
}

/*
 * A short read is the kernel's answer, except that a regular file gives all it
 * has got: then the hint was stale, and the pages that were not in memory are still to be read.
 */
static long readrest(Op *op, const struct iovec *v, size_t n, long r)
{
	Rest rest = {.v = v, .n = n};

	if (r <= 0 || !op->tried || op->trynr != SYS_preadv2 || (size_t)r == vectorlen(v, n) ||
	    !haslength(op->fd))
		return r;
	fdsethint(op->fd, FdFile);
	for (advance(&rest, (size_t)r); rest.part.iov_len || rest.n;) {
		bool part = rest.part.iov_len;
		long more = syswait(Quick | EndsOnSignal, SYS_readv, op->fd,
				    part ? &rest.part : rest.v, part ? 1 : rest.n);
		if (more <= 0)
			break;
		r += more;
		advance(&rest, (size_t)more);
	}
	return r;
}

static long vectored(int mode, long nr, int fd, const struct iovec *v, int n, long offset,
		     long flags)
{
	Op op = {.fd = fd, .mode = mode, .nr = nr, .a = {fd, (long)v, n, offset, 0, flags}};

	rwop(&op, v, n, flags);
	if (mode == PollWrite)
		return transferall(&op, v, n > 0 ? (size_t)n : 0);
	return readrest(&op, v, n > 0 ? (size_t)n : 0, transfer(&op));
}

SHIM(ssize_t, read, int fd, void *buf, size_t n)
{
	if (!getg())
		return real.read(fd, buf, n);
	Op op = {.fd = fd,
		 .mode = PollRead,
		 .nr = SYS_read,
		 .a = {fd, (long)buf, (long)n},
		 .one = {buf, n}};

	rwop(&op, &op.one, 1, 0);
	return callret(readrest(&op, &op.one, 1, transfer(&op)));
}

SHIM(ssize_t, __read_chk, int fd, void *buf, size_t n, size_t len)
{
	if (!getg() || n > len)
		return real.__read_chk(fd, buf, n, len);
	return shim_read(fd, buf, n);
}

SHIM(ssize_t, write, int fd, const void *buf, size_t n)
{
	if (!getg())
		return real.write(fd, buf, n);
	Op op = {.fd = fd,
		 .mode = PollWrite,
		 .nr = SYS_write,
		 .a = {fd, (long)buf, (long)n},
		 .one = {(void *)buf, n}};

	rwop(&op, &op.one, 1, 0);
	return callret(transferall(&op, &op.one, 1));
}

SHIM(ssize_t, readv, int fd, const struct iovec *v, int n)
{
	if (!getg())
		return real.readv(fd, v, n);
	return callret(vectored(PollRead, SYS_readv, fd, v, n, 0, 0));
}

SHIM(ssize_t, writev, int fd, const struct iovec *v, int n)
{
	if (!getg())
		return real.writev(fd, v, n);
	return callret(vectored(PollWrite, SYS_writev, fd, v, n, 0, 0));
}

/* At an offset of its own only files can be read and written; -1 is the file's. */
SHIM(ssize_t, preadv2, int fd, const struct iovec *v, int n, off_t offset, int flags)
{
	if (!getg())
		return real.preadv2(fd, v, n, offset, flags);
	if (offset == -1)
		return callret(vectored(PollRead, SYS_preadv2, fd, v, n, offset, flags));
	return callret(
	    syswait(Quick | Restarts | Cancels, SYS_preadv2, fd, v, n, offset, 0, flags));
}

SHIM(ssize_t, pwritev2, int fd, const struct iovec *v, int n, off_t offset, int flags)
{
	if (!getg())
		return real.pwritev2(fd, v, n, offset, flags);
	if (offset == -1)
		return callret(vectored(PollWrite, SYS_pwritev2, fd, v, n, offset, flags));
	return callret(
	    syswait(Quick | Restarts | Cancels, SYS_pwritev2, fd, v, n, offset, 0, flags));
}

/* eventfd_read and eventfd_write call libc's own read and write. */
SHIM(int, eventfd_read, int fd, eventfd_t *value)
{
	return shim_read(fd, value, sizeof *value) == sizeof *value ? 0 : -1;
}

SHIM(int, eventfd_write, int fd, eventfd_t value)
{
	return shim_write(fd, &value, sizeof value) == sizeof value ? 0 : -1;
}

#define SHIM_BUFAT(ret, name, constness, NR)                                                 \
	SHIM(ret, name, int fd, constness void *buf, size_t n, off_t offset)                 \
	{                                                                                    \
		if (!getg())                                                                 \
			return real.name(fd, buf, n, offset);                                \
		return callret(syswait(Quick | Restarts | Cancels, NR, fd, buf, n, offset)); \
	}
#define SHIM_VECTORAT(ret, name, NR)                                                       \
	SHIM(ret, name, int fd, const struct iovec *v, int n, off_t offset)                \
	{                                                                                  \
		if (!getg())                                                               \
			return real.name(fd, v, n, offset);                                \
		return callret(syswait(Quick | Restarts | Cancels, NR, fd, v, n, offset)); \
	}
SHIM_BUFAT(ssize_t, pread64, , SYS_pread64)
SHIM_BUFAT(ssize_t, pwrite64, const, SYS_pwrite64)

SHIM(ssize_t, __pread64_chk, int fd, void *buf, size_t n, off_t offset, size_t len)
{
	if (!getg() || n > len)
		return real.__pread64_chk(fd, buf, n, offset, len);
	return shim_pread64(fd, buf, n, offset);
}

SHIM_VECTORAT(ssize_t, preadv, SYS_preadv)
SHIM_VECTORAT(ssize_t, pwritev, SYS_pwritev)
