/*
 * c11.c - mutexes and conditions of <threads.h>: the pthread objects under other
 * names, with other results. call_once is in once.c, threads and keys are with
 * their pthread counterparts.
 */
#include "sync.h"

_Static_assert(sizeof(mtx_t) == sizeof(pthread_mutex_t), "mtx_t is a pthread_mutex_t");
_Static_assert(sizeof(cnd_t) == sizeof(pthread_cond_t), "cnd_t is a pthread_cond_t");

static int thrdresult(int err)
{
	switch (err) {
	case 0: return thrd_success;
	case ENOMEM: return thrd_nomem;
	case ETIMEDOUT: return thrd_timedout;
	case EBUSY: return thrd_busy;
	default: return thrd_error;
	}
}

SHIM(int, mtx_init, mtx_t *m, int type)
{
	int r = real.mtx_init(m, type);
	if (r == thrd_success)
		mutexmade((Mutex *)m, CALLER());
	return r;
}

SHIM(int, mtx_lock, mtx_t *m)
{
	return thrdresult(shim_pthread_mutex_lock((pthread_mutex_t *)m));
}

SHIM(int, mtx_timedlock, mtx_t *restrict m, const struct timespec *restrict abs)
{
	return thrdresult(shim_pthread_mutex_timedlock((pthread_mutex_t *)m, abs));
}

SHIM(int, mtx_trylock, mtx_t *m)
{
	return thrdresult(shim_pthread_mutex_trylock((pthread_mutex_t *)m));
}

SHIM(int, mtx_unlock, mtx_t *m)
{
	return thrdresult(shim_pthread_mutex_unlock((pthread_mutex_t *)m));
}

SHIM(int, cnd_init, cnd_t *c)
{
	int r = real.cnd_init(c);
	if (r == thrd_success)
		condmade((pthread_cond_t *)c, CALLER());
	return r;
}

SHIM(int, cnd_wait, cnd_t *c, mtx_t *m)
{
	return thrdresult(shim_pthread_cond_wait((pthread_cond_t *)c, (pthread_mutex_t *)m));
}

SHIM(int, cnd_timedwait, cnd_t *restrict c, mtx_t *restrict m, const struct timespec *restrict abs)
{
	return thrdresult(
	    shim_pthread_cond_timedwait((pthread_cond_t *)c, (pthread_mutex_t *)m, abs));
}

SHIM(int, cnd_signal, cnd_t *c)
{
	return thrdresult(shim_pthread_cond_signal((pthread_cond_t *)c));
}

SHIM(int, cnd_broadcast, cnd_t *c)
{
	return thrdresult(shim_pthread_cond_broadcast((pthread_cond_t *)c));
}

SHIM(void, cnd_destroy, cnd_t *c)
{
	shim_pthread_cond_destroy((pthread_cond_t *)c);
}
