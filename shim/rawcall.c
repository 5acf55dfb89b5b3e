/*
 * rawcall.c - what a program asks by syscall() about its thread.
 *
 * libc has no function for some calls, and programs that bring their own runtime
 * avoid libc's for others. To the kernel the caller is an M: a tid of the program's means
 * nothing to it, and a signal mask or a stack that it is given would stay with the M. So the calls
 * that name a thread or change the caller's are answered here, as the functions of the same name
 * do; the rest goes to the kernel. Inline assembly is not seen.
 */
#include "close.h"
#include "pin.h"
#include "sched.h"
#include "signal.h"
#include "sync.h"

static long procmask(long how, const uint64_t *set, uint64_t *old)
{
	sigset_t s, o;
	sigemptyset(&s);
	sigemptyset(&o);
	if (set)
		memcpy(&s, set, 8);
	int r = shim_pthread_sigmask((int)how, set ? &s : NULL, &o);
	if (r == 0 && old)
		memcpy(old, &o, 8);
	return errnoret(-r);
}

bool rawcall(long nr, long *a, long *r)
{
	switch (nr) {
	case SYS_close: *r = errnoret(closefd((int)a[0])); return true;
	case SYS_dup2:
	case SYS_dup3:
		*r = errnoret(replaced((int)sys3(nr, a[0], a[1], a[2]), (int)a[0]));
		return true;
	case SYS_close_range:
		*r = shim_close_range((unsigned)a[0], (unsigned)a[1], (int)a[2]);
		return true;
	}
	if (!getg())
		return false;
	switch (nr) {
	case SYS_gettid: *r = selftid(); return true;
	case SYS_tkill:
		*r = shim_tgkill((pid_t)sys0(SYS_getpid), (pid_t)a[0], (int)a[1]);
		return true;
	case SYS_tgkill: *r = shim_tgkill((pid_t)a[0], (pid_t)a[1], (int)a[2]); return true;
	case SYS_kill: *r = shim_kill((pid_t)a[0], (int)a[1]); return true;
	case SYS_pidfd_send_signal:
		*r =
		    shim_pidfd_send_signal((int)a[0], (int)a[1], (siginfo_t *)a[2], (unsigned)a[3]);
		return true;
	case SYS_rt_sigqueueinfo:
		*r = sigqueueinfo((pid_t)a[0], (int)a[1], (const siginfo_t *)a[2]);
		return true;
	case SYS_rt_tgsigqueueinfo:
		*r = sigqueueinfothread((pid_t)a[0], (pid_t)a[1], (int)a[2],
					(const siginfo_t *)a[3]);
		return true;
	case SYS_rt_sigprocmask:
		if (a[3] != 8)
			return false; /* the kernel says EINVAL */
		*r = procmask(a[0], (const uint64_t *)a[1], (uint64_t *)a[2]);
		return true;
	case SYS_sigaltstack:
		*r = shim_sigaltstack((const stack_t *)a[0], (stack_t *)a[1]);
		return true;
	case SYS_clock_gettime:
		if (!cputhread((clockid_t)a[0]))
			return false;
		*r = shim_clock_gettime((clockid_t)a[0], (struct timespec *)a[1]);
		return true;
	case SYS_getrusage: *r = shim_getrusage((int)a[0], (struct rusage *)a[1]); return true;
	case SYS_capget:
		*r = shim_capget((cap_user_header_t)a[0], (cap_user_data_t)a[1]);
		return true;
	case SYS_capset:
		*r = shim_capset((cap_user_header_t)a[0], (cap_user_data_t)a[1]);
		return true;
	case SYS_prctl: *r = shim_prctl((int)a[0], a[1], a[2], a[3], a[4]); return true;
	case SYS_execve:
		*r = shim_execve((const char *)a[0], (char *const *)a[1], (char *const *)a[2]);
		return true;
	case SYS_execveat:
		*r = shim_execveat((int)a[0], (const char *)a[1], (char *const *)a[2],
				   (char *const *)a[3], (int)a[4]);
		return true;
	case SYS_set_tid_address:
		pin(PinSelf);
		sys1(nr, a[0]);
		*r = selftid();
		return true;
	case SYS_exit: threadvanish((int)a[0]);
	}
	if (!pincall(nr, a, r))
		return false;
	*r = errnoret(*r);
	return true;
}
