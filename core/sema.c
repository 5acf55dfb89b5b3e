/*
 * sema.c - waiting by address.
 *
 * The problem: mutexes, condition variables, semaphores, futexes of unmodified
 * programs need queues of waiters, but their objects have no room for one and
 * no moment at which they are created or destroyed. So, as in Go, the queues
 * live here, found by the object's address, and exist only while somebody
 * waits.
 *
 * A waiter is a Sudog on the waiter's own stack. A hash table of many small buckets
 * leads to one Sudog per address, the head, which chains to the heads of other
 * addresses in the bucket and leads the first-in-first-out list of its own.
 * So 100,000 waiters on one address cost the same as one, and so do 100,000
 * addresses with one each. (Go balances a treap in each of 251 buckets; with
 * a bucket per 16 bytes of a megabyte that nobody touches until it is used,
 * chains are short enough.)
 *
 * Who takes a waiter out of the queue, exactly once, always under the
 * bucket's lock:
 *  - semaready, having won the wakeclaim of a goroutine. Nothing of the Sudog
 *    may be touched after its goready: the stack goes on;
 *  - the waiter itself, when its deadline or an interrupt woke it: those win
 *    the wakeclaim without the lock, and readied it. It takes the lock, and
 *    if it is still queued takes itself out and calls leave();
 *  - semaready again, when it meets such a waiter before that one got the
 *    lock: it does both on its behalf, so that nobody who looks at the queue
 *    meets a waiter that cannot be woken. The waiter is held up by the lock.
 * A pick function may be stateful ("one writer, or readers only"), so it must
 * not say yes to somebody who then turns out to be leaving: semaready claims
 * first, asks then, and gives the claim back when the answer is no. A deadline
 * or interrupt that came in between has failed to claim and will not come
 * again; semaready makes good for it (unclaim).
 *
 * Foreign kernel threads wait on a futex word in their Sudog, and change state
 * under the lock only. They sleep with the caller's own signal mask.
 */
#include "runtime.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>

struct Sudog {
	const void *_Atomic addr; /* written under the lock of its bucket (semarequeue: of both) */
	/* Under that lock, while queued. */
	bool queued;
	Sudog *next, *prev;         /* waiters of addr */
	Sudog *nextaddr, *prevaddr; /* heads in the bucket; heads only */
	Sudog *tail;                /* heads only */
	int n;                      /* in the list; heads only */
	/* Constant while queued. */
	G *gp; /* NULL: a foreign thread */
	void (*leave)(void *arg);
	void *arg;
	uint64_t tag;
	int64_t deadline;
	_Atomic uint32_t woken; /* futex of a foreign thread */
};

typedef struct Bucket {
	Lock lock;
	Sudog *heads;
} Bucket;

enum { BucketBits = 16, Buckets = 1 << BucketBits };

/* In place from the start: programs lock before the scheduler runs. Ranks are
 * for debug builds; elsewhere the table shall cost no pages. */
#ifdef GOSHIM_DEBUG
static Bucket firstbuckets[Buckets] = {[0 ... Buckets - 1] = {.lock = LOCK_INIT(RankSema)}};
#else
static Bucket firstbuckets[Buckets];
#endif
static Bucket *buckets = firstbuckets;

static Bucket *bucketof(const void *addr)
{
	return &buckets[(uintptr_t)addr * 0x9e3779b97f4a7c15ULL >> (64 - BucketBits)];
}

/* --- the queues, under the bucket's lock ---------------------------------------- */

static Sudog *headof(Bucket *b, const void *addr)
{
	Sudog *s = b->heads;

	while (s != NULL && atomic_load_explicit(&s->addr, memory_order_relaxed) != addr)
		s = s->nextaddr;
	return s;
}

/* s takes the place of `old` among the heads (NULL: a new one). */
static void becomehead(Bucket *b, Sudog *s, Sudog *old)
{
	s->nextaddr = old != NULL ? old->nextaddr : b->heads;
	s->prevaddr = old != NULL ? old->prevaddr : NULL;
	if (s->nextaddr != NULL)
		s->nextaddr->prevaddr = s;
	if (s->prevaddr != NULL)
		s->prevaddr->nextaddr = s;
	else
		b->heads = s;
}

static void enqueue(Bucket *b, Sudog *s, const void *addr, bool lifo)
{
	Sudog *head = headof(b, addr);

	atomic_store_explicit(&s->addr, addr, memory_order_relaxed);
	s->queued = true;
	s->next = s->prev = NULL;
	if (head == NULL) {
		s->tail = s;
		s->n = 1;
		becomehead(b, s, NULL);
	} else if (lifo) {
		s->tail = head->tail;
		s->n = head->n + 1;
		becomehead(b, s, head);
		s->next = head;
		head->prev = s;
	} else {
		s->prev = head->tail;
		head->tail->next = s;
		head->tail = s;
		head->n++;
	}
}

static void dequeue(Bucket *b, Sudog *s)
{
	Sudog *head = headof(b, atomic_load_explicit(&s->addr, memory_order_relaxed));

	if (head == NULL || !s->queued)
		throw("semadequeue: waiter is not queued");
	s->queued = false;
	if (s != head) {
		s->prev->next = s->next;
		if (s->next != NULL)
			s->next->prev = s->prev;
		else
			head->tail = s->prev;
		head->n--;
	} else if (s->next != NULL) {
		s->next->tail = s->tail;
		s->next->n = s->n - 1;
		s->next->prev = NULL;
		becomehead(b, s->next, s);
	} else {
		if (s->nextaddr != NULL)
			s->nextaddr->prevaddr = s->prevaddr;
		if (s->prevaddr != NULL)
			s->prevaddr->nextaddr = s->nextaddr;
		else
			b->heads = s->nextaddr;
	}
	s->next = s->prev = NULL;
}

/* --- claims -------------------------------------------------------------------------- */

/* May the caller, who holds the bucket's lock, wake s? */
static bool claim(Sudog *s)
{
	return s->gp == NULL || wakeclaim(s->gp, WakeReady);
}

/*
 * Gives a claim back. What else wanted to wake the goroutine meanwhile has
 * found it claimed and gone away, so it is done here: after the exchange, a
 * deadline or interrupt that is still to come will find it armed.
 */
static void unclaim(Sudog *s)
{
	G *gp = s->gp;

	if (gp == NULL)
		return;
	atomic_store(&gp->waking, WakeArmed);
	if (s->deadline != FOREVER && nanotime() >= s->deadline && wakeclaim(gp, WakeTimeout))
		goready(gp, false);
	else if (atomic_load(&gp->parkintr) && atomic_load(&gp->intr) && wakeclaim(gp, WakeIntr))
		goready(gp, false);
}

/* Takes out a goroutine that woke by itself and waits for the lock. */
static void leaver(Bucket *b, Sudog *s)
{
	dequeue(b, s);
	if (s->leave != NULL)
		s->leave(s->arg);
}

/*
 * Takes up to n waiters of addr out, claimed and chosen by pick, and chains
 * them by next behind *tail, which moves. Returns how many.
 */
static int take(Bucket *b, const void *addr, int n, int (*pick)(void *arg, uint64_t tag), void *arg,
		Sudog ***tail)
{
	Sudog *s, *next;
	int answer, woken = 0;

	for (s = headof(b, addr); s != NULL && woken < n; s = next) {
		next = s->next;
		if (!claim(s)) {
			leaver(b, s);
			continue;
		}
		answer = pick != NULL ? pick(arg, s->tag) : 1;
		if (answer <= 0) {
			unclaim(s);
			if (answer < 0)
				break;
			continue;
		}
		dequeue(b, s);
		**tail = s;
		*tail = &s->next;
		woken++;
	}
	return woken;
}

/* Makes the chained ones run. Each may be gone as soon as it is readied. */
static void readyall(Sudog *s, int flags)
{
	bool next = (flags & ParkHandoff) != 0;
	Sudog *follower;

	for (; s != NULL; s = follower) {
		follower = s->next;
		if (s->gp != NULL) {
			goready(s->gp, next);
			/* One goes first; the next would push it back. */
			next = false;
			continue;
		}
		_Atomic uint32_t *woken = &s->woken;

		/* Release: pairs with the sleeper's acquire. */
		atomic_store_explicit(woken, 1, memory_order_release);
		futexwakeup(woken, 1);
	}
}

/* --- parking --------------------------------------------------------------------------- */

static bool unlockbucket(G *gp, void *l)
{
	(void)gp;
	unlock(l);
	return true;
}

/* The waiter woke by itself: true when semaready was quicker with it. */
static bool leavequeue(Sudog *s)
{
	Bucket *b;

	/* semarequeue may move it until the right lock is held. */
	for (;;) {
		b = bucketof(atomic_load_explicit(&s->addr, memory_order_relaxed));
		lock(&b->lock);
		if (b == bucketof(atomic_load_explicit(&s->addr, memory_order_relaxed)))
			break;
		unlock(&b->lock);
	}
	bool gone = !s->queued;

	if (!gone)
		leaver(b, s);
	unlock(&b->lock);
	return gone;
}

/* Sleeps until woken: 0, -ETIMEDOUT or, for a signal handler, -EINTR. */
static int foreignsleep(_Atomic uint32_t *woken, int64_t deadline)
{
	int64_t ts[2] = {deadline / 1000000000, deadline % 1000000000};
	long r = 0;

	while (atomic_load_explicit(woken, memory_order_acquire) == 0) {
		r = sys6(SYS_futex, (long)woken, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 0,
			 deadline == FOREVER ? 0 : (long)ts, 0, FUTEX_BITSET_MATCH_ANY);
		if (r == -ETIMEDOUT || r == -EINTR)
			return (int)r;
	}
	return 0;
}

static int foreignwait(Sudog *s, int64_t deadline, int flags)
{
	Section c;
	int r;

	for (;;) {
		r = foreignsleep(&s->woken, deadline);
		if (r == 0)
			return 0;
		if (r == -EINTR && (flags & ParkIntr) == 0)
			continue;
		c = sectionenter();
		if (!leavequeue(s)) {
			sectionleave(c);
			return r;
		}
		/* Chosen just now: the waker is still to write to s. */
		sectionleave(c);
		while (foreignsleep(&s->woken, FOREVER) != 0)
			;
		return 0;
	}
}

/* The caller's section and its lock on the bucket end with gopark. */
static int gowait(Sudog *s, Bucket *b, WaitReason why, int64_t deadline, int flags)
{
	Section c;
	uint32_t by;

	parkarm(s->gp, (flags & ParkIntr) != 0);
	s->gp->waitobj = (uintptr_t)atomic_load_explicit(&s->addr, memory_order_relaxed);
	by = gopark(unlockbucket, &b->lock, why, deadline);
	if (by == WakeReady)
		return 0;
	c = sectionenter();
	leavequeue(s);
	sectionleave(c);
	return by == WakeTimeout ? -ETIMEDOUT : -EINTR;
}

int semapark(const void *addr, bool (*check)(void *arg), void (*leavefn)(void *arg), void *arg,
	     uint64_t tag, WaitReason why, int64_t deadline, int flags)
{
	Section c = sectionenter();
	Bucket *b = bucketof(addr);
	Sudog s;
	int r = 0;

	lock(&b->lock);
	if (check != NULL && !check(arg)) {
		r = -EAGAIN;
	} else if (deadline != FOREVER && deadline <= nanotime()) {
		if (leavefn != NULL)
			leavefn(arg);
		r = -ETIMEDOUT;
	}
	if (r != 0) {
		unlock(&b->lock);
		sectionleave(c);
		return r;
	}
	s.gp = c.mp != NULL ? getg() : NULL;
	s.leave = leavefn;
	s.arg = arg;
	s.tag = tag;
	s.deadline = deadline;
	atomic_store_explicit(&s.woken, 0, memory_order_relaxed);
	enqueue(b, &s, addr, (flags & ParkLIFO) != 0);
	if (s.gp != NULL)
		return gowait(&s, b, why, deadline, flags);
	unlock(&b->lock);
	sectionleave(c);
	return foreignwait(&s, deadline, flags);
}

/* --- waking ------------------------------------------------------------------------------ */

int semaready(const void *addr, int n, int (*pick)(void *arg, uint64_t tag),
	      void (*done)(void *arg, int woken, int left), void *arg, int flags)
{
	Section c = sectionenter();
	Bucket *b = bucketof(addr);
	Sudog *list = NULL, **tail = &list, *head;
	int woken;

	lock(&b->lock);
	woken = take(b, addr, n, pick, arg, &tail);
	*tail = NULL;
	if (done != NULL) {
		head = headof(b, addr);
		done(arg, woken, head != NULL ? head->n : 0);
	}
	unlock(&b->lock);
	readyall(list, flags);
	sectionleave(c);
	if (woken > 0)
		yieldtowoken();
	return woken;
}

static void lockboth(Bucket *a, Bucket *b)
{
	lock(a < b ? &a->lock : &b->lock);
	if (a != b)
		lock(a < b ? &b->lock : &a->lock);
}

static void unlockboth(Bucket *a, Bucket *b)
{
	unlock(&a->lock);
	if (a != b)
		unlock(&b->lock);
}

int semarequeue(const void *from, const void *to, int nwake, int nmove, bool (*check)(void *arg),
		void *arg, int *moved)
{
	Section c = sectionenter();
	Bucket *bf = bucketof(from), *bt = bucketof(to);
	Sudog *list = NULL, **tail = &list, *s;
	int woken, n = 0;

	lockboth(bf, bt);
	if (check != NULL && !check(arg)) {
		unlockboth(bf, bt);
		sectionleave(c);
		return -EAGAIN;
	}
	woken = take(bf, from, nwake, NULL, NULL, &tail);
	*tail = NULL;
	/* Onto itself it would go round for ever, and nothing would change. */
	while (from != to && n < nmove && (s = headof(bf, from)) != NULL) {
		dequeue(bf, s);
		enqueue(bt, s, to, false);
		if (s->gp != NULL)
			s->gp->waitobj = (uintptr_t)to;
		n++;
	}
	unlockboth(bf, bt);
	if (moved != NULL)
		*moved = n;
	readyall(list, 0);
	sectionleave(c);
	if (woken > 0)
		yieldtowoken();
	return woken;
}

int semawaiters(const void *addr)
{
	Section c = sectionenter();
	Bucket *b = bucketof(addr);
	Sudog *head;
	int n;

	lock(&b->lock);
	head = headof(b, addr);
	n = head != NULL ? head->n : 0;
	unlock(&b->lock);
	sectionleave(c);
	return n;
}

/* --- sleeping ------------------------------------------------------------------------------ */

static int foreignnap(int64_t deadline, int flags)
{
	enum { ClockMonotonic = 1, TimerAbstime = 1 };
	int64_t ts[2] = {deadline / 1000000000, deadline % 1000000000};
	long r;

	do
		r = sys4(SYS_clock_nanosleep, ClockMonotonic, TimerAbstime, (long)ts, 0);
	while (r == -EINTR && (flags & ParkIntr) == 0);
	return r == -EINTR ? -EINTR : 0;
}

int gosleep(int64_t deadline, int flags)
{
	G *gp = getg();

	if (deadline < 0)
		deadline = 0;
	if (gp == NULL)
		return foreignnap(deadline, flags);
	if (deadline <= nanotime()) {
		/* Programs wait for each other in loops of short sleeps. */
		gosched();
		return 0;
	}
	acquirem(); /* gopark ends the section */
	parkarm(gp, (flags & ParkIntr) != 0);
	gp->waitobj = 0;
	return gopark(NULL, NULL, WaitSleep, deadline) == WakeIntr ? -EINTR : 0;
}

/* --- start and fork -------------------------------------------------------------------------- */

void semainit(void)
{
	/* Queues of before the start are valid: the table is in place from load on. */
}

/*
 * The waiters have vanished, and with them perhaps who held a lock. A new
 * table costs less than cleaning the old one, whose pages most children would
 * otherwise never touch.
 */
void semaforkchild(void)
{
	Bucket *fresh = sysalloc(sizeof(firstbuckets));

	if (fresh == NULL) {
		memset(buckets, 0, sizeof(firstbuckets));
		return;
	}
	if (buckets != firstbuckets)
		sysfree(buckets, sizeof(firstbuckets));
	buckets = fresh;
#ifdef GOSHIM_DEBUG
	for (int i = 0; i < Buckets; i++)
		lockinit(&buckets[i].lock, RankSema);
#endif
}
