/*
 * testsched.c - the host of the scheduler in unit tests.
 *
 * A goroutine needs a thread block of libc's. Here each borrows that of a real
 * thread which sleeps meanwhile: complete by construction, and nothing of the
 * shim is needed. Goroutines run no code that depends on the kernel's idea of
 * the thread.
 */
#include "testsched.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if SANITIZED
void __asan_unpoison_memory_region(void const volatile *p, size_t n);
#else
static void __asan_unpoison_memory_region(void const volatile *p, size_t n)
{
	(void)p;
	(void)n;
}
#endif

enum { GStack = 64 * 1024, MStack = 256 * 1024, LenderStack = 128 * 1024, ThrowStatus = 4 };

void mustfail(const char *file, int line, const char *what)
{
	char buf[512];
	int n = snprintf(buf, sizeof(buf), "%s:%d: %s\n", file, line, what);

	writeall(2, buf, (size_t)n);
	_exit(3);
}

/* --- lenders of thread blocks ------------------------------------------------------ */

typedef struct Go Go;
struct Go {
	Go *next;
	void *block;
	Stack stack;
	void (*fn)(void *);
	void *arg;
};

static struct {
	Lock lock;
	Go *list;
} pool;
static _Atomic int live;

static void *lend(void *arg)
{
	_Atomic(void *) *block = arg;

	atomic_store(block, fsbase());
	for (;;)
		pause();
	return NULL;
}

static void *borrow(void)
{
	_Atomic(void *) block = NULL;
	pthread_attr_t attr;
	pthread_t t;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, LenderStack);
	must(pthread_create(&t, &attr, lend, &block) == 0);
	pthread_attr_destroy(&attr);
	while (atomic_load(&block) == NULL)
		usleep_os(10);
	return atomic_load(&block);
}

static void finish(void *arg)
{
	Go *go = arg;

	lock(&pool.lock);
	go->next = pool.list;
	pool.list = go;
	unlock(&pool.lock);
	atomic_fetch_sub(&live, 1);
	semaready(&live, 1, NULL, NULL, NULL, 0);
}

static void begin(void *arg)
{
	Go *go = arg;

	go->fn(go->arg);
	goexit(finish, go);
}

static Go *goget(void (*fn)(void *arg), void *arg)
{
	M *mp = acquirem();
	Go *go;

	lock(&pool.lock);
	go = pool.list;
	if (go != NULL)
		pool.list = go->next;
	unlock(&pool.lock);
	releasem(mp);
	must(go != NULL);
	go->fn = fn;
	go->arg = arg;
	atomic_fetch_add(&live, 1);
	__asan_unpoison_memory_region((void *)go->stack.lo, go->stack.hi - go->stack.lo);
	return go;
}

void spawn(void (*fn)(void *arg), void *arg)
{
	Go *go = goget(fn, arg);
	must(newproc(begin, go, go->block, NULL, go->stack.lo, go->stack.hi) != NULL);
}

void spawnwired(void (*fn)(void *arg), void *arg)
{
	Go *go = goget(fn, arg);
	int err = 0;
	must(newprocwired(begin, go, go->block, NULL, go->stack.lo, go->stack.hi, &err) != NULL);
}

int livegs(void)
{
	return atomic_load(&live);
}

static bool somelive(void *arg)
{
	(void)arg;
	return atomic_load(&live) > 0;
}

void joinall(void)
{
	while (atomic_load(&live) > 0)
		semapark(&live, somelive, NULL, NULL, 0, WaitJoin, FOREVER, 0);
}

/* --- what goroutines do ------------------------------------------------------------- */

Tally tally;

void yielder(void *times)
{
	for (int i = 0; i < (int)(uintptr_t)times; i++)
		gosched();
	atomic_fetch_add(&tally.ended, 1);
}

PREEMPTIBLE void spinner(void *unused)
{
	(void)unused;
	atomic_fetch_add(&tally.started, 1);
	while (!atomic_load(&tally.stop))
		;
}

void sleepsyscall(void *us)
{
	for (int i = 0; i < 5; i++) {
		entersyscall();
		usleep_os((uint32_t)(uintptr_t)us);
		exitsyscall();
	}
	atomic_fetch_add(&tally.ended, 1);
}

/* --- the host ------------------------------------------------------------------------ */

typedef struct Starter {
	void (*fn)(void *);
	void *arg;
} Starter;

static void *start(void *arg)
{
	Starter s = *(Starter *)arg;

	free(arg);
	s.fn(s.arg);
	return NULL;
}

static int newosproc(void (*fn)(void *), void *arg, uintptr_t *lo, uintptr_t *hi)
{
	Starter *s = malloc(sizeof(*s));
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t t;
	char *stack;
	int r;

	stack = mmap(NULL, MStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s == NULL || stack == MAP_FAILED)
		return -EAGAIN;
	*s = (Starter){fn, arg};
	pthread_attr_init(&attr);
	pthread_attr_setstack(&attr, stack, MStack);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	sigdelset(&all, SIGURG);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&t, &attr, start, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	*lo = (uintptr_t)stack;
	*hi = (uintptr_t)stack + MStack;
	return -r;
}

static void nothing(void *ctx)
{
	(void)ctx;
	gclearinterrupt();
}

/* Something must be in the section. */
PREEMPTIBLE void preemptiblesection(void);
void preemptiblesection(void)
{
}
extern char __start_preemptible[], __stop_preemptible[];

static bool unsafepc(uintptr_t pc)
{
	return pc < (uintptr_t)__start_preemptible || pc >= (uintptr_t)__stop_preemptible;
}

static bool yes(G *gp)
{
	(void)gp;
	return true;
}

static bool never(G *gp)
{
	(void)gp;
	return false;
}

static void nosignals(void)
{
}

static bool nonepending(void)
{
	return false;
}

/* Tests wake goroutines from threads of their own. */
static bool always(void)
{
	return true;
}

static bool outsiders(bool (*known)(int tid))
{
	(void)known;
	return true;
}

static void describe(G *gp, char *buf, size_t n)
{
	(void)gp;
	if (n > 0)
		buf[0] = 0;
}

static void nobegin(bool own)
{
	(void)own;
}

static int oneframe(const Registers *regs, const StackCopy *stack, Frame *frames, int max)
{
	(void)stack;
	(void)max;
	frames[0] = (Frame){.pc = regs->pc, .interrupted = true};
	return 1;
}

static uint32_t noowner(uintptr_t lock, WaitReason why)
{
	(void)lock;
	(void)why;
	return 0;
}

static uint32_t nothread(G *gp)
{
	(void)gp;
	return 0;
}

static void nosymbol(const Frame *frame, Symbol *symbol)
{
	(void)frame;
	memset(symbol, 0, sizeof *symbol);
}

static int64_t nobody(G *gp, uintptr_t *pc)
{
	(void)gp;
	*pc = 0;
	return 0;
}

static void die(void)
{
	_exit(ThrowStatus);
}

static int gettime(int clock, void *ts)
{
	return clock_gettime(clock, ts);
}

static void onurg(int sig, siginfo_t *info, void *ctx)
{
	sigpreempt(sig, info, ctx);
}

static void startscheduler(int procs, int ngs)
{
	struct sigaction sa;
	uintptr_t lo, hi;
	char here;

	host = (Host){
	    .newosproc = newosproc,
	    .m0block = borrow,
	    .interrupt = nothing,
	    .interruptnative = nothing,
	    .unsafepc = unsafepc,
	    .owntext = unsafepc,
	    .innative = never,
	    .maypreempt = yes,
	    .sysmontick = nosignals,
	    .signalspending = nonepending,
	    .handlers = always,
	    .outsiders = outsiders,
	    .die = (__typeof__(host.die))die,
	    .describe = describe,
	    .unwindbegin = nobegin,
	    .unwind = oneframe,
	    .symbolize = nosymbol,
	    .creator = nobody,
	    .lockowner = noowner,
	    .threadid = nothread,
	    .clock_gettime = gettime,
	    .fsgsbase = (getauxval(AT_HWCAP2) & 2) != 0,
	};
	debug.gomaxprocs = procs;
	for (int i = 0; i < ngs; i++) {
		Go *go = calloc(1, sizeof(*go));

		must(stackalloc(GStack, 4096, &go->stack) == 0);
		go->block = borrow();
		go->next = pool.list;
		pool.list = go;
	}
	memset(&sa, 0, sizeof(sa));
	sa.sa_sigaction = onurg;
	sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
	sigaction(SIGURG, &sa, NULL);
	lo = (uintptr_t)&here - 256 * 1024;
	hi = (uintptr_t)&here + 64 * 1024;
	must(schedinit(fsbase(), NULL, lo, hi, 0) == 0);
	must(newosproc(templatethread, NULL, &lo, &hi) == 0);
	must(newosproc(sysmon, NULL, &lo, &hi) == 0);
}

typedef struct Body {
	int procs, ngs;
	void (*fn)(void);
} Body;
static Body body;

static void runbody(void)
{
	startscheduler(body.procs, body.ngs);
	body.fn();
	must(livegs() == 0);
}

/* fn in a child; what it writes to stderr goes to err, if that is one. */
static pid_t inchild(void (*fn)(void), int err)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* when the test has hung */
		if (err >= 0)
			dup2(err, 2);
		fn();
		_exit(0);
	}
	return pid;
}

static int waitchild(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

int errorsof(void (*fn)(void), char *buf, size_t n)
{
	FILE *f = tmpfile();
	int status;

	cr_assert_not_null(f);
	status = waitchild(inchild(fn, fileno(f)));
	rewind(f);
	buf[fread(buf, 1, n - 1, f)] = 0;
	fclose(f);
	return status;
}

void inscheduler(int procs, int ngs, void (*fn)(void))
{
	int status;

	body = (Body){procs, ngs, fn};
	status = waitchild(inchild(runbody, -1));
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the scheduler's process: %#x",
		  (unsigned)status);
}

void throwsinscheduler(int procs, int ngs, void (*fn)(void), const char *what)
{
	char buf[8192];
	int status;

	body = (Body){procs, ngs, fn};
	status = errorsof(runbody, buf, sizeof(buf));
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == ThrowStatus, "it ended with %#x: %s",
		  (unsigned)status, buf);
	cr_assert_not_null(strstr(buf, what), "it said: %s", buf);
}
