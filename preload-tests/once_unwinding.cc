/*
 * pthread_once, call_once and std::call_once whose routine is left early: by an exception, pthread_exit,
 * deferred and asynchronous cancellation, in C++ frames and in C's handlers, alone and with others
 * waiting, at any depth of nesting. The next caller runs the routine; a wait for it is no cancellation
 * point.
 */
#include "test.h"

#include <atomic>
#include <mutex>
#include <stdexcept>

extern "C" void call_once(int *flag, void (*fn)(void)); /* of <threads.h>, which C++ has not */

static pthread_once_t once, inner;
static std::atomic<int> runs, unwound, handlers;
static volatile int inside, go;

struct Unwound {
	~Unwound()
	{
		unwound++;
	}
};

static void handler(void *)
{
	handlers++;
}

static void finish()
{
	runs++;
}

enum How { THROWS, EXITS, CANCELLED, CANCELLED_ASYNC };
static How how;

/* Any instruction of it may be the last: it has nothing to clean up. */
static void __attribute__((noinline)) spin()
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	for (;;)
		__asm__ volatile("");
}

/* Leaves the first time, finishes the second. */
static void leave()
{
	Unwound u;

	if (runs++ > 0)
		return;
	pthread_cleanup_push(handler, NULL);
	inside = 1;
	while (!go)
		usleep(500);
	switch (how) {
	case THROWS: throw std::runtime_error("left");
	case EXITS: pthread_exit((void *)5);
	case CANCELLED: pause(); break;
	case CANCELLED_ASYNC: spin(); break;
	}
	pthread_cleanup_pop(0);
}

static void around()
{
	Unwound u;

	CHECK_EQ(pthread_once(&inner, leave), 0);
}

static void (*routine)(void);
static int by_c11;

static void *call(void *arg)
{
	Unwound u;

	try {
		if (by_c11)
			call_once(&once, routine);
		else
			CHECK_EQ(pthread_once(&once, routine), 0);
	} catch (std::runtime_error &e) {
		CHECK(strcmp(e.what(), "left") == 0);
		return (void *)7;
	}
	return arg;
}

static void left(How h, int depth, int waiters)
{
	pthread_t t[4];

	how = h;
	once = inner = PTHREAD_ONCE_INIT;
	routine = depth ? around : leave;
	runs = unwound = handlers = 0;
	inside = 0;
	go = waiters == 0;
	pthread_t first = spawn(call, NULL);
	CHECK(wait_for(&inside, 1, 20000));
	for (int i = 0; i < waiters; i++)
		t[i] = spawn(call, NULL);
	if (waiters)
		sleep_ms(2);
	go = 1;
	if (h == CANCELLED || h == CANCELLED_ASYNC)
		CHECK_EQ(pthread_cancel(first), 0);
	void *result = join(first);
	CHECK(result == (h == THROWS ? (void *)7 : h == EXITS ? (void *)5 : PTHREAD_CANCELED));
	for (int i = 0; i < waiters; i++)
		CHECK(join(t[i]) == NULL);
	if (waiters == 0) {
		CHECK_EQ(runs.load(), 1);
		join(spawn(call, NULL));
	}
	CHECK_EQ(runs.load(), 2);
	/* An exception runs a C++ handler too: pthread_cleanup_push is an object there. */
	CHECK_EQ(handlers.load(), 1);
	/* Both runs of each routine, and the calls. */
	CHECK_EQ(unwound.load(), 2 * (depth + 1) + 1 + (waiters ? waiters : 1));
	/* Done: nobody runs it again. */
	CHECK_EQ(pthread_once(&once, finish), 0);
	CHECK_EQ(pthread_once(&inner, depth ? finish : leave), 0);
	CHECK_EQ(runs.load(), depth ? 2 : 3);
}

static void each_way(How h)
{
	for (by_c11 = 0; by_c11 < 2; by_c11++)
		for (int depth = 0; depth < 2; depth++)
			for (int waiters = 0; waiters < 5; waiters += 2)
				left(h, depth, waiters);
}

static void by_an_exception()
{
	each_way(THROWS);
}

static void by_exit()
{
	each_way(EXITS);
}

static void by_cancellation()
{
	each_way(CANCELLED);
}

static void by_asynchronous_cancellation()
{
	each_way(CANCELLED_ASYNC);
}

/* A waiter whose cancellation is asked for waits on, and is cancelled at its next point. */
static void long_routine()
{
	inside = 1;
	while (!go)
		usleep(500);
	runs++;
}

static void *call_long(void *arg)
{
	CHECK_EQ(pthread_once(&once, long_routine), 0);
	CHECK_EQ(runs.load(), 1);
	if (arg)
		*(volatile int *)arg = 1;
	pthread_testcancel();
	return arg;
}

static void waiting_is_no_cancellation_point()
{
	for (int i = 0; i < 10; i++) {
		volatile int passed = 0;

		once = PTHREAD_ONCE_INIT;
		runs = 0;
		inside = go = 0;
		pthread_t first = spawn(call_long, NULL);
		CHECK(wait_for(&inside, 1, 20000));
		pthread_t waiter = spawn(call_long, (void *)&passed);
		sleep_ms(2);
		CHECK_EQ(pthread_cancel(waiter), 0);
		sleep_ms(2);
		CHECK_EQ(passed, 0);
		go = 1;
		join(first);
		CHECK(join(waiter) == PTHREAD_CANCELED);
		CHECK_EQ(passed, 1);
	}
}

/* Of many that try, each in turn throws until one does not. */
static std::once_flag *flag;
static std::atomic<int> tries, threw;

static void *try_once(void *arg)
{
	try {
		std::call_once(*flag, [] {
			if (tries++ < 5)
				throw 1;
		});
		CHECK_EQ(tries.load(), 6);
	} catch (int) {
		threw++;
	}
	return arg;
}

static void standard_library()
{
	for (int round = 0; round < 50; round++) {
		pthread_t t[16];

		flag = new std::once_flag;
		tries = threw = 0;
		for (pthread_t &x : t)
			x = spawn(try_once, NULL);
		for (pthread_t x : t)
			join(x);
		CHECK_EQ(tries.load(), 6);
		CHECK_EQ(threw.load(), 5);
		delete flag;
	}
}

/* Controls that use one another, from many threads at once, in an order without a cycle. */
enum { CHAIN = 20 };
static pthread_once_t chain[CHAIN];
static std::atomic<int> ran[CHAIN];

template <int N> static void link_of_chain()
{
	sched_yield();
	ran[N]++;
	if constexpr (N > 0) {
		CHECK_EQ(pthread_once(&chain[N - 1], link_of_chain<N - 1>), 0);
		CHECK_EQ(ran[N - 1].load(), 1);
	}
}

static void *walk(void *arg)
{
	CHECK_EQ(pthread_once(&chain[CHAIN - 1], link_of_chain<CHAIN - 1>), 0);
	return arg;
}

static void *walk_half(void *arg)
{
	CHECK_EQ(pthread_once(&chain[CHAIN / 2], link_of_chain<CHAIN / 2>), 0);
	return arg;
}

static void nested()
{
	for (int round = 0; round < 20; round++) {
		pthread_t t[12];

		for (int i = 0; i < CHAIN; i++) {
			chain[i] = PTHREAD_ONCE_INIT;
			ran[i] = 0;
		}
		for (unsigned i = 0; i < COUNT(t); i++)
			t[i] = spawn(i & 1 ? walk : walk_half, NULL);
		for (pthread_t x : t)
			join(x);
		for (std::atomic<int> &n : ran)
			CHECK_EQ(n.load(), 1);
	}
}

static const struct test_case cases[] = {
    {"by_an_exception", by_an_exception},
    {"by_exit", by_exit},
    {"by_cancellation", by_cancellation},
    {"by_asynchronous_cancellation", by_asynchronous_cancellation},
    {"waiting_is_no_cancellation_point", waiting_is_no_cancellation_point},
    {"standard_library", standard_library},
    {"nested", nested},
};

TEST_MAIN(cases)
