/*
 * signal.c - signals belong to goroutines.
 *
 * The kernel sends signals to kernel threads; the program addresses threads
 * that are goroutines. So Ms keep asynchronous signals blocked, and sysmon's
 * thread receives what is sent to the process, for as long as some goroutine
 * has it unblocked: its handler notes it in a ring, sysmon puts it into the queue of
 * the process (sigtick) and tells a goroutine as the kernel would choose, main first. If all block it, so
 * does sysmon, and it stays pending in the kernel, where sigwait, sigpending
 * and signalfd find it.
 *
 * The program's handler runs on the goroutine's own stack, or its alternate
 * stack, as an ordinary call at a place where a signal could have come
 * (siginject in core/preempt.c) or where a wait was interrupted: so it may
 * block, migrate, or leave by siglongjmp. What a goroutine causes itself
 * (SIGSEGV, ...) arrives on its M and is given to it at once.
 *
 * Before the scheduler's start, and again in a fork child, all this is
 * absent: actions are the kernel's.
 */
#include "cancel.h"
#include "sigcore.h"

/* As the kernel says them when asked: it forgets those that it does not know, and libc adds its own way back. */
enum {
	RESTORER = 0x04000000,
	EXPOSE_TAGBITS = 0x800,
	KERNELFLAGS = (int)(SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_ONSTACK | SA_RESTART |
			    SA_NODEFER | SA_RESETHAND | EXPOSE_TAGBITS)
};

SHIM(int, sigaction, int sig, const struct sigaction *sa, struct sigaction *old)
{
	if (!schedstarted() || sig < 1 || sig > NSIGS || (BIT(sig) & NEVERMASKED))
		return real.sigaction(sig, sa, old);
	if (!hasprocess(CLONE_SIGHAND))
		return sigactionapart(sig, sa, old);
	struct sigaction new = {.sa_handler = NULL};
	if (sa) {
		new = *sa; /* faults here, not under the lock */
		new.sa_flags = (new.sa_flags &KERNELFLAGS) | RESTORER;
		new.sa_restorer = sigs.restorer;
		uint64_t m = setbits(&new.sa_mask);
		bitsset(&new.sa_mask, m);
	}
	Section l = siglock();
	struct sigaction before = sigs.act[sig];
	if (sa) {
		sigs.act[sig] = new;
		noteaction_locked(sig);
	}
	sigunlock(l);
	if (sa) {
		install(sig, &new);
		if (new.sa_handler == SIG_IGN ||
		    (new.sa_handler == SIG_DFL && (BIT(sig) & IDLESIGS)))
			sigdrop(BIT(sig));
	}
	if (old)
		*old = before;
	return 0;
}

/* signal(): BSD meaning, as glibc's. */
SHIM(sighandler_t, signal, int sig, sighandler_t h)
{
	struct sigaction sa = {.sa_handler = h}, old;
	if (!schedstarted())
		return real.signal(sig, h);
	if (h == SIG_ERR || sig < 1 || sig > NSIGS) {
		errno = EINVAL;
		return SIG_ERR;
	}
	sa.sa_flags = sigrestarts(sig) ? SA_RESTART : 0;
	sigemptyset(&sa.sa_mask);
	sigaddset(&sa.sa_mask, sig);
	return shim_sigaction(sig, &sa, &old) < 0 ? SIG_ERR : old.sa_handler;
}

SHIM(sighandler_t, sysv_signal, int sig, sighandler_t h)
{
	struct sigaction sa = {.sa_handler = h, .sa_flags = SA_RESETHAND | SA_NODEFER}, old;
	if (!schedstarted())
		return real.sysv_signal(sig, h);
	if (h == SIG_ERR || sig < 1 || sig > NSIGS) {
		errno = EINVAL;
		return SIG_ERR;
	}
	return shim_sigaction(sig, &sa, &old) < 0 ? SIG_ERR : old.sa_handler;
}

static int changemask(int how, const sigset_t *set, sigset_t *old)
{
	Thread *th = curthread();
	uint64_t before = th->mask, m = before;
	if (set) {
		uint64_t s = setbits(set);
		if (how == SIG_BLOCK)
			m |= s;
		else if (how == SIG_UNBLOCK)
			m &= ~s;
		else if (how == SIG_SETMASK)
			m = s;
		else
			return EINVAL;
	}
	if (old)
		bitsset(old, before);
	setmask(th, m);
	/* POSIX: at least one that this opened is delivered before it returns. */
	if (waiting(th) & ~m) {
		bool restart;
		deliver(NULL, &restart);
	}
	return 0;
}

SHIM(int, pthread_sigmask, int how, const sigset_t *set, sigset_t *old)
{
	if (!getg())
		return real.pthread_sigmask(how, set, old);
	return changemask(how, set, old);
}

SHIM(int, sigprocmask, int how, const sigset_t *set, sigset_t *old)
{
	if (!getg())
		return real.sigprocmask(how, set, old);
	int r = changemask(how, set, old);
	if (r) {
		errno = r;
		return -1;
	}
	return 0;
}

void sigmaskset(const sigset_t *set)
{
	setmask(curthread(), setbits(set));
}

void sigmaskfor(const sigset_t *set)
{
	Thread *th = curthread();
	uint64_t m = setbits(set);
	th->savedmask = th->mask;
	th->restoremask = true;
	setmask(th, m);
}

void sigmaskback(void)
{
	Thread *th = curthread();
	if (th->restoremask) {
		th->restoremask = false;
		setmask(th, th->savedmask);
	}
}

/* Is sig something that can be sent? */
static bool badsig(int sig)
{
	return sig < 0 || sig > NSIGS || sig == 32 || sig == 33;
}

static void selfinfo(siginfo_t *info, int sig, int code)
{
	memset(info, 0, sizeof *info);
	info->si_signo = sig;
	info->si_code = code;
	info->si_pid = (pid_t)sys0(SYS_getpid);
	info->si_uid = (uid_t)sys0(SYS_getuid);
}

static int sendto_thread(Thread *th, int sig, const siginfo_t *info)
{
	if (badsig(sig))
		return EINVAL;
	if (sig == 0 || (atomic_load(&th->state) & ThreadExited) || th->exiting)
		return 0;
	if (sig == SIGKILL || sig == SIGSTOP)
		return (int)-sys2(SYS_kill, sys0(SYS_getpid), sig);
	sigcounter(sig);
	if (sigs.act[sig].sa_handler == SIG_IGN && !(th->mask & BIT(sig)))
		return 0;
	if ((th->mask & ~atomic_load(&th->waitset) & BIT(sig)) && forsignalfd(info))
		return 0;
	int r = post(th, info);
	bool restart;
	if (th == curthread() && !(th->mask & BIT(sig)))
		deliver(NULL, &restart);
	return r;
}

static int killthread(Thread *th, int sig)
{
	KEEP_ERRNO;
	siginfo_t info;
	selfinfo(&info, sig, SI_TKILL);
	return sendto_thread(th, sig, &info);
}

SHIM(int, pthread_kill, pthread_t t, int sig)
{
	Thread *th = threadof(t);
	return th && schedstarted() ? killthread(th, sig) : real.pthread_kill(t, sig);
}

SHIM(int, pthread_kill_old, pthread_t t, int sig)
{
	Thread *th = threadof(t);
	if (!th || !schedstarted())
		return real.pthread_kill_old(t, sig);
	return atomic_load(&th->state) & ThreadExited ? ESRCH : killthread(th, sig);
}

SHIM(int, pthread_sigqueue, pthread_t t, int sig, const union sigval value)
{
	Thread *th = threadof(t);
	if (!th || !schedstarted())
		return real.pthread_sigqueue(t, sig, value);
	siginfo_t info;
	selfinfo(&info, sig, SI_QUEUE);
	info.si_value = value;
	return sendto_thread(th, sig, &info);
}

/*
 * To the process from within it: routed at once. So the caller, if it is
 * the one, has handled the signal when this returns (POSIX); and another has it queued.
 * 0 or EAGAIN; ESRCH: all block it, or it isn't for goroutines to handle: the kernel's.
 */
static int killself(int sig, siginfo_t *info)
{
	if (!getg() || badsig(sig) || sig == 0 || sig == SIGKILL || sig == SIGSTOP)
		return ESRCH;
	sigcounter(sig);
	int r = sendprocess(info);
	if (r)
		return r;
	bool restart;
	if (sigpendingopen())
		deliver(NULL, &restart);
	return 0;
}

/* The id of a thread of the process names the process to the kernel; a goroutine's it does not know. */
static pid_t ofprocess(pid_t pid)
{
	return getg() && pid > 0 && threadwithtid((uint32_t)pid) ? (pid_t)sys0(SYS_getpid) : pid;
}

void sigarrived(int sig)
{
	if (getg() && handled(sig) && !(atomic_load(&sigs.sysmonmask) & BIT(sig)))
		sigsettle();
}

/*
 * After a call that had the kernel send sig to somebody, perhaps to this process as well: what
 * came to it is routed, and has been handled if the caller is the one, or has ended the process. r is the call's result.
 */
static int sentby(long r, int sig)
{
	if (r == 0 && getg() && sig >= 1 && sig <= NSIGS && (handled(sig) || fatal(sig))) {
		bool restart;
		sigsettle();
		if (sigpendingopen())
			deliver(NULL, &restart);
	}
	return (int)errnoret(r);
}

SHIM(int, kill, pid_t pid, int sig)
{
	siginfo_t info;
	pid = ofprocess(pid);
	if (getg() && pid == (pid_t)sys0(SYS_getpid)) {
		selfinfo(&info, sig, SI_USER);
		int r = killself(sig, &info);
		if (r != ESRCH)
			return (int)errnoret(-r);
	}
	long r = sys2(SYS_kill, pid, sig);
	sigsentbykernel(pid, sig);
	return pid > 0 ? (int)errnoret(r) : sentby(r, sig);
}

SHIM(int, killpg, pid_t group, int sig)
{
	if (group < 0)
		return (int)errnoret(-EINVAL);
	return shim_kill(-group, sig);
}

SHIM(int, pidfd_send_signal, int fd, int sig, siginfo_t *info, unsigned flags)
{
	return sentby(sys4(SYS_pidfd_send_signal, fd, sig, (long)info, flags), sig);
}

/* The program has filled in what the handler is to see, but for the number. */
int sigqueueinfo(pid_t pid, int sig, const siginfo_t *filled)
{
	pid = ofprocess(pid);
	if (getg() && pid == (pid_t)sys0(SYS_getpid)) {
		siginfo_t info = *filled;
		info.si_signo = sig;
		int r = killself(sig, &info);
		if (r != ESRCH)
			return (int)errnoret(-r);
	}
	long r = sys3(SYS_rt_sigqueueinfo, pid, sig, (long)filled);
	sigsentbykernel(pid, sig);
	return (int)errnoret(r);
}

int sigqueueinfothread(pid_t pid, pid_t tid, int sig, const siginfo_t *filled)
{
	Thread *th = pid == (pid_t)sys0(SYS_getpid) ? threadwithtid((uint32_t)tid) : NULL;
	if (!th)
		return (int)errnoret(sys4(SYS_rt_tgsigqueueinfo, pid, tid, sig, (long)filled));
	siginfo_t info = *filled;
	info.si_signo = sig;
	return (int)errnoret(-sendto_thread(th, sig, &info));
}

SHIM(int, sigqueue, pid_t pid, int sig, const union sigval value)
{
	siginfo_t info;
	pid = ofprocess(pid);
	if (getg() && pid == (pid_t)sys0(SYS_getpid)) {
		selfinfo(&info, sig, SI_QUEUE);
		info.si_value = value;
		int r = killself(sig, &info);
		if (r != ESRCH)
			return (int)errnoret(-r);
	}
	int r = real.sigqueue(pid, sig, value);
	sigsentbykernel(pid, sig);
	return r;
}

SHIM(int, raise, int sig)
{
	Thread *th = curthread();
	if (!th)
		return real.raise(sig);
	int r = killthread(th, sig);
	if (r) {
		errno = r;
		return -1;
	}
	return 0;
}

/*
 * libc's opens SIGABRT for the kernel thread and raises it there: a goroutine that blocks it would not handle it, and after
 * a handler that returns the kernel thread blocks it again, as all do.
 */
SHIM(void, abort, void)
{
	if (getg() && handled(SIGABRT)) {
		struct sigaction dfl = {.sa_handler = SIG_DFL};
		sigset_t set;
		bitsset(&set, BIT(SIGABRT));
		changemask(SIG_UNBLOCK, &set, NULL);
		shim_raise(SIGABRT);
		shim_sigaction(SIGABRT, &dfl, NULL);
	}
	real.abort();
}

struct bytid {
	uint32_t tid;
	Thread *th;
};

static bool tidmatches(Thread *th, void *arg)
{
	struct bytid *b = arg;
	if (th->tid != b->tid)
		return true;
	b->th = th;
	return false;
}

Thread *threadwithtid(uint32_t tid)
{
	struct bytid b = {tid, NULL};
	if (schedstarted())
		threadseach(tidmatches, &b);
	return b.th;
}

SHIM(int, tgkill, pid_t pid, pid_t tid, int sig)
{
	Thread *th = pid == (pid_t)sys0(SYS_getpid) ? threadwithtid((uint32_t)tid) : NULL;
	return th ? (int)errnoret(-killthread(th, sig)) : real.tgkill(pid, tid, sig);
}

SHIM(int, sigpending, sigset_t *set)
{
	Thread *th = curthread();
	int r = real.sigpending(set);
	if (r == 0 && th) {
		uint64_t m;
		memcpy(&m, set, 8);
		bitsset(set,
			(m | atomic_load(&th->pending) | atomic_load(&process.pending)) & th->mask);
	}
	return r;
}

int sigtake(const sigset_t *set, siginfo_t *info)
{
	Thread *th = curthread();
	uint64_t want = setbits(set);
	siginfo_t si;
	if ((want & QUEUEDSIGS) && sigtickneeded())
		sigsettle(); /* queued ones that came before are taken first */
	/* From here on one that arrives interrupts the wait, though it is blocked. */
	atomic_store(&th->waitset, want);
	if (!takeasked(th, want, &si))
		return 0;
	sigtakedone();
	if (info)
		*info = si;
	return si.si_signo;
}

void sigtakedone(void)
{
	Thread *th = curthread();
	Section l = siglock();
	atomic_store(&th->waitset, 0);
	sigunlock(l);
	handon(th);
}
