/*
 * m.c - kernel threads: making them, stopping them idle, giving them a P.
 *
 * An M without work sleeps in its note, on sched.midle; startm wakes one with
 * a P in nextp, or asks for a new one. New Ms come from the template thread
 * only: a kernel thread inherits affinity, namespaces, seccomp filters and
 * capabilities of its creator, which may be wired to a goroutine that changed
 * them; and the host's way of making one allocates through the program's
 * malloc, which may park, and so may not run on g0. (Go keeps a template
 * thread for the first reason.)
 *
 * What such a goroutine makes threads of is the exception: they have its state, so their Ms are
 * made by its own (newmhere), and are wired to them.
 *
 * An M's record is never freed. Its thread ends only with a goroutine that was wired to
 * it for good, having changed what the kernel keeps for a thread (mexit); the record is used again.
 */
#include "runtime.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

/* Ms to be made, by schedlink. */
static struct {
	Lock lock;
	M *list;
	M *making;                /* the one that the template thread has taken from there */
	_Atomic uint32_t seq;     /* futex of the template thread */
	_Atomic uint32_t asked;   /* how many were asked for, */
	_Atomic uint32_t done;    /* and made, or could not be; futex */
	void (*_Atomic fn)(void); /* runonm's, which found no M */
} newms = {.lock = LOCK_INIT(RankSysmon)};

uint32_t fastrand(M *mp)
{
	uint32_t x = mp->fastrand;
	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return mp->fastrand = x;
}

HeldLocks *heldlocks(void)
{
	static __thread HeldLocks foreign __attribute__((tls_model("initial-exec")));
	G *gp = getg();
	return gp && gp->m ? &gp->m->held : &foreign;
}

/* A new M, linked on sched.allm; its g0 has no stack yet. */
M *malloc_m(void)
{
	M *mp = persistentalloc(sizeof *mp, 64);
	if (!mp)
		return NULL;
	G *g0 = &mp->g0storage;
	mp->g0 = g0;
	g0->m = mp;
	atomic_store_explicit(&g0->status, Grunning, memory_order_relaxed);
	atomic_store_explicit(&mp->locks, 1, memory_order_relaxed);
	mp->kmask = sched.basekmask;
	lock(&sched.lock);
	mp->id = sched.mnext++;
	metricsthreads(++sched.mcount);
	mp->fastrand = (uint32_t)(mp->id + 1) * 2654435761u;
	mp->alllink = sched.allm;
	/* Release: readers of allm see the record complete. */
	atomic_store_explicit(&sched.allm, mp, memory_order_release);
	unlock(&sched.lock);
	return mp;
}

/* The record of an M that is no more, or a new one. */
static M *mrecord(void)
{
	lock(&sched.lock);
	M *mp = sched.mfree;
	if (mp) {
		sched.mfree = mp->schedlink;
		mp->schedlink = NULL;
		metricsthreads(++sched.mcount);
	}
	unlock(&sched.lock);
	return mp ? mp : malloc_m();
}

static void mrecordback_locked(M *mp)
{
	metricsthreads(--sched.mcount);
	mp->nextp = NULL;
	mp->mstartfn = NULL;
	mp->schedlink = sched.mfree;
	sched.mfree = mp;
}

/* Back to mstart, which returns. */
static noinline_fn noreturn_fn void mend(M *mp)
{
	__builtin_longjmp(mp->ending, 1);
}

/* The kernel thread of mp, on its way out, is a foreign one. Only libc's signal for set*id reaches it. */
static void mended(M *mp)
{
	stack_t none = {.ss_flags = SS_DISABLE};
	setkmask(mp, ~(1ull << 32));
	sys2(131 /* sigaltstack */, (long)&none, 0);
	goshim_g = NULL;
	atomic_store(&mp->tid, 0);
	atomic_store(&mp->sigurg, 0);
	lock(&sched.lock);
	mrecordback_locked(mp);
	unlock(&sched.lock);
}

/* What runonm has given mp to do; false: nothing. */
static bool runmstartfn(M *mp)
{
	void (*fn)(void) = mp->mstartfn;
	mp->mstartfn = NULL;
	if (fn)
		fn();
	return fn != NULL;
}

/* mp is no more in the making: what it is to begin with is its own. */
static void begun(const M *mp)
{
	lock(&newms.lock);
	if (newms.making == mp)
		newms.making = NULL;
	unlock(&newms.lock);
}

/* First function on a new kernel thread; arg is its M. Returns when mexit says so. */
static void mstart(void *arg) UNCHECKED_ROLES
{
	M *mp = arg;
	G *g0 = mp->g0;
	if (__builtin_setjmp(mp->ending)) {
		mended(getg()->m);
		return;
	}
	goshim_g = g0;
	mp->tls = g0->tls = fsbase();
	atomic_store_explicit(&mp->tid, gettid_os(), memory_order_relaxed);
	/* mcall comes back to here, below this frame, each time anew. */
	g0->sched.sp = ((uintptr_t)__builtin_frame_address(0) - 256) & ~(uintptr_t)63;
	minitsignals(mp);
	begun(mp);
	bool wired = mp->bornwired;
	if (wired) {
		mp->bornwired = false;
		atomic_store(&mp->born, 1);
		notesleep(&mp->park);
		noteclear(&mp->park);
		if (!mp->nextp)
			mend(mp); /* there is no goroutine after all */
	}
	P *pp = mp->nextp;
	mp->nextp = NULL;
	runmstartfn(mp);
	if (pp)
		acquirep(mp, pp);
	else
		stopm();
	check_g0();
	if (wired)
		execute(mp->lockedg, false);
	schedule();
}

/* mfailed, when making an M would be the process's death (lastms). */
enum { MForbidden = INT64_MAX };

static bool forbidden(void)
{
	return atomic_load(&sched.mfailed) == MForbidden;
}

bool mshort(void)
{
	int64_t failed = atomic_load_explicit(&sched.mfailed, memory_order_relaxed);
	return failed && nanotime() - failed < 1000000000;
}

/*
 * Takes back a P for which no M could be made. A wired goroutine that is
 * runnable has an M, which gets the P. For other work an M is called back that
 * waits in the kernel by choice, or polls.
 */
static void abandonp(P *pp, bool spinning) UNCHECKED_ROLES
{
	if (spinning)
		atomic_fetch_sub(&sched.nmspinning, 1);
	if (!pp)
		return;
	M *mp = NULL;
	lock(&sched.lock);
	if (atomic_load(&sched.gcwaiting)) {
		atomic_store(&pp->status, Pgcstop);
		if (--sched.stopwait == 0)
			notewakeup(&sched.stopnote);
	} else {
		G *gp;
		while ((gp = runqget(pp)))
			globrunqput_locked(gp);
		gp = globrunqtakewired_locked();
		if (gp)
			mp = gp->lockedm;
		else
			pidleput_locked(pp);
	}
	unlock(&sched.lock);
	if (mp) {
		mp->nextp = pp;
		notewakeup(&mp->park);
	} else if (sched.runqsize != 0) {
		/* One may be waiting for the network. */
		if (atomic_load(&sched.lastpoll) == 0)
			netpollBreak();
		for (mp = atomic_load(&sched.allm); mp; mp = mp->alllink)
			if (atomic_load(&mp->kblocked) && !mp->lockedg) {
				callback(mp);
				break;
			}
	}
	sysmonneeded(); /* it tries again */
}

void templatethread(void *unused)
{
	(void)unused;
	for (;;) {
		uint32_t seq = atomic_load(&newms.seq);
		void (*fn)(void) = atomic_exchange(&newms.fn, NULL);
		if (fn)
			fn();
		lock(&newms.lock);
		M *mp = newms.making = newms.list;
		if (mp) {
			newms.list = mp->schedlink;
			mp->schedlink = NULL;
		}
		unlock(&newms.lock);
		if (!mp) {
			futexsleep(&newms.seq, seq, -1);
			continue;
		}
		int err = forbidden() ? -EAGAIN : sigstackalloc(mp);
		if (!err)
			err = host.newosproc(mstart, mp, &mp->g0->stacklo, &mp->g0->stackhi);
		if (err)
			begun(mp);
		if (err && mp->bornwired) {
			mp->bornwired = false;
			atomic_store(&mp->born, err);
		} else if (err) {
			/* The limit of processes is reached, say: the others go on with the
			 * work; sysmon tries again while there is some. */
			bool spinning = mp->spinning;
			P *pp = mp->nextp;
			if (mp->mstartfn)
				atomic_store(&newms.fn, mp->mstartfn);
			lock(&sched.lock);
			mrecordback_locked(mp);
			if (!forbidden())
				atomic_store_explicit(&sched.mfailed, nanotime(),
						      memory_order_relaxed);
			unlock(&sched.lock);
			abandonp(pp, spinning);
		}
		atomic_fetch_add(&newms.done, 1);
		futexwakeup(&newms.done, INT32_MAX);
	}
}

static void waketemplate(void)
{
	atomic_fetch_add(&newms.seq, 1);
	futexwakeup(&newms.seq, 1);
}

static void templatemakes(M *mp)
{
	lock(&newms.lock);
	mp->schedlink = newms.list;
	newms.list = mp;
	atomic_fetch_add(&newms.asked, 1);
	unlock(&newms.lock);
	waketemplate();
}

/* Gives the P of mp, still to be made, to an M that idles, and puts that on *woken. False: none idles, or mp has no P. */
static bool giveidle_locked(M *mp, M **woken)
{
	M *idle = mp->nextp ? mget_locked() : NULL;
	if (!idle)
		return false;
	idle->nextp = mp->nextp;
	idle->spinning = mp->spinning;
	mp->nextp = NULL;
	mp->spinning = false;
	idle->schedlink = *woken;
	*woken = idle;
	return true;
}

/*
 * Ms that idle take over the Ps of those that are still to be made, by whoever comes later: an M that has come to idle, or
 * whoever asked for a new one. The template thread may have to wait for a lock of libc's that a goroutine
 * holds which waits for one of these Ps.
 */
static void insteadofnew(void)
{
	if (likely(atomic_load(&newms.asked) == atomic_load(&newms.done)))
		return;
	M *woken = NULL;
	uint32_t saved = 0; /* that need not be made any more */
	lock(&sched.lock);
	lock(&newms.lock);
	if (newms.making)
		giveidle_locked(newms.making, &woken);
	for (M **p = &newms.list, *mp; (mp = *p) != NULL;) {
		if (!giveidle_locked(mp, &woken)) {
			p = &mp->schedlink;
			continue;
		}
		*p = mp->schedlink;
		mrecordback_locked(mp);
		saved++;
	}
	unlock(&newms.lock);
	unlock(&sched.lock);
	if (saved) {
		atomic_fetch_add(&newms.done, saved);
		futexwakeup(&newms.done, INT32_MAX);
	}
	while (woken) {
		M *mp = woken;
		woken = mp->schedlink;
		mp->schedlink = NULL;
		notewakeup(&mp->park);
	}
}

M *newmwired(void)
{
	Section s = sectionenter();
	M *mp = sched.mcount < sched.maxmcount ? mrecord() : NULL;
	if (mp) {
		mp->nextp = NULL;
		mp->spinning = false;
		mp->bornwired = true;
		atomic_store(&mp->born, 0);
		templatemakes(mp);
	}
	sectionleave(s);
	int32_t born = 0;
	while (mp && !(born = atomic_load(&mp->born)))
		gosleep(nanotime() + 50000, 0);
	if (born >= 0)
		return mp;
	s = sectionenter();
	lock(&sched.lock);
	mrecordback_locked(mp);
	unlock(&sched.lock);
	sectionleave(s);
	return NULL;
}

/* newm, of one that calls fn first. */
static bool newmfn(P *pp, bool spinning, void (*fn)(void))
{
	lock(&sched.lock);
	int64_t now = nanotime();
	if (sched.mcount >= sched.maxmcount && !forbidden())
		sched.mfailed = now;
	bool full = sched.mfailed && now - sched.mfailed < 1000000;
	unlock(&sched.lock);
	M *mp = full ? NULL : mrecord();
	if (!mp) {
		abandonp(pp, spinning);
		return false;
	}
	mp->nextp = pp;
	mp->spinning = spinning;
	mp->mstartfn = fn;
	templatemakes(mp);
	insteadofnew();
	return true;
}

/* Has a new M made that starts with pp, or idle without one. */
bool newm(P *pp, bool spinning)
{
	return newmfn(pp, spinning, NULL);
}

M *newmhere(int *err)
{
	Section s = sectionenter();
	M *mp = sched.mcount < sched.maxmcount ? mrecord() : NULL;
	*err = mp ? sigstackalloc(mp) : -EAGAIN;
	sectionleave(s);
	if (!mp)
		return NULL;
	mp->bornwired = true;
	/* Not in a section: the host allocates, and may park. */
	if (!*err)
		*err = host.newosproc(mstart, mp, &mp->g0->stacklo, &mp->g0->stackhi);
	if (!*err)
		return mp;
	mp->bornwired = false;
	s = sectionenter();
	lock(&sched.lock);
	mrecordback_locked(mp);
	unlock(&sched.lock);
	sectionleave(s);
	return NULL;
}

/* Waits until newms.done is no longer that. */
static void awaitm(uint32_t done)
{
	blockingsyscall(202 /* futex */, (long)&newms.done, 128 /* FUTEX_WAIT_PRIVATE */, done, 0,
			0, 0);
}

/* Has an idle M made, and waits for it. */
static bool newmidle(void)
{
	uint32_t done = atomic_load(&newms.done);
	if (!newm(NULL, false))
		return false;
	while (atomic_load(&newms.done) == done)
		awaitm(done);
	return true;
}

/*
 * Sees to it that some M is not wired. Those that are can't run other
 * goroutines, and a program that has wired its threads may go on to forbid
 * itself new ones (RLIMIT_NPROC, as haproxy does): then it is too late.
 */
void sparem(void)
{
	bool have = false;
	lock(&sched.lock);
	for (M *mp = atomic_load(&sched.allm); mp && !have; mp = mp->alllink)
		have = atomic_load(&mp->tid) && !mp->lockedg;
	unlock(&sched.lock);
	if (!have)
		newmidle();
}

void lastms(int threads)
{
	while (threads > 0 && sched.mcount < threads + sched.gomaxprocs && newmidle())
		;
	atomic_store(&sched.mfailed, threads > 0 ? MForbidden : 0);
	/* The template thread may be at it. */
	uint32_t done;
	while (threads > 0 && (done = atomic_load(&newms.done)) != atomic_load(&newms.asked))
		awaitm(done);
}

void mforkchild(void)
{
	lockinit(&newms.lock, RankSysmon);
	newms.list = newms.making = NULL;
	atomic_store(&newms.fn, NULL);
	atomic_store(&newms.seq, 0);
	atomic_store(&newms.asked, 0);
	atomic_store(&newms.done, 0);
}

void mput_locked(M *mp)
{
	mp->schedlink = sched.midle;
	sched.midle = mp;
	sched.nmidle++;
}

M *mget_locked(void)
{
	M *mp = sched.midle;
	if (mp) {
		sched.midle = mp->schedlink;
		mp->schedlink = NULL;
		sched.nmidle--;
	}
	return mp;
}

/*
 * Starts some M with pp (NULL: an idle P, if there is one). spinning: the
 * caller has counted the M in nmspinning. pp, given, is the caller's: its
 * status is Pidle and it is on no list.
 */
void startm(P *pp, bool spinning)
{
	lock(&sched.lock);
	if (!pp) {
		pp = pidleget_locked();
		if (!pp) {
			unlock(&sched.lock);
			if (spinning && atomic_fetch_sub(&sched.nmspinning, 1) <= 0)
				throw("startm: negative nmspinning");
			return;
		}
	}
	M *mp = mget_locked();
	unlock(&sched.lock);
	metricscount(CountStarts);
	if (!mp) {
		newm(pp, spinning);
		return;
	}
	if (mp->nextp)
		throw("startm: m has p");
	mp->spinning = spinning;
	mp->nextp = pp;
	notewakeup(&mp->park);
}

void runonm(void (*fn)(void))
{
	lock(&sched.lock);
	M *mp = mget_locked();
	unlock(&sched.lock);
	if (mp) {
		mp->mstartfn = fn;
		notewakeup(&mp->park);
	} else if (!newmfn(NULL, false, fn)) {
		atomic_store(&newms.fn, fn);
		waketemplate();
	}
}

/* Sleeps until another M has work for this one. Returns with acquired P. */
void stopm(void) UNCHECKED_ROLES
{
	M *mp = getg()->m;
	if (atomic_load_explicit(&mp->locks, memory_order_relaxed) != 1)
		throw("stopm: holding locks");
	if (getp(mp))
		throw("stopm: holding p");
	if (mp->spinning)
		throw("stopm: spinning");
	do {
		lock(&sched.lock);
		mput_locked(mp);
		unlock(&sched.lock);
		insteadofnew();
		lastidle();
		tickslook();
		notesleep(&mp->park);
		noteclear(&mp->park);
	} while (runmstartfn(mp));
	P *pp = mp->nextp;
	mp->nextp = NULL;
	acquirep(mp, pp);
}

/* Is there work on some P's queue? A hint. */
static bool anyrunq(void)
{
	for (int32_t i = 0; i < sched.gomaxprocs; i++)
		if (!runqempty(sched.allp[i]))
			return true;
	return false;
}

/*
 * Gives away pp, which the caller took from an M that is in the kernel or
 * from itself; its status is Pidle and it is on no list. An M gets it when
 * there is work; else it is idle.
 */
void handoffp(P *pp)
{
	metricscount(CountHandoff);
	if (!runqempty(pp) || sched.runqsize != 0) {
		startm(pp, false);
		return;
	}
	int32_t zero = 0;
	if (anyrunq() && atomic_compare_exchange_strong(&sched.nmspinning, &zero, 1)) {
		startm(pp, true);
		return;
	}
	lock(&sched.lock);
	if (atomic_load(&sched.gcwaiting)) {
		atomic_store(&pp->status, Pgcstop);
		if (--sched.stopwait == 0)
			notewakeup(&sched.stopnote);
		unlock(&sched.lock);
		return;
	}
	if (sched.runqsize != 0) {
		unlock(&sched.lock);
		startm(pp, false);
		return;
	}
	int64_t when = atomic_load(&pp->timer0when);
	pidleput_locked(pp);
	unlock(&sched.lock);
	if (when != FOREVER) /* somebody must keep an eye on its timers */
		wakepoller(when);
}

/* Makes pp, whose status is Pidle and which is on no list, mp's. mp: caller. */
void acquirep(M *mp, P *pp) UNCHECKED_ROLES
{
	if (atomic_load_explicit(&mp->p, memory_order_relaxed))
		throw("acquirep: already in go");
	if (atomic_load_explicit(&pp->m, memory_order_relaxed) || atomic_load(&pp->status) != Pidle)
		throw("acquirep: invalid p state");
	mp->lastmove = 0;
	atomic_store_explicit(&pp->m, mp, memory_order_relaxed);
	atomic_store_explicit(&pp->status, Prunning, memory_order_relaxed);
	/* Release: sysmon, which finds mp->p, sees the two stores above. */
	atomic_store_explicit(&mp->p, (uintptr_t)pp, memory_order_release);
}

/* Waits out a taking of the P (sysmon.c) that will be undone since locks > 0. */
void clearp(M *mp, P *pp)
{
	uintptr_t p = (uintptr_t)pp;
	while (!atomic_compare_exchange_weak_explicit(&mp->p, &p, 0, memory_order_acq_rel,
						      memory_order_relaxed)) {
		p = (uintptr_t)pp;
		__builtin_ia32_pause();
	}
}

/* The caller's P becomes its own to give away (Pidle, on no list). */
P *releasep(M *mp) UNCHECKED_ROLES
{
	P *pp = (P *)(atomic_load_explicit(&mp->p, memory_order_relaxed) & ~(uintptr_t)1);
	if (!pp)
		throw("releasep: invalid arg");
	if (atomic_load_explicit(&pp->m, memory_order_relaxed) != mp ||
	    atomic_load_explicit(&pp->status, memory_order_relaxed) != Prunning)
		throw("releasep: invalid p state");
	clearp(mp, pp);
	atomic_store_explicit(&pp->m, NULL, memory_order_relaxed);
	atomic_store_explicit(&pp->status, Pidle, memory_order_release);
	return pp;
}

/* The goroutine that this M was wired to is gone: so is the kernel thread. Main's only stops, as
 * much in /proc/self is empty when that has ended, unless it has to. */
void mexit(M *mp, bool mainstoo) UNCHECKED_ROLES
{
	mp->lockedg = NULL;
	handoffp(releasep(mp));
	lastidle();
	if (atomic_load(&mp->tid) != sched.pid)
		mend(mp);
	if (!mainstoo) {
		mp->lockedg = mp->g0; /* as good as wired: it runs no other */
		for (;;) {
			notesleep(&mp->park); /* nobody wakes it */
			noteclear(&mp->park);
		}
	}
	lock(&sched.lock);
	metricsthreads(--sched.mcount);
	unlock(&sched.lock);
	atomic_store(&mp->tid, 0);
	for (;;)
		sys1(60 /* exit */, 0);
}
