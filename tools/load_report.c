/*
 * What is measured of the server, as /proc shows it; and how a run's figures are printed.
 */
#define _GNU_SOURCE
#include "load.h"
#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bool read_file(const char *path, char *buf, size_t size)
{
	FILE *f = fopen(path, "re");
	if (!f)
		return false;
	size_t n = fread(buf, 1, size - 1, f);
	fclose(f);
	buf[n] = 0;
	return n > 0;
}

/* The number behind a name in a status file, or 0. */
static uint64_t field_of(const char *buf, const char *name)
{
	const char *p = strstr(buf, name);
	return p ? strtoull(p + strlen(name), NULL, 10) : 0;
}

static void sample_threads(struct sample *s, int pid)
{
	char path[96], buf[4096];
	snprintf(path, sizeof path, "/proc/%d/task", pid);
	DIR *d = opendir(path);
	struct dirent *e;
	while (d && (e = readdir(d))) {
		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		s->threads++;
		snprintf(path, sizeof path, "/proc/%d/task/%.20s/status", pid, e->d_name);
		if (!read_file(path, buf, sizeof buf))
			continue;
		s->voluntary += field_of(buf, "\nvoluntary_ctxt_switches:");
		s->involuntary += field_of(buf, "\nnonvoluntary_ctxt_switches:");
		uint64_t queued;
		snprintf(path, sizeof path, "/proc/%d/task/%.20s/schedstat", pid, e->d_name);
		if (read_file(path, buf, sizeof buf) && sscanf(buf, "%*u %" SCNu64, &queued) == 1)
			s->queued_ns += queued;
	}
	if (d)
		closedir(d);
}

/* Adds what a process has used, and those of its children that it has waited for; false when it is gone. */
static bool sample_process(struct sample *s, int pid, int group)
{
	char path[96], buf[4096];
	int pgrp;
	long long children, more;
	struct timespec ts;
	clockid_t clock;
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	char *p = read_file(path, buf, sizeof buf) ? strrchr(buf, ')') : NULL;
	if (!p ||
	    sscanf(p, ") %*c %*d %d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %lld %lld", &pgrp,
		   &children, &more) != 3 ||
	    (group && pgrp != group))
		return false;
	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &ts))
		return false;
	s->cpu_us += (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
	s->cpu_us += (uint64_t)((double)(children + more) * 1e6 / (double)sysconf(_SC_CLK_TCK));
	snprintf(path, sizeof path, "/proc/%d/status", pid);
	if (read_file(path, buf, sizeof buf))
		s->rss_kb += field_of(buf, "\nVmHWM:");
	sample_threads(s, pid);
	return true;
}

void take_sample(struct sample *s, int pid, bool group)
{
	memset(s, 0, sizeof *s);
	if (pid && !sample_process(s, pid, 0))
		die(1, "the server (pid %d) is gone", pid);
	if (pid && group) {
		DIR *d = opendir("/proc");
		struct dirent *e;
		while (d && (e = readdir(d))) {
			int other = atoi(e->d_name);
			if (other && other != pid)
				sample_process(s, other, pid);
		}
		if (d)
			closedir(d);
	}
	s->syscalls = syscalls_counted();
	for (unsigned i = 0; i < opt.workers; i++)
		s->answers += atomic_load(&workers[i].answers);
	s->t = now_ns();
}

static bool first_field = true, as_json;

static void field(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void field(const char *name, const char *fmt, ...)
{
	char v[64];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(v, sizeof v, fmt, ap);
	va_end(ap);
	bool number = !strchr("sx", fmt[strlen(fmt) - 1]);
	if (!as_json)
		printf("%s=%s\n", name, v);
	else
		printf("%s\"%s\": %s%s%s", first_field ? "{" : ", ", name, number ? "" : "\"", v,
		       number ? "" : "\"");
	first_field = false;
}

static double us(uint64_t ns)
{
	return (double)ns / 1e3;
}

static void report_server(const struct options *o, const struct result *r, double requests)
{
	const struct sample *a = &r->from, *b = &r->until;
	double v = (double)b->voluntary - (double)a->voluntary;
	double iv = (double)b->involuntary - (double)a->involuntary;
	field("server_threads", "%u", r->max_threads);
	field("server_rss_kb", "%" PRIu64, b->rss_kb);
	field("server_cpu_us", "%" PRIu64, b->cpu_us - a->cpu_us);
	field("server_cpu_us_per_request", "%.3f", (double)(b->cpu_us - a->cpu_us) / requests);
	field("server_voluntary_switches", "%.0f", v);
	field("server_involuntary_switches", "%.0f", iv);
	field("server_switches", "%.0f", v + iv);
	field("server_switches_per_request", "%.4f", (v + iv) / requests);
	if (o->syscalls)
		field("server_syscalls_per_request", "%.4f",
		      (double)(b->syscalls - a->syscalls) / requests);
}

void report(const struct options *o, const struct result *r, bool json)
{
	const struct hist *h = &r->hist;
	double secs = (double)(r->until.t - r->from.t) / 1e9;
	double done = (double)(r->until.answers - r->from.answers);
	as_json = json;
	field("protocol", "%s", protocol_names[o->protocol]);
	field("connections", "%u", o->connections);
	field("seconds", "%.3f", secs);
	field("requests", "%.0f", done);
	field("throughput", "%.1f", done / secs);
	if (o->protocol == MEMCACHED || o->protocol == REDIS) {
		field("gets", "%" PRIu64, r->gets);
		field("sets", "%" PRIu64, r->sets);
		field("hits_verified", "%" PRIu64, r->hits);
		field("early_misses", "%" PRIu64, r->misses);
	}
	if (o->protocol == HTTP) {
		field("reconnects", "%" PRIu64, r->reconnects);
		field("body_length", "%" PRIu64, r->length);
		field("body_digest", "%016" PRIx64, r->digest);
	}
	field("answers_checked", "%" PRIu64, r->answers);
	field("wrong", "%" PRIu64, r->wrong);
	field("failed", "%" PRIu64, r->failed);
	if (o->rate) {
		field("planned", "%" PRIu64, h->total);
		field("unsent", "%" PRIu64, r->unsent);
		field("client_late_p99_us", "%.1f", us(hist_value(&r->late, .99)));
	}
	field("avg_us", "%.1f", h->total ? us(h->sum) / (double)h->total : 0);
	field("p50_us", "%.1f", us(hist_value(h, .50)));
	field("p90_us", "%.1f", us(hist_value(h, .90)));
	field("p99_us", "%.1f", us(hist_value(h, .99)));
	field("p999_us", "%.1f", us(hist_value(h, .999)));
	field("max_us", "%.1f", us(h->max));
	if (o->pid)
		report_server(o, r, done > 0 ? done : 1);
	if (json)
		printf("}\n");
}
