/*
 * traceback.c - what every goroutine does and how it came there, as text in Go's layout.
 *
 * It is asked for when the program hangs or dies, so it waits for nobody: it takes no lock but its
 * own, and stops nothing. The stack of a parked goroutine is copied, and the copy is good if the
 * goroutine is parked in the same place afterwards. One that computes is sent SIGURG, and the handler makes
 * the copy at whatever instruction that is, also where preemption is refused. One in a system call that
 * it announced left word from where (entersyscall). One that is blocked in the kernel without our knowledge is
 * left alone, since a signal might end its call; of it /proc tells, where there is one.
 *
 * Whoever calls is nobody meanwhile: on a stack of our own, without signals, and with getg() NULL, since what
 * unwinds is a library that calls libc's functions, and so the shim.
 */
#include "runtime.h"

#include "text.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>

enum {
	COPYMAX = 64 << 10, /* of a stack, from its top on; deeper frames are read where they are */
	STACK = 128 << 10,  /* ours */
	FRAMES = 100,       /* as Go */
	TRIES = 20,
	SIGNALWAIT = 20000000, /* ns, each time */
	PATIENCE = 2000,       /* ms for a reader to take something */
	MINUTE = 60,
};

/* A goroutine at one moment. */
struct Capture {
	_Atomic uint32_t done; /* futex: CaptureWanted until the handler has been */
	G *gp;
	Registers regs;
	uintptr_t lo;
	size_t n;
	char stack[COPYMAX];
};
enum { CaptureWanted, CaptureTaken, CaptureMissed };

/* Text on its way to a file descriptor. */
typedef struct Out {
	int fd;
	bool dead; /* nobody takes it */
	bool epipe;
	Text text;
	char buf[4096];
} Out;

static struct {
	Lock lock;
	char *stack;
	Capture capture;
	Out out;
	Frame frames[FRAMES];
	Symbol symbol;
} tb;

/* --- writing ------------------------------------------------------------------------- */

static void outflush(Out *o)
{
	size_t at = 0;
	while (at < o->text.n && !o->dead) {
		struct {
			int fd;
			short events, revents;
		} p = {o->fd, 4 /* POLLOUT */, 0};
		/* A pipe that is ready takes a page without blocking. */
		long r = sys3(SYS_poll, (long)&p, 1, PATIENCE);
		if (r == -EINTR)
			continue;
		if (r > 0)
			r = sys3(SYS_write, o->fd, (long)(o->buf + at), (long)(o->text.n - at));
		if (r == -EINTR || r == -EAGAIN)
			continue;
		o->dead = r <= 0;
		o->epipe |= r == -EPIPE;
		at += r > 0 ? (size_t)r : 0;
	}
	o->text.n = 0;
}

static void out(const char *fmt, ...)
{
	Out *o = &tb.out;
	va_list ap;
	if (o->text.size - o->text.n < 1024)
		outflush(o);
	va_start(ap, fmt);
	textputv(&o->text, fmt, ap);
	va_end(ap);
}

/* --- capturing ----------------------------------------------------------------------- */

/* Copies memory that may not be there. */
static bool copyout(void *to, uintptr_t from, size_t n)
{
	struct {
		void *p;
		size_t n;
	} local = {to, n}, remote = {(void *)from, n};
	return sys6(SYS_process_vm_readv, sys0(SYS_getpid), (long)&local, 1, (long)&remote, 1, 0) ==
	       (long)n;
}

/* From sp on, as much as there is; gp NULL: of an unknown stack. SIGSAFE */
static bool copystack(Capture *c, G *gp, uintptr_t sp)
{
	size_t n = COPYMAX;
	c->lo = sp;
	c->n = 0;
	if (gp && sp >= gp->stacklo && sp < gp->stackhi && gp->stackhi - sp < n)
		n = gp->stackhi - sp;
	while (!copyout(c->stack, sp, n)) {
		/* It ends before: at a page. */
		n = n > 4096 ? (n / 2 > 4096 ? n / 2 : 4096 - sp % 4096) : 0;
		if (n == 0)
			return false;
	}
	c->n = n;
	return true;
}

/* What gogo would pop: control words, r15 to r12, rbx, rbp, the return address (asm.S). */
static bool captureparked(Capture *c, G *gp, GStatus s)
{
	uintptr_t sp = gp->sched.sp;
	uint64_t since = gp->since;
	if (sp < gp->stacklo || sp >= gp->stackhi || !copystack(c, gp, sp) || c->n < 64)
		return false;
	atomic_thread_fence(memory_order_seq_cst);
	if (readgstatus(gp) != s || gp->sched.sp != sp || gp->since != since)
		return false;
	uint64_t saved[8];
	memcpy(saved, c->stack, sizeof saved);
	c->regs = (Registers){.r15 = saved[1],
			      .r14 = saved[2],
			      .r13 = saved[3],
			      .r12 = saved[4],
			      .bx = saved[5],
			      .bp = saved[6],
			      .pc = saved[7],
			      .sp = sp + sizeof saved};
	return true;
}

static bool captureplace(Capture *c, G *gp, M *mp)
{
	Place at = mp->syscallplace;
	if (!copystack(c, gp, at.sp))
		return false;
	c->regs = (Registers){.pc = at.pc, .sp = at.sp, .bp = at.bp};
	return readgstatus(gp) == Gsyscall && mp->curg == gp && mp->syscallplace.sp == at.sp &&
	       mp->syscallplace.pc == at.pc;
}

static Registers contextregisters(const void *ctx)
{
	const ucontext_t *uc = ctx;
	const greg_t *r = uc->uc_mcontext.gregs;
	return (Registers){.pc = (uintptr_t)r[REG_RIP],
			   .sp = (uintptr_t)r[REG_RSP],
			   .bp = (uintptr_t)r[REG_RBP],
			   .bx = (uintptr_t)r[REG_RBX],
			   .r12 = (uintptr_t)r[REG_R12],
			   .r13 = (uintptr_t)r[REG_R13],
			   .r14 = (uintptr_t)r[REG_R14],
			   .r15 = (uintptr_t)r[REG_R15]};
}

/* In the handler of the runtime's signal, on mp. */
void capturesignal(M *mp, const void *ctx)
{
	Capture *c = atomic_exchange(&mp->capture, NULL);
	if (!c)
		return;
	G *gp = getg();
	bool his = gp == c->gp;
	if (his) {
		c->regs = contextregisters(ctx);
		copystack(c, gp, c->regs.sp);
	}
	atomic_store(&c->done, his ? CaptureTaken : CaptureMissed);
	futexwakeup(&c->done, 1);
}

static bool capturerunning(Capture *c, G *gp, M *mp)
{
	c->gp = gp;
	atomic_store(&c->done, CaptureWanted);
	atomic_store(&mp->capture, c);
	preemptm(mp);
	futexsleep(&c->done, CaptureWanted, SIGNALWAIT);
	Capture *mine = c;
	if (atomic_load(&c->done) == CaptureWanted &&
	    atomic_compare_exchange_strong(&mp->capture, &mine, NULL))
		return false;
	while (atomic_load(&c->done) == CaptureWanted) /* the handler is at it */
		futexsleep(&c->done, CaptureWanted, SIGNALWAIT);
	return atomic_load(&c->done) == CaptureTaken;
}

/* One that is blocked in the kernel: "number arguments... sp pc", in hexadecimal but for the first. *runs: it isn't. */
static bool capturekernel(Capture *c, G *gp, M *mp, bool *runs)
{
	char path[64], buf[256];
	Text t = textin(path, sizeof path);
	textput(&t, "/proc/self/task/%d/syscall", (int64_t)atomic_load(&mp->tid));
	ownfdmake();
	long n = readfile(textend(&t), buf, sizeof buf);
	ownfdmade(-1);
	uintptr_t sp = 0, pc = 0;
	*runs = n > 0 && buf[0] == 'r'; /* "running" */
	if (n <= 0 || *runs)
		return false;
	for (long i = 0; i + 1 < n; i++) {
		if (buf[i] != '0' || buf[i + 1] != 'x')
			continue;
		sp = pc;
		pc = 0;
		for (i += 2; i < n && buf[i] > ' '; i++)
			pc =
			    pc << 4 | (uintptr_t)(buf[i] <= '9' ? buf[i] - '0' : buf[i] - 'a' + 10);
	}
	if (!copystack(c, gp, sp))
		return false;
	c->regs = (Registers){.pc = pc, .sp = sp};
	return mp->curg == gp;
}

/* False: it did not stand still, or can't be seen. *s: as what it was found. */
static bool capture(Capture *c, G *gp, GStatus *s)
{
	for (int tries = 0; tries < TRIES; tries++) {
		*s = readgstatus(gp);
		M *mp = gp->m;
		if (*s == Gwaiting || *s == Grunnable) {
			if (captureparked(c, gp, *s))
				return true;
		} else if (*s == Gsyscall) {
			if (mp && captureplace(c, gp, mp))
				return true;
		} else if (*s != Grunning) {
			return false;
		} else if (mp && mp->curg == gp) {
			bool runs = computes(mp);
			if (!runs && capturekernel(c, gp, mp, &runs))
				return true;
			if (runs && capturerunning(c, gp, mp))
				return true;
			usleep_os(1000);
		}
	}
	return false;
}

/* --- printing ------------------------------------------------------------------------ */

/* A function's name as the program knows it: without its version; ours without prefix, and what the compiler
 * has added. */
static const char *plainname(char *name, bool own)
{
	for (char *p = name; *p; p++)
		if (*p == '@' || (own && *p == '.'))
			*p = '\0';
	return memcmp(name, "shim_", 5) ? name : name + 5;
}

/* Of the frame whose symbol is in tb.symbol. */
static void printframe(const char *prefix, const Frame *f, const char *suffix)
{
	Symbol *s = &tb.symbol;
	if (f->signal) {
		out("<signal handler called>\n");
		return;
	}
	if (s->function[0])
		out("%s%s%s\n", prefix, plainname(s->function, s->own), suffix);
	else
		out("%s%p%s\n", prefix, (void *)f->pc, suffix);
	if (s->object[0])
		out("\t%s:0x%x", s->object, s->address);
	else
		out("\t%p", (void *)f->pc);
	if (s->function[0])
		out(" +0x%x", s->offset);
	out("\n");
}

/*
 * Frames of ours stand for one call of the program's, and only the outermost is shown: what the program
 * called. Not shown are those at the stack's end, what preempted it, and what called the program.
 */
static void printframes(const Frame *f, int n, bool all)
{
	for (int i = 0; i < n; i++) {
		int first = i;
		bool own = !all && host.owntext(f[i].pc);
		while (own && i + 1 < n && host.owntext(f[i + 1].pc))
			i++;
		host.symbolize(&f[i], &tb.symbol);
		bool called = first == 0 || !memcmp(tb.symbol.function, "shim_", 5);
		if (own && (i == n - 1 || (f[i].signal ? first == 0 : !called)))
			continue;
		printframe("", &f[i], "(...)");
	}
	if (n == FRAMES)
		out("...additional frames elided...\n");
}

/* all: with our own frames. */
static void printstack(const Capture *c, bool all)
{
	StackCopy copy = {c->lo, c->n, c->stack};
	printframes(tb.frames, host.unwind(&c->regs, &copy, tb.frames, FRAMES),
		    all || debug.traceback >= TracebackSystem);
}

static void printcreator(G *gp)
{
	Frame f = {.pc = 0};
	char by[48];
	int64_t id = host.creator(gp, &f.pc);
	if (!f.pc)
		return;
	Text t = textin(by, sizeof by);
	if (id)
		textput(&t, " in goroutine %d", id);
	host.symbolize(&f, &tb.symbol);
	printframe("created by ", &f, textend(&t));
}

/* "goroutine 18 "name" [sync.Mutex.Lock, 3 minutes, locked to thread]:" */
static void printheader(G *gp, GStatus s, const char *what)
{
	char name[32];
	host.describe(gp, name, sizeof name);
	out("goroutine %d ", gp->goid);
	if (name[0])
		out("\"%s\" ", name);
	out("[%s", s == Gwaiting || gp->waitreason ? waitreasonstr(gp->waitreason) : what);
	int64_t minutes = ticksns(ticksnow() - gp->since) / 1000000000 / MINUTE;
	if (s == Gwaiting && minutes >= 1)
		out(", %d minutes", minutes);
	if (gp->lockedm)
		out(", locked to thread");
	out("]:\n");
}

static void printgoroutine(G *gp)
{
	static const char *const names[] = {[Grunnable] = "runnable",
					    [Grunning] = "running",
					    [Gsyscall] = "syscall",
					    [Gwaiting] = "waiting"};
	GStatus s;
	bool have = capture(&tb.capture, gp, &s);
	if (s == Gidle || s == Gdead)
		return;
	printheader(gp, s, names[s]);
	if (have)
		printstack(&tb.capture, false);
	else
		out("\tgoroutine running on other thread; stack unavailable\n");
	printcreator(gp);
	out("\n");
}

/* --- which ones ----------------------------------------------------------------------- */

static void siftdown(G **list, size_t root, size_t n)
{
	for (size_t child; (child = 2 * root + 1) < n; root = child) {
		if (child + 1 < n && list[child]->goid < list[child + 1]->goid)
			child++;
		if (list[root]->goid >= list[child]->goid)
			return;
		G *gp = list[root];
		list[root] = list[child];
		list[child] = gp;
	}
}

static void sort(G **list, size_t n)
{
	for (size_t i = n / 2; i-- > 0;)
		siftdown(list, i, n);
	for (size_t i = n; i-- > 1;) {
		G *gp = list[0];
		list[0] = list[i];
		list[i] = gp;
		siftdown(list, 0, i);
	}
}

/* In the order of their birth, if there is memory to sort them in. */
static void printall(G *except)
{
	size_t n = 0, size = 0;
	for (G *gp = atomic_load(&sched.allg); gp; gp = gp->alllink)
		size++;
	G **list = sysalloc((size + 1) * sizeof *list);
	for (G *gp = atomic_load(&sched.allg); gp; gp = gp->alllink) {
		GStatus s = readgstatus(gp);
		if (gp == except || s == Gidle || s == Gdead)
			continue;
		if (!list)
			printgoroutine(gp);
		else if (n < size)
			list[n++] = gp;
	}
	if (!list)
		return;
	sort(list, n);
	for (size_t i = 0; i < n; i++)
		printgoroutine(list[i]);
	sysfree(list, (size + 1) * sizeof *list);
}

static void printone(int64_t id)
{
	for (G *gp = atomic_load(&sched.allg); gp; gp = gp->alllink)
		if (gp->goid == id)
			printgoroutine(gp);
}

static void printwaiter(int64_t id)
{
	char name[32] = "";
	for (G *gp = atomic_load(&sched.allg); gp; gp = gp->alllink)
		if (gp->goid == id)
			host.describe(gp, name, sizeof name);
	out("goroutine %d%s%s%s", id, name[0] ? " (" : "", name, name[0] ? ")" : "");
}

static void printcircle(const CircleWait *w, size_t n, size_t total)
{
	if (total == 1)
		out("goshim: deadlock: a goroutine waits for a lock of its own\n");
	else
		out("goshim: deadlock: %d goroutines wait for each other's locks\n",
		    (int64_t)total);
	for (size_t i = 0; i < n; i++) {
		Frame object = {.pc = (uintptr_t)w[i].lock, .data = true};
		Symbol *s = &tb.symbol;
		out("goshim: ");
		printwaiter(w[i].id);
		host.symbolize(&object, s);
		out(" waits for %s %p", w[i].kind, w[i].lock);
		if (s->function[0] && s->offset)
			out(" (%s+0x%x)", s->function, s->offset);
		else if (s->function[0])
			out(" (%s)", s->function);
		out(" held by ");
		printwaiter(w[(i + 1) % total].id);
		out("\n");
	}
	if (n < total)
		out("goshim: and %d more\n", (int64_t)(total - n));
	out("\n");
}

/* --- the calls ------------------------------------------------------------------------- */

typedef struct Job {
	int fd;
	const char *title;
	const CircleWait *circle; /* n are shown, of total */
	size_t total;
	const int64_t *ids;
	size_t n;
	bool all;
	bool caller; /* the caller's stack first; gp: the goroutine that it is, or NULL */
	G *gp;
	Registers regs;
} Job;

static void work(void *arg)
{
	Job *j = arg;
	host.unwindbegin();
	if (j->title)
		out("%s\n\n", j->title);
	if (j->caller) {
		tb.capture.regs = j->regs;
		copystack(&tb.capture, j->gp, j->regs.sp);
		if (j->gp)
			printheader(j->gp, Grunning, "running");
		else
			out("goroutine 0 [thread %d, no goroutine]:\n", (int64_t)gettid_os());
		printstack(&tb.capture, !j->gp);
		if (j->gp)
			printcreator(j->gp);
		out("\n");
	}
	if (j->circle)
		printcircle(j->circle, j->n, j->total);
	for (size_t i = 0; i < j->n; i++)
		printone(j->circle ? j->circle[i].id : j->ids[i]);
	if (j->all)
		printall(j->gp);
	outflush(&tb.out);
}

/* As nobody, see the top. */
static bool run(Job *j)
{
	uint64_t pipe = 1ull << (SIGPIPE - 1), pending = 0, mask = maskall();
	G *gp = getg();
	goshim_g = NULL;
	lock(&tb.lock);
	if (!tb.stack)
		tb.stack = sysalloc(STACK);
	tb.out.fd = j->fd;
	tb.out.dead = tb.out.epipe = false;
	tb.out.text = textin(tb.out.buf, sizeof tb.out.buf);
	sys2(SYS_rt_sigpending, (long)&pending, 8);
	if (tb.stack)
		onstack0(work, j, (uintptr_t)tb.stack + STACK);
	if (tb.out.epipe && !(pending & pipe)) {
		int64_t now[2] = {0, 0};
		sys4(SYS_rt_sigtimedwait, (long)&pipe, 0, (long)now, 8); /* ours */
	}
	bool all = tb.stack && !tb.out.dead;
	unlock(&tb.lock);
	goshim_g = gp;
	maskback(mask);
	return all;
}

bool traceback(int fd, const int64_t *ids, size_t n)
{
	Job j = {.fd = fd, .ids = ids, .n = n, .all = n == 0};
	return run(&j);
}

void tracebackall(int fd, const char *title)
{
	Job j = {.fd = fd, .title = title, .all = true};
	run(&j);
}

void tracebackcircle(int fd, const CircleWait *w, size_t n, size_t total)
{
	Job j = {.fd = fd, .circle = w, .n = n, .total = total};
	run(&j);
}

void tracebackfatal(const char *name, const void *info, const void *ctx, bool all)
{
	const siginfo_t *si = info;
	G *gp = getg();
	Place here = CALLERSPLACE();
	char title[200];
	Text t = textin(title, sizeof title);
	bool self = ctx || (gp && gp != gp->m->g0);
	Job j = {.fd = 2,
		 .title = title,
		 .all = all || debug.traceback >= TracebackAll,
		 .caller = self,
		 .gp = gp && gp != gp->m->g0 ? gp : NULL,
		 .regs = {.pc = here.pc, .sp = here.sp, .bp = here.bp}};
	if (debug.traceback == TracebackNone)
		return;
	if (ctx)
		j.regs = contextregisters(ctx);
	textput(&t, "%s\n", name);
	if (si->si_code > 0)
		textput(&t, "PC=%p m=%d sigcode=%d addr=%p", (void *)j.regs.pc, gp ? gp->m->id : -1,
			(int64_t)si->si_code, si->si_addr);
	else
		textput(&t, "sent by process %d, sigcode=%d", (int64_t)si->si_pid,
			(int64_t)si->si_code);
	textend(&t);
	run(&j);
}

void tracebackforkchild(void)
{
	lockinit(&tb.lock, RankUnranked);
}
