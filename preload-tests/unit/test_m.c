/*
 * test_m.c - kernel threads: made when a P has work and no M sleeps, and only
 * then; within a limit, and without harm when the kernel refuses one; and those
 * that belong to one goroutine.
 */
#include "testsched.h"

#include <errno.h>
#include <sys/syscall.h>

/* --- the idle list ------------------------------------------------------------------- */

Test(m, idle_ones_are_taken_last_in_first_out)
{
	static M m[3];

	cr_assert_null(mget_locked());
	for (int i = 0; i < 3; i++)
		mput_locked(&m[i]);
	cr_assert_eq(sched.nmidle, 3);
	cr_assert_eq(mget_locked(), &m[2]);
	mput_locked(&m[2]);
	for (int i = 2; i >= 0; i--) {
		cr_assert_eq(mget_locked(), &m[i]);
		cr_assert_null(m[i].schedlink);
		cr_assert_eq(sched.nmidle, i);
	}
	cr_assert_null(mget_locked());
	cr_assert_eq(sched.nmidle, 0);
}

Test(m, random_numbers_differ_between_ms)
{
	static M a = {.fastrand = 1}, b = {.fastrand = 2};
	int same = 0;

	for (int i = 0; i < 1000; i++) {
		uint32_t x = fastrand(&a);

		cr_assert_neq(x, 0);
		same += x == fastrand(&b);
	}
	cr_assert_lt(same, 10);
}

/* --- making them ----------------------------------------------------------------------- */

static int (*realnewosproc)(void (*fn)(void *), void *arg, uintptr_t *lo, uintptr_t *hi);
static _Atomic int asked, made;
static _Atomic bool refuse, hold;

static int countedproc(void (*fn)(void *), void *arg, uintptr_t *lo, uintptr_t *hi)
{
	int r;

	atomic_fetch_add(&asked, 1);
	while (atomic_load(&hold))
		usleep_os(100);
	if (atomic_load(&refuse))
		return -EAGAIN;
	r = realnewosproc(fn, arg, lo, hi);
	if (r == 0)
		atomic_fetch_add(&made, 1);
	return r;
}

static void countprocs(void)
{
	realnewosproc = host.newosproc;
	host.newosproc = countedproc;
}

static void napcall(void *us)
{
	struct timespec ts = {0, (long)(uintptr_t)us * 1000};
	long r;

	/* An M that waits by choice is called back when no other can be had; it sleeps the rest then. */
	while ((r = blockingsyscall(SYS_nanosleep, (long)&ts, (long)&ts, 0, 0, 0, 0)) != 0)
		must(r == -EINTR);
	atomic_fetch_add(&tally.ended, 1);
}

static void reuse(void)
{
	countprocs();
	for (int i = 0; i < 200; i++) {
		spawn(napcall, (void *)200);
		spawn(yielder, (void *)5);
		joinall();
	}
	must(tally.ended == 400);
	/* Three goroutines, and some Ms between two states. */
	must(made >= 1 && made <= 12);
	must(sched.mcount == 1 + made);
}

Test(m, a_sleeping_m_is_used_before_a_new_one, .timeout = 30)
{
	inscheduler(1, 2, reuse);
}

static void startsone(void)
{
	int64_t before;

	countprocs();
	atomic_store(&hold, true);
	before = metricscounted(CountStarts);
	for (int i = 0; i < 20; i++)
		spawn(yielder, NULL);
	/* The first one is on its way, spinning: it will find the rest. */
	must(sched.nmspinning == 1);
	must(metricscounted(CountStarts) == before + 1);
	while (asked < 1)
		usleep_os(100);
	must(asked == 1);
	atomic_store(&hold, false);
	joinall();
	must(tally.ended == 20);
}

Test(m, while_one_searches_no_other_is_started, .timeout = 30)
{
	inscheduler(4, 20, startsone);
}

static void spinningbalance(void)
{
	for (int round = 0; round < 50; round++) {
		for (int i = 0; i < 20; i++)
			spawn(yielder, (void *)10);
		while (livegs() > 0) {
			int n = sched.nmspinning;

			must(n >= 0 && n <= sched.gomaxprocs);
			gosched();
		}
	}
	/* At rest nobody searches: the last ones come to their end. */
	int searching;
	do {
		usleep_os(100);
		searching = sched.nmspinning;
		for (M *mp = atomic_load(&sched.allm); mp != NULL; mp = mp->alllink)
			searching += mp->spinning;
	} while (searching != 0);
}

Test(m, searchers_are_counted_and_stop, .timeout = 30)
{
	inscheduler(4, 20, spinningbalance);
}

static void nop(void)
{
	M *mp = acquirem();
	int64_t before = metricscounted(CountStarts);

	/* No P is idle: nothing to start one with. */
	atomic_fetch_add(&sched.nmspinning, 1);
	startm(NULL, true);
	must(sched.nmspinning == 0 && metricscounted(CountStarts) == before);
	releasem(mp);
}

Test(m, without_an_idle_p_none_is_started, .timeout = 30)
{
	inscheduler(1, 0, nop);
}

/* The new one is for long in the making, and has the only P. */
static void stuckinthemaking(void)
{
	struct timespec ts = {0, 1000000};

	countprocs();
	atomic_store(&hold, true);
	spawn(yielder, (void *)5);
	while (asked == 0)
		blockingsyscall(SYS_nanosleep, (long)&ts, 0, 0, 0, 0, 0);
	joinall();
	must(made == 0);
	atomic_store(&hold, false);
	while (made == 0)
		usleep_os(100);
	spawn(yielder, (void *)5);
	joinall();
}

Test(m, who_idles_does_the_work_of_one_in_the_making, .timeout = 30)
{
	inscheduler(1, 1, stuckinthemaking);
	inscheduler(2, 1, stuckinthemaking);
}

/* --- without a P ------------------------------------------------------------------------ */

static M *_Atomic ranon; /* template: no M */
static _Atomic int ran;

static void noteswhere(void)
{
	G *gp = getg();

	if (gp)
		must(gp == gp->m->g0 && getp(gp->m) == NULL && gp->m->curg == NULL);
	atomic_store(&ranon, gp ? gp->m : NULL);
	atomic_fetch_add(&ran, 1);
}

static M *runsonm(void)
{
	int before = ran;

	runonm(noteswhere);
	while (ran == before)
		usleep_os(100);
	return ranon;
}

static void withoutp(void)
{
	countprocs();
	M *mp = acquirem(); /* the only P stays here */
	M *first = runsonm();

	must(first != NULL && first != mp);
	while (made == 0) /* it runs before its maker knows */
		usleep_os(100);
	must(made == 1);
	while (sched.nmidle == 0)
		usleep_os(100);
	must(runsonm() == first && made == 1);
	while (sched.nmidle == 0)
		usleep_os(100);
	releasem(mp);
	/* It still is one that runs goroutines. */
	for (int i = 0; i < 20; i++) {
		spawn(napcall, (void *)200);
		spawn(yielder, (void *)5);
		joinall();
	}
	must(tally.ended == 40 && sched.mcount == 1 + made);
}

static void withoutm(void)
{
	countprocs();
	M *mp = acquirem();
	atomic_store(&refuse, true);
	must(runsonm() == NULL && asked == 1); /* refused */
	must(runsonm() == NULL);               /* not asked again so soon */
	releasem(mp);
}

static void atlimit(void)
{
	countprocs();
	must(runsonm() == NULL && asked == 0);
}

Test(m, what_needs_no_p_runs_while_none_is_free, .timeout = 30)
{
	inscheduler(1, 2, withoutp);
	inscheduler(1, 0, withoutm);
	debug.maxm = 1;
	inscheduler(1, 0, atlimit);
}

/* --- limits -------------------------------------------------------------------------------- */

static void limit(void)
{
	countprocs();
	for (int i = 0; i < 30; i++)
		spawn(napcall, (void *)2000);
	for (int i = 0; i < 10; i++)
		spawn(yielder, (void *)20);
	while (livegs() > 0) {
		must(sched.mcount <= 3);
		gosched();
	}
	joinall();
	must(tally.ended == 40);
	must(made <= 2);
	/* It was the limit that kept them down. */
	must(sched.mcount == 3);
}

Test(m, at_the_limit_goroutines_wait_and_get_done, .timeout = 30)
{
	debug.maxm = 3;
	inscheduler(2, 40, limit);
	inscheduler(4, 40, limit);
}

static void refused(void)
{
	countprocs();
	atomic_store(&refuse, true);
	for (int i = 0; i < 20; i++)
		spawn(yielder, (void *)50);
	joinall();
	/* M0 did it all. */
	must(tally.ended == 20 && made == 0);
	must(sched.mcount >= 1);
	while (asked < 1)
		gosched();
	/* Work that waits brings further tries, by sysmon if by nobody else; and
	 * this M doesn't leave its P. */
	M *mp = acquirem();
	int before = asked;

	spawn(yielder, NULL);
	while (asked < before + 3)
		usleep_os(100);
	must(tally.ended == 20);
	atomic_store(&refuse, false);
	while (tally.ended != 21)
		usleep_os(100);
	must(made >= 1);
	releasem(mp);
	joinall();
	/* Records of those that were refused are used for the next. */
	int records = 0;

	for (M *m = atomic_load(&sched.allm); m != NULL; m = m->alllink)
		records++;
	must(records <= 8);
}

Test(m, a_refused_thread_is_asked_for_again, .timeout = 30)
{
	inscheduler(4, 20, refused);
	inscheduler(2, 20, refused);
}

static void refusedcall(void)
{
	countprocs();
	atomic_store(&refuse, true);
	/* The only M goes into the kernel: what waits meanwhile is done after. */
	for (int i = 0; i < 10; i++) {
		spawn(yielder, (void *)5);
		spawn(napcall, (void *)1000);
	}
	joinall();
	must(tally.ended == 20 && made == 0);
}

Test(m, without_a_second_thread_calls_and_work_alternate, .timeout = 30)
{
	inscheduler(1, 20, refusedcall);
	inscheduler(3, 20, refusedcall);
}

/* --- wired goroutines ---------------------------------------------------------------------- */

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
	must(getg()->lockedm == NULL && getg()->lockedcount == 0);
	for (int i = 0; i < 20; i++)
		gosched();
	atomic_fetch_add(&tally.ended, 1);
}

static void wiredbody(void)
{
	for (int i = 0; i < 6; i++)
		spawn(wired, NULL);
	for (int i = 0; i < 30; i++)
		spawn(yielder, (void *)200);
	joinall();
	must(tally.ended == 36);
}

Test(m, wired_goroutines_keep_their_thread, .timeout = 30)
{
	inscheduler(1, 36, wiredbody);
	inscheduler(3, 36, wiredbody);
}

static _Atomic int ownedtid;
static _Atomic bool watched;

static void owner(void *arg)
{
	(void)arg;
	lockOSThread();
	atomic_store(&ownedtid, gettid_os());
	/* Not before somebody has seen it. */
	for (int i = 0; i < 300 || !atomic_load(&watched); i++)
		gosched();
	atomic_store(&ownedtid, 0);
	unlockOSThread();
}

static void visitor(void *arg)
{
	(void)arg;
	do {
		int tid = atomic_load(&ownedtid);

		/* The owner may end between the two. */
		if (tid != 0 && gettid_os() == tid)
			must(ownedtid == 0);
		gosched();
	} while (ownedtid != 0);
}

static void alone(void)
{
	spawn(owner, NULL);
	while (ownedtid == 0)
		gosched();
	atomic_store(&watched, true);
	for (int i = 0; i < 10; i++)
		spawn(visitor, NULL);
	joinall();
}

Test(m, nobody_else_runs_on_a_wired_thread, .timeout = 30)
{
	inscheduler(1, 11, alone);
	inscheduler(3, 11, alone);
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
	must(sched.mcount < 40);
}

Test(m, a_wired_goroutine_may_end_and_its_thread_goes_on, .timeout = 30)
{
	inscheduler(2, 10, wiredend);
}

static _Atomic int lasttid;

static void forever(void *arg)
{
	(void)arg;
	lockOSThreadForever();
	lockOSThreadForever();
	must(getg()->lockedcount == 1);
	gosched();
	atomic_store(&lasttid, gettid_os());
}

static void threadends(void)
{
	int self = gettid_os();

	for (int i = 0; i < 20; i++) {
		atomic_store(&lasttid, 0);
		spawn(forever, NULL);
		joinall();
		must(lasttid != 0);
		/* Main's thread is the process, and stays. */
		if (lasttid == sched.pid)
			continue;
		while (tgkill_os(lasttid, 0) != -ESRCH)
			gosched();
	}
	must(tgkill_os(self, 0) == 0);
	for (int i = 0; i < 20; i++)
		spawn(yielder, (void *)20);
	joinall();
	must(tally.ended == 20);
	int ms = 0;

	for (M *mp = atomic_load(&sched.allm); mp != NULL; mp = mp->alllink)
		ms += mp->tid != 0;
	/* The rest is alive: made or on the way. */
	must(sched.mcount < 20 && ms <= sched.mcount + 1);
}

Test(m, a_thread_wired_for_good_ends_with_its_goroutine, .timeout = 30)
{
	inscheduler(1, 20, threadends);
	inscheduler(3, 20, threadends);
}

static _Atomic int childtid, childstays;

static void child(void *arg)
{
	int tid = gettid_os();

	(void)arg;
	for (int i = 0; i < 20; i++) {
		gosched();
		atomic_fetch_add(&childstays, gettid_os() == tid);
	}
	must(getg()->mends && getg()->lockedcount == 1);
	atomic_store(&childtid, tid);
}

static void parent(void *arg)
{
	(void)arg;
	lockOSThreadForever();
	spawnwired(child, NULL);
	gosched();
	atomic_store(&lasttid, gettid_os());
}

static void childends(void)
{
	for (int i = 0; i < 20; i++) {
		atomic_store(&childtid, 0);
		atomic_store(&childstays, 0);
		spawn(parent, NULL);
		joinall();
		must(childtid != 0 && childtid != lasttid && childtid != sched.pid);
		must(childstays == 20);
		while (tgkill_os(childtid, 0) != -ESRCH)
			gosched();
	}
	int ms = 0;

	/* Records are used again. */
	for (M *mp = atomic_load(&sched.allm); mp != NULL; mp = mp->alllink)
		ms++;
	must(ms < 20);
}

Test(m, a_wired_goroutine_makes_another, .timeout = 30)
{
	inscheduler(2, 20, childends);
}

static void freed(void *arg)
{
	(void)arg;
	for (int i = 0; i < 5; i++) {
		lockOSThreadForever();
		gosched();
		unlockOSThreadForever();
		must(getg()->lockedm == NULL && !getg()->mends);
		gosched();
	}
}

static void freedall(void)
{
	for (int i = 0; i < 20; i++)
		spawn(freed, NULL);
	joinall();
	for (M *mp = atomic_load(&sched.allm); mp != NULL; mp = mp->alllink)
		must(mp->lockedg == NULL);
}

Test(m, one_that_was_wired_for_good_may_be_freed, .timeout = 30)
{
	inscheduler(2, 20, freedall);
}

static void unwired(void)
{
	unlockOSThread();
}

Test(m, unlocking_what_is_not_locked_throws, .timeout = 30)
{
	throwsinscheduler(1, 0, unwired, "unlockOSThread: not locked");
}
