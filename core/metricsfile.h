/*
 * metricsfile.h - what a process says of itself in its metrics region: the layout, for the runtime that
 * writes it and for readers in other processes.
 *
 * A header, then a table that describes the contents, then one shard per P and one for those without a P. A
 * reader finds a metric by name, adds up the shards, and passes over kinds that it doesn't know, so old and new
 * versions read each other. METRICS_VERSION changes when the header or the meaning of a kind does.
 *
 * Times are counted in ticks of the CPU's counter, and made nanoseconds by whoever reads: the header has
 * two points of both clocks, far apart unless the process is young.
 */
#ifndef GOSHIM_METRICSFILE_H
#define GOSHIM_METRICSFILE_H

#include <stdint.h>

#define METRICS_MAGIC "goshimM"
#define METRICS_DIR "/dev/shm/"
#define METRICS_PREFIX "goshim." /* then user.pid.start */
enum { METRICS_VERSION = 1 };
/* In place of a version: the process was told to have none, and this header is all there is. */
#define METRICS_OFF UINT32_MAX

typedef enum MetricKind {
	MetricCounter = 1, /* count words; only grow */
	MetricGauge,       /* as they are now */
	MetricHistogram, /* one word, the sum of all values, and the buckets elsewhere (histindex) */
	MetricMoves, /* count words, a square: how often goroutines went from one status to another */
	MetricNames,   /* count names of threads, METRICSNAME bytes each */
	MetricByName,  /* count words, one for each of those; the first is that of the process */
	MetricLocks,   /* count LockRecords of `buckets` bytes each; later versions' are longer */
	MetricModules, /* the same of ModuleRecords */
	/* Of requests (requests.h). */
	MetricListeners = 20, /* count names of listening sockets, LISTENERNAME bytes each */
	MetricRequestTimes,   /* as MetricHistogram, of one of them; so are the others */
	MetricRequestSplit, /* count words: for each power of two of the whole, Parts of the time in it */
	MetricRequestCounts, /* count words, by RequestCount */
	MetricTrace = 30,    /* no figure: where the rings of events are (tracefile.h) */
} MetricKind;

enum { METRICSNAME = 16, LISTENERNAME = 64 };

/* What the time of a request consists of. */
typedef enum Part {
	PartQueue, /* the goroutine that serves it could run, and had no P */
	PartCPU,
	PartLock,  /* a mutex, a read-write lock, a futex */
	PartWait,  /* another thread: by a condition, a semaphore, a join */
	PartSleep, /* time itself */
	PartIO,    /* a descriptor: the rest of the request, room for the answer, another server */
	PartSyscall,
	PartElsewhere, /* nobody served it: its thread was at others' requests, or another took it over */
	Parts
} Part;

typedef enum RequestCount {
	RequestsDone,
	RequestsAtLeast,  /* when they became readable was not seen: it took that long at least, */
	RequestsAtMost,   /* ... or at most */
	RequestsStreamed, /* the answer went on for so long that only its beginning says something */
	RequestsUnclear,  /* two threads were at it at once; not in the times */
	ConnsAccepted,
	ConnsSpokeFirst, /* the server wrote before it had read */
	ConnsUnasked,    /* it wrote again after the answer was over */
	ConnsCopied,     /* the descriptor was duplicated: what goes on there is not seen */
	RequestCounts
} RequestCount;

/* From when a request was readable to its first read, to the first and the last byte of the answer. */
typedef enum RequestTime { RequestRead, RequestFirst, RequestLast, RequestTimes } RequestTime;

typedef enum MetricUnit {
	MetricPlain,
	MetricTicks,
	MetricNs,
} MetricUnit;

typedef struct MetricEntry {
	char name[32];
	uint8_t kind, unit;
	uint8_t sharded;  /* offsets are those in a shard; else in the region */
	uint8_t subbits;  /* of histindex */
	uint32_t count;   /* of words, or buckets */
	uint32_t offset;  /* of the words */
	uint32_t buckets; /* ... of a histogram's buckets */
} MetricEntry;

enum { MetricsRuns, MetricsEnded };

/* Two moments on both clocks. The second is read between two equal, even values of seq. */
typedef struct TickPoints {
	int64_t startns; /* CLOCK_MONOTONIC */
	uint64_t startticks;
	int64_t lastns;
	uint64_t lastticks;
	uint32_t seq, unused;
} TickPoints;

typedef struct MetricsHeader {
	char magic[8];
	uint32_t version, headersize;
	uint32_t entrysize, nentries;
	uint32_t nshards, shardsize;
	uint64_t shards; /* offset of the first */
	uint64_t size;   /* of the region, but for rings of events behind it */
	int32_t pid;     /* in its own namespace, */
	uint32_t uid;    /* effective, at the start */
	uint64_t pidns;  /* which has this number; 0: not known */
	uint64_t start;  /* of the process, as in /proc/PID/stat; 0: not known */
	char name[16];
	uint32_t state;
	uint32_t noticed; /* somebody has found it dead: the file's time is that of then */
	TickPoints ticks;
	int64_t wallns; /* CLOCK_REALTIME at ticks.startns */
	uint64_t gomaxprocs, threads;
} MetricsHeader;

/* Of the pthread objects; those of <threads.h> are the same. */
typedef enum LockKind {
	LockNone, /* the record is not in use (yet) */
	LockMutex,
	LockRWLock,
	LockCond,
	LockSem,
	LockMixed, /* of locks for whose kind and call site there was no room */
} LockKind;

enum { LockFrames = 10, LockCounts = 1, LockStack = 2, LockStatic = 4 };

/*
 * A place is an address by a file: 1 + the number of its module in the upper 16 bits, and below them the
 * address that the file has for it. Without a module: an address of the process.
 */
typedef struct LockRecord {
	uint64_t
	    address;   /* 0: of all locks of this kind and site that have no record of their own */
	uint64_t site; /* what initialised it goes on there, in the process; 0: not known */
	uint32_t kind; /* LockKind */
	uint32_t
	    flags; /* LockCounts: also those that need not wait; LockStack: there is one; LockStatic */
	uint64_t objects; /* locks that it is of: one after the other, at an address */
	uint64_t
	    name; /* place: of the lock, if LockStatic, else of what initialised or first locked it */
	uint64_t contended, ended; /* waits that have begun, and ended */
	uint64_t waited, maxwait;  /* ticks */
	uint64_t locked, changed;  /* exclusively: how often, and by another than before */
	uint64_t held, maxheld;    /* ... ticks */
	uint64_t shared,
	    sharedheld;   /* by readers; ticks are added at the end and subtracted at the start */
	uint32_t owner;   /* who locked it last, exclusively */
	uint32_t sharers; /* readers now */
	uint64_t stack
	    [LockFrames]; /* places: of who was the first to wait, the innermost first; 0: no more */
	uint64_t unused[6];
} LockRecord;

typedef struct ModuleRecord {
	uint64_t lo, hi; /* where it lay */
	uint64_t base;   /* what was added to the addresses in the file */
	uint32_t idsize; /* its build id */
	uint8_t id[28];
	char path[200]; /* "": it did not fit */
} ModuleRecord;

_Static_assert(sizeof(LockRecord) == 256 && sizeof(ModuleRecord) == 256, "as many in a page");

/*
 * Buckets are log-linear: 64 to each power of two and so at most 1/64 wide, and their middles at most 1/128
 * away from what is in them. Up to 64 * 2 they are exact.
 */
enum {
	HistSubBits = 6,
	HistMaxBits = 44, /* an hour, at 4.8 ticks a ns */
	HistBuckets = (HistMaxBits - HistSubBits + 1) << HistSubBits,
};

static inline uint32_t histindex(uint64_t v)
{
	if (__builtin_expect(v >> HistMaxBits != 0, 0))
		v = (1ull << HistMaxBits) - 1;
	uint32_t shift = (uint32_t)(63 - __builtin_clzll(v | 1u << HistSubBits)) - HistSubBits;
	return (shift << HistSubBits) + (uint32_t)(v >> shift);
}

/* The power of two that v has reached, of HistMaxBits. */
static inline uint32_t histpower(uint64_t v)
{
	uint32_t power = 63 - (uint32_t)__builtin_clzll(v | 1);
	return power < HistMaxBits ? power : HistMaxBits - 1;
}

/* The least value that is in bucket i of such a histogram; that of i + 1 is the first beyond. */
static inline uint64_t histlow(uint32_t i, unsigned subbits)
{
	uint32_t shift = i >> subbits;
	if (shift <= 1)
		return i;
	return ((1ull << subbits) + (i & ((1u << subbits) - 1))) << (shift - 1);
}

#endif
