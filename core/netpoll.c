/*
 * netpoll.c - readiness of file descriptors, on one edge-triggered epoll.
 *
 * The problem: a goroutine that waits for a socket must not hold a kernel
 * thread. The program has blocking descriptors, closes, duplicates and reuses
 * them behind our back, reads one from two threads, and may close ours.
 *
 * The design: who waits for what is in polldesc.c. Here is the kernel's side: our epoll instance,
 * and how it is lost and made anew.
 *
 * One M (or sysmon) at a time sleeps in netpoll. Until somebody waits for a
 * descriptor there is no epoll instance, and the sleep, for timers, is on the
 * futex wakesig. Our two descriptors are kept at high numbers, where programs
 * don't look for theirs; not very high, since fork copies the table up to the
 * highest.
 */
#include "netpoll.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

enum {
	MaxEvents = 128,
	SIGURG = 23,
};
#define BREAKEVENT UINT64_MAX

static struct {
	Lock lock; /* creation of the descriptors */
	/* Written under the lock, read without. */
	_Atomic int epfd; /* -1: none */
	_Atomic int breakfd;
	_Atomic bool broken; /* one of them was closed by the program */

	_Atomic uint32_t wakesig; /* 1: the poller was asked to wake up */
	_Atomic int polltid;      /* who sleeps in the kernel in netpoll */
	_Atomic bool nopwait2;    /* the kernel counts in milliseconds */
} poller = {.lock = LOCK_INIT(RankNetpoll), .epfd = -1, .breakfd = -1};

/* --- our descriptors ------------------------------------------------------------ */

static void closefd(int fd)
{
	if (fd >= 0)
		sys1(SYS_close, fd);
}

/* A new epoll instance with its eventfd: 0 or -errno. */
static int create_locked(void)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = BREAKEVENT};
	long ep, brk, r;

	ep = sys1(SYS_epoll_create1, EPOLL_CLOEXEC);
	if (ep < 0)
		return (int)ep;
	brk = sys2(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (brk < 0) {
		closefd((int)ep);
		return (int)brk;
	}
	ep = movehigh((int)ep);
	brk = movehigh((int)brk);
	/* Level-triggered: a poll that doesn't sleep leaves it for the one that does. */
	r = sys4(SYS_epoll_ctl, ep, EPOLL_CTL_ADD, brk, (long)&ev);
	if (r < 0) {
		closefd((int)ep);
		closefd((int)brk);
		return (int)r;
	}
	atomic_store(&poller.breakfd, (int)brk);
	atomic_store(&poller.broken, false);
	atomic_store(&poller.wakesig, 0);
	atomic_store(&poller.epfd, (int)ep);
	return 0;
}

int netpollinit(void)
{
	M *mp = acquirem();
	bool made = false;
	int r = 0;

	lock(&poller.lock);
	if (atomic_load(&poller.epfd) < 0) {
		r = create_locked();
		made = r == 0;
	}
	unlock(&poller.lock);
	releasem(mp);
	if (made)
		netpollBreak(); /* who sleeps on the futex shall sleep in epoll */
	return r;
}

bool netpollinited(void)
{
	return atomic_load_explicit(&poller.epfd, memory_order_relaxed) >= 0;
}

bool netpollowns(int fd)
{
	return fd >= 0 && (fd == atomic_load_explicit(&poller.epfd, memory_order_relaxed) ||
			   fd == atomic_load_explicit(&poller.breakfd, memory_order_relaxed));
}

/*
 * Are both descriptors what they were? The program may have closed them, and
 * opened something else there: only our instance knows our eventfd.
 */
static bool healthy(void)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = BREAKEVENT};

	return sys4(SYS_epoll_ctl, atomic_load(&poller.epfd), EPOLL_CTL_MOD,
		    atomic_load(&poller.breakfd), (long)&ev) == 0;
}

/* Gets a sleeping poller out of the kernel that our eventfd doesn't reach. */
static void signalpoller(void)
{
	int tid = atomic_load(&poller.polltid);

	if (tid != 0)
		tgkill_os(tid, SIGURG);
}

/*
 * The program has closed or replaced our descriptors: makes new ones, unless
 * another has done so since epfd was read, and claims all waiters, who
 * register again. 0 or -errno; the waiters then find out for themselves.
 */
static int recreate(int epfd, Glist *list)
{
	bool lost = false;
	int r = 0;

	lock(&poller.lock);
	if (atomic_load(&poller.epfd) == epfd) {
		/* The old ones are not closed, since they may be the program's now. */
		r = create_locked();
		if (r < 0)
			atomic_store(&poller.epfd, -1);
		lost = true;
	}
	unlock(&poller.lock);
	if (lost) {
		signalpoller();
		pollwakeall(list);
	}
	return r;
}

int netpollask(int fd)
{
	struct epoll_event ev = {
	    .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET,
	    .data.u64 = (uint64_t)fd,
	};

	for (int tries = 0; tries < 3; tries++) {
		int epfd = atomic_load_explicit(&poller.epfd, memory_order_acquire);
		Glist list = {NULL, &list.head, 0};
		M *mp;
		long r;

		if (unlikely(epfd < 0)) {
			r = netpollinit();
			if (r < 0)
				return (int)r;
			continue;
		}
		r = sys4(SYS_epoll_ctl, epfd, EPOLL_CTL_ADD, fd, (long)&ev);
		if (likely(r == 0 || r == -EEXIST) &&
		    likely(!atomic_load_explicit(&poller.broken, memory_order_relaxed)))
			return 0;
		switch (r) {
		case -EBADF:
			if (sys2(SYS_fcntl, fd, F_GETFD) < 0)
				return -EBADF;
			break; /* not fd, so epfd is bad */
		case -EINVAL:
			if (healthy())
				return -EPERM; /* fd is epfd itself */
			break;
		case -ENOSPC: return -ENOMEM;
		case -ELOOP: /* epoll instances in each other */ return -EPERM;
		case 0:
		case -EEXIST: break;
		default: return (int)r;
		}
		mp = acquirem();
		r = recreate(epfd, &list);
		releasem(mp);
		pollready(list.head);
		if (r < 0)
			return (int)r;
	}
	return -EPERM;
}

/* --- the poller -------------------------------------------------------------------- */

void netpollBreak(void)
{
	uint32_t zero = 0;
	uint64_t one = 1;
	int fd;

	if (!atomic_compare_exchange_strong(&poller.wakesig, &zero, 1))
		return; /* it has been asked already */
	futexwakeup(&poller.wakesig, 1);
	fd = atomic_load(&poller.breakfd);
	if (fd < 0)
		return;
	if (sys3(SYS_write, fd, (long)&one, sizeof(one)) != sizeof(one)) {
		/* Closed behind our back. */
		atomic_store(&poller.broken, true);
		signalpoller();
	}
}

/* Sleeps for timers only, while there is no epoll instance. */
static void sleepwithoutepoll(int64_t delay)
{
	/* Who makes one meanwhile breaks the sleep. */
	if (!netpollinited())
		futexsleep(&poller.wakesig, 0, delay);
	atomic_store(&poller.wakesig, 0);
}

static long epollwait(int epfd, struct epoll_event *ev, int64_t delay)
{
	int64_t ts[2] = {delay / 1000000000, delay % 1000000000};
	int64_t ms = -1;
	long r;

	if (delay > 0 && !atomic_load_explicit(&poller.nopwait2, memory_order_relaxed)) {
		r = sys6(SYS_epoll_pwait2, epfd, (long)ev, MaxEvents, (long)ts, 0, 0);
		if (r != -ENOSYS && r != -EPERM)
			return r;
		atomic_store_explicit(&poller.nopwait2, true, memory_order_relaxed);
	}
	if (delay >= 0) {
		ms = delay / 1000000 + (delay % 1000000 != 0);
		if (ms > INT32_MAX)
			ms = INT32_MAX;
	}
	return sys4(SYS_epoll_wait, epfd, (long)ev, MaxEvents, ms);
}

/* Somebody called netpollBreak. */
static void takebreak(void)
{
	uint64_t count;

	sys3(SYS_read, atomic_load(&poller.breakfd), (long)&count, sizeof(count));
	atomic_store(&poller.wakesig, 0);
}

static int modeof(uint32_t events)
{
	int mode = 0;

	if ((events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP)) != 0)
		mode |= PollRead;
	if ((events & EPOLLOUT) != 0)
		mode |= PollWrite;
	if ((events & (EPOLLHUP | EPOLLERR)) != 0)
		mode |= PollAny;
	return mode;
}

G *netpoll(int64_t delay, int32_t *n)
{
	struct epoll_event ev[MaxEvents];
	Glist list = {NULL, &list.head, 0};
	int epfd = atomic_load_explicit(&poller.epfd, memory_order_acquire);
	long got;

	*n = 0;
	if (epfd < 0) {
		if (delay != 0)
			sleepwithoutepoll(delay);
		return NULL;
	}
	if (delay != 0)
		atomic_store(&poller.polltid, getg() != NULL ? getg()->m->tid : gettid_os());
	if (unlikely(atomic_load(&poller.broken)))
		got = -EBADF;
	else
		got = epollwait(epfd, ev, delay);
	if (delay != 0)
		atomic_store(&poller.polltid, 0);
	if (got == -EBADF || got == -EINVAL) {
		recreate(epfd, &list);
		*n = list.n;
		return list.head;
	}
	if (delay == 0 && getg() != NULL) {
		atomic_store_explicit(&sched.polledat, nanotime(), memory_order_relaxed);
		atomic_store_explicit(&sched.polledticks, ticksnow(), memory_order_relaxed);
	}
	/* Who did not sleep may have come late. */
	uint64_t when = got > 0 ? (ticksnow() & ~1ull) | (delay == 0) : 0;
	for (long i = 0; i < got; i++) {
		uint64_t fd = ev[i].data.u64;

		if (fd == BREAKEVENT) {
			if (delay != 0)
				takebreak();
			continue;
		}
		if (!pollevent(epfd, fd, modeof(ev[i].events), when,
			       &list)) /* an instance of the program's, in our place */
			atomic_store(&poller.broken, true);
	}
	*n = list.n;
	return list.head;
}

/* --- fork ---------------------------------------------------------------------------- */

/* The instance is shared with the parent, and its waiters have vanished. */
void netpollforkchild(void)
{
	if (!netpollinited())
		return;
	if (healthy()) {
		closefd(atomic_load(&poller.epfd));
		closefd(atomic_load(&poller.breakfd));
	}
	atomic_store(&poller.epfd, -1);
	atomic_store(&poller.breakfd, -1);
	atomic_store(&poller.broken, false);
	lockinit(&poller.lock, RankNetpoll);
	atomic_store(&poller.wakesig, 0);
	atomic_store(&poller.polltid, 0);
	polldescforkchild();
}
