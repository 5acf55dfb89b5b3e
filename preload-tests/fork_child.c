/*
 * fork, and a child that works on: with locks in a known state, its own threads, waits, sockets and
 * further forks.
 *
 * Only the forking thread exists in the child. Whatever the other threads of the parent were
 * waiting for there, the words that counted them are still in memory, and the child must not wait
 * for them.
 */
#include "test.h"

#include <sys/socket.h>

static void *plus_one(void *arg)
{
	return (void *)((intptr_t)arg + 1);
}

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER, own = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER, own_cond = PTHREAD_COND_INITIALIZER;
static int turn;

static void *ping(void *arg)
{
	int me = (int)(intptr_t)arg;

	for (int i = 0; i < 200; i++) {
		pthread_mutex_lock(&own);
		while (turn != me)
			pthread_cond_wait(&own_cond, &own);
		turn = !me;
		pthread_cond_broadcast(&own_cond);
		pthread_mutex_unlock(&own);
	}
	return NULL;
}

/* Everything that a program may do with threads, small. */
static int work(void)
{
	pthread_t t[80];
	int fds[2];
	char ch = 0;

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(plus_one, (void *)(intptr_t)i);
	for (unsigned i = 0; i < COUNT(t); i++)
		CHECK_EQ((intptr_t)join(t[i]), i + 1);
	turn = 0;
	t[0] = spawn(ping, (void *)0);
	t[1] = spawn(ping, (void *)1);
	join(t[0]);
	join(t[1]);
	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	struct pollfd p = {fds[0], POLLIN, 0};
	CHECK_EQ(poll(&p, 1, 10), 0);
	CHECK_EQ(write(fds[1], "x", 1), 1);
	CHECK_EQ(read(fds[0], &ch, 1), 1);
	close(fds[0]);
	close(fds[1]);
	sleep_ms(2);
	free(malloc(100000));
	CHECK_EQ(gettid(), getpid());
	return 0;
}

static int work_and_say_7(void)
{
	work();
	return 7;
}

static void expect_child(int (*fn)(void), int code)
{
	int status = in_child(fn);

	if (!WIFEXITED(status) || WEXITSTATUS(status) != code)
		FAIL("child: wait status %#x, not exit %d", status, code);
}

static void before_any_thread(void)
{
	expect_child(work_and_say_7, 7);
}

static void after_threads_ended(void)
{
	work();
	expect_child(work_and_say_7, 7);
	work();
}

/* Threads blocked in every way while the child is made. */
static int stop, fds[2];
static pthread_mutex_t blocked = PTHREAD_MUTEX_INITIALIZER;

static void *wait_cond(void *arg)
{
	pthread_mutex_lock(&m);
	while (!stop)
		pthread_cond_wait(&c, &m);
	pthread_mutex_unlock(&m);
	return arg;
}

static void *wait_lock(void *arg)
{
	pthread_mutex_lock(&blocked);
	pthread_mutex_unlock(&blocked);
	return arg;
}

static void *wait_read(void *arg)
{
	char ch;

	CHECK_EQ(read(fds[0], &ch, 1), 0);
	return arg;
}

static void *wait_sleep(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		sleep_ms(5);
	return arg;
}

static void *churn(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		void *p = malloc(1000);
		pthread_mutex_lock(&m);
		pthread_mutex_unlock(&m);
		free(p);
		join(spawn(plus_one, NULL));
	}
	return arg;
}

static int work_with_our_lock(void)
{
	/* `blocked` was locked by this thread before the fork: ours to unlock, and nobody waits
	 * for it here. */
	CHECK_EQ(pthread_mutex_trylock(&blocked), EBUSY);
	CHECK_EQ(pthread_mutex_unlock(&blocked), 0);
	CHECK_EQ(pthread_mutex_lock(&blocked), 0);
	CHECK_EQ(pthread_mutex_unlock(&blocked), 0);
	join(spawn(wait_lock, NULL));
	work();
	if (under_shim()) {
		/* glibc waits for the waiters that went away; we need not be as strict. */
		CHECK_EQ(pthread_cond_signal(&c), 0);
		CHECK_EQ(pthread_cond_broadcast(&c), 0);
		CHECK_EQ(pthread_cond_destroy(&c), 0);
	}
	return 7;
}

static void among_blocked_threads(void)
{
	pthread_t t[40];

	stop = 0;
	REQUIRE(pipe(fds) == 0);
	pthread_mutex_lock(&blocked);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(i % 4 == 0   ? wait_cond
			     : i % 4 == 1 ? wait_lock
			     : i % 4 == 2 ? wait_read
					  : wait_sleep,
			     NULL);
	sleep_ms(30);
	for (int i = 0; i < 5; i++) {
		/* m is held by nobody at this moment: the waiters on c have released it. */
		pthread_mutex_lock(&m);
		pid_t pid = fork();
		pthread_mutex_unlock(&m);
		if (pid == 0) {
			test_failures = 0;
			int rc = work_with_our_lock();
			exit(test_failures ? 99 : rc);
		}
		int status = 0;
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 7)
			FAIL("child: wait status %#x, not exit 7", status);
	}
	pthread_mutex_unlock(&blocked);
	pthread_mutex_lock(&m);
	stop = 1;
	pthread_cond_broadcast(&c);
	pthread_mutex_unlock(&m);
	close(fds[1]);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	close(fds[0]);
}

static int malloc_and_threads(void)
{
	for (int i = 0; i < 200; i++)
		free(malloc(100 + i * 50));
	CHECK_EQ((intptr_t)join(spawn(plus_one, (void *)4)), 5);
	return 7;
}

/* While others allocate, lock, print and create threads. m may be held by one of them: the child
 * leaves it alone. */
static void among_busy_threads(void)
{
	pthread_t t[4];

	stop = 0;
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(churn, NULL);
	for (int i = 0; i < 30; i++)
		expect_child(malloc_and_threads, 7);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

/* From a thread that isn't main: it becomes the main thread of the child. */
static void *fork_in_thread(void *arg)
{
	expect_child(work_and_say_7, 7);
	return arg;
}

static void from_a_thread(void)
{
	pthread_t t[4];

	join(spawn(fork_in_thread, NULL));
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(fork_in_thread, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

/* A thread that forks and, in the child, ends itself: the process ends with status 0 when its
 * last thread does. */
static void *fork_and_exit_thread(void *arg)
{
	pid_t pid = fork();

	if (pid == 0)
		pthread_exit(NULL);
	int status = -1;
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	return arg;
}

static void child_ends_by_pthread_exit(void)
{
	join(spawn(fork_and_exit_thread, NULL));
}

static int fork_again(void)
{
	int status = in_child(work_and_say_7);

	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	work();
	return 8;
}

static int fork_twice_again(void)
{
	work();
	expect_child(fork_again, 8);
	expect_child(fork_again, 8);
	work();
	return 9;
}

static void children_of_children(void)
{
	expect_child(fork_twice_again, 9);
	join(spawn(plus_one, NULL));
	expect_child(fork_twice_again, 9);
}

static char order[16];

static void note(char ch)
{
	size_t n = strlen(order);

	if (n < sizeof order - 1)
		order[n] = ch;
}

static void prepare1(void)
{
	note('p');
}

static void prepare2(void)
{
	note('P');
}

static void parent1(void)
{
	note('a');
}

static void parent2(void)
{
	note('A');
}

static void child1(void)
{
	note('c');
}

static void child2(void)
{
	note('C');
}

static int check_child_order(void)
{
	return strcmp(order, "PpcC") == 0 ? 0 : 1;
}

static int counting_child(void)
{
	return test_failures;
}

static void atfork_handlers(void)
{
	CHECK_EQ(pthread_atfork(prepare1, parent1, child1), 0);
	CHECK_EQ(pthread_atfork(prepare2, parent2, child2), 0);
	memset(order, 0, sizeof order);
	CHECK_EQ(in_child(check_child_order), 0);
	if (strcmp(order, "PpaA") != 0)
		FAIL("handlers ran as %s in the parent", order);
	CHECK_EQ(in_child(counting_child), 0);
}

static void *forks_nothing(void *arg)
{
	usleep(1000);
	return arg;
}

static void *forks_without_handlers(void *arg)
{
	int status = -1;

	memset(order, 0, sizeof order);
	pid_t pid = _Fork();
	REQUIRE(pid >= 0);
	if (pid == 0)
		_exit(order[0]                                                         ? 1
		      : getpid() == gettid() && join(spawn(forks_nothing, arg)) == arg ? 42
										       : 2);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
	CHECK_EQ(order[0], 0);
	return arg;
}

/* _Fork: the child is as whole, the handlers of pthread_atfork are left out. */
static void without_handlers(void)
{
	forks_without_handlers(order);
	join(spawn(forks_without_handlers, order));
}

/* Many children at once, waited for by threads. */
static void *child_and_wait(void *arg)
{
	for (int i = 0; i < 5; i++) {
		pid_t pid = fork();
		if (pid == 0)
			_exit((int)(intptr_t)arg);
		int status = -1;
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == (int)(intptr_t)arg);
	}
	return NULL;
}

static void threads_wait_for_children(void)
{
	pthread_t t[20];

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(child_and_wait, (void *)(intptr_t)i);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

/* The parent's sleepers and readers go on although a child came and went with copies of
 * everything. */
static void *sleep_300(void *arg)
{
	int64_t start = now_ns();

	sleep_ms(300);
	CHECK(now_ns() - start >= 300000000);
	CHECK(now_ns() - start < 10000000000);
	return arg;
}

static void parent_goes_on(void)
{
	pthread_t t[20], r;

	REQUIRE(pipe(fds) == 0);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(sleep_300, NULL);
	r = spawn(wait_read, NULL);
	sleep_ms(20);
	expect_child(work_and_say_7, 7);
	close(fds[1]);
	join(r);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	close(fds[0]);
}

static const struct test_case cases[] = {
    {"before_any_thread", before_any_thread},
    {"after_threads_ended", after_threads_ended},
    {"among_blocked_threads", among_blocked_threads},
    {"among_busy_threads", among_busy_threads},
    {"from_a_thread", from_a_thread},
    {"child_ends_by_pthread_exit", child_ends_by_pthread_exit},
    {"children_of_children", children_of_children},
    {"threads_wait_for_children", threads_wait_for_children},
    {"parent_goes_on", parent_goes_on},
    {"atfork_handlers", atfork_handlers},
    {"without_handlers", without_handlers},
};

TEST_MAIN(cases)
