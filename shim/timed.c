/*
 * timed.c - kernel mode: threads are the kernel's, as natively, and what they wait for is timed.
 *
 * The program shall run as without us, so each function is libc's with a look at the clock before and after. A wait is
 * what could not be had at once: locks and semaphores are tried first (timedlocks.c), which changes nothing, as libc does so
 * itself. Of system calls that can't be told; core/timed.c goes by how long they took (timedcalls.c). Whoever is cancelled, or
 * ends by pthread_exit in a handler, leaves a wait by the cleanup attribute.
 */
#include "timed.h"

#include "sched.h"
#include "tls.h"

#include <linux/futex.h>
#include <sys/prctl.h>

/* --- the start, and threads --------------------------------------------------------- */

/* What a new thread is to do, until it has begun. */
typedef struct Beginner {
	_Atomic bool taken;
	void *(*start)(void *);
	void *arg;
} Beginner;
static Beginner beginners[64];

/* NULL: out of memory. */
static Beginner *beginner(void)
{
	for (size_t i = 0; i < nelem(beginners); i++)
		if (!atomic_load_explicit(&beginners[i].taken, memory_order_relaxed) &&
		    !atomic_exchange(&beginners[i].taken, true))
			return &beginners[i];
	/* Not as a rule: its free, by the new thread, is a use of malloc that it perhaps has none of natively. */
	return malloc(sizeof(Beginner));
}

static void release(Beginner *b)
{
	if (b >= beginners && b < beginners + nelem(beginners))
		atomic_store(&b->taken, false);
	else
		free(b);
}

static void threadover(const int *unused)
{
	(void)unused;
	timedthreadends();
}

static void *begin(void *arg)
{
	Beginner b = {.start = ((Beginner *)arg)->start, .arg = ((Beginner *)arg)->arg};
	release(arg);
	timedthreadbegins();
	__attribute__((cleanup(threadover), unused)) const int ends = 0;
	return b.start(b.arg);
}

TIMED(int, pthread_create, pthread_t *t, const pthread_attr_t *attr, void *(*start)(void *),
      void *arg)
{
	timedstart(timedready);
	Beginner *b = beginner();
	if (!b)
		return EAGAIN;
	b->start = start;
	b->arg = arg;
	int r = nativecreate(t, attr, begin, b);
	if (r)
		release(b);
	return r;
}

TIMED(int, thrd_create, thrd_t *t, thrd_start_t start, void *arg)
{
	/* An int comes back in the same register; thrd_join truncates. */
	switch (timed_pthread_create(t, NULL, (void *(*)(void *))(void (*)(void))start, arg)) {
	case 0: return thrd_success;
	case ENOMEM: return thrd_nomem;
	}
	return thrd_error;
}

/* Has the thread ended? Then joining it is no wait. */
static bool over(pthread_t t)
{
	return __atomic_load_n((int *)((char *)t + TIDOFFSET), __ATOMIC_RELAXED) <= 0;
}

TIMED(int, pthread_join, pthread_t t, void **result)
{
	UNLESS(over(t), WaitJoin, real.pthread_join(t, result));
}

TIMED(int, pthread_timedjoin_np, pthread_t t, void **result, const struct timespec *abs)
{
	UNLESS(over(t), WaitJoin, real.pthread_timedjoin_np(t, result, abs));
}

TIMED(int, pthread_clockjoin_np, pthread_t t, void **result, clockid_t clock,
      const struct timespec *abs)
{
	UNLESS(over(t), WaitJoin, real.pthread_clockjoin_np(t, result, clock, abs));
}

TIMED(int, thrd_join, thrd_t t, int *result)
{
	UNLESS(over(t), WaitJoin, real.thrd_join(t, result));
}

/* --- system calls by syscall() --------------------------------------------------------- */

/* entry.S comes here with these three; all others are libc's, as some return twice. */
long timedfutex(long nr, long a, long b, long c, long d, long e, long f)
{
	switch (b & FUTEX_CMD_MASK) {
	case FUTEX_WAIT:
	case FUTEX_WAIT_BITSET:
	case FUTEX_WAIT_REQUEUE_PI:
	case FUTEX_LOCK_PI:
	case 13: /* FUTEX_LOCK_PI2 */ break;
	default: return real.syscall(nr, a, b, c, d, e, f);
	}
	WAITING(WaitFutex);
	return real.syscall(nr, a, b, c, d, e, f);
}

/* No system call may be allowed from now on but those that the program makes. */
long timedseccomp(long nr, long a, long b, long c, long d, long e, long f)
{
	timedcomplete();
	return real.syscall(nr, a, b, c, d, e, f);
}

static void heed(int kind)
{
	if (kind == PR_SET_TSC)
		avoidtsc();
	if (kind == PR_SET_SECCOMP)
		timedcomplete();
}

long timedprctl(long nr, long a, long b, long c, long d, long e, long f)
{
	heed((int)a);
	return real.syscall(nr, a, b, c, d, e, f);
}

TIMED(int, prctl, int kind, ...)
{
	PRCTLARGUMENTS(a, kind);
	heed(kind);
	return real.prctl(kind, a[0], a[1], a[2], a[3]);
}
