/*
 * deadlock.c - goroutines that wait for each other's locks.
 *
 * Who is about to wait without a deadline for a lock that has one owner puts its wait into a table, by
 * its own thread id, and then follows the owners: whoever has the lock, if it waits itself,
 * and whoever has what that one waits for. Where this leads back to the caller nobody on the way can go on. Only a wait
 * can close a cycle, since who waits locks nothing, so that is the only place to look; who doesn't
 * have to wait pays nothing.
 *
 * Why what is found is true, though nothing stands still: waits are numbered when they
 * begin, and the caller follows only those that began before its own. Such a wait, found in the table, has lasted from
 * before the walk until then. An owner that waits can't have come by the lock since its wait began,
 * so it had the lock at the beginning of the walk already. So at that time all of the cycle was there. Of those that
 * close it together the one with the last number sees all others.
 *
 * Why it lasts: the owner does nothing but wait, and nobody else gives up its locks. What POSIX leaves undefined, and
 * a program might do nevertheless, is that
 *  - another thread unlocks a mutex that is not recursive and does not check, or a rwlock. In a program that was seen
 *    doing that while somebody waited, cycles of such locks prove nothing any more. And who locks its own mutex
 *    again may do so just because another will unlock it: that is believed to be a mistake only
 *    of a mutex that was unlocked by its holder before, while others waited for it;
 *  - a signal handler that comes in the wait unlocks something, or leaves by a jump.
 * A thread whose cancellation is asynchronous may end at any moment: its waits are not in the table. Nor are those for locks
 * whose holders aren't known or aren't only this process's: of readers, shared, robust, priority inheriting.
 */
#include "cancel.h"
#include "sync.h"
#include "thread.h"
#include "unwind.h"

#include <stdatomic.h>

enum { Buckets = 4096, TracedMax = 32 };

static struct {
	SpinLock lock;
	LockWait *_Atomic first;
} table[Buckets];

static _Atomic uint64_t lastwait;
static _Atomic bool handed; /* locks are unlocked by others than their owners */

void lockhanded(void)
{
	if (getg())
		atomic_store_explicit(&handed, true, memory_order_relaxed);
}

void deadlockforkchild(void)
{
	if (atomic_load(&lastwait))
		memset(table, 0, sizeof table);
	atomic_store(&lastwait, 0);
	atomic_store(&handed, false);
}

/* --- the table ---------------------------------------------------------------------- */

static void enter(LockWait *w)
{
	uint32_t b = w->tid % Buckets;
	Section s = spinlock(&table[b].lock);
	w->prev = NULL;
	w->next = atomic_load_explicit(&table[b].first, memory_order_relaxed);
	if (w->next)
		w->next->prev = w;
	atomic_store_explicit(&table[b].first, w, memory_order_relaxed);
	spinunlock(&table[b].lock, s);
}

static void leave(LockWait *w)
{
	uint32_t b = w->tid % Buckets;
	Section s = spinlock(&table[b].lock);
	if (w->next)
		w->next->prev = w->prev;
	if (w->prev)
		w->prev->next = w->next;
	else
		atomic_store_explicit(&table[b].first, w->next, memory_order_relaxed);
	spinunlock(&table[b].lock, s);
}

/* A wait as it is in the table, and what may be read only while it is there. */
typedef struct Edge {
	LockWait wait;
	uint32_t owner;
	int64_t goid;
} Edge;

/* What the thread waits for; false: it doesn't. known: its wait is now part of this cycle. */
static bool waitof(uint32_t tid, Edge *e, uint64_t cycle)
{
	uint32_t b = tid % Buckets;
	if (!atomic_load_explicit(&table[b].first, memory_order_relaxed))
		return false;
	Section s = spinlock(&table[b].lock);
	LockWait *w = atomic_load_explicit(&table[b].first, memory_order_relaxed);
	while (w && w->tid != tid)
		w = w->next;
	if (w) {
		e->wait = *w;
		/* The lock is there as long as somebody waits for it. */
		e->owner = atomic_load_explicit(w->owner, memory_order_relaxed);
		e->goid = goid(w->th->gp);
		if (cycle)
			w->cycle = cycle;
	}
	spinunlock(&table[b].lock, s);
	return w != NULL;
}

/* --- finding ------------------------------------------------------------------------ */

/* Do the owners lead from w back to w, and is that for ever? Over how many waits; 0: no. */
static int closes(const LockWait *w)
{
	uint32_t tid = atomic_load_explicit(w->owner, memory_order_relaxed), seen = 0;
	bool strict = w->strict;
	int n = 1;
	Edge e;
	if (tid == w->tid && !w->relock)
		return 0;
	for (; tid != w->tid; n++) {
		/* In another cycle one comes round to where one was at some power of two. */
		if (tid == 0 || tid == seen || !waitof(tid, &e, 0) || e.wait.number > w->number)
			return 0;
		if ((n & (n - 1)) == 0)
			seen = tid;
		strict &= e.wait.strict;
		tid = e.owner;
	}
	return strict || !atomic_load_explicit(&handed, memory_order_relaxed) ? n : 0;
}

/* --- reporting ---------------------------------------------------------------------- */

static const char *kindname(const LockWait *w)
{
	return w->why == WaitMutex ? "mutex" : "rwlock";
}

/* Marks the n waits of w's cycle: false if they are those of a cycle that was reported, which a
 * signal handler has only interrupted. */
static bool isnew(const LockWait *w, int n)
{
	uint64_t before = w->cycle;
	uint32_t tid = w->tid;
	bool new = before == 0;
	Edge e;
	for (int i = 0; i < n; i++) {
		if (!waitof(tid, &e, w->number))
			return false;
		new |= e.wait.cycle != before;
		tid = e.owner;
	}
	return new;
}

static noinline_fn void report(const LockWait *w, int total)
{
	KEEP_ERRNO;
	CircleWait circle[TracedMax + 1];
	uint32_t tid = w->tid;
	int n = 0;
	Edge e;
	gosetwait(w->why);
	entersyscall();
	if (isnew(w, total)) {
		for (; n < total && n <= TracedMax && waitof(tid, &e, 0); n++) {
			circle[n] = (CircleWait){.id = e.goid,
						 .kind = kindname(&e.wait),
						 .lock = e.wait.lock};
			tid = e.owner;
		}
		n -= n > 0 && n < total;
		tracebackcircle(2, circle, (size_t)n, (size_t)total);
		deadlockfound();
	}
	exitsyscall();
	gosetwait(WaitNone);
}

/* --- waiting ------------------------------------------------------------------------ */

void lockwait(LockWait *w)
{
	Thread *th = curthread();
	if (w->tid || !th || !deadlockwanted() || (selfcancelword() & CancelAsync))
		return;
	w->th = th;
	w->tid = selftid();
	w->number = atomic_fetch_add(&lastwait, 1) + 1;
	enter(w);
	/* Of two that close a cycle together one sees the other. */
	atomic_thread_fence(memory_order_seq_cst);
	int n = closes(w);
	if (unlikely(n))
		report(w, n);
}

void lockwaitends(LockWait *w)
{
	if (w->tid)
		leave(w);
	w->tid = 0;
}

/* --- for others that ask ------------------------------------------------------------- */

/* It may be gone by now: nothing is believed. */
uint32_t lockowner(uintptr_t lock, WaitReason why)
{
	uint32_t tid;
	uintptr_t at = lock + (why == WaitMutex ? offsetof(pthread_mutex_t, __data.__owner)
						: offsetof(pthread_rwlock_t, __data.__cur_writer));
	bool has = why == WaitMutex || why == WaitRWMutexR || why == WaitRWMutexW;
	return has && peek(at, &tid, sizeof tid) ? tid : 0;
}
