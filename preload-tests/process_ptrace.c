/*
 * A thread traces children that asked for it: it forks, waits until they have stopped, looks at them, changes them and lets
 * them go, while others keep the machine busy; between the calls it waits in all ways. Another thread may not.
 */
#include "test.h"

#include <semaphore.h>
#include <sys/ptrace.h>
#include <sys/user.h>

enum { CHILDREN = 3 };

static volatile long word = 0x1234;
static volatile int over;

static pid_t traced_child(void)
{
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (pid == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
			_exit(1);
		raise(SIGSTOP);
		raise(SIGUSR1); /* the tracer takes it away */
		_exit(word == 0x4321 ? 7 : 2);
	}
	return pid;
}

/* Gives others the kernel thread. */
static void lose_it(int i)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

	switch (i % 4) {
	case 0: usleep(200); break;
	case 1: sched_yield(); break;
	case 2:
		pthread_mutex_lock(&lock);
		sched_yield();
		pthread_mutex_unlock(&lock);
		break;
	}
}

static void stopped_by(pid_t pid, int sig)
{
	int status = -1;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == sig);
}

static void trace(int i)
{
	pid_t pid[CHILDREN];
	struct user_regs_struct regs;
	int status;

	for (int k = 0; k < CHILDREN; k++) {
		pid[k] = traced_child();
		lose_it(i + k);
	}
	for (int k = 0; k < CHILDREN; k++) {
		stopped_by(pid[k], SIGSTOP);
		lose_it(i + k + 1);
		CHECK_EQ(ptrace(PTRACE_SETOPTIONS, pid[k], NULL, PTRACE_O_EXITKILL), 0);
		errno = 55;
		CHECK_EQ(ptrace(PTRACE_PEEKDATA, pid[k], &word, NULL), 0x1234);
		CHECK_EQ(errno, 0);
		lose_it(i);
		memset(&regs, 0, sizeof regs);
		CHECK_EQ(ptrace(PTRACE_GETREGS, pid[k], NULL, &regs), 0);
		CHECK(regs.rip != 0 && regs.rsp != 0);
		CHECK_EQ(syscall(SYS_ptrace, PTRACE_POKEDATA, pid[k], &word, 0x4321L), 0);
		CHECK_EQ(ptrace(PTRACE_CONT, pid[k], NULL, NULL), 0);
	}
	for (int k = 0; k < CHILDREN; k++) {
		stopped_by(pid[k], SIGUSR1);
		lose_it(i + k);
		CHECK_EQ(ptrace(k ? PTRACE_CONT : PTRACE_DETACH, pid[k], NULL, NULL), 0);
		CHECK_EQ(waitpid(pid[k], &status, 0), pid[k]);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
		CHECK_ERRNO(ptrace(PTRACE_CONT, pid[k], NULL, NULL), ESRCH);
	}
}

static void *traces(void *arg)
{
	for (int i = 0; i < 8; i++)
		trace(i);
	return arg;
}

static void *busy(void *arg)
{
	while (!over) {
		for (volatile int i = 0; i < 20000; i++)
			;
		usleep(100);
	}
	return arg;
}

/* Threads that never traced before, one after the other, and some at a time. */
static void threads_that_trace(void)
{
	pthread_t others[4], tracers[3];

	over = 0;
	for (unsigned i = 0; i < COUNT(others); i++)
		others[i] = spawn(busy, NULL);
	for (int i = 0; i < 4; i++)
		join(spawn(traces, NULL));
	for (unsigned i = 0; i < COUNT(tracers); i++)
		tracers[i] = spawn(traces, NULL);
	for (unsigned i = 0; i < COUNT(tracers); i++)
		join(tracers[i]);
	over = 1;
	for (unsigned i = 0; i < COUNT(others); i++)
		join(others[i]);
}

static void main_traces(void)
{
	over = 0;
	pthread_t other = spawn(busy, NULL);
	traces(NULL);
	over = 1;
	join(other);
}

/* --- not by others ------------------------------------------------------------------------------------------------------------ */

static void *may_not(void *arg)
{
	pid_t pid = (pid_t)(intptr_t)arg;

	CHECK_ERRNO(ptrace(PTRACE_CONT, pid, NULL, NULL), ESRCH);
	CHECK_ERRNO(ptrace(PTRACE_CONT, getpid(), NULL, NULL), ESRCH);
	CHECK_ERRNO(ptrace(PTRACE_CONT, -1, NULL, NULL), ESRCH);
	return NULL;
}

static void *attaches(void *arg)
{
	int status;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (pid == 0) {
		sleep_ms(100000);
		_exit(0);
	}
	if (ptrace(PTRACE_ATTACH, pid, NULL, NULL) == 0) {
		stopped_by(pid, SIGSTOP);
		join(spawn(may_not, (void *)(intptr_t)pid));
		CHECK_EQ(ptrace(PTRACE_CONT, pid, NULL, NULL), 0);
	} else {
		CHECK_EQ(errno, EPERM);
	}
	kill(pid, SIGKILL);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return arg;
}

static void attached_by_another(void)
{
	join(spawn(attaches, NULL));
	attaches(NULL);
}

static const struct test_case cases[] = {
    {"threads_that_trace", threads_that_trace},
    {"main_traces", main_traces},
    {"attached_by_another", attached_by_another},
};

TEST_MAIN(cases)
