/*
 * goshim, the command: what a user asks of processes that run on goroutines. Each sub-command has a
 * file of its own and a row in the table below. Whatever can't be done is one line on stderr and exit status 2.
 */
#include "goshim.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const Command commands[] = {
    {"dump", "show what all goroutines of a process do",
     "usage: goshim dump [--timeout SECONDS] [--force] PID\n"
     "Writes the stacks of all goroutines of a live process to stdout. The process is not stopped.\n"
     "For its own user, and for root.\n"
     "  --timeout SECONDS  how long it may say nothing, 0.1 to 3600; 10\n"
     "  --force            ask also a process with a seccomp filter. Its answer takes socket,\n"
     "                     connect, sendto, poll, process_vm_readv and such; where the filter\n"
     "                     kills for one of them, the process dies. Docker's own allows them\n",
     dump},
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

static void usage(FILE *f)
{
	fputs("usage: goshim COMMAND ...\n", f);
	for (int i = 0; i < NCOMMANDS; i++)
		fprintf(f, "  %-8s %s\n", commands[i].name, commands[i].what);
	fputs("goshim COMMAND --help says more; goshim --version which goshim this is.\n", f);
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";
	int status = -1;

	if (!strcmp(name, "--help") || !strcmp(name, "-h")) {
		usage(stdout);
		status = 0;
	} else if (!strcmp(name, "--version")) {
		puts("goshim " VERSION);
		status = 0;
	}
	for (int i = 0; i < NCOMMANDS && status < 0; i++) {
		if (strcmp(name, commands[i].name))
			continue;
		if (argc > 2 && (!strcmp(argv[2], "--help") || !strcmp(argv[2], "-h"))) {
			fputs(commands[i].help, stdout);
			status = 0;
		} else {
			status = commands[i].run(argc - 1, argv + 1);
		}
	}
	if (status < 0)
		fail(*name ? "%s: no such command; goshim --help names them"
			   : "%sa command is needed; goshim --help names them",
		     name);
	if (fflush(stdout) || ferror(stdout))
		fail("stdout: %s", strerror(errno));
	return status;
}
