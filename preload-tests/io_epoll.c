/*
 * The program's own epoll: event loops in threads keep working, edge-triggered and one-shot
 * included, with the events that the kernel would give, and waiting in epoll_wait parks the thread.
 */
#include "test.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

static int ep, fds[2];

static int by_wait(struct epoll_event *ev, int n, int ms)
{
	return epoll_wait(ep, ev, n, ms);
}

static int by_pwait(struct epoll_event *ev, int n, int ms)
{
	return epoll_pwait(ep, ev, n, ms, NULL);
}

static int by_pwait2(struct epoll_event *ev, int n, int ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000};
	return epoll_pwait2(ep, ev, n, ms < 0 ? NULL : &ts, NULL);
}

static const struct {
	const char *name;
	int (*wait)(struct epoll_event *, int, int);
} ways[] = {
    {"epoll_wait", by_wait},
    {"epoll_pwait", by_pwait},
    {"epoll_pwait2", by_pwait2},
};

static void add(int fd, uint32_t events, uint64_t data)
{
	struct epoll_event ev = {.events = events, .data.u64 = data};
	CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), 0);
}

static void *write_later(void *arg)
{
	sleep_ms(20);
	CHECK_EQ(write(fds[1], "x", 1), 1);
	return arg;
}

static void *each_way(void *arg)
{
	static const int ms[] = {0, 1, 40};
	struct epoll_event ev[4];
	char c;

	REQUIRE(pipe(fds) == 0);
	REQUIRE((ep = epoll_create1(EPOLL_CLOEXEC)) >= 0);
	add(fds[0], EPOLLIN, 77);
	for (unsigned w = 0; w < COUNT(ways); w++) {
		for (unsigned i = 0; i < COUNT(ms); i++) {
			int64_t start = now_ns();
			int rc = ways[w].wait(ev, 4, ms[i]);
			int64_t took = now_ns() - start;
			if (rc != 0)
				FAIL("%s: %d, not a timeout", ways[w].name, rc);
			if (took < ms[i] * 1000000LL - 500000)
				FAIL("%s: %d ms took %lld ns", ways[w].name, ms[i],
				     (long long)took);
		}
		static const int waits[] = {-1, 10000};
		for (unsigned i = 0; i < COUNT(waits); i++) {
			pthread_t t = spawn(write_later, NULL);
			CHECK_EQ(ways[w].wait(ev, 4, waits[i]), 1);
			CHECK_EQ(ev[0].data.u64, 77);
			CHECK_EQ(ev[0].events, EPOLLIN);
			join(t);
			/* Level-triggered: again until read. */
			CHECK_EQ(ways[w].wait(ev, 4, 0), 1);
			CHECK_EQ(read(fds[0], &c, 1), 1);
			CHECK_EQ(ways[w].wait(ev, 4, 0), 0);
		}
		CHECK_ERRNO(ways[w].wait(ev, 0, 0), EINVAL);
	}
	close(ep);
	CHECK_ERRNO(by_wait(ev, 4, 0), EBADF);
	close(fds[0]);
	close(fds[1]);
	return arg;
}

BY_MAIN_AND_A_THREAD(each_way)

static void edges(void)
{
	struct epoll_event ev[4];
	char buf[10];

	REQUIRE(pipe(fds) == 0);
	REQUIRE((ep = epoll_create1(0)) >= 0);
	add(fds[0], EPOLLIN | EPOLLET, 1);
	pthread_t t = spawn(write_later, NULL);
	CHECK_EQ(epoll_wait(ep, ev, 4, -1), 1);
	CHECK_EQ(epoll_wait(ep, ev, 4, 20), 0);
	join(t);
	t = spawn(write_later, NULL);
	CHECK_EQ(epoll_wait(ep, ev, 4, -1), 1);
	join(t);
	CHECK_EQ(read(fds[0], buf, sizeof buf), 2);
	/* A blocking read waits next to the edge-triggered registration and takes nothing from
	 * it. */
	CHECK_EQ(epoll_wait(ep, ev, 4, 0), 0);
	close(fds[0]);
	close(fds[1]);
	close(ep);
}

static void one_shot(void)
{
	struct epoll_event ev[4];
	char c;

	REQUIRE(pipe(fds) == 0);
	REQUIRE((ep = epoll_create1(0)) >= 0);
	add(fds[0], EPOLLIN | EPOLLONESHOT, 5);
	for (int i = 0; i < 5; i++) {
		pthread_t t = spawn(write_later, NULL);
		CHECK_EQ(epoll_wait(ep, ev, 4, -1), 1);
		CHECK_EQ(epoll_wait(ep, ev, 4, 5), 0);
		join(t);
		CHECK_EQ(read(fds[0], &c, 1), 1);
		struct epoll_event again = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 5};
		CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_MOD, fds[0], &again), 0);
	}
	close(fds[0]);
	close(fds[1]);
	close(ep);
}

/* Registered by another thread while the first waits already. */
static void *add_later(void *arg)
{
	sleep_ms(20);
	add(fds[0], EPOLLIN, 9);
	sleep_ms(20);
	CHECK_EQ(write(fds[1], "x", 1), 1);
	return arg;
}

static void added_while_waiting(void)
{
	struct epoll_event ev[4];

	REQUIRE(pipe(fds) == 0);
	REQUIRE((ep = epoll_create1(0)) >= 0);
	pthread_t t = spawn(add_later, NULL);
	CHECK_EQ(epoll_wait(ep, ev, 4, -1), 1);
	CHECK_EQ(ev[0].data.u64, 9);
	join(t);
	close(fds[0]);
	close(fds[1]);
	close(ep);
}

/* Many threads in one epoll_wait, as worker pools do. */
static int events, stop_fd, here;

static void *worker(void *arg)
{
	struct epoll_event ev[4];

	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	for (;;) {
		int n = epoll_wait(ep, ev, 1, -1);
		CHECK_EQ(n, 1);
		if (n != 1 || (int)ev[0].data.u64 == stop_fd)
			break;
		char c;
		CHECK_EQ(read((int)ev[0].data.u64, &c, 1), 1);
		__atomic_add_fetch(&events, 1, __ATOMIC_RELEASE);
		struct epoll_event again = {.events = EPOLLIN | EPOLLONESHOT,
					    .data.u64 = ev[0].data.u64};
		CHECK_EQ(epoll_ctl(ep, EPOLL_CTL_MOD, (int)ev[0].data.u64, &again), 0);
	}
	return arg;
}

static void pool_of_workers(void)
{
	enum { WORKERS = 80, SOCKETS = 50, ROUNDS = 30 };
	pthread_t t[WORKERS];
	int s[SOCKETS][2];

	events = here = 0;
	REQUIRE((ep = epoll_create1(0)) >= 0);
	stop_fd = eventfd(0, 0);
	for (int i = 0; i < SOCKETS; i++) {
		REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, s[i]) == 0);
		add(s[i][0], EPOLLIN | EPOLLONESHOT, s[i][0]);
	}
	for (int i = 0; i < WORKERS; i++)
		t[i] = spawn(worker, NULL);
	CHECK(wait_for(&here, WORKERS, 20000));
	sleep_ms(50);
	check_goroutines(WORKERS);
	for (int r = 0; r < ROUNDS; r++)
		for (int i = 0; i < SOCKETS; i++)
			CHECK_EQ(write(s[i][1], "e", 1), 1);
	CHECK(wait_for(&events, SOCKETS * ROUNDS, 20000));
	add(stop_fd, EPOLLIN, stop_fd);
	uint64_t one = 1;
	CHECK_EQ(write(stop_fd, &one, sizeof one), sizeof one);
	for (int i = 0; i < WORKERS; i++)
		join(t[i]);
	for (int i = 0; i < SOCKETS; i++) {
		close(s[i][0]);
		close(s[i][1]);
	}
	close(stop_fd);
	close(ep);
}

/* A loop in each thread, woken by eventfd from others: memcached's shape. */
enum { LOOPS = 8, NOTES = 300 };
static struct loop {
	int ep, note, got;
	int64_t sum;
} loops[LOOPS];

static void *loop_run(void *arg)
{
	struct loop *l = arg;
	struct epoll_event ev;

	while (l->got < NOTES * LOOPS) {
		if (epoll_wait(l->ep, &ev, 1, -1) != 1) {
			FAIL("epoll_wait: errno %d", errno);
			break;
		}
		uint64_t v;
		if (read(l->note, &v, sizeof v) == sizeof v)
			l->got += (int)v;
	}
	return NULL;
}

static void *notify_all(void *arg)
{
	for (int n = 0; n < NOTES; n++)
		for (int i = 0; i < LOOPS; i++) {
			uint64_t one = 1;
			CHECK_EQ(write(loops[i].note, &one, sizeof one), sizeof one);
		}
	return arg;
}

static void loops_woken_by_others(void)
{
	pthread_t t[LOOPS], n[LOOPS];

	for (int i = 0; i < LOOPS; i++) {
		struct epoll_event ev = {.events = EPOLLIN};
		loops[i].got = 0;
		loops[i].ep = epoll_create1(0);
		loops[i].note = eventfd(0, i % 2 ? EFD_NONBLOCK : 0);
		CHECK_EQ(epoll_ctl(loops[i].ep, EPOLL_CTL_ADD, loops[i].note, &ev), 0);
		t[i] = spawn(loop_run, &loops[i]);
	}
	for (int i = 0; i < LOOPS; i++)
		n[i] = spawn(notify_all, NULL);
	for (int i = 0; i < LOOPS; i++) {
		join(n[i]);
		join(t[i]);
		CHECK_EQ(loops[i].got, NOTES * LOOPS);
		close(loops[i].ep);
		close(loops[i].note);
	}
}

/* An epoll fd polled, and registered in another epoll. */
static void nested(void)
{
	struct epoll_event ev[2];
	int inner;

	REQUIRE(pipe(fds) == 0);
	REQUIRE((ep = epoll_create1(0)) >= 0);
	add(fds[0], EPOLLIN, 3);
	inner = ep;
	struct pollfd p = {inner, POLLIN, 0};
	CHECK_EQ(poll(&p, 1, 0), 0);
	pthread_t t = spawn(write_later, NULL);
	CHECK_EQ(poll(&p, 1, -1), 1);
	join(t);
	char c;
	CHECK_EQ(read(fds[0], &c, 1), 1);
	REQUIRE((ep = epoll_create1(0)) >= 0);
	add(inner, EPOLLIN, 4);
	t = spawn(write_later, NULL);
	CHECK_EQ(epoll_wait(ep, ev, 2, -1), 1);
	CHECK_EQ(ev[0].data.u64, 4);
	join(t);
	close(ep);
	close(inner);
	close(fds[0]);
	close(fds[1]);
}

static const struct test_case cases[] = {
    {"by_main", by_main},
    {"by_a_thread", by_a_thread},
    {"edges", edges},
    {"one_shot", one_shot},
    {"added_while_waiting", added_while_waiting},
    {"pool_of_workers", pool_of_workers},
    {"loops_woken_by_others", loops_woken_by_others},
    {"nested", nested},
};

TEST_MAIN(cases)
