/*
 * Everything at once for some seconds: threads that pick at random what they do next, from locks,
 * conditions, pipes, sleeps and allocation to new threads, signals to themselves, stdio, cancellation
 * and children. What each does is checked; what is looked for are the states that no single test reaches.
 */
#include "test.h"

#include <math.h>
#include <semaphore.h>
#include <sys/socket.h>

enum { WORKERS = 48, SHARED = 8 };

static pthread_mutex_t locks[SHARED];
static long guarded[SHARED][2];
static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
static long versions[4];
static pthread_mutex_t qm = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t not_empty = PTHREAD_COND_INITIALIZER;
static long queued, put, got;
static sem_t tickets;
static int bells[2]; /* a pipe with tokens in it, as many as were put there */
static FILE *paper;
static int stop;
static pthread_key_t key;
static __thread unsigned seed;
static __thread long steps;
static __thread volatile int handled;
static long total, detached_now;

static unsigned pick(unsigned n)
{
	return rand_r(&seed) % n;
}

static void on_signal(int sig)
{
	(void)sig;
	handled++;
}

static void with_lock(void)
{
	unsigned i = pick(SHARED);
	struct timespec ts = after_ms(CLOCK_MONOTONIC, 1);
	int rc;

	switch (pick(3)) {
	case 0: rc = pthread_mutex_lock(&locks[i]); break;
	case 1: rc = pthread_mutex_trylock(&locks[i]); break;
	default: rc = pthread_mutex_clocklock(&locks[i], CLOCK_MONOTONIC, &ts); break;
	}
	if (rc != 0) {
		CHECK(rc == EBUSY || rc == ETIMEDOUT);
		return;
	}
	guarded[i][0]++;
	if (pick(8) == 0)
		sched_yield();
	if (pick(100) == 0)
		usleep(200);
	guarded[i][1]++;
	CHECK_EQ(guarded[i][0], guarded[i][1]);
	CHECK_EQ(pthread_mutex_unlock(&locks[i]), 0);
}

static void with_rwlock(void)
{
	if (pick(6) == 0) {
		pthread_rwlock_wrlock(&rw);
		for (unsigned i = 0; i < COUNT(versions); i++) {
			versions[i]++;
			if (pick(8) == 0)
				sched_yield();
		}
	} else {
		pthread_rwlock_rdlock(&rw);
		long v = versions[0];
		if (pick(4) == 0)
			sched_yield();
		for (unsigned i = 0; i < COUNT(versions); i++)
			CHECK_EQ(versions[i], v);
	}
	CHECK_EQ(pthread_rwlock_unlock(&rw), 0);
}

static void with_queue(void)
{
	pthread_mutex_lock(&qm);
	if (pick(2)) {
		queued++;
		put++;
		pthread_cond_signal(&not_empty);
	} else {
		struct timespec ts = after_ms(CLOCK_REALTIME, pick(3));
		int rc = 0;
		while (queued == 0 && rc == 0)
			rc = pthread_cond_timedwait(&not_empty, &qm, &ts);
		if (queued > 0) {
			queued--;
			got++;
		} else {
			CHECK_EQ(rc, ETIMEDOUT);
		}
	}
	CHECK_EQ(put - got, queued);
	pthread_mutex_unlock(&qm);
}

static void with_semaphore(void)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, 2);
	int v;

	if (sem_timedwait(&tickets, &ts) != 0) {
		CHECK(errno == ETIMEDOUT || errno == EINTR);
		return;
	}
	sched_yield();
	CHECK_EQ(sem_post(&tickets), 0);
	CHECK_EQ(sem_getvalue(&tickets, &v), 0);
	CHECK(v >= 0 && v <= 5);
}

static void with_pipe(void)
{
	char ch = 'b';

	if (pick(3) == 0) {
		struct pollfd p = {bells[0], POLLIN, 0};
		int rc = poll(&p, 1, 1);
		CHECK(rc == 0 || rc == 1 || errno == EINTR);
	}
	/* A token is put before one is taken: nobody waits for ever. */
	CHECK_EQ(write(bells[1], &ch, 1), 1);
	CHECK_EQ(read(bells[0], &ch, 1), 1);
	CHECK_EQ(ch, 'b');
}

static void *echo_once(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char buf[100];
	ssize_t n = recv(fd, buf, sizeof buf, 0);

	CHECK(n > 0);
	CHECK_EQ(send(fd, buf, n, MSG_NOSIGNAL), n);
	close(fd);
	return NULL;
}

static void with_socket(void)
{
	int s[2];
	char buf[100], back[100];
	size_t n = 1 + pick(sizeof buf), at = 0;

	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0);
	pthread_t t = spawn(echo_once, (void *)(intptr_t)s[1]);
	memset(buf, (int)pick(256), sizeof buf);
	CHECK_EQ(send(s[0], buf, n, MSG_NOSIGNAL), n);
	while (at < n) {
		ssize_t r = recv(s[0], back + at, n - at, 0);
		if (r <= 0) {
			FAIL("recv gives %zd, errno %d", r, errno);
			break;
		}
		at += r;
	}
	CHECK(memcmp(buf, back, n) == 0);
	join(t);
	close(s[0]);
}

static void *detached(void *arg)
{
	free(malloc((size_t)arg));
	__atomic_sub_fetch(&detached_now, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void with_thread(void)
{
	pthread_t t;

	if (__atomic_load_n(&detached_now, __ATOMIC_ACQUIRE) > 100)
		return;
	__atomic_add_fetch(&detached_now, 1, __ATOMIC_RELAXED);
	int rc = pthread_create(&t, NULL, detached, (void *)(uintptr_t)(pick(5000) + 1));
	if (rc != 0) {
		CHECK_EQ(rc, EAGAIN);
		__atomic_sub_fetch(&detached_now, 1, __ATOMIC_RELAXED);
		return;
	}
	CHECK_EQ(pthread_detach(t), 0);
}

static void with_memory(void)
{
	unsigned char *p[20];
	size_t n[20];

	for (unsigned i = 0; i < COUNT(p); i++) {
		n[i] = 1 + pick(3000);
		p[i] = malloc(n[i]);
		memset(p[i], (int)i, n[i]);
	}
	sched_yield();
	for (unsigned i = 0; i < COUNT(p); i++) {
		CHECK_EQ(p[i][0], i);
		CHECK_EQ(p[i][n[i] - 1], i);
		free(p[i]);
	}
}

static void with_stdio(void)
{
	char text[64];
	int n = snprintf(text, sizeof text, "%ld %.3f", steps, steps / 3.0);

	CHECK(n > 0);
	CHECK_EQ(strtol(text, NULL, 10), steps);
	CHECK(fprintf(paper, "%s\n", text) == n + 1);
}

static void with_signal(void)
{
	int before = handled;

	CHECK_EQ(pick(2) ? raise(SIGUSR1) : pthread_kill(pthread_self(), SIGUSR1), 0);
	CHECK_EQ(handled, before + 1);
}

static void with_numbers(void)
{
	double x = 2 + pick(1000), y = x;

	for (int i = 0; i < 2000; i++)
		y = (y + x / y) / 2;
	CHECK(fabs(y * y - x) < 1e-6);
}

/* A child that works a little with threads of its own, and is waited for. */
static void *in_child_thread(void *arg)
{
	void *p = malloc(1000);

	sched_yield();
	free(p);
	return arg;
}

static void with_fork(void)
{
	int status = -1;

	if (pick(40))
		return;
	pid_t pid = fork();
	if (pid == 0) {
		pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;
		pthread_t t;
		void *ret = NULL;

		pthread_mutex_lock(&own);
		if (pthread_create(&t, NULL, in_child_thread, &own) != 0 ||
		    pthread_join(t, &ret) != 0 || ret != &own ||
		    (unsigned long)gettid() != (unsigned long)getpid())
			_exit(2);
		pthread_mutex_unlock(&own);
		_exit(3);
	}
	REQUIRE(pid > 0);
	while (waitpid(pid, &status, 0) < 0)
		REQUIRE(errno == EINTR);
	if (status != 3 << 8)
		FAIL("child: wait status %#x", status);
}

/* A thread that is cancelled where it waits, wherever that is. */
static void unlock(void *arg)
{
	pthread_mutex_unlock(arg);
}

static void *wait_to_be_cancelled(void *arg)
{
	switch ((uintptr_t)arg % 4) {
	case 0: pause(); break;
	case 1: usleep(10000000); break;
	case 2: {
		pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;
		pthread_cond_t never = PTHREAD_COND_INITIALIZER;

		pthread_mutex_lock(&own);
		pthread_cleanup_push(unlock, &own);
		for (;;)
			pthread_cond_wait(&never, &own);
		pthread_cleanup_pop(1);
		break;
	}
	case 3: poll(NULL, 0, 10000); break;
	}
	return NULL;
}

static void with_cancel(void)
{
	static const char *const where[] = {"pause", "usleep", "pthread_cond_wait", "poll"};
	unsigned i = pick(COUNT(where));
	pthread_t t = spawn(wait_to_be_cancelled, (void *)(uintptr_t)i);

	if (pick(2))
		sched_yield();
	CHECK_EQ(pthread_cancel(t), 0);
	if (join(t) != PTHREAD_CANCELED)
		FAIL("a request to cancel was lost in %s", where[i]);
}

static void (*const things[])(void) = {
    with_lock,      with_lock,   with_rwlock,  with_queue,  with_queue,
    with_semaphore, with_pipe,   with_socket,  with_thread, with_memory,
    with_stdio,     with_signal, with_numbers, with_fork,   with_cancel,
};

static void *work(void *arg)
{
	seed = (unsigned)(uintptr_t)arg * 7919;
	steps = 0;
	CHECK_EQ(pthread_setspecific(key, arg), 0);
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE) && test_failures < 20) {
		errno = 1000 + (int)(uintptr_t)arg;
		int expect = errno;
		unsigned what = pick(COUNT(things) + 2);
		if (what < COUNT(things))
			things[what]();
		else if (what == COUNT(things))
			usleep(pick(500));
		else
			sched_yield();
		if (what > COUNT(things))
			CHECK_EQ(errno, expect);
		CHECK(pthread_getspecific(key) == arg);
		steps++;
	}
	__atomic_add_fetch(&total, steps, __ATOMIC_RELAXED);
	return arg;
}

static void for_some_seconds(void)
{
	pthread_t t[WORKERS];
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	sigaction(SIGUSR1, &sa, NULL);
	for (unsigned i = 0; i < SHARED; i++)
		pthread_mutex_init(&locks[i], NULL);
	sem_init(&tickets, 0, 5);
	REQUIRE(pipe(bells) == 0);
	REQUIRE_OK(pthread_key_create(&key, NULL));
	paper = fopen("/dev/null", "w");
	REQUIRE(paper);
	for (int i = 0; i < WORKERS; i++)
		t[i] = spawn(work, (void *)(intptr_t)(i + 1));
	sleep_ms(scale(1500, 4000));
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (int i = 0; i < WORKERS; i++)
		CHECK(join(t[i]) == (void *)(intptr_t)(i + 1));
	for (int i = 0; i < 1000 && __atomic_load_n(&detached_now, __ATOMIC_ACQUIRE) > 0; i++)
		sleep_ms(10);
	CHECK_EQ(detached_now, 0);
	int v = -1;
	sem_getvalue(&tickets, &v);
	CHECK_EQ(v, 5);
	for (unsigned i = 0; i < SHARED; i++)
		CHECK_EQ(pthread_mutex_destroy(&locks[i]), 0);
	CHECK_EQ(fclose(paper), 0);
	say("%ld steps", total);
}

static const struct test_case cases[] = {
    {"for_some_seconds", for_some_seconds},
};

TEST_MAIN(cases)
