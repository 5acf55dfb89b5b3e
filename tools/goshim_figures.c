/*
 * What the rounds of goshim compare come to: medians, spread, ratios, and whether a difference is one.
 *
 * A difference is one when the rounds' ranges lie apart: no round of the one mode is as good as any of the other. That
 * needs no assumption about the noise, and how often it happens by chance is known exactly (chance). Rejected: means and
 * their errors, which one disturbed round ruins.
 */
#define _GNU_SOURCE
#include "compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const Metric metrics[NMETRICS] = {
    [THROUGHPUT] = {"throughput", "throughput, requests/s", 1},
    [P50] = {"p50_us", "latency p50, us", -1},
    [P90] = {"p90_us", "latency p90, us", -1},
    [P99] = {"p99_us", "latency p99, us", -1},
    [P999] = {"p999_us", "latency p99.9, us", -1},
    [MAX] = {"max_us", "longest latency, us", -1},
    [SECONDS] = {"seconds", "time of the load, s", -1},
    [CPUREQUEST] = {"cpu_us_per_request", "CPU per request, us", -1},
    [CPURUN] = {"cpu_ms", "CPU under the load, ms", -1},
    [QUEUEREQUEST] = {"queue_us_per_request", "wait for a CPU / request, us", -1},
    [GOQUEUEREQUEST] = {"runqueue_us_per_request", "goshim's queue / request, us", -1},
    [LOCKREQUEST] = {"lock_us_per_request", "waits for locks / request, us", -1},
    [SWITCHREQUEST] = {"switches_per_request", "context switches / request", -1},
    [SWITCHRUN] = {"switches", "context switches", -1},
    [RSS] = {"rss_mib", "most memory (RSS), MiB", -1},
    [THREADS] = {"kernel_threads", "kernel threads", 0},
    [CLIENTLATE] = {"client_late_p99_us", "delay of the client p99, us", 0},
};

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

Summary summary(const Plan *p, int mode, int metric)
{
	double v[MAXROUNDS];
	Summary s = {NAN, NAN, NAN, 0};
	for (int i = 0; i < p->rounds; i++)
		if (isfinite(p->result[mode][i].value[metric]))
			v[s.n++] = p->result[mode][i].value[metric];
	if (!s.n)
		return s;
	qsort(v, (size_t)s.n, sizeof *v, ascending);
	s.median = s.n % 2 ? v[s.n / 2] : (v[s.n / 2 - 1] + v[s.n / 2]) / 2;
	s.min = v[0];
	s.max = v[s.n - 1];
	return s;
}

/* Is there anything to be said of it that others don't say better? */
bool known(const Plan *p, int metric)
{
	bool any = false, request = false, throughput = false;
	for (int m = 0; m < p->nmodes; m++) {
		any |= summary(p, m, metric).n > 0;
		request |= summary(p, m, CPUREQUEST).n > 0;
		throughput |= summary(p, m, THROUGHPUT).n > 0;
	}
	if ((metric == CPURUN || metric == SWITCHRUN) && request)
		return false;
	return any && !(metric == SECONDS && throughput);
}

Verdict verdict(const Plan *p, int mode, int metric, double *ratio)
{
	Summary a = summary(p, 0, metric), b = summary(p, mode, metric);
	*ratio = a.median > 0 ? b.median / a.median : NAN;
	if (!a.n || !b.n || !isfinite(*ratio))
		return NOTHING;
	if (a.n == 1 || b.n == 1)
		return ONEROUND;
	if (a.min <= b.max && b.min <= a.max)
		return NOISE;
	int more = b.median > a.median ? 1 : -1;
	if (metrics[metric].better == 0)
		return more > 0 ? MORE : LESS;
	return more == metrics[metric].better ? BETTER : WORSE;
}

bool caution(const Plan *p, char *buf, size_t size)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	double late = 0;
	size_t n = 0;
	bool idle = false;
	*buf = 0;
	for (int i = 0; i < p->nmodes; i++) {
		for (int r = 0; r < p->rounds; r++)
			idle |= p->result[i][r].idle;
		Summary own = summary(p, i, CLIENTLATE), all = summary(p, i, P99);
		if (own.n && own.median > all.median / 4)
			late = fmax(late, own.median);
	}
	if (idle)
		n = (size_t)snprintf(buf, size,
				     "With " LIBRARY
				     " the server made no threads (or none that were goroutines): "
				     "whatever differs, it is not for goroutines. ");
	if (late > 0)
		n += (size_t)snprintf(
		    buf + n, size - n,
		    "The client itself sent one request in a hundred more than %.0f us late: latencies are "
		    "the machine's more than the server's. ",
		    late);
	if (p->busy > 0.5 * (double)cpus)
		snprintf(
		    buf + n, size - n,
		    "Other programs ran (load average %.1f on %ld CPUs): the spread is theirs, too. ",
		    p->busy, cpus);
	return *buf;
}

const char *verdictword(const Plan *p, Verdict v)
{
	static const char *const words[][2] = {[NOTHING] = {"", ""},
					       [ONEROUND] = {"one round", "one round"},
					       [NOISE] = {"within the noise", "within the noise"},
					       [BETTER] = {"better", "perhaps better"},
					       [WORSE] = {"worse", "perhaps worse"},
					       [MORE] = {"more", "perhaps more"},
					       [LESS] = {"less", "perhaps less"}};
	return words[v][chance(p->rounds) > 5];
}

/* All of one before all of the other: 2 of the (2n over n) orders in which alike rounds fall. */
double chance(int rounds)
{
	double orders = 1;
	for (int i = 1; i <= rounds; i++)
		orders *= (double)(rounds + i) / i;
	return 100 * 2 / orders;
}

const char *figure(double v, char *buf, size_t size)
{
	double m = fabs(v);
	if (!isfinite(v))
		snprintf(buf, size, "-");
	else
		snprintf(buf, size, "%.*f",
			 m >= 100 || v == floor(v) ? 0
			 : m >= 10                 ? 1
			 : m >= 1                  ? 2
						   : 3,
			 v);
	return buf;
}

const char *times(double ratio, char *buf, size_t size)
{
	snprintf(buf, size, ratio >= 100 ? "%.0f" : ratio >= 0.1 ? "%.2f" : "%.2g", ratio);
	return buf;
}

void totalhist(const Plan *p, int mode, struct hist *h)
{
	memset(h, 0, sizeof *h);
	for (int i = 0; i < p->rounds; i++)
		if (p->result[mode][i].hist)
			hist_add(h, p->result[mode][i].hist);
}

int worstlocks(const Plan *p, int mode, LockSum *locks, int most)
{
	LockSum all[MAXROUNDS];
	int n = 0;
	for (int i = 0; i < p->rounds; i++)
		for (int k = 0; k < p->result[mode][i].spent.nlocks; k++)
			n = addlock(all, n, MAXROUNDS, &p->result[mode][i].spent.lock[k]);
	n = n < most ? n : most;
	memcpy(locks, all, sizeof *locks * (size_t)n);
	return n;
}

/* --- the table ---------------------------------------------------------------------------------- */

static void range(const Summary *s, char *buf, size_t size)
{
	char a[32], b[32];
	*buf = 0;
	if (s->n)
		snprintf(buf, size, "%s-%s", figure(s->min, a, sizeof a),
			 figure(s->max, b, sizeof b));
}

/* The metrics with each verdict, in lines that a terminal has room for. */
static void ofmode(const Plan *p, int mode)
{
	static const Verdict shown[] = {BETTER, WORSE, MORE, LESS, NOISE};
	for (unsigned i = 0; i < sizeof shown / sizeof shown[0]; i++) {
		int column = 0;
		for (int m = 0; m < NMETRICS; m++) {
			char item[64], buf[32];
			double ratio;
			if (!known(p, m) || verdict(p, mode, m, &ratio) != shown[i])
				continue;
			int n = snprintf(item, sizeof item, "%.*s %s",
					 (int)strcspn(metrics[m].name, ","), metrics[m].name,
					 times(ratio, buf, sizeof buf));
			if (!column)
				column = printf("  %s: ", verdictword(p, shown[i]));
			else if (column + n > 96)
				column = printf(",\n      ") - 2;
			else
				column += printf(", ");
			column += printf("%s", item);
		}
		if (column)
			putchar('\n');
	}
}

/* Those that its threads waited for longest. */
static void locksof(const Plan *p, int mode)
{
	LockSum l[3];
	int n = worstlocks(p, mode, l, 3);
	if (n)
		printf("\nlocks that %s waited for:", p->modes[mode]->name);
	for (int i = 0; i < n; i++)
		printf("%s %s %s (%.0f waits, longest %s)", i ? "," : "", l[i].name,
		       duration(l[i].waited), l[i].waits, duration(l[i].max));
	if (n)
		putchar('\n');
}

void printtable(const Plan *p)
{
	char buf[96], head[64];
	snprintf(head, sizeof head, "median of %d, least-most", p->rounds);
	printf("%-31s", head);
	for (int i = 0; i < p->nmodes; i++)
		printf(" %10s %-17s", p->modes[i]->name, "");
	puts(p->nmodes > 1 ? "ratio" : "");
	for (int m = 0; m < NMETRICS; m++) {
		if (!known(p, m))
			continue;
		printf("%-31s", metrics[m].name);
		for (int i = 0; i < p->nmodes; i++) {
			Summary s = summary(p, i, m);
			printf(" %10s", figure(s.median, buf, sizeof buf));
			range(&s, buf, sizeof buf);
			printf(" %-17s", buf);
		}
		for (int i = 1; i < p->nmodes; i++) {
			double ratio;
			Verdict v = verdict(p, i, m, &ratio);
			if (v != NOTHING)
				printf("%s%5s %s", i > 1 ? "; " : "", times(ratio, buf, sizeof buf),
				       verdictword(p, v));
		}
		putchar('\n');
	}
	char why[600];
	if (caution(p, why, sizeof why))
		printf("\nCaution: %s\n", why);
	for (int i = 1; i < p->nmodes && p->rounds > 1; i++) {
		printf("\n%s against %s (ratio):\n", p->modes[i]->name, p->modes[0]->name);
		ofmode(p, i);
	}
	for (int i = 0; i < p->nmodes; i++)
		locksof(p, i);
	if (p->rounds == 1)
		puts(
		    "\nOne round shows no spread: what is noise can't be told. --rounds 5 would tell.");
	else if (p->nmodes > 1)
		printf("\nWithin the noise: some round of the one is as good as some of the other. "
		       "Without any difference\n%.2g %% of all comparisons of %d rounds come out "
		       "otherwise by chance.\n",
		       chance(p->rounds), p->rounds);
}

/* --- JSON ------------------------------------------------------------------------------------------ */

static void string(FILE *f, const char *text)
{
	putc('"', f);
	for (const unsigned char *s = (const unsigned char *)text; *s; s++) {
		if (*s == '"' || *s == '\\')
			fprintf(f, "\\%c", *s);
		else if (*s < ' ' || *s >= 127)
			fprintf(f, "\\u%04x", *s); /* a byte for a byte: no text need be UTF-8 */
		else
			putc(*s, f);
	}
	putc('"', f);
}

static void numberorull(FILE *f, double v)
{
	if (isfinite(v))
		fprintf(f, "%.10g", v);
	else
		fputs("null", f);
}

static void member(FILE *f, const char *separator, const char *name, const char *value)
{
	fputs(separator, f);
	string(f, name);
	fputs(": ", f);
	string(f, value);
}

static void jsonmode(const Plan *p, int mode, FILE *f)
{
	member(f, "{", "name", p->modes[mode]->name);
	fputs(", \"rounds\": [", f);
	for (int i = 0; i < p->rounds; i++) {
		const char *separator = "";
		fputs(i ? ", {" : "{", f);
		for (int m = 0; m < NMETRICS; m++) {
			if (!isfinite(p->result[mode][i].value[m]))
				continue;
			fprintf(f, "%s\"%s\": ", separator, metrics[m].key);
			numberorull(f, p->result[mode][i].value[m]);
			separator = ", ";
		}
		putc('}', f);
	}
	LockSum l[SPENTLOCKS];
	int n = worstlocks(p, mode, l, SPENTLOCKS);
	fputs("], \"locks\": [", f);
	for (int i = 0; i < n; i++) {
		member(f, i ? ", {" : "{", "name", l[i].name);
		member(f, ", ", "kind", l[i].kind);
		fprintf(f, ", \"waits\": %.0f, \"waited_ns\": %.0f, \"max_wait_ns\": %.0f}",
			l[i].waits, l[i].waited, l[i].max);
	}
	fputs("]}", f);
}

static void jsonmetric(const Plan *p, int m, FILE *f)
{
	member(f, "{", "metric", metrics[m].key);
	member(f, ", ", "name", metrics[m].name);
	fputs(", \"modes\": {", f);
	for (int i = 0; i < p->nmodes; i++) {
		Summary s = summary(p, i, m);
		double ratio;
		Verdict v = verdict(p, i, m, &ratio);
		fputs(i ? ", " : "", f);
		string(f, p->modes[i]->name);
		fputs(": {\"median\": ", f);
		numberorull(f, s.median);
		fputs(", \"min\": ", f);
		numberorull(f, s.min);
		fputs(", \"max\": ", f);
		numberorull(f, s.max);
		if (i > 0 && v != NOTHING) {
			fputs(", \"ratio\": ", f);
			numberorull(f, ratio);
			member(f, ", ", "verdict", verdictword(p, v));
		}
		putc('}', f);
	}
	fputs("}}", f);
}

void writejson(const Plan *p, FILE *f)
{
	const char *name;
	char value[4096];
	fputs("{\"goshim\": \"" VERSION "\", \"format\": 1,\n \"server\": [", f);
	for (int i = 0; p->server[i]; i++) {
		fputs(i ? ", " : "", f);
		string(f, p->server[i]);
	}
	member(f, "],\n ", "load", p->load);
	fprintf(f, ",\n \"rounds\": %d,\n \"environment\": ", p->rounds);
	for (int i = 0; environment(p, i, &name, value, sizeof value); i++)
		member(f, i ? ", " : "{", name, value);
	fputs("},\n \"modes\": [", f);
	for (int i = 0; i < p->nmodes; i++) {
		fputs(i ? ",\n  " : "\n  ", f);
		jsonmode(p, i, f);
	}
	fputs("],\n \"comparison\": [", f);
	for (int m = 0, n = 0; m < NMETRICS; m++) {
		if (!known(p, m))
			continue;
		fputs(n++ ? ",\n  " : "\n  ", f);
		jsonmetric(p, m, f);
	}
	fputs("]}\n", f);
}
