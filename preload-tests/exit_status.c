/*
 * Ends of a process, as its parent sees them: return from main, exit, _exit, abort, quick_exit,
 * fatal signals and pthread_exit of main, from main and from threads, while others are blocked, run
 * and spin.
 */
#include "test.h"

#include <setjmp.h>

static int fds[2];

static void *blocked_in_read(void *arg)
{
	char c;

	if (read(fds[0], &c, 1) < 0)
		return arg;
	return arg;
}

static void *asleep(void *arg)
{
	(void)arg;
	for (;;)
		sleep_ms(1000);
	return NULL;
}

static void *spinning(void *arg)
{
	for (volatile unsigned long i = 0;; i++)
		;
	return arg;
}

static void company(void)
{
	REQUIRE(pipe(fds) == 0);
	for (int i = 0; i < 10; i++)
		spawn(i % 2 ? blocked_in_read : asleep, NULL);
	spawn(spinning, NULL);
	sleep_ms(10);
}

static void by_exit(void)
{
	exit(31);
}

static void by__exit(void)
{
	_exit(32);
}

static void by_Exit(void)
{
	_Exit(33);
}

static void by_quick_exit(void)
{
	quick_exit(34);
}

static void by_abort(void)
{
	abort();
}

static void by_raise(void)
{
	raise(SIGTERM);
}

static void by_kill(void)
{
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

static void by_segv(void)
{
	volatile uintptr_t address = 8;

	*(volatile int *)address = 1;
}

static void by_fpe(void)
{
	int quotient;

	/* The compiler knows better than to divide 1 by 0. */
	__asm__ volatile("xorl %%ecx, %%ecx\n\tcltd\n\tidivl %%ecx"
			 : "=a"(quotient)
			 : "a"(1)
			 : "rcx", "rdx", "cc");
	_exit(quotient);
}

static void by_trap(void)
{
	__builtin_trap();
}

static void by_exit_group(void)
{
	syscall(SYS_exit_group, 35);
}

static const struct {
	const char *name;
	void (*end)(void);
	int status;
} ends[] = {
    {"exit", by_exit, 31 << 8},
    {"_exit", by__exit, 32 << 8},
    {"_Exit", by_Exit, 33 << 8},
    {"quick_exit", by_quick_exit, 34 << 8},
    {"abort", by_abort, SIGABRT},
    {"raise SIGTERM", by_raise, SIGTERM},
    {"kill SIGKILL", by_kill, SIGKILL},
    {"segmentation fault", by_segv, SIGSEGV},
    {"division by zero", by_fpe, SIGFPE},
    {"trap", by_trap, SIGILL},
    {"exit_group", by_exit_group, 35 << 8},
};

static unsigned which;

static void *end_in_thread(void *arg)
{
	ends[which].end();
	return arg;
}

static int from_main_alone(void)
{
	ends[which].end();
	return 99;
}

static int from_main(void)
{
	company();
	ends[which].end();
	return 99;
}

static int from_thread(void)
{
	company();
	join(spawn(end_in_thread, NULL));
	return 99;
}

static void each_end(int (*how)(void), const char *where)
{
	for (which = 0; which < COUNT(ends); which++) {
		int status = in_child(how);
		if (status != ends[which].status)
			FAIL("%s %s: wait status %#x, not %#x", ends[which].name, where, status,
			     ends[which].status);
	}
}

static void of_main_alone(void)
{
	each_end(from_main_alone, "by main alone");
}

static void of_main_in_company(void)
{
	each_end(from_main, "by main among threads");
}

static void of_a_thread(void)
{
	each_end(from_thread, "by a thread");
}

/* In the child main is us; what `return` from main does is in_child's exit(). */
static int return_in_company(void)
{
	company();
	return 17;
}

static void main_returns(void)
{
	CHECK_EQ(in_child(return_in_company), 17 << 8);
}

static void *end_late(void *arg)
{
	sleep_ms(50);
	return arg;
}

static void *exit_late(void *arg)
{
	sleep_ms(50);
	exit(18);
	return arg;
}

static int main_exits_as_a_thread(void)
{
	spawn(end_late, NULL);
	spawn(end_late, NULL);
	pthread_exit((void *)3);
}

static int main_exits_before_a_thread(void)
{
	spawn(exit_late, NULL);
	pthread_exit(NULL);
}

static int main_exits_alone(void)
{
	pthread_exit((void *)44);
}

static pthread_t the_main;

static void *join_main(void *arg)
{
	void *ret = NULL;

	CHECK_EQ(pthread_join(the_main, &ret), 0);
	CHECK_EQ((intptr_t)ret, 45);
	_exit(test_failures ? 1 : 19);
	return arg;
}

static int main_is_joined(void)
{
	the_main = pthread_self();
	spawn(join_main, NULL);
	pthread_exit((void *)45);
}

static void main_ends_by_pthread_exit(void)
{
	CHECK_EQ(in_child(main_exits_as_a_thread), 0);
	CHECK_EQ(in_child(main_exits_before_a_thread), 18 << 8);
	CHECK_EQ(in_child(main_exits_alone), 0);
	CHECK_EQ(in_child(main_is_joined), 19 << 8);
}

/* Handlers run once, on the thread that calls exit, and may use threads. */
static int handlers;

static void *count_handler(void *arg)
{
	handlers++;
	return arg;
}

static void handler_first(void)
{
	join(spawn(count_handler, NULL));
	if (handlers == 2)
		_exit(23);
}

static void handler_second(void)
{
	handlers++;
}

static int exit_with_handlers(void)
{
	atexit(handler_first);
	atexit(handler_second);
	company();
	join(spawn(exit_late, NULL));
	return 99;
}

static void atexit_handlers_with_threads(void)
{
	CHECK_EQ(in_child(exit_with_handlers), 23 << 8);
}

/* Those of the last thread's exit() run with signals open. */
static volatile int raised;

static void on_usr1(int sig)
{
	(void)sig;
	raised++;
}

static void handler_raises(void)
{
	raise(SIGUSR1);
	pthread_kill(pthread_self(), SIGUSR1);
	_exit(raised == 2 ? 24 : 1);
}

static int last_with_handlers(void)
{
	signal(SIGUSR1, on_usr1);
	atexit(handler_raises);
	spawn(end_late, NULL);
	pthread_exit(NULL);
}

static void atexit_handlers_of_the_last(void)
{
	CHECK_EQ(in_child(last_with_handlers), 24 << 8);
}

/* A timer's thread is one of the process: this lasts until it calls exit. */
static void third_tick(union sigval value)
{
	static _Atomic int ticks;

	(void)value;
	if (++ticks == 3)
		exit(25);
}

static void start_ticking(void)
{
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = third_tick};
	struct itimerspec its = {{0, 10000000}, {0, 10000000}};
	timer_t timer;

	REQUIRE(timer_create(CLOCK_MONOTONIC, &ev, &timer) == 0);
	REQUIRE(timer_settime(timer, 0, &its, NULL) == 0);
}

static int main_leaves_a_timer(void)
{
	start_ticking();
	pthread_exit(NULL);
}

static int threads_leave_a_timer(void)
{
	join(spawn(end_late, NULL));
	start_ticking();
	spawn(end_late, NULL);
	pthread_exit(NULL);
}

static void main_ends_and_a_timer_ticks(void)
{
	CHECK_EQ(in_child(main_leaves_a_timer), 25 << 8);
	CHECK_EQ(in_child(threads_leave_a_timer), 25 << 8);
}

/* What stdio holds is written out by exit from a thread, and not by _exit. */
static void *print_and_exit(void *arg)
{
	printf("buffered");
	if (arg)
		_exit(0);
	exit(0);
}

static int print_exit(void)
{
	dup2(fds[1], 1);
	join(spawn(print_and_exit, NULL));
	return 1;
}

static int print__exit(void)
{
	dup2(fds[1], 1);
	join(spawn(print_and_exit, fds));
	return 1;
}

static void stdio_is_flushed(void)
{
	char buf[100];

	for (int i = 0; i < 2; i++) {
		REQUIRE(pipe(fds) == 0);
		CHECK_EQ(in_child(i ? print__exit : print_exit), 0);
		close(fds[1]);
		CHECK_EQ(read(fds[0], buf, sizeof buf), i ? 0 : 8);
		close(fds[0]);
	}
}

/* A process with many threads ends at once, and a signal from outside ends it too. */
static int wait_for_signal(void)
{
	for (int i = 0; i < 60; i++)
		spawn(i % 20 == 19 ? spinning : asleep, NULL);
	CHECK_EQ(write(fds[1], "r", 1), 1);
	for (;;)
		pause();
	return 0;
}

static void killed_from_outside(void)
{
	static const int sigs[] = {SIGTERM, SIGINT, SIGKILL, SIGUSR1, SIGHUP};

	for (unsigned i = 0; i < COUNT(sigs); i++) {
		char c;
		int status = -1;

		REQUIRE(pipe(fds) == 0);
		pid_t pid = fork();
		if (pid == 0)
			exit(wait_for_signal());
		CHECK_EQ(read(fds[0], &c, 1), 1);
		sleep_ms(10);
		CHECK_EQ(kill(pid, sigs[i]), 0);
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK_EQ(status, sigs[i]);
		close(fds[0]);
		close(fds[1]);
	}
}

/* abort() opens SIGABRT for a handler, which may leave; one that returns does not save the process. */
static sigjmp_buf away;
static int leaves, blocked;

static void on_abort(int sig)
{
	(void)sig;
	CHECK_EQ(write(fds[1], "h", 1), 1);
	if (leaves)
		siglongjmp(away, 1);
}

static void *aborts(void *arg)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGABRT);
	if (blocked)
		pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGABRT, on_abort);
	if (sigsetjmp(away, 1))
		_exit(36);
	abort();
	return arg;
}

static int abort_in_thread(void)
{
	spawn(spinning, NULL);
	join(spawn(aborts, NULL));
	return 99;
}

static int abort_in_main(void)
{
	spawn(spinning, NULL);
	aborts(NULL);
	return 99;
}

static void abort_with_a_handler(void)
{
	char buf[10];

	for (int way = 0; way < 8; way++) {
		leaves = way & 1;
		blocked = way & 2;
		REQUIRE(pipe(fds) == 0);
		CHECK_EQ(in_child(way & 4 ? abort_in_main : abort_in_thread),
			 leaves ? 36 << 8 : SIGABRT);
		close(fds[1]);
		CHECK_EQ(read(fds[0], buf, sizeof buf), 1);
		close(fds[0]);
	}
}

static const struct test_case cases[] = {
    {"abort_with_a_handler", abort_with_a_handler},
    {"of_main_alone", of_main_alone},
    {"of_main_in_company", of_main_in_company},
    {"of_a_thread", of_a_thread},
    {"main_returns", main_returns},
    {"main_ends_by_pthread_exit", main_ends_by_pthread_exit},
    {"atexit_handlers_with_threads", atexit_handlers_with_threads},
    {"atexit_handlers_of_the_last", atexit_handlers_of_the_last},
    {"main_ends_and_a_timer_ticks", main_ends_and_a_timer_ticks},
    {"stdio_is_flushed", stdio_is_flushed},
    {"killed_from_outside", killed_from_outside},
};

TEST_MAIN(cases)
