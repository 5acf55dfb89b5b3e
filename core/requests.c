/*
 * requests.c - how long requests take, by listening socket, of a server that knows nothing of it.
 *
 * What is seen of a server are its calls: it accepts, reads and writes. A request begins when its first bytes are
 * readable, and has been answered with the last write before more is read. So it is over when the next one is
 * seen, when its thread waits for it, or when the connection is closed.
 *
 * Its time is that of the goroutine that serves it: what that one has spent in each status (Serving.sum, of
 * casgstatus) from one moment to the other, and the rest is elsewhere. Both come from one clock, so the parts are
 * the whole. A goroutine serves the connection that it has read or written last, until it waits for others.
 * Before it has read, it has woken: of its wait only what follows the event counts.
 *
 * Who reads may not have waited: another one may have, or its thread was busy, or the kernel has woken it
 * and said nothing of when. Then the time is a bound, and is counted as one.
 *
 * Kernel timestamps of received data (SO_TIMESTAMPNS) would tell more, but recvmsg shows them to the
 * program, and to others who share the socket; and TCP_INFO knows milliseconds.
 *
 * A record is of one caller at a time (enter); another that comes meanwhile, so two threads are at
 * one connection at once, leaves a mark and goes on: nobody waits here.
 */
#include "requests.h"

#include "flight.h"
#include "runtime.h"

#include <string.h>

typedef enum Use { Unused, Listens, Accepted } Use;
typedef enum State {
	Idle,
	Asked,
	Answered
} State; /* of a request: none, being served, written to */

struct Conn {
	_Atomic bool busy;
	_Atomic bool unclear; /* somebody found it busy */
	_Atomic uint8_t use;
	uint8_t listener;
	uint8_t state;
	bool heard, spoke, unasked; /* read from; written to before, after an answer was over */
	bool atleast, atmost;
	Serving *server;     /* whose time it is; NULL: nobody's */
	uint64_t readyat;    /* ticks: seen to be readable, and not read since; 0: not */
	uint64_t readyqueue; /* what of the time since then its finder was in a run queue */
	bool readyatleast, readyatmost;
	uint32_t writes;
	uint64_t data;                     /* what epoll reports it as */
	uint64_t start, read, first, last; /* of the request */
	uint64_t at;                       /* parts have the time from start to here */
	uint64_t parts[Parts];
	uint64_t spent[Parts]; /* the server's, at `at` */
};

enum { ChunkConns = 128, MaxChunks = 8192, STREAMWRITES = 4 };

static Conn *_Atomic chunks[MaxChunks]; /* made under the lock, read without */
static Lock chunklock = LOCK_INIT(RankNetpoll);

/* By what epoll reports it as: the last of those that share a place. */
enum { WATCHED = 1 << 12 };
static _Atomic int32_t watched[WATCHED];

bool requestswanted(void)
{
	return debug.requests;
}

static Conn *known(int fd)
{
	if (fd < 0 || fd >= MaxChunks * ChunkConns)
		return NULL;
	Conn *c = atomic_load_explicit(&chunks[fd / ChunkConns], memory_order_acquire);
	return c ? &c[fd % ChunkConns] : NULL;
}

static Conn *make(int fd)
{
	Conn *c = known(fd);
	if (c || fd < 0 || fd >= MaxChunks * ChunkConns)
		return c;
	Section s = sectionenter();
	lock(&chunklock);
	if (!known(fd))
		atomic_store_explicit(&chunks[fd / ChunkConns],
				      persistentalloc(ChunkConns * sizeof(Conn), 64),
				      memory_order_release);
	unlock(&chunklock);
	sectionleave(s);
	return known(fd);
}

/* The caller's, in a section; NULL: nobody whose time is known, or no memory to remember what it serves. */
static Serving *caller(void)
{
	G *gp = getg();
	if (!gp)
		return timedserving();
	if (unlikely(!gp->serving)) {
		gp->serving = persistentalloc(sizeof *gp->serving, 64);
		if (gp->serving)
			gp->serving->gp = gp;
	}
	return gp->serving;
}

static bool enter(Conn *c)
{
	if (likely(!atomic_exchange_explicit(&c->busy, true, memory_order_acquire)))
		return true;
	atomic_store_explicit(&c->unclear, true, memory_order_relaxed);
	return false;
}

static void leave(Conn *c)
{
	atomic_store_explicit(&c->busy, false, memory_order_release);
}

/* --- parts ------------------------------------------------------------------------ */

static uint64_t since(const Serving *sv)
{
	return sv->gp ? sv->gp->since : sv->at;
}

/* Now; not before what the caller or c has been told. CPUs' counters may differ a little. */
static uint64_t moment(Serving *sv, const Conn *c)
{
	if (sv && !sv->gp)
		timedspent(sv);
	uint64_t now = sv && !sv->gp ? sv->at : ticksnow();
	if (sv && (int64_t)(now - since(sv)) < 0)
		now = since(sv);
	if (c && (int64_t)(now - c->at) < 0)
		now = c->at;
	return now;
}

/* What the caller has spent until now. */
static void spent(const Serving *sv, uint64_t now, uint64_t out[Parts])
{
	memcpy(out, sv->sum, Parts * sizeof *out);
	out[PartCPU] += now - since(sv);
}

static void serve(Serving *sv, Conn *c)
{
	c->server = sv;
	if (sv)
		sv->conn = c;
}

/* The time up to now is that of its server, if that is the caller, or elsewhere. */
static void account(Conn *c, Serving *sv, uint64_t now)
{
	uint64_t s[Parts];
	if (sv)
		spent(sv, now, s);
	if (sv && c->server == sv && sv->conn == c)
		for (int i = 0; i < Parts; i++)
			c->parts[i] += s[i] - c->spent[i];
	else
		c->parts[PartElsewhere] += now - c->at;
	if (sv)
		memcpy(c->spent, s, sizeof s);
	c->at = now;
}

/* The caller turns to others. */
static void turnaway(Serving *sv)
{
	Conn *c = sv->conn;
	if (!c || !enter(c))
		return;
	if (c->server == sv) {
		if (c->state == Asked)
			account(c, sv, moment(sv, c));
		c->server = NULL;
	}
	sv->conn = NULL;
	leave(c);
}

/* Less the first `cut` ticks, which were before the request: of what is idle, then of the rest. */
static void cutoff(uint64_t parts[Parts], uint64_t cut)
{
	static const uint8_t order[] = {PartIO,   PartSyscall, PartSleep, PartWait,
					PartLock, PartCPU,     PartQueue, PartElsewhere};
	_Static_assert(sizeof order == Parts, "all of them");
	for (unsigned i = 0; i < Parts; i++) {
		uint64_t n = parts[order[i]] < cut ? parts[order[i]] : cut;
		parts[order[i]] -= n;
		cut -= n;
	}
}

uint64_t requestbegan(const G *gp)
{
	const Serving *s = gp->serving;
	const Conn *c = s ? s->conn : NULL;
	return c && c->server == s && c->state == Asked ? c->start : 0;
}

/* --- requests ----------------------------------------------------------------------- */

/* Its answer is over. */
static void finish(Conn *c)
{
	if (atomic_exchange_explicit(&c->unclear, false, memory_order_relaxed)) {
		metricsrequestcount(c->listener, RequestsUnclear);
	} else {
		Took t = {.times = {c->read - c->start, c->first - c->start, c->last - c->start},
			  .streamed =
			      c->writes >= STREAMWRITES && ticksns(c->last - c->first) > 1000000000,
			  .atleast = c->atleast,
			  .atmost = c->atmost};
		memcpy(t.parts, c->parts, sizeof t.parts);
		metricsrequest(c->listener, &t);
		if (unlikely(c->last - c->start > flightlimit) && !t.streamed)
			flightrequest(c->server ? c->server->gp : NULL, c->start, c->last, t.parts);
	}
	c->state = Idle;
	c->server = NULL;
}

/* The caller's last wait, ended as `seen` says: when was its cause readable, and what has the wait, up to now, to do
 * with that? */
static uint64_t waited(Serving *sv, uint64_t now, Seen seen, uint64_t when, uint64_t parts[Parts])
{
	spent(sv, now, parts);
	for (int i = 0; i < Parts; i++)
		parts[i] -= sv->spent[i];
	uint64_t from = sv->waitat, cut = now - from;
	if (seen == SeenKernel)
		cut = parts[PartSyscall] + parts[PartIO];
	/* A kernel thread's queue may have been before it slept, too. */
	if (seen == SeenKernel && !sv->gp && sv->pushed != sv->waitpushed)
		cut = now - from;
	else if (seen == SeenEvent && (int64_t)(when - from) < 0)
		cut = 0;
	else if (seen == SeenEvent && when - from < cut)
		cut = when - from;
	cutoff(parts, cut);
	return from + cut;
}

static void begin(Conn *c, Serving *sv, Seen seen, uint64_t when, uint64_t now)
{
	bool fresh = sv && sv->fresh;
	c->atleast = seen != SeenEvent || (when & 1);
	c->atmost = false;
	memset(c->parts, 0, sizeof c->parts);
	if (fresh && seen != SeenReady) {
		c->start = waited(sv, now, seen, when, c->parts);
	} else if (c->readyat) {
		c->atleast = c->readyatleast;
		c->atmost = c->readyatmost;
		c->start = c->readyat < now ? c->readyat : now;
		if (fresh && (int64_t)(c->start - sv->waitat) >= 0) {
			c->start = waited(sv, now, SeenEvent, c->start, c->parts);
		} else {
			uint64_t all = now - c->start;
			c->parts[PartQueue] = c->readyqueue < all ? c->readyqueue : all;
			c->parts[PartElsewhere] = all - c->parts[PartQueue];
		}
	} else {
		c->start = now;
	}
	c->readyat = 0;
	c->state = Asked;
	c->writes = 0;
	c->read = c->at = now;
	atomic_store_explicit(&c->unclear, false, memory_order_relaxed);
	if (sv)
		spent(sv, now, c->spent);
}

void requestread(Conn *c, Seen seen, uint64_t when)
{
	Section s = sectionenter();
	Serving *sv = caller();
	if (sv && sv->conn != c)
		turnaway(sv);
	if (enter(c)) {
		uint64_t now = moment(sv, NULL);
		if (c->state == Answered)
			finish(c);
		if (c->state == Idle) {
			begin(c, sv, seen, when, now);
		} else {
			now = moment(sv, c);
			account(c, sv, now);
		}
		c->heard = true;
		serve(sv, c);
		if (sv)
			sv->fresh = false;
		leave(c);
	}
	sectionleave(s);
}

static void unasked(Conn *c)
{
	if (!c->heard && !c->spoke) {
		c->spoke = true;
		metricsrequestcount(c->listener, ConnsSpokeFirst);
	} else if (c->heard && !c->unasked) {
		c->unasked = true;
		metricsrequestcount(c->listener, ConnsUnasked);
	}
}

void requestwrote(Conn *c)
{
	Section s = sectionenter();
	Serving *sv = caller();
	if (sv && sv->conn != c)
		turnaway(sv);
	if (enter(c)) {
		if (c->state == Idle) {
			unasked(c);
		} else {
			uint64_t now = moment(sv, c);
			account(c, sv, now);
			serve(sv, c);
			if (c->state == Asked)
				c->first = now;
			c->state = Answered;
			c->last = now;
			c->writes++;
		}
		if (sv)
			sv->fresh = false;
		leave(c);
	}
	sectionleave(s);
}

void requestwaits(Conn *c)
{
	Section s = sectionenter();
	Serving *sv = caller();
	if (sv && sv->conn != c)
		turnaway(sv);
	if (c && enter(c)) {
		if (c->state == Answered)
			finish(c);
		leave(c);
	}
	if (sv) {
		uint64_t now = moment(sv, NULL);
		sv->waitat = now;
		sv->waitpushed = sv->pushed;
		sv->waited = false;
		sv->fresh = true;
		spent(sv, now, sv->spent);
	}
	sectionleave(s);
}

void requestcalls(Conn *c)
{
	Section s = sectionenter();
	Serving *sv = caller();
	if (sv && sv->conn != c)
		turnaway(sv);
	if (sv) {
		sv->callat = moment(sv, NULL);
		sv->callpushed = sv->pushed;
		spent(sv, sv->callat, sv->callspent);
		sv->waited = false;
	}
	sectionleave(s);
}

void requestcalled(Conn *c)
{
	Section s = sectionenter();
	Serving *sv = caller();
	bool waited = sv && sv->waited;
	if (waited) {
		if (enter(c)) {
			if (c->state == Answered)
				finish(c);
			leave(c);
		}
		sv->waitat = sv->callat;
		sv->waitpushed = sv->callpushed;
		memcpy(sv->spent, sv->callspent, sizeof sv->spent);
		sv->fresh = true;
	}
	sectionleave(s);
	requestread(c, waited ? SeenKernel : SeenReady, 0);
}

Seen requestseen(void)
{
	Section s = sectionenter();
	Serving *sv = caller();
	Seen seen = sv && sv->waited ? SeenKernel : SeenReady;
	sectionleave(s);
	return seen;
}

void requestready(Conn *c, bool many, Seen seen, uint64_t when)
{
	Section s = sectionenter();
	Serving *sv = caller();
	if (enter(c)) {
		uint64_t parts[Parts], now = moment(sv, NULL);
		if (c->state == Answered)
			finish(c);
		if (c->state == Idle && !c->readyat) {
			c->readyat = now;
			c->readyqueue = 0;
			if (sv && sv->fresh && seen != SeenReady) {
				c->readyat = waited(sv, now, seen, when, parts);
				c->readyqueue = parts[PartQueue];
			}
			c->readyatleast = seen != SeenEvent || (when & 1);
			c->readyatmost = seen == SeenEvent && many;
		}
		leave(c);
	}
	sectionleave(s);
}

/* --- descriptors ----------------------------------------------------------------------- */

Conn *requestconn(int fd)
{
	Conn *c = known(fd);
	return c && atomic_load_explicit(&c->use, memory_order_relaxed) == Accepted ? c : NULL;
}

bool requestlistens(int fd)
{
	Conn *c = known(fd);
	return c && atomic_load_explicit(&c->use, memory_order_relaxed) == Listens;
}

static _Atomic int32_t *watchedat(uint64_t data)
{
	return &watched[data * 0x9e3779b97f4a7c15ull >> 52];
}

void requestdata(int fd, uint64_t data)
{
	Conn *c = requestconn(fd);
	if (!c)
		return;
	__atomic_store_n(&c->data, data, __ATOMIC_RELAXED);
	atomic_store_explicit(watchedat(data), fd, memory_order_relaxed);
}

Conn *requestbydata(uint64_t data)
{
	int fds[2] = {(int)data, atomic_load_explicit(watchedat(data), memory_order_relaxed)};
	for (int i = 0; i < 2; i++) {
		Conn *c = requestconn(fds[i]);
		if (c && __atomic_load_n(&c->data, __ATOMIC_RELAXED) == data)
			return c;
	}
	return NULL;
}

/* The number is something else from now on. */
static void become(Conn *c, Use use, int listener)
{
	Section s = sectionenter();
	if (enter(c)) {
		if (c->use == Accepted && c->state == Answered)
			finish(c);
		c->listener = (uint8_t)listener;
		c->state = Idle;
		c->heard = c->spoke = c->unasked = false;
		c->server = NULL;
		c->readyat = 0;
		c->data = UINT64_MAX;
		c->use = use;
		leave(c);
	}
	sectionleave(s);
}

void requestlisten(int fd, const char *address)
{
	Conn *c = make(fd);
	if (c)
		become(c, Listens, metricslistener(address));
}

void requestaccepted(int from, int fd)
{
	Conn *l = known(from), *c = make(fd);
	if (!l || !c || atomic_load_explicit(&l->use, memory_order_relaxed) != Listens)
		return;
	become(c, Accepted, l->listener);
	Section s = sectionenter();
	metricsrequestcount(l->listener, ConnsAccepted);
	sectionleave(s);
}

void requestclosed(int fd)
{
	Conn *c = known(fd);
	if (c && atomic_load_explicit(&c->use, memory_order_relaxed) != Unused)
		become(c, Unused, 0);
}

void requestcopied(int fd)
{
	Conn *c = requestconn(fd);
	Section s = sectionenter();
	if (c)
		metricsrequestcount(c->listener, ConnsCopied);
	sectionleave(s);
}

/* Its descriptors are the parent's, which answers them. */
void requestsforkchild(void)
{
	lockinit(&chunklock, RankNetpoll);
	for (int i = 0; i < MaxChunks; i++)
		if (atomic_load_explicit(&chunks[i], memory_order_relaxed))
			atomic_store_explicit(&chunks[i], NULL, memory_order_relaxed);
}
