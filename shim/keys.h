/*
 * keys.h - the keys of GOSHIM: for the library, which obeys them (init.c), and for the command,
 * which makes an option of each (tools/goshim_run.c).
 *
 * S(name, min, max, words, allowed, argument, meaning): a number from min to max, or one of the words, which count
 * from 0; of TIME a number with a unit, in ns from min to max; of DIRECTORY a path of less than max bytes. `allowed` is
 * what the complaint of a bad value says; `argument` and `meaning` are goshim run --help's.
 */
#ifndef GOSHIM_KEYS_H
#define GOSHIM_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { MAXSETTINGS = 1023 }; /* characters of GOSHIM that are obeyed */

/* In the order of Deadlock in core/settings.h. */
static const char *const deadlockwords[] = {"report", "abort", "off", NULL};
static const char *const metricswords[] = {"remove", "keep", "off", NULL};
static const char *const modewords[] = {"goroutines", "kernel", NULL};
#define NOWORDS NULL
static const char *const TIME[] = {NULL}, *const DIRECTORY[] = {NULL};

/* "20ms" and such: ns, or -1. */
static inline int64_t keytime(const char *s, size_t n)
{
	static const struct {
		const char *name;
		int64_t ns;
	} units[] = {{"ns", 1}, {"us", 1000}, {"ms", 1000000}, {"s", 1000000000}};
	int64_t v = 0;
	size_t i = 0;
	for (; i < n && i < 12 && s[i] >= '0' && s[i] <= '9'; i++)
		v = v * 10 + (s[i] - '0');
	for (int k = 0; i && k < 4; k++)
		if (n - i == strlen(units[k].name) && !memcmp(s + i, units[k].name, n - i) &&
		    v <= INT64_MAX / units[k].ns)
			return v * units[k].ns;
	return -1;
}

static inline bool keydirectory(const char *s, size_t n, size_t max)
{
	return n > 0 && n < max && s[0] == '/' && !memchr(s, 0, n);
}

/* clang-format off */
#define SETTINGS(S) \
	S(mode, 0, 0, modewords, "goroutines or kernel", \
	  "WHAT", "threads are: goroutines, or kernel, which only counts") \
	S(schedtrace, 1, 3600000, NOWORDS, "ms between lines, 1 to 3600000", \
	  "MS", "a line on the scheduler's state every MS milliseconds") \
	S(scheddetail, 0, 1, NOWORDS, "0 or 1", \
	  "", "with schedtrace: each P, M and goroutine too") \
	S(exitstats, 0, 1, NOWORDS, "0 or 1", \
	  "", "a line of counts when the process ends") \
	S(deadlock, 0, 0, deadlockwords, "report, abort or off", \
	  "WHAT", "goroutines that wait for each other for ever: report, abort, off") \
	S(metrics, 0, 0, metricswords, "remove, keep or off", \
	  "WHAT", "the file that goshim stat reads, at an orderly end: remove, keep; or off") \
	S(locks, 0, 1, NOWORDS, "0 or 1", \
	  "", "for goshim locks: counts each lock and how long it is held, not only waits") \
	S(requests, 0, 1, NOWORDS, "0 or 1", \
	  "", "times requests, by listening socket, for goshim stat") \
	S(flight, 1000, 3600000000000, TIME, "a time with its unit, 1us to 3600s", \
	  "TIME", "writes what has happened when a wait or a request took longer than that") \
	S(flightdir, 0, FLIGHTDIR, DIRECTORY, "an absolute path without a comma", \
	  "DIR", "where flight writes; /tmp") \
	S(flightfiles, 1, 1000, NOWORDS, "files at most, 1 to 1000", \
	  "N", "how many files flight writes at most; 10") \
	S(slice, 100, 10000000, NOWORDS, "us before a runner is preempted, 100 to 10000000", \
	  "US", "how long a goroutine runs before others get its turn") \
	S(sysmon, 100, 1000000, NOWORDS, "us of sysmon's longest tick, 100 to 1000000", \
	  "US", "how often stuck kernel threads are looked for") \
	S(maxthreads, 8, 100000, NOWORDS, "kernel threads at most, 8 to 100000", \
	  "N", "kernel threads at most") \
	S(kernelwaits, 0, 10000, NOWORDS, "threads that may wait in the kernel itself, 0 to 10000", \
	  "N", "goroutines that may wait in the kernel itself") \
	S(kernelcalls, 1, 10000, NOWORDS, \
	  "threads at a time in calls that only the kernel can wait in, 1 to 10000", \
	  "N", "goroutines at a time in calls that only the kernel waits in") \
	S(storm, 0, 1, NOWORDS, "0 or 1", \
	  "", "preempts every 100 us: for tests") \
	S(nofsgsbase, 0, 1, NOWORDS, "0 or 1", \
	  "", "changes thread blocks by a system call: for tests")
/* clang-format on */

#endif
