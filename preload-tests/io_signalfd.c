/*
 * signalfd: what is pending for the process or for the reader alone is read, polled for, and waited for, by a thread
 * that waits already and by one that comes later.
 */
#include "crowd.h"

#include <sys/epoll.h>
#include <sys/signalfd.h>

static sigset_t usr1;

static int ready_by_poll(int fd, int ms)
{
	struct pollfd p = {fd, POLLIN, 0};
	return poll(&p, 1, ms);
}

static int ready_by_epoll(int fd, int ms)
{
	struct epoll_event e = {.events = EPOLLIN}, got;
	int ep = epoll_create1(0);

	REQUIRE(ep >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e) == 0);
	int r = epoll_wait(ep, &got, 1, ms);
	close(ep);
	return r;
}

static int ready_by_read(int fd, int ms)
{
	(void)fd;
	return ms != 0;
}

static int (*const ways[])(int fd, int ms) = {ready_by_poll, ready_by_epoll, ready_by_read};

static struct {
	int (*ready)(int fd, int ms);
	int started;
	struct signalfd_siginfo info;
} reader;

static void *read_one(void *arg)
{
	int fd = signalfd(-1, &usr1, SFD_CLOEXEC);

	REQUIRE(fd >= 0);
	__atomic_store_n(&reader.started, 1, __ATOMIC_RELEASE);
	CHECK_EQ(reader.ready(fd, 20000), 1);
	memset(&reader.info, 0, sizeof reader.info);
	CHECK_EQ(read(fd, &reader.info, sizeof reader.info), sizeof reader.info);
	CHECK_EQ(reader.info.ssi_signo, SIGUSR1);
	/* Only once. */
	CHECK_EQ(ready_by_poll(fd, 0), 0);
	CHECK_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	CHECK_ERRNO(read(fd, &reader.info, sizeof reader.info), EAGAIN);
	close(fd);
	return arg;
}

static void to_process(pthread_t t)
{
	(void)t;
	CHECK_EQ(kill(getpid(), SIGUSR1), 0);
}

static void to_thread(pthread_t t)
{
	CHECK_EQ(pthread_kill(t, SIGUSR1), 0);
}

static void with_value(pthread_t t)
{
	CHECK_EQ(pthread_sigqueue(t, SIGUSR1, (union sigval){.sival_int = 4711}), 0);
}

static void (*const senders[])(pthread_t t) = {to_process, to_thread, with_value};

static void while_it_waits(void)
{
	for (unsigned i = 0; i < COUNT(ways); i++) {
		for (unsigned k = 0; k < COUNT(senders); k++) {
			reader.ready = ways[i];
			reader.started = 0;
			pthread_t t = spawn(read_one, NULL);
			CHECK(wait_for(&reader.started, 1, 20000));
			sleep_ms(10);
			senders[k](t);
			join(t);
			CHECK_EQ(reader.info.ssi_pid, getpid());
			if (senders[k] == with_value)
				CHECK_EQ(reader.info.ssi_int, 4711);
		}
	}
}

static void *to_itself(void *arg)
{
	struct signalfd_siginfo info;
	int fd = signalfd(-1, &usr1, SFD_NONBLOCK);
	sigset_t set;

	CHECK_ERRNO(read(fd, &info, sizeof info), EAGAIN);
	CHECK_EQ(raise(SIGUSR1), 0);
	CHECK_EQ(sigpending(&set), 0);
	CHECK(sigismember(&set, SIGUSR1));
	CHECK_EQ(ready_by_epoll(fd, 0), 1);
	CHECK_EQ(read(fd, &info, sizeof info), sizeof info);
	CHECK_EQ(sigpending(&set), 0);
	CHECK(!sigismember(&set, SIGUSR1));
	/* Or taken by who waits for signals. */
	CHECK_EQ(raise(SIGUSR1), 0);
	CHECK_EQ(sigtimedwait(&usr1, NULL, &(struct timespec){5, 0}), SIGUSR1);
	CHECK_ERRNO(read(fd, &info, sizeof info), EAGAIN);
	close(fd);
	return arg;
}

static void raised(void)
{
	join(spawn(to_itself, NULL));
	to_itself(NULL);
}

#define CASES(X)          \
	X(while_it_waits) \
	X(raised)

CROWD_CASES

int main(int argc, char **argv)
{
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	REQUIRE_OK(pthread_sigmask(SIG_BLOCK, &usr1, NULL));
	return test_run(argc, argv, cases, COUNT(cases));
}
