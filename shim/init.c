/*
 * init.c - how the library comes into the process: main's wrapper, and the
 * settings from the environment.
 *
 * The settings are read when the program starts, since programs change their
 * environment, and complained of when the scheduler starts: most programs
 * that inherit LD_PRELOAD never start it, and should not say anything.
 */
#include "../core/host.h"
#include "cancel.h"
#include "keys.h"
#include "sched.h"
#include "signal.h"
#include "thread.h"
#include "unwind.h"

#include <setjmp.h>
#include <stdatomic.h>
#include <sys/stat.h>

/* --- settings ------------------------------------------------------------------------- */

static char *envgoshim, *envgomaxprocs, *envgotraceback;
static bool envtoolong;

/* A decimal number in [min, max]; a bare key is 1. */
static bool number(const char *s, size_t n, int64_t min, int64_t max, int64_t *out)
{
	int64_t v = 0;
	if (n == 0 || n > 18)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9')
			return false;
		v = v * 10 + (s[i] - '0');
	}
	*out = v;
	return v >= min && v <= max;
}

static const struct Key {
	const char *name;
	int64_t min, max;
	const char *allowed;
	void (*set)(int64_t);
	const char *const *words; /* the values, if they are no numbers: from 0 on, to NULL */
} keys[];

static void setschedtrace(int64_t v)
{
	debug.schedtrace = v;
}

static void setscheddetail(int64_t v)
{
	debug.scheddetail = v != 0;
}

static void setstorm(int64_t v)
{
	debug.storm = v != 0;
}

static void setexitstats(int64_t v)
{
	debug.exitstats = v != 0;
}

static void setnofsgsbase(int64_t v)
{
	debug.nofsgsbase = v != 0;
}

static void setslice(int64_t v)
{
	debug.slice = v * 1000;
}

static void setsysmon(int64_t v)
{
	debug.sysmon = v * 1000;
}

static void setmaxthreads(int64_t v)
{
	debug.maxm = v;
}

static void setkernelwaits(int64_t v)
{
	debug.maxkblocked = v;
}

static void setkernelcalls(int64_t v)
{
	debug.maxkwaits = v;
}

static void setdeadlock(int64_t v)
{
	debug.deadlock = (Deadlock)v;
}

/* Decided before any code of the program ran (real.c). */
static void setmode(int64_t v)
{
	(void)v;
}

static void setmetrics(int64_t v)
{
	if (kernelmode && v == 2) {
		warn("GOSHIM=metrics=off: ignored; mode=kernel does nothing else");
		return;
	}
	debug.metricskeep = v == 1;
	debug.metricsoff = v == 2;
}

static void setlocks(int64_t v)
{
	debug.locks = v != 0;
}

static void setrequests(int64_t v)
{
	debug.requests = v != 0;
}

static void setflight(int64_t v)
{
	if (kernelmode) {
		warn("GOSHIM=flight: ignored; mode=kernel has no events");
		return;
	}
	debug.flight = v;
	debug.requests = true;
}

static char directory[FLIGHTDIR]; /* the value that is being set */

static void setflightdir(int64_t unused)
{
	(void)unused;
	memcpy(debug.flightdir, directory, sizeof directory);
}

static void setflightfiles(int64_t v)
{
	debug.flightfiles = v;
}

_Static_assert(DeadlockReport == 0 && DeadlockAbort == 1 && DeadlockOff == 2, "deadlockwords");

static const struct Key keys[] = {
#define KEY(name, min, max, words, allowed, argument, meaning) \
	{#name, min, max, allowed, set##name, words},
    SETTINGS(KEY)
#undef KEY
};

static bool word(const char *s, size_t n, const char *const *words, int64_t *out)
{
	for (int i = 0; words[i]; i++) {
		*out = i;
		if (strlen(words[i]) == n && !memcmp(words[i], s, n))
			return true;
	}
	return false;
}

static bool value(const struct Key *key, const char *s, size_t n, int64_t *out)
{
	if (key->words == TIME) {
		*out = keytime(s, n);
		return *out >= key->min && *out <= key->max;
	}
	if (key->words == DIRECTORY) {
		if (!keydirectory(s, n, sizeof directory))
			return false;
		memcpy(directory, s, n);
		directory[n] = 0;
		return true;
	}
	return key->words ? word(s, n, key->words, out) : number(s, n, key->min, key->max, out);
}

/* The names of all keys, for the message. */
static void keynames(char *buf, size_t size)
{
	size_t n = 0;
	for (size_t i = 0; i < nelem(keys); i++) {
		size_t len = strlen(keys[i].name);
		if (n + len + 3 > size)
			break;
		if (n) {
			buf[n++] = ',';
			buf[n++] = ' ';
		}
		memcpy(buf + n, keys[i].name, len);
		n += len;
	}
	buf[n] = 0;
}

static void setting(const char *s, size_t n)
{
	const char *eq = memchr(s, '=', n);
	size_t nkey = eq ? (size_t)(eq - s) : n;
	char text[64], names[256];
	size_t len = n < sizeof text - 1 ? n : sizeof text - 1;
	memcpy(text, s, len);
	text[len] = 0;
	for (size_t i = 0; i < nelem(keys); i++) {
		int64_t v = 1;
		if (strlen(keys[i].name) != nkey || memcmp(keys[i].name, s, nkey))
			continue;
		if (eq && !value(&keys[i], eq + 1, n - nkey - 1, &v))
			warn("GOSHIM=%s: ignored; allowed: %s", text, keys[i].allowed);
		else if (!eq && (keys[i].min > 1 || keys[i].words))
			warn("GOSHIM=%s: ignored; needs a value: %s", text, keys[i].allowed);
		else
			keys[i].set(v);
		return;
	}
	keynames(names, sizeof names);
	warn("GOSHIM=%s: ignored; the keys are %s", text, names);
}

/* GOTRACEBACK, with Go's words and numbers. A fatal signal leaves what it leaves natively in any case,
 * so crash adds nothing to system. */
static void settraceback(const char *s)
{
	static const struct {
		const char *name;
		TracebackLevel level;
	} levels[] = {
	    {"none", TracebackNone}, {"0", TracebackNone},       {"single", TracebackSingle},
	    {"all", TracebackAll},   {"1", TracebackAll},        {"system", TracebackSystem},
	    {"2", TracebackSystem},  {"crash", TracebackSystem},
	};
	for (size_t i = 0; i < nelem(levels); i++) {
		if (!strcmp(s, levels[i].name)) {
			debug.traceback = levels[i].level;
			return;
		}
	}
	warn("GOTRACEBACK=%s: ignored; allowed: none, single, all, system, crash, 0, 1, 2", s);
}

/*
 * A duplicate of stderr, for the line at the end: some programs close theirs in an atexit
 * handler (coreutils, xz), before us. Out of the way, and known again by its file, since
 * daemons close all they find.
 */
static struct {
	int fd;
	dev_t dev;
	ino_t ino;
} kept = {.fd = -1};

static void keepstderr(void)
{
	struct stat st;
	for (int least = 2000; kept.fd < 0 && least > 2; least /= 2)
		kept.fd = real.fcntl(2, F_DUPFD_CLOEXEC, least);
	if (kept.fd < 0 || fstat(kept.fd, &st))
		return;
	kept.dev = st.st_dev;
	kept.ino = st.st_ino;
}

static int keptstderr(void)
{
	struct stat st;
	bool same = fstat(kept.fd, &st) == 0 && st.st_dev == kept.dev && st.st_ino == kept.ino;
	return same ? kept.fd : 2;
}

/* What can't be counted without metrics. */
static void dropcounted(void)
{
	if (debug.flight)
		warn("GOSHIM=flight: ignored; metrics=off");
	else if (debug.requests)
		warn("GOSHIM=requests: ignored; metrics=off");
	if (debug.locks)
		warn("GOSHIM=locks: ignored; metrics=off");
	debug.flight = 0;
	debug.requests = debug.locks = false;
}

void rtsettings(void);
void rtsettings(void)
{
	const char *s = envgoshim;
	if (s && envtoolong) {
		warn("GOSHIM: ignored; allowed: up to %d characters", (int64_t)MAXSETTINGS);
		s = NULL;
	}
	while (s && *s) {
		const char *end = strchrnul(s, ',');
		if (end > s)
			setting(s, (size_t)(end - s));
		s = *end ? end + 1 : end;
	}
	if (debug.metricsoff)
		dropcounted();
	envgoshim = NULL; /* said once, not again in fork children */
	if (envgomaxprocs && *envgomaxprocs) {
		int64_t v;
		if (number(envgomaxprocs, strlen(envgomaxprocs), 1, MAXPROCS, &v))
			debug.gomaxprocs = v;
		else
			warn("GOMAXPROCS=%s: ignored; allowed: 1 to %d", envgomaxprocs,
			     (int64_t)MAXPROCS);
	}
	envgomaxprocs = NULL;
	if (envgotraceback && *envgotraceback)
		settraceback(envgotraceback);
	envgotraceback = NULL;
	if (debug.exitstats && kept.fd < 0)
		keepstderr();
}

/* A copy that one line can show: without control characters, cut to size. False if it was cut. */
static bool copyenv(char *buf, size_t size, const char *s)
{
	size_t n = strnlen(s, size);
	bool whole = n < size;
	n -= !whole;
	for (size_t i = 0; i < n; i++)
		buf[i] = (unsigned char)s[i] < ' ' || s[i] == 127 ? '?' : s[i];
	buf[n] = 0;
	return whole;
}

void parsesettings(char **envp)
{
	static char goshim[MAXSETTINGS + 1], gomaxprocs[32], gotraceback[32];
	for (; envp && *envp; envp++) {
		if (!strncmp(*envp, "GOSHIM=", 7)) {
			envgoshim = goshim;
			envtoolong = !copyenv(goshim, sizeof goshim, *envp + 7);
		} else if (!strncmp(*envp, "GOMAXPROCS=", 11)) {
			envgomaxprocs = gomaxprocs; /* cut, it is no number that we take */
			copyenv(gomaxprocs, sizeof gomaxprocs, *envp + 11);
		} else if (!strncmp(*envp, "GOTRACEBACK=", 12)) {
			envgotraceback = gotraceback;
			copyenv(gotraceback, sizeof gotraceback, *envp + 12);
		}
	}
}

/* --- main -------------------------------------------------------------------------------- */

static int (*programmain)(int, char **, char **);

/*
 * main on the main thread. Its own pthread_exit, and cancellation, unwind to
 * here: libc would end the kernel thread that happens to run it.
 */
static int wrappedmain(int argc, char **argv, char **envp)
{
	__pthread_unwind_buf_t buf;
	parsesettings(envp);
	if (__sigsetjmp((struct __jmp_buf_tag *)(void *)buf.__cancel_jmp_buf, 0) == 0) {
		__pthread_register_cancel(&buf);
		exit(programmain(argc, argv, envp));
	}
	mainend();
}

SHIM(int, __libc_start_main, int (*main)(int, char **, char **), int argc, char **argv,
     int (*init)(int, char **, char **), void (*fini)(void), void (*rtld_fini)(void),
     void *stack_end)
{
	if (!realinit()) {
		warn("libc has no %s: running without goshim", realmissing());
		return real.__libc_start_main(main, argc, argv, init, fini, rtld_fini, stack_end);
	}
	programmain = main;
	return real.__libc_start_main(wrappedmain, argc, argv, init, fini, rtld_fini, stack_end);
}

static int libcsclock(int clock, void *ts)
{
	return real.clock_gettime(clock, ts);
}

void timedready(void)
{
	rtsettings();
	/* For a thread's look at its own stack. */
	host.unwindbegin = unwindbegin;
	host.unwind = unwindstack;
	notetexts();
	unwindinit();
}

/* Kernel mode: main is libc's to call. */
TIMED(int, __libc_start_main, int (*main)(int, char **, char **), int argc, char **argv,
      int (*init)(int, char **, char **), void (*fini)(void), void (*rtld_fini)(void),
      void *stack_end)
{
	parsesettings(argv + argc + 1);
	host.clock_gettime = libcsclock;
	return real.__libc_start_main(main, argc, argv, init, fini, rtld_fini, stack_end);
}

/*
 * musl's loader reads LD_PRELOAD, too, and would die of the glibc symbols that we need. But it takes an
 * object that defines both __libc_start_main and stdin for a second libc, and uses its own instead: so
 * programs of musl's start without us. No program of glibc's binds to this version of the name.
 */
extern char _IO_2_1_stdin_[];
shim_exported void *shim_stdin = _IO_2_1_stdin_;
__asm__(".symver shim_stdin, stdin@@GOSHIM");

/* At exit() and return from main. */
__attribute__((destructor)) static void atend(void)
{
	if (kernelmode)
		timedend();
	if (!schedstarted())
		return;
	if (debug.exitstats)
		exitstats(keptstderr());
	metricsend();
}
