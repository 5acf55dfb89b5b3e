/*
 * futex.c - syscall(), for programs that bring their own locks.
 *
 * libstdc++'s atomics, Rust, and language runtimes wait with syscall(SYS_futex).
 * Private futexes map to the scheduler's queues: the word is compared under
 * the lock of the queue, as the kernel does under its hash bucket's, and the
 * tag is the waiter's bitset. Futexes shared between processes, or of the kinds
 * that know owners (PI, requeue to PI), stay the kernel's. All other calls go to the
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

#include "deadline.h"
#include "pin.h"
#include "sched.h"
#include "signal.h"

#include <sched.h>

typedef struct FutexWait {
	_Atomic uint32_t *word;
	uint32_t expected;
} FutexWait;

static bool sameword(void *arg)
{
	FutexWait *w = arg;
	return atomic_load_explicit(w->word, memory_order_seq_cst) == w->expected;
}

static int bitpick(void *arg, uint64_t tag)
{
	return (tag & *(uint32_t *)arg) != 0;
}

static long futexwait(_Atomic uint32_t *word, uint32_t expected, int op,
		      const struct timespec *timeout, uint32_t bits)
{
	FutexWait w = {word, expected};
	bool relative = (op & FUTEX_CMD_MASK) == FUTEX_WAIT;
	clockid_t clock = op & FUTEX_CLOCK_REALTIME && !relative ? CLOCK_REALTIME : CLOCK_MONOTONIC;
	int64_t deadline;

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
	return semaready(word, n > 0 ? n : 1, bitpick, NULL, &bits, ParkHandoff);
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
	return compare ? woken + moved : woken;
}

/* True when the futex call is one of ours; *r is then its result or -errno. */
static bool futex(const long *a, long *r)
{
	_Atomic uint32_t *word = (_Atomic uint32_t *)a[0], *word2 = (_Atomic uint32_t *)a[4];
	int op = (int)a[1];
	uint32_t val = (uint32_t)a[2], val3 = (uint32_t)a[5];
	const struct timespec *timeout = (const struct timespec *)a[3];

	if (!(op & FUTEX_PRIVATE_FLAG) || !word || (uintptr_t)word % 4)
		return false;
	switch (op & FUTEX_CMD_MASK) {
	case FUTEX_WAIT: *r = futexwait(word, val, op, timeout, FUTEX_BITSET_MATCH_ANY); break;
	case FUTEX_WAIT_BITSET: *r = futexwait(word, val, op, timeout, val3); break;
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
