/*
 * New programs: vfork and exec, posix_spawn, system, popen, from main and from threads. They get
 * the thread's signal mask and dispositions, not the library's, and while one waits for its child
 * the others run.
 */
#include "test.h"

#include <spawn.h>

extern char **environ;

static int status_of(pid_t pid)
{
	int status = -1;

	REQUIRE(pid > 0);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

static void *by_vfork(void *arg)
{
	for (int i = 0; i < 20; i++) {
		pid_t pid = vfork();
		if (pid == 0) {
			execl("/bin/sh", "sh", "-c", "exit 5", (char *)NULL);
			_exit(127);
		}
		CHECK_EQ(status_of(pid), 5 << 8);
		pid = vfork();
		if (pid == 0)
			_exit(6);
		CHECK_EQ(status_of(pid), 6 << 8);
		pid = vfork();
		if (pid == 0) {
			execl("/nonexistent", "x", (char *)NULL);
			_exit(errno == ENOENT ? 9 : 8);
		}
		CHECK_EQ(status_of(pid), 9 << 8);
	}
	return arg;
}

static void *by_spawn(void *arg)
{
	for (int i = 0; i < 20; i++) {
		pid_t pid;
		char *argv[] = {"sh", "-c", "echo spawned; exit 3", NULL};
		posix_spawn_file_actions_t fa;
		int fds[2];
		char buf[20];

		REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
		posix_spawn_file_actions_init(&fa);
		posix_spawn_file_actions_adddup2(&fa, fds[1], 1);
		REQUIRE_OK(posix_spawn(&pid, "/bin/sh", &fa, NULL, argv, environ));
		posix_spawn_file_actions_destroy(&fa);
		close(fds[1]);
		CHECK_EQ(read(fds[0], buf, sizeof buf), 8);
		close(fds[0]);
		CHECK_EQ(status_of(pid), 3 << 8);
		CHECK_EQ(posix_spawn(&pid, "/nonexistent", NULL, NULL, argv, environ), ENOENT);
		argv[2] = "exit 3";
		REQUIRE_OK(posix_spawnp(&pid, "sh", NULL, NULL, argv, environ));
		CHECK_EQ(status_of(pid), 3 << 8);
	}
	return arg;
}

static void *by_system(void *arg)
{
	for (int i = 0; i < 10; i++) {
		CHECK_EQ(system("exit 4"), 4 << 8);
		CHECK_EQ(system("kill -9 $$"), SIGKILL);
		CHECK(system(NULL) != 0);
	}
	return arg;
}

static void *by_popen(void *arg)
{
	for (int i = 0; i < 10; i++) {
		char line[64] = "";
		FILE *f = popen("echo one; sleep 0.01; echo two; exit 2", "r");

		REQUIRE(f);
		CHECK(fgets(line, sizeof line, f) && strcmp(line, "one\n") == 0);
		CHECK(fgets(line, sizeof line, f) && strcmp(line, "two\n") == 0);
		CHECK(!fgets(line, sizeof line, f));
		CHECK_EQ(pclose(f), 2 << 8);
		f = popen("read x; test \"$x\" = hello", "w");
		REQUIRE(f);
		CHECK(fputs("hello\n", f) >= 0);
		CHECK_EQ(pclose(f), 0);
	}
	return arg;
}

static void *by_fork_exec(void *arg)
{
	for (int i = 0; i < 10; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			execlp("sh", "sh", "-c", "exit 11", (char *)NULL);
			_exit(127);
		}
		CHECK_EQ(status_of(pid), 11 << 8);
	}
	return arg;
}

static void *(*const ways[])(void *) = {by_vfork, by_spawn, by_system, by_popen, by_fork_exec};

static void by_main_before_any_thread(void)
{
	for (unsigned i = 0; i < COUNT(ways); i++)
		ways[i](NULL);
}

static void by_a_thread(void)
{
	for (unsigned i = 0; i < COUNT(ways); i++)
		join(spawn(ways[i], NULL));
	for (unsigned i = 0; i < COUNT(ways); i++)
		ways[i](NULL);
}

static void by_all_at_once(void)
{
	pthread_t t[COUNT(ways) * 3];

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(ways[i % COUNT(ways)], NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static int ticks, stop;

static void *tick(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		ticks++;
		sleep_ms(1);
	}
	return arg;
}

static void others_run_meanwhile(void)
{
	stop = ticks = 0;
	pthread_t t = spawn(tick, NULL);
	CHECK_EQ(system("sleep 0.3"), 0);
	CHECK(__atomic_load_n(&ticks, __ATOMIC_RELAXED) > 20);
	int before = __atomic_load_n(&ticks, __ATOMIC_RELAXED);
	pid_t pid;
	char *argv[] = {"sleep", "0.3", NULL};
	REQUIRE_OK(posix_spawnp(&pid, "sleep", NULL, NULL, argv, environ));
	CHECK_EQ(status_of(pid), 0);
	CHECK(__atomic_load_n(&ticks, __ATOMIC_RELAXED) > before + 20);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	join(t);
}

/*
 * What the child sees of signals, from its /proc: blocked as in the thread that made it, ignored as
 * in the process, nothing else.
 */
static void read_masks(const char *how, FILE *f, uint64_t *blocked, uint64_t *ignored)
{
	char line[200];

	*blocked = *ignored = ~0ull;
	while (fgets(line, sizeof line, f)) {
		sscanf(line, "SigBlk: %lx", blocked);
		sscanf(line, "SigIgn: %lx", ignored);
	}
	if (*blocked == ~0ull)
		FAIL("%s: no masks read", how);
}

static FILE *spawn_grep(pid_t *pid, int vforked)
{
	static char *argv[] = {"grep", "^Sig", "/proc/self/status", NULL};
	int fds[2];

	REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
	if (vforked) {
		*pid = vfork();
		if (*pid == 0) {
			dup2(fds[1], 1);
			execvp("grep", argv);
			_exit(127);
		}
	} else {
		posix_spawn_file_actions_t fa;
		posix_spawn_file_actions_init(&fa);
		posix_spawn_file_actions_adddup2(&fa, fds[1], 1);
		REQUIRE_OK(posix_spawnp(pid, "grep", &fa, NULL, argv, environ));
		posix_spawn_file_actions_destroy(&fa);
	}
	close(fds[1]);
	return fdopen(fds[0], "r");
}

static void *child_masks(void *arg)
{
	uint64_t blocked, ignored;
	sigset_t set, old;
	pid_t pid;
	FILE *f;
	uint64_t want = 1ull << (SIGUSR2 - 1) | 1ull << (SIGRTMIN + 3 - 1);

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGRTMIN + 3);
	CHECK_EQ(pthread_sigmask(SIG_SETMASK, &set, &old), 0);
	for (int vforked = 0; vforked < 2; vforked++) {
		f = spawn_grep(&pid, vforked);
		read_masks(vforked ? "vfork" : "posix_spawn", f, &blocked, &ignored);
		fclose(f);
		CHECK_EQ(status_of(pid), 0);
		if (blocked != want)
			FAIL("child of %s blocks %#lx, not %#lx", vforked ? "vfork" : "posix_spawn",
			     blocked, want);
		CHECK(ignored & 1ull << (SIGHUP - 1));
		CHECK(!(ignored & 1ull << (SIGURG - 1)));
	}
	CHECK_EQ(pthread_sigmask(SIG_SETMASK, &old, NULL), 0);
	return arg;
}

static void masks_of_children(void)
{
	signal(SIGHUP, SIG_IGN);
	child_masks(NULL);
	join(spawn(child_masks, NULL));
	child_masks(NULL);
	signal(SIGHUP, SIG_DFL);
}

/* exec from a thread replaces the process, whatever the others do. */
static void *exec_now(void *arg)
{
	(void)arg;
	execl("/bin/sh", "sh", "-c", "exit 21", (char *)NULL);
	_exit(127);
}

static void *forever(void *arg)
{
	(void)arg;
	for (;;)
		sleep_ms(1000);
	return NULL;
}

static int exec_from_thread(void)
{
	for (int i = 0; i < 20; i++)
		spawn(forever, NULL);
	join(spawn(exec_now, NULL));
	return 1;
}

static void exec_of_a_thread(void)
{
	CHECK_EQ(in_child(exec_from_thread), 21 << 8);
}

static const struct test_case cases[] = {
    {"by_main_before_any_thread", by_main_before_any_thread},
    {"exec_of_a_thread", exec_of_a_thread},
    {"by_a_thread", by_a_thread},
    {"by_all_at_once", by_all_at_once},
    {"others_run_meanwhile", others_run_meanwhile},
    {"masks_of_children", masks_of_children},
};

TEST_MAIN(cases)
