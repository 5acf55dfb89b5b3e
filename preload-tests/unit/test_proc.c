/*
 * test_proc.c - schedule, findrunnable, park and ready: every goroutine that
 * can run is run, once at a time, by as many Ms as there are Ps, and what it
 * had in registers is there again.
 */
#include "testsched.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Atomic int count, maxseen, running;

/* --- yielding and ending ---- */

static void yields(void)
{
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 100; i++)
			spawn(yielder, (void *)(uintptr_t)(i % 50));
		joinall();
	}
	must(tally.ended == 2000);
	must(sched.nglive == 1 && sched.goidgen == 2001);
	/* Records and stacks are reused. */
	int n = 0;

	for (G *gp = sched.allg; gp != NULL; gp = gp->alllink)
		n++;
	must(n < 100 + 4 * 64 + 1);
}

Test(proc, goroutines_come_and_go_with_one_p, .timeout = 30)
{
	inscheduler(1, 100, yields);
}

Test(proc, goroutines_come_and_go_with_many_ps, .timeout = 30)
{
	inscheduler(4, 100, yields);
}

/* errno and callee-saved registers must follow the goroutine. */
static void stateful(void *arg)
{
	int me = (int)(uintptr_t)arg;
	register uint64_t a = (uint64_t)me * 3, b = (uint64_t)me * 5, c = (uint64_t)me * 7;
	double d = me * 1.5;

	for (int i = 0; i < 300; i++) {
		errno = me;
		__asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+x"(d));
		gosched();
		__asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+x"(d));
		must(errno == me);
		must(a == (uint64_t)me * 3 && b == (uint64_t)me * 5 && c == (uint64_t)me * 7);
		must(d == me * 1.5);
		must(getg()->m->curg == getg());
	}
}

static void states(void)
{
	for (int i = 0; i < 50; i++)
		spawn(stateful, (void *)(uintptr_t)(i + 1));
	joinall();
}

Test(proc, registers_and_errno_follow, .timeout = 30)
{
	inscheduler(1, 50, states);
	inscheduler(4, 50, states);
}

static void child(void *arg)
{
	(void)arg;
	atomic_fetch_add(&count, 1);
}

static void parent(void *arg)
{
	for (int i = 0; i < (int)(uintptr_t)arg; i++)
		spawn(child, NULL);
}

static void fanout(void)
{
	/* More than a run queue holds. */
	for (int i = 0; i < 4; i++)
		spawn(parent, (void *)150);
	joinall();
	must(count == 600);
}

Test(proc, bursts_overflow_into_the_global_queue, .timeout = 60)
{
	inscheduler(1, 700, fanout);
	inscheduler(3, 700, fanout);
}

/* --- parallelism and stealing ---- */

static void busy(void *arg)
{
	int64_t end = nanotime() + (int64_t)(uintptr_t)arg;
	int now = atomic_fetch_add(&running, 1) + 1, max = atomic_load(&maxseen);

	while (now > max && !atomic_compare_exchange_weak(&maxseen, &max, now))
		;
	while (nanotime() < end)
		procyield();
	atomic_fetch_sub(&running, 1);
}

static void parallel(void)
{
	for (int i = 0; i < 40; i++)
		spawn(busy, (void *)(uintptr_t)(5 * MS));
	joinall();
	must(maxseen >= 2);
	must(metricscounted(CountStolen) > 0);
	/* One M a P, and some whose P sysmon took while the kernel ran others. */
	must(sched.mcount <= 3 + 20);
}

Test(proc, work_is_stolen_and_ms_are_few, .timeout = 30)
{
	inscheduler(3, 40, parallel);
}

static void oneatatime(void)
{
	for (int i = 0; i < 10; i++)
		spawn(busy, (void *)(uintptr_t)MS);
	joinall();
	must(maxseen <= 1 + metricscounted(CountRetaken));
}

Test(proc, one_p_runs_one_at_a_time, .timeout = 30)
{
	inscheduler(1, 10, oneatatime);
}

/* --- parking and readying ---- */

/* A goroutine that parks without a queue: only goready finds it. */
static G *_Atomic parked;
static _Atomic int released, lastwake;

static bool publish(G *gp, void *arg)
{
	(void)arg;
	atomic_fetch_add(&released, 1);
	atomic_store(&parked, gp);
	return true;
}

static bool refuse(G *gp, void *arg)
{
	(void)arg;
	/* It has won the claim itself, as gopark demands. */
	must(wakeclaim(gp, WakeReady));
	return false;
}

static void parker(void *arg)
{
	for (int i = 0; i < (int)(uintptr_t)arg; i++) {
		acquirem();
		parkarm(getg(), false);
		atomic_store(&lastwake, (int)gopark(publish, NULL, WaitSem, FOREVER));
		must(getg()->m->locks == 0 && getg()->waitreason == WaitNone);
		atomic_fetch_add(&count, 1);
	}
}

static void parks(void)
{
	spawn(parker, (void *)500);
	for (int i = 0; i < 500; i++) {
		G *gp;

		while ((gp = atomic_exchange(&parked, NULL)) == NULL)
			gosched();
		must(count == i && gp->waitreason == WaitSem);
		/* One claim in two is granted. */
		must(wakeclaim(gp, WakeReady));
		must(!wakeclaim(gp, WakeTimeout) && !wakeclaim(gp, WakeReady));
		goready(gp, i % 2 == 0);
		while (count == i)
			gosched();
		must(lastwake == WakeReady);
	}
	joinall();
	must(released == 500);
}

Test(proc, a_parked_goroutine_is_readied_once, .timeout = 30)
{
	inscheduler(1, 1, parks);
	inscheduler(3, 1, parks);
}

static void parkends(void)
{
	int64_t deadline = nanotime() + 2 * MS;

	acquirem();
	parkarm(getg(), false);
	must(gopark(refuse, NULL, WaitSem, FOREVER) == WakeReady);
	must(getg()->m->locks == 0);
	acquirem();
	parkarm(getg(), false);
	must(gopark(publish, NULL, WaitSem, deadline) == WakeTimeout);
	must(nanotime() >= deadline);
	/* The claim is spent: a late waker has nothing to ready. */
	must(!wakeclaim(getg(), WakeReady));
}

Test(proc, a_park_ends_by_refusal_and_deadline, .timeout = 30)
{
	inscheduler(1, 0, parkends);
	inscheduler(3, 0, parkends);
}

static void toucher(void *arg)
{
	*(int *)arg = ++count;
}

/* Every 61st turn is the global queue's, or two that keep readying each other
 * on one P would starve it. */
static void pingpong(void *arg)
{
	(void)arg;
	while (!atomic_load(&tally.stop)) {
		G *gp;

		acquirem();
		parkarm(getg(), false);
		if ((gp = atomic_exchange(&parked, NULL)) != NULL) {
			must(wakeclaim(gp, WakeReady));
			goready(gp, true);
		}
		gopark(publish, NULL, WaitSem, FOREVER);
	}
	G *gp = atomic_exchange(&parked, NULL);

	if (gp != NULL && wakeclaim(gp, WakeReady))
		goready(gp, true);
}

static void fair(void)
{
	spawn(pingpong, NULL);
	while (parked == NULL)
		gosched();
	spawn(pingpong, NULL);
	for (int i = 0; i < 20; i++)
		gosched(); /* comes back from the global queue only */
	atomic_store(&tally.stop, true);
	joinall();
}

Test(proc, the_global_queue_does_not_starve, .timeout = 30)
{
	inscheduler(1, 2, fair);
}

static void lists(void)
{
	int order[3] = {0, 0, 0};

	M *mp = acquirem();

	for (int i = 0; i < 3; i++)
		spawn(toucher, &order[i]);
	releasem(mp);
	joinall();
	must(order[0] > 0 && order[1] > 0 && order[2] > 0);
	must(order[0] + order[1] + order[2] == 6);
}

Test(proc, what_was_made_in_a_section_runs_after_it, .timeout = 30)
{
	inscheduler(1, 3, lists);
}

/* --- foreign threads ---- */

static void *foreigncreator(void *arg)
{
	(void)arg;
	must(getg() == NULL && acquirem() == NULL);
	releasem(NULL);
	entersyscall();
	exitsyscall();
	gosched();
	for (int i = 0; i < 50; i++) {
		spawn(child, NULL);
		usleep(100);
	}
	return NULL;
}

static void foreign(void)
{
	pthread_t t[3];

	for (int i = 0; i < 3; i++)
		must(pthread_create(&t[i], NULL, foreigncreator, NULL) == 0);
	while (count < 150)
		gosleep(nanotime() + MS, 0);
	for (int i = 0; i < 3; i++) {
		entersyscall();
		pthread_join(t[i], NULL);
		exitsyscall();
	}
	joinall();
}

Test(proc, foreign_threads_start_goroutines, .timeout = 30)
{
	inscheduler(1, 150, foreign);
	inscheduler(3, 150, foreign);
}

/* --- roles ---- */

static void checks(void)
{
	must(goid(getg()) == 1);
	check_p(getg()->m);
	M *mp = acquirem();
	must(acquirem() == mp && mp->locks == 2);
	releasem(mp);
	releasem(mp);
	must(mp->locks == 0);
}

Test(proc, goroutine_one_has_a_p, .timeout = 30)
{
	inscheduler(2, 0, checks);
}

TestThrows(proc, without_a_p_the_check_throws)
{
	static M m;

	check_p(&m);
}

TestThrows(proc, off_g0_the_check_throws)
{
	check_g0();
}
