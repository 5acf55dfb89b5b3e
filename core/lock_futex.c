/*
 * lock_futex.c - runtime locks and notes.
 *
 * The problem: the runtime needs mutual exclusion and one-time events below
 * the scheduler, where nothing can be parked, on kernel threads that may own
 * no goroutine at all. The kernel's futex gives both with one word and no
 * call when nobody waits.
 *
 * A lock is held for a few hundred instructions, so a contender spins a
 * little, yields once, and only then sleeps. The three values (free, held,
 * held with sleepers) let unlock skip the kernel unless somebody may sleep.
 * Having slept, a thread takes the lock as "held with sleepers" even when it
 * was the last: one wakeup too many, where one too few would hang. Ticket or
 * queued locks were rejected: fairness costs a hand-over to a thread that the
 * kernel may not be running, and nothing here waits long enough to need it.
 *
 * A note is a lock that is handed over once: a word that goes from 0 to 1. The
 * waker's last access to the note is the exchange; the kernel is given the
 * bare address after it, so that a sleeper may return and reuse the memory.
 * For a list of notes the same holds by a stronger rule: the list's lock
 * covers unlinking and waking, so a sleeper that has taken its note off the
 * list (noteunlink, either answer) is alone with it.
 *
 * Lock order is checked in debug builds: each M (a foreign thread: itself)
 * keeps the locks that it holds, because gopark lets g0 release what the
 * goroutine has taken, under another thread block.
 */
#include "lock.h"

#include "api.h"
#include "arch/x86_64/arch.h"
#include "os.h"

enum { KeyFree, KeyHeld, KeySleepers };
enum { ActiveSpins = 4, ActivePauses = 30, PassiveSpins = 1 };

void lockinit(Lock *l, LockRank rank)
{
	atomic_store_explicit(&l->key, KeyFree, memory_order_relaxed);
	l->rank = rank;
}

#ifdef GOSHIM_DEBUG

/* For hosts without Ms: the thread block serves, as nothing switches it. */
__attribute__((weak)) HeldLocks *heldlocks(void)
{
	static __thread HeldLocks held __attribute__((tls_model("initial-exec")));

	return &held;
}

/* Before waiting, so that a deadlock is reported and not suffered. */
static void checkrank(Lock *l)
{
	HeldLocks *h = heldlocks();

	if (l->rank == RankUnranked)
		return;
	for (int i = 0; i < h->n; i++) {
		Lock *o = h->l[i];

		if (o == l)
			throw("lock: already held by this M");
		if (o->rank > l->rank)
			throw("lock: rank order violated");
		if (o->rank == l->rank && !(lockranknests(l->rank) && o < l))
			throw("lock: equal ranks nested");
	}
}

static void noteheld(Lock *l)
{
	HeldLocks *h = heldlocks();

	if (l->rank == RankUnranked)
		return;
	if (h->n == (int)nelem(h->l))
		throw("lock: too many locks held");
	h->l[h->n++] = l;
}

static void noteunheld(Lock *l)
{
	HeldLocks *h = heldlocks();

	if (l->rank == RankUnranked)
		return;
	for (int i = h->n - 1; i >= 0; i--) {
		if (h->l[i] != l)
			continue;
		for (h->n--; i < h->n; i++)
			h->l[i] = h->l[i + 1];
		return;
	}
	throw("unlock: lock not held by this M");
}

#else

static inline void checkrank(Lock *l)
{
	(void)l;
}

static inline void noteheld(Lock *l)
{
	(void)l;
}

static inline void noteunheld(Lock *l)
{
	(void)l;
}

#endif

/* Is there a second CPU whose thread could free the lock while we spin? */
static bool worthspinning(void)
{
	static _Atomic int cpus;
	int n = atomic_load_explicit(&cpus, memory_order_relaxed);

	if (unlikely(n == 0)) {
		n = naffinity();
		atomic_store_explicit(&cpus, n, memory_order_relaxed);
	}
	return n > 1;
}

/* Takes the lock with the value `as` if it is seen free. */
static bool take(Lock *l, uint32_t as)
{
	uint32_t expected = KeyFree;

	return atomic_load_explicit(&l->key, memory_order_relaxed) == KeyFree &&
	       atomic_compare_exchange_strong_explicit(&l->key, &expected, as, memory_order_acquire,
						       memory_order_relaxed);
}

static noinline_fn void lock_slow(Lock *l)
{
	uint32_t as = KeyHeld;
	int spins = worthspinning() ? ActiveSpins : 0;

	for (;;) {
		for (int i = 0; i < spins; i++) {
			if (take(l, as))
				return;
			for (int k = 0; k < ActivePauses; k++)
				procyield();
		}
		for (int i = 0; i < PassiveSpins; i++) {
			if (take(l, as))
				return;
			osyield();
		}
		/* Pairs with the release in unlock. */
		if (atomic_exchange_explicit(&l->key, KeySleepers, memory_order_acquire) == KeyFree)
			return;
		as = KeySleepers;
		futexsleep(&l->key, KeySleepers, -1);
	}
}

void lock(Lock *l)
{
	uint32_t expected = KeyFree;

	checkrank(l);
	/* Pairs with the release in unlock. */
	if (unlikely(!atomic_compare_exchange_strong_explicit(&l->key, &expected, KeyHeld,
							      memory_order_acquire,
							      memory_order_relaxed)))
		lock_slow(l);
	noteheld(l);
}

bool trylock(Lock *l)
{
	if (!take(l, KeyHeld))
		return false;
	/* A try cannot deadlock, so its order is free. */
	noteheld(l);
	return true;
}

void unlock(Lock *l)
{
	uint32_t v;

	noteunheld(l);
	v = atomic_exchange_explicit(&l->key, KeyFree, memory_order_release);
	if (unlikely(v == KeyFree))
		throw("unlock: unlock of unlocked lock");
	if (unlikely(v == KeySleepers))
		futexwakeup(&l->key, 1);
}

/* --- notes ---------------------------------------------------------------- */

void noteclear(Note *n)
{
	atomic_store_explicit(&n->key, 0, memory_order_relaxed);
	n->linked = false;
}

void notewakeup(Note *n)
{
	/* Pairs with the acquire in notetsleep: what was written before the
	 * wakeup is seen after the sleep. */
	if (atomic_exchange_explicit(&n->key, 1, memory_order_release) != 0)
		throw("notewakeup - double wakeup");
	futexwakeup(&n->key, 1);
}

static bool woken(Note *n)
{
	return atomic_load_explicit(&n->key, memory_order_acquire) != 0;
}

void notesleep(Note *n)
{
	while (!woken(n))
		futexsleep(&n->key, 0, -1);
}

bool notetsleep(Note *n, int64_t ns)
{
	int64_t deadline, now;

	if (woken(n))
		return true;
	if (ns < 0) {
		notesleep(n);
		return true;
	}
	now = nanotime();
	deadline = ns > FOREVER - now ? FOREVER : now + ns;
	for (; now < deadline; now = nanotime()) {
		futexsleep(&n->key, 0, deadline - now);
		if (woken(n))
			return true;
	}
	return woken(n);
}

/* --- notes with deadlines -------------------------------------------------- */

void notelistinit(NoteList *l)
{
	lockinit(&l->lock, RankNoteList);
	l->head = NULL;
	l->n = 0;
}

void notelink(NoteList *l, Note *n, int64_t deadline)
{
	lock(&l->lock);
	if (n->linked)
		throw("notelink: note is linked already");
	n->linked = true;
	n->deadline = deadline;
	n->prev = NULL;
	n->next = l->head;
	if (l->head != NULL)
		l->head->prev = n;
	l->head = n;
	l->n++;
	unlock(&l->lock);
}

static void unlink_locked(NoteList *l, Note *n)
{
	if ((n->prev != NULL ? n->prev->next : l->head) != n)
		throw("noteunlink: note is in another list");
	if (n->prev != NULL)
		n->prev->next = n->next;
	else
		l->head = n->next;
	if (n->next != NULL)
		n->next->prev = n->prev;
	n->linked = false;
	l->n--;
}

bool noteunlink(NoteList *l, Note *n)
{
	bool was;

	lock(&l->lock);
	was = n->linked;
	if (was)
		unlink_locked(l, n);
	unlock(&l->lock);
	return was;
}

bool notelistwakeup(NoteList *l, Note *n)
{
	bool was;

	lock(&l->lock);
	was = n->linked;
	if (was) {
		unlink_locked(l, n);
		notewakeup(n);
	}
	unlock(&l->lock);
	return was;
}

int notecheck(NoteList *l, int64_t now, int64_t *next)
{
	Note *n, *follower;
	int woke = 0;

	*next = FOREVER;
	lock(&l->lock);
	for (n = l->head; n != NULL; n = follower) {
		/* Once woken, n may be gone as soon as the lock is free, but
		 * not before: its sleeper must take the lock to be sure. */
		follower = n->next;
		if (n->deadline > now) {
			if (n->deadline < *next)
				*next = n->deadline;
			continue;
		}
		unlink_locked(l, n);
		notewakeup(n);
		woke++;
	}
	unlock(&l->lock);
	return woke;
}
