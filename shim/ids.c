/*
 * ids.c - set*id() reaches every kernel thread, or none.
 *
 * In Linux credentials belong to kernel threads; POSIX wants them to be the
 * process's. libc has each thread make the system call in a signal handler, but looks
 * for threads through their blocks, of which goroutines have too many and Ms
 * the wrong ones: it waits for ever, or leaves a thread root. So we do it by what
 * the kernel has: the tids in /proc/self/task, and without /proc those that
 * the runtime made.
 *
 * The caller goes first: if it fails, nothing has changed. Another thread
 * failing after that would leave the process half root; it is ended then, as by libc.
 */
#include "pin.h"
#include "sched.h"
#include "sync.h"
#include "thread.h"

#include <dirent.h>
#include <grp.h>
#include <pwd.h>
#include <stdatomic.h>

enum { SIGSETXID = 33, MAXTIDS = 8192, GETDENTS64 = 217 };

/* The command under way; one at a time (idslock). */
static struct {
	_Atomic uint32_t lock;
	long nr, a, b, c;
	_Atomic uint32_t seq;  /* number of the command */
	_Atomic uint32_t acks; /* threads that have made it */
	_Atomic long failed;
} ids;

/* The last command a thread has made; in its own block: an M's, not a goroutine's. */
static struct {
	_Atomic int tid;
	_Atomic uint32_t seq;
} made[MAXTIDS];

static int slotof(int tid)
{
	for (int i = 0; i < MAXTIDS; i++) {
		int at = (tid + i) % MAXTIDS, have = atomic_load(&made[at].tid), zero = 0;
		if (have == tid ||
		    (have == 0 && atomic_compare_exchange_strong(&made[at].tid, &zero, tid)))
			return at;
	}
	return -1;
}

static void handler(int sig, siginfo_t *info, void *ctx)
{
	(void)sig;
	(void)ctx;
	if (info->si_code != SI_TKILL || info->si_pid != (pid_t)sys0(SYS_getpid))
		return;
	int at = slotof((int)sys0(SYS_gettid));
	uint32_t seq = atomic_load(&ids.seq);
	if (at < 0 || atomic_exchange(&made[at].seq, seq) == seq)
		return; /* asked twice */
	long r = sys3(ids.nr, ids.a, ids.b, ids.c);
	if (r < 0)
		atomic_store(&ids.failed, r);
	atomic_fetch_add(&ids.acks, 1);
	sys3(SYS_futex, (long)&ids.acks, 129, INT32_MAX);
}

/* libc's own sigaction refuses the number. */
static void install(void)
{
	struct {
		void *handler;
		unsigned long flags;
		void *restorer;
		uint64_t mask;
	} k = {(void *)handler, SA_SIGINFO | SA_ONSTACK | SA_RESTART | 0x04000000, sigrestorer(),
	       ~0ull};
	sys4(SYS_rt_sigaction, SIGSETXID, (long)&k, 0, 8);
}

/* Calls fn for each kernel thread of the process. False: /proc isn't there. */
static bool eachtask(void (*fn)(int tid))
{
	char buf[4096];
	long fd = sys3(SYS_open, (long)"/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd < 0)
		return false;
	long n;
	while ((n = sys3(GETDENTS64, fd, (long)buf, sizeof buf)) > 0) {
		for (long at = 0; at < n;) {
			struct dirent64 *d = (struct dirent64 *)(buf + at);
			int tid = 0;
			for (char *s = d->d_name; *s >= '0' && *s <= '9'; s++)
				tid = tid * 10 + (*s - '0');
			if (tid)
				fn(tid);
			at += d->d_reclen;
		}
	}
	sys1(SYS_close, fd);
	return n == 0;
}

static _Atomic int asked;

static void ask(int tid)
{
	if (tid == (int)sys0(SYS_gettid))
		return;
	if (tid == (int)sys0(SYS_getpid) && atomic_load(&mainended) == forkgen)
		return; /* it can still be signalled, but nobody is there */
	int at = slotof(tid);
	if (at < 0 || atomic_load(&made[at].seq) == atomic_load(&ids.seq))
		return;
	if (sys3(SYS_tgkill, sys0(SYS_getpid), tid, SIGSETXID) == 0)
		atomic_fetch_add(&asked, 1);
	else
		atomic_store(&made[at].tid, 0); /* it is gone */
}

/* Has all other threads make the system call that the caller has made. */
static void broadcast(void)
{
	/* Until a look finds nobody who has not: threads may be made meanwhile by one
	 * that had not been asked yet. */
	for (int rounds = 0;; rounds++) {
		atomic_store(&asked, 0);
		uint32_t acks = atomic_load(&ids.acks);
		if (!eachtask(ask))
			eachkernelthread(ask);
		if (atomic_load(&asked) == 0)
			break;
		struct timespec ts = {0, 1000000};
		sys4(SYS_futex, (long)&ids.acks, 128, acks, (long)&ts);
	}
	if (atomic_load(&ids.failed))
		throw("set*id: one thread's credentials could not be changed as the others'");
}

/* The system call on all threads: its result on the caller. */
static int onall(long nr, long a, long b, long c)
{
	while (atomic_exchange(&ids.lock, 1))
		getg() ? gosched() : (void)sys0(SYS_sched_yield);
	/* On one kernel thread to its end. */
	lockOSThread();
	ids.nr = nr;
	ids.a = a;
	ids.b = b;
	ids.c = c;
	atomic_store(&ids.failed, 0);
	atomic_fetch_add(&ids.seq, 1);
	long r = sys3(nr, a, b, c);
	if (r == 0) {
		entersyscall();
		install();
		broadcast();
		exitsyscall();
	}
	unlockOSThread();
	atomic_store(&ids.lock, 0);
	return (int)errnoret(r);
}

#define NATIVE(call)         \
	if (!schedstarted()) \
	return call

SHIM(int, setuid, uid_t u)
{
	NATIVE(real.setuid(u));
	return onall(SYS_setuid, u, 0, 0);
}

SHIM(int, setgid, gid_t g)
{
	NATIVE(real.setgid(g));
	return onall(SYS_setgid, g, 0, 0);
}

SHIM(int, setreuid, uid_t r, uid_t e)
{
	NATIVE(real.setreuid(r, e));
	return onall(SYS_setreuid, r, e, 0);
}

SHIM(int, setregid, gid_t r, gid_t e)
{
	NATIVE(real.setregid(r, e));
	return onall(SYS_setregid, r, e, 0);
}

SHIM(int, setresuid, uid_t r, uid_t e, uid_t s)
{
	NATIVE(real.setresuid(r, e, s));
	return onall(SYS_setresuid, r, e, s);
}

SHIM(int, setresgid, gid_t r, gid_t e, gid_t s)
{
	NATIVE(real.setresgid(r, e, s));
	return onall(SYS_setresgid, r, e, s);
}

SHIM(int, seteuid, uid_t u)
{
	NATIVE(real.seteuid(u));
	if (u == (uid_t)-1)
		return (int)errnoret(-EINVAL);
	return onall(SYS_setresuid, -1, u, -1);
}

SHIM(int, setegid, gid_t g)
{
	NATIVE(real.setegid(g));
	if (g == (gid_t)-1)
		return (int)errnoret(-EINVAL);
	return onall(SYS_setresgid, -1, g, -1);
}

SHIM(int, setgroups, size_t n, const gid_t *list)
{
	NATIVE(real.setgroups(n, list));
	return onall(SYS_setgroups, (long)n, (long)list, 0);
}

SHIM(int, initgroups, const char *user, gid_t group)
{
	NATIVE(real.initgroups(user, group));
	int n = 64;
	gid_t *list = NULL;
	for (;;) {
		gid_t *more = realloc(list, (size_t)n * sizeof *list);
		if (!more) {
			free(list);
			return (int)errnoret(-ENOMEM);
		}
		list = more;
		int have = n;
		if (getgrouplist(user, group, list, &n) >= 0)
			break;
		if (n <= have)
			n = 2 * have;
	}
	int r = onall(SYS_setgroups, n, (long)list, 0);
	free(list);
	return r;
}
