/*
 * goshim, the command: runs programs on goroutines, and asks such processes what they do. Each sub-command has a
 * file of its own and a row in the table below. Whatever can't be done is one line on stderr and exit status 2.
 */
#define _GNU_SOURCE
#include "goshim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const Command commands[] = {
    {"run", "run a program on goroutines; may be left out",
     "usage: goshim [run] [OPTION ...] PROGRAM [ARGUMENT ...]\n"
     "Becomes the program with libgoshim.so in it: each of its threads is a goroutine. Exit status\n"
     "and signals are the program's own. One that would run natively all the same is refused: static,\n"
     "setuid, 32-bit, of musl or Go, not ELF, of another machine. Then, and when it can't be run, the\n"
     "exit status is 126; 127 when it isn't found; 2 for wrong options.\n"
     "  --procs N          how many goroutines run at once; by default one a CPU (GOMAXPROCS)\n"
     "  --traceback LEVEL  what a fatal signal writes: none, single, all, system (GOTRACEBACK)\n",
     run, runhelp},
    {"compare", "compare a server natively and on goroutines, under load",
     "usage: goshim compare --load LOAD [OPTION ...] SERVER [ARGUMENT ...]\n"
     "Runs the server natively and on goroutines in turn, a fresh one for each round, puts the same\n"
     "load on it, and says what differs and what is noise: a table here, report.html, report.json and\n"
     "distributions of latency (.hgrm) in a directory. The server stays in the foreground. {port}\n"
     "in its arguments and in LOAD is a free port of each round.\n"
     "  --load LOAD     PROTOCOL:[HOST:]PORT[/PATH][,NAME=VALUE...], every answer checked: memcached,\n"
     "                  redis, echo (answers what it gets), http. Names: connections (100), seconds\n"
     "                  (3), warmup (0.5), rate, threads, size, keys, set-ratio, timeout, status,\n"
     "                  digest, tls. Or any command for sh: what it says as key=value or in JSON\n"
     "                  (throughput, requests, p50_us, p90_us, p99_us, p999_us), else its time\n"
     "  --rate R        of the built-in client: R requests a second at planned times, from which\n"
     "                  their latency counts; by default as fast as they are answered\n"
     "  --rounds N      of each mode, 1 to 100; 5\n"
     "  --modes LIST    what is compared, the others with the first; native,goroutines\n"
     "  --output DIR    where the report goes; goshim-compare\n"
     "  --port PORT     for a LOAD that is a command: where the server listens. Any port otherwise\n"
     "  --wait SECONDS  for the server to listen, 0.1 to 3600; 30\n"
     "  --quiet         no progress on stderr\n",
     compare, NULL},
    {"dump", "show what all goroutines of a process do",
     "usage: goshim dump [--timeout SECONDS] [--force] PID\n"
     "Writes the stacks of all goroutines of a live process to stdout. The process is not stopped.\n"
     "For its own user, and for root.\n"
     "  --timeout SECONDS  how long it may say nothing, 0.1 to 3600; 10\n"
     "  --force            ask also a process with a seccomp filter. Its answer takes socket,\n"
     "                     connect, sendto, poll, process_vm_readv and such; where the filter\n"
     "                     kills for one of them, the process dies. Docker's own allows them\n",
     dump, NULL},
    {"flight", "show what the flight recorder has written of a wait that was too long",
     "usage: goshim flight [--trace FILE [--bytes B]] RECORD\n"
     "Writes the report of a file that a program which was started with goshim --flight TIME has made: who has waited\n"
     "for what and for how long, who was in the way, where that was, who ran meanwhile.\n"
     "  --trace FILE  all events of the last second before, for ui.perfetto.dev and chrome://tracing; - for stdout\n"
     "  --bytes B     of that at most so much, 10000 to 4000000000; 200000000\n",
     flight, NULL},
    {"locks", "show the locks that a process waits for",
     "usage: goshim locks [--top N] [--stacks N] [--json] PID\n"
     "       goshim locks [OPTION ...] [--output FILE] -- PROGRAM [ARGUMENT ...]\n"
     "Writes how often the process has waited for each lock and for how long, by names of the program, those\n"
     "first for which most time was lost. Of one that was killed, what it had. For its own user, and for root.\n"
     "Of a program that it runs itself: when that has ended, to stderr or FILE. That, and a program that was\n"
     "started with goshim --locks, also counts how often each was locked, and for how long it was held.\n"
     "  --top N       so many, of locks and of conditions with semaphores; 20\n"
     "  --stacks N    the stack of the first wait for so many of the worst; 5\n"
     "  --json        all of them, with their stacks\n"
     "  --output FILE of a program that it runs\n",
     locks, NULL},
    {"profile", "show where goroutines run and where they wait, by their stacks",
     "usage: goshim profile [OPTION ...] PID\n"
     "Samples the stacks of a live process for some seconds, and says where its goroutines ran and where they\n"
     "waited: a table, and on demand a picture and folded stacks for other tools. The process isn't stopped.\n"
     "It ends early with the process, and on SIGINT, with what there is. For its own user, and for root.\n"
     "  --seconds N        how long, 0.1 to 86400; 10\n"
     "  --hz N             how often a second, 1 to 1000; 99\n"
     "  --svg FILE         a flame graph: open it in a browser; a click zooms\n"
     "  --folded FILE      a line a stack, thread;what it does;outermost;...;innermost and microseconds, as\n"
     "                     flame graph tools read it; - is stdout\n"
     "  --on-cpu           only what runs\n"
     "  --off-cpu          only what waits\n"
     "  --timeout SECONDS  how long the process may say nothing, 0.1 to 3600; 10\n"
     "  --force            ask also a process with a seccomp filter; see goshim dump --help\n",
     profile_, NULL},
    {"stat", "show where a process's goroutines spend their time",
     "usage: goshim stat [--interval SECONDS [--count N]] [--histogram NAME]... [--json | --prometheus | --hgrm NAME] PID\n"
     "       goshim stat [OPTION ...] [--output FILE] -- PROGRAM [ARGUMENT ...]\n"
     "Writes what the process has counted since its first thread was made; of one that was killed, what it had.\n"
     "For its own user, and for root. Of a program that it runs itself: when that has ended, to stderr or FILE.\n"
     "  --interval SECONDS  what was counted in each such time instead, 0.01 to 86400, until it ends\n"
     "  --count N           only N times\n"
     "  --histogram NAME    also this histogram, by powers of two: runqueue, running, syscall, wait.mutex, ...\n"
     "  --json              all of it, with each bucket\n"
     "  --prometheus        in the text format that Prometheus reads\n"
     "  --hgrm NAME         the percentiles of one histogram, in ms, as HdrHistogram plots them\n"
     "  --output FILE       of a program that it runs\n",
     stat_, NULL},
    {"top", "watch a process: its goroutines, locks, sockets, the scheduler",
     "usage: goshim top [--interval SECONDS] [--view NAME] PID\n"
     "Shows what the process does, anew each second: its threads by name, each goroutine, locks, listening sockets,\n"
     "the scheduler. The process is neither stopped nor asked. When it ends its last figures stay. ? names the keys,\n"
     "q leaves. For its own user, and for root. It needs a terminal; goshim stat writes to files.\n"
     "  --interval SECONDS  how often, 0.05 to 3600; 1\n"
     "  --view NAME         what is shown first: names, goroutines, locks, sockets, scheduler\n",
     top_, NULL},
    {"trace", "record what a process does, for ui.perfetto.dev",
     "usage: goshim trace [--seconds S] [--bytes B] [--output FILE] PID\n"
     "       goshim trace [OPTION ...] -- PROGRAM [ARGUMENT ...]\n"
     "Records what each processor and each goroutine does, who wakes whom, and what is waited for, and writes it in\n"
     "the format that ui.perfetto.dev and chrome://tracing load. What could not be recorded is counted and said.\n"
     "For its own user, and for root. The process is not stopped, and makes no system call for it.\n"
     "  --seconds S    at most so long, 0.001 to 3600; 5. SIGINT ends it as well\n"
     "  --bytes B      at most so much, 10000 to 4000000000; 200000000\n"
     "  --output FILE  where it goes, - for stdout; goshim-trace.json\n",
     trace_, NULL},
};
enum { NCOMMANDS = sizeof commands / sizeof commands[0] };

void fail(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	fputs("goshim: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(2);
}

double number(const char *what, const char *text, double min, double max)
{
	char *end;
	errno = 0;
	double v = strtod(text, &end);
	if (!*text || *end || errno || !(v >= min && v <= max))
		fail("%s '%s': want a number from %g to %g", what, text, min, max);
	return v;
}

long wholenumber(const char *what, const char *text, long min, long max)
{
	char *end;
	errno = 0;
	long v = strtol(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || v < min || v > max)
		fail("%s '%s': want a whole number from %ld to %ld", what, text, min, max);
	return v;
}

/* In 8 columns. */
const char *duration(double ns)
{
	static char bufs[16][16];
	static int next;
	static const struct {
		double ns;
		const char *unit;
	} units[] = {{3600e9, "h"}, {60e9, "min"}, {1e9, "s"}, {1e6, "ms"}, {1e3, "us"}, {1, "ns"}};
	char *buf = bufs[next++ % 16];
	int i = 0;
	while (i < 5 && ns < units[i].ns * 0.9995)
		i++;
	if (units[i].ns == 60e9 && ns < 600e9)
		i++; /* seconds up to ten minutes */
	double v = ns / units[i].ns;
	snprintf(buf, 16, "%.*f %s",
		 v >= 99.95 || i == 5 ? 0
		 : v >= 9.995         ? 1
				      : 2,
		 v, units[i].unit);
	return buf;
}

void puttext(const char *text, size_t n)
{
	static unsigned char last;
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)text[i];
		/* The last are UTF-8's of the 32 beyond ASCII. */
		bool obeyed = (c < ' ' && c != '\n' && c != '\t') || c == 127 ||
			      (last == 0xc2 && c >= 0x80 && c < 0xa0);
		putchar(obeyed ? '?' : c);
		last = c;
	}
}

const char *shortly(double ns, char *buf, size_t size)
{
	if (ns >= 999.5e6)
		snprintf(buf, size, "%.3g s", ns / 1e9);
	else if (ns >= 999.5e3)
		snprintf(buf, size, "%.3g ms", ns / 1e6);
	else
		snprintf(buf, size, "%.3g us", ns / 1e3);
	return buf;
}

static const Command *command(const char *name)
{
	for (int i = 0; i < NCOMMANDS; i++)
		if (!strcmp(name, commands[i].name))
			return &commands[i];
	return NULL;
}

static bool ishelp(const char *word)
{
	return word && (!strcmp(word, "--help") || !strcmp(word, "-h"));
}

static void usage(void)
{
	puts("usage: goshim [OPTION ...] PROGRAM [ARGUMENT ...]\n"
	     "       goshim COMMAND ...");
	for (int i = 0; i < NCOMMANDS; i++)
		printf("  %-8s %s\n", commands[i].name, commands[i].what);
	puts(
	    "goshim help COMMAND says more; goshim --version which goshim this is. A program that is\n"
	    "named like a command: goshim run PROGRAM.");
}

void help(const char *name)
{
	const Command *c = command(name);
	if (!c)
		fail("help: %s: no such command; goshim --help names them", name);
	fputs(c->help, stdout);
	if (c->morehelp)
		c->morehelp();
}

/* Whatever is no command is the name of a program, or an option before it. */
static int dispatch(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL;
	const Command *c = name ? command(name) : NULL;
	if (!name)
		fail("a program or a command is needed; see goshim --help");
	if (c && ishelp(argv[2]))
		help(name);
	else if (c)
		return c->run(argc - 1, argv + 1);
	else if (!strcmp(name, "--version"))
		puts("goshim " VERSION);
	else if (!strcmp(name, "help") && argc == 3)
		help(argv[2]);
	else if (ishelp(name) || (!strcmp(name, "help") && argc == 2))
		usage();
	else
		return run(argc, argv);
	return 0;
}

/* No file of ours is to be taken for a standard one that is closed: what is said would be written into a process's
 * metrics. These fail whoever uses them, as closed ones do, and a program that is run gets none of them. */
static void keepstandard(void)
{
	int fd;
	do
		fd = open("/", O_PATH | O_CLOEXEC);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	keepstandard();
	int status = dispatch(argc, argv);
	if (fflush(stdout) || ferror(stdout))
		fail("stdout: %s", strerror(errno));
	return status;
}
