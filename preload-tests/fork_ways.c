/*
 * Every call that makes a process with memory of its own, by every kind of thread and from every place that code of
 * the program runs in. The child is whole: it has the id of a process, threads, locks, signals, timers, stdio, malloc,
 * name lookups and libraries, and children of its own.
 */
#include "foreign.h"

#include <dlfcn.h>
#include <linux/sched.h>
#include <netdb.h>
#include <sys/mman.h>
#include <sys/time.h>

enum { STACK = 256 << 10, FINE = 42 };

static pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t own_cond = PTHREAD_COND_INITIALIZER;
static pthread_key_t key;
static __thread int marked;
static int turn, handled, deep;

static void *ping(void *arg)
{
	int me = (int)(intptr_t)arg;

	for (int i = 0; i < 20; i++) {
		pthread_mutex_lock(&own);
		while (turn != me)
			pthread_cond_wait(&own_cond, &own);
		turn = !me;
		pthread_cond_broadcast(&own_cond);
		pthread_mutex_unlock(&own);
	}
	return NULL;
}

static void on_signal(int sig)
{
	(void)sig;
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELEASE);
}

static void signals_work(void)
{
	struct sigaction sa = {.sa_handler = on_signal};
	struct itimerval in_1ms = {{0, 0}, {0, 1000}};
	sigset_t set, old;
	int sig;

	REQUIRE(sigaction(SIGUSR2, &sa, NULL) == 0 && sigaction(SIGALRM, &sa, NULL) == 0);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_UNBLOCK, &set, &old);
	handled = 0;
	CHECK_EQ(raise(SIGUSR2), 0);
	CHECK_EQ(handled, 1);
	CHECK_EQ(kill(getpid(), SIGUSR2), 0);
	CHECK_EQ(handled, 2);
	CHECK_EQ(pthread_kill(pthread_self(), SIGUSR2), 0);
	CHECK_EQ(handled, 3);
	CHECK_EQ(setitimer(ITIMER_REAL, &in_1ms, NULL), 0);
	CHECK(wait_for(&handled, 4, 10000));
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	kill(getpid(), SIGUSR2);
	CHECK_EQ(sigwait(&set, &sig), 0);
	CHECK_EQ(sig, SIGUSR2);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void stdio_works(void)
{
	FILE *f = tmpfile();
	char line[20] = "";

	REQUIRE(f);
	fprintf(f, "pid %d\n", getpid());
	rewind(f);
	CHECK(fgets(line, sizeof line, f));
	CHECK_EQ(atoi(line + 4), getpid());
	fclose(f);
}

static void *names_and_libraries(void *arg)
{
	struct addrinfo *list = NULL, hints = {.ai_flags = AI_NUMERICSERV};
	void *lib = dlopen("libBrokenLocale.so.1", RTLD_NOW);

	CHECK_EQ(getaddrinfo("localhost", "80", &hints, &list), 0);
	freeaddrinfo(list);
	CHECK(lib);
	dlclose(lib);
	free(malloc(100000));
	return arg;
}

static void *grandchild(void *arg)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0)
		_exit(join(spawn(names_and_libraries, arg)) == arg ? 3 : 4);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 3 << 8);
	return arg;
}

static int child_works(pthread_t self, pid_t parent)
{
	pthread_t t[2];

	test_failures = 0;
	CHECK(getpid() != parent);
	CHECK_EQ(getppid(), parent);
	CHECK_EQ(gettid(), getpid());
	CHECK_EQ(syscall(SYS_gettid), getpid());
	CHECK(pthread_equal(pthread_self(), self));
	CHECK_EQ(marked, 77);
	CHECK(pthread_getspecific(key) == &key);
	CHECK_EQ(kernel_threads(), 1);
	turn = 0;
	t[0] = spawn(ping, (void *)0);
	t[1] = spawn(ping, (void *)1);
	CHECK_EQ(gettid(), getpid());
	join(t[0]);
	join(t[1]);
	signals_work();
	stdio_works();
	names_and_libraries(NULL);
	if (deep) {
		join(spawn(grandchild, NULL));
		grandchild(NULL);
	}
	return test_failures ? 99 : FINE;
}

/* --- ways ------------------------------------------------------------------------------------------------------- */

static pthread_t cloner;
static pid_t cloners_pid;

static int clone_child(void *arg)
{
	(void)arg;
	_exit(child_works(cloner, cloners_pid));
}

static pid_t by_clone(void)
{
	char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(stack != MAP_FAILED);
	cloner = pthread_self();
	cloners_pid = getpid();
	pid_t pid = clone(clone_child, stack + STACK, SIGCHLD, NULL);
	munmap(stack, STACK);
	return pid;
}

static pid_t by_sys_fork(void)
{
	return (pid_t)syscall(SYS_fork);
}

static pid_t by_sys_clone(void)
{
	return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static pid_t by_sys_clone3(void)
{
	struct clone_args args = {.exit_signal = SIGCHLD};

	return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

static const struct {
	const char *name;
	pid_t (*call)(void);
} ways[] = {
    {"fork", fork},
    {"_Fork", _Fork},
    {"clone", by_clone},
    {"sys_fork", by_sys_fork},
    {"sys_clone", by_sys_clone},
    {"sys_clone3", by_sys_clone3},
};

static const char *where;

static void try_way(unsigned i)
{
	pthread_t self = pthread_self();
	pid_t parent = getpid();
	int status = -1;

	marked = 77;
	pthread_setspecific(key, &key);
	pid_t pid = ways[i].call();
	REQUIRE(pid >= 0);
	if (pid == 0)
		_exit(child_works(self, parent));
	pid_t got;
	do
		got = waitpid(pid, &status, 0);
	while (got < 0 && errno == EINTR);
	CHECK_EQ(got, pid);
	if (status != FINE << 8)
		FAIL("%s %s: status %#x", ways[i].name, where, status);
}

static int a_way = -1;

static void all_ways(void)
{
	int before = errno;
	if (a_way >= 0)
		try_way(a_way);
	for (unsigned i = 0; a_way < 0 && i < COUNT(ways); i++)
		try_way(i);
	errno = before;
}

/* --- places ------------------------------------------------------------------------------------------------------ */

static void *plainly(void *arg)
{
	all_ways();
	return arg;
}

static void by_main(void)
{
	where = "by main";
	plainly(NULL);
}

static void by_a_thread(void)
{
	where = "by a thread";
	deep = 1;
	join(spawn(plainly, NULL));
	deep = 0;
}

/* fork alone waits for others to leave malloc, where the rest may find them for ever. */
static void *at_once_body(void *arg)
{
	for (int i = 0; i < 4; i++)
		try_way(0);
	return arg;
}

static void by_threads_at_once(void)
{
	pthread_t t[4];

	where = "by threads at once";
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(at_once_body, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static void *with_state_body(void *arg)
{
	cpu_set_t cpus, mine;

	CPU_ZERO(&cpus);
	CPU_SET(sched_getcpu(), &cpus);
	CHECK_EQ(sched_setaffinity(0, sizeof cpus, &cpus), 0);
	CHECK_EQ(setpriority(PRIO_PROCESS, 0, 3), 0);
	all_ways();
	CHECK_EQ(sched_getaffinity(0, sizeof mine, &mine), 0);
	CHECK(CPU_EQUAL(&mine, &cpus));
	CHECK_EQ(getpriority(PRIO_PROCESS, 0), 3);
	return arg;
}

static void by_a_thread_with_state(void)
{
	where = "by a thread with state in the kernel";
	join(spawn(with_state_body, NULL));
}

static void *holding_body(void *arg)
{
	pthread_mutexattr_t attr;
	pthread_mutex_t robust, inherits;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&robust, &attr);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_STALLED);
	pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&inherits, &attr);
	CHECK_EQ(pthread_mutex_lock(&robust), 0);
	CHECK_EQ(pthread_mutex_lock(&inherits), 0);
	all_ways();
	CHECK_EQ(pthread_mutex_unlock(&inherits), 0);
	CHECK_EQ(pthread_mutex_unlock(&robust), 0);
	return arg;
}

static void by_a_thread_that_holds_kernel_mutexes(void)
{
	where = "by a thread that holds robust and inheriting mutexes";
	join(spawn(holding_body, NULL));
	where = "by main that holds robust and inheriting mutexes";
	holding_body(NULL);
}

static void by_a_foreign_thread(void)
{
	where = "by a foreign thread";
	REQUIRE_OK(pthread_join(spawn_really(plainly, NULL), NULL));
}

static void handler(int sig)
{
	(void)sig;
	all_ways();
	__atomic_store_n(&handled, -1, __ATOMIC_RELEASE);
}

static void *in_handlers_body(void *arg)
{
	struct sigaction sa = {.sa_handler = handler};
	stack_t alt = {.ss_size = 1 << 20, .ss_sp = malloc(1 << 20)},
		none = {.ss_flags = SS_DISABLE};

	REQUIRE(sigaltstack(&alt, NULL) == 0);
	for (int on_alt = 0; on_alt < 2; on_alt++) {
		sa.sa_flags = on_alt ? SA_ONSTACK : 0;
		REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
		handled = 0;
		CHECK_EQ(raise(SIGUSR1), 0);
		CHECK_EQ(handled, -1);
	}
	sigaltstack(&none, NULL);
	free(alt.ss_sp);
	signal(SIGUSR1, SIG_DFL);
	return arg;
}

static void in_handlers(void)
{
	where = "in a handler";
	in_handlers_body(NULL);
	join(spawn(in_handlers_body, NULL));
}

/* The handler comes while the thread computes, waits in the scheduler, and waits in the kernel. */
static int waits_how;
static volatile int stop;

static void *waits(void *arg)
{
	int fds[2];
	char c;

	REQUIRE(pipe(fds) == 0);
	while (!stop)
		switch (waits_how) {
		case 1: usleep(1000); break;
		case 2: poll(&(struct pollfd){fds[0], POLLIN, 0}, 1, 1); break;
		case 3:
			fcntl(fds[0], F_SETFL, O_NONBLOCK), read(fds[0], &c, 1), sched_yield();
			break;
		}
	close(fds[0]);
	close(fds[1]);
	return arg;
}

static void in_handlers_from_outside(void)
{
	struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART};

	where = "in a handler that interrupts";
	for (waits_how = 0; waits_how < 4; waits_how++) {
		REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
		stop = handled = 0;
		pthread_t t = spawn(waits, NULL);
		sleep_ms(3);
		a_way = waits_how;
		CHECK_EQ(pthread_kill(t, SIGUSR1), 0);
		CHECK(wait_for(&handled, -1, 50000));
		stop = 1;
		join(t);
	}
	a_way = -1;
	signal(SIGUSR1, SIG_DFL);
}

static void fork_in_cleanup(void *arg)
{
	(void)arg;
	all_ways();
}

static void *cancelled_body(void *arg)
{
	pthread_cleanup_push(fork_in_cleanup, NULL);
	for (;;)
		sleep(1);
	pthread_cleanup_pop(0);
	return arg;
}

static void fork_in_once(void)
{
	all_ways();
}

static int fork_in_compare(const void *a, const void *b)
{
	if (marked != 78) {
		all_ways();
		marked = 78;
	}
	return *(const int *)a - *(const int *)b;
}

static pthread_key_t dying;

static void *odd_places_body(void *arg)
{
	pthread_once_t once = PTHREAD_ONCE_INIT;
	int a[] = {3, 1, 2};

	where = "in once";
	pthread_once(&once, fork_in_once);
	where = "in qsort";
	qsort(a, COUNT(a), sizeof a[0], fork_in_compare);
	CHECK(a[0] == 1 && a[2] == 3);
	pthread_setspecific(dying, arg);
	where = "in a destructor";
	return arg;
}

static void in_odd_places(void)
{
	REQUIRE_OK(pthread_key_create(&dying, fork_in_cleanup));
	a_way = 0;
	join(spawn(odd_places_body, &dying));
	where = "in a cancelled thread";
	pthread_t t = spawn(cancelled_body, NULL);
	sleep_ms(2);
	pthread_cancel(t);
	CHECK(join(t) == PTHREAD_CANCELED);
	a_way = -1;
}

static void on_a_given_stack(void)
{
	char *stack =
	    mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_attr_t attr;
	pthread_t t;

	where = "on a stack of the program's";
	REQUIRE(stack != MAP_FAILED);
	pthread_attr_init(&attr);
	pthread_attr_setstack(&attr, stack, 1 << 20);
	REQUIRE_OK(pthread_create(&t, &attr, plainly, NULL));
	join(t);
	munmap(stack, 1 << 20);
}

static const struct test_case cases[] = {
    {"by_main", by_main},
    {"by_a_thread", by_a_thread},
    {"by_threads_at_once", by_threads_at_once},
    {"by_a_thread_with_state", by_a_thread_with_state},
    {"by_a_thread_that_holds_kernel_mutexes", by_a_thread_that_holds_kernel_mutexes},
    {"by_a_foreign_thread", by_a_foreign_thread},
    {"in_handlers", in_handlers},
    {"in_handlers_from_outside", in_handlers_from_outside},
    {"in_odd_places", in_odd_places},
    {"on_a_given_stack", on_a_given_stack},
};

int main(int argc, char **argv)
{
	REQUIRE_OK(pthread_key_create(&key, NULL));
	return test_run(argc, argv, cases, COUNT(cases));
}
