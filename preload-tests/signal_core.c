/*
 * Signals whose default action writes a core file, and those that end the process without: what the parent is told, whoever
 * causes or sends them, and that the file is there if the limit allows it.
 */
#include "test.h"

#include <sys/prctl.h>

static const struct {
	int sig, core;
} deaths[] = {
    {SIGQUIT, 1},   {SIGILL, 1},    {SIGTRAP, 1}, {SIGABRT, 1},
    {SIGBUS, 1},    {SIGFPE, 1},    {SIGSEGV, 1}, {SIGXCPU, 1},
    {SIGXFSZ, 1},   {SIGSYS, 1},    {SIGHUP, 0},  {SIGINT, 0},
    {SIGKILL, 0},   {SIGUSR1, 0},   {SIGUSR2, 0}, {SIGPIPE, 0},
    {SIGALRM, 0},   {SIGTERM, 0},   {SIGIO, 0},   {SIGPWR, 0},
    {SIGVTALRM, 0}, {SIGSTKFLT, 0}, {SIGPROF, 0}, {64 /* SIGRTMAX */, 0},
};

static int at, how, cores, ready[2];

static void *waits(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void *sends(void *arg)
{
	if (how == 0)
		raise(deaths[at].sig);
	else if (how == 1)
		kill(getpid(), deaths[at].sig);
	else if (write(ready[1], "", 1) == 1)
		sleep_ms(10000); /* its parent does */
	return arg;
}

static int dies(void)
{
	struct rlimit rl = {cores ? RLIM_INFINITY : 0, RLIM_INFINITY};

	getrlimit(RLIMIT_CORE, &rl);
	rl.rlim_cur = cores ? rl.rlim_max : 0;
	setrlimit(RLIMIT_CORE, &rl);
	spawn(waits, NULL);
	join(spawn(sends, NULL));
	sleep_ms(10000); /* one for the process may be on its way */
	return 77;
}

static int status_of(void)
{
	int status;

	fflush(NULL);
	pid_t pid = fork();
	REQUIRE(pid >= 0);
	if (pid == 0)
		_exit(dies());
	if (how == 2) {
		char c;
		REQUIRE(read(ready[0], &c, 1) == 1);
		kill(pid, deaths[at].sig);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	return status;
}

/* Of this kernel's making: to a file here, not to a program. */
static int to_files(void)
{
	char pattern[200] = "";
	int fd = open("/proc/sys/kernel/core_pattern", O_RDONLY);
	ssize_t n = read(fd, pattern, sizeof pattern - 1);
	struct rlimit rl;

	close(fd);
	return n > 0 && pattern[0] != '|' && pattern[0] != '/' && pattern[0] != '@' &&
	       getrlimit(RLIMIT_CORE, &rl) == 0 && rl.rlim_max == RLIM_INFINITY;
}

static void every_death(void)
{
	for (at = 0; at < (int)COUNT(deaths); at++) {
		for (how = 0; how < 3; how++) {
			int status = status_of();
			if (!WIFSIGNALED(status) || WTERMSIG(status) != deaths[at].sig ||
			    WCOREDUMP(status))
				FAIL("signal %d, way %d: status %#x", deaths[at].sig, how, status);
		}
	}
}

static void core_files(void)
{
	const char *tmp = getenv("TMPDIR");

	if (!tmp || !to_files())
		SKIP_CASE("no core files here");
	REQUIRE(chdir(tmp) == 0);
	cores = 1;
	for (at = 0; at < (int)COUNT(deaths); at += deaths[at].core ? 3 : 5) {
		how = at % 3;
		int status = status_of();
		if (!WIFSIGNALED(status) || WTERMSIG(status) != deaths[at].sig ||
		    !!WCOREDUMP(status) != deaths[at].core)
			FAIL("signal %d, way %d: status %#x", deaths[at].sig, how, status);
		if (system("rm -f core core.*") != 0)
			FAIL("core files stay");
	}
	cores = 0;
}

static const struct test_case cases[] = {
    {"every_death", every_death},
    {"core_files", core_files},
};

int main(int argc, char **argv)
{
	setenv("GOTRACEBACK", "none", 1);
	REQUIRE(pipe(ready) == 0);
	return test_run(argc, argv, cases, COUNT(cases));
}
