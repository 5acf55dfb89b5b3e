/*
 * metrics.h - counting what the scheduler does, always.
 *
 * Every change of a goroutine's status is counted, and the time that it was in the one before goes to a
 * histogram: so the parts of a goroutine's life add up to the whole. See metrics.c.
 */
#ifndef GOSHIM_METRICS_H
#define GOSHIM_METRICS_H

#include "api.h"
#include "metricsfile.h"
#include "tracefile.h"

enum {
	MetricStatuses = 6, /* of GStatus */
	ShardPages = 256,   /* at most */
	Names = 64,         /* of threads: the process's own, 62 more, and all that are left */
	Listeners = 8,      /* sockets: 7, and all that are left */
};

/* Histograms. The first are the waits, by WaitReason; WaitNone is a system call. */
typedef enum Hist {
	HistSyscall = WaitNone,
	HistRunnable = WaitReasonCount,
	HistRunning,
	HistSyscallLost, /* a system call in which the P was taken */
	HistTimer,       /* from when a timer was due to when it fired, in ns */
	HistPreempt,     /* from when a goroutine was asked to leave its P to when it did */
	HistWorld,       /* the world was being stopped, and stood */
	HistCount
} Hist;

/* What is counted beside the changes of status. */
typedef enum Count {
	CountStolen,    /* goroutines, from another P's queue: times */
	CountHandoff,   /* Ps that were given away */
	CountRetaken,   /* ... taken from an M in the kernel */
	CountPreempted, /* goroutines that left their P since they were asked to */
	CountStarts,    /* Ms that were woken or made */
	CountLocksLost, /* waits for locks that there was no record for */
	Counts
} Count;

/* What requests of one listening socket took. */
typedef struct Served {
	uint64_t count[RequestCounts];
	uint64_t sum[RequestTimes];
	uint64_t split[HistMaxBits][Parts];
	uint64_t buckets[RequestTimes][HistBuckets] __attribute__((aligned(64)));
} __attribute__((aligned(4096))) Served;

/* Kernel mode: what the kernel says of threads that have ended. Their names' `running` is in ns then. */
typedef enum KernelCount {
	KernelRunning, /* ns on a CPU */
	KernelQueued,  /* ns in its queue */
	KernelSlices,
	KernelCounts
} KernelCount;

/* Of one writer: the P's owner, or all that have no P. */
typedef struct Shard {
	uint64_t moves[MetricStatuses][MetricStatuses];
	uint64_t sum[HistCount]; /* of what the histograms have */
	uint64_t count[Counts];
	uint64_t running[Names];
	uint64_t began[WaitReasonCount]; /* waits; their ends are in the histograms */
	uint64_t kernel[KernelCounts];
	uint64_t lost; /* values for whose bucket there was no memory */
	uint64_t buckets[HistCount][HistBuckets] __attribute__((aligned(64)));
	Served served[Listeners];
} Shard;

/* Where events are recorded; events NULL: there is no memory for them. */
typedef struct TraceRing {
	TraceHead *head;
	TraceEvent *events;
	uint64_t mask;
} TraceRing;

/* One P's, in its record. */
typedef struct Meter {
	Shard *shard;
	TraceRing ring;
	_Atomic uint64_t have[ShardPages / 64], refused[ShardPages / 64]; /* pages of the shard */
} Meter;

/* A request that is over, in ticks. */
typedef struct Took {
	uint64_t times[RequestTimes], parts[Parts];
	bool streamed, atleast, atmost;
} Took;

/* region.c */
extern Meter nobodys; /* of those without a P */
/* Makes the region, for n Ps, or in kernel mode for n groups of threads. */
void metricsinit(int32_t n, bool kernel);
void metricsmeter(Meter *m, int32_t p); /* of P number p */
int metricslistener(const char *name);  /* the number of the listening socket of that name */
void metricsthreads(int32_t n);
void metricsprocs(int32_t n);
void metricsticks(const TickPoints *t);
void metricsforkchild(void);
void metricscompleteall(Meter *m, uint32_t n); /* and nobody's: no page will be asked for */
uint8_t metricsnameslot(const char *name);
/* A page of the region is needed that may not be there: false: it can't be had. */
bool metricspage(Meter *m, uint32_t page);

/* leftovers.c: removes regions of processes that are gone, if they are too many or too old. */
void metricssweep(void);
uint64_t metricspidns(void); /* of this process; 0: can't be told */

/* Calls put for what of the region somebody needs to make sense of its events, but for these: of n bytes that are `at`
 * in it. Until false. */
bool metricsimage(bool (*put)(void *arg, uint64_t at, const void *p, uint64_t n), void *arg);
uint64_t metricsplace(const void *p);                     /* where in it that is */
void metricsthread(uint8_t slot, char name[METRICSNAME]); /* the name of threads in that slot */
uint64_t metricstrace(void);                              /* ... and the TraceHeader */

/* A record of locks or modules is needed; the same. */
bool metricsrecord(const void *record);

/* lockstat.c */
void lockstatinit(LockRecord *records, ModuleRecord *modules);
void lockstatforkchild(void);

/* metrics.c */
/* Who the caller writes for; shared: with others at the same time. */
Meter *metermine(bool *shared);
Part metricspart(WaitReason why); /* what such a wait is to a request */
/* gp, whose owner calls, goes from one status to the other. */
void metricsmove(G *gp, uint32_t from, uint32_t to);
void metricscount(Count c);
void metricscountin(Meter *m, Hist h, uint64_t v, bool shared);
void metricsvalue(Hist h, uint64_t value); /* in h's unit */
int64_t metricscounted(Count c);
void metricsrequest(int listener, const Took *t);
void metricsrequestcount(int listener, RequestCount c);

/* timed.c */
Meter *timedmeter(void); /* the calling kernel thread's; NULL: there is no kernel mode */

/* trace.c */
extern uint64_t *traceuntil; /* in the region: until when events are recorded */
/* Is `now`, in ticks, a time to record? */
static inline bool tracing(uint64_t now)
{
	return unlikely(now < __atomic_load_n(traceuntil, __ATOMIC_RELAXED));
}
/* gp->since is still that of `from`. */
void tracemove(const Meter *m, bool shared, const G *gp, uint32_t from, uint32_t to, uint64_t now);
/* Something else happens, to the goroutine that calls if it is one's doing. */
void traceevent(uint32_t type, uint64_t arg);
void traceof(int64_t goid, uint32_t type, uint64_t arg); /* ... to that one; 0: to none */
void tracealways(void);                                  /* whether somebody reads or not */
void traceforkchild(void);

/* ticks.c */
extern TickPoints tickpoints;
int64_t ticksns(uint64_t n);  /* how long they are */
uint64_t nsticks(int64_t ns); /* ... and how many that are */
void ticksstart(void);
void tickslook(void);  /* now and then: keeps the rate right */
void ticksavoid(void); /* the counter may not be read any more */

#endif
