/*
 * Timers that signal one thread, as profilers use them: each signal reaches the thread that was
 * named and no other, while it computes and while it waits.
 */
#include "test.h"

#include <signal.h>
#include <time.h>

enum { N = 6, TICKS = 15 };
#define SIG (SIGRTMIN + 2)
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static volatile int got[N], wrong;
static __thread volatile int self = -1;

static void handler(int sig, siginfo_t *info, void *ctx)
{
	(void)sig;
	(void)ctx;
	if (self != info->si_value.sival_int || info->si_code != SI_TIMER)
		wrong = 1;
	else
		got[self]++;
}

static void *timed(void *arg)
{
	struct itimerspec every = {{0, 2000000}, {0, 2000000}};
	struct sigevent ev = {0};
	volatile long turns = 0;
	timer_t timer;
	int64_t end = now_ms() + 20000;

	self = (int)(intptr_t)arg;
	ev.sigev_notify = SIGEV_THREAD_ID;
	ev.sigev_signo = SIG;
	ev.sigev_value.sival_int = self;
	ev.sigev_notify_thread_id = gettid();
	REQUIRE(timer_create(CLOCK_MONOTONIC, &ev, &timer) == 0);
	REQUIRE(timer_settime(timer, 0, &every, NULL) == 0);
	while (got[self] < TICKS && now_ms() < end) {
		if (self % 2)
			turns++;
		else
			usleep(100000);
	}
	CHECK(got[self] >= TICKS);
	CHECK_EQ(timer_delete(timer), 0);
	return NULL;
}

static void each_its_own(void)
{
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};
	pthread_t t[N];

	REQUIRE(sigaction(SIG, &sa, NULL) == 0);
	for (int i = 0; i < N; i++)
		t[i] = spawn(timed, (void *)(intptr_t)i);
	for (int i = 0; i < N; i++)
		join(t[i]);
	CHECK_EQ(wrong, 0);
}

/* Numbers are used again. */
static void many_in_turn(void)
{
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < N; i++)
			got[i] = TICKS - 1;
		each_its_own();
	}
}

static const struct test_case cases[] = {
    {"each_its_own", each_its_own},
    {"many_in_turn", many_in_turn},
};

TEST_MAIN(cases)
