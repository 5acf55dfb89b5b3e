/*
 * goshim.h - what the sub-commands of goshim share.
 */
#ifndef GOSHIM_TOOL_H
#define GOSHIM_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdnoreturn.h>

typedef struct Command {
	const char *name, *what; /* one line of goshim --help */
	const char *help;        /* of its own --help, after the line that begins with "usage: " */
	int (*run)(int argc, char **argv); /* argv[0] is its name; returns the exit status */
	void (*morehelp)(void);            /* prints what help does not say, or NULL */
} Command;

int dump(int argc, char **argv);
int stat_(int argc, char **argv);
int locks(int argc, char **argv);
int top_(int argc, char **argv);
int trace_(int argc, char **argv);
int flight(int argc, char **argv);
int profile_(int argc, char **argv);

/* goshim_run.c */
int run(int argc, char **argv);
void runhelp(void);

/* goshim_compare.c */
int compare(int argc, char **argv);

/*
 * goshim_counted.c: forks; the child, 0 there, is to become a program. What other processes send to this one to end it
 * is passed on to the child; what comes from the terminal that has from there.
 */
int forkprogram(void);
/*
 * For the command `who`: runs a program with these options of goshim run, NULL at the end, and
 * then calls report, whose stdout is stderr, or the file `output` if it isn't NULL. The program's exit status.
 */
struct MetricsSource;
int counted(const char *who, const char *const *settings, char **argv, const char *output,
	    void (*report)(struct MetricsSource *s));

/* goshim_output.c: a file that a command writes; "-" is stdout. */
typedef struct OutputFile {
	const char *who, *path; /* the command, for what it says */
	FILE *f;
	bool made, begun;
	struct OutputFile *next;
} OutputFile;
/* Or one line and exit. What is there stays until outputbegin. */
void outputopen(OutputFile *o, const char *who, const char *path);
FILE *outputbegin(OutputFile *o);
/* All has been written; or one line and exit. Who exits before this leaves no part of it. */
void outputend(OutputFile *o);

#define LIBRARY "libgoshim.so"

/* What goshim SUB --help shows. */
void help(const char *sub);
/* One line on stderr, and exit status 2. */
noreturn void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* A number in [min, max], or one line that names what was meant, and exit. */
double number(const char *what, const char *text, double min, double max);
long wholenumber(const char *what, const char *text, long min, long max);

const char *duration(double ns); /* three digits and a unit; valid for 16 calls */
/* Text of another process's to stdout: a terminal obeys none of it. */
void puttext(const char *text, size_t n);
/* At most three digits, as many as needed: for pictures. Returns buf. */
const char *shortly(double ns, char *buf, size_t size);

/* Why a program is not run, and the exit status for it: a shell's. */
enum { CANTRUN = 126, NOTFOUND = 127 };
typedef struct Refusal {
	int status;
	char why[600];
} Refusal;

/* goshim_elf.c: will the library be in the process of this program? If not, why. */
bool takeslibrary(const char *path, Refusal *r);
/* goshim_run.c: a program by its name, as execvp finds it; malloc'ed. NULL and why. */
char *findprogram(const char *name, Refusal *r);
/* The library that belongs to this command, by its absolute path. */
const char *findlibrary(void);
/* Leaves it, or another build of it, out of this process's LD_PRELOAD; and puts it behind what is there. */
void preload(bool library);
/* Adds to this process's GOSHIM. */
void addtosettings(const char *more);

#endif
