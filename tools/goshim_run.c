/*
 * goshim CMD: becomes that program, with the library in it. No process stands between: exit status, signals and
 * the terminal are the program's own. What would run natively without a word is refused (goshim_elf.c).
 *
 * The library goes behind what is in LD_PRELOAD already: sanitizers want to be first, and an allocator that
 * stands before pthread_create shall find ours behind it (docs/limits.md).
 */
#define _GNU_SOURCE
#include "goshim.h"

#include "../core/settings.h"
#include "../shim/keys.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

static const struct Key {
	const char *name;
	long min, max;
	const char *const *words;
	const char *allowed, *argument, *meaning;
} keys[] = {
#define KEY(name, min, max, words, allowed, argument, meaning) \
	{#name, min, max, words, allowed, argument, meaning},
    SETTINGS(KEY)
#undef KEY
};
enum { NKEYS = sizeof keys / sizeof keys[0] };

static const char *const levels[] = {"none", "single", "all", "system", "crash", "0", "1", "2"};

void runhelp(void)
{
	for (int i = 0; i < NKEYS; i++) {
		char left[64];
		snprintf(left, sizeof left, "--%s %s", keys[i].name, keys[i].argument);
		printf("  %-18s %s\n", left, keys[i].meaning);
	}
}

static void set(const char *name, const char *value)
{
	if (setenv(name, value, 1))
		fail("out of memory");
}

/* --- where things are ------------------------------------------------------------------------ */

/* Where this command is: the directory, without a slash at the end. */
static void owndirectory(char *buf, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", buf, size - 1);
	if (n <= 0)
		fail("/proc/self/exe: %s", strerror(errno));
	buf[n] = 0;
	*strrchr(buf, '/') = 0;
}

/* A readable file, by its true path. */
static bool there(const char *path, char *real)
{
	return access(path, R_OK) == 0 && realpath(path, real);
}

const char *findlibrary(void)
{
	static char real[PATH_MAX];
	char own[PATH_MAX], path[2 * PATH_MAX];
	if (*real)
		return real;
	owndirectory(own, sizeof own);
	/* In a tree of the build, or installed: also below a root, or moved as a whole. */
	const char *const places[] = {"", "/../shim"};
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof path, "%s%s/" LIBRARY, own, places[i]);
		if (there(path, real))
			return real;
	}
	size_t n = strlen(own), bin = strlen("/" BINDIR);
	if (n >= bin && !strcmp(own + n - bin, "/" BINDIR)) {
		snprintf(path, sizeof path, "%.*s/%s/" LIBRARY, (int)(n - bin), own, LIBDIR);
		if (there(path, real))
			return real;
	}
	snprintf(path, sizeof path, "%s/%s/" LIBRARY, PREFIX, LIBDIR);
	if (!there(path, real))
		fail(LIBRARY " is neither beside this command (%s) nor installed (%s)", own, path);
	return real;
}

void preload(bool library)
{
	const char *path = library ? findlibrary() : "", *old = getenv("LD_PRELOAD");
	char *list = NULL;
	size_t size;
	if (strpbrk(path, " :$"))
		fail("%s: LD_PRELOAD can't hold a path with a space, a colon or a dollar sign",
		     path);
	FILE *f = open_memstream(&list, &size);
	const char *separator = "";
	for (const char *p = old; f && p && *p;) {
		size_t n = strcspn(p, " :"), name = n;
		while (name && p[name - 1] != '/')
			name--;
		/* Of another build of it there can't be two. */
		bool ours = n - name == strlen(LIBRARY) && !memcmp(p + name, LIBRARY, n - name);
		if (n && !ours) {
			fprintf(f, "%s%.*s", separator, (int)n, p);
			separator = ":";
		}
		p += n + (p[n] != 0);
	}
	if (f && library)
		fprintf(f, "%s%s", separator, path);
	if (!f || fclose(f))
		fail("out of memory");
	if (*list)
		set("LD_PRELOAD", list);
	else
		unsetenv("LD_PRELOAD");
	free(list);
}

/* Without a slash it is looked for in PATH. */
char *findprogram(const char *name, Refusal *r)
{
	const char *path = getenv("PATH");
	bool denied = false;
	if (strchr(name, '/'))
		return strdup(name);
	for (const char *p = path ? path : "/bin:/usr/bin"; *name;) {
		struct stat st;
		char *file;
		size_t n = strcspn(p, ":");
		if (asprintf(&file, "%.*s%s%s", (int)n, p, n ? "/" : "./", name) < 0)
			fail("out of memory");
		if (stat(file, &st) == 0) {
			if (S_ISREG(st.st_mode) && access(file, X_OK) == 0)
				return file;
			denied = true;
		} else if (errno == EACCES) {
			denied = true;
		}
		free(file);
		if (!p[n])
			break;
		p += n + 1;
	}
	r->status = denied ? CANTRUN : NOTFOUND;
	snprintf(r->why, sizeof r->why, "%s: %s", *name ? name : "''",
		 denied ? "in PATH, but not to be run" : "not found");
	return NULL;
}

/* --- options ------------------------------------------------------------------------------------ */

static char settings[MAXSETTINGS + 1];

static void addsetting(const char *name, const char *value)
{
	size_t n = strlen(settings);
	int need = snprintf(settings + n, sizeof settings - n, "%s%s%s%s", n ? "," : "", name,
			    value ? "=" : "", value ? value : "");
	if (n + (size_t)need >= sizeof settings)
		fail("GOSHIM and the options: more than %d characters", MAXSETTINGS);
}

void addtosettings(const char *more)
{
	const char *old = getenv("GOSHIM");
	*settings = 0;
	if (old && *old)
		addsetting(old, NULL);
	addsetting(more, NULL);
	set("GOSHIM", settings);
}

static bool oneof(const char *value, const char *const *words, int n)
{
	for (int i = 0; n ? i < n : words[i] != NULL; i++)
		if (!strcmp(value, words[i]))
			return true;
	return false;
}

static void key(const struct Key *k, const char *value)
{
	char what[64];
	snprintf(what, sizeof what, "--%s", k->name);
	bool right = true;
	if (k->words == TIME)
		right = keytime(value, strlen(value)) >= k->min &&
			keytime(value, strlen(value)) <= k->max;
	else if (k->words == DIRECTORY)
		right = keydirectory(value, strlen(value), (size_t)k->max) && !strchr(value, ',');
	else if (k->words)
		right = oneof(value, k->words, 0);
	if (!right)
		fail("%s '%s': want %s", what, value, k->allowed);
	if (!k->words && value)
		wholenumber(what, value, k->min, k->max);
	addsetting(k->name, value);
}

/* Into the environment; returns the index of the program. */
static int options(int argc, char **argv)
{
	enum { PROCS = 256, TRACEBACK, HELP, KEYS };
	struct option longs[NKEYS + 4] = {{"procs", required_argument, 0, PROCS},
					  {"traceback", required_argument, 0, TRACEBACK},
					  {"help", no_argument, 0, HELP}};
	const char *old = getenv("GOSHIM");
	int ch;
	for (int i = 0; i < NKEYS; i++)
		longs[3 + i] =
		    (struct option){keys[i].name,
				    *keys[i].argument ? required_argument : optional_argument, 0,
				    KEYS + i};
	if (old && *old)
		addsetting(old, NULL);
	size_t before = strlen(settings);
	opterr = 0;
	int at = optind;
	for (; (ch = getopt_long(argc, argv, "+", longs, NULL)) != -1; at = optind) {
		if (ch >= KEYS) {
			key(&keys[ch - KEYS], optarg);
		} else if (ch == PROCS) {
			wholenumber("--procs", optarg, 1, MAXPROCS);
			set("GOMAXPROCS", optarg);
		} else if (ch == TRACEBACK) {
			if (!oneof(optarg, levels, sizeof levels / sizeof levels[0]))
				fail("--traceback '%s': want none, single, all, system or crash",
				     optarg);
			set("GOTRACEBACK", optarg);
		} else if (ch == HELP) {
			help("run");
			exit(0);
		} else {
			fail("%s: unknown, or its value is missing or wrong; see goshim help run",
			     argv[at]);
		}
	}
	if (settings[before])
		set("GOSHIM", settings);
	return optind;
}

int run(int argc, char **argv)
{
	Refusal r;
	int first = options(argc, argv);
	if (first == argc)
		fail("a program is needed; see goshim help run");
	char *path = findprogram(argv[first], &r);
	if (!path || !takeslibrary(path, &r)) {
		fprintf(stderr, "goshim: %s\n", r.why);
		return r.status;
	}
	preload(true);
	execve(path, argv + first, environ);
	r.status = errno == ENOENT ? NOTFOUND : CANTRUN;
	fprintf(stderr, "goshim: %s: %s\n", path, strerror(errno));
	return r.status;
}
