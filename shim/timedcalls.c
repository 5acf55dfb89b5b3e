/*
 * timedcalls.c - kernel mode: system calls that can wait.
 *
 * Whether one has waited the kernel does not say. core/timed.c goes by how long it took: what was there at once is a
 * system call, all else a wait for what is said here.
 */
#include "request.h"
#include "timed.h"

#include <time.h>

#define CALL(why, ret, name, params, args) \
	TIMED(ret, name, UNPACKED params)  \
	{                                  \
		CALLING(why);              \
		return real.name args;     \
	}

/* --- requests ------------------------------------------------------------------------ */

/* The connection that fd is; NULL: it is none, or nobody wants to know. */
static inline Conn *connof(int fd)
{
	return unlikely(requestswanted()) && timedcounts() ? requestconn(fd) : NULL;
}

/* The same of calls that read, or write, n bytes of what may be a connection. */
#define READS(fd, ret, name, params, args)             \
	TIMED(ret, name, UNPACKED params)              \
	{                                              \
		Conn *conn = connof(fd);               \
		ret got;                               \
		if (unlikely(conn != NULL))            \
			requestcalls(conn);            \
		{                                      \
			CALLING(WaitIORead);           \
			got = real.name args;          \
		}                                      \
		if (unlikely(conn != NULL) && got > 0) \
			requestcalled(conn);           \
		return got;                            \
	}
#define WRITESAS(why, fd, ret, name, params, args)     \
	TIMED(ret, name, UNPACKED params)              \
	{                                              \
		Conn *conn = connof(fd);               \
		ret got;                               \
		{                                      \
			CALLING(why);                  \
			got = real.name args;          \
		}                                      \
		if (unlikely(conn != NULL) && got > 0) \
			requestwrote(conn);            \
		return got;                            \
	}
#define WRITES(fd, ret, name, params, args) WRITESAS(WaitIOWrite, fd, ret, name, params, args)
/* ... that wait for connections: `tell` says what was found. */
#define FINDS(why, ret, name, params, args, tell)                          \
	TIMED(ret, name, UNPACKED params)                                  \
	{                                                                  \
		bool wanted = unlikely(requestswanted()) && timedcounts(); \
		ret got;                                                   \
		if (wanted)                                                \
			requestwaits(NULL);                                \
		{                                                          \
			CALLING(why);                                      \
			got = real.name args;                              \
		}                                                          \
		if (wanted && got >= 0)                                    \
			tell;                                              \
		return got;                                                \
	}

/* How the caller has waited for so many; of several it isn't known which one has woken it, and the others may be younger. */
static Seen seenof(int found)
{
	return found > 1 ? SeenReady : requestseen();
}

static void polled(const struct pollfd *fds, nfds_t n, int found)
{
	Seen seen = seenof(found);
	for (nfds_t i = 0; i < n; i++) {
		Conn *c = fds[i].revents & POLLIN ? requestconn(fds[i].fd) : NULL;
		if (c)
			requestready(c, found > 1, seen, 0);
	}
}

static void selected(int n, const fd_set *r, int found)
{
	Seen seen = seenof(found);
	for (int fd = 0; r && fd < n && fd < FD_SETSIZE; fd++) {
		Conn *c = FD_ISSET(fd, r) ? requestconn(fd) : NULL;
		if (c)
			requestready(c, found > 1, seen, 0);
	}
}

TIMED(int, epoll_ctl, int epfd, int op, int fd, struct epoll_event *event)
{
	int r = real.epoll_ctl(epfd, op, fd, event);
	if (r == 0 && op != EPOLL_CTL_DEL && connof(fd))
		requestdata(fd, event->data.u64);
	return r;
}

/* --- another file at a number ------------------------------------------------------------ */

static void closes(int fd)
{
	if (unlikely(requestswanted()) && timedcounts())
		requestclosed(fd);
}

TIMED(int, close, int fd)
{
	closes(fd);
	return real.close(fd);
}

TIMED(int, fclose, FILE *f)
{
	if (unlikely(requestswanted()))
		closes(fileno(f));
	return real.fclose(f);
}

static int copied(int to, int by)
{
	if (to >= 0 && to != by && connof(by))
		requestcopied(by);
	return to;
}

static int replaced(int to, int by)
{
	if (to >= 0 && to != by)
		closes(to);
	return copied(to, by);
}

TIMED(int, dup, int fd)
{
	return copied(real.dup(fd), fd);
}

TIMED(int, dup2, int fd, int to)
{
	return replaced(real.dup2(fd, to), fd);
}

TIMED(int, dup3, int fd, int to, int flags)
{
	return replaced(real.dup3(fd, to, flags), fd);
}

/* --- the calls --------------------------------------------------------------------------- */

/* clang-format off */
/* descriptors */
READS(fd, ssize_t, read, (int fd, void *buf, size_t n), (fd, buf, n))
READS(fd, ssize_t, __read_chk, (int fd, void *buf, size_t n, size_t len), (fd, buf, n, len))
READS(fd, ssize_t, readv, (int fd, const struct iovec *v, int n), (fd, v, n))
WRITES(fd, ssize_t, write, (int fd, const void *buf, size_t n), (fd, buf, n))
WRITES(fd, ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n))
CALL(WaitNone, ssize_t, pread64, (int fd, void *buf, size_t n, off_t at), (fd, buf, n, at))
CALL(WaitNone, ssize_t, __pread64_chk, (int fd, void *buf, size_t n, off_t at, size_t len), (fd, buf, n, at, len))
CALL(WaitNone, ssize_t, pwrite64, (int fd, const void *buf, size_t n, off_t at), (fd, buf, n, at))
CALL(WaitNone, ssize_t, preadv, (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at))
CALL(WaitNone, ssize_t, pwritev, (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at))
CALL(WaitNone, ssize_t, preadv2, (int fd, const struct iovec *v, int n, off_t at, int flags), (fd, v, n, at, flags))
CALL(WaitNone, ssize_t, pwritev2, (int fd, const struct iovec *v, int n, off_t at, int flags), (fd, v, n, at, flags))
CALL(WaitIORead, int, eventfd_read, (int fd, eventfd_t *value), (fd, value))
CALL(WaitIOWrite, int, eventfd_write, (int fd, eventfd_t value), (fd, value))

/* sockets */
READS(fd, ssize_t, recv, (int fd, void *buf, size_t n, int flags), (fd, buf, n, flags))
READS(fd, ssize_t, __recv_chk, (int fd, void *buf, size_t n, size_t len, int flags), (fd, buf, n, len, flags))
READS(fd, ssize_t, recvfrom, (int fd, void *buf, size_t n, int flags, __SOCKADDR_ARG addr, socklen_t *len), (fd, buf, n, flags, addr, len))
READS(fd, ssize_t, __recvfrom_chk, (int fd, void *buf, size_t n, size_t size, int flags, __SOCKADDR_ARG addr, socklen_t *len), (fd, buf, n, size, flags, addr, len))
READS(fd, ssize_t, recvmsg, (int fd, struct msghdr *m, int flags), (fd, m, flags))
READS(fd, int, recvmmsg, (int fd, struct mmsghdr *m, unsigned n, int flags, struct timespec *timeout), (fd, m, n, flags, timeout))
WRITES(fd, ssize_t, send, (int fd, const void *buf, size_t n, int flags), (fd, buf, n, flags))
WRITES(fd, ssize_t, sendto, (int fd, const void *buf, size_t n, int flags, __CONST_SOCKADDR_ARG addr, socklen_t len), (fd, buf, n, flags, addr, len))
WRITES(fd, ssize_t, sendmsg, (int fd, const struct msghdr *m, int flags), (fd, m, flags))
WRITES(fd, int, sendmmsg, (int fd, struct mmsghdr *m, unsigned n, int flags), (fd, m, n, flags))
FINDS(WaitIORead, int, accept, (int fd, __SOCKADDR_ARG addr, socklen_t *len), (fd, addr, len), requestaccept(fd, got))
FINDS(WaitIORead, int, accept4, (int fd, __SOCKADDR_ARG addr, socklen_t *len, int flags), (fd, addr, len, flags), requestaccept(fd, got))
CALL(WaitIOWrite, int, connect, (int fd, __CONST_SOCKADDR_ARG addr, socklen_t len), (fd, addr, len))
WRITES(out, ssize_t, sendfile, (int out, int in, off_t *at, size_t n), (out, in, at, n))
WRITESAS(WaitIORead, out, ssize_t, splice, (int in, loff_t *inat, int out, loff_t *outat, size_t n, unsigned flags), (in, inat, out, outat, n, flags))
CALL(WaitIORead, ssize_t, tee, (int in, int out, size_t n, unsigned flags), (in, out, n, flags))
CALL(WaitIOWrite, ssize_t, vmsplice, (int fd, const struct iovec *v, size_t n, unsigned flags), (fd, v, n, flags))
CALL(WaitNone, ssize_t, copy_file_range, (int in, loff_t *inat, int out, loff_t *outat, size_t n, unsigned flags), (in, inat, out, outat, n, flags))

/* readiness */
FINDS(WaitIOPoll, int, poll, (struct pollfd *fds, nfds_t n, int timeout), (fds, n, timeout), polled(fds, n, got))
FINDS(WaitIOPoll, int, __poll_chk, (struct pollfd *fds, nfds_t n, int timeout, size_t len), (fds, n, timeout, len), polled(fds, n, got))
FINDS(WaitIOPoll, int, ppoll, (struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask), (fds, n, timeout, mask), polled(fds, n, got))
FINDS(WaitIOPoll, int, __ppoll_chk, (struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask, size_t len), (fds, n, timeout, mask, len), polled(fds, n, got))
FINDS(WaitIOPoll, int, select, (int n, fd_set *r, fd_set *w, fd_set *e, struct timeval *timeout), (n, r, w, e, timeout), selected(n, r, got))
FINDS(WaitIOPoll, int, pselect, (int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *timeout, const sigset_t *mask), (n, r, w, e, timeout, mask), selected(n, r, got))
FINDS(WaitIOPoll, int, epoll_wait, (int fd, struct epoll_event *events, int n, int timeout), (fd, events, n, timeout), requestevents(events, got, seenof(got), 0))
FINDS(WaitIOPoll, int, epoll_pwait, (int fd, struct epoll_event *events, int n, int timeout, const sigset_t *mask), (fd, events, n, timeout, mask), requestevents(events, got, seenof(got), 0))
FINDS(WaitIOPoll, int, epoll_pwait2, (int fd, struct epoll_event *events, int n, const struct timespec *timeout, const sigset_t *mask), (fd, events, n, timeout, mask), requestevents(events, got, seenof(got), 0))

/* files, children and messages */
CALL(WaitNone, int, flock, (int fd, int how), (fd, how))
CALL(WaitNone, int, lockf, (int fd, int how, off_t n), (fd, how, n))
CALL(WaitNone, int, fsync, (int fd), (fd))
CALL(WaitNone, int, fdatasync, (int fd), (fd))
CALL(WaitNone, int, syncfs, (int fd), (fd))
CALL(WaitNone, int, msync, (void *p, size_t n, int flags), (p, n, flags))
CALL(WaitNone, pid_t, waitpid, (pid_t pid, int *status, int options), (pid, status, options))
CALL(WaitNone, pid_t, wait, (int *status), (status))
CALL(WaitNone, pid_t, wait3, (int *status, int options, struct rusage *usage), (status, options, usage))
CALL(WaitNone, pid_t, wait4, (pid_t pid, int *status, int options, struct rusage *usage), (pid, status, options, usage))
CALL(WaitNone, int, waitid, (idtype_t type, id_t id, siginfo_t *info, int options), (type, id, info, options))
CALL(WaitNone, int, msgsnd, (int id, const void *m, size_t n, int flags), (id, m, n, flags))
CALL(WaitNone, ssize_t, msgrcv, (int id, void *m, size_t n, long type, int flags), (id, m, n, type, flags))
CALL(WaitNone, int, semop, (int id, struct sembuf *ops, size_t n), (id, ops, n))
CALL(WaitNone, int, semtimedop, (int id, struct sembuf *ops, size_t n, const struct timespec *timeout), (id, ops, n, timeout))
CALL(WaitNone, int, mq_send, (mqd_t q, const char *m, size_t n, unsigned priority), (q, m, n, priority))
CALL(WaitNone, int, mq_timedsend, (mqd_t q, const char *m, size_t n, unsigned priority, const struct timespec *abs), (q, m, n, priority, abs))
CALL(WaitNone, ssize_t, mq_receive, (mqd_t q, char *m, size_t n, unsigned *priority), (q, m, n, priority))
CALL(WaitNone, ssize_t, mq_timedreceive, (mqd_t q, char *restrict m, size_t n, unsigned *restrict priority, const struct timespec *restrict abs), (q, m, n, priority, abs))

/* signals */
CALL(WaitSignal, int, sigwait, (const sigset_t *set, int *sig), (set, sig))
CALL(WaitSignal, int, sigwaitinfo, (const sigset_t *set, siginfo_t *info), (set, info))
CALL(WaitSignal, int, sigtimedwait, (const sigset_t *set, siginfo_t *info, const struct timespec *timeout), (set, info, timeout))
CALL(WaitSignal, int, pause, (void), ())
CALL(WaitSignal, int, sigsuspend, (const sigset_t *mask), (mask))
CALL(WaitSignal, int, __sigpause, (int sigormask, int issig), (sigormask, issig))
CALL(WaitSignal, int, sigpause, (int mask), (mask))
CALL(WaitSignal, int, __xpg_sigpause, (int sig), (sig))

/* clang-format on */

/* --- sleep ------------------------------------------------------------------------- */

static int64_t nsof(const struct timespec *ts)
{
	return ts->tv_sec * 1000000000 + ts->tv_nsec;
}

TIMED(int, clock_nanosleep, clockid_t clock, int flags, const struct timespec *wish,
      struct timespec *left)
{
	KEEP_ERRNO;
	bool absolute = flags & TIMER_ABSTIME;
	int64_t begin = absolute ? 0 : timedclock(clock);
	WAITING(WaitSleep);
	int r = real.clock_nanosleep(clock, flags, wish, left);
	if (r == 0)
		timedlate(timedclock(clock) - begin - nsof(wish));
	return r;
}

/* A relative sleep by libc's function, which says by 0 that it was a whole one. */
#define SLEEP(ns, call)                                                        \
	do {                                                                   \
		int64_t begin = timedclock(CLOCK_MONOTONIC);                   \
		WAITING(WaitSleep);                                            \
		__auto_type r = call;                                          \
		if (r == 0)                                                    \
			timedlate(timedclock(CLOCK_MONOTONIC) - begin - (ns)); \
		return r;                                                      \
	} while (0)

TIMED(int, nanosleep, const struct timespec *wish, struct timespec *left)
{
	SLEEP(nsof(wish), real.nanosleep(wish, left));
}

TIMED(int, thrd_sleep, const struct timespec *wish, struct timespec *left)
{
	SLEEP(nsof(wish), real.thrd_sleep(wish, left));
}

TIMED(int, usleep, useconds_t us)
{
	SLEEP(us * 1000l, real.usleep(us));
}

TIMED(unsigned, sleep, unsigned s)
{
	SLEEP(s * 1000000000l, real.sleep(s));
}
