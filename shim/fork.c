/*
 * fork.c - new processes.
 *
 * A fork child is as before the scheduler's first start: the goroutine that
 * forked is its only thread, on the stack and block it has, with the kernel's
 * own signal handling; the next pthread_create starts a new scheduler with it
 * as goroutine 1. So a child that calls exec, as most do, pays nothing.
 *
 * The world is not stopped for it: libc takes the locks of stdio and of malloc
 * inside fork, and one that a stopped goroutine holds would never be free.
 * libc's own fork is called as it is: it runs atfork handlers in order, and since FS
 * is the goroutine's block it is that block which it makes the kernel's in the child.
 * Goroutines that held a mutex are gone in the child, as threads natively.
 */
#include "dump.h"
#include "sched.h"
#include "signal.h"
#include "sync.h"
#include "thread.h"

#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>

/* The child of vfork shares our memory and our block until it execs: with getg() ==
 * NULL all of the shim is native for it, and nothing of ours changes. */
static Thread *vforkthread(void)
{
	void *block = selfblock();
	return isblock(block) ? blockextra(block) : block == mainthread.block ? &mainthread : NULL;
}

/* self: NULL if a foreign thread has forked, which has nothing of ours. */
static void forkchild(Thread *self)
{
	if (self)
		blockkernel();
	blockforkchild();
	schedrestartable();
	threadforkchild(self);
	deadlockforkchild();
	signalsforkchild(self);
	dumpforkchild();
}

/*
 * Runs in the child as the first of all atfork handlers (libc runs them in
 * the order of registration, and this was registered at the start), so that
 * the program's own find a process that works.
 */
static void childhandler(void)
{
	Thread *self = curthread();
	forkgen++;
	ownfdforkchild();
	if (self || (schedstarted() && !vforkthread()))
		forkchild(self);
}

void forkinit(void);
void forkinit(void)
{
	static bool done;
	if (done)
		return;
	done = true;
	real.__register_atfork(ownfdfork, ownfdforked, childhandler, NULL);
}

/* Everybody's handlers come through here: ours goes before the first. */
SHIM(int, __register_atfork, void (*prepare)(void), void (*parent)(void), void (*child)(void),
     void *dso)
{
	forkinit();
	return real.__register_atfork(prepare, parent, child, dso);
}

/* Of old programs; today's pthread_atfork is a part of the program itself. */
SHIM(int, pthread_atfork, void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	return shim___register_atfork(prepare, parent, child, NULL);
}

/*
 * In a child that the kernel has made and libc doesn't know of: libc's fork would have told the block
 * and the kernel of each other. Such a child has the tid of its parent's thread natively, and
 * can't tell whether locks that it finds are its own.
 */
static void rawchild(bool known)
{
	if (known)
		blockadopt();
	childhandler();
}

pid_t rawfork(long nr, const long *a)
{
	bool known = blockknown();
	ownfdfork();
	long pid = sys6(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (pid == 0)
		rawchild(known);
	else
		ownfdforked();
	return (pid_t)errnoret(pid);
}

/* async-signal-safe: no handlers. */
SHIM(pid_t, _Fork, void)
{
	ownfdfork();
	pid_t pid = real._Fork();
	if (pid == 0)
		childhandler();
	else
		ownfdforked();
	return pid;
}

/* What a child of clone() is to run. */
typedef struct Clone {
	int (*fn)(void *);
	void *arg, *stack;
	bool known;
} Clone;

/* In memory of its own: as after fork, but for the handlers, and on another stack. */
static int cloned(void *arg)
{
	Clone c = *(Clone *)arg;
	rawchild(c.known);
	Thread *th = isblock(selfblock()) ? blockextra(selfblock()) : &mainthread;
	th->clonedstack = (uintptr_t)c.stack;
	return c.fn(c.arg);
}

/* A child that is made in a bracket has the mask there, which leaves SIGURG open for the runtime. */
static void wholemask(void)
{
	Thread *th = curthread();
	if (th && (th->mask & 1ull << (SIGURG - 1)))
		gsetkmask(th->mask);
}

/* The flags of the clone() that made the caller, if it has made a child in our memory. */
static __thread int clonedwith __attribute__((tls_model("initial-exec")));

/*
 * A child that shares our memory, and without CLONE_SETTLS the thread block as well, gets by
 * with that natively; here code that runs under a goroutine's block is that goroutine. So
 * it gets a copy of the block, on its stack, and is a foreign thread to us.
 */
SHIM(int, clone, int (*fn)(void *), void *stack, int flags, void *arg, ...)
{
	va_list ap;
	va_start(ap, arg);
	pid_t *ptid = va_arg(ap, pid_t *);
	void *block = va_arg(ap, void *);
	pid_t *ctid = va_arg(ap, pid_t *);
	va_end(ap);
	if (flags & CLONE_VM)
		sharesmemory();
	if (!fn || !stack || (getg() ? 0 : flags & (CLONE_VM | CLONE_SETTLS)))
		return real.clone(fn, stack, flags, arg, ptid, block, ctid);
	if (!(flags & CLONE_VM)) {
		Clone c = {fn, arg, stack, blockknown()};
		ownfdfork();
		int pid = real.clone(cloned, stack, flags, &c, ptid, block, ctid);
		ownfdforked();
		return pid;
	}
	BRACKET;
	wholemask();
	if (!(flags & CLONE_SETTLS)) {
		block = blockcopy(stack);
		stack = blockcopyend(block);
		TLSFIELD(block, int, (char *)&clonedwith - (char *)selfblock()) = flags;
		flags |= CLONE_SETTLS;
	}
	return real.clone(fn, stack, flags, arg, ptid, block, ctid);
}

/* entry.S calls these around the system call. */
void vforkbegin(void);
void vforkend(void);
void vforkfail(int err);

void vforkfail(int err)
{
	errno = err;
}

bool hasprocess(int what)
{
	if (getg())
		return true;
	Thread *th = vforkthread();
	return !(th && th->vforkgp) && (!clonedwith || (clonedwith & what));
}

void vforkbegin(void)
{
	Thread *th = curthread();
	if (!th)
		return;
	bracketenter();
	wholemask();
	th->vforkgp = getg();
	goshim_setg(NULL);
}

void vforkend(void)
{
	Thread *th = vforkthread();
	if (!th || !th->vforkgp)
		return;
	G *gp = th->vforkgp;
	th->vforkgp = NULL;
	goshim_setg(gp);
	bracketleave();
}

/* These make their child inside libc, from the calling kernel thread. */
SHIM(int, posix_spawn, pid_t *pid, const char *path, const posix_spawn_file_actions_t *fa,
     const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	bracketenter();
	wholemask();
	int r = real.posix_spawn(pid, path, fa, attr, argv, envp);
	bracketleave();
	return r;
}

SHIM(int, posix_spawnp, pid_t *pid, const char *file, const posix_spawn_file_actions_t *fa,
     const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	bracketenter();
	wholemask();
	int r = real.posix_spawnp(pid, file, fa, attr, argv, envp);
	bracketleave();
	return r;
}

SHIM(int, posix_spawn_old, pid_t *pid, const char *path, const posix_spawn_file_actions_t *fa,
     const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	bracketenter();
	wholemask();
	int r = real.posix_spawn_old(pid, path, fa, attr, argv, envp);
	bracketleave();
	return r;
}

SHIM(int, posix_spawnp_old, pid_t *pid, const char *file, const posix_spawn_file_actions_t *fa,
     const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	bracketenter();
	wholemask();
	int r = real.posix_spawnp_old(pid, file, fa, attr, argv, envp);
	bracketleave();
	return r;
}

SHIM(int, system, const char *command)
{
	BRACKET;
	return real.system(command);
}

SHIM(FILE *, popen, const char *command, const char *mode)
{
	bracketenter();
	wholemask();
	FILE *f = real.popen(command, mode);
	bracketleave();
	return f;
}

/* What an exec keeps of signals is the goroutine's, not its M's. */
static void execbegin(uint16_t *copied)
{
	Thread *th = curthread();
	if (th) {
		sigexecbegin();
		bracketenter();
		sigexec(th, copied);
	} else if (vforkthread() && vforkthread()->vforkgp) {
		sigexecapart();
	}
}

static void execfailed(const uint16_t *copied)
{
	KEEP_ERRNO;
	Thread *th = curthread();
	if (!th)
		return;
	sigexecfailed(th, copied);
	bracketleave();
	sigexecend();
}

#define EXECV(name, params, call)          \
	SHIM(int, name, params)            \
	{                                  \
		uint16_t copied[65] = {0}; \
		execbegin(copied);         \
		int r = call;              \
		execfailed(copied);        \
		return r;                  \
	}
#define PARAMS(...) __VA_ARGS__
EXECV(execve, PARAMS(const char *path, char *const argv[], char *const envp[]),
      real.execve(path, argv, envp))
EXECV(execv, PARAMS(const char *path, char *const argv[]), real.execv(path, argv))
EXECV(execvp, PARAMS(const char *file, char *const argv[]), real.execvp(file, argv))
EXECV(execvpe, PARAMS(const char *file, char *const argv[], char *const envp[]),
      real.execvpe(file, argv, envp))
EXECV(fexecve, PARAMS(int fd, char *const argv[], char *const envp[]), real.fexecve(fd, argv, envp))
EXECV(execveat,
      PARAMS(int dir, const char *path, char *const argv[], char *const envp[], int flags),
      real.execveat(dir, path, argv, envp, flags))

/* The list of arguments, as an array on the stack. */
#define COLLECT(argv, last, ap)         \
	int argc = 1;                   \
	va_start(ap, last);             \
	while (va_arg(ap, char *))      \
		argc++;                 \
	va_end(ap);                     \
	char *argv[argc + 1];           \
	va_start(ap, last);             \
	argv[0] = (char *)last;         \
	for (int i = 1; i <= argc; i++) \
	argv[i] = va_arg(ap, char *)

SHIM(int, execl, const char *path, const char *arg, ...)
{
	va_list ap;
	COLLECT(argv, arg, ap);
	va_end(ap);
	return shim_execv(path, argv);
}

SHIM(int, execlp, const char *file, const char *arg, ...)
{
	va_list ap;
	COLLECT(argv, arg, ap);
	va_end(ap);
	return shim_execvp(file, argv);
}

SHIM(int, execle, const char *path, const char *arg, ...)
{
	va_list ap;
	COLLECT(argv, arg, ap);
	char **envp = va_arg(ap, char **);
	va_end(ap);
	return shim_execve(path, argv, envp);
}
