/*
 * leftovers.c - regions of processes that are gone.
 *
 * Who is killed leaves his file. Each start looks for such files of its user: those whose process is gone stay for an hour
 * after they were first found so, and no more than 16 of them. A process is gone if there is none with its number, in
 * the same pid namespace.
 */
#include "metrics.h"
#include "runtime.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <string.h>
#include <sys/syscall.h>

enum {
	KEPT = 16,
	KEEPTIME = 3600, /* seconds */
};

/* Follows links. False: there is none, or it can't be told. */
static bool filestat(const char *path, struct statx *st)
{
	return sys5(SYS_statx, AT_FDCWD, (long)path, 0, STATX_BASIC_STATS, (long)st) == 0;
}

uint64_t metricspidns(void)
{
	struct statx st;
	return filestat("/proc/self/ns/pid", &st) ? st.stx_ino : 0;
}

typedef struct Leftover {
	char name[56];
	int64_t found; /* since when it is known to be one */
} Leftover;

static bool isnumber(char c)
{
	return c >= '0' && c <= '9';
}

static bool ends(const char *s, size_t within)
{
	for (size_t i = 0; i < within; i++)
		if (!s[i])
			return true;
	return false;
}

/* The process id in the name of a region of this user's; 0: it is none. */
static int ownerof(const char *name, uint64_t user)
{
	static const char prefix[] = METRICS_PREFIX;
	uint64_t n = 0, pid = 0;
	if (!ends(name, sizeof((Leftover *)0)->name) || memcmp(name, prefix, sizeof prefix - 1))
		return 0;
	for (name += sizeof prefix - 1; isnumber(*name) && n < UINT32_MAX; name++)
		n = n * 10 + (uint64_t)(*name - '0');
	if (*name != '.' || n != user)
		return 0;
	for (name++; isnumber(*name) && pid < INT32_MAX; name++)
		pid = pid * 10 + (uint64_t)(*name - '0');
	return *name == '.' && pid <= INT32_MAX ? (int)pid : 0;
}

/* Is that the region of a process of this namespace? It has no process any more. */
static bool leftover(const char *path, uint64_t pidns, int64_t *found)
{
	MetricsHeader h;
	struct statx st;
	long fd =
	    sys4(SYS_openat, AT_FDCWD, (long)path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0);
	if (fd < 0)
		return false;
	bool ours = sys4(SYS_pread64, fd, (long)&h, sizeof h, 0) == sizeof h &&
		    memcmp(h.magic, METRICS_MAGIC, sizeof h.magic) == 0 && h.pidns == pidns;
	if (ours && !h.noticed) { /* its time is now's from here on */
		h.noticed = 1;
		sys4(SYS_pwrite64, fd, (long)&h.noticed, sizeof h.noticed,
		     offsetof(MetricsHeader, noticed));
	}
	ours = ours && filestat(path, &st);
	*found = ours ? st.stx_mtime.tv_sec : 0;
	sys1(SYS_close, fd);
	return ours;
}

static char *pathof(char *buf, size_t size, const char *name)
{
	Text t = textin(buf, size);
	textput(&t, METRICS_DIR "%s", name);
	return textend(&t);
}

static void forget(const char *name)
{
	char path[80];
	sys1(SYS_unlink, (long)pathof(path, sizeof path, name));
}

/* One more; of those that are too many or too old the oldest goes. */
static int keep(Leftover *list, int n, const Leftover *one, int64_t now)
{
	if (one->found + KEEPTIME < now) {
		forget(one->name);
		return n;
	}
	if (n < KEPT) {
		list[n++] = *one;
		return n;
	}
	int oldest = 0;
	for (int i = 1; i < n; i++)
		if (list[i].found < list[oldest].found)
			oldest = i;
	if (one->found <= list[oldest].found) {
		forget(one->name);
	} else {
		forget(list[oldest].name);
		list[oldest] = *one;
	}
	return n;
}

void metricssweep(void)
{
	Dir dir;
	Leftover list[KEPT], one;
	int n = 0;
	int64_t now[2] = {0, 0};
	uint64_t user = (uint64_t)sys0(SYS_geteuid), pidns = 0;
	if (!diropen(&dir, METRICS_DIR))
		return;
	sys2(SYS_clock_gettime, 0, (long)now);
	for (const char *name; (name = dirnext(&dir));) {
		char path[80];
		int pid = ownerof(name, user);
		if (!pid || sys2(SYS_kill, pid, 0) != -ESRCH)
			continue;
		if (!pidns && !(pidns = metricspidns()))
			break; /* it could be another namespace's process, and live */
		if (!leftover(pathof(path, sizeof path, name), pidns, &one.found))
			continue;
		Text t = textin(one.name, sizeof one.name);
		textput(&t, "%s", name);
		textend(&t);
		n = keep(list, n, &one, now[0]);
	}
	dirclose(&dir);
}
