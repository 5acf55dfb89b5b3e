/*
 * futex.c - syscall(), for programs that bring their own locks.
 *
 * libstdc++'s atomics, Rust, and language runtimes wait with syscall(SYS_futex).
 * Private futexes map to the scheduler's queues: the word is compared under
 * the lock of the queue, as the kernel does under its hash bucket's, and the
 * tag is the waiter's bitset. Futexes shared between processes, or of the kinds
 * that know owners (PI, requeue to PI), stay the kernel's. So do waits for several words
 * (futex_waitv): while there are some who wakes a word also tells the kernel. All other calls go to the
 * kernel unchanged; since any may wait, off the P.
 *
 * Code that makes the system call itself (libgomp's inline assembler) waits and wakes in the
 * kernel, and does not meet us; sysmon takes its P.
 */
#include "sync.h"

#include <limits.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <stdarg.h>

#include "block.h"
#include "deadline.h"
#include "pin.h"
#include "sched.h"
#include "signal.h"

#include <sched.h>

typedef struct FutexWait {
	_Atomic uint32_t *word;
	uint32_t expected;
} FutexWait;

/* Calls that wait in the kernel, perhaps for private words: counted before the kernel compares. */
static _Atomic uint32_t inkernel;

static bool sameword(void *arg)
{
	FutexWait *w = arg;
	return atomic_load_explicit(w->word, memory_order_seq_cst) == w->expected;
}

static int bitpick(void *arg, uint64_t tag)
{
	return (tag & *(uint32_t *)arg) != 0;
}

static long futexwait(_Atomic uint32_t *word, uint32_t expected, bool relative, clockid_t clock,
		      const struct timespec *timeout, uint32_t bits)
{
	FutexWait w = {word, expected};
	int64_t deadline;

	if (timeout && !readable(timeout, sizeof *timeout))
		return -EFAULT;
	if (bits == 0 || (timeout && (!validtimespec(timeout) || timeout->tv_sec < 0)))
		return -EINVAL;
	if (timeout && relative) {
		if (__builtin_add_overflow(nanotime(), timespecns(timeout), &deadline))
			deadline = FOREVER;
	} else {
		deadline = deadlineat(clock, timeout);
	}
	for (;;) {
		int r = semapark(word, sameword, NULL, &w, bits, WaitFutex, deadline, ParkIntr);
		if (r == -ETIMEDOUT && !deadlinepassed(clock, timeout))
			deadline = deadlineat(clock, timeout);
		else if (r != -EINTR)
			return r;
		else if (!sigdeliver(!timeout))
			return -EINTR;
	}
}

static long futexwake(_Atomic uint32_t *word, int n, uint32_t bits)
{
	if (bits == 0)
		return -EINVAL;
	if (n < 1)
		n = 1;
	long woken = semaready(word, n, bitpick, NULL, &bits, ParkHandoff);
	if (unlikely(atomic_load(&inkernel)) && woken < n) {
		long r =
		    sys6(SYS_futex, (long)word, FUTEX_WAKE_BITSET_PRIVATE, n - woken, 0, 0, bits);
		woken += r > 0 ? r : 0;
	}
	return woken;
}

/* The 12-bit arguments of FUTEX_WAKE_OP are signed. */
static int32_t wakeoparg(uint32_t v)
{
	return (int32_t)(v << 20) >> 20;
}

/* Does the operation coded in `code` on *word; true when its comparison holds. -ENOSYS: unknown. */
static int wakeop(_Atomic uint32_t *word, uint32_t code)
{
	uint32_t op = code >> 28 & 7, cmp = code >> 24 & 15;
	int32_t oparg = wakeoparg(code >> 12), cmparg = wakeoparg(code);
	uint32_t old = atomic_load(word), new;
	if (code >> 28 & FUTEX_OP_OPARG_SHIFT)
		oparg = 1 << (oparg & 31);
	do {
		switch (op) {
		case FUTEX_OP_SET: new = (uint32_t)oparg; break;
		case FUTEX_OP_ADD: new = old + (uint32_t)oparg; break;
		case FUTEX_OP_OR: new = old | (uint32_t)oparg; break;
		case FUTEX_OP_ANDN: new = old & ~(uint32_t)oparg; break;
		case FUTEX_OP_XOR: new = old ^ (uint32_t)oparg; break;
		default: return -ENOSYS;
		}
	} while (!atomic_compare_exchange_weak(word, &old, new));
	int32_t v = (int32_t)old;
	switch (cmp) {
	case FUTEX_OP_CMP_EQ: return v == cmparg;
	case FUTEX_OP_CMP_NE: return v != cmparg;
	case FUTEX_OP_CMP_LT: return v < cmparg;
	case FUTEX_OP_CMP_GE: return v >= cmparg;
	case FUTEX_OP_CMP_LE: return v <= cmparg;
	case FUTEX_OP_CMP_GT: return v > cmparg;
	default: return -ENOSYS;
	}
}

static long futexwakeop(_Atomic uint32_t *word, int n, _Atomic uint32_t *word2, int n2,
			uint32_t code)
{
	uint32_t all = FUTEX_BITSET_MATCH_ANY;
	int holds = wakeop(word2, code);
	if (holds < 0)
		return holds;
	long woken = futexwake(word, n, all);
	if (holds)
		woken += futexwake(word2, n2, all);
	return woken;
}

static long futexrequeue(_Atomic uint32_t *word, int nwake, int nmove, _Atomic uint32_t *word2,
			 bool compare, uint32_t expected)
{
	FutexWait w = {word, expected};
	int moved = 0;
	if (nwake < 0 || nmove < 0)
		return -EINVAL;
	int woken = semarequeue(word, word2, nwake, nmove, compare ? sameword : NULL, &w, &moved);
	if (woken < 0)
		return woken;
	long done = woken + moved;
	if (unlikely(atomic_load(&inkernel)) && done < (long)nwake + nmove) {
		long r = sys6(SYS_futex, (long)word, FUTEX_REQUEUE_PRIVATE, nwake - woken,
			      nmove - moved, (long)word2, 0);
		done += r > 0 ? r : 0;
	}
	return done;
}

/* What the kernel takes; all else it answers itself. */
static bool isword(const void *word)
{
	return word && (uintptr_t)word % 4 == 0;
}

/* True when the futex call is one of ours; *r is then its result or -errno. */
static bool futex(const long *a, long *r)
{
	_Atomic uint32_t *word = (_Atomic uint32_t *)a[0], *word2 = (_Atomic uint32_t *)a[4];
	int op = (int)a[1];
	uint32_t val = (uint32_t)a[2], val3 = (uint32_t)a[5];
	const struct timespec *timeout = (const struct timespec *)a[3];
	clockid_t clock = op & FUTEX_CLOCK_REALTIME ? CLOCK_REALTIME : CLOCK_MONOTONIC;
	int cmd = op & FUTEX_CMD_MASK;

	if (!(op & FUTEX_PRIVATE_FLAG) || !isword(word) ||
	    (clock == CLOCK_REALTIME && cmd != FUTEX_WAIT_BITSET))
		return false;
	if ((cmd == FUTEX_WAKE_OP || cmd == FUTEX_REQUEUE || cmd == FUTEX_CMP_REQUEUE) &&
	    !isword(word2))
		return false;
	switch (cmd) {
	case FUTEX_WAIT:
		*r = futexwait(word, val, true, clock, timeout, FUTEX_BITSET_MATCH_ANY);
		break;
	case FUTEX_WAIT_BITSET: *r = futexwait(word, val, false, clock, timeout, val3); break;
	case FUTEX_WAKE: *r = futexwake(word, (int)val, FUTEX_BITSET_MATCH_ANY); break;
	case FUTEX_WAKE_BITSET: *r = futexwake(word, (int)val, val3); break;
	case FUTEX_WAKE_OP: *r = futexwakeop(word, (int)val, word2, (int)a[3], val3); break;
	case FUTEX_REQUEUE: *r = futexrequeue(word, (int)val, (int)a[3], word2, false, 0); break;
	case FUTEX_CMP_REQUEUE:
		*r = futexrequeue(word, (int)val, (int)a[3], word2, true, val3);
		break;
	default: return false;
	}
	return true;
}

/* --- the calls of Linux 6.7: a call for each operation -------------------------------------- */

enum { NrWaitv = 449, NrWake = 454, NrWait = 455, NrRequeue = 456 };
enum { SizeU32 = 2, Private = FUTEX_PRIVATE_FLAG };

static bool ours(long word, long flags)
{
	return flags == (SizeU32 | Private) && isword((const void *)word);
}

static bool bitset(long mask)
{
	return mask > 0 && mask <= UINT32_MAX;
}

/* As futex(). */
static bool futex2(long nr, const long *a, long *r)
{
	_Atomic uint32_t *word = (_Atomic uint32_t *)a[0];

	switch (nr) {
	case NrWake:
		if (!ours(a[0], a[3]) || !bitset(a[1]))
			return false;
		*r = (int)a[2] > 0 ? futexwake(word, (int)a[2], (uint32_t)a[1]) : 0;
		return true;
	case NrWait:
		if (!ours(a[0], a[3]) || !bitset(a[2]) || a[1] < 0 || a[1] > UINT32_MAX ||
		    (a[4] && a[5] != CLOCK_MONOTONIC && a[5] != CLOCK_REALTIME))
			return false;
		*r = futexwait(word, (uint32_t)a[1], false, (clockid_t)a[5],
			       (const struct timespec *)a[4], (uint32_t)a[2]);
		return true;
	}
	const struct futex_waitv *v = (const struct futex_waitv *)a[0];

	if (!v || a[1] != 0 || v[0].__reserved || v[1].__reserved || v[0].val > UINT32_MAX ||
	    !ours((long)v[0].uaddr, v[0].flags) || !ours((long)v[1].uaddr, v[1].flags))
		return false;
	*r = futexrequeue((_Atomic uint32_t *)v[0].uaddr, (int)a[2], (int)a[3],
			  (_Atomic uint32_t *)v[1].uaddr, true, (uint32_t)v[0].val);
	return true;
}

static long futexwaitv(const long *a)
{
	atomic_fetch_add(&inkernel, 1);
	long r = rawwait(NrWaitv, a);
	atomic_fetch_sub(&inkernel, 1);
	return r;
}

/* --- syscall() ------------------------------------------------------------------------------- */

/* Makes the call a process with memory of its own, on a copy of the caller's stack? */
static bool forks(long nr, const long *a)
{
	const struct clone_args *args = (const struct clone_args *)a[0];
	switch (nr) {
	case SYS_fork: return true;
	case SYS_clone: return !(a[0] & (CLONE_VM | CLONE_SETTLS)) && !a[1];
	case SYS_clone3:
		return args && a[1] >= CLONE_ARGS_SIZE_VER0 &&
		       !(args->flags & (CLONE_VM | CLONE_SETTLS)) && !args->stack;
	}
	return false;
}

SHIM(long, syscall, long nr, ...)
{
	long a[6], r;
	va_list ap;
	va_start(ap, nr);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);

	switch (nr) {
	case SYS_futex:
		if (futex(a, &r))
			return errnoret(r);
		break;
	case NrWake:
	case NrWait:
	case NrRequeue:
		if (futex2(nr, a, &r))
			return errnoret(r);
		break;
	case NrWaitv: return futexwaitv(a);
	/* Two processes return from these, or one that shares our stack. */
	case SYS_clone:
	case SYS_clone3:
	case SYS_fork:
		if (forks(nr, a))
			return rawfork(nr, a);
		sharesmemory();
		__attribute__((fallthrough));
	case SYS_vfork:
	case SYS_rt_sigreturn:
	case SYS_exit_group: return real.syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	}
	if (rawcall(nr, a, &r))
		return r;
	return rawwait(nr, a);
}
