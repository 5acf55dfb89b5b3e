/*
 * A thread that an event wakes does not wait until those that compute have had their slices: here slices are a third of a
 * second long, there are more spinners than processors, and hundreds of sleeps, reads and hand-offs have to come
 * to an end.
 */
#include "test.h"

#include <semaphore.h>

enum { SPINNERS = 6, EVENTS = 300 };

static int stop;
static long turns[SPINNERS];
static sem_t events;

static void *spin(void *arg)
{
	long i = (intptr_t)arg;

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		turns[i]++;
	return NULL;
}

/* One of the spinners is who wakes. */
static void *spin_and_post(void *arg)
{
	int64_t last = now_ns();

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		if (now_ns() - last < 300000)
			continue;
		last = now_ns();
		sem_post(&events);
	}
	return arg;
}

static void *sleeps(void *arg)
{
	for (int i = 0; i < EVENTS; i++)
		usleep(300);
	return arg;
}

static int ends[2];

static void *reads(void *arg)
{
	char c;

	for (int i = 0; i < EVENTS; i++)
		CHECK_EQ(read(ends[0], &c, 1), 1);
	return arg;
}

static void *waits(void *arg)
{
	for (int i = 0; i < EVENTS; i++)
		sem_wait(&events);
	return arg;
}

static void among_spinners(void *(*one)(void *), void *(*waker)(void *))
{
	pthread_t t[SPINNERS], woken = spawn(one, NULL);

	/* It waits before the others have all processors for a slice each, its waker, the last one, first. */
	stop = 0;
	sleep_ms(20);
	for (long i = 0; i < SPINNERS; i++)
		t[i] = spawn(i == SPINNERS - 1 && waker ? waker : spin, (void *)i);
	join(woken);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (int i = 0; i < SPINNERS; i++)
		join(t[i]);
}

static void by_a_timer(void)
{
	among_spinners(sleeps, NULL);
}

static void by_another_process(void)
{
	REQUIRE(pipe(ends) == 0);
	pid_t pid = fork();
	if (pid == 0) {
		for (int i = 0; i < EVENTS; i++) {
			usleep(300);
			if (write(ends[1], "x", 1) != 1)
				_exit(1);
		}
		_exit(0);
	}
	among_spinners(reads, NULL);
	waitpid(pid, NULL, 0);
	close(ends[0]);
	close(ends[1]);
}

static void by_a_spinner(void)
{
	sem_init(&events, 0, 0);
	among_spinners(waits, spin_and_post);
	sem_destroy(&events);
}

static const struct test_case cases[] = {
    {"by_a_timer", by_a_timer},
    {"by_another_process", by_another_process},
    {"by_a_spinner", by_a_spinner},
};

int main(int argc, char **argv)
{
	if (under_shim() && !getenv("PREEMPT_WAKEUP")) {
		setenv("PREEMPT_WAKEUP", "1", 1);
		setenv("GOSHIM", "slice=300000", 1);
		execv("/proc/self/exe", argv);
		return 1;
	}
	return test_run(argc, argv, cases, COUNT(cases));
}
