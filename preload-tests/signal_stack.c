/*
 * Alternate signal stacks belong to threads: set, asked for and used by each on its own, also while
 * the thread moves, yields inside the handler, or has no room left on its own stack. And faults
 * that a handler leaves by siglongjmp.
 */
#include "test.h"

#include <setjmp.h>
#include <sys/mman.h>

enum { SIZE = 64 << 10 };

static __thread char *my_stack;
static volatile int ran;

static void on_altstack(int sig)
{
	char here;
	stack_t ss;

	(void)sig;
	if (&here < my_stack || &here >= my_stack + SIZE)
		FAIL("handler ran at %p, not on %p", (void *)&here, (void *)my_stack);
	CHECK_EQ(sigaltstack(NULL, &ss), 0);
	CHECK(ss.ss_flags & SS_ONSTACK);
	CHECK(ss.ss_sp == my_stack);
	ss.ss_flags = SS_DISABLE;
	CHECK_ERRNO(sigaltstack(&ss, NULL), EPERM);
	sched_yield();
	if (&here < my_stack || &here >= my_stack + SIZE)
		FAIL("the handler's thread came back to another");
	__atomic_add_fetch(&ran, 1, __ATOMIC_RELAXED);
}

static void on_own_stack(int sig)
{
	char here;

	(void)sig;
	CHECK(&here < my_stack || &here >= my_stack + SIZE);
	__atomic_add_fetch(&ran, 1, __ATOMIC_RELAXED);
}

static void *with_altstack(void *arg)
{
	stack_t ss, old;

	CHECK_EQ(sigaltstack(NULL, &old), 0);
	CHECK_EQ(old.ss_flags, SS_DISABLE);
	my_stack = malloc(SIZE);
	ss = (stack_t){.ss_sp = my_stack, .ss_size = SIZE};
	CHECK_EQ(sigaltstack(&ss, NULL), 0);
	for (int i = 0; i < 50; i++) {
		CHECK_EQ(raise(SIGUSR1), 0);
		CHECK_EQ(raise(SIGUSR2), 0);
		sched_yield();
		CHECK_EQ(sigaltstack(NULL, &old), 0);
		CHECK(old.ss_sp == my_stack);
		CHECK_EQ(old.ss_size, SIZE);
		CHECK_EQ(old.ss_flags, 0);
	}
	ss.ss_flags = SS_DISABLE;
	CHECK_EQ(sigaltstack(&ss, NULL), 0);
	CHECK_EQ(sigaltstack(NULL, &old), 0);
	CHECK_EQ(old.ss_flags, SS_DISABLE);
	free(my_stack);
	my_stack = NULL;
	ss = (stack_t){.ss_sp = &ss, .ss_size = 100};
	CHECK_ERRNO(sigaltstack(&ss, NULL), ENOMEM);
	ss = (stack_t){.ss_sp = &ss, .ss_size = SIZE, .ss_flags = 77};
	CHECK_ERRNO(sigaltstack(&ss, NULL), EINVAL);
	return arg;
}

static void one_for_each_thread(void)
{
	pthread_t t[20];
	struct sigaction sa = {.sa_handler = on_altstack, .sa_flags = SA_ONSTACK};

	sigaction(SIGUSR1, &sa, NULL);
	sa.sa_handler = on_own_stack;
	sa.sa_flags = 0;
	sigaction(SIGUSR2, &sa, NULL);
	ran = 0;
	with_altstack(NULL);
	CHECK_EQ(ran, 100);
	ran = 0;
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(with_altstack, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(ran, 100 * COUNT(t));
}

/* SA_ONSTACK without an alternate stack: the thread's own. */
static void *without_altstack(void *arg)
{
	my_stack = NULL;
	ran = 0;
	CHECK_EQ(raise(SIGUSR2), 0);
	CHECK_EQ(ran, 1);
	return arg;
}

static void onstack_without_one(void)
{
	struct sigaction sa = {.sa_handler = on_own_stack, .sa_flags = SA_ONSTACK};

	sigaction(SIGUSR2, &sa, NULL);
	without_altstack(NULL);
	join(spawn(without_altstack, NULL));
}

/* Faults: the handler gets the address, and may leave by siglongjmp; again and again, in many
 * threads at once. */
static __thread sigjmp_buf env;
static __thread void *fault_address;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)context;
	fault_address = info->si_addr;
	siglongjmp(env, sig);
}

static char *no_access;

static void *fault_often(void *arg)
{
	char *p = no_access + (intptr_t)arg * 16;

	for (int i = 0; i < 30; i++) {
		int sig = sigsetjmp(env, 1);
		if (sig == 0) {
			*(volatile char *)p = 1;
			FAIL("no fault");
		} else {
			CHECK_EQ(sig, SIGSEGV);
			CHECK(fault_address == p);
		}
		sched_yield();
		sigset_t set;
		pthread_sigmask(SIG_SETMASK, NULL, &set);
		CHECK(!sigismember(&set, SIGSEGV));
	}
	return NULL;
}

static void faults_left_by_siglongjmp(void)
{
	pthread_t t[20];
	struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};

	no_access = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	sigaction(SIGSEGV, &sa, NULL);
	fault_often((void *)1);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(fault_often, (void *)(intptr_t)i);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	signal(SIGSEGV, SIG_DFL);
	munmap(no_access, 4096);
}

/* A process whose first thread is made on the alternate stack: what other threads get runs on top of nothing there. */
static volatile unsigned char canary_seen;

static void threads_on_altstack(int sig)
{
	volatile unsigned char canary[4096];

	(void)sig;
	memset((void *)canary, 0x5a, sizeof canary);
	faults_left_by_siglongjmp();
	for (unsigned i = 0; i < sizeof canary; i++)
		CHECK_EQ(canary[i], 0x5a);
	canary_seen = canary[0];
}

static int first_threads(void)
{
	struct sigaction sa = {.sa_handler = threads_on_altstack, .sa_flags = SA_ONSTACK};
	stack_t ss = {.ss_sp = malloc(SIZE), .ss_size = SIZE};

	REQUIRE(sigaltstack(&ss, NULL) == 0);
	REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
	raise(SIGUSR1);
	CHECK_EQ(canary_seen, 0x5a);
	return 7;
}

static void first_threads_made_on_altstack(void)
{
	CHECK_EQ(in_child(first_threads), 7 << 8);
}

/* A handler that repairs: the faulting instruction runs again. */
static void on_repair(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	uintptr_t page = (uintptr_t)info->si_addr & ~4095ul;
	CHECK_EQ(mprotect((void *)page, 4096, PROT_READ | PROT_WRITE), 0);
	__atomic_add_fetch(&ran, 1, __ATOMIC_RELAXED);
}

static void *touch_pages(void *arg)
{
	char *p = (char *)arg;

	for (int i = 0; i < 16; i++)
		p[i * 4096 + 5] = (char)i;
	for (int i = 0; i < 16; i++)
		CHECK_EQ(p[i * 4096 + 5], i);
	return NULL;
}

static void faults_repaired(void)
{
	pthread_t t[8];
	struct sigaction sa = {.sa_sigaction = on_repair, .sa_flags = SA_SIGINFO};
	size_t part = 16 * 4096;
	char *p = mmap(NULL, part * COUNT(t), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ran = 0;
	sigaction(SIGSEGV, &sa, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(touch_pages, p + part * i);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(ran, 16 * COUNT(t));
	signal(SIGSEGV, SIG_DFL);
	munmap(p, part * COUNT(t));
}

/* The stack runs out; the handler on the alternate stack is told and jumps back, which is what
 * language runtimes do. */
static int __attribute__((noinline)) overflow(int depth)
{
	volatile char pad[1000];

	pad[depth % 1000] = (char)depth;
	return depth < 0 ? 0 : overflow(depth + 1) + pad[depth % 1000];
}

static void *overflow_and_recover(void *arg)
{
	char *alt = malloc(SIZE);
	stack_t ss = {.ss_sp = alt, .ss_size = SIZE};
	char here;

	CHECK_EQ(sigaltstack(&ss, NULL), 0);
	for (int i = 0; i < 3; i++) {
		if (sigsetjmp(env, 1) == 0) {
			overflow(1);
			FAIL("no overflow");
		} else {
			intptr_t distance = &here - (char *)fault_address;
			if (distance < 100000 || distance > 70 << 20)
				FAIL("stack overflow reported at %p, stack at %p", fault_address,
				     (void *)&here);
		}
		sched_yield();
	}
	ss.ss_flags = SS_DISABLE;
	sigaltstack(&ss, NULL);
	free(alt);
	return arg;
}

static void overflow_handled_on_altstack(void)
{
	struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};

	sigaction(SIGSEGV, &sa, NULL);
	join(spawn(overflow_and_recover, NULL));
	pthread_t a = spawn(overflow_and_recover, NULL), b = spawn(overflow_and_recover, NULL);
	join(a);
	join(b);
	signal(SIGSEGV, SIG_DFL);
}

static const struct test_case cases[] = {
    {"one_for_each_thread", one_for_each_thread},
    {"onstack_without_one", onstack_without_one},
    {"faults_left_by_siglongjmp", faults_left_by_siglongjmp},
    {"first_threads_made_on_altstack", first_threads_made_on_altstack},
    {"faults_repaired", faults_repaired},
    {"overflow_handled_on_altstack", overflow_handled_on_altstack},
};

TEST_MAIN(cases)
