/*
 * sigqueue.c - who blocks which signal, and the routing of what is sent to the
 * process (signal.c says how it all works).
 */
#include "sigcore.h"

Sigs sigs;
Thread process = {.mask = ~0ull};
__thread bool issysmon __attribute__((tls_model("initial-exec")));

/* Received by sysmon (or by an M in a native bracket), not yet routed. */
static struct {
	_Atomic uint32_t state; /* 0 free, 1 being written, 2 full */
	siginfo_t info;
} ring[RING];
static _Atomic uint32_t ringused;

/* --- who blocks what -------------------------------------------------------------------- */

/* What sysmon should block: what all threads block, and what there is no room for. */
static uint64_t wantmask_locked(void)
{
	uint64_t m = 0;
	for (int s = 1; s <= NSIGS; s++)
		if (sigs.nblocked[s] >= sigs.nlive)
			m |= BIT(s);
	if (sigs.crowded)
		m |= ~0ull << (SIGRTMIN - 1);
	return m & ~NEVERMASKED;
}

/* Counts a change of some thread's mask. True: sysmon has to change its own. */
static bool maskcount_locked(uint64_t old, uint64_t mask)
{
	for (uint64_t diff = old ^ mask; diff; diff &= diff - 1) {
		int s = __builtin_ctzll(diff) + 1;
		sigs.nblocked[s] += mask & BIT(s) ? 1 : -1;
	}
	return wantmask_locked() != atomic_load(&sigs.sysmonmask);
}

void sigsettle(void)
{
	uint32_t want = atomic_fetch_add(&sigs.maskwant, 1) + 1;
	wakesysmon();
	entersyscall();
	for (;;) {
		uint32_t done = atomic_load(&sigs.maskdone);
		if ((int32_t)(done - want) >= 0)
			break;
		struct timespec ts = {0, 10000000};
		sys4(SYS_futex, (long)&sigs.maskdone, 128, done, (long)&ts);
		wakesysmon();
	}
	exitsyscall();
}

uint64_t kmaskfor(uint64_t mask)
{
	return (sigbasekmask() & ~OWNSIGS) | (mask & OWNSIGS);
}

void setmask(Thread *th, uint64_t m)
{
	uint64_t old = th->mask;
	if (old == m && th->counted == m)
		return;
	Section l = siglock();
	th->mask = m;
	bool sync = maskcount_locked(th->counted, m);
	th->counted = m;
	/* One that is being routed may be for what this opens: either it sees this mask,
	 * or it is seen here, or is pending for the process already. */
	atomic_thread_fence(memory_order_seq_cst);
	sync |= (old & ~m) && sigtickneeded();
	sigunlock(l);
	if ((old ^ m) & OWNSIGS)
		gsetkmask((ggetkmask() & ~OWNSIGS) | (m & OWNSIGS));
	if (sync)
		sigsettle();
	siginfo_t info;
	while (take(&process, ~m, &info))
		queue(th, &info, true, 0);
	if (atomic_load(&th->pending) & ~m)
		ginterrupt(th->gp);
}

/*
 * For the time of a handler, which ends soon: sysmon goes on receiving what then all may
 * block; that is pending for the process until setmask, after the handler, finds it.
 */
void addmask(Thread *th, uint64_t m)
{
	uint64_t old = th->mask;
	Section l = siglock();
	th->mask = m;
	sigunlock(l);
	if ((old ^ m) & OWNSIGS)
		gsetkmask((ggetkmask() & ~OWNSIGS) | (m & OWNSIGS));
}

uint64_t sigbasekmask(void)
{
	return ~(SYNCSIGS | OWNSIGS | BIT(SIGURG) | NEVERMASKED);
}

/* --- routing, on sysmon ------------------------------------------------------------------------- */

/* From a handler: to be routed to some thread. */
bool ringput(const siginfo_t *info)
{
	for (uint32_t i = 0; i < RING; i++) {
		uint32_t zero = 0;
		if (!atomic_compare_exchange_strong(&ring[i].state, &zero, 1))
			continue;
		ring[i].info = *info;
		atomic_store(&ring[i].state, 2);
		atomic_fetch_add(&ringused, 1);
		wakesysmon();
		return true;
	}
	return false;
}

struct choice {
	uint64_t bit;
	Thread *th;
	uint32_t running,
	    skip; /* only of those that run, beyond so many; how many were looked at */
};

static bool takes(Thread *th, uint64_t bit)
{
	return !th->exiting && (!(th->mask & bit) || (atomic_load(&th->waitset) & bit));
}

static bool choose(Thread *th, void *arg)
{
	struct choice *c = arg;
	if (!takes(th, c->bit))
		return true;
	c->th = th;
	return false;
}

static bool chooserunning(Thread *th, void *arg)
{
	struct choice *c = arg;
	if (!takes(th, c->bit) || (th->mask & c->bit) || !th->gp || !grunning(th->gp))
		return true;
	c->th = th;
	return c->running++ < c->skip;
}

/*
 * The kernel prefers the thread whose CPU time is told of. What sysmon gets, or an M between two goroutines, is
 * for one of those that compute: not for main, which may never.
 */
static void chooseworker(struct choice *c)
{
	static uint32_t turn; /* sysmon's alone */
	c->skip = UINT32_MAX;
	threadseach(chooserunning, c);
	if (c->running < 2)
		return;
	c->skip = turn++ % c->running;
	c->running = 0;
	threadseach(chooserunning, c);
}

int route(const siginfo_t *info)
{
	struct choice c = {.bit = BIT(info->si_signo)};
	uint32_t tid = info->si_code == SI_TIMER ? timertarget(info->si_timerid) : 0;
	if (tid) {
		Thread *th = threadwithtid(tid); /* NULL too for a timer that is deleted */
		if (th)
			queue(th, info, false, tid);
		return 0;
	}
	if (routetoowner(info))
		return 0;
	int r;
	do {
		c.th = NULL;
		if ((c.bit & TIMESIGS) && info->si_code == SI_KERNEL)
			chooseworker(&c);
		if (!c.th)
			threadseach(choose, &c);
		if (!c.th)
			return ESRCH;
		if (fatal(info->si_signo) && !(c.th->mask & c.bit)) {
			siginfo_t last = *info;
			sigfatal(&last, NULL);
		}
	} while ((r = queue(c.th, info, true, 0)) == ESRCH);
	return r;
}

/*
 * All block it: it is the process's until a thread opens it (setmask, sigthreadstart) or
 * asks (sigtake). Those change their state first and look then; here it is the other way round, so
 * one that came between is found.
 */
static int postprocess(const siginfo_t *info)
{
	struct choice c = {.bit = BIT(info->si_signo)};
	siginfo_t again;
	int r = post(&process, info);
	threadseach(choose, &c);
	if (c.th && take(&process, c.bit, &again) && route(&again) == ESRCH)
		post(&process, &again);
	return r;
}

/*
 * What the process sends to itself. 0; EAGAIN: there is no room for it; ESRCH: all block it, and the kernel keeps it. What
 * a thread blocks for the length of a handler alone does not go by way of the kernel and sysmon, to come when that thread has ended.
 */
int sendprocess(const siginfo_t *info)
{
	int r = route(info);
	if (r != ESRCH || (atomic_load(&sigs.sysmonmask) & BIT(info->si_signo)))
		return r;
	return postprocess(info);
}

static void sysmonsetmask(uint64_t m)
{
	uint64_t k = m & ~(NEVERMASKED | BIT(SIGURG)); /* `goshim dump` asks by it */
	atomic_store(&sigs.sysmonmask, m);
	sys4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&k, 0, 8);
}

void sysmonthreadinit(void)
{
	issysmon = true;
	Section l = siglock();
	uint64_t m = wantmask_locked();
	sigunlock(l);
	sysmonsetmask(m);
}

bool sigtickneeded(void)
{
	return atomic_load(&ringused) || atomic_load(&sigs.maskwant) != atomic_load(&sigs.maskdone);
}

void sigtick(void)
{
	uint32_t want = atomic_load(&sigs.maskwant);
	if (want != atomic_load(&sigs.maskdone)) {
		Section l = siglock();
		uint64_t m = wantmask_locked();
		sigunlock(l);
		sysmonsetmask(m); /* what was pending arrives here, in the ring */
	}
	for (uint32_t i = 0; i < RING && atomic_load(&ringused); i++) {
		if (atomic_load(&ring[i].state) != 2)
			continue;
		siginfo_t info = ring[i].info;
		atomic_store(&ring[i].state, 0);
		if (route(&info) == ESRCH)
			postprocess(&info);     /* blocked everywhere, since we received it */
		atomic_fetch_sub(&ringused, 1); /* setmask relies on the order */
	}
	if (want != atomic_load(&sigs.maskdone)) {
		atomic_store(&sigs.maskdone, want);
		sys3(SYS_futex, (long)&sigs.maskdone, 129, INT32_MAX);
	}
}

void maskagain(void)
{
	atomic_fetch_add(&sigs.maskwant, 1);
	wakesysmon();
}

/* --- threads ---------------------------------------------------------------------------------- */

void sigthreadinit(Thread *th, Thread *creator)
{
	if (creator) {
		th->mask = creator->mask;
	} else {
		uint64_t m = 0;
		sys4(SYS_rt_sigprocmask, SIG_BLOCK, 0, (long)&m, 8);
		th->mask = m & ~NEVERMASKED;
	}
}

/* Its mask counts from now on. */
void sigthreadcount(Thread *th)
{
	Section l = siglock();
	sigs.nlive++;
	th->counted = th->mask;
	bool sync = maskcount_locked(0, th->counted);
	sigunlock(l);
	if (sync && schedstarted()) {
		maskagain();
	}
}

bool sigclose(Thread *th)
{
	Section l = siglock();
	/* Whoever queues looks at `exiting` under this lock: nothing comes between. */
	bool none = !(atomic_load(&th->pending) & ~th->mask);
	if (none)
		th->exiting = true;
	sigunlock(l);
	return none;
}

void sigthreadexit(Thread *th)
{
	Section l = siglock();
	sigs.nlive--;
	bool sync = maskcount_locked(th->counted, 0);
	sigunlock(l);
	siginfo_t left;
	while (takeleft(th, &left))
		if (route(&left) == ESRCH)
			postprocess(&left);
	if (sync) {
		maskagain();
	}
}

void sigqueueforkchild(void)
{
	atomic_store(&sigs.lock, 0);
	atomic_store(&ringused, 0);
	for (int i = 0; i < RING; i++)
		atomic_store(&ring[i].state, 0);
	sigs.free = NULL; /* what was queued is lost with its threads */
	sigs.nqueued = 0;
	sigs.crowded = false;
	memset(sigs.nblocked, 0, sizeof sigs.nblocked);
	sigs.nlive = 0;
	atomic_store(&sigs.maskwant, 0);
	atomic_store(&sigs.maskdone, 0);
	process.queue = NULL;
	atomic_store(&process.pending, 0);
}
