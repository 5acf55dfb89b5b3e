/*
 * Pointers that lead nowhere, in calls that wait: the kernel's answer is EFAULT, and who has a handler for SIGSEGV, or none,
 * hears nothing of it. By main and by a thread; memory that may not be read, and NULL where one is wanted.
 */
#include "test.h"

#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/uio.h>

static void *bad;
static int pair[2], ep, semaphore;
static const struct timespec soon = {0, 1000};
static uint32_t word;

/* Those that return an error. */
static long returned(int rc)
{
	errno = rc;
	return rc ? -1 : 0;
}

static fd_set *some(void)
{
	static __thread fd_set set;

	FD_ZERO(&set);
	FD_SET(pair[0], &set);
	return &set;
}

#define POLLED (&(struct pollfd){pair[0], POLLIN, 0})
#define EVENT (&(struct epoll_event){.events = 0})
#define DOWN (&(struct sembuf){0, -1, 0})
#define VECTOR(v) (&(struct msghdr){.msg_iov = (v), .msg_iovlen = 1})
#define CALLS(X)                                                                              \
	X("nanosleep", nanosleep(bad, NULL))                                                  \
	X("clock_nanosleep", returned(clock_nanosleep(CLOCK_MONOTONIC, 0, bad, NULL)))        \
	X("clock_nanosleep until",                                                            \
	  returned(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, bad, NULL)))                \
	X("poll", poll(bad, 1, 10))                                                           \
	X("poll of many", poll(bad, 200, 10))                                                 \
	X("ppoll", ppoll(bad, 1, &soon, NULL))                                                \
	X("ppoll's mask", ppoll(POLLED, 1, &soon, bad))                                       \
	X("select", select(pair[0] + 1, bad, NULL, NULL, NULL))                               \
	X("pselect", pselect(pair[0] + 1, NULL, bad, NULL, &soon, NULL))                      \
	X("pselect's mask", pselect(pair[0] + 1, some(), NULL, NULL, &soon, bad))             \
	X("epoll_pwait's mask", epoll_pwait(ep, EVENT, 1, 10, bad))                           \
	X("epoll_pwait2's time", epoll_pwait2(ep, EVENT, 1, bad, NULL))                       \
	X("sigtimedwait", sigtimedwait(bad, NULL, &soon))                                     \
	X("sigtimedwait's time", sigtimedwait(&none, NULL, bad))                              \
	X("sigsuspend", sigsuspend(bad))                                                      \
	X("semtimedop", semtimedop(semaphore, bad, 1, &soon))                                 \
	X("semtimedop's time", semtimedop(semaphore, DOWN, 1, bad))                           \
	X("readv", readv(pair[1], bad, 1))                                                    \
	X("writev", writev(pair[0], bad, 1))                                                  \
	X("recv", recv(pair[1], bad, 1, 0))                                                   \
	X("recvmsg", recvmsg(pair[1], bad, 0))                                                \
	X("recvmsg of all", recvmsg(pair[1], bad, MSG_WAITALL))                               \
	X("recvmsg's vector", recvmsg(pair[1], VECTOR(bad), MSG_WAITALL))                     \
	X("recvmmsg", recvmmsg(pair[1], bad, 1, 0, NULL))                                     \
	X("sendmsg", sendmsg(pair[0], bad, 0))                                                \
	X("sendmsg's vector", sendmsg(pair[0], VECTOR(bad), 0))                               \
	X("sendmmsg", sendmmsg(pair[0], bad, 1, 0))                                           \
	X("SYS_nanosleep", syscall(SYS_nanosleep, bad, NULL))                                 \
	X("SYS_futex's time", syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, bad, NULL, 0)) \
	X("SYS_ppoll's time", syscall(SYS_ppoll, POLLED, 1, bad, &none, 8))                   \
	X("SYS_ppoll's mask", syscall(SYS_ppoll, POLLED, 1, &soon, bad, 8))                   \
	X("SYS_pselect6's masks", syscall(SYS_pselect6, 0, NULL, NULL, NULL, &soon, bad))     \
	X("SYS_epoll_pwait's mask", syscall(SYS_epoll_pwait, ep, EVENT, 1, 1, bad, 8))        \
	X("SYS_rt_sigtimedwait", syscall(SYS_rt_sigtimedwait, bad, NULL, &soon, 8))           \
	X("SYS_rt_sigsuspend", syscall(SYS_rt_sigsuspend, bad, 8))                            \
	X("SYS_rt_sigpending", syscall(SYS_rt_sigpending, bad, 8))

static sigset_t none;

#define CHECK_EFAULT(name, call)                                              \
	do {                                                                  \
		errno = 0;                                                    \
		long r = (call);                                              \
		if (r != -1 || errno != EFAULT)                               \
			FAIL("%s returns %ld with errno %d", name, r, errno); \
	} while (0);

static void *each_call(void *arg)
{
	CALLS(CHECK_EFAULT)
	return arg;
}

static void *no_sleep(void *arg)
{
	const struct timespec *volatile null = NULL;

	CHECK_ERRNO(nanosleep(null, NULL), EFAULT);
	CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, 0, null, NULL), EFAULT);
	return arg;
}

/* Its first half can be read. */
static void *across_an_end(void *arg)
{
	void *last = bad;

	bad = (char *)bad - 8;
	CHECK_ERRNO(nanosleep(bad, NULL), EFAULT);
	CHECK_ERRNO(epoll_pwait2(ep, EVENT, 1, bad, NULL), EFAULT);
	bad = last;
	return arg;
}

BY_MAIN_AND_A_THREAD(each_call)

static void null(void)
{
	no_sleep(NULL);
	join(spawn(no_sleep, NULL));
}

static void half(void)
{
	across_an_end(NULL);
	join(spawn(across_an_end, NULL));
}

static const struct test_case cases[] = {
    {"by_main", by_main},
    {"by_a_thread", by_a_thread},
    {"null", null},
    {"half", half},
};

int main(int argc, char **argv)
{
	char *pages = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	bad = pages + 4096;
	REQUIRE(pages != MAP_FAILED && mprotect(bad, 4096, PROT_NONE) == 0);
	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && write(pair[0], "xy", 2) == 2);
	ep = epoll_create1(EPOLL_CLOEXEC);
	semaphore = semget(IPC_PRIVATE, 1, 0600);
	REQUIRE(ep >= 0 && semaphore >= 0);
	int status = test_run(argc, argv, cases, COUNT(cases));
	semctl(semaphore, 0, IPC_RMID);
	return status;
}
