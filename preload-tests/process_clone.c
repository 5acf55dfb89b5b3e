/*
 * Children made by clone(), by a thread and by main: with memory of their own, in the parent's, with and
 * without waiting for them.
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

static const struct test_case cases[] = {
    {"by_main", by_main},
    {"by_a_thread", by_a_thread},
    {"by_threads_at_once", by_threads_at_once},
};

TEST_MAIN(cases)
