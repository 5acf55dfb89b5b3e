/*
 * pin.c - what the kernel keeps for a thread: affinity, scheduling class, nice
 * value, namespaces, capabilities, ...
 *
 * A goroutine has none of it; its M has. One that sets such a thing is wired
 * to its M from then on, and the M, which others must not meet, ends
 * with it: so the thread has what it asked for, and it alone. Only the goroutine itself
 * can do that: to set it for another thread is answered ENOSYS, with one line,
 * unless that one is wired already. Reading answers for the caller's
 * own kernel thread, which all that are not wired are like.
 */
#include "pin.h"
#include "sched.h"
#include "sync.h"

#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>

void avoidmain(void)
{
	Thread *th = curthread();
	if (th && !th->ismain)
		leavemain();
}

void pin(void)
{
	Thread *th = curthread();
	if (!th || th->pinned)
		return;
	avoidmain();
	lockOSThreadForever();
	th->ktid = (int)sys0(SYS_gettid);
	th->pinned = true;
}

int refusepin(const char *what)
{
	static _Atomic bool said;
	if (!atomic_exchange(&said, true))
		warn("%s for another thread: not supported, ENOSYS", what);
	return ENOSYS;
}

struct bytid {
	uint32_t tid;
	int ktid;
	bool found;
};

static bool tidis(Thread *th, void *arg)
{
	struct bytid *b = arg;
	if (th->tid != b->tid)
		return true;
	b->found = true;
	b->ktid = th->pinned ? th->ktid : 0;
	return false;
}

/*
 * Which kernel thread a tid of the program's means: 0 the caller's own. NONE: a
 * goroutine's that is not wired, and not the caller.
 */
enum { NONE = INT_MAX };

static int ktidof(pid_t tid)
{
	struct bytid b = {.tid = (uint32_t)tid};
	if (!getg() || tid == 0)
		return tid;
	threadseach(tidis, &b);
	if (!b.found)
		return tid; /* another process, or a foreign thread */
	if (b.ktid)
		return b.ktid;
	return curthread()->tid == (uint32_t)tid ? 0 : NONE;
}

/* For a call that reads. */
static int readable(pid_t tid)
{
	int k = ktidof(tid);
	return k == NONE ? 0 : k;
}

/* For a call that sets: translates *tid; the caller is pinned if it means itself. False, and errno. */
static bool settable(pid_t *tid, const char *what)
{
	int k = ktidof(*tid);
	if (k == NONE) {
		errno = refusepin(what);
		return false;
	}
	if (k == 0 && getg())
		pin();
	*tid = k;
	return true;
}

SHIM(int, sched_setaffinity, pid_t tid, size_t n, const cpu_set_t *set)
{
	if (!settable(&tid, "sched_setaffinity"))
		return -1;
	return (int)errnoret(sys3(SYS_sched_setaffinity, tid, (long)n, (long)set));
}

SHIM(int, sched_getaffinity, pid_t tid, size_t n, cpu_set_t *set)
{
	return real.sched_getaffinity(readable(tid), n, set);
}

SHIM(int, sched_setaffinity_old, pid_t tid, cpu_set_t *set)
{
	return shim_sched_setaffinity(tid, sizeof *set, set);
}

SHIM(int, sched_getaffinity_old, pid_t tid, cpu_set_t *set)
{
	return real.sched_getaffinity_old(readable(tid), set);
}

SHIM(int, sched_setscheduler, pid_t tid, int policy, const struct sched_param *param)
{
	return settable(&tid, "sched_setscheduler") ? real.sched_setscheduler(tid, policy, param)
						    : -1;
}

SHIM(int, sched_getscheduler, pid_t tid)
{
	return real.sched_getscheduler(readable(tid));
}

SHIM(int, sched_setparam, pid_t tid, const struct sched_param *param)
{
	return settable(&tid, "sched_setparam") ? real.sched_setparam(tid, param) : -1;
}

SHIM(int, sched_getparam, pid_t tid, struct sched_param *param)
{
	return real.sched_getparam(readable(tid), param);
}

SHIM(int, setpriority, __priority_which_t which, id_t who, int prio)
{
	if (which == PRIO_PROCESS) {
		pid_t tid = (pid_t)who;
		if (!settable(&tid, "setpriority"))
			return -1;
		who = (id_t)tid;
	}
	return real.setpriority(which, who, prio);
}

SHIM(int, getpriority, __priority_which_t which, id_t who)
{
	if (which == PRIO_PROCESS)
		who = (id_t)readable((pid_t)who);
	return real.getpriority(which, who);
}

SHIM(int, nice, int inc)
{
	pin();
	return real.nice(inc);
}

SHIM(int, unshare, int flags)
{
	pin();
	return real.unshare(flags);
}

SHIM(int, setns, int fd, int type)
{
	pin();
	return real.setns(fd, type);
}

SHIM(int, setfsuid, uid_t u)
{
	pin();
	return real.setfsuid(u);
}

SHIM(int, setfsgid, gid_t g)
{
	pin();
	return real.setfsgid(g);
}

SHIM(int, personality, unsigned long p)
{
	if (p != 0xffffffff)
		pin();
	return real.personality(p);
}

SHIM(long, ptrace, enum __ptrace_request request, ...)
{
	long a[3];
	va_list ap;
	va_start(ap, request);
	for (int i = 0; i < 3; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	pin(); /* the tracer is a kernel thread */
	return real.ptrace(request, a[0], a[1], a[2]);
}

/* Of prctl's kinds these set something of the calling kernel thread. */
static bool ofthread(int kind)
{
	switch (kind) {
	case PR_SET_PDEATHSIG:
	case PR_SET_UNALIGN:
	case PR_SET_FPEMU:
	case PR_SET_FPEXC:
	case PR_SET_TIMING:
	case PR_SET_KEEPCAPS:
	case PR_SET_SECCOMP:
	case PR_CAPBSET_DROP:
	case PR_SET_TSC:
	case PR_SET_SECUREBITS:
	case PR_SET_TIMERSLACK:
	case PR_MCE_KILL:
	case PR_SET_NO_NEW_PRIVS:
	case PR_CAP_AMBIENT:
	case PR_SET_SPECULATION_CTRL:
	case PR_SET_IO_FLUSHER:
	case PR_SET_SYSCALL_USER_DISPATCH: return true;
	}
	return false;
}

SHIM(int, prctl, int kind, ...)
{
	unsigned long a[4];
	va_list ap;
	va_start(ap, kind);
	for (int i = 0; i < 4; i++)
		a[i] = va_arg(ap, unsigned long);
	va_end(ap);
	Thread *th = curthread();
	/* A goroutine's name is its own; main's is the process's. */
	if (th && !th->ismain && (kind == PR_SET_NAME || kind == PR_GET_NAME)) {
		char name[16] = "";
		if (kind == PR_GET_NAME) {
			shim_pthread_getname_np((pthread_t)th->block, (char *)a[0], sizeof name);
			return 0;
		}
		strncpy(name, (const char *)a[0], sizeof name - 1);
		memcpy(th->name, name, sizeof name);
		return 0;
	}
	if (th && ofthread(kind))
		pin();
	int r = real.prctl(kind, a[0], a[1], a[2], a[3]);
	if (th && r == 0 && kind == PR_SET_NAME)
		strncpy(th->name, (const char *)a[0], sizeof th->name - 1);
	return r;
}

/* --- by syscall() ------------------------------------------------------------------- */

static int settid(long *arg, const char *what)
{
	pid_t tid = (pid_t)*arg;
	if (!settable(&tid, what))
		return errno;
	*arg = tid;
	return 0;
}

int pincall(long nr, long *a)
{
	enum { IoprioProcess = 1, LandlockRestrictSelf = 446 };

	switch (nr) {
	case SYS_sched_setaffinity: return settid(&a[0], "sched_setaffinity");
	case SYS_sched_setscheduler: return settid(&a[0], "sched_setscheduler");
	case SYS_sched_setparam: return settid(&a[0], "sched_setparam");
	case SYS_sched_setattr: return settid(&a[0], "sched_setattr");
	case SYS_setpriority: return a[0] == PRIO_PROCESS ? settid(&a[1], "setpriority") : 0;
	case SYS_ioprio_set: return a[0] == IoprioProcess ? settid(&a[1], "ioprio_set") : 0;
	case SYS_sched_getaffinity:
	case SYS_sched_getscheduler:
	case SYS_sched_getparam:
	case SYS_sched_getattr:
	case SYS_sched_rr_get_interval: a[0] = readable((pid_t)a[0]); return 0;
	case SYS_getpriority:
		if (a[0] == PRIO_PROCESS)
			a[1] = readable((pid_t)a[1]);
		return 0;
	case SYS_ioprio_get:
		if (a[0] == IoprioProcess)
			a[1] = readable((pid_t)a[1]);
		return 0;
	case SYS_perf_event_open:
		if (a[1] >= 0)
			return settid(&a[1], "perf_event_open");
		return 0;
	/* libc's functions of these names set the process's; the call the thread's. */
	case SYS_setuid:
	case SYS_setgid:
	case SYS_setreuid:
	case SYS_setregid:
	case SYS_setresuid:
	case SYS_setresgid:
	case SYS_setgroups:
	case SYS_setfsuid:
	case SYS_setfsgid:
	case SYS_capset:
	case SYS_unshare:
	case SYS_setns:
	case SYS_personality:
	case SYS_seccomp:
	case SYS_set_robust_list:
	case LandlockRestrictSelf: pin(); return 0;
	}
	return 0;
}

/* --- from the start ---------------------------------------------------------------- */

void kernelwish(KernelWish *w, const pthread_attr_t *attr)
{
	int inherit = PTHREAD_INHERIT_SCHED;
	memset(w, 0, sizeof *w);
	/* None set reads as all ones. */
	if (pthread_attr_getaffinity_np(attr, sizeof w->affinity, &w->affinity) == 0) {
		const unsigned char *p = (const unsigned char *)&w->affinity;
		for (size_t i = 0; i < sizeof w->affinity; i++)
			w->hasaffinity |= p[i] != 0xff;
	}
	pthread_attr_getinheritsched(attr, &inherit);
	w->explicit = inherit == PTHREAD_EXPLICIT_SCHED;
	if (w->explicit) {
		pthread_attr_getschedpolicy(attr, &w->policy);
		pthread_attr_getschedparam(attr, &w->param);
		w->hassched = w->policy != SCHED_OTHER || w->param.sched_priority != 0;
	}
	w->any = w->hasaffinity || w->hassched;
}

void inheritwish(Birth *b, Thread *creator)
{
	KernelWish *w = &b->inherited;
	*w = *b->wish;
	b->wish = w;
	if (!creator || !creator->pinned)
		return;
	long n = w->hasaffinity
		     ? 0
		     : sys3(SYS_sched_getaffinity, 0, sizeof w->affinity, (long)&w->affinity);
	if (n > 0) {
		memset((char *)&w->affinity + n, 0, sizeof w->affinity - (size_t)n);
		w->hasaffinity = true;
	}
	if (!w->hassched) {
		w->policy = (int)sys1(SYS_sched_getscheduler, 0);
		sys2(SYS_sched_getparam, 0, (long)&w->param);
		w->hassched = w->policy != SCHED_OTHER;
	}
	errno = 0;
	b->nice = real.getpriority(PRIO_PROCESS, 0);
	b->hasnice = b->nice != 0;
}

static bool unborn(void *arg)
{
	return atomic_load(&((Birth *)arg)->done) == 0;
}

int awaitbirth(Birth *b)
{
	while (unborn(b))
		semapark(&b->done, unborn, NULL, b, 0, WaitThread, FOREVER, 0);
	int done = atomic_load(&b->done);
	return done < 0 ? -done : 0;
}

bool bear(Birth *b)
{
	const KernelWish *w = b->wish;
	long r = 0;
	pin();
	if (w->hasaffinity)
		r = sys3(SYS_sched_setaffinity, 0, sizeof w->affinity, (long)&w->affinity);
	if (r >= 0 && w->hassched)
		r = sys3(SYS_sched_setscheduler, 0, w->policy, (long)&w->param);
	if (r >= 0 && b->hasnice)
		real.setpriority(PRIO_PROCESS, 0, b->nice);
	curthread()->birth = NULL;
	const void *addr = &b->done;
	atomic_store(&b->done, r < 0 ? (int)r : 1); /* b may be gone after that */
	semaready(addr, 1, NULL, NULL, NULL, 0);
	return r >= 0;
}

/* --- robust mutexes ------------------------------------------------------------------ */

enum { WAITERS = 0x80000000u, DIED = 0x40000000u, TIDMASK = 0x3fffffff };

/* Tells the next owner of a mutex that the caller died. False: it has waiters in the
 * kernel that inherit priority, and those the kernel alone can tell. */
static bool ownerdied(_Atomic uint32_t *word, bool inherits)
{
	uint32_t v = atomic_load(word);
	do {
		if ((v & TIDMASK) != (uint32_t)sys0(SYS_gettid))
			return true;
		if (inherits && (v & WAITERS))
			return false;
	} while (!atomic_compare_exchange_weak(word, &v, (v & WAITERS) | DIED));
	if (v & WAITERS)
		sys3(SYS_futex, (long)word, 1 /* WAKE, shared */, 1);
	return true;
}

_Atomic uint32_t mainended;

/*
 * What the kernel does at a thread's end with its robust list; the kernel thread lives
 * on. The list is of the kernel's ABI: links, and the distance from a link to its
 * futex word. Bit 0 of a link marks a priority-inheriting one. Those that the
 * kernel has to give up become the list of the kernel thread's own block, and it ends
 * with its goroutine, whose block will be another's by then.
 */
void robustexit(void)
{
	char *head = (char *)curthread()->block + tls.robusthead;
	char *own = (char *)mblock() + tls.robusthead;
	long offset = TLSFIELD(head, long, 8);
	uintptr_t link = TLSFIELD(head, uintptr_t, 0);
	uintptr_t *tail = (uintptr_t *)own;
	for (int i = 0; (link & ~1ul) != (uintptr_t)head && i < 1 << 20; i++) {
		uintptr_t *node = (uintptr_t *)(link & ~1ul);
		uintptr_t next = *node; /* who owns it next links it anew */
		if (!ownerdied((_Atomic uint32_t *)((char *)node + offset), link & 1)) {
			*tail = link;
			tail = node;
		}
		link = next;
	}
	*tail = (uintptr_t)own;
	TLSFIELD(own, long, 8) = offset;
	TLSFIELD(head, void *, 0) = head;
	sys2(SYS_set_robust_list, (long)own, 24);
	if (tail == (uintptr_t *)own)
		return;
	if (sys0(SYS_gettid) == sys0(SYS_getpid))
		atomic_store(&mainended, forkgen);
	endOSThread();
}
