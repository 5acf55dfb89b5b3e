/*
 * thread.c - threads: a pthread is a goroutine with a record and a block.
 *
 * A thread's end is in three parts. On its own stack: destructors (end.c). On g0, when neither stack nor block is
 * in use any more (threaddone): its stack goes back, joiners wake, because
 * POSIX lets the joiner free a stack it gave. By the joiner, or at once if
 * detached: the block, which is what pthread_t names.
 */
#include "thread.h"
#include "cancel.h"
#include "pin.h"
#include "sched.h"
#include "signal.h"

#include <setjmp.h>
#include <stdatomic.h>
#include <sys/prctl.h>

Thread mainthread;
_Atomic int nthreads;

/* --- the list of live threads --------------------------------------------------- */

static struct {
	SpinLock lock;
	Thread *head;
} threads;

void threadseach(bool (*fn)(Thread *th, void *arg), void *arg)
{
	Section s = spinlock(&threads.lock);
	for (Thread *th = threads.head; th && fn(th, arg); th = th->next)
		;
	spinunlock(&threads.lock, s);
}

static void threadlink(Thread *th)
{
	Section s = spinlock(&threads.lock);
	/* main stays first: it is asked first who takes a signal. */
	Thread *after = th->ismain ? NULL : threads.head;
	if (after) {
		th->prev = after;
		th->next = after->next;
		after->next = th;
	} else {
		th->prev = NULL;
		th->next = threads.head;
		threads.head = th;
	}
	if (th->next)
		th->next->prev = th;
	spinunlock(&threads.lock, s);
}

static void threadunlink(Thread *th)
{
	Section s = spinlock(&threads.lock);
	if (th->prev)
		th->prev->next = th->next;
	else
		threads.head = th->next;
	if (th->next)
		th->next->prev = th->prev;
	spinunlock(&threads.lock, s);
}

Thread *threadof(pthread_t t)
{
	void *block = (void *)t;
	if (isblock(block))
		return blockextra(block);
	if (mainthread.block && block == mainthread.block)
		return &mainthread;
	return NULL;
}

_Static_assert(sizeof(Thread) + 64 <= BLOCKEXTRA, "room behind the block");

void threadmaininit(uintptr_t lo, uintptr_t hi);
void threadmaininit(uintptr_t lo, uintptr_t hi)
{
	Thread *th = isblock(selfblock()) ? blockextra(selfblock()) : &mainthread;
	th->block = selfblock();
	th->tid = selftid();
	th->stack.lo = lo;
	th->stack.hi = hi;
	th->userstack = true;
	th->ismain = true;
	threads.head = NULL;
	threadlink(th);
	atomic_store(&nthreads, 1);
}

/* Guards Thread.joining: whom a thread waits for is not freed while somebody follows it. */
static SpinLock joinlock;

void threadforkchild(Thread *self)
{
	atomic_store(&threads.lock, 0);
	threads.head = NULL;
	atomic_store(&joinlock, 0);
	atomic_store(&nthreads, 1);
	endforkchild();
	ownstackforkchild();
	if (!self) {
		memset(&mainthread, 0, sizeof mainthread);
		return;
	}
	self->tid = selftid();
	self->gp = NULL;
	self->ismain = true;
	self->joining = NULL;
	self->pinned = 0; /* all that it makes has its state */
	self->bracket = 0;
	atomic_store(&self->native, 0);
	self->wired = 0;
}

/* --- the record's end ---------------------------------------------------------------- */

/* On g0 or by the joiner: nobody refers to the record any more. */
static void threadfree(Thread *th)
{
	atomic_fetch_or(&th->state, ThreadFreed);
	if (th->block && isblock(th->block))
		blockput(th->block);
}

/* Runs on g0, after the goroutine. */
static void threaddone(void *arg)
{
	Thread *th = arg;
	Birth *unborn = th->birth;
	th->gp = NULL;
	if (!th->userstack)
		stackfree(th->stack);
	else if (!th->ismain)
		ownstackleave(th);
	uint32_t old = atomic_fetch_or(&th->state, ThreadExited);
	if ((old & ThreadStateMask) == ThreadDetached)
		threadfree(th);
	else
		semaready(&th->state, 1, NULL, NULL, NULL, 0);
	if (unlikely(unborn))
		birthdone(unborn);
}

noreturn_fn void threadgone(Thread *th)
{
	sigthreadexit(th);
	threadunlink(th);
	goexit(threaddone, th);
}

/* Its attributes could not be had: pthread_create fails, and it has never been. So its creator learns of that last of all
 * (threaddone): the stack is the program's again, and a signal of the process that it was to take is another's. */
static noreturn_fn void threadstillborn(Thread *th)
{
	atomic_store(&th->state, ThreadDetached);
	atomic_fetch_sub(&nthreads, 1);
	threadgone(th);
}

/* First function of a thread, on its stack and block. */
static void threadmain(void *arg)
{
	Thread *th = arg;
	__pthread_unwind_buf_t buf;
	blockstart();
	atomic_store((G * _Atomic *)&th->gp, getg());
	if (atomic_load(&th->named))
		gname(th->gp, th->name);
	if (unlikely(th->birth) && !bear(th->birth))
		threadstillborn(th);
	/* Where libc's unwinding of pthread_exit and cancellation ends: also of a handler's, which may run at once. */
	if (__sigsetjmp((struct __jmp_buf_tag *)(void *)buf.__cancel_jmp_buf, 0) == 0) {
		__pthread_register_cancel(&buf);
		sigthreadstart(th);
		th = blockextra(selfblock());
		threadend(th->start(th->arg));
	}
	th = blockextra(selfblock());
	threadend(th->result);
}

static void trim(void);

/* --- the beginning ------------------------------------------------------------------ */

/* What a pthread_attr_t asks for. */
typedef struct Wish {
	size_t stacksize, guardsize;
	void *stackaddr; /* lowest address, of the program's own stack; NULL: ours */
	int detachstate;
	bool hasmask;
	sigset_t mask;
	KernelWish kernel; /* what wires it to a kernel thread of its own */
} Wish;

/* The program has set default attributes: they may ask for more than sizes. */
static bool defaultchanged;

SHIM(int, pthread_setattr_default_np, const pthread_attr_t *attr)
{
	defaultchanged = true;
	return real.pthread_setattr_default_np(attr);
}

static int readattr(const pthread_attr_t *attr, Wish *w)
{
	pthread_attr_t def;
	int r = 0;
	memset(w, 0, sizeof *w);
	if (!attr) {
		r = real.pthread_getattr_default_np(&def);
		if (r)
			return r;
	}
	const pthread_attr_t *a = attr ? attr : &def;
	void *low = NULL;
	size_t size;
	pthread_attr_getstacksize(a, &w->stacksize);
	pthread_attr_getguardsize(a, &w->guardsize);
	pthread_attr_getdetachstate(a, &w->detachstate);
	pthread_attr_getstack(a, &low, &size);
	if ((uintptr_t)low + size) /* else none was set */
		w->stackaddr = (char *)low + size - w->stacksize;
	if (attr || defaultchanged) {
		w->hasmask = pthread_attr_getsigmask_np(a, &w->mask) == 0;
		kernelwish(&w->kernel, a);
	}
	if (!attr)
		pthread_attr_destroy(&def);
	return r;
}

static int newstack(size_t size, size_t guard, Stack *st)
{
	Section s = sectionenter();
	int r = stackalloc(size, guard, st);
	sectionleave(s);
	return r;
}

static void oldstack(Stack st)
{
	Section s = sectionenter();
	stackfree(st);
	sectionleave(s);
}

static int create(pthread_t *out, const Wish *w, void *(*start)(void *), void *arg, void *pc)
{
	Stack s;
	size_t guard = 0;
	if (w->stackaddr) {
		s.lo = s.guard = (uintptr_t)w->stackaddr;
		s.hi = s.lo + w->stacksize;
		ownstackwait(s.lo, s.hi);
	} else {
		/* The guard is not part of the size, as in glibc since 2.27. */
		guard = pageup(w->guardsize);
		if (guard < w->guardsize || w->stacksize + guard < guard)
			return EINVAL;
		/* Natively the block takes more than that of it: a program may count on an overflow. */
		enum { COLOURS = 960 };
		size_t size = pageup(w->stacksize) - COLOURS;
		int r = newstack(size, guard, &s);
		if (r) {
			/* Those made before may only be waiting for this P to end. */
			gosched();
			r = newstack(size, guard, &s);
		}
		if (r)
			return EAGAIN;
	}
	uint32_t tid = tidalloc();
	void *block = blockget(tid, s.lo, s.hi, s.lo - s.guard);
	if (!block) {
		if (!w->stackaddr)
			oldstack(s);
		return EAGAIN;
	}
	Thread *th = blockextra(block);
	memset(th, 0, sizeof *th);
	th->block = block;
	th->tid = tid;
	th->start = start;
	th->arg = arg;
	th->result = PTHREAD_CANCELED; /* what it has when libc itself unwinds it */
	th->stack = s;
	th->userstack = w->stackaddr != NULL;
	th->stacksize = w->stacksize;
	th->guardsize = guard;
	th->ownsched = w->kernel.explicit;
	th->state = w->detachstate == PTHREAD_CREATE_DETACHED ? ThreadDetached : ThreadJoinable;
	Thread *self = curthread();
	th->creatorpc = pc;
	if (self) {
		th->creator = goid(self->gp);
		memcpy(th->name, self->name, sizeof th->name);
	}
	sigthreadinit(th, self);
	if (w->hasmask)
		memcpy(&th->mask, &w->mask, 8);
	atomic_fetch_add(&nthreads, 1);
	sigthreadcount(th);
	threadlink(th);
	if (w->stackaddr)
		ownstacktake(th);
	*out = (pthread_t)block;
	/* From here on it may run, and if detached be gone. */
	Birth birth = {.wish = &w->kernel, .pinned = self ? self->pinned & ~PinSelf : 0};
	bool wait = w->kernel.any || birth.pinned;
	int err = -EAGAIN;
	if (wait)
		th->birth = &birth;
	if (birth.pinned ? newprocwired(threadmain, th, block, th, s.lo, s.hi, &err)
			 : newproc(threadmain, th, block, th, s.lo, s.hi))
		return wait ? awaitbirth(&birth) : 0;
	threadunlink(th);
	sigthreadexit(th);
	atomic_fetch_sub(&nthreads, 1);
	if (w->stackaddr)
		ownstackleave(th);
	else
		oldstack(s);
	blockput(block);
	return err == -ENOMEM ? EAGAIN : -err;
}

SHIM(int, pthread_create, pthread_t *t, const pthread_attr_t *attr, void *(*start)(void *),
     void *arg)
{
	if (unlikely(!schedstarted()) && !startsched())
		return nativecreate(t, attr, start, arg);
	KEEP_ERRNO;
	Wish w;
	trim(); /* also for those that end detached */
	int r = readattr(attr, &w);
	if (r)
		return r == ENOMEM ? EAGAIN : r; /* as libc's own */
	return create(t, &w, start, arg, __builtin_return_address(0));
}

SHIM(int, thrd_create, thrd_t *t, thrd_start_t start, void *arg)
{
	/* An int comes back in the same register; thrd_join truncates. */
	switch (shim_pthread_create(t, NULL, (void *(*)(void *))(void (*)(void))start, arg)) {
	case 0: return thrd_success;
	case ENOMEM: return thrd_nomem;
	}
	return thrd_error; /* EAGAIN too, as libc has it */
}

/* --- join ------------------------------------------------------------------------------ */

/* Memory of finished threads goes back when there are many more than live ones. */
static void trim(void)
{
	static _Atomic uint32_t n;
	enum { EVERY = 256 };
	if (atomic_fetch_add_explicit(&n, 1, memory_order_relaxed) % EVERY)
		return;
	size_t inuse, pooled;
	blocktrim();
	Section s = sectionenter();
	stackstats(&inuse, &pooled);
	if (pooled > EVERY + inuse / 4)
		stacktrim(EVERY + inuse / 8);
	sectionleave(s);
}

static bool notexited(void *arg)
{
	return !(atomic_load(&((Thread *)arg)->state) & ThreadExited);
}

/* Was th cancelled? It leaves its wait then. */
static bool cancelcoming(Thread *th)
{
	return TLSFIELD(th->block, _Atomic int, tls.cancelhandling) &
	       (CancelCanceling | CancelCanceled | CancelExiting);
}

/* Notes that self waits for th. False: th waits for self, itself or by way of others, for good. */
static bool joinbegin(Thread *self, Thread *th)
{
	if (!self)
		return true;
	Section s = spinlock(&joinlock);
	Thread *t = th;
	while (t && t != self && !cancelcoming(t))
		t = t->joining;
	bool ok = t != self || cancelwanted();
	if (ok)
		self->joining = th;
	spinunlock(&joinlock, s);
	return ok;
}

static void joinend(Thread *self)
{
	if (!self)
		return;
	Section s = spinlock(&joinlock);
	self->joining = NULL;
	spinunlock(&joinlock, s);
}

typedef struct Join {
	Thread *self, *th;
	bool left; /* without th: others may join it */
} Join;

/* Also when the caller is cancelled, or a handler that runs in the wait ends it. */
static void joinover(Join *j)
{
	joinend(j->self);
	if (j->left)
		atomic_fetch_and(&j->th->state, ~(uint32_t)ThreadJoining);
}

/* Waits for the end of th, whose only joiner the caller is. */
static int joinwait(Thread *self, Thread *th, int64_t deadline, bool cancelpoint)
{
	__attribute__((cleanup(joinover))) Join j = {.self = self, .th = th, .left = true};
	if (!joinbegin(self, th))
		return EDEADLK;
	while (notexited(th)) {
		if (cancelpoint)
			testcancel();
		int r = semapark(&th->state, notexited, NULL, th, 0, WaitJoin, deadline, ParkIntr);
		if (r == -ETIMEDOUT && notexited(th))
			return ETIMEDOUT;
		if (r == -EINTR)
			sigdeliver(true);
	}
	j.left = false;
	return 0;
}

/* Waits for th until the deadline and frees it. */
static int joinuntil(Thread *th, void **result, int64_t deadline, bool cancelpoint)
{
	Thread *self = curthread();
	if (th == self)
		return EDEADLK;
	uint32_t s = atomic_load(&th->state);
	do {
		if (s & ThreadFreed)
			return ESRCH;
		if ((s & ThreadStateMask) != ThreadJoinable)
			return EINVAL;
	} while (!atomic_compare_exchange_weak(&th->state, &s, s | ThreadJoining));
	int err = s & ThreadExited ? 0 : joinwait(self, th, deadline, cancelpoint);
	if (err)
		return err;
	/* Its kernel thread has something to give up at its end. */
	while (th->ends && atomic_load(th->ends) == th->endtid)
		gosleep(nanotime() + 50000, 0);
	if (result)
		*result = th->result;
	threadfree(th);
	trim();
	return 0;
}

static bool badtime(const struct timespec *ts)
{
	return ts && (ts->tv_nsec < 0 || ts->tv_nsec >= 1000000000);
}

/* An absolute time of clock as a deadline; the distance is taken now. */
static int64_t deadlineof(clockid_t clock, const struct timespec *ts)
{
	struct timespec now;
	if (!ts)
		return FOREVER;
	clock_gettime(clock, &now);
	int64_t left;
	if (__builtin_sub_overflow(ts->tv_sec, now.tv_sec, &left) ||
	    __builtin_mul_overflow(left, 1000000000l, &left))
		return ts->tv_sec < 0 ? 0 : FOREVER;
	return nanotime() + left + (ts->tv_nsec - now.tv_nsec);
}

SHIM(int, pthread_join, pthread_t t, void **result)
{
	Thread *th = threadof(t);
	if (!th)
		return real.pthread_join(t, result);
	testcancel();
	return joinuntil(th, result, FOREVER, true);
}

SHIM(int, thrd_join, thrd_t t, int *result)
{
	void *r = NULL;
	int err = shim_pthread_join(t, &r);
	if (result)
		*result = (int)(intptr_t)r;
	return err ? thrd_error : thrd_success;
}

SHIM(int, pthread_tryjoin_np, pthread_t t, void **result)
{
	Thread *th = threadof(t);
	if (!th)
		return real.pthread_tryjoin_np(t, result);
	if (notexited(th)) /* the caller, too */
		return EBUSY;
	return joinuntil(th, result, FOREVER, false);
}

SHIM(int, pthread_clockjoin_np, pthread_t t, void **result, clockid_t clock,
     const struct timespec *abstime)
{
	Thread *th = threadof(t);
	if (!th)
		return real.pthread_clockjoin_np(t, result, clock, abstime);
	if (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC)
		return EINVAL;
	if (badtime(abstime))
		return EINVAL;
	testcancel();
	return joinuntil(th, result, deadlineof(clock, abstime), true);
}

SHIM(int, pthread_timedjoin_np, pthread_t t, void **result, const struct timespec *abstime)
{
	Thread *th = threadof(t);
	if (!th)
		return real.pthread_timedjoin_np(t, result, abstime);
	return shim_pthread_clockjoin_np(t, result, CLOCK_REALTIME, abstime);
}

SHIM(int, pthread_detach, pthread_t t)
{
	Thread *th = threadof(t);
	if (!th)
		return real.pthread_detach(t);
	uint32_t s = atomic_load(&th->state);
	do {
		if (s & ThreadFreed)
			return ESRCH;
		if ((s & ThreadStateMask) == ThreadDetached)
			return EINVAL;
		if ((s & ThreadStateMask) == ThreadJoining)
			return 0; /* undefined; the joiner frees it */
	} while (!atomic_compare_exchange_weak(&th->state, &s, s | ThreadDetached));
	if (s & ThreadExited)
		threadfree(th);
	return 0;
}

SHIM(int, thrd_detach, thrd_t t)
{
	return shim_pthread_detach(t) ? thrd_error : thrd_success;
}

/* --- names and numbers -------------------------------------------------------------------- */

SHIM(pid_t, gettid, void)
{
	return getg() ? (pid_t)selftid() : real.gettid();
}

void nameprocess(const char *name)
{
	/* Of the process's first kernel thread, on which main may not be now. */
	long fd = sys3(SYS_open, (long)"/proc/self/comm", O_WRONLY | O_CLOEXEC, 0);
	if (fd >= 0) {
		sys3(SYS_write, fd, (long)name, (long)strlen(name));
		sys1(SYS_close, fd);
	} else if (sys0(SYS_gettid) == sys0(SYS_getpid)) {
		sys2(SYS_prctl, PR_SET_NAME, (long)name);
	}
}

SHIM(int, pthread_setname_np, pthread_t t, const char *name)
{
	Thread *th = threadof(t);
	size_t n = strnlen(name, sizeof th->name);
	if (!th)
		return real.pthread_setname_np(t, name);
	if (n >= sizeof th->name)
		return ERANGE;
	memcpy(th->name, name, n + 1);
	/* Either its goroutine sees the mark or we see the goroutine. */
	atomic_store(&th->named, true);
	G *gp = atomic_load((G * _Atomic *)&th->gp);
	if (gp)
		gname(gp, name);
	if (th->ismain)
		nameprocess(name);
	return 0;
}

SHIM(int, pthread_getname_np, pthread_t t, char *buf, size_t n)
{
	Thread *th = threadof(t);
	if (!th)
		return real.pthread_getname_np(t, buf, n);
	if (n < sizeof th->name)
		return ERANGE;
	if (!th->name[0])
		sys2(SYS_prctl, PR_GET_NAME, (long)th->name);
	memcpy(buf, th->name, sizeof th->name);
	return 0;
}

/* --- for the scheduler --------------------------------------------------------------------- */

int64_t threadcreator(G *gp, uintptr_t *pc)
{
	Thread *th = ghost(gp);
	*pc = th ? (uintptr_t)th->creatorpc : 0;
	return th ? th->creator : 0;
}

uint32_t threadid(G *gp)
{
	Thread *th = ghost(gp);
	return th ? th->tid : 0;
}
