/*
 * A process that signals itself by whatever call, as one of a group, by a descriptor, with
 * information of its own: when the call returns, the handler has run if the caller is the only one
 * that has not blocked the signal (POSIX); and a thread that blocks it has it pending.
 */
#include "test.h"

#include <mqueue.h>

#include <sys/pidfd.h>

static volatile int handled, last_code, last_value;
static volatile pthread_t handled_by;
static int pidfd;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	(void)context;
	CHECK_EQ(info->si_signo, sig);
	CHECK_EQ(info->si_pid, getpid());
	last_code = info->si_code;
	last_value = info->si_value.sival_int;
	handled_by = pthread_self();
	handled++;
}

static siginfo_t filled(void)
{
	siginfo_t info = {.si_code = SI_QUEUE};

	info.si_pid = getpid();
	info.si_uid = getuid();
	info.si_value.sival_int = 42;
	return info;
}

static long by_kill(int sig)
{
	return kill(getpid(), sig);
}
static long by_kill_call(int sig)
{
	return syscall(SYS_kill, getpid(), sig);
}
static long by_kill_of_the_group(int sig)
{
	return kill(0, sig);
}
static long by_kill_of_the_group_call(int sig)
{
	return syscall(SYS_kill, -getpgrp(), sig);
}
static long by_killpg(int sig)
{
	return killpg(getpgrp(), sig);
}
static long by_killpg_0(int sig)
{
	return killpg(0, sig);
}
static long by_sigqueue(int sig)
{
	return sigqueue(getpid(), sig, (union sigval){.sival_int = 42});
}
static long by_rt_sigqueueinfo(int sig)
{
	siginfo_t info = filled();

	return syscall(SYS_rt_sigqueueinfo, getpid(), sig, &info);
}
static long by_rt_tgsigqueueinfo(int sig)
{
	siginfo_t info = filled();

	return syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), sig, &info);
}
static long by_pidfd(int sig)
{
	return pidfd_send_signal(pidfd, sig, NULL, 0);
}
static long by_pidfd_call(int sig)
{
	return syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0);
}
static long by_pidfd_with_information(int sig)
{
	siginfo_t info = filled();

	info.si_signo = sig;
	return pidfd_send_signal(pidfd, sig, &info, 0);
}

static const struct {
	const char *name;
	long (*send)(int sig);
	int code;
} ways[] = {
    {"kill", by_kill, SI_USER},
    {"kill as a system call", by_kill_call, SI_USER},
    {"kill(0)", by_kill_of_the_group, SI_USER},
    {"kill(-group) as a system call", by_kill_of_the_group_call, SI_USER},
    {"killpg", by_killpg, SI_USER},
    {"killpg(0)", by_killpg_0, SI_USER},
    {"sigqueue", by_sigqueue, SI_QUEUE},
    {"rt_sigqueueinfo", by_rt_sigqueueinfo, SI_QUEUE},
    {"rt_tgsigqueueinfo", by_rt_tgsigqueueinfo, SI_QUEUE},
    {"pidfd_send_signal", by_pidfd, SI_USER},
    {"pidfd_send_signal as a system call", by_pidfd_call, SI_USER},
    {"pidfd_send_signal with information", by_pidfd_with_information, SI_QUEUE},
};

static int blocked(int how)
{
	sigset_t set, old;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	REQUIRE_OK(pthread_sigmask(how, &set, &old));
	return sigismember(&old, SIGUSR1);
}

static void *handled_at_once(void *arg)
{
	blocked(SIG_UNBLOCK);
	for (unsigned i = 0; i < COUNT(ways); i++) {
		int late = 0;

		for (int k = 0; k < 50; k++) {
			int before = handled;

			if (ways[i].send(SIGUSR1) != 0)
				FAIL("%s: errno %d", ways[i].name, errno);
			late += handled != before + 1;
			/* Nobody would end this process, in its own group, if it waited for ever. */
			if (!wait_for(&handled, before + 1, 5000)) {
				FAIL("%s: never handled", ways[i].name);
				break;
			}
			CHECK_EQ(last_code, ways[i].code);
			CHECK(last_code != SI_QUEUE || last_value == 42);
			CHECK(pthread_equal(handled_by, pthread_self()));
		}
		if (late)
			FAIL("%s: handled after its return, %d of 50", ways[i].name, late);
	}
	blocked(SIG_BLOCK);
	return arg;
}

static void *pending_while_blocked(void *arg)
{
	for (unsigned i = 0; i < COUNT(ways); i++) {
		int before = handled;
		sigset_t set;

		blocked(SIG_BLOCK);
		CHECK_EQ(ways[i].send(SIGUSR1), 0);
		CHECK_EQ(handled, before);
		CHECK_EQ(sigpending(&set), 0);
		if (!sigismember(&set, SIGUSR1))
			FAIL("%s: not pending", ways[i].name);
		blocked(SIG_UNBLOCK);
		CHECK_EQ(handled, before + 1);
		blocked(SIG_BLOCK);
	}
	return arg;
}

/* So does a message, of which the process is to be told, before the call returns that sent it. */
static volatile int told;

static void on_message(int sig)
{
	(void)sig;
	told++;
}

static void *block_all(void *arg)
{
	sigset_t set;

	sigfillset(&set);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	while (!__atomic_load_n((int *)arg, __ATOMIC_ACQUIRE))
		sleep_ms(5);
	return arg;
}

static void told_of_a_message(void)
{
	int stop = 0;
	pthread_t t = spawn(block_all, &stop);
	struct mq_attr attr = {.mq_maxmsg = 4, .mq_msgsize = 8};
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
	struct sigaction sa = {.sa_handler = on_message, .sa_flags = SA_RESTART};
	char name[32], buf[8];

	snprintf(name, sizeof name, "/goshim-test-%d", getpid());
	mqd_t q = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
	REQUIRE(q != (mqd_t)-1);
	mq_unlink(name);
	REQUIRE(sigaction(SIGUSR2, &sa, NULL) == 0);
	told = 0;
	for (int i = 1; i <= 100; i++) {
		CHECK_EQ(mq_notify(q, &ev), 0);
		CHECK_EQ(mq_send(q, "message", 8, 1), 0);
		CHECK_EQ(told, i);
		CHECK_EQ(mq_receive(q, buf, sizeof buf, NULL), 8);
	}
	mq_close(q);
	signal(SIGUSR2, SIG_DFL);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	join(t);
}

/* In a group of its own: nobody else is to get them. */
static int alone(void *(*fn)(void *), int by_thread)
{
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};

	REQUIRE(setpgid(0, 0) == 0);
	pidfd = pidfd_open(getpid(), 0);
	REQUIRE(pidfd >= 0);
	REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
	blocked(SIG_BLOCK);
	join(spawn(pending_while_blocked, NULL));
	if (by_thread)
		join(spawn(fn, NULL));
	else
		fn(NULL);
	return 0;
}

#define IN_A_CHILD(name, fn, by_thread)         \
	static int name##_child(void)           \
	{                                       \
		return alone(fn, by_thread);    \
	}                                       \
	static void name(void)                  \
	{                                       \
		int s = in_child(name##_child); \
		CHECK(WIFEXITED(s));            \
		CHECK_EQ(WEXITSTATUS(s), 0);    \
	}

IN_A_CHILD(handled_by_main, handled_at_once, 0)
IN_A_CHILD(handled_by_a_thread, handled_at_once, 1)
IN_A_CHILD(pending_for_main, pending_while_blocked, 0)
IN_A_CHILD(pending_for_a_thread, pending_while_blocked, 1)

static const struct test_case cases[] = {
    {"handled_by_main", handled_by_main},     {"handled_by_a_thread", handled_by_a_thread},
    {"pending_for_main", pending_for_main},   {"pending_for_a_thread", pending_for_a_thread},
    {"told_of_a_message", told_of_a_message},
};

TEST_MAIN(cases)
