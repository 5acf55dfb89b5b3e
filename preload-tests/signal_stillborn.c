/*
 * A thread whose attributes can't be had has never been: it takes no signal of the process with it, and the stack
 * that was for it is the program's when pthread_create has failed.
 */
#include "test.h"

#include <semaphore.h>
#include <sys/mman.h>

enum { STACK = 1 << 16 };

static int stop, made, sent;
static sem_t ran;

static void on_signal(int sig)
{
	(void)sig;
	CHECK(sem_post(&ran) == 0);
}

static void *never(void *arg)
{
	FAIL("a thread ran on a CPU that isn't there");
	return arg;
}

/* The only thread that takes the signal. */
static void *maker(void *usr1)
{
	pthread_attr_t attr;
	cpu_set_t none;

	REQUIRE_OK(pthread_sigmask(SIG_UNBLOCK, usr1, NULL));
	REQUIRE_OK(pthread_attr_init(&attr));
	CPU_ZERO(&none);
	CPU_SET(CPU_SETSIZE - 1, &none);
	REQUIRE_OK(pthread_attr_setaffinity_np(&attr, sizeof none, &none));
	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
		pthread_t t;
		void *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
		REQUIRE(stack != MAP_FAILED);
		REQUIRE_OK(pthread_attr_setstack(&attr, stack, STACK));
		int r = pthread_create(&t, &attr, never, NULL);
		munmap(stack, STACK);
		CHECK_EQ(r, EINVAL);
		made++;
	}
	pthread_attr_destroy(&attr);
	return NULL;
}

/* What is sent before `stop` the maker has handled when it sees that. */
static void *sender(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
		CHECK(kill(getpid(), SIGUSR1) == 0);
		sent++;
		if (__atomic_load_n(&stop, __ATOMIC_SEQ_CST))
			break;
		struct timespec end = after_ms(CLOCK_REALTIME, 10000);
		if (sem_timedwait(&ran, &end) != 0) {
			FAIL("lost: signal %d of the process, beside %d threads", sent, made);
			break;
		}
	}
	return arg;
}

static void handlers(void)
{
	struct sigaction sa = {.sa_handler = on_signal};
	struct timespec now = {0, 0};
	sigset_t usr1, old;

	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
	pthread_sigmask(SIG_BLOCK, &usr1, &old);
	for (int i = 0; i < 300 && test_failures == 0; i++) {
		__atomic_store_n(&stop, 0, __ATOMIC_SEQ_CST);
		REQUIRE(sem_init(&ran, 0, 0) == 0);
		pthread_t m = spawn(maker, &usr1), s = spawn(sender, NULL);
		sleep_ms(2 + i % 2);
		__atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
		join(m);
		join(s);
		sigtimedwait(&usr1, NULL, &now); /* sent after `stop` */
	}
	CHECK(made > 0 && sent > 0);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static const struct test_case cases[] = {{"handlers", handlers}};

TEST_MAIN(cases)
