/*
 * goshim_ask.h - reaching a live process that has goroutines, for those who ask it (shim/dump.h).
 */
#ifndef GOSHIM_ASK_H
#define GOSHIM_ASK_H

#include "goshim.h"

#include "../core/layout.h"
#include "../shim/dump.h"

#include <sys/types.h>

/* The process as its monitor's kernel thread shows it. */
typedef struct Target {
	int pid, monitor;
	uid_t user; /* effective */
	char state;
	bool filtered;  /* some thread has a seccomp filter */
	double timeout; /* s that it may say nothing */
} Target;

/* Of process id, which may be one of a thread's. One that can't answer, or, unless forced, might be killed
 * for an answer: a line that says why, and exit. sub: as in "dump". */
void target(Target *t, int id, double timeout, bool force, const char *sub);
/* Its connection, after `request` (DUMPREQUEST, ...), or a line and exit. */
int ask(Target *t, uint64_t request);
noreturn void silent(Target *t);
int64_t now(void); /* ms */
/* The beginning of a file in /proc/PID, with a zero behind; -1 and errno. */
int readproc(int pid, const char *file, char *buf, size_t size);

#endif
