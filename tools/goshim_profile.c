/*
 * goshim profile: where goroutines run and where they wait, by samples that the process takes itself (core/profile.c).
 *
 * The process sends addresses; naming them takes files and time, and is done here. A stack begins with
 * the thread's name, then says what it does, then names the functions, the outermost first.
 */
#define _GNU_SOURCE
#include "goshim_ask.h"
#include "goshim_names.h"
#include "goshim_profile.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	MOSTRECORD = 1 << 16,
	MOSTCALLS = 1 << 24,
	SLOTS = 1 << 18, /* of the table of calls */
};

/* A stack that the process has told of. */
typedef struct Stack {
	Node *leaf;
	double exact,
	    share; /* samples since the last tick, each for itself, and for others that were not looked at */
} Stack;

typedef struct Profile {
	Target target;
	char comm[17];
	ProfileRequest what;
	double seconds;
	Node *root;
	Stack *stack; /* by number, from `first` on */
	size_t nstacks, first;
	size_t *touched, ntouched; /* those with samples since the last tick */
	double ns, cpu;            /* of all ticks; what they have cost */
	uint64_t ticks, samples;
	bool ended; /* the process has */
} Profile;

static volatile sig_atomic_t stop;

/* --- the tree ------------------------------------------------------------------------------------ */

static void *take(void *p)
{
	if (!p)
		fail("out of memory");
	return p;
}

/* By a table: a hundred thousand threads may each have a name of their own. */
Node *callchild(Node *n, const char *name, Doing doing)
{
	static Node *table[SLOTS];
	static size_t count;
	uint64_t h = (uintptr_t)n;
	for (const char *s = name; *s; s++)
		h = h * 33 + (unsigned char)*s;
	Node **slot = &table[(h * 0x9e3779b97f4a7c15ull) >> 32 & (SLOTS - 1)];
	for (Node *c = *slot; c; c = c->chain)
		if (c->parent == n && !strcmp(c->name, name))
			return c;
	if (++count > MOSTCALLS)
		fail("profile: there are more different stacks than this command can keep");
	Node *c = take(calloc(1, sizeof *c));
	c->name = take(strdup(name));
	c->doing = doing;
	c->parent = n;
	c->chain = *slot;
	*slot = c;
	c->next = n->child;
	n->child = c;
	return c;
}

static int byname(const void *a, const void *b)
{
	return strcmp((*(Node *const *)a)->name, (*(Node *const *)b)->name);
}

static void sortchildren(Node *n)
{
	size_t count = 0, i = 0;
	for (Node *c = n->child; c; c = c->next)
		count++;
	if (count < 2)
		return;
	Node **all = take(malloc(count * sizeof(Node *))), **to = &n->child;
	for (Node *c = n->child; c; c = c->next)
		all[i++] = c;
	qsort(all, count, sizeof(Node *), byname);
	for (i = 0; i < count; i++, to = &(*to)->next)
		*to = all[i];
	*to = NULL;
	free(all);
}

void calltotals(Node *n)
{
	sortchildren(n);
	n->total = n->self;
	for (Node *c = n->child; c; c = c->next) {
		calltotals(c);
		n->total += c->total;
	}
}

/* --- names ------------------------------------------------------------------------------------------ */

/* ASCII, as goshim stat has it: it goes to terminals and into files of many kinds. */
static void printable(char *to, const char *from, size_t n)
{
	size_t i;
	for (i = 0; i + 1 < n && from[i]; i++)
		to[i] = (char)(from[i] < ' ' || from[i] == 127 ? '?' : from[i]);
	to[i] = 0;
}

/* What the innermost frames of a stack are in the middle of. */
static Doing doing(const ProfileStackRecord *r, char *text, size_t size)
{
	char wait[sizeof r->wait + 1];
	Name name = {.text = ""};
	printable(wait, r->wait, sizeof wait);
	switch (r->state) {
	case ProfileRuns: snprintf(text, size, "running"); return DoingRuns;
	case ProfileBlocked: snprintf(text, size, "waiting: in the kernel"); return DoingWaits;
	case ProfileSyscall: snprintf(text, size, "waiting: system call"); return DoingWaits;
	case ProfileRunnable: snprintf(text, size, "waiting: run queue"); return DoingQueues;
	default: break;
	}
	if (r->object)
		nameof(r->object, true, &name);
	printable(name.text, name.text, sizeof name.text);
	if (name.text[0] && name.offset)
		snprintf(text, size, "waiting: %s (%s+0x%lx)", wait, name.text, (long)name.offset);
	else if (name.text[0])
		snprintf(text, size, "waiting: %s (%s)", wait, name.text);
	else
		snprintf(text, size, "waiting: %s", wait);
	return DoingWaits;
}

static bool frameof(uint64_t frame, Name *name)
{
	/* A call's own address: what follows it may be another function. */
	uint64_t address = frame & PROFILE_ADDRESS;
	nameof(frame & (PROFILE_INTERRUPTED | PROFILE_SIGNAL) ? address : address - 1, false, name);
	return name->own;
}

static void framename(const Name *n, uint64_t frame, char *text, size_t size)
{
	const char *function =
	    strncmp(n->text, "shim_", n->own ? 5 : 0) || !n->own ? n->text : n->text + 5;
	if (frame & PROFILE_SIGNAL)
		snprintf(text, size, "[signal handler called]");
	else if (*function)
		snprintf(text, size, "%s", function);
	else if (n->file[0])
		snprintf(text, size, "%s+0x%lx", n->file, (long)n->address);
	else
		snprintf(text, size, "[code without a file]");
	printable(text, text, size);
}

/*
 * Frames of goshim's stand for one call of the program's, and only the outermost is shown: what the program called. Not
 * shown are those at the stack's end, what preempted it, and what called the program (core/traceback.c).
 */
static int framesof(const ProfileStackRecord *r, const char **names)
{
	Name name;
	char text[320];
	int n = (int)r->nframes, count = 0;
	for (int i = 0; i < n; i++) {
		int first = i;
		bool own = frameof(r->frame[i], &name) && !r->scheduler;
		while (own && i + 1 < n) {
			Name next;
			if (!frameof(r->frame[i + 1], &next))
				break;
			name = next;
			i++;
		}
		bool called = first == 0 || !strncmp(name.text, "shim_", 5);
		if (own && (i == n - 1 || (r->frame[i] & PROFILE_SIGNAL ? first == 0 : !called)))
			continue;
		framename(&name, r->frame[i], text, sizeof text);
		names[count++] = take(strdup(text));
	}
	return count;
}

/* --- records ------------------------------------------------------------------------------------------ */

static void addstack(Profile *p, const ProfileStackRecord *r)
{
	const char *names[ProfileFrames];
	char text[320], name[sizeof r->name + 1];
	if (p->nstacks == 0)
		p->first = r->id;
	if (r->id != p->first + p->nstacks)
		fail("process %d gave an answer that is not goshim's", p->target.pid);
	if ((p->nstacks & (p->nstacks + 1)) == 0) {
		size_t n = 2 * (p->nstacks + 1);
		p->stack = take(realloc(p->stack, n * sizeof *p->stack));
		p->touched = take(realloc(p->touched, n * sizeof *p->touched));
	}
	printable(name, r->name, sizeof name);
	Doing what = doing(r, text, sizeof text);
	Node *at = callchild(p->root,
			     r->scheduler ? "(scheduler)"
			     : name[0]    ? name
					  : p->comm,
			     DoingNothing);
	at = callchild(at, text, what);
	int n = framesof(r, names);
	if (n == 0) /* with frames of goshim's alone it is about to begin, or to end */
		at = callchild(at, r->nframes ? "[no function yet]" : "[stack not known]", what);
	else if (r->cut)
		at = callchild(at, "[more frames]", what);
	while (n-- > 0) {
		at = callchild(at, names[n], what);
		free((void *)names[n]);
	}
	p->stack[p->nstacks++] = (Stack){.leaf = at};
}

static void addsample(Profile *p, const ProfileSampleRecord *r)
{
	size_t i = r->stack - p->first;
	if (r->stack < p->first || i >= p->nstacks)
		fail("process %d gave an answer that is not goshim's", p->target.pid);
	Stack *s = &p->stack[i];
	if (s->exact + s->share == 0)
		p->touched[p->ntouched++] = i;
	s->exact += !r->share;
	s->share += !!r->share;
	p->samples++;
}

static void addtick(Profile *p, const ProfileTickRecord *r)
{
	double ns = r->ns > 0 ? (double)r->ns : 0;
	double each = r->walked ? (double)r->all / (double)r->walked : 0;
	for (size_t i = 0; i < p->ntouched; i++) {
		Stack *s = &p->stack[p->touched[i]];
		s->leaf->self += ns * (s->exact + s->share * each);
		s->exact = s->share = 0;
	}
	p->ntouched = 0;
	p->ns += ns;
	p->cpu = (double)r->cpu;
	p->ticks++;
}

/* Copies are aligned, and whole. */
static void addrecord(Profile *p, const ProfileRecord *r)
{
	const ProfileStackRecord *s = (const void *)r;
	switch (r->kind) {
	case ProfileObject:
		if (r->size >= sizeof(ProfileObjectRecord))
			namesadd(p->target.pid, (const void *)r);
		break;
	case ProfileStack:
		if (r->size >= sizeof *s && s->nframes <= ProfileFrames &&
		    r->size >= sizeof *s + 8ul * s->nframes)
			addstack(p, s);
		break;
	case ProfileSample:
		if (r->size >= sizeof(ProfileSampleRecord))
			addsample(p, (const void *)r);
		break;
	case ProfileTick:
		if (r->size >= sizeof(ProfileTickRecord))
			addtick(p, (const void *)r);
		break;
	}
}

/* --- the process ------------------------------------------------------------------------------------------ */

/* n bytes more; false: its end has come, or ours. until: ms, as now(). */
static bool receive(Profile *p, int fd, void *buf, size_t n, int64_t until, int64_t silentat)
{
	for (size_t have = 0; have < n;) {
		struct pollfd in = {.fd = fd, .events = POLLIN};
		/* What has begun is wanted whole. */
		int64_t t = now(), left = (have == 0 && until < silentat ? until : silentat) - t;
		if (stop || (have == 0 && t >= until))
			return false;
		if (left <= 0)
			silent(&p->target);
		if (poll(&in, 1, left > 1000 ? 1000 : (int)left) <= 0)
			continue;
		ssize_t r = recv(fd, (char *)buf + have, n - have, 0);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0) {
			p->ended = true;
			return false;
		}
		have += (size_t)r;
	}
	return true;
}

static int64_t patience(const Profile *p)
{
	return now() + (int64_t)(1000 * p->target.timeout + 2000.0 / p->what.hz);
}

/* Again, until it answers: a program that closes all descriptors may close that of the answer. */
static int begin(Profile *p)
{
	ProfileHeader h;
	int fd;
	for (int64_t end = patience(p);;) {
		fd = ask(&p->target, PROFILEREQUEST);
		if (send(fd, &p->what, sizeof p->what, MSG_NOSIGNAL) == sizeof p->what &&
		    receive(p, fd, &h, sizeof h, INT64_MAX, patience(p)))
			break;
		uid_t me = geteuid();
		if (stop)
			exit(130);
		if (me != 0 && me != p->target.user)
			fail("process %d belongs to another user", p->target.pid);
		if (now() > end)
			silent(&p->target);
		p->ended = false;
		close(fd);
	}
	if (memcmp(h.magic, PROFILE_MAGIC, sizeof h.magic))
		fail("process %d gave an answer that is not goshim's", p->target.pid);
	if (h.version != PROFILE_VERSION)
		fail("process %d runs another version of goshim (%u, this command knows %d)",
		     p->target.pid, h.version, PROFILE_VERSION);
	if (h.status == ProfileBusy)
		fail("process %d is being profiled already", p->target.pid);
	if (h.status != ProfileBegins)
		fail("process %d has no %s for it", p->target.pid,
		     h.status == ProfileNoThread ? "kernel thread" : "memory");
	return fd;
}

/* Until then, but for a moment's samples at least. False: the connection ended. */
static bool records(Profile *p, int fd, int64_t until)
{
	static union {
		ProfileRecord r;
		char bytes[MOSTRECORD];
	} u __attribute__((aligned(8)));
	int64_t silentat = patience(p);
	uint64_t ticks = p->ticks;
	while (receive(p, fd, &u.r, sizeof u.r, p->ticks ? until : INT64_MAX, silentat)) {
		if (u.r.size < sizeof u.r || u.r.size > sizeof u)
			fail("process %d gave an answer that is not goshim's", p->target.pid);
		if (!receive(p, fd, u.bytes + sizeof u.r, u.r.size - sizeof u.r, INT64_MAX,
			     patience(p)))
			break;
		addrecord(p, &u.r);
		/* Whatever else it says without end, it says nothing. */
		if (p->ticks != ticks)
			silentat = patience(p);
		ticks = p->ticks;
	}
	return !p->ended;
}

/* When this command has ended, the next one is not to find the process busy. */
static void hangup(Profile *p, int fd)
{
	char rest[4096];
	ssize_t n = 1;
	shutdown(fd, SHUT_WR);
	for (int64_t end = patience(p); n != 0 && now() < end;) {
		struct pollfd in = {.fd = fd, .events = POLLIN};
		if (poll(&in, 1, 100) > 0)
			n = recv(fd, rest, sizeof rest, MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			break;
	}
	close(fd);
}

static void collect(Profile *p)
{
	int fd = begin(p);
	int64_t until = now() + (int64_t)(p->seconds * 1000), end = patience(p);
	/* A program that closes all descriptors may have closed ours. */
	while (!records(p, fd, until) && p->ticks == 0 && now() < end) {
		close(fd);
		p->ended = false;
		p->nstacks = p->ntouched = 0;
		fd = begin(p);
	}
	hangup(p, fd);
}

/* --- what it comes to ------------------------------------------------------------------------------------------ */

typedef struct Line {
	const char *name[2];
	double ns;
} Line;

static int most(const void *a, const void *b)
{
	const Line *x = a, *y = b;
	return (x->ns < y->ns) - (x->ns > y->ns);
}

typedef struct Lines {
	Line *line;
	size_t n, size;
} Lines;

static void addline(Lines *l, const char *a, const char *b, double ns)
{
	if (l->n == l->size)
		l->line = take(realloc(l->line, (l->size = 2 * l->size + 64) * sizeof *l->line));
	l->line[l->n++] = (Line){{a, b}, ns};
}

/* By function, wherever it was called from. */
static void addleaves(Lines *l, const Node *n, Doing what)
{
	if (n->self > 0)
		addline(l, n->name, "", n->self);
	for (const Node *c = n->child; c; c = c->next)
		if (c->doing == what)
			addleaves(l, c, what);
}

static int bynames(const void *a, const void *b)
{
	const Line *x = a, *y = b;
	int order = strcmp(x->name[0], y->name[0]);
	return order ? order : strcmp(x->name[1], y->name[1]);
}

/* One line for those with the same names. */
static void merge(Lines *l)
{
	size_t n = 0;
	if (l->n)
		qsort(l->line, l->n, sizeof *l->line, bynames);
	for (size_t i = 0; i < l->n; i++) {
		if (n && bynames(&l->line[n - 1], &l->line[i]) == 0)
			l->line[n - 1].ns += l->line[i].ns;
		else
			l->line[n++] = l->line[i];
	}
	l->n = n;
}

static void printlines(Lines *l, const char *a, const char *b, size_t show)
{
	double all = 0;
	merge(l);
	qsort(l->line, l->n, sizeof *l->line, most);
	for (size_t i = 0; i < l->n; i++)
		all += l->line[i].ns;
	printf("\n%-*s%-*s %12s  %6s\n", *b ? 18 : 0, *b ? a : "", *b ? 30 : 48, *b ? b : a, "time",
	       "part");
	for (size_t i = 0; i < l->n && i < show; i++) {
		Line *x = &l->line[i];
		printf("%-*s%-*s %10.3f s  %5.1f %%\n", *b ? 18 : 0, *b ? x->name[0] : "",
		       *b ? 30 : 48, x->name[*b != 0], x->ns / 1e9, 100 * x->ns / all);
	}
	if (l->n > show)
		printf("... and %zu more\n", l->n - show);
	free(l->line);
}

static void summary(const Profile *p, const Title *t)
{
	Lines states = {0}, runs = {0};
	printf("%s\n%s\n", t->text, t->detail);
	for (const Node *thread = p->root->child; thread; thread = thread->next)
		for (const Node *state = thread->child; state; state = state->next) {
			addline(&states, thread->name, state->name, state->total);
			if (state->doing == DoingRuns)
				addleaves(&runs, state, DoingRuns);
		}
	if (states.n)
		printlines(&states, "thread", "does", 30);
	if (runs.n)
		printlines(&runs, "running in", "", 20);
}

static void titles(const Profile *p, Title *t)
{
	snprintf(t->text, sizeof t->text, "%s, process %d, for %.3g s%s", p->comm, p->target.pid,
		 p->ns / 1e9, p->ended ? ", until it ended" : "");
	snprintf(t->detail, sizeof t->detail,
		 "%lu samples at %lu moments; taking them cost %.2g %% of a CPU", (long)p->samples,
		 (long)p->ticks, p->ns > 0 ? 100 * p->cpu / p->ns : 0);
}

/* --- the command ------------------------------------------------------------------------------------------ */

static void interrupted(int sig)
{
	(void)sig;
	stop = 1;
}

static void readcomm(Profile *p)
{
	char comm[32];
	if (readproc(p->target.pid, "comm", comm, sizeof comm) < 0)
		comm[0] = 0;
	comm[strcspn(comm, "\n")] = 0;
	printable(p->comm, comm, sizeof p->comm);
}

int profile_(int argc, char **argv)
{
	enum { Seconds = 1, Hz, Folded, Svg, On, Off, Timeout, Force };
	static const struct option longs[] =
	    {{"seconds", 1, 0, Seconds}, {"hz", 1, 0, Hz},       {"folded", 1, 0, Folded},
	     {"svg", 1, 0, Svg},         {"on-cpu", 0, 0, On},   {"off-cpu", 0, 0, Off},
	     {"timeout", 1, 0, Timeout}, {"force", 0, 0, Force}, {0}};
	Profile p = {.seconds = 10,
		     .what = {PROFILE_MAGIC, PROFILE_VERSION, ProfileOnCPU | ProfileOffCPU, 99}};
	static OutputFile folded, svg;
	const char *foldedpath = NULL, *svgpath = NULL;
	double timeout = 10;
	bool force = false;
	int ch;
	opterr = 0;
	while ((ch = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (ch) {
		case Seconds: p.seconds = number("profile: --seconds", optarg, 0.1, 86400); break;
		case Hz: p.what.hz = (uint32_t)wholenumber("profile: --hz", optarg, 1, 1000); break;
		case Folded: foldedpath = optarg; break;
		case Svg: svgpath = optarg; break;
		case On: p.what.what = ProfileOnCPU; break;
		case Off: p.what.what = ProfileOffCPU; break;
		case Timeout: timeout = number("profile: --timeout", optarg, 0.1, 3600); break;
		case Force: force = true; break;
		default:
			fail(
			    "profile: %s: unknown, or its value is missing; see goshim profile --help",
			    argv[optind - 1]);
		}
	}
	if (optind + 1 != argc)
		fail("profile: want one process id; see goshim profile --help");
	if (foldedpath && svgpath && !strcmp(foldedpath, svgpath))
		fail("profile: --folded and --svg want two files");
	target(&p.target, (int)wholenumber("profile: process", argv[optind], 1, INT_MAX), timeout,
	       force, "profile");
	readcomm(&p);
	if (foldedpath)
		outputopen(&folded, "profile", foldedpath);
	if (svgpath)
		outputopen(&svg, "profile", svgpath);
	p.root = callchild(&(Node){0}, "all", DoingNothing);
	struct sigaction sa = {.sa_handler = interrupted};
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	collect(&p);
	if (p.ticks == 0)
		fail(p.ended ? "process %d has ended"
			     : "process %d: nothing was sampled in that time",
		     p.target.pid);
	Title t;
	titles(&p, &t);
	calltotals(p.root);
	if (folded.f != stdout && svg.f != stdout)
		summary(&p, &t);
	if (folded.f)
		writefolded(outputbegin(&folded), p.root);
	if (svg.f)
		writeflame(outputbegin(&svg), p.root, &t);
	if (folded.f)
		outputend(&folded);
	if (svg.f)
		outputend(&svg);
	return 0;
}
