/*
 * timed.c - kernel mode: threads are the kernel's, as natively, and what they wait for is timed.
 *
 * The program shall run as without us, so each function here is libc's with a look at the clock before and after. A wait is
 * what could not be had at once: locks and semaphores are tried first, which changes nothing, as libc does so itself.
 * Of system calls that can't be told; core/timed.c goes by how long they took (timedcalls.c). Whoever is cancelled, or ends by
 * pthread_exit in a handler, leaves a wait by the cleanup attribute.
 */
#include "timed.h"

#include "sched.h"
#include "tls.h"

#include <linux/futex.h>
#include <sys/prctl.h>

void rtsettings(void);

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
	if (timedstart())
		rtsettings();
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

/* Calls libc's and times it, unless `free`. */
#define UNLESS(free, why, call)      \
	do {                         \
		if (free)            \
			return call; \
		WAITING(why);        \
		return call;         \
	} while (0)

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

/* --- locks ------------------------------------------------------------------------------ */

/* libc's function, unless it can be had by `try`, which says `busy` if not. */
#define TRYFIRST(try, busy, why, call)     \
	do {                               \
		int got = try;             \
		if (likely(got != (busy))) \
			return got;        \
		WAITING(why);              \
		return call;               \
	} while (0)

/* What libc refuses before it looks at the lock. */
static bool refused(clockid_t clock, const struct timespec *abs)
{
	return (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC) || abs->tv_nsec < 0 ||
	       abs->tv_nsec >= 1000000000;
}

/*
 * Can libc be asked for m without waiting, and nothing else be different? Its trylock takes a robust one that can't be recovered, and
 * keeps it. Of such and of those that know priorities, the word that says who has it is looked at.
 */
static inline bool maytry(const pthread_mutex_t *m)
{
	enum { Simple = 3 | 128 | 256 | 512 }; /* types; shared; hints on elision */
	return !(__atomic_load_n(&m->__data.__kind, __ATOMIC_RELAXED) & ~Simple);
}

static bool held(const pthread_mutex_t *m)
{
	enum { Protect = 64, WithCeiling = 0x7ffff };
	int protect = __atomic_load_n(&m->__data.__kind, __ATOMIC_RELAXED) & Protect;
	return __atomic_load_n(&m->__data.__lock, __ATOMIC_RELAXED) &
		   (protect ? WithCeiling : FUTEX_TID_MASK) &&
	       __atomic_load_n(&m->__data.__owner, __ATOMIC_RELAXED) != (int)selftid();
}

TIMED(int, pthread_mutex_lock, pthread_mutex_t *m)
{
	if (unlikely(!maytry(m)))
		UNLESS(!held(m), WaitMutex, real.pthread_mutex_lock(m));
	TRYFIRST(real.pthread_mutex_trylock(m), EBUSY, WaitMutex, real.pthread_mutex_lock(m));
}

TIMED(int, pthread_mutex_timedlock, pthread_mutex_t *m, const struct timespec *abs)
{
	if (unlikely(!maytry(m)))
		UNLESS(!held(m), WaitMutex, real.pthread_mutex_timedlock(m, abs));
	TRYFIRST(real.pthread_mutex_trylock(m), EBUSY, WaitMutex,
		 real.pthread_mutex_timedlock(m, abs));
}

TIMED(int, pthread_mutex_clocklock, pthread_mutex_t *m, clockid_t clock, const struct timespec *abs)
{
	if (refused(clock, &(struct timespec){0}))
		return real.pthread_mutex_clocklock(m, clock, abs);
	if (unlikely(!maytry(m)))
		UNLESS(!held(m), WaitMutex, real.pthread_mutex_clocklock(m, clock, abs));
	TRYFIRST(real.pthread_mutex_trylock(m), EBUSY, WaitMutex,
		 real.pthread_mutex_clocklock(m, clock, abs));
}

TIMED(int, mtx_lock, mtx_t *m)
{
	TRYFIRST(real.mtx_trylock(m), thrd_busy, WaitMutex, real.mtx_lock(m));
}

TIMED(int, mtx_timedlock, mtx_t *m, const struct timespec *abs)
{
	TRYFIRST(real.mtx_trylock(m), thrd_busy, WaitMutex, real.mtx_timedlock(m, abs));
}

TIMED(int, pthread_rwlock_rdlock, pthread_rwlock_t *l)
{
	TRYFIRST(real.pthread_rwlock_tryrdlock(l), EBUSY, WaitRWMutexR,
		 real.pthread_rwlock_rdlock(l));
}

TIMED(int, pthread_rwlock_timedrdlock, pthread_rwlock_t *l, const struct timespec *abs)
{
	if (refused(CLOCK_REALTIME, abs))
		return real.pthread_rwlock_timedrdlock(l, abs);
	TRYFIRST(real.pthread_rwlock_tryrdlock(l), EBUSY, WaitRWMutexR,
		 real.pthread_rwlock_timedrdlock(l, abs));
}

TIMED(int, pthread_rwlock_clockrdlock, pthread_rwlock_t *l, clockid_t clock,
      const struct timespec *abs)
{
	if (refused(clock, abs))
		return real.pthread_rwlock_clockrdlock(l, clock, abs);
	TRYFIRST(real.pthread_rwlock_tryrdlock(l), EBUSY, WaitRWMutexR,
		 real.pthread_rwlock_clockrdlock(l, clock, abs));
}

TIMED(int, pthread_rwlock_wrlock, pthread_rwlock_t *l)
{
	TRYFIRST(real.pthread_rwlock_trywrlock(l), EBUSY, WaitRWMutexW,
		 real.pthread_rwlock_wrlock(l));
}

TIMED(int, pthread_rwlock_timedwrlock, pthread_rwlock_t *l, const struct timespec *abs)
{
	if (refused(CLOCK_REALTIME, abs))
		return real.pthread_rwlock_timedwrlock(l, abs);
	TRYFIRST(real.pthread_rwlock_trywrlock(l), EBUSY, WaitRWMutexW,
		 real.pthread_rwlock_timedwrlock(l, abs));
}

TIMED(int, pthread_rwlock_clockwrlock, pthread_rwlock_t *l, clockid_t clock,
      const struct timespec *abs)
{
	if (refused(clock, abs))
		return real.pthread_rwlock_clockwrlock(l, clock, abs);
	TRYFIRST(real.pthread_rwlock_trywrlock(l), EBUSY, WaitRWMutexW,
		 real.pthread_rwlock_clockwrlock(l, clock, abs));
}

/* --- what is waited for ---------------------------------------------------------------- */

/* The wait for the mutex afterwards is a part of it: libc makes both. */
TIMED(int, pthread_cond_wait, pthread_cond_t *c, pthread_mutex_t *m)
{
	WAITING(WaitCond);
	return real.pthread_cond_wait(c, m);
}

TIMED(int, pthread_cond_timedwait, pthread_cond_t *c, pthread_mutex_t *m,
      const struct timespec *abs)
{
	WAITING(WaitCond);
	return real.pthread_cond_timedwait(c, m, abs);
}

TIMED(int, pthread_cond_clockwait, pthread_cond_t *c, pthread_mutex_t *m, clockid_t clock,
      const struct timespec *abs)
{
	WAITING(WaitCond);
	return real.pthread_cond_clockwait(c, m, clock, abs);
}

TIMED(int, cond_wait_old, pthread_cond_t *c, pthread_mutex_t *m)
{
	WAITING(WaitCond);
	return real.cond_wait_old(c, m);
}

TIMED(int, cond_timedwait_old, pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *abs)
{
	WAITING(WaitCond);
	return real.cond_timedwait_old(c, m, abs);
}

TIMED(int, cnd_wait, cnd_t *c, mtx_t *m)
{
	WAITING(WaitCond);
	return real.cnd_wait(c, m);
}

TIMED(int, cnd_timedwait, cnd_t *c, mtx_t *m, const struct timespec *abs)
{
	WAITING(WaitCond);
	return real.cnd_timedwait(c, m, abs);
}

static int take(sem_t *s)
{
	KEEP_ERRNO;
	return sem_trywait(s);
}

TIMED(int, sem_wait, sem_t *s)
{
	real.pthread_testcancel();
	TRYFIRST(take(s), -1, WaitSem, real.sem_wait(s));
}

TIMED(int, sem_timedwait, sem_t *s, const struct timespec *abs)
{
	if (refused(CLOCK_REALTIME, abs))
		return real.sem_timedwait(s, abs);
	real.pthread_testcancel(); /* sem_clockwait is cancelled only in a wait */
	TRYFIRST(take(s), -1, WaitSem, real.sem_timedwait(s, abs));
}

TIMED(int, sem_clockwait, sem_t *s, clockid_t clock, const struct timespec *abs)
{
	if (refused(clock, abs))
		return real.sem_clockwait(s, clock, abs);
	TRYFIRST(take(s), -1, WaitSem, real.sem_clockwait(s, clock, abs));
}

TIMED(int, pthread_barrier_wait, pthread_barrier_t *b)
{
	WAITING(WaitBarrier);
	return real.pthread_barrier_wait(b);
}

/* Does another run the initialiser? Who runs it itself does not wait. */
static bool running(const int *control)
{
	enum { InProgress = 1, Done = 2 };
	return (__atomic_load_n(control, __ATOMIC_RELAXED) & (InProgress | Done)) == InProgress;
}

TIMED(int, pthread_once, pthread_once_t *control, void (*init)(void))
{
	UNLESS(!running(control), WaitOnce, real.pthread_once(control, init));
}

TIMED(void, call_once, once_flag *flag, void (*init)(void))
{
	timed_pthread_once((pthread_once_t *)flag, init);
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
	unsigned long a[4];
	va_list ap;
	va_start(ap, kind);
	for (int i = 0; i < 4; i++)
		a[i] = va_arg(ap, unsigned long);
	va_end(ap);
	heed(kind);
	return real.prctl(kind, a[0], a[1], a[2], a[3]);
}
