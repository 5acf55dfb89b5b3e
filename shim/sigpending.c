/*
 * sigpending.c - what is pending for a thread, or for the process (the record `process`).
 *
 * As the kernel keeps it: a standard signal once, a real-time one as often as it was sent, a timer's once, with the
 * count of those that it stands for (overrun). What was sent to the thread comes before what was sent to
 * the process; then the lowest number, and of one number the oldest: a queue is a list of runs, one for each
 * number, so that nothing looks at thousands of one number.
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

/* NULL: no memory, or more real-time signals than there may be. What sysmon has received the kernel has accepted. */
static SigNode *nodeget_locked(int sig)
{
	if (!sigs.free)
		grow_locked();
	SigNode *n = sigs.free;
	if (!n || (sig >= SIGRTMIN && sigs.nqueued >= sigs.bound && !issysmon))
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

/* Where the run of sig begins in th's queue, or would. */
static SigNode **runof(Thread *th, int sig)
{
	SigNode **p = &th->queue;
	while (*p && (*p)->info.si_signo < sig)
		p = &(*p)->others;
	return p;
}

static void insert_locked(Thread *th, SigNode *n)
{
	int sig = n->info.si_signo;
	SigNode **p = runof(th, sig), *first = *p;
	n->next = NULL;
	if (first && first->info.si_signo == sig) {
		first->last->next = n;
		first->last = n;
		return;
	}
	n->last = n;
	n->others = first;
	*p = n;
	atomic_fetch_or(&th->pending, BIT(sig));
}

/* The first of th's queue that is in `set`. */
static SigNode *firstof(Thread *th, uint64_t set)
{
	SigNode *n = th->queue;
	while (n && !(set & BIT(n->info.si_signo)))
		n = n->others;
	return n;
}

/* Takes it. */
static bool pop_locked(Thread *th, uint64_t set, siginfo_t *info)
{
	SigNode *n = firstof(th, set);
	if (!n)
		return false;
	SigNode **p = runof(th, n->info.si_signo);
	*info = n->info;
	if (n->next) {
		n->next->last = n->last;
		n->next->others = n->others;
		*p = n->next;
	} else {
		*p = n->others;
		atomic_fetch_and(&th->pending, ~BIT(info->si_signo));
	}
	nodeput_locked(n);
	return true;
}

/* Does one in th's queue stand for what is to be queued as well? */
static bool standsfor_locked(Thread *th, const siginfo_t *info)
{
	int sig = info->si_signo;
	if (!(atomic_load(&th->pending) & BIT(sig)))
		return false;
	SigNode *n = info->si_code == SI_TIMER ? *runof(th, sig) : NULL;
	while (n && (n->info.si_code != SI_TIMER || n->info.si_timerid != info->si_timerid))
		n = n->next;
	if (!n)
		return sig < SIGRTMIN;
	int64_t sum = 1ll + n->info.si_overrun + info->si_overrun;
	n->info.si_overrun = sum > INT32_MAX ? INT32_MAX : (int)sum;
	return true;
}

static void drop_locked(Thread *th, uint64_t set)
{
	siginfo_t info;
	while (pop_locked(th, set, &info))
		;
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

int queue(Thread *th, const siginfo_t *info, uint32_t tid)
{
	int sig = info->si_signo, r = 0;
	Section l = siglock();
	if (th->exiting || (tid && th->tid != tid)) {
		sigunlock(l);
		return tid ? ESRCH : 0;
	}
	if (!standsfor_locked(th, info)) {
		SigNode *n = nodeget_locked(sig);
		if (n) {
			n->info = *info;
			insert_locked(th, n);
		} else {
			r = EAGAIN;
		}
	}
	G *gp = th->gp;
	bool open = takes(th, BIT(sig));
	sigunlock(l);
	if (gp && open)
		ginterrupt(gp);
	return r;
}

int post(Thread *th, const siginfo_t *info)
{
	return queue(th, info, 0);
}

/* Takes one of `set` from th's queue, or of `shared` from the process's. */
static bool takeof(Thread *th, uint64_t set, uint64_t shared, siginfo_t *info)
{
	Section l = siglock();
	bool r = pop_locked(th, set, info) || pop_locked(&process, shared, info);
	/* Another has taken the rest. */
	atomic_fetch_and(&th->told, atomic_load(&process.pending));
	sigunlock(l);
	if (r)
		notetimer(info);
	return r;
}

bool take(Thread *th, uint64_t set, siginfo_t *info)
{
	uint64_t told = atomic_load(&th->told);
	return ((atomic_load_explicit(&th->pending, memory_order_acquire) | told) & set) &&
	       takeof(th, set, told & set, info);
}

bool takeasked(Thread *th, uint64_t set, siginfo_t *info)
{
	return ((atomic_load(&th->pending) | atomic_load(&process.pending)) & set) &&
	       takeof(th, set, set, info);
}

bool giveshared(uint64_t set, bool (*give)(const siginfo_t *info))
{
	siginfo_t info;
	Section l = siglock();
	SigNode *n = firstof(&process, set);
	bool given = n && give(&n->info);
	if (given)
		pop_locked(&process, set, &info);
	sigunlock(l);
	return given;
}

void dropall_locked(Thread *th)
{
	drop_locked(th, ~0ull);
}
