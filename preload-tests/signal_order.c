/*
 * Queued signals for one thread are handled one after the other, in order, however fast they come: while it computes,
 * waits and opens its mask. A handler that has begun is not overtaken by the next, which it blocks.
 */
#include "test.h"

static int64_t end;
static volatile int over;
static int next_value, depth, in_order = 1;
static volatile int handled;

static void handler(int sig, siginfo_t *info, void *uc)
{
	(void)sig, (void)uc;
	if (++depth != 1 || info->si_value.sival_int != next_value)
		in_order = 0;
	next_value = info->si_value.sival_int + 1;
	handled = next_value;
	depth--;
}

static void *sends(void *to)
{
	union sigval v = {.sival_int = 0};

	while (now_ns() < end && in_order) {
		/* A burst, so that one comes while another's handler begins. */
		while (v.sival_int - handled > 200 && in_order)
			sched_yield();
		int r = pthread_sigqueue(*(pthread_t *)to, SIGRTMIN + 1, v);
		if (r == 0)
			v.sival_int++;
		else
			REQUIRE(r == EAGAIN);
	}
	over = 1;
	return NULL;
}

static void opens_its_mask(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void naps(void)
{
	usleep(1);
}

static void computes(void)
{
	for (volatile int i = 0; i < 1000; i++)
		;
}

static void (*const ways[])(void) = {opens_its_mask, naps, computes};
static unsigned way;

static void *receives(void *arg)
{
	pthread_t self = pthread_self(), t;

	next_value = handled = over = 0;
	end = now_ns() + 300000000;
	t = spawn(sends, &self);
	while (!over)
		ways[way]();
	join(t);
	CHECK(in_order);
	CHECK(handled > 0);
	return arg;
}

static void however_it_takes_them(void)
{
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};

	REQUIRE(sigaction(SIGRTMIN + 1, &sa, NULL) == 0);
	for (way = 0; way < COUNT(ways); way++)
		join(spawn(receives, NULL));
}

static const struct test_case cases[] = {
    {"however_it_takes_them", however_it_takes_them},
};

TEST_MAIN(cases)
