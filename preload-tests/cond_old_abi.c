/*
 * Condition variables by their first ABI: pthread_cond_*@GLIBC_2.2.5 took a pointer's worth of
 * memory. Old binaries still call it, and dlsym without a version has been known to find it.
 */
#include "test.h"

typedef struct {
	void *cond;
} old_cond_t;

int old_init(old_cond_t *, const pthread_condattr_t *);
int old_destroy(old_cond_t *);
int old_signal(old_cond_t *);
int old_broadcast(old_cond_t *);
int old_wait(old_cond_t *, pthread_mutex_t *);
int old_timedwait(old_cond_t *, pthread_mutex_t *, const struct timespec *);

__asm__(".symver old_init, pthread_cond_init@GLIBC_2.2.5");
__asm__(".symver old_destroy, pthread_cond_destroy@GLIBC_2.2.5");
__asm__(".symver old_signal, pthread_cond_signal@GLIBC_2.2.5");
__asm__(".symver old_broadcast, pthread_cond_broadcast@GLIBC_2.2.5");
__asm__(".symver old_wait, pthread_cond_wait@GLIBC_2.2.5");
__asm__(".symver old_timedwait, pthread_cond_timedwait@GLIBC_2.2.5");

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;

/* What lies beyond the pointer must stay as it is. */
static struct {
	old_cond_t c;
	unsigned char beyond[sizeof(pthread_cond_t)];
} o;
static int tokens, taken;

static void *take_token(void *arg)
{
	pthread_mutex_lock(&m);
	while (tokens == 0)
		CHECK_EQ(old_wait(&o.c, &m), 0);
	tokens--;
	taken++;
	pthread_mutex_unlock(&m);
	return arg;
}

static void use(void)
{
	enum { N = 100 };
	pthread_t t[N];

	tokens = taken = 0;
	for (int i = 0; i < N; i++)
		t[i] = spawn(take_token, NULL);
	sleep_ms(20);
	check_goroutines(N);
	for (int i = 0; i < N / 2; i++) {
		pthread_mutex_lock(&m);
		tokens++;
		CHECK_EQ(old_signal(&o.c), 0);
		pthread_mutex_unlock(&m);
	}
	pthread_mutex_lock(&m);
	tokens += N - N / 2;
	CHECK_EQ(old_broadcast(&o.c), 0);
	pthread_mutex_unlock(&m);
	for (int i = 0; i < N; i++)
		join(t[i]);
	CHECK_EQ(taken, N);
	pthread_mutex_lock(&m);
	struct timespec ts = after_ms(CLOCK_REALTIME, 20);
	CHECK_EQ(old_timedwait(&o.c, &m, &ts), ETIMEDOUT);
	pthread_mutex_unlock(&m);
	for (unsigned i = 0; i < sizeof o.beyond; i++)
		CHECK_EQ(o.beyond[i], 0xa5);
}

static void initialised(void)
{
	memset(&o, 0xa5, sizeof o);
	CHECK_EQ(old_init(&o.c, NULL), 0);
	use();
	CHECK_EQ(old_destroy(&o.c), 0);
}

static void static_initialiser(void)
{
	memset(&o, 0xa5, sizeof o);
	o.c.cond = NULL;
	use();
	CHECK_EQ(old_destroy(&o.c), 0);
}

/* First used by many at once. */
static void *signal_first(void *arg)
{
	CHECK_EQ(old_broadcast(arg), 0);
	return NULL;
}

static void first_use_races(void)
{
	for (int round = 0; round < 200; round++) {
		old_cond_t c = {NULL};
		pthread_t t[4];

		for (unsigned i = 0; i < COUNT(t); i++)
			t[i] = spawn(signal_first, &c);
		for (unsigned i = 0; i < COUNT(t); i++)
			join(t[i]);
		CHECK_EQ(old_destroy(&c), 0);
	}
}

static const struct test_case cases[] = {
    {"initialised", initialised},
    {"static_initialiser", static_initialiser},
    {"first_use_races", first_use_races},
};

TEST_MAIN(cases)
