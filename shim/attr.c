/*
 * attr.c - what a thread is asked about itself: attributes, scheduling,
 * affinity.
 *
 * libc answers from the kernel thread whose id stands in the block. A
 * goroutine's is none of the kernel's, so: what all kernel threads of ours
 * share is answered from the calling one; what differs wires the goroutine to a kernel
 * thread of its own first (design: kernel-thread state is never a silent no-op).
 */
#include "pin.h"
#include "sched.h"
#include "thread.h"

#include <stdatomic.h>

SHIM(int, pthread_getattr_np, pthread_t t, pthread_attr_t *attr)
{
	Thread *th = threadof(t);
	if (!th || th->ismain)
		return real.pthread_getattr_np(t, attr);
	int r = pthread_attr_init(attr);
	if (r)
		return r;
	/* What was asked for; ours end somewhat below the end of a page, and are often longer. */
	uintptr_t top = th->userstack ? th->stack.hi : pageup(th->stack.hi);
	size_t size = th->userstack ? th->stacksize : pageup(th->stacksize);
	pthread_attr_setstack(attr, (void *)(top - size), size);
	pthread_attr_setguardsize(attr, th->guardsize);
	if (th->ownsched)
		pthread_attr_setinheritsched(attr, PTHREAD_EXPLICIT_SCHED);
	struct sched_param param;
	int policy;
	if (th->pinned && shim_pthread_getschedparam(t, &policy, &param) == 0) {
		pthread_attr_setschedpolicy(attr, policy);
		pthread_attr_setschedparam(attr, &param);
	}
	if ((atomic_load(&th->state) & ThreadStateMask) == ThreadDetached)
		pthread_attr_setdetachstate(attr, PTHREAD_CREATE_DETACHED);
	cpu_set_t set;
	if (shim_pthread_getaffinity_np(t, sizeof set, &set) == 0)
		pthread_attr_setaffinity_np(attr, sizeof set, &set);
	return 0;
}

static bool gone(Thread *th)
{
	return atomic_load(&th->state) & ThreadExited;
}

SHIM(int, pthread_getaffinity_np, pthread_t t, size_t n, cpu_set_t *set)
{
	Thread *th = threadof(t);
	if (!th || !schedstarted())
		return real.pthread_getaffinity_np(t, n, set);
	if (gone(th))
		return ESRCH;
	long r = sys3(SYS_sched_getaffinity, th->pinned ? th->ktid : 0, (long)n, (long)set);
	if (r < 0)
		return (int)-r;
	memset((char *)set + r, 0, n - (size_t)r);
	return 0;
}

SHIM(int, pthread_getaffinity_old, pthread_t t, cpu_set_t *set)
{
	return shim_pthread_getaffinity_np(t, sizeof *set, set);
}

SHIM(int, pthread_setaffinity_np, pthread_t t, size_t n, const cpu_set_t *set)
{
	Thread *th = threadof(t);
	if (!th || !schedstarted())
		return real.pthread_setaffinity_np(t, n, set);
	if (gone(th))
		return ESRCH;
	/* What it has already is no change. */
	cpu_set_t now;
	long got = sys3(SYS_sched_getaffinity, th->pinned ? th->ktid : 0, sizeof now, (long)&now);
	if (got > 0 && n >= (size_t)got && !memcmp(set, &now, (size_t)got))
		return 0;
	int r = pinthread(th, PinSched);
	if (r)
		return r;
	r = (int)-sys3(SYS_sched_setaffinity, th->ktid, (long)n, (long)set);
	if (th == curthread())
		settle();
	return r;
}

SHIM(int, pthread_setaffinity_old, pthread_t t, cpu_set_t *set)
{
	return shim_pthread_setaffinity_np(t, sizeof *set, set);
}

SHIM(int, pthread_getschedparam, pthread_t t, int *policy, struct sched_param *param)
{
	Thread *th = threadof(t);
	if (!th || !schedstarted())
		return real.pthread_getschedparam(t, policy, param);
	if (gone(th))
		return ESRCH;
	int ktid = th->pinned ? th->ktid : 0;
	long p = sys1(SYS_sched_getscheduler, ktid);
	if (p < 0)
		return (int)-p;
	*policy = (int)p;
	return (int)-sys2(SYS_sched_getparam, ktid, (long)param);
}

static int setsched(Thread *th, int policy, const struct sched_param *param)
{
	int ktid = th->pinned ? th->ktid : 0;
	struct sched_param now;
	long p = sys1(SYS_sched_getscheduler, ktid);
	sys2(SYS_sched_getparam, ktid, (long)&now);
	if (p == policy && now.sched_priority == param->sched_priority)
		return 0;
	int r = pinthread(th, PinSched);
	if (r)
		return r;
	r = (int)-sys3(SYS_sched_setscheduler, th->ktid, policy, (long)param);
	if (th == curthread())
		settle();
	return r;
}

SHIM(int, pthread_setschedparam, pthread_t t, int policy, const struct sched_param *param)
{
	Thread *th = threadof(t);
	if (!th || !schedstarted())
		return real.pthread_setschedparam(t, policy, param);
	return gone(th) ? ESRCH : setsched(th, policy, param);
}

SHIM(int, pthread_setschedprio, pthread_t t, int prio)
{
	Thread *th = threadof(t);
	struct sched_param param = {.sched_priority = prio};
	int policy;
	if (!th || !schedstarted())
		return real.pthread_setschedprio(t, prio);
	struct sched_param now;
	int r = shim_pthread_getschedparam(t, &policy, &now);
	return r ? r : setsched(th, policy, &param);
}
