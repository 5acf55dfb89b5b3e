/*
 * spin.c - spin locks.
 *
 * The word is libc's (1 free, below locked), so that a lock in shared memory works with
 * native processes too. The owner of a lock that is held for long has probably
 * lost its processor: after a few tries the caller yields, rather than burn the
 * P that the owner may be waiting for. With one P there is nobody to spin for.
 */
#include "sync.h"

#include "signal.h"

enum { Free = 1, Locked = 0 };

/* Looks at the word before the P is given away; about as long as a yield takes. */
enum { Spins = 64 };

typedef _Atomic int32_t Spin;
_Static_assert(sizeof(Spin) == sizeof(pthread_spinlock_t), "Spin lies over pthread_spinlock_t");

static inline Spin *spin(pthread_spinlock_t *l)
{
	return (Spin *)(uintptr_t)l;
}

static inline bool spin_try(Spin *s)
{
	int32_t v = Free;
	return atomic_compare_exchange_strong_explicit(s, &v, Locked, memory_order_acquire,
						       memory_order_relaxed);
}

static noinline_fn int spin_slow(Spin *s)
{
	for (;;) {
		for (int i = 0; i < Spins; i++) {
			if (atomic_load_explicit(s, memory_order_relaxed) > 0 && spin_try(s))
				return 0;
			__builtin_ia32_pause();
		}
		if (getg()) {
			gosched();
			if (unlikely(ginterrupted()))
				(void)sigdeliver(true);
		} else {
			KEEP_ERRNO;
			real.syscall(SYS_sched_yield);
		}
	}
}

SHIM(int, pthread_spin_lock, pthread_spinlock_t *l)
{
	Spin *s = spin(l);
	return likely(spin_try(s)) ? 0 : spin_slow(s);
}

SHIM(int, pthread_spin_trylock, pthread_spinlock_t *l)
{
	if (spin_try(spin(l)))
		return 0;
	goyieldasked();
	return EBUSY;
}

SHIM(int, pthread_spin_unlock, pthread_spinlock_t *l)
{
	atomic_store_explicit(spin(l), Free, memory_order_release);
	return 0;
}
