/*
 * test_time.c - timers: the heap, exact cancelling, firing by anybody.
 */
#include "testsched.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

static P ps[2];

static void setup(void)
{
	memset(ps, 0, sizeof(ps));
	for (int i = 0; i < 2; i++) {
		ps[i].id = i;
		lockinit(&ps[i].timerslock, RankTimers);
		atomic_store(&ps[i].timer0when, FOREVER);
	}
}

TestSuite(timers, .init = setup);

/* The heap is in order, indices and owners are right. */
static void checkheap(P *pp)
{
	for (int32_t i = 0; i < pp->ntimers; i++) {
		Timer *t = pp->timers[i];

		cr_assert_eq(t->index, i);
		cr_assert_eq(t->pp, pp);
		if (i > 0)
			cr_assert_leq(pp->timers[(i - 1) / 4]->when, t->when);
	}
	cr_assert_eq(pp->timer0when, pp->ntimers > 0 ? pp->timers[0]->when : FOREVER);
}

enum { N = 500 };
static Timer timer[N];
static int fired[N], nfired;
static int64_t lastwhen;

static void fire(void *arg)
{
	Timer *t = arg;

	cr_assert(t->running);
	cr_assert_geq(t->when, lastwhen, "earlier ones first");
	lastwhen = t->when;
	fired[t - timer]++;
	nfired++;
}

static void arm(int i, P *pp, int64_t when)
{
	timer[i].when = when;
	timer[i].fn = fire;
	timer[i].arg = &timer[i];
	addtimer(pp, &timer[i]);
}

Test(timers, fire_in_order_and_not_early)
{
	bool ran = false;

	cr_assert_eq(checktimers(&ps[0], 1000, &ran), FOREVER);
	arm(0, &ps[0], 300);
	arm(1, &ps[0], 100);
	arm(2, &ps[0], 200);
	cr_assert_eq(checktimers(&ps[0], 99, &ran), 100);
	cr_assert_not(ran);
	cr_assert_eq(checktimers(&ps[0], 200, &ran), 300);
	cr_assert(ran);
	cr_assert_eq(nfired, 2);
	cr_assert(fired[1] && fired[2]);
	cr_assert_eq(checktimers(&ps[0], INT64_MAX, &ran), FOREVER);
	cr_assert_eq(nfired, 3);
	checkheap(&ps[0]);
}

Test(timers, random_adds_and_deletes_keep_the_heap, .timeout = 60)
{
	static bool armed[N];
	bool ran;
	int64_t now = 0;
	Rand r = {3};

	for (int step = 0; step < 30000; step++) {
		int i = (int)(rnd(&r) % N);

		if (timer[i].pp == NULL) {
			armed[i] = true;
			fired[i] = 0;
			arm(i, &ps[0], now + 1 + (int64_t)(rnd(&r) % 100000));
		} else if (rnd(&r) % 3 != 0) {
			cr_assert(deltimer(&timer[i]));
			cr_assert_null(timer[i].pp);
			armed[i] = false;
		}
		if (step % 100 == 0) {
			int64_t next;

			now += (int64_t)(rnd(&r) % 5000);
			lastwhen = 0;
			next = checktimers(&ps[0], now, &ran);
			cr_assert_gt(next, now);
		}
		checkheap(&ps[0]);
		for (int k = 0; k < N; k++) {
			if (!armed[k])
				continue;
			cr_assert_eq(fired[k], timer[k].pp == NULL);
			cr_assert_eq(timer[k].pp == NULL, timer[k].when <= now);
			if (fired[k])
				armed[k] = false;
		}
	}
}

Test(timers, delete_tells_whether_it_came_in_time)
{
	bool ran;

	arm(0, &ps[0], 10);
	cr_assert(deltimer(&timer[0]));
	cr_assert_not(deltimer(&timer[0]), "twice");
	checktimers(&ps[0], 100, &ran);
	cr_assert_eq(nfired, 0);
	arm(0, &ps[0], 10);
	checktimers(&ps[0], 100, &ran);
	cr_assert_not(deltimer(&timer[0]), "fired");
	cr_assert_eq(nfired, 1);
}

TestThrows(timers, adding_twice_throws, .init = setup)
{
	arm(0, &ps[0], 10);
	arm(0, &ps[0], 20);
}

/* --- running ------------------------------------------------------------------------ */

static _Atomic int step;

static void slow(void *arg)
{
	(void)arg;
	atomic_store(&step, 1);
	usleep(50000);
	atomic_store(&step, 2);
}

static void *check(void *arg)
{
	bool ran;

	checktimers(arg, INT64_MAX, &ran);
	return NULL;
}

Test(timers, delete_waits_for_a_running_one, .timeout = 10)
{
	Timer t = {.when = 1, .fn = slow};
	pthread_t th;

	addtimer(&ps[0], &t);
	pthread_create(&th, NULL, check, &ps[0]);
	while (atomic_load(&step) == 0)
		usleep(100);
	cr_assert_not(deltimer(&t));
	cr_assert_eq(atomic_load(&step), 2, "its function has returned");
	pthread_join(th, NULL);
}

static void again(void *arg)
{
	Timer *t = arg;

	/* Others may be added and deleted by a timer's function. */
	if (++nfired < 5) {
		Timer *next = t + 1;

		next->when = t->when + 1;
		next->fn = again;
		next->arg = next;
		addtimer(&ps[0], next);
	}
	deltimer(&timer[100]);
}

Test(timers, functions_may_use_timers)
{
	bool ran;

	arm(100, &ps[0], 1000);
	timer[0].when = 1;
	timer[0].fn = again;
	timer[0].arg = &timer[0];
	addtimer(&ps[0], &timer[0]);
	cr_assert_eq(checktimers(&ps[0], 100, &ran), FOREVER);
	cr_assert_eq(nfired, 5);
}

Test(timers, move_to_another_p)
{
	bool ran;

	for (int i = 0; i < 100; i++)
		arm(i, &ps[i % 2], (i * 37) % 100 + 1);
	movetimers_locked(&ps[0], &ps[1]);
	checkheap(&ps[0]);
	checkheap(&ps[1]);
	cr_assert_eq(ps[0].ntimers, 0);
	cr_assert_eq(ps[1].ntimers, 100);
	cr_assert(deltimer(&timer[0]));
	movetimers_locked(&ps[1], &ps[0]);
	checkheap(&ps[0]);
	checktimers(&ps[0], 1000, &ran);
	cr_assert_eq(nfired, 99);
}

/* Everybody adds, deletes and checks on both Ps. A timer is either deleted or
 * fires, and its storage is reused at once. */
enum { Threads = 4, Each = 20000 };
static _Atomic long deleted, ranlate;

static void countrun(void *arg)
{
	_Atomic int *word = arg;

	must(atomic_fetch_add(word, 1) == 0);
	atomic_fetch_add(&ranlate, 1);
}

static void *churn(void *arg)
{
	Rand r = {(uint64_t)(uintptr_t)arg};
	bool ran;

	for (int i = 0; i < Each; i++) {
		_Atomic int word = 0;
		Timer t;

		memset(&t, 0, sizeof(t));
		t.when = nanotime() + (int64_t)(rnd(&r) % 20000);
		t.fn = countrun;
		t.arg = &word;
		addtimer(&ps[rnd(&r) % 2], &t);
		if (rnd(&r) % 2 == 0)
			checktimers(&ps[rnd(&r) % 2], nanotime(), &ran);
		if (deltimer(&t)) {
			must(word == 0);
			atomic_fetch_add(&deleted, 1);
		} else {
			must(word == 1);
		}
		memset(&t, 0xff, sizeof(t));
	}
	return NULL;
}

Test(timers, fire_or_are_deleted_once_under_races, .timeout = 60)
{
	pthread_t t[Threads];

	for (int i = 0; i < Threads; i++)
		pthread_create(&t[i], NULL, churn, (void *)(uintptr_t)(i + 1));
	for (int i = 0; i < Threads; i++)
		pthread_join(t[i], NULL);
	cr_assert_eq(deleted + ranlate, (long)Threads * Each);
	cr_assert_gt(deleted, 0);
	cr_assert_gt(ranlate, 0);
	checkheap(&ps[0]);
	checkheap(&ps[1]);
	cr_assert_eq(ps[0].ntimers + ps[1].ntimers, 0);
}

/* --- in the scheduler ------------------------------------------------------------------ */

static _Atomic int naps;

static void napper(void *arg)
{
	for (int i = 0; i < 20; i++) {
		gosleep(nanotime() + (int64_t)(uintptr_t)arg, 0);
		atomic_fetch_add(&naps, 1);
	}
}

static void busyps(void)
{
	/* One P spins for ever; its timers are run by others. */
	spawn(napper, (void *)(uintptr_t)(2 * MS));
	spawn(spinner, NULL);
	spawn(napper, (void *)(uintptr_t)(3 * MS));
	while (naps < 40)
		gosleep(nanotime() + MS, 0);
	atomic_store(&tally.stop, true);
	joinall();
}

Test(timers, fire_while_a_p_is_busy, .timeout = 30)
{
	inscheduler(2, 3, busyps);
	inscheduler(1, 3, busyps);
}

static void longone(void *arg)
{
	(void)arg;
	int64_t until = nanotime() + 200 * MS;

	gosleep(until, 0);
}

static void earlier(void)
{
	/* The poller sleeps until a late timer; an earlier one must wake it. */
	spawn(longone, NULL);
	for (int i = 0; i < 20; i++) {
		int64_t begin = nanotime();

		gosleep(begin + MS, 0);
		must(nanotime() - begin < 150 * MS);
	}
	joinall();
}

Test(timers, an_earlier_one_wakes_the_poller, .timeout = 30)
{
	inscheduler(1, 1, earlier);
	inscheduler(2, 1, earlier);
}

static void fewer(void)
{
	for (int i = 0; i < 40; i++)
		spawn(napper, (void *)(uintptr_t)(1 + i % 5) /* ns */);
	for (int i = 0; i < 40; i++)
		spawn(longone, NULL);
	gosleep(nanotime() + 10 * MS, 0);
	/* Timers of Ps that go away are kept. */
	for (int n = 4; n >= 1; n--) {
		must(setgomaxprocs(n) == 0);
		gosleep(nanotime() + 2 * MS, 0);
	}
	must(setgomaxprocs(4) == 0);
	joinall();
}

Test(timers, survive_changes_of_gomaxprocs, .timeout = 30)
{
	inscheduler(4, 80, fewer);
}
