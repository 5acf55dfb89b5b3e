/*
 * Spin locks: exclusion, and progress when the holder is not running. A holder that was preempted
 * or that yields must get its processor back although others spin on all of them.
 */
#include "test.h"

static pthread_spinlock_t lock;
static long count;

static void *add(void *arg)
{
	for (int i = 0; i < 2000; i++) {
		if (i % 5 == 0) {
			int rc;
			while ((rc = pthread_spin_trylock(&lock)) == EBUSY)
				;
			CHECK_EQ(rc, 0);
		} else {
			CHECK_EQ(pthread_spin_lock(&lock), 0);
		}
		long c = count;
		if (i % 1000 == 0)
			sched_yield();
		count = c + 1;
		CHECK_EQ(pthread_spin_unlock(&lock), 0);
	}
	return arg;
}

static void excludes(void)
{
	pthread_t t[6];

	count = 0;
	CHECK_EQ(pthread_spin_init(&lock, PTHREAD_PROCESS_PRIVATE), 0);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(add, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(count, 2000 * (long)COUNT(t));
	CHECK_EQ(pthread_spin_destroy(&lock), 0);
}

static void *take(void *arg)
{
	pthread_spin_lock(&lock);
	count++;
	pthread_spin_unlock(&lock);
	return arg;
}

static void holder_sleeps(void)
{
	pthread_t t[8];

	count = 0;
	pthread_spin_init(&lock, PTHREAD_PROCESS_PRIVATE);
	pthread_spin_lock(&lock);
	CHECK_EQ(pthread_spin_trylock(&lock), EBUSY);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(take, NULL);
	sleep_ms(50);
	CHECK_EQ(count, 0);
	pthread_spin_unlock(&lock);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(count, COUNT(t));
	pthread_spin_destroy(&lock);
}

static const struct test_case cases[] = {
    {"excludes", excludes},
    {"holder_sleeps", holder_sleeps},
};

TEST_MAIN(cases)
