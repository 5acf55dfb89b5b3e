/*
 * Asynchronous cancellation: of threads that compute, in the program's code and in libc's, that yield, that wait for a
 * lock (which leaves the lock as it was for the others), that are in a signal handler, that change their state and
 * type all the time. Each runs its handlers once.
 */
#include "test.h"

#include <semaphore.h>

static int cleaned;
static volatile int here, type;

static void clean(void *arg)
{
	(void)arg;
	__atomic_add_fetch(&cleaned, 1, __ATOMIC_RELAXED);
}

static void *run(void *what)
{
	pthread_cleanup_push(clean, NULL);
	pthread_setcanceltype(type, NULL);
	here = 1;
	((void (*)(void))what)();
	pthread_cleanup_pop(0);
	return NULL;
}

static pthread_t started(void (*what)(void))
{
	here = cleaned = 0;
	pthread_t t = spawn(run, (void *)what);
	CHECK(wait_for(&here, 1, 20000));
	return t;
}

static void cancelled(const char *name, pthread_t t)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, 30000);
	void *result = NULL;

	CHECK_EQ(pthread_cancel(t), 0);
	int r = pthread_timedjoin_np(t, &result, &ts);
	if (r != 0 || result != PTHREAD_CANCELED || cleaned != 1)
		FAIL("%s: join %d, result %p, %d handlers", name, r, result, cleaned);
	REQUIRE(r == 0);
}

/* --- computing --------------------------------------------------------------------------------- */

static void loop(void)
{
	for (;;)
		__asm__ volatile("");
}

static void yields(void)
{
	for (;;)
		sched_yield();
}

static void small_calls(void)
{
	for (;;)
		getppid();
}

static char area[1 << 20];

static void long_calls(void)
{
	for (;;) {
		memset(area, 'x', sizeof area - 1);
		if (strlen(area) != sizeof area - 1)
			abort();
	}
}

static int compare(const void *a, const void *b)
{
	return *(const char *)a - *(const char *)b;
}

static void sorts(void)
{
	static char some[1000];

	/* So few that libc does not allocate. */
	for (unsigned n = 0;; n++) {
		some[n % sizeof some] = (char)n;
		qsort(some, sizeof some, 1, compare);
	}
}

static void floats(void)
{
	volatile double x = 1;

	for (;;)
		x = x * 1.0000001 + 1e-9;
}

static const struct {
	const char *name;
	void (*what)(void);
} computing[] = {
    {"loop", loop},   {"yields", yields}, {"small calls", small_calls}, {"long calls", long_calls},
    {"sorts", sorts}, {"floats", floats},
};

static void that_compute(void)
{
	type = PTHREAD_CANCEL_ASYNCHRONOUS;
	for (unsigned i = 0; i < COUNT(computing) * 6; i++) {
		pthread_t t = started(computing[i / 6].what);
		if (i & 1)
			usleep(500 * (i % 5));
		cancelled(computing[i / 6].name, t);
	}
}

/* More of them than there are processors. */
static void many_that_compute(void)
{
	pthread_t t[12];

	type = PTHREAD_CANCEL_ASYNCHRONOUS;
	cleaned = 0;
	for (unsigned i = 0; i < COUNT(t); i++) {
		here = 0;
		t[i] = spawn(run, (void *)computing[i % COUNT(computing)].what);
		CHECK(wait_for(&here, 1, 20000));
	}
	for (unsigned i = 0; i < COUNT(t); i++)
		CHECK_EQ(pthread_cancel(t[i]), 0);
	for (unsigned i = 0; i < COUNT(t); i++)
		CHECK(join(t[i]) == PTHREAD_CANCELED);
	CHECK_EQ(cleaned, COUNT(t));
}

/* --- waiting for locks ------------------------------------------------------------------------- */

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t checked = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
static pthread_rwlock_t writers = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
static pthread_spinlock_t spin;
static pthread_once_t once;
static volatile int once_go;

static void lock(void)
{
	pthread_mutex_lock(&m);
}

static void timedlock(void)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, 600000);
	pthread_mutex_timedlock(&checked, &ts);
}

static void rdlock(void)
{
	pthread_rwlock_rdlock(&rw);
}

static void wrlock(void)
{
	pthread_rwlock_wrlock(&rw);
}

static void wrlock_first(void)
{
	pthread_rwlock_wrlock(&writers);
}

static void spin_lock(void)
{
	pthread_spin_lock(&spin);
}

static void until_go(void)
{
	while (!once_go)
		sched_yield();
}

static void call_once(void)
{
	pthread_once(&once, until_go);
}

static void *call_once_first(void *arg)
{
	call_once();
	return arg;
}

static void *take_all(void *arg)
{
	REQUIRE_OK(pthread_mutex_lock(&m));
	REQUIRE_OK(pthread_mutex_lock(&checked));
	REQUIRE_OK(pthread_rwlock_wrlock(&rw));
	REQUIRE_OK(pthread_rwlock_wrlock(&writers));
	REQUIRE_OK(pthread_spin_lock(&spin));
	REQUIRE_OK(pthread_mutex_unlock(&m));
	REQUIRE_OK(pthread_mutex_unlock(&checked));
	REQUIRE_OK(pthread_rwlock_unlock(&rw));
	REQUIRE_OK(pthread_rwlock_unlock(&writers));
	REQUIRE_OK(pthread_spin_unlock(&spin));
	return arg;
}

/* Waiters before and after the cancelled one get the lock all the same. (Natively a read-write lock counts it on.) */
static void that_wait_for_locks(void)
{
	static const struct {
		const char *name;
		void (*what)(void);
	} waiting[] = {
	    {"lock", lock},
	    {"timedlock", timedlock},
	    {"spin lock", spin_lock},
	    {"once", call_once},
	    {"rdlock", rdlock},
	    {"wrlock", wrlock},
	    {"wrlock, first", wrlock_first},
	};
	unsigned n = under_shim() ? COUNT(waiting) : 4;

	type = PTHREAD_CANCEL_ASYNCHRONOUS;
	pthread_spin_init(&spin, 0);
	for (unsigned i = 0; i < n * 4; i++) {
		once = PTHREAD_ONCE_INIT;
		once_go = 0;
		pthread_t first = spawn(call_once_first, NULL), before, after;
		REQUIRE_OK(pthread_mutex_lock(&m));
		REQUIRE_OK(pthread_mutex_lock(&checked));
		REQUIRE_OK(pthread_rwlock_wrlock(&rw));
		REQUIRE_OK(pthread_rwlock_rdlock(&writers));
		REQUIRE_OK(pthread_spin_lock(&spin));
		if (waiting[i / 4].what == call_once)
			sleep_ms(2); /* the first is in it */
		before = spawn(take_all, NULL);
		pthread_t t = started(waiting[i / 4].what);
		after = spawn(take_all, NULL);
		usleep(1000 * (i % 4));
		cancelled(waiting[i / 4].name, t);
		REQUIRE_OK(pthread_mutex_unlock(&m));
		REQUIRE_OK(pthread_mutex_unlock(&checked));
		REQUIRE_OK(pthread_rwlock_unlock(&rw));
		REQUIRE_OK(pthread_rwlock_unlock(&writers));
		REQUIRE_OK(pthread_spin_unlock(&spin));
		once_go = 1;
		join(first);
		join(before);
		join(after);
	}
}

/* --- in handlers ------------------------------------------------------------------------------- */

static volatile int in_handler;

static void waits_in_handler(int sig)
{
	(void)sig;
	in_handler = 1;
	if (type == PTHREAD_CANCEL_ASYNCHRONOUS)
		loop();
	for (;;)
		pause();
}

static sem_t never;

static void wait_sem(void)
{
	while (sem_wait(&never) != 0)
		;
}

static void wait_pause(void)
{
	for (;;)
		pause();
}

/* What was interrupted is unwound with the handler. */
static void in_signal_handlers(void)
{
	static void (*const what[])(void) = {loop, wait_pause, wait_sem, yields};

	signal(SIGUSR1, waits_in_handler);
	sem_init(&never, 0, 0);
	for (unsigned i = 0; i < COUNT(what) * 4; i++) {
		type = i & 1 ? PTHREAD_CANCEL_ASYNCHRONOUS : PTHREAD_CANCEL_DEFERRED;
		in_handler = 0;
		pthread_t t = started(what[i / 4]);
		if (i & 2)
			usleep(500);
		REQUIRE_OK(pthread_kill(t, SIGUSR1));
		CHECK(wait_for(&in_handler, 1, 20000));
		cancelled("in a handler", t);
	}
	int v = -1;
	CHECK_EQ(sem_getvalue(&never, &v), 0);
	CHECK_EQ(v, 0);
}

/* --- changing ---------------------------------------------------------------------------------- */

static volatile int twice;

static void changes(void)
{
	for (unsigned n = 0;; n++) {
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		twice = 1; /* what nobody interrupts */
		pthread_setcanceltype(n & 1 ? PTHREAD_CANCEL_ASYNCHRONOUS : PTHREAD_CANCEL_DEFERRED,
				      NULL);
		twice = 0;
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
		if (n % 64 == 0)
			sched_yield();
	}
}

static void that_change_their_state(void)
{
	type = PTHREAD_CANCEL_DEFERRED;
	for (int i = 0; i < scale(100, 300); i++) {
		pthread_t t = started(changes);
		if (i & 1)
			usleep(i % 97);
		cancelled("changes", t);
		CHECK_EQ(twice, 0);
	}
}

static const struct test_case cases[] = {
    {"that_compute", that_compute},
    {"many_that_compute", many_that_compute},
    {"that_wait_for_locks", that_wait_for_locks},
    {"in_signal_handlers", in_signal_handlers},
    {"that_change_their_state", that_change_their_state},
};

TEST_MAIN(cases)
