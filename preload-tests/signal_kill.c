/*
 * Sending signals: pthread_kill reaches the thread it names, wherever that waits or runs; raise the
 * caller; kill(getpid()) some thread that has not blocked the signal. Handlers get siginfo, and
 * calls are interrupted or restarted as SA_RESTART says.
 */
#include "test.h"

#include <semaphore.h>
#include <sys/select.h>
#include <sys/socket.h>

static volatile pthread_t handled_by;
/* volatile: to the compiler raise() and kill() are leaves that change none of our variables. */
static volatile int handled, last_code;
static volatile pid_t last_pid;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	(void)context;
	handled_by = pthread_self();
	last_code = info->si_code;
	last_pid = info->si_pid;
	CHECK_EQ(info->si_signo, sig);
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELEASE);
}

static void install(int sig, int flags)
{
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | flags};

	sigemptyset(&sa.sa_mask);
	REQUIRE(sigaction(sig, &sa, NULL) == 0);
}

/* Ways to be: the thread does one of these when the signal comes. */
static int fds[2], stop, here;
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;

static void *in_read(void *arg)
{
	char ch;

	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	CHECK_EQ(read(fds[0], &ch, 1), 1);
	return arg;
}

static void *in_cond(void *arg)
{
	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	pthread_mutex_lock(&m);
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		pthread_cond_wait(&c, &m);
	pthread_mutex_unlock(&m);
	return arg;
}

static void *in_mutex(void *arg)
{
	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	pthread_mutex_lock(&m);
	pthread_mutex_unlock(&m);
	return arg;
}

static void *in_sleep(void *arg)
{
	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		usleep(2000);
	return arg;
}

static void *in_loop(void *arg)
{
	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		;
	return arg;
}

static void *in_yield(void *arg)
{
	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		sched_yield();
	return arg;
}

static const struct {
	const char *name;
	void *(*fn)(void *);
} places[] = {
    {"read", in_read},   {"cond_wait", in_cond}, {"mutex_lock", in_mutex},
    {"sleep", in_sleep}, {"a loop", in_loop},    {"sched_yield", in_yield},
};

static void to_a_thread_wherever_it_is(void)
{
	install(SIGUSR1, SA_RESTART);
	for (unsigned i = 0; i < COUNT(places); i++) {
		REQUIRE(pipe(fds) == 0);
		here = stop = 0;
		if (places[i].fn == in_mutex)
			pthread_mutex_lock(&m);
		pthread_t t = spawn(places[i].fn, NULL);
		CHECK(wait_for(&here, 1, 10000));
		sleep_ms(20);
		for (int k = 0; k < 5; k++) {
			handled = 0;
			CHECK_EQ(pthread_kill(t, SIGUSR1), 0);
			if (!wait_for(&handled, 1, 5000))
				FAIL("no handler ran for a thread in %s", places[i].name);
			else if (!pthread_equal(handled_by, t))
				FAIL("thread in %s: the handler ran on another", places[i].name);
			CHECK_EQ(last_code, SI_TKILL);
			CHECK_EQ(last_pid, getpid());
		}
		__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
		if (places[i].fn == in_mutex)
			pthread_mutex_unlock(&m);
		pthread_mutex_lock(&m);
		pthread_cond_broadcast(&c);
		pthread_mutex_unlock(&m);
		CHECK_EQ(write(fds[1], "x", 1), 1);
		join(t);
		close(fds[0]);
		close(fds[1]);
	}
	signal(SIGUSR1, SIG_DFL);
}

static void *raise_here(void *arg)
{
	for (int i = 0; i < 50; i++) {
		handled = 0;
		CHECK_EQ(raise(SIGUSR1), 0);
		/* Before raise returns, and here. */
		CHECK_EQ(handled, 1);
		CHECK(pthread_equal(handled_by, pthread_self()));
		sched_yield();
		CHECK_EQ(pthread_kill(pthread_self(), SIGUSR1), 0);
		CHECK_EQ(handled, 2);
	}
	return arg;
}

static void to_oneself(void)
{
	install(SIGUSR1, 0);
	raise_here(NULL);
	join(spawn(raise_here, NULL));
	signal(SIGUSR1, SIG_DFL);
}

static void *sleep_blocking_usr1(void *arg)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return in_sleep(arg);
}

/* The process: a thread that has it unblocked gets it; if that is one only, that one. */
static void to_the_process(void)
{
	pthread_t t[10];
	sigset_t set, old;

	install(SIGUSR1, SA_RESTART);
	here = stop = 0;
	/* main alone. */
	handled = 0;
	CHECK_EQ(kill(getpid(), SIGUSR1), 0);
	CHECK_EQ(handled, 1);
	/* main is the only one not to block it. */
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(sleep_blocking_usr1, NULL);
	CHECK(wait_for(&here, COUNT(t), 10000));
	for (int i = 0; i < 20; i++) {
		handled = 0;
		CHECK_EQ(kill(getpid(), SIGUSR1), 0);
		CHECK(wait_for(&handled, 1, 5000));
		CHECK(pthread_equal(handled_by, pthread_self()));
		CHECK_EQ(last_code, SI_USER);
		CHECK_EQ(last_pid, getpid());
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	/* A thread is the only one. */
	here = stop = 0;
	t[0] = spawn(in_sleep, NULL);
	CHECK(wait_for(&here, 1, 10000));
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	for (int i = 0; i < 20; i++) {
		handled = 0;
		CHECK_EQ(kill(getpid(), SIGUSR1), 0);
		CHECK(wait_for(&handled, 1, 5000));
		CHECK(pthread_equal(handled_by, t[0]));
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	join(t[0]);
	/* Nobody: it stays pending until main unblocks it. */
	handled = 0;
	CHECK_EQ(kill(getpid(), SIGUSR1), 0);
	sleep_ms(10);
	CHECK_EQ(handled, 0);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	CHECK_EQ(handled, 1);
	signal(SIGUSR1, SIG_DFL);
}

/* From another process, in numbers: what comes before the last one was handled is one with it. */
static void from_another_process(void)
{
	pthread_t t;

	install(SIGUSR1, SA_RESTART);
	here = stop = handled = 0;
	t = spawn(in_sleep, NULL);
	pid_t self = getpid();
	pid_t pid = fork();
	if (pid == 0) {
		for (int i = 0; i < 50; i++) {
			kill(self, SIGUSR1);
			usleep(1000);
		}
		_exit(0);
	}
	int status = -1;
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	CHECK(handled >= 1 && handled <= 50);
	CHECK_EQ(last_pid, pid);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	join(t);
	signal(SIGUSR1, SIG_DFL);
}

/* Blocking calls: without SA_RESTART they end with EINTR; with it those that POSIX restarts go
 * on. */
static long do_read(void)
{
	char ch;
	return read(fds[0], &ch, 1);
}

static long do_recv(void)
{
	char ch;
	return recv(fds[0], &ch, 1, 0);
}

static long do_accept(void)
{
	return accept(fds[0], NULL, NULL);
}

static long do_poll(void)
{
	struct pollfd p = {fds[0], POLLIN, 0};
	return poll(&p, 1, 3000);
}

static long do_select(void)
{
	fd_set set;
	struct timeval tv = {3, 0};
	FD_ZERO(&set);
	FD_SET(fds[0], &set);
	return select(fds[0] + 1, &set, NULL, NULL, &tv);
}

static long do_nanosleep(void)
{
	struct timespec ts = {3, 0};
	return nanosleep(&ts, NULL);
}

static long do_waitpid(void)
{
	return waitpid(-1, NULL, 0);
}

static long do_pause(void)
{
	return pause();
}

static long do_sigsuspend(void)
{
	sigset_t none;
	sigemptyset(&none);
	return sigsuspend(&none);
}

static const struct {
	const char *name;
	long (*call)(void);
	int restarts; /* with SA_RESTART */
} calls[] = {
    {"read", do_read, 1},           {"recv", do_recv, 1},
    {"poll", do_poll, 0},           {"select", do_select, 0},
    {"nanosleep", do_nanosleep, 0}, {"waitpid", do_waitpid, 1},
    {"pause", do_pause, 0},         {"sigsuspend", do_sigsuspend, 0},
    {"accept", do_accept, 1},
};

static unsigned which;

static void *make_call(void *arg)
{
	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	errno = 0;
	long ret = calls[which].call();
	int err = errno;
	__atomic_store_n((int *)arg, ret == -1 ? err : 0, __ATOMIC_RELEASE);
	return NULL;
}

static void interrupted_or_restarted(void)
{
	for (int restart = 0; restart < 2; restart++) {
		install(SIGUSR1, restart ? SA_RESTART : 0);
		for (which = 0; which < COUNT(calls); which++) {
			int result = -1;
			pid_t child = -1;

			here = handled = 0;
			if (calls[which].call == do_accept) {
				fds[0] = socket(AF_INET, SOCK_STREAM, 0);
				REQUIRE(listen(fds[0], 1) == 0);
			} else {
				REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
			}
			if (calls[which].call == do_waitpid && (child = fork()) == 0) {
				sleep_ms(1000);
				_exit(0);
			}
			pthread_t t = spawn(make_call, &result);
			CHECK(wait_for(&here, 1, 10000));
			sleep_ms(30);
			CHECK_EQ(pthread_kill(t, SIGUSR1), 0);
			CHECK(wait_for(&handled, 1, 5000));
			int ended =
			    wait_for(&result, EINTR, restart && calls[which].restarts ? 100 : 2000);
			if (restart && calls[which].restarts) {
				if (ended)
					FAIL("%s: EINTR in spite of SA_RESTART", calls[which].name);
			} else if (!ended) {
				FAIL("%s: not interrupted (%d)", calls[which].name, result);
			}
			if (calls[which].call == do_accept)
				shutdown(fds[0], SHUT_RDWR);
			else
				CHECK_EQ(write(fds[1], "x", 1), 1);
			if (calls[which].call == do_pause && !ended)
				pthread_kill(t, SIGUSR1);
			join(t);
			if (child > 0 && !(restart && calls[which].restarts))
				CHECK_EQ(waitpid(child, NULL, 0), child);
			close(fds[0]);
			if (calls[which].call != do_accept)
				close(fds[1]);
		}
	}
	signal(SIGUSR1, SIG_DFL);
}

/* sigaction tells what was set, and default and ignored signals act so from threads. */
static void *raise_ignored(void *arg)
{
	CHECK_EQ(raise(SIGUSR2), 0);
	CHECK_EQ(raise(SIGCHLD), 0);
	CHECK_EQ(raise(SIGWINCH), 0);
	return arg;
}

static void dispositions(void)
{
	struct sigaction sa;

	install(SIGUSR1, SA_RESTART | SA_NODEFER);
	CHECK_EQ(sigaction(SIGUSR1, NULL, &sa), 0);
	CHECK(sa.sa_sigaction == on_signal);
	CHECK_EQ(sa.sa_flags & (SA_SIGINFO | SA_RESTART | SA_NODEFER | SA_ONSTACK),
		 SA_SIGINFO | SA_RESTART | SA_NODEFER);
	CHECK(signal(SIGUSR1, SIG_DFL) == sa.sa_handler);
	CHECK(signal(SIGUSR2, SIG_IGN) == SIG_DFL);
	raise_ignored(NULL);
	join(spawn(raise_ignored, NULL));
	CHECK(signal(SIGUSR2, SIG_DFL) == SIG_IGN);
	CHECK_ERRNO(sigaction(SIGKILL, &sa, NULL), EINVAL);
	CHECK_ERRNO(sigaction(99, NULL, &sa), EINVAL);
	CHECK_EQ(pthread_kill(pthread_self(), 0), 0);
	CHECK_EQ(pthread_kill(pthread_self(), 99), EINVAL);
}

static void *killed_by_pthread_kill(void *arg)
{
	pthread_kill(*(pthread_t *)arg, SIGTERM);
	for (;;)
		pause();
	return NULL;
}

static int die_by_pthread_kill(void)
{
	pthread_t self = pthread_self();

	join(spawn(killed_by_pthread_kill, &self));
	return 1;
}

static void default_action_ends_the_process(void)
{
	CHECK_EQ(in_child(die_by_pthread_kill), SIGTERM);
}

/* sigqueue carries a value. */
static volatile int last_value;

static void on_value(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	last_value = info->si_value.sival_int;
	CHECK_EQ(info->si_code, SI_QUEUE);
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELEASE);
}

static void *queue_values(void *arg)
{
	struct sigaction sa = {.sa_sigaction = on_value, .sa_flags = SA_SIGINFO};

	sigaction(SIGRTMIN + 2, &sa, NULL);
	for (int i = 0; i < 20; i++) {
		union sigval v = {.sival_int = 1000 + i};
		handled = 0;
		CHECK_EQ(pthread_sigqueue(pthread_self(), SIGRTMIN + 2, v), 0);
		CHECK(wait_for(&handled, 1, 5000));
		CHECK_EQ(last_value, 1000 + i);
		v.sival_int = 2000 + i;
		handled = 0;
		CHECK_EQ(sigqueue(getpid(), SIGRTMIN + 2, v), 0);
		CHECK(wait_for(&handled, 1, 5000));
		CHECK_EQ(last_value, 2000 + i);
	}
	return arg;
}

static void values_are_carried(void)
{
	queue_values(NULL);
	join(spawn(queue_values, NULL));
	signal(SIGRTMIN + 2, SIG_DFL);
}

static pid_t other;

static void *blocks_it(void *arg)
{
	__atomic_store_n(&other, gettid(), __ATOMIC_RELEASE);
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		sleep_ms(1);
	return arg;
}

/* kill() of a thread's id is for the process: any thread that has the signal open takes it. */
static void to_the_process_by_a_thread(void)
{
	union sigval value = {.sival_int = 4};
	sigset_t set, old;

	install(SIGUSR1, 0);
	handled = stop = other = 0;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	pthread_t t = spawn(blocks_it, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	while (!__atomic_load_n(&other, __ATOMIC_ACQUIRE))
		sleep_ms(1);
	CHECK_EQ(kill(other, 0), 0);
	CHECK_EQ(kill(other, SIGUSR1), 0);
	REQUIRE(wait_for(&handled, 1, 10000));
	CHECK(pthread_equal(handled_by, pthread_self()));
	CHECK_EQ(sigqueue(other, SIGUSR1, value), 0);
	REQUIRE(wait_for(&handled, 2, 10000));
	CHECK(pthread_equal(handled_by, pthread_self()));
	CHECK_EQ(last_code, SI_QUEUE);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	join(t);
}

/*
 * Sent to the process while its only taker is in a handler, which keeps it blocked: handled as soon as that
 * returns, before whatever the taker does next.
 */
static volatile int resent;

static void sends_again(int sig)
{
	if (++resent < 5) {
		kill(getpid(), sig);
		sigqueue(getpid(), sig, (union sigval){0});
	}
}

static void *handles_own(void *arg)
{
	sigset_t usr1;

	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);
	for (int round = 0; round < 100; round++) {
		resent = 0;
		kill(getpid(), SIGUSR1);
		CHECK_EQ(resent, 5);
	}
	return arg;
}

static sem_t permits;
static volatile int until_stop;

static void permit(int sig)
{
	(void)sig;
	sem_post(&permits);
}

static void *handles_till_stop(void *arg)
{
	pthread_sigmask(SIG_UNBLOCK, arg, NULL);
	while (!until_stop)
		sched_yield();
	return NULL;
}

/* A permit a handler: if one does not run, this waits for ever. */
static void *sends_for_permits(void *arg)
{
	while (!until_stop) {
		sem_wait(&permits);
		CHECK_EQ(kill(getpid(), SIGUSR1), 0);
	}
	return arg;
}

static void while_in_its_handler(void)
{
	struct sigaction sa = {.sa_handler = sends_again};
	sigset_t usr1;

	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &usr1, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	handles_own(NULL);
	pthread_sigmask(SIG_BLOCK, &usr1, NULL);
	join(spawn(handles_own, NULL));
	sa.sa_handler = permit;
	sigaction(SIGUSR1, &sa, NULL);
	for (int round = 0; round < scale(100, 40); round++) {
		until_stop = 0;
		sem_init(&permits, 0, 1);
		pthread_t sender = spawn(sends_for_permits, NULL);
		pthread_t handler = spawn(handles_till_stop, &usr1);
		usleep(2000);
		until_stop = 1;
		join(sender);
		join(handler);
		sem_destroy(&permits);
	}
	/* What the last ones have sent, after their handler was gone. */
	pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);
}

static const struct test_case cases[] = {
    {"to_oneself", to_oneself},
    {"to_a_thread_wherever_it_is", to_a_thread_wherever_it_is},
    {"to_the_process", to_the_process},
    {"from_another_process", from_another_process},
    {"interrupted_or_restarted", interrupted_or_restarted},
    {"dispositions", dispositions},
    {"default_action_ends_the_process", default_action_ends_the_process},
    {"values_are_carried", values_are_carried},
    {"to_the_process_by_a_thread", to_the_process_by_a_thread},
    {"while_in_its_handler", while_in_its_handler},
};

TEST_MAIN(cases)
