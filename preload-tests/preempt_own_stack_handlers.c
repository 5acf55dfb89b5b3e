/*
 * Signals that find a thread computing on a stack that it has switched to by itself: handlers run where they do natively,
 * on that stack or on the alternate one, are preempted there, and may jump or swap off.
 */
#include "coroutine.h"

#include <setjmp.h>
#include <ucontext.h>

static __thread char *coroutine_stack, *alternate;
static __thread volatile int handled_here;
static __thread sigjmp_buf off;
static __thread volatile int jumping;

static int within(const void *p, const char *stack)
{
	return (const char *)p >= stack && (const char *)p < stack + STACK;
}

static void note_where(int sig, siginfo_t *info, void *ctx)
{
	char here;
	ucontext_t *uc = ctx;

	(void)info;
	if (sig == SIGUSR2)
		CHECK(within(&here, alternate));
	else if (within((void *)uc->uc_mcontext.gregs[REG_RSP], coroutine_stack))
		CHECK(within(&here, coroutine_stack));
	/* Long enough to be preempted in. */
	for (volatile int i = 0; i < 20000; i++)
		;
	handled_here = handled_here + 1;
	if (jumping)
		siglongjmp(off, 1);
}

static void with_handlers(void (*fn)(void))
{
	struct sigaction sa = {.sa_sigaction = note_where, .sa_flags = SA_SIGINFO}, old[2];

	REQUIRE(sigaction(SIGUSR1, &sa, &old[0]) == 0);
	sa.sa_flags |= SA_ONSTACK;
	REQUIRE(sigaction(SIGUSR2, &sa, &old[1]) == 0);
	fn();
	sigaction(SIGUSR1, &old[0], NULL);
	sigaction(SIGUSR2, &old[1], NULL);
}

enum { SIGNALS = 15, TARGETS = 4 };

/* Computes until it was handled here so often; sum: that nothing got lost. */
static void count_signals(struct coroutine *c)
{
	uint64_t h = 1;

	for (uint64_t i = 0; handled_here < SIGNALS; i++) {
		h = mix(h, i);
		c->sum = i;
	}
	c->steps = h;
	finish(c);
}

static void jump_off(struct coroutine *c)
{
	jumping = 1;
	for (;;)
		c->sum++;
}

struct target {
	pthread_t thread;
	int begun, done, jumps;
};

static void *be_signalled(void *arg)
{
	struct target *t = arg;
	struct coroutine c;
	stack_t ss = {.ss_sp = malloc(STACK), .ss_size = STACK}, none = {.ss_flags = SS_DISABLE};

	coroutine_stack = malloc(STACK);
	alternate = ss.ss_sp;
	REQUIRE(sigaltstack(&ss, NULL) == 0);
	__atomic_store_n(&t->begun, 1, __ATOMIC_RELEASE);
	if (t->jumps) {
		for (volatile int i = 0; i < SIGNALS; i++) {
			if (sigsetjmp(off, 1) == 0) {
				prepare(&c, jump_off, coroutine_stack, STACK);
				go_on(&c);
				FAIL("a coroutine that does not end has");
			}
			jumping = 0;
		}
		CHECK(handled_here >= SIGNALS);
	} else {
		prepare(&c, count_signals, coroutine_stack, STACK);
		go_on(&c);
		uint64_t h = 1;
		for (uint64_t i = 0; i <= c.sum; i++)
			h = mix(h, i);
		CHECK(h == c.steps);
	}
	__atomic_store_n(&t->done, 1, __ATOMIC_RELEASE);
	while (__atomic_load_n(&t->done, __ATOMIC_ACQUIRE) != 2)
		sched_yield();
	REQUIRE(sigaltstack(&none, NULL) == 0);
	free(ss.ss_sp);
	free(coroutine_stack);
	return NULL;
}

static void signal_them(int jumps)
{
	struct target t[TARGETS];
	int done;

	memset(t, 0, sizeof t);
	for (int i = 0; i < TARGETS; i++) {
		t[i].jumps = jumps;
		t[i].thread = spawn(be_signalled, &t[i]);
	}
	do {
		done = 0;
		for (int i = 0; i < TARGETS; i++) {
			if (__atomic_load_n(&t[i].done, __ATOMIC_ACQUIRE))
				done++;
			else if (__atomic_load_n(&t[i].begun, __ATOMIC_ACQUIRE))
				CHECK_EQ(pthread_kill(t[i].thread, i % 2 ? SIGUSR1 : SIGUSR2), 0);
		}
		sleep_ms(1);
	} while (done < TARGETS);
	for (int i = 0; i < TARGETS; i++) {
		__atomic_store_n(&t[i].done, 2, __ATOMIC_RELEASE);
		join(t[i].thread);
	}
}

static void signal_all(void)
{
	signal_them(0);
}

static void jump_all(void)
{
	signal_them(1);
}

static void handlers_on_that_stack(void)
{
	with_handlers(signal_all);
}

static void handlers_that_jump_off(void)
{
	with_handlers(jump_all);
}

/* Handlers that go off to another context, where their signal is blocked, and which later goes back into the one that was interrupted. */
static __thread ucontext_t interrupted_at, elsewhere;
static __thread volatile int swaps;

static void swap_off(int sig)
{
	(void)sig;
	swaps = swaps + 1;
	REQUIRE(swapcontext(&interrupted_at, &elsewhere) == 0);
}

static void *be_swapped(void *arg)
{
	struct target *t = arg;
	ucontext_t uc;
	sigset_t usr1;
	char *stack = malloc(STACK);

	REQUIRE(getcontext(&uc) == 0);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	REQUIRE_OK(pthread_sigmask(SIG_BLOCK, &usr1, NULL));
	uc.uc_stack.ss_sp = stack;
	uc.uc_stack.ss_size = STACK;
	uc.uc_link = NULL;
	makecontext(&uc, until_stopped, 0);
	__atomic_store_n(&t->begun, 1, __ATOMIC_RELEASE);
	REQUIRE(swapcontext(&elsewhere, &uc) == 0);
	for (int i = 1; i < SIGNALS; i++) {
		CHECK_EQ(swaps, i);
		__atomic_add_fetch(&t->done, 1, __ATOMIC_RELEASE);
		for (volatile int k = 0; k < 200000; k++)
			;
		REQUIRE(swapcontext(&elsewhere, &interrupted_at) == 0);
	}
	__atomic_store_n(&t->done, SIGNALS, __ATOMIC_RELEASE);
	free(stack);
	return NULL;
}

static void handlers_that_swap_off(void)
{
	struct sigaction sa = {.sa_handler = swap_off}, old;
	struct target t[TARGETS];

	begin();
	REQUIRE(sigaction(SIGUSR1, &sa, &old) == 0);
	memset(t, 0, sizeof t);
	for (int i = 0; i < TARGETS; i++)
		t[i].thread = spawn(be_swapped, &t[i]);
	for (int n = 0; n < SIGNALS; n++)
		for (int i = 0; i < TARGETS; i++) {
			while (!__atomic_load_n(&t[i].begun, __ATOMIC_ACQUIRE) ||
			       __atomic_load_n(&t[i].done, __ATOMIC_ACQUIRE) < n)
				sleep_ms(1);
			CHECK_EQ(pthread_kill(t[i].thread, SIGUSR1), 0);
		}
	for (int i = 0; i < TARGETS; i++)
		join(t[i].thread);
	sigaction(SIGUSR1, &old, NULL);
	end();
}

/* A handler that computes on the alternate stack for as long as others want. */
static void spin_in_handler(int sig)
{
	(void)sig;
	until_stopped();
}

static void *call_handler(void *arg)
{
	stack_t ss = {.ss_sp = malloc(STACK), .ss_size = STACK}, none = {.ss_flags = SS_DISABLE};

	REQUIRE(sigaltstack(&ss, NULL) == 0);
	CHECK_EQ(raise(SIGUSR1), 0);
	REQUIRE(sigaltstack(&none, NULL) == 0);
	free(ss.ss_sp);
	return arg;
}

static void handlers_that_compute(void)
{
	struct sigaction sa = {.sa_handler = spin_in_handler, .sa_flags = SA_ONSTACK}, old;

	REQUIRE(sigaction(SIGUSR1, &sa, &old) == 0);
	among_spinners(call_handler, STACK);
	sigaction(SIGUSR1, &old, NULL);
}

static const struct test_case cases[] = {
    {"handlers_on_that_stack", handlers_on_that_stack},
    {"handlers_that_jump_off", handlers_that_jump_off},
    {"handlers_that_swap_off", handlers_that_swap_off},
    {"handlers_that_compute", handlers_that_compute},
};

TEST_MAIN(cases)
