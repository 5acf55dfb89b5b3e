/*
 * Circles of locks that open again, and what only looks like one: all of it goes on, and nobody may say that it doesn't.
 */
#include "near.h"

/* --- cycles that open again ----------------------------------------------------------- */

typedef struct Pair {
	pthread_mutex_t a, b;
	pthread_barrier_t both;
	int rounds, timeouts;
} Pair;

static void pair_init(Pair *p, int rounds)
{
	memset(p, 0, sizeof *p);
	pthread_mutex_init(&p->a, NULL);
	pthread_mutex_init(&p->b, NULL);
	pthread_barrier_init(&p->both, NULL, 2);
	p->rounds = rounds;
}

static void *untimed_half(void *arg)
{
	Pair *p = arg;

	for (int i = 0; i < p->rounds; i++) {
		pthread_mutex_lock(&p->a);
		pthread_barrier_wait(&p->both);
		pthread_mutex_lock(&p->b);
		pthread_mutex_unlock(&p->b);
		pthread_mutex_unlock(&p->a);
		pthread_barrier_wait(&p->both);
	}
	return NULL;
}

static void *timed_half(void *arg)
{
	Pair *p = arg;

	for (int i = 0; i < p->rounds; i++) {
		struct timespec end;

		pthread_mutex_lock(&p->b);
		pthread_barrier_wait(&p->both);
		end = after_ms(CLOCK_REALTIME, 20);
		int r = pthread_mutex_timedlock(&p->a, &end);
		CHECK_EQ(r, ETIMEDOUT);
		if (r == 0)
			pthread_mutex_unlock(&p->a);
		pthread_mutex_unlock(&p->b);
		pthread_barrier_wait(&p->both);
	}
	return NULL;
}

static void one_waits_with_a_deadline(void)
{
	Pair p;

	pair_init(&p, 10);
	pthread_t t = spawn(untimed_half, &p);
	timed_half(&p);
	join(t);
	quiet();
}

static pthread_rwlock_t book = PTHREAD_RWLOCK_INITIALIZER;

static void *rw_untimed(void *arg)
{
	Pair *p = arg;

	for (int i = 0; i < p->rounds; i++) {
		pthread_mutex_lock(&p->a);
		pthread_barrier_wait(&p->both);
		if (i % 2)
			pthread_rwlock_rdlock(&book);
		else
			pthread_rwlock_wrlock(&book);
		pthread_rwlock_unlock(&book);
		pthread_mutex_unlock(&p->a);
		pthread_barrier_wait(&p->both);
	}
	return NULL;
}

static void one_writes_with_a_deadline(void)
{
	Pair p;

	pair_init(&p, 10);
	pthread_t t = spawn(rw_untimed, &p);
	for (int i = 0; i < p.rounds; i++) {
		struct timespec end;

		pthread_rwlock_wrlock(&book);
		pthread_barrier_wait(&p.both);
		end = after_ms(CLOCK_MONOTONIC, 20);
		CHECK_EQ(pthread_mutex_clocklock(&p.a, CLOCK_MONOTONIC, &end), ETIMEDOUT);
		pthread_rwlock_unlock(&book);
		pthread_barrier_wait(&p.both);
	}
	join(t);
	quiet();
}

static void *rw_timed(void *arg)
{
	Pair *p = arg;

	for (int i = 0; i < p->rounds; i++) {
		struct timespec end;

		pthread_mutex_lock(&p->a);
		pthread_barrier_wait(&p->both);
		end = after_ms(CLOCK_MONOTONIC, 20);
		if (i % 2)
			CHECK_EQ(pthread_rwlock_clockrdlock(&book, CLOCK_MONOTONIC, &end),
				 ETIMEDOUT);
		else
			CHECK_EQ(pthread_rwlock_clockwrlock(&book, CLOCK_MONOTONIC, &end),
				 ETIMEDOUT);
		pthread_mutex_unlock(&p->a);
		pthread_barrier_wait(&p->both);
	}
	return NULL;
}

static void one_waits_for_a_book_with_a_deadline(void)
{
	Pair p;

	pair_init(&p, 10);
	pthread_t t = spawn(rw_timed, &p);
	for (int i = 0; i < p.rounds; i++) {
		pthread_rwlock_wrlock(&book);
		pthread_barrier_wait(&p.both);
		pthread_mutex_lock(&p.a);
		pthread_mutex_unlock(&p.a);
		pthread_rwlock_unlock(&book);
		pthread_barrier_wait(&p.both);
	}
	join(t);
	quiet();
}

/* Philosophers who give the first fork back when the second is taken, and some who take forks in order. */
enum { PHILOSOPHERS = 7 };
static pthread_mutex_t forks[PHILOSOPHERS];
static volatile int stop;
static long meals[PHILOSOPHERS];

static void *dines(void *arg)
{
	int self = (int)(intptr_t)arg;
	pthread_mutex_t *left = &forks[self], *right = &forks[(self + 1) % PHILOSOPHERS];
	pthread_mutex_t *low = left < right ? left : right, *high = left < right ? right : left;

	while (!stop) {
		if (self % 2) {
			pthread_mutex_lock(low);
			pthread_mutex_lock(high);
		} else {
			pthread_mutex_lock(left);
			if (pthread_mutex_trylock(right) != 0) {
				pthread_mutex_unlock(left);
				sched_yield();
				continue;
			}
		}
		meals[self]++;
		if (meals[self] % 64 == 0)
			sched_yield(); /* with both forks */
		pthread_mutex_unlock(left);
		pthread_mutex_unlock(right);
	}
	return NULL;
}

static void philosophers(void)
{
	const char *mode = getenv("GOSHIM_TEST_MODE");
	pthread_t t[PHILOSOPHERS];
	long all = 0;

	stop = 0;
	for (int i = 0; i < PHILOSOPHERS; i++)
		pthread_mutex_init(&forks[i], NULL);
	for (int i = 0; i < PHILOSOPHERS; i++)
		t[i] = spawn(dines, (void *)(intptr_t)i);
	sleep_ms(mode && strcmp(mode, "storm") == 0 ? 10000 : 1000);
	stop = 1;
	for (int i = 0; i < PHILOSOPHERS; i++) {
		join(t[i]);
		all += meals[i];
	}
	say("%ld meals", all);
	CHECK(all > 1000);
	quiet();
}

/* Both orders of two locks, kept apart by a third. */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static Pair inner;

static void *inverts(void *arg)
{
	pthread_mutex_t *first = arg ? &inner.a : &inner.b, *second = arg ? &inner.b : &inner.a;

	for (int i = 0; i < 20000; i++) {
		pthread_mutex_lock(&gate);
		pthread_mutex_lock(first);
		pthread_mutex_lock(second);
		pthread_mutex_unlock(&gate);
		pthread_mutex_unlock(second);
		pthread_mutex_unlock(first);
	}
	return NULL;
}

static void inversion_behind_a_gate(void)
{
	pthread_t t[4];

	pair_init(&inner, 0);
	for (int i = 0; i < 4; i++)
		t[i] = spawn(inverts, i % 2 ? &inner : NULL);
	for (int i = 0; i < 4; i++)
		join(t[i]);
	quiet();
}

/* --- locks that others unlock ----------------------------------------------------------- */

static pthread_mutex_t given = PTHREAD_MUTEX_INITIALIZER, taken = PTHREAD_MUTEX_INITIALIZER;

static void *gives(void *arg)
{
	for (int i = 0; i < 100; i++) {
		sleep_ms(i < 3 ? 20 : 0);
		pthread_mutex_unlock(&given);
		pthread_mutex_lock(&taken);
	}
	return arg;
}

/* Two mutexes as semaphores: who waits locks what it has locked itself. Nobody knows yet what this program does
 * with mutexes. */
static void mutexes_as_signals(void)
{
	pthread_mutex_lock(&given);
	pthread_mutex_lock(&taken);
	pthread_t t = spawn(gives, NULL);
	for (int i = 0; i < 100; i++) {
		pthread_mutex_lock(&given);
		if (i % 10 == 0)
			sleep_ms(2);
		pthread_mutex_unlock(&taken);
	}
	join(t);
	pthread_mutex_unlock(&given);
	pthread_mutex_unlock(&taken);
	quiet();
}

static Pair crossed;

static void *crosses(void *arg)
{
	pthread_mutex_lock(arg ? &crossed.a : &crossed.b);
	pthread_barrier_wait(&crossed.both);
	pthread_mutex_lock(arg ? &crossed.b : &crossed.a);
	return NULL;
}

/* A true circle, which somebody else opens: by then the program is known to do that. */
static void opened_by_a_third(void)
{
	pthread_t t[2];

	mutexes_as_signals();
	pair_init(&crossed, 0);
	for (int i = 0; i < 2; i++)
		t[i] = spawn(crosses, i ? &crossed : NULL);
	sleep_ms(ASLEEP);
	pthread_mutex_unlock(&crossed.a);
	pthread_mutex_unlock(&crossed.b);
	join(t[0]);
	join(t[1]);
	quiet();
}

/* --- owners that are gone ------------------------------------------------------------------ */

static pthread_mutex_t left_locked[200];

static void *locks_and_ends(void *arg)
{
	pthread_mutex_lock(arg);
	return NULL;
}

/* Of a lock whose owner has ended nobody says that some later thread has it. */
static void *waits_for_the_dead(void *arg)
{
	pthread_mutex_lock(&gate);
	struct timespec end = after_ms(CLOCK_REALTIME, 1);
	CHECK_EQ(pthread_mutex_timedlock(arg, &end), ETIMEDOUT);
	pthread_mutex_unlock(&gate);
	return NULL;
}

static void owners_end(void)
{
	pthread_t t[10];

	for (size_t i = 0; i < COUNT(left_locked); i++) {
		pthread_mutex_init(&left_locked[i], NULL);
		join(spawn(locks_and_ends, &left_locked[i]));
	}
	for (size_t i = 0; i < COUNT(left_locked); i += COUNT(t)) {
		for (size_t k = 0; k < COUNT(t); k++)
			t[k] = spawn(waits_for_the_dead, &left_locked[i + k]);
		for (size_t k = 0; k < COUNT(t); k++)
			join(t[k]);
	}
	quiet();
}

/* --- kinds that say so themselves --------------------------------------------------------------- */

static void *again(void *arg)
{
	pthread_mutexattr_t a;
	pthread_mutex_t m;

	pthread_mutexattr_init(&a);
	pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&m, &a);
	for (int i = 0; i < 1000; i++)
		CHECK_EQ(pthread_mutex_lock(&m), 0);
	for (int i = 0; i < 1000; i++)
		CHECK_EQ(pthread_mutex_unlock(&m), 0);
	CHECK_EQ(pthread_mutex_unlock(&m), EPERM);
	pthread_mutexattr_settype(&a, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&m, &a);
	CHECK_EQ(pthread_mutex_lock(&m), 0);
	CHECK_EQ(pthread_mutex_lock(&m), EDEADLK);
	CHECK_EQ(pthread_mutex_unlock(&m), 0);
	CHECK_EQ(pthread_rwlock_wrlock(&book), 0);
	CHECK_EQ(pthread_rwlock_wrlock(&book), EDEADLK);
	CHECK_EQ(pthread_rwlock_rdlock(&book), EDEADLK);
	CHECK_EQ(pthread_rwlock_unlock(&book), 0);
	return arg;
}

static void relocked(void)
{
	again(NULL);
	join(spawn(again, NULL));
	quiet();
}

/* --- conditions ---------------------------------------------------------------------------------- */

static struct {
	pthread_mutex_t m;
	pthread_cond_t filled, emptied;
	int n;
} queue = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};

static void *produces(void *arg)
{
	for (int i = 0; i < 20000; i++) {
		pthread_mutex_lock(&queue.m);
		while (queue.n == 3)
			pthread_cond_wait(&queue.emptied, &queue.m);
		queue.n++;
		pthread_cond_signal(&queue.filled);
		pthread_mutex_unlock(&queue.m);
	}
	return arg;
}

static void *consumes(void *arg)
{
	for (int i = 0; i < 20000; i++) {
		pthread_mutex_lock(&queue.m);
		while (queue.n == 0)
			pthread_cond_wait(&queue.filled, &queue.m);
		queue.n--;
		pthread_cond_signal(&queue.emptied);
		pthread_mutex_unlock(&queue.m);
	}
	return arg;
}

static void a_queue(void)
{
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		t[i] = spawn(i % 2 ? produces : consumes, NULL);
	for (int i = 0; i < 4; i++)
		join(t[i]);
	quiet();
}

/* --- cancellation at any moment ---------------------------------------------------------------------- */

static Pair async;

static void unlocks(void *m)
{
	pthread_mutex_unlock(m);
}

static void *cancelled_with_a(void *arg)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	pthread_mutex_lock(&async.a);
	pthread_cleanup_push(unlocks, &async.a);
	pthread_barrier_wait(&async.both);
	pthread_mutex_lock(&async.b);
	pthread_mutex_unlock(&async.b);
	pthread_cleanup_pop(1);
	return arg;
}

static void *outlives(void *arg)
{
	pthread_mutex_lock(&async.b);
	pthread_barrier_wait(&async.both);
	pthread_mutex_lock(&async.a);
	pthread_mutex_unlock(&async.a);
	pthread_mutex_unlock(&async.b);
	return arg;
}

static void cancelled_asynchronously(void)
{
	pair_init(&async, 0);
	pthread_t victim = spawn(cancelled_with_a, NULL), other = spawn(outlives, NULL);

	sleep_ms(ASLEEP);
	pthread_cancel(victim);
	join(victim);
	join(other);
	quiet();
}

ALONE(mutexes_as_signals)
ALONE(opened_by_a_third)
ALONE(one_waits_with_a_deadline)
ALONE(one_writes_with_a_deadline)
ALONE(one_waits_for_a_book_with_a_deadline)
ALONE(philosophers)
ALONE(inversion_behind_a_gate)
ALONE(owners_end)
ALONE(relocked)
ALONE(a_queue)
ALONE(cancelled_asynchronously)

static const struct test_case cases[] = {
    {"mutexes_as_signals", mutexes_as_signals_alone},
    {"opened_by_a_third", opened_by_a_third_alone},
    {"one_waits_with_a_deadline", one_waits_with_a_deadline_alone},
    {"one_writes_with_a_deadline", one_writes_with_a_deadline_alone},
    {"one_waits_for_a_book_with_a_deadline", one_waits_for_a_book_with_a_deadline_alone},
    {"philosophers", philosophers_alone},
    {"inversion_behind_a_gate", inversion_behind_a_gate_alone},
    {"owners_end", owners_end_alone},
    {"relocked", relocked_alone},
    {"a_queue", a_queue_alone},
    {"cancelled_asynchronously", cancelled_asynchronously_alone},
};
NEAR_MAIN(cases)
