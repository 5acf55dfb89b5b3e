/*
 * All threads are asleep, but something outside of them wakes one: nobody may say before that nothing can.
 */
#include "foreign.h"
#include "near.h"

#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/timerfd.h>

static sem_t posted;

/* --- all are asleep, but not for ever ------------------------------------------------------------------- */

static void *waits_for_post(void *arg)
{
	while (sem_wait(&posted) != 0)
		;
	return arg;
}

static void *foreign_posts(void *arg)
{
	sleep_ms(ASLEEP);
	sem_post(&posted);
	return arg;
}

static void a_kernel_thread_posts(void)
{
	pthread_t foreign = spawn_really(foreign_posts, NULL);

	join(spawn(waits_for_post, NULL));
	pthread_join(foreign, NULL);
	quiet();
}

static void on_expiry(union sigval v)
{
	(void)v;
	sem_post(&posted);
}

static void a_timer_posts(void)
{
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_expiry};
	struct itimerspec in = {.it_value = {0, ASLEEP * 1000000}};
	timer_t timer;

	REQUIRE(timer_create(CLOCK_MONOTONIC, &ev, &timer) == 0);
	REQUIRE(timer_settime(timer, 0, &in, NULL) == 0);
	join(spawn(waits_for_post, NULL));
	timer_delete(timer);
	quiet();
}

static int process_posts(void *arg)
{
	usleep(ASLEEP * 1000);
	sem_post(arg);
	_exit(0);
}

static void a_process_in_this_memory_posts(void)
{
	enum { STACK = 256 << 10 };
	char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t t = spawn(waits_for_post, NULL);
	int status;

	/* Natively a private semaphore's futex is this memory's, whoever wakes it. */
	pid_t pid = clone(process_posts, stack + STACK, CLONE_VM | SIGCHLD, &posted);
	REQUIRE(pid > 0);
	join(t);
	REQUIRE(waitpid(pid, &status, 0) == pid);
	quiet();
}

/* Main waits as each of these do, and another thread for a post. */
static void on_signal(int sig)
{
	(void)sig;
	sem_post(&posted);
}

static void sleeps(void)
{
	sleep_ms(ASLEEP);
	sem_post(&posted);
}

static void waits_for_signal(void)
{
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	sigwait(&set, &sig);
	sem_post(&posted);
}

static void polls(void)
{
	struct itimerspec in = {.it_value = {0, ASLEEP * 1000000}};
	struct epoll_event ev = {.events = EPOLLIN};
	int ep = epoll_create1(0), fd = timerfd_create(CLOCK_MONOTONIC, 0);

	REQUIRE(ep >= 0 && fd >= 0 && timerfd_settime(fd, 0, &in, NULL) == 0);
	REQUIRE(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0);
	CHECK_EQ(epoll_wait(ep, &ev, 1, -1), 1);
	close(fd);
	close(ep);
	sem_post(&posted);
}

static int pipes[2];

static void reads(void)
{
	char c;

	CHECK_EQ(read(pipes[0], &c, 1), 1);
	sem_post(&posted);
}

static void *only_waits(void *arg)
{
	void (*how)(void) = (void (*)(void))(uintptr_t)arg;

	how();
	return NULL;
}

/* Once by main, once by a thread while main joins. */
static void asleep_in(void (*how)(void), int sig)
{
	for (int by_main = 0; by_main < 2; by_main++) {
		pthread_t t = spawn(waits_for_post, NULL), sleeper = 0;
		pid_t pid = fork(); /* who ends the wait */

		REQUIRE(pid >= 0);
		if (pid == 0) {
			usleep(2 * ASLEEP * 1000);
			if (sig)
				kill(getppid(), sig);
			else if (how == reads && write(pipes[1], "x", 1) != 1)
				_exit(1);
			_exit(0);
		}
		if (by_main)
			how();
		else
			sleeper = spawn(only_waits, (void *)(uintptr_t)how);
		join(t);
		if (!by_main)
			join(sleeper);
		REQUIRE(waitpid(pid, NULL, 0) == pid);
	}
	quiet();
}

static void asleep_in_a_sleep(void)
{
	asleep_in(sleeps, 0);
}

static void asleep_in_sigwait(void)
{
	sigset_t set, old;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	asleep_in(waits_for_signal, SIGALRM);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void asleep_in_epoll(void)
{
	asleep_in(polls, 0);
}

static void asleep_in_read(void)
{
	REQUIRE(pipe(pipes) == 0);
	asleep_in(reads, 0);
	close(pipes[0]);
	close(pipes[1]);
}

/* With a handler that could post: all wait for semaphores and joins alone. */
static void joins_only(void)
{
}

static void a_handler_posts(void)
{
	struct sigaction sa = {.sa_handler = on_signal}, old;

	REQUIRE(sigaction(SIGUSR1, &sa, &old) == 0);
	asleep_in(joins_only, SIGUSR1);
	REQUIRE(sigaction(SIGUSR1, &old, NULL) == 0);
}

static void asleep_in_pause(void)
{
	struct sigaction sa = {.sa_handler = on_signal}, old;

	REQUIRE(sigaction(SIGUSR1, &sa, &old) == 0);
	/* Which thread handles it is open: main, or else the only one, has to. */
	pthread_t t = spawn(waits_for_post, NULL);
	pid_t pid = fork();
	if (pid == 0) {
		usleep(2 * ASLEEP * 1000);
		kill(getppid(), SIGUSR1);
		_exit(0);
	}
	pause();
	join(t);
	REQUIRE(waitpid(pid, NULL, 0) == pid);
	REQUIRE(sigaction(SIGUSR1, &old, NULL) == 0);
	quiet();
}

ALONE(asleep_in_a_sleep)
ALONE(asleep_in_sigwait)
ALONE(asleep_in_epoll)
ALONE(asleep_in_read)
ALONE(a_handler_posts)
ALONE(asleep_in_pause)
ALONE(a_kernel_thread_posts)
ALONE(a_timer_posts)
ALONE(a_process_in_this_memory_posts)

static const struct test_case cases[] = {
    {"asleep_in_a_sleep", asleep_in_a_sleep_alone},
    {"asleep_in_sigwait", asleep_in_sigwait_alone},
    {"asleep_in_epoll", asleep_in_epoll_alone},
    {"asleep_in_read", asleep_in_read_alone},
    {"a_handler_posts", a_handler_posts_alone},
    {"asleep_in_pause", asleep_in_pause_alone},
    {"a_kernel_thread_posts", a_kernel_thread_posts_alone},
    {"a_timer_posts", a_timer_posts_alone},
    {"a_process_in_this_memory_posts", a_process_in_this_memory_posts_alone},
};
NEAR_MAIN(cases)
