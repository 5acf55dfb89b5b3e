/*
 * Handlers run while their thread waits for something that processes share or that the kernel
 * arbitrates: conditions, barriers, locks, and a command's end. Nothing else ends the wait
 * meanwhile, so a handler that came only after it would never come.
 */
#include "test.h"

#include <semaphore.h>
#include <setjmp.h>

static pthread_cond_t cond;
static pthread_barrier_t barrier;
static pthread_rwlock_t rwlock;
static pthread_mutex_t mutex;
static sem_t sem;

static pthread_mutex_t plain = PTHREAD_MUTEX_INITIALIZER;
static int handled, waiting, ended;
static pthread_t receiver;

/* Calls what may wait itself: the thread is whole in its handler. */
static void on_signal(int sig)
{
	int err = errno;

	(void)sig;
	CHECK(pthread_equal(pthread_self(), receiver));
	pthread_mutex_lock(&plain);
	usleep(100);
	pthread_mutex_unlock(&plain);
	sched_yield();
	errno = err;
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELEASE);
}

/* --- what is waited for -------------------------------------------------------------------------------------- */

static void shared_mutex(int type, int robust, int protocol)
{
	pthread_mutexattr_t a;

	pthread_mutexattr_init(&a);
	pthread_mutexattr_settype(&a, type);
	pthread_mutexattr_setrobust(&a, robust);
	pthread_mutexattr_setprotocol(&a, protocol);
	if (protocol == PTHREAD_PRIO_NONE)
		pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
	REQUIRE_OK(pthread_mutex_init(&mutex, &a));
	pthread_mutexattr_destroy(&a);
}

static void normal(void)
{
	shared_mutex(PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_STALLED, PTHREAD_PRIO_NONE);
	REQUIRE_OK(pthread_mutex_lock(&mutex));
}

static void recursive(void)
{
	shared_mutex(PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_STALLED, PTHREAD_PRIO_NONE);
	REQUIRE_OK(pthread_mutex_lock(&mutex));
}

static void robust(void)
{
	shared_mutex(PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ROBUST, PTHREAD_PRIO_NONE);
	REQUIRE_OK(pthread_mutex_lock(&mutex));
}

static void inheriting(void)
{
	shared_mutex(PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_STALLED, PTHREAD_PRIO_INHERIT);
	REQUIRE_OK(pthread_mutex_lock(&mutex));
}

static void lock(void)
{
	CHECK_EQ(pthread_mutex_lock(&mutex), 0);
	CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
}

static void lock_by_time(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += 3600;
	CHECK_EQ(pthread_mutex_timedlock(&mutex, &ts), 0);
	CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
}

static void unlock(void)
{
	CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
}

static void a_cond(void)
{
	pthread_condattr_t a;

	shared_mutex(PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_STALLED, PTHREAD_PRIO_NONE);
	pthread_condattr_init(&a);
	pthread_condattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
	REQUIRE_OK(pthread_cond_init(&cond, &a));
}

static void wait_cond(void)
{
	CHECK_EQ(pthread_mutex_lock(&mutex), 0);
	while (!ended)
		CHECK_EQ(pthread_cond_wait(&cond, &mutex), 0);
	CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
}

static void signal_cond(void)
{
	CHECK_EQ(pthread_mutex_lock(&mutex), 0);
	ended = 1;
	CHECK_EQ(pthread_cond_signal(&cond), 0);
	CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
}

static void a_barrier(void)
{
	pthread_barrierattr_t a;

	pthread_barrierattr_init(&a);
	pthread_barrierattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
	REQUIRE_OK(pthread_barrier_init(&barrier, &a, 2));
}

static void wait_barrier(void)
{
	int r = pthread_barrier_wait(&barrier);
	CHECK(r == 0 || r == PTHREAD_BARRIER_SERIAL_THREAD);
}

static void a_rwlock(void)
{
	pthread_rwlockattr_t a;

	pthread_rwlockattr_init(&a);
	pthread_rwlockattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
	REQUIRE_OK(pthread_rwlock_init(&rwlock, &a));
	REQUIRE_OK(pthread_rwlock_wrlock(&rwlock));
}

static void read_lock(void)
{
	CHECK_EQ(pthread_rwlock_rdlock(&rwlock), 0);
	CHECK_EQ(pthread_rwlock_unlock(&rwlock), 0);
}

static void write_lock(void)
{
	CHECK_EQ(pthread_rwlock_wrlock(&rwlock), 0);
	CHECK_EQ(pthread_rwlock_unlock(&rwlock), 0);
}

static void rw_unlock(void)
{
	CHECK_EQ(pthread_rwlock_unlock(&rwlock), 0);
}

static void a_sem(void)
{
	REQUIRE(sem_init(&sem, 1, 0) == 0);
}

static void wait_sem(void)
{
	while (sem_wait(&sem) != 0)
		CHECK_EQ(errno, EINTR);
}

static void post_sem(void)
{
	CHECK_EQ(sem_post(&sem), 0);
}

static int end_of_command[2];

static void a_pipe(void)
{
	REQUIRE(pipe(end_of_command) == 0);
}

static void run_command(void)
{
	char command[100];

	snprintf(command, sizeof command, "exec %d>&-; read x <&%d", end_of_command[1],
		 end_of_command[0]);
	CHECK(system(command) >= 0);
}

static void end_command(void)
{
	close(end_of_command[1]);
}

static const struct wait {
	const char *name;
	void (*setup)(void);
	void (*wait)(void);
	void (*end)(void);
} waits[] = {
    {"shared mutex", normal, lock, unlock},
    {"shared mutex, timed", normal, lock_by_time, unlock},
    {"shared recursive mutex", recursive, lock, unlock},
    {"robust mutex", robust, lock, unlock},
    {"robust mutex, timed", robust, lock_by_time, unlock},
    {"priority-inheriting mutex", inheriting, lock, unlock},
    {"shared condition", a_cond, wait_cond, signal_cond},
    {"shared barrier", a_barrier, wait_barrier, wait_barrier},
    {"shared rwlock, reader", a_rwlock, read_lock, rw_unlock},
    {"shared rwlock, writer", a_rwlock, write_lock, rw_unlock},
    {"shared semaphore", a_sem, wait_sem, post_sem},
    {"system", a_pipe, run_command, end_command},
};

/* --- the runs -------------------------------------------------------------------------------------------------- */

static void *waiter(void *arg)
{
	const struct wait *w = arg;
	sigset_t set;

	receiver = pthread_self();
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	__atomic_store_n(&waiting, 1, __ATOMIC_RELEASE);
	w->wait();
	return NULL;
}

static void each(int process, int flags)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = flags};
	sigset_t set, old;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
	for (unsigned i = 0; i < COUNT(waits); i++) {
		const struct wait *w = &waits[i];

		handled = waiting = ended = 0;
		w->setup();
		pthread_t t = spawn(waiter, (void *)(uintptr_t)w);
		REQUIRE(wait_for(&waiting, 1, 30000));
		for (int n = 1; n <= 5; n++) {
			sleep_ms(n == 1 ? 0 : 5);
			if (process)
				CHECK_EQ(kill(getpid(), SIGUSR1), 0);
			else
				REQUIRE_OK(pthread_kill(t, SIGUSR1));
			if (!wait_for(&handled, n, 10000)) {
				FAIL("%s: handler %d has not run", w->name, n);
				break;
			}
		}
		w->end();
		join(t);
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void by_pthread_kill(void)
{
	each(0, 0);
}

static void by_pthread_kill_restarting(void)
{
	each(0, SA_RESTART);
}

static void by_kill(void)
{
	each(1, 0);
}

/* --- handlers that do not return -------------------------------------------------------------------------------- */

static sigjmp_buf away;

static void exit_thread(int sig)
{
	pthread_exit((void *)(intptr_t)sig);
}

static void jump_away(int sig)
{
	siglongjmp(away, sig);
}

static void *wait_to_be_sent_away(void *arg)
{
	sem_t own;

	CHECK_EQ(sem_init(&own, 0, 0), 0);
	for (int i = 0; i < 3; i++) {
		int sig = sigsetjmp(away, 1);

		if (sig != 0) {
			CHECK_EQ(sig, SIGUSR1);
			__atomic_add_fetch(&handled, 1, __ATOMIC_RELEASE);
			continue;
		}
		a_barrier(); /* who left has arrived all the same */
		__atomic_add_fetch(&waiting, 1, __ATOMIC_RELEASE);
		wait_barrier();
		FAIL("the barrier of two let one pass");
	}
	/* It is whole: it waits, and takes what needs a kernel thread. */
	robust();
	unlock();
	CHECK_EQ(sem_post(&own), 0);
	CHECK_EQ(sem_wait(&own), 0);
	usleep(100);
	return arg;
}

static void leave_by_exit(void)
{
	signal(SIGUSR1, exit_thread);
	for (int i = 0; i < 20; i++) {
		waiting = 0;
		a_barrier();
		pthread_t t = spawn(waiter, (void *)(uintptr_t)&waits[7]);
		REQUIRE(wait_for(&waiting, 1, 30000));
		sleep_ms(i % 3);
		REQUIRE_OK(pthread_kill(t, SIGUSR1));
		CHECK(join(t) == (void *)(intptr_t)SIGUSR1);
	}
}

static void leave_by_jump(void)
{
	signal(SIGUSR1, jump_away);
	handled = waiting = 0;
	pthread_t t = spawn(wait_to_be_sent_away, &away);
	for (int n = 1; n <= 3; n++) {
		REQUIRE(wait_for(&waiting, n, 30000));
		sleep_ms(2);
		REQUIRE_OK(pthread_kill(t, SIGUSR1));
		REQUIRE(wait_for(&handled, n, 30000));
	}
	CHECK(join(t) == &away);
}

static const struct test_case cases[] = {
    {"by_pthread_kill", by_pthread_kill},
    {"by_pthread_kill_restarting", by_pthread_kill_restarting},
    {"by_kill", by_kill},
    {"leave_by_exit", leave_by_exit},
    {"leave_by_jump", leave_by_jump},
};

TEST_MAIN(cases)
