/*
 * Functions under the versions that programs of old were linked with, where these are functions of their own.
 */
#include "test.h"

#include <setjmp.h>
#include <spawn.h>
#include <threads.h>

#define OLD(name, version) __asm__(".symver old_" #name ", " #name "@" version)
int old_pthread_kill(pthread_t t, int sig);
int old_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int old_posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *fa,
		    const posix_spawnattr_t *attr, char *const argv[], char *const envp[]);
int old_posix_spawnp(pid_t *pid, const char *path, const posix_spawn_file_actions_t *fa,
		     const posix_spawnattr_t *attr, char *const argv[], char *const envp[]);
int old_pthread_getaffinity_np(pthread_t t, cpu_set_t *set);
int old_pthread_setaffinity_np(pthread_t t, cpu_set_t *set);
int old_sched_getaffinity(pid_t tid, cpu_set_t *set);
int old_sched_setaffinity(pid_t tid, cpu_set_t *set);
int old_timer_create(clockid_t clock, struct sigevent *ev, int *timer);
int old_timer_delete(int timer);
int old_timer_settime(int timer, int flags, const struct itimerspec *value, struct itimerspec *old);
int old_timer_gettime(int timer, struct itimerspec *value);
int old_timer_getoverrun(int timer);
OLD(pthread_kill, "GLIBC_2.2.5");
OLD(pthread_atfork, "GLIBC_2.2.5");
OLD(posix_spawn, "GLIBC_2.2.5");
OLD(posix_spawnp, "GLIBC_2.2.5");
OLD(pthread_getaffinity_np, "GLIBC_2.3.3");
OLD(pthread_setaffinity_np, "GLIBC_2.3.3");
OLD(sched_getaffinity, "GLIBC_2.3.3");
OLD(sched_setaffinity, "GLIBC_2.3.3");
OLD(timer_create, "GLIBC_2.2.5");
OLD(timer_delete, "GLIBC_2.2.5");
OLD(timer_settime, "GLIBC_2.2.5");
OLD(timer_gettime, "GLIBC_2.2.5");
OLD(timer_getoverrun, "GLIBC_2.2.5");
/* A function; <setjmp.h> has a macro for the one that saves no mask. */
#undef setjmp
extern int setjmp(jmp_buf env) __attribute__((returns_twice));

static volatile int handled;

static void handler(int sig)
{
	(void)sig;
	handled++;
}

static void *returns(void *arg)
{
	return arg;
}

static void *waits(void *arg)
{
	while (!__atomic_load_n((int *)arg, __ATOMIC_ACQUIRE))
		usleep(1000);
	return NULL;
}

/* ESRCH of a thread that has ended; since 2.34 that is no error. */
static void *kills(void *arg)
{
	int stop = 0;
	pthread_t gone = spawn(returns, NULL), there = spawn(waits, &stop);

	REQUIRE(signal(SIGUSR1, handler) != SIG_ERR);
	handled = 0;
	CHECK_EQ(old_pthread_kill(pthread_self(), SIGUSR1), 0);
	CHECK_EQ(handled, 1);
	CHECK_EQ(old_pthread_kill(there, SIGUSR1), 0);
	CHECK(wait_for(&handled, 2, 5000));
	CHECK_EQ(old_pthread_kill(there, 0), 0);
	while (old_pthread_kill(gone, 0) != ESRCH)
		usleep(1000);
	CHECK_EQ(pthread_kill(gone, 0), 0);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	join(gone);
	join(there);
	return arg;
}

static volatile int prepared, in_parent, in_a_child;

static void prepare(void)
{
	prepared++;
}

static void parent(void)
{
	in_parent++;
}

/* A handler in the child may do what a thread can. */
static void child(void)
{
	join(spawn(returns, NULL));
	in_a_child++;
}

static int handlers_ran(void)
{
	return prepared == 1 && in_a_child == 1 && in_parent == 0 ? 42 : 1;
}

/* Registered before there is any other handler. */
static void forks(void)
{
	CHECK_EQ(old_pthread_atfork(prepare, parent, child), 0);
	join(spawn(returns, NULL));
	int status = in_child(handlers_ran);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
	CHECK_EQ(in_parent, 1);
}

static void *spawns(void *arg)
{
	char *const argv[] = {"sh", "-c", "exit 9", NULL};
	extern char **environ;
	int status = -1;
	pid_t pid;

	CHECK_EQ(old_posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ), 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 9);
	CHECK_EQ(old_posix_spawnp(&pid, "sh", NULL, NULL, argv, environ), 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 9);
	return arg;
}

static void *affinities(void *arg)
{
	cpu_set_t all, set;

	CHECK_EQ(old_pthread_getaffinity_np(pthread_self(), &all), 0);
	CHECK(CPU_COUNT(&all) > 0);
	CHECK_EQ(old_sched_getaffinity(0, &set), 0);
	CHECK(CPU_EQUAL(&all, &set));
	CHECK_EQ(old_sched_getaffinity(gettid(), &set), 0);
	CHECK(CPU_EQUAL(&all, &set));
	CPU_ZERO(&set);
	for (int i = 0; CPU_COUNT(&set) == 0; i++)
		if (CPU_ISSET(i, &all))
			CPU_SET(i, &set);
	CHECK_EQ(old_pthread_setaffinity_np(pthread_self(), &set), 0);
	CHECK_EQ(old_sched_getaffinity(0, &set), 0);
	CHECK_EQ(CPU_COUNT(&set), 1);
	CHECK_EQ(old_sched_setaffinity(gettid(), &all), 0);
	CHECK_EQ(old_pthread_getaffinity_np(pthread_self(), &set), 0);
	CHECK(CPU_EQUAL(&all, &set));
	return arg;
}

static void *jumps(void *arg)
{
	static __thread jmp_buf env;
	sigset_t set;
	volatile int jumped = 0;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	if (setjmp(env) == 0) {
		pthread_sigmask(SIG_BLOCK, &set, NULL);
		longjmp(env, 1);
	} else {
		jumped = 1;
	}
	CHECK_EQ(jumped, 1);
	pthread_sigmask(SIG_BLOCK, NULL, &set);
	CHECK(!sigismember(&set, SIGUSR1));
	return arg;
}

static __thread volatile int ticks[2];
static volatile int strays;

static void tick(int sig, siginfo_t *info, void *uc)
{
	(void)sig, (void)uc;
	if (info->si_value.sival_ptr == (void *)ticks)
		ticks[info->si_code == SI_TIMER]++;
	else
		strays++;
}

/* Of numbers, as a profiler has them: of the thread's own CPU time, to that thread; two at a time. */
static void *timers(void *arg)
{
	struct sigaction sa = {.sa_sigaction = tick, .sa_flags = SA_SIGINFO | SA_RESTART};
	struct itimerspec every = {{0, 1000000}, {0, 1000000}}, got = {{0, 0}, {0, 0}};
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 5};
	timer_t first;
	int one = -1, two = -1;

	/* libc takes the place of the kernel's timer 0 for a free one. */
	REQUIRE(timer_create(CLOCK_REALTIME, NULL, &first) == 0);
	REQUIRE(sigaction(SIGRTMIN + 5, &sa, NULL) == 0);
	ev._sigev_un._tid = gettid();
	ev.sigev_value.sival_ptr = (void *)ticks;
	CHECK_EQ(old_timer_create(CLOCK_THREAD_CPUTIME_ID, &ev, &one), 0);
	CHECK_EQ(old_timer_create(CLOCK_MONOTONIC, &ev, &two), 0);
	CHECK(one >= 0 && two >= 0 && one != two);
	CHECK_EQ(old_timer_settime(one, 0, &every, NULL), 0);
	while (ticks[1] < 10)
		;
	CHECK_EQ(old_timer_gettime(one, &got), 0);
	CHECK(got.it_interval.tv_nsec >= 1000000 && got.it_interval.tv_nsec <= 4000000);
	CHECK_EQ(old_timer_gettime(two, &got), 0);
	CHECK_EQ(got.it_interval.tv_nsec, 0);
	CHECK(old_timer_getoverrun(one) >= 0);
	CHECK_EQ(old_timer_delete(one), 0);
	ticks[1] = 0;
	CHECK_EQ(old_timer_settime(two, 0, &every, NULL), 0);
	while (ticks[1] < 10)
		usleep(1000);
	CHECK_EQ(old_timer_delete(two), 0);
	CHECK_EQ(timer_delete(first), 0);
	CHECK_EQ(ticks[0] + strays, 0);
	return arg;
}

static void *(*const functions[])(void *) = {kills, spawns, affinities, jumps, timers};

static void by_main(void)
{
	for (unsigned i = 0; i < COUNT(functions); i++)
		functions[i](NULL);
}

static void by_a_thread(void)
{
	for (unsigned i = 0; i < COUNT(functions); i++)
		join(spawn(functions[i], NULL));
}

static const struct test_case cases[] = {
    {"forks", forks},
    {"by_main", by_main},
    {"by_a_thread", by_a_thread},
};

TEST_MAIN(cases)
