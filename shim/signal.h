/*
 * signal.h - signals as a goroutine has them.
 */
#ifndef GOSHIM_SHIM_SIGNAL_H
#define GOSHIM_SHIM_SIGNAL_H

#include "shim.h"
#include "thread.h"

/*
 * After a wait that ended with -EINTR: runs the handlers of signals that are
 * pending for the caller and open. True: the call is to be made again
 * (none ran, or restartable and all were installed with SA_RESTART); false:
 * it has failed with EINTR.
 */
bool sigdeliver(bool restartable);
/* Sets the calling goroutine's mask; a signal that this opens marks it interrupted. */
void sigmaskset(const sigset_t *set);
/* The same for the length of a call (sigsuspend, ppoll): the first handler that then runs goes back to the mask of before, as
 * to what it finds in its context; if none has, sigmaskback does. */
void sigmaskfor(const sigset_t *set);
void sigmaskback(void);

/*
 * A signal of `set` that is pending for the calling goroutine, or for the process and not in the
 * kernel: its number, and its information if info is given; or 0, and then one that
 * arrives later ends a blockingsyscall with -EINTR, though it is blocked,
 * until sigtakedone.
 */
int sigtake(const sigset_t *set, siginfo_t *info);
void sigtakedone(void);
/*
 * Between sigtake and sigtakedone: *set becomes those that may be taken from the kernel. Not one that is queued and may be on
 * its way through sysmon, where an older one is; a blockingsyscall ends with -EINTR when that changes, until sigkernelleave.
 * False: sigtake has one by now.
 */
bool sigkernelenter(uint64_t *set);
void sigkernelleave(uint64_t set);

/* fcntl of the owner of a descriptor's signals, if it is for us to do: then *r is the result. */
bool ownercall(int fd, int cmd, void *arg, int *r);

/* A signal has been taken, perhaps a timer's. SIGSAFE. */
void notetimer(const siginfo_t *info);

/* rt_sigqueueinfo and rt_tgsigqueueinfo, of any caller: -1 and errno. */
int sigqueueinfo(pid_t pid, int sig, const siginfo_t *filled);
int sigqueueinfothread(pid_t pid, pid_t tid, int sig, const siginfo_t *filled);

/* sig may have been sent to the process: if that has a handler, then for whom it is, it is known when this returns. */
void sigarrived(int sig);

/* A signal is open for the caller and waits: nothing is run. */
bool sigpendingopen(void);

void signalsstart(void); /* takes over: the scheduler is about to start, on main */
/* On main: what is pending for its kernel thread and not for the process is the goroutine's. */
void signalsadopt(Thread *th, uint64_t process);
void signalsundo(void); /* ... and didn't */
void signalsforkchild(Thread *self);
void sigthreadinit(Thread *th, Thread *creator); /* a new thread: mask of its creator */
void sigthreadcount(Thread *th);                 /* it is about to run: its mask counts */
void sigthreadstart(Thread *th);                 /* on the new thread */
/* The calling thread takes no more signals (exiting); false: there are some that it has to handle first. */
bool sigclose(Thread *th);
void sigthreadexit(Thread *th);
/*
 * Around exec by a goroutine: begin, then in a native bracket sigexec and the call; if that comes back failed, and end
 * outside of the bracket. copied: 65 counts, zero at first.
 */
void sigexecbegin(void);
void sigexec(Thread *th, uint16_t *copied);
void sigexecfailed(Thread *th, const uint16_t *copied);
void sigexecend(void);
/* Before exec by a child that has our memory and actions of its own. */
void sigexecapart(void);
/* host.h's */
void siginterrupt_host(void *ctx);
void sigtick(void);
bool sigtickneeded(void);
bool sigtickdue(void); /* ... by sysmon, now */
uint64_t sigbasekmask(void);
void sysmonthreadinit(void);

#endif
