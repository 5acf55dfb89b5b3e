/*
 * test_sysmon.c - the thread that mends what Ms don't see: Ps that are stuck,
 * timers and network while no M looks after them. And it must sleep when
 * there is nothing to mend.
 */
#include "testsched.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int fds[2];
static G *_Atomic other;
static _Atomic int ticks;

static void counttick(void)
{
	atomic_fetch_add(&ticks, 1);
}

/* --- taking Ps ---- */

/* A call that the runtime does not see. */
static void hiddenread(void *arg)
{
	char c;

	(void)arg;
	atomic_fetch_add(&tally.started, 1);
	must(sys3(SYS_read, fds[0], (long)&c, 1) == 1);
	atomic_fetch_add(&tally.ended, 1);
}

static void hidden(void)
{
	must(pipe(fds) == 0);
	spawn(hiddenread, NULL);
	while (tally.started < 1)
		gosched();
	/* With one P this goes on only because it was taken. */
	for (int i = 0; i < 10; i++)
		gosched();
	must(tally.ended == 0);
	must(write(fds[1], "x", 1) == 1);
	joinall();
	must(metricscounted(CountRetaken) > 0);
}

Test(sysmon, a_p_stuck_in_an_unseen_call_is_taken, .timeout = 30)
{
	inscheduler(1, 1, hidden);
}

static void manyhidden(void)
{
	must(pipe(fds) == 0);
	for (int i = 0; i < 10; i++)
		spawn(hiddenread, NULL);
	while (tally.started < 10)
		gosched();
	must(tally.ended == 0);
	must(write(fds[1], "0123456789", 10) == 10);
	joinall();
	must(tally.ended == 10);
	/* All Ps are back. */
	int32_t seen = 0;

	for (M *mp = atomic_load(&sched.allm); mp != NULL; mp = mp->alllink)
		seen += mp->curg != NULL;
	must(seen <= sched.mcount);
	must(setgomaxprocs(1) == 0 && setgomaxprocs(3) == 0);
}

Test(sysmon, many_stuck_ones_lose_theirs, .timeout = 30)
{
	inscheduler(1, 10, manyhidden);
	inscheduler(3, 10, manyhidden);
}

/* Blocks unseen, and computes on without a P when the call has returned. */
PREEMPTIBLE static void hiddenspinner(void *arg)
{
	char c;

	(void)arg;
	atomic_fetch_add(&tally.started, 1);
	sys3(SYS_read, fds[0], (long)&c, 1);
	while (!atomic_load(&tally.stop))
		;
}

static void hiddenwrapper(void *arg)
{
	atomic_store(&other, getg());
	hiddenspinner(arg);
	atomic_fetch_add(&tally.ended, 1);
}

static void reminded(void)
{
	must(pipe(fds) == 0);
	spawn(hiddenwrapper, NULL);
	while (tally.started < 1)
		gosched();
	for (int i = 0; i < 3; i++)
		gosched();
	spawn(yielder, NULL);
	M *mp = acquirem(); /* the only P */

	must(readgstatus(other) == Grunning);
	must(write(fds[1], "x", 1) == 1);
	while (readgstatus(other) != Grunnable)
		usleep_os(100);
	must(other->m == NULL);
	atomic_store(&tally.stop, true);
	releasem(mp);
	joinall();
	must(tally.ended == 2);
}

Test(sysmon, who_computes_on_without_a_p_is_made_to_wait, .timeout = 30)
{
	inscheduler(1, 2, reminded);
}

static void insection(void)
{
	M *mp = acquirem();
	P *pp = getp(mp);

	spawn(yielder, NULL);
	/* Stuck for many ticks, while work waits. */
	for (int i = 0; i < 50; i++) {
		usleep_os(2000);
		must(getp(mp) == pp && pp->m == mp && pp->status == Prunning);
	}
	must(tally.ended == 0);
	releasem(mp);
	joinall();
}

Test(sysmon, in_a_section_no_p_is_taken, .timeout = 30)
{
	inscheduler(1, 1, insection);
}

/* --- sleeping ---- */

/* Until sysmon sleeps deeply; the caller keeps its P. */
static void tillitsleeps(void)
{
	while (sched.sysmonwait == 0)
		usleep_os(100);
	/* It looks once more after it said so. */
	usleep_os(20000);
}

static void sleeps(void)
{
	struct timespec ts = {0, 200 * MS};
	int before;

	host.sysmontick = counttick;
	for (int i = 0; i < 20; i++)
		spawn(yielder, (void *)100);
	joinall();
	/* One computes and nobody waits: nothing to do for it. */
	tillitsleeps();
	before = ticks;
	for (int64_t end = nanotime() + 200 * MS; nanotime() < end;)
		procyield();
	must(ticks == before);
	/* All wait in the kernel. */
	blockingsyscall(SYS_nanosleep, (long)&ts, 0, 0, 0, 0, 0);
	must(ticks == before);
	/* Work that waits for a P ends its sleep. */
	M *mp = acquirem();

	for (int i = 0; i < 3; i++)
		spawn(yielder, NULL);
	sysmonneeded();
	while (ticks == before)
		usleep_os(100);
	releasem(mp);
	joinall();
	tillitsleeps();
	before = ticks;
	wakesysmon();
	while (ticks == before)
		usleep_os(100);
}

Test(sysmon, with_nothing_to_mend_it_sleeps, .timeout = 30)
{
	inscheduler(1, 20, sleeps);
}

static int64_t cputime(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void idle(void)
{
	int64_t before, begin;
	int tick;

	host.sysmontick = counttick;
	for (int i = 0; i < 20; i++)
		spawn(yielder, (void *)100);
	joinall();
	gosleep(nanotime() + 50 * MS, 0);
	before = cputime();
	tick = ticks;
	begin = nanotime();
	gosleep(begin + 500 * MS, 0);
	/* It looks less and less often: not at every tick of 10 ms. */
	must((ticks - tick) * 25 * MS < nanotime() - begin);
	/* Of the processor, not of time: a busy machine makes it no more. */
	must(cputime() - before < 50 * MS);
}

Test(sysmon, an_idle_scheduler_costs_nothing, .timeout = 30)
{
	inscheduler(4, 20, idle);
}

/* --- timers and network ---- */

static void sleeper(void *arg)
{
	(void)arg;
	atomic_store(&other, getg());
	must(gosleep(nanotime() + 20 * MS, 0) == 0);
	must(write(fds[1], "x", 1) == 1);
	atomic_fetch_add(&tally.ended, 1);
}

static void timerduringcall(void)
{
	char c;

	must(pipe(fds) == 0);
	spawn(sleeper, NULL);
	while (other == NULL || readgstatus(other) != Gwaiting)
		gosched();
	/* All Ms are in the kernel; what ends this is the timer. */
	must(blockingsyscall(SYS_read, fds[0], (long)&c, 1, 0, 0, 0) == 1);
	joinall();
}

Test(sysmon, timers_fire_while_all_wait_in_the_kernel, .timeout = 30)
{
	inscheduler(1, 1, timerduringcall);
	inscheduler(2, 1, timerduringcall);
}

/* The M that polls for all gets work, and is stuck in it. sysmon had nothing to look after when it went to sleep. */
static int polled[2];

static void stuckreader(void *unused)
{
	PollTicket t;
	char c;

	(void)unused;
	must(netpollticket(&t, polled[0], PollRead) == 0);
	must(netpollwait(&t, 1, FOREVER, WaitIORead, 0) == 0);
	must(quicksyscall(SYS_read, fds[0], (long)&c, 1, 0, 0, 0) == 1);
	atomic_fetch_add(&tally.ended, 1);
}

static void *feedreader(void *unused)
{
	usleep(50000);
	must(write(polled[1], "x", 1) == 1);
	return unused;
}

static void pollerleaves(void)
{
	pthread_t t;

	must(pipe(fds) == 0 && pipe(polled) == 0);
	while (!sched.sysmonforever)
		usleep(1000);
	spawn(stuckreader, NULL);
	while (!netpollanywaiters() || atomic_load(&sched.lastpoll) != 0)
		usleep(1000);
	must(pthread_create(&t, NULL, feedreader, NULL) == 0);
	must(gosleep(nanotime() + 200 * MS, 0) == 0);
	must(write(fds[1], "x", 1) == 1);
	joinall();
}

Test(sysmon, timers_fire_when_the_poller_has_left, .timeout = 30)
{
	inscheduler(2, 1, pollerleaves);
}

static void timerduringrun(void)
{
	must(pipe(fds) == 0);
	spawn(sleeper, NULL);
	while (other == NULL || readgstatus(other) != Gwaiting)
		gosched();
	M *mp = acquirem(); /* the only P */

	while (readgstatus(other) != Grunnable)
		usleep_os(100);
	releasem(mp);
	joinall();
	must(tally.ended == 1);
}

Test(sysmon, timers_fire_while_one_computes, .timeout = 30)
{
	inscheduler(1, 1, timerduringrun);
}

static void netreader(void *arg)
{
	PollTicket t;

	(void)arg;
	atomic_store(&other, getg());
	must(netpollticket(&t, fds[0], PollRead) == 0);
	must(netpollwait(&t, 1, FOREVER, WaitIORead, 0) == 0);
	atomic_fetch_add(&tally.ended, 1);
}

static void networkduringrun(void)
{
	must(pipe(fds) == 0);
	spawn(netreader, NULL);
	while (other == NULL || readgstatus(other) != Gwaiting)
		gosched();
	M *mp = acquirem(); /* the only P */

	must(write(fds[1], "x", 1) == 1);
	while (readgstatus(other) != Grunnable)
		usleep_os(100);
	releasem(mp);
	joinall();
	must(tally.ended == 1);
}

Test(sysmon, the_network_is_polled_while_one_computes, .timeout = 30)
{
	inscheduler(1, 1, networkduringrun);
}
