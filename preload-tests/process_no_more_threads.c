/*
 * A process that may have no more threads and processes once its own threads run: it forbids them itself, as servers do
 * (haproxy: RLIMIT_NPROC of 0, after an affinity for each thread), or its control group has as many as it may. Those
 * that it has go on: they wait for each other, for descriptors and for time.
 */
#include "test.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/file.h>
#include <sys/prctl.h>

enum { THREADS = 4, ROUNDS = 300 };

static pthread_barrier_t ready;
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static int turn, started, ring[THREADS][2], pins;

/* A control group for the tests' processes, or none. */
static char group[200];
static int grouped;

static int put(const char *file, const char *text)
{
	char path[300];

	snprintf(path, sizeof path, "%s/%s", group, file);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t n = write(fd, text, strlen(text));
	close(fd);
	return n == (ssize_t)strlen(text);
}

/* Below the first group that counts processes and lets us have one of our own. */
static int make_group(void)
{
	static const char *const roots[] = {"/sys/fs/cgroup/pids", "/sys/fs/cgroup"};

	for (size_t i = 0; i < COUNT(roots); i++) {
		snprintf(group, sizeof group, "%s/goshim-test-%d", roots[i], getpid());
		if (mkdir(group, 0755) == 0) {
			if (put("pids.max", "1000"))
				return 1;
			rmdir(group);
		}
	}
	return 0;
}

static void remove_group(void)
{
	/* The last process may still be on its way out. */
	for (int i = 0; i < 1000 && rmdir(group) != 0 && errno == EBUSY; i++)
		sleep_ms(10);
}

static void join_group(void)
{
	char pid[20];

	snprintf(pid, sizeof pid, "%d", getpid());
	REQUIRE(put("cgroup.procs", pid));
}

/* No more threads from now on. */
static void forbid(void)
{
	struct rlimit none = {0, 0};

	if (grouped)
		REQUIRE(put("pids.max", "0"));
	else
		REQUIRE(setrlimit(RLIMIT_NPROC, &none) == 0);
	CHECK_ERRNO(fork(), EAGAIN);
}

static void pin(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	CHECK_EQ(pthread_setaffinity_np(pthread_self(), sizeof set, &set), 0);
}

static void *nothing(void *arg)
{
	return arg;
}

static void *work(void *arg)
{
	int me = (int)(intptr_t)arg;

	if (me < pins)
		pin();
	/* The last of them sets the limit before it first waits. */
	pthread_mutex_lock(&m);
	if (++started == THREADS)
		forbid();
	pthread_mutex_unlock(&m);
	pthread_barrier_wait(&ready);
	for (int i = 0; i < ROUNDS; i++) {
		pthread_mutex_lock(&m);
		while (turn % THREADS != me)
			pthread_cond_wait(&c, &m);
		turn++;
		pthread_cond_broadcast(&c);
		pthread_mutex_unlock(&m);
	}
	/* A token goes around by pipes. */
	for (int i = 0; i < ROUNDS; i++) {
		struct pollfd p = {.fd = ring[me][0], .events = POLLIN};
		char token;

		if (me == 0)
			CHECK_EQ(write(ring[1][1], &me, 1), 1);
		CHECK_EQ(poll(&p, 1, -1), 1);
		CHECK_EQ(read(ring[me][0], &token, 1), 1);
		if (me != 0)
			CHECK_EQ(write(ring[(me + 1) % THREADS][1], &token, 1), 1);
		if (i % 50 == 0)
			usleep(1000);
	}
	return NULL;
}

/* pins: how many of the threads have an affinity of their own. */
static void run(int n)
{
	/* The limits stay and can't be taken back: in a child. */
	pid_t child = fork();

	REQUIRE(child >= 0);
	if (child == 0) {
		pthread_t t[THREADS];

		/* The kernel lets root have as many as it wants. */
		if (grouped)
			join_group();
		else if (getuid() == 0)
			REQUIRE(setresuid(65534, 65534, 65534) == 0);
		pins = n;
		pthread_barrier_init(&ready, NULL, THREADS + 1);
		for (int i = 0; i < THREADS; i++)
			REQUIRE(pipe(ring[i]) == 0);
		t[0] = spawn(nothing, NULL); /* more than one thread from here */
		join(t[0]);
		if (pins == THREADS)
			pin();
		for (int i = 0; i < THREADS; i++)
			t[i] = spawn(work, (void *)(intptr_t)i);
		pthread_barrier_wait(&ready);
		for (int i = 0; i < THREADS; i++)
			join(t[i]);
		_exit(test_failures != 0);
	}
	int status = -1;
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
}

static void none_pinned(void)
{
	run(0);
}

static void some_pinned(void)
{
	run(2);
}

static void all_pinned(void)
{
	run(THREADS);
}

static void in_a_full_group(void)
{
	static const int how[] = {0, 2};

	grouped = make_group();
	if (!grouped)
		SKIP_CASE("no control group may be made here");
	for (size_t i = 0; i < COUNT(how); i++) {
		run(how[i]);
		CHECK(put("pids.max", "1000"));
	}
	remove_group();
	grouped = 0;
}

/* --- by the death of who makes one ---------------------------------------------------------------------- */

enum { WAITERS = 12 };
static int files[WAITERS + 1];

static void *waits_in_the_kernel(void *arg)
{
	int me = (int)(intptr_t)arg;

	pthread_barrier_wait(&ready);
	pthread_barrier_wait(&ready);
	CHECK_EQ(flock(files[me], LOCK_EX), 0);
	turn++;
	CHECK_EQ(flock(files[me], LOCK_UN), 0);
	pthread_mutex_lock(&m);
	started++;
	pthread_mutex_unlock(&m);
	for (volatile int i = 0; i < 1000000; i++)
		;
	usleep(1000);
	return NULL;
}

static struct sock_filter no_threads[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 3, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 2, 0),
    BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, SYS_fork, 0, 2),
    BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, SYS_vfork, 1, 0),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};

/* False where there are no filters for all threads. */
static int filter(void)
{
	struct sock_fprog prog = {0, no_threads};

	REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	/* One that the kernel refuses changes nothing. */
	CHECK_ERRNO(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog),
		    EINVAL);
	prog.len = COUNT(no_threads);
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog) == 0;
}

static int kernel_waits(void)
{
	char path[] = "/tmp/goshim-test-XXXXXX";
	pthread_t t[WAITERS];

	if (grouped)
		join_group();
	files[WAITERS] = mkstemp(path);
	REQUIRE(files[WAITERS] >= 0);
	for (int i = 0; i < WAITERS; i++)
		files[i] = open(path, O_RDWR);
	unlink(path);
	REQUIRE(flock(files[WAITERS], LOCK_EX) == 0);
	pthread_barrier_init(&ready, NULL, WAITERS + 1);
	for (int i = 0; i < WAITERS; i++)
		t[i] = spawn(waits_in_the_kernel, (void *)(intptr_t)i);
	pthread_barrier_wait(&ready);
	if (grouped)
		forbid();
	else if (!filter())
		return 77;
	pthread_barrier_wait(&ready);
	sleep_ms(50);
	REQUIRE(flock(files[WAITERS], LOCK_UN) == 0);
	for (int i = 0; i < WAITERS; i++)
		join(t[i]);
	CHECK_EQ(turn, WAITERS);
	CHECK_EQ(started, WAITERS);
	return 0;
}

/* All wait in the kernel at once, as they natively may. */
static void killed_by_a_filter(void)
{
	int status = in_child(kernel_waits);

	if (status == 77 << 8)
		SKIP_CASE("no filters for all threads");
	CHECK_EQ(status, 0);
}

static void locks_in_a_full_group(void)
{
	grouped = make_group();
	if (!grouped)
		SKIP_CASE("no control group may be made here");
	CHECK_EQ(in_child(kernel_waits), 0);
	remove_group();
	grouped = 0;
}

static const struct test_case cases[] = {
    {"none_pinned", none_pinned},
    {"some_pinned", some_pinned},
    {"all_pinned", all_pinned},
    {"in_a_full_group", in_a_full_group},
    {"killed_by_a_filter", killed_by_a_filter},
    {"locks_in_a_full_group", locks_in_a_full_group},
};

TEST_MAIN(cases)
