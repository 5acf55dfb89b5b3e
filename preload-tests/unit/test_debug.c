/*
 * test_debug.c - what the runtime says: it is read by people in trouble and by
 * scripts, so formats are kept, and must come out even of a broken scheduler.
 */
#include "testsched.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

/* --- warn ----------------------------------------------------------------------------- */

static void warns(void)
{
	warn("plain");
	warn("%s, %s.", "a", "b");
	warn("%d %d %d %d", (int64_t)0, (int64_t)-1, INT64_MAX, INT64_MIN);
	warn("%x %x", (uint64_t)0, UINT64_MAX);
	warn("%p", (void *)0x1234abcd);
	warn("100%% %s", (char *)NULL);
	warn("%");
}

Test(debug, warn_knows_its_formats)
{
	char buf[4096];

	cr_assert_eq(errorsof(warns, buf, sizeof(buf)), 0);
	cr_assert_str_eq(buf, "goshim: plain\n"
			      "goshim: a, b.\n"
			      "goshim: 0 -1 9223372036854775807 -9223372036854775808\n"
			      "goshim: 0 ffffffffffffffff\n"
			      "goshim: 0x1234abcd\n"
			      "goshim: 100% \n"
			      "goshim: %\n");
}

static void warnslong(void)
{
	static char s[5000];

	memset(s, 'x', sizeof(s) - 1);
	warn("%s%d", s, INT64_MIN);
	warn("next");
}

Test(debug, a_long_line_is_cut_and_ends)
{
	char buf[8192], *end;

	cr_assert_eq(errorsof(warnslong, buf, sizeof(buf)), 0);
	end = strchr(buf, '\n');
	cr_assert_not_null(end);
	cr_assert_gt(end - buf, 500);
	cr_assert_lt(end - buf, 5000);
	cr_assert_str_eq(end + 1, "goshim: next\n");
}

/* --- names ------------------------------------------------------------------------------- */

Test(debug, every_reason_to_wait_has_a_name)
{
	for (int i = 0; i < WaitReasonCount; i++) {
		const char *s = waitreasonstr((WaitReason)i);

		cr_assert_not_null(s);
		cr_assert_str_neq(s, "?");
		cr_assert_eq(i == WaitNone, s[0] == 0);
		for (int k = 0; k < i; k++)
			if (i != WaitIOWrite) /* Go has one name for both directions */
				cr_assert_str_neq(s, waitreasonstr((WaitReason)k));
	}
	cr_assert_str_eq(waitreasonstr(WaitReasonCount), "?");
	cr_assert_str_eq(waitreasonstr((WaitReason)-1), "?");
	cr_assert_str_eq(waitreasonstr((WaitReason)INT_MAX), "?");
	/* Those are Go's, and known to tools. */
	cr_assert_str_eq(waitreasonstr(WaitMutex), "sync.Mutex.Lock");
	cr_assert_str_eq(waitreasonstr(WaitIORead), "IO wait");
	cr_assert_str_eq(waitreasonstr(WaitIOWrite), "IO wait");
	cr_assert_str_eq(waitreasonstr(WaitSleep), "sleep");
}

/* --- schedtrace ---------------------------------------------------------------------------- */

static void waits(void *arg)
{
	(void)arg;
	atomic_fetch_add(&tally.started, 1);
	semapark(&tally, NULL, NULL, NULL, 0, WaitCond, FOREVER, 0);
}

static FILE *said;

/* The first line with this beginning on stderr; sanitizers write there, too. */
static char *line(const char *prefix)
{
	static char buf[2048];

	rewind(said);
	do
		must(fgets(buf, sizeof(buf), said) != NULL);
	while (strncmp(buf, prefix, strlen(prefix)) != 0);
	return buf;
}

static int starting(const char *prefix)
{
	static char buf[2048];
	int n = 0;

	rewind(said);
	while (fgets(buf, sizeof(buf), said) != NULL)
		n += strncmp(buf, prefix, strlen(prefix)) == 0;
	return n;
}

static void traces(void)
{
	static char spec[64];
	long ms;
	int procs, idle, threads, spinning, idlethreads, runq, q[3], n = 0;
	int gs, created, waits_, preempted, retaken, handoffs, steals, net, kernel, line_, lined;
	static char *l;

	said = tmpfile();
	must(said != NULL && dup2(fileno(said), 2) == 2);
	for (int i = 0; i < 4; i++)
		spawn(waits, NULL);
	while (semawaiters(&tally) < 4)
		gosched();
	M *mp = acquirem();

	schedtrace(false);
	l = line("SCHED ");
	must(sscanf(l,
		    "SCHED %ldms: gomaxprocs=%d idleprocs=%d threads=%d spinningthreads=%d "
		    "idlethreads=%d runqueue=%d [%d %d %d] goroutines=%d created=%d%n",
		    &ms, &procs, &idle, &threads, &spinning, &idlethreads, &runq, &q[0], &q[1],
		    &q[2], &gs, &created, &n) == 12);
	must(ms == 0 && procs == 3 && idle >= 0 && idle <= 2);
	must(threads >= 1 && spinning >= 0 && spinning <= 3 && idlethreads < threads);
	must(runq == 0 && q[0] == 0 && q[1] == 0 && q[2] == 0);
	must(gs == 5 && created == 5);
	must(sscanf(l + n,
		    " syscallwaits=%d preempted=%d retaken=%d handoffs=%d steals=%d netwaits=%d "
		    "kernelwaits=%d threadwaits=%d waitforthread=%d%n",
		    &waits_, &preempted, &retaken, &handoffs, &steals, &net, &kernel, &lined,
		    &line_, &procs) == 9);
	must(net == 0 && kernel == 0 && lined == 0 && line_ == 0);
	must(waits_ == 0 && preempted == metricscounted(CountPreempted) && l[n + procs] == '\n');
	must(starting("SCHED ") == 1 && starting("  ") == 0);

	schedtrace(true);
	must(starting("SCHED ") == 2);
	must(starting("  P") == 3 && starting("  P2: status=") == 1);
	must(starting("  M") == sched.mcount && starting("  M0: tid=") == 1);
	must(starting("  G") == 5);
	snprintf(spec, sizeof(spec), "  G1: status=running() m=%d ", (int)mp->id);
	must(starting(spec) == 1);
	must(starting("  G2: status=waiting(sync.Cond.Wait) m=-1 lockedm=-1 ") == 1);
	releasem(mp);
	semaready(&tally, 4, NULL, NULL, NULL, 0);
	joinall();
	/* Those that ended are not listed. */
	int before = starting("  G2:");

	schedtrace(true);
	must(before == 1 && starting("  G2:") == 1 && starting("  G1:") == 2);
}

Test(debug, a_schedtrace_line_parses, .timeout = 30)
{
	inscheduler(3, 4, traces);
}

static void stats(void)
{
	spawn(yielder, (void *)3);
	joinall();
	exitstats(2);
}

static void statsinscheduler(void)
{
	inscheduler(2, 1, stats);
}

Test(debug, the_line_at_exit_counts, .timeout = 30)
{
	char buf[4096], *l;
	int created, gs, peak, threads, procs;

	cr_assert_eq(errorsof(statsinscheduler, buf, sizeof(buf)), 0);
	l = strstr(buf, "goshim: created=");
	cr_assert_not_null(l);
	cr_assert_eq(sscanf(l,
			    "goshim: created=%d goroutines=%d peak=%d threads=%d gomaxprocs=%d "
			    "preempted=",
			    &created, &gs, &peak, &threads, &procs),
		     5, "%s", l);
	cr_assert(created == 2 && gs == 1 && peak == 2 && procs == 2 && threads >= 1, "%s", l);
}

/* --- throw ------------------------------------------------------------------------------------ */

static void throws(void)
{
	throw("some reason");
}

Test(debug, throw_says_who_and_how_things_stand, .timeout = 30)
{
	throwsinscheduler(2, 0, throws, "goshim: fatal error: some reason\n");
	throwsinscheduler(2, 0, throws, "\n  goroutine 1 on M0 (locks=0)\n");
	throwsinscheduler(2, 0, throws, "\nSCHED ");
	throwsinscheduler(2, 0, throws, "\n  G1: status=running");
}

static void throwslocked(void)
{
	/* The scheduler's own lock is held: nothing of it may wait. */
	acquirem();
	lock(&sched.lock);
	lock(&sched.allglock);
	throw("under locks");
}

Test(debug, throw_needs_no_locks, .timeout = 30)
{
	throwsinscheduler(2, 0, throwslocked, "\n  goroutine 1 on M0 (locks=1)\n");
}

static void onlythrow(void)
{
	throw("before the start");
}

Test(debug, throw_works_before_the_start, .timeout = 30)
{
	char buf[4096];
	int status = errorsof(onlythrow, buf, sizeof(buf));

	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	cr_assert_str_eq(buf, "goshim: fatal error: before the start\n");
}
