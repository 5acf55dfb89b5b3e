/*
 * Stacks that run out: the process dies by SIGSEGV as natively, and with the library there is one
 * line on stderr first that names the goroutine, and then its stack. Faults that are no overflow get no such line. What
 * fits into the stack works.
 */
#include "test.h"

static int __attribute__((noinline)) dive(long left)
{
	volatile char pad[2000];

	pad[left % 2000] = (char)left;
	return left == 0 ? 0 : dive(left - 1) + pad[left % 2000] - (char)left;
}

static void *dive_in_thread(void *arg)
{
	CHECK_EQ(dive((intptr_t)arg), 0);
	return NULL;
}

static void deep_recursion_fits(void)
{
	/* 2,000 bytes and some: 3,400 levels are 7 MiB of 8. */
	struct rlimit rl;

	getrlimit(RLIMIT_STACK, &rl);
	if (rl.rlim_cur != RLIM_INFINITY && rl.rlim_cur < 8 << 20)
		SKIP_CASE("the stack limit is below 8 MiB");
	pthread_t t[4];
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(dive_in_thread, (void *)3400);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(dive(3400), 0);
}

static void *with_stack(size_t size, void *(*fn)(void *), void *arg)
{
	pthread_attr_t attr;
	pthread_t t;

	pthread_attr_init(&attr);
	REQUIRE_OK(pthread_attr_setstacksize(&attr, size));
	REQUIRE_OK(pthread_create(&t, &attr, fn, arg));
	pthread_attr_destroy(&attr);
	return join(t);
}

static int overflow_default(void)
{
	join(spawn(dive_in_thread, (void *)1000000000));
	return 0;
}

static int overflow_small(void)
{
	with_stack(64 << 10, dive_in_thread, (void *)1000000000);
	return 0;
}

static void *idle(void *arg)
{
	for (;;)
		sleep_ms(1000);
	return arg;
}

static int overflow_among_others(void)
{
	for (int i = 0; i < 100; i++)
		spawn(idle, NULL);
	return overflow_default();
}

static int overflow_main(void)
{
	return dive(1000000000);
}

static int overflow_main_with_threads(void)
{
	spawn(idle, NULL);
	return dive(1000000000);
}

static void *null_pointer(void *arg)
{
	volatile uintptr_t address = 16;

	*(volatile int *)address = 1;
	return arg;
}

static int fault_in_thread(void)
{
	join(spawn(null_pointer, NULL));
	return 0;
}

static void *wild_pointer(void *arg)
{
	volatile uintptr_t address = 0x123456789000;

	*(volatile int *)address = 1;
	return arg;
}

static int wild_in_thread(void)
{
	join(spawn(wild_pointer, NULL));
	return 0;
}

/* What the program handles itself is nothing to speak of. */
static void end(int sig)
{
	signal(sig, SIG_DFL);
	raise(sig);
	_exit(0);
}

static void *dive_and_handle(void *arg)
{
	static char alternate[1 << 16];
	stack_t ss = {.ss_sp = alternate, .ss_size = sizeof alternate};
	struct sigaction sa = {.sa_handler = end, .sa_flags = SA_ONSTACK | SA_NODEFER};

	REQUIRE(sigaltstack(&ss, NULL) == 0 && sigaction(SIGSEGV, &sa, NULL) == 0);
	dive(1000000000);
	return arg;
}

static int overflow_handled(void)
{
	join(spawn(dive_and_handle, NULL));
	return 0;
}

static const struct {
	const char *name;
	int (*fn)(void);
	int told; /* the library must say so */
} table[] = {
    {"8 MiB", overflow_default, 1},
    {"64 KiB", overflow_small, 1},
    {"among others", overflow_among_others, 1},
    {"handled", overflow_handled, 0},
    {"of main", overflow_main, 0},
    {"of main with threads", overflow_main_with_threads, 0},
    {"null pointer", fault_in_thread, 0},
    {"wild pointer", wild_in_thread, 0},
};

static int fds[2];
static unsigned which;

static int run_with_stderr(void)
{
	dup2(fds[1], 2);
	return table[which].fn();
}

static void deaths(void)
{
	for (which = 0; which < COUNT(table); which++) {
		char text[4096];
		ssize_t n, len = 0;

		REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
		int status = in_child(run_with_stderr);
		close(fds[1]);
		while ((n = read(fds[0], text + len, sizeof text - 1 - len)) > 0)
			len += n;
		close(fds[0]);
		text[len] = '\0';
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV)
			FAIL("%s: wait status %#x, not death by SIGSEGV", table[which].name,
			     status);
		const char *told = strstr(text, ": stack overflow (");
		if (under_shim() && table[which].told &&
		    (strncmp(text, "goshim: goroutine ", 18) || !told ||
		     strstr(told + 1, ": stack overflow (")))
			FAIL("%s: not one line first that names the goroutine: %.200s",
			     table[which].name, text);
		if (under_shim() && table[which].told && !strstr(text, "\ndive(...)\n"))
			FAIL("%s: no stack: %.300s", table[which].name, text);
		if (!table[which].told && told)
			FAIL("%s: called a stack overflow: %.200s", table[which].name, text);
		if (!under_shim() && len != 0)
			FAIL("%s: glibc says %.200s", table[which].name, text);
	}
}

static const struct test_case cases[] = {
    {"deep_recursion_fits", deep_recursion_fits},
    {"deaths", deaths},
};

TEST_MAIN(cases)
