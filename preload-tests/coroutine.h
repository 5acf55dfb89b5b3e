/*
 * Coroutines by instructions of the program's own, which no library knows of, and threads that compute until they are
 * told to stop.
 */
#ifndef COROUTINE_H
#define COROUTINE_H

#include "test.h"

enum { STACK = 64 << 10 };

static int stop, begun;

static inline void until_stopped(void)
{
	__atomic_add_fetch(&begun, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		;
}

static inline void begin(void)
{
	__atomic_store_n(&stop, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&begun, 0, __ATOMIC_RELEASE);
}

static inline void end(void)
{
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
}

static inline uint64_t mix(uint64_t h, uint64_t i)
{
	return (h ^ i) * 0x9e3779b97f4a7c15u ^ h >> 29;
}

/* --- coroutines by instructions of the program's own ------------------------------------------------------ */

/* Leaves the stack for `to`, whose top six registers and an address were pushed so. */
__asm__(
    ".text\n"
    ".type change_stack, @function\n"
    "change_stack:\n"
    "	push %rbp\n	push %rbx\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n"
    "	mov %rsp, (%rdi)\n"
    "	mov %rsi, %rsp\n"
    "	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbx\n	pop %rbp\n"
    "	ret\n"
    ".size change_stack, . - change_stack\n"
    ".type first_frame, @function\n"
    "first_frame:\n"
    "	mov %r12, %rdi\n"
    "	call *%r13\n"
    "	ud2\n"
    ".size first_frame, . - first_frame\n");
void change_stack(void **from, void *to);
void first_frame(void);

struct coroutine {
	void *sp, *caller; /* of the coroutine while it waits; of who called it while it runs */
	char *stack;
	uint64_t sum, steps;
	int ended;
	struct coroutine *next;
};

static inline void prepare(struct coroutine *c, void (*fn)(struct coroutine *), char *stack,
			   size_t size)
{
	void **sp = (void **)((uintptr_t)(stack + size) & ~(uintptr_t)15);

	memset(c, 0, sizeof *c);
	c->stack = stack;
	*--sp = (void *)first_frame;
	*--sp = NULL;       /* rbp */
	*--sp = NULL;       /* rbx */
	*--sp = c;          /* r12 */
	*--sp = (void *)fn; /* r13 */
	*--sp = NULL;
	*--sp = NULL;
	c->sp = sp;
}

static inline void go_on(struct coroutine *c)
{
	change_stack(&c->caller, c->sp);
}

static inline void pause_here(struct coroutine *c)
{
	change_stack(&c->sp, c->caller);
}

static inline void finish(struct coroutine *c)
{
	c->ended = 1;
	pause_here(c);
}

static inline void among_spinners(void *(*fn)(void *), size_t stack)
{
	enum { THREADS = 8 };
	pthread_t t[THREADS];
	pthread_attr_t a;

	begin();
	pthread_attr_init(&a);
	REQUIRE_OK(pthread_attr_setstacksize(&a, stack));
	for (int i = 0; i < THREADS; i++)
		REQUIRE_OK(pthread_create(&t[i], &a, fn, (void *)(intptr_t)i));
	for (int i = 0; i < 20; i++)
		sleep_ms(5);
	end();
	for (int i = 0; i < THREADS; i++)
		join(t[i]);
	pthread_attr_destroy(&a);
}

#endif
