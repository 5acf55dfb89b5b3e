/*
 * Unnamed and named semaphores: tokens are neither lost nor made, the timed forms keep to their
 * clock, and sem_post works from a signal handler, which is what people use it for.
 */
#include "test.h"

#include <limits.h>
#include <semaphore.h>
#include <sys/mman.h>

static sem_t sem;

static void values(void)
{
	static const unsigned initial[] = {0, 1, 7, SEM_VALUE_MAX};
	int v = -1;

	for (unsigned i = 0; i < COUNT(initial); i++) {
		memset(&sem, 0x5a, sizeof sem);
		CHECK_EQ(sem_init(&sem, 0, initial[i]), 0);
		CHECK_EQ(sem_getvalue(&sem, &v), 0);
		CHECK_EQ(v, initial[i]);
		if (initial[i] == SEM_VALUE_MAX)
			CHECK_ERRNO(sem_post(&sem), EOVERFLOW);
		if (initial[i] > 0)
			CHECK_EQ(sem_wait(&sem), 0);
		else
			CHECK_ERRNO(sem_trywait(&sem), EAGAIN);
		CHECK_EQ(sem_destroy(&sem), 0);
	}
	CHECK_ERRNO(sem_init(&sem, 0, (unsigned)SEM_VALUE_MAX + 1), EINVAL);
}

static int waiting;

static void *wait_one(void *arg)
{
	__atomic_add_fetch(&waiting, 1, __ATOMIC_RELEASE);
	CHECK_EQ(sem_wait(&sem), 0);
	__atomic_sub_fetch(&waiting, 1, __ATOMIC_RELEASE);
	return arg;
}

static void hundreds_wait(void)
{
	enum { N = 200 };
	pthread_t t[N];
	int v;

	waiting = 0;
	sem_init(&sem, 0, 0);
	for (int i = 0; i < N; i++)
		t[i] = spawn(wait_one, NULL);
	CHECK(wait_for(&waiting, N, 20000));
	sleep_ms(20);
	CHECK_EQ(waiting, N);
	check_goroutines(N);
	for (int i = 0; i < N; i++)
		CHECK_EQ(sem_post(&sem), 0);
	for (int i = 0; i < N; i++)
		join(t[i]);
	sem_getvalue(&sem, &v);
	CHECK_EQ(v, 0);
	sem_destroy(&sem);
}

/* A semaphore as a lock of three. */
static int inside, peak;

static void *three(void *arg)
{
	for (int i = 0; i < 300; i++) {
		sem_wait(&sem);
		int now = __atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST);
		if (now > 3)
			FAIL("%d inside a semaphore of 3", now);
		int seen = __atomic_load_n(&peak, __ATOMIC_RELAXED);
		while (now > seen &&
		       !__atomic_compare_exchange_n(&peak, &seen, now, 0, __ATOMIC_RELAXED,
						    __ATOMIC_RELAXED))
			;
		sched_yield();
		__atomic_sub_fetch(&inside, 1, __ATOMIC_SEQ_CST);
		sem_post(&sem);
	}
	return arg;
}

static void three_at_a_time(void)
{
	pthread_t t[32];
	int v;

	inside = peak = 0;
	sem_init(&sem, 0, 3);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(three, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	sem_getvalue(&sem, &v);
	CHECK_EQ(v, 3);
	sem_destroy(&sem);
}

static void *deadlines(void *arg)
{
	static const struct {
		clockid_t clock;
		long ms;
		int want;
	} table[] = {
	    {CLOCK_REALTIME, -1000, ETIMEDOUT}, {CLOCK_REALTIME, 0, ETIMEDOUT},
	    {CLOCK_REALTIME, 30, ETIMEDOUT},    {CLOCK_MONOTONIC, -1000, ETIMEDOUT},
	    {CLOCK_MONOTONIC, 30, ETIMEDOUT},   {CLOCK_PROCESS_CPUTIME_ID, 30, EINVAL},
	};

	(void)arg;
	for (unsigned i = 0; i < COUNT(table); i++) {
		int64_t start = now_ns();
		struct timespec ts =
		    after_ms(table[i].clock == CLOCK_MONOTONIC ? CLOCK_MONOTONIC : CLOCK_REALTIME,
			     table[i].ms);
		CHECK_ERRNO(sem_clockwait(&sem, table[i].clock, &ts), table[i].want);
		if (table[i].want == ETIMEDOUT)
			CHECK(now_ns() - start >= (table[i].ms - 1) * 1000000);
	}
	struct timespec ts = after_ms(CLOCK_REALTIME, 20);
	CHECK_ERRNO(sem_timedwait(&sem, &ts), ETIMEDOUT);
	ts.tv_nsec = 1000000000;
	CHECK_ERRNO(sem_timedwait(&sem, &ts), EINVAL);
	ts.tv_nsec = -1;
	CHECK_ERRNO(sem_timedwait(&sem, &ts), EINVAL);
	return NULL;
}

static void timed(void)
{
	sem_init(&sem, 0, 0);
	deadlines(NULL);
	join(spawn(deadlines, NULL));
	/* With a token, the time doesn't matter. */
	struct timespec past = {1, 0};
	sem_post(&sem);
	CHECK_EQ(sem_timedwait(&sem, &past), 0);
	sem_destroy(&sem);
}

static int got, gave_up, finished;

static void *impatient(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg;

	while (!__atomic_load_n(&finished, __ATOMIC_ACQUIRE)) {
		struct timespec ts = after_ms(CLOCK_MONOTONIC, rand_r(&seed) % 2);
		if (sem_clockwait(&sem, CLOCK_MONOTONIC, &ts) == 0)
			__atomic_add_fetch(&got, 1, __ATOMIC_RELAXED);
		else
			__atomic_add_fetch(&gave_up, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void posts_race_deadlines(void)
{
	pthread_t t[16];
	int posted = 0, left;

	got = gave_up = finished = 0;
	sem_init(&sem, 0, 0);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(impatient, (void *)(intptr_t)(i + 1));
	int64_t end = now_ms() + 400;
	while (now_ms() < end) {
		sem_post(&sem);
		posted++;
		usleep(200);
	}
	__atomic_store_n(&finished, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	sem_getvalue(&sem, &left);
	CHECK_EQ(got + left, posted);
	CHECK(gave_up > 0);
	sem_destroy(&sem);
}

static sem_t posted;

static void post_it(int sig)
{
	(void)sig;
	int saved = errno;
	sem_post(&posted);
	errno = saved;
}

static void *kill_process(void *arg)
{
	for (int i = 0; i < 50; i++) {
		usleep(500);
		kill(getpid(), SIGUSR1);
	}
	return arg;
}

/* Standard signals merge: what counts is that each handler's post arrives and the waiter sees
 * the end. */
static void posted_by_a_handler(void)
{
	struct sigaction sa = {.sa_handler = post_it, .sa_flags = SA_RESTART};

	sem_init(&posted, 0, 0);
	sigaction(SIGUSR1, &sa, NULL);
	for (int i = 0; i < 100; i++) {
		raise(SIGUSR1);
		CHECK_EQ(sem_trywait(&posted), 0);
	}
	pthread_t t = spawn(kill_process, NULL);
	for (int i = 0; i < 3; i++) {
		int rc;
		while ((rc = sem_wait(&posted)) != 0 && errno == EINTR)
			;
		CHECK_EQ(rc, 0);
	}
	join(t);
	/* A signal may still be on its way: the handler stays, and so does what it posts to. */
}

static void *open_and_post(void *arg)
{
	sem_t *s = sem_open(arg, 0);

	CHECK(s != SEM_FAILED);
	CHECK_EQ(sem_post(s), 0);
	CHECK_EQ(sem_close(s), 0);
	return NULL;
}

static void named(void)
{
	char name[64];

	snprintf(name, sizeof name, "/goshim-test-%d", (int)getpid());
	CHECK(sem_open(name, 0) == SEM_FAILED && errno == ENOENT);
	sem_t *s = sem_open(name, O_CREAT | O_EXCL, 0600, 1);
	if (s == SEM_FAILED && (errno == ENOSYS || errno == EACCES || errno == ENOENT))
		SKIP_CASE("no /dev/shm here");
	REQUIRE(s != SEM_FAILED);
	CHECK(sem_open(name, O_CREAT | O_EXCL, 0600, 1) == SEM_FAILED && errno == EEXIST);
	CHECK_EQ(sem_wait(s), 0);
	CHECK_ERRNO(sem_trywait(s), EAGAIN);
	pthread_t t = spawn(open_and_post, name);
	CHECK_EQ(sem_wait(s), 0);
	join(t);
	/* Another process posts. */
	pid_t pid = fork();
	if (pid == 0) {
		sleep_ms(20);
		_exit(sem_post(s) == 0 ? 0 : 1);
	}
	int status;
	CHECK_EQ(sem_wait(s), 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	CHECK_EQ(sem_close(s), 0);
	CHECK_EQ(sem_unlink(name), 0);
	CHECK_ERRNO(sem_unlink(name), ENOENT);
}

static void shared_between_processes(void)
{
	sem_t *s =
	    mmap(NULL, 2 * sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;

	REQUIRE(s != MAP_FAILED);
	CHECK_EQ(sem_init(&s[0], 1, 0), 0);
	CHECK_EQ(sem_init(&s[1], 1, 0), 0);
	pid_t pid = fork();
	if (pid == 0) {
		for (int i = 0; i < 200; i++) {
			sem_wait(&s[0]);
			sem_post(&s[1]);
		}
		_exit(0);
	}
	for (int i = 0; i < 200; i++) {
		sem_post(&s[0]);
		CHECK_EQ(sem_wait(&s[1]), 0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	munmap(s, 2 * sizeof *s);
}

/* Freed as soon as the wait returns. */
static void *post_to(void *arg)
{
	sem_post(arg);
	return NULL;
}

static void freed_after_the_wait(void)
{
	for (int i = 0; i < 500; i++) {
		sem_t *s = malloc(sizeof *s);
		sem_init(s, 0, 0);
		pthread_t t = spawn(post_to, s);
		CHECK_EQ(sem_wait(s), 0);
		sem_destroy(s);
		memset(s, 0xff, sizeof *s);
		free(s);
		join(t);
	}
}

static const struct test_case cases[] = {
    {"values", values},
    {"hundreds_wait", hundreds_wait},
    {"three_at_a_time", three_at_a_time},
    {"timed", timed},
    {"posts_race_deadlines", posts_race_deadlines},
    {"posted_by_a_handler", posted_by_a_handler},
    {"named", named},
    {"shared_between_processes", shared_between_processes},
    {"freed_after_the_wait", freed_after_the_wait},
};

TEST_MAIN(cases)
