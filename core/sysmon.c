/*
 * sysmon.c - the thread that runs without a P and looks after the others.
 *
 * While work waits for a P it ticks: it takes the P from Ms that are in a
 * system call, preempts goroutines that have run for a slice, and takes the P
 * of goroutines that are stuck in the kernel without having told us. Otherwise
 * there is nothing to mend, and it sleeps: in the network poller, until the
 * next timer, if no M is there; else on a note. Whoever queues work and finds
 * no P for it wakes it (sysmonneeded). Go's sysmon ticks whenever anything
 * runs; for us that would be 100 wake-ups a second of a server that native
 * threads run with none.
 *
 * Taking the P of an M that runs user code. Libc's own calls (stdio, malloc's
 * locks), inline system calls, other libraries' futexes block without our
 * knowledge; their P must go on. An M that makes no progress is one whose
 * CPU clock stands still over a tick, and which the kernel doesn't merely keep
 * waiting for a CPU (its state in /proc, where there is one). In time one counts as stuck, too, that
 * computes where it can't be preempted: else a loop of libc's calls would keep others
 * waiting for seconds. The P is taken
 * without the M's help, and no signal, so no call fails with EINTR:
 *
 *    sysmon: p of M := p|1        M, at each entry (acquirem): locks++
 *            membarrier                                  read p
 *            locks != 0? undo                            p|1: wait; 0: get another P
 *
 * The membarrier makes the M's two accesses, which have no fence between them,
 * ordered: either sysmon sees locks, or the M sees p. An M that computes on
 * without a P is sent SIGURG, and waits for one then.
 */
#include "flight.h"
#include "runtime.h"

#include <string.h>

enum {
	TICKMIN = 1000000,  /* ns: first tick when work waits */
	TICKMAX = 10000000, /* ns: longest */
	STORM = 100000,     /* ns: preempt everything this often */
	INTRTICK = 1000000, /* ns: ask again for a refused interruption */
	REFUSED =
	    30000000, /* ns: one that computes so long where it can't be preempted loses its P */
	POLLMAX = 10000000, /* ns: the network is polled this often when nobody else does */
	VERIFY =
	    1000000000,     /* ns: who waits for a descriptor for so long has it registered again */
	POLLLATE = 2000000, /* ns: ... and waited for when nobody has asked for so long */
	MINRUN =
	    100000,    /* ns: a runner has at least before it is preempted for one that was woken */
	GRACE = 20000, /* ns: a P that is about to look at its timers itself may */
};

/* Is work queued that waits for a P? */
static bool workqueued(void)
{
	if (sched.runqsize > 0)
		return true;
	for (int32_t i = 0; i < sched.gomaxprocs; i++)
		if (!runqempty(sched.allp[i]))
			return true;
	return false;
}

static bool anyrunning(void)
{
	for (int32_t i = 0; i < sched.gomaxprocs; i++)
		if (sched.allp[i]->status == Prunning)
			return true;
	return false;
}

/* Waits one for a P that an event has woken? */
static bool someonewoken(void)
{
	return sched.nwoken > 0;
}

char threadstate(int tid)
{
	static const char dir[] = "/proc/self/task/", file[] = "/stat";
	char path[64], buf[128], num[12];
	int n = 0;
	size_t at = sizeof dir - 1;
	for (; tid > 0; tid /= 10)
		num[n++] = (char)('0' + tid % 10);
	memcpy(path, dir, at);
	while (n > 0)
		path[at++] = num[--n];
	memcpy(path + at, file, sizeof file);
	long len = readfileapart(path, buf, sizeof buf);
	for (long i = len - 3; i > 0; i--)
		if (buf[i] == ')') /* the name ends with the last one; then the state */
			return buf[i + 2];
	return 0;
}

/*
 * Does the kernel only run something else in this thread's place? To take its P would
 * make one more thread that waits for a CPU. Without /proc it counts as blocked.
 */
static bool descheduled(int tid)
{
	return threadstate(tid) == 'R';
}

/* See the top. pp is Prunning and its M made no progress. */
static bool takep(P *pp)
{
	M *mp = atomic_load(&pp->m);
	if (!mp || atomic_load(&mp->locks) != 0)
		return false;
	uintptr_t p = (uintptr_t)pp;
	if (!atomic_compare_exchange_strong(&mp->p, &p, p | 1))
		return false;
	membarrier();
	if (atomic_load(&mp->locks) != 0 || atomic_load(&pp->m) != mp || pp->status != Prunning) {
		atomic_store(&mp->p, p);
		return false;
	}
	atomic_store(&mp->taken, true);
	mp->takencputime = threadcputime(mp->tid);
	atomic_store(&pp->m, NULL);
	atomic_store(&pp->status, Pidle);
	atomic_store(&mp->p, 0);
	metricscount(CountRetaken);
	traceevent(TraceTaken, (uint64_t)pp->id);
	handoffp(pp);
	return true;
}

bool computes(M *mp)
{
	int64_t cpu = threadcputime(mp->tid);
	return cpu >= 0 && threadcputime(mp->tid) > cpu;
}

/* ns since `start` in cputicks; where these are not to be had, what the looks have shown. */
static int64_t since(uint64_t start, int64_t seen)
{
	const int64_t most = 1ll << 40;
	uint64_t minrun = sched.minrun;
	if (!minrun || !start)
		return seen;
	int64_t ticks = (int64_t)(cputicks() - start);
	ticks = ticks < 0      ? 0
		: ticks > most ? most
			       : ticks; /* CPUs' counters may differ a little */
	return (int64_t)((uint64_t)ticks * MINRUN / minrun);
}

/*
 * What a runner has at least before it makes way for one that was woken. The more of those there are, the less
 * of them one preemption serves, and the more they would cost together.
 */
static int64_t leastrun(void)
{
	int64_t ns = (int64_t)MINRUN * (1 + atomic_load(&sched.nwoken) / sched.gomaxprocs);
	return ns < debug.slice ? ns : debug.slice;
}

/* One look at all Ps. Returns when the next is due, if some were set free or asked to yield; else 0. */
static int64_t retake(int64_t now)
{
	int n = 0, nlong = 0;
	P *longest = NULL;
	int64_t longestrun = 0;
	const int64_t least = leastrun();
	bool waiting = workqueued() || atomic_load(&sched.gcwaiting);
	for (int32_t i = 0; i < sched.gomaxprocs; i++) {
		P *pp = sched.allp[i];
		uint32_t s = atomic_load(&pp->status);
		if (s == Psyscall) {
			uint32_t t = atomic_load(&pp->syscalltick);
			if (pp->sysmontick.syscalltick != t || pp->sysmontick.syscallwhen == 0) {
				pp->sysmontick.syscalltick = t;
				pp->sysmontick.syscallwhen = now;
			}
			if (!waiting)
				continue;
			/* One that has not said that it will last has a while. If it makes one call after the
			 * other it yields when it comes out of one. */
			if (!atomic_load(&pp->longcall) &&
			    now - pp->sysmontick.syscallwhen < TICKMIN) {
				if (since(pp->slicestart, 0) >= debug.slice)
					atomic_store(&pp->preempt, PreemptSlice);
				continue;
			}
			if (atomic_compare_exchange_strong(&pp->status, &s, Pidle)) {
				metricscount(CountRetaken);
				traceevent(TraceTaken, (uint64_t)pp->id);
				n++;
				handoffp(pp);
			}
			continue;
		}
		pp->sysmontick.syscallwhen = 0;
		if (s != Prunning)
			continue;
		M *mp = atomic_load(&pp->m);
		uint32_t t = atomic_load(&pp->schedtick);
		int64_t cpu = mp ? threadcputime(mp->tid) : -1;
		if (pp->sysmontick.schedtick != t || pp->sysmontick.schedwhen == 0) {
			pp->sysmontick.schedtick = t;
			pp->sysmontick.schedwhen = pp->sysmontick.cpuwhen = now;
			pp->sysmontick.cputime = cpu;
		} else if (now - pp->sysmontick.cpuwhen >= TICKMIN / 2) {
			if (waiting && cpu >= 0 && cpu == pp->sysmontick.cputime &&
			    !descheduled(mp->tid) && takep(pp)) {
				n++;
				continue;
			}
			pp->sysmontick.cpuwhen = now;
			pp->sysmontick.cputime = cpu;
		}
		int64_t seen = now - pp->sysmontick.schedwhen;
		int64_t ran = since(pp->slicestart, seen), runs = since(pp->runstart, seen);
		nlong += runs >= least;
		if (runs >= least && runs > longestrun && !atomic_load(&pp->preempt)) {
			longest = pp;
			longestrun = runs;
		}
		if (!waiting || ran < debug.slice || !mp || !(computes(mp) || descheduled(mp->tid)))
			continue;
		/* In libc it can't be switched away from, and a loop of libc's calls may be there each
		 * time that it is asked. It goes on there, without the P. */
		n += seen >= REFUSED && seen >= 3 * debug.slice && takep(pp)
			 ? 1
			 : preemptone(pp, PreemptSlice);
	}
	atomic_store(&sched.longrunners, nlong == sched.gomaxprocs);
	/* Whoever was woken by an event does not wait for the end of a slice. */
	M *mp = longest ? atomic_load(&longest->m) : NULL;
	if (n == 0 && mp && atomic_load(&sched.npidle) == 0 && someonewoken() &&
	    (computes(mp) || descheduled(mp->tid))) /* by us, as a rule */
		if (preemptone(longest, PreemptWoken))
			return MINRUN; /* one may be woken again soon */
	return n ? TICKMIN : 0;
}

/* Storm: asks all to yield. */
static void stormall(void)
{
	for (int32_t i = 0; i < sched.gomaxprocs; i++) {
		P *pp = sched.allp[i];
		M *mp = pp->status == Prunning ? atomic_load(&pp->m) : NULL;
		if (mp && computes(mp))
			preemptone(pp, PreemptSlice);
	}
}

/* Ms that compute on without a P, and goroutines whose interruption was
 * refused: asks again. True while there are some. */
static bool remind(void)
{
	bool some = false, intr = atomic_exchange(&sched.intrpending, 0) != 0;
	for (M *mp = atomic_load(&sched.allm); mp; mp = mp->alllink) {
		G *gp = mp->curg;
		if (intr && gp && atomic_load(&gp->intr) == IntrAsked) {
			preemptm(mp);
			some = true;
		}
		if (!atomic_load(&mp->taken) || atomic_load(&mp->p))
			continue;
		int64_t cpu = threadcputime(mp->tid);
		if (cpu >= 0 && cpu > mp->takencputime + 100000)
			preemptm(mp);
	}
	if (some)
		atomic_store(&sched.intrpending, 1);
	return some;
}

/* Timers that are late on Ps that run something long, and the network. */
static void poll(int64_t now)
{
	bool ran;
	for (int32_t i = 0; i < sched.nallp; i++)
		if (atomic_load(&sched.allp[i]->timer0when) <= now)
			checktimers(sched.allp[i], now, &ran);
	int64_t last = atomic_load(&sched.lastpoll);
	if (last != 0 && last + POLLMAX < now && netpollanywaiters()) {
		int32_t n = 0;
		atomic_compare_exchange_strong(&sched.lastpoll, &last, now);
		G *list = netpoll(0, &n);
		injectglist(list, n);
	}
}

/* Changes when goroutines are run. */
uint32_t schedticks(void)
{
	uint32_t n = 0;
	for (int32_t i = 0; i < sched.gomaxprocs; i++)
		n += sched.allp[i]->schedtick;
	return n;
}

/* Somebody waits for the network, and nobody has asked for a while, or, where all run for long, none of them will. */
static bool othersdontpoll(int64_t now)
{
	if (!netpollanywaiters() || atomic_load(&sched.lastpoll) == 0)
		return false;
	return now - atomic_load(&sched.polledat) > POLLLATE ||
	       (atomic_load(&sched.longrunners) && now - atomic_load(&sched.turnedat) > POLLLATE);
}

/*
 * Sleeps until `until`, the next timer, an event of the network if nobody else has asked for one lately, a signal, or
 * wakesysmon. Work waits meanwhile for Ps that others have.
 */
static void nap(int64_t now, int64_t until)
{
	noteclear(&sched.sysmonnote);
	atomic_store(&sched.sysmonuntil, until);
	atomic_store(&sched.sysmonwait, SysmonNaps);
	/* Who adds a timer after that wakes us; those that there are: */
	int64_t timer = timesleepuntil();
	if (timer != FOREVER && timer + GRACE < until)
		until = timer + GRACE;
	bool sleep = until > now && !host.signalspending();
	/* Of more that are woken we need not know while some wait for a runner to have had its least. */
	if (sleep && !someonewoken() && othersdontpoll(now)) {
		int32_t n = 0;
		G *list = NULL;
		atomic_store(&sched.sysmonpolls, true);
		if (atomic_load(&sched.sysmonwait))
			list = netpoll(until - now, &n);
		atomic_store(&sched.sysmonpolls, false);
		injectglist(list, n);
	} else if (sleep) {
		/* They may begin to run something long. */
		if (until > now + POLLLATE && netpollanywaiters())
			until = now + POLLLATE;
		notetsleep(&sched.sysmonnote, until - now);
	}
	atomic_store(&sched.sysmonuntil, 0);
	if (atomic_exchange(&sched.sysmonwait, SysmonRuns) == SysmonRuns)
		notesleep(&sched.sysmonnote); /* a waker is on its way */
}

/* Sleeps until something needs us, or `until`. */
static void deepsleep(int64_t until)
{
	noteclear(&sched.sysmonnote);
	atomic_store(&sched.sysmonwait, SysmonSleeps);
	/* Whoever queued work before it could see sysmonwait is seen here. */
	if (workqueued() || atomic_load(&sched.intrpending) || atomic_load(&sched.gcwaiting) ||
	    (until == FOREVER && netpolltrusts()) || kwaitasked() || asleepasked() ||
	    host.signalspending()) {
		if (atomic_exchange(&sched.sysmonwait, 0) == 0)
			notesleep(&sched.sysmonnote); /* a waker is on its way */
		return;
	}
	/* Seq-cst: whoever leaves the poller after that, and others wait there, wakes us. */
	atomic_store(&sched.sysmonforever, until == FOREVER);
	int64_t timer = timesleepuntil();
	int64_t now = nanotime();
	if (until < now) /* a negative time has no end */
		until = now;
	/* An M polls. When it leaves the poller to run something long, nobody tells us:
	 * look now and then, less often while nothing happens, and once more after the last has gone. */
	static bool some;
	bool waits = timer != FOREVER || netpollanywaiters(), had = some;
	some = waits;
	if (some || had) {
		atomic_store(&sched.sysmonforever, false);
		uint32_t ticks = schedticks();
		static uint32_t lastticks;
		static int64_t interval = POLLMAX;
		interval = ticks != lastticks        ? POLLMAX
			   : interval < 16 * POLLMAX ? 2 * interval
						     : interval;
		lastticks = ticks;
		if (until > now + interval)
			until = now + interval;
	}
	if ((timer != FOREVER || netpollanywaiters()) && atomic_exchange(&sched.lastpoll, 0) != 0) {
		int64_t end = timer < until ? timer : until;
		int32_t n = 0;
		atomic_store(&sched.sysmonpolls, true);
		atomic_store(&sched.polluntil, end);
		timer = timesleepuntil();
		end = timer < end ? timer : end;
		G *list = NULL;
		/* wakesysmon that saw sysmonpolls breaks the poll; one that did not
		 * has cleared sysmonwait. */
		if (atomic_load(&sched.sysmonwait))
			list = netpoll(end == FOREVER ? -1 : end > now ? end - now : 0, &n);
		crowdmet(n);
		atomic_store(&sched.polluntil, 0);
		atomic_store(&sched.sysmonpolls, false);
		atomic_store(&sched.lastpoll, nanotime());
		if (atomic_exchange(&sched.sysmonwait, 0) == 0)
			notesleep(&sched.sysmonnote);
		injectglist(list, n);
		return;
	}
	bool woken = notetsleep(&sched.sysmonnote, until == FOREVER ? -1 : until - now);
	if (!woken && atomic_exchange(&sched.sysmonwait, 0) == 0)
		notesleep(&sched.sysmonnote);
}

void avoidtsc(void)
{
	ticksavoid();
	atomic_store(&sched.notsc, true);
	atomic_store(&sched.slowmoves, true);
	atomic_store(&sched.minrun, 0);
	__atomic_store_n(&host.clock_gettime, NULL, __ATOMIC_RELAXED); /* libc's reads it */
}

void wakesysmon(void)
{
	if (atomic_exchange(&sched.sysmonwait, 0) == 0)
		return;
	bool polls = atomic_load(&sched.sysmonpolls);
	notewakeup(&sched.sysmonnote);
	if (polls)
		netpollBreak();
}

void sysmonforkchild(void)
{
	asleepforkchild();
}

void sysmon(void *unused)
{
	(void)unused;
	int quiet = 0; /* looks in a row that found nobody to preempt for one that was woken */
	int64_t tick = TICKMIN, nexttrace = 0, nextstorm = 0, nextverify = 0;
	int64_t tickmax = debug.sysmon ? debug.sysmon : TICKMAX;
	int64_t started = nanotime();
	uint64_t ticks = sched.notsc ? 0 : cputicks();
	sched.sysmontid = gettid_os();
	if (debug.schedtrace)
		nexttrace = started;
	for (;;) {
		host.sysmontick();
		int64_t now = nanotime();
		if (debug.schedtrace && now >= nexttrace) {
			schedtrace(debug.scheddetail);
			nexttrace = now + debug.schedtrace * 1000000;
		}
		if (!sched.minrun && !sched.notsc && now - started > MINRUN)
			sched.minrun = (cputicks() - ticks) * MINRUN / (uint64_t)(now - started);
		tickslook();
		bool reminded = remind();
		bool busy = workqueued() || atomic_load(&sched.gcwaiting) || reminded;
		if (debug.storm && anyrunning()) {
			if (now >= nextstorm) {
				stormall();
				nextstorm = now + STORM;
			}
			busy = true;
		}
		int64_t until = FOREVER;
		if (debug.schedtrace)
			until = nexttrace;
		if (netpolltrusts()) {
			if (!nextverify)
				nextverify = now + VERIFY;
			else if (now >= nextverify)
				nextverify = netpollverify() ? now + VERIFY : 0;
			if (nextverify && nextverify < until)
				until = nextverify;
		}
		poll(now);
		int64_t turn = kwaitlook(now);
		int64_t stalls = flightlook(now);
		if (stalls < until)
			until = stalls;
		if (!busy) {
			tick = TICKMIN < tickmax ? TICKMIN : tickmax;
			if (debug.storm)
				until = now + 10 * STORM;
			int64_t look = asleepcheck(now);
			if (turn < look)
				look = turn;
			deepsleep(look < until ? look : until);
			atomic_store(&sched.sysmonforever, false);
			continue;
		}
		int64_t next = retake(now);
		if (next)
			tick = next;
		else if (tick < tickmax)
			tick += tick / 2;
		if (workqueued() && atomic_load(&sched.npidle) > 0)
			wakep();
		int64_t ns = debug.storm ? STORM : tick;
		if (ns > stalls - now)
			ns = stalls - now;
		if (reminded && ns > INTRTICK)
			ns = INTRTICK;
		if (ns > tickmax)
			ns = tickmax;
		/* Nobody was found that has run long enough: they switch, or will have soon. Where that goes on,
		 * as in a busy server, looks are rarer. */
		quiet = someonewoken() && !next ? quiet + 1 : 0;
		int64_t most = quiet < 8 ? 4 * MINRUN : 12 * MINRUN;
		if (someonewoken() && ns > most)
			ns = most;
		nap(now, now + ns);
	}
}
