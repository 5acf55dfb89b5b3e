/*
 * Calls that few programs make and that set, or ask, what the kernel keeps for one thread: the caller
 * has it, another thread has not.
 */
#include "test.h"

#include <linux/capability.h>
#include <sys/io.h>
#include <sys/personality.h>
#include <sys/ptrace.h>

extern int capget(cap_user_header_t header, cap_user_data_t data);
extern int capset(cap_user_header_t header, const cap_user_data_t data);
extern int arch_prctl(int code, unsigned long addr);

enum { GetGs = 0x1004, SetGs = 0x1001 };

static uint32_t effective(pid_t tid)
{
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, tid};
	struct __user_cap_data_struct d[2];

	CHECK_EQ(capget(&h, d), 0);
	return d[0].effective;
}

static void *capabilities(void *arg)
{
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, gettid()};
	struct __user_cap_data_struct d[2];
	uint32_t before = effective(0);

	CHECK_EQ(capget(&h, d), 0);
	CHECK_EQ(d[0].effective, before);
	d[0].effective &= ~(1u << CAP_SYS_TIME);
	CHECK_EQ(capset(&h, d), 0);
	CHECK_EQ(effective(0), before & ~(1u << CAP_SYS_TIME));
	usleep(1000);
	CHECK_EQ(effective(gettid()), before & ~(1u << CAP_SYS_TIME));
	h.pid = *(pid_t *)arg;
	CHECK_ERRNO(capset(&h, d), EPERM);
	h.version = 1;
	CHECK_ERRNO(capget(&h, d), EINVAL);
	CHECK_EQ(h.version, _LINUX_CAPABILITY_VERSION_3);
	return NULL;
}

static void *registers(void *arg)
{
	unsigned long got = 1;

	CHECK_EQ(arch_prctl(GetGs, (unsigned long)&got), 0);
	CHECK_EQ(got, 0);
	CHECK_EQ(arch_prctl(SetGs, 0x123000), 0);
	for (int i = 0; i < 20; i++) {
		CHECK_EQ(arch_prctl(GetGs, (unsigned long)&got), 0);
		CHECK_EQ(got, 0x123000);
		usleep(100);
	}
	CHECK_ERRNO(arch_prctl(-1, 0), EINVAL);
	return arg;
}

static void *personalities(void *arg)
{
	int before = personality(0xffffffff);

	CHECK_EQ(before & ADDR_NO_RANDOMIZE, 0);
	CHECK_EQ(personality(before | ADDR_NO_RANDOMIZE), before);
	usleep(1000);
	CHECK_EQ(personality(0xffffffff), before | ADDR_NO_RANDOMIZE);
	return arg;
}

static void *intervals(void *arg)
{
	struct timespec own = {-1, -1}, named = {-1, -1}, other = {-1, -1};

	CHECK_EQ(sched_rr_get_interval(0, &own), 0);
	CHECK_EQ(sched_rr_get_interval(gettid(), &named), 0);
	CHECK_EQ(sched_rr_get_interval(*(pid_t *)arg, &other), 0);
	CHECK_EQ(own.tv_nsec, named.tv_nsec);
	CHECK_EQ(own.tv_nsec, other.tv_nsec);
	CHECK_ERRNO(sched_rr_get_interval(-1, &own), EINVAL);
	return NULL;
}

static void *priorities(void *arg)
{
	struct sched_param param = {-1};
	int policy = -1;

	CHECK_EQ(pthread_setschedprio(pthread_self(), 0), 0);
	CHECK_EQ(pthread_setschedprio(pthread_self(), 1), EINVAL);
	param.sched_priority = 10;
	if (pthread_setschedparam(pthread_self(), SCHED_FIFO, &param) == 0) {
		CHECK_EQ(pthread_setschedprio(pthread_self(), 11), 0);
		usleep(1000);
		CHECK_EQ(pthread_getschedparam(pthread_self(), &policy, &param), 0);
		CHECK_EQ(policy, SCHED_FIFO);
		CHECK_EQ(param.sched_priority, 11);
		CHECK_EQ(pthread_setschedprio(pthread_self(), 100), EINVAL);
	}
	return arg;
}

/* The tracer is a thread: it alone may ask. */
static void *traces(void *arg)
{
	int status = -1;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (pid == 0) {
		sleep_ms(100000);
		_exit(0);
	}
	if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0) {
		CHECK_EQ(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), 0);
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK(WIFSTOPPED(status));
		sched_yield();
		usleep(1000);
		errno = 0;
		ptrace(PTRACE_PEEKDATA, pid, &status, NULL);
		CHECK_EQ(errno, 0);
		CHECK_EQ(ptrace(PTRACE_CONT, pid, NULL, NULL), 0);
	} else {
		CHECK_EQ(errno, EPERM);
	}
	kill(pid, SIGKILL);
	CHECK_EQ(waitpid(pid, &status, __WALL), pid);
	return arg;
}

static int may_by_ioperm(void)
{
	return ioperm(0x80, 1, 1);
}

static int may_by_iopl(void)
{
	return iopl(3);
}

static void *namespaces(void *arg)
{
	int fd = open("/proc/self/ns/uts", O_RDONLY);

	if (fd < 0)
		return arg;
	if (setns(fd, CLONE_NEWUTS) != 0)
		CHECK_EQ(errno, EPERM);
	CHECK_ERRNO(setns(-1, 0), EBADF);
	close(fd);
	return arg;
}

/* The port of old for what the firmware has reached: who may not write to it, and does, gets SIGSEGV. */
static void *ports(void *arg)
{
	int (*const kinds[])(void) = {may_by_ioperm, may_by_iopl};

	for (unsigned i = 0; i < COUNT(kinds); i++) {
		if (kinds[i]() != 0) {
			CHECK(errno == EPERM || errno == ENOSYS);
			continue;
		}
		for (int k = 0; k < 10; k++) {
			outb(0, 0x80);
			usleep(100);
		}
	}
	CHECK(ioperm(65536, 1, 1) == -1 && (errno == EINVAL || errno == ENOSYS));
	CHECK(iopl(4) == -1 && (errno == EINVAL || errno == ENOSYS));
	return arg;
}

static int is_as_before(void)
{
	unsigned long got = 1;
	struct sched_param param;
	int policy;

	CHECK_EQ(arch_prctl(GetGs, (unsigned long)&got), 0);
	CHECK_EQ(got, 0);
	CHECK_EQ(personality(0xffffffff) & ADDR_NO_RANDOMIZE, 0);
	CHECK_EQ(pthread_getschedparam(pthread_self(), &policy, &param), 0);
	CHECK_EQ(policy, SCHED_OTHER);
	return 0;
}

static void *looks(void *arg)
{
	uint32_t before = *(uint32_t *)arg;

	CHECK_EQ(effective(0), before);
	is_as_before();
	return NULL;
}

static pid_t other_tid;
static int leave;

static void *other(void *arg)
{
	__atomic_store_n(&other_tid, gettid(), __ATOMIC_RELEASE);
	while (!__atomic_load_n(&leave, __ATOMIC_ACQUIRE))
		usleep(1000);
	CHECK_EQ(effective(0), *(uint32_t *)arg);
	is_as_before();
	return NULL;
}

static void *(*const kinds[])(void *) = {capabilities, registers, personalities, intervals,
					 priorities,   traces,    namespaces,    ports};

static void of_the_caller_alone(void)
{
	uint32_t before = effective(0);
	pthread_t o = spawn(other, &before);

	while (!__atomic_load_n(&other_tid, __ATOMIC_ACQUIRE))
		usleep(100);
	for (unsigned i = 0; i < COUNT(kinds); i++) {
		join(spawn(kinds[i], &other_tid));
		join(spawn(looks, &before));
		CHECK_EQ(effective(0), before);
		is_as_before();
	}
	__atomic_store_n(&leave, 1, __ATOMIC_RELEASE);
	join(o);
}

static const struct test_case cases[] = {
    {"of_the_caller_alone", of_the_caller_alone},
};

TEST_MAIN(cases)
