/*
 * Waiting by syscall(): a signal for the thread or the process runs its handler at once and ends the call with EINTR
 * or lets it go on, as signal(7) says of the call, and where there is none the time ends it; masks that a call is given are the thread's; and none is a
 * cancellation point.
 */
#include "test.h"

#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sem.h>

static uint32_t word;
static int fds[2], ep;
static sigset_t usr1, none;
static pthread_t handler_of;
static int handled;

static void on_usr1(int sig)
{
	(void)sig;
	handler_of = pthread_self();
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELEASE);
}

static const struct timespec minute = {60, 0};
static const uint64_t open_all;

static long by_ppoll(void)
{
	struct timespec ts = minute;
	long r = syscall(SYS_ppoll, NULL, 0, &ts, &open_all, 8);
	int err = errno;

	CHECK(ts.tv_sec < 60);
	errno = err;
	return r;
}

static long by_pselect6(void)
{
	struct timespec ts = minute;
	struct {
		const void *set;
		size_t n;
	} mask = {&open_all, 8};
	long r = syscall(SYS_pselect6, 0, NULL, NULL, NULL, &ts, &mask);
	int err = errno;

	CHECK(ts.tv_sec < 60);
	errno = err;
	return r;
}

static long by_epoll_pwait(void)
{
	struct epoll_event ev;
	return syscall(SYS_epoll_pwait, ep, &ev, 1, 60000, &open_all, 8);
}

static long by_epoll_pwait2(void)
{
	struct epoll_event ev;
	return syscall(SYS_epoll_pwait2, ep, &ev, 1, &minute, &open_all, 8);
}

static long by_sigsuspend(void)
{
	return syscall(SYS_rt_sigsuspend, &open_all, 8);
}

static long by_sigtimedwait(void)
{
	siginfo_t info;
	return syscall(SYS_rt_sigtimedwait, &usr1, &info, &minute, 8);
}

static long by_pause(void)
{
	return syscall(SYS_pause);
}

static long by_nanosleep(void)
{
	struct timespec left;
	return syscall(SYS_nanosleep, &minute, &left);
}

static long by_poll(void)
{
	struct pollfd p = {fds[0], POLLIN, 0};
	return syscall(SYS_poll, &p, 1, 60000);
}

static long by_select(void)
{
	struct timeval tv = {60, 0};
	return syscall(SYS_select, 0, NULL, NULL, NULL, &tv);
}

static long by_epoll_wait(void)
{
	struct epoll_event ev;
	return syscall(SYS_epoll_wait, ep, &ev, 1, 60000);
}

static long by_read(void)
{
	char c;
	return syscall(SYS_read, fds[0], &c, 1);
}

static long by_futex(void)
{
	return syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0);
}

static long by_futex_timed(void)
{
	return syscall(SYS_futex, &word, FUTEX_WAIT, 0, &minute, NULL, 0);
}

static long by_private_futex(void)
{
	return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

enum { MASKED = 1, RESTARTS = 2, TAKES = 4 };
static const struct row {
	const char *name;
	long (*call)(void);
	int flags;
} rows[] = {
    {"ppoll", by_ppoll, MASKED},
    {"pselect6", by_pselect6, MASKED},
    {"epoll_pwait", by_epoll_pwait, MASKED},
    {"epoll_pwait2", by_epoll_pwait2, MASKED},
    {"rt_sigsuspend", by_sigsuspend, MASKED},
    {"rt_sigtimedwait", by_sigtimedwait, MASKED | TAKES},
    {"pause", by_pause, 0},
    {"nanosleep", by_nanosleep, 0},
    {"poll", by_poll, 0},
    {"select", by_select, 0},
    {"epoll_wait", by_epoll_wait, 0},
    {"read", by_read, RESTARTS},
    {"futex", by_futex, RESTARTS},
    {"futex with a timeout", by_futex_timed, 0},
    {"futex, private", by_private_futex, RESTARTS},
};

static struct {
	const struct row *row;
	long result;
	int err, started, done;
} call;

static void *caller(void *arg)
{
	call.row = arg;
	REQUIRE_OK(pthread_sigmask(SIG_SETMASK, call.row->flags & MASKED ? &usr1 : &none, NULL));
	__atomic_store_n(&call.started, 1, __ATOMIC_RELEASE);
	errno = 0;
	call.result = call.row->call();
	call.err = errno;
	__atomic_store_n(&call.done, 1, __ATOMIC_RELEASE);
	return NULL;
}

static pthread_t begin(const struct row *row)
{
	memset(&call, 0, sizeof call);
	handled = 0;
	word = 0;
	pthread_t t = spawn(caller, (void *)row);
	CHECK(wait_for(&call.started, 1, 20000));
	sleep_ms(20);
	if (__atomic_load_n(&call.done, __ATOMIC_ACQUIRE))
		FAIL("%s does not wait: %ld, errno %d", row->name, call.result, call.err);
	return t;
}

/* What ends a call that handlers don't. */
static void satisfy(void)
{
	char c;

	__atomic_store_n(&word, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &word, FUTEX_WAKE, 1, NULL, NULL, 0);
	syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	REQUIRE(write(fds[1], "x", 1) == 1);
	if (!wait_for(&call.done, 1, 10000))
		FAIL("%s still waits", call.row->name);
	struct pollfd p = {fds[0], POLLIN, 0};
	if (poll(&p, 1, 0) == 1)
		REQUIRE(read(fds[0], &c, 1) == 1);
}

static void signalled(const struct row *row, int to_process, int flags)
{
	struct sigaction sa = {.sa_handler = on_usr1, .sa_flags = flags};

	REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
	pthread_t t = begin(row);
	if (to_process)
		CHECK_EQ(kill(getpid(), SIGUSR1), 0);
	else
		CHECK_EQ(pthread_kill(t, SIGUSR1), 0);
	if (!(row->flags & TAKES)) {
		if (!wait_for(&handled, 1, 10000))
			FAIL("%s: no handler runs, %d %d", row->name, to_process, flags);
		else if (!pthread_equal(handler_of, t))
			FAIL("%s: the handler runs elsewhere", row->name);
	}
	if (row->flags & RESTARTS && flags & SA_RESTART) {
		sleep_ms(5);
		if (__atomic_load_n(&call.done, __ATOMIC_ACQUIRE))
			FAIL("%s is not made again: %ld, errno %d", row->name, call.result,
			     call.err);
		satisfy();
		join(t);
		if (call.result < 0)
			FAIL("%s: errno %d", row->name, call.err);
		return;
	}
	if (!wait_for(&call.done, 1, 10000)) {
		FAIL("%s goes on after a handler, %d %d", row->name, to_process, flags);
		_exit(1);
	}
	join(t);
	if (row->flags & TAKES ? call.result != SIGUSR1 : call.result != -1 || call.err != EINTR)
		FAIL("%s: %ld, errno %d", row->name, call.result, call.err);
	CHECK_EQ(handled, !(row->flags & TAKES));
}

static void by_signals_to_threads(void)
{
	for (unsigned i = 0; i < COUNT(rows); i++) {
		signalled(&rows[i], 0, 0);
		signalled(&rows[i], 0, SA_RESTART);
	}
}

static void by_signals_to_the_process(void)
{
	for (unsigned i = 0; i < COUNT(rows); i++) {
		signalled(&rows[i], 1, 0);
		signalled(&rows[i], 1, SA_RESTART);
	}
}

/* What is pending for the thread alone is seen, too. */
static void *pending(void *arg)
{
	uint64_t set = 0;
	siginfo_t info;

	REQUIRE_OK(pthread_sigmask(SIG_SETMASK, &usr1, NULL));
	CHECK_EQ(pthread_kill(pthread_self(), SIGUSR1), 0);
	CHECK_EQ(syscall(SYS_rt_sigpending, &set, 8), 0);
	CHECK_EQ(set, 1ull << (SIGUSR1 - 1));
	CHECK_EQ(syscall(SYS_rt_sigtimedwait, &usr1, &info, &(struct timespec){0, 0}, 8), SIGUSR1);
	CHECK_EQ(syscall(SYS_rt_sigpending, &set, 8), 0);
	CHECK_EQ(set, 0);
	CHECK_ERRNO(syscall(SYS_rt_sigtimedwait, &usr1, &info, &(struct timespec){0, 1000}, 8),
		    EAGAIN);
	return arg;
}

static void what_is_pending(void)
{
	join(spawn(pending, NULL));
}

static int passed;

static void *requested(void *arg)
{
	struct epoll_event ev;
	const struct timespec soon = {0, 1000000};
	struct timespec ts = soon;

	REQUIRE_OK(pthread_sigmask(SIG_SETMASK, &usr1, NULL));
	REQUIRE_OK(pthread_cancel(pthread_self()));
	CHECK_EQ(syscall(SYS_ppoll, NULL, 0, &ts, &open_all, 8), 0);
	CHECK(ts.tv_sec == 0 && ts.tv_nsec == 0);
	CHECK_EQ(syscall(SYS_epoll_pwait, ep, &ev, 1, 1, &open_all, 8), 0);
	CHECK_ERRNO(syscall(SYS_rt_sigtimedwait, &usr1, NULL, &soon, 8), EAGAIN);
	CHECK_EQ(syscall(SYS_nanosleep, &soon, NULL), 0);
	passed = 1;
	pthread_testcancel();
	passed = 2;
	return arg;
}

static void no_cancellation_points(void)
{
	passed = 0;
	CHECK(join(spawn(requested, NULL)) == PTHREAD_CANCELED);
	CHECK_EQ(passed, 1);
}

/* --- a millisecond, and nobody sends a signal ----------------------------------------------------------------------- */

static const struct timespec ms = {0, 1000000};
static int semaphore;
static aio_context_t context;

static long short_poll(void)
{
	return syscall(SYS_poll, NULL, 0, 1);
}

static long short_ppoll(void)
{
	struct timespec ts = ms;
	return syscall(SYS_ppoll, NULL, 0, &ts, NULL, 8);
}

static long short_select(void)
{
	struct timeval tv = {0, 1000};
	return syscall(SYS_select, 0, NULL, NULL, NULL, &tv);
}

static long short_pselect6(void)
{
	struct timespec ts = ms;
	return syscall(SYS_pselect6, 0, NULL, NULL, NULL, &ts, NULL);
}

static long short_epoll_wait(void)
{
	struct epoll_event ev;
	return syscall(SYS_epoll_wait, ep, &ev, 1, 1);
}

static long short_epoll_pwait2(void)
{
	struct epoll_event ev;
	return syscall(SYS_epoll_pwait2, ep, &ev, 1, &ms, NULL, 8);
}

static long short_nanosleep(void)
{
	return syscall(SYS_nanosleep, &ms, NULL);
}

static long short_clock_nanosleep(void)
{
	return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &ms, NULL);
}

static long absolute_clock_nanosleep(void)
{
	struct timespec end = after_ms(CLOCK_MONOTONIC, 1);
	return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL);
}

static long short_futex(void)
{
	return syscall(SYS_futex, &word, FUTEX_WAIT, 0, &ms, NULL, 0);
}

static long short_semtimedop(void)
{
	struct sembuf down = {0, -1, 0};
	return syscall(SYS_semtimedop, semaphore, &down, 1, &ms);
}

static long short_io_getevents(void)
{
	struct io_event event;
	return syscall(SYS_io_getevents, context, 1, 1, &event, &ms);
}

static const struct brief {
	const char *name;
	long (*call)(void);
	int err;
} briefs[] = {
    {"poll", short_poll, 0},
    {"ppoll", short_ppoll, 0},
    {"select", short_select, 0},
    {"pselect6", short_pselect6, 0},
    {"epoll_wait", short_epoll_wait, 0},
    {"epoll_pwait2", short_epoll_pwait2, 0},
    {"nanosleep", short_nanosleep, 0},
    {"clock_nanosleep", short_clock_nanosleep, 0},
    {"clock_nanosleep until", absolute_clock_nanosleep, 0},
    {"futex", short_futex, ETIMEDOUT},
    {"semtimedop", short_semtimedop, EAGAIN},
    {"io_getevents", short_io_getevents, 0},
};

/* Computes between the calls, up to their beginning. */
static void *calls_briefly(void *arg)
{
	for (int i = 0; i < 20; i++) {
		for (size_t k = 0; k < COUNT(briefs); k++) {
			int64_t start = now_ns();

			while (now_ns() < start + 10000 * (i + 1))
				;
			start = now_ns();
			errno = 0;
			long r = briefs[k].call();
			if (r != (briefs[k].err ? -1 : 0) || errno != briefs[k].err)
				FAIL("%s: %ld, errno %d", briefs[k].name, r, errno);
			else if (now_ns() - start < 1000000)
				FAIL("%s returns %lld ns too early", briefs[k].name,
				     (long long)(1000000 - (now_ns() - start)));
		}
	}
	return arg;
}

static void none_sent(void)
{
	pthread_t t[5];

	semaphore = semget(IPC_PRIVATE, 1, 0600);
	REQUIRE(semaphore >= 0 && syscall(SYS_io_setup, COUNT(t), &context) == 0);
	for (size_t i = 0; i < COUNT(t); i++)
		t[i] = spawn(calls_briefly, NULL);
	for (size_t i = 0; i < COUNT(t); i++)
		join(t[i]);
	syscall(SYS_io_destroy, context);
	semctl(semaphore, 0, IPC_RMID);
}

static const struct test_case cases[] = {
    {"none_sent", none_sent},
    {"by_signals_to_threads", by_signals_to_threads},
    {"by_signals_to_the_process", by_signals_to_the_process},
    {"what_is_pending", what_is_pending},
    {"no_cancellation_points", no_cancellation_points},
};

int main(int argc, char **argv)
{
	sigemptyset(&none);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	REQUIRE_OK(pthread_sigmask(SIG_BLOCK, &usr1, NULL));
	ep = epoll_create1(0);
	REQUIRE(pipe(fds) == 0 && ep >= 0);
	return test_run(argc, argv, cases, COUNT(cases));
}
