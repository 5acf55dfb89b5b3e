/*
 * goshim trace: records what a process does for some seconds, and writes it as JSON for ui.perfetto.dev.
 *
 * While it lasts the events are only taken out and kept in memory: to make text of them would cost the process's
 * CPUs more than it costs the process to record them.
 */
#define _GNU_SOURCE
#include "goshim.h"
#include "locks_read.h"
#include "symbols_read.h"
#include "trace_json.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BYTESANEVENT = 40 /* of JSON, at least: more events than that are not kept */ };

static volatile sig_atomic_t interrupted;

static void interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

static double now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void nap(double seconds)
{
	struct timespec ts = {(time_t)seconds, (long)(fmod(seconds, 1) * 1e9)};
	nanosleep(&ts, NULL);
}

/* --- names of objects ------------------------------------------------------------------------- */

typedef struct Mapped {
	uint64_t lo, hi, base; /* base: where the file's first mapping is */
	char path[201];
} Mapped;

static struct {
	Mapped *list;
	size_t n;
} maps;

/* Data behind a file's last mapping is its, too. */
static void readmaps(int pid)
{
	char path[64], *line = NULL;
	size_t size = 0;
	snprintf(path, sizeof path, "/proc/%d/maps", pid);
	FILE *f = fopen(path, "re");
	while (f && getline(&line, &size, f) > 0) {
		unsigned long lo, hi;
		int at = 0;
		line[strcspn(line, "\n")] = 0;
		if (sscanf(line, "%lx-%lx %*s %*x %*s %*u %n", &lo, &hi, &at) < 2 || !at)
			continue;
		Mapped *last = maps.n ? &maps.list[maps.n - 1] : NULL;
		const char *slash = strrchr(line + at, '/');
		if (line[at] && !slash)
			continue;
		if (!slash && !(last && last->hi == lo))
			continue;
		Mapped *list = realloc(maps.list, (maps.n + 1) * sizeof *list);
		if (!list)
			break;
		maps.list = list;
		Mapped *m = &list[maps.n++];
		last = maps.n > 1 ? m - 1 : NULL;
		*m = (Mapped){.lo = lo, .hi = hi, .base = lo};
		snprintf(m->path, sizeof m->path, "%s", slash ? line + at : last->path);
		if (last && !strcmp(last->path, m->path))
			m->base = last->base;
	}
	free(line);
	if (f)
		fclose(f);
}

typedef struct Names {
	const MetricsSource *source;
	const Metrics *metrics;
	char root[40];
} Names;

/* As goshim locks calls it; else its symbol, its file, and how far it is in that; else the address. */
static const char *objectname(void *arg, uint64_t address)
{
	const Names *names = arg;
	static char name[LockName + 16];
	unsigned long long offset = address;
	const Mapped *m = maps.list, *end = m + maps.n;
	if (lockcalled(names->source, names->metrics, address, name))
		return name;
	while (m < end && !(address >= m->lo && address < m->hi))
		m++;
	snprintf(name, sizeof name, "0x%llx", offset);
	if (m < end) {
		Module file = {.idsize = 0};
		char symbol[SymbolSize];
		uint64_t at;
		snprintf(file.path, sizeof file.path, "%s", m->path);
		offset = address - m->base;
		if (!symbolat(names->root, &file, offset, true, symbol, &at))
			snprintf(name, sizeof name, "%.*s+0x%llx", SymbolSize - 1,
				 strrchr(m->path, '/') + 1, offset);
		else if (at)
			snprintf(name, sizeof name, "%s+0x%llx", symbol, (unsigned long long)at);
		else
			snprintf(name, sizeof name, "%s", symbol);
	}
	for (char *p = name; *p; p++)
		if (*p < ' ' || *p == '"' || *p == '\\' || *p == 127)
			*p = '?';
	return name;
}

/* --- recording -------------------------------------------------------------------------------- */

/* Has the process the region no more, since it called exec? */
static bool gone(const MetricsSource *s)
{
	char path[64], *line = NULL;
	size_t size = 0;
	struct stat st;
	bool any = false, found = false;
	snprintf(path, sizeof path, "/proc/%d/maps", s->pid);
	if (fstat(s->fd, &st))
		return false;
	FILE *f = fopen(path, "re");
	while (f && !found && getline(&line, &size, f) > 0) {
		unsigned long lo, inode = 0;
		if (sscanf(line, "%lx-%*x %*s %*x %*s %lu", &lo, &inode) != 2)
			continue;
		any = true;
		found = s->offset ? lo == s->offset : inode == st.st_ino;
	}
	free(line);
	if (f)
		fclose(f);
	return any && !found; /* one that has ended has no lines */
}

typedef struct Bounds {
	double seconds;
	size_t bytes;
} Bounds;

/* Until the time is over, the process, or the room; what is said of that, or NULL. */
static const char *record(Tracing *t, const Bounds *b)
{
	enum { LOOK = 100 /* ms between looks whether it is still there */ };
	double end = now() + b->seconds, look = 0, fullest = 0;
	while (!interrupted && now() < end) {
		double left = end - now(), wait = fullest > 0.1 ? 0.001 : 0.005;
		nap(left < wait ? (left > 0 ? left : 0) : wait);
		if (!metricsalive(t->source)) {
			tracetake(t, true, &fullest);
			return "has ended";
		}
		if (!tracetake(t, false, &fullest))
			return metricsalive(t->source) ? "can't be read any more" : "has ended";
		if (t->ntaken > b->bytes / BYTESANEVENT)
			return NULL;
		if (now() >= look) {
			if (gone(t->source))
				return "has called exec";
			look = now() + LOOK / 1000.0;
		}
	}
	traceend(t);
	nap(0.001); /* who has begun one ends it */
	tracetake(t, true, &fullest);
	return interrupted ? "goes on" : NULL;
}

static void trace(MetricsSource *s, const Bounds *b, OutputFile *o)
{
	char why[WhySize];
	Metrics before, after;
	static Tracing t;
	TraceSummary sum;
	Names names = {.source = s};
	TraceNamer namer = {objectname, &names};
	snprintf(names.root, sizeof names.root, "/proc/%d/root", s->pid);
	if (!metricsread(s, &before, why))
		fail("%s", why);
	if (!tracebegin(&t, s, &before, why))
		fail("%s", why);
	readmaps(s->pid); /* while it is there */
	double began = now();
	const char *what = record(&t, b);
	if (t.endticks == 0)
		traceend(&t);
	double took = now() - began;
	bool have = metricsread(s, &after, why);
	tracesort(&t);
	names.metrics = have ? &after : &before;
	tracejson(outputbegin(o), &t, &before, have ? &after : &before, &namer, b->bytes, &sum);
	outputend(o);
	fprintf(stderr,
		"goshim: %.3f s of process %d in %s: %zu events, %zu goroutines, %zu arrows",
		sum.seconds, s->pid, o->f == stdout ? "stdout" : o->path, sum.events,
		sum.goroutines, sum.arrows);
	if (what && strcmp(what, "goes on"))
		fprintf(stderr, "; the process %s after %.3f s", what, took);
	if (sum.cut || t.ntaken > b->bytes / BYTESANEVENT)
		fprintf(stderr, "; cut off at %zu bytes", b->bytes);
	fputc('\n', stderr);
	if (t.lost)
		fprintf(stderr,
			"goshim: %llu events were lost: they came faster than they were read\n",
			(unsigned long long)t.lost);
	if (t.paused)
		fprintf(stderr, "goshim: nothing was recorded for %.3f s\n",
			(double)t.pausedns / 1e9);
	metricsfree(&before);
	if (have)
		metricsfree(&after);
	tracefree(&t);
}

/* --- the command ------------------------------------------------------------------------------ */

/* Runs CMD, and records it from when it has made a thread. CMD's exit status, when it ends. */
static int command(const Bounds *b, const char *output, int argc, char **argv)
{
	char why[WhySize];
	int status;
	MetricsSource s = {.fd = -1};
	static OutputFile o;
	outputopen(&o, "trace", output);
	pid_t child = forkprogram();
	if (child == 0) {
		char *args[argc + 2];
		args[0] = (char *)"run";
		memcpy(args + 1, argv, ((size_t)argc + 1) * sizeof *argv);
		optind = 0;
		exit(run(argc + 1, args));
	}
	siginfo_t info = {0};
	bool open = false;
	while (!open && waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT | WNOHANG) == 0 &&
	       info.si_pid == 0) {
		Metrics m;
		open = metricsopen(&s, child, why) && metricsread(&s, &m, why);
		if (open)
			metricsfree(&m);
		else
			metricsclose(&s);
		if (!open)
			nap(0.0002);
	}
	if (open)
		trace(&s, b, &o);
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			fail("wait: %s", strerror(errno));
	int exits = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	if (!open && exits != CANTRUN && exits != NOTFOUND)
		fprintf(stderr, "goshim: %s has made no thread, so nothing was recorded\n",
			argv[0]);
	metricsclose(&s);
	return exits;
}

int trace_(int argc, char **argv)
{
	enum { Seconds = 1, Bytes, Output };
	static const struct option longs[] = {{"seconds", 1, 0, Seconds},
					      {"bytes", 1, 0, Bytes},
					      {"output", 1, 0, Output},
					      {0}};
	Bounds b = {5, 200000000};
	const char *output = "goshim-trace.json";
	char why[WhySize];
	MetricsSource s;
	int ch;
	opterr = 0;
	while ((ch = getopt_long(argc, argv, "+", longs, NULL)) != -1) {
		switch (ch) {
		case Seconds: b.seconds = number("trace: --seconds", optarg, 0.001, 3600); break;
		case Bytes:
			b.bytes = (size_t)wholenumber("trace: --bytes", optarg, 10000, 4000000000);
			break;
		case Output: output = optarg; break;
		default:
			fail("trace: %s: unknown, or its value is missing; see goshim trace --help",
			     argv[optind - 1]);
		}
	}
	if (optind < argc && !strcmp(argv[optind - 1], "--"))
		return command(&b, output, argc - optind, argv + optind);
	if (optind + 1 != argc)
		fail("trace: want one process id, or -- and a command; see goshim trace --help");
	int pid = (int)wholenumber("trace: process", argv[optind], 1, INT_MAX);
	if (!metricsopen(&s, pid, why))
		fail("%s", why);
	if (s.dead) {
		metricsclose(&s);
		fail("process %d has ended", pid);
	}
	struct sigaction a = {.sa_handler = interrupt};
	sigaction(SIGINT, &a, NULL);
	sigaction(SIGTERM, &a, NULL);
	static OutputFile o;
	outputopen(&o, "trace", output);
	trace(&s, &b, &o);
	metricsclose(&s);
	return 0;
}
