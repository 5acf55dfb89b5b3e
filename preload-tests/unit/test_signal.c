/*
 * test_signal.c - a goroutine is told to look whatever it does: waits, runs, is
 * in the kernel or in a queue; what it keeps in the kernel for signals (mask,
 * stack) is its own or its M's, and never another's.
 */
#include "testsched.h"

#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

static G *_Atomic victim;
static _Atomic int interrupts, wrong, calls;
static int word, fds[2];

static void become(void)
{
	atomic_store(&victim, getg());
	atomic_fetch_add(&tally.started, 1);
}

static void counted(void *ctx)
{
	if (getg() != victim || !ginterrupted() || getg()->m->locks != 0)
		atomic_store(&wrong, 1);
	if (ctx == NULL)
		atomic_fetch_add(&calls, 1);
	gclearinterrupt();
	atomic_fetch_add(&interrupts, 1);
}

/* --- the mark ----------------------------------------------------------------------------- */

static void *foreign(void *arg)
{
	(void)arg;
	must(!ginterrupted() && mblock() == NULL && ggetkmask() == 0);
	gsetkmask(~0ull); /* of nobody */
	return NULL;
}

static void mark(void)
{
	pthread_t t;

	must(!ginterrupted());
	ginterrupt(getg());
	must(ginterrupted());
	gosched();
	must(ginterrupted());
	gclearinterrupt();
	must(!ginterrupted());
	must(pthread_create(&t, NULL, foreign, NULL) == 0);
	pthread_join(t, NULL);
}

Test(signal, a_mark_stays_until_it_is_handled, .timeout = 30)
{
	inscheduler(1, 0, mark);
	inscheduler(3, 0, mark);
}

/* --- whatever it does ------------------------------------------------------------------------ */

static void waitsopen(void *arg)
{
	(void)arg;
	become();
	must(semapark(&word, NULL, NULL, NULL, 0, WaitSem, FOREVER, ParkIntr) == -EINTR);
	must(ginterrupted());
	gclearinterrupt();
	/* One mark, one end. */
	must(gosleep(nanotime() + MS, ParkIntr) == 0);
}

static void waitsdeaf(void *arg)
{
	(void)arg;
	become();
	must(semapark(&word, NULL, NULL, NULL, 0, WaitSem, FOREVER, 0) == 0);
	must(ginterrupted());
	/* The next wait that may be ended is, at once. */
	must(semapark(&word, NULL, NULL, NULL, 0, WaitSem, FOREVER, ParkIntr) == -EINTR);
	must(gosleep(nanotime() + 100000 * MS, ParkIntr) == -EINTR);
	gclearinterrupt();
}

static void waiting(void)
{
	for (int i = 0; i < 50; i++) {
		spawn(waitsopen, NULL);
		while (semawaiters(&word) == 0 || readgstatus(victim) != Gwaiting)
			gosched();
		ginterrupt(victim);
		joinall();
		spawn(waitsdeaf, NULL);
		while (semawaiters(&word) == 0 || readgstatus(victim) != Gwaiting)
			gosched();
		ginterrupt(victim);
		gosched();
		must(semawaiters(&word) == 1 && readgstatus(victim) == Gwaiting);
		must(semaready(&word, 1, NULL, NULL, NULL, 0) == 1);
		joinall();
		must(semawaiters(&word) == 0);
	}
}

Test(signal, waits_that_may_be_ended_are, .timeout = 30)
{
	inscheduler(1, 1, waiting);
	inscheduler(3, 1, waiting);
}

static void runs(void *arg)
{
	become();
	spinner(arg);
}

static void running(void)
{
	host.interrupt = counted;
	spawn(runs, NULL);
	while (tally.started < 2)
		gosched();
	for (int i = 0; i < 20; i++) {
		M *mp = acquirem(); /* beside it, on the other P */

		ginterrupt(victim);
		while (interrupts == i)
			usleep_os(100);
		releasem(mp);
		must(interrupts == i + 1);
	}
	atomic_store(&tally.stop, true);
	joinall();
	must(!wrong);
}

Test(signal, who_runs_is_interrupted, .timeout = 30)
{
	inscheduler(2, 1, running);
}

static void queued(void)
{
	host.interrupt = counted;
	spawn(runs, NULL);
	while (tally.started < 2)
		gosched();
	for (int i = 0; i < 5; i++) {
		/* It was taken off its M, and is told when it has one again. */
		while (readgstatus(victim) != Grunnable)
			gosched();
		ginterrupt(victim);
		while (interrupts == i)
			gosched();
	}
	atomic_store(&tally.stop, true);
	joinall();
	must(!wrong);
}

Test(signal, who_is_queued_is_interrupted_when_it_runs, .timeout = 30)
{
	inscheduler(1, 1, queued);
}

static void reads(void *arg)
{
	char c;
	long r;

	(void)arg;
	become();
	do
		r = blockingsyscall(SYS_read, fds[0], (long)&c, 1, 0, 0, 0);
	while (r == -EINTR && !ginterrupted());
	must(r == -EINTR);
	gclearinterrupt();
	/* And no later one. */
	must(blockingsyscall(SYS_getpid, 0, 0, 0, 0, 0, 0) == getpid());
}

static void incall(void)
{
	must(pipe(fds) == 0);
	for (int i = 0; i < 50; i++) {
		atomic_store(&victim, NULL);
		spawn(reads, NULL);
		while (victim == NULL || readgstatus(victim) != Gsyscall)
			gosched();
		ginterrupt(victim);
		joinall();
	}
}

Test(signal, who_is_in_the_kernel_is_interrupted, .timeout = 30)
{
	inscheduler(1, 1, incall);
	inscheduler(3, 1, incall);
}

static bool (*realunsafepc)(uintptr_t pc);

/* Everything is unsafe: no switch; but the program's own handlers may run. */
static bool everywhere(uintptr_t pc)
{
	(void)pc;
	return true;
}

static void unsafe(void)
{
	host.unsafepc = everywhere;
	running();
	must(metricscounted(CountPreempted) == 0);
}

Test(signal, handlers_run_where_nothing_may_switch, .timeout = 30)
{
	inscheduler(2, 1, unsafe);
}

static _Atomic int refusals;

static bool refusing(uintptr_t pc)
{
	if (realunsafepc(pc))
		return true;
	return atomic_fetch_add(&refusals, 1) % 8 != 7;
}

static void ownfirst(void)
{
	realunsafepc = host.owntext;
	host.owntext = refusing;
	running();
	must(refusals >= 8 * 20);
}

Test(signal, what_was_refused_is_asked_for_again, .timeout = 30)
{
	inscheduler(2, 1, ownfirst);
}

static void whois(void *arg)
{
	M *mp;

	(void)arg;
	become();
	must(gcurrent(getg()));
	mp = acquirem();
	must(!gcurrent(getg())); /* in a section nothing may be done to it */
	releasem(mp);
	while (!atomic_load(&tally.stop))
		gosched();
}

static void current(void)
{
	spawn(whois, NULL);
	while (tally.started < 1)
		gosched();
	must(gcurrent(getg()));
	must(!gcurrent(getg()->m->g0));
	while (readgstatus(victim) != Grunnable)
		gosched();
	M *mp = acquirem();

	must(readgstatus(victim) != Grunnable || !gcurrent(victim));
	releasem(mp);
	atomic_store(&tally.stop, true);
	joinall();
}

Test(signal, one_goroutine_of_an_m_is_current, .timeout = 30)
{
	inscheduler(1, 1, current);
}

/* --- mask and stack --------------------------------------------------------------------------- */

/* What the kernel blocks on the caller's thread. */
static uint64_t blocked(void)
{
	uint64_t set = 0;

	must(sys4(SYS_rt_sigprocmask, SIG_BLOCK, 0, (long)&set, 8) == 0);
	return set;
}

#define BIT(sig) (1ull << ((sig)-1))

static void masked(void *arg)
{
	uint64_t mine = BIT(SIGUSR1) << (uintptr_t)arg % 3;

	must(ggetkmask() == sched.basekmask && blocked() == sched.basekmask);
	gsetkmask(mine);
	for (int i = 0; i < 100; i++) {
		M *mp = acquirem();

		must(ggetkmask() == mine && blocked() == mine && mp->kmask == mine);
		releasem(mp);
		switch (i % 4) {
		case 0: gosched(); break;
		case 1:
			if (i % 16 == 1)
				gosleep(nanotime() + 10000, 0);
			break;
		case 2: blockingsyscall(SYS_sched_yield, 0, 0, 0, 0, 0, 0); break;
		}
	}
	if ((uintptr_t)arg % 2 == 0)
		gsetkmask(sched.basekmask);
	/* The others end with theirs: whoever comes next must not have it. */
	atomic_fetch_add(&tally.ended, 1);
}

static void unmasked(void *arg)
{
	(void)arg;
	for (int i = 0; i < 100; i++) {
		must(ggetkmask() == sched.basekmask && blocked() == sched.basekmask);
		gosched();
	}
	atomic_fetch_add(&tally.ended, 1);
}

static void masks(void)
{
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 10; i++) {
			spawn(masked, (void *)(uintptr_t)i);
			spawn(unmasked, NULL);
		}
		joinall();
		must(blocked() == sched.basekmask);
	}
	must(tally.ended == 100);
}

Test(signal, the_kernels_mask_follows_the_goroutine, .timeout = 30)
{
	inscheduler(1, 20, masks);
	inscheduler(3, 20, masks);
}

static void onstack(void *arg)
{
	(void)arg;
	for (int i = 0; i < 100; i++) {
		M *mp = acquirem();
		stack_t ss;

		must(sys2(SYS_sigaltstack, 0, (long)&ss) == 0);
		must(ss.ss_flags == 0 && ss.ss_sp == (void *)mp->gsignallo);
		must(ss.ss_size == mp->gsignalhi - mp->gsignallo && ss.ss_size >= 16384);
		must(mblock() == mp->tls && mp->tls == mp->g0->tls);
		releasem(mp);
		gosched();
	}
}

static void stacks(void)
{
	for (int i = 0; i < 10; i++)
		spawn(onstack, NULL);
	joinall();
	/* No two Ms share one. */
	for (M *a = atomic_load(&sched.allm); a != NULL; a = a->alllink)
		for (M *b = a->alllink; b != NULL; b = b->alllink)
			must(a->gsignalhi <= b->gsignallo || b->gsignalhi <= a->gsignallo);
	uintptr_t lo = getg()->m->gsignallo;

	must(lo != 0 && sigstackalloc(getg()->m) == 0 && getg()->m->gsignallo == lo);
}

Test(signal, handlers_have_a_stack_of_their_m, .timeout = 30)
{
	inscheduler(1, 10, stacks);
	inscheduler(4, 10, stacks);
}
