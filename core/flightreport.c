/*
 * flightreport.c - what a file of the flight recorder has in it (flight.c).
 *
 * First, for people, who was in the way: what the rings of events say of who ran meanwhile, and of what the holder of the
 * lock did, with the stacks that there are. Then the copy of the metrics region.
 */
#include "flight.h"

#include "lockstat.h"
#include "report.h"
#include "text.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

enum {
	PAGE = 4096,
	SECOND = 1000000000,
	RUNNERS = 64,  /* goroutines that are told apart, */
	SHOWN = 8,     /* ... and told of */
	MARGIN = 1024, /* events that may come while older ones are copied */
};

typedef struct Runner {
	int64_t goid;
	uint8_t name; /* the slot of it */
	uint64_t ticks;
} Runner;

/* A goroutine's statuses, and behind them what it has waited for. */
enum { STATES = 8 + WaitReasonCount };

/* One at a time. */
static struct {
	const Stall *stall;
	int fd;
	uint64_t at, from; /* of the region in the file; ticks of the first event */
	Runner runners[RUNNERS];
	int nrunners;
	int64_t states[STATES];
} told;

/* --- who ran meanwhile ------------------------------------------------------------------ */

static void addrun(int64_t goid, uint8_t name, uint64_t from, uint64_t to)
{
	int i = 0;
	from = from > told.stall->began ? from : told.stall->began;
	to = to < told.stall->ended ? to : told.stall->ended;
	if ((int64_t)(to - from) <= 0)
		return;
	while (i < told.nrunners && told.runners[i].goid != goid)
		i++;
	if (i == RUNNERS) /* the least makes room */
		for (int k = i = 0; k < RUNNERS; k++)
			i = told.runners[k].ticks < told.runners[i].ticks ? k : i;
	else if (i == told.nrunners)
		told.runners[told.nrunners++] = (Runner){.goid = goid, .name = name};
	/* The newest comes first: that is the name that it has. */
	if (told.runners[i].goid != goid)
		told.runners[i] = (Runner){.goid = goid, .name = name};
	told.runners[i].ticks += to - from;
}

/* Number n of the ring; NULL: it is not there any more, or not yet. */
static const TraceEvent *eventat(const TraceRing *r, uint64_t n)
{
	const TraceEvent *e = &r->events[n & r->mask];
	return __atomic_load_n(&e->seq, __ATOMIC_ACQUIRE) == n + 1 ? e : NULL;
}

/* The oldest that may still be looked at. */
static uint64_t oldest(const TraceRing *r, uint64_t next)
{
	uint64_t room = r->mask + 1 - MARGIN;
	return next > room ? next - room : 0;
}

/* Backwards, to what began before the wait. */
static void runnersof(const TraceRing *r)
{
	uint64_t next = __atomic_load_n(&r->head->next, __ATOMIC_RELAXED);
	uint64_t until = told.stall->ended;
	uint64_t left = 0; /* `what` of who left at `until` */
	for (uint64_t n = next, end = oldest(r, next); n-- > end;) {
		const TraceEvent *e = eventat(r, n);
		uint32_t type = e ? (uint8_t)e->what : TraceCount;
		if (type >= TraceCount)
			continue;
		if (type % 8 == Grunning) /* it may have got its name since */
			addrun((int64_t)(e->what >> 24),
			       (uint8_t)((left >> 24 == e->what >> 24 ? left : e->what) >> 16),
			       e->ticks, until);
		if (type % 8 == Grunning || type / 8 == Grunning) {
			until = e->ticks;
			left = e->what;
		}
		if ((int64_t)(e->ticks - told.stall->began) < 0)
			return;
	}
}

static void findrunners(void)
{
	told.nrunners = 0;
	for (int32_t i = 0; i < sched.nallp; i++)
		if (sched.allp[i]->meter.ring.events)
			runnersof(&sched.allp[i]->meter.ring);
	for (int i = 1; i < told.nrunners; i++)
		for (int k = i; k && told.runners[k].ticks > told.runners[k - 1].ticks; k--) {
			Runner r = told.runners[k];
			told.runners[k] = told.runners[k - 1];
			told.runners[k - 1] = r;
		}
}

/* --- what one did meanwhile ----------------------------------------------------------------- */

/* The first and the last thing that is known of it. */
typedef struct Ends {
	uint64_t first, last;
	unsigned from, to;
} Ends;

static unsigned stateof(uint32_t status, uint64_t what)
{
	unsigned why = (uint8_t)(what >> 8);
	return status == Gwaiting && why < WaitReasonCount ? 8 + why : status;
}

static void statesof(const TraceRing *r, int64_t goid, Ends *ends)
{
	uint64_t next = __atomic_load_n(&r->head->next, __ATOMIC_RELAXED);
	for (uint64_t n = next, end = oldest(r, next); n-- > end;) {
		const TraceEvent *e = eventat(r, n);
		if (!e || (int64_t)(e->ticks - told.stall->ended) > 0)
			continue;
		if ((int64_t)(e->ticks - told.stall->began) < 0)
			return;
		uint32_t type = (uint8_t)e->what;
		if (type >= TraceCount || (int64_t)(e->what >> 24) != goid)
			continue;
		unsigned from = stateof(type / 8, e->what), to = stateof(type % 8, e->what);
		/* It was in the one up to here, and in the other from here on. */
		told.states[from] += (int64_t)e->ticks;
		told.states[to] -= (int64_t)e->ticks;
		if (!ends->first || (int64_t)(e->ticks - ends->first) < 0) {
			ends->first = e->ticks;
			ends->from = from;
		}
		if (!ends->last || (int64_t)(e->ticks - ends->last) >= 0) {
			ends->last = e->ticks;
			ends->to = to;
		}
	}
}

/* In how much of the time it was in which state; false: that is not known. */
static bool findstates(int64_t goid)
{
	Ends ends = {.first = 0};
	memset(told.states, 0, sizeof told.states);
	for (int32_t i = 0; i <= sched.nallp; i++) {
		const TraceRing *r = i < sched.nallp ? &sched.allp[i]->meter.ring : &nobodys.ring;
		if (r->events)
			statesof(r, goid, &ends);
	}
	if (!ends.first)
		return false;
	told.states[ends.from] -= (int64_t)told.stall->began;
	told.states[ends.to] += (int64_t)told.stall->ended;
	return true;
}

/* --- the report ---------------------------------------------------------------------------- */

/* "12.345 ms" */
static void putms(Text *t, uint64_t ticks)
{
	int64_t us = (ticksns(ticks) + 500) / 1000;
	textput(t, "%d.%d%d%d ms", us / 1000, us / 100 % 10, us / 10 % 10, us % 10);
}

/* In `width` digits. */
static void putdigits(Text *t, int64_t v, int width)
{
	int64_t p = 1;
	while (--width > 0)
		p *= 10;
	for (; p; p /= 10)
		textput(t, "%d", v / p % 10);
}

static int64_t daysof(int64_t year, int month)
{
	static const char days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
	return days[month] + (month == 1 && leap);
}

/* As 2026-11-20 22:31:07.123 UTC; ns since 1970. */
static void putdate(Text *t, int64_t ns)
{
	int64_t ms = ns / 1000000, s = ms / 1000, day = s / 86400, year = 1970;
	int month = 0;
	while (day >= daysof(year, month)) {
		day -= daysof(year, month);
		month = (month + 1) % 12;
		year += month == 0;
	}
	putdigits(t, year, 4);
	textput(t, "-");
	putdigits(t, month + 1, 2);
	textput(t, "-");
	putdigits(t, day + 1, 2);
	textput(t, " ");
	putdigits(t, s / 3600 % 24, 2);
	textput(t, ":");
	putdigits(t, s / 60 % 60, 2);
	textput(t, ":");
	putdigits(t, s % 60, 2);
	textput(t, ".");
	putdigits(t, ms % 1000, 3);
	textput(t, " UTC");
}

static void tellms(uint64_t ticks)
{
	char buf[40];
	Text t = textin(buf, sizeof buf);
	putms(&t, ticks);
	reporttext("    %s  ", textend(&t));
}

/* It may have ended since. */
static void tellwho(int64_t goid, uint8_t slot)
{
	char name[METRICSNAME];
	metricsthread(slot, name);
	reporttext("goroutine %d (%s)", goid, name);
}

static const char *lockkind(WaitReason why)
{
	return why == WaitMutex ? "mutex" : why == WaitOnce ? "once" : "rwlock";
}

/* What was too long, without who. */
void stalltext(Text *t, const Stall *s)
{
	textput(t, s->kind == StallRequest ? "was answered after " : "waited ");
	putms(t, s->ended - s->began);
	if (s->kind == StallQueue)
		textput(t, " for a processor");
	else if (s->kind == StallLock)
		textput(t, " for %s %p", lockkind(s->why), (void *)s->obj);
}

static void tellstates(void)
{
	static const char *const names[8] = {[Grunnable] = "in a run queue",
					     [Grunning] = "running",
					     [Gsyscall] = "in a system call",
					     [Gdead] = "not there"};
	if (!findstates(told.stall->by))
		return;
	reporttext("\nwhat it did meanwhile\n");
	for (int i = 0; i < STATES; i++) {
		if (told.states[i] <= 0)
			continue;
		tellms((uint64_t)told.states[i]);
		reporttext("%s%s\n", i < 8 ? names[i] : "waiting: ",
			   i < 8 ? "" : waitreasonstr((WaitReason)(i - 8)));
	}
}

static void telllock(void)
{
	const LockRecord *r = lockrecordat(told.stall->obj);
	reportobject(told.stall->obj);
	if (r && r->site && !(r->flags & LockStatic)) {
		reporttext(", initialised by ");
		reportcall(r->site);
	}
	if (told.stall->by) {
		reporttext("\nuntil ");
		tellwho(told.stall->by, told.stall->byname);
		reporttext(" gave it up");
	}
	reporttext("\n");
	if (!told.stall->stack)
		return;
	reporttext("\ngoroutine %d [giving it up]:\n", told.stall->by);
	reportstack(&told.stall->holder);
	tellstates();
}

/* What was seen while it lasted. */
static void telllook(void)
{
	char buf[40];
	uint64_t at;
	size_t n;
	const char *text = flightlooked(told.stall, &at, &n);
	if (!text)
		return;
	Text t = textin(buf, sizeof buf);
	putms(&t, at - told.stall->began);
	reporttext("\nwho was in the way, as seen after %s of that\n\n", textend(&t));
	reportplain(text, n);
}

static void tellparts(void)
{
	static const char *const names[Parts] = {"in a run queue", "cpu",
						 "lock",           "wait for another thread",
						 "sleep",          "wait for a descriptor",
						 "system call",    "elsewhere"};
	reporttext("\nof that\n");
	for (int i = 0; i < Parts; i++) {
		if (!told.stall->parts[i])
			continue;
		tellms(told.stall->parts[i]);
		reporttext("%s\n", names[i]);
	}
}

static void tellrunners(void)
{
	char buf[40];
	Text t = textin(buf, sizeof buf);
	putms(&t, told.stall->ended - told.stall->began);
	reporttext("\nwho ran meanwhile, in %s of %d processors\n", textend(&t),
		   (int64_t)sched.gomaxprocs);
	for (int i = 0; i < told.nrunners && i < SHOWN; i++) {
		tellms(told.runners[i].ticks);
		tellwho(told.runners[i].goid, told.runners[i].name);
		reporttext("\n");
	}
	if (!told.nrunners)
		reporttext("    nobody\n");
}

static void tellstacks(void)
{
	char buf[40];
	Text t = textin(buf, sizeof buf);
	putms(&t, ticksnow() - told.stall->ended);
	reporttext("\nwhere they are %s later, and the one that has waited\n\n", textend(&t));
	/* Who had only a little of the time was not in the way. */
	uint64_t little = (told.stall->ended - told.stall->began) / 20;
	int64_t holder = told.stall->by, waiter = told.stall->goid;
	bool any = holder && reportgoroutine(holder);
	for (int i = 0; i < told.nrunners && i < SHOWN; i++) {
		const Runner *r = &told.runners[i];
		if (r->ticks >= little && r->goid != holder && r->goid != waiter)
			any |= reportgoroutine(r->goid);
	}
	any |= waiter && reportgoroutine(waiter);
	if (!any)
		reporttext("    they have ended\n");
}

static void tellreport(void)
{
	char buf[300], name[METRICSNAME];
	int64_t wall[2] = {0, 0};
	Text t = textin(buf, sizeof buf);
	sys2(SYS_clock_gettime, 0 /* CLOCK_REALTIME */, (long)wall);
	metricsthread(0, name);
	textput(&t, FLIGHT_TITLE "0000000000\n%s, process %d, ", name, (int64_t)sys0(SYS_getpid));
	putdate(&t, wall[0] * SECOND + wall[1] - ticksns(ticksnow() - told.stall->ended));
	reporttext("%s, limit %d us\n", textend(&t), debug.flight / 1000);
	if (told.stall->missed)
		reporttext("%d more have taken too long since the last file\n",
			   (int64_t)told.stall->missed);
	t = textin(buf, sizeof buf);
	stalltext(&t, told.stall);
	reporttext("\n");
	if (told.stall->goid)
		tellwho(told.stall->goid, told.stall->name);
	else
		reporttext("a request");
	reporttext(" %s%s",
		   told.stall->goid && told.stall->kind == StallRequest ? "served a request that "
									: "",
		   textend(&t));
	if (told.stall->kind == StallLock)
		telllock();
	else
		reporttext("\n");
	if (told.stall->kind == StallRequest)
		tellparts();
	telllook();
	tellrunners();
	tellstacks();
}

/* --- the events --------------------------------------------------------------------------- */

/* At `at` in the copy of the region. */
static bool put(void *unused, uint64_t at, const void *p, uint64_t n)
{
	(void)unused;
	while (n > 0) {
		long r = sys4(SYS_pwrite64, told.fd, (long)p, (long)n, (long)(told.at + at));
		if (r == -EINTR)
			continue;
		if (r <= 0) {
			reportfailed(r);
			return false;
		}
		p = (const char *)p + r;
		at += (uint64_t)r;
		n -= (uint64_t)r;
	}
	return true;
}

static bool putring(const TraceRing *r)
{
	if (!r->events)
		return true;
	uint64_t next = __atomic_load_n(&r->head->next, __ATOMIC_RELAXED), end = oldest(r, next);
	uint64_t first = next;
	const TraceEvent *e = NULL;
	while (first > end) {
		e = eventat(r, first - 1);
		if (e && (int64_t)(e->ticks - told.from) < 0)
			break;
		first--;
	}
	if (first == end && end && e) /* there was more */
		told.from = e->ticks;
	TraceHead h = {.next = next, .first = first};
	if (!put(NULL, metricsplace(r->head), &h, sizeof h))
		return false;
	while (first < next) {
		uint64_t at = first & r->mask, n = r->mask + 1 - at;
		n = n < next - first ? n : next - first;
		if (!put(NULL, metricsplace(&r->events[at]), &r->events[at], n * sizeof *e))
			return false;
		first += n;
	}
	return true;
}

static bool putrings(void)
{
	uint64_t now = ticksnow(), second = nsticks(SECOND);
	told.from = told.stall->began < told.stall->ended - second ? told.stall->began
								   : told.stall->ended - second;
	usleep_os(1000); /* who has begun an event ends it */
	for (int32_t i = 0; i <= sched.nallp; i++)
		if (!putring(i < sched.nallp ? &sched.allp[i]->meter.ring : &nobodys.ring))
			return false;
	uint64_t between[2] = {told.from, now};
	return put(NULL, metricstrace() + offsetof(TraceHeader, from), between, sizeof between);
}

static void tell(void *unused)
{
	char title[sizeof FLIGHT_TITLE + 12];
	Text t = textin(title, sizeof title);
	(void)unused;
	findrunners();
	tellreport();
	if (!reportflush())
		return;
	long end = sys3(SYS_lseek, told.fd, 0, 1 /* SEEK_CUR */);
	told.at = ((uint64_t)end + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	if (!metricsimage(put, NULL) || !putrings())
		return;
	/* The last of it makes the file complete. */
	textput(&t, FLIGHT_TITLE);
	putdigits(&t, (int64_t)told.at, 10);
	uint64_t at = told.at;
	told.at = 0;
	put(NULL, 0, title, t.n);
	told.at = at;
}

long flightreport(int fd, const Stall *s)
{
	told.stall = s;
	told.fd = fd;
	return report(fd, tell, NULL);
}
