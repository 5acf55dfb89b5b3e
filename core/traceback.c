/*
 * traceback.c - what every goroutine does and how it came there, as text in Go's layout.
 *
 * It is asked for when the program hangs or dies, so it waits for nobody: it takes no lock but capture.c's,
 * and stops nothing.
 */
#include "report.h"

#include "text.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>

enum {
	FRAMES = 100,    /* as Go */
	PATIENCE = 2000, /* ms for a reader to take something */
	MINUTE = 60,
	NAME = 32, /* bytes of a thread's name, the zero included */
};

/* Text on its way to a file descriptor. */
typedef struct Out {
	int fd;
	bool dead;   /* nobody takes it */
	long failed; /* -errno of why, 0: too late */
	Text *keep;  /* not to fd, but there */
	Text text;
	char buf[4096];
} Out;

/* Of whoever is nobody. */
static struct {
	Capture *capture;
	Out out;
	Frame frames[FRAMES];
	Symbol symbol;
} tb;

/* --- writing ------------------------------------------------------------------------- */

static void outflush(Out *o)
{
	size_t at = 0;
	if (o->keep)
		for (; at < o->text.n && o->keep->n < o->keep->size; at++)
			o->keep->buf[o->keep->n++] = o->buf[at];
	while (at < o->text.n && !o->dead && !o->keep) {
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
		o->failed = r < 0 ? r : 0;
		at += r > 0 ? (size_t)r : 0;
	}
	o->text.n = 0;
}

static void outv(const char *fmt, va_list ap)
{
	Out *o = &tb.out;
	if (o->text.size - o->text.n < 1024)
		outflush(o);
	textputv(&o->text, fmt, ap);
}

static void out(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	outv(fmt, ap);
	va_end(ap);
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
	StackCopy copy = copyof(c);
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

/* Its name, which stays in its line and steers no terminal. */
static void nameof(G *gp, char name[NAME])
{
	host.describe(gp, name, NAME);
	for (; *name; name++)
		if ((unsigned char)*name < ' ' || *name == 127)
			*name = '?';
}

/* "goroutine 18 "name" [sync.Mutex.Lock, 3 minutes, locked to thread]:" */
static void printheader(G *gp, GStatus s, const char *what)
{
	char name[NAME];
	nameof(gp, name);
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

/* False: it has ended. */
static bool printgoroutine(G *gp)
{
	static const char *const names[] = {[Grunnable] = "runnable",
					    [Grunning] = "running",
					    [Gsyscall] = "syscall",
					    [Gwaiting] = "waiting"};
	GStatus s;
	bool have = capture(tb.capture, gp, &s);
	if (s == Gidle || s == Gdead)
		return false;
	printheader(gp, s, names[s]);
	if (have)
		printstack(tb.capture, false);
	else
		out("\tgoroutine running on other thread; stack unavailable\n");
	printcreator(gp);
	out("\n");
	return true;
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

static bool printone(int64_t id)
{
	bool there = false;
	for (G *gp = atomic_load(&sched.allg); gp; gp = gp->alllink)
		if (gp->goid == id)
			there |= printgoroutine(gp);
	return there;
}

static void printwaiter(int64_t id)
{
	char name[NAME] = "";
	for (G *gp = atomic_load(&sched.allg); gp; gp = gp->alllink)
		if (gp->goid == id)
			nameof(gp, name);
	out("goroutine %d%s%s%s", id, name[0] ? " (" : "", name, name[0] ? ")" : "");
}

/* " (symbol+0x8)", if it is in one. */
static void printobject(uintptr_t address)
{
	Frame object = {.pc = address, .data = true};
	Symbol *s = &tb.symbol;
	host.symbolize(&object, s);
	if (s->function[0] && s->offset)
		out(" (%s+0x%x)", s->function, s->offset);
	else if (s->function[0])
		out(" (%s)", s->function);
}

static void printcircle(const CircleWait *w, size_t n, size_t total)
{
	if (total == 1)
		out("goshim: deadlock: a goroutine waits for a lock of its own\n");
	else
		out("goshim: deadlock: %d goroutines wait for each other's locks\n",
		    (int64_t)total);
	for (size_t i = 0; i < n; i++) {
		out("goshim: ");
		printwaiter(w[i].id);
		out(" waits for %s %p", w[i].kind, w[i].lock);
		printobject((uintptr_t)w[i].lock);
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
	Text *keep;
	void (*tell)(void *arg); /* instead of all that */
	void *arg;
	bool whole; /* it was written */
	long failed;
} Job;

static void writejob(Job *j)
{
	host.unwindbegin(false);
	if (j->tell)
		j->tell(j->arg);
	if (j->title)
		out("%s\n\n", j->title);
	if (j->caller) {
		tb.capture->regs = j->regs;
		copystack(tb.capture, j->gp, j->regs.sp);
		if (j->gp)
			printheader(j->gp, Grunning, "running");
		else
			out("goroutine 0 [thread %d, no goroutine]:\n", (int64_t)gettid_os());
		printstack(tb.capture, !j->gp);
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

static void work(void *arg, Capture *c)
{
	Job *j = arg;
	uint64_t pending = 0, made = 0;
	tb.capture = c;
	tb.out.fd = j->fd;
	tb.out.keep = j->keep;
	tb.out.dead = false;
	tb.out.failed = 0;
	tb.out.text = textin(tb.out.buf, sizeof tb.out.buf);
	sys2(SYS_rt_sigpending, (long)&pending, 8);
	writejob(j);
	if (tb.out.failed == -EPIPE)
		made = 1ull << (SIGPIPE - 1);
	if (tb.out.failed == -EFBIG)
		made = 1ull << (SIGXFSZ - 1);
	if (made && !(pending & made)) {
		int64_t now[2] = {0, 0};
		sys4(SYS_rt_sigtimedwait, (long)&made, 0, (long)now, 8); /* ours */
	}
	j->whole = !tb.out.dead;
	j->failed = tb.out.failed;
}

static bool run(Job *j)
{
	return asnobody(work, j) && j->whole;
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

/* --- reports --------------------------------------------------------------------------- */

long report(int fd, void (*tell)(void *arg), void *arg)
{
	Job j = {.fd = fd, .tell = tell, .arg = arg};
	if (run(&j))
		return 0;
	return j.failed ? j.failed : -ENOMEM;
}

void reportkeep(Text *t, void (*tell)(void *arg), void *arg)
{
	Job j = {.fd = -1, .keep = t, .tell = tell, .arg = arg};
	run(&j);
}

void reportplain(const char *s, size_t n)
{
	Out *o = &tb.out;
	for (size_t i = 0; i < n; i++) {
		if (o->text.n == o->text.size)
			outflush(o);
		o->text.buf[o->text.n++] = s[i];
	}
}

void reporttext(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	outv(fmt, ap);
	va_end(ap);
}

void reportobject(uintptr_t address)
{
	printobject(address);
}

void reportcall(uintptr_t pc)
{
	Symbol *s = &tb.symbol;
	Frame f = {.pc = pc};
	host.symbolize(&f, s);
	if (s->function[0])
		out("%s+0x%x", s->function, s->offset);
	else if (s->object[0])
		out("%s:0x%x", s->object, s->address);
	else
		out("%p", (void *)pc);
}

bool reportgoroutine(int64_t goid)
{
	return printone(goid);
}

void reportstack(const Capture *c)
{
	printstack(c, false);
}

bool reportflush(void)
{
	outflush(&tb.out);
	return !tb.out.dead;
}

void reportfailed(long error)
{
	tb.out.dead = true;
	tb.out.failed = error;
}
