/*
 * test_syscall.c - system calls: while one waits its P serves others, at once or
 * when it lasts; afterwards the goroutine has a P again or waits for one; and an
 * interrupt ends it or keeps it from beginning.
 */
#include "testsched.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fds[2];
static _Atomic int incalls, maxincalls;
static G *_Atomic reader;

typedef long Call(long nr, long a, long b, long c, long d, long e, long f);

static long seencall(long nr, long a, long b, long c, long d, long e, long f)
{
	long r;

	entersyscall();
	must(getg()->m->oldp != NULL && getp(getg()->m) == NULL);
	r = rawsyscall(nr, a, b, c, d, e, f);
	exitsyscall();
	return r;
}

/* How a goroutine may wait in the kernel. */
static Call *const calls[] = {seencall, quicksyscall, blockingsyscall};

/* --- handing off ----------------------------------------------------------------------- */

static void readone(void *call)
{
	char c;

	atomic_store(&reader, getg());
	atomic_fetch_add(&tally.started, 1);
	must(((Call *)call)(SYS_read, fds[0], (long)&c, 1, 0, 0, 0) == 1);
	check_p(getg()->m);
	must(readgstatus(getg()) == Grunning && getg()->m->curg == getg());
	atomic_fetch_add(&tally.ended, 1);
}

static void handoff(void)
{
	must(pipe(fds) == 0);
	for (size_t k = 0; k < nelem(calls); k++) {
		tally.started = tally.ended = 0;
		for (int i = 0; i < 5; i++)
			spawn(readone, (void *)calls[k]);
		while (tally.started < 5)
			gosched();
		/* None of them can end before this one goes on. */
		must(tally.ended == 0);
		spawn(yielder, (void *)100);
		while (tally.ended == 0)
			gosched();
		must(write(fds[1], "hello", 5) == 5);
		joinall();
		must(tally.ended == 6);
	}
	must(metricscounted(CountRetaken) + metricscounted(CountHandoff) > 0);
	must(sched.nkblocked == 0);
}

Test(syscall, while_one_waits_others_run, .timeout = 30)
{
	inscheduler(1, 6, handoff);
	inscheduler(3, 6, handoff);
}

static void napper(void *us)
{
	for (int i = 0; i < 5; i++) {
		int n, max = atomic_load(&maxincalls);

		entersyscall();
		n = atomic_fetch_add(&incalls, 1) + 1;
		while (n > max && !atomic_compare_exchange_weak(&maxincalls, &max, n))
			;
		usleep_os((uint32_t)(uintptr_t)us);
		atomic_fetch_sub(&incalls, 1);
		exitsyscall();
	}
	atomic_fetch_add(&tally.ended, 1);
}

static void overlap(void)
{
	for (int i = 0; i < 20; i++)
		spawn(napper, (void *)10000);
	spawn(yielder, (void *)10000);
	joinall();
	must(tally.ended == 21);
	must(maxincalls > 1);
}

Test(syscall, calls_of_many_overlap_with_one_p, .timeout = 30)
{
	inscheduler(1, 21, overlap);
	inscheduler(2, 21, overlap);
}

static void atonce(void)
{
	must(pipe(fds) == 0);
	spawn(readone, (void *)blockingsyscall);
	while (tally.started < 1)
		gosched();
	/* Whoever readies work takes the P of such a call. Without a section sysmon
	 * may have taken this one's. */
	while (sched.nkblocked == 0)
		gosched();
	M *mp = acquirem();

	spawn(yielder, NULL);
	while (tally.ended == 0)
		usleep_os(100); /* on the reader's P: this one has its own */
	releasem(mp);
	must(write(fds[1], "x", 1) == 1);
	joinall();
	must(tally.ended == 2);
}

Test(syscall, a_call_that_waits_by_intent_lends_its_p, .timeout = 30)
{
	inscheduler(2, 2, atonce);
}

static void withwork(void)
{
	int64_t before = metricscounted(CountHandoff);

	for (int i = 0; i < 20; i++) {
		spawn(yielder, NULL);
		/* Not sysmon hands the P on: the call is too short for that. */
		blockingsyscall(SYS_getpid, 0, 0, 0, 0, 0, 0);
		joinall();
	}
	must(metricscounted(CountHandoff) >= before + 20);
}

Test(syscall, who_waits_by_intent_gives_its_p_to_queued_work, .timeout = 30)
{
	inscheduler(1, 1, withwork);
}

static void kept(void)
{
	P *pp = getp(getg()->m);
	M *mp = getg()->m;

	for (size_t k = 0; k < nelem(calls); k++)
		for (int i = 0; i < 100; i++) {
			uint32_t tick = pp->syscalltick;

			must(calls[k](SYS_getpid, 0, 0, 0, 0, 0, 0) == getpid());
			must(getg()->m == mp && getp(mp) == pp && pp->status == Prunning);
			must(pp->syscalltick == tick + 1);
			must(mp->locks == 0 && mp->oldp == NULL);
		}
	must(metricscounted(CountHandoff) == 0 && metricscounted(CountRetaken) == 0 &&
	     sched.mcount == 1);
}

Test(syscall, without_other_work_the_p_stays, .timeout = 30)
{
	inscheduler(1, 0, kept);
	inscheduler(4, 0, kept);
}

/* The only P is held by one who doesn't leave it. */
static void queued(void)
{
	must(pipe(fds) == 0);
	for (size_t k = 0; k < nelem(calls); k++) {
		tally.started = tally.ended = 0;
		spawn(readone, (void *)calls[k]);
		while (tally.started < 1 || readgstatus(reader) != Gsyscall)
			gosched();
		M *mp = acquirem();

		must(write(fds[1], "x", 1) == 1);
		while (readgstatus(reader) != Grunnable || sched.runqsize == 0)
			usleep_os(100);
		must(reader->m == NULL && tally.ended == 0);
		releasem(mp);
		joinall();
		must(tally.ended == 1);
	}
}

Test(syscall, who_returns_and_finds_no_p_waits_in_line, .timeout = 30)
{
	inscheduler(1, 1, queued);
}

/* --- results ----------------------------------------------------------------------------- */

static void *foreign(void *arg)
{
	(void)arg;
	must(getg() == NULL);
	entersyscall();
	exitsyscall();
	must(blockingsyscall(SYS_getpid, 0, 0, 0, 0, 0, 0) == getpid());
	must(quicksyscall(SYS_close, -1, 0, 0, 0, 0, 0) == -EBADF);
	must(maywaitinkernel());
	return NULL;
}

static void results(void)
{
	char buf[6] = "";
	pthread_t t;

	must(pipe(fds) == 0);
	for (size_t k = 0; k < nelem(calls); k++) {
		errno = 4711;
		must(calls[k](SYS_read, -1, 0, 0, 0, 0, 0) == -EBADF);
		must(calls[k](SYS_write, fds[1], (long)"abcdef", 6, 0, 0, 0) == 6);
		must(calls[k](SYS_read, fds[0], (long)buf, 6, 0, 0, 0) == 6);
		must(memcmp(buf, "abcdef", 6) == 0);
		/* All six arguments arrive. */
		must(calls[k](SYS_pwrite64, fds[1], (long)buf, 1, 0, 0, 0) == -ESPIPE);
		must(calls[k](SYS_mmap, 0, 4096, 3, 0x22, -1, 1) == -EINVAL);
		must(errno == 4711);
	}
	must(pthread_create(&t, NULL, foreign, NULL) == 0);
	pthread_join(t, NULL);
}

Test(syscall, results_are_the_kernels, .timeout = 30)
{
	inscheduler(2, 0, results);
}

/* --- where to wait ------------------------------------------------------------------------- */

static void netreader(void *arg)
{
	PollTicket t;

	(void)arg;
	must(netpollticket(&t, fds[0], PollRead) == 0);
	must(netpollwait(&t, 1, FOREVER, WaitIORead, 0) == 0);
}

static void choice(void)
{
	int32_t max = sched.maxkblocked;

	must(maywaitinkernel());
	/* Few may. */
	sched.maxkblocked = 0;
	must(!maywaitinkernel());
	sched.maxkblocked = max;
	/* Not while others could run here. */
	M *mp = acquirem();

	spawn(yielder, NULL);
	must(!maywaitinkernel());
	releasem(mp);
	joinall();
	must(maywaitinkernel());
	/* Nor where somebody watches the network, and more woke lately than there are Ps; */
	must(pipe(fds) == 0);
	spawn(netreader, NULL);
	while (!netpollanywaiters())
		gosched();
	must(maywaitinkernel());
	crowdmet(100);
	must(!maywaitinkernel() && !givewayonce());
	/* ... until many waits in a row have left their P idle. */
	for (int i = 0; !maywaitinkernel(); i++) {
		must(i < 100);
		crowdnone();
	}
	must(maywaitinkernel() && givewayonce());
	must(write(fds[1], "x", 1) == 1);
	joinall();
	must(maywaitinkernel());
}

Test(syscall, waiting_in_the_kernel_is_for_the_idle, .timeout = 30)
{
	inscheduler(1, 1, choice);
}

/* --- interrupts ------------------------------------------------------------------------------ */

static void intrread(void *call)
{
	char c;

	atomic_store(&reader, getg());
	for (;;) {
		long r = ((Call *)call)(SYS_read, fds[0], (long)&c, 1, 0, 0, 0);

		must(r == -EINTR);
		if (ginterrupted())
			break;
	}
	gclearinterrupt();
}

static void interrupts(void)
{
	must(pipe(fds) == 0);
	for (int i = 0; i < 100; i++) {
		atomic_store(&reader, NULL);
		spawn(intrread, (void *)calls[1 + i / 2 % 2]);
		while (reader == NULL)
			gosched();
		/* Half of them surely in the call, the others on the way. */
		while (i % 2 == 0 && readgstatus(reader) != Gsyscall)
			gosched();
		ginterrupt(reader);
		joinall();
	}
}

Test(syscall, an_interrupt_ends_a_blocked_call, .timeout = 30)
{
	inscheduler(1, 1, interrupts);
	inscheduler(2, 1, interrupts);
}

static void notbegun(void)
{
	must(pipe(fds) == 0);
	for (int i = 0; i < 50; i++) {
		Call *call = calls[1 + i % 2];

		ginterrupt(getg());
		must(ginterrupted());
		must(call(SYS_write, fds[1], (long)"x", 1, 0, 0, 0) == -EINTR);
		must(call(SYS_write, fds[1], (long)"x", 1, 0, 0, 0) == -EINTR);
		gclearinterrupt();
		must(call(SYS_write, fds[1], (long)"y", 1, 0, 0, 0) == 1);

		char c[2];

		must(read(fds[0], c, 2) == 1 && c[0] == 'y');
	}
}

Test(syscall, who_is_interrupted_before_does_not_begin, .timeout = 30)
{
	inscheduler(2, 0, notbegun);
}
