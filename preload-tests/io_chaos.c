/*
 * Many threads on few descriptors, whatever happens to them: at random they send, receive, peek, poll, wait in epoll,
 * duplicate, close, shut down and replace sockets that others use at that moment, whose numbers are other sockets' at the
 * next. What holds on plain glibc holds: a record is received whole, by one, and only if it was sent; errors are those
 * of descriptors that were closed or shut down; no limit on time ends before its time; and every call ends.
 *
 * GOSHIM_TEST_SEED repeats a run's choices, GOSHIM_TEST_SECONDS makes it longer.
 */
#include "test.h"

#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { THREADS = 24, PAIRS = 8, SLOTS = 2 * PAIRS, OBJECTS = 1 << 16, RECORDS = 4096, LIMIT = 20 };
/* The kernel counts these limits in ticks, and a wait may begin within one. */
enum { TICK = 10 };

/* From one end of a pair. `check` is of the rest. */
struct record {
	uint32_t object, number, check;
};

/* Numbers of descriptors; two that follow each other began as the ends of a pair. */
static int slots[SLOTS];
static unsigned objects, sent[OBJECTS];
static uint64_t taken[OBJECTS]
		     [RECORDS / 64]; /* records that were received; only touched pages cost */
static unsigned of_slot[SLOTS];
static unsigned long nreceived, nsent;
static int64_t end;

static uint64_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return *state >> 33;
}

static int of(unsigned slot)
{
	return __atomic_load_n(&slots[slot], __ATOMIC_ACQUIRE);
}

static uint32_t sum(const struct record *r)
{
	return (r->object * 2654435761u) ^ (r->number * 40503u) ^ 0x5bd1e995u;
}

static void received(const struct record *r, size_t n)
{
	if (n != sizeof *r || r->check != sum(r) || r->object >= OBJECTS || r->number >= RECORDS) {
		FAIL("%zu bytes: object %u, number %u", n, r->object, r->number);
		return;
	}
	uint64_t bit = 1ull << (r->number % 64);
	if (__atomic_fetch_or(&taken[r->object][r->number / 64], bit, __ATOMIC_RELAXED) & bit)
		FAIL("record %u of object %u comes twice", r->number, r->object);
	if (r->number >= __atomic_load_n(&sent[r->object], __ATOMIC_ACQUIRE))
		FAIL("record %u of object %u was not sent", r->number, r->object);
	__atomic_add_fetch(&nreceived, 1, __ATOMIC_RELAXED);
}

static void judge(const char *what, int64_t start)
{
	switch (errno) {
	case EAGAIN:
		if (now_ns() - start < (LIMIT - TICK) * 1000000LL)
			FAIL("%s: time is up after %lld ns", what, (long long)(now_ns() - start));
		return;
	/* Closed, or shut down, at either end. */
	case EBADF:
	case EPIPE:
	case ENOTCONN:
	case ECONNRESET:
	case ECONNREFUSED: return;
	/* An epoll instance's number by now. */
	case ENOTSOCK:
	case EINVAL: return;
	}
	FAIL("%s: errno %d", what, errno);
}

static void new_pair(unsigned pair, uint64_t *rnd)
{
	struct timeval tv = {0, LIMIT * 1000};
	int fds[2];

	REQUIRE(socketpair(AF_UNIX, next_random(rnd) % 2 ? SOCK_DGRAM : SOCK_SEQPACKET, 0, fds) ==
		0);
	for (int i = 0; i < 2; i++) {
		/* They are nobody else's yet, though some may still use the numbers. */
		if ((setsockopt(fds[i], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) ||
		     setsockopt(fds[i], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv)))
			CHECK(errno == EBADF);
		unsigned o = __atomic_fetch_add(&objects, 1, __ATOMIC_RELAXED) % OBJECTS;
		unsigned slot = 2 * pair + (unsigned)i;
		__atomic_store_n(&of_slot[slot], o, __ATOMIC_RELEASE);
		int old = __atomic_exchange_n(&slots[slot], fds[i], __ATOMIC_ACQ_REL);
		if (old >= 0)
			close(old);
	}
}

static void send_one(unsigned slot, uint64_t *rnd)
{
	struct record r = {.object = __atomic_load_n(&of_slot[slot], __ATOMIC_ACQUIRE)};
	struct iovec v[2] = {{&r, 5}, {(char *)&r + 5, sizeof r - 5}};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
	int fd = of(slot);
	ssize_t n;

	r.number = __atomic_fetch_add(&sent[r.object], 1, __ATOMIC_ACQ_REL);
	if (r.number >= RECORDS)
		return;
	r.check = sum(&r);
	int64_t start = now_ns();
	switch (next_random(rnd) % 4) {
	case 0: n = write(fd, &r, sizeof r); break;
	case 1: n = send(fd, &r, sizeof r, MSG_NOSIGNAL); break;
	case 2: n = sendmsg(fd, &m, MSG_NOSIGNAL); break;
	default: n = writev(fd, v, 2);
	}
	if (n == sizeof r)
		__atomic_add_fetch(&nsent, 1, __ATOMIC_RELAXED);
	else if (n < 0)
		judge("send", start);
	else
		FAIL("a record of which %zd bytes are sent", n);
}

static void receive_one(unsigned slot, uint64_t *rnd)
{
	struct record r = {0};
	struct iovec v[2] = {{&r, 3}, {(char *)&r + 3, sizeof r - 3}};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
	int fd = of(slot), peek = 0;
	int64_t start = now_ns();
	ssize_t n;

	/* By calls of sockets alone: a number may be any file's by now. */
	switch (next_random(rnd) % 4) {
	case 0: n = recvfrom(fd, &r, sizeof r, 0, NULL, NULL); break;
	case 1: n = recv(fd, &r, sizeof r, 0); break;
	case 2: n = recvmsg(fd, &m, 0); break;
	default: n = recv(fd, &r, sizeof r, MSG_PEEK); peek = 1;
	}
	if (n < 0)
		judge("receive", start);
	else if (n > 0 && !peek)
		received(&r, (size_t)n);
	else if (n > 0)
		CHECK(n == sizeof r && r.check == sum(&r));
}

static void poll_some(unsigned slot, uint64_t *rnd)
{
	int ms = (int)(next_random(rnd) % 5), fd = of(slot), r;
	struct timespec ts = {0, ms * 1000000};
	struct epoll_event e = {.events = EPOLLIN}, got;
	struct pollfd p[SLOTS];
	int64_t start = now_ns();

	for (unsigned i = 0; i < SLOTS; i++)
		p[i] = (struct pollfd){of(i), POLLIN, 0};
	switch (next_random(rnd) % 3) {
	case 0: r = poll(&p[slot], 1, ms); break;
	case 1: r = ppoll(p, SLOTS, &ts, NULL); break;
	default: {
		int ep = epoll_create1(EPOLL_CLOEXEC);
		if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e) < 0) {
			/* Closed, or an epoll instance by now. */
			close(ep);
			return;
		}
		r = epoll_wait(ep, &got, 1, ms);
		close(ep);
	}
	}
	if (r < 0 && errno != EBADF)
		FAIL("polling: errno %d", errno);
	if (r == 0 && now_ns() - start < ms * 1000000LL)
		FAIL("%d ms were over after %lld ns", ms, (long long)(now_ns() - start));
}

/* Ends, changes and moves what others use. */
static void disturb(unsigned slot, uint64_t *rnd)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	int fd = of(slot), copy;

	switch (next_random(rnd) % 8) {
	case 0:
		if (shutdown(fd, (int)(next_random(rnd) % 3)) < 0)
			judge("shutdown", now_ns());
		break;
	case 1:
	case 2:
		/* One at a time: only whoever took a number out of the table closes it. */
		pthread_mutex_lock(&lock);
		new_pair(slot / 2, rnd);
		pthread_mutex_unlock(&lock);
		break;
	default:
		pthread_mutex_lock(&lock);
		copy = dup(of(slot));
		REQUIRE(copy >= 0);
		close(__atomic_exchange_n(&slots[slot], copy, __ATOMIC_ACQ_REL));
		pthread_mutex_unlock(&lock);
	}
}

static uint64_t seed;

static void *actor(void *arg)
{
	uint64_t rnd = seed + (uint64_t)(intptr_t)arg * 2654435761u;

	while (now_ms() < end && !test_failures) {
		unsigned slot = next_random(&rnd) % SLOTS;

		switch (next_random(&rnd) % 16) {
		case 0: disturb(slot, &rnd); break;
		case 1:
		case 2: poll_some(slot, &rnd); break;
		case 3:
		case 4:
		case 5:
		case 6:
		case 7: receive_one(slot, &rnd); break;
		case 8: sched_yield(); break;
		default: send_one(slot, &rnd);
		}
	}
	return NULL;
}

static void anything_goes(void)
{
	const char *seconds = getenv("GOSHIM_TEST_SECONDS"), *given = getenv("GOSHIM_TEST_SEED");
	pthread_t t[THREADS];

	seed = given ? strtoull(given, NULL, 0) : (uint64_t)now_ns() ^ (uint64_t)getpid() << 40;
	say("seed %llu", (unsigned long long)seed);
	end = now_ms() + (seconds ? atoi(seconds) * 1000 : 1500);
	uint64_t rnd = seed;
	for (unsigned i = 0; i < SLOTS; i++)
		slots[i] = -1;
	for (unsigned i = 0; i < PAIRS; i++)
		new_pair(i, &rnd);
	for (intptr_t i = 0; i < THREADS; i++)
		t[i] = spawn(actor, (void *)i);
	for (int i = 0; i < THREADS; i++)
		join(t[i]);
	CHECK(nsent > 100 && nreceived > 100 && nreceived <= nsent);
	say("%lu sent, %lu received, %u objects", nsent, nreceived, objects);
}

static const struct test_case cases[] = {
    {"anything_goes", anything_goes},
};

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	return test_run(argc, argv, cases, COUNT(cases));
}
