/*
 * Signals that arrive while the only thread that has them open is in its handler, which blocks
 * them: none is lost, whoever sends them.
 */
#include "test.h"

#include <semaphore.h>

enum { SIGNALS = 2000, INFLIGHT = 20 };

static sem_t room;
static volatile int received, stop;

static void handler(int sig)
{
	(void)sig;
	__atomic_add_fetch(&received, 1, __ATOMIC_SEQ_CST);
	sem_post(&room);
}

static sigset_t only(int sig)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	return set;
}

static void *receiver(void *arg)
{
	sigset_t set = only(SIGRTMIN);
	struct timespec soon = {0, 1000000};

	REQUIRE_OK(pthread_sigmask(SIG_UNBLOCK, &set, NULL));
	while (!stop)
		if (arg)
			nanosleep(&soon, NULL);
	return NULL;
}

static void count(pid_t (*sender)(void), void *sleeps)
{
	sigset_t all, before;
	struct sigaction sa = {.sa_handler = handler};

	received = stop = 0;
	REQUIRE(sem_init(&room, 0, INFLIGHT) == 0);
	sigfillset(&sa.sa_mask);
	REQUIRE(sigaction(SIGRTMIN, &sa, NULL) == 0);
	sigfillset(&all);
	REQUIRE_OK(pthread_sigmask(SIG_SETMASK, &all, &before));
	pthread_t t = spawn(receiver, sleeps);
	pid_t pid = sender();
	CHECK(wait_for(&received, SIGNALS, 30000));
	stop = 1;
	join(t);
	CHECK_EQ(received, SIGNALS);
	if (pid)
		waitpid(pid, NULL, 0);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static pid_t self(void)
{
	for (int i = 0; i < SIGNALS; i++) {
		while (sem_wait(&room) != 0)
			;
		CHECK_EQ(kill(getpid(), SIGRTMIN), 0);
	}
	return 0;
}

/* The kernel queues a limited number for a user. */
static pid_t child(void)
{
	pid_t parent = getpid(), pid = fork();

	REQUIRE(pid >= 0);
	if (pid)
		return pid;
	for (int i = 0; i < SIGNALS; i++)
		while (sigqueue(parent, SIGRTMIN, (union sigval){.sival_int = i}) != 0)
			sched_yield();
	_exit(0);
}

static void own_to_sleeper(void)
{
	count(self, &room);
}

static void own_to_spinner(void)
{
	count(self, NULL);
}

static void others_to_sleeper(void)
{
	count(child, &room);
}

static void others_to_spinner(void)
{
	count(child, NULL);
}

static const struct test_case cases[] = {
    {"own_to_sleeper", own_to_sleeper},
    {"own_to_spinner", own_to_spinner},
    {"others_to_sleeper", others_to_sleeper},
    {"others_to_spinner", others_to_spinner},
};

TEST_MAIN(cases)
