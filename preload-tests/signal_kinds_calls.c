/*
 * Descriptors of the rarer kinds, and what moves data between them: signals and cancellation. See calls.h.
 */
#include "calls.h"

#include <linux/aio_abi.h>
#include <linux/userfaultfd.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>

/* --- pipes and sockets: fd waits, other makes it ready -------------------------------------------------------------- */

static void empty_pipe(struct ctx *c)
{
	int fds[2];

	REQUIRE(pipe(fds) == 0);
	c->fd = fds[0];
	c->other = fds[1];
}

static void empty_socket(struct ctx *c)
{
	int fds[2];

	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	c->fd = fds[0];
	c->other = fds[1];
}

static void limited(int fd)
{
	struct timeval tv = {3600, 0};

	REQUIRE(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) == 0);
	REQUIRE(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv) == 0);
}

static void empty_limited_socket(struct ctx *c)
{
	empty_socket(c);
	limited(c->fd);
}

static void fill(int fd)
{
	static const char zeros[4096];

	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (write(fd, zeros, sizeof zeros) > 0)
		;
	while (write(fd, zeros, 1) > 0)
		;
	fcntl(fd, F_SETFL, 0);
}

static void full_pipe(struct ctx *c)
{
	int fds[2];

	REQUIRE(pipe(fds) == 0);
	c->fd = fds[1];
	c->other = fds[0];
	fill(c->fd);
}

static void full_socket(struct ctx *c)
{
	empty_socket(c);
	fill(c->fd);
}

static void full_limited_socket(struct ctx *c)
{
	full_socket(c);
	limited(c->fd);
}

static void put_byte(struct ctx *c)
{
	CHECK_EQ(write(c->other, "x", 1), 1);
}

static void put_line(struct ctx *c)
{
	CHECK_EQ(write(c->other, "line\n", 5), 5);
}

static void drain(struct ctx *c)
{
	char buf[65536];

	fcntl(c->other, F_SETFL, O_NONBLOCK);
	while (read(c->other, buf, sizeof buf) > 0)
		;
}

static long call_read(struct ctx *c)
{
	char buf[512];

	return read(c->fd, buf, sizeof buf);
}

static long call_recvfrom(struct ctx *c)
{
	char ch;

	return recvfrom(c->fd, &ch, 1, 0, NULL, NULL);
}

static long call_recvmsg(struct ctx *c)
{
	char ch;
	struct iovec v = {&ch, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};

	return recvmsg(c->fd, &m, 0);
}

static long call_recvmmsg_all(struct ctx *c)
{
	char ch[2];
	struct iovec v[2] = {{ch, 1}, {ch + 1, 1}};
	struct mmsghdr m[2] = {{.msg_hdr = {.msg_iov = &v[0], .msg_iovlen = 1}},
			       {.msg_hdr = {.msg_iov = &v[1], .msg_iovlen = 1}}};

	return recvmmsg(c->fd, m, 2, 0, NULL);
}

static void put_two(struct ctx *c)
{
	CHECK_EQ(write(c->other, "xy", 2), 2);
}

static long call_sendto(struct ctx *c)
{
	return sendto(c->fd, "x", 1, 0, NULL, 0);
}

static long call_sendmsg(struct ctx *c)
{
	struct iovec v = {"x", 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};

	return sendmsg(c->fd, &m, 0);
}

static long call_pwritev2(struct ctx *c)
{
	struct iovec v = {"x", 1};

	return pwritev2(c->fd, &v, 1, -1, 0);
}

static int devnull(void)
{
	static int fd;

	if (!fd)
		fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	return fd;
}

static long call_splice(struct ctx *c)
{
	return splice(c->fd, NULL, devnull(), NULL, 1, 0);
}

static void two_pipes(struct ctx *c)
{
	empty_pipe(c);
	REQUIRE(pipe(c->more) == 0);
}

static void close_four(struct ctx *c)
{
	close(c->more[0]);
	close(c->more[1]);
	close_both(c);
}

static long call_tee(struct ctx *c)
{
	return tee(c->fd, c->more[1], 1, 0);
}

static long call_vmsplice(struct ctx *c)
{
	struct iovec v = {"x", 1};

	return vmsplice(c->fd, &v, 1, 0);
}

static long call_sendfile(struct ctx *c)
{
	static int in;
	off_t at = 0;

	if (!in)
		in = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	return sendfile(c->fd, in, &at, 1);
}

static void full_limited_listener(struct ctx *c)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	new_path(c);
	memcpy(a.sun_path, c->path, sizeof c->path);
	c->other = socket(AF_UNIX, SOCK_STREAM, 0);
	c->more[0] = socket(AF_UNIX, SOCK_STREAM, 0);
	c->more[1] = -1;
	c->fd = socket(AF_UNIX, SOCK_STREAM, 0);
	REQUIRE(bind(c->other, (void *)&a, sizeof a) == 0 && listen(c->other, 0) == 0);
	REQUIRE(connect(c->more[0], (void *)&a, sizeof a) == 0);
	limited(c->fd);
}

static long call_connect(struct ctx *c)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	memcpy(a.sun_path, c->path, sizeof c->path);
	return connect(c->fd, (void *)&a, sizeof a);
}

static void accept_one(struct ctx *c)
{
	int fd = accept(c->other, NULL, NULL);

	CHECK(fd >= 0);
	close(fd);
}

/* --- descriptors that tell of something ----------------------------------------------------------------------------- */

static void full_eventfd(struct ctx *c)
{
	c->fd = eventfd(0, 0);
	c->other = dup(c->fd);
	REQUIRE(eventfd_write(c->fd, UINT64_MAX - 1) == 0);
}

static long call_eventfd_write(struct ctx *c)
{
	return eventfd_write(c->fd, 1);
}

static void take_events(struct ctx *c)
{
	eventfd_t v;

	CHECK_EQ(eventfd_read(c->other, &v), 0);
}

static void late_timerfd(struct ctx *c)
{
	struct itimerspec in = {.it_value = hour};

	c->fd = timerfd_create(CLOCK_REALTIME, 0);
	REQUIRE(timerfd_settime(c->fd, 0, &in, NULL) == 0);
}

static void advance_timerfd(struct ctx *c)
{
	struct itimerspec past = {.it_value = {1, 0}};

	CHECK_EQ(timerfd_settime(c->fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &past, NULL),
		 0);
}

static void quiet_inotify(struct ctx *c)
{
	new_path(c);
	REQUIRE(mkdir(c->path, 0700) == 0);
	c->fd = inotify_init1(0);
	REQUIRE(inotify_add_watch(c->fd, c->path, IN_ATTRIB) >= 0);
}

static void quiet_fanotify(struct ctx *c)
{
	new_path(c);
	REQUIRE(mkdir(c->path, 0700) == 0);
	c->fd = fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID, 0);
	if (c->fd >= 0 &&
	    fanotify_mark(c->fd, FAN_MARK_ADD, FAN_ATTRIB | FAN_ONDIR, AT_FDCWD, c->path) == 0)
		return;
	/* Not every kernel and file system has it. */
	close(c->fd);
	c->fd = inotify_init1(0);
	REQUIRE(inotify_add_watch(c->fd, c->path, IN_ATTRIB) >= 0);
}

static void change_directory(struct ctx *c)
{
	CHECK_EQ(chmod(c->path, 0500), 0);
}

static void remove_inotify(struct ctx *c)
{
	close(c->fd);
	rmdir(c->path);
}

static void quiet_signalfd(struct ctx *c)
{
	c->fd = signalfd(-1, &usr2, 0);
	REQUIRE(c->fd >= 0);
}

static void send_to_process(struct ctx *c)
{
	(void)c;
	CHECK_EQ(kill(getpid(), SIGUSR2), 0);
}

static void quiet_terminal(struct ctx *c)
{
	c->other = posix_openpt(O_RDWR | O_NOCTTY);
	REQUIRE(c->other >= 0 && grantpt(c->other) == 0 && unlockpt(c->other) == 0);
	c->fd = open(ptsname(c->other), O_RDWR | O_NOCTTY);
	REQUIRE(c->fd >= 0);
}

/* A page whose first touch somebody has to answer. */
static void quiet_userfaultfd(struct ctx *c)
{
	struct uffdio_api api = {.api = UFFD_API};

	c->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	REQUIRE(c->fd >= 0 && ioctl(c->fd, UFFDIO_API, &api) == 0);
	c->object = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register reg = {.range = {(uintptr_t)c->object, 4096},
				      .mode = UFFDIO_REGISTER_MODE_MISSING};
	REQUIRE(ioctl(c->fd, UFFDIO_REGISTER, &reg) == 0);
}

static void *touch(void *page)
{
	(void)*(volatile char *)page;
	return NULL;
}

/* The reader's message says so; then the page is given. */
static void touch_page(struct ctx *c)
{
	struct uffdio_zeropage zero = {.range = {(uintptr_t)c->object, 4096}};
	pthread_t t = spawn(touch, c->object);

	CHECK(wait_for(&c->done, 1, 10000));
	CHECK_EQ(ioctl(c->fd, UFFDIO_ZEROPAGE, &zero), 0);
	join(t);
}

static void unmap_page(struct ctx *c)
{
	close(c->fd);
	munmap(c->object, 4096);
}

/* --- children ------------------------------------------------------------------------------------------------------- */

/* Its pidfd is fd; it ends when the other end of `other` is closed. */
static void a_child(struct ctx *c)
{
	int fds[2];

	REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
	c->child = fork();
	REQUIRE(c->child >= 0);
	if (c->child == 0) {
		char ch;

		close(fds[1]);
		_exit(read(fds[0], &ch, 1) == 1 ? 7 : 0);
	}
	close(fds[0]);
	c->other = fds[1];
	c->fd = (int)syscall(SYS_pidfd_open, c->child, 0);
	REQUIRE(c->fd >= 0);
}

static long call_waitid_pidfd(struct ctx *c)
{
	siginfo_t info;

	return waitid(P_PIDFD, (id_t)c->fd, &info, WEXITED | WNOWAIT);
}

static long call_poll(struct ctx *c)
{
	struct pollfd p = {c->fd, POLLIN, 0};

	return poll(&p, 1, -1);
}

static void reap(struct ctx *c)
{
	kill(c->child, SIGKILL);
	CHECK_EQ(waitpid(c->child, NULL, 0), c->child);
	close_both(c);
}

/* --- many descriptors ----------------------------------------------------------------------------------------------- */

static long call_ppoll_masked(struct ctx *c)
{
	struct pollfd p = {c->fd, POLLIN, 0};

	return ppoll(&p, 1, NULL, &usr2);
}

enum { HIGHEST = 2000 };

static void high_pipe(struct ctx *c)
{
	int fds[2];

	REQUIRE(pipe(fds) == 0);
	c->fd = fcntl(fds[0], F_DUPFD, HIGHEST);
	REQUIRE(c->fd >= HIGHEST);
	close(fds[0]);
	c->other = fds[1];
}

/* A set of the program's own, larger than libc's. */
static long call_select_large(struct ctx *c)
{
	unsigned long set[64] = {0};
	struct timeval tv = {3600, 0};

	set[c->fd / 64] = 1UL << (c->fd % 64);
	long n = select(c->fd + 1, (fd_set *)(void *)set, NULL, NULL, &tv);
	CHECK(n != 1 || set[c->fd / 64] == 1UL << (c->fd % 64));
	return n;
}

static void epoll_within_epoll(struct ctx *c)
{
	struct epoll_event e = {.events = EPOLLIN};

	empty_pipe(c);
	c->more[0] = epoll_create1(0);
	c->more[1] = epoll_create1(0);
	REQUIRE(epoll_ctl(c->more[0], EPOLL_CTL_ADD, c->fd, &e) == 0);
	REQUIRE(epoll_ctl(c->more[1], EPOLL_CTL_ADD, c->more[0], &e) == 0);
}

static void exclusive_epoll(struct ctx *c)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLEXCLUSIVE};

	empty_pipe(c);
	c->more[0] = -1;
	c->more[1] = epoll_create1(0);
	REQUIRE(epoll_ctl(c->more[1], EPOLL_CTL_ADD, c->fd, &e) == 0);
}

static long call_epoll_wait(struct ctx *c)
{
	struct epoll_event e;

	return epoll_wait(c->more[1], &e, 1, -1);
}

static long call_poll_of_epoll(struct ctx *c)
{
	struct pollfd p = {c->more[1], POLLIN, 0};

	return poll(&p, 1, -1);
}

/* The kernel's asynchronous requests: a poll of a pipe. */
static void pending_request(struct ctx *c)
{
	struct iocb cb = {.aio_lio_opcode = IOCB_CMD_POLL, .aio_buf = POLLIN}, *cbs[] = {&cb};
	aio_context_t context = 0;

	empty_pipe(c);
	cb.aio_fildes = (unsigned)c->fd;
	REQUIRE(syscall(SYS_io_setup, 1, &context) == 0);
	REQUIRE(syscall(SYS_io_submit, context, 1, cbs) == 1);
	c->object = (void *)context;
}

static long call_io_getevents(struct ctx *c)
{
	struct io_event event;

	return syscall(SYS_io_getevents, c->object, 1, 1, &event, NULL);
}

static void end_requests(struct ctx *c)
{
	put_byte(c);
	syscall(SYS_io_destroy, c->object);
	close_both(c);
}

/* --- opening a FIFO ------------------------------------------------------------------------------------------------- */

static void a_fifo(struct ctx *c)
{
	new_path(c);
	REQUIRE(mkfifo(c->path, 0600) == 0);
}

static long call_openat(struct ctx *c)
{
	return c->fd = openat(AT_FDCWD, c->path, O_RDONLY);
}

static long call_creat(struct ctx *c)
{
	return c->fd = creat(c->path, 0600);
}

static void open_to_write(struct ctx *c)
{
	c->other = open(c->path, O_WRONLY);
	CHECK(c->other >= 0);
}

static void open_to_read(struct ctx *c)
{
	c->other = open(c->path, O_RDONLY);
	CHECK(c->other >= 0);
}

/* The table: signal(7), and which are cancellation points of glibc. */
static const struct row rows[] = {
    {"recvfrom", empty_socket, call_recvfrom, put_byte, close_both, RESTARTS | CANCELS},
    {"recvmsg with a limit", empty_limited_socket, call_recvmsg, put_byte, close_both, CANCELS},
    {"recvmmsg of two", empty_socket, call_recvmmsg_all, put_two, close_both, RESTARTS | CANCELS},
    {"recvmmsg with a limit", empty_limited_socket, call_recvmmsg_all, put_two, close_both,
     CANCELS},
    {"sendto", full_socket, call_sendto, drain, close_both, RESTARTS | CANCELS},
    {"sendmsg with a limit", full_limited_socket, call_sendmsg, drain, close_both, CANCELS},
    {"pwritev2", full_pipe, call_pwritev2, drain, close_both, RESTARTS | CANCELS},
    {"splice", empty_pipe, call_splice, put_byte, close_both, RESTARTS | CANCELS},
    {"tee", two_pipes, call_tee, put_byte, close_four, RESTARTS | CANCELS},
    {"vmsplice", full_pipe, call_vmsplice, drain, close_both, RESTARTS | CANCELS},
    {"sendfile", full_socket, call_sendfile, drain, close_both, RESTARTS},
    {"connect with a limit", full_limited_listener, call_connect, accept_one, close_four, CANCELS},
    {"write to an eventfd", full_eventfd, call_eventfd_write, take_events, close_both,
     RESTARTS | CANCELS},
    {"read of a timerfd", late_timerfd, call_read, advance_timerfd, close_both, RESTARTS | CANCELS},
    {"read of inotify", quiet_inotify, call_read, change_directory, remove_inotify,
     RESTARTS | CANCELS},
    {"read of fanotify", quiet_fanotify, call_read, change_directory, remove_inotify,
     RESTARTS | CANCELS},
    {"read of a signalfd", quiet_signalfd, call_read, send_to_process, close_both,
     RESTARTS | CANCELS},
    {"read of a terminal", quiet_terminal, call_read, put_line, close_both, RESTARTS | CANCELS},
    {"read of a userfaultfd", quiet_userfaultfd, call_read, touch_page, unmap_page,
     RESTARTS | CANCELS},
    {"waitid P_PIDFD", a_child, call_waitid_pidfd, put_byte, reap, RESTARTS | CANCELS},
    {"poll of a pidfd", a_child, call_poll, put_byte, reap, CANCELS},
    {"ppoll with a mask", empty_pipe, call_ppoll_masked, put_byte, close_both, CANCELS},
    {"select of a large set", high_pipe, call_select_large, put_byte, close_both, CANCELS},
    {"epoll_wait of an epoll", epoll_within_epoll, call_epoll_wait, put_byte, close_four, CANCELS},
    {"poll of an epoll", epoll_within_epoll, call_poll_of_epoll, put_byte, close_four, CANCELS},
    {"epoll_wait, EPOLLEXCLUSIVE", exclusive_epoll, call_epoll_wait, put_byte, close_four, CANCELS},
    {"io_getevents", pending_request, call_io_getevents, put_byte, end_requests, 0},
    {"openat of a FIFO", a_fifo, call_openat, open_to_write, close_both, RESTARTS | CANCELS},
    {"creat of a FIFO", a_fifo, call_creat, open_to_read, close_both, RESTARTS | CANCELS},
};
CALLS_MAIN
