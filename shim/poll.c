/*
 * poll.c - waiting for many descriptors: poll, select, epoll_wait.
 *
 * When waiting in the kernel is the better wait now, that is one system call with the
 * whole timeout, as natively: an event loop that has nothing else to run costs
 * what it cost before. Else the question is asked with a timeout of zero; if
 * nothing is ready the goroutine takes tickets from the poller, asks again
 * (what became ready between shows now or ends the wait), and parks. An epoll descriptor is itself
 * one that can be polled, so a program's epoll_wait needs one ticket.
 *
 * For many descriptors (more than NTICKET) tickets cost more than a few waits in the kernel do, with
 * the P free to be taken: that is what they do while no more than a few are there. What the
 * poller does not know waits in the kernel always.
 *
 * None of these calls is restarted after a handler, whatever SA_RESTART says
 * (signal(7)), and none returns before its time.
 */
#include "request.h"

#include <limits.h>

enum { NTICKET = 64 };

/*
 * One waiting call. ask(w, timeout) makes the system call with that timeout (NULL: none),
 * waiting in the kernel, or with `now` not waiting. tickets(w) takes a ticket
 * for all that ask asks about, and returns their number, or -1 when the poller cannot serve.
 * It may not need all the room that `most` says.
 */
typedef struct Wait Wait;
struct Wait {
	long (*ask)(Wait *w, struct timespec *timeout, bool now);
	int (*tickets)(Wait *w);
	int most; /* tickets */
	PollTicket *t;
	long a, b, c, d;
	void *sets; /* select: what the program asked for */
	Seen seen;  /* how the caller has waited */
	uint64_t when;
	bool judged; /* the kernel has seen the memory that tickets() reads, or it reads none */
};

/* In the kernel, then, or by tickets? */
static bool inkernel(const Wait *w)
{
	return maywaitinkernel() || (w->most > NTICKET && fewwaitinkernel()) ||
	       (givewayonce() && maywaitinkernel());
}

static long waittill(Wait *w, int64_t deadline)
{
	struct timespec ts;
	bool unserved = w->t == NULL;
	long r;

	for (;;) {
		if (unserved || inkernel(w)) {
			w->seen = SeenKernel;
			r = w->ask(w, timeleft(deadline, &ts), false);
		} else {
			goturn();
			if (!w->judged && (r = w->ask(w, NULL, true)) != 0)
				return r;
			w->judged = true;
			int n = w->tickets(w);

			if (n < 0) {
				unserved = true;
				continue;
			}
			if ((r = w->ask(w, NULL, true)) != 0)
				return r;
			r = netpollwait(w->t, n, deadline, WaitIOPoll, ParkIntr);
			if (r == 0) {
				w->when = requestswanted() ? netpollwhen(w->t, n) : 0;
				w->seen = w->when ? SeenEvent : SeenReady;
				continue;
			}
			if (r == -ETIMEDOUT)
				return w->ask(w, NULL, true);
			if (r != -EINTR) {
				unserved = true;
				continue;
			}
		}
		if (r != -EINTR || !intragain(EndsOnSignal | Cancels))
			return r;
	}
}

/* Also when the caller is cancelled. */
static void giveback(Wait **w)
{
	if ((*w)->t)
		netpollticketsfree((*w)->t, (*w)->most);
}

static noinline_fn long waitmany(Wait *w, int64_t deadline)
{
	__attribute__((cleanup(giveback))) Wait *many = w;

	many->t = netpolltickets(many->most);
	return waittill(many, deadline);
}

static long waitfds(Wait *w, int64_t deadline)
{
	PollTicket t[NTICKET];

	testcancel();
	if (requestswanted())
		requestwaits(NULL);
	if (deadline == 0) {
		goturn();
		return w->ask(w, NULL, true);
	}
	if (w->most > NTICKET)
		return waitmany(w, deadline);
	w->t = t;
	return waittill(w, deadline);
}

/* The same with a signal mask in force meanwhile. */
static long waitmasked(Wait *w, int64_t deadline, const sigset_t *mask)
{
	if (!mask)
		return waitfds(w, deadline);
	if (!readable(mask, 8))
		return -EFAULT;
	sigmaskfor(mask);
	long r = waitfds(w, deadline);

	/* Without any wait, too, the mask lets in what was pending. */
	if (r == 0 && sigpendingopen() && !intragain(EndsOnSignal))
		r = -EINTR;
	sigmaskback();
	return r;
}

/* When a duration ends: 0 now, FOREVER for NULL, -EINVAL, -EFAULT. */
static int64_t endof(const struct timespec *timeout)
{
	if (!timeout)
		return FOREVER;
	if (!readable(timeout, sizeof *timeout))
		return -EFAULT;
	if (!validtime(timeout))
		return -EINVAL;
	int64_t ns = timens(timeout);

	return ns ? deadlinein(ns) : 0;
}

static int64_t endofms(int ms)
{
	return ms < 0 ? FOREVER : ms ? deadlinein(ms * 1000000L) : 0;
}

/* Takes a ticket for fd; what cannot be polled needs none: asking has said that it is ready. */
static bool ticket(Wait *w, int *n, int fd, int mode)
{
	int r;

	if (*n == w->most) /* the program has changed what it asked for */
		return false;
	r = netpollticket(&w->t[*n], fd, mode);
	if (r == 0)
		++*n;
	return r == 0 || r == -EPERM || r == -EBADF;
}

/* --- poll --------------------------------------------------------------------- */

enum {
	Readable = POLLIN | POLLRDNORM | POLLRDBAND | POLLPRI | POLLRDHUP,
	Writable = POLLOUT | POLLWRNORM | POLLWRBAND,
};

static long askpoll(Wait *w, struct timespec *timeout, bool now)
{
	if (now)
		return sysask(SYS_poll, w->a, w->b, 0);
	return sysblock(SYS_ppoll, w->a, w->b, timeout, NULL, 8);
}

static int polltickets(Wait *w)
{
	struct pollfd *p = (struct pollfd *)w->a;
	size_t nfds = (size_t)w->b;
	int n = 0;

	for (size_t i = 0; i < nfds; i++) {
		if (p[i].fd < 0)
			continue;
		if (p[i].events & Writable && !ticket(w, &n, p[i].fd, PollWrite))
			return -1;
		/* Errors and hang-ups come with either. */
		if ((p[i].events & Readable || !(p[i].events & Writable)) &&
		    !ticket(w, &n, p[i].fd, PollRead))
			return -1;
	}
	return n;
}

static Wait pollwait(struct pollfd *fds, nfds_t n)
{
	enum { MOST = 1 << 20 }; /* else it is an error, or for the kernel */

	return (Wait){.ask = askpoll,
		      .tickets = polltickets,
		      .most = n < MOST ? 2 * (int)n : 0,
		      .a = (long)fds,
		      .b = (long)n};
}

static int polled(const Wait *w, long r)
{
	const struct pollfd *p = (const struct pollfd *)w->a;

	for (long i = 0; r > 0 && i < w->b && requestswanted(); i++) {
		Conn *c = p[i].revents & POLLIN ? requestconn(p[i].fd) : NULL;
		if (c)
			requestready(c, r > 1, w->seen, w->when);
	}
	return (int)callret(r);
}

SHIM(int, poll, struct pollfd *fds, nfds_t n, int timeout)
{
	if (!getg())
		return real.poll(fds, n, timeout);
	Wait w = pollwait(fds, n);

	return polled(&w, waitfds(&w, endofms(timeout)));
}

SHIM(int, ppoll, struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	if (!getg())
		return real.ppoll(fds, n, timeout, mask);
	Wait w = pollwait(fds, n);
	int64_t end = endof(timeout);

	return polled(&w, end < 0 ? end : waitmasked(&w, end, mask));
}

SHIM(int, __poll_chk, struct pollfd *fds, nfds_t n, int timeout, size_t len)
{
	if (!getg() || len / sizeof *fds < n)
		return real.__poll_chk(fds, n, timeout, len);
	return shim_poll(fds, n, timeout);
}

SHIM(int, __ppoll_chk, struct pollfd *fds, nfds_t n, const struct timespec *timeout,
     const sigset_t *mask, size_t len)
{
	if (!getg() || len / sizeof *fds < n)
		return real.__ppoll_chk(fds, n, timeout, mask, len);
	return shim_ppoll(fds, n, timeout, mask);
}

/* --- epoll -------------------------------------------------------------------- */

static long askepoll(Wait *w, struct timespec *timeout, bool now)
{
	if (now)
		return sysask(SYS_epoll_wait, w->a, w->b, w->c, 0);
	if (!timeout)
		return sysblock(SYS_epoll_wait, w->a, w->b, w->c, -1);
	if (w->d >= 0) {
		/* As the program asked, the first time. */
		long ms = w->d;

		w->d = -1;
		return sysblock(SYS_epoll_wait, w->a, w->b, w->c, ms);
	}
	long r = sysblock(SYS_epoll_pwait2, w->a, w->b, w->c, timeout, NULL, 8);

	if (r != -ENOSYS)
		return r;
	/* Rounded up: never early. */
	int64_t ms = (timens(timeout) + 999999) / 1000000;

	return sysblock(SYS_epoll_wait, w->a, w->b, w->c, ms < INT_MAX ? ms : INT_MAX);
}

static int epolltickets(Wait *w)
{
	int n = 0;

	return ticket(w, &n, (int)w->a, PollRead) ? n : -1;
}

/* `ms`: a timeout in the kernel's own unit, -1 for none or another one. */
static Wait epollwait(int fd, struct epoll_event *events, int max, int ms)
{
	return (Wait){.ask = askepoll,
		      .tickets = epolltickets,
		      .most = 1,
		      .a = fd,
		      .b = (long)events,
		      .c = max,
		      .d = ms,
		      .judged = true};
}

static int epolled(const Wait *w, long r)
{
	if (r > 0 && requestswanted())
		requestevents((const struct epoll_event *)w->b, r, w->seen, w->when);
	return (int)callret(r);
}

SHIM(int, epoll_wait, int fd, struct epoll_event *events, int max, int timeout)
{
	if (!getg())
		return real.epoll_wait(fd, events, max, timeout);
	Wait w = epollwait(fd, events, max, timeout);

	return epolled(&w, waitfds(&w, endofms(timeout)));
}

SHIM(int, epoll_pwait, int fd, struct epoll_event *events, int max, int timeout,
     const sigset_t *mask)
{
	if (!getg())
		return real.epoll_pwait(fd, events, max, timeout, mask);
	Wait w = epollwait(fd, events, max, timeout);

	return epolled(&w, waitmasked(&w, endofms(timeout), mask));
}

SHIM(int, epoll_pwait2, int fd, struct epoll_event *events, int max, const struct timespec *timeout,
     const sigset_t *mask)
{
	if (!getg())
		return real.epoll_pwait2(fd, events, max, timeout, mask);
	Wait w = epollwait(fd, events, max, -1);
	int64_t end = endof(timeout);

	return epolled(&w, end < 0 ? end : waitmasked(&w, end, mask));
}

/* --- select ------------------------------------------------------------------- */

/*
 * select overwrites its sets, so asking again needs what the program passed: w->sets
 * holds a copy of the three, of as many words each as nfds takes. Sets
 * larger than FD_SETSIZE are somebody's own, and wait in the kernel at once.
 */
enum { SETWORDS = FD_SETSIZE / 64 };
typedef struct Sets {
	fd_set *set[3];
	unsigned long asked[3][SETWORDS];
	size_t words;
} Sets;

static const int setmode[3] = {PollRead, PollWrite, PollRead};

static void resetsets(Sets *s)
{
	for (int i = 0; i < 3; i++)
		if (s->set[i])
			memcpy(s->set[i], s->asked[i], s->words * sizeof(long));
}

static long askselect(Wait *w, struct timespec *timeout, bool now)
{
	struct timespec zero = {0};

	if (w->sets)
		resetsets(w->sets);
	if (now)
		return sysask(SYS_pselect6, w->a, w->b, w->c, w->d, &zero, NULL);
	return sysblock(SYS_pselect6, w->a, w->b, w->c, w->d, timeout, NULL);
}

static int selecttickets(Wait *w)
{
	Sets *s = w->sets;
	int n = 0;

	if (!s)
		return -1;
	for (int i = 0; i < 3; i++) {
		for (int fd = 0; s->set[i] && fd < (int)w->a; fd++) {
			if (s->asked[i][fd / 64] >> (fd % 64) & 1 && !ticket(w, &n, fd, setmode[i]))
				return -1;
		}
	}
	return n;
}

static long waitselect(int nfds, fd_set *r, fd_set *w, fd_set *e, int64_t end, const sigset_t *mask)
{
	Wait wait = {.ask = askselect,
		     .tickets = selecttickets,
		     .a = nfds,
		     .b = (long)r,
		     .c = (long)w,
		     .d = (long)e,
		     .judged = true};
	Sets sets;

	if (nfds < 0)
		return -EINVAL;
	if (nfds <= FD_SETSIZE) {
		sets = (Sets){.set = {r, w, e}, .words = ((size_t)nfds + 63) / 64};
		for (int i = 0; i < 3; i++) {
			if (!sets.set[i] || sets.words == 0)
				continue;
			if (!readable(sets.set[i], sets.words * sizeof(long)))
				return -EFAULT;
			memcpy(sets.asked[i], sets.set[i], sets.words * sizeof(long));
			for (size_t k = 0; k < sets.words; k++)
				wait.most += __builtin_popcountl(sets.asked[i][k]);
		}
		wait.sets = &sets;
	}
	long n = waitmasked(&wait, end, mask);

	for (int fd = 0; n > 0 && r && requestswanted() && fd < nfds && fd < FD_SETSIZE; fd++) {
		Conn *c = FD_ISSET(fd, r) ? requestconn(fd) : NULL;
		if (c)
			requestready(c, n > 1, wait.seen, wait.when);
	}
	/* An error leaves the sets as they were. */
	if (n < 0 && n != -EFAULT && wait.sets)
		resetsets(&sets);
	return n;
}

/* Linux writes the time that is left into the timeout. */
SHIM(int, select, int nfds, fd_set *r, fd_set *w, fd_set *e, struct timeval *timeout)
{
	if (!getg())
		return real.select(nfds, r, w, e, timeout);
	struct timespec ts;
	int64_t end = FOREVER;

	if (timeout) {
		if (timeout->tv_sec < 0 || timeout->tv_usec < 0)
			return (int)callret(-EINVAL);
		/* As glibc: more than a second of microseconds is carried. */
		ts.tv_sec = timeout->tv_sec;
		if (__builtin_add_overflow(ts.tv_sec, timeout->tv_usec / 1000000, &ts.tv_sec))
			ts.tv_sec = INT64_MAX;
		ts.tv_nsec = timeout->tv_usec % 1000000 * 1000;
		end = endof(&ts);
	}
	long n = waitselect(nfds, r, w, e, end, NULL);

	if (timeout && end != FOREVER) {
		ts = (struct timespec){0, 0};
		if (end > 0)
			timeleft(end, &ts);
		timeout->tv_sec = ts.tv_sec;
		timeout->tv_usec = ts.tv_nsec / 1000;
	}
	return (int)callret(n);
}

SHIM(int, pselect, int nfds, fd_set *r, fd_set *w, fd_set *e, const struct timespec *timeout,
     const sigset_t *mask)
{
	if (!getg())
		return real.pselect(nfds, r, w, e, timeout, mask);
	int64_t end = endof(timeout);

	return (int)callret(end < 0 ? end : waitselect(nfds, r, w, e, end, mask));
}
