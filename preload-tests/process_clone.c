/*
 * Children made by clone(), by a thread and by main: with memory of their own, in the parent's, with and
 * without waiting for them. What such a child does not share, handlers and descriptors, it changes for itself.
 */
#include "test.h"

#include <sys/mman.h>

enum { STACK = 256 << 10, MAPPED = 0x5eed };

static __thread int mine;
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static volatile int written;

/* Uses calls that wait and locks, and reads the caller's thread variables. */
static int child(void *arg)
{
	int *answer = arg, fds[2];
	char c = 0;

	usleep(1000);
	if (mine != MAPPED || pipe(fds) != 0)
		_exit(3);
	if (write(fds[1], "x", 1) != 1 || read(fds[0], &c, 1) != 1 || c != 'x')
		_exit(4);
	close(fds[0]);
	close(fds[1]);
	pthread_mutex_lock(&m);
	written++;
	pthread_mutex_unlock(&m);
	*answer = 42;
	_exit(7);
}

static void *spins_in_sleeps(void *stop)
{
	while (!*(volatile int *)stop)
		usleep(100);
	return NULL;
}

static void clones(int flags)
{
	int answer = 0, status = 0, before = written, stop = 0;
	char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t other = spawn(spins_in_sleeps, &stop);
	sigset_t usr1, now;

	REQUIRE(stack != MAP_FAILED);
	mine = MAPPED;
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &usr1, NULL);
	pid_t pid = clone(child, stack + STACK, flags | SIGCHLD, &answer);

	CHECK(pid > 0);
	/* Meanwhile this thread lives on. */
	if (!(flags & CLONE_VFORK)) {
		errno = E2BIG;
		for (int i = 0; i < 20; i++) {
			usleep(200);
			CHECK_EQ(mine, MAPPED);
		}
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	if (flags & CLONE_VM) {
		CHECK_EQ(answer, 42);
		CHECK(written > before);
	} else {
		CHECK_EQ(answer, 0);
	}
	pthread_sigmask(SIG_UNBLOCK, &usr1, &now);
	CHECK(sigismember(&now, SIGUSR1) == 1);
	munmap(stack, STACK);
	stop = 1;
	join(other);
}

static const int kinds[] = {0, CLONE_VM, CLONE_VM | CLONE_VFORK, CLONE_VM | CLONE_FILES | CLONE_FS};

static void *allkinds(void *arg)
{
	for (int round = 0; round < 5; round++)
		for (unsigned i = 0; i < COUNT(kinds); i++)
			clones(kinds[i]);
	return arg;
}

static void by_main(void)
{
	allkinds(NULL);
}

static void by_a_thread(void)
{
	join(spawn(allkinds, NULL));
}

static void by_threads_at_once(void)
{
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		t[i] = spawn(allkinds, NULL);
	for (int i = 0; i < 4; i++)
		join(t[i]);
}

static volatile int own, parents;
static int kept[2];

static void childs_handler(int sig)
{
	(void)sig;
	own++;
}

static void parents_handler(int sig)
{
	(void)sig;
	parents++;
}

/* Sets handlers, and closes a descriptor, of its own: without CLONE_SIGHAND and CLONE_FILES. */
static int child_apart(void *arg)
{
	struct sigaction sa = {.sa_handler = childs_handler}, old;

	if (sigaction(SIGUSR1, &sa, &old) != 0 || old.sa_handler != parents_handler)
		_exit(1);
	if (sigaction(SIGUSR1, NULL, &old) != 0 || old.sa_handler != childs_handler)
		_exit(2);
	if (signal(SIGUSR2, SIG_IGN) != parents_handler || signal(SIGTERM, SIG_IGN) != SIG_DFL)
		_exit(3);
	kill(getpid(), SIGUSR1);
	kill(getpid(), SIGUSR2);
	kill(getpid(), SIGTERM);
	if (own != 1 || parents != *(int *)arg)
		_exit(4);
	close(kept[0]);
	_exit(0);
}

static void *reads(void *arg)
{
	char c;

	CHECK_EQ(read(kept[0], &c, 1), 1);
	return arg;
}

static void *apart(void *arg)
{
	char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(stack != MAP_FAILED && pipe(kept) == 0);
	pthread_t reader = spawn(reads, NULL);
	REQUIRE(signal(SIGUSR1, parents_handler) != SIG_ERR);
	REQUIRE(signal(SIGUSR2, parents_handler) != SIG_ERR);
	for (int i = 0; i < 5; i++) {
		int status = -1, before = parents;
		struct sigaction now;

		own = 0;
		pid_t pid = clone(child_apart, stack + STACK, CLONE_VM | SIGCHLD, &before);
		CHECK(pid > 0);
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK_EQ(status, 0);
		sigaction(SIGUSR1, NULL, &now);
		CHECK(now.sa_handler == parents_handler);
		sigaction(SIGTERM, NULL, &now);
		CHECK(now.sa_handler == SIG_DFL);
		raise(SIGUSR1);
		raise(SIGUSR2);
		CHECK_EQ(parents, before + 2);
		CHECK_EQ(own, 1);
	}
	CHECK_EQ(write(kept[1], "x", 1), 1);
	join(reader);
	close(kept[0]);
	close(kept[1]);
	munmap(stack, STACK);
	return arg;
}

static void handlers_and_descriptors_apart(void)
{
	apart(NULL);
	join(spawn(apart, NULL));
}

static const struct test_case cases[] = {
    {"by_main", by_main},
    {"by_a_thread", by_a_thread},
    {"by_threads_at_once", by_threads_at_once},
    {"handlers_and_descriptors_apart", handlers_and_descriptors_apart},
};

TEST_MAIN(cases)
