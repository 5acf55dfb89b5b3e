/*
 * test_os_linux.c - the operating system as the runtime sees it.
 */
#include "testhost.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api.h"
#include "host.h"
#include "os.h"

/* --- CPU limits ------------------------------------------------------------------ */

static char root[64];

static void put(const char *path, const char *text)
{
	char full[512];
	FILE *f;

	snprintf(full, sizeof(full), "%s%s", root, path);
	for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')) != NULL; p++) {
		*p = 0;
		mkdir(full, 0755);
		*p = '/';
	}
	f = fopen(full, "w");
	cr_assert_not_null(f, "%s", full);
	fputs(text, f);
	fclose(f);
}

static void setup(void)
{
	strcpy(root, "/tmp/ncpu.XXXXXX");
	cr_assert_not_null(mkdtemp(root));
}

static void teardown(void)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -r %s", root);
	cr_assert_eq(system(cmd), 0);
}

TestSuite(ncpu, .init = setup, .fini = teardown);

#define V2MOUNT                                                             \
	"22 1 0:20 / /proc rw - proc proc rw\n"                             \
	"23 1 0:21 mnt:[4026531840] /run/ns/x rw shared:3 - nsfs nsfs rw\n" \
	"25 1 0:22 / /sys/fs/cgroup rw,nosuid shared:4 master:2 - cgroup2 cgroup2 rw,nsdelegate\n"

static void v2(const char *group)
{
	char line[256];

	snprintf(line, sizeof(line), "0::%s\n", group);
	put("/proc/self/cgroup", line);
	put("/proc/self/mountinfo", V2MOUNT);
}

Test(ncpu, without_cgroups_is_the_affinity)
{
	cr_assert_eq(ncpuunder(root, 7), 7);
	put("/proc/self/cgroup", "0::/\n");
	cr_assert_eq(ncpuunder(root, 7), 7);
	put("/proc/self/mountinfo", "");
	cr_assert_eq(ncpuunder(root, 7), 7);
}

Test(ncpu, v2_limit_is_rounded_up)
{
	v2("/a");
	put("/sys/fs/cgroup/a/cpu.max", "350000 100000\n");
	cr_assert_eq(ncpuunder(root, 16), 4);
	cr_assert_eq(ncpuunder(root, 3), 3);
	put("/sys/fs/cgroup/a/cpu.max", "max 100000\n");
	cr_assert_eq(ncpuunder(root, 16), 16);
	put("/sys/fs/cgroup/a/cpu.max", "300000 100000\n");
	cr_assert_eq(ncpuunder(root, 16), 3);
}

Test(ncpu, limits_below_two_are_two_unless_affinity_is_one)
{
	v2("/a");
	put("/sys/fs/cgroup/a/cpu.max", "10000 100000\n");
	cr_assert_eq(ncpuunder(root, 16), 2);
	cr_assert_eq(ncpuunder(root, 1), 1);
}

Test(ncpu, v2_ancestors_bind)
{
	v2("/pod/box/leaf");
	put("/sys/fs/cgroup/pod/box/leaf/cpu.max", "max 100000\n");
	put("/sys/fs/cgroup/pod/box/cpu.max", "800000 100000\n");
	cr_assert_eq(ncpuunder(root, 16), 8);
	put("/sys/fs/cgroup/pod/cpu.max", "400000 100000\n");
	cr_assert_eq(ncpuunder(root, 16), 4);
	put("/sys/fs/cgroup/pod/box/leaf/cpu.max", "900000 100000\n");
	cr_assert_eq(ncpuunder(root, 16), 4);
}

Test(ncpu, v2_namespace_root_may_have_a_limit)
{
	v2("/");
	put("/sys/fs/cgroup/cpu.max", "500000 100000\n");
	cr_assert_eq(ncpuunder(root, 16), 5);
	/* Moved out of what the namespace shows. */
	v2("/../other");
	cr_assert_eq(ncpuunder(root, 16), 5);
}

Test(ncpu, v2_group_below_the_mounts_root)
{
	put("/proc/self/cgroup", "0::/docker/abc/x\n");
	put("/proc/self/mountinfo",
	    "30 1 0:22 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n");
	put("/sys/fs/cgroup/x/cpu.max", "600000 100000\n");
	put("/sys/fs/cgroup/cpu.max", "max 100000\n");
	cr_assert_eq(ncpuunder(root, 16), 6);
	/* A path that merely begins alike is not below. */
	put("/proc/self/cgroup", "0::/docker/abcd\n");
	cr_assert_eq(ncpuunder(root, 16), 16);
}

Test(ncpu, v1_quota_and_period)
{
	put("/proc/self/cgroup",
	    "12:memory:/m\n4:cpu,cpuacct:/box/in\n3:cpuset:/s\n1:name=systemd:/u\n0::/u\n");
	put("/proc/self/mountinfo",
	    "30 1 0:22 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
	    "31 1 0:23 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
	    "32 1 0:24 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n");
	put("/sys/fs/cgroup/cpu,cpuacct/box/in/cpu.cfs_quota_us", "-1\n");
	put("/sys/fs/cgroup/cpu,cpuacct/box/in/cpu.cfs_period_us", "100000\n");
	put("/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", "250000\n");
	put("/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us", "50000\n");
	put("/sys/fs/cgroup/cpuset/s/cpu.cfs_quota_us", "1\n");
	cr_assert_eq(ncpuunder(root, 16), 5);
}

Test(ncpu, escaped_and_overlong_lines)
{
	static char info[40000];
	size_t n;

	v2("/a b");
	memset(info, 'x', 20000);
	n = 20000;
	n += (size_t)sprintf(info + n, "\n30 1 0:22 / /sys/fs/c\\040g rw - cgroup2 none rw");
	put("/proc/self/mountinfo", info);
	put("/sys/fs/c g/a b/cpu.max", "700000 100000");
	cr_assert_eq(ncpuunder(root, 16), 7);
}

Test(ncpu, nonsense_is_no_limit)
{
	static const char *text[] = {"",       "\n",       "max",
				     "100000", "0 0",      "-5 100000",
				     "x y",    "100000 0", "99999999999999999999999 1"};

	v2("/a");
	for (size_t i = 0; i < nelem(text); i++) {
		put("/sys/fs/cgroup/a/cpu.max", text[i]);
		cr_assert_eq(ncpuunder(root, 6), 6, "%s", text[i]);
	}
	put("/proc/self/mountinfo", "1\n\n1 2 3 4 5 6\n- - - -\n1 2 3 / /x - cgroup2\n");
	cr_assert_eq(ncpuunder(root, 6), 6);
}

Test(os, ncpu_of_this_machine)
{
	int n = ncpu();

	cr_assert_geq(n, 1);
	cr_assert_leq(n, naffinity());
}

/* --- time ------------------------------------------------------------------------- */

Test(os, nanotime_advances_with_and_without_the_host)
{
	int (*clock)(int, void *) = host.clock_gettime;
	int64_t a = nanotime(), b;

	usleep_os(2000);
	b = nanotime();
	cr_assert_geq(b - a, 2000000);
	host.clock_gettime = NULL;
	a = nanotime();
	cr_assert_geq(a, b);
	cr_assert_lt(a - b, 1000000000);
	host.clock_gettime = clock;
}

static _Atomic int tid, spin = 1;

static void *burn(void *arg)
{
	(void)arg;
	atomic_store(&tid, gettid_os());
	while (atomic_load(&spin))
		;
	return NULL;
}

Test(os, threadcputime_tells_who_runs)
{
	pthread_t t;
	int64_t mine, its;

	pthread_create(&t, NULL, burn, NULL);
	while (atomic_load(&tid) == 0)
		osyield();
	mine = threadcputime(gettid_os());
	its = threadcputime(tid);
	/* A busy machine may keep it from running for long. */
	do
		usleep_os(50000);
	while (threadcputime(tid) - its <= 5000000);
	cr_assert_lt(threadcputime(gettid_os()) - mine, 20000000);
	atomic_store(&spin, 0);
	pthread_join(t, NULL);
	cr_assert_eq(threadcputime(0x7fffff), -1);
}

/* --- futexes, signals, files ------------------------------------------------------- */

Test(os, futexsleep_ends_at_its_time_or_value)
{
	_Atomic uint32_t word = 1;
	int64_t begin = nanotime();

	futexsleep(&word, 0, -1);
	futexsleep(&word, 1, 5000000);
	cr_assert_geq(nanotime() - begin, 5000000);
	futexwakeup(&word, 1);
}

static volatile sig_atomic_t got;

static void onsig(int sig)
{
	got = sig;
}

Test(os, tgkill_reaches_the_thread)
{
	signal(SIGUSR1, onsig);
	cr_assert_eq(tgkill_os(gettid_os(), SIGUSR1), 0);
	cr_assert_eq(got, SIGUSR1);
	cr_assert_eq(tgkill_os(0x7fffff, 0), -ESRCH);
}

Test(os, readfile_stops_at_the_end_and_at_the_buffer)
{
	char buf[16], big[100];
	char name[] = "/tmp/readfile.XXXXXX";
	int fd = mkstemp(name);

	writeall(fd, "0123456789012345678", 19);
	close(fd);
	cr_assert_eq(readfile(name, buf, sizeof(buf)), 16);
	cr_assert_eq(memcmp(buf, "0123456789012345", 16), 0);
	cr_assert_eq(readfile(name, big, sizeof(big)), 19);
	unlink(name);
	cr_assert_eq(readfile(name, buf, sizeof(buf)), -ENOENT);
	cr_assert_eq(readfile("/", buf, sizeof(buf)), -EISDIR);
}

Test(os, writeall_survives_a_slow_reader)
{
	static char data[1 << 20];
	size_t sum = 0;
	int fd[2], status;
	pid_t pid;
	long r;

	cr_assert_eq(pipe(fd), 0);
	pid = fork();
	if (pid == 0) {
		char buf[1000];

		close(fd[1]);
		while ((r = read(fd[0], buf, sizeof(buf))) > 0)
			sum += (size_t)r;
		_exit(sum == sizeof(data) ? 0 : 1);
	}
	writeall(fd[1], data, sizeof(data));
	close(fd[1]);
	waitpid(pid, &status, 0);
	cr_assert_eq(status, 0);
}

/* --- memory ------------------------------------------------------------------------- */

Test(os, memory_is_zero_and_comes_back_zero)
{
	char *p = sysalloc(65536);

	cr_assert_eq(p[65535], 0);
	memset(p, 1, 65536);
	cr_assert_eq(sysunused(p, 65536), 0);
	cr_assert_eq(p[100], 0);
	cr_assert_not(sysallocat(p, 4096), "something is there");
	sysfree(p, 65536);
	cr_assert(sysallocat(p, 4096));
	sysfree(p, 4096);
	cr_assert_null(sysalloc((size_t)1 << 60));
}

Test(os, closed_memory_opens_and_closes)
{
	size_t n = (size_t)1 << 40;
	char *p = sysreserveclosed(n);
	void *at;

	cr_assert_not_null(p);
	cr_assert_eq(faults(p + 4096, &at), SIGSEGV);
	cr_assert_eq(sysopen(p, 8192), 0);
	cr_assert_eq(faults(p + 4096, NULL), 0);
	p[4096] = 3;
	cr_assert_eq(sysclose(p + 4096, 4096), 0);
	cr_assert_eq(faults(p + 4096, NULL), SIGSEGV);
	cr_assert_eq(sysopen(p, 8192), 0);
	cr_assert_eq(p[4096], 3);
	sysfree(p, n);
}
