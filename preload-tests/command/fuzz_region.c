/*
 * Metrics regions that are damaged or lie: the commands that read them, built with the sanitizers, say one line or show what
 * there is, and don't crash.
 *
 *     fuzz_region REGION ROUNDS SEED live|dead COMMAND [OPTION ...]
 *
 * live: a copy of the region is this process's own, which changes it while it is read. dead: it is that of a process that is no
 * more. Says how often the command has shown something, and how often it refused.
 */
#define _GNU_SOURCE
#include "../../tools/trace_read.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#undef main
int goshim_main(int argc, char **argv);

/* What a command has when it exits is nobody's business. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

enum { PATIENCE = 100 /* s */, NOBODY = INT_MAX - 7 /* no process */ };

static uint64_t seed;
static unsigned char *whole; /* as it was */
static size_t size;
static char path[100];
static int file = -1;
static uint64_t entries, nentries, trace;

static uint64_t next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static _Noreturn void quit(const char *what)
{
	perror(what);
	unlink(path);
	exit(1);
}

/* A number that hits limits. */
static uint64_t value(uint64_t is)
{
	static const uint64_t edges[] = {0,          1,
					 7,          63,
					 0x7fffffff, 0x80000000,
					 0xffffffff, 1ull << 40,
					 INT64_MAX,  (uint64_t)INT64_MAX + 1,
					 UINT64_MAX, UINT64_MAX - 15};
	switch (next() % 6) {
	case 0: return edges[next() % (sizeof edges / sizeof edges[0])];
	case 1: return size + next() % 64 - 32;
	case 2: return is ^ 1ull << next() % 64;
	case 3: return is + next() % 16 - 8;
	case 4: return next() % (size + 1);
	default: return next();
	}
}

/* Somewhere where it means something. */
static uint64_t place(void)
{
	MetricEntry e = {.offset = 0};
	uint64_t entry = entries + next() % nentries * sizeof e;
	memcpy(&e, whole + entry, sizeof e);
	switch (next() % 8) {
	case 0: return next() % sizeof(MetricsHeader);
	case 1: return entry + next() % sizeof e;
	case 2: return trace + next() % (sizeof(TraceHeader) + 8 * sizeof(TraceHead));
	case 3: /* records of locks, modules */
	case 4: return e.offset + next() % (e.count && e.buckets && !e.sharded ? 40 * 256 : 4096);
	case 5: /* figures */
	{
		MetricsHeader h;
		memcpy(&h, whole, sizeof h);
		return h.shards + h.shardsize * (next() % h.nshards) + e.offset + next() % 256;
	}
	default: return next() % size;
	}
}

static void put(const void *p, size_t n, uint64_t at)
{
	if (at < size && n <= size - at && pwrite(file, p, n, (off_t)at) != (ssize_t)n)
		quit(path);
}

static void change(void)
{
	uint64_t at = place(), v = 0, width = 1ull << next() % 4;
	if (next() % 2)
		at &= ~7ull;
	if (at >= size || size - at < 8)
		return;
	memcpy(&v, whole + at, 8);
	v = value(v);
	put(&v, width, at);
	if (next() % 8 == 0) {
		/* A name without an end. */
		char text[64];
		memset(text, (int)(next() % 256), sizeof text);
		put(text, sizeof text, at);
	}
}

static void make(bool live)
{
	struct stat st;
	/* Others that start take away what the dead have left. */
	if (file >= 0 && fstat(file, &st) == 0 && st.st_nlink)
		return;
	if (file >= 0)
		close(file);
	file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (file < 0 || ftruncate(file, (off_t)size))
		quit(path);
	put(whole, size, 0);
	if (live && mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0) == MAP_FAILED)
		quit("mmap");
}

/* While it is recorded: events that are any, some of which look complete. */
static void events(void)
{
	TraceHeader h;
	memcpy(&h, whole + trace, sizeof h);
	uint64_t ring = next() % h.nrings, n = 0, from = next() % 16 ? 0 : next();
	if (pread(file, &n, sizeof n, (off_t)(h.heads + h.headsize * ring)) < 0)
		quit(path);
	for (unsigned i = 0; i < 50; i++, n++) {
		TraceEvent e = {.seq = n + 1 + !(next() % 16),
				.ticks = __builtin_ia32_rdtsc() + (next() % 8 ? 0 : value(0)),
				.what = TRACEWHAT(next() % 4 ? next() % 40 : next() % 256,
						  next() % 24, next() % 70, next() % 20),
				.arg = next() % 2 ? next() % 20 : value(0)};
		if (next() % 64 == 0)
			e.what = next();
		put(&e, sizeof e, h.rings + h.ringsize * ring + n % h.nevents * sizeof e);
	}
	n += from;
	put(&n, sizeof n, h.heads + h.headsize * ring);
}

/* The command's exit status; what it says on stderr in said. */
static int look(int argc, char **argv, bool live, char *said, size_t room)
{
	int err = memfd_create("stderr", MFD_CLOEXEC), status;
	pid_t child = fork();
	if (err < 0 || child < 0)
		quit("fork");
	if (child == 0) {
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
		dup2(null, STDOUT_FILENO);
		dup2(err, STDERR_FILENO);
		alarm(PATIENCE);
		exit(goshim_main(argc, argv));
	}
	while (waitpid(child, &status, live ? WNOHANG : 0) == 0) {
		struct timespec nap = {0, 500000};
		events();
		nanosleep(&nap, NULL);
	}
	ssize_t n = pread(err, said, room - 1, 0);
	said[n > 0 ? n : 0] = 0;
	close(err);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static bool isline(const char *s)
{
	const char *end = strchr(s, '\n');
	return !strncmp(s, "goshim: ", 8) && end && !end[1];
}

int main(int argc, char **argv)
{
	static char said[20000];
	char pid[20];
	unsigned shown = 0, refused = 0;
	if (argc < 6)
		return 2;
	int in = open(argv[1], O_RDONLY | O_CLOEXEC), rounds = atoi(argv[2]);
	bool live = !strcmp(argv[4], "live");
	struct stat st;
	seed = 88172645463325252u ^ strtoull(argv[3], NULL, 10) << 20;
	if (in < 0 || fstat(in, &st) || !(whole = malloc(size = (size_t)st.st_size)) ||
	    pread(in, whole, size, 0) != (ssize_t)size)
		quit(argv[1]);
	MetricsHeader h;
	memcpy(&h, whole, sizeof h);
	h.pid = (int32_t)getpid();
	memcpy(whole, &h, sizeof h);
	entries = h.headersize;
	nentries = h.nentries;
	for (uint64_t i = 0; i < nentries; i++) {
		MetricEntry e;
		memcpy(&e, whole + entries + i * sizeof e, sizeof e);
		if (e.kind == MetricTrace)
			trace = e.offset;
	}
	snprintf(pid, sizeof pid, "%d", live ? (int)getpid() : NOBODY - (int)getpid() % 1000);
	snprintf(path, sizeof path, METRICS_DIR METRICS_PREFIX "%d.%s.%d", (int)geteuid(), pid,
		 (int)getpid());
	char **args = calloc((size_t)argc, sizeof *args);
	int n = 0;
	args[n++] = (char *)"goshim";
	for (int i = 5; i < argc; i++)
		args[n++] = argv[i];
	args[n++] = pid;
	for (int i = 0; i < rounds; i++) {
		make(live);
		for (uint64_t k = i ? next() % 12 + 1 : 0; k; k--)
			change();
		if (i && next() % 8 == 0 && ftruncate(file, (off_t)(next() % size)))
			quit("truncate");
		uint64_t now = seed;
		int status = look(n, args, live, said, sizeof said);
		if ((status != 0 && status != 2) || (status == 2 && !isline(said))) {
			printf("round %d: status %d, '%s'\n", i, status, said);
			unlink(path);
			return 1;
		}
		status ? refused++ : shown++;
		seed = now; /* how often others looked is no matter of chance */
		if (ftruncate(file, 0) || ftruncate(file, (off_t)size))
			quit("truncate");
		put(whole, size, 0);
	}
	unlink(path);
	struct rusage use;
	getrusage(RUSAGE_CHILDREN, &use);
	printf("shown=%u refused=%u mib=%ld\n", shown, refused, use.ru_maxrss / 1024);
	return 0;
}
