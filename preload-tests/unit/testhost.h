/*
 * testhost.h - what unit tests share.
 */
#ifndef TESTHOST_H
#define TESTHOST_H

#include <criterion/criterion.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* A test that passes when it dies of throw(). */
#define TestThrows(suite, name, ...) Test(suite, name, .signal = SIGABRT, ##__VA_ARGS__)

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED true
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED true
#endif
#ifndef SANITIZED
#define SANITIZED false /* AddressSanitizer has terabytes of address space of its own */
#endif

/* Small, fast and the same in each run. */
typedef struct Rand {
	uint64_t s;
} Rand;

static inline uint64_t rnd(Rand *r)
{
	r->s ^= r->s << 13;
	r->s ^= r->s >> 7;
	r->s ^= r->s << 17;
	return r->s * 0x2545f4914f6cdd1dULL;
}

/* The signal (SIGSEGV, SIGBUS) that a write to p raises, or 0; *at gets si_addr. */
int faults(void *p, void **at);

/* Resident bytes of this process. */
size_t rss(void);

#endif
