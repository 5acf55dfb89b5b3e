/*
 * What is measured: latencies, and the server as /proc shows it; and how it is printed.
 */
#include "load.h"
#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void record(struct worker *w, const struct conn *c, uint64_t t1)
{
	uint64_t ns = t1 - c->t0;
	unsigned e = 63 - (unsigned)__builtin_clzll(ns | SUB);
	unsigned shift = e - SUB_BITS;
	w->hist[(shift << SUB_BITS) + (ns >> shift)]++;
	w->sum_ns += ns;
	w->measured++;
	if (ns > w->max_ns)
		w->max_ns = ns;
	if (c->is_set)
		w->sets++;
	else
		w->gets++;
}

static bool read_file(const char *path, char *buf, size_t size)
{
	FILE *f = fopen(path, "r");
	if (!f)
		return false;
	size_t n = fread(buf, 1, size - 1, f);
	fclose(f);
	buf[n] = 0;
	return n > 0;
}

void take_sample(struct sample *s)
{
	char path[96], buf[4096];
	memset(s, 0, sizeof *s);
	if (opt.pid) {
		unsigned long long ut = 0, st = 0;
		snprintf(path, sizeof path, "/proc/%d/stat", opt.pid);
		char *p = read_file(path, buf, sizeof buf) ? strrchr(buf, ')') : NULL;
		if (!p || sscanf(p, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &ut,
				 &st) != 2)
			die(1, "the server (pid %d) is gone", opt.pid);
		s->cpu_us = (uint64_t)((double)(ut + st) * 1e6 / (double)sysconf(_SC_CLK_TCK));
		snprintf(path, sizeof path, "/proc/%d/task", opt.pid);
		DIR *d = opendir(path);
		struct dirent *e;
		while (d && (e = readdir(d))) {
			unsigned long long v;
			if (!isdigit((unsigned char)e->d_name[0]))
				continue;
			s->threads++;
			snprintf(path, sizeof path, "/proc/%d/task/%.20s/status", opt.pid,
				 e->d_name);
			if (!read_file(path, buf, sizeof buf))
				continue;
			if ((p = strstr(buf, "\nvoluntary_ctxt_switches:")) &&
			    sscanf(p, "%*s %llu", &v) == 1)
				s->voluntary += v;
			if ((p = strstr(buf, "\nnonvoluntary_ctxt_switches:")) &&
			    sscanf(p, "%*s %llu", &v) == 1)
				s->involuntary += v;
		}
		if (d)
			closedir(d);
	}
	s->syscalls = syscalls_counted();
	for (unsigned i = 0; i < opt.workers; i++)
		s->answers += atomic_load(&workers[i].answers);
	s->t = now_ns();
}

static bool first_field = true;

static void field(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void field(const char *name, const char *fmt, ...)
{
	char v[64];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(v, sizeof v, fmt, ap);
	va_end(ap);
	bool number = v[0] && !v[strspn(v, "0123456789.-")];
	if (!opt.json)
		printf("%s=%s\n", name, v);
	else
		printf("%s\"%s\": %s%s%s", first_field ? "{" : ", ", name, number ? "" : "\"", v,
		       number ? "" : "\"");
	first_field = false;
}

static double percentile_us(double q)
{
	uint64_t total = 0, seen = 0, max = 0;
	for (unsigned i = 0; i < opt.workers; i++) {
		total += workers[i].measured;
		max = workers[i].max_ns > max ? workers[i].max_ns : max;
	}
	uint64_t want = (uint64_t)(q * (double)total);
	for (unsigned b = 0; b < BUCKETS; b++) {
		for (unsigned i = 0; i < opt.workers; i++)
			seen += workers[i].hist[b];
		if (seen > want) {
			/* Undo record(): the bucket's middle. */
			unsigned shift = b < 2 * SUB ? 0 : (b >> SUB_BITS) - 1;
			uint64_t low = (uint64_t)(b - (shift << SUB_BITS)) << shift;
			uint64_t mid = low + ((uint64_t)1 << shift) / 2;
			return (double)(mid < max ? mid : max) / 1e3;
		}
	}
	return (double)max / 1e3;
}

void report(const struct sample *a, const struct sample *b, unsigned max_threads)
{
	uint64_t gets = 0, sets = 0, hits = 0, misses = 0, max = 0, sum = 0, n = 0;
	for (unsigned i = 0; i < opt.workers; i++) {
		const struct worker *w = &workers[i];
		gets += w->gets;
		sets += w->sets;
		hits += w->hits;
		misses += w->misses;
		sum += w->sum_ns;
		n += w->measured;
		max = w->max_ns > max ? w->max_ns : max;
	}
	double secs = (double)(b->t - a->t) / 1e9, done = (double)(b->answers - a->answers);
	double per = done > 0 ? done : 1;
	field("protocol", "%s", protocol_names[opt.protocol]);
	field("connections", "%u", opt.connections);
	field("seconds", "%.3f", secs);
	field("requests", "%.0f", done);
	field("throughput", "%.1f", done / secs);
	if (opt.protocol != ECHO) {
		field("gets", "%" PRIu64, gets);
		field("sets", "%" PRIu64, sets);
		field("hits_verified", "%" PRIu64, hits);
		field("early_misses", "%" PRIu64, misses);
	}
	field("answers_checked", "%" PRIu64,
	      workers[0].answers + (opt.workers > 1 ? workers[1].answers : 0));
	field("wrong", "%" PRIu64, wrong);
	field("failed", "%" PRIu64, failed);
	field("avg_us", "%.1f", n ? (double)sum / (double)n / 1e3 : 0);
	field("p50_us", "%.1f", percentile_us(.50));
	field("p90_us", "%.1f", percentile_us(.90));
	field("p99_us", "%.1f", percentile_us(.99));
	field("p999_us", "%.1f", percentile_us(.999));
	field("max_us", "%.1f", (double)max / 1e3);
	if (opt.pid) {
		double v = (double)b->voluntary - (double)a->voluntary;
		double iv = (double)b->involuntary - (double)a->involuntary;
		field("server_threads", "%u", max_threads);
		field("server_cpu_us", "%" PRIu64, b->cpu_us - a->cpu_us);
		field("server_cpu_us_per_request", "%.3f", (double)(b->cpu_us - a->cpu_us) / per);
		field("server_voluntary_switches", "%.0f", v);
		field("server_involuntary_switches", "%.0f", iv);
		field("server_switches", "%.0f", v + iv);
		field("server_switches_per_request", "%.4f", (v + iv) / per);
		if (opt.syscalls)
			field("server_syscalls_per_request", "%.4f",
			      (double)(b->syscalls - a->syscalls) / per);
	}
	if (opt.json)
		printf("}\n");
}
