/*
 * end.c - how a thread ends, and the process with its last one.
 *
 * libc does not export what its threads do at their end; this is in its order: destructors of thread_local
 * variables, then those of keys, then what libc's functions have left for the thread. main that has called
 * pthread_exit is an exception of libc's: of thread_local variables the destructors are run by exit() alone.
 *
 * The last thread calls exit(). libc counts threads for that, its own ones (of timers, asynchronous I/O) among
 * them, and one that has ended by the system call for ever: then the kernel ends the process, without handlers.
 */
#include "block.h"
#include "cancel.h"
#include "sched.h"
#include "signal.h"
#include "pin.h"
#include "thread.h"

#include <dlfcn.h>
#include <linux/futex.h>
#include <resolv.h>
#include <stdatomic.h>

/* --- destructors ------------------------------------------------------------------- */

static void calltlsdtors(void)
{
	static void (*call)(void);
	if (!call)
		call = libcsym("__call_tls_dtors", "GLIBC_PRIVATE");
	if (call)
		call();
}

/* Natively freed with the thread; here the block's next one would find it. */
static void clearlibcs(void)
{
	void *block = selfblock();
	if (!isblock(block))
		return;
	while (dlerror()) /* the first call tells of an error, the next one frees it */
		;
	res_state res = &TLSFIELD(block, struct __res_state, tls.res);
	if (res->nscount) {
		res_nclose(res);
		res->options = 0;
	}
}

/* --- the last thread ------------------------------------------------------------------ */

/* Some thread has ended by the system call; the last one waits for libc's. */
static _Atomic bool vanished, waiting;

void endforkchild(void)
{
	unsigned *n = libcsym("__nptl_nthreads", "GLIBC_PRIVATE");
	if (n)
		*n = 1;
	atomic_store(&vanished, false);
	atomic_store(&waiting, false);
}

/* A thread of the process that is neither a goroutine nor the runtime's, and libc has made: its id, and where the
 * kernel clears that. 0: there is none. */
static int libcsthread(_Atomic int **at)
{
	int tid = 0;
	ListLink *lists[] = {tls.stackuser, tls.stackused};
	stackslock();
	for (size_t i = 0; i < nelem(lists); i++) {
		for (ListLink *l = lists[i]->next; l != lists[i] && tid <= 0; l = l->next) {
			char *block = (char *)l - tls.list;
			if (isblock(block) || block == mainthread.block ||
			    runtimesthread(TLSFIELD(block, void *, tls.start)))
				continue;
			*at = &TLSFIELD(block, _Atomic int, tls.tid);
			tid = atomic_load(*at);
		}
	}
	stacksunlock();
	return tid > 0 ? tid : 0;
}

/* Waits for libc's threads to end, while there are no others. True: there is none left. */
static bool lastofall(void)
{
	_Atomic int *at;
	int tid;
	do {
		if (atomic_exchange(&waiting, true))
			return false;
		while (atomic_load(&nthreads) == 0) {
			struct timespec second = {1, 0};
			tid = libcsthread(&at);
			if (tid == 0)
				return true;
			syswait(EndsOnSignal, SYS_futex, at, FUTEX_WAIT, tid, &second);
		}
		atomic_store(&waiting, false);
	} while (atomic_load(&nthreads) == 0);
	return false; /* one of them has made a thread, whose end is the last now */
}

/* One thread less; does not return if that was the last. */
static void subtract(int code)
{
	if (atomic_fetch_sub(&nthreads, 1) != 1 || !lastofall())
		return;
	while (atomic_load(&vanished))
		sys1(SYS_exit_group, code);
	exit(0);
}

/* Of the only thread of ours, in a process without scheduler: as libc does it. */
static noreturn_fn void nativeend(void)
{
	_Atomic unsigned *n = libcsym("__nptl_nthreads", "GLIBC_PRIVATE");
	while (n && atomic_fetch_sub(n, 1) != 1)
		for (;;)
			sys1(SYS_exit, 0);
	exit(0);
}

/* --- the end ---------------------------------------------------------------------- */

/* What was sent to it before is handled by it, natively at once; from here on nothing comes. */
static void closesignals(Thread *th)
{
	while (!sigclose(th))
		sigdeliver(true);
}

static noreturn_fn void ends(bool ofmain)
{
	Thread *th = curthread();
	if (sigpendingopen())
		sigdeliver(true);
	if (!ofmain)
		calltlsdtors();
	tsdexit();
	if (!th)
		nativeend();
	clearlibcs();
	if (th->wired)
		robustexit();
	subtract(0); /* handlers of atexit run with signals open */
	closesignals(th);
	threadgone(th);
}

noreturn_fn void threadend(void *result)
{
	Thread *th = curthread();
	if (th)
		th->result = result;
	ends(false);
}

noreturn_fn void mainend(void)
{
	ends(true);
}

noreturn_fn void threadvanish(int code)
{
	Thread *th = curthread();
	th->result = NULL;
	if (sigpendingopen())
		sigdeliver(true);
	if (th->wired)
		robustexit();
	atomic_store(&vanished, true);
	subtract(code);
	closesignals(th);
	threadgone(th);
}

SHIM(void, pthread_exit, void *result)
{
	Thread *th = threadof((pthread_t)selfblock());
	if (th)
		th->result = result;
	real.pthread_exit(result); /* unwinds to threadmain or to main's wrapper */
}

SHIM(void, thrd_exit, int result)
{
	shim_pthread_exit((void *)(intptr_t)result);
}
