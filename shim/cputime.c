/*
 * cputime.c - clocks of the CPU time of threads.
 *
 * Their numbers are made as the kernel makes those of its threads: of the thread's id, which for a
 * goroutine is one that the kernel does not know. What is asked of them is answered here; a timer on
 * one needs the kernel's clock, and wires its thread.
 */
#include "block.h"
#include "pin.h"
#include "sched.h"
#include "thread.h"

enum { SCHED = 2, PERTHREAD = 4, KIND = 7, LARGEST = 15 };

/* The upper bits of an id are not in the number. */
static uint32_t numberof(uint32_t tid)
{
	return ~tid << 3 | SCHED | PERTHREAD;
}

static bool isclockof(Thread *th, void *arg)
{
	struct {
		uint32_t number;
		Thread *th;
	} *c = arg;
	if (numberof(th->tid) == c->number)
		c->th = th;
	return !c->th;
}

Thread *cputhread(clockid_t clock)
{
	struct {
		uint32_t number;
		Thread *th;
	} c = {(uint32_t)clock, NULL};
	Thread *self = curthread();
	if (clock == CLOCK_THREAD_CPUTIME_ID)
		return self;
	if (likely(clock >= 0 && clock <= LARGEST) || (clock & KIND) != (SCHED | PERTHREAD) ||
	    !schedstarted())
		return NULL;
	if (self && numberof(self->tid) == c.number)
		return self;
	threadseach(isclockof, &c);
	return c.th;
}

int64_t cputimeof(Thread *th)
{
	G *gp = th->gp;
	return gp ? gcputime(gp, th) : 0; /* made, and has not run */
}

static long settime(Thread *th, struct timespec *ts)
{
	int64_t t = cputimeof(th);
	if (t < 0)
		return -EINVAL;
	ts->tv_sec = t / 1000000000;
	ts->tv_nsec = t % 1000000000;
	return 0;
}

SHIM(int, clock_gettime, clockid_t clock, struct timespec *ts)
{
	Thread *th = cputhread(clock);
	return likely(!th) ? real.clock_gettime(clock, ts) : (int)errnoret(settime(th, ts));
}

SHIM(int, clock_getres, clockid_t clock, struct timespec *ts)
{
	return real.clock_getres(cputhread(clock) ? CLOCK_THREAD_CPUTIME_ID : clock, ts);
}

SHIM(int, pthread_getcpuclockid, pthread_t t, clockid_t *clock)
{
	Thread *th = threadof(t);
	if (!th || !schedstarted())
		return real.pthread_getcpuclockid(t, clock);
	if (atomic_load(&th->state) & ThreadExited)
		return ESRCH;
	*clock = (clockid_t)numberof(th->tid);
	return 0;
}

int kernelclock(clockid_t *clock)
{
	Thread *th = cputhread(*clock);
	int r = th ? pinthread(th, PinSelf) : 0;
	if (th && r == 0)
		*clock = (clockid_t)numberof((uint32_t)th->ktid);
	return r;
}

/* Of what the kernel counts for a thread the time is the goroutine's, in the kernel thread's proportion. */
SHIM(int, getrusage, __rusage_who_t who, struct rusage *ru)
{
	Thread *th = curthread();
	int r = real.getrusage(who, ru);
	if (r || !th || who != RUSAGE_THREAD)
		return r;
	int64_t user = ru->ru_utime.tv_sec * 1000000l + ru->ru_utime.tv_usec;
	int64_t all = user + ru->ru_stime.tv_sec * 1000000l + ru->ru_stime.tv_usec;
	int64_t own = cputimeof(th) / 1000;
	user = all ? (int64_t)((double)own * (double)user / (double)all) : own;
	ru->ru_utime = (struct timeval){user / 1000000, user % 1000000};
	ru->ru_stime = (struct timeval){(own - user) / 1000000, (own - user) % 1000000};
	return 0;
}
