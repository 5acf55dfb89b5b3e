/*
 * A program that makes no thread sees nothing: one kernel thread, its own descriptors, default
 * signals, no output. What it locks, posts and registers before its first thread holds after it.
 */
#include "test.h"

#include <dirent.h>
#include <semaphore.h>

static int open_fds(void)
{
	int n = 0;
	DIR *d = opendir("/proc/self/fd");

	REQUIRE(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 3; /* . and .. and the directory itself */
}

/* What the runner and the shell gave us. */
static int inherited_fds;

static void nothing_is_there(void)
{
	struct sigaction sa;
	sigset_t set;
	char ch;

	CHECK_EQ(kernel_threads(), 1);
	for (int sig = 1; sig <= 64; sig++) {
		if (sig == 32 || sig == 33 || sig == SIGKILL || sig == SIGSTOP)
			continue;
		CHECK_EQ(sigaction(sig, NULL, &sa), 0);
		if (sa.sa_handler != SIG_DFL && sa.sa_handler != SIG_IGN)
			FAIL("signal %d has a handler", sig);
		/* As the kernel has it, which is what a child would inherit. */
		struct {
			void *handler;
			unsigned long flags;
			void *restorer;
			unsigned long mask;
		} raw = {0};
		CHECK_EQ(syscall(SYS_rt_sigaction, sig, NULL, &raw, 8), 0);
		if (raw.handler != (void *)SIG_DFL && raw.handler != (void *)SIG_IGN)
			FAIL("signal %d has a handler in the kernel", sig);
	}
	CHECK_EQ(pthread_sigmask(SIG_SETMASK, NULL, &set), 0);
	for (int sig = 1; sig <= 64; sig++)
		CHECK(sigismember(&set, sig) != 1);
	CHECK_EQ(open_fds(), inherited_fds);
	/* The usual calls change nothing about it. */
	int fds[2];
	REQUIRE(pipe(fds) == 0);
	CHECK_EQ(write(fds[1], "x", 1), 1);
	CHECK_EQ(read(fds[0], &ch, 1), 1);
	struct pollfd p = {fds[0], POLLIN, 0};
	CHECK_EQ(poll(&p, 1, 5), 0);
	close(fds[0]);
	close(fds[1]);
	usleep(1000);
	sched_yield();
	pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t c = PTHREAD_COND_INITIALIZER;
	pthread_mutex_lock(&m);
	struct timespec ts = after_ms(CLOCK_REALTIME, 5);
	CHECK_EQ(pthread_cond_timedwait(&c, &m, &ts), ETIMEDOUT);
	pthread_mutex_unlock(&m);
	CHECK_EQ(kernel_threads(), 1);
	CHECK_EQ(open_fds(), inherited_fds);
}

static pthread_mutex_t locked = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t written = PTHREAD_RWLOCK_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static sem_t sem;
static int runs, alarms;

static void count_run(void)
{
	runs++;
}

static void on_alarm(int sig)
{
	(void)sig;
	alarms++;
}

static void *meet_old_state(void *arg)
{
	CHECK_EQ(pthread_mutex_trylock(&locked), EBUSY);
	CHECK_EQ(pthread_rwlock_tryrdlock(&written), EBUSY);
	pthread_once(&once, count_run);
	CHECK_EQ(runs, 1);
	CHECK(pthread_getspecific(key) == NULL);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(sem_trywait(&sem), 0);
	CHECK_ERRNO(sem_trywait(&sem), EAGAIN);
	return arg;
}

static void state_from_before_holds(void)
{
	struct sigaction sa = {.sa_handler = on_alarm}, now;
	sigset_t set;

	CHECK_EQ(kernel_threads(), 1);
	pthread_mutex_lock(&locked);
	pthread_rwlock_wrlock(&written);
	pthread_once(&once, count_run);
	pthread_key_create(&key, NULL);
	pthread_setspecific(key, &key);
	sem_init(&sem, 0, 3);
	sigaction(SIGALRM, &sa, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	join(spawn(meet_old_state, NULL));
	CHECK(pthread_getspecific(key) == &key);
	CHECK_EQ(pthread_mutex_unlock(&locked), 0);
	CHECK_EQ(pthread_rwlock_unlock(&written), 0);
	CHECK_EQ(sigaction(SIGALRM, NULL, &now), 0);
	CHECK(now.sa_handler == on_alarm);
	CHECK_EQ(pthread_sigmask(SIG_SETMASK, NULL, &set), 0);
	CHECK_EQ(sigismember(&set, SIGUSR2), 1);
	CHECK_EQ(gettid(), getpid());
}

static void *nothing(void *arg)
{
	return arg;
}

static int takes_no_numbers(void)
{
	int fd[4], again[4];

	for (int i = 0; i < 4; i++)
		fd[i] = dup(2);
	for (int i = 0; i < 4; i++)
		close(fd[i]);
	join(spawn(nothing, NULL));
	for (int i = 0; i < 4; i++) {
		again[i] = dup(2);
		CHECK_EQ(again[i], fd[i]);
	}
	return 0;
}

static void numbers_of_files_are_as_before(void)
{
	CHECK_EQ(in_child(takes_no_numbers), 0);
}

static const struct test_case cases[] = {
    {"nothing_is_there", nothing_is_there},
    {"numbers_of_files_are_as_before", numbers_of_files_are_as_before},
    {"state_from_before_holds", state_from_before_holds},
};

int main(int argc, char **argv)
{
	/* The watchdog of test.h holds a pipe: the count comes after it would be made. */
	if (!getenv("GOSHIM_TEST_MODE"))
		setenv("GOSHIM_TEST_MODE", "plain", 1);
	inherited_fds = open_fds();
	return test_run(argc, argv, cases, COUNT(cases));
}
