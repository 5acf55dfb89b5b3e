/*
 * goshim.h - what the sub-commands of goshim share.
 */
#ifndef GOSHIM_TOOL_H
#define GOSHIM_TOOL_H

#include <stdnoreturn.h>

typedef struct Command {
	const char *name, *what; /* one line of goshim --help */
	const char *help;        /* of its own --help, after the line that begins with "usage: " */
	int (*run)(int argc, char **argv); /* argv[0] is its name; returns the exit status */
} Command;

int dump(int argc, char **argv);

/* One line on stderr, and exit status 2. */
noreturn void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* A number in [min, max], or one line that names what was meant, and exit. */
double number(const char *what, const char *text, double min, double max);
long wholenumber(const char *what, const char *text, long min, long max);

#endif
