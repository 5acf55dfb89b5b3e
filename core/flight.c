/*
 * flight.c - the flight recorder: GOSHIM=flight=20ms.
 *
 * That somebody has waited for too long is known when the wait is over, and then nobody was looking. So events
 * are always recorded (trace.c), in rings that hold a second or so; and when a wait for a processor or for a
 * lock, or a request, took longer than the limit, the last second of them is written to a file, with the stacks of who
 * was in the way: who has just given the lock up, and who ran meanwhile.
 *
 * It is noticed where a goroutine's status changes, in the middle of the scheduler. There it is only noted, and
 * one thing done at once: the stack of who has had the lock is copied, for a moment later it is somewhere else. All
 * the rest does an M without a P (shim/dump.c), when sysmon has been told. What was in the way while the wait lasted has
 * been looked at before (flightlook.c).
 *
 * A file begins with a report for people. Behind it is a copy of the metrics region, as far as it is needed to
 * make sense of the events, with holes where the rest is: so `goshim flight` reads it as goshim trace reads a process.
 *
 * Bounds: files are a second apart, so that each event is in one of them at most, and there are not more than so many;
 * what would be in others is counted. After a failure there are no more.
 */
#include "flight.h"

#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>

enum {
	SECOND = 1000000000,
	RINGS = 32 << 20,       /* bytes for all of them together, if that is enough for */
	MOSTEVENTS = 1 << 18,   /* ... so many in each, */
	HOLDERSTACK = 16 << 10, /* bytes of it are copied */
	NUMBERS = 10000,        /* of files, tried */
	PATIENCE = 2000,        /* ms at the process's end */
};

/* Whoever makes it Noting fills in the rest. */
enum { Off, Armed, Noting, Asked, Writing };

uint64_t flightlimit = UINT64_MAX;

static struct {
	_Atomic uint32_t state;
	_Atomic uint64_t notbefore; /* ticks */
	_Atomic uint64_t missed;    /* waits that were too long as well, and are in no file */
	int64_t files;
	int number; /* the last file's */
	int fd;
	Stall stall;
} flight;

/* --- noticing ------------------------------------------------------------------------- */

/* Shall what took from one moment to the other be written? Then it is the caller's to note. */
static bool claim(uint64_t began, uint64_t ended)
{
	uint32_t armed = Armed;
	if (ticksns(ended - began) <= debug.flight)
		return false;
	if ((int64_t)(ended - atomic_load(&flight.notbefore)) >= 0 &&
	    atomic_compare_exchange_strong(&flight.state, &armed, Noting))
		return true;
	atomic_fetch_add_explicit(&flight.missed, 1, memory_order_relaxed);
	return false;
}

static void noted(StallKind kind, const G *gp, uint64_t began, uint64_t ended)
{
	int64_t goid = gp ? gp->goid : 0;
	flight.stall.kind = kind;
	flight.stall.goid = goid;
	flight.stall.name = gp ? gp->nameslot : 0;
	flight.stall.began = began;
	flight.stall.ended = ended;
	traceof(goid, TraceStall, ended - began);
	atomic_store(&flight.state, Asked);
	wakesysmon();
}

static void copyholder(const G *me, Place at)
{
	Capture *c = &flight.stall.holder;
	size_t n = me->stackhi - at.sp;
	if (at.sp < me->stacklo || at.sp >= me->stackhi)
		return; /* on a signal stack, say */
	n = n < HOLDERSTACK ? n : HOLDERSTACK;
	c->regs = (Registers){.pc = at.pc, .sp = at.sp, .bp = at.bp};
	c->lo = at.sp;
	c->n = n;
	memcpy(c->stack, (const void *)at.sp, n);
	flight.stall.stack = true;
}

bool flightlock(WaitReason why)
{
	return why == WaitMutex || why == WaitRWMutexR || why == WaitRWMutexW || why == WaitOnce;
}

noinline_fn void flightmove(const G *gp, uint32_t from, uint32_t to, uint64_t now)
{
	bool queue = from == Grunnable && to == Grunning;
	bool lock = from == Gwaiting && flightlock(gp->waitreason);
	if (!(queue || lock) || !claim(gp->since, now))
		return;
	G *me = getg();
	flight.stall.stack = false;
	flight.stall.by = 0;
	flight.stall.why = gp->waitreason;
	flight.stall.obj = gp->waitobj;
	if (lock && me && me != gp && me->m && me != me->m->g0) {
		flight.stall.by = me->goid;
		flight.stall.byname = me->nameslot;
		copyholder(me, CALLERSPLACE());
	}
	noted(lock ? StallLock : StallQueue, gp, gp->since, now);
}

void flightrequest(const G *gp, uint64_t began, uint64_t ended, const uint64_t parts[Parts])
{
	if (!claim(began, ended))
		return;
	flight.stall.stack = false;
	flight.stall.by = 0;
	memcpy(flight.stall.parts, parts, sizeof flight.stall.parts);
	noted(StallRequest, gp, began, ended);
}

bool flightasked(void)
{
	return atomic_load_explicit(&flight.state, memory_order_acquire) == Asked ||
	       flightlookwanted();
}

/* --- the file --------------------------------------------------------------------------------- */

/* One that was not there; -errno. */
static long create(char *path, size_t size)
{
	long fd = -EEXIST;
	for (int tries = 0; fd == -EEXIST && tries < NUMBERS; tries++) {
		Text t = textin(path, size);
		textput(&t, "%s/goshim-flight.%d.%d", debug.flightdir, (int64_t)sys0(SYS_getpid),
			(int64_t)++flight.number);
		textend(&t);
		fd = sys4(SYS_openat, AT_FDCWD, (long)path,
			  O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	}
	return fd;
}

static const char *reason(long error)
{
	switch (error) {
	case -EACCES:
	case -EPERM: return "not allowed";
	case -ENOENT: return "no such directory";
	case -ENOTDIR: return "not a directory";
	case -ENOSPC:
	case -EDQUOT: return "no space left";
	case -EROFS: return "a read-only file system";
	case -EFBIG: return "larger than the limit of files' sizes";
	case -EMFILE:
	case -ENFILE: return "too many open files";
	case -EEXIST: return "all numbers are taken";
	case -ENOMEM: return "no memory";
	default: return NULL;
	}
}

static void disarm(void)
{
	flightlimit = UINT64_MAX;
	atomic_store(&flight.state, Off);
}

static void failed(const char *path, long error)
{
	const char *why = reason(error);
	if (why)
		warn("flight recorder: %s: %s; it is off now", path, why);
	else
		warn("flight recorder: %s: error %d; it is off now", path, (int64_t)-error);
	disarm();
}

static void written(const char *path)
{
	char buf[100];
	Text t = textin(buf, sizeof buf);
	stalltext(&t, &flight.stall);
	if (flight.stall.goid)
		warn("flight recorder: goroutine %d %s%s: %s", flight.stall.goid,
		     flight.stall.kind == StallRequest ? "served a request that " : "", textend(&t),
		     path);
	else
		warn("flight recorder: a request %s: %s", textend(&t), path);
	if (++flight.files >= debug.flightfiles) {
		warn("flight recorder: that was the last of %d files", debug.flightfiles);
		disarm();
		return;
	}
	atomic_store(&flight.notbefore, flight.stall.ended + nsticks(SECOND));
	atomic_store(&flight.state, Armed);
}

void flightwrite(void)
{
	char path[FLIGHTDIR + 60];
	uint32_t asked = Asked;
	flightlooktake();
	if (!atomic_compare_exchange_strong(&flight.state, &asked, Writing))
		return;
	ownfdmake();
	long fd = create(path, sizeof path);
	flight.fd = fd >= 0 ? ownfdmade((int)fd) : ownfdmade(-1);
	if (fd < 0)
		return failed(path, fd);
	flight.stall.missed = atomic_exchange(&flight.missed, 0);
	long error = flightreport(flight.fd, &flight.stall);
	ownfdclose(flight.fd);
	if (error) {
		sys1(SYS_unlink, (long)path);
		return failed(path, error);
	}
	written(path);
}

/* --- on and off --------------------------------------------------------------------------------- */

uint64_t flightevents(int32_t n)
{
	uint64_t events = TraceRingEvents;
	if (!debug.flight)
		return events;
	while (events < MOSTEVENTS && 2 * events * sizeof(TraceEvent) * (uint64_t)n <= RINGS)
		events *= 2;
	return events;
}

void flightinit(bool rings, uint64_t size)
{
	if (!rings) {
		warn("flight recorder: no memory for %d KiB of events in " METRICS_DIR
		     "; it is off",
		     (int64_t)(size >> 10));
		return;
	}
	flight.files = 0;
	flight.number = 0;
	atomic_store(&flight.notbefore, 0);
	atomic_store(&flight.missed, 0);
	flightlookreset();
	atomic_store(&flight.state, Armed);
	flightlimit = (uint64_t)debug.flight;
	tracealways();
}

void flightforbidden(void)
{
	if (atomic_load(&flight.state) == Off)
		return;
	flightend();
	if (atomic_load(&flight.state) == Off)
		return;
	warn("flight recorder: off, since the program has its system calls filtered");
	disarm();
}

void flightend(void)
{
	for (int ms = 0; ms < PATIENCE; ms++) {
		uint32_t s = atomic_load(&flight.state);
		if (s == Off || s == Armed)
			return;
		usleep_os(1000);
	}
}

void flightforkchild(void)
{
	disarm();
	flightlookreset();
	flight.fd = -1;
}
