/*
 * test_kwait.c - places to wait in the kernel: no more are taken than there are, who leaves gives his to the first in
 * line, and who stays has to give it up when all others wait for him.
 */
#include "testsched.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { READERS = 6 };

static int fds[READERS][2];
static _Atomic int tries[READERS], order[READERS], ended;

static int32_t line(void)
{
	int64_t ever;

	return kwaitline(&ever);
}

/* As the shim does it: what was called back asks again. */
static void readone(void *arg)
{
	int i = (int)(intptr_t)arg;
	char c;
	long r;

	do {
		atomic_fetch_add(&tries[i], 1);
		r = blockingsyscall(SYS_read, fds[i][0], (long)&c, 1, 0, 0, 0);
	} while (r == -EINTR);
	must(r == 1);
	order[atomic_fetch_add(&ended, 1)] = i;
}

static void open_pipes(int places)
{
	sched.maxkwaits = places;
	ended = 0;
	for (int i = 0; i < READERS; i++) {
		must(pipe(fds[i]) == 0);
		tries[i] = 0;
		spawn(readone, (void *)(intptr_t)i);
		while (atomic_load(&tries[i]) == 0)
			gosched();
	}
}

static void give(int i)
{
	must(write(fds[i][1], "x", 1) == 1);
}

static void places(void)
{
	open_pipes(2);
	while (line() < READERS - 2)
		gosched();
	must(sched.nkblocked == 2);
	for (int i = 0; i < READERS; i++) {
		give(i);
		while (ended <= i)
			gosched();
		must(sched.nkblocked <= 2);
	}
	joinall();
	must(line() == 0 && sched.nkblocked == 0);
}

Test(kwait, no_more_than_there_are, .timeout = 30)
{
	inscheduler(2, READERS, places);
}

static void turns(void)
{
	open_pipes(1);
	/* In the order that has each wait for one behind him. */
	for (int i = READERS; i-- > 0;) {
		give(i);
		while (ended < READERS - i)
			gosched();
		must(order[READERS - 1 - i] == i);
	}
	joinall();
	must(tries[0] > 1 && line() == 0 && sched.nkblocked == 0);
}

Test(kwait, they_go_round, .timeout = 30)
{
	inscheduler(2, READERS, turns);
}

Test(kwait, they_go_round_on_one_processor, .timeout = 30)
{
	inscheduler(1, READERS, turns);
}

/* A wired one's M is of no use to others. */
static void wiredone(void *unused)
{
	char c;

	(void)unused;
	lockOSThread();
	int64_t before, after;
	kwaitline(&before);
	give(0);
	must(blockingsyscall(SYS_read, fds[0][0], (long)&c, 1, 0, 0, 0) == 1);
	kwaitline(&after);
	must(before == after);
	unlockOSThread();
}

static void wired(void)
{
	must(pipe(fds[0]) == 0);
	sched.maxkwaits = 0;
	spawn(wiredone, NULL);
	joinall();
}

Test(kwait, a_wired_one_needs_none, .timeout = 30)
{
	inscheduler(2, 1, wired);
}

/* An interrupt ends the wait in line. */
static G *_Atomic third;

static void interrupted(void *unused)
{
	char c;

	(void)unused;
	atomic_store(&third, getg());
	must(blockingsyscall(SYS_read, fds[0][0], (long)&c, 1, 0, 0, 0) == -EINTR);
	gclearinterrupt();
	atomic_fetch_add(&tally.ended, 1);
}

static void leaves(void)
{
	open_pipes(1);
	tally.ended = 0;
	spawn(interrupted, NULL);
	while (line() < READERS)
		gosched();
	ginterrupt(third);
	while (tally.ended == 0)
		gosched();
	for (int i = 0; i < READERS; i++)
		give(i);
	joinall();
	must(line() == 0 && sched.nkblocked == 0);
}

Test(kwait, an_interrupt_ends_the_wait_in_line, .timeout = 30)
{
	inscheduler(2, READERS + 1, leaves);
}
