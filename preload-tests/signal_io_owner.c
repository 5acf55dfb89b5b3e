/*
 * Signals of descriptors: out-of-band data and SIGURG, SIGIO and whatever F_SETSIG chooses, to the process, to a group, to one thread
 * (F_SETOWN_EX); and that a program which looks for SIGURG wherever signals show finds only what was meant for it, while
 * threads compute and are preempted.
 */
#include "test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

static volatile int stop, fired, wrongthread;
static siginfo_t last;
static pthread_t expected;

static void on_signal(int sig, siginfo_t *info, void *uc)
{
	(void)sig, (void)uc;
	last = *info;
	if (expected && !pthread_equal(expected, pthread_self()))
		wrongthread++;
	__atomic_add_fetch(&fired, 1, __ATOMIC_RELEASE);
}

static void on(int sig)
{
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};

	REQUIRE(sigaction(sig, &sa, NULL) == 0);
	fired = wrongthread = 0;
	expected = 0;
}

static void *compute(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		;
	return arg;
}

static pthread_t spinners[2];

static void start_spinners(void)
{
	stop = 0;
	for (unsigned i = 0; i < COUNT(spinners); i++)
		spinners[i] = spawn(compute, NULL);
}

static void end_spinners(void)
{
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT(spinners); i++)
		join(spinners[i]);
}

static void connected(int fds[2])
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	int l = socket(AF_INET, SOCK_STREAM, 0);

	REQUIRE(l >= 0 && bind(l, (struct sockaddr *)&a, sizeof a) == 0 && listen(l, 1) == 0);
	REQUIRE(getsockname(l, (struct sockaddr *)&a, &len) == 0);
	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	REQUIRE(connect(fds[0], (struct sockaddr *)&a, sizeof a) == 0);
	fds[1] = accept(l, NULL, NULL);
	REQUIRE(fds[1] >= 0);
	close(l);
}

/* --- out-of-band data --------------------------------------------------------------------------------------------- */

static void *urgent(void *arg)
{
	int fds[2];
	char c;

	connected(fds);
	on(SIGURG);
	CHECK_EQ(fcntl(fds[0], F_SETOWN, getpid()), 0);
	CHECK_EQ(fcntl(fds[0], F_GETOWN), getpid());
	for (int i = 1; i <= 20; i++) {
		c = 'a' + i;
		CHECK_EQ(send(fds[1], &c, 1, MSG_OOB), 1);
		CHECK(wait_for(&fired, i, 10000));
		CHECK_EQ(last.si_signo, SIGURG);
		c = 0;
		CHECK_EQ(recv(fds[0], &c, 1, MSG_OOB), 1);
		CHECK_EQ(c, 'a' + i);
	}
	signal(SIGURG, SIG_DFL);
	close(fds[0]);
	close(fds[1]);
	return arg;
}

static void out_of_band(void)
{
	start_spinners();
	urgent(NULL);
	join(spawn(urgent, NULL));
	end_spinners();
}

/* --- F_SETSIG, F_SETOWN_EX ------------------------------------------------------------------------------------------- */

struct owner {
	int sig, type;
};

static void *owns(void *arg)
{
	struct owner *o = arg;
	int fds[2];
	char c = 1;
	struct f_owner_ex ex = {.type = o->type}, got = {0};

	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	ex.pid = o->type == F_OWNER_TID ? gettid() : o->type == F_OWNER_PID ? getpid() : getpgrp();
	on(o->sig ? o->sig : SIGIO);
	if (o->type == F_OWNER_TID)
		expected = pthread_self();
	CHECK_EQ(fcntl(fds[0], F_SETOWN_EX, &ex), 0);
	CHECK_EQ(fcntl(fds[0], F_GETOWN_EX, &got), 0);
	CHECK_EQ(got.type, ex.type);
	CHECK_EQ(got.pid, ex.pid);
	CHECK_EQ(fcntl(fds[0], F_SETSIG, o->sig), 0);
	CHECK_EQ(fcntl(fds[0], F_GETSIG), o->sig);
	CHECK_EQ(fcntl(fds[0], F_SETFL, O_ASYNC | O_NONBLOCK), 0);
	for (int i = 1; i <= 10; i++) {
		fired = 0;
		CHECK_EQ(write(fds[1], &c, 1), 1);
		for (int k = 0; k < 5000 && !fired; k++)
			sleep_ms(1);
		CHECK(fired > 0);
		CHECK_EQ(last.si_signo, o->sig ? o->sig : SIGIO);
		if (o->sig) {
			CHECK_EQ(last.si_fd, fds[0]);
			CHECK(last.si_band & POLLIN);
			CHECK_EQ(last.si_code, POLL_IN);
		}
		CHECK_EQ(read(fds[0], &c, 1), 1);
		sleep_ms(1);
	}
	CHECK_EQ(fcntl(fds[0], F_SETFL, 0), 0);
	CHECK_EQ(wrongthread, 0);
	close(fds[0]);
	close(fds[1]);
	sleep_ms(2);
	signal(o->sig ? o->sig : SIGIO, SIG_IGN);
	return NULL;
}

static void owners(void)
{
	struct owner all[] = {{0, F_OWNER_PID}, {SIGRTMIN + 6, F_OWNER_PID}, {SIGURG, F_OWNER_PID},
			      {0, F_OWNER_TID}, {SIGRTMIN + 6, F_OWNER_TID}, {SIGURG, F_OWNER_TID}};

	start_spinners();
	for (unsigned i = 0; i < COUNT(all); i++) {
		owns(&all[i]);
		join(spawn(owns, &all[i]));
	}
	end_spinners();
	signal(SIGURG, SIG_DFL);
}

/* A closed descriptor has no owner, whatever number the next one gets, and as often as there is one. */
static void *owns_one_closed(void *arg)
{
	struct f_owner_ex ex = {.type = F_OWNER_TID, .pid = gettid()};

	for (int i = 0; i < 1200; i++) {
		int fds[2];
		REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
		CHECK_EQ(fcntl(fds[0], F_SETOWN_EX, &ex), 0);
		CHECK_EQ(fcntl(fds[0], F_SETFL, O_ASYNC | O_NONBLOCK), 0);
		close(fds[1]);
		close(fds[0]);
	}
	__atomic_store_n((int *)arg, 1, __ATOMIC_RELEASE);
	while (!stop)
		sleep_ms(1);
	return NULL;
}

static void owners_of_closed(void)
{
	struct owner mine = {0, F_OWNER_TID};
	int closed = 0, others[2];

	stop = 0;
	signal(SIGIO, SIG_IGN);
	pthread_t t = spawn(owns_one_closed, &closed);
	CHECK(wait_for(&closed, 1, 10000));
	REQUIRE(pipe(others) == 0); /* the number of the last one is used again */
	owns(&mine);
	stop = 1;
	join(t);
	close(others[0]);
	close(others[1]);
}

/* --- none but its own --------------------------------------------------------------------------------------------------- */

static void quiet_for(int ms)
{
	int64_t end = now_ms() + ms;

	while (now_ms() < end)
		;
}

static void *looks(void *arg)
{
	sigset_t set, old, now;
	siginfo_t info;
	struct timespec moment = {0, 20000000};
	struct signalfd_siginfo si;

	sigemptyset(&set);
	sigaddset(&set, SIGURG);
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	CHECK(!sigismember(&now, SIGURG));
	pthread_sigmask(SIG_BLOCK, &set, &old);
	quiet_for(20);
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	CHECK(sigismember(&now, SIGURG));
	sigpending(&now);
	CHECK(!sigismember(&now, SIGURG));
	CHECK_ERRNO(sigtimedwait(&set, &info, &moment), EAGAIN);
	int fd = signalfd(-1, &set, SFD_NONBLOCK);
	REQUIRE(fd >= 0);
	quiet_for(20);
	CHECK_ERRNO(read(fd, &si, sizeof si), EAGAIN);
	/* Sent to it, it is there. */
	raise(SIGURG);
	sigpending(&now);
	CHECK(sigismember(&now, SIGURG));
	CHECK_EQ(sigtimedwait(&set, &info, &moment), SIGURG);
	CHECK_EQ(info.si_pid, getpid());
	close(fd);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return arg;
}

static void seen_nowhere(void)
{
	on(SIGURG);
	start_spinners();
	looks(NULL);
	join(spawn(looks, NULL));
	end_spinners();
	CHECK_EQ(fired, 0);
	signal(SIGURG, SIG_DFL);
}

/* Blocked by all, sent to the process by another: pending, and found by whoever asks. */
static void *blocked_by_all(void *arg)
{
	sigset_t set, now;
	siginfo_t info;
	struct timespec moment = {10, 0};

	sigemptyset(&set);
	sigaddset(&set, SIGURG);
	for (int i = 0; i < 5; i++) {
		pid_t pid = fork();
		REQUIRE(pid >= 0);
		if (pid == 0) {
			kill(getppid(), SIGURG);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
		do
			sigpending(&now);
		while (!sigismember(&now, SIGURG));
		CHECK_EQ(sigtimedwait(&set, &info, &moment), SIGURG);
		CHECK_EQ(info.si_pid, pid);
	}
	return arg;
}

static void pending_for_the_process(void)
{
	sigset_t set, old;

	on(SIGURG);
	sigemptyset(&set);
	sigaddset(&set, SIGURG);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	start_spinners();
	blocked_by_all(NULL);
	join(spawn(blocked_by_all, NULL));
	end_spinners();
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	CHECK_EQ(fired, 0);
	signal(SIGURG, SIG_DFL);
}

/* --- signalfd and threads ------------------------------------------------------------------------------------------------ */

/* A signal that all block, sent to a thread, is for its signalfd. */
static volatile int sentto;

static void *reads_own(void *arg)
{
	sigset_t set, old;
	struct signalfd_siginfo si;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN + 1);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	int fd = signalfd(-1, &set, SFD_NONBLOCK);
	REQUIRE(fd >= 0);
	struct pollfd p = {fd, POLLIN, 0};
	CHECK_EQ(poll(&p, 1, 0), 0);
	CHECK_ERRNO(read(fd, &si, sizeof si), EAGAIN);
	pthread_sigqueue(pthread_self(), SIGRTMIN + 1, (union sigval){.sival_int = 5});
	raise(SIGUSR1);
	CHECK_EQ(poll(&p, 1, 1000), 1);
	CHECK_EQ(read(fd, &si, sizeof si), sizeof si);
	CHECK_EQ(si.ssi_signo, SIGUSR1);
	CHECK_EQ(si.ssi_pid, getpid());
	CHECK_EQ(read(fd, &si, sizeof si), sizeof si);
	CHECK_EQ(si.ssi_signo, SIGRTMIN + 1);
	CHECK_EQ(si.ssi_int, 5);
	CHECK_ERRNO(read(fd, &si, sizeof si), EAGAIN);
	close(fd);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return arg;
}

static void *waits_for_own(void *arg)
{
	sigset_t set;
	struct signalfd_siginfo si;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	int fd = signalfd(-1, &set, 0);
	REQUIRE(fd >= 0);
	__atomic_store_n(&sentto, 1, __ATOMIC_RELEASE);
	CHECK_EQ(read(fd, &si, sizeof si), sizeof si);
	CHECK_EQ(si.ssi_signo, SIGUSR1);
	__atomic_store_n(&sentto, 2, __ATOMIC_RELEASE);
	struct pollfd p = {fd, POLLIN, 0};
	CHECK_EQ(poll(&p, 1, 10000), 1);
	CHECK_EQ(read(fd, &si, sizeof si), sizeof si);
	close(fd);
	return arg;
}

static void signalfd_of_threads(void)
{
	sigset_t set, old;

	reads_own(NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN + 1);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	reads_own(NULL);
	join(spawn(reads_own, NULL));
	sentto = 0;
	pthread_t t = spawn(waits_for_own, NULL);
	for (int i = 1; i <= 2; i++) {
		CHECK(wait_for(&sentto, i, 10000));
		sleep_ms(10);
		REQUIRE_OK(pthread_kill(t, SIGUSR1));
	}
	join(t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static const struct test_case cases[] = {
    {"out_of_band", out_of_band},
    {"owners", owners},
    {"owners_of_closed", owners_of_closed},
    {"seen_nowhere", seen_nowhere},
    {"pending_for_the_process", pending_for_the_process},
    {"signalfd_of_threads", signalfd_of_threads},
};

TEST_MAIN(cases)
