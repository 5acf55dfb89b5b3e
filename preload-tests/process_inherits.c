/*
 * What a new program inherits, by each way to start one: signal mask and dispositions, descriptors, priority, CPUs,
 * limits, the time left on an alarm, umask, directory, environment and arguments. Natively the way and the thread
 * make no difference but for what POSIX says; each expectation is what the kernel does.
 */
#include "test.h"

#include <spawn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/timerfd.h>

extern char **environ;

static char self[4096], dir[200];
static int kept, closed;

enum { LONG = 100000, STACK = 256 << 10 };
static char *longword;

/* --- in the new program ------------------------------------------------------------------------------------------ */

static int failed;

#define WANT(cond)                                                       \
	do {                                                             \
		if (!(cond)) {                                           \
			say("%s: %s (errno %d)", argv[2], #cond, errno); \
			failed = 1;                                      \
		}                                                        \
	} while (0)

static unsigned long field(const char *name)
{
	char line[300];
	unsigned long v = ~0ul;
	FILE *f = fopen("/proc/self/status", "r");

	REQUIRE(f);
	while (fgets(line, sizeof line, f))
		if (strncmp(line, name, strlen(name)) == 0)
			v = strtoul(line + strlen(name), NULL, 16);
	fclose(f);
	return v;
}

#define BIT(sig) (1ul << ((sig)-1))

static int open_descriptors(void)
{
	int n = 0;

	for (int fd = 3; fd < 4096; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* process_inherits started WAY KEPT CLOSED CPU ALARM LONG; alarms are the process's, and a child's anew. */
static int started(int argc, char **argv)
{
	struct itimerval left;
	struct rlimit lim;
	sigset_t pending;
	cpu_set_t cpus;
	char cwd[300];
	int fd = atoi(argv[3]);
	mode_t mask = umask(0);

	WANT(argc == 9);
	WANT(field("SigBlk:") == (BIT(SIGUSR1) | BIT(SIGRTMIN + 5)));
	/* (libc ignores the two that are its own in what it spawns.) */
	WANT((field("SigIgn:") & ~(BIT(32) | BIT(33))) == (BIT(SIGHUP) | BIT(SIGUSR2)));
	WANT((field("SigCgt:") & 0x3fffffff) == 0);
	WANT(fcntl(fd, F_GETFD) == 0);
	WANT(fcntl(atoi(argv[4]), F_GETFD) == -1);
	WANT(open_descriptors() == 1);
	WANT(getpriority(PRIO_PROCESS, 0) == 4);
	WANT(sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) == 1 &&
	     CPU_ISSET(atoi(argv[5]), &cpus));
	WANT(getrlimit(RLIMIT_STACK, &lim) == 0 && lim.rlim_cur == 4 << 20);
	getitimer(ITIMER_REAL, &left);
	if (atoi(argv[6]))
		WANT(left.it_value.tv_sec > 100 && left.it_value.tv_sec < 1000);
	else
		WANT(left.it_value.tv_sec == 0 && left.it_value.tv_usec == 0);
	sigpending(&pending);
	WANT(sigismember(&pending, SIGUSR1) == atoi(argv[6]));
	WANT(mask == 026);
	WANT(getcwd(cwd, sizeof cwd) && strcmp(cwd, getenv("INHERITS_DIR")) == 0);
	WANT(strlen(argv[7]) == LONG && strlen(getenv("INHERITS_LONG")) == LONG);
	WANT(strcmp(argv[8], "") == 0);
	WANT(prctl(PR_GET_TIMERSLACK) == 70000);
	const char *preload = getenv("LD_PRELOAD"), *want = getenv("INHERITS_PRELOAD");
	WANT(strcmp(preload ? preload : "(none)", want) == 0);
	WANT(kernel_threads() == 1);
	return failed ? 1 : 42;
}

/* --- ways -------------------------------------------------------------------------------------------------------- */

static char *args[] = {"process_inherits", "started", NULL, NULL, NULL, NULL, NULL, NULL, "", NULL};
#undef BIT

static int status_of(pid_t pid)
{
	int status = -1;

	REQUIRE(pid > 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

static int by_fork(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		execve(self, args, environ);
		_exit(127);
	}
	return status_of(pid);
}

static int by_vfork(void)
{
	pid_t pid = vfork();

	if (pid == 0) {
		execve(self, args, environ);
		_exit(127);
	}
	return status_of(pid);
}

static int by_spawn(void)
{
	pid_t pid;

	REQUIRE_OK(posix_spawn(&pid, self, NULL, NULL, args, environ));
	return status_of(pid);
}

static int execs(void *arg)
{
	(void)arg;
	execve(self, args, environ);
	_exit(127);
}

static int by_clone(int flags)
{
	char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(stack != MAP_FAILED);
	int status = status_of(clone(execs, stack + STACK, flags | SIGCHLD, NULL));
	munmap(stack, STACK);
	return status;
}

static int by_clone_apart(void)
{
	return by_clone(0);
}

static int by_clone_vm(void)
{
	return by_clone(CLONE_VM | CLONE_VFORK);
}

static int by_syscall(void)
{
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);

	if (pid == 0) {
		syscall(SYS_execve, self, args, environ);
		_exit(127);
	}
	return status_of(pid);
}

/* exec without a fork: alarms and pending signals go along. */
static int by_exec(void)
{
	execve(self, args, environ);
	return -1;
}

static int by_sys_exec(void)
{
	syscall(SYS_execve, self, args, environ);
	return -1;
}

static const struct {
	const char *name;
	int (*call)(void);
	int same_process;
} ways[] = {
    {"fork", by_fork, 0},
    {"vfork", by_vfork, 0},
    {"posix_spawn", by_spawn, 0},
    {"clone", by_clone_apart, 0},
    {"clone(CLONE_VM)", by_clone_vm, 0},
    {"syscall(SYS_clone)", by_syscall, 0},
    {"exec", by_exec, 1},
    {"syscall(SYS_execve)", by_sys_exec, 1},
};

static unsigned way;
static const char *preload;

/* --- the process that starts it ------------------------------------------------------------------------------------ */

static void *waits(void *arg)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	for (;;)
		arg ? (void)sched_yield() : (void)usleep(1000);
	return NULL;
}

static void on_signal(int sig)
{
	(void)sig;
}

static void *sets_and_starts(void *arg)
{
	struct itimerval soon = {{0, 0}, {900, 0}};
	sigset_t set;
	cpu_set_t cpus;
	char cpu[20];

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN + 5);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	CHECK_EQ(setpriority(PRIO_PROCESS, 0, 4), 0);
	CHECK_EQ(prctl(PR_SET_TIMERSLACK, 70000), 0);
	CPU_ZERO(&cpus);
	int on = sched_getcpu();
	CPU_SET(on, &cpus);
	CHECK_EQ(sched_setaffinity(0, sizeof cpus, &cpus), 0);
	CHECK_EQ(setitimer(ITIMER_REAL, &soon, NULL), 0);
	CHECK_EQ(kill(getpid(), SIGUSR1), 0); /* all block it: pending */
	snprintf(cpu, sizeof cpu, "%d", on);
	args[5] = cpu;
	args[6] = ways[way].same_process ? "1" : "0";
	int status = ways[way].call();
	if (status != 42 << 8)
		FAIL("%s: status %#x", ways[way].name, status);
	_exit(test_failures ? 1 : 42);
	return arg;
}

static int in_thread;

static int starts(void)
{
	struct sigaction sa = {.sa_handler = on_signal};
	struct rlimit lim = {4 << 20, RLIM_INFINITY};
	static char keeps[20], closes[20];
	sigset_t usr1;

	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &usr1, NULL);
	signal(SIGHUP, SIG_IGN);
	REQUIRE(sigaction(SIGTERM, &sa, NULL) == 0 && sigaction(SIGALRM, &sa, NULL) == 0);
	for (int i = 0; i < 3; i++)
		spawn(waits, i == 0 ? &way : NULL);
	/* Once there are threads. */
	signal(SIGUSR2, SIG_IGN);
	REQUIRE(sigaction(SIGINT, &sa, NULL) == 0);
	REQUIRE(sigaction(SIGSEGV, &sa, NULL) == 0);
	for (int fd = 3; fd < 1000; fd++)
		close(fd);
	kept = open("/dev/null", O_RDONLY);
	closed = open("/dev/null", O_RDONLY | O_CLOEXEC);
	REQUIRE(kept >= 0 && closed >= 0);
	CHECK(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC) >= 0);
	setrlimit(RLIMIT_STACK, &lim);
	umask(026);
	REQUIRE(chdir(dir) == 0 && getcwd(dir, sizeof dir));
	setenv("INHERITS_DIR", dir, 1);
	setenv("INHERITS_LONG", longword, 1);
	if (preload)
		setenv("LD_PRELOAD", preload, 1);
	else
		unsetenv("LD_PRELOAD");
	setenv("INHERITS_PRELOAD", preload ? preload : "(none)", 1);
	snprintf(keeps, sizeof keeps, "%d", kept);
	snprintf(closes, sizeof closes, "%d", closed);
	args[2] = (char *)ways[way].name;
	args[3] = keeps;
	args[4] = closes;
	args[7] = longword;
	if (in_thread)
		join(spawn(sets_and_starts, NULL));
	else
		sets_and_starts(NULL);
	return 1;
}

static void all_ways(void)
{
	longword = malloc(LONG + 1);
	memset(longword, 'x', LONG);
	longword[LONG] = '\0';
	for (way = 0; way < COUNT(ways); way++) {
		int status = in_child(starts);
		if (status != 42 << 8)
			FAIL("%s: %#x", ways[way].name, status);
	}
	free(longword);
}

static void by_main(void)
{
	preload = getenv("LD_PRELOAD");
	all_ways();
}

static void by_a_thread(void)
{
	preload = getenv("LD_PRELOAD");
	in_thread = 1;
	all_ways();
}

/* The program takes the library away from its children, or has others in the list. */
static void preload_as_set(void)
{
	char list[5000];

	in_thread = 1;
	preload = NULL;
	all_ways();
	const char *had = getenv("LD_PRELOAD");
	snprintf(list, sizeof list, "%s%slibBrokenLocale.so.1", had ? had : "", had ? ":" : "");
	preload = list;
	all_ways();
}

static const struct test_case cases[] = {
    {"by_main", by_main},
    {"by_a_thread", by_a_thread},
    {"preload_as_set", preload_as_set},
};

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "started") == 0)
		return started(argc, argv);
	REQUIRE(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
	snprintf(dir, sizeof dir, "%s", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	return test_run(argc, argv, cases, COUNT(cases));
}
