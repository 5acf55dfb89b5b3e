/*
 * Guards of the program's own inside its stacks, as the JVM and SBCL have them: a thread that
 * computes right above a page that may not be written is not preempted there, or is, but no fault
 * of anybody's making comes of it.
 */
#include "test.h"

#include <sys/mman.h>

enum { PAGE = 4096 };

static int stop;

/* Computes with so many bytes of stack left. */
static void compute_at(char *sp, long loops)
{
	__asm__ volatile("mov %%rsp, %%rbx\n\t"
			 "mov %0, %%rsp\n"
			 "1:\tdec %1\n\t"
			 "jnz 1b\n\t"
			 "mov %%rbx, %%rsp"
			 : "+r"(sp), "+r"(loops)
			 :
			 : "rbx", "cc", "memory");
}

/* The second page below here is closed, and opened again. */
__attribute__((noinline)) static void near_guard(long loops)
{
	static const int left[] = {16,   256,       1024,        2500,         3500,
				   4000, PAGE + 16, PAGE + 2000, 2 * PAGE + 64};
	char *guard =
	    (char *)(((uintptr_t)__builtin_frame_address(0) & ~(uintptr_t)(PAGE - 1)) - 16 * PAGE);

	REQUIRE(mprotect(guard, PAGE, PROT_NONE) == 0);
	for (unsigned i = 0; i < COUNT(left); i++)
		compute_at(guard + PAGE + left[i], loops);
	REQUIRE(mprotect(guard, PAGE, PROT_READ) == 0);
	compute_at(guard + PAGE + 16, loops);
	REQUIRE(mprotect(guard, PAGE, PROT_READ | PROT_WRITE) == 0);
}

static void *compute(void *arg)
{
	for (int i = 0; i < 4; i++)
		near_guard(3000000);
	return arg;
}

static void *spin(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		;
	return arg;
}

static void threads_at_their_guards(void)
{
	pthread_t t[4], s;

	stop = 0;
	s = spawn(spin, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(compute, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	join(s);
}

static void main_at_its_guard(void)
{
	stop = 0;
	pthread_t s = spawn(spin, NULL);
	compute(NULL);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	join(s);
}

/* A signal that arrives there is handled when there is room. */
static int handled;

static void note(int sig)
{
	(void)sig;
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELAXED);
}

static void *compute_more(void *arg)
{
	char *guard =
	    (char *)(((uintptr_t)__builtin_frame_address(0) & ~(uintptr_t)(PAGE - 1)) - 24 * PAGE);

	REQUIRE(mprotect(guard, PAGE, PROT_NONE) == 0);
	for (int i = 0; i < 20; i++)
		compute_at(guard + 6 * PAGE, 3000000);
	REQUIRE(mprotect(guard, PAGE, PROT_READ | PROT_WRITE) == 0);
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		sched_yield();
	return arg;
}

static void signals_near_a_guard(void)
{
	enum { SIGNALS = 20 };
	struct sigaction sa = {.sa_handler = note, .sa_flags = SA_RESTART}, old;

	REQUIRE(sigaction(SIGUSR1, &sa, &old) == 0);
	stop = handled = 0;
	pthread_t t = spawn(compute_more, NULL);
	for (int i = 0; i < SIGNALS; i++) {
		int before = __atomic_load_n(&handled, __ATOMIC_RELAXED);
		CHECK_EQ(pthread_kill(t, SIGUSR1), 0);
		while (__atomic_load_n(&handled, __ATOMIC_RELAXED) == before)
			sleep_ms(1);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	join(t);
	CHECK_EQ(handled, SIGNALS);
	sigaction(SIGUSR1, &old, NULL);
}

static const struct test_case cases[] = {
    {"threads_at_their_guards", threads_at_their_guards},
    {"main_at_its_guard", main_at_its_guard},
    {"signals_near_a_guard", signals_near_a_guard},
};

TEST_MAIN(cases)
