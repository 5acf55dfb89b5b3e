/*
 * test_netpoll_stress.c - waiting for descriptors while events and deadlines come at every moment.
 */
#include "testsched.h"

#include <errno.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

static int fds[2];
static _Atomic int done;

static void pair(int fd[2])
{
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) == 0);
}

/* --- what comes while a goroutine is on its way to park -------------------------------------------- */

static _Atomic bool stop;

/* Fires timers and collects events without pause, so that some come in between. */
static void *hurry(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		int32_t n;
		bool ran;
		G *list;

		for (int i = 0; i < sched.nallp; i++)
			checktimers(sched.allp[i], nanotime(), &ran);
		list = netpollinited() ? netpoll(0, &n) : NULL;
		if (list != NULL)
			injectglist(list, n);
	}
	return NULL;
}

static void shortwaits(void)
{
	pthread_t t;
	int64_t begin = nanotime();
	Rand r = {9};

	pair(fds);
	must(pthread_create(&t, NULL, hurry, NULL) == 0);
	while (nanotime() - begin < 1000 * MS) {
		PollTicket ticket;
		int e, fd;

		/* Its registration reports at once that it is readable. */
		fd = eventfd(1, EFD_NONBLOCK);
		must(netpollticket(&ticket, fd, PollRead) == 0);
		must(netpollwait(&ticket, 1, FOREVER, WaitIORead, 0) == 0);
		close(fd);
		must(netpollticket(&ticket, fds[1], PollRead) == 0);
		e = netpollwait(&ticket, 1, nanotime() + (int64_t)(rnd(&r) % 3000), WaitIORead, 0);
		must(e == -ETIMEDOUT || e == 0);
	}
	atomic_store(&stop, true);
	pthread_join(t, NULL);
}

Test(netpoll_stress, nothing_is_lost_on_the_way_to_park, .timeout = 20)
{
	inscheduler(1, 0, shortwaits);
	inscheduler(2, 0, shortwaits);
}

/* --- all at once ---------------------------------------------------------------------------------- */

enum { Pairs = 40, Messages = 300 };
static int ring[Pairs][2];

/* Passes what comes from its socket on to the next, sometimes waiting with
 * short deadlines or several tickets. */
static void relay(void *arg)
{
	int me = (int)(uintptr_t)arg, in = ring[me][0], out = ring[(me + 1) % Pairs][1];
	Rand r = {(uint64_t)me + 1};

	for (int i = 0; i < Messages; i++) {
		unsigned char c;

		for (;;) {
			PollTicket t[3];
			int n = 1 + (int)(rnd(&r) % 3), e;
			int64_t deadline = FOREVER;

			for (int k = 0; k < n; k++)
				must(netpollticket(&t[k], ring[(me + k * 7) % Pairs][0],
						   PollRead) == 0);
			long got = sys3(0, in, (long)&c, 1);
			if (got == 1)
				break;
			must(got == -EAGAIN);
			if (rnd(&r) % 2 == 0)
				deadline = nanotime() + (int64_t)(rnd(&r) % 100000);
			e = netpollwait(t, n, deadline, WaitIORead, rnd(&r) % 2 ? ParkIntr : 0);
			must(e == 0 || e == -ETIMEDOUT || e == -EINTR);
			if (e == -EINTR)
				gclearinterrupt();
		}
		/* The next one may have ended, and its socket be full. */
		long w = sys3(1, out, (long)&c, 1);
		must(w == 1 || w == -EAGAIN);
		atomic_fetch_add(&done, 1);
	}
}

static void ringtest(void)
{
	for (int i = 0; i < Pairs; i++)
		pair(ring[i]);
	for (int i = 0; i < Pairs; i++)
		spawn(relay, (void *)(uintptr_t)i);
	for (int i = 0; i < 8; i++)
		must(write(ring[i * 5][1], "m", 1) == 1);
	/* Some stop when they have passed on their number of messages, and
	 * with them the ring: it is fed until all are done. */
	while (livegs() > 0) {
		gosleep(nanotime() + 2 * MS, 0);
		for (int i = 0; i < Pairs; i++)
			(void)!write(ring[i][1], "m", 1);
		for (G *gp = atomic_load(&sched.allg); gp != NULL; gp = gp->alllink)
			if (gp != getg() && gp->goid % 5 == 0 && readgstatus(gp) == Gwaiting)
				ginterrupt(gp);
	}
	joinall();
	must(done == Pairs * Messages);
}

Test(netpoll_stress, a_ring_of_sockets_under_stress, .timeout = 60)
{
	inscheduler(1, Pairs, ringtest);
	inscheduler(4, Pairs, ringtest);
}
