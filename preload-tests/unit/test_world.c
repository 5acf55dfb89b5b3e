/*
 * test_world.c - the start, the stop of everything for a change of the number
 * of Ps, and the child of fork: in each of them every P must be accounted for.
 */
#include "testsched.h"

#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static _Atomic long work;
static int fds[2];

PREEMPTIBLE static void worker(void *arg)
{
	(void)arg;
	while (!atomic_load(&tally.stop)) {
		atomic_fetch_add(&work, 1);
		if (atomic_load(&work) % 64 == 0)
			gosched();
	}
}

/* --- stopping ------------------------------------------------------------------------- */

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
		must(sched.npidle == 0 && sched.stopwait == 0);
		startTheWorld();
		must(sched.gcwaiting == 0);
	}
	atomic_store(&tally.stop, true);
	joinall();
}

Test(world, stopped_it_stands_still, .timeout = 30)
{
	inscheduler(1, 9, world);
	inscheduler(4, 9, world);
}

static void seenread(void *arg)
{
	char c;

	(void)arg;
	atomic_fetch_add(&tally.started, 1);
	must(blockingsyscall(SYS_read, fds[0], (long)&c, 1, 0, 0, 0) == 1);
	must(sched.gcwaiting == 0);
	atomic_fetch_add(&tally.ended, 1);
}

static void unseenread(void *arg)
{
	char c;

	(void)arg;
	atomic_fetch_add(&tally.started, 1);
	must(sys3(SYS_read, fds[0], (long)&c, 1) == 1);
	gosched();
	must(sched.gcwaiting == 0);
	atomic_fetch_add(&tally.ended, 1);
}

/* Those that wait in the kernel don't hold it up, and don't come back before
 * it goes on. */
static void stopsblocked(void (*fn)(void *))
{
	must(pipe(fds) == 0);
	for (int i = 0; i < 3; i++)
		spawn(fn, NULL);
	while (tally.started < 3)
		gosched();
	stopTheWorld();
	must(write(fds[1], "abc", 3) == 3);
	usleep_os(20000);
	must(tally.ended == 0);
	startTheWorld();
	joinall();
	must(tally.ended == 3);
}

static void stopsseen(void)
{
	stopsblocked(seenread);
}

static void stopsunseen(void)
{
	stopsblocked(unseenread);
}

Test(world, it_stops_around_blocked_calls, .timeout = 30)
{
	inscheduler(4, 3, stopsseen);
	inscheduler(2, 3, stopsseen);
	inscheduler(4, 3, stopsunseen);
	inscheduler(2, 3, stopsunseen);
}

static void stopsspinners(void)
{
	for (int i = 0; i < 3; i++)
		spawn(spinner, NULL);
	while (tally.started < 3)
		gosched();
	for (int i = 0; i < 10; i++) {
		stopTheWorld();
		startTheWorld();
		gosched();
	}
	atomic_store(&tally.stop, true);
	joinall();
}

Test(world, it_stops_those_who_never_call, .timeout = 30)
{
	inscheduler(4, 3, stopsspinners);
}

/* --- the number of Ps ------------------------------------------------------------------- */

static void resizer(void *arg)
{
	Rand r = {(uint64_t)(uintptr_t)arg};

	for (int i = 0; i < 30; i++) {
		must(setgomaxprocs(1 + (int)(rnd(&r) % 6)) == 0);
		gosched();
	}
}

static void wired(void *arg)
{
	int tid;

	(void)arg;
	lockOSThread();
	tid = gettid_os();
	for (int i = 0; i < 100; i++) {
		gosched();
		must(gettid_os() == tid);
	}
	unlockOSThread();
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
	atomic_store(&tally.stop, true);
	joinall();
	must(setgomaxprocs(2) == 0 && sched.gomaxprocs == 2);
	int idle = 0;

	lock(&sched.lock);
	for (P *pp = sched.pidle; pp != NULL; pp = pp->link)
		idle++;
	must(idle == sched.npidle && idle <= 1);
	unlock(&sched.lock);
}

Test(world, gomaxprocs_changes_under_load, .timeout = 30)
{
	inscheduler(2, 12, resize);
}

static _Atomic int slept;

static void napper(void *arg)
{
	must(gosleep(nanotime() + (int64_t)(uintptr_t)arg, 0) == 0);
	atomic_fetch_add(&slept, 1);
}

/* What dropped Ps had, queues and timers, goes on elsewhere. */
static void dropped(void)
{
	for (int i = 0; i < 30; i++)
		spawn(napper, (void *)(uintptr_t)((20 + i) * MS));
	for (int i = 0; i < 20; i++)
		spawn(yielder, (void *)50);
	must(setgomaxprocs(1) == 0);
	for (int i = 1; i < sched.nallp; i++)
		must(sched.allp[i]->status == Pdead);
	joinall();
	must(slept == 30 && tally.ended == 20);
	must(setgomaxprocs(6) == 0 && sched.gomaxprocs == 6);
	for (int i = 0; i < 50; i++)
		spawn(yielder, (void *)50);
	joinall();
	must(tally.ended == 70);
}

Test(world, what_a_dropped_p_had_goes_on, .timeout = 30)
{
	inscheduler(6, 50, dropped);
}

static void *foreign(void *arg)
{
	(void)arg;
	must(setgomaxprocs(2) == -EAGAIN);
	return NULL;
}

static void arguments(void)
{
	pthread_t t;

	must(setgomaxprocs(0) == -EINVAL && setgomaxprocs(-1) == -EINVAL);
	must(setgomaxprocs(MAXPROCS + 1) == -EINVAL && setgomaxprocs(5000) == -EINVAL);
	must(sched.gomaxprocs == 2);
	must(setgomaxprocs(MAXPROCS) == 0 && sched.gomaxprocs == MAXPROCS);
	must(setgomaxprocs(1) == 0);
	must(pthread_create(&t, NULL, foreign, NULL) == 0);
	pthread_join(t, NULL);
	must(sched.gomaxprocs == 1);
}

Test(world, gomaxprocs_has_bounds, .timeout = 30)
{
	inscheduler(2, 0, arguments);
}

/* --- the start and the child of fork -------------------------------------------------------- */

static void twice(void)
{
	char here;

	schedinit(fsbase(), NULL, (uintptr_t)&here - 65536, (uintptr_t)&here + 65536, 0);
}

Test(world, a_second_start_throws, .timeout = 30)
{
	throwsinscheduler(2, 0, twice, "schedinit: started twice");
}

static void started(void)
{
	G *gp = getg();

	must(schedstarted() && goid(gp) == 1);
	must(sched.gomaxprocs == 3 && sched.npidle == 2 && sched.mcount == 1);
	must(sched.nglive == 1 && sched.goidgen == 1);
	must(gp->m->tid == gettid_os() && gp->m->curg == gp);
	must(getp(gp->m) == sched.allp[0] && sched.allp[0]->m == gp->m);
	must(readgstatus(gp) == Grunning && gp->m->locks == 0);
	must(gp->m->g0->tls != gp->tls && mblock() == gp->m->g0->tls);
}

Test(world, after_the_start_all_is_in_order, .timeout = 30)
{
	cr_assert(!schedstarted());
	inscheduler(3, 0, started);
}

static void forks(void)
{
	int status;
	pid_t pid;

	for (int i = 0; i < 10; i++)
		spawn(yielder, (void *)100);
	pid = fork();
	must(pid >= 0);
	if (pid == 0) {
		schedforkchild();
		must(!schedstarted() && getg() == NULL && acquirem() == NULL);
		must(sched.nglive == 0 && sched.mcount == 0 && sched.allm == NULL);
		must(blockingsyscall(SYS_getpid, 0, 0, 0, 0, 0, 0) == getpid());
		must(gosleep(nanotime() + MS, 0) == 0);
		_exit(0);
	}
	entersyscall();
	must(waitpid(pid, &status, 0) == pid);
	exitsyscall();
	must(status == 0);
	joinall();
	must(tally.ended == 10);
}

Test(world, in_a_forked_child_it_has_not_started, .timeout = 30)
{
	inscheduler(1, 10, forks);
	inscheduler(3, 10, forks);
}
