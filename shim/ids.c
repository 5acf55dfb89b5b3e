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
 * One kernel thread alone can be asked, too, for a call that only it may make (syscallon).
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
#include <sys/stat.h>

enum { SIGSETXID = 33, MAXTIDS = 1 << 17, GETDENTS64 = 217 };

/* The command under way; one at a time (idslock). */
static struct {
	_Atomic uint32_t lock;
	long nr, a, b, c;
	_Atomic uint32_t seq;  /* number of the command */
	_Atomic uint32_t acks; /* threads that have made it */
	_Atomic long failed;
} ids;

/* The call that one kernel thread is to make (idslock); it writes 0 when it has. */
static struct {
	_Atomic int tid;
	long nr, a[4], r;
} alone;

/*
 * The last command that a thread has made, by its tid: what it has of its own is a goroutine's. Places
 * are taken by the one who commands, before he asks.
 */
enum { Gone = -1 };
static struct {
	_Atomic int tid;
	_Atomic uint32_t seq;
} made[MAXTIDS];
static int ntids; /* taken since the last sweep */

static int placeof(int tid)
{
	for (int i = 0; i < MAXTIDS; i++) {
		int at = (tid + i) % MAXTIDS, have = atomic_load(&made[at].tid);
		if (have == tid)
			return at;
		if (have == 0)
			break;
	}
	return -1;
}

static int takeplace(int tid)
{
	int at = placeof(tid);
	for (int i = 0; i < MAXTIDS && at < 0; i++) {
		int here = (tid + i) % MAXTIDS;
		if (atomic_load(&made[here].tid) <= 0)
			at = here;
	}
	if (at < 0)
		throw("set*id: too many kernel threads");
	if (atomic_load(&made[at].tid) != tid) {
		atomic_store(&made[at].seq, 0);
		atomic_store(&made[at].tid, tid);
		ntids++;
	}
	return at;
}

static bool isgone(int tid)
{
	return sys3(SYS_tgkill, sys0(SYS_getpid), tid, 0) != 0;
}

/* Gives up the places of threads that have ended, when there are many. */
static void sweep(void)
{
	if (ntids < MAXTIDS / 2)
		return;
	ntids = 0;
	for (int i = 0; i < MAXTIDS; i++) {
		int tid = atomic_load(&made[i].tid);
		if (tid > 0 && isgone(tid))
			atomic_store(&made[i].tid, Gone);
		else
			ntids += tid > 0;
	}
}

static void handler(int sig, siginfo_t *info, void *ctx)
{
	(void)sig;
	(void)ctx;
	if (info->si_code != SI_TKILL || info->si_pid != (pid_t)sys0(SYS_getpid))
		return;
	int tid = (int)sys0(SYS_gettid);
	if (atomic_load(&alone.tid) == tid) {
		alone.r = sys4(alone.nr, alone.a[0], alone.a[1], alone.a[2], alone.a[3]);
		atomic_store(&alone.tid, 0);
		sys3(SYS_futex, (long)&alone.tid, 129, 1);
		return;
	}
	int at = placeof(tid);
	uint32_t seq = atomic_load(&ids.seq);
	if (at < 0 || atomic_load(&made[at].seq) == seq)
		return; /* asked twice */
	long r = sys3(ids.nr, ids.a, ids.b, ids.c);
	if (r < 0)
		atomic_store(&ids.failed, r);
	atomic_store(&made[at].seq, seq);
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

/* Calls fn for each kernel thread of the process: how many. -1: /proc isn't there. */
static int eachtask(long dir, void (*fn)(int tid))
{
	char buf[4096];
	int seen = 0;
	long n;
	if (sys3(SYS_lseek, dir, 0, SEEK_SET) < 0)
		return -1;
	while ((n = sys3(GETDENTS64, dir, (long)buf, sizeof buf)) > 0) {
		for (long at = 0; at < n;) {
			struct dirent64 *d = (struct dirent64 *)(buf + at);
			int tid = 0;
			for (char *s = d->d_name; *s >= '0' && *s <= '9'; s++)
				tid = tid * 10 + (*s - '0');
			if (tid) {
				fn(tid);
				seen++;
			}
			at += d->d_reclen;
		}
	}
	return n == 0 ? seen : -1;
}

/* The kernel passes some by when others end meanwhile. (Not all systems count links.) */
static bool sawall(long dir, int seen)
{
	struct stat st;
	return fstat((int)dir, &st) == 0 && seen + 2 == (int)st.st_nlink;
}

bool alltasks(void (*fn)(int tid))
{
	long dir = sys3(SYS_open, (long)"/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	bool all = false;
	for (int tries = 0; dir >= 0 && !all && tries < 5; tries++)
		all = sawall(dir, eachtask(dir, fn));
	if (dir >= 0)
		sys1(SYS_close, dir);
	return all;
}

static int asked;

static void ask(int tid)
{
	if (tid == (int)sys0(SYS_gettid))
		return;
	if (tid == (int)sys0(SYS_getpid) && atomic_load(&mainended) == forkgen)
		return; /* it can still be signalled, but nobody is there */
	int at = takeplace(tid);
	if (atomic_load(&made[at].seq) == atomic_load(&ids.seq))
		return;
	asked++;
	if (sys3(SYS_tgkill, sys0(SYS_getpid), tid, SIGSETXID) != 0)
		atomic_store(&made[at].tid, Gone);
}

/* Asks all that have not made the call. True: a look at all threads found none. */
static bool askall(long dir, int rounds)
{
	enum { PATIENCE = 100 };
	asked = 0;
	int seen = dir < 0 ? -1 : eachtask(dir, ask);
	if (seen < 0) {
		bool unborn = unbornthreads(); /* with the credentials of who makes them */
		eachkernelthread(ask);
		if (unborn)
			return false;
	} else if (rounds < PATIENCE && !sawall(dir, seen))
		return false;
	return asked == 0;
}

/* Has all other threads make the system call that the caller has made. */
static void broadcast(void)
{
	long dir = sys3(SYS_open, (long)"/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	sweep();
	/* Threads may be made meanwhile by one that had not been asked yet. */
	for (int rounds = 0;; rounds++) {
		uint32_t acks = atomic_load(&ids.acks);
		if (askall(dir, rounds) && askall(dir, rounds))
			break;
		struct timespec ts = {0, 1000000};
		sys4(SYS_futex, (long)&ids.acks, 128, acks, (long)&ts);
	}
	if (dir >= 0)
		sys1(SYS_close, dir);
	if (atomic_load(&ids.failed))
		throw("set*id: one thread's credentials could not be changed as the others'");
}

/* The command under way is another's: its signal must reach the caller meanwhile, and no other may
 * find the caller with the lock. */
static uint64_t begin(void)
{
	uint64_t others = ~(1ull << (SIGSETXID - 1)), mask = 0;
	if (!getg())
		sys4(SYS_rt_sigprocmask, SIG_BLOCK, (long)&others, (long)&mask, 8);
	while (atomic_exchange(&ids.lock, 1))
		getg() ? gosched() : (void)sys0(SYS_sched_yield);
	return mask;
}

static void end(uint64_t mask)
{
	atomic_store(&ids.lock, 0);
	if (!getg())
		sys4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&mask, 0, 8);
}

/* The system call on all threads: its result on the caller. */
static int onall(long nr, long a, long b, long c)
{
	uint64_t mask = begin();
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
	end(mask);
	return (int)errnoret(r);
}

static bool isours;

static void isitours(int tid)
{
	isours |= tid == atomic_load(&alone.tid);
}

long syscallon(int tid, long nr, const long *a)
{
	uint64_t mask = begin();
	bool gone = tid == (int)sys0(SYS_getpid) && atomic_load(&mainended) == forkgen;
	alone.nr = nr;
	memcpy(alone.a, a, sizeof alone.a);
	atomic_store(&alone.tid, tid);
	isours = false;
	eachkernelthread(isitours);
	if (isours && !gone) {
		entersyscall();
		install();
		gone = sys3(SYS_tgkill, sys0(SYS_getpid), tid, SIGSETXID) != 0;
		while (!gone && atomic_load(&alone.tid)) {
			struct timespec ts = {0, 1000000};
			sys4(SYS_futex, (long)&alone.tid, 128, tid, (long)&ts);
			gone = isgone(tid);
		}
		exitsyscall();
	}
	long r = atomic_exchange(&alone.tid, 0) ? -ESRCH : alone.r;
	end(mask);
	return r;
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
