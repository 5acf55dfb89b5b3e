/*
 * sigqueue.c - who blocks which signal, and the routing of what is sent to the
 * process (signal.c says how it all works).
 */
#include "sigcore.h"

Sigs sigs;
Thread process = {.mask = ~0ull};
__thread bool issysmon __attribute__((tls_model("initial-exec")));

/* Received by sysmon (or by an M in a native bracket), in that order, and not yet routed. */
static struct {
	_Atomic bool full;
	siginfo_t info;
} ring[RING];
static _Atomic uint32_t ringhead, ringtail; /* counted up; who moves the tail writes there */

/* --- who blocks what -------------------------------------------------------------------- */

/* What sysmon should block: what all threads block, what there is no room for, and for an exec all. */
static uint64_t wantmask_locked(void)
{
	uint64_t m = 0;
	for (int s = 1; s <= NSIGS; s++)
		if (sigs.nblocked[s] >= sigs.nlive)
			m |= BIT(s);
	if (sigs.crowded)
		m |= QUEUEDSIGS;
	if (sigs.execs)
		m = ~0ull;
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
	tellself(th, old & ~m);
	if (waiting(th) & ~m)
		ginterrupt(th->gp);
	handon(th);
}

void noteaction_locked(int sig)
{
	uint64_t bit = BIT(sig) & ~(IDLESIGS | TRACEDSIGS | NEVERMASKED);
	if (sigs.act[sig].sa_handler == SIG_DFL)
		atomic_fetch_or(&sigs.endings, bit);
	else
		atomic_fetch_and(&sigs.endings, ~bit);
}

/*
 * For the time of a handler, which ends soon: sysmon goes on receiving what then all may
 * block; that is pending for the process until setmask, after the handler, finds it. But what the kernel ends or stops
 * the process for, if nobody blocks it, is blocked indeed.
 */
void addmask(Thread *th, uint64_t m)
{
	uint64_t old = th->mask, counts = m & ~old & atomic_load(&sigs.endings);
	bool sync = false;
	Section l = siglock();
	th->mask = m;
	if (unlikely(counts)) {
		sync = maskcount_locked(th->counted, th->counted | counts);
		th->counted |= counts;
	}
	sigunlock(l);
	if (unlikely(sync))
		sigsettle();
	if ((old ^ m) & OWNSIGS)
		gsetkmask((ggetkmask() & ~OWNSIGS) | (m & OWNSIGS));
	handon(th);
}

uint64_t sigbasekmask(void)
{
	return ~(SYNCSIGS | OWNSIGS | BIT(SIGURG) | NEVERMASKED);
}

/* --- routing ------------------------------------------------------------------------------------ */

/* From a handler: to be routed to some thread. */
bool ringput(const siginfo_t *info)
{
	uint32_t at = atomic_load(&ringtail);
	do {
		if (at - atomic_load(&ringhead) >= RING)
			return false;
	} while (!atomic_compare_exchange_weak(&ringtail, &at, at + 1));
	ring[at % RING].info = *info;
	atomic_store(&ring[at % RING].full, true);
	wakesysmon();
	return true;
}

/*
 * As in the kernel: what is sent to the process waits in one queue, and a thread that takes it is told. That one takes
 * it from there when it comes to it. If it blocks it first, ends, or ends its sigwait, it tells another (handon). So while
 * a signal waits there, none takes it or one that does was told: whoever queues does that first and then looks who
 * takes it; whoever begins to take it says so first and then looks what waits; and who is told says so under the lock
 * under which it says that it takes no more.
 */
struct choice {
	uint64_t bit;
	bool found, open; /* ... not only waited for */
	G *gp;            /* to be interrupted */
	uint32_t running,
	    skip; /* only of those that run, beyond so many; how many were looked at */
};

/* Until th is told: it takes it. */
static bool choose(Thread *th, void *arg)
{
	struct choice *c = arg;
	if (!takes(th, c->bit))
		return true;
	Section l = siglock();
	c->found = takes(th, c->bit);
	if (c->found) {
		atomic_fetch_or(&th->told, c->bit);
		c->open = !(th->mask & c->bit);
		c->gp = th->gp;
	}
	sigunlock(l);
	return !c->found;
}

static bool chooserunning(Thread *th, void *arg)
{
	struct choice *c = arg;
	if (!takes(th, c->bit) || (th->mask & c->bit) || !th->gp || !grunning(th->gp) ||
	    c->running++ < c->skip)
		return true;
	return choose(th, arg);
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
	if (!c->running)
		return;
	c->skip = turn++ % c->running;
	c->running = 0;
	threadseach(chooserunning, c);
}

static bool istaken(Thread *th, void *arg)
{
	struct choice *c = arg;
	c->found = takes(th, c->bit);
	return !c->found;
}

static bool taken(uint64_t bit)
{
	struct choice c = {.bit = bit};
	threadseach(istaken, &c);
	return c.found;
}

/* Tells a thread of what waits for the process. The result says whether one takes it. */
static struct choice tell(uint64_t bit, bool worker)
{
	struct choice c = {.bit = bit};
	if (worker)
		chooseworker(&c);
	if (!c.found)
		threadseach(choose, &c);
	return c;
}

/* If nobody takes it it waits for a thread that opens it (setmask, sigthreadstart) or asks (sigtake). */
static int postprocess(const siginfo_t *info)
{
	int sig = info->si_signo, r = post(&process, info);
	if (r)
		return r;
	struct choice c = tell(BIT(sig), (BIT(sig) & TIMESIGS) && info->si_code == SI_KERNEL);
	if (c.open && fatal(sig)) {
		siginfo_t last = *info;
		sigfatal(&last, NULL);
	}
	if (c.gp)
		ginterrupt(c.gp);
	return 0;
}

/* To the thread whose it is, or to the process. 0, or EAGAIN: there is no room for it. */
static int route(const siginfo_t *info)
{
	uint32_t tid = info->si_code == SI_TIMER ? timertarget(info->si_timerid) : 0;
	if (tid) {
		Thread *th = threadwithtid(tid); /* NULL too for a timer that is deleted */
		if (th)
			queue(th, info, tid);
		return 0;
	}
	return routetoowner(info) ? 0 : postprocess(info);
}

void tellself(Thread *th, uint64_t set)
{
	if (likely(!(atomic_load(&process.pending) & set)))
		return;
	Section l = siglock();
	atomic_fetch_or(&th->told, atomic_load(&process.pending) & set);
	sigunlock(l);
}

void handon(Thread *th)
{
	uint64_t shut = th->exiting ? ~0ull : th->mask & ~atomic_load(&th->waitset);
	if (likely(!(atomic_load(&th->told) & shut)))
		return;
	Section l = siglock();
	shut &= atomic_fetch_and(&th->told, ~shut) & atomic_load(&process.pending);
	sigunlock(l);
	for (; shut; shut &= shut - 1) {
		struct choice c = tell(shut & -shut, false);
		if (c.gp)
			ginterrupt(c.gp);
		else if (!c.found)
			tosignalfd();
	}
}

/* --- what the process sends to itself ------------------------------------------------------- */

/* How many queued signals it has sent by the kernel, and how many of those are known to be routed. */
static _Atomic uint32_t kernelsent, kernelrouted;

/*
 * What a thread blocks for the length of a handler alone does not go by way of the kernel and sysmon, to come when that
 * thread has ended. What the kernel takes the action for is its own if anybody has it open. Queued ones stay in order.
 */
int sendprocess(const siginfo_t *info)
{
	int sig = info->si_signo;
	if ((atomic_load(&sigs.sysmonmask) & BIT(sig)) ||
	    (!handled(sig) && !fatal(sig) && taken(BIT(sig))))
		return ESRCH;
	uint32_t sent = atomic_load(&kernelsent);
	if (sig >= SIGRTMIN && (sent != atomic_load(&kernelrouted) || sigtickneeded())) {
		sigsettle();
		atomic_store(&kernelrouted, sent);
	}
	return route(info);
}

void sigsentbykernel(pid_t pid, int sig)
{
	if (sig >= SIGRTMIN && pid == (pid_t)sys0(SYS_getpid))
		atomic_fetch_add(&kernelsent, 1);
}

/*
 * sysmon opens nothing that is queued while a thread may take it from the kernel: each would have some, and who has
 * which first is not known. The one says what it is about to do and then looks at what the other has said.
 */
static _Atomic uint32_t
    nkernelwaits; /* threads between sigkernelenter and -leave, with any of those */

bool sigkernelenter(uint64_t *set)
{
	Thread *th = curthread();
	uint64_t queued = *set & QUEUEDSIGS;
	if (!queued)
		return true;
	atomic_fetch_add(&nkernelwaits, 1);
	atomic_store(&th->kernelset, queued);
	uint64_t sysmons = queued & ~atomic_load(&sigs.kept);
	if (sysmons)
		atomic_store(&th->kernelset, queued & ~sysmons);
	*set &= ~sysmons;
	/* What was on its way before that is in the queue now. */
	return !(atomic_load(&process.pending) & queued & ~sysmons);
}

void sigkernelleave(uint64_t set)
{
	if (!(set & QUEUEDSIGS))
		return;
	atomic_store(&curthread()->kernelset, 0);
	atomic_fetch_sub(&nkernelwaits, 1);
	if (atomic_load(&sigs.leave))
		maskagain();
}

struct kernelwaits {
	uint64_t opens, closes;
	bool found;
};

/* Its wait in the kernel, which is for what changes, is to be begun anew. */
static bool kernelwaitends(Thread *th, void *arg)
{
	struct kernelwaits *w = arg;
	bool there = atomic_load(&th->kernelset) & w->opens;
	if (!there && !(atomic_load(&th->waitset) & w->closes))
		return true;
	w->found |= there;
	Section l = siglock();
	G *gp = th->gp;
	sigunlock(l);
	if (gp)
		ginterrupt(gp);
	return true;
}

/* Is there one for something that is to be opened? */
static bool kernelwaitsend(uint64_t opens, uint64_t closes)
{
	struct kernelwaits w = {opens, closes, false};
	if ((opens | closes) && atomic_load(&nkernelwaits))
		threadseach(kernelwaitends, &w);
	return w.found;
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
	atomic_store(&sigs.kept, m);
}

/* The change of masks that sysmon puts off until a thread has left the kernel, which asks for it anew. sysmon's alone. */
static uint32_t deferred;

bool sigtickneeded(void)
{
	return atomic_load(&ringhead) != atomic_load(&ringtail) ||
	       atomic_load(&sigs.maskwant) != atomic_load(&sigs.maskdone);
}

bool sigtickdue(void)
{
	uint32_t want = atomic_load(&sigs.maskwant);
	return atomic_load(&ringhead) != atomic_load(&ringtail) ||
	       (want != atomic_load(&sigs.maskdone) && want != deferred);
}

void sigtick(void)
{
	uint32_t want = atomic_load(&sigs.maskwant);
	bool later = false;
	if (want != atomic_load(&sigs.maskdone)) {
		Section l = siglock();
		uint64_t m = wantmask_locked();
		sigunlock(l);
		uint64_t opens = atomic_load(&sigs.sysmonmask) & ~m & QUEUEDSIGS;
		atomic_fetch_and(&sigs.kept, m);
		atomic_store(&sigs.leave, true);
		later = kernelwaitsend(opens, 0);
		if (later) {
			deferred = want;
			m |= opens;
		} else {
			atomic_store(&sigs.leave, false);
		}
		atomic_fetch_and(&sigs.returned, m);
		sysmonsetmask(m); /* what was pending arrives here, in the ring */
	}
	uint32_t end = atomic_load(&ringtail); /* more may come all the time */
	for (uint32_t at = atomic_load(&ringhead); at != end; at++) {
		while (!atomic_load(&ring[at % RING].full)) /* an M is in its handler */
			sys0(SYS_sched_yield);
		route(&ring[at % RING].info);
		atomic_store(&ring[at % RING].full, false);
		atomic_store(&ringhead, at + 1); /* setmask relies on the order */
	}
	/* What was returned for want of room, and is blocked now, is older than what waits in the kernel for the process. */
	uint64_t blocked = atomic_load(&sigs.sysmonmask);
	for (uint64_t set = atomic_fetch_and(&sigs.returned, ~blocked) & blocked; set;
	     set &= set - 1) {
		uint64_t one = set & -set;
		siginfo_t info;
		struct timespec now = {0, 0};
		if (sys4(SYS_rt_sigtimedwait, (long)&one, (long)&info, (long)&now, 8) > 0)
			route(&info);
	}
	tosignalfd();
	if (want != atomic_load(&sigs.maskdone) && !later) {
		uint64_t m = atomic_load(&sigs.sysmonmask), old = atomic_exchange(&sigs.kept, m);
		kernelwaitsend(0, m & ~old & QUEUEDSIGS); /* the kernel has it from now on */
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
	bool none = !(waiting(th) & ~th->mask);
	if (none)
		th->exiting = true;
	sigunlock(l);
	return none;
}

void sigthreadexit(Thread *th)
{
	Section l = siglock();
	th->exiting = true; /* one that could not be made, too */
	sigs.nlive--;
	bool sync = maskcount_locked(th->counted, 0);
	dropall_locked(th);
	sigunlock(l);
	handon(th);
	if (sync) {
		maskagain();
	}
}

void sigqueueforkchild(void)
{
	atomic_store(&sigs.lock, 0);
	atomic_store(&ringhead, 0);
	atomic_store(&ringtail, 0);
	for (int i = 0; i < RING; i++)
		atomic_store(&ring[i].full, false);
	sigs.free = NULL; /* what was queued is lost with its threads */
	sigs.nqueued = 0;
	sigs.crowded = false;
	memset(sigs.nblocked, 0, sizeof sigs.nblocked);
	sigs.nlive = 0;
	sigs.execs = 0;
	atomic_store(&sigs.kept, 0);
	atomic_store(&sigs.leave, false);
	atomic_store(&sigs.returned, 0);
	atomic_store(&nkernelwaits, 0);
	deferred = 0;
	atomic_store(&sigs.maskwant, 0);
	atomic_store(&sigs.maskdone, 0);
	process.queue = NULL;
	atomic_store(&process.pending, 0);
}
