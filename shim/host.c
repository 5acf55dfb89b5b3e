/*
 * host.c - what the scheduler asks of libc and of the program (core/host.h),
 * and the start.
 *
 * The scheduler starts with the first thread that the program makes. Until
 * then the process is as it would be without us. The order at the start:
 * a real thread is made (the template, from which all Ms will be made); its
 * block is compared with what tlsprobe.c knows of glibc; the calling thread becomes
 * M0 and its code goroutine 1; the program's signal actions are taken over;
 * sysmon starts. If anything doesn't fit, the process goes on with kernel
 * threads: the objects of shim/ work for those too.
 */
#include "../core/host.h"
#include "cancel.h"
#include "dump.h"
#include "sched.h"
#include "signal.h"
#include "sync.h"
#include "thread.h"
#include "unwind.h"

#include <dlfcn.h>
#include <gnu/libc-version.h>
#include <stdatomic.h>
#include <sys/auxv.h>
#include <linux/membarrier.h>
#include <sys/prctl.h>

void threadmaininit(uintptr_t lo, uintptr_t hi);
void rtsettings(void);
void forkinit(void);

enum { MSTACK = 256 << 10 };

/* --- text that must not lose the processor ------------------------------------------- */

static struct {
	uintptr_t lo, hi;
} unsafe[16];
static int nunsafe;
static uintptr_t ownlo, ownhi;

bool owntext(uintptr_t pc)
{
	return pc >= ownlo && pc < ownhi;
}

bool unsafepc(uintptr_t pc)
{
	for (int i = 0; i < nunsafe; i++)
		if (pc >= unsafe[i].lo && pc < unsafe[i].hi)
			return true;
	return false;
}

/*
 * Notes the executable segments of libc, ld.so, the vdso, the owner of malloc, and us.
 * &malloc won't do for its owner: in a program that isn't position-independent and takes
 * that address (python3, node) it is the program's PLT entry for every object.
 */
static int notetext(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	uintptr_t *known = arg; /* addresses, 0-terminated; the first is our own */
	uintptr_t lo = 0, hi = 0;
	bool own = false, wanted = false;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		uintptr_t at = info->dlpi_addr + ph->p_vaddr;
		if (ph->p_type != PT_LOAD)
			continue;
		if (ph->p_flags & PF_X) {
			lo = at;
			hi = at + ph->p_memsz;
		}
		for (int k = 0; known[k]; k++) {
			if (known[k] < at || known[k] >= at + ph->p_memsz)
				continue;
			wanted = true;
			own |= k == 0;
		}
	}
	if (own) {
		ownlo = lo;
		ownhi = hi;
	}
	if (wanted && lo && nunsafe < (int)nelem(unsafe)) {
		unsafe[nunsafe].lo = lo;
		unsafe[nunsafe++].hi = hi;
	}
	return 0;
}

void notetexts(void)
{
	uintptr_t known[] = {(uintptr_t)&notetext,
			     (uintptr_t)libcsym("gnu_get_libc_version", NULL),
			     (uintptr_t)libcsym("_dl_allocate_tls", "GLIBC_PRIVATE"),
			     (uintptr_t)firstdefinition("malloc"),
			     getauxval(AT_SYSINFO_EHDR),
			     0};
	nunsafe = 0;
	real.dl_iterate_phdr(notetext, known);
}

/* --- kernel threads ----------------------------------------------------------------------- */

static char comm[16]; /* the program's name, as the kernel has it */

/*
 * A kernel thread of the runtime, at the end of its stack. Both outlive it: the next one has them once
 * the kernel has cleared its id in libc's block, which lies on the same stack.
 */
typedef struct KThread KThread;
struct KThread {
	_Atomic bool ended;
	_Atomic int tid;   /* 0: not begun, or about to end */
	_Atomic int *ktid; /* libc's; NULL: there has been none */
	uintptr_t lo;
	KThread *next;
};
enum { KTHREAD = 64 };
_Static_assert(sizeof(KThread) <= KTHREAD, "room at the end of the stack");
static KThread *_Atomic kthreads; /* only ever added to */

void eachkernelthread(void (*fn)(int tid))
{
	fn((int)sys0(SYS_getpid));
	for (KThread *k = atomic_load(&kthreads); k; k = k->next)
		if (atomic_load(&k->tid))
			fn(atomic_load(&k->tid));
}

bool unbornthreads(void)
{
	for (KThread *k = atomic_load(&kthreads); k; k = k->next)
		if (!atomic_load(&k->ended) && !atomic_load(&k->tid))
			return true;
	return false;
}

static bool claim(KThread *k)
{
	bool ended = true;
	return atomic_load(&k->ended) && !(k->ktid && atomic_load(k->ktid)) &&
	       atomic_compare_exchange_strong(&k->ended, &ended, false);
}

/* For a new thread; NULL: out of memory. */
static KThread *newkthread(void)
{
	Stack st;
	KThread *k = atomic_load(&kthreads);
	while (k && !claim(k))
		k = k->next;
	if (k) {
		k->ktid = NULL;
		return k;
	}
	/* libc puts block and static TLS on top of the stack. */
	Section s = sectionenter();
	int r = stackalloc(MSTACK + tlsstaticsize(), 4096, &st);
	sectionleave(s);
	if (r)
		return NULL;
	k = (KThread *)(st.hi - KTHREAD);
	memset(k, 0, sizeof *k);
	k->lo = st.lo;
	k->next = atomic_load(&kthreads);
	while (!atomic_compare_exchange_weak(&kthreads, &k->next, k))
		;
	return k;
}

/* The template shows its block to tlsprobe, then waits with sysmon's thread for the decision. */
static struct {
	_Atomic uint32_t step; /* 1: block is set; 2: go on; 3: end; 4: sysmon is ready */
	void *block;
	uintptr_t lo, hi;
	bool nosysmon; /* its thread could not be made */
	int tid;
	uint64_t pending; /* signals of the process */
} template;

static void waitstep(uint32_t atleast)
{
	uint32_t s;
	while ((s = atomic_load(&template.step)) < atleast)
		sys4(SYS_futex, (long)&template.step, 128, s, 0);
}

static void setstep(uint32_t step)
{
	atomic_store(&template.step, step);
	sys3(SYS_futex, (long)&template.step, 129, INT32_MAX);
}

int cleanthread(void)
{
	return template.tid;
}

static void sysmonthread(void *arg);

/* How a kernel thread of the runtime begins. */
typedef struct Starter {
	void (*fn)(void *);
	void *arg;
	KThread *k;
} Starter;

static void *starthread(void *p)
{
	Starter s = *(Starter *)p;
	s.k->ktid = (_Atomic int *)((char *)selfblock() + TIDOFFSET);
	if (s.fn == sysmonthread) {
		waitstep(2);
		if (atomic_load(&template.step) == 3) {
			atomic_store(&s.k->ended, true);
			return NULL;
		}
	}
	atomic_store(&s.k->tid, (int)sys0(SYS_gettid));
	sys2(SYS_prctl, PR_SET_NAME, (long)comm); /* not the template's */
	s.fn(s.arg);
	atomic_store(&s.k->tid, 0);
	atomic_store(&s.k->ended, true);
	return NULL;
}

bool runtimesthread(void *start)
{
	return start == (void *)starthread;
}

/* A real pthread on a stack of the runtime, detached; libc knows it, and so
 * that the process has threads. */
static int newthread(void (*fn)(void *), void *arg, uintptr_t *lo, uintptr_t *hi)
{
	KThread *k = newkthread();
	if (!k)
		return -EAGAIN;
	/* At the stack's far end, not malloc's: each thread would get an arena of 64 MiB. */
	Starter *st = (Starter *)k->lo;
	st->fn = fn;
	st->arg = arg;
	st->k = k;
	pthread_attr_t attr;
	pthread_t t;
	pthread_attr_init(&attr);
	*lo = k->lo;
	*hi = (uintptr_t)k;
	pthread_attr_setstack(&attr, (void *)*lo, *hi - *lo);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	int r = real.pthread_create(&t, &attr, starthread, st);
	pthread_attr_destroy(&attr);
	if (r)
		atomic_store(&k->ended, true);
	return -r;
}

/*
 * What sysmon does takes microseconds, and goroutines wait for it: its timers are exact, and the kernel is asked for a
 * short slice, as a thread with one may interrupt those with longer ones at once (Linux 6.12; refused before).
 */
static void promptly(void)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} a = {.size = sizeof a};
	enum { SLICE = 100000 /* ns, the least there is */, TIMERSLACK = 1 };

	sys2(SYS_prctl, PR_SET_TIMERSLACK, TIMERSLACK);
	if (sys4(SYS_sched_getattr, 0, (long)&a, sizeof a, 0) == 0 && a.policy == SCHED_OTHER) {
		a.runtime = SLICE;
		sys3(SYS_sched_setattr, 0, (long)&a, 0);
	}
}

static void sysmonthread(void *arg)
{
	(void)arg;
	sys2(SYS_prctl, PR_SET_NAME, (long)MONITOR);
	promptly();
	sysmonthreadinit();
	setstep(4);
	sysmon(NULL);
}

static void templatebody(void *arg)
{
	(void)arg;
	uintptr_t lo, hi;
	tlsprobethread();
	template.block = selfblock();
	template.tid = (int)sys0(SYS_gettid);
	sys2(SYS_rt_sigpending, (long)&template.pending, 8);
	template.nosysmon = newthread(sysmonthread, NULL, &lo, &hi) != 0;
	setstep(1);
	waitstep(2);
	if (atomic_load(&template.step) == 3)
		return;
	sys2(SYS_prctl, PR_SET_NAME, (long)"goshim-template");
	templatethread(NULL);
}

/* --- host.h ------------------------------------------------------------------------------------ */

static int newosproc(void (*fn)(void *), void *arg, uintptr_t *lo, uintptr_t *hi)
{
	return newthread(fn, arg, lo, hi);
}

static void bracketinterrupt(void *ctx);

static bool innative(G *gp)
{
	Thread *th = ghost(gp);
	return th && th->bracket > 0;
}

static bool maypreempt(G *gp __attribute__((unused)))
{
	return true; /* a vfork child runs with getg() == NULL */
}

static void describe(G *gp, char *buf, size_t n)
{
	Thread *th = ghost(gp);
	buf[0] = 0;
	/* The process's own is everybody's. */
	if (th && n >= sizeof th->name && memcmp(th->name, comm, sizeof comm))
		memcpy(buf, th->name, sizeof th->name);
}

static void sysmontick(void)
{
	sigtick();
	dumptick();
}

static bool signalspending(void)
{
	return sigtickdue() || dumpneeded();
}

static noreturn_fn void dieabort(void)
{
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	uint64_t m = ~(1ull << (SIGABRT - 1));
	real.sigaction(SIGABRT, &dfl, NULL);
	sys4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&m, 0, 8);
	sys3(SYS_tgkill, sys0(SYS_getpid), sys0(SYS_gettid), SIGABRT);
	for (;;)
		sys1(SYS_exit_group, 134);
}

static int clocknow(int clock, void *ts)
{
	return clock_gettime(clock, ts);
}

static void sethost(void)
{
	host = (Host){
	    .newosproc = newosproc,
	    .m0block = blockm0,
	    .interrupt = siginterrupt_host,
	    .innative = innative,
	    .interruptnative = bracketinterrupt,
	    .owntext = owntext,
	    .unsafepc = unsafepc,
	    .maypreempt = maypreempt,
	    .sysmontick = sysmontick,
	    .signalspending = signalspending,
	    .describe = describe,
	    .unwindbegin = unwindbegin,
	    .unwind = unwindstack,
	    .symbolize = symbolize,
	    .creator = threadcreator,
	    .lockowner = lockowner,
	    .threadid = threadid,
	    .loadedat = loadedat,
	    .handlers = hashandlers,
	    .outsiders = hasoutsiders,
	    .die = dieabort,
	    .clock_gettime = clocknow,
	    .fsgsbase = getauxval(AT_HWCAP2) & 2,
	};
}

/* --- the start ------------------------------------------------------------------------------------ */

static _Atomic bool refused; /* this process keeps to kernel threads */

static void takewires(void);

static bool refuse(const char *why)
{
	warn("glibc %s, %s: running on kernel threads", gnu_get_libc_version(), why);
	atomic_store(&refused, true);
	return false;
}

/* What is mapped from here down; nobody tells how long a stack is that clone() was given. */
static uintptr_t mappedbelow(uintptr_t here)
{
	enum { PAGES = 256 };
	unsigned char there;
	uintptr_t lo = here & ~4095ul;
	for (int i = 0; i < PAGES && !sys3(SYS_mincore, (long)(lo - 4096), 4096, (long)&there); i++)
		lo -= 4096;
	return lo;
}

/* Where the stack of main, or of the thread that forked us, lies. */
static void stackbounds(uintptr_t *lo, uintptr_t *hi)
{
	Thread *th = isblock(selfblock()) ? blockextra(selfblock()) : NULL;
	Thread *cloned = th ? th : &mainthread;
	if (cloned->clonedstack) {
		*lo = mappedbelow((uintptr_t)__builtin_frame_address(0));
		*hi = cloned->clonedstack;
		return;
	}
	if (th) {
		*lo = th->stack.lo;
		*hi = th->stack.hi;
		return;
	}
	struct rlimit rl;
	uintptr_t *end = libcsym("__libc_stack_end", NULL);
	*hi = ((end ? *end : (uintptr_t)__builtin_frame_address(0)) + 4095) & ~4095ul;
	if (getrlimit(RLIMIT_STACK, &rl) || rl.rlim_cur == RLIM_INFINITY || rl.rlim_cur > 1ul << 30)
		rl.rlim_cur = 8ul << 20;
	*lo = *hi - rl.rlim_cur;
	uintptr_t here = (uintptr_t)__builtin_frame_address(0);
	pthread_attr_t attr;
	size_t size = 0;
	if ((here > *lo && here < *hi) || real.pthread_getattr_np(pthread_self(), &attr))
		return;
	/* A foreign thread has forked us. */
	pthread_attr_getstack(&attr, (void **)lo, &size);
	pthread_attr_destroy(&attr);
	*hi = *lo + size;
}

/* In a program built with ThreadSanitizer: it knows threads by its own pthread_create only, and
 * what it keeps for them does not bear a change of the kernel thread. */
extern void __tsan_init(void) __attribute__((weak));

int nativecreate(pthread_t *t, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
	__typeof__(real.pthread_create) create = real.pthread_create;
	if (__tsan_init)
		create = dlsym(RTLD_NEXT, "pthread_create");
	return create(t, attr, start, arg);
}

/* What is loaded that makes its own of kernel threads, or NULL. */
static const char *kernelthreaded(void)
{
	if (__tsan_init)
		return "ThreadSanitizer";
	/* Go asks the kernel, by instructions of its own, for masks and signal stacks of its threads,
	 * and runs on stacks that have no room for a frame of ours. Every program with cgo exports this. */
	if (firstdefinition("_cgo_topofstack"))
		return "a Go runtime";
	return NULL;
}

bool startsched(void)
{
	if (schedstarted())
		return true;
	/* Only the thread that is the process can become goroutine 1. */
	if (atomic_load(&refused) || sys0(SYS_gettid) != sys0(SYS_getpid))
		return false;
	const char *other = kernelthreaded();
	if (other) {
		if (!atomic_exchange(&refused, true))
			warn("%s is loaded: running on kernel threads", other);
		return false;
	}
	KEEP_ERRNO;
	/* All but libc's own two, which the threads made here inherit. */
	uint64_t all = ~(3ull << 31), mask;
	sys4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&mask, 8);
	bool ok = false;
	const char *why = NULL;
	sethost();
	notetexts();
	notestatics();
	unwindinit();
	forkinit();
	rtsettings();
	/* schedinit asks for it, too. With a second thread the kernel waits for all CPUs then: 12 ms. */
	sys2(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0);
	atomic_store(&template.step, 0);
	sys2(SYS_prctl, PR_GET_NAME, (long)comm);
	memcpy(mainthread.name, comm, sizeof comm);
	tlsprobelibc();
	if (newthread(templatebody, NULL, &template.lo, &template.hi)) {
		/* No memory, no processes: pthread_create fails with EAGAIN natively, too. */
		sys4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&mask, 0, 8);
		return false;
	}
	waitstep(1);
	tlsprobe(template.block, template.lo, template.hi - template.lo);
	if (!tls.ok) {
		why = tls.misfit;
	} else if (template.nosysmon) {
		why = "no second thread to be had";
	} else {
		uintptr_t lo, hi;
		stack_t ss;
		stackbounds(&lo, &hi);
		threadmaininit(lo, hi);
		Thread *th = threadof((pthread_t)selfblock());
		th->mask = mask & ~((1ull << 31) | (1ull << 32) | (1ull << 8) | (1ull << 18));
		real.sigaltstack(NULL, &ss);
		th->altstack = ss;
		th->altstack.ss_flags &= ~SS_ONSTACK;
		int r = schedinit(th->block, th, lo, hi, sigbasekmask());
		if (r) {
			why = r == -ENOSYS ? "no membarrier system call" : "out of memory";
		} else {
			th->gp = getg();
			sigthreadcount(th);
			signalsstart();
			ok = true;
		}
	}
	setstep(ok ? 2 : 3);
	if (!ok) {
		/* Its end makes room for the program's thread. */
		while (sys3(SYS_tgkill, sys0(SYS_getpid), template.tid, 0) == 0)
			sys0(SYS_sched_yield);
		sys4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&mask, 0, 8);
		return refuse(why);
	}
	takewires();
	signalsadopt(threadof((pthread_t)selfblock()), template.pending);
	waitstep(4); /* signals have somebody to go to */
	sigthreadstart(threadof((pthread_t)selfblock()));
	return true;
}

void schedrestartable(void)
{
	schedforkchild();
	memset(&template, 0, sizeof template);
	atomic_store(&kthreads, NULL);
}

/* --- the native bracket ------------------------------------------------------------------------------ */

/* The kernel thread of th is libc's from here on. */
static void gonative(Thread *th)
{
	th->bracketmask = ggetkmask();
	if (th->wired) /* libc's code for robust and PI mutexes writes it into them */
		TLSFIELD(th->block, int, tls.tid) = (int)sys0(SYS_gettid);
	gsetkmask(th->mask & ~(1ull << (SIGURG - 1)));
	entersyscallat(&th->bracketplace, th->bracketwaits);
	atomic_store(&th->native, (int)sys0(SYS_gettid));
}

/* No cancellation signal reaches the caller's kernel thread any more. */
static void endnative(Thread *th)
{
	int tid = atomic_load(&th->native);
	while (tid < 0 || !atomic_compare_exchange_weak(&th->native, &tid, 0)) {
		sys0(SYS_sched_yield);
		tid = atomic_load(&th->native);
	}
	if (!th->cancelsent)
		return;
	/* On the way out of this call it comes at the latest. libc's handler, which ends
	 * threads, has left it blocked. */
	uint64_t sigcancel = 1ull << 31;
	sys4(SYS_rt_sigprocmask, SIG_UNBLOCK, (long)&sigcancel, 0, 8);
	th->cancelsent = false;
}

static void comeback(Thread *th)
{
	endnative(th);
	exitsyscall();
	gsetkmask(th->bracketmask);
	TLSFIELD(th->block, uint32_t, tls.tid) = th->tid;
}

static void openbracket(const Place *where, bool waits)
{
	Thread *th = curthread();
	if (!th)
		return;
	lockOSThread();
	if (th->bracket++ == 0) {
		th->bracketplace = *where;
		th->bracketwaits = waits;
		gonative(th);
	}
}

void bracketenter(void)
{
	Place here = CALLERSPLACE();
	openbracket(&here, false);
}

void bracketwait(bool waits)
{
	Place here = CALLERSPLACE();
	openbracket(&here, waits);
}

/*
 * On the goroutine's stack, called as if from libc's code in the bracket: leaves it for the time
 * of the handlers, which may do all that threads do, and not return.
 */
static void bracketinterrupt(void *ctx)
{
	KEEP_ERRNO;
	Thread *th = curthread();
	int depth = th->bracket;
	th->bracket = 0;
	comeback(th);
	siginterrupt_host(ctx);
	th->bracket = depth;
	gonative(th);
}

void bracketunwind(const int *unused)
{
	(void)unused;
	bracketleave();
}

void bracketleave(void)
{
	Thread *th = curthread();
	if (!th)
		return;
	bool pending = false;
	/* It is 0 when a handler that interrupted it unwinds the thread. */
	if (th->bracket > 0 && --th->bracket == 0) {
		KEEP_ERRNO;
		comeback(th);
		pending = sigpendingopen();
	}
	unlockOSThread();
	if (pending)
		sigdeliver(true);
}

/* Wires of the process's only thread, before the start. */
static int earlywires;

void wire(void)
{
	Thread *th = curthread();
	if (!th) {
		earlywires += !schedstarted();
		return;
	}
	lockOSThread();
	if (th->wired++ == 0)
		sys2(SYS_set_robust_list, (long)th->block + tls.robusthead, 24);
}

void unwire(void)
{
	Thread *th = curthread();
	if (!th) {
		earlywires -= !schedstarted() && earlywires > 0;
		return;
	}
	if (th->wired == 0)
		return;
	if (--th->wired == 0)
		sys2(SYS_set_robust_list, (long)mblock() + tls.robusthead, 24);
	unlockOSThread();
}

/* What main held before it became goroutine 1, it holds wired. */
static void takewires(void)
{
	for (; earlywires > 0; earlywires--)
		wire();
}
