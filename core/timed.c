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
	}
	metricscountin(m, (Hist)why, n, true);
}

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

void timedlate(int64_t ns)
{
	if (timedcounts())
		metricscountin(meter(), HistTimer, ns < 0 ? 0 : (uint64_t)ns, true);
}

/* --- threads ---------------------------------------------------------------------------- */

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
	if (child)
		captureforkchild();
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
