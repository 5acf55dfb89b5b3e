/*
 * RLIMIT_SIGPENDING: more queued signals than it allows are refused to whoever sends them, from outside and from inside, and those
 * that were accepted all come, each once.
 */
#include "test.h"

/*
 * The kernel counts what is queued for all processes of a user: this one becomes a user of its own, by its id or in a
 * namespace, where it may.
 */
static void be_alone(void)
{
	uid_t own = 1000000000 + (uid_t)getpid();

	if (setresuid(own, own, own) != 0)
		unshare(CLONE_NEWUSER);
}

enum { LIMIT = 700, MOST = 10000, TRIES = 200 };

static volatile int got, hold, in_handler;
static unsigned char seen[MOST];

static void on_signal(int sig, siginfo_t *info, void *uc)
{
	(void)sig, (void)uc;
	in_handler = 1;
	while (hold)
		sleep_ms(1);
	if (seen[info->si_value.sival_int]++)
		FAIL("%d came twice", info->si_value.sival_int);
	got++;
}

static void *idle(void *arg)
{
	while (!__atomic_load_n((int *)arg, __ATOMIC_ACQUIRE))
		sleep_ms(1);
	return NULL;
}

/* Until it is refused for a while; how many were accepted. */
static int send_all(pid_t to)
{
	int n = 0;

	for (int tries = 0; n < MOST / 2 && tries < TRIES;) {
		if (sigqueue(to, SIGRTMIN + 1, (union sigval){.sival_int = n}) == 0) {
			n++;
			tries = 0;
		} else {
			CHECK_EQ(errno, EAGAIN);
			tries++;
			sleep_ms(1);
		}
	}
	return n;
}

static void beyond_the_limit(void)
{
	struct rlimit old, rl;
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
	static int done;
	int fds[2], n, all, err = 0;
	pid_t parent = getpid();
	sigset_t set, mask;

	be_alone();
	REQUIRE(getrlimit(RLIMIT_SIGPENDING, &old) == 0);
	rl = old;
	rl.rlim_cur = LIMIT;
	REQUIRE(setrlimit(RLIMIT_SIGPENDING, &rl) == 0);
	REQUIRE(pipe(fds) == 0 && sigaction(SIGRTMIN + 1, &sa, NULL) == 0);
	hold = 1;
	pthread_t t = spawn(idle, &done);
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 1);
	pthread_sigmask(SIG_BLOCK, &set, &mask);
	pid_t pid = fork();
	REQUIRE(pid >= 0);
	if (pid == 0) {
		n = send_all(parent);
		_exit(write(fds[1], &n, sizeof n) != sizeof n || test_failures);
	}
	int status;
	REQUIRE(waitpid(pid, &status, 0) == pid && status == 0);
	REQUIRE(read(fds[0], &n, sizeof n) == sizeof n);
	CHECK(in_handler);
	CHECK(n > 0 && n < MOST / 2);
	for (all = n; all < MOST && !err; all++)
		err = pthread_sigqueue(t, SIGRTMIN + 1, (union sigval){.sival_int = all});
	all--;
	CHECK_EQ(err, EAGAIN);
	hold = 0;
	CHECK(wait_for(&got, all, 20000));
	sleep_ms(5);
	CHECK_EQ(got, all);
	__atomic_store_n(&done, 1, __ATOMIC_RELEASE);
	join(t);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	setrlimit(RLIMIT_SIGPENDING, &old);
}

static const struct test_case cases[] = {
    {"beyond_the_limit", beyond_the_limit},
};

TEST_MAIN(cases)
