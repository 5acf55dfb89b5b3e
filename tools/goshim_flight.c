/*
 * goshim flight: what the flight recorder (core/flight.c) has written when a wait was too long. The report is in the
 * file as text; the events behind it are a copy of the process's metrics, and are read as those are.
 *
 * The file may be of any content, and the process is gone: nothing is asked but the file.
 */
#include "goshim.h"
#include "locks_read.h"
#include "trace_json.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOSTREPORT = 64 << 20 };

typedef struct Record {
	const char *path;
	MetricsSource source;
	Metrics metrics;
} Record;

static const char *objectname(void *arg, uint64_t address)
{
	static char name[LockName + 16];
	const Record *r = arg;
	if (!lockcalled(&r->source, &r->metrics, address, name))
		snprintf(name, sizeof name, "0x%" PRIx64, address);
	return name;
}

/* Where the copy begins, by the first line. */
static uint64_t eventsat(const Record *r)
{
	static const char title[] = FLIGHT_TITLE;
	char line[sizeof title + 10] = "", *end;
	if (pread(r->source.fd, line, sizeof line - 1, 0) < (ssize_t)sizeof title - 1 ||
	    memcmp(line, title, sizeof title - 1))
		fail("%s: not a file of the flight recorder", r->path);
	uint64_t at = strtoull(line + sizeof title - 1, &end, 10);
	if (end != line + sizeof line - 1 || at % 4096 || at > MOSTREPORT)
		fail("%s: damaged", r->path);
	if (!at)
		fail("%s: not complete: the process has ended while it wrote", r->path);
	return at;
}

static void printreport(const Record *r)
{
	char buf[4096];
	uint64_t at = 0;
	while (at < r->source.offset) {
		ssize_t n = pread(r->source.fd, buf, sizeof buf, (off_t)at);
		if (n <= 0)
			fail("%s: damaged", r->path);
		size_t left = r->source.offset - at, room = (size_t)n < left ? (size_t)n : left,
		       len = strnlen(buf, room);
		puttext(buf, len);
		if (len < room)
			return;
		at += room;
	}
}

static void writetrace(Record *r, const char *output, size_t bytes)
{
	static Tracing t;
	TraceSummary sum;
	TraceNamer namer = {objectname, r};
	if (!traceload(&t, &r->source, &r->metrics))
		fail("%s: its events are damaged, or of another version", r->path);
	static OutputFile o;
	outputopen(&o, "flight", output);
	tracejson(outputbegin(&o), &t, &r->metrics, &r->metrics, &namer, bytes, &sum);
	outputend(&o);
	fprintf(stderr, "goshim: %.3f s in %s: %zu events, %zu goroutines, %zu arrows%s\n",
		sum.seconds, o.f == stdout ? "stdout" : output, sum.events, sum.goroutines,
		sum.arrows, sum.cut ? "; cut off" : "");
	if (t.lost)
		fprintf(stderr, "goshim: %" PRIu64 " events were lost\n", t.lost);
	tracefree(&t);
}

int flight(int argc, char **argv)
{
	enum { Trace = 1, Bytes };
	static const struct option longs[] = {{"trace", 1, 0, Trace}, {"bytes", 1, 0, Bytes}, {0}};
	const char *output = NULL;
	size_t bytes = 200000000;
	char why[WhySize];
	Record r = {.path = NULL};
	int ch;
	opterr = 0;
	while ((ch = getopt_long(argc, argv, "+", longs, NULL)) != -1) {
		switch (ch) {
		case Trace: output = optarg; break;
		case Bytes:
			bytes = (size_t)wholenumber("flight: --bytes", optarg, 10000, 4000000000);
			break;
		default:
			fail(
			    "flight: %s: unknown, or its value is missing; see goshim flight --help",
			    argv[optind - 1]);
		}
	}
	if (optind + 1 != argc)
		fail("flight: want one file of the flight recorder; see goshim flight --help");
	r.path = argv[optind];
	r.source =
	    (MetricsSource){.dead = true, .fd = open(r.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
	if (r.source.fd < 0)
		fail("%s: %s", r.path, strerror(errno));
	r.source.offset = eventsat(&r);
	if (!output) {
		printreport(&r);
	} else {
		if (!metricsread(&r.source, &r.metrics, why))
			fail("%s: damaged", r.path);
		writetrace(&r, output, bytes);
		metricsfree(&r.metrics);
	}
	close(r.source.fd);
	return 0;
}
