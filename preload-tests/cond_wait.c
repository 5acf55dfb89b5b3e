/*
 * Condition variables: waits end by signal or broadcast, nobody is forgotten, the mutex is owned
 * again afterwards, and the variable may be destroyed as soon as everybody has been told.
 */
#include "test.h"

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static int waiting, tokens, woken;

static void *take_token(void *arg)
{
	pthread_mutex_lock(&m);
	waiting++;
	while (tokens == 0)
		CHECK_EQ(pthread_cond_wait(&c, &m), 0);
	tokens--;
	woken++;
	pthread_mutex_unlock(&m);
	return arg;
}

static void all_wait(int n)
{
	for (;;) {
		pthread_mutex_lock(&m);
		int now = waiting;
		pthread_mutex_unlock(&m);
		if (now == n)
			return;
		sleep_ms(1);
	}
}

static void signal_wakes_each(void)
{
	enum { N = 200 };
	pthread_t t[N];

	waiting = tokens = woken = 0;
	for (int i = 0; i < N; i++)
		t[i] = spawn(take_token, NULL);
	all_wait(N);
	check_goroutines(N);
	for (int i = 0; i < N; i++) {
		pthread_mutex_lock(&m);
		tokens++;
		if (i & 1)
			pthread_cond_signal(&c);
		pthread_mutex_unlock(&m);
		if (!(i & 1))
			pthread_cond_signal(&c);
	}
	for (int i = 0; i < N; i++)
		join(t[i]);
	CHECK_EQ(woken, N);
	CHECK_EQ(tokens, 0);
}

static void broadcast_wakes_all(void)
{
	enum { N = 200 };
	pthread_t t[N];

	for (int round = 0; round < 3; round++) {
		waiting = tokens = woken = 0;
		for (int i = 0; i < N; i++)
			t[i] = spawn(take_token, NULL);
		all_wait(N);
		pthread_mutex_lock(&m);
		tokens = N;
		pthread_cond_broadcast(&c);
		pthread_mutex_unlock(&m);
		for (int i = 0; i < N; i++)
			join(t[i]);
		CHECK_EQ(woken, N);
	}
}

static void signal_without_waiters_is_lost(void)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, 30);

	for (int i = 0; i < 100; i++) {
		CHECK_EQ(pthread_cond_signal(&c), 0);
		CHECK_EQ(pthread_cond_broadcast(&c), 0);
	}
	pthread_mutex_lock(&m);
	CHECK_EQ(pthread_cond_timedwait(&c, &m, &ts), ETIMEDOUT);
	pthread_mutex_unlock(&m);
}

/* Two threads that hand one token to and fro. */
static int turn;

static void *ping(void *arg)
{
	int me = (int)(intptr_t)arg;

	for (int i = 0; i < 5000; i++) {
		pthread_mutex_lock(&m);
		while (turn != me)
			pthread_cond_wait(&c, &m);
		turn = !me;
		pthread_cond_signal(&c);
		pthread_mutex_unlock(&m);
	}
	return NULL;
}

static void ping_pong(void)
{
	turn = 0;
	pthread_t a = spawn(ping, (void *)0), b = spawn(ping, (void *)1);
	join(a);
	join(b);
}

/* A bounded queue of many producers and consumers: what goes in comes out, once. */
enum { ITEMS = 2000, SIDES = 10 };
static pthread_cond_t not_empty = PTHREAD_COND_INITIALIZER, not_full = PTHREAD_COND_INITIALIZER;
static int queue[8], head, fill;

static void *produce(void *arg)
{
	for (int i = 0; i < ITEMS; i++) {
		pthread_mutex_lock(&m);
		while (fill == (int)COUNT(queue))
			pthread_cond_wait(&not_full, &m);
		queue[(head + fill++) % COUNT(queue)] = (int)(intptr_t)arg * ITEMS + i;
		pthread_cond_signal(&not_empty);
		pthread_mutex_unlock(&m);
	}
	return NULL;
}

static void *consume(void *arg)
{
	int64_t sum = 0;

	(void)arg;
	for (int i = 0; i < ITEMS; i++) {
		pthread_mutex_lock(&m);
		while (fill == 0)
			pthread_cond_wait(&not_empty, &m);
		sum += queue[head];
		head = (head + 1) % COUNT(queue);
		fill--;
		pthread_cond_signal(&not_full);
		pthread_mutex_unlock(&m);
	}
	return (void *)(intptr_t)sum;
}

static void bounded_queue(void)
{
	pthread_t p[SIDES], q[SIDES];
	int64_t sum = 0;

	for (int i = 0; i < SIDES; i++) {
		q[i] = spawn(consume, NULL);
		p[i] = spawn(produce, (void *)(intptr_t)i);
	}
	for (int i = 0; i < SIDES; i++) {
		join(p[i]);
		sum += (intptr_t)join(q[i]);
	}
	int64_t n = (int64_t)ITEMS * SIDES;
	CHECK_EQ(sum, n * (n - 1) / 2);
	CHECK_EQ(fill, 0);
}

/* Destroyed and freed right after the broadcast, while the woken are still on their way out
 * (POSIX allows it). */
struct event {
	pthread_mutex_t *m;
	pthread_cond_t c;
	int set, inside;
};

static void *wait_event(void *arg)
{
	struct event *e = arg;
	pthread_mutex_t *lock = e->m;

	pthread_mutex_lock(lock);
	e->inside++;
	while (!e->set)
		pthread_cond_wait(&e->c, lock);
	pthread_mutex_unlock(lock);
	return NULL;
}

static void destroyed_after_broadcast(void)
{
	for (int round = 0; round < 200; round++) {
		struct event *e = malloc(sizeof *e);
		pthread_t t[6];

		e->m = &m;
		pthread_cond_init(&e->c, NULL);
		e->set = e->inside = 0;
		for (unsigned i = 0; i < COUNT(t); i++)
			t[i] = spawn(wait_event, e);
		for (;;) {
			pthread_mutex_lock(&m);
			if (e->inside == (int)COUNT(t))
				break;
			pthread_mutex_unlock(&m);
			sched_yield();
		}
		e->set = 1;
		pthread_cond_broadcast(&e->c);
		pthread_mutex_unlock(&m);
		/* Blocks until the woken have left, then the memory is ours. e->set is read
		 * under m by them: keep it. */
		CHECK_EQ(pthread_cond_destroy(&e->c), 0);
		memset(&e->c, 0xff, sizeof e->c);
		for (unsigned i = 0; i < COUNT(t); i++)
			join(t[i]);
		free(e);
	}
}

/* Owned again after the wait, by an errorcheck mutex that knows. */
static pthread_mutex_t checked = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
static int go;

static void *wait_checked(void *arg)
{
	CHECK_EQ(pthread_mutex_lock(&checked), 0);
	while (!go)
		CHECK_EQ(pthread_cond_wait(&c, &checked), 0);
	CHECK_EQ(pthread_mutex_lock(&checked), EDEADLK);
	CHECK_EQ(pthread_mutex_unlock(&checked), 0);
	CHECK_EQ(pthread_mutex_unlock(&checked), EPERM);
	return arg;
}

static void mutex_is_owned_again(void)
{
	pthread_t t[10];

	go = 0;
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(wait_checked, NULL);
	sleep_ms(20);
	pthread_mutex_lock(&checked);
	go = 1;
	pthread_cond_broadcast(&c);
	pthread_mutex_unlock(&checked);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static void wait_without_owning(void)
{
	CHECK_EQ(pthread_cond_wait(&c, &checked), EPERM);
	struct timespec ts = after_ms(CLOCK_REALTIME, 10);
	CHECK_EQ(pthread_cond_timedwait(&c, &checked, &ts), EPERM);
}

/* A recursive mutex held once: wait must release it. */
static void *wait_recursive(void *arg)
{
	static pthread_mutex_t rec = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

	(void)arg;
	pthread_mutex_lock(&rec);
	struct timespec ts = after_ms(CLOCK_REALTIME, 20);
	CHECK_EQ(pthread_cond_timedwait(&c, &rec, &ts), ETIMEDOUT);
	CHECK_EQ(pthread_mutex_unlock(&rec), 0);
	CHECK_EQ(pthread_mutex_unlock(&rec), EPERM);
	return NULL;
}

static void recursive_mutex(void)
{
	join(spawn(wait_recursive, NULL));
}

static const struct test_case cases[] = {
    {"signal_wakes_each", signal_wakes_each},
    {"broadcast_wakes_all", broadcast_wakes_all},
    {"signal_without_waiters_is_lost", signal_without_waiters_is_lost},
    {"ping_pong", ping_pong},
    {"bounded_queue", bounded_queue},
    {"destroyed_after_broadcast", destroyed_after_broadcast},
    {"mutex_is_owned_again", mutex_is_owned_again},
    {"wait_without_owning", wait_without_owning},
    {"recursive_mutex", recursive_mutex},
};

TEST_MAIN(cases)
