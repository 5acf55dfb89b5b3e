/*
 * test_metrics_read.c - the reader of metrics, given regions that were cut, changed, made up: it says one line or
 * shows something, and touches nothing else. (The sanitizers are the judges.)
 */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../tools/locks_read.h"

enum { Shards = 2, ShardSize = 8192, Buckets = 512, Entries = 7, Locks = 4 };

typedef struct Region {
	MetricsHeader h;
	MetricEntry e[Entries];
	uint64_t shard[Shards][ShardSize / 8];
	LockRecord lock[Locks];
	ModuleRecord module[2];
} Region;

/* A good one: what the runtime writes, in small. */
static Region good(void)
{
	Region r =
	    {.h = {.magic = METRICS_MAGIC,
		   .version = METRICS_VERSION,
		   .headersize = sizeof(MetricsHeader),
		   .entrysize = sizeof(MetricEntry),
		   .nentries = Entries,
		   .nshards = Shards,
		   .shardsize = ShardSize,
		   .shards = offsetof(Region, shard),
		   .size = sizeof(Region),
		   .pid = 7,
		   .name = "small",
		   .ticks = {0, 0, 1000000000, 2000000000, 0, 0},
		   .gomaxprocs = 2},
	     .e = {{"moves", MetricMoves, MetricPlain, 1, 0, 36, 0, 0},
		   {"lost", MetricCounter, MetricPlain, 1, 0, 1, 36 * 8, 0},
		   {"gomaxprocs", MetricGauge, MetricPlain, 0, 0, 1,
		    offsetof(MetricsHeader, gomaxprocs), 0},
		   {"runqueue", MetricHistogram, MetricTicks, 1, HistSubBits, Buckets, 37 * 8,
		    64 * 8},
		   {"later", 99, 77, 1, 0, 1, 0, 0},
		   {"locks", MetricLocks, MetricTicks, 0, 0, Locks, offsetof(Region, lock),
		    sizeof(LockRecord)},
		   {"modules", MetricModules, MetricPlain, 0, 0, 2, offsetof(Region, module),
		    sizeof(ModuleRecord)}},
	     .lock = {{.address = 0x5000,
		       .kind = LockMutex,
		       .contended = 3,
		       .ended = 2,
		       .waited = 4000,
		       .name = 1ull << 48 | 0x1234,
		       .flags = LockStack,
		       .stack = {0x400100, 2ull << 48 | 0x77, 9ull << 48 | 0x66}},
		      {.address = 0x6000, .kind = LockCond, .contended = 1, .waited = 1 << 20},
		      {.address = 0x7000, .kind = LockRWLock, .contended = 1, .waited = 6000},
		      {.kind = LockMutex, .objects = 1}},
	     .module = {{.path = "/nonesuch/program", .lo = 0x400000, .hi = 0x401000},
			{.path = "/proc/self/exe", .idsize = 99}}};
	for (int s = 0; s < Shards; s++) {
		r.shard[s][5 * 6 + 1] = 3; /* made */
		r.shard[s][36] = 1;
		r.shard[s][37] = 400;
		r.shard[s][64 + 100] = 4; /* four of 100 ticks */
	}
	return r;
}

static void use(const void *p, size_t n)
{
	Metrics m, other;
	char why[WhySize] = "";
	void *copy = malloc(n ? n : 1); /* its end is its end */

	memcpy(copy, p, n);
	if (!metricsparse(copy, n, &m, why)) {
		cr_assert(why[0] && !strchr(why, '\n'));
		metricsfree(&m);
		free(copy);
		return;
	}
	other = metricscopy(&m);
	metricsdiff(&m, &other);
	for (int i = -1; i < 8; i++)
		metricstatus(&m, i);
	for (int i = 0; i < m.nmetrics; i++) {
		const Metric *x = &m.metric[i];
		for (double part = 0; part <= 1; part += 0.25)
			metricquantile(&other, &other.metric[i], part);
		metricmax(&other, &other.metric[i]);
		for (const char *c = x->name; *c; c++)
			cr_assert(*c > ' ' && *c < 127 && *c != '"' && *c != '\\');
	}
	LockFigures *l;
	MetricsSource nobody = {.dead = true};
	int nlocks = lockfigures(&nobody, &m, &l);
	for (int i = 0; i < nlocks; i++) {
		lockstack(&nobody, &m, &l[i]);
		cr_assert(lockkind(l[i].kind)[0] && l[i].nframes <= LockFrames);
		for (int k = 0; k < l[i].nframes; k++)
			for (const char *c = l[i].frames[k].name; *c; c++)
				cr_assert(*c > ' ' && *c < 127 && *c != '"' && *c != '\\');
	}
	free(l);
	metricsfree(&m);
	metricsfree(&other);
	free(copy);
}

Test(metrics_read, a_good_one)
{
	Region r = good();
	Metrics m;
	char why[WhySize];

	cr_assert(metricsparse(&r, sizeof(r), &m, why), "%s", why);
	const Metric *h = metricnamed(&m, "runqueue");
	cr_assert(h && h->total == 8 && h->value == 400, "two ticks are a ns");
	cr_assert(metricquantile(&m, h, 0.5) == 50.25);
	cr_assert(metricnamed(&m, "lost")->value == 2);
	cr_assert(metricnamed(&m, "gomaxprocs")->value == 2);
	cr_assert(metricnamed(&m, "later") == NULL, "of a kind that is not known");
	cr_assert(metricmoves(&m, 5, 1) == 6 && metricstatus(&m, 1) == 6 &&
		  metricstatus(&m, 5) == 0);
	Metrics before = metricscopy(&m);
	metricsdiff(&m, &before);
	cr_assert(metricnamed(&m, "runqueue")->total == 0);
	metricsfree(&m);
	metricsfree(&before);
}

Test(metrics_read, locks)
{
	Region r = good();
	MetricsSource nobody = {.dead = true};
	LockFigures *l;
	Metrics m;
	char why[WhySize];

	cr_assert(metricsparse(&r, sizeof(r), &m, why), "%s", why);
	cr_assert_eq(lockfigures(&nobody, &m, &l), 3, "one was never waited for");
	cr_assert(l[0].kind == LockRWLock && l[0].waited == 3000 && !l[0].nframes);
	cr_assert_str_eq(l[0].name.name, "?");
	cr_assert(l[1].kind == LockMutex && l[1].contended == 3 && l[1].waiting == 1);
	cr_assert_str_eq(l[1].name.name, "program+0x1234");
	cr_assert(l[2].kind == LockCond, "who has nothing to do comes last");
	lockstack(&nobody, &m, &l[1]);
	cr_assert_eq(l[1].nframes, 3);
	cr_assert_str_eq(l[1].frames[0].name, "program+0x400100", "an address of the process");
	cr_assert_str_eq(l[1].frames[2].name, "0x66", "no such module");
	free(l);
	metricsfree(&m);

	/* Later versions' records are longer, earlier ones' shorter. */
	static struct {
		Region r;
		char more[8192];
	} other;
	for (unsigned size = 8; size <= 512; size += 8) {
		memcpy(&other.r, &r, sizeof r);
		for (int i = 0; i < Locks; i++)
			memcpy(other.more + (size_t)i * size, &r.lock[i], size < 256 ? size : 256);
		other.r.h.size = sizeof other;
		other.r.e[5].offset = offsetof(__typeof__(other), more);
		other.r.e[5].buckets = size;
		cr_assert(metricsparse(&other, sizeof other, &m, why));
		int n = lockfigures(&nobody, &m, &l);
		cr_assert(m.nlocks == Locks && (size >= 80 ? n == 3 && l[1].waiting == 1 : n <= 3),
			  "%u", size);
		free(l);
		metricsfree(&m);
	}
	symbolsfree();
}

/* A writer of later has longer headers and entries, more of both, in another order. */
Test(metrics_read, a_newer_one)
{
	static struct {
		Region r;
		char more[4096];
	} later;
	enum { Header = sizeof(MetricsHeader) + 64, Entry = sizeof(MetricEntry) + 24 };
	Region r = good();
	Metrics m;
	char why[WhySize];

	memcpy(&later, &r.h, sizeof(r.h));
	later.r.h.headersize = Header;
	later.r.h.entrysize = Entry;
	later.r.h.shards = 2048;
	for (int i = 0; i < Entries; i++)
		memcpy((char *)&later + Header + Entry * i, &r.e[Entries - 1 - i],
		       sizeof(MetricEntry));
	memcpy((char *)&later + 2048, r.shard, sizeof(r.shard));
	cr_assert(metricsparse(&later, sizeof(later), &m, why), "%s", why);
	cr_assert(metricnamed(&m, "runqueue")->total == 8);
	metricsfree(&m);
}

Test(metrics_read, other_versions_and_no_region_are_told_apart)
{
	Region r = good();
	Metrics m;
	char why[WhySize];

	r.h.version = METRICS_VERSION + 1;
	cr_assert(!metricsparse(&r, 12, &m, why) && strstr(why, "version 2"));
	r.h.version = 0;
	cr_assert(!metricsparse(&r, sizeof(r), &m, why) && strstr(why, "not complete"));
	r.h.magic[0] = 'x';
	cr_assert(!metricsparse(&r, sizeof(r), &m, why) && strstr(why, "not metrics"));
}

Test(metrics_read, every_length)
{
	Region r = good();

	for (size_t n = 0; n < sizeof(r); n += n < 1000 ? 1 : 97)
		use(&r, n);
}

static uint64_t seed = 88172645463325252u;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

/* Numbers that overflow, wrap, and point just beyond. */
static uint64_t nasty(void)
{
	static const uint64_t some[] = {0,
					1,
					7,
					8,
					255,
					4096,
					ShardSize,
					sizeof(Region) - 8,
					sizeof(Region),
					1 << 20,
					INT32_MAX,
					UINT32_MAX,
					1ull << 32,
					INT64_MAX,
					1ull << 63,
					UINT64_MAX};
	uint64_t v = some[rnd() % (sizeof(some) / sizeof(some[0]))];

	return rnd() % 4 ? v : v + rnd() % 16 - 8;
}

Test(metrics_read, hostile_contents, .timeout = 120)
{
	for (int i = 0; i < 20000; i++) {
		Region r = good();
		int changes = 1 + (int)(rnd() % 6);

		for (int k = 0; k < changes; k++) {
			/* Of header and table, mostly; the first 12 bytes decide alone. */
			size_t end = rnd() % 8 ? offsetof(Region, shard) : sizeof(r);
			size_t at = 12 + rnd() % (end - 12 - 8);
			uint64_t v = rnd() % 3 ? nasty() : rnd();
			size_t size = rnd() % 2 ? 8 : rnd() % 2 ? 4 : 1;

			memcpy((char *)&r + (rnd() % 2 ? at & ~3ul : at), &v, size);
		}
		use(&r, sizeof(r));
	}
}
