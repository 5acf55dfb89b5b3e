/*
 * Calls on descriptors, handlers and cancellation: see calls.h.
 */
#include "calls.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

static char byte;

/* --- descriptors: fd waits, other makes it ready -------------------------------------------------------------------- */

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

static void empty_limited_socket(struct ctx *c)
{
	struct timeval tv = {3600, 0};

	empty_socket(c);
	REQUIRE(setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) == 0);
}

static void put_byte(struct ctx *c)
{
	CHECK_EQ(write(c->other, "x", 1), 1);
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
	struct timeval tv = {3600, 0};

	full_socket(c);
	REQUIRE(setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv) == 0);
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
	char ch;
	return read(c->fd, &ch, 1);
}

static long call_readv(struct ctx *c)
{
	char ch[2];
	struct iovec v[2] = {{ch, 1}, {ch + 1, 1}};
	return readv(c->fd, v, 2);
}

static long call_preadv2(struct ctx *c)
{
	char ch;
	struct iovec v = {&ch, 1};
	return preadv2(c->fd, &v, 1, -1, 0);
}

static long call_write(struct ctx *c)
{
	return write(c->fd, &byte, 1);
}

static long call_writev(struct ctx *c)
{
	struct iovec v = {&byte, 1};
	return writev(c->fd, &v, 1);
}

static long call_recv(struct ctx *c)
{
	char ch;
	return recv(c->fd, &ch, 1, 0);
}

static long call_recv_waitall(struct ctx *c)
{
	char ch;
	return recv(c->fd, &ch, 1, MSG_WAITALL);
}

static long call_recvmsg(struct ctx *c)
{
	char ch, control[64];
	struct iovec v = {&ch, 1};
	struct msghdr m = {.msg_iov = &v,
			   .msg_iovlen = 1,
			   .msg_control = control,
			   .msg_controllen = sizeof control};
	return recvmsg(c->fd, &m, 0);
}

static long call_recvmmsg(struct ctx *c)
{
	char ch;
	struct iovec v = {&ch, 1};
	struct mmsghdr m = {.msg_hdr = {.msg_iov = &v, .msg_iovlen = 1}};
	return recvmmsg(c->fd, &m, 1, 0, NULL);
}

static long call_send(struct ctx *c)
{
	return send(c->fd, &byte, 1, 0);
}

static long call_sendmsg(struct ctx *c)
{
	struct iovec v = {&byte, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	return sendmsg(c->fd, &m, 0);
}

static long call_sendmmsg(struct ctx *c)
{
	struct iovec v = {&byte, 1};
	struct mmsghdr m = {.msg_hdr = {.msg_iov = &v, .msg_iovlen = 1}};
	return sendmmsg(c->fd, &m, 1, 0);
}

static void empty_eventfd(struct ctx *c)
{
	c->fd = eventfd(0, 0);
	c->other = dup(c->fd);
}

static long call_eventfd_read(struct ctx *c)
{
	eventfd_t v;
	return eventfd_read(c->fd, &v);
}

static void add_event(struct ctx *c)
{
	CHECK_EQ(eventfd_write(c->other, 1), 0);
}

/* --- several descriptors -------------------------------------------------------------------------------------------- */

static long call_poll(struct ctx *c)
{
	struct pollfd p = {c->fd, POLLIN, 0};
	return poll(&p, 1, -1);
}

static long call_poll_timed(struct ctx *c)
{
	struct pollfd p = {c->fd, POLLIN, 0};
	return poll(&p, 1, 3600000);
}

static long call_ppoll(struct ctx *c)
{
	struct pollfd p = {c->fd, POLLIN, 0};
	sigset_t none;
	sigemptyset(&none);
	return ppoll(&p, 1, &hour, &none);
}

static long call_select(struct ctx *c)
{
	fd_set r;
	FD_ZERO(&r);
	FD_SET(c->fd, &r);
	struct timeval tv = {3600, 0};
	long n = select(c->fd + 1, &r, NULL, NULL, &tv);
	CHECK(tv.tv_sec >= 3500 && tv.tv_sec < 3600);
	return n;
}

static long call_pselect(struct ctx *c)
{
	fd_set r;
	FD_ZERO(&r);
	FD_SET(c->fd, &r);
	return pselect(c->fd + 1, &r, NULL, NULL, &hour, NULL);
}

static void epoll_of_pipe(struct ctx *c)
{
	struct epoll_event e = {.events = EPOLLIN};

	empty_pipe(c);
	c->id = epoll_create1(0);
	REQUIRE(epoll_ctl(c->id, EPOLL_CTL_ADD, c->fd, &e) == 0);
}

static void close_epoll(struct ctx *c)
{
	close(c->id);
	close_both(c);
}

static long call_epoll_wait(struct ctx *c)
{
	struct epoll_event e;
	return epoll_wait(c->id, &e, 1, 3600000);
}

static long call_epoll_pwait(struct ctx *c)
{
	struct epoll_event e;
	sigset_t none;
	sigemptyset(&none);
	return epoll_pwait(c->id, &e, 1, -1, &none);
}

static long call_epoll_pwait2(struct ctx *c)
{
	struct epoll_event e;
	return epoll_pwait2(c->id, &e, 1, &hour, NULL);
}

/* --- connections ---------------------------------------------------------------------------------------------------- */

static struct sockaddr_un address(struct ctx *c)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	memcpy(a.sun_path, c->path, sizeof c->path);
	return a;
}

static void listener(struct ctx *c)
{
	new_path(c);
	struct sockaddr_un a = address(c);

	c->fd = socket(AF_UNIX, SOCK_STREAM, 0);
	c->other = socket(AF_UNIX, SOCK_STREAM, 0);
	REQUIRE(bind(c->fd, (void *)&a, sizeof a) == 0 && listen(c->fd, 0) == 0);
}

static void limited_listener(struct ctx *c)
{
	struct timeval tv = {3600, 0};

	listener(c);
	REQUIRE(setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) == 0);
}

static void connect_to_it(struct ctx *c)
{
	struct sockaddr_un a = address(c);

	CHECK_EQ(connect(c->other, (void *)&a, sizeof a), 0);
}

static long call_accept(struct ctx *c)
{
	int fd = accept(c->fd, NULL, NULL);
	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 1;
}

static long call_accept4(struct ctx *c)
{
	int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 1;
}

static void full_listener(struct ctx *c)
{
	listener(c);
	connect_to_it(c);
	c->id = socket(AF_UNIX, SOCK_STREAM, 0);
}

static long call_connect(struct ctx *c)
{
	struct sockaddr_un a = address(c);
	return connect(c->id, (void *)&a, sizeof a);
}

static void accept_one(struct ctx *c)
{
	int fd = accept(c->fd, NULL, NULL);
	CHECK(fd >= 0);
	close(fd);
}

static void a_fifo(struct ctx *c)
{
	new_path(c);
	REQUIRE(mkfifo(c->path, 0600) == 0);
	c->fd = -1;
}

static long call_open(struct ctx *c)
{
	return c->fd = open(c->path, O_RDONLY);
}

static void open_other_side(struct ctx *c)
{
	c->other = open(c->path, O_WRONLY);
	CHECK(c->other >= 0);
}

static const struct row rows[] = {
    {"read of a pipe", empty_pipe, call_read, put_byte, close_both, RESTARTS | CANCELS},
    {"read of a socket", empty_socket, call_read, put_byte, close_both, RESTARTS | CANCELS},
    {"read with a limit", empty_limited_socket, call_read, put_byte, close_both, CANCELS},
    {"read of an eventfd", empty_eventfd, call_eventfd_read, add_event, close_both,
     RESTARTS | CANCELS},
    {"readv", empty_pipe, call_readv, put_byte, close_both, RESTARTS | CANCELS},
    {"readv of a socket", empty_socket, call_readv, put_byte, close_both, RESTARTS | CANCELS},
    {"preadv2", empty_pipe, call_preadv2, put_byte, close_both, RESTARTS | CANCELS},
    {"write to a pipe", full_pipe, call_write, drain, close_both, RESTARTS | CANCELS},
    {"write to a socket", full_socket, call_write, drain, close_both, RESTARTS | CANCELS},
    {"write with a limit", full_limited_socket, call_write, drain, close_both, CANCELS},
    {"writev", full_pipe, call_writev, drain, close_both, RESTARTS | CANCELS},
    {"recv", empty_socket, call_recv, put_byte, close_both, RESTARTS | CANCELS},
    {"recv with a limit", empty_limited_socket, call_recv, put_byte, close_both, CANCELS},
    {"recv MSG_WAITALL", empty_socket, call_recv_waitall, put_byte, close_both, RESTARTS | CANCELS},
    {"recvmsg", empty_socket, call_recvmsg, put_byte, close_both, RESTARTS | CANCELS},
    {"recvmmsg", empty_socket, call_recvmmsg, put_byte, close_both, RESTARTS | CANCELS},
    {"send", full_socket, call_send, drain, close_both, RESTARTS | CANCELS},
    {"send with a limit", full_limited_socket, call_send, drain, close_both, CANCELS},
    {"sendmsg", full_socket, call_sendmsg, drain, close_both, RESTARTS | CANCELS},
    {"sendmmsg", full_socket, call_sendmmsg, drain, close_both, RESTARTS | CANCELS},
    {"poll", empty_pipe, call_poll, put_byte, close_both, CANCELS},
    {"poll with a timeout", empty_pipe, call_poll_timed, put_byte, close_both, CANCELS},
    {"ppoll", empty_pipe, call_ppoll, put_byte, close_both, CANCELS},
    {"select", empty_pipe, call_select, put_byte, close_both, CANCELS},
    {"pselect", empty_pipe, call_pselect, put_byte, close_both, CANCELS},
    {"epoll_wait", epoll_of_pipe, call_epoll_wait, put_byte, close_epoll, CANCELS},
    {"epoll_pwait", epoll_of_pipe, call_epoll_pwait, put_byte, close_epoll, CANCELS},
    {"epoll_pwait2", epoll_of_pipe, call_epoll_pwait2, put_byte, close_epoll, CANCELS},
    {"accept", listener, call_accept, connect_to_it, close_both, RESTARTS | CANCELS},
    {"accept4", listener, call_accept4, connect_to_it, close_both, RESTARTS | CANCELS},
    {"accept with a limit", limited_listener, call_accept, connect_to_it, close_both, CANCELS},
    {"connect", full_listener, call_connect, accept_one, close_epoll, RESTARTS | CANCELS},
    {"open of a FIFO", a_fifo, call_open, open_other_side, close_both, RESTARTS | CANCELS},
};

CALLS_MAIN
