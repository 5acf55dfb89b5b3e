/*
 * What `goshim locks` is to look at: locks of all kinds that are waited for, for known times. Of each, main has it, three
 * threads wait for it, and when whoever looks has seen that and says so, main keeps it for 5 ms more. It
 * tells how long that was at least, since they waited already, and at most, by the threads' own clocks.
 */
#include "../test.h"

#include <semaphore.h>
#include <stdbool.h>
#include <stdlib.h>
#include <threads.h>
#include <unistd.h>

#define fail(...) (say(__VA_ARGS__), exit(1))
/* A function of its own, that others with the same code don't stand for. */
#if __has_attribute(no_icf)
#define APART __attribute__((noinline, noclone, no_icf))
#else
#define APART __attribute__((noinline))
#endif

enum { WAITERS = 3, MANY = 10000 };

typedef struct Kind {
	const char *name;
	void *object;
	void *(*make)(void);
	void (*lock)(void *), (*unlock)(void *); /* main's */
	void (*wait)(void *), (*leave)(void *);  /* the others' */
} Kind;

static long now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

static void nap(long ns)
{
	struct timespec ts = {ns / 1000000000, ns % 1000000000};
	while (nanosleep(&ts, &ts))
		;
}

/* --- the locks -------------------------------------------------------------------------- */

static pthread_mutex_t static_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t static_recursive = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static pthread_mutex_t static_errorcheck = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
static pthread_mutex_t static_adaptive = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP;
static struct {
	long before[4];
	pthread_mutex_t m;
} static_struct = {.m = PTHREAD_MUTEX_INITIALIZER};
static pthread_rwlock_t static_rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_rwlock_t static_writers = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
static mtx_t static_mtx;
static sem_t static_sem;
static pthread_mutex_t cond_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t static_cond = PTHREAD_COND_INITIALIZER;
static cnd_t static_cnd;
static bool go;

static void line(const char *what)
{
	puts(what);
	fflush(stdout);
}

static void check(int err)
{
	if (err)
		fail("a lock's call: %d", err);
}

APART static void *make_mutex(void)
{
	pthread_mutex_t *m = malloc(sizeof *m);
	check(pthread_mutex_init(m, NULL));
	return m;
}

APART static void *make_nothing(void)
{
	return calloc(1, sizeof(pthread_mutex_t));
}

APART static void *make_mtx(void)
{
	mtx_t *m = malloc(sizeof *m);
	check(mtx_init(m, mtx_recursive));
	return m;
}

APART static void *make_rwlock(void)
{
	pthread_rwlock_t *l = malloc(sizeof *l);
	check(pthread_rwlock_init(l, NULL));
	return l;
}

APART static void *make_sem(void)
{
	sem_t *s = malloc(sizeof *s);
	memset(s, 0xa5, sizeof *s);
	check(sem_init(s, 0, 1));
	return s;
}

APART static void *make_cond(void)
{
	pthread_cond_t *c = malloc(sizeof *c);
	check(pthread_cond_init(c, NULL));
	return c;
}

/* What the kernel knows, or other processes might. */
#define MAKE_MUTEX(name, set, to)                       \
	APART static void *make_##name(void)            \
	{                                               \
		pthread_mutex_t *m = malloc(sizeof *m); \
		pthread_mutexattr_t attr;               \
		check(pthread_mutexattr_init(&attr));   \
		check(set(&attr, to));                  \
		check(pthread_mutex_init(m, &attr));    \
		return m;                               \
	}
MAKE_MUTEX(robust, pthread_mutexattr_setrobust, PTHREAD_MUTEX_ROBUST)
MAKE_MUTEX(inherit, pthread_mutexattr_setprotocol, PTHREAD_PRIO_INHERIT)
MAKE_MUTEX(shared, pthread_mutexattr_setpshared, PTHREAD_PROCESS_SHARED)

APART static void *make_shared_rwlock(void)
{
	pthread_rwlock_t *l = malloc(sizeof *l);
	pthread_rwlockattr_t attr;
	check(pthread_rwlockattr_init(&attr));
	check(pthread_rwlockattr_setpshared(&attr, PTHREAD_PROCESS_SHARED));
	check(pthread_rwlock_init(l, &attr));
	return l;
}

APART static void *make_shared_sem(void)
{
	sem_t *s = malloc(sizeof *s);
	check(sem_init(s, 1, 1));
	return s;
}

/* With a mutex that others may share, too: libc waits for both. */
APART static void *make_shared_cond(void)
{
	pthread_cond_t *c = malloc(sizeof *c);
	pthread_condattr_t attr;
	pthread_mutexattr_t mutexattr;
	check(pthread_mutexattr_init(&mutexattr));
	check(pthread_mutexattr_setpshared(&mutexattr, PTHREAD_PROCESS_SHARED));
	check(pthread_mutex_init(&cond_mutex, &mutexattr));
	check(pthread_condattr_init(&attr));
	check(pthread_condattr_setpshared(&attr, PTHREAD_PROCESS_SHARED));
	check(pthread_cond_init(c, &attr));
	return c;
}

/* Once for waiters, once for main: the stacks have their names. */
#define CALL(name, type, call)          \
	APART static void name(void *p) \
	{                               \
		check(call((type *)p)); \
	}
CALL(lock_mutex, pthread_mutex_t, pthread_mutex_lock)
CALL(wait_mutex, pthread_mutex_t, pthread_mutex_lock)
CALL(unlock_mutex, pthread_mutex_t, pthread_mutex_unlock)
CALL(lock_mtx, mtx_t, mtx_lock)
CALL(wait_mtx, mtx_t, mtx_lock)
CALL(unlock_mtx, mtx_t, mtx_unlock)
CALL(write_rwlock, pthread_rwlock_t, pthread_rwlock_wrlock)
CALL(read_rwlock, pthread_rwlock_t, pthread_rwlock_rdlock)
CALL(wait_rwlock, pthread_rwlock_t, pthread_rwlock_wrlock)
CALL(wait_read, pthread_rwlock_t, pthread_rwlock_rdlock)
CALL(unlock_rwlock, pthread_rwlock_t, pthread_rwlock_unlock)
CALL(take_sem, sem_t, sem_wait)
CALL(wait_sem, sem_t, sem_wait)
CALL(give_sem, sem_t, sem_post)

static void notyet(void *c)
{
	(void)c;
	check(pthread_mutex_lock(&cond_mutex));
	go = false;
	check(pthread_mutex_unlock(&cond_mutex));
}

APART static void wait_cond(void *c)
{
	check(pthread_mutex_lock(&cond_mutex));
	while (!go)
		check(pthread_cond_wait(c, &cond_mutex));
}

APART static void wait_cnd(void *c)
{
	check(pthread_mutex_lock(&cond_mutex));
	while (!go)
		check(cnd_wait(c, (mtx_t *)&cond_mutex));
}

static void left(void *c)
{
	(void)c;
	check(pthread_mutex_unlock(&cond_mutex));
}

static void letgo(void *c)
{
	check(pthread_mutex_lock(&cond_mutex));
	go = true;
	check(pthread_cond_broadcast(c));
	check(pthread_mutex_unlock(&cond_mutex));
}

static void letgocnd(void *c)
{
	check(pthread_mutex_lock(&cond_mutex));
	go = true;
	check(cnd_broadcast(c));
	check(pthread_mutex_unlock(&cond_mutex));
}

#define MUTEX lock_mutex, unlock_mutex, wait_mutex, unlock_mutex
static Kind kinds[] = {
    {"static_mutex", &static_mutex, NULL, MUTEX},
    {"static_recursive", &static_recursive, NULL, MUTEX},
    {"static_errorcheck", &static_errorcheck, NULL, MUTEX},
    {"static_adaptive", &static_adaptive, NULL, MUTEX},
    {"static_struct", &static_struct.m, NULL, MUTEX},
    {"make_mutex", NULL, make_mutex, MUTEX},
    {"wait_mutex", NULL, make_nothing, MUTEX},
    {"static_mtx", &static_mtx, NULL, lock_mtx, unlock_mtx, wait_mtx, unlock_mtx},
    {"make_mtx", NULL, make_mtx, lock_mtx, unlock_mtx, wait_mtx, unlock_mtx},
    {"static_rwlock", &static_rwlock, NULL, write_rwlock, unlock_rwlock, wait_read, unlock_rwlock},
    {"static_writers", &static_writers, NULL, read_rwlock, unlock_rwlock, wait_rwlock,
     unlock_rwlock},
    {"make_rwlock", NULL, make_rwlock, write_rwlock, unlock_rwlock, wait_rwlock, unlock_rwlock},
    {"static_sem", &static_sem, NULL, take_sem, give_sem, wait_sem, give_sem},
    {"make_sem", NULL, make_sem, take_sem, give_sem, wait_sem, give_sem},
    {"static_cond", &static_cond, NULL, notyet, letgo, wait_cond, left},
    {"static_cnd", &static_cnd, NULL, notyet, letgocnd, wait_cnd, left},
    {"make_cond", NULL, make_cond, notyet, letgo, wait_cond, left},
    {"make_robust", NULL, make_robust, MUTEX},
    {"make_inherit", NULL, make_inherit, MUTEX},
    {"make_shared", NULL, make_shared, MUTEX},
    {"make_shared_rwlock", NULL, make_shared_rwlock, write_rwlock, unlock_rwlock, wait_read,
     unlock_rwlock},
    {"make_shared_sem", NULL, make_shared_sem, take_sem, give_sem, wait_sem, give_sem},
    {"make_shared_cond", NULL, make_shared_cond, notyet, letgo, wait_cond, left},
};

static void *nothing(void *unused)
{
	return unused;
}

/* --- known times ------------------------------------------------------------------------ */

static long given, waited, held; /* when main began to give it up; of all waiters, at most */

APART static void *waiter(void *arg)
{
	const Kind *k = arg;
	long began = now();
	k->wait(k->object);
	__atomic_fetch_add(&waited, now() - began, __ATOMIC_RELAXED);
	k->leave(k->object);
	long from = __atomic_load_n(&given, __ATOMIC_ACQUIRE);
	__atomic_fetch_add(&held, now() - (from > began ? from : began), __ATOMIC_RELAXED);
	return NULL;
}

static bool answered(void)
{
	char line[16];
	return fgets(line, sizeof line, stdin) != NULL;
}

/* Prints how long was waited, at least and at most, and in the same way how long it was held. */
static bool round_of(Kind *k)
{
	pthread_t t[WAITERS];
	waited = held = 0;
	long before = now();
	k->lock(k->object);
	long got = now();
	for (int i = 0; i < WAITERS; i++)
		t[i] = spawn(waiter, k);
	line("waiting");
	if (!answered())
		return false;
	long seen = now();
	nap(5000000);
	long end = now();
	__atomic_store_n(&given, end, __ATOMIC_RELEASE);
	k->unlock(k->object);
	long after = now();
	for (int i = 0; i < WAITERS; i++)
		join(t[i]);
	printf("%ld %ld %ld %ld\n", WAITERS * (end - seen), waited, end - got,
	       after - before + held);
	fflush(stdout);
	return true;
}

static void known(const char *name, int rounds)
{
	join(spawn(nothing, NULL)); /* what is locked before the first is not counted */
	for (Kind *k = kinds; k < kinds + sizeof kinds / sizeof *kinds; k++) {
		if (strcmp(k->name, name))
			continue;
		if (!k->object)
			k->object = k->make();
		while (rounds-- > 0 && round_of(k))
			;
		return;
	}
	fail("no such kind: %s", name);
}

/* --- many of them ----------------------------------------------------------------------- */

static pthread_mutex_t *many;

APART static void make_many(void)
{
	for (int i = 0; i < MANY; i++)
		check(pthread_mutex_init(&many[i], NULL));
}

APART static void *wait_many(void *unused)
{
	struct timespec past = {0};
	for (int i = 0; i < MANY; i++)
		if (pthread_mutex_timedlock(&many[i], &past) != ETIMEDOUT)
			fail("it is locked");
	return unused;
}

static void contend_many(void)
{
	many = malloc(MANY * sizeof *many);
	make_many();
	join(spawn(nothing, NULL));
	for (int i = 0; i < MANY; i++)
		lock_mutex(&many[i]);
	long began = now();
	join(spawn(wait_many, NULL));
	printf("%d %ld\n", MANY, now() - began);
	for (int i = 0; i < MANY; i++)
		unlock_mutex(&many[i]);
}

/* --- one after the other at an address ----------------------------------------------------- */

APART static void again(pthread_mutex_t *m)
{
	check(pthread_mutex_init(m, NULL));
}

APART static void another(pthread_mutex_t *m)
{
	check(pthread_mutex_init(m, NULL));
}

APART static void *wait_past(void *m)
{
	struct timespec past = {0};
	if (pthread_mutex_timedlock(m, &past) != ETIMEDOUT)
		fail("it is locked");
	return NULL;
}

static void reuse(void)
{
	pthread_mutex_t *m = malloc(sizeof *m);
	join(spawn(nothing, NULL));
	for (int i = 0; i < 6; i++) {
		if (i < 4)
			again(m);
		else
			another(m);
		lock_mutex(m);
		join(spawn(wait_past, m));
		unlock_mutex(m);
		check(pthread_mutex_destroy(m));
	}
}

static void forked(void)
{
	Kind *k = &kinds[0];
	join(spawn(nothing, NULL));
	lock_mutex(k->object);
	join(spawn(wait_past, k->object));
	pid_t child = fork();
	if (child < 0)
		fail("fork");
	if (child == 0)
		for (int i = 0; i < 2; i++)
			join(spawn(wait_past, k->object));
	if (child) {
		printf("%d\n", child);
		return;
	}
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	check(mtx_init(&static_mtx, mtx_timed));
	check(cnd_init(&static_cnd));
	check(sem_init(&static_sem, 0, 1));
	line("ready");
	if (!strcmp(what, "many"))
		contend_many();
	else if (!strcmp(what, "reuse"))
		reuse();
	else if (!strcmp(what, "fork"))
		forked();
	else
		known(what, argc > 2 ? atoi(argv[2]) : 1);
	line("done");
	while (answered())
		;
	return 0;
}
