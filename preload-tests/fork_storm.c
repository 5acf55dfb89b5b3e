/*
 * Twenty children alive at any time, each making threads and sometimes children of its own, while the parent's threads
 * allocate, print, lock, wait and fork themselves. For GOSHIM_TEST_SECONDS, or one; every child has to end with its
 * own status, and what it printed into the shared file has to be whole.
 */
#include "test.h"

#include <sys/mman.h>

enum { FORKERS = 5, EACH = 4, THREADS = 6, LINES = 3 };

static volatile int stop;
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
static pthread_mutex_t shared = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t shared_cond = PTHREAD_COND_INITIALIZER;
static FILE *log_file;
static int *lines; /* written by all processes */

/* What a child finds locked it leaves alone: these are new in it. */
struct work {
	pthread_mutex_t m;
	pthread_cond_t c;
	int count, sum;
};

static void *part(void *arg)
{
	struct work *w = arg;
	char *p = malloc(300);

	REQUIRE(p);
	snprintf(p, 300, "%d", getpid());
	REQUIRE(atoi(p) == getpid());
	sched_yield();
	pthread_mutex_lock(&w->m);
	w->sum += 1 + w->count++;
	pthread_cond_broadcast(&w->c);
	while (w->count < THREADS)
		pthread_cond_wait(&w->c, &w->m);
	pthread_mutex_unlock(&w->m);
	free(p);
	return arg;
}

static int child(int n, int depth)
{
	struct work w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};
	pthread_t t[THREADS];
	int status = 0;

	for (int i = 0; i < THREADS; i++)
		t[i] = spawn(part, &w);
	for (int i = 0; i < THREADS; i++)
		join(t[i]);
	if (w.sum != THREADS * (THREADS + 1) / 2)
		return 90;
	if (n % 8 == 0 && depth < 3) {
		pid_t pid = fork();
		if (pid == 0)
			_exit(child(n, depth + 1));
		if (waitpid(pid, &status, 0) != pid || status != (n % 64 + depth + 1) << 8)
			return 91;
	}
	for (int i = 0; i < LINES; i++) {
		fprintf(log_file, "child %d line %d of %d\n", getpid(), i, LINES);
		__atomic_add_fetch(lines, 1, __ATOMIC_RELAXED);
	}
	if (fflush(log_file) != 0)
		return 92;
	usleep(n % 16 * 1000);
	return n % 64 + depth;
}

static void *forks(void *arg)
{
	pid_t pids[EACH] = {0};
	int ns[EACH], n = (int)(intptr_t)arg, i = 0;

	for (; !stop || i % EACH != 0; i++) {
		int at = i % EACH, status = -1;
		if (pids[at]) {
			CHECK_EQ(waitpid(pids[at], &status, 0), pids[at]);
			if (status != ns[at] % 64 << 8)
				FAIL("child %d: status %#x", ns[at] % 64, status);
		}
		ns[at] = n++;
		pids[at] = fork();
		REQUIRE(pids[at] >= 0);
		if (pids[at] == 0)
			_exit(child(ns[at], 0));
	}
	for (int at = 0; at < EACH; at++) {
		int status = -1;
		if (!pids[at])
			continue;
		CHECK_EQ(waitpid(pids[at], &status, 0), pids[at]);
		if (status != ns[at] % 64 << 8)
			FAIL("child %d: status %#x", ns[at] % 64, status);
	}
	return (void *)(intptr_t)i;
}

static void *holds(void *arg)
{
	struct timespec soon;

	for (unsigned i = 0; !stop; i++) {
		char *p = malloc(i % 5000 + 1);
		pthread_mutex_lock(&m);
		pthread_mutex_unlock(&m);
		i % 4 ? pthread_rwlock_rdlock(&rw) : pthread_rwlock_wrlock(&rw);
		pthread_rwlock_unlock(&rw);
		flockfile(log_file); /* free in a child: fork sees to that */
		sched_yield();
		funlockfile(log_file);
		pthread_mutex_lock(&shared);
		soon = after_ms(CLOCK_REALTIME, 1);
		pthread_cond_timedwait(&shared_cond, &shared, &soon);
		pthread_mutex_unlock(&shared);
		free(p);
	}
	return arg;
}

static void *computes(void *arg)
{
	for (volatile unsigned long i = 0; !stop; i++)
		;
	return arg;
}

static void storm(void)
{
	const char *s = getenv("GOSHIM_TEST_SECONDS"), *dir = getenv("TMPDIR");
	pthread_t forkers[FORKERS], others[4];
	char path[300], line[300];
	long children = 0;
	int found = 0;

	snprintf(path, sizeof path, "%s/fork_storm.%d", dir ? dir : "/tmp", getpid());
	log_file = fopen(path, "a+");
	lines = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(log_file && lines != MAP_FAILED);
	for (int i = 0; i < 3; i++)
		others[i] = spawn(holds, NULL);
	others[3] = spawn(computes, NULL);
	for (int i = 0; i < FORKERS; i++)
		forkers[i] = spawn(forks, (void *)(intptr_t)(i * 1000));
	sleep_ms(s ? atol(s) * 1000 : 1000);
	stop = 1;
	for (int i = 0; i < FORKERS; i++)
		children += (intptr_t)join(forkers[i]);
	for (unsigned i = 0; i < COUNT(others); i++)
		join(others[i]);
	CHECK(children >= FORKERS * EACH);
	rewind(log_file);
	while (fgets(line, sizeof line, log_file)) {
		int pid, i, of, end = 0;
		if (sscanf(line, "child %d line %d of %d\n%n", &pid, &i, &of, &end) != 3 ||
		    line[end] || of != LINES)
			FAIL("a torn line: %.60s", line);
		found++;
	}
	CHECK_EQ(found, *lines);
	fclose(log_file);
	unlink(path);
	if (s)
		say("%ld children", children);
}

static const struct test_case cases[] = {
    {"storm", storm},
};

TEST_MAIN(cases)
