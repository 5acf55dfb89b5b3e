/*
 * `load`: the load client as a program of its own, for tests, benchmarks and tools/demo. Loads a server over TCP, checks
 * every answer, prints figures.
 */
#include "load.h"
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static struct options chosen;
static const char *hgrm;
static bool json;

_Noreturn void die(int code, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	fprintf(stderr, "load: ");
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	exit(code);
}

static void usage(FILE *f)
{
	fprintf(
	    f,
	    "usage: load --port PORT [options]\n"
	    "Loads a server over TCP, checks every answer, prints key=value lines.\n"
	    "  --protocol memcached|redis|echo|http   (memcached)\n"
	    "  --host ADDRESS       IPv4 address (127.0.0.1)\n"
	    "  --connections N      1-60000 (100)\n"
	    "  --seconds S          measured time, 0.1-3600 (3)\n"
	    "  --warmup S           time before it, 0-60 (0.5)\n"
	    "  --threads N          1 or 2 (1)\n"
	    "  --size BYTES         value or message size, 8-65536 (100)\n"
	    "  --keys N             keys in all (10 a connection)\n"
	    "  --set-ratio X        share of sets, 0-1 (0.1)\n"
	    "  --path PATH          what http asks for (/)\n"
	    "  --status N           what http shall answer (200)\n"
	    "  --digest HEX         of http's body (the first answer's)\n"
	    "  --pid PID            the server's: adds CPU, context switches, threads, memory\n"
	    "  --syscalls           with --pid: counts the server's system calls, too\n"
	    "  --rate N             requests a second, at planned times, 1-10000000 (as fast as\n"
	    "                       they are answered)\n"
	    "  --tls FILE           over TLS; FILE has the server's certificate or its issuer's\n"
	    "  --timeout S          an answer that takes longer is a failure, 0.1-600 (10)\n"
	    "  --wait S             keep trying to connect for so long, 0-600 (0)\n"
	    "  --hgrm FILE          the distribution of latencies as HdrHistogram's tools read it\n"
	    "  --json               one JSON object instead of lines\n"
	    "Exit: 0 every answer right, 1 wrong or missing answers, 2 bad usage.\n");
}

static void parse(int argc, char **argv)
{
	enum { MAX = 32, HGRM = 256, JSON, SYSCALLS, HELP, NAMED };
	struct option longs[MAX] = {{"hgrm", 1, 0, HGRM},
				    {"json", 0, 0, JSON},
				    {"syscalls", 0, 0, SYSCALLS},
				    {"help", 0, 0, HELP}};
	char why[256];
	int ch;
	for (int i = 0; load_option_name(i) && i + 5 < MAX; i++)
		longs[4 + i] = (struct option){load_option_name(i), 1, 0, NAMED + i};
	chosen = load_defaults;
	opterr = 0;
	while ((ch = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (ch) {
		case HGRM: hgrm = optarg; break;
		case JSON: json = true; break;
		case SYSCALLS: chosen.syscalls = true; break;
		case HELP: usage(stdout); exit(0);
		case '?':
			die(2, "%s: unknown, or its value is missing; see load --help",
			    argv[optind - 1]);
		default:
			if (!load_set(&chosen, load_option_name(ch - NAMED), optarg, why,
				      sizeof why))
				die(2, "--%s", why);
		}
	}
	if (optind < argc)
		die(2, "unexpected argument %s; see load --help", argv[optind]);
	if (chosen.syscalls && !chosen.pid)
		die(2, "--syscalls needs --pid; see load --help");
	if (!load_complete(&chosen, why, sizeof why))
		die(2, "--%s; see load --help", why);
}

int main(int argc, char **argv)
{
	static struct result r;
	parse(argc, argv);
	FILE *f = hgrm ? fopen(hgrm, "w") : NULL;
	if (hgrm && !f)
		die(2, "--hgrm %s: %s", hgrm, strerror(errno));
	int status = load_run(&chosen, &r);
	report(&chosen, &r, json);
	if (f) {
		hist_write(&r.hist, f);
		if (fclose(f))
			die(1, "--hgrm %s: %s", hgrm, strerror(errno));
	}
	if (!r.answers)
		die(1, "not one answer");
	if (status)
		die(1, "%" PRIu64 " wrong answers, %" PRIu64 " failed connections", r.wrong,
		    r.failed);
	return 0;
}
