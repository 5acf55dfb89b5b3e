/*
 * test_proc.c - the scheduler as a whole: Ms, Ps and Gs together.
 */
#include "testsched.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MS 1000000LL

static _Atomic int count, started, maxseen, running;
static _Atomic bool stop;

/* --- yielding and ending ---------------------------------------------------------------- */

static void yielder(void *arg)
{
	for (int i = 0; i < (int)(uintptr_t)arg; i++)
		gosched();
	atomic_fetch_add(&count, 1);
}

static void yields(void)
{
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 100; i++)
			spawn(yielder, (void *)(uintptr_t)(i % 50));
		joinall();
	}
	must(count == 2000);
	must(sched.nglive == 1 && sched.ngcreated == 2001);
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

/* --- parallelism and stealing -------------------------------------------------------------- */

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
	must(sched.nsteal > 0);
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
	must(maxseen <= 1 + sched.nretaken);
}

Test(proc, one_p_runs_one_at_a_time, .timeout = 30)
{
	inscheduler(1, 10, oneatatime);
}

PREEMPTIBLE static void spinner(void *arg)
{
	(void)arg;
	atomic_fetch_add(&started, 1);
	while (!atomic_load(&stop))
		;
}

static void preempts(void)
{
	for (int i = 0; i < 4; i++)
		spawn(spinner, NULL);
	while (started < 4)
		gosched();
	gosleep(nanotime() + 20 * MS, 0);
	/* On a busy machine sysmon takes the P of one that the kernel doesn't run. */
	must(sched.npreempted + sched.nretaken > 0);
	atomic_store(&stop, true);
	joinall();
}

Test(proc, spinners_are_preempted, .timeout = 30)
{
	inscheduler(1, 4, preempts);
	inscheduler(2, 4, preempts);
}

/* --- system calls ------------------------------------------------------------------------------ */

static void sleepsyscall(void *arg)
{
	for (int i = 0; i < 5; i++) {
		entersyscall();
		usleep((useconds_t)(uintptr_t)arg);
		exitsyscall();
	}
	atomic_fetch_add(&count, 1);
}

static void handoff(void)
{
	int64_t begin = nanotime();

	/* 20 x 5 x 10 ms one after the other would be a second. */
	for (int i = 0; i < 20; i++)
		spawn(sleepsyscall, (void *)10000);
	spawn(yielder, (void *)10000);
	joinall();
	must(count == 21);
	must(nanotime() - begin < 900 * MS);
	must(sched.nretaken + sched.nhandoff > 0);
}

Test(proc, the_p_is_handed_off_in_system_calls, .timeout = 30)
{
	inscheduler(1, 21, handoff);
	inscheduler(2, 21, handoff);
}

static int fds[2];

static void blockedread(void *arg)
{
	char c;

	(void)arg;
	atomic_fetch_add(&started, 1);
	must(blockingsyscall(SYS_read, fds[0], (long)&c, 1, 0, 0, 0) == 1);
	atomic_fetch_add(&count, 1);
}

static void blocking(void)
{
	must(pipe(fds) == 0);
	for (int i = 0; i < 5; i++)
		spawn(blockedread, NULL);
	while (started < 5)
		gosched();
	spawn(yielder, (void *)100);
	while (count == 0)
		gosched();
	for (int i = 0; i < 5; i++)
		must(write(fds[1], "x", 1) == 1);
	joinall();
	must(count == 6);
	must(blockingsyscall(SYS_read, -1, 0, 0, 0, 0, 0) == -EBADF);
}

Test(proc, blocked_calls_give_up_their_p_at_once, .timeout = 30)
{
	inscheduler(1, 6, blocking);
	inscheduler(3, 6, blocking);
}

static G *_Atomic victim;

static void intrread(void *arg)
{
	char c;

	(void)arg;
	atomic_store(&victim, getg());
	for (;;) {
		long r = blockingsyscall(SYS_read, fds[0], (long)&c, 1, 0, 0, 0);

		must(r == -EINTR);
		if (ginterrupted())
			break;
	}
	gclearinterrupt();
}

static void intrsyscall(void)
{
	must(pipe(fds) == 0);
	for (int i = 0; i < 50; i++) {
		atomic_store(&victim, NULL);
		spawn(intrread, NULL);
		while (victim == NULL)
			gosched();
		if (i % 2 == 0)
			gosleep(nanotime() + MS, 0);
		ginterrupt(victim);
		joinall();
	}
}

Test(proc, an_interrupt_ends_a_blocked_call, .timeout = 30)
{
	inscheduler(2, 1, intrsyscall);
}

/* A call that the runtime does not see: sysmon takes the P. */
static void hiddenread(void *arg)
{
	char c;

	(void)arg;
	atomic_fetch_add(&started, 1);
	must(sys3(SYS_read, fds[0], (long)&c, 1) == 1);
	atomic_fetch_add(&count, 1);
}

static void hidden(void)
{
	must(pipe(fds) == 0);
	spawn(hiddenread, NULL);
	while (started < 1)
		gosched();
	/* With one P this goes on only because it was taken. */
	for (int i = 0; i < 10; i++)
		gosched();
	must(count == 0);
	must(write(fds[1], "x", 1) == 1);
	joinall();
	must(sched.nretaken > 0);
}

Test(proc, a_p_stuck_in_an_unseen_call_is_taken, .timeout = 30)
{
	inscheduler(1, 1, hidden);
}

/* --- wired goroutines ---------------------------------------------------------------------------- */

static void wired(void *arg)
{
	int tid;

	(void)arg;
	lockOSThread();
	lockOSThread();
	tid = gettid_os();
	for (int i = 0; i < 200; i++) {
		switch (i % 4) {
		case 0: gosched(); break;
		case 1:
			if (i % 16 == 1)
				gosleep(nanotime() + 10000, 0);
			break;
		case 2:
			entersyscall();
			sys0(SYS_sched_yield);
			exitsyscall();
			break;
		default:
			if (i % 16 == 3)
				blockingsyscall(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
		}
		must(gettid_os() == tid);
		must(getg()->m->lockedg == getg());
	}
	unlockOSThread();
	gosched();
	must(gettid_os() == tid);
	unlockOSThread();
	for (int i = 0; i < 20; i++)
		gosched();
	atomic_fetch_add(&count, 1);
}

static void wiredbody(void)
{
	for (int i = 0; i < 6; i++)
		spawn(wired, NULL);
	for (int i = 0; i < 30; i++)
		spawn(yielder, (void *)200);
	joinall();
	must(count == 36);
}

Test(proc, wired_goroutines_keep_their_thread, .timeout = 30)
{
	inscheduler(1, 36, wiredbody);
	inscheduler(3, 36, wiredbody);
}

static void endswired(void *arg)
{
	(void)arg;
	lockOSThread();
	gosched();
}

static void wiredend(void)
{
	for (int i = 0; i < 50; i++) {
		for (int k = 0; k < 10; k++)
			spawn(endswired, NULL);
		joinall();
	}
	must(sched.mcount < 20);
}

Test(proc, a_wired_goroutine_may_end, .timeout = 30)
{
	inscheduler(2, 10, wiredend);
}

/* --- the world ----------------------------------------------------------------------------------- */

static _Atomic long work;

PREEMPTIBLE static void worker(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		atomic_fetch_add(&work, 1);
		if (atomic_load(&work) % 64 == 0)
			gosched();
	}
}

static void world(void)
{
	for (int i = 0; i < 8; i++)
		spawn(worker, NULL);
	spawn(sleepsyscall, (void *)1000);
	for (int i = 0; i < 50; i++) {
		long before;

		gosched();
		stopTheWorld();
		before = atomic_load(&work);
		usleep_os(500);
		must(atomic_load(&work) == before);
		for (int k = 0; k < sched.gomaxprocs; k++)
			must(sched.allp[k]->status == Pgcstop);
		startTheWorld();
	}
	atomic_store(&stop, true);
	joinall();
}

Test(proc, a_stopped_world_stands_still, .timeout = 30)
{
	inscheduler(1, 9, world);
	inscheduler(4, 9, world);
}

static void resizer(void *arg)
{
	Rand r = {(uint64_t)(uintptr_t)arg};

	for (int i = 0; i < 30; i++) {
		must(setgomaxprocs(1 + (int)(rnd(&r) % 6)) == 0);
		gosched();
	}
}

static void resize(void)
{
	for (int i = 0; i < 8; i++)
		spawn(worker, NULL);
	spawn(resizer, (void *)1);
	spawn(resizer, (void *)2);
	spawn(sleepsyscall, (void *)1000);
	spawn(wired, NULL);
	while (livegs() > 8)
		gosleep(nanotime() + MS, 0);
	atomic_store(&stop, true);
	joinall();
	must(setgomaxprocs(0) == -EINVAL && setgomaxprocs(5000) == -EINVAL);
	must(setgomaxprocs(2) == 0 && sched.gomaxprocs == 2);
	int idle = 0;

	lock(&sched.lock);
	for (P *pp = sched.pidle; pp != NULL; pp = pp->link)
		idle++;
	must(idle == sched.npidle && idle <= 1);
	unlock(&sched.lock);
}

Test(proc, gomaxprocs_changes_under_load, .timeout = 30)
{
	inscheduler(2, 12, resize);
}

/* --- foreign threads --------------------------------------------------------------------------------- */

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

/* --- idleness ------------------------------------------------------------------------------------------ */

static int64_t cputime(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void idle(void)
{
	int64_t before;

	for (int i = 0; i < 20; i++)
		spawn(yielder, (void *)100);
	joinall();
	gosleep(nanotime() + 50 * MS, 0);
	before = cputime();
	gosleep(nanotime() + 500 * MS, 0);
	must(cputime() - before < 25 * MS);
}

Test(proc, an_idle_scheduler_costs_nothing, .timeout = 30)
{
	inscheduler(4, 20, idle);
}

/* --- roles ------------------------------------------------------------------------------------------------ */

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
