/*
 * Calls that set a mask for their own length: the handler that runs then finds the mask of before in its context, as it is to
 * be restored, and what it changes there holds afterwards.
 */
#include "test.h"

#include <sys/epoll.h>
#include <sys/select.h>

#define BIT(sig) (1ull << ((sig)-1))

static int fd, changes, handled;
static uint64_t in_context, in_force;

static uint64_t bits(const sigset_t *set)
{
	uint64_t m;

	memcpy(&m, set, sizeof m);
	return m;
}

static uint64_t current(void)
{
	sigset_t set;

	pthread_sigmask(SIG_BLOCK, NULL, &set);
	return bits(&set);
}

static sigset_t two(int sig, int other)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	sigaddset(&set, other);
	return set;
}

static void handler(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	(void)info;
	in_context = bits(&uc->uc_sigmask);
	in_force = current();
	handled++;
	if (changes)
		sigaddset(&uc->uc_sigmask, SIGHUP);
}

static int by_sigsuspend(const sigset_t *mask)
{
	return sigsuspend(mask);
}

static int by_ppoll(const sigset_t *mask)
{
	struct timespec ts = {5, 0};

	return ppoll(NULL, 0, &ts, mask);
}

static int by_pselect(const sigset_t *mask)
{
	struct timespec ts = {5, 0};

	return pselect(0, NULL, NULL, NULL, &ts, mask);
}

static int by_epoll_pwait(const sigset_t *mask)
{
	struct epoll_event ev;

	return epoll_pwait(fd, &ev, 1, 5000, mask);
}

static const struct {
	const char *name;
	int (*call)(const sigset_t *);
} calls[] = {
    {"sigsuspend", by_sigsuspend},
    {"ppoll", by_ppoll},
    {"pselect", by_pselect},
    {"epoll_pwait", by_epoll_pwait},
};

static void *send_later(void *arg)
{
	sleep_ms(20);
	CHECK_EQ(pthread_kill(*(pthread_t *)arg, SIGUSR1), 0);
	return NULL;
}

static void *wait_in_each(void *arg)
{
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
	sigset_t before = two(SIGUSR1, SIGTERM), meanwhile = two(SIGINT, SIGINT), old;
	pthread_t self = pthread_self();

	sigemptyset(&sa.sa_mask);
	sigaddset(&sa.sa_mask, SIGUSR2);
	REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
	REQUIRE((fd = epoll_create1(0)) >= 0);
	pthread_sigmask(SIG_SETMASK, &before, &old);
	for (unsigned i = 0; i < COUNT(calls) * 4; i++) {
		const char *name = calls[i / 4].name;
		int pending = i & 1;
		pthread_t sender = self;

		changes = i >> 1 & 1;
		handled = 0;
		if (pending)
			CHECK_EQ(pthread_kill(self, SIGUSR1), 0);
		else
			sender = spawn(send_later, &self);
		CHECK_ERRNO(calls[i / 4].call(&meanwhile), EINTR);
		CHECK_EQ(handled, 1);
		if (in_context != bits(&before))
			FAIL("%s: %#llx in the context", name, (long long)in_context);
		if (in_force != (bits(&meanwhile) | BIT(SIGUSR1) | BIT(SIGUSR2)))
			FAIL("%s: %#llx in the handler", name, (long long)in_force);
		if (current() != (bits(&before) | (changes ? BIT(SIGHUP) : 0)))
			FAIL("%s: %#llx afterwards", name, (long long)current());
		pthread_sigmask(SIG_SETMASK, &before, NULL);
		if (!pending)
			join(sender);
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	close(fd);
	return arg;
}

BY_MAIN_AND_A_THREAD(wait_in_each)

static const struct test_case cases[] = {{"by_main", by_main}, {"by_a_thread", by_a_thread}};

TEST_MAIN(cases)
