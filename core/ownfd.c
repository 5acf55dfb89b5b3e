/*
 * ownfd.c - descriptors that are ours, in a process that is not.
 *
 * The program counts on the numbers that it gets, closes what it finds, and forks at any moment. So ours get
 * high numbers, its calls that close descriptors leave them alone, and a child of fork closes them. For that it has to
 * know of all that it has: the kernel copies descriptors first, and memory afterwards, so while a fork is under
 * way none is opened or closed, and it waits for one that is.
 */
#include "runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>

enum { HighFd = 2000 /* ours are moved there, or below the limit */ };

static _Atomic int own[8]; /* those that are open for a moment, plus 1 */
static _Atomic int forks, changing;

static void closefd(int fd)
{
	if (fd >= 0)
		sys1(SYS_close, fd);
}

int movehigh(int fd)
{
	enum { RlimitNofile = 7, Room = 16, LeastFd = 64 };
	uint64_t lim[2] = {0, 0};
	long want = HighFd, r;

	sys4(SYS_prlimit64, 0, RlimitNofile, 0, (long)lim);
	if (lim[0] < HighFd + Room)
		want = (long)lim[0] - Room;
	for (; want > LeastFd; want /= 2) {
		r = sys3(SYS_fcntl, fd, F_DUPFD_CLOEXEC, want);
		if (r >= 0) {
			closefd(fd);
			return (int)r;
		}
	}
	return fd;
}

/* Not for ever: a fatal signal may have come to the thread that forks. */
static void changebegin(void)
{
	atomic_fetch_add(&changing, 1);
	for (int tries = 0; atomic_load(&forks) && tries < 10000; tries++) {
		atomic_fetch_sub(&changing, 1);
		usleep_os(100);
		atomic_fetch_add(&changing, 1);
	}
}

static void changeend(void)
{
	atomic_fetch_sub(&changing, 1);
}

bool forkstry(void)
{
	atomic_fetch_add(&changing, 1);
	bool may = !atomic_load(&forks);
	if (!may)
		changeend();
	return may;
}

void forksmay(void)
{
	changeend();
}

/*
 * A file that is read within microseconds has the lowest number that is free. Programs that close all there is would close it,
 * get its number for a file of their own, and lose that when the reader closes it. So calls that close are counted:
 * none begins while such a file is open, and none is opened meanwhile.
 */
static _Atomic int closers, readers;

long readfileapart(const char *path, char *buf, size_t n)
{
	long r = -EAGAIN;

	if (!forkstry())
		return r;
	atomic_fetch_add(&readers, 1);
	if (atomic_load(&closers) == 0)
		r = readfile(path, buf, n);
	atomic_fetch_sub(&readers, 1);
	forksmay();
	return r;
}

void closebegin(void)
{
	while (atomic_fetch_add(&closers, 1), unlikely(atomic_load(&readers))) {
		atomic_fetch_sub(&closers, 1);
		usleep_os(50);
	}
}

void closeend(void)
{
	atomic_fetch_sub(&closers, 1);
}

void ownfdmake(void)
{
	changebegin();
}

int ownfdmade(int fd)
{
	if (fd >= 0) {
		fd = movehigh(fd);
		for (unsigned i = 0; i < nelem(own); i++) {
			int none = 0;

			if (atomic_compare_exchange_strong(&own[i], &none, fd + 1))
				break;
		}
	}
	changeend();
	return fd;
}

static void forget(int fd)
{
	for (unsigned i = 0; i < nelem(own); i++) {
		int number = fd + 1;

		if (atomic_compare_exchange_strong(&own[i], &number, 0))
			break;
	}
}

void ownfdclose(int fd)
{
	if (fd < 0)
		return;
	changebegin();
	closefd(fd);
	forget(fd);
	changeend();
}

bool ownfd(int fd)
{
	bool is = netpollowns(fd);

	for (unsigned i = 0; fd >= 0 && i < nelem(own); i++)
		is |= atomic_load_explicit(&own[i], memory_order_relaxed) == fd + 1;
	return is;
}

void ownfdfork(void)
{
	atomic_fetch_add(&forks, 1);
	while (atomic_load(&changing))
		osyield();
}

void ownfdforked(void)
{
	atomic_fetch_sub(&forks, 1);
}

void ownfdforkchild(void)
{
	for (unsigned i = 0; i < nelem(own); i++)
		closefd(atomic_exchange(&own[i], 0) - 1);
	atomic_store(&forks, 0);
	atomic_store(&changing, 0);
	atomic_store(&closers, 0);
	atomic_store(&readers, 0);
}
