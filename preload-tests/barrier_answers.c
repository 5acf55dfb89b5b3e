/*
 * What every function of barriers and spin locks answers: counts and attributes that can't be, who is
 * told to be the serial thread, waits that a handler interrupts, barriers and locks that processes share;
 * a spin lock's try, and the locks that a holder would wait for for ever.
 */
#include "test.h"

#include <sys/mman.h>

static struct {
	pthread_barrier_t b;
	pthread_spinlock_t spin;
	int serial, passed;
	long count;
} * s;

static void counts(void)
{
	static const unsigned bad[] = {0, (1u << 31) - 1, 1u << 31, -1u};
	static const unsigned good[] = {1, 2, 1000, (1u << 31) - 2};
	pthread_barrierattr_t a;

	for (int shared = 0; shared < 2; shared++) {
		CHECK_EQ(pthread_barrierattr_init(&a), 0);
		CHECK_EQ(pthread_barrierattr_setpshared(&a, shared), 0);
		for (unsigned i = 0; i < COUNT(bad); i++)
			CHECK_EQ(pthread_barrier_init(&s->b, &a, bad[i]), EINVAL);
		for (unsigned i = 0; i < COUNT(good); i++) {
			memset(&s->b, 0x5a, sizeof s->b);
			CHECK_EQ(pthread_barrier_init(&s->b, &a, good[i]), 0);
			CHECK_EQ(pthread_barrier_destroy(&s->b), 0);
		}
		/* One alone is the serial thread, each time. */
		CHECK_EQ(pthread_barrier_init(&s->b, &a, 1), 0);
		for (int i = 0; i < 10; i++)
			CHECK_EQ(pthread_barrier_wait(&s->b), PTHREAD_BARRIER_SERIAL_THREAD);
		CHECK_EQ(pthread_barrier_destroy(&s->b), 0);
		CHECK_EQ(pthread_barrierattr_destroy(&a), 0);
	}
}

static void attributes(void)
{
	static const int bad[] = {-1, 2, 99};
	pthread_barrierattr_t a;
	int v = -1;

	memset(&a, 0x5a, sizeof a);
	CHECK_EQ(pthread_barrierattr_init(&a), 0);
	CHECK_EQ(pthread_barrierattr_getpshared(&a, &v), 0);
	CHECK_EQ(v, PTHREAD_PROCESS_PRIVATE);
	for (unsigned i = 0; i < COUNT(bad); i++)
		CHECK_EQ(pthread_barrierattr_setpshared(&a, bad[i]), EINVAL);
	CHECK_EQ(pthread_barrierattr_setpshared(&a, PTHREAD_PROCESS_SHARED), 0);
	CHECK_EQ(pthread_barrierattr_getpshared(&a, &v), 0);
	CHECK_EQ(v, PTHREAD_PROCESS_SHARED);
	CHECK_EQ(pthread_barrierattr_destroy(&a), 0);
}

/* --- rounds of threads and processes ------------------------------------------------------------ */

enum { ROUNDS = 50, THREADS = 4 };

static void make(int shared, unsigned count)
{
	pthread_barrierattr_t a;

	s->serial = s->passed = 0;
	s->count = 0;
	pthread_barrierattr_init(&a);
	pthread_barrierattr_setpshared(&a, shared);
	REQUIRE_OK(pthread_barrier_init(&s->b, &a, count));
	pthread_barrierattr_destroy(&a);
}

static void *rounds(void *arg)
{
	for (int i = 0; i < ROUNDS; i++) {
		int r = pthread_barrier_wait(&s->b);

		CHECK(r == 0 || r == PTHREAD_BARRIER_SERIAL_THREAD);
		__atomic_add_fetch(&s->passed, 1, __ATOMIC_RELAXED);
		if (r != 0)
			__atomic_add_fetch(&s->serial, 1, __ATOMIC_RELAXED);
	}
	return arg;
}

static void threads_pass(void)
{
	pthread_t t[THREADS];

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(rounds, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static void between_threads(void)
{
	for (int shared = 0; shared < 2; shared++) {
		make(shared, THREADS);
		threads_pass();
		CHECK_EQ(s->serial, ROUNDS);
		CHECK_EQ(s->passed, ROUNDS * THREADS);
		CHECK_EQ(pthread_barrier_destroy(&s->b), 0);
	}
}

static int child_passes(void)
{
	threads_pass();
	return 0;
}

static void between_processes(void)
{
	int status = -1;

	make(PTHREAD_PROCESS_SHARED, 2 * THREADS);
	pid_t pid = fork();
	if (pid == 0) {
		test_failures = 0;
		_exit(child_passes() || test_failures);
	}
	threads_pass();
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	CHECK_EQ(s->serial, ROUNDS);
	CHECK_EQ(s->passed, 2 * ROUNDS * THREADS);
	CHECK_EQ(pthread_barrier_destroy(&s->b), 0);
}

/* Handlers run while a thread waits; it has still arrived once. */
static int handled;

static void count_handled(int sig)
{
	(void)sig;
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELEASE);
}

static void *wait_once(void *arg)
{
	int r = pthread_barrier_wait(&s->b);

	CHECK(r == 0 || r == PTHREAD_BARRIER_SERIAL_THREAD);
	__atomic_add_fetch(&s->passed, 1, __ATOMIC_RELEASE);
	return arg;
}

static void interrupted(void)
{
	struct sigaction sa = {.sa_handler = count_handled};

	REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
	for (int shared = 0; shared < 2; shared++) {
		pthread_t t[3];

		make(shared, COUNT(t) + 1);
		handled = 0;
		for (unsigned i = 0; i < COUNT(t); i++)
			t[i] = spawn(wait_once, NULL);
		for (int n = 1; n <= 30; n++) {
			REQUIRE_OK(pthread_kill(t[n % 3], SIGUSR1));
			CHECK(wait_for(&handled, n, 20000));
		}
		CHECK_EQ(s->passed, 0);
		wait_once(NULL);
		/* While some may still be on their way out. */
		CHECK_EQ(pthread_barrier_destroy(&s->b), 0);
		memset(&s->b, 0xff, sizeof s->b);
		for (unsigned i = 0; i < COUNT(t); i++)
			join(t[i]);
		CHECK_EQ(s->passed, COUNT(t) + 1);
	}
}

/* The serial thread destroys and makes it anew at once, for more threads than before. */
static pthread_barrier_t next;

static void *leave_and_remake(void *arg)
{
	if (pthread_barrier_wait(&s->b) == PTHREAD_BARRIER_SERIAL_THREAD) {
		CHECK_EQ(pthread_barrier_destroy(&s->b), 0);
		memset(&s->b, 0xff, sizeof s->b);
		make((int)(intptr_t)arg, THREADS + 1);
	}
	pthread_barrier_wait(&next);
	pthread_barrier_wait(&s->b);
	return NULL;
}

static void destroyed_while_leaving(void)
{
	for (int round = 0; round < 200; round++) {
		pthread_t t[THREADS];
		int shared = round & 1;

		make(shared, THREADS);
		REQUIRE_OK(pthread_barrier_init(&next, NULL, THREADS + 1));
		for (unsigned i = 0; i < COUNT(t); i++)
			t[i] = spawn(leave_and_remake, (void *)(intptr_t)shared);
		pthread_barrier_wait(&next);
		pthread_barrier_wait(&s->b);
		for (unsigned i = 0; i < COUNT(t); i++)
			join(t[i]);
		pthread_barrier_destroy(&next);
	}
}

/* --- spin locks -------------------------------------------------------------------------------- */

static void *try_spin(void *arg)
{
	int r = pthread_spin_trylock(&s->spin);

	(void)arg;
	if (r == 0)
		CHECK_EQ(pthread_spin_unlock(&s->spin), 0);
	return (void *)(intptr_t)r;
}

static void spin_answers(void)
{
	for (int shared = 0; shared < 2; shared++) {
		memset((void *)&s->spin, 0x5a, sizeof s->spin);
		CHECK_EQ(pthread_spin_init(&s->spin, shared), 0);
		for (int i = 0; i < 3; i++) {
			CHECK_EQ((intptr_t)join(spawn(try_spin, NULL)), 0);
			CHECK_EQ(i ? pthread_spin_trylock(&s->spin) : pthread_spin_lock(&s->spin),
				 0);
			/* Its own holder is not known to it. */
			CHECK_EQ(pthread_spin_trylock(&s->spin), EBUSY);
			CHECK_EQ((intptr_t)join(spawn(try_spin, NULL)), EBUSY);
			CHECK_EQ(pthread_spin_unlock(&s->spin), 0);
		}
		CHECK_EQ(pthread_spin_destroy(&s->spin), 0);
	}
}

static void *add(void *arg)
{
	for (int i = 0; i < 2000; i++) {
		CHECK_EQ(pthread_spin_lock(&s->spin), 0);
		long c = s->count;
		if (i % 200 == 0)
			sched_yield();
		s->count = c + 1;
		CHECK_EQ(pthread_spin_unlock(&s->spin), 0);
	}
	return arg;
}

static void spin_between_processes(void)
{
	pthread_t t[THREADS];
	int status = -1;

	s->count = 0;
	REQUIRE_OK(pthread_spin_init(&s->spin, PTHREAD_PROCESS_SHARED));
	pid_t pid = fork();
	if (pid == 0)
		test_failures = 0;
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(add, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	if (pid == 0)
		_exit(test_failures != 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	CHECK_EQ(s->count, 2 * 2000 * THREADS);
	CHECK_EQ(pthread_spin_destroy(&s->spin), 0);
}

static const struct test_case cases[] = {
    {"counts", counts},
    {"attributes", attributes},
    {"between_threads", between_threads},
    {"between_processes", between_processes},
    {"interrupted", interrupted},
    {"destroyed_while_leaving", destroyed_while_leaving},
    {"spin_answers", spin_answers},
    {"spin_between_processes", spin_between_processes},
};

int main(int argc, char **argv)
{
	s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(s != MAP_FAILED);
	return test_run(argc, argv, cases, COUNT(cases));
}
