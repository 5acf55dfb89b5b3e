/*
 * poll and select: timeouts last, events from other threads end the wait, every event bit is the
 * kernel's, and two threads may wait for one fd in different ways.
 */
#include "test.h"

#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

static int fds[2];

/* One fd for reading by each of the calls; ms < 0 waits for ever. Returns what the call returns. */
static int by_poll(int fd, long ms)
{
	struct pollfd p = {fd, POLLIN, 0};
	return poll(&p, 1, (int)ms);
}

static int by_ppoll(int fd, long ms)
{
	struct pollfd p = {fd, POLLIN, 0};
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000};
	return ppoll(&p, 1, ms < 0 ? NULL : &ts, NULL);
}

static int by_select(int fd, long ms)
{
	fd_set set;
	struct timeval tv = {ms / 1000, ms % 1000 * 1000};
	FD_ZERO(&set);
	FD_SET(fd, &set);
	int n = select(fd + 1, &set, NULL, NULL, ms < 0 ? NULL : &tv);
	if (n >= 0)
		CHECK_EQ(!!FD_ISSET(fd, &set), n);
	return n;
}

static int by_pselect(int fd, long ms)
{
	fd_set set;
	sigset_t none;
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000};
	FD_ZERO(&set);
	FD_SET(fd, &set);
	sigemptyset(&none);
	int n = pselect(fd + 1, &set, NULL, NULL, ms < 0 ? NULL : &ts, &none);
	if (n >= 0)
		CHECK_EQ(!!FD_ISSET(fd, &set), n);
	return n;
}

static const struct {
	const char *name;
	int (*wait)(int fd, long ms);
} ways[] = {
    {"poll", by_poll},
    {"ppoll", by_ppoll},
    {"select", by_select},
    {"pselect", by_pselect},
};

static void *write_later(void *arg)
{
	sleep_ms(20);
	CHECK_EQ(write(fds[1], "x", 1), 1);
	return arg;
}

static void *each_way(void *arg)
{
	static const long ms[] = {0, 1, 40};
	char c;

	REQUIRE(pipe(fds) == 0);
	for (unsigned w = 0; w < COUNT(ways); w++) {
		for (unsigned i = 0; i < COUNT(ms); i++) {
			int64_t start = now_ns();
			int rc = ways[w].wait(fds[0], ms[i]);
			int64_t took = now_ns() - start;
			if (rc != 0)
				FAIL("%s: %d, not a timeout", ways[w].name, rc);
			if (took < ms[i] * 1000000 - 500000)
				FAIL("%s: %ld ms took %lld ns", ways[w].name, ms[i],
				     (long long)took);
		}
		static const long waits[] = {-1, 10000};
		for (unsigned i = 0; i < COUNT(waits); i++) {
			pthread_t t = spawn(write_later, NULL);
			int rc = ways[w].wait(fds[0], waits[i]);
			if (rc != 1)
				FAIL("%s: %d, not 1", ways[w].name, rc);
			join(t);
			CHECK_EQ(ways[w].wait(fds[0], 0), 1);
			CHECK_EQ(read(fds[0], &c, 1), 1);
			CHECK_EQ(ways[w].wait(fds[0], 0), 0);
		}
	}
	close(fds[0]);
	close(fds[1]);
	return arg;
}

BY_MAIN_AND_A_THREAD(each_way)

/* What poll says of an fd in a given state. */
static void revents(void)
{
	int p[2], s[2], e;
	struct pollfd q;

	REQUIRE(pipe(p) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0);
	e = eventfd(0, 0);
	const struct {
		const char *name;
		int fd;
		short events, want;
	} table[] = {
	    {"empty pipe", p[0], POLLIN, 0},           {"pipe with room", p[1], POLLOUT, POLLOUT},
	    {"pipe's wrong end", p[0], POLLOUT, 0},    {"socket", s[0], POLLIN | POLLOUT, POLLOUT},
	    {"eventfd", e, POLLIN | POLLOUT, POLLOUT}, {"negative fd", -1, POLLIN, 0},
	    {"no such fd", 19999, POLLIN, POLLNVAL},   {"nothing asked", s[0], 0, 0},
	};
	for (unsigned i = 0; i < COUNT(table); i++) {
		q = (struct pollfd){table[i].fd, table[i].events, -1};
		int n = poll(&q, 1, 0);
		if (q.revents != table[i].want || n != !!table[i].want)
			FAIL("%s: %d with %#x, not %#x", table[i].name, n, q.revents,
			     table[i].want);
	}
	close(p[1]);
	q = (struct pollfd){p[0], POLLIN, 0};
	CHECK_EQ(poll(&q, 1, -1), 1);
	CHECK_EQ(q.revents, POLLHUP);
	close(s[1]);
	q = (struct pollfd){s[0], POLLIN | POLLRDHUP, 0};
	CHECK_EQ(poll(&q, 1, -1), 1);
	CHECK_EQ(q.revents, POLLIN | POLLHUP | POLLRDHUP);
	close(p[0]);
	close(s[0]);
	close(e);
	fd_set set;
	FD_ZERO(&set);
	FD_SET(p[0], &set);
	CHECK_ERRNO(select(p[0] + 1, &set, NULL, NULL, NULL), EBADF);
	CHECK_ERRNO(select(-1, NULL, NULL, NULL, NULL), EINVAL);
	struct timespec bad = {0, 1000000000};
	CHECK_ERRNO(ppoll(NULL, 0, &bad, NULL), EINVAL);
}

enum { MANY = 100 };
static int many[MANY][2];

static void *write_one(void *arg)
{
	sleep_ms(20);
	CHECK_EQ(write(many[(intptr_t)arg][1], "m", 1), 1);
	return NULL;
}

static void one_of_many(void)
{
	struct pollfd p[MANY];
	char c;

	for (int i = 0; i < MANY; i++) {
		REQUIRE(pipe(many[i]) == 0);
		p[i] = (struct pollfd){many[i][0], POLLIN, 0};
	}
	for (int i = 0; i < MANY; i += 9) {
		pthread_t t = spawn(write_one, (void *)(intptr_t)i);
		CHECK_EQ(poll(p, MANY, -1), 1);
		for (int k = 0; k < MANY; k++)
			CHECK_EQ(p[k].revents, k == i ? POLLIN : 0);
		CHECK_EQ(read(many[i][0], &c, 1), 1);
		join(t);
	}
	/* And several at once. */
	for (int i = 0; i < MANY; i += 10)
		CHECK_EQ(write(many[i][1], "m", 1), 1);
	CHECK_EQ(poll(p, MANY, -1), 10);
	for (int i = 0; i < MANY; i++) {
		close(many[i][0]);
		close(many[i][1]);
	}
}

static int here, woken;

static void *wait_own(void *arg)
{
	int i = (int)(intptr_t)arg;

	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	CHECK_EQ(ways[i % COUNT(ways)].wait(many[i][0], -1), 1);
	__atomic_add_fetch(&woken, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void hundred_wait(void)
{
	pthread_t t[MANY];

	here = woken = 0;
	for (int i = 0; i < MANY; i++) {
		REQUIRE(pipe(many[i]) == 0);
		t[i] = spawn(wait_own, (void *)(intptr_t)i);
	}
	CHECK(wait_for(&here, MANY, 20000));
	sleep_ms(50);
	check_goroutines(MANY);
	CHECK_EQ(__atomic_load_n(&woken, __ATOMIC_ACQUIRE), 0);
	for (int i = 0; i < MANY; i++)
		CHECK_EQ(write(many[i][1], "m", 1), 1);
	for (int i = 0; i < MANY; i++) {
		join(t[i]);
		close(many[i][0]);
		close(many[i][1]);
	}
}

/* All of them on one fd, by different calls, one of them reading. */
static void *wait_shared(void *arg)
{
	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	CHECK_EQ(ways[(intptr_t)arg % COUNT(ways)].wait(fds[0], -1), 1);
	__atomic_add_fetch(&woken, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void *peek_shared(void *arg)
{
	char c;

	CHECK_EQ(recv(fds[0], &c, 1, MSG_PEEK), 1);
	__atomic_add_fetch(&woken, 1, __ATOMIC_RELEASE);
	return arg;
}

static void many_wait_on_one(void)
{
	pthread_t t[20];

	here = woken = 0;
	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	for (int i = 0; i < (int)COUNT(t); i++)
		t[i] =
		    i % 5 == 4 ? spawn(peek_shared, NULL) : spawn(wait_shared, (void *)(intptr_t)i);
	sleep_ms(50);
	CHECK_EQ(__atomic_load_n(&woken, __ATOMIC_ACQUIRE), 0);
	CHECK_EQ(write(fds[1], "s", 1), 1);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(woken, COUNT(t));
	close(fds[0]);
	close(fds[1]);
}

static void timerfd_and_eventfd(void)
{
	int t = timerfd_create(CLOCK_MONOTONIC, 0);
	struct itimerspec its = {{0, 0}, {0, 30000000}};
	uint64_t v = 0;

	REQUIRE(t >= 0);
	for (unsigned w = 0; w < COUNT(ways); w++) {
		CHECK_EQ(timerfd_settime(t, 0, &its, NULL), 0);
		CHECK_EQ(ways[w].wait(t, -1), 1);
		CHECK_EQ(read(t, &v, sizeof v), sizeof v);
		CHECK_EQ(v, 1);
	}
	CHECK_EQ(timerfd_settime(t, 0, &its, NULL), 0);
	CHECK_EQ(read(t, &v, sizeof v), sizeof v);
	close(t);
}

/* More threads than processors that poll with no timeout in a loop, and one that works. */
static int stop;

static void *poll_busily(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		int rc = by_poll((int)(intptr_t)arg, 0);
		if (rc != 0)
			FAIL("poll gives %d, errno %d", rc, errno);
	}
	return NULL;
}

static void busy_polling(void)
{
	pthread_t t[8];

	stop = 0;
	REQUIRE(pipe(fds) == 0);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(poll_busily, (void *)(intptr_t)fds[0]);
	for (int i = 0; i < 10; i++)
		sleep_ms(2);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	close(fds[0]);
	close(fds[1]);
}

static const struct test_case cases[] = {
    {"by_main", by_main},
    {"by_a_thread", by_a_thread},
    {"revents", revents},
    {"one_of_many", one_of_many},
    {"hundred_wait", hundred_wait},
    {"many_wait_on_one", many_wait_on_one},
    {"timerfd_and_eventfd", timerfd_and_eventfd},
    {"busy_polling", busy_polling},
};

TEST_MAIN(cases)
