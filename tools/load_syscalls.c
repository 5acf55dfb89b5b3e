/*
 * How many system calls the server makes, counted by the kernel: one perf event for each of its threads, which those
 * made later inherit. Needs the right to trace (root, as a rule). Rejected: strace, under which the server does
 * something else; perf around this process, whose window is another one than that of the answers.
 */
#define _GNU_SOURCE
#include "load.h"
#include <dirent.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int *events;
static unsigned nevents;

static unsigned long long tracepoint(void)
{
	static const char *const roots[] = {"/sys/kernel/tracing", "/sys/kernel/debug/tracing"};
	unsigned long long id = 0;
	for (unsigned i = 0; i < 2 && !id; i++) {
		char path[96];
		snprintf(path, sizeof path, "%s/events/raw_syscalls/sys_enter/id", roots[i]);
		FILE *f = fopen(path, "r");
		if (f && fscanf(f, "%llu", &id) != 1)
			id = 0;
		if (f)
			fclose(f);
	}
	return id;
}

bool count_syscalls(pid_t pid)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_TRACEPOINT,
				       .size = sizeof attr,
				       .config = tracepoint(),
				       .inherit = 1,
				       .sample_period = 0};
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/task", pid);
	DIR *d = attr.config ? opendir(path) : NULL;
	struct dirent *e;
	while (d && (e = readdir(d))) {
		int tid = atoi(e->d_name);
		if (!tid)
			continue;
		long fd = syscall(SYS_perf_event_open, &attr, tid, -1, -1, PERF_FLAG_FD_CLOEXEC);
		if (fd < 0 && errno == ESRCH)
			continue;
		int *more = realloc(events, (nevents + 1) * sizeof *events);
		if (fd < 0 || !more)
			break;
		events = more;
		events[nevents++] = (int)fd;
	}
	if (d)
		closedir(d);
	return d && !e && nevents;
}

uint64_t syscalls_counted(void)
{
	uint64_t total = 0, n;
	for (unsigned i = 0; i < nevents; i++)
		if (read(events[i], &n, sizeof n) == sizeof n)
			total += n;
	return total;
}
