/*
 * wait.c - waiting for children, System V messages and semaphores, POSIX
 * message queues, and signals.
 *
 * None of these can be polled (a pidfd or a queue could, a child that was not asked
 * for beforehand cannot), so they wait in the kernel, with the P free to be
 * taken. What messages and semaphores have ready is taken first without waiting, and with the P: who
 * only gives has not to stand in line for a kernel thread behind those that wait for it.
 * Calls that say that they do not wait keep it, too. Which of them a handler ends
 * for good is signal(7)'s table.
 */
#include "block.h"
#include "signal.h"

/* --- children ------------------------------------------------------------------- */

/* The end of a call that knows of a child what SIGCHLD tells as well: natively that was sent before. */
static long childret(long r)
{
	if (r >= 0)
		sigarrived(SIGCHLD);
	return callret(r);
}

static pid_t waitchild(pid_t pid, int *status, int options, struct rusage *usage)
{
	if (!(options & WNOHANG))
		return (pid_t)childret(
		    syswait(Restarts | Cancels, SYS_wait4, pid, status, options, usage));
	testcancel();
	long r = sysnow(SYS_wait4, pid, status, options, usage);

	return (pid_t)(r > 0 ? childret(r) : callret(r));
}

SHIM(pid_t, waitpid, pid_t pid, int *status, int options)
{
	if (!getg())
		return real.waitpid(pid, status, options);
	return waitchild(pid, status, options, NULL);
}

SHIM(pid_t, wait, int *status)
{
	if (!getg())
		return real.wait(status);
	return waitchild(-1, status, 0, NULL);
}

SHIM(pid_t, wait3, int *status, int options, struct rusage *usage)
{
	if (!getg())
		return real.wait3(status, options, usage);
	return waitchild(-1, status, options, usage);
}

SHIM(pid_t, wait4, pid_t pid, int *status, int options, struct rusage *usage)
{
	if (!getg())
		return real.wait4(pid, status, options, usage);
	return waitchild(pid, status, options, usage);
}

SHIM(int, waitid, idtype_t type, id_t id, siginfo_t *info, int options)
{
	if (!getg())
		return real.waitid(type, id, info, options);
	if (!(options & WNOHANG))
		return (int)childret(
		    syswait(Restarts | Cancels, SYS_waitid, type, id, info, options, NULL));
	testcancel();
	return (int)callret(sysnow(SYS_waitid, type, id, info, options, NULL));
}

/* --- System V IPC --------------------------------------------------------------- */

SHIM(int, msgsnd, int id, const void *msg, size_t n, int flags)
{
	if (!getg())
		return real.msgsnd(id, msg, n, flags);
	long r = syswait(Quick | Cancels, SYS_msgsnd, id, msg, n, flags | IPC_NOWAIT);

	if (r == -EAGAIN && !(flags & IPC_NOWAIT))
		r = syswait(Cancels, SYS_msgsnd, id, msg, n, flags);
	return (int)callret(r);
}

SHIM(ssize_t, msgrcv, int id, void *msg, size_t n, long type, int flags)
{
	if (!getg())
		return real.msgrcv(id, msg, n, type, flags);
	long r = syswait(Quick | Cancels, SYS_msgrcv, id, msg, n, type, flags | IPC_NOWAIT);

	if (r == -ENOMSG && !(flags & IPC_NOWAIT))
		r = syswait(Cancels, SYS_msgrcv, id, msg, n, type, flags);
	return callret(r);
}

static const struct timespec longago;

/* It has no flag of its own for that, only each of its operations. */
static long semopnow(int id, struct sembuf *ops, size_t n)
{
	return syswait(Quick | EndsOnSignal, SYS_semtimedop, id, ops, n, &longago);
}

SHIM(int, semop, int id, struct sembuf *ops, size_t n)
{
	if (!getg())
		return real.semop(id, ops, n);
	long r = semopnow(id, ops, n);

	if (r == -EAGAIN) /* also of one that does not wait: it is told again */
		r = syswait(EndsOnSignal, SYS_semop, id, ops, n);
	return (int)callret(r);
}

SHIM(int, semtimedop, int id, struct sembuf *ops, size_t n, const struct timespec *timeout)
{
	if (!getg())
		return real.semtimedop(id, ops, n, timeout);
	if (!timeout)
		return shim_semop(id, ops, n);
	if (!readable(timeout, sizeof *timeout) || !validtime(timeout))
		return (int)callret(sysnow(SYS_semtimedop, id, ops, n, timeout));
	long r = semopnow(id, ops, n);

	if (r != -EAGAIN)
		return (int)callret(r);
	int64_t end = deadlinein(timens(timeout));
	struct timespec left;

	do
		r = sysblock(SYS_semtimedop, id, ops, n, timeleft(end, &left));
	while (r == -EINTR && intragain(EndsOnSignal));
	return (int)callret(r);
}

/* --- POSIX message queues: deadlines are absolute, so the call can just be repeated --- */

/* The signal that is to tell of a message, if the program has ever asked for one: natively it comes before the call returns
 * that sends the message. */
static _Atomic int tells;

SHIM(int, mq_notify, mqd_t q, const struct sigevent *ev)
{
	int r = real.mq_notify(q, ev);

	if (r == 0 && ev && ev->sigev_notify == SIGEV_SIGNAL)
		atomic_store(&tells, ev->sigev_signo);
	return r;
}

static long sendmessage(mqd_t q, const char *msg, size_t n, unsigned prio,
			const struct timespec *end)
{
	long r = syswait(Quick | Restarts | Cancels, SYS_mq_timedsend, q, msg, n, prio, &longago);

	if (r == -ETIMEDOUT)
		r = syswait(Restarts | Cancels, SYS_mq_timedsend, q, msg, n, prio, end);
	if (r == 0 && atomic_load_explicit(&tells, memory_order_relaxed))
		sigarrived(atomic_load(&tells));
	return callret(r);
}

static long receivemessage(mqd_t q, char *msg, size_t n, unsigned *prio, const struct timespec *end)
{
	long r =
	    syswait(Quick | Restarts | Cancels, SYS_mq_timedreceive, q, msg, n, prio, &longago);

	if (r == -ETIMEDOUT)
		r = syswait(Restarts | Cancels, SYS_mq_timedreceive, q, msg, n, prio, end);
	return callret(r);
}

SHIM(int, mq_send, mqd_t q, const char *msg, size_t n, unsigned prio)
{
	if (!getg())
		return real.mq_send(q, msg, n, prio);
	return (int)sendmessage(q, msg, n, prio, NULL);
}

SHIM(int, mq_timedsend, mqd_t q, const char *msg, size_t n, unsigned prio,
     const struct timespec *end)
{
	if (!getg())
		return real.mq_timedsend(q, msg, n, prio, end);
	return (int)sendmessage(q, msg, n, prio, end);
}

SHIM(ssize_t, mq_receive, mqd_t q, char *msg, size_t n, unsigned *prio)
{
	if (!getg())
		return real.mq_receive(q, msg, n, prio);
	return receivemessage(q, msg, n, prio, NULL);
}

SHIM(ssize_t, mq_timedreceive, mqd_t q, char *msg, size_t n, unsigned *prio,
     const struct timespec *end)
{
	if (!getg())
		return real.mq_timedreceive(q, msg, n, prio, end);
	return receivemessage(q, msg, n, prio, end);
}

/* --- signals -------------------------------------------------------------------- */

/*
 * A signal of the set is either for this goroutine alone (sigtake has it), or for
 * the process: then the kernel keeps it pending, if every goroutine that
 * counts blocks it, and hands it to whoever asks; or it was received before that, and sigtake has it, too.
 * Of those that are queued none is taken from the kernel while sysmon, or sigtake, may have an older one.
 */
static long takesignal(const sigset_t *set, siginfo_t *info, int64_t end)
{
	struct timespec left;
	uint64_t wanted;

	testcancel();
	/* SIGURG comes to kernel threads for the runtime, and the program's is never left in the kernel. */
	memcpy(&wanted, set, sizeof wanted);
	wanted &= ~(1ull << (SIGURG - 1));
	for (;;) {
		int sig = sigtake(set, info);

		if (sig)
			return sig;
		uint64_t kernels = wanted;
		long r = -EINTR;

		if (sigkernelenter(&kernels))
			r = sysblock(SYS_rt_sigtimedwait, &kernels, info, timeleft(end, &left), 8);
		sigkernelleave(wanted);
		/* What has ended the wait is taken before others are told of it. */
		if (r == -EINTR && (sig = sigtake(set, info)))
			return sig;
		sigtakedone();
		if (r > 0 && info)
			notetimer(info);
		if (r != -EINTR || !intragain(EndsOnSignal | Cancels))
			return r;
	}
}

SHIM(int, sigtimedwait, const sigset_t *set, siginfo_t *info, const struct timespec *timeout)
{
	if (!getg())
		return real.sigtimedwait(set, info, timeout);
	if (!readable(set, 8) || (timeout && !readable(timeout, sizeof *timeout)))
		return (int)callret(-EFAULT);
	if (timeout && !validtime(timeout))
		return (int)callret(-EINVAL);
	long r = takesignal(set, info, timeout ? deadlinein(timens(timeout)) : FOREVER);
	/* libc folds this code, and programs expect it. */
	if (r > 0 && info && info->si_code == SI_TKILL)
		info->si_code = SI_USER;
	return (int)callret(r);
}

SHIM(int, sigwaitinfo, const sigset_t *set, siginfo_t *info)
{
	return shim_sigtimedwait(set, info, NULL);
}

/* Never EINTR. */
SHIM(int, sigwait, const sigset_t *set, int *sig)
{
	if (!getg())
		return real.sigwait(set, sig);
	long r;

	do
		r = takesignal(set, NULL, FOREVER);
	while (r == -EINTR);
	callret(0);
	if (r < 0)
		return (int)-r;
	*sig = (int)r;
	return 0;
}
