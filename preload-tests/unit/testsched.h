/*
 * testsched.h - a scheduler inside a unit test: goroutines without a shim.
 */
#ifndef TESTSCHED_H
#define TESTSCHED_H

#include "testhost.h"

#include "runtime.h"

/*
 * Runs body as goroutine 1 of a scheduler with `procs` Ps and room for
 * `ngs` goroutines at a time, in a child process: so that the test's own
 * process stays what Criterion expects. The test fails unless body returns.
 */
void inscheduler(int procs, int ngs, void (*body)(void));

/* Fails the test, from any thread or goroutine. */
#define must(cond)                                           \
	do {                                                 \
		if (!(cond))                                 \
			mustfail(__FILE__, __LINE__, #cond); \
	} while (0)
noreturn_fn void mustfail(const char *file, int line, const char *what);

/* Starts a goroutine. */
void spawn(void (*fn)(void *arg), void *arg);
/* Waits until all goroutines made by spawn have ended. */
void joinall(void);
/* How many there are. */
int livegs(void);

/* SIGURG may switch away from code in this section only. */
#define PREEMPTIBLE __attribute__((section("preemptible"), noinline))

#endif
