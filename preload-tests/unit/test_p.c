/*
 * test_p.c - run queues of Ps, and the global one.
 */
#include "testsched.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

enum { Ring = 256, Ngs = 2000 };
static P ps[4];
static G gs[Ngs];

static void setup(void)
{
	memset(&sched, 0, sizeof(sched));
	lockinit(&sched.lock, RankSched);
	atomic_store(&sched.gomaxprocs, 1);
	memset(ps, 0, sizeof(ps));
	memset(gs, 0, sizeof(gs));
	for (int i = 0; i < Ngs; i++)
		gs[i].goid = i;
}

TestSuite(runq, .init = setup);

static int64_t get(P *pp)
{
	G *gp = runqget(pp);

	return gp == NULL ? -1 : gp->goid;
}

static int queued(P *pp)
{
	return (int)(pp->runqtail - pp->runqhead);
}

static G *globget(P *pp, int32_t max)
{
	G *gp;

	lock(&sched.lock);
	gp = globrunqget_locked(pp, max);
	unlock(&sched.lock);
	return gp;
}

Test(runq, is_first_in_first_out)
{
	cr_assert(runqempty(&ps[0]));
	cr_assert_eq(get(&ps[0]), -1);
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 200; i++)
			runqput(&ps[0], &gs[i], false);
		cr_assert_not(runqempty(&ps[0]));
		for (int i = 0; i < 200; i++)
			cr_assert_eq(get(&ps[0]), i);
		cr_assert(runqempty(&ps[0]));
	}
}

Test(runq, next_goes_first_and_pushes_the_last_one_back)
{
	runqput(&ps[0], &gs[1], false);
	runqput(&ps[0], &gs[2], true);
	cr_assert_eq(ps[0].runnext, &gs[2]);
	runqput(&ps[0], &gs[3], true);
	cr_assert_eq(get(&ps[0]), 3);
	cr_assert_eq(get(&ps[0]), 1);
	cr_assert_eq(get(&ps[0]), 2);
	runqput(&ps[0], &gs[4], true);
	cr_assert_not(runqempty(&ps[0]), "runnext counts");
	cr_assert_eq(get(&ps[0]), 4);
	cr_assert_eq(get(&ps[0]), -1);
}

Test(runq, a_full_one_spills_half_to_the_global_queue)
{
	G *gp;

	for (int i = 0; i < Ring; i++)
		runqput(&ps[0], &gs[i], false);
	cr_assert_eq(queued(&ps[0]), Ring);
	cr_assert_eq(sched.runqsize, 0);
	runqput(&ps[0], &gs[Ring], false);
	cr_assert_eq(queued(&ps[0]), Ring / 2);
	cr_assert_eq(sched.runqsize, Ring / 2 + 1);
	/* The older half, in order, and the new one. */
	for (int i = 0; i <= Ring / 2; i++) {
		gp = globget(&ps[1], 1);
		cr_assert_eq(gp->goid, i < Ring / 2 ? i : Ring);
	}
	cr_assert_null(globget(&ps[1], 0));
	for (int i = Ring / 2; i < Ring; i++)
		cr_assert_eq(get(&ps[0]), i);
	cr_assert_eq(get(&ps[0]), -1);
}

Test(runq, overflow_through_next_keeps_everybody)
{
	static bool seen[Ngs];
	int n = 0;
	G *gp;

	for (int i = 0; i < 1000; i++)
		runqput(&ps[0], &gs[i], true);
	cr_assert_eq(ps[0].runnext->goid, 999);
	for (;;) {
		gp = runqget(&ps[0]);
		if (gp == NULL)
			gp = globget(&ps[0], 0);
		if (gp == NULL)
			break;
		cr_assert_not(seen[gp->goid]);
		seen[gp->goid] = true;
		n++;
	}
	cr_assert_eq(n, 1000);
	cr_assert_eq(sched.runqsize, 0);
}

Test(runq, stealing_takes_half)
{
	for (int i = 0; i < 7; i++)
		runqput(&ps[0], &gs[i], false);
	cr_assert_eq(runqsteal(&ps[1], &ps[0], false), &gs[3], "the last of the stolen");
	cr_assert_eq(queued(&ps[0]), 3);
	cr_assert_eq(queued(&ps[1]), 3);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(get(&ps[1]), i);
	for (int i = 4; i < 7; i++)
		cr_assert_eq(get(&ps[0]), i);
	cr_assert_null(runqsteal(&ps[1], &ps[0], false));
}

Test(runq, stealing_from_a_full_ring_at_any_offset)
{
	for (int offset = 0; offset < 600; offset += 77) {
		setup();
		for (int i = 0; i < offset; i++) {
			runqput(&ps[0], &gs[0], false);
			runqget(&ps[0]);
			runqput(&ps[1], &gs[0], false);
			runqget(&ps[1]);
		}
		for (int i = 0; i < Ring; i++)
			runqput(&ps[0], &gs[i], false);
		cr_assert_eq(runqsteal(&ps[1], &ps[0], false), &gs[Ring / 2 - 1]);
		cr_assert_eq(queued(&ps[0]), Ring / 2);
		cr_assert_eq(queued(&ps[1]), Ring / 2 - 1);
		for (int i = 0; i < Ring / 2 - 1; i++)
			cr_assert_eq(get(&ps[1]), i);
	}
}

Test(runq, next_is_stolen_only_when_asked_for)
{
	runqput(&ps[0], &gs[1], true);
	cr_assert_null(runqsteal(&ps[1], &ps[0], false));
	ps[0].status = Prunning;
	cr_assert_eq(runqsteal(&ps[1], &ps[0], true), &gs[1]);
	cr_assert(runqempty(&ps[0]));
	cr_assert(runqempty(&ps[1]));
}

/* --- the global queue ----------------------------------------------------------------- */

static void globput(int from, int to)
{
	for (int i = from; i < to; i++)
		gs[i].schedlink = &gs[i + 1];
	lock(&sched.lock);
	globrunqputbatch_locked(&gs[from], &gs[to], to - from + 1);
	unlock(&sched.lock);
}

Test(runq, global_batches_are_appended_and_shared_out)
{
	globput(0, 9);
	globput(10, 39);
	lock(&sched.lock);
	globrunqput_locked(&gs[40]);
	unlock(&sched.lock);
	cr_assert_eq(sched.runqsize, 41);
	atomic_store(&sched.gomaxprocs, 4);
	/* A share: 41/4 + 1, one to run and the rest on the P. */
	cr_assert_eq(globget(&ps[0], 0), &gs[0]);
	cr_assert_eq(queued(&ps[0]), 10);
	cr_assert_eq(sched.runqsize, 30);
	for (int i = 1; i <= 10; i++)
		cr_assert_eq(get(&ps[0]), i);
	cr_assert_eq(globget(&ps[1], 1), &gs[11]);
	cr_assert_eq(queued(&ps[1]), 0);
	for (int i = 12; i <= 40; i++)
		cr_assert_eq(globget(&ps[1], 1), &gs[i]);
	cr_assert_null(globget(&ps[1], 0));
	cr_assert_null(sched.runqhead);
	cr_assert_null(sched.runqtail);
	/* And it works on after having been empty. */
	globput(0, 1);
	cr_assert_eq(globget(&ps[1], 1), &gs[0]);
}

Test(runq, a_share_never_overflows_a_queue)
{
	globput(0, 1999 - 1);
	cr_assert_eq(globget(&ps[0], 0), &gs[0]);
	cr_assert_eq(queued(&ps[0]), Ring / 2 - 1);
}

static void globputwoken(int from, int to)
{
	for (int i = from; i < to; i++)
		gs[i].schedlink = &gs[i + 1];
	lock(&sched.lock);
	globrunqputwoken_locked(&gs[from], &gs[to], to - from + 1);
	unlock(&sched.lock);
}

static G *globgetinline(void)
{
	G *gp;

	lock(&sched.lock);
	gp = globrunqgetinline_locked();
	unlock(&sched.lock);
	return gp;
}

Test(runq, woken_ones_go_before_those_in_line_who_have_their_turns)
{
	globput(0, 2);
	globputwoken(10, 12);
	globputwoken(13, 13);
	cr_assert_eq(globget(&ps[0], 1), &gs[10]);
	cr_assert_eq(globgetinline(), &gs[0]);
	cr_assert_eq(globgetinline(), &gs[1]);
	cr_assert_eq(sched.nwoken, 3);
	cr_assert_eq(globget(&ps[0], 1), &gs[11]);
	cr_assert_eq(globgetinline(), &gs[2]);
	cr_assert_eq(globgetinline(), &gs[12], "nobody is in line");
	cr_assert_eq(sched.nwoken, 1);
	globput(3, 3);
	cr_assert_eq(globgetinline(), &gs[3]);
	cr_assert_eq(globgetinline(), &gs[13]);
	cr_assert_eq(sched.nwoken, 0);
	cr_assert_eq(sched.runqsize, 0);
	cr_assert_null(globgetinline());
	/* And it works on after having been empty. */
	globput(0, 0);
	globputwoken(1, 1);
	cr_assert_eq(globget(&ps[0], 1), &gs[1]);
	cr_assert_eq(globgetinline(), &gs[0]);
	cr_assert_null(sched.runqhead);
	cr_assert_null(sched.runqtail);
}

Test(runq, a_crowd_of_woken_ones_waits_in_line)
{
	globput(0, 0);
	globputwoken(1, 200);
	globputwoken(201, 210);
	for (int i = 1; i <= 200; i++)
		cr_assert_eq(globget(&ps[0], 1), &gs[i]);
	cr_assert_eq(globget(&ps[0], 1), &gs[0]);
	for (int i = 201; i <= 210; i++)
		cr_assert_eq(globget(&ps[0], 1), &gs[i]);
	globput(0, 0);
	globputwoken(1, 1);
	cr_assert_eq(globget(&ps[0], 1), &gs[1], "the crowd is gone");
	cr_assert_eq(globget(&ps[0], 1), &gs[0]);

	/* Whoever waits in it is not passed by those that are woken later. */
	globputwoken(0, 200);
	for (int i = 0; i < 72; i++)
		cr_assert_eq(globget(&ps[0], 1), &gs[i]);
	globputwoken(201, 201);
	for (int i = 72; i <= 201; i++)
		cr_assert_eq(globget(&ps[0], 1), &gs[i]);
}

TestThrows(runq, an_empty_batch_throws, .init = setup)
{
	lock(&sched.lock);
	globrunqputbatch_locked(&gs[0], &gs[0], 0);
}

/* --- races ----------------------------------------------------------------------------- */

enum { Thieves = 3, Total = 300000 };
static _Atomic uint8_t taken[Ngs];
static _Atomic long ntaken;
static _Atomic bool stop;

static void took(G *gp)
{
	must(atomic_fetch_add(&taken[gp->goid], 1) == 0);
	atomic_fetch_add(&ntaken, 1);
	/* It may be queued again. */
	atomic_store(&taken[gp->goid], 0);
	atomic_store(&gp->waking, 0);
}

static void *thief(void *arg)
{
	P *mine = arg;

	while (!atomic_load(&stop)) {
		G *gp = runqsteal(mine, &ps[0], ntaken % 2 == 0);

		if (gp == NULL)
			gp = globget(mine, 0);
		while (gp != NULL) {
			took(gp);
			gp = runqget(mine);
		}
	}
	return NULL;
}

Test(runq, each_is_taken_once_under_thieves, .timeout = 60)
{
	pthread_t t[Thieves];
	long put = 0;
	Rand r = {1};
	G *gp;

	atomic_store(&sched.gomaxprocs, 4);
	for (int i = 0; i < Thieves; i++)
		pthread_create(&t[i], NULL, thief, &ps[i + 1]);
	for (int i = 0; put < Total; i++) {
		gp = &gs[i % Ngs];
		/* waking serves as the mark "is queued". */
		if (atomic_exchange(&gp->waking, 1) == 0) {
			runqput(&ps[0], gp, rnd(&r) % 4 == 0);
			put++;
		}
		if (rnd(&r) % 3 == 0 && (gp = runqget(&ps[0])) != NULL)
			took(gp);
	}
	while ((gp = runqget(&ps[0])) != NULL || (gp = globget(&ps[0], 0)) != NULL)
		took(gp);
	while (ntaken < Total)
		usleep(100);
	atomic_store(&stop, true);
	for (int i = 0; i < Thieves; i++)
		pthread_join(t[i], NULL);
	cr_assert_eq(ntaken, Total);
	for (int i = 0; i < 4; i++)
		cr_assert(runqempty(&ps[i]));
}

/* runqempty must never say yes while something moves from next to the queue. */
static void *mover(void *arg)
{
	(void)arg;
	for (int i = 0; !atomic_load(&stop); i++) {
		/* Never empty: one is always in next or in the queue. */
		runqput(&ps[0], &gs[i % 2], true);
		if (i > 0 && queued(&ps[0]) > 0) {
			uint32_t h = ps[0].runqhead;

			atomic_compare_exchange_strong(&ps[0].runqhead, &h, h + 1);
		}
	}
	return NULL;
}

Test(runq, emptiness_is_not_seen_while_next_moves, .timeout = 30)
{
	pthread_t t;

	runqput(&ps[0], &gs[0], true);
	pthread_create(&t, NULL, mover, NULL);
	for (int i = 0; i < 2000000; i++)
		cr_assert_not(runqempty(&ps[0]));
	atomic_store(&stop, true);
	pthread_join(t, NULL);
}

/* --- idle Ps and their number -------------------------------------------------------------- */

Test(runq, idle_ps_come_back)
{
	lock(&sched.lock);
	cr_assert_null(pidleget_locked());
	for (int i = 0; i < 3; i++)
		pidleput_locked(&ps[i]);
	cr_assert_eq(sched.npidle, 3);
	for (int i = 2; i >= 0; i--) {
		cr_assert_eq(pidleget_locked(), &ps[i]);
		cr_assert_eq(ps[i].status, Pidle);
	}
	cr_assert_eq(sched.npidle, 0);
	unlock(&sched.lock);
}

TestThrows(runq, a_p_with_work_is_not_idle, .init = setup)
{
	runqput(&ps[0], &gs[0], true);
	lock(&sched.lock);
	pidleput_locked(&ps[0]);
}

static void resize(int n)
{
	lock(&sched.lock);
	procresize(n);
	unlock(&sched.lock);
}

Test(runq, procresize_keeps_work_and_timers)
{
	static Timer timer = {.when = 77};
	P *last;

	atomic_store(&sched.gomaxprocs, 0);
	resize(4);
	cr_assert_eq(sched.gomaxprocs, 4);
	last = sched.allp[3];
	for (int i = 0; i < 10; i++)
		runqput(last, &gs[i], i == 5);
	addtimer(last, &timer);
	resize(2);
	cr_assert_eq(last->status, Pdead);
	cr_assert(runqempty(last));
	cr_assert_eq(sched.runqsize, 10);
	cr_assert_eq(timer.pp, sched.allp[0]);
	cr_assert_eq(timesleepuntil(), 77);
	resize(6);
	cr_assert_eq(sched.allp[3], last, "Ps are kept");
	cr_assert_eq(last->status, Pgcstop);
	cr_assert(deltimer(&timer));
}

TestThrows(runq, no_p_at_all_throws, .init = setup)
{
	resize(0);
}
