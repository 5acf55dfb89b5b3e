/*
 * socket.c - calls on sockets, and those that move data between descriptors.
 *
 * Sending and receiving have MSG_DONTWAIT, so io.c's engine can try them without
 * waiting. accept, splice and the like cannot be told: the descriptor is polled first,
 * and the call is made under entersyscall, since another may have been quicker and it may
 * wait after all. A blocking connect always waits in the kernel: the only other way would be to
 * make the socket non-blocking.
 */
#include "io.h"
#include "request.h"

/* These never wait, whatever the socket's flags say. */
enum { NeverWaits = MSG_DONTWAIT | MSG_OOB | MSG_ERRQUEUE };

static Op sockop(int mode, long nr, int fd, long a1, long a2, int flagat, long flags)
{
	Op op = {.fd = fd, .mode = mode, .nr = nr, .trynr = nr, .how = Restarts | Cancels};

	memcpy(op.a, (long[6]){fd, a1, a2}, sizeof op.a);
	op.a[flagat] = flags;
	memcpy(op.t, op.a, sizeof op.t);
	op.t[flagat] |= MSG_DONTWAIT;
	fdkind(fd); /* an inherited one may have limits that no setsockopt of ours has set */
	op.nowait = flags & (mode == PollRead ? NeverWaits : MSG_DONTWAIT);
	if (mode == PollRead && (fdhint(fd) & FdNonblock || fdhaslowat(fd)))
		op.trynr = TryNever;
	return op;
}

/*
 * MSG_WAITALL: the kernel waits until all is there, on streams. In steps that
 * works where a step takes bytes and nothing else; not for a peek, nor with control
 * messages. Those wait in the kernel.
 */
static long receive(Op *op, const struct iovec *v, size_t n, int flags, bool plain)
{
	bool all = flags & MSG_WAITALL && op->trynr >= 0;
	int type = 0;
	socklen_t len = sizeof type;

	if (all && (flags & MSG_PEEK || !plain))
		op->trynr = TryNever;
	long r = transfer(op);

	if (r <= 0 || !all || op->nowait || op->trynr < 0 || (size_t)r == vectorlen(v, n))
		return r;
	if (sysnow(SYS_getsockopt, op->fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
	    type != SOCK_STREAM)
		return r;
	return finish(op, v, n, r);
}

SHIM(ssize_t, recvfrom, int fd, void *buf, size_t n, int flags, __SOCKADDR_ARG addr, socklen_t *len)
{
	if (!getg())
		return real.recvfrom(fd, buf, n, flags, addr, len);
	Op op = sockop(PollRead, SYS_recvfrom, fd, (long)buf, (long)n, 3, flags);

	op.a[4] = op.t[4] = (long)addr.__sockaddr__;
	op.a[5] = op.t[5] = (long)len;
	return callret(receive(&op, &(struct iovec){buf, n}, 1, flags, true));
}

SHIM(ssize_t, recv, int fd, void *buf, size_t n, int flags)
{
	if (!getg())
		return real.recv(fd, buf, n, flags);
	Op op = sockop(PollRead, SYS_recvfrom, fd, (long)buf, (long)n, 3, flags);

	return callret(receive(&op, &(struct iovec){buf, n}, 1, flags, true));
}

SHIM(ssize_t, __recv_chk, int fd, void *buf, size_t n, size_t size, int flags)
{
	if (!getg() || n > size)
		return real.__recv_chk(fd, buf, n, size, flags);
	return shim_recv(fd, buf, n, flags);
}

SHIM(ssize_t, __recvfrom_chk, int fd, void *buf, size_t n, size_t size, int flags,
     __SOCKADDR_ARG addr, socklen_t *len)
{
	if (!getg() || n > size)
		return real.__recvfrom_chk(fd, buf, n, size, flags, addr, len);
	return shim_recvfrom(fd, buf, n, flags, addr, len);
}

SHIM(ssize_t, recvmsg, int fd, struct msghdr *msg, int flags)
{
	if (!getg())
		return real.recvmsg(fd, msg, flags);
	Op op = sockop(PollRead, SYS_recvmsg, fd, (long)msg, 0, 2, flags);

	if (!(flags & MSG_WAITALL) || !readable(msg, sizeof *msg))
		return callret(transfer(&op));
	return callret(receive(&op, msg->msg_iov, msg->msg_iovlen, flags,
			       !msg->msg_control && !msg->msg_name));
}

/* Waits for the first message only with MSG_WAITFORONE; otherwise the count and the time are the
 * kernel's business. */
SHIM(int, recvmmsg, int fd, struct mmsghdr *msgs, unsigned n, int flags, struct timespec *timeout)
{
	if (!getg())
		return real.recvmmsg(fd, msgs, n, flags, timeout);
	Op op = sockop(PollRead, SYS_recvmmsg, fd, (long)msgs, n, 3, flags);

	op.a[4] = op.t[4] = (long)timeout;
	if (timeout || (n > 1 && !(flags & MSG_WAITFORONE)))
		op.trynr = TryNever;
	return (int)callret(transfer(&op));
}

static long sendbuf(int fd, const void *buf, size_t n, int flags, const struct sockaddr *to,
		    socklen_t len)
{
	Op op = sockop(PollWrite, SYS_sendto, fd, (long)buf, (long)n, 3, flags);

	op.a[4] = op.t[4] = (long)to;
	op.a[5] = op.t[5] = len;
	return transferall(&op, &(struct iovec){(void *)buf, n}, 1);
}

SHIM(ssize_t, send, int fd, const void *buf, size_t n, int flags)
{
	if (!getg())
		return real.send(fd, buf, n, flags);
	return callret(sendbuf(fd, buf, n, flags, NULL, 0));
}

SHIM(ssize_t, sendto, int fd, const void *buf, size_t n, int flags, __CONST_SOCKADDR_ARG to,
     socklen_t len)
{
	if (!getg())
		return real.sendto(fd, buf, n, flags, to, len);
	return callret(sendbuf(fd, buf, n, flags, to.__sockaddr__, len));
}

SHIM(ssize_t, sendmsg, int fd, const struct msghdr *msg, int flags)
{
	if (!getg())
		return real.sendmsg(fd, msg, flags);
	Op op = sockop(PollWrite, SYS_sendmsg, fd, (long)msg, 0, 2, flags);
	long r = transfer(&op);

	if (r > 0 && (size_t)r != vectorlen(msg->msg_iov, msg->msg_iovlen))
		r = finish(&op, msg->msg_iov, msg->msg_iovlen, r);
	return callret(r);
}

/* The rest of a message of which the kernel took a part. */
static bool finishmessage(int fd, struct mmsghdr *m, int flags)
{
	size_t all = vectorlen(m->msg_hdr.msg_iov, m->msg_hdr.msg_iovlen);
	Op op = sockop(PollWrite, SYS_sendmsg, fd, (long)&m->msg_hdr, 0, 2, flags);

	op.tried = true;
	if (m->msg_len < all)
		m->msg_len =
		    (unsigned)finish(&op, m->msg_hdr.msg_iov, m->msg_hdr.msg_iovlen, m->msg_len);
	return m->msg_len == all;
}

SHIM(int, sendmmsg, int fd, struct mmsghdr *msgs, unsigned n, int flags)
{
	if (!getg())
		return real.sendmmsg(fd, msgs, n, flags);
	unsigned sent = 0;
	long r;

	if (n > IOV_MAX)
		n = IOV_MAX;
	do {
		Op op =
		    sockop(PollWrite, SYS_sendmmsg, fd, (long)(msgs + sent), n - sent, 3, flags);

		r = transfer(&op);
		if (r <= 0)
			break;
		sent += (unsigned)r;
		if (flags & MSG_DONTWAIT || !op.tried || !finishmessage(fd, &msgs[sent - 1], flags))
			break;
	} while (sent < n && !fdnonblock(fd));
	return (int)callret(sent ? (long)sent : r);
}

/* --- calls without a way to say "don't wait" ----------------------------------- */

static bool listening(int fd)
{
	int yes = 0;
	socklen_t len = sizeof yes;

	return sysnow(SYS_getsockopt, fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &len) == 0 && yes;
}

/*
 * Several may be woken for one connection: the call itself may wait, with its P
 * free. What does not listen is told so at once.
 */
static int acceptfd(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	int kind = fdkind(fd);
	long r;

	if (fdhint(fd) & FdNonblock || maywaitinkernel() || !listening(fd))
		r = syswait(fddeadline(fd, PollRead) == FOREVER ? Restarts | Cancels : Cancels,
			    SYS_accept4, fd, addr, len, flags);
	else
		r = pollfirst(PollRead, Restarts | Cancels, fd, SYS_accept4, fd, (long)addr,
			      (long)len, flags, 0, 0);

	if (r >= 0)
		fdmade((int)r, flags & SOCK_NONBLOCK ? kind | FdNonblock : kind);
	if (r >= 0)
		requestaccept(fd, (int)r);
	return (int)callret(r);
}

SHIM(int, accept, int fd, __SOCKADDR_ARG addr, socklen_t *len)
{
	if (!getg())
		return real.accept(fd, addr, len);
	return acceptfd(fd, addr.__sockaddr__, len, 0);
}

SHIM(int, accept4, int fd, __SOCKADDR_ARG addr, socklen_t *len, int flags)
{
	if (!getg())
		return real.accept4(fd, addr, len, flags);
	return acceptfd(fd, addr.__sockaddr__, len, flags);
}

SHIM(int, connect, int fd, __CONST_SOCKADDR_ARG addr, socklen_t len)
{
	if (!getg())
		return real.connect(fd, addr, len);
	fdkind(fd);
	int how = fddeadline(fd, PollWrite) == FOREVER ? Restarts | Cancels : Cancels;

	if (fdhint(fd) & FdNonblock)
		how |= Quick;
	return (int)callret(syswait(how, SYS_connect, fd, addr.__sockaddr__, len));
}

static bool alwaysready(int fd)
{
	return fdkind(fd) == FdFile || fdkind(fd) == FdTerminal;
}

SHIM(ssize_t, sendfile, int out, int in, off_t *offset, size_t n)
{
	if (!getg())
		return real.sendfile(out, in, offset, n);
	return callret(pollfirst(PollWrite, Restarts, out, SYS_sendfile, out, in, (long)offset,
				 (long)n, 0, 0));
}

SHIM(ssize_t, splice, int in, off_t *inoff, int out, off_t *outoff, size_t n, unsigned flags)
{
	if (!getg())
		return real.splice(in, inoff, out, outoff, n, flags);
	if (flags & SPLICE_F_NONBLOCK || n == 0)
		return callret(
		    syswait(Restarts | Cancels, SYS_splice, in, inoff, out, outoff, n, flags));
	bool fill = alwaysready(in);

	return callret(pollfirst(fill ? PollWrite : PollRead, Restarts | Cancels, fill ? out : in,
				 SYS_splice, in, (long)inoff, out, (long)outoff, (long)n, flags));
}

SHIM(ssize_t, tee, int in, int out, size_t n, unsigned flags)
{
	if (!getg())
		return real.tee(in, out, n, flags);
	if (flags & SPLICE_F_NONBLOCK || n == 0)
		return callret(syswait(Restarts | Cancels, SYS_tee, in, out, n, flags));
	return callret(
	    pollfirst(PollRead, Restarts | Cancels, in, SYS_tee, in, out, (long)n, flags, 0, 0));
}

SHIM(ssize_t, vmsplice, int fd, const struct iovec *v, size_t n, unsigned flags)
{
	if (!getg())
		return real.vmsplice(fd, v, n, flags);
	return callret(syswait(Restarts | Cancels, SYS_vmsplice, fd, v, n, flags));
}

SHIM(ssize_t, copy_file_range, int in, off64_t *inoff, int out, off64_t *outoff, size_t n,
     unsigned flags)
{
	if (!getg())
		return real.copy_file_range(in, inoff, out, outoff, n, flags);
	return callret(
	    syswait(Restarts | Cancels, SYS_copy_file_range, in, inoff, out, outoff, n, flags));
}
