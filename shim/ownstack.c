/*
 * ownstack.c - threads on stacks of the program's own.
 *
 * A program may give a stack to its next thread as soon as the one before has ended. Of a detached thread nobody is told
 * when that is; many take a last sign of it for the end (a semaphore that it posts), and are right natively but for
 * a microsecond. Here such a thread may be preempted after the sign, for as long as others run. So
 * whoever gives its stack away again waits until it has left it, for a second at most.
 */
#include "sync.h"
#include "thread.h"

enum { NAP = 50000, PATIENCE = 1000000000 /* ns */ };

/* Threads that are not off such a stack yet. */
static struct {
	SpinLock lock;
	Thread *head;
} users;

static bool inuse(uintptr_t lo, uintptr_t hi)
{
	bool is = false;
	Section s = spinlock(&users.lock);
	for (Thread *th = users.head; th && !is; th = th->nextuser)
		is = th->stack.lo < hi && lo < th->stack.hi;
	spinunlock(&users.lock, s);
	return is;
}

void ownstackwait(uintptr_t lo, uintptr_t hi)
{
	int64_t until = nanotime() + PATIENCE;
	while (inuse(lo, hi) && nanotime() < until)
		gosleep(nanotime() + NAP, 0);
}

void ownstacktake(Thread *th)
{
	Section s = spinlock(&users.lock);
	th->nextuser = users.head;
	users.head = th;
	spinunlock(&users.lock, s);
}

void ownstackleave(Thread *th)
{
	Section s = spinlock(&users.lock);
	for (Thread **at = &users.head; *at; at = &(*at)->nextuser) {
		if (*at == th) {
			*at = th->nextuser;
			break;
		}
	}
	spinunlock(&users.lock, s);
}

void ownstackforkchild(void)
{
	atomic_store(&users.lock, 0);
	users.head = NULL;
}
