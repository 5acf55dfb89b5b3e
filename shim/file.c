/*
 * file.c - calls on files that can take long: opening a FIFO or a device, locks,
 * writing back to the disk.
 *
 * The kernel has no way to say "would wait" for these, so they wait in it, with the
 * P free to be taken. What the descriptor table learns on the way (a new
 * descriptor, O_NONBLOCK set) is told to fd.h's hints.
 */
#include "fd.h"
#include "signal.h"

#include <stdarg.h>
#include <sys/ioctl.h>

#define OPENNEEDSMODE(flags) ((flags)&O_CREAT || ((flags)&O_TMPFILE) == O_TMPFILE)

static mode_t openmode(int flags, va_list ap)
{
	return OPENNEEDSMODE(flags) ? va_arg(ap, mode_t) : 0;
}

/* A new descriptor: whatever had the number before is gone. */
static int opened(long fd)
{
	if (fd >= 0)
		fdmade((int)fd, FdUnknown);
	return (int)callret(fd);
}

SHIM(int, open, const char *path, int flags, ...)
{
	va_list ap;

	va_start(ap, flags);
	mode_t mode = openmode(flags, ap);
	va_end(ap);
	if (!getg())
		return real.open(path, flags, mode);
	return opened(syswait(Quick | Restarts | Cancels, SYS_open, path, flags, mode));
}

SHIM(int, openat, int dir, const char *path, int flags, ...)
{
	va_list ap;

	va_start(ap, flags);
	mode_t mode = openmode(flags, ap);
	va_end(ap);
	if (!getg())
		return real.openat(dir, path, flags, mode);
	return opened(syswait(Quick | Restarts | Cancels, SYS_openat, dir, path, flags, mode));
}

SHIM(int, creat, const char *path, mode_t mode)
{
	if (!getg())
		return real.creat(path, mode);
	return opened(syswait(Quick | Restarts | Cancels, SYS_creat, path, mode));
}

/* Fortified: libc's own say what is wrong, and end the process. */
SHIM(int, __open_2, const char *path, int flags)
{
	if (!getg() || OPENNEEDSMODE(flags))
		return real.__open_2(path, flags);
	return shim_open(path, flags);
}

SHIM(int, __openat_2, int dir, const char *path, int flags)
{
	if (!getg() || OPENNEEDSMODE(flags))
		return real.__openat_2(dir, path, flags);
	return shim_openat(dir, path, flags);
}

/*
 * A lock that is free is taken without waiting, and unlocking never waits: who would have to
 * stand in line for a kernel thread behind those that wait for it.
 */
static long lockwait(int fd, int cmd, void *arg)
{
	long r = syswait(Quick | Restarts | Cancels, SYS_fcntl, fd,
			 cmd == F_SETLKW ? F_SETLK : F_OFD_SETLK, arg);

	if (r != -EAGAIN && r != -EACCES)
		return r;
	return syswait(Restarts | Cancels, SYS_fcntl, fd, cmd, arg);
}

SHIM(int, fcntl, int fd, int cmd, ...)
{
	va_list ap;

	va_start(ap, cmd);
	void *arg = va_arg(ap, void *);
	va_end(ap);
	if (getg() && (cmd == F_SETLKW || cmd == F_OFD_SETLKW))
		return (int)callret(lockwait(fd, cmd, arg));
	int r;
	if (ownercall(fd, cmd, arg, &r))
		return r;
	r = real.fcntl(fd, cmd, arg);
	if (r < 0 || !getg())
		return r;
	if (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC) {
		fdmade(r, fdhint(fd));
		requestcopied(fd);
	} else if (cmd == F_SETFL)
		fdsethint(fd, (fdhint(fd) & FdKind) | ((long)arg & O_NONBLOCK ? FdNonblock : 0));
	return r;
}

/* libc's own calls an fcntl that we do not see. */
SHIM(int, lockf, int fd, int cmd, off_t len)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_CUR, .l_len = len};

	if (!getg() || cmd != F_LOCK)
		return real.lockf(fd, cmd, len);
	return shim_fcntl(fd, F_SETLKW, &lock);
}

/* The kernel's call, waiting: all that is left of the others is how a signal ends it. */
#define SHIM_WAITS(ret, name, how, params, ...)                             \
	SHIM(ret, name, PARAMS params)                                      \
	{                                                                   \
		if (!getg())                                                \
			return real.name(__VA_ARGS__);                      \
		return (ret)callret(syswait(how, SYS_##name, __VA_ARGS__)); \
	}
#define PARAMS(...) __VA_ARGS__

SHIM(int, flock, int fd, int how)
{
	if (!getg())
		return real.flock(fd, how);
	long r = syswait(Quick | Restarts, SYS_flock, fd, how | LOCK_NB);

	if (r == -EWOULDBLOCK && !(how & LOCK_NB))
		r = syswait(Restarts, SYS_flock, fd, how);
	return (int)callret(r);
}

SHIM_WAITS(int, fsync, Restarts | Cancels, (int fd), fd)
SHIM_WAITS(int, fdatasync, Restarts | Cancels, (int fd), fd)
SHIM_WAITS(int, syncfs, Restarts, (int fd), fd)
SHIM_WAITS(int, msync, Restarts | Cancels, (void *p, size_t n, int flags), p, n, flags)
SHIM_WAITS(int, sync_file_range, Restarts | Cancels,
	   (int fd, off64_t offset, off64_t n, unsigned flags), fd, offset, n, flags)
SHIM_WAITS(int, fallocate, Restarts | Cancels, (int fd, int mode, off_t offset, off_t n), fd, mode,
	   offset, n)
SHIM_WAITS(int, open_by_handle_at, Restarts | Cancels, (int dir, struct file_handle *h, int flags),
	   dir, h, flags)

SHIM(void, sync, void)
{
	if (!getg())
		return real.sync();
	syswait(Restarts, SYS_sync, 0);
}

/* Where the file system cannot do it, libc writes the blocks itself. */
SHIM(int, posix_fallocate, int fd, off_t offset, off_t n)
{
	if (!getg())
		return real.posix_fallocate(fd, offset, n);
	long r = syswait(Restarts, SYS_fallocate, fd, 0, offset, n);

	return r == -EOPNOTSUPP ? real.posix_fallocate(fd, offset, n) : (int)-r;
}

SHIM(int, tcdrain, int fd)
{
	if (!getg())
		return real.tcdrain(fd);
	return (int)callret(syswait(Restarts | Cancels, SYS_ioctl, fd, TCSBRK, 1));
}
