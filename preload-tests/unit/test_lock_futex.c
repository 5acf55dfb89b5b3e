/*
 * test_lock_futex.c - runtime locks, notes, and notes with deadlines.
 */
#include "testhost.h"

#include <pthread.h>
#include <unistd.h>

#include "api.h"
#include "lock.h"
#include "os.h"

#define MS 1000000LL

/* --- locks ------------------------------------------------------------------ */

static Lock contended = LOCK_INIT(RankSched);
static long shared;

enum { Threads = 8, Rounds = 50000 };

static void *contend(void *arg)
{
	(void)arg;
	for (int i = 0; i < Rounds; i++) {
		lock(&contended);
		shared++;
		unlock(&contended);
	}
	return NULL;
}

Test(lock, excludes_under_contention)
{
	pthread_t t[Threads];

	for (int i = 0; i < Threads; i++)
		pthread_create(&t[i], NULL, contend, NULL);
	for (int i = 0; i < Threads; i++)
		pthread_join(t[i], NULL);
	cr_assert_eq(shared, (long)Threads * Rounds);
	cr_assert_eq(contended.key, 0);
}

static void *holdalittle(void *arg)
{
	Note *held = arg;

	lock(&contended);
	notewakeup(held);
	usleep(50000);
	shared = 1;
	unlock(&contended);
	return NULL;
}

Test(lock, sleeps_until_the_holder_is_done)
{
	pthread_t t;
	Note held;

	noteclear(&held);
	pthread_create(&t, NULL, holdalittle, &held);
	notesleep(&held);
	cr_assert_not(trylock(&contended));
	lock(&contended);
	cr_assert_eq(shared, 1);
	unlock(&contended);
	pthread_join(t, NULL);
}

TestThrows(lock, unlock_of_unlocked_throws)
{
	Lock l = LOCK_INIT(RankUnranked);

	unlock(&l);
}

#ifdef GOSHIM_DEBUG

Test(lock, ranks_in_order_are_accepted)
{
	Lock a, b, nest[2];

	lockinit(&a, RankSched);
	lockinit(&b, RankMem);
	lockinit(&nest[0], RankSema);
	lockinit(&nest[1], RankSema);
	lock(&nest[0]);
	lock(&nest[1]);
	lock(&a);
	lock(&b);
	/* In any order back. */
	unlock(&nest[0]);
	unlock(&a);
	unlock(&b);
	unlock(&nest[1]);
	lock(&nest[0]);
	unlock(&nest[0]);
}

TestThrows(lock, rank_violation_throws)
{
	Lock a, b;

	lockinit(&a, RankSched);
	lockinit(&b, RankMem);
	lock(&b);
	lock(&a);
}

TestThrows(lock, equal_ranks_throw)
{
	Lock l[2];

	lockinit(&l[0], RankSched);
	lockinit(&l[1], RankSched);
	lock(&l[0]);
	lock(&l[1]);
}

TestThrows(lock, nesting_against_address_order_throws)
{
	Lock l[2];

	lockinit(&l[0], RankSema);
	lockinit(&l[1], RankSema);
	lock(&l[1]);
	lock(&l[0]);
}

TestThrows(lock, locking_twice_throws)
{
	Lock l = LOCK_INIT(RankSched);

	lock(&l);
	lock(&l);
}

TestThrows(lock, unlocking_what_another_holds_throws)
{
	Lock l = LOCK_INIT(RankSched);

	l.key = 1;
	unlock(&l);
}

#endif

/* --- notes ------------------------------------------------------------------ */

Test(note, wake_before_sleep_returns_at_once)
{
	Note n;

	noteclear(&n);
	notewakeup(&n);
	notesleep(&n);
	cr_assert(notetsleep(&n, 0));
	cr_assert(notetsleep(&n, 1000 * MS));
	cr_assert(notetsleep(&n, -1));
}

Test(note, deadline_is_reached_and_not_early)
{
	Note n;
	int64_t begin;

	noteclear(&n);
	cr_assert_not(notetsleep(&n, 0));
	begin = nanotime();
	cr_assert_not(notetsleep(&n, 20 * MS));
	cr_assert_geq(nanotime() - begin, 20 * MS);
	/* It may still be woken, once. */
	notewakeup(&n);
	cr_assert(notetsleep(&n, 0));
}

static int value;

static void *wakelater(void *arg)
{
	usleep(20000);
	value = 42;
	notewakeup(arg);
	return NULL;
}

static void sleeper(int64_t ns)
{
	pthread_t t;
	Note n;

	noteclear(&n);
	value = 0;
	pthread_create(&t, NULL, wakelater, &n);
	cr_assert(notetsleep(&n, ns));
	cr_assert_eq(value, 42);
	pthread_join(t, NULL);
}

Test(note, wakes_a_sleeper)
{
	sleeper(-1);
	sleeper(10000 * MS);
	sleeper(INT64_MAX);
}

TestThrows(note, double_wakeup_throws)
{
	Note n;

	noteclear(&n);
	notewakeup(&n);
	notewakeup(&n);
}

Test(note, is_usable_again_after_clear)
{
	Note n;

	for (int i = 0; i < 3; i++) {
		noteclear(&n);
		cr_assert_not(notetsleep(&n, 0));
		notewakeup(&n);
		notesleep(&n);
	}
}

/* --- notes with deadlines ------------------------------------------------------ */

static NoteList list;
static Note notes[5];

static void linkall(void)
{
	notelistinit(&list);
	for (int i = 0; i < 5; i++) {
		noteclear(&notes[i]);
		notelink(&list, &notes[i], 100 * (i + 1));
	}
}

static bool wokenup(Note *n)
{
	return notetsleep(n, 0);
}

Test(notelist, check_wakes_what_is_due_and_tells_the_next)
{
	int64_t next;

	linkall();
	cr_assert_eq(notecheck(&list, 99, &next), 0);
	cr_assert_eq(next, 100);
	cr_assert_eq(notecheck(&list, 200, &next), 2);
	cr_assert_eq(next, 300);
	for (int i = 0; i < 5; i++) {
		cr_assert_eq(wokenup(&notes[i]), i < 2);
		cr_assert_eq(notes[i].linked, i >= 2);
	}
	cr_assert_eq(notecheck(&list, 1000, &next), 3);
	cr_assert_eq(next, FOREVER);
	cr_assert_eq(list.n, 0);
	cr_assert_null(list.head);
	cr_assert_eq(notecheck(&list, INT64_MAX, &next), 0);
}

Test(notelist, early_wake_unlinks_from_the_middle)
{
	int64_t next;

	linkall();
	cr_assert(notelistwakeup(&list, &notes[2]));
	cr_assert(wokenup(&notes[2]));
	cr_assert_eq(list.n, 4);
	/* Neither the owner nor a second waker nor the check finds it again. */
	cr_assert_not(noteunlink(&list, &notes[2]));
	cr_assert_not(notelistwakeup(&list, &notes[2]));
	cr_assert_eq(notecheck(&list, 400, &next), 3);
	cr_assert_eq(next, 500);
}

Test(notelist, unlink_from_both_ends_and_the_middle)
{
	static const int order[5] = {4, 0, 2, 1, 3};
	int64_t next;

	linkall();
	for (int i = 0; i < 5; i++) {
		cr_assert(noteunlink(&list, &notes[order[i]]));
		cr_assert_not(noteunlink(&list, &notes[order[i]]));
		cr_assert_eq(list.n, 4 - i);
		cr_assert_not(wokenup(&notes[order[i]]));
	}
	cr_assert_eq(notecheck(&list, 1000, &next), 0);
	/* An unlinked note can be linked anew. */
	notelink(&list, &notes[0], 7);
	cr_assert_eq(notecheck(&list, 7, &next), 1);
}

TestThrows(notelist, linking_twice_throws)
{
	linkall();
	notelink(&list, &notes[1], 5);
}

TestThrows(notelist, unlinking_from_another_list_throws)
{
	NoteList other;

	linkall();
	notelistinit(&other);
	noteunlink(&other, &notes[4]);
}

/* Sleepers give up, wakers wake and a checker checks, all at once: each note
 * must be ended exactly once, and its memory is reused at once. */
enum { Sleepers = 4, Naps = 3000 };
static _Atomic bool stop;
static Note *_Atomic offered[Sleepers];
static long ended[Sleepers];

static void *nap(void *arg)
{
	int me = (int)(intptr_t)arg;
	Rand r = {(uint64_t)me + 1};

	for (int i = 0; i < Naps; i++) {
		Note n;

		noteclear(&n);
		notelink(&list, &n, nanotime() + (int64_t)(rnd(&r) % 100000));
		atomic_store(&offered[me], &n);
		notetsleep(&n, (int64_t)(rnd(&r) % 100000));
		atomic_store(&offered[me], NULL);
		/* The waker may hold the address still: it uses it under lock. */
		lock(&contended);
		if (!noteunlink(&list, &n)) {
			cr_assert(wokenup(&n));
			ended[me]++;
		}
		memset(&n, 0xff, sizeof(n));
		n.linked = false;
		unlock(&contended);
	}
	return NULL;
}

static void *wakesome(void *arg)
{
	Rand r = {77};
	int64_t next;

	(void)arg;
	while (!atomic_load(&stop)) {
		Note *n;

		lock(&contended);
		n = atomic_load(&offered[rnd(&r) % Sleepers]);
		if (n != NULL)
			notelistwakeup(&list, n);
		unlock(&contended);
		notecheck(&list, nanotime(), &next);
	}
	return NULL;
}

Test(notelist, each_note_ends_once_under_races, .timeout = 60)
{
	pthread_t t[Sleepers], waker;

	notelistinit(&list);
	pthread_create(&waker, NULL, wakesome, NULL);
	for (int i = 0; i < Sleepers; i++)
		pthread_create(&t[i], NULL, nap, (void *)(intptr_t)i);
	for (int i = 0; i < Sleepers; i++)
		pthread_join(t[i], NULL);
	atomic_store(&stop, true);
	pthread_join(waker, NULL);
	cr_assert_eq(list.n, 0);
	for (int i = 0; i < Sleepers; i++)
		cr_assert_gt(ended[i], 0);
}
