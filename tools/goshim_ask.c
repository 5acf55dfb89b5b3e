/*
 * Reaching a process that has goroutines, to ask it something (shim/dump.h says how).
 *
 * The request is harmless to whoever doesn't know it, but all that /proc tells is looked at first: a
 * process that can't answer gets a line that says why, and one that a system call might kill, since it has a
 * seccomp filter, is not asked.
 */
#define _GNU_SOURCE
#include "goshim_ask.h"

#include "goroutines_read.h"
#include "metrics_read.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { REPEAT = 100 /* ms between requests */ };

int64_t now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* --- what /proc says ------------------------------------------------------------------------ */

int readproc(int pid, const char *file, char *buf, size_t size)
{
	char path[320];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
	int fd = open(path, O_RDONLY | O_CLOEXEC), n = -1;
	if (fd >= 0) {
		n = (int)read(fd, buf, size - 1);
		close(fd);
	}
	buf[n < 0 ? 0 : n] = 0;
	return n;
}

/* What follows `name:` and a tab in a status file, or "". */
static const char *field(const char *status, const char *name)
{
	size_t n = strlen(name);
	for (const char *line = status; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, name, n) && line[n] == ':' && line[n + 1] == '\t')
			return line + n + 2;
	}
	return "";
}

static void lookatthreads(Target *t)
{
	char path[64], file[300], buf[4096];
	snprintf(path, sizeof path, "/proc/%d/task", t->pid);
	DIR *d = opendir(path);
	if (!d)
		fail(errno == ENOENT ? "process %d has ended" : "process %d: %s", t->pid,
		     strerror(errno));
	for (struct dirent *e; (e = readdir(d));) {
		unsigned user;
		if (e->d_name[0] == '.')
			continue;
		snprintf(file, sizeof file, "task/%s/status", e->d_name);
		if (readproc(t->pid, file, buf, sizeof buf) <= 0)
			continue; /* it has ended */
		t->filtered |= *field(buf, "Seccomp") > '0';
		if (strncmp(field(buf, "Name"), MONITOR "\n", sizeof MONITOR))
			continue;
		t->monitor = atoi(e->d_name);
		t->state = *field(buf, "State");
		if (sscanf(field(buf, "Uid"), "%*u %u", &user) == 1)
			t->user = user;
	}
	closedir(d);
}

static void checkstopped(const Target *t)
{
	if (t->state == 'T')
		fail("process %d is stopped; SIGCONT lets it go on", t->pid);
	if (t->state == 't')
		fail("process %d is stopped by a debugger", t->pid);
}

static void lookat(Target *t, int id, bool force, const char *sub)
{
	char status[4096];
	uint64_t base;
	if (readproc(id, "status", status, sizeof status) <= 0) {
		if (kill(id, 0) < 0 && errno == ESRCH)
			fail("no process %d", id);
		fail("process %d: /proc does not show it; ask as root", id);
	}
	t->pid = atoi(field(status, "Tgid")); /* id may be one of its threads */
	lookatthreads(t);
	if (!t->monitor) {
		if (*field(status, "State") == 'Z')
			fail("process %d has ended, and its parent has not waited for it", t->pid);
		switch (librarybase(t->pid, &base)) {
		case 1: metricsmissing(t->pid, status); fail("%s", status);
		case 0: fail("process %d does not run under goshim", t->pid);
		default: fail("process %d has no goroutines", t->pid);
		}
	}
	checkstopped(t);
	if (t->filtered && !force)
		fail(
		    "process %d has a seccomp filter, which could kill it for an answer; see goshim %s --help",
		    t->pid, sub);
}

/* Abstract sockets are the network namespace's. */
static void enternetwork(const Target *t)
{
	char path[64];
	struct stat own, its;
	snprintf(path, sizeof path, "/proc/%d/ns/net", t->pid);
	if (stat("/proc/self/ns/net", &own) || stat(path, &its) ||
	    (own.st_dev == its.st_dev && own.st_ino == its.st_ino))
		return;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET))
		fail("process %d has a network namespace of its own; ask as root", t->pid);
	close(fd);
}

/* --- the request ------------------------------------------------------------------------------ */

/* A listening socket; its number. */
static int listener(const Target *t, uint32_t *number)
{
	struct sockaddr_un a;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		fail("socket: %s", strerror(errno));
	do {
		if (getrandom(number, sizeof *number, 0) != sizeof *number)
			fail("getrandom: %s", strerror(errno));
		socklen_t n = dumpaddress(&a, *number);
		if (bind(fd, (struct sockaddr *)&a, n) == 0)
			break;
	} while (errno == EADDRINUSE);
	/* The process asks the kernel who listens. Root is nobody in another user namespace; its own user is. */
	uid_t me = geteuid();
	bool lent = me == 0 && seteuid(t->user) == 0;
	if (listen(fd, 4))
		fail("listen: %s", strerror(errno));
	if (lent && seteuid(me))
		fail("seteuid: %s", strerror(errno));
	return fd;
}

static void request(const Target *t, uint64_t what, uint32_t number)
{
	siginfo_t info = {.si_signo = SIGURG, .si_code = SI_QUEUE};
	info.si_pid = getpid();
	info.si_uid = getuid();
	info.si_value.sival_ptr = (void *)(uintptr_t)(what | number);
	if (syscall(SYS_rt_tgsigqueueinfo, t->pid, t->monitor, SIGURG, &info) == 0)
		return;
	if (errno == ESRCH)
		fail("process %d has ended", t->pid);
	if (errno == EPERM)
		fail("process %d belongs to another user", t->pid);
	fail("process %d: %s", t->pid, strerror(errno));
}

noreturn void silent(Target *t)
{
	lookatthreads(t);
	checkstopped(t);
	fail("process %d does not answer within %g s", t->pid, t->timeout);
}

/* The process's connection; another's is refused, since anyone may connect. */
static int connection(Target *t, int sock, uint64_t what, uint32_t number)
{
	int64_t end = now() + (int64_t)(t->timeout * 1000);
	for (;;) {
		struct pollfd p = {.fd = sock, .events = POLLIN};
		struct ucred peer = {0};
		socklen_t n = sizeof peer;
		int64_t left = end - now();
		if (left <= 0)
			silent(t);
		request(t, what, number);
		if (poll(&p, 1, left < REPEAT ? (int)left : REPEAT) <= 0)
			continue;
		int fd = accept4(sock, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 && peer.pid == t->pid)
			return fd;
		close(fd);
	}
}

void target(Target *t, int id, double timeout, bool force, const char *sub)
{
	*t = (Target){.timeout = timeout};
	lookat(t, id, force, sub);
	enternetwork(t);
}

int ask(Target *t, uint64_t what)
{
	uint32_t number;
	int sock = listener(t, &number);
	int fd = connection(t, sock, what, number);
	close(sock);
	return fd;
}
