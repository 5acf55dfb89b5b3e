/*
 * test_netpoll.c - waiting for file descriptors.
 */
#include "testsched.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MS 1000000LL

static int fds[2];
static _Atomic int done, interrupted;
static G *_Atomic victim;

static void pair(int fd[2])
{
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) == 0);
}

/* As a shim does it: try, and wait for what the try said was missing. */
static long readone(int fd, void *buf, size_t n)
{
	PollTicket t;
	long r;

	for (;;) {
		r = netpollticket(&t, fd, PollRead);
		if (r < 0)
			return r;
		r = sys3(0 /* read */, fd, (long)buf, (long)n);
		if (r != -EAGAIN)
			return r;
		r = netpollwait(&t, 1, FOREVER, WaitIORead, 0);
		if (r < 0)
			return r;
	}
}

static long writeone(int fd, const void *buf, size_t n)
{
	PollTicket t;
	size_t have = 0;
	long r;

	while (have < n) {
		r = netpollticket(&t, fd, PollWrite);
		if (r < 0)
			return r;
		r = sys3(1 /* write */, fd, (long)((const char *)buf + have), (long)(n - have));
		if (r > 0)
			have += (size_t)r;
		else if (r != -EAGAIN)
			return r;
		else if ((r = netpollwait(&t, 1, FOREVER, WaitIOWrite, 0)) < 0)
			return r;
	}
	return (long)have;
}

static void reader(void *arg)
{
	char c;

	must(readone((int)(uintptr_t)arg, &c, 1) == 1);
	atomic_fetch_add(&done, 1);
}

static void settle(void)
{
	must(gosleep(nanotime() + 3 * MS, 0) == 0);
}

/* Until the reader that was spawned waits. */
static void untilwaiting(void)
{
	while (!netpollanywaiters())
		gosleep(nanotime() + 100000, 0);
}

/* --- one descriptor ----------------------------------------------------------------- */

static void wakes(void)
{
	PollTicket t;
	char c;

	must(!netpollinited());
	pair(fds);
	spawn(reader, (void *)(uintptr_t)fds[0]);
	untilwaiting();
	must(netpollinited() && done == 0);
	must(write(fds[1], "x", 1) == 1);
	joinall();
	must(!netpollanywaiters());

	/* Ready before the wait, after the ticket. */
	must(netpollticket(&t, fds[0], PollRead) == 0);
	must(write(fds[1], "x", 1) == 1);
	must(netpollwait(&t, 1, nanotime() + 10000 * MS, WaitIORead, 0) == 0);
	must(read(fds[0], &c, 1) == 1);

	/* Nothing: the time passes. Spurious wakeups are allowed, not many. */
	int64_t begin = nanotime(), deadline = begin + 20 * MS;
	int r, n = 0;

	do {
		must(netpollticket(&t, fds[0], PollRead) == 0);
		r = netpollwait(&t, 1, deadline, WaitIORead, 0);
		n++;
	} while (r == 0);
	must(r == -ETIMEDOUT && nanotime() >= deadline && n < 5);
	must(netpollwait(&t, 1, 0, WaitIORead, 0) == -ETIMEDOUT);
}

Test(netpoll, data_and_deadlines_end_a_wait, .timeout = 20)
{
	inscheduler(1, 1, wakes);
	inscheduler(4, 1, wakes);
}

/* Is fd on our epoll instance's list? */
static bool registered(int fd)
{
	char path[64], text[4096], wanted[32];
	bool found = false;

	snprintf(wanted, sizeof wanted, "tfd: %8d", fd);
	for (int ep = 0; ep < 1 << 16 && !found; ep++) {
		if (!netpollowns(ep))
			continue;
		snprintf(path, sizeof path, "/proc/self/fdinfo/%d", ep);
		int info = open(path, O_RDONLY);
		ssize_t n = read(info, text, sizeof text - 1);

		close(info);
		text[n > 0 ? n : 0] = 0;
		found = strstr(text, wanted) != NULL;
	}
	return found;
}

/* Who polls is not woken for ever for a descriptor that somebody once waited for. */
static void unwantedevents(void)
{
	int32_t n;
	char c;

	pair(fds);
	for (int round = 0; round < 3; round++) {
		done = 0;
		spawn(reader, (void *)(uintptr_t)fds[0]);
		untilwaiting();
		must(registered(fds[0]));
		must(write(fds[1], "x", 1) == 1);
		joinall();
		int events = 0;

		for (; registered(fds[0]); events++) {
			must(events < 100 && write(fds[1], "x", 1) == 1);
			must(netpoll(0, &n) == NULL && n == 0);
			must(read(fds[0], &c, 1) == 1);
		}
		must(events > 2);
	}
}

Test(netpoll, a_registration_that_nobody_wants_ends, .timeout = 20)
{
	inscheduler(1, 1, unwantedevents);
}

static _Atomic int polls;

static void keepsyielding(void *arg)
{
	(void)arg;
	while (polls < 10)
		gosched();
}

/* Somebody is always in line, so no P gets to look for work. */
static void asksbetween(void)
{
	int64_t last = 0;

	pair(fds);
	spawn(reader, (void *)(uintptr_t)fds[0]);
	untilwaiting();
	spawn(keepsyielding, NULL);
	spawn(keepsyielding, NULL);
	for (polls = 0; polls < 10; gosched()) {
		int64_t now = sched.polledat;
		polls += now != last;
		last = now;
	}
	must(write(fds[1], "x", 1) == 1);
	joinall();
}

Test(netpoll, who_switches_asks_in_between, .timeout = 20)
{
	inscheduler(1, 3, asksbetween);
}

/* Nothing comes from the kernel: who has written says so. */
static void hinted(void *unused)
{
	PollTicket t;

	(void)unused;
	must(netpollticket(&t, fds[0], PollRead) == 0);
	must(netpollwait(&t, 1, FOREVER, WaitIORead, 0) == 0);
	atomic_fetch_add(&done, 1);
}

static void hints(void)
{
	must(pipe(fds) == 0);
	netpollhint(fds[0]); /* nobody waits */
	for (int i = 1; i <= 3; i++) {
		spawn(hinted, NULL);
		while (done < i) {
			netpollhint(fds[0]);
			gosched();
		}
	}
	joinall();
}

Test(netpoll, a_hint_ends_the_wait, .timeout = 20)
{
	inscheduler(1, 2, hints);
}

static void errors(void)
{
	PollTicket t;
	int fd = open("/proc/self/exe", O_RDONLY);

	must(netpollticket(&t, -1, PollRead) == -EBADF);
	must(netpollticket(&t, 1 << 30, PollRead) == -EPERM);
	must(netpollticket(&t, fd, PollRead) == 0);
	must(netpollwait(&t, 1, FOREVER, WaitIORead, 0) == -EPERM);
	close(fd);
	must(netpollticket(&t, fd, PollRead) == 0);
	must(netpollwait(&t, 1, FOREVER, WaitIORead, 0) == -EBADF);
	must(netpollwait(NULL, 0, nanotime() + MS, WaitIOPoll, 0) == -ETIMEDOUT);
}

Test(netpoll, what_cannot_be_polled_is_an_error, .timeout = 20)
{
	inscheduler(2, 0, errors);
}

static void manyreaders(void)
{
	pair(fds);
	for (int i = 0; i < 50; i++)
		spawn(reader, (void *)(uintptr_t)fds[0]);
	settle();
	for (int i = 0; i < 50; i++) {
		must(write(fds[1], "x", 1) == 1);
		if (i % 10 == 0)
			settle();
	}
	joinall();
	must(done == 50);
}

Test(netpoll, many_wait_for_one_descriptor, .timeout = 20)
{
	inscheduler(2, 50, manyreaders);
}

static char big[1 << 20];

static void bigwriter(void *arg)
{
	must(writeone((int)(uintptr_t)arg, big, sizeof(big)) == sizeof(big));
	atomic_fetch_add(&done, 1);
}

static void bothways(void)
{
	static char buf[10000];
	size_t sum = 0;

	pair(fds);
	spawn(bigwriter, (void *)(uintptr_t)fds[1]);
	spawn(reader, (void *)(uintptr_t)fds[1]);
	settle();
	must(done == 0);
	while (sum < sizeof(big)) {
		long r = readone(fds[0], buf, sizeof(buf));

		must(r > 0);
		sum += (size_t)r;
	}
	while (done == 0)
		gosched();
	must(write(fds[0], "x", 1) == 1);
	joinall();
}

Test(netpoll, reading_and_writing_one_descriptor, .timeout = 20)
{
	inscheduler(2, 2, bothways);
}

static void hupwriter(void *arg)
{
	must(writeone((int)(uintptr_t)arg, big, sizeof(big)) < 0);
}

static void hupreader(void *arg)
{
	char c;

	must(readone((int)(uintptr_t)arg, &c, 1) <= 0);
}

static void hangup(void)
{
	signal(SIGPIPE, SIG_IGN);
	pair(fds);
	spawn(hupreader, (void *)(uintptr_t)fds[0]);
	spawn(hupwriter, (void *)(uintptr_t)fds[0]);
	settle();
	must(livegs() == 2);
	close(fds[1]);
	joinall();
}

Test(netpoll, a_hangup_wakes_both_directions, .timeout = 20)
{
	inscheduler(2, 2, hangup);
}

static void intrreader(void *arg)
{
	PollTicket t;

	atomic_store(&victim, getg());
	for (;;) {
		must(netpollticket(&t, (int)(uintptr_t)arg, PollRead) == 0);
		int r = netpollwait(&t, 1, FOREVER, WaitIORead, ParkIntr);

		if (r == -EINTR)
			break;
		must(r == 0);
	}
	gclearinterrupt();
	atomic_fetch_add(&interrupted, 1);
}

static void interrupts(void)
{
	pair(fds);
	for (int i = 0; i < 100; i++) {
		spawn(intrreader, (void *)(uintptr_t)fds[0]);
		if (i % 2 == 0)
			settle();
		while (victim == NULL)
			gosched();
		ginterrupt(victim);
		joinall();
		atomic_store(&victim, NULL);
	}
	must(interrupted == 100);
}

Test(netpoll, an_interrupt_ends_a_wait, .timeout = 20)
{
	inscheduler(2, 1, interrupts);
}

/* --- several ------------------------------------------------------------------------------ */

static void several(void)
{
	enum { N = 100 };
	PollTicket t[N];
	int p[N][2];
	char c;

	for (int i = 0; i < N; i++)
		pair(p[i]);
	for (int round = 0; round < 300; round++) {
		int n = 1 + round % N, hit = round * 7 % n;

		if (round % 3 == 0) {
			must(write(p[hit][1], "x", 1) == 1);
		}
		for (int i = 0; i < n; i++)
			must(netpollticket(&t[i], p[i][0], PollRead) == 0);
		if (round % 3 == 1)
			must(write(p[hit][1], "x", 1) == 1);
		if (round % 3 == 2) {
			int64_t end = nanotime() + 100000;

			int r = netpollwait(t, n, end, WaitIOPoll, ParkIntr);

			must(r == 0 || r == -ETIMEDOUT);
			continue;
		}
		while (read(p[hit][0], &c, 1) != 1) {
			must(netpollwait(t, n, nanotime() + 10000 * MS, WaitIOPoll, 0) == 0);
			for (int i = 0; i < n; i++)
				must(netpollticket(&t[i], p[i][0], PollRead) == 0);
		}
	}
}

Test(netpoll, one_of_many_tickets_ends_the_wait, .timeout = 20)
{
	inscheduler(1, 0, several);
	inscheduler(3, 0, several);
}

static void duplicates(void)
{
	PollTicket t[4];

	pair(fds);
	for (int i = 0; i < 4; i++)
		must(netpollticket(&t[i], fds[0], i % 2 ? PollRead : PollWrite) == 0);
	spawn(reader, (void *)(uintptr_t)fds[0]);
	settle();
	/* It may be registered by now, and have reported that it is writable. */
	must(netpollwait(t, 4, nanotime() + 1000 * MS, WaitIOPoll, 0) == 0);
	must(write(fds[1], "x", 1) == 1);
	joinall();
}

Test(netpoll, one_descriptor_in_several_tickets, .timeout = 20)
{
	inscheduler(2, 1, duplicates);
}

/* --- descriptors that change behind our back ------------------------------------------------- */

/* Who hears of neither the close nor what the number is then asks again after a while: in few rounds. */
enum { Reuses = 200, Unseen = 3 };

static void reuse(void)
{
	for (int i = 0; i < Reuses; i++) {
		int copy = -1;

		pair(fds);
		for (int k = 0; k < 2 && i >= Unseen && i < Reuses / 2; k++)
			netpollmade(fds[k]);
		if (i % 3 == 0) /* the registration lives on with the copy */
			copy = dup(fds[0]);
		spawn(reader, (void *)(uintptr_t)fds[0]);
		if (i % 2 == 0)
			gosleep(nanotime() + 200000, 0);
		must(write(fds[1], "x", 1) == 1);
		joinall();
		close(fds[0]);
		close(fds[1]);
		for (int k = 0; k < 2 && i >= Reuses / 2; k++)
			netpollclosed(fds[k]);
		if (copy >= 0 && i % 2 == 0)
			close(copy);
	}
	must(done == Reuses);
}

Test(netpoll, reused_numbers_never_hang, .timeout = 20)
{
	inscheduler(2, 1, reuse);
}

static void closer(void)
{
	pair(fds);
	spawn(hupreader, (void *)(uintptr_t)fds[0]);
	untilwaiting();
	close(fds[0]);
	netpollclosed(fds[0]);
	joinall();
	netpollclosed(-1);
	netpollclosed(1 << 30);
}

Test(netpoll, closing_ends_the_wait, .timeout = 20)
{
	inscheduler(2, 1, closer);
}

static void ours(void)
{
	int mine = 0;

	pair(fds);
	spawn(reader, (void *)(uintptr_t)fds[0]);
	untilwaiting();
	for (int fd = 0; fd < 70000; fd++)
		if (netpollowns(fd)) {
			mine++;
			must(fd > 60);
			must(fcntl(fd, F_GETFD) == FD_CLOEXEC);
		}
	must(mine == 2 && !netpollowns(-1));
	must(write(fds[1], "x", 1) == 1);
	joinall();
}

Test(netpoll, our_descriptors_are_high_and_close_on_exec, .timeout = 20)
{
	inscheduler(2, 1, ours);
}

/* arg: which of ours the program closes; bit 2: it opens something there. */
static void lostours(int which)
{
	int other[2];

	pair(fds);
	pair(other);
	done = 0;
	spawn(reader, (void *)(uintptr_t)fds[0]);
	untilwaiting();
	for (int fd = 60; fd < 70000; fd++) {
		if (!netpollowns(fd))
			continue;
		/* The epoll instance comes first. */
		if ((which & 1) != 0) {
			if ((which & 4) != 0)
				must(dup2(other[0], fd) == fd);
			else
				close(fd);
		}
		which = (which & 4) | (which & 3) >> 1;
	}
	/* Old waits, new waits, timers, many times. */
	for (int i = 0; i < 20; i++) {
		spawn(reader, (void *)(uintptr_t)other[0]);
		gosleep(nanotime() + MS, 0);
		must(write(other[1], "x", 1) == 1);
	}
	must(write(fds[1], "x", 1) == 1);
	joinall();
	must(done == 21);
}

static void lostepoll(void)
{
	lostours(1);
}

static void lostevent(void)
{
	lostours(2);
}

static void lostboth(void)
{
	lostours(3);
}

static void replacedboth(void)
{
	lostours(3 | 4);
}

Test(netpoll, lives_without_its_epoll_instance, .timeout = 20)
{
	inscheduler(2, 30, lostepoll);
	inscheduler(1, 30, lostepoll);
}

Test(netpoll, lives_without_its_eventfd, .timeout = 20)
{
	inscheduler(2, 30, lostevent);
	inscheduler(1, 30, lostevent);
}

Test(netpoll, lives_without_either, .timeout = 20)
{
	inscheduler(2, 30, lostboth);
	inscheduler(1, 30, lostboth);
}

Test(netpoll, lives_with_its_numbers_taken, .timeout = 20)
{
	inscheduler(2, 30, replacedboth);
	inscheduler(1, 30, replacedboth);
}

/* --- the poller -------------------------------------------------------------------------------- */

static void *breaker(void *arg)
{
	(void)arg;
	usleep(20000);
	netpollBreak();
	return NULL;
}

static void breakonce(void)
{
	pthread_t t;
	int32_t n = -1;
	int64_t begin = nanotime();

	pthread_create(&t, NULL, breaker, NULL);
	cr_assert_null(netpoll(10000 * MS, &n));
	cr_assert_eq(n, 0);
	cr_assert_lt(nanotime() - begin, 5000 * MS);
	pthread_join(t, NULL);
	/* A break before the sleep counts, two are one. */
	netpollBreak();
	netpollBreak();
	begin = nanotime();
	cr_assert_null(netpoll(10000 * MS, &n));
	cr_assert_lt(nanotime() - begin, 5000 * MS);
	begin = nanotime();
	cr_assert_null(netpoll(20 * MS, &n));
	cr_assert_geq(nanotime() - begin, 20 * MS);
	begin = nanotime();
	cr_assert_null(netpoll(50000, &n));
	cr_assert_geq(nanotime() - begin, 50000);
	cr_assert_null(netpoll(0, &n));
}

Test(netpoll, break_ends_the_sleep_without_and_with_epoll, .timeout = 20)
{
	int32_t n;

	breakonce();
	cr_assert_not(netpollinited());
	cr_assert_eq(netpollinit(), 0);
	cr_assert_eq(netpollinit(), 0);
	cr_assert(netpollinited());
	netpoll(1, &n); /* the break that moves a sleeper over */
	breakonce();
}

static void *initlater(void *arg)
{
	(void)arg;
	usleep(20000);
	netpollinit();
	return NULL;
}

Test(netpoll, a_sleeper_moves_to_epoll_when_there_is_one, .timeout = 20)
{
	pthread_t t;
	int32_t n;

	pthread_create(&t, NULL, initlater, NULL);
	cr_assert_null(netpoll(-1, &n));
	cr_assert(netpollinited());
	pthread_join(t, NULL);
}

Test(netpoll, forked_child_forgets, .timeout = 20)
{
	int status, mine[2], k = 0;
	int32_t n;
	pid_t pid;

	cr_assert_eq(netpollinit(), 0);
	for (int fd = 0; fd < 70000 && k < 2; fd++)
		if (netpollowns(fd))
			mine[k++] = fd;
	pid = fork();
	if (pid == 0) {
		netpollforkchild();
		if (netpollinited() || fcntl(mine[0], F_GETFD) >= 0 || fcntl(mine[1], F_GETFD) >= 0)
			_exit(1);
		if (netpollinit() != 0)
			_exit(2);
		netpollBreak();
		netpoll(-1, &n);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	cr_assert_eq(status, 0);
	breakonce();
}
