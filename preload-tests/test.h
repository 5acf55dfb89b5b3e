/*
 * What every preload test shares: checks, a table of cases, and a bound on time.
 *
 * A preload test is an ordinary program that knows nothing of goshim: it passes on plain glibc
 * first, and then has to pass again with the library preloaded. GOSHIM_TEST_MODE in the environment,
 * set by the runner (plain, or one of its other modes), chooses counts, and whether to insist that
 * threads were goroutines.
 *
 * Output goes through write(2) rather than stdio, which several tests have on the operating table.
 * Time is bounded by the runner, or, when a test is started by hand, by a process of its own that
 * is nobody's child: an alarm would use the signals under test, a watchdog thread the threads under
 * test.
 *
 * Exit status: 0 passed, 1 failed, 77 skipped.
 */
#ifndef TEST_H
#define TEST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A function that stacks are to name: neither inlined nor cloned. */
#ifdef __clang__
#define NAMED __attribute__((noinline))
#else
#define NAMED __attribute__((noipa))
#endif

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct test_case {
	const char *name;
	void (*run)(void);
};

/* Failures so far in this process; cases compare it before and after. */
static int test_failures;
static const char *test_skipped;

static inline int in_mode(const char *which)
{
	const char *mode = getenv("GOSHIM_TEST_MODE");

	return mode && strcmp(mode, which) == 0;
}

static inline int preloaded(void)
{
	return getenv("GOSHIM_TEST_MODE") && !in_mode("plain");
}

/* Are threads goroutines? */
static inline int under_shim(void)
{
	return preloaded() && !in_mode("kernel");
}

/* A count for plain glibc (where a thread is a kernel thread) and one for goroutines. */
static inline int scale(int plain, int shim)
{
	return under_shim() ? shim : plain;
}

__attribute__((format(printf, 1, 2))) static inline void say(const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	int saved = errno;

	va_start(ap, fmt);
	int n = vsnprintf(line, sizeof line - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof line - 2)
		n = sizeof line - 2;
	line[n++] = '\n';
	for (int off = 0; off < n;) {
		ssize_t w = write(1, line + off, n - off);
		if (w <= 0)
			break;
		off += w;
	}
	errno = saved;
}

/* Counts a failure; the first dozen of a process are printed. */
#define FAIL(...)                                                                    \
	do {                                                                         \
		if (__atomic_add_fetch(&test_failures, 1, __ATOMIC_RELAXED) <= 12) { \
			char why_[512];                                              \
			snprintf(why_, sizeof why_, __VA_ARGS__);                    \
			say("%s:%d: %s", __FILE__, __LINE__, why_);                  \
		}                                                                    \
	} while (0)

#define CHECK(cond)                        \
	do {                               \
		if (!(cond))               \
			FAIL("%s", #cond); \
	} while (0)

#define CHECK_EQ(got, want)                                                          \
	do {                                                                         \
		long long got_ = (long long)(got), want_ = (long long)(want);        \
		if (got_ != want_)                                                   \
			FAIL("%s is %lld, not %s (%lld)", #got, got_, #want, want_); \
	} while (0)

/* A call that reports failure as -1 and errno. */
#define CHECK_ERRNO(call, want)                                                                  \
	do {                                                                                     \
		errno = 0;                                                                       \
		long long ret_ = (long long)(call);                                              \
		int err_ = errno;                                                                \
		if (ret_ != -1 || err_ != (want))                                                \
			FAIL("%s returns %lld with errno %d, not -1 with %s", #call, ret_, err_, \
			     #want);                                                             \
	} while (0)

/* What the rest of the test cannot do without: ends the process at once, threads or not. */
#define REQUIRE(cond)                                                                            \
	do {                                                                                     \
		if (!(cond)) {                                                                   \
			say("%s:%d: required: %s (errno %d)", __FILE__, __LINE__, #cond, errno); \
			_exit(1);                                                                \
		}                                                                                \
	} while (0)

#define REQUIRE_OK(call)                                                             \
	do {                                                                         \
		int rc_ = (call);                                                    \
		if (rc_ != 0) {                                                      \
			say("%s:%d: %s returns %d", __FILE__, __LINE__, #call, rc_); \
			_exit(1);                                                    \
		}                                                                    \
	} while (0)

/* Leaves a case that cannot be tried here; a program whose cases were all skipped exits 77. */
#define SKIP_CASE(why)                \
	do {                          \
		test_skipped = (why); \
		return;               \
	} while (0)

static inline int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static inline int64_t now_ms(void)
{
	return now_ns() / 1000000;
}

/*
 * For waits of which the kernel counts the ticks: time limits of sockets. Ticks come late on a busy machine, and a wait
 * that begins before a late one is early by the exact clock (natively 29 ms of 52 were seen). The coarse clock
 * moves with the ticks: too early is a wait that is so by both.
 */
struct moment {
	int64_t exact, coarse;
};

static inline struct moment moment(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (struct moment){now_ns(), ts.tv_sec * 1000000000LL + ts.tv_nsec};
}

static inline int64_t ns_since(struct moment then)
{
	struct moment now = moment();
	int64_t exact = now.exact - then.exact, coarse = now.coarse - then.coarse;

	return exact > coarse ? exact : coarse;
}

static inline void sleep_ms(long ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000};

	while (nanosleep(&ts, &ts) != 0 && errno == EINTR)
		;
}

/* The time on a clock, ms from now. */
static inline struct timespec after_ms(clockid_t clock, long ms)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	int64_t ns = ts.tv_nsec + ms * 1000000LL;
	ts.tv_sec += ns / 1000000000;
	ts.tv_nsec = ns % 1000000000;
	if (ts.tv_nsec < 0) {
		ts.tv_nsec += 1000000000;
		ts.tv_sec--;
	}
	return ts;
}

static inline pthread_t spawn(void *(*fn)(void *), void *arg)
{
	pthread_t t;

	REQUIRE_OK(pthread_create(&t, NULL, fn, arg));
	return t;
}

static inline void *join(pthread_t t)
{
	void *ret = NULL;

	REQUIRE_OK(pthread_join(t, &ret));
	return ret;
}

/* Polls an int until it has the value; returns whether it did within ms. */
static inline int wait_for(volatile int *p, int value, long ms)
{
	int64_t end = now_ms() + ms;

	while (__atomic_load_n(p, __ATOMIC_ACQUIRE) != value) {
		if (now_ms() > end)
			return 0;
		sleep_ms(1);
	}
	return 1;
}

/* Kernel threads of this process: /proc/self/task has two links more than entries. */
static inline int kernel_threads(void)
{
	struct stat st;

	REQUIRE(stat("/proc/self/task", &st) == 0);
	return (int)st.st_nlink - 2;
}

/*
 * Called while `threads` threads of the program (at least 64) are blocked: with the library they
 * must be goroutines, so that far fewer kernel threads are there. Waits a little, since kernel
 * threads may be on their way out.
 */
static inline void check_goroutines(int threads)
{
	int have = 0;

	if (!under_shim())
		return;
	for (int tries = 0; tries < 50; tries++) {
		have = kernel_threads();
		if (have <= threads / 2)
			return;
		sleep_ms(20);
	}
	FAIL("%d kernel threads while %d threads are blocked: not goroutines", have, threads);
}

/* Memory of the process that is there. */
static inline long rss_kib(void)
{
	long pages = 0;
	char buf[100];
	int fd = open("/proc/self/statm", O_RDONLY);
	ssize_t n = read(fd, buf, sizeof buf - 1);

	close(fd);
	REQUIRE(n > 0);
	buf[n] = '\0';
	REQUIRE(sscanf(buf, "%*d %ld", &pages) == 1);
	return pages * 4;
}

/*
 * Runs fn in a forked child and returns its wait status. fn's return value becomes the exit status
 * by way of exit(); failures counted in the child are added as exit status 99.
 */
static inline int in_child(int (*fn)(void))
{
	int status = -1;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (pid == 0) {
		struct rlimit none = {0, 0};

		test_failures = 0;
		setrlimit(RLIMIT_CORE, &none);
		int rc = fn();
		exit(test_failures ? 99 : rc);
	}
	pid_t got;
	do
		got = waitpid(pid, &status, 0);
	while (got < 0 && errno == EINTR);
	REQUIRE(got == pid);
	return status;
}

static inline void test_watchdog(int seconds)
{
	int fds[2];
	pid_t self = getpid();

	if (pipe2(fds, O_CLOEXEC) != 0)
		return;
	pid_t pid = fork();
	if (pid == 0) {
		if (fork() == 0) {
			struct pollfd pfd = {fds[0], POLLIN, 0};

			close(fds[1]);
			if (poll(&pfd, 1, seconds * 1000) == 0 && kill(self, SIGKILL) == 0)
				dprintf(2, "watchdog: killed after %d s\n", seconds);
		}
		_exit(0);
	}
	close(fds[0]);
	waitpid(pid, NULL, 0);
}

/* Runs the cases, or those whose names are given as arguments. */
static inline int test_run(int argc, char **argv, const struct test_case *cases, int ncases)
{
	int skipped = 0, ran = 0;

	if (!getenv("GOSHIM_TEST_MODE"))
		test_watchdog(300);
	for (int i = 0; i < ncases; i++) {
		int wanted = argc < 2;

		for (int a = 1; a < argc; a++)
			wanted |= strcmp(argv[a], cases[i].name) == 0;
		if (!wanted)
			continue;
		int before = test_failures;
		int64_t start = now_ms();
		test_skipped = NULL;
		cases[i].run();
		ran++;
		if (test_failures != before) {
			say("FAIL %s: %d checks failed (%lld ms)", cases[i].name,
			    test_failures - before, (long long)(now_ms() - start));
		} else if (test_skipped) {
			say("SKIP %s: %s", cases[i].name, test_skipped);
			skipped++;
		} else {
			say("ok %s (%lld ms)", cases[i].name, (long long)(now_ms() - start));
		}
	}
	if (ran == 0)
		say("no such case");
	if (test_failures || ran == 0)
		return 1;
	return skipped == ran ? 77 : 0;
}

/* The same by main, whose thread is another kind in some schedulers, and by a thread. */
#define BY_MAIN_AND_A_THREAD(fn)       \
	static void by_main(void)      \
	{                              \
		fn(NULL);              \
	}                              \
	static void by_a_thread(void)  \
	{                              \
		join(spawn(fn, NULL)); \
	}

#define TEST_MAIN(cases)                                          \
	int main(int argc, char **argv)                           \
	{                                                         \
		return test_run(argc, argv, cases, COUNT(cases)); \
	}

#endif
