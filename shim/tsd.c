/*
 * tsd.c - thread-specific data.
 *
 * pthread_getspecific and pthread_setspecific are libc's: they work on the
 * block that FS points to, which is the goroutine's. Only what happens at a
 * goroutine's end is ours, since libc's code for it is not exported: so
 * key_create notes the destructors.
 */
#include "thread.h"

#include <limits.h>
#include <stdatomic.h>

enum { KEYS = PTHREAD_KEYS_MAX, KEYS2ND = 32 };

static struct {
	_Atomic(void (*)(void *)) dtor;
	_Atomic bool used;
} keys[KEYS];
static _Atomic uint32_t maxkey;

SHIM(int, pthread_key_create, pthread_key_t *key, void (*dtor)(void *))
{
	int r = real.pthread_key_create(key, dtor);
	if (r == 0 && *key < KEYS) {
		atomic_store(&keys[*key].dtor, dtor);
		atomic_store(&keys[*key].used, true);
		uint32_t max = atomic_load(&maxkey);
		while (*key >= max && !atomic_compare_exchange_weak(&maxkey, &max, *key + 1))
			;
	}
	return r;
}

SHIM(int, pthread_key_delete, pthread_key_t key)
{
	if (key < KEYS) {
		atomic_store(&keys[key].used, false);
		atomic_store(&keys[key].dtor, NULL);
	}
	return real.pthread_key_delete(key);
}

SHIM(int, tss_create, tss_t *key, tss_dtor_t dtor)
{
	return shim_pthread_key_create(key, dtor) ? thrd_error : thrd_success;
}

SHIM(void, tss_delete, tss_t key)
{
	shim_pthread_key_delete(key);
}

/* One round over all keys. True when a destructor ran. */
static bool destructors(void)
{
	uint32_t max = atomic_load(&maxkey);
	bool ran = false;
	for (uint32_t k = 0; k < max; k++) {
		if (!atomic_load_explicit(&keys[k].used, memory_order_relaxed))
			continue;
		void *v = real.pthread_getspecific(k);
		if (!v)
			continue;
		real.pthread_setspecific(k, NULL);
		void (*dtor)(void *) = atomic_load(&keys[k].dtor);
		if (dtor) {
			dtor(v);
			ran = true;
		}
	}
	return ran;
}

/* The tables of keys 32 and up, and what is left in the first, as a new thread's. */
static void resettables(void *block)
{
	void **tables = &TLSFIELD(block, void *, tls.specific);
	for (int i = 1; i < KEYS / KEYS2ND; i++) {
		free(tables[i]);
		tables[i] = NULL;
	}
	memset((char *)block + tls.specific1st, 0, KEYS2ND * 16);
	TLSFIELD(block, uint8_t, tls.specificused) = 0;
}

void tsdexit(void)
{
	void *block = selfblock();
	if (isblock(block) && !TLSFIELD(block, uint8_t, tls.specificused))
		return; /* it never set a key */
	/* POSIX: so often, as destructors set values again. */
	for (int round = 0; round < PTHREAD_DESTRUCTOR_ITERATIONS && destructors(); round++)
		;
	if (isblock(block))
		resettables(block);
}
