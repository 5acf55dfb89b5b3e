/*
 * sigowner.c - descriptors that signal one thread (F_SETOWN_EX with F_OWNER_TID), and signalfd.
 *
 * The kernel knows no goroutine's tid. So the process owns the descriptor, and its signals, which say of which descriptor
 * they are where F_SETSIG was used, are routed to the goroutine that was named. Without F_SETSIG the kernel says nothing:
 * then each thread that owns one is told, as one signal may stand for several descriptors anyway.
 *
 * A signalfd reads what is pending in the kernel. What is sent to a goroutine that blocks it is not; if all
 * block it, and somebody has a descriptor for it, it is given to the kernel as the process's.
 */
#include "block.h"
#include "pin.h"
#include "sigcore.h"
#include "sync.h"

#include <fcntl.h>
#include <sys/signalfd.h>

enum { OWNERS = 1024, Claimed = 1 };

/* owner: the generation of the process and a tid, as timer.c's; 0, or of an older generation: free. */
static struct {
	_Atomic uint64_t owner;
	_Atomic int fd, sig;
} owners[OWNERS];
static _Atomic int nowners; /* ever */
static _Atomic uint64_t fdset;

static uint64_t ownedby(uint32_t tid)
{
	return (uint64_t)forkgen << 32 | tid;
}

static uint32_t tidof(int i)
{
	uint64_t o = atomic_load(&owners[i].owner);
	return o >> 32 == ownedby(0) >> 32 ? (uint32_t)o : 0;
}

static int ownerof(int fd)
{
	for (int i = 0; i < OWNERS && i < atomic_load(&nowners); i++)
		if (tidof(i) > Claimed && atomic_load(&owners[i].fd) == fd)
			return i;
	return -1;
}

/* Nobody tells of a descriptor's end. Is it nobody's number by now, or another's? Then it is forgotten. */
static bool gone(int i)
{
	uint64_t o = atomic_load(&owners[i].owner);
	return tidof(i) > Claimed &&
	       sys2(SYS_fcntl, atomic_load(&owners[i].fd), F_GETOWN) != sys0(SYS_getpid) &&
	       atomic_compare_exchange_strong(&owners[i].owner, &o, 0);
}

/* fd, which the kernel knows to be the process's. False: there are too many. */
static bool remember(int fd, uint32_t tid)
{
	for (int i = 0; i < OWNERS; i++) {
		if (tidof(i) && !gone(i))
			continue;
		uint64_t o = atomic_load(&owners[i].owner);
		if (tidof(i) ||
		    !atomic_compare_exchange_strong(&owners[i].owner, &o, ownedby(Claimed)))
			continue;
		int sig = real.fcntl(fd, F_GETSIG);
		atomic_store(&owners[i].fd, fd);
		atomic_store(&owners[i].sig, sig > 0 ? sig : 0);
		if (atomic_load(&nowners) <= i)
			atomic_store(&nowners, i + 1);
		atomic_store(&owners[i].owner, ownedby(tid));
		return true;
	}
	return false;
}

static int setowner(int fd, const struct f_owner_ex *ex)
{
	uint32_t tid =
	    ex->type == F_OWNER_TID && threadwithtid((uint32_t)ex->pid) ? (uint32_t)ex->pid : 0;
	struct f_owner_ex process = {.type = F_OWNER_PID, .pid = (pid_t)sys0(SYS_getpid)};
	int i = ownerof(fd);

	if (i >= 0)
		atomic_store(&owners[i].owner, 0);
	int r = real.fcntl(fd, F_SETOWN_EX, tid ? &process : ex);
	if (r == 0 && tid && !remember(fd, tid)) {
		errno = ENOMEM;
		return -1;
	}
	return r;
}

bool ownercall(int fd, int cmd, void *arg, int *r)
{
	struct f_owner_ex ex;
	int i;

	if (!getg())
		return false;
	switch (cmd) {
	case F_SETOWN_EX:
		memcpy(&ex, arg, sizeof ex);
		*r = setowner(fd, &ex);
		return true;
	case F_SETOWN:
		i = ownerof(fd);
		if (i >= 0)
			atomic_store(&owners[i].owner, 0);
		return false;
	case F_GETOWN:
	case F_GETOWN_EX:
		i = ownerof(fd);
		*r = i < 0 ? -1 : real.fcntl(fd, F_GETFD);
		if (*r < 0)
			return i >= 0;
		*r = cmd == F_GETOWN ? (int)tidof(i) : 0;
		ex = (struct f_owner_ex){.type = F_OWNER_TID, .pid = (pid_t)tidof(i)};
		if (cmd == F_GETOWN_EX)
			memcpy(arg, &ex, sizeof ex);
		return true;
	case F_SETSIG:
		*r = real.fcntl(fd, F_SETSIG, arg);
		i = ownerof(fd);
		if (*r == 0 && i >= 0)
			atomic_store(&owners[i].sig, (int)(long)arg);
		return true;
	}
	return false;
}

bool routetoowner(const siginfo_t *info)
{
	int sig = info->si_signo;
	bool said = info->si_code >= POLL_IN && info->si_code <= POLL_HUP && sig != SIGCHLD &&
		    !(BIT(sig) & SYNCSIGS);
	bool found = false;
	if (!said && !(info->si_code == SI_KERNEL && (sig == SIGIO || sig == SIGURG)))
		return false;
	for (int i = 0; i < OWNERS && i < atomic_load(&nowners); i++) {
		uint32_t tid = tidof(i);
		int chosen = atomic_load(&owners[i].sig);
		if (tid <= Claimed ||
		    (said ? chosen != sig || atomic_load(&owners[i].fd) != info->si_fd
			  : (sig == SIGIO && chosen) || gone(i)))
			continue;
		Thread *th = threadwithtid(tid);
		if (th)
			queue(th, info, tid);
		found = true;
	}
	return found;
}

SHIM(int, signalfd, int fd, const sigset_t *mask, int flags)
{
	sigset_t set;
	const sigset_t *asked = mask;
	if (getg() && readable(mask, 8)) { /* of SIGURG the kernel would give it the runtime's */
		bitsset(&set, setbits(mask) & ~BIT(SIGURG));
		asked = &set;
	}
	int r = real.signalfd(fd, asked, flags);
	if (r >= 0) {
		atomic_fetch_or(&fdset, setbits(mask));
		tosignalfd();
	}
	return r;
}

/* Those that the kernel is to keep: all block them, and somebody has a descriptor for them. */
static uint64_t kernels(void)
{
	return atomic_load(&fdset) & atomic_load(&sigs.sysmonmask);
}

static bool tokernel(const siginfo_t *info)
{
	int sig = info->si_signo;
	long self = sys0(SYS_getpid);
	/* The kernel lets nobody else say of what it or a process has sent that it is of that kind. */
	return info->si_code >= 0 || info->si_code == SI_TKILL
		   ? sys2(SYS_kill, self, sig) == 0
		   : sys3(SYS_rt_sigqueueinfo, self, sig, (long)info) == 0;
}

bool forsignalfd(const siginfo_t *info)
{
	return (kernels() & BIT(info->si_signo)) && tokernel(info);
}

void tosignalfd(void)
{
	uint64_t set;
	/* SIGURG would come back: it is open for the runtime. */
	while ((set = atomic_load(&process.pending) & kernels() & ~BIT(SIGURG)) &&
	       giveshared(set, tokernel))
		;
}
