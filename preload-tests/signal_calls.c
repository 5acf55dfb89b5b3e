/*
 * signal(7)'s table, a row per call: every call that waits, ended by a handler (EINTR), restarted after one with
 * SA_RESTART or not, as Linux has it, ended by cancellation where it is a cancellation point, and by what it waits
 * for. Each row runs by itself, and all together, when a scheduler has other ways of waiting than alone.
 */
#include "test.h"

#include <mqueue.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

/* What one waiting thread uses. */
struct ctx {
	const struct row *row;
	int fd, other, id;
	pid_t child;
	char path[128];
	long result;
	int err, done, handled;
	pthread_t t;
};

struct row {
	const char *name;
	void (*setup)(struct ctx *c);
	long (*call)(struct ctx *c);
	void (*finish)(struct ctx *c); /* makes the call succeed, from another thread */
	void (*cleanup)(struct ctx *c);
	int flags;
};
enum {
	RESTARTS = 1,    /* after a handler with SA_RESTART */
	CANCELS = 2,     /* a cancellation point */
	NEVER_EINTR = 4, /* waits on whatever handlers run */
	TIME_LEFT = 8,   /* tells of a handler by its result */
	BY_SIGNAL = 16,  /* a handler is what it waits for: nothing else ends it */
};

static char dir[64];
static int nextname;
static __thread struct ctx *self;
static char byte;
static const struct timespec hour = {3600, 0};

static void new_path(struct ctx *c)
{
	snprintf(c->path, sizeof c->path, "%s/%d", dir,
		 __atomic_add_fetch(&nextname, 1, __ATOMIC_RELAXED));
}

static void close_both(struct ctx *c)
{
	close(c->fd);
	if (c->other >= 0)
		close(c->other);
	if (c->path[0])
		unlink(c->path);
}

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

	strncpy(a.sun_path, c->path, sizeof a.sun_path - 1);
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

/* --- locks ---------------------------------------------------------------------------------------------------------- */

static void flocked(struct ctx *c)
{
	new_path(c);
	c->fd = open(c->path, O_CREAT | O_RDWR, 0600);
	c->other = open(c->path, O_RDWR);
	REQUIRE(flock(c->other, LOCK_EX) == 0);
}

static long call_flock(struct ctx *c)
{
	return flock(c->fd, LOCK_EX);
}

static void unflock(struct ctx *c)
{
	CHECK_EQ(flock(c->other, LOCK_UN), 0);
}

static void ofd_locked(struct ctx *c)
{
	struct flock l = {.l_type = F_WRLCK};

	new_path(c);
	c->fd = open(c->path, O_CREAT | O_RDWR, 0600);
	c->other = open(c->path, O_RDWR);
	REQUIRE(fcntl(c->other, F_OFD_SETLK, &l) == 0);
}

static long call_ofd_setlkw(struct ctx *c)
{
	struct flock l = {.l_type = F_WRLCK};
	return fcntl(c->fd, F_OFD_SETLKW, &l);
}

static void ofd_unlock(struct ctx *c)
{
	struct flock l = {.l_type = F_UNLCK};
	CHECK_EQ(fcntl(c->other, F_OFD_SETLK, &l), 0);
}

/* POSIX locks belong to processes. */
static void locked_by_child(struct ctx *c)
{
	int ready[2];

	new_path(c);
	c->fd = open(c->path, O_CREAT | O_RDWR, 0600);
	REQUIRE(pipe(ready) == 0);
	c->child = fork();
	REQUIRE(c->child >= 0);
	if (c->child == 0) {
		struct flock l = {.l_type = F_WRLCK};

		if (fcntl(c->fd, F_SETLK, &l) != 0 || write(ready[1], "r", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	char ch;
	close(ready[1]);
	CHECK_EQ(read(ready[0], &ch, 1), 1);
	close(ready[0]);
}

static long call_setlkw(struct ctx *c)
{
	struct flock l = {.l_type = F_WRLCK};
	return fcntl(c->fd, F_SETLKW, &l);
}

static long call_lockf(struct ctx *c)
{
	return lockf(c->fd, F_LOCK, 0);
}

static void kill_child(struct ctx *c)
{
	if (c->child) {
		int status;

		CHECK_EQ(kill(c->child, SIGKILL), 0);
		CHECK_EQ(waitpid(c->child, &status, 0), c->child);
		c->child = 0;
	}
}

static void kill_child_and_close(struct ctx *c)
{
	kill_child(c);
	close_both(c);
}

/* --- children ------------------------------------------------------------------------------------------------------- */

static void a_child(struct ctx *c)
{
	c->fd = c->other = -1;
	c->child = fork();
	REQUIRE(c->child >= 0);
	while (c->child == 0)
		pause();
}

static long call_waitpid(struct ctx *c)
{
	int status;
	return waitpid(c->child, &status, 0);
}

static long call_wait4(struct ctx *c)
{
	struct rusage usage;
	return wait4(c->child, NULL, 0, &usage);
}

static long call_waitid(struct ctx *c)
{
	siginfo_t info;
	long r = waitid(P_PID, c->child, &info, WEXITED);
	return r < 0 ? r : info.si_pid;
}

static void end_child(struct ctx *c)
{
	CHECK_EQ(kill(c->child, SIGKILL), 0);
}

static void reap_child(struct ctx *c)
{
	kill(c->child, SIGKILL);
	waitpid(c->child, NULL, 0);
}

/* --- System V and POSIX IPC ----------------------------------------------------------------------------------------- */

struct message {
	long type;
	char text[8];
};

static void empty_queue(struct ctx *c)
{
	c->id = msgget(IPC_PRIVATE, 0600);
	REQUIRE(c->id >= 0);
}

static void full_queue(struct ctx *c)
{
	struct msqid_ds ds;

	empty_queue(c);
	REQUIRE(msgctl(c->id, IPC_STAT, &ds) == 0);
	ds.msg_qbytes = 8;
	REQUIRE(msgctl(c->id, IPC_SET, &ds) == 0);
	REQUIRE(msgsnd(c->id, &(struct message){1, "full"}, 8, 0) == 0);
}

static long call_msgrcv(struct ctx *c)
{
	struct message m;
	return msgrcv(c->id, &m, sizeof m.text, 0, 0);
}

static long call_msgsnd(struct ctx *c)
{
	return msgsnd(c->id, &(struct message){1, "more"}, 8, 0);
}

static void send_message(struct ctx *c)
{
	CHECK_EQ(call_msgsnd(c), 0);
}

static void receive_message(struct ctx *c)
{
	CHECK_EQ(call_msgrcv(c), 8);
}

static void remove_queue(struct ctx *c)
{
	msgctl(c->id, IPC_RMID, NULL);
}

static void zero_semaphore(struct ctx *c)
{
	c->id = semget(IPC_PRIVATE, 1, 0600);
	REQUIRE(c->id >= 0);
}

static long call_semop(struct ctx *c)
{
	struct sembuf down = {0, -1, 0};
	return semop(c->id, &down, 1);
}

static long call_semtimedop(struct ctx *c)
{
	struct sembuf down = {0, -1, 0};
	return semtimedop(c->id, &down, 1, &hour);
}

static void up(struct ctx *c)
{
	struct sembuf one = {0, 1, 0};
	CHECK_EQ(semop(c->id, &one, 1), 0);
}

static void remove_semaphore(struct ctx *c)
{
	semctl(c->id, 0, IPC_RMID);
}

static void empty_mq(struct ctx *c)
{
	struct mq_attr a = {.mq_maxmsg = 1, .mq_msgsize = 8};
	char name[64];

	snprintf(name, sizeof name, "/goshim-%d-%d", (int)getpid(),
		 __atomic_add_fetch(&nextname, 1, __ATOMIC_RELAXED));
	c->id = mq_open(name, O_CREAT | O_RDWR, 0600, &a);
	REQUIRE(c->id >= 0);
	mq_unlink(name);
}

static void full_mq(struct ctx *c)
{
	empty_mq(c);
	REQUIRE(mq_send(c->id, "full", 4, 0) == 0);
}

static long call_mq_receive(struct ctx *c)
{
	char buf[8];
	return mq_receive(c->id, buf, 8, NULL);
}

static long call_mq_timedreceive(struct ctx *c)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, 3600000);
	char buf[8];
	return mq_timedreceive(c->id, buf, 8, NULL, &ts);
}

static long call_mq_send(struct ctx *c)
{
	return mq_send(c->id, "more", 4, 0);
}

static long call_mq_timedsend(struct ctx *c)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, 3600000);
	return mq_timedsend(c->id, "more", 4, 0, &ts);
}

static void mq_put(struct ctx *c)
{
	CHECK_EQ(call_mq_send(c), 0);
}

static void mq_take(struct ctx *c)
{
	CHECK_EQ(call_mq_receive(c), 4);
}

static void close_mq(struct ctx *c)
{
	mq_close(c->id);
}

/* --- time and signals ----------------------------------------------------------------------------------------------- */

static void nothing(struct ctx *c)
{
	(void)c;
}

static long call_nanosleep(struct ctx *c)
{
	struct timespec rem = {0};
	long r = nanosleep(&hour, &rem);
	int err = errno;

	(void)c;
	CHECK(rem.tv_sec >= 3500 && rem.tv_sec < 3600);
	errno = err;
	return r;
}

static long call_clock_nanosleep(struct ctx *c)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, 3600000);

	(void)c;
	errno = clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &ts, NULL);
	return errno ? -1 : 0;
}

static long call_clock_nanosleep_boot(struct ctx *c)
{
	struct timespec rem = {0};

	(void)c;
	int r = clock_nanosleep(CLOCK_BOOTTIME, 0, &hour, &rem);
	CHECK(rem.tv_sec >= 3500 && rem.tv_sec < 3600);
	errno = r;
	return r ? -1 : 0;
}

static long call_usleep(struct ctx *c)
{
	(void)c;
	return usleep(3600000000u);
}

static long call_sleep(struct ctx *c)
{
	(void)c;
	return sleep(3600);
}

static long call_pause(struct ctx *c)
{
	(void)c;
	return pause();
}

static long call_sigsuspend(struct ctx *c)
{
	sigset_t set;

	(void)c;
	sigemptyset(&set);
	return sigsuspend(&set);
}

/* SIGUSR2 is blocked by all. */
static sigset_t usr2;

static void send_usr2(struct ctx *c)
{
	REQUIRE_OK(pthread_kill(c->t, SIGUSR2));
}

static long call_sigwait(struct ctx *c)
{
	int sig;

	(void)c;
	errno = sigwait(&usr2, &sig);
	return errno ? -1 : sig;
}

static long call_sigwaitinfo(struct ctx *c)
{
	siginfo_t info;

	(void)c;
	return sigwaitinfo(&usr2, &info);
}

static long call_sigtimedwait(struct ctx *c)
{
	(void)c;
	return sigtimedwait(&usr2, NULL, &hour);
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
    {"flock", flocked, call_flock, unflock, close_both, RESTARTS},
    {"fcntl F_OFD_SETLKW", ofd_locked, call_ofd_setlkw, ofd_unlock, close_both, RESTARTS | CANCELS},
    {"fcntl F_SETLKW", locked_by_child, call_setlkw, kill_child, kill_child_and_close,
     RESTARTS | CANCELS},
    {"lockf", locked_by_child, call_lockf, kill_child, kill_child_and_close, RESTARTS | CANCELS},
    {"waitpid", a_child, call_waitpid, end_child, reap_child, RESTARTS | CANCELS},
    {"wait4", a_child, call_wait4, end_child, reap_child, RESTARTS | CANCELS},
    {"waitid", a_child, call_waitid, end_child, reap_child, RESTARTS | CANCELS},
    {"msgrcv", empty_queue, call_msgrcv, send_message, remove_queue, CANCELS},
    {"msgsnd", full_queue, call_msgsnd, receive_message, remove_queue, CANCELS},
    {"semop", zero_semaphore, call_semop, up, remove_semaphore, 0},
    {"semtimedop", zero_semaphore, call_semtimedop, up, remove_semaphore, 0},
    {"mq_receive", empty_mq, call_mq_receive, mq_put, close_mq, RESTARTS | CANCELS},
    {"mq_timedreceive", empty_mq, call_mq_timedreceive, mq_put, close_mq, RESTARTS | CANCELS},
    {"mq_send", full_mq, call_mq_send, mq_take, close_mq, RESTARTS | CANCELS},
    {"mq_timedsend", full_mq, call_mq_timedsend, mq_take, close_mq, RESTARTS | CANCELS},
    {"nanosleep", nothing, call_nanosleep, nothing, nothing, CANCELS | BY_SIGNAL},
    {"clock_nanosleep", nothing, call_clock_nanosleep, nothing, nothing, CANCELS | BY_SIGNAL},
    {"clock_nanosleep, boot time", nothing, call_clock_nanosleep_boot, nothing, nothing,
     CANCELS | BY_SIGNAL},
    {"usleep", nothing, call_usleep, nothing, nothing, CANCELS | BY_SIGNAL},
    {"sleep", nothing, call_sleep, nothing, nothing, CANCELS | BY_SIGNAL | TIME_LEFT},
    {"pause", nothing, call_pause, nothing, nothing, CANCELS | BY_SIGNAL},
    {"sigsuspend", nothing, call_sigsuspend, nothing, nothing, CANCELS | BY_SIGNAL},
    {"sigwait", nothing, call_sigwait, send_usr2, nothing, CANCELS | NEVER_EINTR},
    {"sigwaitinfo", nothing, call_sigwaitinfo, send_usr2, nothing, CANCELS},
    {"sigtimedwait", nothing, call_sigtimedwait, send_usr2, nothing, CANCELS},
};

/* --- the runs ------------------------------------------------------------------------------------------------------- */

static void on_usr1(int sig)
{
	(void)sig;
	if (self)
		__atomic_add_fetch(&self->handled, 1, __ATOMIC_RELEASE);
}

static void *waiter(void *arg)
{
	struct ctx *c = arg;

	self = c;
	errno = 0;
	c->result = c->row->call(c);
	c->err = errno;
	__atomic_store_n(&c->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void begin(struct ctx *c, const struct row *row)
{
	memset(c, 0, sizeof *c);
	c->row = row;
	c->fd = c->other = -1;
	row->setup(c);
	c->t = spawn(waiter, c);
}

static void still_waits(struct ctx *c, const char *when)
{
	if (__atomic_load_n(&c->done, __ATOMIC_ACQUIRE))
		FAIL("%s %s: %ld, errno %d", c->row->name, when, c->result, c->err);
}

static void ended(struct ctx *c, const char *how)
{
	if (!wait_for(&c->done, 1, 10000)) {
		FAIL("%s still waits, %s", c->row->name, how);
		pthread_detach(c->t);
		return;
	}
	join(c->t);
	c->row->cleanup(c);
}

static int eintr(const struct ctx *c)
{
	if (c->row->flags & TIME_LEFT)
		return c->result >= 3500 && c->result <= 3600;
	return c->result == -1 && c->err == EINTR;
}

enum how { UNDISTURBED, INTERRUPTED, RESTARTED, CANCELLED };

static void disturb(struct ctx *c, enum how how)
{
	int flags = c->row->flags;

	still_waits(c, "at first");
	if (how == CANCELLED && flags & CANCELS)
		REQUIRE_OK(pthread_cancel(c->t));
	else if (how == INTERRUPTED || how == RESTARTED || flags & BY_SIGNAL)
		REQUIRE_OK(pthread_kill(c->t, SIGUSR1));
}

/* Does the handler leave the call waiting? */
static int goes_on(const struct ctx *c, enum how how)
{
	int flags = c->row->flags;

	if (flags & BY_SIGNAL)
		return 0;
	return how == UNDISTURBED || flags & NEVER_EINTR ||
	       (how == RESTARTED && flags & RESTARTS) || (how == CANCELLED && !(flags & CANCELS));
}

static void conclude(struct ctx *c, enum how how)
{
	void *result;

	if (how == CANCELLED && c->row->flags & CANCELS) {
		REQUIRE_OK(pthread_join(c->t, &result));
		if (result != PTHREAD_CANCELED)
			FAIL("%s, cancelled: %ld, errno %d", c->row->name, c->result, c->err);
		c->row->cleanup(c);
		return;
	}
	if (goes_on(c, how)) {
		still_waits(c, how == RESTARTED ? "after SA_RESTART" : "undisturbed");
		c->row->finish(c);
		ended(c, "though it may end");
		if (c->result < 0)
			FAIL("%s fails, errno %d", c->row->name, c->err);
	} else {
		ended(c, "though a handler ran");
		if (!eintr(c))
			FAIL("%s after a handler: %ld, errno %d", c->row->name, c->result, c->err);
	}
	if ((how == INTERRUPTED || how == RESTARTED) && c->handled != 1)
		FAIL("%s: %d handlers ran", c->row->name, c->handled);
}

static void run(enum how how, int together)
{
	static struct ctx all[COUNT(rows)];
	struct sigaction sa = {.sa_handler = on_usr1,
			       .sa_flags = how == RESTARTED ? SA_RESTART : 0};
	int step = together ? COUNT(rows) : 1;

	REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
	for (int at = 0; at < (int)COUNT(rows); at += step) {
		for (int i = at; i < at + step; i++)
			begin(&all[i], &rows[i]);
		sleep_ms(together ? 200 : 5);
		for (int i = at; i < at + step; i++)
			disturb(&all[i], how);
		if (how == RESTARTED)
			sleep_ms(together ? 200 : 5);
		for (int i = at; i < at + step; i++)
			conclude(&all[i], how);
	}
}

static void undisturbed(void)
{
	run(UNDISTURBED, 0);
	run(UNDISTURBED, 1);
}

static void interrupted(void)
{
	run(INTERRUPTED, 0);
	run(INTERRUPTED, 1);
}

static void restarted(void)
{
	run(RESTARTED, 0);
	run(RESTARTED, 1);
}

static void cancelled(void)
{
	run(CANCELLED, 0);
	run(CANCELLED, 1);
}

static const struct test_case cases[] = {
    {"undisturbed", undisturbed},
    {"interrupted", interrupted},
    {"restarted", restarted},
    {"cancelled", cancelled},
};

int main(int argc, char **argv)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof dir, "%s/goshim-calls-XXXXXX", tmp && strlen(tmp) < 30 ? tmp : "/tmp");
	REQUIRE(mkdtemp(dir));
	sigemptyset(&usr2);
	sigaddset(&usr2, SIGUSR2);
	REQUIRE_OK(pthread_sigmask(SIG_BLOCK, &usr2, NULL));
	int status = test_run(argc, argv, cases, COUNT(cases));
	rmdir(dir);
	return status;
}
