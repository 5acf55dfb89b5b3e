/*
 * debug.c - what the runtime says: warnings, throw, schedtrace lines.
 *
 * All of it must work when everything else is broken: no allocation, no
 * locks, write(2) of one buffer per line.
 */
#include "runtime.h"

#include "text.h"

#include <stdarg.h>
#include <string.h>

#ifdef __clang__
struct Role role_g0, role_p;
#endif

/* A line under construction. */
enum { LINE = 1024 };

static void putlineto(int fd, Text *l)
{
	l->buf[l->n++] = '\n';
	writeall(fd, l->buf, l->n);
	l->n = 0;
}

static void putline(Text *l)
{
	putlineto(2, l);
}

void warn(const char *fmt, ...)
{
	char line[LINE];
	Text l = textin(line, sizeof line);
	va_list ap;
	textput(&l, "goshim: ");
	va_start(ap, fmt);
	textputv(&l, fmt, ap);
	va_end(ap);
	putline(&l);
}

char waitreasons[WaitReasonCount][24] = {
    [WaitNone] = "",
    [WaitMutex] = "sync.Mutex.Lock",
    [WaitCond] = "sync.Cond.Wait",
    [WaitRWMutexR] = "sync.RWMutex.RLock",
    [WaitRWMutexW] = "sync.RWMutex.Lock",
    [WaitSem] = "semacquire",
    [WaitBarrier] = "barrier",
    [WaitOnce] = "once",
    [WaitJoin] = "join",
    [WaitFutex] = "futex",
    [WaitSleep] = "sleep",
    [WaitIORead] = "IO wait",
    [WaitIOWrite] = "IO wait",
    [WaitIOPoll] = "select",
    [WaitSignal] = "signal wait",
    [WaitThread] = "thread exit",
    [WaitKernel] = "kernel thread",
};

const char *waitreasonstr(WaitReason r)
{
	return (unsigned)r < WaitReasonCount ? waitreasons[r] : "?";
}

static const char *gstatusstr(uint32_t s)
{
	static const char *const n[] = {"idle",    "runnable", "running",
					"syscall", "waiting",  "dead"};
	return s < nelem(n) ? n[s] : "?";
}

static const char *pstatusstr(uint32_t s)
{
	static const char *const n[] = {"idle", "running", "syscall", "gcstop", "dead"};
	return s < nelem(n) ? n[s] : "?";
}

/* Waits so far, on the poller and in the kernel; for a kernel thread, of all and now. */
static void putwaits(Text *l)
{
	int64_t net = 0, kernel = 0, lined;
	for (int32_t i = 0; i < sched.nallp; i++) {
		net += sched.allp[i]->nnetwaits;
		kernel += sched.allp[i]->nkernelwaits;
	}
	int64_t line = kwaitline(&lined);
	textput(l, " netwaits=%d kernelwaits=%d threadwaits=%d waitforthread=%d", net, kernel,
		lined, line);
}

/* A line in Go's format; more in scheddetail. Reads without locks: a snapshot
 * that need not be consistent. */
void schedtrace(bool detailed)
{
	static int64_t start;
	char line[LINE];
	Text l = textin(line, sizeof line);
	int64_t now = nanotime();
	if (!start)
		start = now;
	int32_t n = sched.gomaxprocs;
	textput(&l,
		"SCHED %dms: gomaxprocs=%d idleprocs=%d threads=%d spinningthreads=%d "
		"idlethreads=%d runqueue=%d [",
		(now - start) / 1000000, (int64_t)n, (int64_t)sched.npidle, (int64_t)sched.mcount,
		(int64_t)sched.nmspinning, (int64_t)sched.nmidle, (int64_t)sched.runqsize);
	for (int32_t i = 0; i < n; i++) {
		P *pp = sched.allp[i];
		if (i)
			textput(&l, " ");
		textput(&l, "%d",
			(int64_t)(uint32_t)(pp->runqtail - pp->runqhead) + (pp->runnext ? 1 : 0));
	}
	textput(&l, "] goroutines=%d created=%d", (int64_t)sched.nglive, (int64_t)sched.goidgen);
	textput(&l, " syscallwaits=%d preempted=%d retaken=%d handoffs=%d steals=%d",
		(int64_t)sched.nkblocked, metricscounted(CountPreempted),
		metricscounted(CountRetaken), metricscounted(CountHandoff),
		metricscounted(CountStolen));
	putwaits(&l);
	putline(&l);
	if (!detailed)
		return;
	for (int32_t i = 0; i < n; i++) {
		P *pp = sched.allp[i];
		M *mp = pp->m;
		textput(
		    &l,
		    "  P%d: status=%s schedtick=%d syscalltick=%d m=%d runqsize=%d gfreecnt=%d timerslen=%d",
		    (int64_t)i, pstatusstr(pp->status), (int64_t)pp->schedtick,
		    (int64_t)pp->syscalltick, mp ? mp->id : -1,
		    (int64_t)(uint32_t)(pp->runqtail - pp->runqhead), (int64_t)pp->ngfree,
		    (int64_t)pp->ntimers);
		putline(&l);
	}
	for (M *mp = sched.allm; mp; mp = mp->alllink) {
		P *pp = (P *)(mp->p & ~(uintptr_t)1);
		G *cur = mp->curg, *locked = mp->lockedg;
		textput(&l, "  M%d: tid=%d p=%d curg=%d locks=%d spinning=%d taken=%d lockedg=%d",
			mp->id, (int64_t)mp->tid, pp ? (int64_t)pp->id : -1, cur ? cur->goid : -1,
			(int64_t)mp->locks, (int64_t)mp->spinning, (int64_t)mp->taken,
			locked ? locked->goid : -1);
		putline(&l);
	}
	for (G *gp = sched.allg; gp; gp = gp->alllink) {
		uint32_t s = gp->status;
		if (s == Gdead || s == Gidle)
			continue;
		M *mp = gp->m;
		textput(&l, "  G%d: status=%s(%s) m=%d lockedm=%d waking=%d intr=%d", gp->goid,
			gstatusstr(s), waitreasonstr(gp->waitreason), mp ? mp->id : -1,
			gp->lockedm ? gp->lockedm->id : -1, (int64_t)gp->waking, (int64_t)gp->intr);
		putline(&l);
	}
}

void exitstats(int fd)
{
	char line[LINE];
	Text l = textin(line, sizeof line);
	textput(&l,
		"goshim: created=%d goroutines=%d peak=%d threads=%d gomaxprocs=%d preempted=%d "
		"retaken=%d handoffs=%d steals=%d starts=%d",
		(int64_t)sched.goidgen, (int64_t)sched.nglive, (int64_t)sched.ngpeak,
		(int64_t)sched.mcount, (int64_t)sched.gomaxprocs, metricscounted(CountPreempted),
		metricscounted(CountRetaken), metricscounted(CountHandoff),
		metricscounted(CountStolen), metricscounted(CountStarts));
	putwaits(&l);
	putlineto(fd, &l);
}

void throw(const char *what)
{
	static _Atomic uint32_t throwing;
	char line[LINE];
	Text l = textin(line, sizeof line);
	G *gp = getg();
	if (atomic_exchange(&throwing, 1) == 0) {
		textput(&l, "goshim: fatal error: %s", what);
		putline(&l);
		if (gp) {
			M *mp = gp->m;
			textput(&l, "  goroutine %d on M%d (locks=%d)",
				mp && gp == mp->g0 ? 0 : gp->goid, mp ? mp->id : -1,
				mp ? (int64_t)mp->locks : 0);
			putline(&l);
		}
		if (schedstarted())
			schedtrace(true);
	}
	host.die();
	for (;;)
		sys1(231 /* exit_group */, 134);
}
