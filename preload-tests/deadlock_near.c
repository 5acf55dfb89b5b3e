/*
 * What only looks like a deadlock, or could still be ended from outside: all of it goes on, and nobody may say
 * that it doesn't. stderr is read at the end of each case, which is a process of its own: what is known of
 * another's habits would keep quiet about it.
 */
#include "foreign.h"

#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/timerfd.h>

enum { ASLEEP = 100 /* ms: longer than anybody who looks for sleepers takes */ };

static int errors = -1; /* what stderr is */

/* Nothing about deadlocks has been written since the last time. */
static void quiet(void)
{
	static char text[65536];
	ssize_t n = pread(errors, text, sizeof text - 1, 0);

	REQUIRE(n >= 0);
	text[n] = '\0';
	char *said = strstr(text, "deadlock");
	if (said) {
		while (said > text && said[-1] != '\n')
			said--;
		FAIL("somebody says: %.300s", said);
	}
	REQUIRE(ftruncate(errors, 0) == 0);
}

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

/* --- all are asleep, but not for ever ------------------------------------------------------------------- */

static sem_t posted;

static void *waits_for_post(void *arg)
{
	while (sem_wait(&posted) != 0)
		;
	return arg;
}

static void *foreign_posts(void *arg)
{
	sleep_ms(ASLEEP);
	sem_post(&posted);
	return arg;
}

static void a_kernel_thread_posts(void)
{
	pthread_t foreign = spawn_really(foreign_posts, NULL);

	join(spawn(waits_for_post, NULL));
	pthread_join(foreign, NULL);
	quiet();
}

static void on_expiry(union sigval v)
{
	(void)v;
	sem_post(&posted);
}

static void a_timer_posts(void)
{
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_expiry};
	struct itimerspec in = {.it_value = {0, ASLEEP * 1000000}};
	timer_t timer;

	REQUIRE(timer_create(CLOCK_MONOTONIC, &ev, &timer) == 0);
	REQUIRE(timer_settime(timer, 0, &in, NULL) == 0);
	join(spawn(waits_for_post, NULL));
	timer_delete(timer);
	quiet();
}

static int process_posts(void *arg)
{
	usleep(ASLEEP * 1000);
	sem_post(arg);
	_exit(0);
}

static void a_process_in_this_memory_posts(void)
{
	enum { STACK = 256 << 10 };
	char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t t = spawn(waits_for_post, NULL);
	int status;

	/* Natively a private semaphore's futex is this memory's, whoever wakes it. */
	pid_t pid = clone(process_posts, stack + STACK, CLONE_VM | SIGCHLD, &posted);
	REQUIRE(pid > 0);
	join(t);
	REQUIRE(waitpid(pid, &status, 0) == pid);
	quiet();
}

/* Main waits as each of these do, and another thread for a post. */
static void on_signal(int sig)
{
	(void)sig;
	sem_post(&posted);
}

static void sleeps(void)
{
	sleep_ms(ASLEEP);
	sem_post(&posted);
}

static void waits_for_signal(void)
{
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	sigwait(&set, &sig);
	sem_post(&posted);
}

static void polls(void)
{
	struct itimerspec in = {.it_value = {0, ASLEEP * 1000000}};
	struct epoll_event ev = {.events = EPOLLIN};
	int ep = epoll_create1(0), fd = timerfd_create(CLOCK_MONOTONIC, 0);

	REQUIRE(ep >= 0 && fd >= 0 && timerfd_settime(fd, 0, &in, NULL) == 0);
	REQUIRE(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0);
	CHECK_EQ(epoll_wait(ep, &ev, 1, -1), 1);
	close(fd);
	close(ep);
	sem_post(&posted);
}

static int pipes[2];

static void reads(void)
{
	char c;

	CHECK_EQ(read(pipes[0], &c, 1), 1);
	sem_post(&posted);
}

static void *only_waits(void *arg)
{
	void (*how)(void) = (void (*)(void))(uintptr_t)arg;

	how();
	return NULL;
}

/* Once by main, once by a thread while main joins. */
static void asleep_in(void (*how)(void), int sig)
{
	for (int by_main = 0; by_main < 2; by_main++) {
		pthread_t t = spawn(waits_for_post, NULL), sleeper = 0;
		pid_t pid = fork(); /* who ends the wait */

		REQUIRE(pid >= 0);
		if (pid == 0) {
			usleep(2 * ASLEEP * 1000);
			if (sig)
				kill(getppid(), sig);
			else if (how == reads && write(pipes[1], "x", 1) != 1)
				_exit(1);
			_exit(0);
		}
		if (by_main)
			how();
		else
			sleeper = spawn(only_waits, (void *)(uintptr_t)how);
		join(t);
		if (!by_main)
			join(sleeper);
		REQUIRE(waitpid(pid, NULL, 0) == pid);
	}
	quiet();
}

static void asleep_in_a_sleep(void)
{
	asleep_in(sleeps, 0);
}

static void asleep_in_sigwait(void)
{
	sigset_t set, old;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	asleep_in(waits_for_signal, SIGALRM);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void asleep_in_epoll(void)
{
	asleep_in(polls, 0);
}

static void asleep_in_read(void)
{
	REQUIRE(pipe(pipes) == 0);
	asleep_in(reads, 0);
	close(pipes[0]);
	close(pipes[1]);
}

/* With a handler that could post: all wait for semaphores and joins alone. */
static void joins_only(void)
{
}

static void a_handler_posts(void)
{
	struct sigaction sa = {.sa_handler = on_signal}, old;

	REQUIRE(sigaction(SIGUSR1, &sa, &old) == 0);
	asleep_in(joins_only, SIGUSR1);
	REQUIRE(sigaction(SIGUSR1, &old, NULL) == 0);
}

static void asleep_in_pause(void)
{
	struct sigaction sa = {.sa_handler = on_signal}, old;

	REQUIRE(sigaction(SIGUSR1, &sa, &old) == 0);
	/* Which thread handles it is open: main, or else the only one, has to. */
	pthread_t t = spawn(waits_for_post, NULL);
	pid_t pid = fork();
	if (pid == 0) {
		usleep(2 * ASLEEP * 1000);
		kill(getppid(), SIGUSR1);
		_exit(0);
	}
	pause();
	join(t);
	REQUIRE(waitpid(pid, NULL, 0) == pid);
	REQUIRE(sigaction(SIGUSR1, &old, NULL) == 0);
	quiet();
}

static void (*body)(void);

static int runs(void)
{
	sem_init(&posted, 0, 0);
	body();
	return 0;
}

#define ALONE(name)                          \
	static void name##_alone(void)       \
	{                                    \
		body = name;                 \
		CHECK_EQ(in_child(runs), 0); \
	}
ALONE(mutexes_as_signals)
ALONE(opened_by_a_third)
ALONE(asleep_in_a_sleep)
ALONE(asleep_in_sigwait)
ALONE(asleep_in_epoll)
ALONE(asleep_in_read)
ALONE(a_handler_posts)
ALONE(asleep_in_pause)
ALONE(one_waits_with_a_deadline)
ALONE(one_writes_with_a_deadline)
ALONE(one_waits_for_a_book_with_a_deadline)
ALONE(philosophers)
ALONE(inversion_behind_a_gate)
ALONE(owners_end)
ALONE(relocked)
ALONE(a_queue)
ALONE(cancelled_asynchronously)
ALONE(a_kernel_thread_posts)
ALONE(a_timer_posts)
ALONE(a_process_in_this_memory_posts)

static const struct test_case cases[] = {
    {"mutexes_as_signals", mutexes_as_signals_alone},
    {"opened_by_a_third", opened_by_a_third_alone},
    {"asleep_in_a_sleep", asleep_in_a_sleep_alone},
    {"asleep_in_sigwait", asleep_in_sigwait_alone},
    {"asleep_in_epoll", asleep_in_epoll_alone},
    {"asleep_in_read", asleep_in_read_alone},
    {"a_handler_posts", a_handler_posts_alone},
    {"asleep_in_pause", asleep_in_pause_alone},
    {"one_waits_with_a_deadline", one_waits_with_a_deadline_alone},
    {"one_waits_for_a_book_with_a_deadline", one_waits_for_a_book_with_a_deadline_alone},
    {"one_writes_with_a_deadline", one_writes_with_a_deadline_alone},
    {"philosophers", philosophers_alone},
    {"inversion_behind_a_gate", inversion_behind_a_gate_alone},
    {"owners_end", owners_end_alone},
    {"relocked", relocked_alone},
    {"a_queue", a_queue_alone},
    {"cancelled_asynchronously", cancelled_asynchronously_alone},
    {"a_kernel_thread_posts", a_kernel_thread_posts_alone},
    {"a_timer_posts", a_timer_posts_alone},
    {"a_process_in_this_memory_posts", a_process_in_this_memory_posts_alone},
};

int main(int argc, char **argv)
{
	char path[] = "/tmp/stderr-XXXXXX";
	int said = dup(2);

	errors = mkstemp(path);
	REQUIRE(errors >= 0 && said >= 0);
	unlink(path);
	REQUIRE(fcntl(errors, F_SETFL, O_APPEND) == 0);
	REQUIRE(dup2(errors, 2) == 2);
	return test_run(argc, argv, cases, COUNT(cases));
}
