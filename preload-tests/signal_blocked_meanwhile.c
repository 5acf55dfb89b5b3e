/*
 * A signal for the process whose thread blocks it at that moment, or has no use for it any more, is another thread's that has
 * it open or waits for it. It is not kept for the first: by pthread_sigmask, for the length of a handler, after sigwait, and by its end.
 * Queued ones stay in order meanwhile; and one that all block by then is seen by sigpending, signalfd and sigtimedwait.
 *
 * Nothing is timed: a signal that is kept ends the test's time.
 */
#include "test.h"

#include <sys/signalfd.h>
#include <ucontext.h>

enum { ROUNDS = 200, QUEUED = 400 };

static volatile int handled, turn, stop;
static volatile int done[2];
static unsigned seeds[2];

static void handler(int sig)
{
	(void)sig;
	__atomic_add_fetch(&handled, 1, __ATOMIC_SEQ_CST);
}

static void spin(unsigned *seed)
{
	*seed = *seed * 1103515245 + 12345;
	for (volatile unsigned i = *seed >> 16 & 0x3ff; i; i--)
		;
}

/* Waits in the handler until the other signal has been handled, by the other thread. */
static void waits(int sig)
{
	(void)sig;
	int seen = turn;
	while (handled < seen && !stop)
		sched_yield();
}

static void by_mask(void)
{
	sigset_t set;
	int seen = turn;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	while (handled < seen && !stop)
		sched_yield();
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void by_handler(void)
{
	raise(SIGUSR2);
}

static void (*block)(void);

/* In its turns it blocks the signal until it has been handled; in the other's it has the signal open. */
static void *takes_turns(void *arg)
{
	int self = (int)(intptr_t)arg, seen = 0;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	while (!stop) {
		if (turn == seen) {
			usleep(50);
			continue;
		}
		seen = turn;
		if (seen % 2 == self) {
			spin(&seeds[self]);
			block();
		}
		done[self] = seen;
	}
	return NULL;
}

static void run(void (*way)(void), int rounds)
{
	struct sigaction sa = {.sa_handler = handler}, second = {.sa_handler = waits};
	sigset_t set, old;
	unsigned seed = 1;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&second.sa_mask, SIGUSR1);
	REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0 && sigaction(SIGUSR2, &second, NULL) == 0);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	block = way;
	stop = handled = turn = 0;
	pthread_t t[2] = {spawn(takes_turns, (void *)0), spawn(takes_turns, (void *)1)};
	for (int i = 1; i <= rounds; i++) {
		turn = i;
		spin(&seed);
		CHECK_EQ(kill(getpid(), SIGUSR1), 0);
		while (handled < i)
			usleep(20);
		while (done[0] != i || done[1] != i)
			usleep(20);
	}
	stop = 1;
	join(t[0]);
	join(t[1]);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void masks(void)
{
	run(by_mask, ROUNDS);
}

static void handlers(void)
{
	run(by_handler, ROUNDS);
}

static sigset_t both;

/* Who has taken one waits until the other has been taken. */
static void *takes_one(void *arg)
{
	for (int i = 1; i <= ROUNDS; i++) {
		int sig = 0;

		CHECK_EQ(sigwait(&both, &sig), 0);
		CHECK(sig == SIGUSR1 || sig == SIGUSR2);
		__atomic_add_fetch(&handled, 1, __ATOMIC_SEQ_CST);
		while (handled < 2 * i)
			sched_yield();
	}
	return arg;
}

static void waited_for(void)
{
	sigset_t old;

	sigemptyset(&both);
	sigaddset(&both, SIGUSR1);
	sigaddset(&both, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &both, &old);
	handled = 0;
	pthread_t t[2] = {spawn(takes_one, NULL), spawn(takes_one, NULL)};
	for (int i = 1; i <= ROUNDS; i++) {
		CHECK_EQ(kill(getpid(), SIGUSR1), 0);
		CHECK_EQ(kill(getpid(), SIGUSR2), 0);
		while (handled < 2 * i)
			usleep(20);
	}
	join(t[0]);
	join(t[1]);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* It ends with the signal open, which may just have been sent. */
static void *ends(void *arg)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	spin(&seeds[0]);
	return arg;
}

static void *has_it_open(void *arg)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	while (!stop)
		usleep(50);
	return arg;
}

static void ended(void)
{
	struct sigaction sa = {.sa_handler = handler};
	sigset_t set, old;
	unsigned seed = 1;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	stop = handled = 0;
	pthread_t other = spawn(has_it_open, NULL);
	for (int i = 1; i <= ROUNDS; i++) {
		pthread_t t = spawn(ends, NULL);
		spin(&seed);
		CHECK_EQ(kill(getpid(), SIGUSR1), 0);
		join(t);
		while (handled < i)
			usleep(20);
	}
	stop = 1;
	join(other);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* --- queued ones -------------------------------------------------------------------------------- */

#define RT (SIGRTMIN + 2)

static unsigned char came[QUEUED];
static __thread int last_value;

static void note(const siginfo_t *info)
{
	int value = info->si_value.sival_int;

	CHECK_EQ(info->si_code, SI_QUEUE);
	if (value <= last_value)
		FAIL("%d came after %d", value, last_value);
	last_value = value;
	__atomic_add_fetch(&came[value - 1], 1, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&handled, 1, __ATOMIC_SEQ_CST);
}

static void on_queued(int sig, siginfo_t *info, void *uc)
{
	(void)sig, (void)uc;
	note(info);
}

static void *opens_and_shuts(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, RT);
	while (handled < QUEUED) {
		pthread_sigmask(SIG_UNBLOCK, &set, NULL);
		spin(&seed);
		pthread_sigmask(SIG_BLOCK, &set, NULL);
		sched_yield();
	}
	return NULL;
}

static void *waits_for_queued(void *arg)
{
	struct timespec soon = {0, 1000000};
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, RT);
	while (handled < QUEUED)
		if (sigtimedwait(&set, &info, &soon) == RT)
			note(&info);
	return arg;
}

static void queued_for(void *(*body)(void *))
{
	struct sigaction sa = {.sa_sigaction = on_queued, .sa_flags = SA_SIGINFO};
	sigset_t set, old;
	pthread_t t[3];

	sigemptyset(&set);
	sigaddset(&set, RT);
	REQUIRE(sigaction(RT, &sa, NULL) == 0);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	handled = 0;
	memset(came, 0, sizeof came);
	for (int i = 0; i < 3; i++)
		t[i] = spawn(body, (void *)(intptr_t)(i + 1));
	for (int i = 1; i <= QUEUED; i++) {
		union sigval v = {.sival_int = i};
		CHECK_EQ(sigqueue(getpid(), RT, v), 0);
	}
	for (int i = 0; i < 3; i++)
		join(t[i]);
	for (int i = 0; i < QUEUED; i++)
		if (came[i] != 1)
			FAIL("%d came %d times", i + 1, came[i]);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void queued(void)
{
	queued_for(opens_and_shuts);
	queued_for(waits_for_queued);
}

/* --- blocked by all ----------------------------------------------------------------------------- */

/* They are sent while only this handler blocks them; when it returns all do. */
static void sends_and_shuts(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;

	(void)sig, (void)info;
	CHECK_EQ(kill(getpid(), SIGUSR1), 0);
	for (int i = 1; i <= 3; i++) {
		union sigval v = {.sival_int = i};
		CHECK_EQ(sigqueue(getpid(), RT, v), 0);
	}
	sigaddset(&uc->uc_sigmask, SIGUSR1);
	sigaddset(&uc->uc_sigmask, RT);
}

static void *keeps_them(void *arg)
{
	struct sigaction sa = {.sa_sigaction = sends_and_shuts, .sa_flags = SA_SIGINFO};
	struct signalfd_siginfo read_first[3];
	struct timespec now = {0, 0};
	siginfo_t info;
	sigset_t set, pending, fds;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, RT);
	sa.sa_mask = set;
	REQUIRE(sigaction(SIGUSR2, &sa, NULL) == 0);
	signal(SIGUSR1, SIG_DFL); /* that of the process's end, if it were not blocked */
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	raise(SIGUSR2);
	sigpending(&pending);
	CHECK(sigismember(&pending, SIGUSR1) == 1 && sigismember(&pending, RT) == 1);
	CHECK(sigismember(&pending, SIGUSR2) == 0);
	fds = set;
	int fd = signalfd(-1, &fds, SFD_NONBLOCK | SFD_CLOEXEC);
	REQUIRE(fd >= 0);
	CHECK_EQ((int)read(fd, read_first, sizeof read_first), (int)sizeof read_first);
	CHECK_EQ((int)read_first[0].ssi_signo, SIGUSR1);
	CHECK_EQ(read_first[0].ssi_code, SI_USER);
	for (int i = 1; i <= 2; i++) {
		CHECK_EQ((int)read_first[i].ssi_signo, RT);
		CHECK_EQ(read_first[i].ssi_code, SI_QUEUE);
		CHECK_EQ(read_first[i].ssi_int, i);
	}
	CHECK_EQ(sigtimedwait(&set, &info, &now), RT);
	CHECK_EQ(info.si_value.sival_int, 3);
	sigpending(&pending);
	CHECK(sigismember(&pending, SIGUSR1) == 0 && sigismember(&pending, RT) == 0);
	CHECK_EQ((int)read(fd, read_first, sizeof read_first), -1);
	CHECK_EQ(errno, EAGAIN);
	close(fd);
	return arg;
}

static void blocked_by_all(void)
{
	sigset_t set, old;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, RT);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	join(spawn(keeps_them, NULL));
	join(spawn(keeps_them, NULL)); /* a signalfd is known of by then */
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static const struct test_case cases[] = {
    {"masks", masks}, {"handlers", handlers}, {"waited_for", waited_for},
    {"ended", ended}, {"queued", queued},     {"blocked_by_all", blocked_by_all},
};

TEST_MAIN(cases)
