/*
 * goshim compare: the same server natively, on the kernel's threads but counted, and on goroutines, in turn, under the same load.
 *
 * Each round has a fresh server, and the modes take turns in going first, so that a noisy machine is noisy for all
 * and a drift is no difference. What is a difference and what is noise is told apart by the rounds' ranges
 * (goshim_figures.c). Files to write are opened before the first round: minutes of work shall not end
 * with "permission denied".
 */
#define _GNU_SOURCE
#include "compare.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const Mode modes[] = {
    {"native", "without the library", false, false, NULL},
    {"kernel", "threads as they are, and counted", true, true, "mode=kernel"},
    {"goroutines", "each thread a goroutine", true, false, "mode=goroutines"},
};
enum { NMODES = sizeof modes / sizeof modes[0] };

static Plan plan = {.rounds = 5, .wait = 30, .output = "goshim-compare"};

static void create(OutputFile *o, const char *name)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/%s", plan.output, name);
	outputopen(o, "compare", strdup(path));
}

static void choosemodes(const char *list)
{
	plan.nmodes = 0;
	for (const char *p = list; *p;) {
		size_t n = strcspn(p, ",");
		int i = 0;
		while (i < NMODES && (strlen(modes[i].name) != n || memcmp(modes[i].name, p, n)))
			i++;
		for (int k = 0; k < plan.nmodes && i < NMODES; k++)
			if (plan.modes[k] == &modes[i])
				fail("compare: --modes '%s': %s twice", list, modes[i].name);
		if (i == NMODES)
			fail("compare: --modes '%s': want some of native,kernel,goroutines", list);
		plan.modes[plan.nmodes++] = &modes[i];
		p += n + (p[n] == ',');
	}
	if (!plan.nmodes)
		fail("compare: --modes '%s': want some of native,kernel,goroutines", list);
}

/* One of the built-in client's, or a command? Wrong ones are told before the first round. */
static void chooseload(void)
{
	char why[256], *spec = strdup(plan.load);
	for (int i = 0; protocol_names[i]; i++) {
		size_t n = strlen(protocol_names[i]);
		plan.builtin |= !strncmp(plan.load, protocol_names[i], n) && plan.load[n] == ':';
	}
	plan.client = load_defaults;
	if (!plan.builtin && plan.rate > 0)
		fail("compare: --rate is for the built-in client: memcached:PORT and such");
	if (!plan.builtin)
		return;
	for (char *p; (p = strstr(spec, "{port}"));)
		memmove(p, p + 5, strlen(p + 5) + 1), *p = '1';
	struct options o = plan.client;
	if (!load_spec(&o, spec, why, sizeof why) || !load_complete(&o, why, sizeof why))
		fail("compare: --load '%s': %s", plan.load, why);
	plan.client = o;
	free(spec);
}

static void options(int argc, char **argv)
{
	enum { ROUNDS, RATE, LOAD, OUTPUT, MODES, WAIT, PORT, QUIET };
	static const struct option longs[] =
	    {{"rounds", 1, 0, ROUNDS}, {"rate", 1, 0, RATE},   {"load", 1, 0, LOAD},
	     {"output", 1, 0, OUTPUT}, {"modes", 1, 0, MODES}, {"wait", 1, 0, WAIT},
	     {"port", 1, 0, PORT},     {"quiet", 0, 0, QUIET}, {0}};
	int ch;
	opterr = 0;
	choosemodes("native,kernel,goroutines");
	for (int at = optind; (ch = getopt_long(argc, argv, "+", longs, NULL)) != -1; at = optind) {
		switch (ch) {
		case ROUNDS:
			plan.rounds = (int)wholenumber("compare: --rounds", optarg, 1, MAXROUNDS);
			break;
		case RATE: plan.rate = number("compare: --rate", optarg, 1, 1e7); break;
		case LOAD: plan.load = optarg; break;
		case OUTPUT: plan.output = optarg; break;
		case MODES: choosemodes(optarg); break;
		case WAIT: plan.wait = number("compare: --wait", optarg, 0.1, 3600); break;
		case PORT: plan.port = wholenumber("compare: --port", optarg, 1, 65535); break;
		case QUIET: plan.quiet = true; break;
		default:
			fail("compare: %s: unknown, or its value is missing; see goshim help "
			     "compare",
			     argv[at]);
		}
	}
	plan.server = argv + optind;
	if (!plan.load)
		fail("compare: --load is needed; see goshim help compare");
	if (!*plan.server)
		fail("compare: a server is needed; see goshim help compare");
	chooseload();
}

static void checkserver(void)
{
	Refusal r;
	char *path = findprogram(plan.server[0], &r);
	if (!path || !takeslibrary(path, &r))
		fail("compare: %s", r.why);
	free(path);
	findlibrary();
}

static void writehgrm(FILE *f, int mode)
{
	struct hist *h = malloc(sizeof *h);
	if (!h)
		fail("out of memory");
	totalhist(&plan, mode, h);
	hist_write(h, f);
	free(h);
}

/* Whoever has the library in all processes of a shell has it in this one, too: the client shall be native. */
static void benative(char **argv)
{
	char *before = getenv("LD_PRELOAD") ? strdup(getenv("LD_PRELOAD")) : NULL;
	preload(false);
	if (before && strcmp(before, getenv("LD_PRELOAD") ? getenv("LD_PRELOAD") : "")) {
		execv("/proc/self/exe", argv - 1); /* the command's own, before "compare" */
		fail("compare: /proc/self/exe: %s", strerror(errno));
	}
	free(before);
}

int compare(int argc, char **argv)
{
	static OutputFile html, json, hgrm[MAXMODES];
	char name[64], value[4096];
	const char *what;
	benative(argv);
	options(argc, argv);
	checkserver();
	if (mkdir(plan.output, 0777) && errno != EEXIST)
		fail("compare: --output %s: %s", plan.output, strerror(errno));
	create(&html, "report.html");
	create(&json, "report.json");
	for (int i = 0; i < plan.nmodes && plan.builtin; i++) {
		snprintf(name, sizeof name, "%s.hgrm", plan.modes[i]->name);
		create(&hgrm[i], name);
	}
	for (int i = 0; environment(&plan, i, &what, value, sizeof value); i++)
		; /* as it is now */
	getloadavg(&plan.busy, 1);
	watchsignals();
	for (int r = 0; r < plan.rounds; r++) {
		for (int i = 0; i < plan.nmodes; i++) {
			int m = (i + r) % plan.nmodes;
			progress(&plan, "round %d of %d: %s", r + 1, plan.rounds,
				 plan.modes[m]->name);
			oneround(&plan, plan.modes[m], &plan.result[m][r]);
		}
	}
	progress(&plan, "%d rounds done; the report is %s/report.html", plan.rounds, plan.output);
	endprogress();
	printtable(&plan);
	writereport(&plan, outputbegin(&html));
	outputend(&html);
	writejson(&plan, outputbegin(&json));
	outputend(&json);
	for (int i = 0; i < plan.nmodes && plan.builtin; i++) {
		writehgrm(outputbegin(&hgrm[i]), i);
		outputend(&hgrm[i]);
	}
	return 0;
}
