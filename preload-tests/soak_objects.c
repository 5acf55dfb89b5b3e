/*
 * A crowd of 64 threads on each kind of lock and counter, with something that must be true all along: exclusion,
 * tokens and items neither lost nor made, rounds that do not mix.
 */
#include "soak.h"

#include <semaphore.h>

/* Nobody else is inside; counts, without an atomic instruction. */
static void alone(int *inside, long *count, unsigned *seed)
{
	CHECK_EQ(__atomic_exchange_n(inside, 1, __ATOMIC_RELAXED), 0);
	long n = *count;
	dawdle(seed);
	*count = n + 1;
	CHECK_EQ(__atomic_exchange_n(inside, 0, __ATOMIC_RELAXED), 1);
}

/* --- mutexes ----------------------------------------------------------------------------------- */

static struct locked {
	pthread_mutex_t m;
	int inside;
	long count;
	int64_t times;
} locks[4];

static void *lock_random(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg;
	int64_t times[COUNT(locks)] = {0}, n = 0;

	for (; running(); n++) {
		unsigned i = rnd(&seed) % COUNT(locks);
		struct locked *l = &locks[i];
		struct timespec ts = within_us(rnd(&seed) % 300);
		int r;

		switch (rnd(&seed) % 4) {
		case 0: r = pthread_mutex_trylock(&l->m); break;
		case 1: r = pthread_mutex_clocklock(&l->m, CLOCK_MONOTONIC, &ts); break;
		default: r = pthread_mutex_lock(&l->m);
		}
		if (r != 0) {
			CHECK(r == EBUSY || r == ETIMEDOUT);
			continue;
		}
		alone(&l->inside, &l->count, &seed);
		times[i]++;
		CHECK_EQ(pthread_mutex_unlock(&l->m), 0);
	}
	for (unsigned i = 0; i < COUNT(locks); i++)
		add(&locks[i].times, times[i]);
	add(&ops, n);
	return NULL;
}

static void mutexes(void)
{
	for (unsigned i = 0; i < COUNT(locks); i++) {
		pthread_mutexattr_t a;

		pthread_mutexattr_init(&a);
		pthread_mutexattr_settype(&a, (int)i); /* all four */
		memset(&locks[i], 0, sizeof locks[i]);
		REQUIRE_OK(pthread_mutex_init(&locks[i].m, &a));
	}
	crowd(lock_random);
	for (unsigned i = 0; i < COUNT(locks); i++) {
		CHECK_EQ(locks[i].count, locks[i].times);
		CHECK_EQ(pthread_mutex_destroy(&locks[i].m), 0);
	}
}

/* --- conditions -------------------------------------------------------------------------------- */

/* A queue with room for a few: what goes in comes out, and nobody waits for what is there. */
static pthread_mutex_t queue_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t not_empty = PTHREAD_COND_INITIALIZER, not_full = PTHREAD_COND_INITIALIZER;
static int queue[5], head, fill, producers;
static int64_t in, out;

static int wait_cond(pthread_cond_t *c, unsigned *seed)
{
	struct timespec ts = within_us(rnd(seed) % 2000);

	if (rnd(seed) % 4)
		return pthread_cond_wait(c, &queue_lock);
	return pthread_cond_clockwait(c, &queue_lock, CLOCK_MONOTONIC, &ts);
}

static void tell(pthread_cond_t *c, unsigned *seed)
{
	if (rnd(seed) % 8)
		pthread_cond_signal(c);
	else
		pthread_cond_broadcast(c);
}

static void *produce(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg;
	int64_t sum = 0, n = 0;

	for (; running(); n++) {
		int item = (int)rnd(&seed);
		int early = rnd(&seed) % 2;

		pthread_mutex_lock(&queue_lock);
		while (fill == COUNT(queue))
			wait_cond(&not_full, &seed);
		queue[(head + fill++) % COUNT(queue)] = item;
		if (early)
			tell(&not_empty, &seed);
		pthread_mutex_unlock(&queue_lock);
		if (!early)
			tell(&not_empty, &seed);
		sum += item;
		if (n % 32 == 0)
			dawdle(&seed);
	}
	pthread_mutex_lock(&queue_lock);
	producers--;
	pthread_cond_broadcast(&not_empty);
	pthread_mutex_unlock(&queue_lock);
	add(&in, sum);
	add(&ops, n);
	return NULL;
}

static void *consume(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg;
	int64_t sum = 0;

	for (;;) {
		pthread_mutex_lock(&queue_lock);
		while (fill == 0 && producers > 0)
			wait_cond(&not_empty, &seed);
		if (fill == 0)
			break;
		CHECK(fill > 0 && fill <= (int)COUNT(queue));
		sum += queue[head];
		head = (head + 1) % COUNT(queue);
		fill--;
		tell(&not_full, &seed);
		pthread_mutex_unlock(&queue_lock);
	}
	pthread_mutex_unlock(&queue_lock);
	add(&out, sum);
	return NULL;
}

static void *produce_or_consume(void *arg)
{
	return (intptr_t)arg % 2 ? produce(arg) : consume(arg);
}

static void conditions(void)
{
	producers = CROWD / 2;
	in = out = fill = 0;
	crowd(produce_or_consume);
	CHECK_EQ(in, out);
	CHECK_EQ(fill, 0);
}

/* --- read-write locks -------------------------------------------------------------------------- */

static struct guarded {
	pthread_rwlock_t l;
	long a, b;
	int writing, reading;
	int64_t times;
} guarded[3];

static void *read_or_write(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg;
	int64_t times[COUNT(guarded)] = {0}, n = 0;

	for (; running(); n++) {
		unsigned i = rnd(&seed) % COUNT(guarded);
		struct guarded *g = &guarded[i];
		struct timespec ts = within_us(rnd(&seed) % 300);
		int write = rnd(&seed) % 4 == 0, r;

		switch (rnd(&seed) % 4) {
		case 0:
			r = write ? pthread_rwlock_trywrlock(&g->l)
				  : pthread_rwlock_tryrdlock(&g->l);
			break;
		case 1:
			r = write ? pthread_rwlock_clockwrlock(&g->l, CLOCK_MONOTONIC, &ts)
				  : pthread_rwlock_clockrdlock(&g->l, CLOCK_MONOTONIC, &ts);
			break;
		default: r = write ? pthread_rwlock_wrlock(&g->l) : pthread_rwlock_rdlock(&g->l);
		}
		if (r != 0) {
			CHECK(r == EBUSY || r == ETIMEDOUT);
			continue;
		}
		if (write) {
			CHECK_EQ(__atomic_load_n(&g->reading, __ATOMIC_RELAXED), 0);
			alone(&g->writing, &g->a, &seed);
			g->b++;
			times[i]++;
		} else {
			__atomic_add_fetch(&g->reading, 1, __ATOMIC_RELAXED);
			CHECK_EQ(__atomic_load_n(&g->writing, __ATOMIC_RELAXED), 0);
			long a = g->a;
			dawdle(&seed);
			CHECK_EQ(g->b, a);
			__atomic_sub_fetch(&g->reading, 1, __ATOMIC_RELAXED);
		}
		CHECK_EQ(pthread_rwlock_unlock(&g->l), 0);
	}
	for (unsigned i = 0; i < COUNT(guarded); i++)
		add(&guarded[i].times, times[i]);
	add(&ops, n);
	return NULL;
}

static void rwlocks(void)
{
	for (unsigned i = 0; i < COUNT(guarded); i++) {
		pthread_rwlockattr_t a;

		pthread_rwlockattr_init(&a);
		pthread_rwlockattr_setkind_np(&a, (int)i);
		memset(&guarded[i], 0, sizeof guarded[i]);
		REQUIRE_OK(pthread_rwlock_init(&guarded[i].l, &a));
	}
	crowd(read_or_write);
	for (unsigned i = 0; i < COUNT(guarded); i++) {
		CHECK_EQ(guarded[i].a, guarded[i].times);
		CHECK_EQ(guarded[i].b, guarded[i].times);
		CHECK_EQ(pthread_rwlock_trywrlock(&guarded[i].l), 0);
		CHECK_EQ(pthread_rwlock_unlock(&guarded[i].l), 0);
	}
}

/* --- semaphores -------------------------------------------------------------------------------- */

enum { TOKENS = 5 };
static sem_t tokens;
static int holders;

static void *take_and_give(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg;
	int64_t n = 0;

	for (; running(); n++) {
		struct timespec ts = within_us(rnd(&seed) % 300);
		int r;

		switch (rnd(&seed) % 4) {
		case 0: r = sem_trywait(&tokens); break;
		case 1: r = sem_clockwait(&tokens, CLOCK_MONOTONIC, &ts); break;
		default: r = sem_wait(&tokens);
		}
		if (r != 0) {
			CHECK(errno == EAGAIN || errno == ETIMEDOUT);
			continue;
		}
		CHECK(__atomic_add_fetch(&holders, 1, __ATOMIC_SEQ_CST) <= TOKENS);
		dawdle(&seed);
		__atomic_sub_fetch(&holders, 1, __ATOMIC_SEQ_CST);
		CHECK_EQ(sem_post(&tokens), 0);
	}
	add(&ops, n);
	return NULL;
}

static void semaphores(void)
{
	for (int shared = 0; shared < 2; shared++) {
		int v = -1;

		REQUIRE(sem_init(&tokens, shared, TOKENS) == 0);
		holders = 0;
		crowd(take_and_give);
		CHECK_EQ(sem_getvalue(&tokens, &v), 0);
		CHECK_EQ(v, TOKENS);
	}
}

/* --- barriers ---------------------------------------------------------------------------------- */

enum { GROUP = 8 };
static struct group {
	pthread_barrier_t b;
	int64_t at[GROUP]; /* each thread's round */
	int64_t serial;
	int last;
} groups[CROWD / GROUP];

static void *go_round(void *arg)
{
	int me = (int)(intptr_t)arg - 1, place = me % GROUP;
	struct group *g = &groups[me / GROUP];
	unsigned seed = (unsigned)me + 1;
	int64_t n = 0;

	for (;;) {
		__atomic_store_n(&g->at[place], ++n, __ATOMIC_RELAXED);
		if (rnd(&seed) % 8 == 0)
			dawdle(&seed);
		int r = pthread_barrier_wait(&g->b);
		if (r == PTHREAD_BARRIER_SERIAL_THREAD) {
			g->serial++;
			g->last = !running();
		} else {
			CHECK_EQ(r, 0);
		}
		for (int i = 0; i < GROUP; i++)
			CHECK_EQ(__atomic_load_n(&g->at[i], __ATOMIC_RELAXED), n);
		r = pthread_barrier_wait(&g->b);
		CHECK(r == 0 || r == PTHREAD_BARRIER_SERIAL_THREAD);
		if (g->last)
			break;
	}
	if (place == 0)
		CHECK_EQ(g->serial, n);
	add(&ops, n);
	return NULL;
}

static void barriers(void)
{
	memset(groups, 0, sizeof groups);
	for (unsigned i = 0; i < COUNT(groups); i++)
		REQUIRE_OK(pthread_barrier_init(&groups[i].b, NULL, GROUP));
	crowd(go_round);
	for (unsigned i = 0; i < COUNT(groups); i++)
		CHECK_EQ(pthread_barrier_destroy(&groups[i].b), 0);
}

/* --- spin locks -------------------------------------------------------------------------------- */

static struct {
	pthread_spinlock_t l;
	int inside;
	long count;
	int64_t times;
} spun[4];

static void *spin_random(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg;
	int64_t times[COUNT(spun)] = {0}, n = 0;

	for (; running(); n++) {
		unsigned i = rnd(&seed) % COUNT(spun);

		if (rnd(&seed) % 4) {
			CHECK_EQ(pthread_spin_lock(&spun[i].l), 0);
		} else {
			int r = pthread_spin_trylock(&spun[i].l);
			CHECK(r == 0 || r == EBUSY);
			if (r != 0)
				continue;
		}
		alone(&spun[i].inside, &spun[i].count, &seed);
		times[i]++;
		CHECK_EQ(pthread_spin_unlock(&spun[i].l), 0);
	}
	for (unsigned i = 0; i < COUNT(spun); i++)
		add(&spun[i].times, times[i]);
	add(&ops, n);
	return NULL;
}

static void spin_locks(void)
{
	memset(spun, 0, sizeof spun);
	for (unsigned i = 0; i < COUNT(spun); i++)
		REQUIRE_OK(pthread_spin_init(&spun[i].l, PTHREAD_PROCESS_PRIVATE));
	crowd(spin_random);
	for (unsigned i = 0; i < COUNT(spun); i++)
		CHECK_EQ(spun[i].count, spun[i].times);
}

static const struct test_case cases[] = {
    {"mutexes", mutexes},       {"conditions", conditions}, {"rwlocks", rwlocks},
    {"semaphores", semaphores}, {"barriers", barriers},     {"spin_locks", spin_locks},
};

TEST_MAIN(cases)
