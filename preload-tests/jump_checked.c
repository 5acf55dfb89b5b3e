/*
 * longjmp of programs built with _FORTIFY_SOURCE: up the stack and off an alternate one it jumps,
 * into a frame that has returned it ends the program, as with glibc alone.
 */
#include "test.h"

#include <setjmp.h>

extern _Noreturn void __longjmp_chk(jmp_buf env, int val);

static __thread jmp_buf top, gone;
static __thread volatile int level;

static __attribute__((noinline)) void down(int depth)
{
	volatile char room[512];

	room[0] = (char)depth;
	if (depth > 0)
		down(depth - 1);
	else if (room[0] == 0)
		__longjmp_chk(top, 3);
	room[1] = room[0];
}

static void jumps_up(void)
{
	int got = setjmp(top);

	if (got == 0)
		down(20);
	CHECK_EQ(got, 3);
}

static void handler(int sig)
{
	(void)sig;
	__longjmp_chk(top, 4);
}

static void jumps_off(void)
{
	static __thread char alt[65536];
	stack_t ss = {.ss_sp = alt, .ss_size = sizeof alt}, off = {.ss_flags = SS_DISABLE};
	struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_ONSTACK | SA_NODEFER};

	REQUIRE(sigaltstack(&ss, NULL) == 0);
	REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
	for (level = 0; level < 10; level++) {
		int got = setjmp(top);

		if (got == 0)
			raise(SIGUSR1);
		CHECK_EQ(got, 4);
	}
	sigaltstack(&off, NULL);
}

static __attribute__((noinline)) void returns(int depth)
{
	volatile char room[512];

	room[0] = (char)depth;
	if (depth == 0) {
		if (setjmp(gone))
			_exit(5);
		return;
	}
	returns(depth - 1);
	room[1] = room[0];
}

static void *all_good(void *arg)
{
	jumps_up();
	jumps_off();
	return arg;
}

static void *into_the_gone(void *arg)
{
	returns(20);
	__longjmp_chk(gone, 1);
	return arg;
}

static void good_jumps(void)
{
	all_good(NULL);
	for (int i = 0; i < 10; i++)
		join(spawn(all_good, NULL));
}

static int on_main(void)
{
	into_the_gone(NULL);
	return 0;
}

static int on_thread(void)
{
	join(spawn(into_the_gone, NULL));
	return 0;
}

static void bad_jumps(void)
{
	int (*const where[])(void) = {on_main, on_thread};
	int null = open("/dev/null", O_WRONLY), err = dup(2);

	dup2(null, 2); /* libc says so */
	for (unsigned i = 0; i < COUNT(where); i++) {
		int status = in_child(where[i]);

		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	}
	dup2(err, 2);
	close(err);
	close(null);
}

static const struct test_case cases[] = {
    {"good_jumps", good_jumps},
    {"bad_jumps", bad_jumps},
};

TEST_MAIN(cases)
