/*
 * os_linux.c - the operating system as the runtime sees it.
 *
 * The problem: the runtime runs under the program's thread blocks, inside its
 * signal handlers and in its forked children. libc's wrappers write errno, are
 * cancellation points, may be interposed by ourselves, and keep state that a
 * vanished thread may have left locked. So everything here is a raw system
 * call that returns -errno and keeps no state, with one exception: the clock
 * is read through the host, because only libc knows where the vdso is, and
 * the vdso is ten times faster than the kernel.
 *
 * How many CPUs we have is not only a matter of the affinity mask. A container
 * with a CPU quota is stopped for the rest of each period once its threads
 * have used the quota up, so more Ps than the quota allows run fast for a
 * while and then not at all. ncpu reads the limits of the process's cgroup
 * and all its ancestors, since each of them binds. Reading only the own
 * group was rejected: pods set the limit one level up. A limit below 2 counts
 * as 2, as in Go 1.25: one P would serialise what the quota merely slows.
 */
#include "os.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "arch/x86_64/arch.h"
#include "host.h"

#define NSEC 1000000000LL

typedef struct Timespec {
	int64_t sec, nsec;
} Timespec;

enum { ClockMonotonic = 1 };

void futexsleep(_Atomic uint32_t *addr, uint32_t val, int64_t ns)
{
	Timespec ts;

	if (ns < 0) {
		sys4(SYS_futex, (long)addr, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, val, 0);
		return;
	}
	ts.sec = ns / NSEC;
	ts.nsec = ns % NSEC;
	sys4(SYS_futex, (long)addr, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, val, (long)&ts);
}

void futexwakeup(_Atomic uint32_t *addr, uint32_t cnt)
{
	sys3(SYS_futex, (long)addr, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, cnt);
}

int64_t nanotime(void)
{
	Timespec ts = {0, 0};

	/* Read once: avoidtsc takes it away. */
	__typeof__(host.clock_gettime) libcs =
	    __atomic_load_n(&host.clock_gettime, __ATOMIC_RELAXED);
	if (likely(libcs != NULL))
		libcs(ClockMonotonic, &ts);
	else
		sys2(SYS_clock_gettime, ClockMonotonic, (long)&ts);
	return ts.sec * NSEC + ts.nsec;
}

void osyield(void)
{
	sys0(SYS_sched_yield);
}

void usleep_os(uint32_t us)
{
	Timespec ts = {us / 1000000, us % 1000000 * 1000};

	sys2(SYS_nanosleep, (long)&ts, 0);
}

int gettid_os(void)
{
	return (int)sys0(SYS_gettid);
}

static void *map(void *at, size_t n, int prot, int flags)
{
	long r =
	    sys6(SYS_mmap, (long)at, (long)n, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	return r < 0 && r > -4096 ? NULL : (void *)r;
}

void *sysalloc(size_t n)
{
	return map(NULL, n, PROT_READ | PROT_WRITE, 0);
}

bool sysallocat(void *p, size_t n)
{
	void *q = map(p, n, PROT_READ | PROT_WRITE, MAP_FIXED_NOREPLACE);

	/* Kernels before 4.17 take the address as a hint. */
	if (q != NULL && q != p) {
		sysfree(q, n);
		return false;
	}
	return q != NULL;
}

void sysfree(void *p, size_t n)
{
	sys2(SYS_munmap, (long)p, (long)n);
}

void *sysreserveclosed(size_t n)
{
	void *p = map(NULL, n, PROT_NONE, MAP_NORESERVE);

	/* gdb's gcore would write it all. */
	if (p != NULL)
		sys3(SYS_madvise, (long)p, (long)n, MADV_DONTDUMP);
	return p;
}

int sysopen(void *p, size_t n)
{
	int r = (int)sys3(SYS_mprotect, (long)p, (long)n, PROT_READ | PROT_WRITE);

	if (r == 0)
		sys3(SYS_madvise, (long)p, (long)n, MADV_DODUMP);
	return r;
}

int sysclose(void *p, size_t n)
{
	return (int)sys3(SYS_mprotect, (long)p, (long)n, PROT_NONE);
}

int sysunused(void *p, size_t n)
{
	return (int)sys3(SYS_madvise, (long)p, (long)n, MADV_DONTNEED);
}

void sysnohugepages(void *p, size_t n)
{
	/* Fails where the kernel has no huge pages. */
	sys3(SYS_madvise, (long)p, (long)n, MADV_NOHUGEPAGE);
}

int64_t threadcputime(int tid)
{
	Timespec ts;
	/* The clock of one thread: its id inverted, then per-thread and
	 * scheduler-time bits (kernel: make_thread_cpuclock). */
	int clock = (int)((~(unsigned)tid << 3) | 6);

	if (sys2(SYS_clock_gettime, clock, (long)&ts) != 0)
		return -1;
	return ts.sec * NSEC + ts.nsec;
}

int tgkill_os(int tid, int sig)
{
	/* The pid is asked for each time: a cached one is wrong after fork. */
	return (int)sys3(SYS_tgkill, sys0(SYS_getpid), tid, sig);
}

void writeall(int fd, const void *p, size_t n)
{
	const char *s = p;
	long r;

	while (n > 0) {
		r = sys3(SYS_write, fd, (long)s, (long)n);
		if (r == -EINTR)
			continue;
		if (r <= 0)
			return;
		s += r;
		n -= (size_t)r;
	}
}

static long readsome(int fd, char *buf, size_t n)
{
	long r;

	do
		r = sys3(SYS_read, fd, (long)buf, (long)n);
	while (r == -EINTR);
	return r;
}

static long openread(const char *path)
{
	return sys4(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0);
}

long readfile(const char *path, char *buf, size_t n)
{
	size_t have = 0;
	long fd, r = 0;

	fd = openread(path);
	if (fd < 0)
		return fd;
	while (have < n) {
		r = readsome((int)fd, buf + have, n - have);
		if (r <= 0)
			break;
		have += (size_t)r;
	}
	sys1(SYS_close, fd);
	return r < 0 ? r : (long)have;
}

bool diropen(Dir *d, const char *path)
{
	d->fd = sys4(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	d->n = d->at = 0;
	return d->fd >= 0;
}

const char *dirnext(Dir *d)
{
	struct {
		uint64_t ino;
		int64_t off;
		uint16_t size;
		uint8_t type;
		char name[];
	} * e; /* the kernel's linux_dirent64 */
	if (d->at >= d->n) {
		d->n = sys3(SYS_getdents64, d->fd, (long)d->buf, sizeof d->buf);
		d->at = 0;
	}
	if (d->n <= 0)
		return NULL;
	e = (void *)(d->buf + d->at);
	d->at += e->size;
	return e->name;
}

void dirclose(Dir *d)
{
	sys1(SYS_close, d->fd);
}

int naffinity(void)
{
	unsigned long mask[1024]; /* 65536 CPUs; the kernel wants room for all it knows */
	long n;
	int count = 0;

	n = sys3(SYS_sched_getaffinity, 0, sizeof(mask), (long)mask);
	for (long i = 0; i < n / (long)sizeof(mask[0]); i++)
		count += __builtin_popcountl(mask[i]);
	return count > 0 ? count : 1;
}

/* --- CPU limits ----------------------------------------------------------- */

enum { PathMax = 4096 };

/* A file read line by line: mountinfo has no upper size. */
typedef struct Lines {
	int fd;
	size_t have, used;
	bool skipping; /* the rest of an overlong line */
	char buf[2 * PathMax];
} Lines;

static bool linesopen(Lines *l, const char *path)
{
	l->fd = (int)openread(path);
	l->have = l->used = 0;
	l->skipping = false;
	return l->fd >= 0;
}

/* The next line without its newline, or NULL. Overlong lines are left out. */
static char *linesnext(Lines *l)
{
	char *line, *end;
	long r;

	for (;;) {
		line = l->buf + l->used;
		for (end = line; end < l->buf + l->have && *end != '\n'; end++)
			;
		if (end < l->buf + l->have) {
			*end = 0;
			l->used = (size_t)(end + 1 - l->buf);
			if (!l->skipping)
				return line;
			l->skipping = false;
			continue;
		}
		memmove(l->buf, line, l->have - l->used);
		l->have -= l->used;
		l->used = 0;
		if (l->have == sizeof(l->buf) - 1) {
			l->have = 0;
			l->skipping = true;
		}
		r = readsome(l->fd, l->buf + l->have, sizeof(l->buf) - 1 - l->have);
		if (r > 0) {
			l->have += (size_t)r;
			continue;
		}
		if (l->have == 0 || l->skipping)
			return NULL;
		l->buf[l->have++] = '\n'; /* a last line without its end */
	}
}

static void linesclose(Lines *l)
{
	sys1(SYS_close, l->fd);
}

/* The rest of s behind prefix, or NULL. */
static const char *after(const char *s, const char *prefix)
{
	while (*prefix != 0)
		if (*s++ != *prefix++)
			return NULL;
	return s;
}

/* Cuts the next field off *s at `sep`; NULL at the end. */
static char *field(char **s, char sep)
{
	char *f = *s, *p;

	if (f == NULL || *f == 0)
		return NULL;
	for (p = f; *p != 0 && *p != sep; p++)
		;
	*s = *p != 0 ? p + 1 : p;
	*p = 0;
	return f;
}

static bool equal(const char *a, const char *b)
{
	const char *rest = a == NULL ? NULL : after(a, b);

	return rest != NULL && *rest == 0;
}

/* Does the comma-separated list contain the word? Destroys the list. */
static bool listed(char *list, const char *word)
{
	char *f;

	while ((f = field(&list, ',')) != NULL)
		if (equal(f, word))
			return true;
	return false;
}

/* Appends s to the string of length *n in buf; false when it has no room. */
static bool append(char *buf, size_t *n, const char *s)
{
	while (*s != 0) {
		if (*n + 1 >= PathMax)
			return false;
		buf[(*n)++] = *s++;
	}
	buf[*n] = 0;
	return true;
}

/* mountinfo writes blanks and the like as \ooo; undone in place. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s != 0; to++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
		    s[3] >= '0' && s[3] <= '7') {
			*to = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*to = *s++;
		}
	}
	*to = 0;
}

/* The decimal number at *s, which moves behind it; -1: none ("max", "-1"). */
static int64_t number(const char **s)
{
	int64_t v = -1;

	while (**s == ' ')
		++*s;
	for (; **s >= '0' && **s <= '9' && v < INT64_MAX / 20; ++*s)
		v = (v < 0 ? 0 : v * 10) + (**s - '0');
	return v;
}

typedef struct CgroupPaths {
	char v1[PathMax], v2[PathMax]; /* the process's group in each hierarchy; "": none */
} CgroupPaths;

/* /proc/self/cgroup: "id:controllers:path" for each hierarchy, "0::path" for v2. */
static bool cgrouppaths(const char *root, CgroupPaths *c)
{
	char path[PathMax];
	Lines l;
	char *line, *id, *controllers;
	size_t n = 0;

	c->v1[0] = c->v2[0] = 0;
	if (!append(path, &n, root) || !append(path, &n, "/proc/self/cgroup") ||
	    !linesopen(&l, path))
		return false;
	while ((line = linesnext(&l)) != NULL) {
		id = field(&line, ':');
		if (id == NULL)
			continue;
		if (line[0] == ':') {
			n = 0;
			if (equal(id, "0") && !append(c->v2, &n, line + 1))
				c->v2[0] = 0;
			continue;
		}
		controllers = field(&line, ':');
		n = 0;
		if (controllers != NULL && listed(controllers, "cpu") && !append(c->v1, &n, line))
			c->v1[0] = 0;
	}
	linesclose(&l);
	return c->v1[0] != 0 || c->v2[0] != 0;
}

/* CPUs allowed by the group whose directory is dir[0..n), rounded up; 0: no limit. */
static int64_t grouplimit(char *dir, size_t n, bool v2)
{
	char text[128];
	const char *s = text;
	int64_t quota, period;
	size_t end = n;
	long r;

	if (!append(dir, &end, v2 ? "/cpu.max" : "/cpu.cfs_quota_us"))
		return 0;
	r = readfile(dir, text, sizeof(text) - 1);
	if (r <= 0)
		return 0;
	text[r] = 0;
	quota = number(&s);
	if (!v2) {
		end = n;
		if (!append(dir, &end, "/cpu.cfs_period_us"))
			return 0;
		r = readfile(dir, text, sizeof(text) - 1);
		if (r <= 0)
			return 0;
		text[r] = 0;
		s = text;
	}
	period = number(&s);
	if (quota <= 0 || period <= 0)
		return 0;
	return (quota + period - 1) / period;
}

/*
 * The smallest limit of the group at `path` and its ancestors, seen through a
 * mount at `mountpoint` of the hierarchy's directory `mountroot`; 0: none.
 */
static int64_t pathlimit(const char *root, const char *mountpoint, const char *mountroot,
			 const char *path, bool v2)
{
	char dir[PathMax];
	const char *rest;
	size_t n = 0, top;
	int64_t limit, least = 0;

	if (!append(dir, &n, root) || !append(dir, &n, mountpoint))
		return 0;
	top = n;
	/* A path outside of the mount ("/.." in a namespace, a container that
	 * sees its group as the root): the mount itself is the nearest we see. */
	rest = equal(mountroot, "/") ? path : after(path, mountroot);
	if (rest != NULL && (*rest == '/' || *rest == 0) && after(rest, "/..") == NULL &&
	    !equal(rest, "/") && !append(dir, &n, rest))
		return 0;
	for (;;) {
		limit = grouplimit(dir, n, v2);
		if (limit > 0 && (least == 0 || limit < least))
			least = limit;
		if (n <= top)
			return least;
		do
			n--;
		while (n > top && dir[n] != '/');
	}
}

/*
 * mountinfo: "id parent dev root mountpoint options [optional...] - type
 * source superoptions". The root of an nsfs line ("mnt:[...]") is no path;
 * only the cgroup types are looked at, so it doesn't matter.
 */
static int64_t mountlimit(const char *root, char *line, const CgroupPaths *c)
{
	char *f[5], *type, *superoptions;

	for (size_t i = 0; i < nelem(f); i++)
		if ((f[i] = field(&line, ' ')) == NULL)
			return 0;
	do
		type = field(&line, ' ');
	while (type != NULL && !equal(type, "-"));
	type = field(&line, ' ');
	if (type == NULL || field(&line, ' ') == NULL)
		return 0;
	superoptions = line;
	unescape(f[3]);
	unescape(f[4]);
	if (equal(type, "cgroup2") && c->v2[0] != 0)
		return pathlimit(root, f[4], f[3], c->v2, true);
	if (equal(type, "cgroup") && c->v1[0] != 0 && listed(superoptions, "cpu"))
		return pathlimit(root, f[4], f[3], c->v1, false);
	return 0;
}

int ncpuunder(const char *root, int naffinity)
{
	char path[PathMax];
	CgroupPaths c;
	Lines l;
	char *line;
	size_t n = 0;
	int64_t limit, least = 0;

	if (!cgrouppaths(root, &c))
		return naffinity;
	if (!append(path, &n, root) || !append(path, &n, "/proc/self/mountinfo") ||
	    !linesopen(&l, path))
		return naffinity;
	while ((line = linesnext(&l)) != NULL) {
		limit = mountlimit(root, line, &c);
		if (limit > 0 && (least == 0 || limit < least))
			least = limit;
	}
	linesclose(&l);
	if (least == 0)
		return naffinity;
	if (least < 2)
		least = 2;
	return least < naffinity ? (int)least : naffinity;
}

int ncpu(void)
{
	return ncpuunder("", naffinity());
}

bool writable_os(uintptr_t lo, uintptr_t hi)
{
	uintptr_t p = (lo + 7) & ~(uintptr_t)7;
	for (; p + 8 <= hi; p = (p & ~(uintptr_t)4095) + 4096)
		if (sys4(SYS_rt_sigprocmask, 0, 0, (long)p, 8) <
		    0) /* stores the mask, changes nothing */
			return false;
	return true;
}

int membarrierregister(void)
{
	enum { MEMBARRIER = 324, REGISTER_PRIVATE_EXPEDITED = 1 << 4 };
	return (int)sys2(MEMBARRIER, REGISTER_PRIVATE_EXPEDITED, 0);
}

void membarrier(void)
{
	enum { MEMBARRIER = 324, PRIVATE_EXPEDITED = 1 << 3 };
	sys2(MEMBARRIER, PRIVATE_EXPEDITED, 0);
}
