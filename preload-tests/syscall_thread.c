/*
 * Calls about threads made by syscall(): tids that it returns are good for signals and priorities,
 * masks set by it are the thread's own, and a thread may end by it.
 */
#include "test.h"

#include <sys/resource.h>
#include <sys/syscall.h>

enum { N = 16, KernelMask = 8 };

static volatile pid_t tids[N];
static volatile int got[N], go, ready;
static __thread volatile int self = -1;

static void handler(int sig)
{
	(void)sig;
	if (self >= 0)
		__atomic_add_fetch(&got[self], 1, __ATOMIC_RELAXED);
}

static void *signalled(void *arg)
{
	self = (int)(intptr_t)arg;
	tids[self] = (pid_t)syscall(SYS_gettid);
	CHECK_EQ(tids[self], gettid());
	__atomic_add_fetch(&ready, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&go, __ATOMIC_ACQUIRE))
		usleep(1000);
	return NULL;
}

static void start(pthread_t *t, void *(*fn)(void *))
{
	ready = go = 0;
	for (int i = 0; i < N; i++) {
		got[i] = 0;
		t[i] = spawn(fn, (void *)(intptr_t)i);
	}
	CHECK(wait_for(&ready, N, 10000));
}

static void finish(pthread_t *t)
{
	__atomic_store_n(&go, 1, __ATOMIC_RELEASE);
	for (int i = 0; i < N; i++)
		join(t[i]);
}

static void signals_by_tid(void)
{
	pthread_t t[N];

	signal(SIGUSR1, handler);
	start(t, signalled);
	for (int i = 0; i < N; i++) {
		CHECK_EQ(syscall(SYS_tgkill, getpid(), tids[i], SIGUSR1), 0);
		CHECK(wait_for(&got[i], 1, 10000));
		CHECK_EQ(syscall(SYS_tkill, tids[i], SIGUSR1), 0);
		CHECK(wait_for(&got[i], 2, 10000));
	}
	for (int i = 0; i < N; i++)
		CHECK_EQ(got[i], 2);
	finish(t);
	CHECK_ERRNO(syscall(SYS_tgkill, getpid(), 0x3ffffffe, 0), ESRCH);
}

/* Every second thread blocks the signal; all yield a lot, and go from one processor to another. */
static void *masks(void *arg)
{
	self = (int)(intptr_t)arg;
	uint64_t mine = 1ull << (SIGUSR1 - 1), old = 0, now = 0;
	if (self % 2)
		CHECK_EQ(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &mine, &old, KernelMask), 0);
	CHECK_EQ((int)(old >> (SIGUSR1 - 1) & 1), 0);
	for (int i = 0; i < 200; i++) {
		sigset_t s;

		sched_yield();
		CHECK_EQ(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &now, KernelMask), 0);
		CHECK_EQ((int)(now >> (SIGUSR1 - 1) & 1), self % 2);
		pthread_sigmask(SIG_BLOCK, NULL, &s);
		CHECK_EQ(sigismember(&s, SIGUSR1), self % 2);
	}
	CHECK_EQ(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1), 0);
	CHECK_EQ(got[self], self % 2 ? 0 : 1);
	if (self % 2) {
		CHECK_EQ(syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &mine, NULL, KernelMask), 0);
		CHECK_EQ(got[self], 1);
	}
	__atomic_add_fetch(&ready, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void masks_of_threads(void)
{
	pthread_t t[N];

	signal(SIGUSR1, handler);
	start(t, masks);
	finish(t);
}

static void *kernel_state(void *arg)
{
	cpu_set_t set;
	pid_t tid = (pid_t)syscall(SYS_gettid);
	int i = (int)(intptr_t)arg;

	CHECK(syscall(SYS_sched_getaffinity, tid, sizeof set, &set) > 0);
	if (i % 2) {
		CHECK_EQ(syscall(SYS_setpriority, PRIO_PROCESS, tid, i), 0);
		CHECK_EQ(syscall(SYS_sched_setaffinity, tid, sizeof set, &set), 0);
	}
	for (int k = 0; k < 50; k++) {
		usleep(100);
		/* As the kernel says it: 20 less the value. */
		CHECK_EQ(syscall(SYS_getpriority, PRIO_PROCESS, tid), i % 2 ? 20 - i : 20);
	}
	if (i == 0)
		CHECK_EQ(syscall(SYS_ioprio_set, 1, tid, 2 << 13 | 5), 0);
	__atomic_add_fetch(&ready, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void priorities(void)
{
	pthread_t t[N];

	start(t, kernel_state);
	finish(t);
}

static pthread_key_t key;

static void never(void *arg)
{
	(void)arg;
	FAIL("a destructor ran");
}

static void *ends(void *arg)
{
	pthread_setspecific(key, arg);
	__atomic_add_fetch(&ready, 1, __ATOMIC_RELEASE);
	syscall(SYS_exit, 0);
	FAIL("back from exit");
	return NULL;
}

/* More of them than there are processors: each would take one with it. */
static void thread_exits(void)
{
	pthread_t t[N];

	REQUIRE_OK(pthread_key_create(&key, never));
	for (int round = 0; round < 5; round++) {
		start(t, ends);
		finish(t);
	}
	pthread_key_delete(key);
}

static const struct test_case cases[] = {
    {"signals_by_tid", signals_by_tid},
    {"masks_of_threads", masks_of_threads},
    {"priorities", priorities},
    {"thread_exits", thread_exits},
};

TEST_MAIN(cases)
