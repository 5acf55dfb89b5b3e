/*
 * What POSIX and the kernel say of a child of fork: pending signals, alarms, timers, record locks and CPU time are not
 * its own; mask, handlers, alternate stack, open file locks, descriptors and priority are. By main and by a thread;
 * and what libc makes of fork: daemon, forkpty.
 */
#include "test.h"

#include <pty.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/times.h>
#include <utmp.h>

static char path[300];
static volatile int handled, stop;

static void on_signal(int sig)
{
	(void)sig;
	handled++;
}

static void *burns(void *arg)
{
	while (!stop)
		(*(volatile long *)arg)++;
	return NULL;
}

struct before {
	int fd, ofd, flocked, epoll, pipe[2];
	timer_t timer;
	stack_t alt;
};

static int child(const struct before *b)
{
	struct itimerval real;
	struct itimerspec left;
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};
	struct epoll_event ev;
	struct rusage used;
	sigset_t set;
	stack_t alt;
	struct tms tms;

	CHECK_EQ(sigpending(&set), 0);
	CHECK_EQ(sigismember(&set, SIGUSR1), 0);
	CHECK_EQ(sigismember(&set, SIGUSR2), 0);
	pthread_sigmask(SIG_BLOCK, NULL, &set);
	CHECK_EQ(sigismember(&set, SIGUSR1), 1);
	CHECK_EQ(sigismember(&set, SIGUSR2), 1);
	CHECK_EQ(sigismember(&set, SIGTERM), 0);
	CHECK_EQ(getitimer(ITIMER_REAL, &real), 0);
	CHECK(real.it_value.tv_sec == 0 && real.it_value.tv_usec == 0);
	CHECK_EQ(alarm(0), 0);
	CHECK_ERRNO(timer_gettime(b->timer, &left), EINVAL);
	CHECK_EQ(sigaltstack(NULL, &alt), 0);
	CHECK(alt.ss_sp == b->alt.ss_sp && alt.ss_size == b->alt.ss_size);
	/* The parent's, in a child's eyes. */
	CHECK_EQ(fcntl(b->fd, F_GETLK, &lock), 0);
	CHECK_EQ(lock.l_type, F_WRLCK);
	CHECK_EQ(lock.l_pid, getppid());
	/* Shared with it. */
	lock = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 10};
	CHECK_EQ(fcntl(b->ofd, F_OFD_SETLK, &lock), 0);
	CHECK_EQ(flock(b->flocked, LOCK_EX | LOCK_NB), 0);
	CHECK_EQ(epoll_wait(b->epoll, &ev, 1, 0), 1);
	CHECK_EQ(getrusage(RUSAGE_CHILDREN, &used), 0);
	CHECK(used.ru_utime.tv_sec == 0 && used.ru_utime.tv_usec == 0);
	times(&tms);
	CHECK(tms.tms_utime < 20);
	handled = 0;
	kill(getpid(), SIGUSR1);
	CHECK_EQ(handled, 0);
	sigdelset(&set, SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	CHECK_EQ(handled, 1);
	CHECK_EQ(getpriority(PRIO_PROCESS, 0), 2);
	return test_failures ? 99 : 42;
}

static void *forks(void *arg)
{
	struct before b = {.alt = {.ss_size = 1 << 16}};
	struct sigaction sa = {.sa_handler = on_signal};
	struct sigevent sev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
	struct itimerspec far = {{0, 0}, {900, 0}};
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};
	struct epoll_event ev = {.events = EPOLLIN};
	sigset_t set, old;
	int status = -1;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0 && sigaction(SIGUSR2, &sa, NULL) == 0);
	b.alt.ss_sp = malloc(b.alt.ss_size);
	REQUIRE(sigaltstack(&b.alt, NULL) == 0);
	CHECK_EQ(pthread_kill(pthread_self(), SIGUSR1), 0);
	CHECK_EQ(raise(SIGUSR2), 0);
	alarm(800);
	REQUIRE(timer_create(CLOCK_MONOTONIC, &sev, &b.timer) == 0);
	REQUIRE(timer_settime(b.timer, 0, &far, NULL) == 0);
	b.fd = open(path, O_RDWR | O_CREAT, 0600);
	b.ofd = open(path, O_RDWR);
	b.flocked = open(path, O_RDWR);
	REQUIRE(b.fd >= 0 && b.ofd >= 0 && b.flocked >= 0);
	REQUIRE(fcntl(b.fd, F_SETLK, &lock) == 0);
	lock.l_start = 100;
	lock.l_pid = 0;
	REQUIRE(fcntl(b.ofd, F_OFD_SETLK, &lock) == 0);
	REQUIRE(flock(b.flocked, LOCK_EX) == 0);
	b.epoll = epoll_create1(0);
	REQUIRE(pipe(b.pipe) == 0 && epoll_ctl(b.epoll, EPOLL_CTL_ADD, b.pipe[0], &ev) == 0);
	REQUIRE(write(b.pipe[1], "x", 1) == 1);
	REQUIRE(setpriority(PRIO_PROCESS, 0, 2) == 0);
	for (int i = 0; i < 5; i++) {
		pid_t pid = fork();
		REQUIRE(pid >= 0);
		if (pid == 0) {
			test_failures = 0;
			_exit(child(&b));
		}
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK_EQ(status, 42 << 8);
	}
	/* All that is the parent's still. */
	CHECK(alarm(0) > 100);
	CHECK_EQ(timer_delete(b.timer), 0);
	sigpending(&set);
	CHECK(sigismember(&set, SIGUSR1) == 1 && sigismember(&set, SIGUSR2) == 1);
	handled = 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	CHECK_EQ(handled, 2);
	b.alt.ss_flags = SS_DISABLE;
	sigaltstack(&b.alt, NULL);
	free(b.alt.ss_sp);
	close(b.fd);
	close(b.ofd);
	close(b.flocked);
	close(b.epoll);
	close(b.pipe[0]);
	close(b.pipe[1]);
	return arg;
}

/* The priority goes with the process that it was set in. */
static int forks_by_main(void)
{
	forks(NULL);
	return 42;
}

static int forks_by_a_thread(void)
{
	static long n;
	pthread_t t = spawn(burns, &n);

	join(spawn(forks, NULL));
	stop = 1;
	join(t);
	return 42;
}

static void by_main(void)
{
	CHECK_EQ(in_child(forks_by_main), 42 << 8);
}

static void by_a_thread(void)
{
	CHECK_EQ(in_child(forks_by_a_thread), 42 << 8);
}

/* --- what libc makes of it ----------------------------------------------------------------------------------------- */

static void *plus_one(void *arg)
{
	return (char *)arg + 1;
}

static int answer[2];

static void *becomes_a_daemon(void *arg)
{
	char ok = 'n';

	if (daemon(0, 1) == 0 && getppid() != (pid_t)(intptr_t)arg && gettid() == getpid() &&
	    join(spawn(plus_one, &ok)) == &ok + 1)
		ok = 'y';
	_exit(write(answer[1], &ok, 1) != 1);
}

static int daemon_by_main(void)
{
	becomes_a_daemon(NULL);
	return 0;
}

static int daemon_by_a_thread(void)
{
	spawn(becomes_a_daemon, NULL);
	for (;;)
		pause();
	return 1;
}

static void daemons(void)
{
	char ok = 0;

	REQUIRE(pipe(answer) == 0);
	CHECK_EQ(in_child(daemon_by_main), 0);
	CHECK(read(answer[0], &ok, 1) == 1 && ok == 'y');
	ok = 0;
	CHECK_EQ(in_child(daemon_by_a_thread), 0);
	CHECK(read(answer[0], &ok, 1) == 1 && ok == 'y');
	close(answer[0]);
	close(answer[1]);
}

static void *makes_terminal(void *arg)
{
	int master, status = -1, n = 0;
	char line[50] = "";
	pid_t pid = forkpty(&master, NULL, NULL, NULL);

	REQUIRE(pid >= 0);
	if (pid == 0) {
		char c;
		if (!isatty(0) || getsid(0) != getpid() || join(spawn(plus_one, &c)) != &c + 1)
			_exit(1);
		printf("pid %d\n", getpid());
		exit(read(0, &c, 1) == 1 && c == 'q' ? 7 : 2);
	}
	while (n < 40 && !strchr(line, '\n')) {
		ssize_t r = read(master, line + n, 40 - n);
		if (r <= 0)
			break;
		line[n += r] = '\0';
	}
	CHECK_EQ(atoi(line + 4), pid);
	CHECK_EQ(write(master, "q\n", 2), 2);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 7 << 8);
	close(master);
	return arg;
}

static void terminals(void)
{
	makes_terminal(NULL);
	join(spawn(makes_terminal, NULL));
}

static const struct test_case cases[] = {
    {"by_main", by_main},
    {"by_a_thread", by_a_thread},
    {"daemons", daemons},
    {"terminals", terminals},
};

int main(int argc, char **argv)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(path, sizeof path, "%s/fork_inherits.%d", tmp ? tmp : "/tmp", getpid());
	int rc = test_run(argc, argv, cases, COUNT(cases));
	unlink(path);
	return rc;
}
