/*
 * posix_spawn with each attribute and each file action, by main and by a thread among others, whose own mask, group
 * and class they change; and with what makes it fail.
 */
#include "test.h"

#include <spawn.h>

extern char **environ;

static char self[4096], dir[200], path[300];

static int status_of(pid_t pid)
{
	int status = -1;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

/* Spawns this program to look at itself: it says with status 42 that it is as `want` says. */
static void expect(const char *want, const posix_spawn_file_actions_t *fa,
		   const posix_spawnattr_t *attr)
{
	char parent[20],
	    *args[] = {"process_spawn_attributes", "spawned", (char *)want, parent, NULL};
	pid_t pid;

	snprintf(parent, sizeof parent, "%d", getpgrp());
	int r = posix_spawn(&pid, self, fa, attr, args, environ);
	if (r != 0) {
		FAIL("%s: %d", want, r);
		return;
	}
	int status = status_of(pid);
	if (status != 42 << 8)
		FAIL("%s: status %#x", want, status);
}

static unsigned long signals(const char *name)
{
	char line[300];
	unsigned long v = ~0ul;
	FILE *f = fopen("/proc/self/status", "r");

	while (f && fgets(line, sizeof line, f))
		if (strncmp(line, name, strlen(name)) == 0)
			v = strtoul(line + strlen(name), NULL, 16);
	fclose(f);
	return v;
}

static const char *content(int fd)
{
	static char buf[100];
	ssize_t n = read(fd, buf, sizeof buf - 1);

	buf[n < 0 ? 0 : n] = '\0';
	return buf;
}

static int spawned(const char *want, pid_t parents_group)
{
	struct sched_param prio = {0};
	char cwd[300];

	if (strcmp(want, "mask") == 0)
		return signals("SigBlk:") == (1ul << (SIGTERM - 1) | 1ul << (SIGHUP - 1));
	if (strcmp(want, "own mask") == 0)
		return signals("SigBlk:") == 1ul << (SIGUSR2 - 1);
	if (strcmp(want, "default") == 0)
		return !(signals("SigIgn:") & 1ul << (SIGPIPE - 1)) &&
		       signals("SigIgn:") & 1ul << (SIGHUP - 1);
	if (strcmp(want, "group") == 0)
		return getpgrp() == getpid();
	if (strcmp(want, "parent's group") == 0)
		return getpgrp() == parents_group;
	if (strcmp(want, "session") == 0)
		return getsid(0) == getpid();
	if (strcmp(want, "priority") == 0)
		return sched_getscheduler(0) == SCHED_FIFO && sched_getparam(0, &prio) == 0 &&
		       prio.sched_priority == 3;
	if (strcmp(want, "ids") == 0)
		return geteuid() == getuid() && getegid() == getgid();
	if (strcmp(want, "open") == 0)
		return strcmp(content(10), "text") == 0;
	if (strcmp(want, "dup2") == 0)
		return strcmp(content(11), "text") == 0 && fcntl(11, F_GETFD) == 0;
	if (strcmp(want, "dup2 to itself") == 0)
		return strcmp(content(20), "text") == 0 && fcntl(20, F_GETFD) == 0;
	if (strcmp(want, "close") == 0)
		return fcntl(20, F_GETFD) == -1 && errno == EBADF && fcntl(21, F_GETFD) >= 0;
	if (strcmp(want, "closefrom") == 0)
		return fcntl(20, F_GETFD) == -1 && fcntl(21, F_GETFD) == -1 &&
		       fcntl(2000, F_GETFD) == -1;
	if (strcmp(want, "chdir") == 0)
		return getcwd(cwd, sizeof cwd) && strcmp(cwd, "/usr") == 0;
	return 0;
}

static volatile int stop;

static void *turns(void *arg)
{
	while (!stop)
		arg ? (void)usleep(300) : (void)sched_yield();
	return NULL;
}

static void attributes(void)
{
	struct sched_param fifo = {3};
	posix_spawnattr_t attr;
	sigset_t set;

	posix_spawnattr_init(&attr);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	posix_spawnattr_setsigmask(&attr, &set);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	expect("mask", NULL, &attr);
	expect("own mask", NULL, NULL);

	sigemptyset(&set);
	sigaddset(&set, SIGPIPE);
	posix_spawnattr_setsigdefault(&attr, &set);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
	expect("default", NULL, &attr);

	expect("parent's group", NULL, &attr);
	posix_spawnattr_setpgroup(&attr, 0);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP);
	expect("group", NULL, &attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID);
	expect("session", NULL, &attr);

	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSCHEDULER);
	posix_spawnattr_setschedpolicy(&attr, SCHED_FIFO);
	posix_spawnattr_setschedparam(&attr, &fifo);
	if (geteuid() == 0)
		expect("priority", NULL, &attr);
	CHECK_EQ(sched_getscheduler(0), SCHED_OTHER);

	posix_spawnattr_setflags(&attr, POSIX_SPAWN_RESETIDS);
	expect("ids", NULL, &attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_USEVFORK);
	expect("own mask", NULL, &attr);
	posix_spawnattr_destroy(&attr);
}

static void with_actions(const char *want, void (*add)(posix_spawn_file_actions_t *fa))
{
	posix_spawn_file_actions_t fa;

	posix_spawn_file_actions_init(&fa);
	add(&fa);
	lseek(20, 0, SEEK_SET);
	expect(want, &fa, NULL);
	posix_spawn_file_actions_destroy(&fa);
	CHECK(fcntl(20, F_GETFD) == FD_CLOEXEC && fcntl(21, F_GETFD) == 0);
	CHECK_ERRNO(fcntl(10, F_GETFD), EBADF);
	CHECK_ERRNO(fcntl(11, F_GETFD), EBADF);
}

static void add_open(posix_spawn_file_actions_t *fa)
{
	posix_spawn_file_actions_addopen(fa, 10, path, O_RDONLY, 0);
}

static void add_dup2(posix_spawn_file_actions_t *fa)
{
	posix_spawn_file_actions_adddup2(fa, 20, 11);
}

static void add_dup2_itself(posix_spawn_file_actions_t *fa)
{
	posix_spawn_file_actions_adddup2(fa, 20, 20);
}

static void add_close(posix_spawn_file_actions_t *fa)
{
	posix_spawn_file_actions_addclose(fa, 20);
}

static void add_closefrom(posix_spawn_file_actions_t *fa)
{
	posix_spawn_file_actions_addclosefrom_np(fa, 3);
}

static void add_chdir(posix_spawn_file_actions_t *fa)
{
	posix_spawn_file_actions_addchdir_np(fa, "/usr");
}

static int usr;

static void add_fchdir(posix_spawn_file_actions_t *fa)
{
	posix_spawn_file_actions_addfchdir_np(fa, usr);
}

static void actions(void)
{
	char before[300], after[300];

	REQUIRE(getcwd(before, sizeof before));
	with_actions("open", add_open);
	with_actions("dup2", add_dup2);
	with_actions("dup2 to itself", add_dup2_itself);
	with_actions("close", add_close);
	with_actions("closefrom", add_closefrom);
	with_actions("chdir", add_chdir);
	usr = open("/usr", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	with_actions("chdir", add_fchdir);
	close(usr);
	REQUIRE(getcwd(after, sizeof after));
	CHECK_EQ(strcmp(before, after), 0);
}

static void failures(void)
{
	char *args[] = {"nowhere", NULL};
	posix_spawn_file_actions_t fa;
	pid_t pid = -5;

	CHECK_EQ(posix_spawn(&pid, "/nowhere", NULL, NULL, args, environ), ENOENT);
	CHECK_EQ(posix_spawnp(&pid, "nowhere-at-all", NULL, NULL, args, environ), ENOENT);
	CHECK_EQ(posix_spawn(&pid, "/etc", NULL, NULL, args, environ), EACCES);
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 10, "/nowhere", O_RDONLY, 0);
	CHECK_EQ(posix_spawn(&pid, self, &fa, NULL, args, environ), ENOENT);
	posix_spawn_file_actions_destroy(&fa);
	CHECK_EQ(pid, -5);
	CHECK_ERRNO(waitpid(-1, NULL, WNOHANG), ECHILD);
}

static void *all(void *arg)
{
	sigset_t set, old;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_SETMASK, &set, &old);
	attributes();
	actions();
	failures();
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return arg;
}

BY_MAIN_AND_A_THREAD(all)

static void among_others(void)
{
	pthread_t t[3];

	stop = 0;
	for (int i = 0; i < 3; i++)
		t[i] = spawn(turns, i ? path : NULL);
	by_main();
	by_a_thread();
	stop = 1;
	for (int i = 0; i < 3; i++)
		join(t[i]);
}

static const struct test_case cases[] = {
    {"by_main", by_main},
    {"by_a_thread", by_a_thread},
    {"among_others", among_others},
};

int main(int argc, char **argv)
{
	if (argc > 3 && strcmp(argv[1], "spawned") == 0)
		return spawned(argv[2], atoi(argv[3])) ? 42 : 1;
	REQUIRE(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
	snprintf(dir, sizeof dir, "%s", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	snprintf(path, sizeof path, "%s/spawn_attributes.%d", dir, getpid());
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	REQUIRE(fd >= 0 && write(fd, "text", 4) == 4);
	REQUIRE(fcntl(fd, F_DUPFD_CLOEXEC, 20) == 20 && fcntl(fd, F_DUPFD, 21) == 21);
	close(fd);
	for (fd = 3; fd < 20; fd++)
		close(fd);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	int rc = test_run(argc, argv, cases, COUNT(cases));
	unlink(path);
	return rc;
}
