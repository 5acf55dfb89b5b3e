/*
 * A server under load while signals of five kinds come, 10,000 a second: every answer is right, and of the signals none is
 * lost that POSIX says is not. Queued ones from another process are each handled once, with their values; queued ones for one
 * thread by that thread in order; of standard ones the last is handled; a timer's expiries are all counted.
 * GOSHIM_TEST_SECONDS sets how long, 2 by default.
 */
#include "test.h"

#include <sys/mman.h>
#include <sys/socket.h>

enum { SERVERS = 8, RATE = 2000, MESSAGE = 64, MOST = 60 };

static int seconds = 2;

/* Seen by the process that sends, too. */
struct shared {
	volatile int start, stop, done;
	volatile unsigned queued, standard; /* sent so far */
};
static struct shared *shared;

/* --- handlers ------------------------------------------------------------------------------------------------------ */

#define RT_PROCESS (SIGRTMIN + 1)
#define RT_THREAD (SIGRTMIN + 2)
#define RT_TIMER (SIGRTMIN + 3)

static unsigned char seen[MOST * RATE * 2];
static volatile unsigned got_queued, got_thread, got_usr1, got_usr2, got_timer;
static volatile uint64_t expiries;
static __thread int next_value;
static __thread int depth;

static void enter(void)
{
	depth++;
	errno =
	    4711; /* the interrupted code's is kept by whoever installs handlers that change it */
}

static void on_queued(int sig, siginfo_t *info, void *uc)
{
	int err = errno;

	(void)sig, (void)uc;
	enter();
	unsigned n = (unsigned)info->si_value.sival_int;
	if (info->si_code != SI_QUEUE || n >= COUNT(seen))
		FAIL("code %d, value %u", info->si_code, n);
	else if (__atomic_fetch_add(&seen[n], 1, __ATOMIC_RELAXED))
		FAIL("%u came twice", n);
	__atomic_fetch_add(&got_queued, 1, __ATOMIC_RELEASE);
	depth--;
	errno = err;
}

static void on_thread(int sig, siginfo_t *info, void *uc)
{
	int err = errno;

	(void)sig, (void)uc;
	enter();
	if (info->si_value.sival_int != next_value)
		FAIL("value %d, not %d", info->si_value.sival_int, next_value);
	next_value = info->si_value.sival_int + 1;
	__atomic_fetch_add(&got_thread, 1, __ATOMIC_RELEASE);
	depth--;
	errno = err;
}

static void on_standard(int sig, siginfo_t *info, void *uc)
{
	int err = errno;

	(void)info, (void)uc;
	enter();
	__atomic_fetch_add(sig == SIGUSR1 ? &got_usr1 : &got_usr2, 1, __ATOMIC_RELEASE);
	depth--;
	errno = err;
}

static void on_timer(int sig, siginfo_t *info, void *uc)
{
	int err = errno;

	(void)sig, (void)uc;
	enter();
	if (info->si_code != SI_TIMER)
		FAIL("code %d", info->si_code);
	__atomic_fetch_add(&expiries, 1 + (uint64_t)info->si_overrun, __ATOMIC_RELEASE);
	__atomic_fetch_add(&got_timer, 1, __ATOMIC_RELEASE);
	depth--;
	errno = err;
}

static void on(int sig, void (*fn)(int, siginfo_t *, void *), int flags)
{
	struct sigaction sa = {.sa_sigaction = fn, .sa_flags = SA_SIGINFO | flags};

	REQUIRE(sigaction(sig, &sa, NULL) == 0);
}

/* --- server and clients ----------------------------------------------------------------------------------------------- */

static int pairs[SERVERS][2];
static pthread_t servers[SERVERS];
static volatile int stop;
static volatile unsigned answers;

static int all(int fd, char *p, int writes)
{
	for (int at = 0; at < MESSAGE;) {
		ssize_t n = writes ? write(fd, p + at, (size_t)(MESSAGE - at))
				   : read(fd, p + at, (size_t)(MESSAGE - at));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			FAIL("errno %d", errno);
		if (n <= 0)
			return 0;
		at += (int)n;
	}
	return 1;
}

static void compute(const char *in, char *out)
{
	uint32_t h = 1;

	for (int i = 0; i < MESSAGE; i++) {
		h = h * 16777619u ^ (unsigned char)in[i];
		out[i] = (char)(h >> 13);
	}
}

static void *serve(void *arg)
{
	int fd = pairs[(intptr_t)arg][0];
	char in[MESSAGE], out[MESSAGE];

	while (all(fd, in, 0)) {
		compute(in, out);
		if (!all(fd, out, 1))
			break;
	}
	CHECK_EQ(depth, 0);
	return NULL;
}

static void *ask(void *arg)
{
	int fd = pairs[(intptr_t)arg][1];
	char in[MESSAGE], out[MESSAGE], want[MESSAGE];
	unsigned n = (unsigned)(intptr_t)arg;

	while (!stop) {
		for (int i = 0; i < MESSAGE; i++)
			in[i] = (char)(n = n * 1103515245 + 12345) >> 3;
		compute(in, want);
		if (!all(fd, in, 1) || !all(fd, out, 0)) {
			FAIL("no answer");
			break;
		}
		if (memcmp(out, want, MESSAGE)) {
			FAIL("a wrong answer");
			break;
		}
		__atomic_fetch_add(&answers, 1, __ATOMIC_RELAXED);
	}
	shutdown(fd, SHUT_RDWR);
	return NULL;
}

/* --- senders ----------------------------------------------------------------------------------------------------------- */

/* Calls fn RATE times a second, as far as the machine lets it, in bursts each millisecond. */
static void at_rate(void (*fn)(unsigned), volatile int *until)
{
	int64_t start = now_ns(), stopat = start + seconds * 1000000000LL;
	unsigned sent = 0;

	for (int64_t now = start; now < stopat && !*until; now = now_ns()) {
		unsigned due = (unsigned)((now - start) * RATE / 1000000000);
		while (sent < due && sent < (unsigned)(MOST * RATE))
			fn(sent++);
		sleep_ms(1);
	}
}

static void send_from_outside(unsigned n)
{
	union sigval v = {.sival_int = (int)n};

	while (sigqueue(getppid(), RT_PROCESS, v) != 0) {
		REQUIRE(errno == EAGAIN);
		sleep_ms(1);
	}
	shared->queued = n + 1;
	REQUIRE(kill(getppid(), SIGUSR1) == 0);
	shared->standard = n + 1;
}

static volatile unsigned sent_to_threads, sent_usr2;

static void send_from_inside(unsigned n)
{
	union sigval v = {.sival_int = (int)(n / SERVERS)};

	while (pthread_sigqueue(servers[n % SERVERS], RT_THREAD, v) == EAGAIN)
		sleep_ms(1);
	sent_to_threads = n + 1;
	REQUIRE(kill(getpid(), SIGUSR2) == 0);
	sent_usr2 = n + 1;
}

static void *sender(void *arg)
{
	at_rate(send_from_inside, &stop);
	return arg;
}

static void all_handled(volatile unsigned *count, unsigned want, const char *what)
{
	int64_t end = now_ms() + 20000;

	while (*count < want && now_ms() < end)
		sleep_ms(1);
	if (*count != want)
		FAIL("%s: %u handled of %u", what, *count, want);
}

/* One more, after all: that it is handled says that those before it were. */
static void last_handled(int sig, volatile unsigned *count, const char *what)
{
	int64_t end = now_ms() + 20000;
	unsigned before;

	sleep_ms(5);
	before = *count;
	REQUIRE(kill(getpid(), sig) == 0);
	while (*count == before && now_ms() < end)
		sleep_ms(1);
	if (*count == before)
		FAIL("%s: the last was not handled", what);
}

static void storm(void)
{
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = RT_TIMER};
	struct itimerspec its = {{0, 1000000000 / RATE}, {0, 1000000000 / RATE}}, off = {{0}, {0}};
	pthread_t clients[SERVERS];
	timer_t timer;

	shared =
	    mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(shared != MAP_FAILED);
	on(RT_PROCESS, on_queued, SA_RESTART);
	on(RT_THREAD, on_thread, SA_RESTART);
	on(RT_TIMER, on_timer, 0);
	on(SIGUSR1, on_standard, SA_RESTART);
	on(SIGUSR2, on_standard, 0);
	pid_t pid = fork();
	REQUIRE(pid >= 0);
	if (pid == 0) {
		while (!shared->start)
			sleep_ms(1);
		at_rate(send_from_outside, &shared->stop);
		_exit(0);
	}
	for (intptr_t i = 0; i < SERVERS; i++) {
		REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i]) == 0);
		servers[i] = spawn(serve, (void *)i);
		clients[i] = spawn(ask, (void *)i);
	}
	pthread_t inside = spawn(sender, NULL);
	shared->start = 1;
	REQUIRE(timer_create(CLOCK_MONOTONIC, &ev, &timer) == 0);
	int64_t began = now_ns();
	REQUIRE(timer_settime(timer, 0, &its, NULL) == 0);
	int status;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	CHECK_EQ(status, 0);
	join(inside);
	/* The timer's last expiry has a signal of its own: there is time until the next is counted. */
	int64_t took = now_ns() - began, counted = (int64_t)expiries;
	int64_t due = took * RATE / 1000000000;
	if (counted > due + 1)
		FAIL("%ld expiries are counted, %ld were", (long)counted, (long)due);
	for (int i = 0; i < 5000 && (int64_t)expiries < due; i++)
		sleep_ms(1);
	if ((int64_t)expiries < due)
		FAIL("%ld expiries are counted, %ld were", (long)expiries, (long)due);
	REQUIRE(timer_settime(timer, 0, &off, NULL) == 0);
	all_handled(&got_queued, shared->queued, "queued from outside");
	all_handled(&got_thread, sent_to_threads, "queued for threads");
	for (unsigned i = 0; i < shared->queued; i++)
		if (seen[i] != 1)
			FAIL("value %u came %d times", i, seen[i]);
	last_handled(SIGUSR1, &got_usr1, "SIGUSR1");
	last_handled(SIGUSR2, &got_usr2, "SIGUSR2");
	CHECK(got_usr1 <= shared->standard + 1 && got_usr2 <= sent_usr2 + 1);
	stop = 1;
	for (int i = 0; i < SERVERS; i++) {
		join(clients[i]);
		join(servers[i]);
	}
	timer_delete(timer);
	CHECK(answers > 0);
	if (getenv("GOSHIM_TEST_SECONDS"))
		say("%u answers; handled: %u queued, %u for threads, %u + %u standard, %u of a timer for %lu expiries",
		    answers, got_queued, got_thread, got_usr1, got_usr2, got_timer,
		    (unsigned long)expiries);
}

static const struct test_case cases[] = {
    {"storm", storm},
};

int main(int argc, char **argv)
{
	const char *s = getenv("GOSHIM_TEST_SECONDS");

	if (s && atoi(s) > 0 && atoi(s) <= MOST)
		seconds = atoi(s);
	return test_run(argc, argv, cases, COUNT(cases));
}
