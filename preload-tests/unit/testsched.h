/*
 * testsched.h - a scheduler inside a unit test: goroutines without a shim.
 */
#ifndef TESTSCHED_H
#define TESTSCHED_H

#include "testhost.h"

#include "runtime.h"

#define MS 1000000LL

/*
 * Runs body as goroutine 1 of a scheduler with `procs` Ps and room for
 * `ngs` goroutines at a time, in a child process: so that the test's own
 * process stays what Criterion expects. The test fails unless body returns.
 */
void inscheduler(int procs, int ngs, void (*body)(void));

/* The same for a body that is to end in throw(what). */
void throwsinscheduler(int procs, int ngs, void (*body)(void), const char *what);

/* What fn writes to stderr, in a child process of its own: to buf, which it
 * ends. Returns the child's status as of waitpid. */
int errorsof(void (*fn)(void), char *buf, size_t n);

/* Fails the test, from any thread or goroutine. */
#define must(cond)                                           \
	do {                                                 \
		if (!(cond))                                 \
			mustfail(__FILE__, __LINE__, #cond); \
	} while (0)
noreturn_fn void mustfail(const char *file, int line, const char *what);

/* Starts a goroutine. */
void spawn(void (*fn)(void *arg), void *arg);
void spawnwired(void (*fn)(void *arg), void *arg); /* newprocwired */
/* Waits until all goroutines made by spawn have ended. */
void joinall(void);
/* How many there are. */
int livegs(void);

/* Bodies of goroutines that many tests use, and what those count. */
typedef struct Tally {
	_Atomic int started, ended;
	_Atomic bool stop;
} Tally;
extern Tally tally;

/* Yields so many times, and is ended. */
void yielder(void *times);
/* Has started, and computes until stop: only SIGURG ends its turn. */
void spinner(void *unused);
/* Sleeps five times so many us in the kernel, without a P, and is ended. */
void sleepsyscall(void *us);

/* SIGURG may switch away from code in this section only. */
#define PREEMPTIBLE __attribute__((section("preemptible"), noinline))

#endif
