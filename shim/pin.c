/*
 * pin.c - what the kernel keeps for a thread: affinity, scheduling class, nice
 * value, namespaces, capabilities, ...
 *
 * A goroutine has none of it; its M has. One that sets such a thing is wired
 * to its M from then on, and the M, which others must not meet, ends
 * with it: so the thread has what it asked for, and it alone; those that it makes get
 * Ms made by its own, and so what the kernel lets threads inherit. When the state is again as
 * all have it, where that can be seen, or setting it failed, the goroutine goes free. One whose
 * state another sets is wired by that one, while the world stands still (core/wire.c). Reading answers for
 * the caller's own kernel thread, which all that are not wired are like.
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

unsigned pin(unsigned why)
{
	Thread *th = curthread();
	if (!th)
		return 0;
	unsigned had = th->pinned;
	if (!had) {
		avoidmain();
		lockOSThreadForever();
		th->ktid = (int)sys0(SYS_gettid);
	}
	th->pinned = had | why;
	return why & ~had;
}

/* Has the kernel thread of the caller class, nice value and affinity of those that are not wired? */
static bool asothers(void)
{
	enum { ATTR = 56 }; /* struct sched_attr */
	char mine[ATTR] = "", others[ATTR] = "";
	cpu_set_t a, b;
	int other = cleanthread();
	memset(&a, 0, sizeof a);
	memset(&b, 0, sizeof b);
	return sys4(SYS_sched_getattr, 0, (long)mine, ATTR, 0) == 0 &&
	       sys4(SYS_sched_getattr, other, (long)others, ATTR, 0) == 0 &&
	       memcmp(mine, others, ATTR) == 0 &&
	       sys3(SYS_sched_getaffinity, 0, sizeof a, (long)&a) > 0 &&
	       sys3(SYS_sched_getaffinity, other, sizeof b, (long)&b) > 0 && CPU_EQUAL(&a, &b);
}

void unpin(unsigned why)
{
	Thread *th = curthread();
	if (!th || !(th->pinned & why))
		return;
	th->pinned &= ~why;
	/* Another thread may have set something that this one has no reason for. */
	if (!th->pinned && !asothers())
		th->pinned = PinSched;
	if (!th->pinned)
		unlockOSThreadForever();
}

void settle(void)
{
	unpin(PinSched);
}

long changes(unsigned why, long nr, const long *a)
{
	unsigned new = pin(why);
	long r = sys6(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (r < 0)
		unpin(new);
	return r;
}

#define CHANGES(why, nr, ...) errnoret(changes(why, nr, (const long[6]){__VA_ARGS__}))

struct other {
	Thread *th;
	unsigned why;
};

static void wired(void *arg, int tid)
{
	struct other *o = arg;
	o->th->ktid = tid;
	o->th->pinned |= o->why;
}

int pinthread(Thread *th, unsigned why)
{
	struct other o = {th, why};
	G *gp;
	if (th == curthread()) {
		pin(why);
		return 0;
	}
	if (th->pinned)
		return 0;
	if (!getg()) {
		warn("state of another thread, set by a foreign one: not supported, ENOSYS");
		return ENOSYS;
	}
	/* It is known when it has run. */
	while (!(gp = atomic_load((G * _Atomic *)&th->gp))) {
		if (atomic_load(&th->state) & ThreadExited)
			return ESRCH;
		gosleep(nanotime() + 50000, 0);
	}
	return -lockOSThreadOther(gp, th, wired, &o);
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

/* The call, which sets something for the thread *tid: 0 or a tid of the program's. */
static long sets(unsigned why, long nr, long *a, long *tid)
{
	int k = ktidof((pid_t)*tid);
	Thread *th = curthread();
	if (k == NONE) {
		Thread *other = threadwithtid((uint32_t)*tid);
		int err = other ? pinthread(other, why) : ESRCH;
		if (err)
			return -err;
		k = other->ktid;
	}
	*tid = k;
	if (!th || (k && k != th->ktid))
		return sys6(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	*tid = 0;
	long r = changes(why, nr, a);
	settle();
	return r;
}

SHIM(int, sched_setaffinity, pid_t tid, size_t n, const cpu_set_t *set)
{
	long a[6] = {tid, (long)n, (long)set};
	return (int)errnoret(sets(PinSched, SYS_sched_setaffinity, a, &a[0]));
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
	long a[6] = {tid, policy, (long)param};
	return (int)errnoret(sets(PinSched, SYS_sched_setscheduler, a, &a[0]));
}

SHIM(int, sched_getscheduler, pid_t tid)
{
	return real.sched_getscheduler(readable(tid));
}

SHIM(int, sched_setparam, pid_t tid, const struct sched_param *param)
{
	long a[6] = {tid, (long)param};
	return (int)errnoret(sets(PinSched, SYS_sched_setparam, a, &a[0]));
}

SHIM(int, sched_getparam, pid_t tid, struct sched_param *param)
{
	return real.sched_getparam(readable(tid), param);
}

SHIM(int, sched_rr_get_interval, pid_t tid, struct timespec *ts)
{
	return real.sched_rr_get_interval(readable(tid), ts);
}

SHIM(int, setpriority, __priority_which_t which, id_t who, int prio)
{
	long a[6] = {which, (pid_t)who, prio};
	if (which != PRIO_PROCESS)
		return real.setpriority(which, who, prio);
	return (int)errnoret(sets(PinSched, SYS_setpriority, a, &a[1]));
}

SHIM(int, getpriority, __priority_which_t which, id_t who)
{
	if (which == PRIO_PROCESS)
		who = (id_t)readable((pid_t)who);
	return real.getpriority(which, who);
}

SHIM(int, nice, int inc)
{
	unsigned new = pin(PinSched);
	int r = real.nice(inc);
	KEEP_ERRNO;
	unpin(new);
	return r;
}

SHIM(int, unshare, int flags)
{
	return (int)CHANGES(PinMore, SYS_unshare, flags);
}

SHIM(int, setns, int fd, int type)
{
	return (int)CHANGES(PinMore, SYS_setns, fd, type);
}

/* These tell what it was, and know no failure: an id that is none only asks. */
SHIM(int, setfsuid, uid_t u)
{
	return (int)CHANGES(u == (uid_t)-1 ? 0 : PinMore, SYS_setfsuid, u);
}

SHIM(int, setfsgid, gid_t g)
{
	return (int)CHANGES(g == (gid_t)-1 ? 0 : PinMore, SYS_setfsgid, g);
}

SHIM(int, personality, unsigned long p)
{
	return (int)CHANGES(p == 0xffffffff ? 0 : PinMore, SYS_personality, (long)p);
}

/* The header names a thread by its id, which is the kernel's then; and tells of the version it knows. */
static long capcall(unsigned why, long nr, cap_user_header_t header, const void *data)
{
	struct __user_cap_header_struct h = *header;
	if (h.pid > 0)
		h.pid = readable(h.pid);
	long r = CHANGES(why, nr, (long)&h, (long)data);
	header->version = h.version;
	return r;
}

SHIM(int, capget, cap_user_header_t header, cap_user_data_t data)
{
	return (int)capcall(0, SYS_capget, header, data);
}

SHIM(int, capset, cap_user_header_t header, const cap_user_data_t data)
{
	if (getg() && ktidof(header->pid) == NONE)
		return (int)errnoret(-EPERM); /* one's own alone can be set */
	return (int)capcall(PinMore, SYS_capset, header, data);
}

SHIM(int, ioperm, unsigned long from, unsigned long num, int on)
{
	return (int)CHANGES(PinMore, SYS_ioperm, (long)from, (long)num, on);
}

SHIM(int, iopl, int level)
{
	return (int)CHANGES(PinMore, SYS_iopl, level);
}

/* The segment base that is not libc's, and faults by cpuid. */
static bool archofthread(long kind)
{
	enum { ARCH_SET_GS = 0x1001, ARCH_SET_CPUID = 0x1012 };
	return kind == ARCH_SET_GS || kind == ARCH_SET_CPUID;
}

SHIM(int, arch_prctl, int kind, unsigned long addr)
{
	return (int)CHANGES(archofthread(kind) ? PinMore : 0, SYS_arch_prctl, kind, (long)addr);
}

/* Why a thread has to be wired that has the kernel do this kind of prctl; 0: no reason. */
static unsigned prctlwires(int kind)
{
	switch (kind) {
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
	case PR_CAP_AMBIENT:
	case PR_SET_SPECULATION_CTRL:
	case PR_SET_IO_FLUSHER:
	case PR_SCHED_CORE: return PinMore;
	case PR_SET_PDEATHSIG:
	case PR_SET_SYSCALL_USER_DISPATCH: return PinSelf;
	/* Once is for ever. */
	case PR_SET_NO_NEW_PRIVS:
		return sys5(SYS_prctl, PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) ? 0 : PinPrivs;
	}
	return 0;
}

SHIM(int, prctl, int kind, ...)
{
	PRCTLARGUMENTS(a, kind);
	Thread *th = curthread();
	/* A goroutine's name is its own. */
	if (th && (kind == PR_SET_NAME || kind == PR_GET_NAME)) {
		char name[16] = "";
		if (kind == PR_GET_NAME) {
			shim_pthread_getname_np((pthread_t)th->block, (char *)a[0], sizeof name);
			return 0;
		}
		strncpy(name, (const char *)a[0], sizeof name - 1);
		memcpy(th->name, name, sizeof name);
		gname(getg(), name);
		if (th->ismain)
			nameprocess(name);
		return 0;
	}
	unsigned new = th ? prctlwires(kind) : 0;
	if (new)
		new = pin(new);
	if (th && kind == PR_SET_TSC)
		avoidtsc();
	if (kind == PR_SET_SECCOMP)
		metricscomplete();
	int r = real.prctl(kind, a[0], a[1], a[2], a[3]);
	KEEP_ERRNO;
	if (r < 0)
		unpin(new);
	return r;
}

/* --- by syscall() ------------------------------------------------------------------- */

/* Credentials have three keyrings, and where new keys go. */
static unsigned keyctlwires(const long *a)
{
	enum { GetKeyring = 0, JoinSession = 1, SetDefault = 14, ToParent = 18 };
	switch (a[0]) {
	case GetKeyring: return a[2] ? PinMore : 0; /* made if it isn't there */
	case SetDefault: return (int)a[1] == -1 ? 0 : PinMore;
	case JoinSession:
	case ToParent: return PinMore;
	}
	return 0;
}

static bool ownkeyring(long id)
{
	enum { Thread = -1, Process = -2 };
	return (int)id == Thread || (int)id == Process;
}

static long perfevent(long *a)
{
	enum { Inherit = 2, Flags = 5 };
	/* struct perf_event_attr: its bit fields are the sixth word. */
	const uint64_t *attr = (const uint64_t *)a[0];
	unsigned why = attr && attr[Flags] & Inherit ? PinMore : PinSelf;
	if ((int)a[1] < 0)
		return sys5(SYS_perf_event_open, a[0], a[1], a[2], a[3], a[4]);
	return sets(why, SYS_perf_event_open, a, &a[1]);
}

/* A ring may be of one kernel thread's: of the one that makes or enables it, and by numbers that
 * are registered. */
static unsigned ringwires(long nr, const long *a)
{
	enum { SingleIssuer = 1 << 12, EnableRings = 12, RingFds = 20, Flags = 2 };
	if (nr == SYS_io_uring_setup)
		return a[1] && ((const uint32_t *)a[1])[Flags] & SingleIssuer ? PinSelf : 0;
	return a[1] == EnableRings || a[1] == RingFds ? PinSelf : 0;
}

/* Why the caller has to be wired for the system call. */
static unsigned callwires(long nr, const long *a)
{
	enum { LandlockRestrictSelf = 446 };
	switch (nr) {
	/* libc's functions of these names set the process's; the call the thread's. */
	case SYS_setuid:
	case SYS_setgid:
	case SYS_setreuid:
	case SYS_setregid:
	case SYS_setresuid:
	case SYS_setresgid:
	case SYS_setgroups:
	case SYS_unshare:
	case SYS_setns:
	case SYS_set_mempolicy:
	case SYS_ioperm:
	case SYS_iopl:
	case LandlockRestrictSelf: return PinMore;
	case SYS_setfsuid:
	case SYS_setfsgid: return (int)a[0] == -1 ? 0 : PinMore;
	case SYS_personality: return (uint32_t)a[0] == 0xffffffff ? 0 : PinMore;
	case SYS_arch_prctl: return archofthread(a[0]) ? PinMore : 0;
	case SYS_keyctl: return keyctlwires(a);
	case SYS_add_key: return ownkeyring(a[4]) ? PinMore : 0;
	case SYS_request_key: return ownkeyring(a[3]) ? PinMore : 0;
	case SYS_io_uring_setup:
	case SYS_io_uring_register: return ringwires(nr, a);
	case SYS_set_robust_list:
	case SYS_rseq: return PinSelf;
	}
	return 0;
}

bool pincall(long nr, long *a, long *r)
{
	enum { IoprioProcess = 1 };

	switch (nr) {
	case SYS_sched_setaffinity: *r = sets(PinSched, nr, a, &a[0]); return true;
	case SYS_sched_setscheduler: *r = sets(PinSched, nr, a, &a[0]); return true;
	case SYS_sched_setparam: *r = sets(PinSched, nr, a, &a[0]); return true;
	case SYS_sched_setattr: *r = sets(PinSched, nr, a, &a[0]); return true;
	case SYS_setpriority:
		if (a[0] != PRIO_PROCESS)
			return false;
		*r = sets(PinSched, nr, a, &a[1]);
		return true;
	case SYS_ioprio_set:
		if (a[0] != IoprioProcess)
			return false;
		*r = sets(PinMore, nr, a, &a[1]);
		return true;
	case SYS_perf_event_open: *r = perfevent(a); return true;
	case SYS_ptrace: *r = trace(a); return true;
	case SYS_seccomp: *r = seccomp(a); return true;
	case SYS_sched_getaffinity:
	case SYS_sched_getscheduler:
	case SYS_sched_getparam:
	case SYS_sched_getattr:
	case SYS_sched_rr_get_interval: a[0] = readable((pid_t)a[0]); return false;
	case SYS_getpriority:
		if (a[0] == PRIO_PROCESS)
			a[1] = readable((pid_t)a[1]);
		return false;
	case SYS_ioprio_get:
		if (a[0] == IoprioProcess)
			a[1] = readable((pid_t)a[1]);
		return false;
	}
	unsigned why = callwires(nr, a);
	if (why)
		*r = changes(why, nr, a);
	return why != 0;
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
	Thread *th = curthread();
	long r = 0;
	if (b->pinned) {
		th->ktid = (int)sys0(SYS_gettid);
		th->pinned = b->pinned;
	}
	if (w->any)
		pin(PinSched);
	if (w->hasaffinity)
		r = sys3(SYS_sched_setaffinity, 0, sizeof w->affinity, (long)&w->affinity);
	if (r >= 0 && (w->hassched || (w->explicit && b->pinned)))
		r = sys3(SYS_sched_setscheduler, 0, w->policy, (long)&w->param);
	settle();
	b->result = r < 0 ? (int)r : 1;
	if (r < 0)
		return false;
	th->birth = NULL;
	birthdone(b);
	return true;
}

void birthdone(Birth *b)
{
	const void *addr = &b->done;
	atomic_store(&b->done, b->result); /* b may be gone after that */
	semaready(addr, 1, NULL, NULL, NULL, 0);
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
	Thread *th = curthread();
	char *head = (char *)th->block + tls.robusthead;
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
	if (tail == (uintptr_t *)own && !th->inheriting)
		return;
	if (sys0(SYS_gettid) == sys0(SYS_getpid))
		atomic_store(&mainended, forkgen);
	th->endtid = (int)sys0(SYS_gettid);
	th->ends = &TLSFIELD(mblock(), _Atomic int, tls.tid);
	endOSThread();
}
