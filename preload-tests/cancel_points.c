/*
 * Every cancellation point of POSIX, and calls that are none. With a request pending a point acts on it
 * although it would not have to wait; one that waits is left; both run the cleanup handlers. The other
 * calls do their work, and the request is still there afterwards. (signal_io_calls and signal_wait_calls
 * cancel more of the calls that wait, one by one and all together.)
 */
#include "test.h"

#include <aio.h>
#include <mqueue.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <termios.h>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* sigpause */

/* What the calls use: made anew for each. */
static int file, rd, wr, sock[2], listener, queue, semid, pty;
static mqd_t mq;
static char path[200], fifo[210], buf[100];
static void *map;
static pthread_mutex_t m;
static pthread_cond_t c;
static pthread_rwlock_t rw;
static pthread_spinlock_t spin;
static pthread_barrier_t one;
static pthread_once_t control;
static sem_t sem;
static pthread_t runs, ended;
static pthread_key_t key;
static struct aiocb aio;
static sigset_t usr2;
static volatile int gate;
static FILE *stream;
static const struct timespec hour = {3600, 0};

static struct iovec iov = {buf, 1};
static struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
static struct message {
	long type;
	char text[8];
} message = {1, "text"};

/* Waits without a cancellation point, so that it can be joined. */
static void *until_gate(void *arg)
{
	while (!gate)
		sched_yield();
	return arg;
}

static void *end(void *arg)
{
	return arg;
}

static void fill(int fd)
{
	char junk[4096] = {0};

	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (write(fd, junk, sizeof junk) > 0)
		;
	while (write(fd, junk, 1) > 0)
		;
	fcntl(fd, F_SETFL, 0);
}

static void setup(int blocked)
{
	const char *tmp = getenv("TMPDIR");
	struct mq_attr a = {.mq_maxmsg = 1, .mq_msgsize = 8};
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int p[2];

	snprintf(path, sizeof path, "%s/goshim-points-XXXXXX", tmp ? tmp : "/tmp");
	REQUIRE((file = mkstemp(path)) >= 0);
	snprintf(fifo, sizeof fifo, "%s.fifo", path);
	REQUIRE(mkfifo(fifo, 0600) == 0);
	REQUIRE(write(file, buf, sizeof buf) == sizeof buf && lseek(file, 0, SEEK_SET) == 0);
	REQUIRE(pipe(p) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, sock) == 0);
	rd = p[0];
	wr = p[1];
	REQUIRE((listener = socket(AF_UNIX, SOCK_STREAM, 0)) >= 0);
	REQUIRE(bind(listener, (struct sockaddr *)&sun, sizeof(sa_family_t)) == 0);
	REQUIRE(listen(listener, 5) == 0);
	REQUIRE((pty = open("/dev/ptmx", O_RDWR | O_NOCTTY)) >= 0);
	snprintf(buf, sizeof buf, "/goshim-points-%d", (int)getpid());
	mq = mq_open(buf, O_CREAT | O_RDWR, 0600, &a);
	mq_unlink(buf);
	REQUIRE((queue = msgget(IPC_PRIVATE, 0600)) >= 0);
	REQUIRE((semid = semget(IPC_PRIVATE, 1, 0600)) >= 0);
	REQUIRE((map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)) !=
		MAP_FAILED);
	REQUIRE_OK(pthread_mutex_init(&m, NULL));
	REQUIRE_OK(pthread_cond_init(&c, NULL));
	REQUIRE_OK(pthread_rwlock_init(&rw, NULL));
	REQUIRE_OK(pthread_spin_init(&spin, 0));
	REQUIRE_OK(pthread_barrier_init(&one, NULL, 1));
	REQUIRE_OK(pthread_key_create(&key, NULL));
	control = PTHREAD_ONCE_INIT;
	gate = 0;
	runs = spawn(until_gate, NULL);
	ended = spawn(end, NULL);
	aio = (struct aiocb){.aio_fildes = rd, .aio_buf = buf, .aio_nbytes = 1};
	REQUIRE(aio_read(&aio) == 0);
	if (blocked) {
		sem_init(&sem, 0, 0);
		fill(sock[0]);
	} else {
		/* All is there that may be waited for. */
		struct sembuf up = {0, 5, 0};
		sem_init(&sem, 0, 5);
		semop(semid, &up, 1);
		REQUIRE(write(wr, buf, 50) == 50 && write(sock[1], buf, 50) == 50);
		REQUIRE(msgsnd(queue, &message, 8, 0) == 0);
		raise(SIGUSR2);
	}
}

static void teardown(void)
{
	struct timespec none = {0, 0};

	while (sigtimedwait(&usr2, NULL, &none) > 0)
		;
	gate = 1;
	pthread_join(runs, NULL);
	pthread_join(ended, NULL);
	if (write(wr, buf, 1) == 1) {
		const struct aiocb *list[] = {&aio};
		while (aio_error(&aio) == EINPROGRESS)
			aio_suspend(list, 1, NULL);
	}
	munmap(map, 4096);
	msgctl(queue, IPC_RMID, NULL);
	semctl(semid, 0, IPC_RMID);
	if (mq != (mqd_t)-1)
		mq_close(mq);
	int fds[] = {file, rd, wr, sock[0], sock[1], listener, pty};
	for (unsigned i = 0; i < COUNT(fds); i++)
		close(fds[i]);
	pthread_key_delete(key);
	unlink(path);
	unlink(fifo);
}

/* --- the calls --------------------------------------------------------------------------------- */

static struct sockaddr_un there(void)
{
	struct sockaddr_un sun;
	socklen_t n = sizeof sun;

	getsockname(listener, (struct sockaddr *)&sun, &n);
	return sun;
}

static struct pollfd pollin(void)
{
	return (struct pollfd){rd, POLLIN, 0};
}

static fd_set only_rd(void)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(rd, &set);
	return set;
}

static int epoll_of_rd(void)
{
	struct epoll_event e = {.events = EPOLLIN};
	int ep = epoll_create1(0);

	REQUIRE(epoll_ctl(ep, EPOLL_CTL_ADD, rd, &e) == 0);
	return ep;
}

static void nothing(void)
{
}

static void unlock(void *arg)
{
	CHECK_EQ(pthread_mutex_unlock(arg), 0);
}

static struct timespec soon(void)
{
	return after_ms(CLOCK_REALTIME, 600000);
}

/* NAME, what it is, statements. WAITS: it would, as `setup(1)` has left things. */
#define POINTS(X)                                                                                \
	X(accept, WAITS, accept(listener, NULL, NULL))                                           \
	X(accept4, WAITS, accept4(listener, NULL, NULL, 0))                                      \
	X(aio_suspend, WAITS | LAZY | DEFERRED, const struct aiocb *list[] = {&aio};             \
	  aio_suspend(list, 1, NULL))                                                            \
	X(clock_nanosleep, WAITS, clock_nanosleep(CLOCK_MONOTONIC, 0, &hour, NULL))              \
	X(close, 0, close(dup(file)))                                                            \
	X(connect, 0, int s = socket(AF_UNIX, SOCK_STREAM, 0); struct sockaddr_un sun = there(); \
	  connect(s, (struct sockaddr *)&sun, sizeof sun))                                       \
	X(creat, 0, creat(path, 0600))                                                           \
	X(creat_fifo, WAITS, creat(fifo, 0600))                                                  \
	X(epoll_wait, WAITS, struct epoll_event e; epoll_wait(epoll_of_rd(), &e, 1, -1))         \
	X(fcntl_setlkw, 0, struct flock l = {.l_type = F_WRLCK}; fcntl(file, F_SETLKW, &l))      \
	X(fdatasync, 0, fdatasync(file))                                                         \
	X(fsync, 0, fsync(file))                                                                 \
	X(lockf, 0, lockf(file, F_LOCK, 1))                                                      \
	X(mq_receive, WAITS, mq_receive(mq, buf, 8, NULL))                                       \
	X(mq_timedreceive, WAITS, struct timespec ts = soon();                                   \
	  mq_timedreceive(mq, buf, 8, NULL, &ts))                                                \
	X(mq_send, 0, mq_send(mq, buf, 1, 0))                                                    \
	X(mq_timedsend, 0, struct timespec ts = soon(); mq_timedsend(mq, buf, 1, 0, &ts))        \
	X(msgrcv, WAITS, msgrcv(queue, &message, 8, 0, 0))                                       \
	X(msgsnd, 0, msgsnd(queue, &message, 8, 0))                                              \
	X(msync, 0, msync(map, 4096, MS_SYNC))                                                   \
	X(nanosleep, WAITS, nanosleep(&hour, NULL))                                              \
	X(open, 0, open(path, O_RDONLY))                                                         \
	X(open_fifo, WAITS, open(fifo, O_RDONLY))                                                \
	X(openat, 0, openat(AT_FDCWD, path, O_RDONLY))                                           \
	X(openat_fifo, WAITS, openat(AT_FDCWD, fifo, O_WRONLY))                                  \
	X(pause, WAITS, pause())                                                                 \
	X(poll, WAITS, struct pollfd p = pollin(); poll(&p, 1, -1))                              \
	X(ppoll, WAITS, struct pollfd p = pollin(); ppoll(&p, 1, NULL, NULL))                    \
	X(pread, 0, pread(file, buf, 1, 0))                                                      \
	X(preadv, 0, preadv(file, &iov, 1, 0))                                                   \
	X(pselect, WAITS, fd_set set = only_rd(); pselect(rd + 1, &set, NULL, NULL, NULL, NULL)) \
	X(pthread_cond_wait, WAITS, pthread_mutex_lock(&m); pthread_cleanup_push(unlock, &m);    \
	  pthread_cond_wait(&c, &m); pthread_cleanup_pop(1))                                     \
	X(pthread_cond_timedwait, WAITS, struct timespec ts = soon(); pthread_mutex_lock(&m);    \
	  pthread_cleanup_push(unlock, &m); pthread_cond_timedwait(&c, &m, &ts);                 \
	  pthread_cleanup_pop(1))                                                                \
	X(pthread_cond_clockwait, WAITS, struct timespec ts = soon(); pthread_mutex_lock(&m);    \
	  pthread_cleanup_push(unlock, &m); pthread_cond_clockwait(&c, &m, CLOCK_REALTIME, &ts); \
	  pthread_cleanup_pop(1))                                                                \
	X(pthread_join, WAITS, pthread_join(runs, NULL))                                         \
	X(pthread_timedjoin_np, WAITS, struct timespec ts = soon();                              \
	  pthread_timedjoin_np(runs, NULL, &ts))                                                 \
	X(pthread_clockjoin_np, WAITS, struct timespec ts = soon();                              \
	  pthread_clockjoin_np(runs, NULL, CLOCK_REALTIME, &ts))                                 \
	X(pthread_testcancel, 0, pthread_testcancel())                                           \
	X(pwrite, 0, pwrite(file, buf, 1, 0))                                                    \
	X(pwritev, 0, pwritev(file, &iov, 1, 0))                                                 \
	X(read, WAITS, read(rd, buf, 1))                                                         \
	X(readv, WAITS, readv(rd, &iov, 1))                                                      \
	X(recv, WAITS, recv(sock[0], buf, 1, 0))                                                 \
	X(recvfrom, WAITS, recvfrom(sock[0], buf, 1, 0, NULL, NULL))                             \
	X(recvmsg, WAITS, recvmsg(sock[0], &msg, 0))                                             \
	X(select, WAITS, fd_set set = only_rd(); select(rd + 1, &set, NULL, NULL, NULL))         \
	X(sem_wait, WAITS, sem_wait(&sem))                                                       \
	X(sem_timedwait, WAITS, struct timespec ts = soon(); sem_timedwait(&sem, &ts))           \
	X(sem_clockwait, WAITS | LAZY, struct timespec ts = soon();                              \
	  sem_clockwait(&sem, CLOCK_REALTIME, &ts))                                              \
	X(send, WAITS, send(sock[0], buf, 1, 0))                                                 \
	X(sendmsg, WAITS, sendmsg(sock[0], &msg, 0))                                             \
	X(sendto, WAITS, sendto(sock[0], buf, 1, 0, NULL, 0))                                    \
	X(sigpause, WAITS, sigpause(SIGUSR1))                                                    \
	X(sigsuspend, WAITS, sigsuspend(&usr2))                                                  \
	X(sigtimedwait, WAITS, sigtimedwait(&usr2, NULL, &hour))                                 \
	X(sigwait, WAITS, int sig; sigwait(&usr2, &sig))                                         \
	X(sigwaitinfo, WAITS, sigwaitinfo(&usr2, NULL))                                          \
	X(sleep, WAITS, sleep(3600))                                                             \
	X(system, 0, (void)!system("true"))                                                      \
	X(system_waiting, WAITS | DEFERRED, (void)!system("exec sleep 600"))                     \
	X(tcdrain, 0, tcdrain(pty))                                                              \
	X(usleep, WAITS, usleep(999999999))                                                      \
	X(wait, 0, wait(NULL))                                                                   \
	X(waitid, 0, siginfo_t i; waitid(P_ALL, 0, &i, WEXITED))                                 \
	X(waitpid, 0, waitpid(-1, NULL, 0))                                                      \
	X(write, 0, write(file, buf, 1))                                                         \
	X(write_socket, WAITS, write(sock[0], buf, 1))                                           \
	X(writev, WAITS, writev(sock[0], &iov, 1))                                               \
	X(fgetc, WAITS | DEFERRED, stream = fdopen(dup(rd), "r"); fgetc(stream))                 \
	X(fflush, WAITS | DEFERRED, stream = fdopen(dup(sock[0]), "w"); fputc('x', stream);      \
	  fflush(stream))

#define OTHERS(X)                                                                                 \
	X(dup, close_quietly(dup(file)))                                                          \
	X(fcntl_setlk, struct flock l = {.l_type = F_WRLCK}; fcntl(file, F_SETLK, &l))            \
	X(flock, flock(file, LOCK_EX))                                                            \
	X(fstat, struct stat st; fstat(file, &st))                                                \
	X(getpid, getpid())                                                                       \
	X(kill, kill(getpid(), 0))                                                                \
	X(listen, listen(listener, 5))                                                            \
	X(lseek, lseek(file, 0, SEEK_SET))                                                        \
	X(malloc, free(malloc(100000)))                                                           \
	X(mmap, munmap(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, file, 0), 4096))                  \
	X(pthread_barrier_wait, pthread_barrier_wait(&one))                                       \
	X(pthread_cond_signal, pthread_cond_signal(&c))                                           \
	X(pthread_cond_broadcast, pthread_cond_broadcast(&c))                                     \
	X(pthread_create, pthread_t t; REQUIRE_OK(pthread_create(&t, NULL, end, NULL));           \
	  pthread_detach(t))                                                                      \
	X(pthread_key_create, pthread_key_t k; pthread_key_create(&k, NULL);                      \
	  pthread_key_delete(k))                                                                  \
	X(pthread_kill, pthread_kill(runs, 0))                                                    \
	X(pthread_cancel, pthread_cancel(pthread_self()))                                         \
	X(pthread_mutex_lock, pthread_mutex_lock(&m); pthread_mutex_unlock(&m))                   \
	X(pthread_mutex_trylock, pthread_mutex_trylock(&m); pthread_mutex_unlock(&m))             \
	X(pthread_mutex_timedlock, struct timespec ts = soon(); pthread_mutex_timedlock(&m, &ts); \
	  pthread_mutex_unlock(&m))                                                               \
	X(pthread_once, pthread_once(&control, nothing))                                          \
	X(pthread_rwlock_rdlock, pthread_rwlock_rdlock(&rw); pthread_rwlock_unlock(&rw))          \
	X(pthread_rwlock_wrlock, pthread_rwlock_wrlock(&rw); pthread_rwlock_unlock(&rw))          \
	X(pthread_setname_np, pthread_setname_np(pthread_self(), "x"))                            \
	X(pthread_setspecific, pthread_setspecific(key, &m))                                      \
	X(pthread_sigmask, pthread_sigmask(SIG_BLOCK, NULL, NULL))                                \
	X(pthread_spin_lock, pthread_spin_lock(&spin); pthread_spin_unlock(&spin))                \
	X(pthread_tryjoin_np, CHECK_EQ(pthread_tryjoin_np(runs, NULL), EBUSY))                    \
	X(raise, raise(SIGUSR1))                                                                  \
	X(sched_yield, sched_yield())                                                             \
	X(sem_getvalue, int v; sem_getvalue(&sem, &v))                                            \
	X(sem_post, sem_post(&sem))                                                               \
	X(sem_trywait, sem_trywait(&sem))                                                         \
	X(semop, struct sembuf op = {0, 1, 0}; semop(semid, &op, 1))                              \
	X(setcancelstate, pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);                   \
	  pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL))                                    \
	X(setcanceltype, pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, NULL))                    \
	X(shutdown, shutdown(sock[1], SHUT_WR))                                                   \
	X(sigaction, sigaction(SIGUSR1, NULL, NULL))                                              \
	X(snprintf, char t[20]; snprintf(t, sizeof t, "%d", file))                                \
	X(socket, close_quietly(socket(AF_UNIX, SOCK_STREAM, 0)))                                 \
	X(stat, struct stat st; stat(path, &st))

enum {
	WAITS = 1,
	LAZY = 2,     /* with nothing to wait for, libc's does not look */
	DEFERRED = 4, /* holds locks of libc's, which asynchronous cancellation leaves locked */
};

static void close_quietly(int fd)
{
	syscall(SYS_close, fd);
}

#define POINT_FUNCTION(name, flags, ...) \
	static void point_##name(void)   \
	{                                \
		__VA_ARGS__;             \
	}
POINTS(POINT_FUNCTION)

#define OTHER_FUNCTION(name, ...)      \
	static void other_##name(void) \
	{                              \
		__VA_ARGS__;           \
	}
OTHERS(OTHER_FUNCTION)

static const struct row {
	const char *name;
	int flags;
	void (*call)(void);
} points[] =
    {
#define POINT_ROW(name, flags, ...) {#name, flags, point_##name},
	POINTS(POINT_ROW)},
  others[] = {
#define OTHER_ROW(name, ...) {#name, 0, other_##name},
      OTHERS(OTHER_ROW)};

/* --- the runs ---------------------------------------------------------------------------------- */

static int handlers;
static volatile int here, passed, type;

static void handler(void *arg)
{
	(void)arg;
	handlers++;
}

static void *with_request(void *row)
{
	pthread_cleanup_push(handler, NULL);
	pthread_cleanup_push(handler, NULL);
	pthread_cancel(pthread_self());
	((const struct row *)row)->call();
	passed = 1;
	pthread_testcancel();
	pthread_cleanup_pop(0);
	pthread_cleanup_pop(0);
	return NULL;
}

static void *without_request(void *row)
{
	pthread_cleanup_push(handler, NULL);
	pthread_cleanup_push(handler, NULL);
	pthread_setcanceltype(type, NULL);
	here = 1;
	((const struct row *)row)->call();
	passed = 1;
	pthread_cleanup_pop(0);
	pthread_cleanup_pop(0);
	return NULL;
}

static void cancelled(const struct row *row, const char *when, pthread_t t, int passes)
{
	void *result = NULL;

	REQUIRE_OK(pthread_join(t, &result));
	if (result != PTHREAD_CANCELED || handlers != 2 || passed != passes)
		FAIL("%s, %s: %s, result %p, %d handlers", row->name, when,
		     passed ? "returned" : "did not return", result, handlers);
	/* It has left nothing locked. */
	CHECK_EQ(pthread_mutex_trylock(&m), 0);
	CHECK_EQ(pthread_mutex_unlock(&m), 0);
	if (stream) {
		CHECK_EQ(ftrylockfile(stream), 0);
		funlockfile(stream);
		stream = NULL;
	}
}

static void requested_before(void)
{
	for (unsigned i = 0; i < COUNT(points); i++) {
		if (points[i].flags & LAZY)
			continue;
		setup(0);
		handlers = passed = 0;
		cancelled(&points[i], "requested before", spawn(with_request, (void *)&points[i]),
			  0);
		teardown();
	}
}

static void in_the_wait(int with_type, const char *how)
{
	type = with_type;
	for (unsigned i = 0; i < COUNT(points); i++) {
		if (!(points[i].flags & WAITS) ||
		    (type == PTHREAD_CANCEL_ASYNCHRONOUS && points[i].flags & DEFERRED))
			continue;
		for (int late = 0; late < 2; late++) {
			setup(1);
			handlers = passed = here = 0;
			pthread_t t = spawn(without_request, (void *)&points[i]);
			CHECK(wait_for(&here, 1, 20000));
			if (late)
				sleep_ms(5);
			CHECK_EQ(pthread_cancel(t), 0);
			cancelled(&points[i], how, t, 0);
			teardown();
		}
	}
}

static void requested_in_the_wait(void)
{
	in_the_wait(PTHREAD_CANCEL_DEFERRED, "in the wait");
}

static void requested_of_an_asynchronous_wait(void)
{
	in_the_wait(PTHREAD_CANCEL_ASYNCHRONOUS, "in the wait, asynchronous");
}

static void no_points(void)
{
	for (unsigned i = 0; i < COUNT(others); i++) {
		setup(0);
		handlers = passed = 0;
		cancelled(&others[i], "no point", spawn(with_request, (void *)&others[i]), 1);
		teardown();
	}
}

static const struct test_case cases[] = {
    {"requested_before", requested_before},
    {"requested_in_the_wait", requested_in_the_wait},
    {"requested_of_an_asynchronous_wait", requested_of_an_asynchronous_wait},
    {"no_points", no_points},
};

static void ignore(int sig)
{
	(void)sig;
}

int main(int argc, char **argv)
{
	sigemptyset(&usr2);
	sigaddset(&usr2, SIGUSR2);
	REQUIRE_OK(pthread_sigmask(SIG_BLOCK, &usr2, NULL));
	signal(SIGUSR1, ignore);
	signal(SIGPIPE, SIG_IGN);
	return test_run(argc, argv, cases, COUNT(cases));
}
