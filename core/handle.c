/*
 * handle.c - permanent records of addresses that are never freed: static locks, call sites.
 *
 * A hash trie that only grows. Each node is a record and has two children; which one a search
 * takes at each level is one bit of the address's hash. The hash maps different
 * addresses to different values, so two of them part after 64 levels at the latest, and
 * mostly after as many as there are bits in the number of records. Nothing is locked, moved or freed: a
 * search may run anywhere, also in a signal handler that interrupted an insertion,
 * and a record once found stays where it is. An insertion is one compare-and-swap of an
 * empty child; who loses it goes on from the winner's node, perhaps to find its own address there.
 */
#include "runtime.h"

Handle *_Atomic handles;
static _Atomic int64_t nhandles;

/* Invertible, hence without collisions: shifts and odd factors. */
uint64_t handlehash(const void *addr)
{
	uint64_t x = (uintptr_t)addr;

	x ^= x >> 32;
	x *= 0x9e3779b97f4a7c15u;
	x ^= x >> 29;
	x *= 0xd6e8feb86659fd93u;
	return x ^ x >> 32;
}

/* The record of addr, or NULL and in *at the empty place where it belongs. */
static Handle *search(const void *addr, Handle *_Atomic **at)
{
	uint64_t bits = handlehash(addr);
	Handle *_Atomic *p = &handles;
	Handle *h;

	/* Acquire: whoever sees a node sees its address. */
	while ((h = atomic_load_explicit(p, memory_order_acquire)) != NULL) {
		if (h->addr == addr)
			return h;
		p = &h->child[bits & 1];
		bits >>= 1;
	}
	*at = p;
	return NULL;
}

Handle *handlefind(const void *addr)
{
	Handle *_Atomic *at;

	return search(addr, &at);
}

Handle *handleof(const void *addr)
{
	Handle *_Atomic *at;
	Handle *h = search(addr, &at), *mine, *none;
	Section s;

	if (h != NULL)
		return h;
	s = sectionenter();
	mine = persistentalloc(sizeof *mine, 0);
	sectionleave(s);
	if (mine == NULL)
		return NULL;
	mine->addr = addr;
	do {
		none = NULL;
		/* Release: pairs with search. */
		if (atomic_compare_exchange_strong_explicit(at, &none, mine, memory_order_release,
							    memory_order_relaxed)) {
			atomic_fetch_add_explicit(&nhandles, 1, memory_order_relaxed);
			return mine;
		}
		/* A loser's memory stays unused: this happens once in an address's life. */
		h = search(addr, &at);
	} while (h == NULL);
	return h;
}

int64_t handlecount(void)
{
	return atomic_load_explicit(&nhandles, memory_order_relaxed);
}
