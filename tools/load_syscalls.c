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
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int *events;
static unsigned nevents;

/* 0: it isn't there. */
static unsigned long long readid(void)
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

/* Where nobody has mounted the file system that tells of it, a child does, for itself alone. */
static unsigned long long tracepoint(void)
{
	unsigned long long id = readid();
	int fds[2];
	if (id || pipe(fds))
		return id;
	pid_t pid = fork();
	if (pid == 0) {
		if (unshare(CLONE_NEWNS) == 0 &&
		    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
		    mount("none", "/sys/kernel/tracing", "tracefs", 0, NULL) == 0)
			id = readid();
		_exit(write(fds[1], &id, sizeof id) != sizeof id);
	}
	close(fds[1]);
	if (pid < 0 || read(fds[0], &id, sizeof id) != sizeof id)
		id = 0;
	close(fds[0]);
	if (pid > 0)
		waitpid(pid, NULL, 0);
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
