/*
 * Detached threads: nobody joins them, so their end alone must give back everything, and joining
 * them must fail.
 */
#include "test.h"

static int ended;

static void *end_soon(void *arg)
{
	(void)arg;
	__atomic_add_fetch(&ended, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void *end_at_gate(void *arg)
{
	pthread_mutex_lock(arg);
	pthread_mutex_unlock(arg);
	__atomic_add_fetch(&ended, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void *detach_self(void *arg)
{
	(void)arg;
	CHECK_EQ(pthread_detach(pthread_self()), 0);
	__atomic_add_fetch(&ended, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void created_detached(void)
{
	pthread_attr_t attr;
	int state = -1;
	int n = scale(500, 5000);

	ended = 0;
	CHECK_EQ(pthread_attr_init(&attr), 0);
	CHECK_EQ(pthread_attr_getdetachstate(&attr, &state), 0);
	CHECK_EQ(state, PTHREAD_CREATE_JOINABLE);
	CHECK_EQ(pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED), 0);
	CHECK_EQ(pthread_attr_setdetachstate(&attr, 17), EINVAL);
	for (int i = 0; i < n; i++) {
		pthread_t t;
		int rc = pthread_create(&t, &attr, end_soon, NULL);
		if (rc == EAGAIN) {
			sleep_ms(5);
			i--;
			continue;
		}
		CHECK_EQ(rc, 0);
	}
	CHECK(wait_for(&ended, n, 20000));
	pthread_attr_destroy(&attr);
}

static void detached_while_it_runs(void)
{
	pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

	ended = 0;
	pthread_mutex_lock(&gate);
	pthread_t t = spawn(end_at_gate, &gate);
	CHECK_EQ(pthread_detach(t), 0);
	CHECK_EQ(pthread_join(t, NULL), EINVAL);
	CHECK_EQ(pthread_detach(t), EINVAL);
	pthread_mutex_unlock(&gate);
	CHECK(wait_for(&ended, 1, 10000));
	/* The gate is on our stack: let the thread leave it. */
	sleep_ms(20);
	pthread_mutex_lock(&gate);
	pthread_mutex_unlock(&gate);
}

static void detached_after_it_ended(void)
{
	for (int i = 0; i < 200; i++) {
		ended = 0;
		pthread_t t = spawn(end_soon, NULL);
		CHECK(wait_for(&ended, 1, 10000));
		if (i % 8 == 0)
			sleep_ms(2);
		CHECK_EQ(pthread_detach(t), 0);
	}
}

static void detached_by_itself(void)
{
	ended = 0;
	for (int i = 0; i < 200; i++) {
		spawn(detach_self, NULL);
		CHECK(wait_for(&ended, i + 1, 10000));
	}
}

static const struct test_case cases[] = {
    {"created_detached", created_detached},
    {"detached_while_it_runs", detached_while_it_runs},
    {"detached_after_it_ended", detached_after_it_ended},
    {"detached_by_itself", detached_by_itself},
};

TEST_MAIN(cases)
