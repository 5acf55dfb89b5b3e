/*
 * region.c - where the metrics are kept, so that others find and read them: metricsfile.h has the layout.
 *
 * A file in /dev/shm, mapped shared: readable by its user and root whatever the process does next (drop root,
 * change its root directory, hang), and still there when it was killed. Where that can't be had (no tmpfs there, no
 * descriptor, a limit on files' sizes) it is shared memory without a name, which /proc/PID/maps shows as
 * such; and where that can't be had either nobody reads what is counted.
 *
 * The file is sparse, and a page of it is had before it is touched (metricspage): a full file system would be a
 * SIGBUS for who writes to memory. A child of fork does not have the mapping, and makes a region of its own with
 * its own scheduler. The descriptor is closed at once.
 *
 * An orderly end removes the file, unless GOSHIM=metrics=keep; who is killed leaves it (leftovers.c).
 */
#include "flight.h"
#include "metrics.h"
#include "runtime.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum {
	PAGE = 4096,
	POPULATE = 23, /* MADV_POPULATE_WRITE, Linux 5.14 */
	TMPFS = 0x01021994,
	RLIMITFSIZE = 1,
};

typedef struct Region {
	MetricsHeader *header;          /* NULL: there is none */
	size_t size, whole;             /* without and with the rings */
	uint64_t names, shards, stride; /* offsets, and the distance between two shards */
	uint64_t locks, modules;
	uint64_t rings, ringsize; /* offset of the first, and its size; 0: there are none */
	int32_t nprocs;
	bool kernel;
	bool complete; /* no page must be asked for */
	char path[64]; /* "": it has none */
} Region;

static Region region;

/* Which pages of the tables of locks and modules there are. */
enum { TABLES = (LockRecords * sizeof(LockRecord) + Modules * sizeof(ModuleRecord)) / PAGE };
static _Atomic uint64_t tablepages[TABLES / 64 + 1];
static void metricsforget(void);

/* Where there is none: nobody reads it. */
static Shard spare;
#define SPARE                                                           \
	{                                                               \
		.shard = &spare, .have = { ~0ull, ~0ull, ~0ull, ~0ull } \
	}
Meter nobodys = SPARE;
_Static_assert(ShardPages == 256, "the spare one is complete");

/* --- the contents ---------------------------------------------------------------------- */

#define SHARD(field) offsetof(Shard, field)
#define HIST(name, h) HISTIN(name, h, MetricTicks)
#define HISTIN(name, h, unit)                                                                   \
	{                                                                                       \
		name, MetricHistogram, unit, 1, HistSubBits, HistBuckets, SHARD(sum) + 8 * (h), \
		    SHARD(buckets) + 8ul * HistBuckets *(h)                                     \
	}

#define COUNT(name, c)                                                               \
	{                                                                            \
		name, MetricCounter, MetricPlain, 1, 0, 1, SHARD(count) + 8 * (c), 0 \
	}

#define KERNEL(name, c, unit)                                                  \
	{                                                                      \
		name, MetricCounter, unit, 1, 0, 1, SHARD(kernel) + 8 * (c), 0 \
	}

enum {
	KERNELENTRIES = 4, /* the last ones, in kernel mode only */
	ENTRIES = 53 + 5 * Listeners + KERNELENTRIES,
	LOCKSENTRY = 1, /* these two have their offsets from the number of Ps */
	MODULESENTRY,
	NAMESAT = (sizeof(MetricsHeader) + ENTRIES * sizeof(MetricEntry) + 15) & ~15ul,
	LISTENERSAT = NAMESAT + Names * METRICSNAME,
	TRACEAT = (LISTENERSAT + Listeners * LISTENERNAME + 63) & ~63ul,
	MODEAT = TRACEAT + sizeof(TraceHeader),
	HEADSAT = (MODEAT + sizeof(uint64_t) + 63) & ~63ul,
};

/* A wait, and how often it began: what is more than have ended waits now. */
#define WAIT(name, reason)                                                                         \
	HIST(name, reason),                                                                        \
	{                                                                                          \
		"began." name, MetricCounter, MetricPlain, 1, 0, 1, SHARD(began) + 8 * (reason), 0 \
	}

/* What the listening socket number n has served. */
#define SERVED(n, field) (SHARD(served) + sizeof(Served) * (n) + offsetof(Served, field))
#define TIMES(n, name, t)                                                                 \
	{                                                                                 \
		"requests." #n "." name, MetricRequestTimes, MetricTicks, 1, HistSubBits, \
		    HistBuckets, SERVED(n, sum) + 8ul * (t),                              \
		    SERVED(n, buckets) + 8ul * HistBuckets *(t)                           \
	}
#define REQUESTS(n)                                                                              \
	TIMES(n, "read", RequestRead), TIMES(n, "first", RequestFirst),                          \
	    TIMES(n, "last", RequestLast),                                                       \
	    {"requests." #n ".split",                                                            \
	     MetricRequestSplit,                                                                 \
	     MetricTicks,                                                                        \
	     1,                                                                                  \
	     0,                                                                                  \
	     HistMaxBits * Parts,                                                                \
	     SERVED(n, split),                                                                   \
	     0},                                                                                 \
	{                                                                                        \
		"requests." #n ".counts", MetricRequestCounts, MetricPlain, 1, 0, RequestCounts, \
		    SERVED(n, count), 0                                                          \
	}
_Static_assert(Listeners == 8, "a row for each");

enum { BYNAME = MODULESENTRY + 2 + 5 * Listeners };

static const MetricEntry entries[] = {
    {"names", MetricNames, MetricPlain, 0, 0, Names, NAMESAT, 0},
    [LOCKSENTRY] = {"locks", MetricLocks, MetricTicks, 0, 0, LockRecords, 0, sizeof(LockRecord)},
    [MODULESENTRY] = {"modules", MetricModules, MetricPlain, 0, 0, Modules, 0,
		      sizeof(ModuleRecord)},
    {"listeners", MetricListeners, MetricPlain, 0, 0, Listeners, LISTENERSAT, 0},
    REQUESTS(0),
    REQUESTS(1),
    REQUESTS(2),
    REQUESTS(3),
    REQUESTS(4),
    REQUESTS(5),
    REQUESTS(6),
    REQUESTS(7),
    [BYNAME] = {"running.byname", MetricByName, MetricTicks, 1, 0, Names, SHARD(running), 0},
    {"moves", MetricMoves, MetricPlain, 1, 0, MetricStatuses *MetricStatuses, SHARD(moves), 0},
    COUNT("steals", CountStolen),
    COUNT("handoffs", CountHandoff),
    COUNT("retaken", CountRetaken),
    COUNT("preempted", CountPreempted),
    COUNT("starts", CountStarts),
    COUNT("locks.lost", CountLocksLost),
    {"lost", MetricCounter, MetricPlain, 1, 0, 1, SHARD(lost), 0},
    {"gomaxprocs", MetricGauge, MetricPlain, 0, 0, 1, offsetof(MetricsHeader, gomaxprocs), 0},
    {"threads", MetricGauge, MetricPlain, 0, 0, 1, offsetof(MetricsHeader, threads), 0},
    HIST("runqueue", HistRunnable),
    HIST("running", HistRunning),
    HIST("syscall", HistSyscall),
    HIST("syscall.lost", HistSyscallLost),
    WAIT("wait.mutex", WaitMutex),
    WAIT("wait.cond", WaitCond),
    WAIT("wait.rwlock.read", WaitRWMutexR),
    WAIT("wait.rwlock.write", WaitRWMutexW),
    WAIT("wait.sem", WaitSem),
    WAIT("wait.barrier", WaitBarrier),
    WAIT("wait.once", WaitOnce),
    WAIT("wait.join", WaitJoin),
    WAIT("wait.futex", WaitFutex),
    WAIT("wait.sleep", WaitSleep),
    WAIT("wait.io.read", WaitIORead),
    WAIT("wait.io.write", WaitIOWrite),
    WAIT("wait.io.poll", WaitIOPoll),
    WAIT("wait.signal", WaitSignal),
    WAIT("wait.thread", WaitThread),
    HISTIN("late.timer", HistTimer, MetricNs),
    HIST("late.preemption", HistPreempt),
    HIST("world.stopped", HistWorld),
    {"trace", MetricTrace, MetricPlain, 0, 0, 1, TRACEAT, 0},
    {"kernelmode", MetricGauge, MetricPlain, 0, 0, 1, MODEAT, 0},
    KERNEL("kernel.running", KernelRunning, MetricNs),
    KERNEL("kernel.runqueue", KernelQueued, MetricNs),
    KERNEL("kernel.slices", KernelSlices, MetricPlain),
};

/* --- what the system says --------------------------------------------------------------- */

/* When the process was started, in the kernel's count; 0: there is no /proc. */
static uint64_t starttime(void)
{
	char buf[1024];
	long n = readfile("/proc/self/stat", buf, sizeof buf), i = n - 1;
	while (i > 0 && buf[i] != ')') /* the name may be anything, and ends with the last one */
		i--;
	for (int fields = 0; i > 0 && i < n && fields < 20; i++)
		fields += buf[i] == ' ';
	uint64_t t = 0;
	for (; i > 0 && i < n && buf[i] >= '0' && buf[i] <= '9'; i++)
		t = t * 10 + (uint64_t)(buf[i] - '0');
	return t;
}

/* --- making it ------------------------------------------------------------------------- */

_Static_assert(nelem(entries) == ENTRIES, "names follow them");

static size_t pages(size_t n)
{
	return (n + PAGE - 1) & ~(size_t)(PAGE - 1);
}

static void describe(MetricsHeader *h, const Region *r, uint64_t start)
{
	int64_t wall[2] = {0, 0};
	memcpy(h->magic, METRICS_MAGIC, sizeof h->magic);
	h->headersize = sizeof *h;
	h->entrysize = sizeof entries[0];
	h->nentries = nelem(entries) - (r->kernel ? 0 : KERNELENTRIES);
	h->nshards = (uint32_t)r->nprocs + 1;
	h->shardsize = (uint32_t)r->stride;
	h->shards = r->shards;
	h->size = r->size;
	h->pid = (int32_t)sys0(SYS_getpid);
	h->uid = (uint32_t)sys0(SYS_geteuid);
	h->pidns = metricspidns();
	h->start = start;
	sys2(SYS_prctl, 16 /* PR_GET_NAME */, (long)h->name);
	sys2(SYS_clock_gettime, 0 /* CLOCK_REALTIME */, (long)wall);
	h->wallns = wall[0] * 1000000000 + wall[1] - (nanotime() - tickpoints.startns);
	h->ticks = tickpoints;
	memcpy(h + 1, entries, sizeof entries);
	((MetricEntry *)(h + 1))[LOCKSENTRY].offset = (uint32_t)r->locks;
	((MetricEntry *)(h + 1))[MODULESENTRY].offset = (uint32_t)r->modules;
	if (r->rings)
		*(TraceHeader *)((char *)h + TRACEAT) = (TraceHeader){
		    .version = TRACE_VERSION,
		    .eventsize = sizeof(TraceEvent),
		    .nrings = h->nshards,
		    .nevents = (uint32_t)(r->ringsize / sizeof(TraceEvent)),
		    .heads = HEADSAT,
		    .headsize = sizeof(TraceHead),
		    .rings = r->rings,
		    .ringsize = r->ringsize,
		};
	if (r->kernel) {
		MetricEntry *byname = (MetricEntry *)(h + 1) + BYNAME;
		byname->unit = MetricNs;
		*(uint64_t *)((char *)h + MODEAT) = 1;
	}
	/* Who reads a version finds the rest. */
	__atomic_store_n(&h->version, METRICS_VERSION, __ATOMIC_RELEASE);
}

static bool failed(long r)
{
	return r < 0 && r > -4096;
}

static int populate(const void *p, size_t n)
{
	return (int)sys3(SYS_madvise, (long)p, (long)n, POPULATE);
}

/* The file's descriptor, or -errno. One of that name is this process's from before it called exec. */
static long create(const char *path)
{
	long fd = -EEXIST;
	for (int tries = 0; fd == -EEXIST && tries < 2; tries++) {
		if (tries)
			sys1(SYS_unlink, (long)path);
		fd = sys4(SYS_openat, AT_FDCWD, (long)path,
			  O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	}
	return fd;
}

static bool maybefile(size_t size)
{
	uint64_t limit[2] = {0, 0}, fs[16] = {0};
	return sys2(SYS_statfs, (long)METRICS_DIR, (long)fs) == 0 && fs[0] == TMPFS &&
	       sys4(SYS_prlimit64, 0, RLIMITFSIZE, 0, (long)limit) == 0 && limit[0] >= size;
}

/* The file, mapped; NULL, and none is left, if that can't be. */
static void *mapfile(Region *r, uint64_t start)
{
	Text t = textin(r->path, sizeof r->path);
	textput(&t, METRICS_DIR METRICS_PREFIX "%d.%d.%d", (int64_t)sys0(SYS_geteuid),
		(int64_t)sys0(SYS_getpid), (int64_t)start);
	textend(&t);
	long fd = maybefile(r->whole) ? create(r->path) : -1, p = -1;
	if (fd >= 0 && sys2(SYS_fchmod, fd, 0600) == 0 &&
	    sys2(SYS_ftruncate, fd, (long)r->whole) == 0) {
		p = sys6(SYS_mmap, 0, (long)r->whole, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		int err = failed(p) ? -ENOMEM : populate((void *)p, r->shards);
		if (err == -EINVAL) { /* an older kernel: all of it, now */
			err = (int)sys4(SYS_fallocate, fd, 0, 0, (long)r->size);
			r->complete = err == 0;
		}
		if (err && !failed(p)) {
			sys2(SYS_munmap, p, (long)r->whole);
			p = -1;
		}
	}
	if (fd >= 0)
		sys1(SYS_close, fd);
	if (failed(p) && fd >= 0)
		sys1(SYS_unlink, (long)r->path);
	if (failed(p))
		r->path[0] = 0;
	return failed(p) ? NULL : (void *)p;
}

static void *mapshared(Region *r)
{
	long p = sys6(SYS_mmap, 0, (long)r->whole, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	r->complete = true;
	return failed(p) ? NULL : (void *)p;
}

static void mapregion(Region *r, uint64_t start)
{
	r->header = mapfile(r, start);
	if (!r->header)
		r->header = mapshared(r);
}

/* GOSHIM=metrics=off: for readers, who look for a region, only its header, which says so. */
static void metricsnone(void)
{
	long p = sys6(SYS_mmap, 0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (failed(p))
		return;
	sys3(SYS_madvise, p, PAGE, MADV_DONTFORK);
	MetricsHeader *h = (MetricsHeader *)p;
	memcpy(h->magic, METRICS_MAGIC, sizeof h->magic);
	h->pid = (int32_t)sys0(SYS_getpid);
	__atomic_store_n(&h->version, METRICS_OFF, __ATOMIC_RELEASE);
}

void metricsinit(int32_t n, bool kernel)
{
	if (debug.metricsoff)
		return metricsnone();
	uint64_t start = starttime();
	/* Who is interrupted in a child of fork by what makes another goes on with the old one. */
	if (kernel)
		metricsforget();
	Region r = {.nprocs = n,
		    .kernel = kernel,
		    .names = NAMESAT,
		    .shards = pages(HEADSAT + (uint64_t)(n + 1) * sizeof(TraceHead)),
		    .stride = pages(sizeof(Shard)),
		    .ringsize = kernel ? 0 : flightevents(n + 1) * sizeof(TraceEvent)};
	r.locks = r.shards + r.stride * (uint64_t)(n + 1);
	r.modules = r.locks + LockRecords * sizeof(LockRecord);
	r.size = r.locks + TABLES * (uint64_t)PAGE;
	r.rings = kernel ? 0 : r.size; /* of what kernel threads do there are none */
	r.whole = r.size + r.ringsize * (uint64_t)(n + 1);
	metricssweep();
	mapregion(&r, start);
	if (!r.header && r.rings) {
		r.whole = r.size;
		r.rings = 0;
		mapregion(&r, start);
	}
	if (!r.header)
		return;
	if (!kernel) /* else what it interrupted may still write there in the child of a signal handler */
		sys3(SYS_madvise, (long)r.header, (long)r.whole, MADV_DONTFORK);
	describe(r.header, &r, start);
	region = r;
	metricsmeter(&nobodys, n);
	if (r.rings)
		traceuntil = &((TraceHeader *)((char *)r.header + TRACEAT))->until;
	metricsthreads(sched.mcount);
	lockstatinit((LockRecord *)((char *)region.header + region.locks),
		     (ModuleRecord *)((char *)region.header + region.modules));
	if (debug.flight && !kernel)
		flightinit(r.rings && (r.complete ||
				       !populate((char *)r.header + r.rings, r.whole - r.rings)),
			   r.whole - r.size);
}

void metricsmeter(Meter *m, int32_t p)
{
	/* Counts (metricscount) are all that anybody asks it for. */
	if (debug.metricsoff)
		m->shard = persistentalloc(SHARD(buckets), 64);
	if (!region.header || p > region.nprocs)
		return;
	Shard *s = (Shard *)((char *)region.header + region.shards + region.stride * (uint64_t)p);
	uint64_t all = region.complete ? ~0ull : 0;
	for (unsigned i = 0; i < nelem(m->have); i++) {
		atomic_store(&m->have[i], all);
		atomic_store(&m->refused[i], 0);
	}
	/* What is always counted; the buckets follow as they are needed. */
	if (all || populate(s, pages(SHARD(buckets))) == 0)
		m->shard = s;
	if (region.rings)
		m->ring = (TraceRing){
		    .head = (TraceHead *)((char *)region.header + HEADSAT) + p,
		    .events = (TraceEvent *)((char *)region.header + region.rings +
					     region.ringsize * (uint64_t)p),
		    .mask = region.ringsize / sizeof(TraceEvent) - 1,
		};
}

/* Page number `page` of m's shard is about to be written to. */
noinline_fn bool metricspage(Meter *m, uint32_t page)
{
	uint64_t bit = 1ull << page % 64;
	if (atomic_load_explicit(&m->refused[page / 64], memory_order_relaxed) & bit)
		return false;
	bool got = populate((char *)m->shard + (size_t)page * PAGE, PAGE) == 0;
	atomic_fetch_or_explicit(got ? &m->have[page / 64] : &m->refused[page / 64], bit,
				 memory_order_relaxed);
	return got;
}

bool metricsrecord(const void *record)
{
	size_t page =
	    (size_t)((const char *)record - (const char *)region.header - region.locks) / PAGE;
	uint64_t bit = 1ull << page % 64;
	_Atomic uint64_t *have = &tablepages[page / 64];
	if (region.complete || (atomic_load_explicit(have, memory_order_relaxed) & bit))
		return true;
	if (populate((char *)region.header + region.locks + page * PAGE, PAGE))
		return false;
	atomic_fetch_or_explicit(have, bit, memory_order_relaxed);
	return true;
}

bool metricsimage(bool (*put)(void *arg, uint64_t at, const void *p, uint64_t n), void *arg)
{
	const char *base = (const char *)region.header;
	bool ok = base && put(arg, 0, base, region.shards);
	for (int32_t i = 0; ok && i <= sched.nallp; i++) {
		const Shard *s = i < sched.nallp ? sched.allp[i]->meter.shard : nobodys.shard;
		if ((const char *)s > base && (const char *)s < base + region.locks)
			ok = put(arg, (uint64_t)((const char *)s - base), s, pages(SHARD(buckets)));
	}
	for (uint64_t i = 0; ok && i < TABLES; i++) {
		uint64_t at = region.locks + i * PAGE;
		if (region.complete || (atomic_load(&tablepages[i / 64]) >> i % 64 & 1))
			ok = put(arg, at, base + at, PAGE);
	}
	return ok;
}

void metricsthread(uint8_t slot, char name[METRICSNAME])
{
	const char(*names)[METRICSNAME] =
	    (const char(*)[METRICSNAME])((char *)region.header + region.names);
	memcpy(name, slot ? names[slot % Names] : region.header->name, METRICSNAME);
}

uint64_t metricstrace(void)
{
	return TRACEAT;
}

uint64_t metricsplace(const void *p)
{
	return (uint64_t)((const char *)p - (const char *)region.header);
}

static void complete(Meter *m)
{
	Shard *s = m->shard;
	bool got = s && populate(s, pages(sizeof *s)) == 0;
	for (unsigned i = 0; i < nelem(m->have); i++)
		atomic_store(got ? &m->have[i] : &m->refused[i], ~0ull);
}

/* What there is once; nobody asks for more. */
static void completetables(void)
{
	region.complete = true;
	if (populate((char *)region.header + region.locks, TABLES * (size_t)PAGE))
		lockstatinit(NULL, NULL);
	complete(&nobodys);
}

void metricscompleteall(Meter *m, uint32_t n)
{
	if (!region.header || region.complete)
		return;
	completetables();
	for (uint32_t i = 0; i < n; i++)
		complete(&m[i]);
}

void metricscomplete(void)
{
	flightforbidden();
	if (!region.header || region.complete)
		return;
	completetables();
	for (int32_t i = 0; i < sched.nallp; i++)
		complete(&sched.allp[i]->meter);
}

/* --- names of threads ------------------------------------------------------------------- */

/* The last is of all that there was no room for. */
enum { Free, Written, Ready, Others = Names - 1 };
static _Atomic uint8_t slots[Names], taken[Listeners];

static uint8_t slotof(const char *name)
{
	char(*names)[METRICSNAME] = (char(*)[METRICSNAME])((char *)region.header + region.names);
	if (memcmp(region.header->name, name, METRICSNAME) == 0)
		return 0;
	for (int i = 1; i < Others; i++) {
		uint8_t none = Free;
		if (atomic_compare_exchange_strong(&slots[i], &none, Written)) {
			memcpy(names[i], name, METRICSNAME);
			atomic_store(&slots[i], Ready);
			return (uint8_t)i;
		}
		while (atomic_load(&slots[i]) != Ready)
			procyield();
		if (memcmp(names[i], name, METRICSNAME) == 0)
			return (uint8_t)i;
	}
	memcpy(names[Others], "(others)", 8);
	return Others;
}

uint8_t metricsnameslot(const char *name)
{
	char whole[METRICSNAME] = "";
	for (int i = 0; i < METRICSNAME - 1 && name[i]; i++)
		whole[i] = name[i];
	return region.header ? slotof(whole) : 0;
}

void gname(G *gp, const char *name)
{
	Section s = sectionenter();
	if (region.header)
		gp->nameslot = metricsnameslot(name);
	sectionleave(s);
}

int metricslistener(const char *name)
{
	char(*names)[LISTENERNAME];
	char whole[LISTENERNAME] = "";
	if (!region.header)
		return Listeners - 1;
	names = (char(*)[LISTENERNAME])((char *)region.header + LISTENERSAT);
	for (int i = 0; i < LISTENERNAME - 1 && name[i]; i++)
		whole[i] = name[i];
	for (int i = 0; i < Listeners - 1; i++) {
		uint8_t none = Free;
		if (atomic_compare_exchange_strong(&taken[i], &none, Written)) {
			memcpy(names[i], whole, LISTENERNAME);
			atomic_store(&taken[i], Ready);
			return i;
		}
		while (atomic_load(&taken[i]) != Ready)
			procyield();
		if (memcmp(names[i], whole, LISTENERNAME) == 0)
			return i;
	}
	memcpy(names[Listeners - 1], "(others)", 8);
	return Listeners - 1;
}

void metricsthreads(int32_t n)
{
	if (region.header)
		region.header->threads = (uint64_t)n;
}

void metricsprocs(int32_t n)
{
	if (region.header)
		region.header->gomaxprocs = (uint64_t)n;
}

void metricsticks(const TickPoints *t)
{
	MetricsHeader *h = region.header;
	if (!h)
		return;
	__atomic_store_n(&h->ticks.seq, t->seq, __ATOMIC_SEQ_CST);
	__atomic_store_n(&h->ticks.lastns, t->lastns, __ATOMIC_RELAXED);
	__atomic_store_n(&h->ticks.lastticks, t->lastticks, __ATOMIC_RELAXED);
	__atomic_store_n(&h->ticks.seq, t->seq + 1, __ATOMIC_RELEASE);
}

void metricsend(void)
{
	MetricsHeader *h = region.header;
	if (!h || h->pid != (int32_t)sys0(SYS_getpid))
		return;
	flightend();
	tickslook();
	h->state = MetricsEnded;
	if (region.path[0] && !debug.metricskeep)
		sys1(SYS_unlink, (long)region.path);
}

static void metricsforget(void)
{
	region = (Region){0};
	memset(tablepages, 0, sizeof tablepages);
	lockstatforkchild();
	memset(slots, 0, sizeof slots);
	memset(taken, 0, sizeof taken);
	nobodys = (Meter)SPARE;
}

/* The mapping did not come along, or is the parent's. */
void metricsforkchild(void)
{
	if (region.header)
		sys2(SYS_munmap, (long)region.header, (long)region.whole);
	traceforkchild();
	flightforkchild();
	metricsforget();
}
