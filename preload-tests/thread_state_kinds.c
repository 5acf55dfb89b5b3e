/*
 * How and where a thread runs: affinity, classes and priorities, memory policy, namespaces, its directory and
 * descriptors, counters. state.h says what is tried.
 */
#include "state.h"

#include <linux/mempolicy.h>
#include <linux/perf_event.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>

static int set_affinity(void)
{
	cpu_set_t s;

	CPU_ZERO(&s);
	CPU_SET(sched_getcpu(), &s);
	return sched_setaffinity(0, sizeof s, &s);
}

static long get_affinity(void)
{
	cpu_set_t s;

	return sched_getaffinity(0, sizeof s, &s) ? -1 : mix(&s, sizeof s);
}

static int set_fifo(void)
{
	struct sched_param p = {.sched_priority = 1};

	return sched_setscheduler(0, SCHED_FIFO, &p);
}

static int set_idle(void)
{
	struct sched_param p = {0};

	return sched_setscheduler(0, SCHED_IDLE, &p);
}

struct attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

static int set_round_robin_by_attr(void)
{
	struct attr a = {.size = sizeof a, .policy = SCHED_RR, .priority = 2};

	return (int)syscall(SYS_sched_setattr, 0, &a, 0);
}

static long get_class(void)
{
	struct sched_param p = {0};

	sched_getparam(0, &p);
	return sched_getscheduler(0) * 100 + p.sched_priority;
}

static int set_nice(void)
{
	return setpriority(PRIO_PROCESS, 0, 3);
}

static int set_nicer(void)
{
	return nice(2) == 2 ? 0 : -1;
}

static long get_nice(void)
{
	errno = 0;
	return getpriority(PRIO_PROCESS, 0);
}

static int set_ioprio(void)
{
	return (int)syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6);
}

static long get_ioprio(void)
{
	return syscall(SYS_ioprio_get, 1, 0);
}

static int set_slack(void)
{
	return prctl(PR_SET_TIMERSLACK, 70000, 0, 0, 0);
}

static long get_slack(void)
{
	return prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
}

static int set_deathsig(void)
{
	return prctl(PR_SET_PDEATHSIG, SIGURG);
}

static long get_deathsig(void)
{
	int sig = -1;

	prctl(PR_GET_PDEATHSIG, &sig);
	return sig;
}

static int set_tsc(void)
{
	return prctl(PR_SET_TSC, PR_TSC_SIGSEGV);
}

static long get_tsc(void)
{
	int v = -1;

	prctl(PR_GET_TSC, &v);
	return v;
}

static int set_mce_kill(void)
{
	return prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0);
}

static long get_mce_kill(void)
{
	return prctl(PR_MCE_KILL_GET, 0, 0, 0, 0);
}

static int set_io_flusher(void)
{
	return prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
}

static long get_io_flusher(void)
{
	return prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0);
}

static int set_speculation(void)
{
	return prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_DISABLE, 0, 0);
}

static long get_speculation(void)
{
	return prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 0, 0, 0);
}

static int set_personality(void)
{
	return personality(ADDR_NO_RANDOMIZE | personality(0xffffffff)) < 0;
}

static long get_personality(void)
{
	return personality(0xffffffff);
}

static int set_mempolicy_(void)
{
	return (int)syscall(SYS_set_mempolicy, MPOL_LOCAL, NULL, 0);
}

static long get_mempolicy_(void)
{
	int mode = -1;

	return syscall(SYS_get_mempolicy, &mode, NULL, 0, NULL, 0) ? -1 : mode;
}

static int set_gs(void)
{
	static char area[100];

	return (int)syscall(SYS_arch_prctl, 0x1001 /* ARCH_SET_GS */, area);
}

static long get_gs(void)
{
	long v = -1;

	syscall(SYS_arch_prctl, 0x1004 /* ARCH_GET_GS */, &v);
	return v;
}

static long namespace(const char *name)
{
	char path[100], link[100];

	snprintf(path, sizeof path, "/proc/thread-self/ns/%s", name);
	ssize_t n = readlink(path, link, sizeof link);
	return n < 0 ? -1 : mix(link, (size_t)n);
}

#define NAMESPACE(id, file, flag)                       \
	static int set_ns_##id(void)                    \
	{                                               \
		return unshare(flag);                   \
	}                                               \
	static int set_rawns_##id(void)                 \
	{                                               \
		return (int)syscall(SYS_unshare, flag); \
	}                                               \
	static long get_ns_##id(void)                   \
	{                                               \
		return namespace(file);                 \
	}
#define NAMESPACES(X)                        \
	X(mnt, "mnt", CLONE_NEWNS)           \
	X(uts, "uts", CLONE_NEWUTS)          \
	X(ipc, "ipc", CLONE_NEWIPC)          \
	X(net, "net", CLONE_NEWNET)          \
	X(cgroup, "cgroup", CLONE_NEWCGROUP) \
	X(time, "time_for_children", CLONE_NEWTIME)
NAMESPACES(NAMESPACE)

static int set_pid_namespace(void)
{
	return unshare(CLONE_NEWPID);
}

static long get_pid_namespace(void)
{
	return namespace("pid_for_children");
}

/* To the one of another process. */
static int enter_namespace(void)
{
	char path[100], ch;
	int p[2], r = -1;

	if (pipe(p) != 0)
		return -1;
	pid_t pid = fork();
	if (pid == 0) {
		r = unshare(CLONE_NEWUTS);
		if (write(p[1], "x", 1) != 1 || r != 0)
			_exit(1);
		pause();
	}
	close(p[1]);
	CHECK_EQ(read(p[0], &ch, 1), 1);
	close(p[0]);
	snprintf(path, sizeof path, "/proc/%d/ns/uts", (int)pid);
	int fd = open(path, O_RDONLY);
	if (fd >= 0)
		r = setns(fd, CLONE_NEWUTS);
	close(fd);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return r;
}

static int set_directory(void)
{
	if (unshare(CLONE_FS) != 0)
		return -1;
	umask(0123);
	return chdir("/usr");
}

static long get_directory(void)
{
	char cwd[300] = "";
	char *got = getcwd(cwd, sizeof cwd);

	return got ? mix(cwd, strlen(cwd)) : -1;
}

static int set_root(void)
{
	if (unshare(CLONE_FS) != 0)
		return -1;
	return chroot("/usr") || chdir("/");
}

static long get_root(void)
{
	struct stat st;

	return stat("/", &st) ? -1 : (long)st.st_ino;
}

static int set_descriptors(void)
{
	if (unshare(CLONE_FILES) != 0)
		return -1;
	return close(marker);
}

static long get_descriptors(void)
{
	return fcntl(marker, F_GETFD);
}

/* Counts page faults, of this thread. */
static __thread int counter = -1;
static int counter_of_setter = -1;

static int set_counter(void)
{
	struct perf_event_attr a = {.type = PERF_TYPE_SOFTWARE,
				    .size = sizeof a,
				    .config = PERF_COUNT_SW_PAGE_FAULTS};
	counter = counter_of_setter = (int)syscall(SYS_perf_event_open, &a, 0, -1, -1, 0);
	return counter < 0;
}

/* Does the counter of this thread (a stranger's) move by what it does? */
static long get_counter(void)
{
	uint64_t a = 0, b = 0;
	int fd = counter_of_setter;

	if (fd < 0)
		return 0;
	char *p = mmap(NULL, 50 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(p != MAP_FAILED && madvise(p, 50 * 4096, MADV_NOHUGEPAGE) == 0);
	CHECK_EQ(read(fd, &a, 8), 8);
	for (int i = 0; i < 50; i++)
		((volatile char *)p)[i * 4096] = 1;
	CHECK_EQ(read(fd, &b, 8), 8);
	munmap(p, 50 * 4096);
	return fd == counter ? b - a >= 50 : 0;
}

static const struct kind kinds[] = {
    {"affinity", set_affinity, get_affinity, 0},
    {"real-time class", set_fifo, get_class, 0},
    {"idle class", set_idle, get_class, 0},
    {"real-time class by sched_setattr", set_round_robin_by_attr, get_class, 0},
    {"nice value", set_nice, get_nice, 0},
    {"nice value by nice", set_nicer, get_nice, 0},
    {"io priority", set_ioprio, get_ioprio, 0},
    {"timer slack", set_slack, get_slack, 0},
    {"death signal", set_deathsig, get_deathsig, NOT_INHERITED},
    {"time stamp counter", set_tsc, get_tsc, 0},
    {"machine check policy", set_mce_kill, get_mce_kill, 0},
    {"io flusher", set_io_flusher, get_io_flusher, 0},
    {"speculation", set_speculation, get_speculation, 0},
    {"personality", set_personality, get_personality, 0},
    {"memory policy", set_mempolicy_, get_mempolicy_, 0},
    {"gs base", set_gs, get_gs, 0},
#define ROWS(id, file, flag)                              \
	{"namespace " file, set_ns_##id, get_ns_##id, 0}, \
	    {"namespace " file " by syscall", set_rawns_##id, get_ns_##id, 0},
    NAMESPACES(ROWS){"pid namespace of children", set_pid_namespace, get_pid_namespace, NO_HEIRS},
    {"another's namespace", enter_namespace, get_ns_uts, 0},
    {"working directory", set_directory, get_directory, 0},
    {"root directory", set_root, get_root, 0},
    {"descriptors", set_descriptors, get_descriptors, 0},
    {"performance counter", set_counter, get_counter, NOT_INHERITED},
};

STATE_MAIN
