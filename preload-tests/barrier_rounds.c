/*
 * Barriers: everybody waits for the last, exactly one is told to be the serial thread, rounds do
 * not mix, and the barrier may be destroyed by whoever comes out first.
 */
#include "test.h"

static pthread_barrier_t b;
static int arrived[64], serial;
static int members;

static void *rounds(void *arg)
{
	for (unsigned r = 0; r < COUNT(arrived); r++) {
		__atomic_add_fetch(&arrived[r], 1, __ATOMIC_RELEASE);
		int rc = pthread_barrier_wait(&b);
		if (rc == PTHREAD_BARRIER_SERIAL_THREAD)
			__atomic_add_fetch(&serial, 1, __ATOMIC_RELAXED);
		else
			CHECK_EQ(rc, 0);
		CHECK_EQ(__atomic_load_n(&arrived[r], __ATOMIC_ACQUIRE), members);
	}
	return arg;
}

static void everybody_waits_for_the_last(void)
{
	static const int sizes[] = {1, 2, 3, 16, 200};

	for (unsigned i = 0; i < COUNT(sizes); i++) {
		pthread_t t[200];

		members = sizes[i];
		serial = 0;
		memset(arrived, 0, sizeof arrived);
		memset(&b, 0x5a, sizeof b);
		CHECK_EQ(pthread_barrier_init(&b, NULL, members), 0);
		for (int k = 0; k < members; k++)
			t[k] = spawn(rounds, NULL);
		for (int k = 0; k < members; k++)
			join(t[k]);
		CHECK_EQ(serial, COUNT(arrived));
		CHECK_EQ(pthread_barrier_destroy(&b), 0);
	}
}

static int here;

static void *wait_once(void *arg)
{
	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	pthread_barrier_wait(&b);
	return arg;
}

static void waiting_is_parking(void)
{
	enum { N = 200 };
	pthread_t t[N];

	here = 0;
	pthread_barrier_init(&b, NULL, N + 1);
	for (int i = 0; i < N; i++)
		t[i] = spawn(wait_once, NULL);
	CHECK(wait_for(&here, N, 20000));
	sleep_ms(20);
	check_goroutines(N);
	pthread_barrier_wait(&b);
	for (int i = 0; i < N; i++)
		join(t[i]);
	pthread_barrier_destroy(&b);
}

static void *wait_and_destroy(void *arg)
{
	pthread_barrier_t *p = arg;

	if (pthread_barrier_wait(p) == PTHREAD_BARRIER_SERIAL_THREAD) {
		CHECK_EQ(pthread_barrier_destroy(p), 0);
		memset(p, 0xff, sizeof *p);
		free(p);
	}
	return NULL;
}

static void destroyed_by_the_serial_thread(void)
{
	for (int round = 0; round < 300; round++) {
		pthread_barrier_t *p = malloc(sizeof *p);
		pthread_t t[6];

		pthread_barrier_init(p, NULL, COUNT(t));
		for (unsigned i = 0; i < COUNT(t); i++)
			t[i] = spawn(wait_and_destroy, p);
		for (unsigned i = 0; i < COUNT(t); i++)
			join(t[i]);
	}
}

static void bad_values(void)
{
	pthread_barrierattr_t attr;
	int v = -1;

	CHECK_EQ(pthread_barrier_init(&b, NULL, 0), EINVAL);
	CHECK_EQ(pthread_barrierattr_init(&attr), 0);
	CHECK_EQ(pthread_barrierattr_getpshared(&attr, &v), 0);
	CHECK_EQ(v, PTHREAD_PROCESS_PRIVATE);
	CHECK_EQ(pthread_barrierattr_setpshared(&attr, 99), EINVAL);
	CHECK_EQ(pthread_barrierattr_destroy(&attr), 0);
}

static const struct test_case cases[] = {
    {"everybody_waits_for_the_last", everybody_waits_for_the_last},
    {"waiting_is_parking", waiting_is_parking},
    {"destroyed_by_the_serial_thread", destroyed_by_the_serial_thread},
    {"bad_values", bad_values},
};

TEST_MAIN(cases)
