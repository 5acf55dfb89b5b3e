/*
 * 100,000 threads alive at once, all blocked on one condition, then released and joined; three
 * rounds, after which the memory is back. Natively the counts are small: two mappings each run into
 * vm.max_map_count.
 */
#include "test.h"

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER, arrived = PTHREAD_COND_INITIALIZER;
static int here, go, wanted;
static long sum;

static void *block(void *arg)
{
	pthread_mutex_lock(&m);
	if (++here == wanted)
		pthread_cond_signal(&arrived);
	while (!go)
		pthread_cond_wait(&released, &m);
	sum += (intptr_t)arg;
	pthread_mutex_unlock(&m);
	return arg;
}

static void one_round(int n, pthread_t *t)
{
	here = go = 0;
	sum = 0;
	wanted = n;
	for (int i = 0; i < n; i++)
		REQUIRE_OK(pthread_create(&t[i], NULL, block, (void *)(intptr_t)i));
	pthread_mutex_lock(&m);
	while (here < n)
		pthread_cond_wait(&arrived, &m);
	pthread_mutex_unlock(&m);
}

static void end_round(int n, pthread_t *t)
{
	pthread_mutex_lock(&m);
	go = 1;
	pthread_cond_broadcast(&released);
	pthread_mutex_unlock(&m);
	for (int i = 0; i < n; i++) {
		void *ret;
		REQUIRE_OK(pthread_join(t[i], &ret));
		if (ret != (void *)(intptr_t)i)
			FAIL("thread %d returned %p", i, ret);
	}
	CHECK_EQ(sum, (long)n * (n - 1) / 2);
}

/* Samples have a guard and a stack of the size that was asked for. */
static void check_stacks(int n, pthread_t *t)
{
	for (int i = 0; i < n; i += n / 10) {
		pthread_attr_t attr;
		size_t size = 0, guard = 0;

		CHECK_EQ(pthread_getattr_np(t[i], &attr), 0);
		pthread_attr_getstacksize(&attr, &size);
		pthread_attr_getguardsize(&attr, &guard);
		pthread_attr_destroy(&attr);
		CHECK(guard >= 4096);
		CHECK(size >= 1 << 20);
	}
}

static void three_rounds(void)
{
	int n = scale(1000, 100000);
	pthread_t *t = malloc(n * sizeof *t);
	long before, after[3];

	memset(t, 0, n * sizeof *t);
	/* The scheduler is there before the count begins. */
	one_round(10, t);
	end_round(10, t);
	before = rss_kib();
	for (int round = 0; round < 3; round++) {
		int64_t start = now_ms();
		one_round(n, t);
		int64_t blocked = now_ms();
		long peak = rss_kib();
		check_goroutines(n);
		if (under_shim() && kernel_threads() > 100)
			FAIL("%d kernel threads for %d blocked threads", kernel_threads(), n);
		check_stacks(n, t);
		end_round(n, t);
		int64_t joined = now_ms();
		/* What is given back lazily has some seconds. */
		for (int i = 0; i < 100; i++) {
			after[round] = rss_kib();
			if (after[round] <= before + 32 * 1024)
				break;
			sleep_ms(100);
		}
		say("%d threads blocked in %lld ms, released and joined in %lld ms; RSS %ld KiB, blocked %ld KiB, "
		    "after %ld KiB",
		    n, (long long)(blocked - start), (long long)(joined - blocked), before, peak,
		    after[round]);
	}
	if (after[2] > before + 32 * 1024)
		FAIL("RSS %ld KiB before, %ld KiB after three rounds", before, after[2]);
	if (after[2] > after[0] + 8 * 1024)
		FAIL("RSS grows from round to round: %ld, %ld, %ld KiB", after[0], after[1],
		     after[2]);
	free(t);
}

/* Create and join in cycles: memory stays as it is. */
static void *touch(void *arg)
{
	volatile char pad[20000];

	for (unsigned i = 0; i < sizeof pad; i += 1000)
		pad[i] = 1;
	free(malloc(500));
	return arg;
}

static void cycles_do_not_grow(void)
{
	long rss[2] = {0};

	for (int phase = 0; phase < 2; phase++) {
		for (int i = 0; i < scale(2000, 50000); i++)
			join(spawn(touch, NULL));
		rss[phase] = rss_kib();
	}
	if (rss[1] > rss[0] + 2048)
		FAIL("RSS grows with create and join: %ld to %ld KiB", rss[0], rss[1]);
}

static const struct test_case cases[] = {
    {"cycles_do_not_grow", cycles_do_not_grow},
    {"three_rounds", three_rounds},
};

TEST_MAIN(cases)
