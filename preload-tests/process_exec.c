/*
 * Every way to exec, by a thread among others and by main: the program gets arguments and environment,
 * and the caller's signal mask, which is the thread's.
 */
#include "test.h"

extern char **environ;

static char *const args[] = {"process_exec", "execed", "two words", "", NULL};
static char *const env[] = {"PROCESS_EXEC=passed", NULL};
static char self[4096];

static int was_called(int argc, char **argv)
{
	sigset_t set;

	pthread_sigmask(SIG_BLOCK, NULL, &set);
	if (!sigismember(&set, SIGUSR1) || sigismember(&set, SIGUSR2))
		return 2;
	if (argc != 4 || strcmp(argv[2], "two words") != 0 || argv[3][0])
		return 3;
	if (!getenv("PROCESS_EXEC") || strcmp(getenv("PROCESS_EXEC"), "passed") != 0)
		return 4;
	return 42;
}

static void by_execl(void)
{
	execl(self, args[0], args[1], args[2], args[3], NULL);
}
static void by_execle(void)
{
	execle(self, args[0], args[1], args[2], args[3], NULL, env);
}
static void by_execlp(void)
{
	execlp("process_exec_link", args[0], args[1], args[2], args[3], NULL);
}
static void by_execv(void)
{
	execv(self, args);
}
static void by_execve(void)
{
	execve(self, args, env);
}
static void by_execvp(void)
{
	execvp("process_exec_link", args);
}
static void by_execvpe(void)
{
	execvpe("process_exec_link", args, env);
}
static void by_fexecve(void)
{
	fexecve(open(self, O_RDONLY | O_CLOEXEC), args, env);
}
static void by_execveat(void)
{
	execveat(open(self, O_PATH), "", args, env, AT_EMPTY_PATH);
}

static const struct {
	const char *name;
	void (*call)(void);
} ways[] = {
    {"execl", by_execl},     {"execle", by_execle},   {"execlp", by_execlp},
    {"execv", by_execv},     {"execve", by_execve},   {"execvp", by_execvp},
    {"execvpe", by_execvpe}, {"fexecve", by_fexecve}, {"execveat", by_execveat},
};

static void *execs(void *arg)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	ways[(intptr_t)arg].call();
	_exit(5);
}

static void *computes(void *arg)
{
	for (;;)
		(*(volatile long *)arg)++;
	return NULL;
}

static void *sleeps(void *arg)
{
	sleep(1000);
	return arg;
}

static void all_ways(int by_thread)
{
	static long n;

	for (unsigned i = 0; i < COUNT(ways); i++) {
		int status = -1;
		pid_t pid = fork();

		REQUIRE(pid >= 0);
		if (pid == 0) {
			setenv("PROCESS_EXEC", "passed", 1);
			spawn(computes, &n);
			spawn(sleeps, NULL);
			if (by_thread)
				join(spawn(execs, (void *)(intptr_t)i));
			else
				execs((void *)(intptr_t)i);
		}
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 42)
			FAIL("%s: status %x", ways[i].name, status);
	}
}

static void by_main(void)
{
	all_ways(0);
}

static void by_a_thread(void)
{
	all_ways(1);
}

static void *nothing(void *arg)
{
	return arg;
}

/* The thread goes on as it was, and so do the others. */
static void *fails(void *arg)
{
	static char word[200 << 10];
	char *const too_long[] = {"process_exec", word, NULL};
	sigset_t set, old, now;

	memset(word, 'x', sizeof word - 1);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	for (int i = 0; i < 20; i++) {
		CHECK_ERRNO(execl("/nowhere", "nowhere", NULL), ENOENT);
		CHECK_ERRNO(execv("/", args), EACCES);
		CHECK_ERRNO(execv("/etc/passwd", args), EACCES);
		CHECK_ERRNO(execvp("nowhere-at-all", args), ENOENT);
		CHECK_ERRNO(execv(self, too_long), E2BIG);
		CHECK_ERRNO(fexecve(-1, args, env), EINVAL);
		CHECK_ERRNO(syscall(SYS_execve, "/nowhere", args, env), ENOENT);
		CHECK(join(spawn(nothing, &set)) == &set);
	}
	pthread_sigmask(SIG_SETMASK, &old, &now);
	CHECK(sigismember(&now, SIGUSR1) == 1 && sigismember(&now, SIGUSR2) == 0);
	return arg;
}

static void that_fails(void)
{
	fails(NULL);
	join(spawn(fails, NULL));
}

static const struct test_case cases[] = {
    {"by_main", by_main},
    {"by_a_thread", by_a_thread},
    {"that_fails", that_fails},
};

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "execed") == 0)
		return was_called(argc, argv);
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	REQUIRE(n > 0);
	char *dir = strdup(getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp"), link[4200];
	snprintf(link, sizeof link, "%s/process_exec_link", dir);
	unlink(link);
	REQUIRE(symlink(self, link) == 0);
	setenv("PATH", dir, 1);
	int rc = test_run(argc, argv, cases, COUNT(cases));
	unlink(link);
	return rc;
}
