/*
 * Synchronization objects in memory shared with a process that the library is not loaded into, and
 * with one that it is: contended, timed, told apart by owner, and after the owner was killed. The
 * test runs itself again as the other processes.
 */
#include "test.h"

#include <semaphore.h>
#include <sys/mman.h>

enum { KINDS = 16, THREADS = 4, ROUNDS = 150, SIDES = 3 };

struct shared {
	pthread_mutex_t m[KINDS];
	pthread_cond_t c[KINDS];
	pthread_rwlock_t rw;
	pthread_barrier_t b;
	sem_t items, room;
	long count[KINDS], serial;
	int step, waiting, done, turn[KINDS], dead, failures;
	char sem_name[40];
};

static struct shared *s;
static int fd;
static sem_t *named;

static void tell(int *p, int value)
{
	__atomic_store_n(p, value, __ATOMIC_RELEASE);
}

static void more(int *p)
{
	__atomic_add_fetch(p, 1, __ATOMIC_ACQ_REL);
}

static void until(int *p, int value)
{
	REQUIRE(wait_for(p, value, 30000));
}

/* --- kinds of mutexes ------------------------------------------------------------------------------------------------ */

static int type_of(int kind)
{
	static const int types[] = {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_RECURSIVE,
				    PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_ADAPTIVE_NP};
	return types[kind % 4];
}

static int is_robust(int kind)
{
	return kind / 4 % 2;
}

static int inherits(int kind)
{
	return kind / 8;
}

static int knows_owner(int kind)
{
	return type_of(kind) == PTHREAD_MUTEX_RECURSIVE ||
	       type_of(kind) == PTHREAD_MUTEX_ERRORCHECK || is_robust(kind) || inherits(kind);
}

static void make(void)
{
	pthread_condattr_t ca;
	pthread_rwlockattr_t ra;
	pthread_barrierattr_t ba;

	memset(s, 0, sizeof *s);
	for (int k = 0; k < KINDS; k++) {
		pthread_mutexattr_t a;

		pthread_mutexattr_init(&a);
		pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
		pthread_mutexattr_settype(&a, type_of(k));
		pthread_mutexattr_setrobust(&a, is_robust(k));
		pthread_mutexattr_setprotocol(&a, inherits(k));
		REQUIRE_OK(pthread_mutex_init(&s->m[k], &a));
	}
	pthread_condattr_init(&ca);
	pthread_condattr_setpshared(&ca, PTHREAD_PROCESS_SHARED);
	pthread_condattr_setclock(&ca, CLOCK_MONOTONIC);
	for (int k = 0; k < KINDS; k++)
		REQUIRE_OK(pthread_cond_init(&s->c[k], &ca));
	pthread_rwlockattr_init(&ra);
	pthread_rwlockattr_setpshared(&ra, PTHREAD_PROCESS_SHARED);
	REQUIRE_OK(pthread_rwlock_init(&s->rw, &ra));
	pthread_barrierattr_init(&ba);
	pthread_barrierattr_setpshared(&ba, PTHREAD_PROCESS_SHARED);
	REQUIRE_OK(pthread_barrier_init(&s->b, &ba, SIDES * THREADS));
	REQUIRE(sem_init(&s->items, 1, 0) == 0 && sem_init(&s->room, 1, 3) == 0);
	snprintf(s->sem_name, sizeof s->sem_name, "/goshim-test-%d", (int)getpid());
}

/* --- what all sides do ----------------------------------------------------------------------------------------------- */

static int lock_somehow(pthread_mutex_t *m, int i)
{
	struct timespec ts;
	int r;

	switch (i % 4) {
	case 0:
		while ((r = pthread_mutex_trylock(m)) == EBUSY)
			sched_yield();
		return r;
	case 1: ts = after_ms(CLOCK_REALTIME, 30000); return pthread_mutex_timedlock(m, &ts);
	case 2:
		ts = after_ms(CLOCK_MONOTONIC, 30000);
		return pthread_mutex_clocklock(m, CLOCK_MONOTONIC, &ts);
	}
	return pthread_mutex_lock(m);
}

static void *add(void *arg)
{
	for (int k = 0; k < KINDS; k++)
		for (int i = 0; i < ROUNDS / 4; i++) {
			CHECK_EQ(lock_somehow(&s->m[k], i), 0);
			if (type_of(k) == PTHREAD_MUTEX_RECURSIVE)
				CHECK_EQ(pthread_mutex_lock(&s->m[k]), 0);
			long c = s->count[k];
			if (i % 16 == 0)
				usleep(50);
			else if (i % 4 == 0)
				sched_yield();
			s->count[k] = c + 1;
			CHECK_EQ(pthread_mutex_unlock(&s->m[k]), 0);
			if (type_of(k) == PTHREAD_MUTEX_RECURSIVE)
				CHECK_EQ(pthread_mutex_unlock(&s->m[k]), 0);
		}
	return arg;
}

/* A counter goes round among the sides, all of whose threads wait for it. */
static void *take_turns(void *arg)
{
	int side = (int)(intptr_t)arg;

	for (int k = 0; k < KINDS; k++) {
		CHECK_EQ(pthread_mutex_lock(&s->m[k]), 0);
		while (s->turn[k] < 10 * SIDES) {
			if (s->turn[k] % SIDES == side) {
				s->turn[k]++;
				CHECK_EQ(pthread_cond_broadcast(&s->c[k]), 0);
			} else if (k % 3) {
				CHECK_EQ(pthread_cond_wait(&s->c[k], &s->m[k]), 0);
			} else {
				struct timespec ts = after_ms(CLOCK_MONOTONIC, 30000);
				CHECK_EQ(pthread_cond_timedwait(&s->c[k], &s->m[k], &ts), 0);
			}
		}
		CHECK_EQ(pthread_mutex_unlock(&s->m[k]), 0);
	}
	return NULL;
}

static void *meet(void *arg)
{
	for (int i = 0; i < ROUNDS; i++) {
		int r = pthread_barrier_wait(&s->b);

		if (r == PTHREAD_BARRIER_SERIAL_THREAD)
			__atomic_add_fetch(&s->serial, 1, __ATOMIC_RELAXED);
		else
			CHECK_EQ(r, 0);
		CHECK(__atomic_load_n(&s->serial, __ATOMIC_RELAXED) >= i);
	}
	return arg;
}

static void *produce_and_consume(void *arg)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, 30000);

	for (int i = 0; i < ROUNDS; i++) {
		CHECK_EQ(i % 2 ? sem_wait(&s->room) : sem_timedwait(&s->room, &ts), 0);
		CHECK_EQ(sem_post(&s->items), 0);
		CHECK_EQ(i % 3 ? sem_wait(&s->items) : sem_timedwait(&s->items, &ts), 0);
		CHECK_EQ(sem_post(&s->room), 0);
		CHECK_EQ(sem_wait(named), 0);
		s->count[0]++;
		CHECK_EQ(sem_post(named), 0);
	}
	return arg;
}

static void *read_and_write(void *arg)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, 30000);

	for (int i = 0; i < ROUNDS; i++) {
		if (i % 3) {
			CHECK_EQ(i % 2 ? pthread_rwlock_rdlock(&s->rw)
				       : pthread_rwlock_timedrdlock(&s->rw, &ts),
				 0);
			CHECK_EQ(s->count[0], s->count[1]);
			sched_yield();
		} else {
			CHECK_EQ(i % 2 ? pthread_rwlock_wrlock(&s->rw)
				       : pthread_rwlock_timedwrlock(&s->rw, &ts),
				 0);
			CHECK_EQ(pthread_rwlock_wrlock(&s->rw), EDEADLK);
			s->count[0]++;
			sched_yield();
			s->count[1]++;
		}
		CHECK_EQ(pthread_rwlock_unlock(&s->rw), 0);
	}
	return arg;
}

/* --- one holds, others want ------------------------------------------------------------------------------------------ */

static void *hold_all(void *arg)
{
	for (int k = 0; k < KINDS; k++) {
		CHECK_EQ(pthread_mutex_lock(&s->m[k]), 0);
		if (type_of(k) == PTHREAD_MUTEX_RECURSIVE)
			CHECK_EQ(pthread_mutex_lock(&s->m[k]), 0);
		if (type_of(k) == PTHREAD_MUTEX_ERRORCHECK)
			CHECK_EQ(pthread_mutex_lock(&s->m[k]), EDEADLK);
	}
	CHECK_EQ(pthread_rwlock_wrlock(&s->rw), 0);
	tell(&s->step, 1);
	while (__atomic_load_n(&s->done, __ATOMIC_ACQUIRE) < SIDES - 1)
		usleep(1000);
	for (int k = 0; k < KINDS; k++) {
		CHECK_EQ(pthread_mutex_unlock(&s->m[k]), 0);
		if (type_of(k) == PTHREAD_MUTEX_RECURSIVE)
			CHECK_EQ(pthread_mutex_unlock(&s->m[k]), 0);
		if (knows_owner(k))
			CHECK_EQ(pthread_mutex_unlock(&s->m[k]), EPERM);
	}
	CHECK_EQ(pthread_rwlock_unlock(&s->rw), 0);
	return arg;
}

static void *want_all(void *arg)
{
	struct timespec ts;

	until(&s->step, 1);
	for (int k = 0; k < KINDS; k++) {
		CHECK_EQ(pthread_mutex_trylock(&s->m[k]), EBUSY);
		ts = after_ms(CLOCK_REALTIME, 3);
		CHECK_EQ(pthread_mutex_timedlock(&s->m[k], &ts), ETIMEDOUT);
		ts = after_ms(CLOCK_MONOTONIC, 3);
		CHECK_EQ(pthread_mutex_clocklock(&s->m[k], CLOCK_MONOTONIC, &ts), ETIMEDOUT);
		if (knows_owner(k))
			CHECK_EQ(pthread_mutex_unlock(&s->m[k]), EPERM);
	}
	CHECK_EQ(pthread_rwlock_tryrdlock(&s->rw), EBUSY);
	CHECK_EQ(pthread_rwlock_trywrlock(&s->rw), EBUSY);
	ts = after_ms(CLOCK_REALTIME, 3);
	CHECK_EQ(pthread_rwlock_timedrdlock(&s->rw, &ts), ETIMEDOUT);
	ts = after_ms(CLOCK_REALTIME, 3);
	CHECK_EQ(sem_timedwait(&s->items, &ts), -1);
	CHECK_EQ(errno, ETIMEDOUT);
	more(&s->done);
	return arg;
}

/* --- owners that die ------------------------------------------------------------------------------------------------- */

static void *hold_robust(void *arg)
{
	for (int k = 0; k < KINDS; k++)
		if (is_robust(k))
			CHECK_EQ(pthread_mutex_lock(&s->m[k]), 0);
	more(&s->step);
	if (arg)
		pause();
	return NULL;
}

/* Waits for one of them when its owner dies: of all that want it, one is told. */
static void *inherit(void *arg)
{
	int k = (int)(intptr_t)arg;

	more(&s->waiting);
	int r = pthread_mutex_lock(&s->m[k]);
	if (r == EOWNERDEAD) {
		more(&s->dead);
		CHECK_EQ(pthread_mutex_consistent(&s->m[k]), 0);
	} else {
		CHECK_EQ(r, 0);
	}
	CHECK_EQ(pthread_mutex_unlock(&s->m[k]), 0);
	more(&s->done);
	return NULL;
}

static void inherit_all(void)
{
	pthread_t t[KINDS];

	for (int k = 0; k < KINDS; k++)
		if (is_robust(k))
			t[k] = spawn(inherit, (void *)(intptr_t)k);
	for (int k = 0; k < KINDS; k++)
		if (is_robust(k))
			join(t[k]);
}

/* --- processes ------------------------------------------------------------------------------------------------------- */

static void in_threads(void *(*fn)(void *), int side)
{
	pthread_t t[THREADS];

	for (int i = 0; i < THREADS; i++)
		t[i] = spawn(fn, (void *)(intptr_t)side);
	for (int i = 0; i < THREADS; i++)
		join(t[i]);
}

enum role { ADD, TURNS, MEET, SEMS, RWLOCK, WANT, HOLD, HOLD_ROBUST, END_ROBUST, INHERIT };

static void play(enum role role, int side)
{
	switch (role) {
	case ADD: in_threads(add, side); break;
	case TURNS: in_threads(take_turns, side); break;
	case MEET: in_threads(meet, side); break;
	case SEMS: in_threads(produce_and_consume, side); break;
	case RWLOCK: in_threads(read_and_write, side); break;
	case WANT: join(spawn(want_all, NULL)); break;
	case HOLD: join(spawn(hold_all, NULL)); break;
	case HOLD_ROBUST: join(spawn(hold_robust, s)); break;
	case END_ROBUST: join(spawn(hold_robust, NULL)); break;
	case INHERIT: inherit_all(); break;
	}
}

static pid_t start(int native, enum role role, int side)
{
	char a[3][20];
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (pid != 0)
		return pid;
	if (native)
		unsetenv("LD_PRELOAD");
	snprintf(a[0], sizeof a[0], "%d", fd);
	snprintf(a[1], sizeof a[1], "%d", role);
	snprintf(a[2], sizeof a[2], "%d", side);
	execl("/proc/self/exe", "shared_with_native", "peer", a[0], a[1], a[2], NULL);
	_exit(127);
}

static void map(void)
{
	s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	REQUIRE(s != MAP_FAILED);
}

static void open_named(int flags)
{
	named = sem_open(s->sem_name, flags, 0600, 1);
	REQUIRE(named != SEM_FAILED);
}

static int peer(char **argv)
{
	fd = atoi(argv[2]);
	map();
	open_named(0);
	play((enum role)atoi(argv[3]), atoi(argv[4]));
	return test_failures != 0;
}

static void begin(void)
{
	if (!s) {
		fd = memfd_create("shared", 0);
		REQUIRE(fd >= 0 && ftruncate(fd, sizeof *s) == 0);
		map();
	}
	make();
	open_named(O_CREAT | O_EXCL);
}

static void ended(pid_t pid)
{
	int status = -1;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
}

static void end(void)
{
	sem_close(named);
	sem_unlink(s->sem_name);
}

/* All play the same role: this process, a native one, and one more with the library. */
static void together(enum role role)
{
	begin();
	pid_t native = start(1, role, 1), other = start(0, role, 2);
	play(role, 0);
	ended(native);
	ended(other);
	end();
}

static void mutexes(void)
{
	together(ADD);
	for (int k = 0; k < KINDS; k++)
		CHECK_EQ(s->count[k], SIDES * THREADS * (ROUNDS / 4));
}

static void conditions(void)
{
	together(TURNS);
	for (int k = 0; k < KINDS; k++)
		CHECK_EQ(s->turn[k], 10 * SIDES);
}

static void barriers(void)
{
	together(MEET);
	CHECK_EQ(s->serial, ROUNDS);
}

static void semaphores(void)
{
	int v = -1;

	together(SEMS);
	CHECK_EQ(sem_getvalue(&s->items, &v), 0);
	CHECK_EQ(v, 0);
	CHECK_EQ(sem_getvalue(&s->room, &v), 0);
	CHECK_EQ(v, 3);
	CHECK_EQ(s->count[0], SIDES * THREADS * ROUNDS);
}

static void rwlocks(void)
{
	together(RWLOCK);
	CHECK_EQ(s->count[0], SIDES * THREADS * (ROUNDS / 3));
}

/* Each in turn has all, and the others get none. */
static void held(void)
{
	for (int holder = 0; holder < SIDES; holder++) {
		begin();
		pid_t native = start(1, holder == 1 ? HOLD : WANT, 1);
		pid_t other = start(0, holder == 2 ? HOLD : WANT, 2);
		play(holder == 0 ? HOLD : WANT, 0);
		ended(native);
		ended(other);
		end();
	}
}

static int robust_kinds(void)
{
	int n = 0;

	for (int k = 0; k < KINDS; k++)
		n += is_robust(k);
	return n;
}

/* The owner, native or not, is killed while others wait for its mutexes, or before. */
static void killed(void)
{
	int status, n = robust_kinds();

	for (int how = 0; how < 4; how++) {
		int wait_first = how % 2;

		begin();
		pid_t owner = start(how / 2, HOLD_ROBUST, 1);
		until(&s->step, 1);
		if (!wait_first) {
			kill(owner, SIGKILL);
			CHECK_EQ(waitpid(owner, &status, 0), owner);
		}
		pid_t native = start(1, INHERIT, 2), other = start(0, INHERIT, 2);
		if (wait_first) {
			until(&s->waiting, 2 * n);
			sleep_ms(20);
			kill(owner, SIGKILL);
			CHECK_EQ(waitpid(owner, &status, 0), owner);
		}
		inherit_all();
		ended(native);
		ended(other);
		CHECK_EQ(s->done, 3 * n);
		CHECK_EQ(s->dead, n);
		end();
	}
}

/* One that waits is killed: the others go on. */
static void waiter_killed(void)
{
	int status;

	for (int native = 0; native < 2; native++) {
		for (int owner_native = 0; owner_native < 2; owner_native++) {
			begin();
			pid_t owner = start(owner_native, HOLD_ROBUST, 1);
			until(&s->step, 1);
			pid_t waiter = start(native, INHERIT, 2);
			until(&s->waiting, robust_kinds());
			sleep_ms(20);
			kill(waiter, SIGKILL);
			CHECK_EQ(waitpid(waiter, &status, 0), waiter);
			kill(owner, SIGKILL);
			CHECK_EQ(waitpid(owner, &status, 0), owner);
			inherit_all();
			CHECK_EQ(s->dead, robust_kinds());
			end();
		}
	}
}

/* A thread ends as the owner, in a process that lives on or not. */
static void thread_ends(void)
{
	for (int native = 0; native < 2; native++) {
		begin();
		ended(start(native, END_ROBUST, 1));
		ended(start(!native, INHERIT, 2));
		CHECK_EQ(s->dead, robust_kinds());
		play(END_ROBUST, 0);
		ended(start(native, INHERIT, 2));
		CHECK_EQ(s->dead, 2 * robust_kinds());
		end();
	}
}

static const struct test_case cases[] = {
    {"mutexes", mutexes},         {"conditions", conditions},
    {"barriers", barriers},       {"semaphores", semaphores},
    {"rwlocks", rwlocks},         {"held", held},
    {"killed", killed},           {"waiter_killed", waiter_killed},
    {"thread_ends", thread_ends},
};

int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "peer") == 0)
		return peer(argv);
	return test_run(argc, argv, cases, COUNT(cases));
}
