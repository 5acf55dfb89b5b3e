/*
 * State that the kernel keeps for a thread: affinity, scheduling class, nice value, the working
 * directory after unshare, capabilities of its own. A thread that sets it has it, keeps it, and is
 * the only one.
 */
#include "test.h"

#include <sys/prctl.h>

static pthread_barrier_t both;

static void *pinned(void *arg)
{
	cpu_set_t set, got;
	int cpu = (int)(intptr_t)arg;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	CHECK_EQ(pthread_setaffinity_np(pthread_self(), sizeof set, &set), 0);
	for (int i = 0; i < 100; i++) {
		CHECK_EQ(sched_getcpu(), cpu);
		sched_yield();
		if (i % 25 == 0)
			usleep(100);
		CHECK_EQ(sched_getaffinity(0, sizeof got, &got), 0);
		CHECK(CPU_EQUAL(&set, &got));
		CHECK_EQ(pthread_getaffinity_np(pthread_self(), sizeof got, &got), 0);
		CHECK(CPU_EQUAL(&set, &got));
	}
	return NULL;
}

static void *unpinned(void *arg)
{
	cpu_set_t got;

	for (int i = 0; i < 100; i++) {
		sched_yield();
		CHECK_EQ(sched_getaffinity(0, sizeof got, &got), 0);
		CHECK_EQ(CPU_COUNT(&got), (int)(intptr_t)arg);
	}
	return NULL;
}

static void affinity(void)
{
	cpu_set_t all;
	pthread_t t[8], u[8];
	int cpus[CPU_SETSIZE], n = 0;

	REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &all))
			cpus[n++] = i;
	for (unsigned i = 0; i < COUNT(t); i++) {
		t[i] = spawn(pinned, (void *)(intptr_t)cpus[i % n]);
		u[i] = spawn(unpinned, (void *)(intptr_t)n);
	}
	for (unsigned i = 0; i < COUNT(t); i++) {
		join(t[i]);
		join(u[i]);
	}
	/* Those that come after are not pinned by what ended. */
	for (unsigned i = 0; i < COUNT(u); i++)
		u[i] = spawn(unpinned, (void *)(intptr_t)n);
	for (unsigned i = 0; i < COUNT(u); i++)
		join(u[i]);
	cpu_set_t bad;
	CPU_ZERO(&bad);
	CHECK_EQ(pthread_setaffinity_np(pthread_self(), sizeof bad, &bad), EINVAL);
}

static int run_affinity(void)
{
	setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1);
	execl("/proc/self/exe", "thread_kernel_state", "affinity", NULL);
	return 1;
}

/* Without the kernel's note in its block a thread has to ask where it runs. */
static void affinity_without_rseq(void)
{
	CHECK_EQ(in_child(run_affinity), 0);
}

static void affinity_by_attribute(void)
{
	cpu_set_t all, one;
	pthread_attr_t attr;
	pthread_t t;

	REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, &all))
			continue;
		CPU_ZERO(&one);
		CPU_SET(i, &one);
		pthread_attr_init(&attr);
		CHECK_EQ(pthread_attr_setaffinity_np(&attr, sizeof one, &one), 0);
		REQUIRE_OK(pthread_create(&t, &attr, pinned, (void *)(intptr_t)i));
		join(t);
		pthread_attr_destroy(&attr);
	}
}

static void *nicer(void *arg)
{
	CHECK_EQ(setpriority(PRIO_PROCESS, gettid(), 7), 0);
	pthread_barrier_wait(&both);
	for (int i = 0; i < 50; i++) {
		sched_yield();
		errno = 0;
		CHECK_EQ(getpriority(PRIO_PROCESS, 0), 7);
		CHECK_EQ(getpriority(PRIO_PROCESS, gettid()), 7);
	}
	return arg;
}

static void *not_nicer(void *arg)
{
	pthread_barrier_wait(&both);
	for (int i = 0; i < 50; i++) {
		sched_yield();
		errno = 0;
		CHECK_EQ(getpriority(PRIO_PROCESS, 0), 0);
	}
	return arg;
}

static void nice_values(void)
{
	if (getpriority(PRIO_PROCESS, 0) != 0)
		SKIP_CASE("is nice already");
	pthread_barrier_init(&both, NULL, 2);
	pthread_t a = spawn(nicer, NULL), b = spawn(not_nicer, NULL);
	join(a);
	join(b);
	CHECK_EQ(getpriority(PRIO_PROCESS, 0), 0);
	pthread_barrier_destroy(&both);
}

static void *batch(void *arg)
{
	struct sched_param sp = {0};
	int policy = -1;

	CHECK_EQ(pthread_setschedparam(pthread_self(), SCHED_BATCH, &sp), 0);
	pthread_barrier_wait(&both);
	for (int i = 0; i < 50; i++) {
		sched_yield();
		CHECK_EQ(pthread_getschedparam(pthread_self(), &policy, &sp), 0);
		CHECK_EQ(policy, SCHED_BATCH);
		CHECK_EQ(sched_getscheduler(0), SCHED_BATCH);
	}
	return arg;
}

static void *other(void *arg)
{
	struct sched_param sp;
	int policy = -1;

	pthread_barrier_wait(&both);
	for (int i = 0; i < 50; i++) {
		sched_yield();
		CHECK_EQ(pthread_getschedparam(pthread_self(), &policy, &sp), 0);
		CHECK_EQ(policy, SCHED_OTHER);
		CHECK_EQ(sched_getscheduler(0), SCHED_OTHER);
	}
	return arg;
}

static void scheduling_class(void)
{
	pthread_barrier_init(&both, NULL, 2);
	pthread_t a = spawn(batch, NULL), b = spawn(other, NULL);
	join(a);
	join(b);
	CHECK_EQ(sched_getscheduler(0), SCHED_OTHER);
	pthread_barrier_destroy(&both);
}

static void *own_directory(void *arg)
{
	char cwd[200];

	if (unshare(CLONE_FS) != 0)
		return (void *)1;
	CHECK_EQ(chdir("/usr"), 0);
	pthread_barrier_wait(&both);
	for (int i = 0; i < 50; i++) {
		sched_yield();
		CHECK(getcwd(cwd, sizeof cwd) && strcmp(cwd, "/usr") == 0);
	}
	(void)arg;
	return NULL;
}

static void *common_directory(void *arg)
{
	char cwd[200];

	pthread_barrier_wait(&both);
	for (int i = 0; i < 50; i++) {
		sched_yield();
		CHECK(getcwd(cwd, sizeof cwd) && strcmp(cwd, "/") == 0);
	}
	return arg;
}

static int directories(void)
{
	if (chdir("/") != 0)
		return 1;
	pthread_barrier_init(&both, NULL, 2);
	pthread_t a = spawn(own_directory, NULL), b = spawn(common_directory, NULL);
	CHECK(join(a) == NULL);
	join(b);
	/* And for threads made later, on whatever kernel thread. */
	pthread_t t[20];
	pthread_barrier_init(&both, NULL, COUNT(t));
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(common_directory, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	return 0;
}

static void unshared_directory(void)
{
	CHECK_EQ(in_child(directories), 0);
}

/* A table of descriptors of its own, by a call that has another purpose. */
static int shared;

static void *own_descriptors(void *arg)
{
	if (close_range(shared, shared, CLOSE_RANGE_UNSHARE) != 0)
		return (void *)1;
	pthread_barrier_wait(&both);
	for (int i = 0; i < 200; i++) {
		CHECK_ERRNO(fcntl(shared, F_GETFD), EBADF);
		sched_yield();
	}
	return arg;
}

static void *common_descriptors(void *arg)
{
	pthread_barrier_wait(&both);
	for (int i = 0; i < 200; i++) {
		CHECK(fcntl(shared, F_GETFD) >= 0);
		sched_yield();
	}
	return arg;
}

static int descriptors(void)
{
	pthread_t t[6];

	shared = open("/dev/null", O_RDONLY);
	pthread_barrier_init(&both, NULL, COUNT(t) + 1);
	pthread_t own = spawn(own_descriptors, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(common_descriptors, NULL);
	CHECK(join(own) == NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK(fcntl(shared, F_GETFD) >= 0);
	return 0;
}

static void unshared_descriptors(void)
{
	CHECK_EQ(in_child(descriptors), 0);
}

static void *named_by_prctl(void *arg)
{
	char got[17] = "", want[16];

	snprintf(want, sizeof want, "prctl-%d", (int)(intptr_t)arg);
	CHECK_EQ(prctl(PR_SET_NAME, want), 0);
	for (int i = 0; i < 20; i++) {
		sched_yield();
		CHECK_EQ(prctl(PR_GET_NAME, got), 0);
		if (strcmp(got, want) != 0)
			FAIL("named %s, called %s", want, got);
	}
	return NULL;
}

static void names_by_prctl(void)
{
	pthread_t t[16];

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(named_by_prctl, (void *)(intptr_t)i);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static void process_is_called(const char *want)
{
	char got[20] = "", path[50];

	CHECK_EQ(prctl(PR_GET_NAME, got), 0);
	CHECK_EQ(strcmp(got, want), 0);
	CHECK_EQ(pthread_getname_np(pthread_self(), got, sizeof got), 0);
	CHECK_EQ(strcmp(got, want), 0);
	snprintf(path, sizeof path, "/proc/%d/comm", (int)getpid());
	int fd = open(path, O_RDONLY);
	ssize_t n = read(fd, got, sizeof got - 1);
	close(fd);
	got[n > 0 ? n - 1 : 0] = 0;
	if (strcmp(got, want) != 0)
		FAIL("the process is called %s, not %s", got, want);
}

static void *spins(void *arg)
{
	for (int i = 0; i < 300; i++) {
		for (volatile int k = 0; k < 3000; k++)
			;
		sched_yield();
	}
	return arg;
}

/* Main's name is the process's, wherever main runs by then. */
static void name_of_the_process(void)
{
	char was[20], name[20];
	pthread_t t[6];

	CHECK_EQ(prctl(PR_GET_NAME, was), 0);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(spins, NULL);
	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof name, "round %d", i);
		if (i % 2)
			CHECK_EQ(prctl(PR_SET_NAME, name), 0);
		else
			CHECK_EQ(pthread_setname_np(pthread_self(), name), 0);
		process_is_called(name);
		usleep(200);
		sched_yield();
	}
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(prctl(PR_SET_NAME, "much too long for a name"), 0);
	process_is_called("much too long f");
	CHECK_EQ(prctl(PR_SET_NAME, was), 0);
}

static void *ask_for_none(void *arg)
{
	struct sched_param param = {0};
	cpu_set_t set;

	CHECK_ERRNO(sched_getparam(-1, &param), EINVAL);
	CHECK_ERRNO(sched_getscheduler(-1), EINVAL);
	CHECK_ERRNO(sched_setparam(-1, &param), EINVAL);
	CHECK_ERRNO(sched_setscheduler(-1, SCHED_OTHER, &param), EINVAL);
	CHECK_ERRNO(sched_getaffinity(-1, sizeof set, &set), ESRCH);
	CHECK_EQ(sched_getaffinity(0, sizeof set, &set), 0);
	CHECK_ERRNO(sched_setaffinity(-1, sizeof set, &set), ESRCH);
	CHECK_ERRNO(syscall(SYS_sched_getscheduler, -1), EINVAL);
	CHECK_ERRNO(setpriority(PRIO_PROCESS, -1, 0), ESRCH);
	return arg;
}

/* Negative ids are nobody's. */
static void negative_ids(void)
{
	join(spawn(ask_for_none, NULL));
	ask_for_none(NULL);
}

static int go, waiting;

/* Has state of its own for a while. */
static void *there_and_back(void *arg)
{
	struct sched_param batch = {0};
	cpu_set_t all, one;

	REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
	CHECK_EQ(sched_setscheduler(gettid(), SCHED_BATCH, &batch), 0);
	CHECK_EQ(setpriority(PRIO_PROCESS, 0, 5), 0);
	sched_yield();
	CHECK_EQ(setpriority(PRIO_PROCESS, gettid(), 0), 0);
	CHECK_EQ(pthread_setaffinity_np(pthread_self(), sizeof all, &all), 0);
	CHECK_EQ(pthread_setschedparam(pthread_self(), SCHED_OTHER, &batch), 0);
	/* What fails changes nothing. */
	CHECK_ERRNO(unshare(CLONE_NEWUSER), EINVAL);
	CHECK_ERRNO(setns(-1, 0), EBADF);
	CHECK_ERRNO(sched_setscheduler(0, 77, &batch), EINVAL);
	CHECK_ERRNO(prctl(PR_SET_SECUREBITS, -1, 0, 0, 0), EPERM);
	__atomic_add_fetch(&waiting, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&go, __ATOMIC_ACQUIRE))
		usleep(5000);
	return arg;
}

/* Whoever has had state of its own, and has it no more, is as before. */
static void state_given_up(void)
{
	pthread_t t[64];

	if (geteuid() != 0)
		SKIP_CASE("needs root to be as nice as before");
	for (unsigned i = 0; i < COUNT(t); i++) {
		t[i] = spawn(there_and_back, NULL);
		REQUIRE(wait_for(&waiting, (int)i + 1, 30000));
	}
	check_goroutines(COUNT(t));
	__atomic_store_n(&go, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static void *ends_with_state(void *arg)
{
	CHECK_EQ(setpriority(PRIO_PROCESS, 0, 1), 0);
	return arg ? join(spawn(ends_with_state, NULL)) : NULL;
}

static long mapped_kib(void)
{
	long pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	REQUIRE(f && fscanf(f, "%ld", &pages) == 1);
	fclose(f);
	return pages * 4;
}

/* Kernel threads that end with their state leave no memory behind. */
static void state_ends(void)
{
	long rss = 0, mapped = 0;

	for (int i = 0; i < 1500; i++) {
		if (i == 100) {
			rss = rss_kib();
			mapped = mapped_kib();
		}
		join(spawn(ends_with_state, &rss));
	}
	long more = rss_kib() - rss, moremapped = mapped_kib() - mapped;
	if (more > 8000 || moremapped > 100000)
		FAIL("1400 threads left %ld KiB, %ld mapped", more, moremapped);
}

/* The first ones before main has state of its own, which new threads inherit. */
static const struct test_case cases[] = {
    {"unshared_directory", unshared_directory},
    {"unshared_descriptors", unshared_descriptors},
    {"affinity", affinity},
    {"affinity_without_rseq", affinity_without_rseq},
    {"affinity_by_attribute", affinity_by_attribute},
    {"nice_values", nice_values},
    {"scheduling_class", scheduling_class},
    {"names_by_prctl", names_by_prctl},
    {"name_of_the_process", name_of_the_process},
    {"negative_ids", negative_ids},
    {"state_given_up", state_given_up},
    {"state_ends", state_ends},
};

TEST_MAIN(cases)
