/*
 * One round of goshim compare: a fresh server, loaded once, and ended.
 *
 * The server has a process group of its own, and so has a load that is a command: what they start is counted and
 * ended with them. Nothing else is: a port that somebody listens on already is refused. The built-in client runs in a
 * child, since it is made for one run. One that makes itself a daemon becomes our child
 * when its parent ends, and is found by that. Whatever ends this process ends them all before; a SIGKILL, which nobody
 * can see coming, takes at least the two children with it (PR_SET_PDEATHSIG).
 */
#define _GNU_SOURCE
#include "compare.h"

#include "../shim/dump.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TICK = 10 /* ms */, ENDING = 10000 /* ms from TERM to KILL */, OUTPUT = 1 << 20 };

extern char **environ;

static pid_t self, server, loader; /* groups; 0: none */
static int serverlog = -1, signals = -1;
static sigset_t watched, before;
static bool dirty; /* the line of progress is not ended */

/* --- what is said ------------------------------------------------------------------------------- */

void progress(const Plan *p, const char *fmt, ...)
{
	va_list ap;
	if (p->quiet)
		return;
	va_start(ap, fmt);
	dirty = isatty(2) && *fmt;
	if (isatty(2))
		fputs("\r\033[K", stderr);
	vfprintf(stderr, fmt, ap);
	if (!isatty(2))
		fputc('\n', stderr);
	va_end(ap);
}

void endprogress(void)
{
	if (dirty)
		fputc('\n', stderr);
	dirty = false;
}

/* The load client's own complaints. */
_Noreturn void die(int code, const char *fmt, ...)
{
	va_list ap;
	endprogress();
	va_start(ap, fmt);
	fputs("goshim: compare: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	exit(code);
}

static void showlog(void)
{
	char buf[2000];
	ssize_t n = 0;
	off_t size = serverlog < 0 ? 0 : lseek(serverlog, 0, SEEK_END);
	off_t from = size > (off_t)sizeof buf ? size - (off_t)sizeof buf : 0;
	if (size > 0 && (n = pread(serverlog, buf, sizeof buf, from)) > 0)
		fprintf(stderr, "--- what the server said last:\n%.*s%s", (int)n, buf,
			buf[n - 1] == '\n' ? "" : "\n");
}

/* --- processes ------------------------------------------------------------------------------------ */

static bool pause_ms(int ms);

/* Has the leader of a group ended? It is not waited for, so that its id stays its own. */
static bool ended(pid_t pid, siginfo_t *info)
{
	info->si_pid = 0;
	return waitid(P_PID, (id_t)pid, info, WEXITED | WNOHANG | WNOWAIT) == 0 && info->si_pid;
}

static const char *signame(int sig)
{
	const char *name = sigabbrev_np(sig);
	return name ? name : "RT";
}

static void howended(const siginfo_t *info, char *buf, size_t size)
{
	if (info->si_code == CLD_EXITED)
		snprintf(buf, size, "ended with exit status %d", info->si_status);
	else
		snprintf(buf, size, "was ended by SIG%s", signame(info->si_status));
}

/* TERM, and KILL for what stays. The leader is waited for last: until then no other group can have the number. */
static void endgroup(pid_t *group)
{
	siginfo_t info;
	pid_t pid = *group;
	if (!pid)
		return;
	*group = 0;
	kill(-pid, SIGTERM);
	for (int ms = 0; ms < ENDING && !ended(pid, &info); ms += TICK)
		usleep(TICK * 1000);
	kill(-pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* Sends a signal, unless it is 0, to those children of ours that are neither server nor load. True if there are any. */
static bool orphans(int sig)
{
	DIR *d = opendir("/proc");
	bool any = false;
	for (struct dirent *e; d && (e = readdir(d));) {
		char path[300], stat[512], *p;
		int parent;
		pid_t pid = atoi(e->d_name);
		if (pid <= 0 || pid == server || pid == loader)
			continue;
		snprintf(path, sizeof path, "/proc/%d/stat", pid);
		FILE *f = fopen(path, "re");
		bool ours = f && fgets(stat, sizeof stat, f) && (p = strrchr(stat, ')')) &&
			    sscanf(p, ") %*c %d", &parent) == 1 && parent == self;
		if (f)
			fclose(f);
		if (!ours || waitpid(pid, NULL, WNOHANG) == pid)
			continue;
		any = true;
		if (sig)
			kill(pid, sig);
	}
	if (d)
		closedir(d);
	return any;
}

/* The server, and what it has started and left, also in sessions of their own. */
static void endserver(void)
{
	endgroup(&server);
	for (int ms = 0; orphans(ms == 0 ? SIGTERM : ms > ENDING / 5 ? SIGKILL : 0); ms += TICK)
		usleep(TICK * 1000);
}

static void endall(void)
{
	if (getpid() != self)
		return;
	endgroup(&loader);
	endserver();
}

static noreturn void interrupted(int sig)
{
	endprogress();
	fprintf(stderr, "goshim: compare: ended by SIG%s\n", signame(sig));
	endall();
	signal(sig, SIG_DFL);
	sigprocmask(SIG_SETMASK, &before, NULL);
	raise(sig);
	_exit(128 + sig);
}

void watchsignals(void)
{
	self = getpid();
	prctl(PR_SET_CHILD_SUBREAPER, 1); /* whose parent ends is our child then */
	sigemptyset(&watched);
	for (const int *s = (const int[]){SIGINT, SIGTERM, SIGHUP, 0}; *s; s++) {
		struct sigaction a;
		/* Started in the background, it may have them ignored. */
		if (sigaction(*s, NULL, &a) == 0 && a.sa_handler != SIG_IGN)
			sigaddset(&watched, *s);
	}
	sigprocmask(SIG_BLOCK, &watched, &before);
	signals = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals < 0)
		fail("signalfd: %s", strerror(errno));
	if (atexit(endall))
		fail("out of memory");
}

/* Waits, until there is something to be read if fd is not -1. True if there is. */
static bool waitfor(int fd, int ms)
{
	struct pollfd p[2] = {{.fd = signals, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
	struct signalfd_siginfo info;
	if (poll(p, fd < 0 ? 1 : 2, ms) > 0 && read(signals, &info, sizeof info) == sizeof info)
		interrupted((int)info.ssi_signo);
	return fd >= 0 && p[1].revents;
}

static bool pause_ms(int ms)
{
	return waitfor(-1, ms);
}

/* In a child: a group of its own, which ends with us. */
static void lead(void)
{
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != self)
		_exit(1);
	sigprocmask(SIG_SETMASK, &before, NULL);
	server = loader = 0;
}

static void redirect(int fd, int to)
{
	if (fd < 0 || dup2(fd, to) < 0)
		_exit(1);
}

/* --- the server ------------------------------------------------------------------------------------- */

/* A word with each {port} replaced. */
static char *withport(const char *word, long port)
{
	char *out = NULL;
	size_t size;
	FILE *f = open_memstream(&out, &size);
	for (const char *at; f && (at = strstr(word, "{port}")); word = at + strlen("{port}"))
		fprintf(f, "%.*s%ld", (int)(at - word), word, port);
	if (!f || fputs(word, f) < 0 || fclose(f))
		fail("out of memory");
	return out;
}

static bool usesport(const Plan *p)
{
	bool uses = strstr(p->load, "{port}") != NULL;
	for (char **word = p->server; *word; word++)
		uses |= strstr(*word, "{port}") != NULL;
	return uses;
}

static long freeport(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof sa;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, n) ||
	    getsockname(fd, (struct sockaddr *)&sa, &n))
		fail("no free port: %s", strerror(errno));
	close(fd);
	return ntohs(sa.sin_port);
}

static void startserver(const Plan *p, const Mode *mode, long port)
{
	Refusal r;
	int words = 0, pipes[2];
	while (p->server[words])
		words++;
	char **argv = calloc((size_t)words + 1, sizeof *argv);
	if (!argv)
		fail("out of memory");
	for (int i = 0; i < words; i++)
		argv[i] = withport(p->server[i], port);
	char *path = findprogram(argv[0], &r);
	if (!path || (mode->library && !takeslibrary(path, &r)))
		fail("compare: %s", r.why);
	if (serverlog >= 0)
		close(serverlog);
	serverlog = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC | O_APPEND, 0600);
	if (serverlog < 0)
		serverlog = memfd_create("log", MFD_CLOEXEC);
	if (serverlog < 0 || pipe2(pipes, O_CLOEXEC))
		fail("compare: %s", strerror(errno));
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		lead();
		redirect(open("/dev/null", O_RDWR), 0);
		redirect(serverlog, 1);
		redirect(serverlog, 2);
		preload(mode->library);
		if (mode->settings)
			addtosettings(mode->settings);
		execve(path, argv, environ);
		int e = errno;
		_exit(write(pipes[1], &e, sizeof e) != sizeof e);
	}
	if (pid < 0)
		fail("compare: fork: %s", strerror(errno));
	setpgid(pid, pid);
	server = pid;
	close(pipes[1]);
	int e;
	if (read(pipes[0], &e, sizeof e) == sizeof e)
		fail("compare: %s: %s", path, strerror(e));
	close(pipes[0]);
	for (int i = 0; i < words; i++)
		free(argv[i]);
	free(argv);
	free(path);
}

static noreturn void serverfailed(const Mode *mode, const char *when)
{
	siginfo_t info;
	char how[64] = "";
	if (ended(server, &info))
		howended(&info, how, sizeof how);
	endprogress();
	fprintf(stderr, "goshim: compare: the server (%s) %s%s%s\n", mode->name, how,
		*how ? " " : "", when);
	showlog();
	exit(1);
}

/* --- does it listen? ---------------------------------------------------------------------------------- */

/* Calls f for each process of the server's group until that says something other than 0, and says it. */
static int eachprocess(int (*f)(const char *pid, void *arg), void *arg)
{
	DIR *d = opendir("/proc");
	int r = 0;
	for (struct dirent *e; d && !r && (e = readdir(d));) {
		pid_t pid = atoi(e->d_name);
		if (pid > 0 && getpgid(pid) == server)
			r = f(e->d_name, arg);
	}
	if (d)
		closedir(d);
	return r;
}

static int listensin(const char *pid, void *arg)
{
	return holdslistener(arg, pid);
}

static bool listens(long port)
{
	Listeners l;
	findlisteners(&l, port);
	int r = l.n ? eachprocess(listensin, &l) : 0;
	return r > 0 || (r < 0 && port);
}

static int maps(const char *pid, void *arg)
{
	char path[300], *line = NULL;
	size_t size = 0;
	int found = 0;
	(void)arg;
	snprintf(path, sizeof path, "/proc/%s/maps", pid);
	FILE *f = fopen(path, "re");
	if (!f)
		return -1;
	while (!found && getline(&line, &size, f) > 0)
		found = strstr(line, "/" LIBRARY) != NULL;
	free(line);
	fclose(f);
	return found;
}

static void awaitserver(const Plan *p, const Mode *mode, long port)
{
	siginfo_t info;
	uint64_t end = now_ns() + (uint64_t)(p->wait * 1e9);
	char when[96];
	while (!listens(port)) {
		if (ended(server, &info))
			serverfailed(mode, info.si_status ? "before it listened"
							  : "before it listened; it must stay "
							    "in the foreground");
		if (now_ns() > end) {
			char where[32] = "";
			if (port)
				snprintf(where, sizeof where, " on port %ld", port);
			snprintf(when, sizeof when, "does not listen%s within %g s", where,
				 p->wait);
			serverfailed(mode, when);
		}
		pause_ms(TICK);
	}
	if (mode->library && eachprocess(maps, NULL) == 0)
		serverfailed(mode, "runs without " LIBRARY ": did it, or what starts it, clear "
				   "LD_PRELOAD?");
}

/* The last round's server may need a moment to give it back. */
static void awaitport(long port)
{
	Listeners l;
	for (int ms = 0; port; ms += TICK) {
		findlisteners(&l, port);
		if (!l.n)
			return;
		if (ms > 2000)
			fail("compare: somebody listens on port %ld already", port);
		pause_ms(TICK);
	}
}

/* --- the load ------------------------------------------------------------------------------------------ */

/* What the load said of a figure: "key": 1.5, or a line key=1.5. */
static double said(const char *text, const char *key)
{
	size_t n = strlen(key);
	for (const char *p = text; (p = strstr(p, key)); p += n) {
		const char *q = p + n;
		bool json = p > text && p[-1] == '"' && *q == '"';
		if (!json && ((p > text && p[-1] != '\n' && p[-1] != ' ') || *q != '='))
			continue;
		q += json;
		q += strspn(q, " \t");
		if (*q != (json ? ':' : '='))
			continue;
		char *end;
		double v = strtod(q + 1, &end);
		if (end != q + 1 && isfinite(v))
			return v;
	}
	return NAN;
}

static void awaitload(const Plan *p, const Mode *mode, int fd, char *text)
{
	siginfo_t info, died;
	size_t n = 0;
	bool open = fd >= 0;
	while (open || !ended(loader, &info)) {
		if (open && waitfor(fd, 100)) {
			char rest[4096];
			bool room = n < OUTPUT - 1;
			ssize_t r =
			    room ? read(fd, text + n, OUTPUT - 1 - n) : read(fd, rest, sizeof rest);
			open = r > 0;
			n += room && r > 0 ? (size_t)r : 0;
		} else if (!open) {
			pause_ms(TICK);
		}
		if (ended(server, &died)) {
			endgroup(&loader);
			serverfailed(mode, "under load");
		}
		/* What the load has left behind may keep the pipe open. */
		if (open && ended(loader, &info) && !waitfor(fd, 0))
			open = false;
	}
	if (text)
		text[n] = 0;
	endgroup(&loader); /* what it has left behind */
	if (info.si_code == CLD_EXITED && info.si_status == 0)
		return;
	char how[64];
	howended(&info, how, sizeof how);
	endprogress();
	fprintf(stderr, "goshim: compare: the load on the server (%s) %s%s%s\n", mode->name, how,
		p->builtin ? "" : ": ", p->builtin ? "" : p->load);
	if (text && *text)
		fprintf(stderr, "--- what it said last:\n%s\n", text + (n > 2000 ? n - 2000 : 0));
	showlog();
	exit(1);
}

static void startload(void (*run)(void *), void *arg, int out)
{
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		lead();
		if (out >= 0)
			redirect(out, 1);
		run(arg);
		_exit(1);
	}
	if (pid < 0)
		fail("compare: fork: %s", strerror(errno));
	setpgid(pid, pid);
	loader = pid;
}

static void serverfigures(const struct sample *a, const struct sample *b, double requests,
			  Round *out)
{
	double cpu = (double)(b->cpu_us - a->cpu_us);
	double queued = (double)b->queued_ns - (double)a->queued_ns;
	double switches =
	    (double)(b->voluntary + b->involuntary) - (double)(a->voluntary + a->involuntary);
	out->value[CPURUN] = cpu / 1e3;
	out->value[SWITCHRUN] = switches;
	out->value[RSS] = (double)b->rss_kb / 1024;
	out->value[THREADS] = b->threads;
	if (requests > 0) {
		out->value[CPUREQUEST] = cpu / requests;
		out->value[SWITCHREQUEST] = switches / requests;
		/* Less: threads have ended, and nobody knows how long they had waited. */
		if (queued >= 0)
			out->value[QUEUEREQUEST] = queued / 1e3 / requests;
	}
}

static int addspent(const char *pid, void *arg)
{
	spentby(atoi(pid), arg);
	return 0;
}

/* What the server's threads have spent so far, as the library has counted it. */
static Spent spent(const Mode *mode)
{
	Spent s = {0};
	if (mode->library)
		eachprocess(addspent, &s);
	return s;
}

static void spentfigures(const Mode *mode, Spent before, double requests, Round *out)
{
	out->spent = spent(mode);
	if (!out->spent.there || !(requests > 0))
		return;
	if (!mode->kernel)
		out->value[GOQUEUEREQUEST] = (out->spent.queued - before.queued) / 1e3 / requests;
	out->value[LOCKREQUEST] = (out->spent.locks - before.locks) / 1e3 / requests;
}

typedef struct Client {
	struct options o;
	struct result *r;
} Client;

static void runclient(void *arg)
{
	Client *c = arg;
	_exit(load_run(&c->o, c->r));
}

static void builtinload(const Plan *p, const Mode *mode, const char *spec, Round *out)
{
	char why[256];
	Client c = {.o = p->client};
	Spent before = spent(mode);
	if (!load_spec(&c.o, spec, why, sizeof why) || !load_complete(&c.o, why, sizeof why))
		fail("compare: --load: %s", why);
	if (p->rate > 0)
		c.o.rate = p->rate;
	c.o.pid = server;
	c.o.group = true;
	c.r = mmap(NULL, sizeof *c.r, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	out->hist = malloc(sizeof *out->hist);
	if (c.r == MAP_FAILED || !out->hist)
		fail("out of memory");
	startload(runclient, &c, -1);
	awaitload(p, mode, -1, NULL);
	const struct result *r = c.r;
	const struct hist *h = &r->hist;
	double requests = (double)(r->until.answers - r->from.answers);
	*out->hist = *h;
	out->value[THROUGHPUT] = requests / ((double)(r->until.t - r->from.t) / 1e9);
	out->value[P50] = (double)hist_value(h, .5) / 1e3;
	out->value[P90] = (double)hist_value(h, .9) / 1e3;
	out->value[P99] = (double)hist_value(h, .99) / 1e3;
	out->value[P999] = (double)hist_value(h, .999) / 1e3;
	out->value[MAX] = (double)h->max / 1e3;
	serverfigures(&r->from, &r->until, requests, out);
	out->value[THREADS] = r->max_threads;
	spentfigures(mode, before, (double)r->answers, out);
	if (c.o.rate > 0)
		out->value[CLIENTLATE] = (double)hist_value(&r->late, .99) / 1e3;
	munmap(c.r, sizeof *c.r);
}

static void runcommand(void *arg)
{
	execl("/bin/sh", "sh", "-c", (char *)arg, (char *)NULL);
}

static void commandload(const Plan *p, const Mode *mode, char *command, Round *out)
{
	struct sample a, b;
	int pipes[2];
	char *text = malloc(OUTPUT);
	if (!text || pipe2(pipes, O_CLOEXEC))
		fail("compare: %s", strerror(errno));
	Spent before = spent(mode);
	take_sample(&a, server, true);
	startload(runcommand, command, pipes[1]);
	close(pipes[1]);
	awaitload(p, mode, pipes[0], text);
	close(pipes[0]);
	take_sample(&b, server, true);
	for (int m = THROUGHPUT; m <= MAX; m++)
		out->value[m] = said(text, metrics[m].key);
	out->value[SECONDS] = (double)(b.t - a.t) / 1e9;
	serverfigures(&a, &b, said(text, "requests"), out);
	spentfigures(mode, before, said(text, "requests"), out);
	free(text);
}

void oneround(const Plan *p, const Mode *mode, Round *out)
{
	struct options o = p->client;
	char why[256];
	long port = usesport(p) ? freeport() : p->port;
	char *load = withport(p->load, port);
	for (int m = 0; m < NMETRICS; m++)
		out->value[m] = NAN;
	if (p->builtin && load_spec(&o, load, why, sizeof why))
		port = o.port;
	awaitport(port);
	startserver(p, mode, port);
	awaitserver(p, mode, port);
	if (p->builtin)
		builtinload(p, mode, load, out);
	else
		commandload(p, mode, load, out);
	siginfo_t info;
	if (ended(server, &info))
		serverfailed(mode, "under load");
	out->idle = mode->library && !out->spent.there;
	endserver();
	free(load);
}
