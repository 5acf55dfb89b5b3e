/*
 * What `goshim stat` is to look at: threads that wait in known ways and measure that themselves. Prints "ready", and
 * when the work is done a line of figures: how often they waited, for how many ns in all. Ends with its input.
 */
#include "../test.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>

enum { THREADS = 4 };

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
static sem_t sem;
static pthread_barrier_t barrier;
static int rounds = 20;
static long waits, waited, longest;
static long computed, lived; /* of `queued`, by its clocks */
static long began;           /* when the first thread was about to be made */

static long now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

static void count(long since)
{
	long ns = now() - since, most = __atomic_load_n(&longest, __ATOMIC_RELAXED);
	while (ns > most && !__atomic_compare_exchange_n(&longest, &most, ns, false,
							 __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	__atomic_fetch_add(&waited, ns, __ATOMIC_RELAXED);
	__atomic_fetch_add(&waits, 1, __ATOMIC_RELAXED);
}

static void spin(long ns)
{
	/* Mostly not in the clock's own code, where nobody is preempted. */
	for (long end = now() + ns; now() < end;)
		for (volatile int i = 0; i < 2000; i++)
			;
}

static void nap(long ns)
{
	struct timespec ts = {ns / 1000000000, ns % 1000000000};
	while (nanosleep(&ts, &ts))
		;
}

/* The first round of who holds the lock lasts until the others have come for it. */
static int coming;
static bool held;

static void meet(void *holder, int i)
{
	if (i > 0)
		return;
	while (!holder && !__atomic_load_n(&held, __ATOMIC_ACQUIRE))
		nap(1000000);
	if (!holder)
		__atomic_fetch_add(&coming, 1, __ATOMIC_ACQ_REL);
}

static void hold(int i, int n, long ns)
{
	__atomic_store_n(&held, true, __ATOMIC_RELEASE);
	while (i == 0 && __atomic_load_n(&coming, __ATOMIC_ACQUIRE) < n - 1)
		nap(1000000);
	nap(i == 0 ? 4 * ns : ns);
}

/* One of four has it for 5 ms. */
static void *locks(void *arg)
{
	for (int i = 0; i < rounds; i++) {
		meet(arg, i);
		long since = now();
		pthread_mutex_lock(&m);
		count(since);
		if (arg)
			hold(i, THREADS, 5000000);
		pthread_mutex_unlock(&m);
		nap(1000000);
	}
	return NULL;
}

static void *sleeps(void *arg)
{
	for (int i = 0; i < rounds; i++) {
		long since = now();
		nap(arg ? 3000000 : 1000000);
		count(since);
		spin(2000000);
	}
	return NULL;
}

static void *readslocked(void *arg)
{
	for (int i = 0; i < rounds; i++) {
		meet(arg, i);
		long since = now();
		arg ? pthread_rwlock_wrlock(&rw) : pthread_rwlock_rdlock(&rw);
		count(since);
		arg ? hold(i, THREADS, 3000000) : nap(100000);
		pthread_rwlock_unlock(&rw);
		nap(1000000);
	}
	return NULL;
}

static void *posts(void *arg)
{
	for (int i = 0; i < rounds; i++) {
		long since = now();
		if (!arg) {
			sem_wait(&sem);
			count(since);
			continue;
		}
		nap(2000000);
		for (int k = 1; k < THREADS; k++)
			sem_post(&sem);
	}
	return NULL;
}

static void *meets(void *arg)
{
	for (int i = 0; i < rounds; i++) {
		nap(arg ? 4000000 : 10000);
		long since = now();
		pthread_barrier_wait(&barrier);
		count(since);
	}
	return NULL;
}

/* All become runnable at once, on one processor, and each computes for 500 us, which no slice ends. */
static long opened, allready; /* ... by the second at the latest */
static long begins[64];       /* from the first on */
static int nbegins;
static bool gate;

static void *queues(void *arg)
{
	pthread_mutex_lock(&m);
	while (!gate)
		pthread_cond_wait(&c, &m);
	pthread_mutex_unlock(&m);
	long begin = now() - opened;
	count(opened);
	begins[__atomic_fetch_add(&nbegins, 1, __ATOMIC_RELAXED) % (int)COUNT(begins)] = begin;
	spin(500000);
	return arg;
}

static void *parked(void *arg)
{
	pthread_mutex_lock(&m);
	while (!gate)
		pthread_cond_wait(&c, &m);
	pthread_mutex_unlock(&m);
	return arg;
}

/* Each is named by its maker, makes a thread that has its name, and one names itself. */
static long share = 10000000;

static void *heir(void *arg)
{
	spin(2 * share);
	return arg;
}

static void *isnamed(void *arg)
{
	pthread_t t;
	if (arg)
		CHECK(prctl(PR_SET_NAME, "first\"of{all}") == 0);
	spin(share);
	CHECK(pthread_create(&t, NULL, heir, NULL) == 0);
	pthread_join(t, NULL);
	return NULL;
}

/* The first wait for a lock takes longer: it gets its name then. */
static void *firstwait(void *arg)
{
	struct timespec past = {0};
	pthread_mutex_lock(&m);
	CHECK(pthread_cond_timedwait(&c, &m, &past) == ETIMEDOUT);
	pthread_mutex_unlock(&m);
	return arg;
}

static int crowd; /* threads of the kind that all do */

static void all(int n, void *(*fn)(void *))
{
	pthread_t *t = calloc((size_t)n, sizeof *t);
	crowd = n;
	began = now();
	if (fn == queues)
		join(spawn(firstwait, NULL));
	for (int i = 0; i < n; i++) {
		char name[16];
		CHECK(pthread_create(&t[i], NULL, fn, i ? NULL : t) == 0);
		snprintf(name, sizeof name, "named-%d", i % 1000);
		if (fn == isnamed && i)
			CHECK(pthread_setname_np(t[i], name) == 0);
	}
	if (fn == queues) {
		nap(100000000);
		pthread_mutex_lock(&m);
		opened = now();
		gate = true;
		pthread_cond_broadcast(&c);
		pthread_mutex_unlock(&m);
		allready = now();
	}
	for (int i = 0; i < n && fn != parked; i++) {
		long since = now();
		pthread_join(t[i], NULL);
		if (rounds == 1)
			count(since);
	}
}

/* On one processor the others begin when the first one is made to leave it. */
static int begun;

static void *spins(void *arg)
{
	__atomic_fetch_add(&begun, 1, __ATOMIC_ACQ_REL);
	while (__atomic_load_n(&begun, __ATOMIC_ACQUIRE) < crowd)
		spin(1000000);
	spin(100000000);
	return arg;
}

/* What the kernel says of a thread that is about to end. */
static void *queued(void *arg)
{
	struct timespec ts;
	char text[100] = "";
	unsigned long cpu = 0, queue = 0;
	spin(100000000);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	int fd = open("/proc/thread-self/schedstat", O_RDONLY);
	CHECK(fd >= 0 && read(fd, text, sizeof text - 1) > 0);
	close(fd);
	CHECK(sscanf(text, "%lu %lu", &cpu, &queue) == 2);
	__atomic_fetch_add(&waited, (long)queue, __ATOMIC_RELAXED);
	__atomic_fetch_add(&computed, (long)cpu, __ATOMIC_RELAXED);
	__atomic_fetch_add(&lived, now() - began, __ATOMIC_RELAXED);
	__atomic_fetch_add(&waits, 1, __ATOMIC_RELAXED);
	return arg;
}

/* A pipe that is empty for 2 ms at a time: read with others to run, the processor goes to them. */
static void *reads(void *arg)
{
	static int fds[2];
	char c;
	if (arg)
		CHECK(pipe(fds) == 0 && fcntl(fds[0], F_SETPIPE_SZ, 4096) > 0);
	for (int i = 0; i < rounds && arg; i++) {
		nap(2000000);
		CHECK(write(fds[1], "x", 1) == 1);
	}
	while (!arg && !fds[1])
		sched_yield();
	for (int i = 0; i < rounds / 4 && !arg; i++) {
		long since = now();
		CHECK(read(fds[0], &c, 1) == 1);
		count(since);
	}
	return NULL;
}

static void *once(void *arg)
{
	nap(20000000);
	return arg;
}

/* From now on it kills to ask for pages beforehand, which the program itself has never done. */
static void nopopulate(void)
{
	struct sock_filter code[] = {
	    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
	    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 23 /* MADV_POPULATE_WRITE */, 0, 1),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {COUNT(code), code};
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog) == 0);
}

static const struct {
	const char *name;
	void *(*fn)(void *);
} works[] = {{"sleeps", sleeps}, {"rwlocks", readslocked}, {"sems", posts},   {"barriers", meets},
	     {"queues", queues}, {"parked", parked},       {"spins", spins},  {"reads", reads},
	     {"names", isnamed}, {"joins", once},          {"queued", queued}};

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "locks";
	int n = argc > 2 ? atoi(argv[2]) : THREADS;
	share /= n > 10 ? 100 : 1;
	sem_init(&sem, 0, 0);
	pthread_barrier_init(&barrier, NULL, THREADS);
	printf("ready\n");
	fflush(stdout);
	if (!strcmp(what, "nofiles")) {
		struct rlimit none = {3, 3};
		CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
	}
	if (!strcmp(what, "filter"))
		all(1, once); /* the scheduler is there before the filter */
	if (!strcmp(what, "filter"))
		nopopulate();
	if (!strcmp(what, "mlock"))
		CHECK(mlockall(MCL_CURRENT | MCL_FUTURE) == 0);
	if (!strcmp(what, "chroot"))
		CHECK(chroot(argv[3]) == 0 && chdir("/") == 0);
	void *(*fn)(void *) = locks;
	for (size_t i = 0; i < COUNT(works); i++)
		if (!strcmp(what, works[i].name))
			fn = works[i].fn;
	if (fn == once)
		rounds = 1;
	if (strcmp(what, "early"))
		all(n, fn);
	if (!strcmp(what, "drop")) {
		CHECK(chroot(argv[3]) == 0 && chdir("/") == 0);
		CHECK(setgid(65534) == 0 && setuid(65534) == 0);
	}
	if (!strcmp(what, "fork")) {
		pid_t child = fork();
		if (child == 0) {
			rounds = 5;
			all(2, sleeps);
			for (;;)
				pause();
		}
		printf("%d\n", child);
	} else {
		printf("%ld %ld %ld %ld %ld\n", waits, waited, computed, lived, longest);
	}
	if (fn == queues) {
		printf("%ld", allready - opened);
		for (int i = 0; i < nbegins && i < (int)COUNT(begins); i++)
			printf(" %ld", begins[i]);
		printf("\n");
	}
	fflush(stdout);
	char buf;
	while (read(0, &buf, 1) > 0)
		;
	return 0;
}
