/*
 * Locks, children, System V and POSIX IPC, time, signals: what handlers and cancellation do to calls that wait for them.
 * See calls.h.
 */
#include "calls.h"

#include <mqueue.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>

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

CALLS_MAIN
