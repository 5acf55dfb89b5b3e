/*
 * fd.c - learns what descriptors are (fd.h says what for), and hears of their
 * making where that is cheap: accept, socket, socketpair and pipe know the kind
 * without asking. close.c forgets them.
 */
#include "fd.h"

#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/time.h>

_Atomic uint16_t fdhints[NFDHINT];
_Atomic bool fdtimed, fdlowat;

/* For the end of a pipe that is written: the other one, above how often that had been closed. As stale as a hint may be. */
static _Atomic uint32_t fdreader[NFDHINT];

static long getopt_int(int fd, int opt)
{
	int value = 0;
	socklen_t len = sizeof value;
	long r = sysnow(SYS_getsockopt, fd, SOL_SOCKET, opt, &value, &len);

	return r < 0 ? r : value;
}

static int64_t getopt_time(int fd, int opt)
{
	struct timeval tv = {0};
	socklen_t len = sizeof tv;

	if (sysnow(SYS_getsockopt, fd, SOL_SOCKET, opt, &tv, &len) < 0)
		return 0;
	return tv.tv_sec * 1000000000L + tv.tv_usec * 1000L;
}

/* A socket seen for the first time: another program may have set it up. */
static int learnsocket(int fd)
{
	if (getopt_time(fd, SO_RCVTIMEO) || getopt_time(fd, SO_SNDTIMEO))
		atomic_store_explicit(&fdtimed, true, memory_order_relaxed);
	if (getopt_int(fd, SO_RCVLOWAT) > 1)
		atomic_store_explicit(&fdlowat, true, memory_order_relaxed);
	/* write on SOCK_SEQPACKET ends a record, send does not: not the same there. */
	return getopt_int(fd, SO_TYPE) == SOCK_SEQPACKET ? FdStream : FdSocket;
}

static bool terminal(int fd)
{
	struct termios t;

	return sysnow(SYS_ioctl, fd, TCGETS, &t) == 0;
}

int fdkind(int fd)
{
	int hint = fdhint(fd);
	struct stat st;

	if (hint & FdKind)
		return hint & FdKind;
	if (sysnow(SYS_fstat, fd, &st) < 0)
		return FdFile;
	if (S_ISSOCK(st.st_mode))
		hint = learnsocket(fd);
	else if (S_ISFIFO(st.st_mode) ||
		 !(st.st_mode & S_IFMT)) /* eventfds and the like have no type */
		hint = FdStream;
	else
		hint = S_ISCHR(st.st_mode) && terminal(fd) ? FdTerminal : FdFile;
	fdsethint(fd, hint);
	return hint;
}

bool fdnonblock(int fd)
{
	int kind = fdhint(fd) & FdKind;
	long flags = sysnow(SYS_fcntl, fd, F_GETFL);
	bool nonblock = flags >= 0 && (flags & O_NONBLOCK);

	fdsethint(fd, nonblock ? kind | FdNonblock : kind);
	return nonblock;
}

int64_t fddeadline(int fd, int mode)
{
	if (!atomic_load_explicit(&fdtimed, memory_order_relaxed))
		return FOREVER;
	int64_t ns = getopt_time(fd, mode == PollRead ? SO_RCVTIMEO : SO_SNDTIMEO);

	return ns > 0 ? deadlinein(ns) : FOREVER;
}

bool fdhaslowat(int fd)
{
	return atomic_load_explicit(&fdlowat, memory_order_relaxed) &&
	       getopt_int(fd, SO_RCVLOWAT) > 1;
}

/*
 * --- what the program tells on the way, goroutines only: before the start nobody
 * asks, and the child of vfork shares the table but not the descriptors. ---
 */

/* A socket or pipe that was just made; the flag is the same for all. */
static void made(int fd, int kind, int flags)
{
	_Static_assert(SOCK_NONBLOCK == O_NONBLOCK, "one flag");
	if (fd >= 0 && getg())
		fdmade(fd, flags & O_NONBLOCK ? kind | FdNonblock : kind);
}

static int socketkind(int type)
{
	return (type & 0xf) == SOCK_SEQPACKET ? FdStream : FdSocket;
}

SHIM(int, socket, int domain, int type, int protocol)
{
	int fd = real.socket(domain, type, protocol);

	made(fd, socketkind(type), type);
	return fd;
}

SHIM(int, socketpair, int domain, int type, int protocol, int fds[2])
{
	int r = real.socketpair(domain, type, protocol, fds);

	for (int i = 0; r == 0 && i < 2; i++)
		made(fds[i], socketkind(type), type);
	return r;
}

/* Both numbers below NFDHINT, and the reader's not 0. */
static void madepipe(const int fds[2], int flags)
{
	_Static_assert(NFDHINT == 1 << 16, "16 bits a number");
	for (int i = 0; i < 2; i++)
		made(fds[i], FdStream, flags);
	if (fds[0] < NFDHINT && fds[1] < NFDHINT)
		atomic_store_explicit(&fdreader[fds[1]],
				      (uint32_t)fds[0] << 16 | (uint32_t)fdcloses(fds[0]),
				      memory_order_relaxed);
}

void fdwritten(int fd)
{
	if ((unsigned)fd >= NFDHINT)
		return;
	uint32_t reader = atomic_load_explicit(&fdreader[fd], memory_order_relaxed);

	if (reader >> 16 && fdcloses((int)(reader >> 16)) == (int)(reader & 0xffff))
		netpollhint((int)(reader >> 16));
}

SHIM(int, pipe, int fds[2])
{
	int r = real.pipe(fds);

	if (r == 0)
		madepipe(fds, 0);
	return r;
}

SHIM(int, pipe2, int fds[2], int flags)
{
	int r = real.pipe2(fds, flags);

	if (r == 0)
		madepipe(fds, flags);
	return r;
}

SHIM(int, dup, int fd)
{
	int r = real.dup(fd);

	if (r >= 0 && getg()) {
		fdmade(r, fdhint(fd));
		requestcopied(fd);
	}
	return r;
}

SHIM(int, setsockopt, int fd, int level, int opt, const void *value, socklen_t len)
{
	if (level == SOL_SOCKET) {
		if (opt == SO_RCVTIMEO || opt == SO_SNDTIMEO || opt == SO_RCVTIMEO_NEW ||
		    opt == SO_SNDTIMEO_NEW)
			atomic_store_explicit(&fdtimed, true, memory_order_relaxed);
		else if (opt == SO_RCVLOWAT)
			atomic_store_explicit(&fdlowat, true, memory_order_relaxed);
	}
	return real.setsockopt(fd, level, opt, value, len);
}
