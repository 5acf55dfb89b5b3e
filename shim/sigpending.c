/*
 * sigpending.c - what is pending for a thread, or for the process (the record `process`).
 *
 * As the kernel keeps it: a standard signal once, a real-time one as often as it was sent, a timer's once, with the
 * count of those that it stands for (overrun). What was sent to the thread comes before what was sent to
 * the process and routed to it; then the lowest number, and of one number the oldest.
 *
 * Records are never freed, and as many as RLIMIT_SIGPENDING allows, whose bound is on real-time signals
 * alone. Near it sysmon leaves them in the kernel, which then refuses them to their senders.
 */
#include "sigcore.h"

#include <sys/mman.h>
#include <sys/resource.h>

enum { CHUNK = 1 << 16, OVERRUNS = 1024 };

#define STOPSIGS (BIT(SIGSTOP) | BIT(SIGTSTP) | BIT(SIGTTIN) | BIT(SIGTTOU))

/* --- records ---------------------------------------------------------------------------- */

static uint32_t bound(void)
{
	struct rlimit rl;
	if (sys4(SYS_prlimit64, 0, RLIMIT_SIGPENDING, 0, (long)&rl) || rl.rlim_cur > 1u << 24)
		return 1u << 24;
	return (uint32_t)rl.rlim_cur;
}

static void grow_locked(void)
{
	SigNode *n = (SigNode *)sys6(SYS_mmap, 0, CHUNK, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if ((uintptr_t)n > -4096ul)
		return;
	for (size_t i = 0; i < CHUNK / sizeof *n; i++, n++) {
		n->next = sigs.free;
		sigs.free = n;
	}
	sigs.bound = bound();
}

/* NULL: no memory, or more real-time signals than there may be. */
static SigNode *nodeget_locked(int sig)
{
	if (!sigs.free)
		grow_locked();
	SigNode *n = sigs.free;
	if (!n || (sig >= SIGRTMIN && sigs.nqueued >= sigs.bound))
		return NULL;
	sigs.free = n->next;
	sigs.nqueued++;
	if (sigs.nqueued + RING >= sigs.bound && !sigs.crowded) {
		sigs.crowded = true;
		maskagain();
	}
	return n;
}

static void nodeput_locked(SigNode *n)
{
	n->next = sigs.free;
	sigs.free = n;
	sigs.nqueued--;
	if (sigs.crowded && sigs.nqueued <= sigs.bound / 2) {
		sigs.crowded = false;
		maskagain();
	}
}

/* --- timers ------------------------------------------------------------------------------- */

/* The number of a timer and how many signals the last one that was taken stood for beyond itself. */
static _Atomic uint64_t overruns[OVERRUNS];

static _Atomic uint64_t *overrunof(int id)
{
	return &overruns[(uint32_t)id % OVERRUNS];
}

void notetimer(const siginfo_t *info)
{
	if (info->si_code == SI_TIMER)
		atomic_store(overrunof(info->si_timerid),
			     (uint64_t)(uint32_t)info->si_timerid << 32 |
				 (uint32_t)info->si_overrun);
}

void forgettimer(int id)
{
	if (timeroverrun(id) >= 0)
		atomic_store(overrunof(id), 0);
}

int timeroverrun(int id)
{
	uint64_t v = atomic_load(overrunof(id));
	return v && (int)(v >> 32) == id ? (int)(uint32_t)v : -1;
}

/* --- the queue ----------------------------------------------------------------------------- */

static bool before(const SigNode *a, const SigNode *b)
{
	if (a->routed != b->routed)
		return b->routed;
	return a->info.si_signo <= b->info.si_signo;
}

static void insert_locked(Thread *th, SigNode *n)
{
	SigNode **p = &th->queue;
	if (*p && before(th->queuetail, n))
		p = &th->queuetail->next;
	while (*p && before(*p, n))
		p = &(*p)->next;
	n->next = *p;
	*p = n;
	if (!n->next)
		th->queuetail = n;
}

/* Takes n, which follows prev (NULL: nothing), out of the queue. */
static void remove_locked(Thread *th, SigNode *prev, SigNode *n)
{
	*(prev ? &prev->next : &th->queue) = n->next;
	if (!n->next)
		th->queuetail = prev;
	nodeput_locked(n);
}

/* Does n stand for what is to be queued as well? */
static bool standsfor(SigNode *n, const siginfo_t *info, bool routed)
{
	if (n->info.si_signo != info->si_signo)
		return false;
	if (info->si_code == SI_TIMER && n->info.si_code == SI_TIMER &&
	    n->info.si_timerid == info->si_timerid) {
		int64_t sum = 1ll + n->info.si_overrun + info->si_overrun;
		n->info.si_overrun = sum > INT32_MAX ? INT32_MAX : (int)sum;
		return true;
	}
	return info->si_signo < SIGRTMIN && n->routed == routed;
}

static void drop_locked(Thread *th, uint64_t set)
{
	for (SigNode *prev = NULL, *n = th->queue, *next; n; n = next) {
		next = n->next;
		if (set & BIT(n->info.si_signo))
			remove_locked(th, prev, n);
		else
			prev = n;
	}
	atomic_fetch_and(&th->pending, ~set);
}

static bool dropsome(Thread *th, void *arg)
{
	if (atomic_load(&th->pending) & *(uint64_t *)arg) {
		Section l = siglock();
		drop_locked(th, *(uint64_t *)arg);
		sigunlock(l);
	}
	return true;
}

void sigdrop(uint64_t set)
{
	dropsome(&process, &set);
	threadseach(dropsome, &set);
}

/* One that stops and one that continues the process are not pending together. */
void sigcounter(int sig)
{
	uint64_t set = sig == SIGCONT ? STOPSIGS : BIT(sig) & STOPSIGS ? BIT(SIGCONT) : 0;
	struct timespec now = {0, 0};
	if (!set)
		return;
	sigdrop(set);
	while (sys4(SYS_rt_sigtimedwait, (long)&set, 0, (long)&now, 8) > 0)
		;
}

int queue(Thread *th, const siginfo_t *info, bool routed, uint32_t tid)
{
	int sig = info->si_signo;
	Section l = siglock();
	if (((routed || tid) && th->exiting) ||
	    (tid && th->tid != tid)) { /* it was chosen, and has routed what it had */
		sigunlock(l);
		return ESRCH;
	}
	SigNode *same = NULL;
	if (atomic_load(&th->pending) & BIT(sig))
		for (same = th->queue; same && !standsfor(same, info, routed); same = same->next)
			;
	int r = 0;
	SigNode *n = same ? NULL : nodeget_locked(sig);
	if (n) {
		n->info = *info;
		n->routed = routed;
		insert_locked(th, n);
		atomic_fetch_or(&th->pending, BIT(sig));
	} else if (!same) {
		r = EAGAIN;
	}
	G *gp = th->gp;
	bool open = !(th->mask & BIT(sig)) || (atomic_load(&th->waitset) & BIT(sig));
	sigunlock(l);
	if (gp && open)
		ginterrupt(gp);
	return r;
}

int post(Thread *th, const siginfo_t *info)
{
	return queue(th, info, false, 0);
}

/* Takes a pending signal of `set` from th's queue. */
bool take(Thread *th, uint64_t set, siginfo_t *info)
{
	if (!(atomic_load_explicit(&th->pending, memory_order_acquire) & set))
		return false;
	Section l = siglock();
	SigNode *prev = NULL, *n = th->queue;
	for (; n && !(set & BIT(n->info.si_signo)); n = n->next)
		prev = n;
	if (n) {
		int sig = n->info.si_signo;
		SigNode *more = n->next;
		*info = n->info;
		/* Its like follow, or, sent to the process, are further on. */
		while (more && more->info.si_signo != sig)
			more = more->next;
		if (!more)
			atomic_fetch_and(&th->pending, ~BIT(sig));
		remove_locked(th, prev, n);
	}
	sigunlock(l);
	if (n)
		notetimer(info);
	return n != NULL;
}

/* What a thread leaves behind that has ended: is another's if it was sent to the process. */
bool takeleft(Thread *th, siginfo_t *info)
{
	Section l = siglock();
	SigNode *n;
	while ((n = th->queue)) {
		bool routed = n->routed;
		*info = n->info;
		remove_locked(th, NULL, n);
		if (routed)
			break;
	}
	if (!n)
		atomic_store(&th->pending, 0);
	sigunlock(l);
	return n != NULL;
}
