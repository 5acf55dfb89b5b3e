/*
 * profile.c - samples of what goroutines do, for `goshim profile`.
 *
 * At each tick, every kernel thread that has or wants a CPU is sampled, and goroutines that wait, each with its stack. What
 * runs is interrupted by the runtime's signal for the time of a copy (capture.c); what waits is read where it lies. A
 * sample stands for the time since the last tick, which is measured, so that ticks may come late; and they come
 * at random, so that nothing in the program keeps step with them.
 *
 * Goroutines go on while others are looked at; each is counted as what it was found first, so that none is counted twice.
 *
 * The cost is bounded by looking at a part of those that wait, going round; the part is chosen before anything is
 * known of them, and their weights are multiplied by its inverse, so it leaves the expectation as it is. One that still
 * waits where it was found last has not moved: its stack is not looked at again.
 *
 * Rejected: ptrace, which ends some calls with EINTR, needs rights that many systems don't give, and collides with
 * debuggers; perf events, which mostly are root's and see kernel threads only; timers on the CPU clocks of
 * Ms, whose signals meet those that have just begun to wait in the kernel.
 */
#include "profile.h"

#include "capture.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

enum {
	BUF = 1 << 20,
	LEAST = 16, /* goroutines looked at in a tick, if there are so many */
	COST = 10,  /* a tick's look at those that wait takes the 1/COST part of its time at most */
	SENT = 256, /* objects */
	FORGET =
	    1000000000, /* ns: objects are told of again: one may have gone, and another come */
	MISSES = 64,
	TRIES = 3,
	PATIENCE = 100000000, /* ns for the kernel to let one run that is to be looked at */
	IN = 0x1,             /* POLLIN, of the asker: it hung up */
	NOSIGNAL = 0x4000,
	SOCKET = 1,
	SOCOOKIE = 57,
};

typedef struct Profiler {
	ProfileRequest what;
	int fd, tid;
	uint64_t cookie; /* fd is still ours */
	int64_t period, last, forgotten, nodecost, cpu;
	uint32_t tick, random, firstid;
	G *head, *cursor; /* of sched.allg, as far as it is counted; where to go on */
	uint64_t all, walked;
	struct {
		uintptr_t lo, hi;
	} sent[SENT];
	unsigned nsent;
	uintptr_t miss[MISSES]; /* pages that are no object's */
	Frame frames[ProfileFrames];
	Loaded loaded;
	size_t n;
	char buf[BUF] __attribute__((aligned(8)));
} Profiler;

static uint32_t nextid = 1; /* of stacks, also of earlier profiles */

/* --- records ------------------------------------------------------------------------ */

static bool room(const Profiler *p)
{
	return BUF - p->n >=
	       sizeof(ProfileStackRecord) + ProfileFrames * (8 + sizeof(ProfileObjectRecord));
}

/* Whose size bytes are the caller's to fill. */
static void *put(Profiler *p, uint32_t kind, size_t size)
{
	ProfileRecord *r = (ProfileRecord *)(p->buf + p->n);
	memset(r, 0, size);
	*r = (ProfileRecord){kind, (uint32_t)size};
	p->n += size;
	return r;
}

static void putobject(Profiler *p, uintptr_t addr)
{
	uintptr_t page = addr >> 12;
	for (unsigned i = 0; i < p->nsent; i++)
		if (addr >= p->sent[i].lo && addr < p->sent[i].hi)
			return;
	if (p->miss[page % MISSES] == page)
		return;
	Loaded *o = &p->loaded;
	if (!host.loadedat(addr, o)) {
		p->miss[page % MISSES] = page;
		return;
	}
	ProfileObjectRecord *r = put(p, ProfileObject, sizeof *r);
	r->lo = o->lo;
	r->hi = o->hi;
	r->base = o->base;
	r->headers = o->headers;
	r->nheaders = o->nheaders;
	r->own = o->own;
	memcpy(r->path, o->path, sizeof r->path < sizeof o->path ? sizeof r->path : sizeof o->path);
	if (p->nsent == SENT)
		p->nsent = 0;
	p->sent[p->nsent].lo = o->lo;
	p->sent[p->nsent++].hi = o->hi;
}

static const char waits[WaitReasonCount][sizeof((ProfileStackRecord *)0)->wait] = {
    [WaitMutex] = "mutex",
    [WaitCond] = "cond",
    [WaitRWMutexR] = "rwlock.read",
    [WaitRWMutexW] = "rwlock.write",
    [WaitSem] = "sem",
    [WaitBarrier] = "barrier",
    [WaitOnce] = "once",
    [WaitJoin] = "join",
    [WaitFutex] = "futex",
    [WaitSleep] = "sleep",
    [WaitIORead] = "io.read",
    [WaitIOWrite] = "io.write",
    [WaitIOPoll] = "io.poll",
    [WaitSignal] = "signal",
    [WaitThread] = "thread",
    [WaitKernel] = "kernel thread",
};

static bool hasaddress(WaitReason why)
{
	return why >= WaitMutex && why <= WaitFutex && why != WaitJoin;
}

/* c: where it is, or NULL. gp is a g0 for the scheduler's own. Returns the stack's number. */
static uint32_t putstack(Profiler *p, G *gp, uint16_t state, const Capture *c)
{
	WaitReason why = gp->waitreason;
	if (state == ProfileWaits && why == WaitNone)
		state = ProfileSyscall; /* it has come from there since */
	uintptr_t object = state == ProfileWaits && hasaddress(why) ? gp->waitobj : 0;
	StackCopy copy = {0, 0, NULL};
	int n = 0;
	if (c) {
		copy = copyof(c);
		n = host.unwind(&c->regs, &copy, p->frames, ProfileFrames);
	}
	for (int i = 0; i < n; i++)
		putobject(p, p->frames[i].pc);
	if (object)
		putobject(p, object);
	ProfileStackRecord *r = put(p, ProfileStack, sizeof *r + (size_t)n * 8);
	r->id = nextid++;
	r->state = state;
	r->scheduler = gp->host == NULL;
	r->goid = gp->goid;
	r->object = object;
	if (!r->scheduler)
		host.describe(gp, r->name, sizeof r->name);
	if (state == ProfileWaits && (unsigned)why < WaitReasonCount)
		memcpy(r->wait, waits[why], sizeof r->wait);
	r->nframes = (uint32_t)n;
	r->cut = n == ProfileFrames;
	for (int i = 0; i < n; i++)
		r->frame[i] = (p->frames[i].pc & PROFILE_ADDRESS) |
			      (p->frames[i].interrupted ? PROFILE_INTERRUPTED : 0) |
			      (p->frames[i].signal ? PROFILE_SIGNAL : 0);
	return r->id;
}

static void putsample(Profiler *p, uint32_t stack, bool share)
{
	ProfileSampleRecord *r = put(p, ProfileSample, sizeof *r);
	r->stack = stack;
	r->share = share;
}

/* --- what runs ------------------------------------------------------------------------ */

/* Does it compute, or would it if the kernel let it? No other is sent signals, which could end its call. *known: or
 * can't that be told? */
static bool wantscpu(M *mp, bool *known)
{
	*known = true;
	if (computes(mp))
		return true;
	ownfdmake(); /* a child of fork is not to have the file */
	char state = threadstate(atomic_load(&mp->tid));
	ownfdmade(-1);
	*known = state != 0;
	return state == 'R';
}

/* mp wantscpu. */
static void sampleruns(Profiler *p, Capture *c, M *mp, bool share)
{
	G *gp = NULL;
	bool have = false, known;
	for (int tries = 0; tries < TRIES && !have && (!tries || wantscpu(mp, &known)); tries++) {
		atomic_store(&c->done, CaptureMissed);
		gp = mp->curg;
		GStatus s = gp ? readgstatus(gp) : Grunning;
		have = s == Gsyscall
			   ? captureplace(c, gp, mp)
			   : s == Grunning && capturerunning(c, gp ? gp : mp->g0, mp, PATIENCE);
		if (atomic_load(&c->done) == CaptureWanted)
			break; /* the kernel has not let it run since, or it is about to block */
	}
	if (gp && gp->sampledtick == (uint16_t)p->tick)
		return; /* it has come from another M */
	if (gp)
		gp->sampledtick = (uint16_t)p->tick;
	if (p->what.what & ProfileOnCPU)
		putsample(p, putstack(p, gp ? gp : mp->g0, ProfileRuns, have ? c : NULL), share);
}

/* As it was seen last, if it has not moved. */
static bool sampleagain(Profiler *p, G *gp, uint64_t since, bool share)
{
	if (gp->sampledsince != (uint32_t)since || gp->sampledid < p->firstid)
		return false;
	gp->sampledtick = (uint16_t)p->tick;
	putsample(p, gp->sampledid, share);
	return true;
}

static void samplefirst(Profiler *p, G *gp, uint64_t since, uint16_t state, const Capture *c,
			bool share)
{
	gp->sampledid = putstack(p, gp, state, c);
	gp->sampledsince = (uint32_t)since;
	gp->sampledtick = (uint16_t)p->tick;
	putsample(p, gp->sampledid, share);
}

/* gp is said to run on mp, whose thread sleeps: in a call that nobody has announced. */
static void sampleblocked(Profiler *p, Capture *c, M *mp, G *gp)
{
	bool runs;
	uint64_t since = gp->since;
	if (!(p->what.what & ProfileOffCPU) || sampleagain(p, gp, since, false))
		return;
	bool have = capturekernel(c, gp, mp, &runs);
	if (readgstatus(gp) == Grunning && gp->since == since)
		samplefirst(p, gp, since, ProfileBlocked, have ? c : NULL, false);
}

/* It has run since the last tick; whether it does now can't be told. */
static void sampleran(Profiler *p, G *gp)
{
	gp->sampledtick = (uint16_t)p->tick;
	if (p->what.what & ProfileOnCPU)
		putsample(p, putstack(p, gp, ProfileRuns, NULL), false);
}

static void samplems(Profiler *p, Capture *c)
{
	for (M *mp = atomic_load(&sched.allm); mp && room(p); mp = mp->alllink) {
		int tid = atomic_load(&mp->tid);
		if (!tid || tid == p->tid)
			continue;
		int64_t cpu = threadcputime(tid);
		bool moved = cpu != mp->sampledcpu;
		G *gp = mp->curg;
		bool running = gp && readgstatus(gp) == Grunning;
		mp->sampledcpu = cpu;
		if (!moved && !running)
			continue;
		bool known;
		if (wantscpu(mp, &known))
			sampleruns(p, c, mp, false);
		else if (running && mp->curg == gp && (known || !moved))
			sampleblocked(p, c, mp, gp);
		else if (running && mp->curg == gp)
			sampleran(p, gp);
	}
}

/* --- what waits ------------------------------------------------------------------------- */

static void samplewaits(Profiler *p, Capture *c, G *gp)
{
	static const uint16_t states[] =
	    {[Grunnable] = ProfileRunnable, [Gsyscall] = ProfileSyscall, [Gwaiting] = ProfileWaits};
	for (int tries = 0; tries < TRIES; tries++) {
		uint64_t since = gp->since;
		GStatus s = readgstatus(gp);
		M *mp = gp->m;
		if (s == Gidle || s == Gdead || gp->sampledtick == (uint16_t)p->tick)
			return;
		if (s == Grunning) { /* since samplems has looked */
			bool known;
			if (mp && wantscpu(mp, &known))
				sampleruns(p, c, mp, true);
			return;
		}
		if (sampleagain(p, gp, since, true))
			return;
		bool have = s == Gsyscall ? mp && captureplace(c, gp, mp) : captureparked(c, gp, s);
		if (!have && tries + 1 < TRIES)
			continue;
		uint16_t state = states[s];
		if (s == Gsyscall && gp->waitreason != WaitNone)
			state = ProfileWaits;
		samplefirst(p, gp, since, state, have ? c : NULL, true);
		return;
	}
}

static void sampleall(Profiler *p, Capture *c)
{
	G *head = atomic_load(&sched.allg);
	for (G *gp = head; gp != p->head; gp = gp->alllink)
		p->all++;
	p->head = head;
	int64_t begin = nanotime(), n = p->period / COST / p->nodecost;
	n = n < LEAST ? LEAST : n;
	for (p->walked = 0; p->walked < p->all && (int64_t)p->walked < n && room(p); p->walked++) {
		if (!p->cursor)
			p->cursor = head;
		samplewaits(p, c, p->cursor);
		p->cursor = p->cursor->alllink;
	}
	if (p->walked)
		p->nodecost = (3 * p->nodecost + (nanotime() - begin) / (int64_t)p->walked) / 4 + 1;
}

/* --- the whole ---------------------------------------------------------------------------- */

static void sample(void *arg, Capture *c)
{
	Profiler *p = arg;
	int64_t now = nanotime();
	if (now - p->forgotten > FORGET) {
		p->nsent = 0;
		memset(p->miss, 0, sizeof p->miss);
		p->forgotten = now;
	}
	p->n = 0;
	p->tick++;
	host.unwindbegin(false);
	samplems(p, c);
	p->walked = 0;
	if (p->what.what & ProfileOffCPU)
		sampleall(p, c);
	ProfileTickRecord *t = put(p, ProfileTick, sizeof *t);
	t->ns = now - p->last;
	t->all = p->all;
	t->walked = p->walked;
	t->cpu = threadcputime(p->tid) - p->cpu;
	p->last = now;
}

static uint64_t cookieof(int fd)
{
	uint64_t cookie = 0;
	uint32_t n = sizeof cookie;
	sys5(SYS_getsockopt, fd, SOCKET, SOCOOKIE, (long)&cookie, (long)&n);
	return cookie;
}

static bool sendall(Profiler *p)
{
	for (size_t at = 0; at < p->n;) {
		if (cookieof(p->fd) != p->cookie)
			return false;
		long r =
		    sys6(SYS_sendto, p->fd, (long)(p->buf + at), (long)(p->n - at), NOSIGNAL, 0, 0);
		if (r <= 0 && r != -EINTR)
			return false;
		at += r > 0 ? (size_t)r : 0;
	}
	return true;
}

static uint32_t random_(Profiler *p)
{
	p->random ^= p->random << 13;
	p->random ^= p->random >> 17;
	p->random ^= p->random << 5;
	return p->random;
}

/* Until the next tick; false: the asker hung up. */
static bool waittick(Profiler *p)
{
	int64_t until = p->last + p->period / 2 + (int64_t)(random_(p) % (uint64_t)p->period);
	for (;;) {
		struct {
			int fd;
			short events, revents;
		} fd = {p->fd, IN, 0};
		int64_t left = until - nanotime();
		left = left > 0 ? left : 0;
		int64_t ts[2] = {left / 1000000000, left % 1000000000};
		long r = sys5(SYS_ppoll, (long)&fd, 1, (long)ts, 0, 0);
		if (r != -EINTR)
			return r == 0;
	}
}

void profile(int fd, const ProfileRequest *r, void (*between)(void))
{
	ProfileHeader h = {.magic = PROFILE_MAGIC, .version = PROFILE_VERSION};
	Profiler *p = getg() ? sysalloc(sizeof *p) : NULL;
	/* Without a G it is the thread that makes Ms. */
	h.status = p ? ProfileBegins : getg() ? ProfileNoMemory : ProfileNoThread;
	long sent = sys6(SYS_sendto, fd, (long)&h, sizeof h, NOSIGNAL, 0, 0);
	if (p && sent == sizeof h) {
		p->what = *r;
		p->fd = fd;
		p->tid = gettid_os();
		p->cookie = cookieof(fd);
		p->cpu = threadcputime(p->tid);
		p->period = 1000000000 / (r->hz ? r->hz : 1);
		p->nodecost = 20000;
		p->random = (uint32_t)nanotime() | 1;
		p->firstid = nextid;
		p->last = p->forgotten = nanotime();
		for (uint32_t skip = random_(p) % 65536; skip > 0; skip--)
			p->cursor = p->cursor ? p->cursor->alllink : atomic_load(&sched.allg);
		while (waittick(p) && asnobody(sample, p) && sendall(p))
			between();
	}
	if (p)
		sysfree(p, sizeof *p);
}
