/*
 * flightlook.c - the flight recorder's look at who is in the way while somebody waits (flight.c).
 *
 * When a wait is over it is too late to ask what its cause does. So sysmon looks at all goroutines every quarter of the
 * limit, and of a wait that has lasted for half of it the stacks of who is in the way are taken: of the lock's holder, and of
 * whom that one waits for in turn, of those who run, of who serves the request. They are kept as text for a
 * while, since most waits end within the limit. The report of one that did not has what was taken in its time.
 *
 * sysmon only chooses; making tracebacks lasts, and is done by an M without a P (shim/dump.c). One look at a time: what
 * it is of is sysmon's to write until it is wanted, and then that M's until it is not any more.
 *
 * A look is of a lock, not of who waits for it: all who wait for the same share it, as all do who wait for a processor.
 */
#include "flight.h"

#include "report.h"

enum {
	LOOKS = 8,          /* are kept */
	SIZE = 12 << 10,    /* bytes of text each; what is more is cut off */
	SHORTEST = 1000000, /* ns between two looks, */
	SHARE = 20,         /* ... and so many times what the last one took */
	CHAIN = 4,          /* holders that wait for others, */
	RUNNING = 8,        /* runners that are told of */
};

typedef struct Look {
	StallKind kind;
	WaitReason why;
	uintptr_t key; /* of a lock its address, of a request who serves it */
	uint64_t at;   /* ticks; 0: none */
	Text text;
	char buf[SIZE];
} Look;

static Look looks[LOOKS];
static unsigned current; /* the last that was chosen */
static _Atomic bool wanted;
static int64_t next; /* ns: when sysmon looks again */

/* --- choosing --------------------------------------------------------------------------- */

static bool sameof(const Look *l, StallKind kind, uintptr_t key)
{
	return l->at && l->kind == kind && (kind == StallQueue || l->key == key);
}

/* Has what began then been looked at since? */
static const Look *lookin(StallKind kind, uintptr_t key, uint64_t began, uint64_t ended)
{
	const Look *found = NULL;
	for (unsigned i = 0; i < LOOKS; i++)
		if (sameof(&looks[i], kind, key) && (int64_t)(looks[i].at - began) > 0 &&
		    (int64_t)(ended - looks[i].at) >= 0 &&
		    (!found || (int64_t)(looks[i].at - found->at) < 0))
			found = &looks[i];
	return found;
}

/* The wait of gp that may become too long: since when; 0: none. */
static uint64_t waitof(G *gp, Look *l)
{
	GStatus s = readgstatus(gp);
	l->why = gp->waitreason;
	if (s == Grunnable) {
		l->kind = StallQueue;
		return gp->since;
	}
	if (s != Gwaiting || !flightlock(l->why))
		return 0;
	l->kind = StallLock;
	l->key = gp->waitobj;
	return gp->since;
}

/* Shall it be looked at, as of the moment `now`, in ticks? */
static bool due(const Look *l, uint64_t began, uint64_t now, uint64_t half)
{
	return began && (int64_t)(now - began) >= (int64_t)half &&
	       !lookin(l->kind, l->key, began, now);
}

/* Of those that are due the one that has waited least: the others had their turn, or will. */
static bool choose(Look *best, uint64_t now, uint64_t half)
{
	uint64_t latest = 0;
	for (G *gp = atomic_load(&sched.allg); gp; gp = gp->alllink) {
		Look l = {.key = 0};
		uint64_t began = waitof(gp, &l);
		if (!due(&l, began, now, half)) {
			began = requestbegan(gp);
			l.kind = StallRequest;
			l.key = (uintptr_t)gp->goid;
			if (!due(&l, began, now, half))
				continue;
		}
		if (latest && (int64_t)(began - latest) <= 0)
			continue;
		latest = began;
		best->kind = l.kind;
		best->why = l.why;
		best->key = l.key;
	}
	return latest != 0;
}

int64_t flightlook(int64_t now)
{
	if (flightlimit == UINT64_MAX)
		return FOREVER;
	if (now < next || atomic_load_explicit(&wanted, memory_order_acquire))
		return now < next ? next : now + SHORTEST;
	Look *l = &looks[(current + 1) % LOOKS];
	Look best = {.at = 0};
	if (choose(&best, ticksnow(), nsticks(debug.flight / 2))) {
		current = (current + 1) % LOOKS;
		l->at = 0;
		l->kind = best.kind;
		l->why = best.why;
		l->key = best.key;
		atomic_store_explicit(&wanted, true, memory_order_release);
	}
	int64_t took = nanotime() - now;
	int64_t pause = debug.flight / 4 > SHORTEST ? debug.flight / 4 : SHORTEST;
	next = now + (pause > SHARE * took ? pause : SHARE * took);
	return next;
}

/* --- taking ------------------------------------------------------------------------------- */

/* Who has the lock; NULL: nobody, or it isn't known. */
static G *holderof(uintptr_t lock, WaitReason why)
{
	uint32_t tid = host.lockowner(lock, why);
	for (G *gp = atomic_load(&sched.allg); tid && gp; gp = gp->alllink) {
		GStatus s = readgstatus(gp);
		if (s != Gidle && s != Gdead && host.threadid(gp) == tid)
			return gp;
	}
	return NULL;
}

/* What gp does; true, and which, if it waits for a lock itself. */
static bool tellone(G *gp, uintptr_t *lock, WaitReason *why)
{
	bool waits = readgstatus(gp) == Gwaiting && flightlock(gp->waitreason);
	*lock = gp->waitobj;
	*why = gp->waitreason;
	if (!reportgoroutine(gp->goid) || !waits)
		return false;
	reporttext("it waits for %p", (void *)*lock);
	reportobject(*lock);
	reporttext(", which is had by\n\n");
	return true;
}

static void tellholders(uintptr_t lock, WaitReason why)
{
	for (int i = 0; i < CHAIN; i++) {
		G *gp = holderof(lock, why);
		if (!gp)
			return reporttext("    somebody who isn't known\n\n");
		if (!tellone(gp, &lock, &why))
			return;
	}
}

static void tellrunning(void)
{
	int64_t ids[RUNNING];
	int n = 0;
	for (int32_t i = 0; i < sched.gomaxprocs && n < RUNNING; i++) {
		P *pp = sched.allp[i];
		M *mp = atomic_load(&pp->m);
		const G *gp = mp ? mp->curg : NULL;
		if (gp)
			ids[n++] = gp->goid;
	}
	for (int i = 0; i < n; i++)
		reportgoroutine(ids[i]);
	if (n == 0)
		reporttext("    nobody ran\n\n");
}

static void tellserver(int64_t goid)
{
	for (G *gp = atomic_load(&sched.allg); gp; gp = gp->alllink) {
		uintptr_t lock;
		WaitReason why;
		if (gp->goid == goid && tellone(gp, &lock, &why))
			return tellholders(lock, why);
	}
}

static void tell(void *arg)
{
	const Look *l = arg;
	switch (l->kind) {
	case StallLock: return tellholders(l->key, l->why);
	case StallQueue: return tellrunning();
	case StallRequest: return tellserver((int64_t)l->key);
	}
}

bool flightlookwanted(void)
{
	return atomic_load_explicit(&wanted, memory_order_relaxed);
}

void flightlooktake(void)
{
	if (!atomic_load_explicit(&wanted, memory_order_acquire))
		return;
	Look *l = &looks[current];
	uint64_t at = ticksnow();
	l->text = textin(l->buf, sizeof l->buf);
	reportkeep(&l->text, tell, l);
	l->at = at;
	atomic_store_explicit(&wanted, false, memory_order_release);
}

const char *flightlooked(const Stall *s, uint64_t *at, size_t *n)
{
	uintptr_t key = s->kind == StallRequest ? (uintptr_t)s->goid : s->obj;
	const Look *l = lookin(s->kind, key, s->began, s->ended);
	if (!l)
		return NULL;
	*at = l->at;
	*n = l->text.n;
	return l->buf;
}

void flightlookreset(void)
{
	for (unsigned i = 0; i < LOOKS; i++)
		looks[i].at = 0;
	atomic_store(&wanted, false);
	next = 0;
}
