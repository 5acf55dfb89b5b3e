/*
 * timed.c - kernel mode: what kernel threads wait for is counted where that of goroutines is.
 *
 * There is no scheduler that sees a thread stop, so each wait is said: timedbegins, and timedends or, of a call that
 * need not have waited, timedcallends. How long a thread has waited for a CPU, and how long it had one, only the kernel
 * knows: it is asked when a thread ends, and of those that live by who reads (tools/metrics_live.c). No thread
 * is made for it, and nothing is kept for a thread.
 *
 * The threads share a few shards, by where their blocks lie, and write with locked additions; a signal handler that
 * interrupts one does the same.
 *
 * What must be forgotten in a child, however it was forked, is in a page that the kernel clears for it
 * (MADV_WIPEONFORK): no handler of fork is needed, and one that calls us meets a process that counts nothing.
 */
#include "metrics.h"
#include "requests.h"
#include "runtime.h"
#include "text.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

enum { Unmade, Making, Made };
enum {
	SHARDS = 64,
	WIPEONFORK = 18, /* MADV_WIPEONFORK, Linux 4.14 */
	SHORT = 10000,   /* ns; who has waited in the kernel has been away for longer, as a rule */
};

/* Zero in a child. */
typedef _Atomic uint32_t Wiped;
static Wiped *_Atomic state;

static Meter meters[SHARDS];
static uint32_t nmeters;
static _Atomic bool closed; /* no file may be opened any more; nor by children */

bool timedcounts(void)
{
	Wiped *s = atomic_load_explicit(&state, memory_order_acquire);
	return s && atomic_load_explicit(s, memory_order_acquire) == Made;
}

static Meter *meter(void)
{
	uint64_t hash = ((uintptr_t)__builtin_thread_pointer() >> 6) * 0x9e3779b97f4a7c15ull;
	return &meters[(hash >> 32) * nmeters >> 32];
}

Meter *timedmeter(void)
{
	return nmeters && timedcounts() ? meter() : NULL;
}

/* Its CPU time, its wait for a CPU, and how often it got one. False: that can't be had any more. */
static bool schedstat(const char *path, uint64_t n[3])
{
	char buf[100];
	long r = readfile(path, buf, sizeof buf - 1);
	memset(n, 0, 3 * sizeof *n);
	for (long i = 0, k = 0; i < r && k < 3; i++) {
		if (buf[i] >= '0' && buf[i] <= '9')
			n[k] = n[k] * 10 + (uint64_t)(buf[i] - '0');
		else
			k++;
	}
	return r > 0;
}

/* --- what a thread spends ------------------------------------------------------------------ */

/* Not always by libc's function, which reads the CPU's counter: a thread may be denied that. */
int64_t timedclock(int clock)
{
	int64_t ts[2] = {0, 0};
	__typeof__(host.clock_gettime) libcs =
	    __atomic_load_n(&host.clock_gettime, __ATOMIC_RELAXED);
	if (!libcs || libcs(clock, ts))
		sys2(SYS_clock_gettime, clock, (long)ts);
	return ts[0] * 1000000000 + ts[1];
}

/*
 * The kernel knows for how long a thread has had a CPU, for the price of a call, and how long it has waited for one, for three.
 * The latter is asked for only where the thread was off the CPU meanwhile; the rest of that is what it waited for.
 */
enum { OFFCPU = 2000 }; /* ns; a thread that has not been away for so long was not in a queue */

static __thread Serving *mine;
static struct {
	Lock lock;
	Serving *head;
} unused = {.lock = LOCK_INIT(RankUnranked)};

/* What the kernel has counted at one moment. */
typedef struct Clocks {
	uint64_t now; /* ticks */
	int64_t cpu, queued, pushed;
} Clocks;

/* For how many ticks the thread was off the CPU between two. */
static uint64_t offcpu(const Clocks *a, const Clocks *b)
{
	int64_t all = (int64_t)(b->now - a->now), ran = b->cpu - a->cpu;
	ran = (int64_t)nsticks(ran < 0 ? 0 : ran);
	return all > ran ? (uint64_t)(all - ran) : 0;
}

/* How often others were put in the thread's place while it ran. */
static int64_t pushed(void)
{
	enum { THREAD = 1, WORDS = 18 };
	int64_t usage[WORDS] = {0}; /* struct rusage, whose last one is this */
	sys2(SYS_getrusage, THREAD, (long)usage);
	return usage[WORDS - 1];
}

/* Now; `queued` and `pushed` are what they were where the thread has not been off the CPU. All are of one moment: else once more. */
static Clocks clocks(const Clocks *last)
{
	enum { TRIES = 5 };
	Clocks c = {.queued = last->queued, .pushed = last->pushed}, before = *last;
	uint64_t n[3];
	for (int i = 0; i < TRIES; i++) {
		c.cpu = timedclock(CLOCK_THREAD_CPUTIME_ID);
		c.now = ticksnow();
		if (ticksns(offcpu(&before, &c)) <= OFFCPU || atomic_load(&closed) ||
		    !schedstat("/proc/thread-self/schedstat", n))
			break;
		c.queued = (int64_t)n[1];
		c.pushed = pushed();
		before = c;
	}
	return c;
}

/* Up to now; of what it neither ran nor waited for a CPU, `most` ticks at most are `part`. */
static void spendas(Serving *sv, Part part, uint64_t most)
{
	Clocks last = {sv->at, sv->cpu, sv->queued, sv->pushed}, c = clocks(&last);
	uint64_t all = (int64_t)(c.now - last.now) < 0 ? 0 : c.now - last.now;
	uint64_t off = offcpu(&last, &c);
	uint64_t queued = nsticks(c.queued < last.queued ? 0 : c.queued - last.queued);
	queued = queued < off ? queued : off;
	uint64_t rest = off - queued, is = rest < most ? rest : most;
	sv->sum[PartCPU] += all - off;
	sv->sum[PartQueue] += queued;
	sv->sum[part] += is;
	sv->sum[PartSyscall] += rest - is;
	sv->at += all;
	sv->cpu = c.cpu;
	sv->queued = c.queued;
	sv->pushed = c.pushed;
}

static noinline_fn void served(WaitReason why, uint64_t n)
{
	Section s = sectionenter(); /* a handler may come, and wait */
	spendas(mine, metricspart(why), n);
	sectionleave(s);
}

void timedspent(Serving *sv)
{
	spendas(sv, PartSyscall, UINT64_MAX);
}

Serving *timedserving(void)
{
	if (mine || !nmeters || !timedcounts())
		return mine;
	lock(&unused.lock);
	Serving *sv = unused.head;
	if (sv)
		unused.head = sv->next;
	unlock(&unused.lock);
	if (!sv)
		sv = persistentalloc(sizeof *sv, 64);
	if (!sv)
		return NULL;
	memset(sv, 0, sizeof *sv);
	/* From where it has always been off the CPU, so all are asked for. */
	Clocks none = {.now = ticksnow() - nsticks(1000000000), .cpu = INT64_MAX},
	       c = clocks(&none);
	sv->at = c.now;
	sv->cpu = c.cpu;
	sv->queued = c.queued;
	sv->pushed = c.pushed;
	return mine = sv;
}

/* The thread ends. Connections may still say that it has served them, but not the other way round. */
static void servesnomore(void)
{
	Section s = sectionenter();
	Serving *sv = mine;
	if (sv) {
		mine = NULL;
		sv->conn = NULL;
		lock(&unused.lock);
		sv->next = unused.head;
		unused.head = sv;
		unlock(&unused.lock);
	}
	sectionleave(s);
}

/* --- waits ----------------------------------------------------------------------------- */

uint64_t timedbegins(WaitReason why)
{
	if (!timedcounts())
		return 0;
	addatomic(&meter()->shard->began[why], 1);
	return ticksnow();
}

static uint64_t since(uint64_t begin)
{
	uint64_t now = ticksnow();
	tickslook();
	return (int64_t)(now - begin) < 0 ? 0
					  : now - begin; /* CPUs' counters may differ a little */
}

int64_t timedends(WaitReason why, uint64_t begin)
{
	if (!begin || !timedcounts())
		return -1;
	uint64_t n = since(begin);
	metricscountin(meter(), (Hist)why, n, true);
	if (unlikely(mine != NULL))
		served(why, n);
	return (int64_t)n;
}

void timedcallends(WaitReason why, uint64_t begin)
{
	if (!begin || !timedcounts())
		return;
	uint64_t n = since(begin);
	Meter *m = meter();
	if (n < SHORT || ticksns(n) < SHORT) {
		addatomic(&m->shard->began[why], -1ull);
		why = WaitNone;
	} else if (unlikely(mine != NULL)) {
		mine->waited = true;
		served(why, n);
	}
	metricscountin(m, (Hist)why, n, true);
}

void timedlate(int64_t ns)
{
	if (timedcounts())
		metricscountin(meter(), HistTimer, ns < 0 ? 0 : (uint64_t)ns, true);
}

/* --- threads ---------------------------------------------------------------------------- */

static void account(const uint64_t n[3], const char *name)
{
	Shard *s = meter()->shard;
	addatomic(&s->kernel[KernelRunning], n[0]);
	addatomic(&s->kernel[KernelQueued], n[1]);
	addatomic(&s->kernel[KernelSlices], n[2]);
	addatomic(&s->running[metricsnameslot(name)], n[0]);
}

void timedthreadbegins(void)
{
	if (timedcounts())
		addatomic(&meter()->shard->moves[Gdead][Grunning], 1);
}

void timedthreadends(void)
{
	char name[METRICSNAME + 1] = "";
	uint64_t n[3];
	int64_t cpu[2];
	if (!timedcounts())
		return;
	servesnomore();
	addatomic(&meter()->shard->moves[Grunning][Gdead], 1);
	/* Also makes schedstat's exact. */
	bool ran = sys2(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, (long)cpu) == 0;
	if (atomic_load(&closed) || !schedstat("/proc/thread-self/schedstat", n))
		memset(n, 0, sizeof n);
	if (ran)
		n[0] = (uint64_t)(cpu[0] * 1000000000 + cpu[1]);
	sys2(SYS_prctl, 16 /* PR_GET_NAME */, (long)name);
	account(n, name);
}

/* Those that have not ended, at the end of the process. */
static void accountall(void)
{
	Dir dir;
	if (!diropen(&dir, "/proc/self/task"))
		return;
	for (const char *tid; (tid = dirnext(&dir));) {
		char path[64], name[METRICSNAME + 1] = "";
		uint64_t n[3];
		if (tid[0] == '.')
			continue;
		Text t = textin(path, sizeof path);
		textput(&t, "/proc/self/task/%s/schedstat", tid);
		if (!schedstat(textend(&t), n))
			continue;
		t = textin(path, sizeof path);
		textput(&t, "/proc/self/task/%s/comm", tid);
		long r = readfile(textend(&t), name, METRICSNAME);
		if (r > 0 && name[r - 1] == '\n')
			name[r - 1] = 0;
		account(n, name);
	}
	dirclose(&dir);
}

/* --- the process ------------------------------------------------------------------------- */

static Wiped *newpage(void)
{
	long p =
	    sys6(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p < 0 && p > -4096)
		return NULL;
	Wiped *none = NULL;
	if (sys3(SYS_madvise, p, 4096, WIPEONFORK) == 0 &&
	    atomic_compare_exchange_strong(&state, &none, (Wiped *)p))
		return (Wiped *)p;
	sys2(SYS_munmap, p, 4096);
	return none;
}

void timedstart(void (*ready)(void))
{
	uint32_t unmade = Unmade;
	Wiped *s = atomic_load(&state);
	bool child = s != NULL;
	if (s && atomic_load_explicit(s, memory_order_relaxed) != Unmade)
		return;
	if (atomic_load(&closed) || (!s && !(s = newpage())) ||
	    !atomic_compare_exchange_strong(s, &unmade, Making))
		return;
	/* Others may have been at it when the parent was forked. */
	if (child) {
		memforkchild();
		captureforkchild();
		requestsforkchild();
		lockinit(&unused.lock, RankUnranked);
		unused.head = mine = NULL;
	}
	ready();
	ticksstart();
	int32_t n = 2 * naffinity();
	nmeters = n > SHARDS ? SHARDS : (uint32_t)n;
	metricsinit((int32_t)nmeters, true);
	for (uint32_t i = 0; i < nmeters; i++) {
		meters[i] = nobodys;
		metricsmeter(&meters[i], (int32_t)i);
	}
	addatomic(&nobodys.shard->moves[Gdead][Grunning], 1); /* who makes the first thread */
	atomic_store(s, Made);
}

void timedcomplete(void)
{
	if (timedcounts())
		metricscompleteall(meters, nmeters);
	atomic_store(&closed, true);
}

void timedend(void)
{
	if (!timedcounts())
		return;
	if (debug.metricskeep && !atomic_load(&closed))
		accountall();
	metricsend();
}
