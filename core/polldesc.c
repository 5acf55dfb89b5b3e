/*
 * polldesc.c - who waits for which descriptor.
 *
 * For each descriptor number a PollDesc with a counter of events
 * for each direction and a list of waiters. A wait has three steps: take a
 * ticket (the counter), try the operation, wait with the ticket. The wait
 * registers the descriptor and ends at once when the counter has moved. Since
 * an edge is reported for what is ready when a descriptor is added, and for
 * all that becomes ready later, nothing is lost between the steps.
 *
 * A registration is remembered until the number is closed, or becomes another file: to ask for it at each
 * wait (EEXIST) is 300 ns, and more with thousands of them. Only the kernel knows for certain, since inline system calls
 * close without our knowledge: so who has waited for a second is registered again by sysmon. A registration that
 * survived its descriptor (a duplicate lives on) makes at most spurious wakeups, which every
 * caller expects. One whose events nobody has waited for UNWANTED times in a row ends: the poller
 * would be woken for a goroutine that waits in the kernel itself by now.
 *
 * An event wakes all that wait for its direction, not one: how much is ready is
 * not known, edges that come together are reported once, and a waiter that
 * polls may not take anything.
 *
 * Waking a waiter: whoever wins its wakeclaim. A waiter may have tickets for
 * many descriptors and cannot hold all their locks while it parks. So it is
 * linked everywhere first, unclaimable; when it is parked, g0 makes it
 * claimable and looks at all counters once more for what came in between
 * (commit). gopark does not return before g0 is done, so the tickets, on the
 * waiter's stack, are there for as long.
 */
#include "netpoll.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

typedef struct PollWaiter PollWaiter;

struct PollDesc {
	Lock lock;
	/* Events so far by direction: Read, Write, Hup. Written under the lock. */
	_Atomic uint32_t seq[3];
	PollWaiter *waiters;       /* under the lock */
	_Atomic uint64_t when;     /* of the last event, as netpollwhen says */
	_Atomic uint32_t unwanted; /* events in a row that nobody waited for */
	/* What the number means: changes when a registration may have ended. Then events are
	 * counted, so that a ticket from before is no longer good. */
	_Atomic uint32_t meaning;
	_Atomic uint32_t registered; /* meaning + 1 when it was registered */
};

/* On the stack of the waiter, who links and unlinks it, under the lock of pd. */
struct PollWaiter {
	PollWaiter *next, *prev;
	PollDesc *pd;
	G *gp;
	int mode;
	int trust; /* that the descriptor is registered; sysmon counts it down, and makes sure */
};

enum {
	ChunkDescs = 256,
	MaxChunks = 4096,  /* descriptors beyond wait in the kernel */
	StackWaiters = 32, /* tickets of a wait without allocation */
	UNWANTED = 8,
	TRUST = 2, /* looks of sysmon */
	Directions = 3,
};

static struct {
	Lock lock;                          /* creation of chunks */
	PollDesc *_Atomic chunk[MaxChunks]; /* written under the lock, read without */
	_Atomic int32_t waiting;            /* goroutines in netpollwait */
	_Atomic bool trusting;              /* some wait without having asked the kernel */
} descs = {.lock = LOCK_INIT(RankNetpoll)};

int32_t netpollwaiters(void)
{
	return atomic_load_explicit(&descs.waiting, memory_order_relaxed);
}

bool netpollanywaiters(void)
{
	return atomic_load(&descs.waiting) > 0;
}

/* --- descriptors of the program -------------------------------------------------- */

static PollDesc *newchunk(_Atomic(PollDesc *) *slot)
{
	PollDesc *chunk;
	M *mp = acquirem();

	lock(&descs.lock);
	chunk = atomic_load_explicit(slot, memory_order_relaxed);
	if (chunk == NULL) {
		chunk = persistentalloc(ChunkDescs * sizeof(*chunk), 64);
		for (int i = 0; chunk != NULL && i < ChunkDescs; i++)
			lockinit(&chunk[i].lock, RankNetpoll);
		/* Pairs with the acquire in polldesc and netpoll. */
		atomic_store_explicit(slot, chunk, memory_order_release);
	}
	unlock(&descs.lock);
	releasem(mp);
	return chunk;
}

static PollDesc *polldesc(int fd)
{
	_Atomic(PollDesc *) *slot = &descs.chunk[fd / ChunkDescs];
	PollDesc *chunk = atomic_load_explicit(slot, memory_order_acquire);

	if (unlikely(chunk == NULL))
		chunk = newchunk(slot);
	return chunk == NULL ? NULL : &chunk[fd % ChunkDescs];
}

/* The events so far that a ticket for mode cares about. */
static uint32_t events(PollDesc *pd, int mode)
{
	uint32_t sum = 0;

	for (int i = 0; i < Directions; i++)
		if ((mode & 1 << i) != 0)
			sum += atomic_load(&pd->seq[i]);
	return sum;
}

int netpollticket(PollTicket *t, int fd, int mode)
{
	if (fd < 0)
		return -EBADF;
	if (fd >= MaxChunks * ChunkDescs)
		return -EPERM;
	t->pd = polldesc(fd);
	if (t->pd == NULL)
		return -ENOMEM;
	t->fd = fd;
	t->mode = mode;
	t->seq = events(t->pd, mode);
	return 0;
}

/* --- waking ------------------------------------------------------------------------ */

/* Counts events of the directions in mode, and claims who waits for them. */
static void wake(PollDesc *pd, int mode, Glist *list)
{
	lock(&pd->lock);
	for (int i = 0; i < Directions; i++)
		if ((mode & 1 << i) != 0)
			atomic_fetch_add(&pd->seq[i], 1);
	for (PollWaiter *w = pd->waiters; w != NULL; w = w->next) {
		if ((w->mode & mode) == 0 || !wakeclaim(w->gp, WakeReady))
			continue;
		w->gp->schedlink = NULL;
		*list->tail = w->gp;
		list->tail = &w->gp->schedlink;
		list->n++;
	}
	unlock(&pd->lock);
}

/*
 * An event is to be counted: for nobody, again? Then the registration ends, and all directions are
 * to be counted: a ticket that is taken later registers anew, and whoever has one sees that it is no
 * longer good.
 */
static bool unwanted(PollDesc *pd, int epfd, int fd)
{
	struct epoll_event none = {0};
	bool waits = __atomic_load_n(&pd->waiters, __ATOMIC_RELAXED) != NULL;
	uint32_t n = atomic_load_explicit(&pd->unwanted, memory_order_relaxed);

	if (likely(waits ? n == 0 : n < UNWANTED)) {
		if (!waits)
			atomic_store_explicit(&pd->unwanted, n + 1, memory_order_relaxed);
		return false;
	}
	atomic_store_explicit(&pd->unwanted, 0, memory_order_relaxed);
	if (waits)
		return false;
	sys4(SYS_epoll_ctl, epfd, EPOLL_CTL_DEL, fd, (long)&none);
	atomic_fetch_add(&pd->meaning, 1);
	return true;
}

void pollwakeall(Glist *list)
{
	for (int i = 0; i < MaxChunks; i++) {
		PollDesc *chunk = atomic_load_explicit(&descs.chunk[i], memory_order_acquire);

		for (int k = 0; chunk != NULL && k < ChunkDescs; k++) {
			atomic_fetch_add(&chunk[k].meaning, 1);
			wake(&chunk[k], PollAny, list);
		}
	}
}

void pollready(G *gp)
{
	G *next;

	for (; gp != NULL; gp = next) {
		next = gp->schedlink;
		gp->schedlink = NULL;
		goready(gp, false);
	}
}

static PollDesc *knowndesc(int fd)
{
	PollDesc *chunk = NULL;

	if (fd >= 0 && fd < MaxChunks * ChunkDescs)
		chunk = atomic_load_explicit(&descs.chunk[fd / ChunkDescs], memory_order_acquire);
	return chunk == NULL ? NULL : &chunk[fd % ChunkDescs];
}

void netpollmade(int fd)
{
	PollDesc *pd = knowndesc(fd);

	if (pd != NULL)
		atomic_fetch_add(&pd->meaning, 1);
}

void netpollclosed(int fd)
{
	Glist list = {NULL, &list.head, 0};
	PollDesc *pd = knowndesc(fd);

	if (pd == NULL)
		return;
	atomic_fetch_add(&pd->meaning, 1);
	/* Also if nobody waits: one that is about to may have the number already. */
	Section s = sectionenter();
	wake(pd, PollAny, &list);
	sectionleave(s);
	pollready(list.head);
}

void netpollhint(int fd)
{
	PollDesc *pd = knowndesc(fd);
	Glist list = {NULL, &list.head, 0};

	if (pd == NULL || __atomic_load_n(&pd->waiters, __ATOMIC_RELAXED) == NULL)
		return;
	/* Two that wake for one event are worse than one. */
	if (atomic_load_explicit(&sched.lastpoll, memory_order_relaxed) == 0 &&
	    !atomic_load_explicit(&sched.sysmonpolls, memory_order_relaxed))
		return;
	Section s = sectionenter();
	wake(pd, PollRead, &list);
	sectionleave(s);
	for (G *gp = list.head, *next; gp != NULL; gp = next) {
		next = gp->schedlink;
		gp->schedlink = NULL;
		goready(gp, true);
	}
}

/* --- waiting ----------------------------------------------------------------------- */

/* Makes sure of events: 0, 1 if that is from memory, or -errno. */
static int registerfd(PollDesc *pd, int fd)
{
	uint32_t meaning = atomic_load(&pd->meaning);
	int r;

	/* A wired goroutine may have descriptors of its own. */
	if (likely(atomic_load(&pd->registered) == meaning + 1) && getg()->lockedm == NULL)
		return 1;
	r = netpollask(fd);
	if (r == 0 && getg()->lockedm == NULL)
		atomic_store(&pd->registered, meaning + 1);
	return r;
}

static void linkwaiter(PollWaiter *w)
{
	PollDesc *pd = w->pd;

	w->prev = NULL;
	w->next = pd->waiters;
	if (w->next != NULL)
		w->next->prev = w;
	pd->waiters = w;
}

static void unlinkwaiter(PollWaiter *w)
{
	if (w->next != NULL)
		w->next->prev = w->prev;
	if (w->prev != NULL)
		w->prev->next = w->next;
	else
		w->pd->waiters = w->next;
}

/* For commit, on the waiter's stack. */
typedef struct PollWait {
	PollTicket *t;
	int n;
	int64_t deadline;
	bool trust;
} PollWait;

/* Has anything happened since the tickets were taken? */
static bool moved(const PollWait *w)
{
	for (int i = 0; i < w->n; i++)
		if (events(w->t[i].pd, w->t[i].mode) != w->t[i].seq)
			return true;
	return false;
}

/*
 * The unlockf of a wait: others may claim gp from now on. What happened
 * before, and found it unclaimable, is looked for here. False when there was
 * something, and gp is ours to run.
 */
static bool commit(G *gp, void *arg)
{
	PollWait *w = arg;

	/* Seq-cst: claimable before looking. The others count first, then claim. */
	atomic_store(&gp->waking, WakeArmed);
	if (moved(w))
		return !wakeclaim(gp, WakeReady);
	if (w->deadline != FOREVER && nanotime() >= w->deadline)
		return !wakeclaim(gp, WakeTimeout);
	if (gp->wantintr && atomic_load(&gp->intr))
		return !wakeclaim(gp, WakeIntr);
	return true;
}

/* Links the waiters w[0..n), parks, unlinks. */
static int wait(PollWait *pw, PollWaiter *w, WaitReason why, int flags)
{
	M *mp = acquirem(); /* gopark ends the section */
	G *gp = getg();
	uint32_t by;

	bump(&getp(mp)->nnetwaits);
	atomic_fetch_add(&descs.waiting, 1);
	parkarm(gp, (flags & ParkIntr) != 0);
	gp->waitobj = (uintptr_t)pw->t[0].fd;
	atomic_store(&gp->waking, WakeIdle);
	for (int i = 0; i < pw->n; i++) {
		w[i].pd = pw->t[i].pd;
		w[i].gp = gp;
		/* Errors and hang-ups concern everybody. */
		w[i].mode = pw->t[i].mode | PollHup;
		w[i].trust = pw->trust ? TRUST : 0;
		lock(&w[i].pd->lock);
		linkwaiter(&w[i]);
		unlock(&w[i].pd->lock);
	}
	by = gopark(commit, pw, why, pw->deadline);
	mp = acquirem();
	for (int i = 0; i < pw->n; i++) {
		lock(&w[i].pd->lock);
		unlinkwaiter(&w[i]);
		unlock(&w[i].pd->lock);
	}
	releasem(mp);
	atomic_fetch_sub(&descs.waiting, 1);
	return by == WakeReady ? 0 : by == WakeTimeout ? -ETIMEDOUT : -EINTR;
}

uint64_t netpollwhen(const PollTicket *t, int n)
{
	uint64_t first = 0;
	for (int i = 0; i < n; i++) {
		uint64_t when = t[i].mode == PollRead && events(t[i].pd, t[i].mode) != t[i].seq
				    ? atomic_load_explicit(&t[i].pd->when, memory_order_relaxed)
				    : 0;
		if (when && (!first || when < first))
			first = when;
	}
	return first;
}

static void *ticketmemory(void *old, int n, size_t each)
{
	M *mp = acquirem();
	void *p = NULL;

	if (old == NULL)
		p = runtime_alloc((size_t)n * each);
	else
		runtime_free(old, (size_t)n * each);
	releasem(mp);
	return p;
}

PollTicket *netpolltickets(int n)
{
	return ticketmemory(NULL, n, sizeof(PollTicket));
}

void netpollticketsfree(PollTicket *t, int n)
{
	ticketmemory(t, n, sizeof(*t));
}

int netpollwait(PollTicket *t, int n, int64_t deadline, WaitReason why, int flags)
{
	PollWaiter few[StackWaiters], *w = few;
	PollWait pw = {t, n, deadline, false};
	int r;

	if (getg() == NULL)
		return -EPERM;
	if (n <= 0) {
		r = gosleep(deadline, flags);
		return r < 0 ? r : -ETIMEDOUT;
	}
	if (deadline != FOREVER && deadline <= nanotime())
		return -ETIMEDOUT;
	for (int i = 0; i < n; i++) {
		r = registerfd(t[i].pd, t[i].fd);
		if (r < 0)
			return r;
		pw.trust |= r > 0;
	}
	if (pw.trust && !atomic_load_explicit(&descs.trusting, memory_order_relaxed) &&
	    !atomic_exchange(&descs.trusting, true))
		wakesysmon();
	if (n > StackWaiters) {
		w = ticketmemory(NULL, n, sizeof(*w));
		if (w == NULL)
			return -ENOMEM;
	}
	r = moved(&pw) ? 0 : wait(&pw, w, why, flags);
	if (w != few)
		ticketmemory(w, n, sizeof(*w));
	return r;
}

/* Asks the kernel for those who wait for pd; true if some are to be asked for later. */
static bool verify(PollDesc *pd, int fd, Glist *list)
{
	bool later = false, now = false;
	int r = 0;

	lock(&pd->lock);
	for (PollWaiter *w = pd->waiters; w != NULL; w = w->next) {
		now |= w->trust == 1;
		later |= w->trust > 1;
		w->trust -= w->trust > 0;
	}
	unlock(&pd->lock);
	/* It may have come to mean something else meanwhile: that harms nobody. */
	if (now)
		r = netpollask(fd);
	if (r < 0) { /* closed; they will see */
		atomic_fetch_add(&pd->meaning, 1);
		wake(pd, PollAny, list);
	}
	return later;
}

bool netpollverify(void)
{
	Glist list = {NULL, &list.head, 0};
	bool later = false;

	if (!atomic_exchange(&descs.trusting, false))
		return false;
	for (int i = 0; i < MaxChunks; i++) {
		PollDesc *chunk = atomic_load_explicit(&descs.chunk[i], memory_order_acquire);

		for (int k = 0; chunk != NULL && k < ChunkDescs; k++)
			if (__atomic_load_n(&chunk[k].waiters, __ATOMIC_RELAXED) != NULL)
				later |= verify(&chunk[k], i * ChunkDescs + k, &list);
	}
	if (later)
		atomic_store(&descs.trusting, true);
	injectglist(list.head, list.n);
	return later;
}

bool netpolltrusts(void)
{
	return atomic_load_explicit(&descs.trusting, memory_order_relaxed);
}

bool pollevent(int epfd, uint64_t fd, int mode, uint64_t when, Glist *list)
{
	PollDesc *pd = fd < MaxChunks * ChunkDescs ? knowndesc((int)fd) : NULL;

	if (pd == NULL)
		return false;
	if (mode & (PollRead | PollHup))
		atomic_store_explicit(&pd->when, when, memory_order_relaxed);
	wake(pd, unwanted(pd, epfd, (int)fd) ? PollAny : mode, list);
	return true;
}

void polldescforkchild(void)
{
	lockinit(&descs.lock, RankNetpoll);
	atomic_store(&descs.waiting, 0);
	for (int i = 0; i < MaxChunks; i++)
		if (atomic_load_explicit(&descs.chunk[i], memory_order_relaxed) != NULL)
			atomic_store_explicit(&descs.chunk[i], NULL, memory_order_relaxed);
}
