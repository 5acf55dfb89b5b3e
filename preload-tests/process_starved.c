/*
 * Memory, descriptors, kernel threads are refused from some time on: each system call that asks for them alone, from
 * the Nth time on, before the first thread is made and after. pthread_create may fail with EAGAIN; what runs goes on,
 * and ends.
 *
 * The parent decides, call by call, by a seccomp filter that asks it.
 */
#include "test.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

enum { WORKERS = 5, ROUNDS = 6, MEMBARRIER = 324, BOUND = 20000 /* ms */ };

static int ring[WORKERS][2], threads, turn;
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;

static void *nothing(void *arg)
{
	return arg;
}

/* A token goes around by pipes, and a turn by a condition. */
static void *work(void *arg)
{
	int me = (int)(intptr_t)arg;
	char token;

	for (int i = 0; i < ROUNDS; i++) {
		struct pollfd p = {.fd = ring[me][0], .events = POLLIN};

		if (i % 2)
			REQUIRE(poll(&p, 1, -1) == 1);
		REQUIRE(read(ring[me][0], &token, 1) == 1);
		REQUIRE(write(ring[(me + 1) % threads][1], &token, 1) == 1);
		if (i == ROUNDS / 2)
			usleep(500);
	}
	pthread_mutex_lock(&m);
	while (turn != me)
		pthread_cond_wait(&c, &m);
	turn++;
	pthread_cond_broadcast(&c);
	pthread_mutex_unlock(&m);
	return arg;
}

static int workload(void)
{
	pthread_t t[WORKERS];
	int rc = 0, n = 0;
	char token = 't';

	while (n < WORKERS && (rc = pthread_create(&t[n], NULL, work, (void *)(intptr_t)n)) == 0)
		n++;
	if (n < WORKERS && rc != EAGAIN) {
		say("pthread_create: %d", rc);
		return 1;
	}
	if (n == 0)
		return 0;
	/* The first one waits for the token; by then the others know how many they are. */
	threads = n;
	REQUIRE(write(ring[0][1], &token, 1) == 1);
	for (int i = 0; i < n; i++)
		REQUIRE(join(t[i]) == (void *)(intptr_t)i);
	REQUIRE(read(ring[0][0], &token, 1) == 1);
	return 0;
}

/* Of the caller, or of all threads: every call `nr` is the parent's to answer. */
static int ask_for(int nr, int all)
{
	struct sock_filter f[] = {
	    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)nr, 0, 1),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {COUNT(f), f};
	int flags = SECCOMP_FILTER_FLAG_NEW_LISTENER;

	if (all)
		flags |= SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
}

union control {
	char buf[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

static void send_fd(int to, int fd)
{
	union control control;
	char byte = 'f';
	struct iovec v = {&byte, 1};
	struct msghdr h = {.msg_iov = &v,
			   .msg_iovlen = 1,
			   .msg_control = control.buf,
			   .msg_controllen = sizeof control.buf};
	struct cmsghdr *msg = CMSG_FIRSTHDR(&h);

	msg->cmsg_level = SOL_SOCKET;
	msg->cmsg_type = SCM_RIGHTS;
	msg->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(msg), &fd, sizeof fd);
	REQUIRE(sendmsg(to, &h, 0) == 1);
}

static int receive_fd(int from)
{
	union control control;
	char byte;
	struct iovec v = {&byte, 1};
	struct msghdr h = {.msg_iov = &v,
			   .msg_iovlen = 1,
			   .msg_control = control.buf,
			   .msg_controllen = sizeof control.buf};
	int fd = -1;

	if (recvmsg(from, &h, 0) == 1 && CMSG_FIRSTHDR(&h))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&h)), sizeof fd);
	return fd;
}

/* One call, as the parent thinks fit. */
static void answer(int asked, int error)
{
	struct seccomp_notif q = {0};
	struct seccomp_notif_resp a = {0};

	if (ioctl(asked, SECCOMP_IOCTL_NOTIF_RECV, &q) != 0)
		return;
	a.id = q.id;
	a.error = -error;
	a.flags = error ? 0 : SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	ioctl(asked, SECCOMP_IOCTL_NOTIF_SEND, &a);
}

/* How often it asked; -1: filters like that can't be had. */
static int starve(const char *name, int nr, int error, int nth, int started)
{
	int sv[2], status = 0, calls = 0;

	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	pid_t pid = fork();
	REQUIRE(pid >= 0);
	if (pid == 0) {
		close(sv[0]);
		if (started)
			join(spawn(nothing, NULL));
		for (int i = 0; i < WORKERS; i++)
			REQUIRE(pipe(ring[i]) == 0);
		int asked = ask_for(nr, started);
		if (asked < 0)
			_exit(77);
		send_fd(sv[1], asked);
		close(asked);
		_exit(workload());
	}
	close(sv[1]);
	int asked = receive_fd(sv[0]);
	int64_t end = now_ms() + BOUND;
	pid_t ended = 0;

	while (asked >= 0 && (ended = waitpid(pid, &status, WNOHANG)) == 0 && now_ms() < end) {
		struct pollfd p = {.fd = asked, .events = POLLIN};

		if (poll(&p, 1, 2) == 1 && p.revents & POLLIN)
			answer(asked, ++calls > nth ? error : 0);
	}
	if (ended == 0 && asked >= 0) {
		FAIL("%s from time %d on, %s: hangs", name, nth, started ? "later" : "at first");
		kill(pid, SIGKILL);
	}
	if (ended != pid)
		waitpid(pid, &status, 0);
	close(sv[0]);
	if (asked < 0)
		return -1;
	close(asked);
	if (status != 0)
		FAIL("%s from time %d on, %s: status %#x", name, nth,
		     started ? "later" : "at first", status);
	return calls;
}

static void each_time(const char *name, int nr, int error)
{
	for (int started = 0; started < 2; started++) {
		int calls = 0;

		for (int nth = 0; nth <= calls && nth < 40; nth += 1 + nth / 2) {
			calls = starve(name, nr, error, nth, started);
			if (calls < 0)
				SKIP_CASE("no filters that ask");
		}
	}
}

#define CASE(name, nr, error)                  \
	static void name(void)                 \
	{                                      \
		each_time(#name, (nr), error); \
	}
CASE(no_mmap, SYS_mmap, ENOMEM)
CASE(no_mprotect, SYS_mprotect, ENOMEM)
CASE(no_madvise, SYS_madvise, ENOMEM)
CASE(no_clone, SYS_clone3, EAGAIN)
CASE(no_epoll, SYS_epoll_create1, EMFILE)
CASE(no_epoll_ctl, SYS_epoll_ctl, ENOMEM)
CASE(no_eventfd, SYS_eventfd2, EMFILE)
CASE(no_dup, SYS_fcntl, EMFILE)
CASE(no_open, SYS_openat, EMFILE)
CASE(no_sigaltstack, SYS_sigaltstack, ENOMEM)
CASE(no_membarrier, MEMBARRIER, ENOMEM)

static const struct test_case cases[] = {
    {"no_mmap", no_mmap},
    {"no_mprotect", no_mprotect},
    {"no_madvise", no_madvise},
    {"no_clone", no_clone},
    {"no_epoll", no_epoll},
    {"no_epoll_ctl", no_epoll_ctl},
    {"no_eventfd", no_eventfd},
    {"no_dup", no_dup},
    {"no_open", no_open},
    {"no_sigaltstack", no_sigaltstack},
    {"no_membarrier", no_membarrier},
};

/* All wait by the scheduler's own means, which need descriptors: settings that mean nothing natively. */
int main(int argc, char **argv)
{
	const char *settings = getenv("GOSHIM");
	char more[200];

	if (!settings || !strstr(settings, "kernelwaits")) {
		snprintf(more, sizeof more, "%s%skernelwaits=0", settings ? settings : "",
			 settings ? "," : "");
		setenv("GOSHIM", more, 1);
		execv("/proc/self/exe", argv);
	}
	return test_run(argc, argv, cases, COUNT(cases));
}
