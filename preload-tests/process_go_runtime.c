/*
 * A Go runtime asks the kernel for the signal stacks and masks of its threads by instructions of
 * its own. A program that exports what those with cgo do keeps what it has asked for, on every thread.
 */
#include "test.h"

void _cgo_topofstack(void);
void _cgo_topofstack(void)
{
}

enum { SIZE = 32768 };

/* Not by libc's syscall, which a library may stand before. */
static long raw(long nr, long a, long b, long c, long d)
{
	long r;
	register long r10 __asm__("r10") = d;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return r;
}

static void check_stack(char *mine)
{
	stack_t st;

	REQUIRE(raw(SYS_sigaltstack, 0, (long)&st, 0, 0) == 0);
	if (st.ss_sp != mine || st.ss_size != SIZE)
		FAIL("the signal stack is %p, %zu bytes, not %p", st.ss_sp, st.ss_size,
		     (void *)mine);
}

static void *keep_stack(void *arg)
{
	char *mine = malloc(SIZE);
	stack_t st = {.ss_sp = mine, .ss_size = SIZE}, off = {.ss_flags = SS_DISABLE};
	long tid = raw(SYS_gettid, 0, 0, 0, 0);
	uint64_t mask = 1ull << (SIGUSR1 - 1), now;

	REQUIRE(raw(SYS_sigaltstack, (long)&st, 0, 0, 0) == 0);
	REQUIRE(raw(SYS_rt_sigprocmask, SIG_SETMASK, (long)&mask, 0, 8) == 0);
	for (int i = 0; i < 100; i++) {
		if (i % 2)
			sched_yield();
		else
			usleep(10);
		check_stack(mine);
		CHECK_EQ(raw(SYS_gettid, 0, 0, 0, 0), tid);
		REQUIRE(raw(SYS_rt_sigprocmask, SIG_SETMASK, 0, (long)&now, 8) == 0);
		CHECK_EQ(now, mask);
	}
	raw(SYS_sigaltstack, (long)&off, 0, 0, 0);
	free(mine);
	return arg;
}

static void threads_keep_their_signal_stacks(void)
{
	pthread_t t[16];

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(keep_stack, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static const struct test_case cases[] = {
    {"threads_keep_their_signal_stacks", threads_keep_their_signal_stacks},
};

TEST_MAIN(cases)
