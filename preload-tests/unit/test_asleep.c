/*
 * test_asleep.c - all goroutines are asleep: said when it is so, and not when something could still
 * happen. A thread of the test's is the one who ends it.
 */
#include "testsched.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { Sleepers = 20, Looked = 100000 /* us: long enough for sysmon's tick */ };

static _Atomic uint32_t bed, other;
static FILE *said;
static _Atomic int asks; /* how often outsiders were looked for */

static bool no(void)
{
	return false;
}

static bool nobody(bool (*known)(int tid))
{
	/* Threads of the scheduler are known, others not. */
	must(known(atomic_load(&sched.sysmontid)) && !known(1));
	atomic_fetch_add(&asks, 1);
	return false;
}

static bool somebody(bool (*known)(int tid))
{
	(void)known;
	atomic_fetch_add(&asks, 1);
	return true;
}

/* How often it was said. */
static int times(void)
{
	char buf[4096];
	int n = 0;
	ssize_t len = pread(fileno(said), buf, sizeof buf - 1, 0);

	must(len >= 0);
	buf[len] = 0;
	for (char *p = buf; (p = strstr(p, "all goroutines are asleep")) != NULL; p++)
		n++;
	return n;
}

static void setup(void)
{
	said = tmpfile();
	must(said != NULL && dup2(fileno(said), 2) == 2);
	host.handlers = no;
	host.outsiders = nobody;
}

static void sleeper(void *why)
{
	must(semapark(&bed, NULL, NULL, NULL, 0, (WaitReason)(intptr_t)why, FOREVER, 0) == 0);
	atomic_fetch_add(&tally.ended, 1);
}

/* What is to happen before the sleepers are woken: so many looks at outsiders, so much said. */
static int wantasks, wantsaid;
static _Atomic bool up;

static void *ender(void *unused)
{
	(void)unused;
	while (times() < wantsaid || asks < wantasks)
		usleep(1000);
	usleep(Looked);
	must(times() == wantsaid && asks == wantasks);
	while (tally.ended < Sleepers)
		semaready(&bed, Sleepers, NULL, NULL, NULL, 0);
	for (; !up; usleep(1000))
		semaready(&other, 1, NULL, NULL, NULL, 0);
	return NULL;
}

static void *(*end)(void *) = ender;

static void allsleep(WaitReason why, int64_t deadline, int looks, int texts)
{
	pthread_t t;

	wantasks = looks;
	wantsaid = texts;
	tally.ended = 0;
	up = false;
	for (int i = end == ender ? 0 : 1; i < Sleepers; i++)
		spawn(sleeper, (void *)(intptr_t)why);
	must(pthread_create(&t, NULL, end, NULL) == 0);
	semapark(&other, NULL, NULL, NULL, 0, WaitJoin, deadline, 0);
	up = true;
	joinall();
	pthread_join(t, NULL);
}

static void said_once(void)
{
	setup();
	allsleep(WaitCond, FOREVER, 1, 1);
}

Test(asleep, is_said_once, .timeout = 60)
{
	inscheduler(1, Sleepers, said_once);
	inscheduler(4, Sleepers, said_once);
}

static void again(void)
{
	setup();
	allsleep(WaitMutex, FOREVER, 1, 1);
	allsleep(WaitSem, FOREVER, 2, 2);
}

Test(asleep, is_said_again_when_something_ran_meanwhile, .timeout = 60)
{
	inscheduler(2, Sleepers, again);
}

static void witha_deadline(void)
{
	setup();
	allsleep(WaitCond, nanotime() + 10000000000, 0, 0);
}

static void of_unknown_reason(void)
{
	setup();
	allsleep(WaitSignal, FOREVER, 0, 0);
}

static void with_outsiders(void)
{
	setup();
	host.outsiders = somebody;
	allsleep(WaitCond, FOREVER, 1, 0);
	/* That doesn't change, as far as we know. */
	allsleep(WaitCond, FOREVER, 1, 0);
}

static void unwanted(void)
{
	setup();
	debug.deadlock = DeadlockOff;
	allsleep(WaitCond, FOREVER, 0, 0);
}

static int fds[2];

static void hiddenread(void *arg)
{
	char c;

	must(sys3(0 /* read */, fds[0], (long)&c, 1) == 1);
	sleeper(arg);
}

static void *writer(void *arg)
{
	usleep(Looked);
	must(times() == 0 && write(fds[1], "x", 1) == 1);
	return ender(arg);
}

/* One is in the kernel, without our knowledge. */
static void in_the_kernel(void)
{
	setup();
	must(pipe(fds) == 0);
	end = writer;
	spawn(hiddenread, (void *)WaitCond);
	allsleep(WaitCond, FOREVER, 1, 1);
}

Test(asleep, is_not_said_while_something_may_come, .timeout = 60)
{
	inscheduler(2, Sleepers, witha_deadline);
	inscheduler(2, Sleepers, of_unknown_reason);
	inscheduler(2, Sleepers, with_outsiders);
	inscheduler(2, Sleepers, unwanted);
	/* With a P that nobody can take from it, and without one. */
	inscheduler(2, Sleepers, in_the_kernel);
	inscheduler(1, Sleepers, in_the_kernel);
}
