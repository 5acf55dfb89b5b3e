/*
 * What handlers do beyond setting a flag: wait for locks, semaphores, descriptors and other handlers, make threads, allocate, leave by
 * siglongjmp or swapcontext, never return, run within one another, on alternate stacks too. The mask of the thread is what POSIX
 * says after each of them.
 */
#include "test.h"

#include <semaphore.h>
#include <setjmp.h>
#include <ucontext.h>

static void on(int sig, void (*fn)(int), int flags, int mask)
{
	struct sigaction sa = {.sa_handler = fn, .sa_flags = flags};

	if (mask)
		sigaddset(&sa.sa_mask, mask);
	REQUIRE(sigaction(sig, &sa, NULL) == 0);
}

static int blocked(int sig)
{
	sigset_t now;

	REQUIRE_OK(pthread_sigmask(SIG_SETMASK, NULL, &now));
	return sigismember(&now, sig);
}

/* --- handlers that wait ---------------------------------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static sem_t sem, answer;
static int fds[2];
static volatile int waits, value, stop;

static void wait_for_lock(int sig)
{
	(void)sig;
	waits++;
	pthread_mutex_lock(&lock);
	value++;
	pthread_mutex_unlock(&lock);
}

static void wait_for_cond(int sig)
{
	(void)sig;
	pthread_mutex_lock(&lock);
	waits++;
	while (value == 0)
		pthread_cond_wait(&cond, &lock);
	value++;
	pthread_mutex_unlock(&lock);
}

static void wait_for_sem(int sig)
{
	(void)sig;
	waits++;
	while (sem_wait(&sem) != 0)
		;
	value++;
}

static void wait_for_pipe(int sig)
{
	char c;

	(void)sig;
	waits++;
	CHECK_EQ(read(fds[0], &c, 1), 1);
	value++;
}

static void *nothing(void *arg)
{
	char *volatile p = malloc(1000);

	free(p);
	return arg;
}

static void make_a_thread(int sig)
{
	(void)sig;
	waits++;
	CHECK(join(spawn(nothing, (void *)5)) == (void *)5);
	value++;
}

static void sleep_a_little(int sig)
{
	(void)sig;
	waits++;
	sleep_ms(2);
	sched_yield();
	value++;
}

struct waiting {
	void (*handler)(int);
	int how; /* the thread computes, sleeps, waits for a semaphore */
};

static void *victim(void *arg)
{
	struct waiting *w = arg;
	struct timespec hour = {3600, 0};

	while (!stop) {
		if (w->how == 0)
			for (volatile int i = 0; i < 1000; i++)
				;
		else if (w->how == 1)
			nanosleep(&hour, NULL);
		else
			sem_wait(&answer);
	}
	CHECK(!blocked(SIGUSR1));
	return NULL;
}

static void handlers_that_wait(void)
{
	void (*all[])(int) = {wait_for_lock, wait_for_cond, wait_for_sem,
			      wait_for_pipe, make_a_thread, sleep_a_little};

	REQUIRE(sem_init(&sem, 0, 0) == 0 && sem_init(&answer, 0, 0) == 0 && pipe(fds) == 0);
	for (unsigned i = 0; i < COUNT(all); i++) {
		for (int how = 0; how < 3; how++) {
			struct waiting w = {all[i], how};
			waits = value = stop = 0;
			on(SIGUSR1, all[i], 0, 0);
			pthread_mutex_lock(&lock);
			pthread_t t = spawn(victim, &w);
			sleep_ms(2);
			if (all[i] == wait_for_cond)
				pthread_mutex_unlock(&lock);
			REQUIRE_OK(pthread_kill(t, SIGUSR1));
			CHECK(wait_for(&waits, 1, 10000));
			sleep_ms(2);
			if (all[i] == wait_for_cond) {
				pthread_mutex_lock(&lock);
				CHECK_EQ(value, 0);
				value = 1;
				pthread_cond_signal(&cond);
			} else if (all[i] == wait_for_sem) {
				sem_post(&sem);
			} else if (all[i] == wait_for_pipe) {
				REQUIRE(write(fds[1], "x", 1) == 1);
			}
			pthread_mutex_unlock(&lock);
			CHECK(wait_for(&value, all[i] == wait_for_cond ? 2 : 1, 10000));
			stop = 1;
			/* To the end of the wait, whatever it is. */
			sem_post(&answer);
			on(SIGUSR1, sleep_a_little, 0, 0);
			REQUIRE_OK(pthread_kill(t, SIGUSR1));
			join(t);
			while (sem_trywait(&answer) == 0)
				;
		}
	}
	close(fds[0]);
	close(fds[1]);
}

/* sem_post is what a handler may do: many posts, none lost. */
static void post(int sig)
{
	(void)sig;
	sem_post(&sem);
}

static void *takes_permits(void *arg)
{
	for (int i = 0; i < 500; i++) {
		while (sem_wait(&sem) != 0)
			CHECK_EQ(errno, EINTR);
	}
	return arg;
}

static void posted_by_handlers(void)
{
	on(SIGUSR1, post, 0, 0);
	REQUIRE(sem_init(&sem, 0, 0) == 0);
	pthread_t t = spawn(takes_permits, NULL);
	for (int i = 0; i < 250; i++)
		raise(SIGUSR1);
	/* Some of these come while it is in sem_wait itself. Real-time, since the others may be one. */
	on(SIGRTMIN, post, 0, 0);
	for (int i = 0; i < 250; i++)
		pthread_sigqueue(t, SIGRTMIN, (union sigval){0});
	join(t);
}

/* --- nested ------------------------------------------------------------------------------------------------------------ */

static __thread volatile int level, deepest;
static const int chain[] = {10 /* SIGUSR1 */, 12 /* SIGUSR2 */, 1 /* SIGHUP */, 15 /* SIGTERM */};

static void nest(int sig)
{
	int me = level++;

	if (level > deepest)
		deepest = level;
	/* All before it in the chain are blocked, the next one is not. */
	for (int i = 0; i <= me; i++)
		CHECK(blocked(chain[i]));
	if (me + 1 < (int)COUNT(chain)) {
		CHECK(!blocked(chain[me + 1]));
		raise(chain[me + 1]);
		CHECK(!blocked(chain[me + 1]));
		sched_yield();
	}
	CHECK_EQ(sig, chain[me]);
	level--;
}

static void *nests(void *arg)
{
	static char stacks[2][64 << 10];
	stack_t ss = {.ss_sp = stacks[arg != NULL], .ss_size = sizeof stacks[0]};
	stack_t none = {.ss_flags = SS_DISABLE};

	for (int alt = 0; alt < 2; alt++) {
		for (unsigned i = 0; i < COUNT(chain); i++)
			on(chain[i], nest, alt ? SA_ONSTACK : 0, 0);
		if (alt)
			REQUIRE(sigaltstack(&ss, NULL) == 0);
		for (int i = 0; i < 50; i++) {
			level = deepest = 0;
			raise(chain[0]);
			CHECK_EQ(deepest, COUNT(chain));
			for (unsigned k = 0; k < COUNT(chain); k++)
				CHECK(!blocked(chain[k]));
		}
	}
	REQUIRE(sigaltstack(&none, NULL) == 0);
	return NULL;
}

static void nested(void)
{
	nests(NULL);
	join(spawn(nests, (void *)1));
}

/* --- handlers that do not return ------------------------------------------------------------------------------------------ */

static __thread sigjmp_buf env;
static __thread volatile int jumps;

static void jump(int sig)
{
	(void)sig;
	jumps++;
	siglongjmp(env, 1);
}

static void *jumps_out(void *arg)
{
	struct timespec hour = {3600, 0};

	sem_t s;
	sem_init(&s, 0, 0);
	for (int i = 0; i < 60; i++) {
		volatile int k = i % 3;
		if (sigsetjmp(env, 1) == 0) {
			CHECK(!blocked(SIGUSR1));
			if (k == 0)
				raise(SIGUSR1);
			alarm(0);
			struct itimerspec soon = {{0, 0}, {0, 300000}};
			struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID,
					      .sigev_signo = SIGUSR1};
			timer_t t;
			ev._sigev_un._tid = gettid();
			REQUIRE(timer_create(CLOCK_MONOTONIC, &ev, &t) == 0);
			REQUIRE(timer_settime(t, 0, &soon, NULL) == 0);
			if (k == 1)
				nanosleep(&hour, NULL);
			else
				sem_wait(&s);
			FAIL("it came back");
		}
		CHECK_EQ(jumps, i + 1);
		CHECK(!blocked(SIGUSR1));
		CHECK(!blocked(SIGUSR2));
	}
	jumps = 0;
	return arg;
}

/* swapcontext: a thread of threads, switched by a handler. */
static __thread ucontext_t tasks[2], back;
static __thread volatile int running, switches, work[2];
enum { SWITCHES = 20, STACK = 128 << 10 };

static void switch_task(int sig)
{
	int from = running;

	(void)sig;
	if (switches == SWITCHES || !work[from])
		return;
	running = !from;
	switches++;
	REQUIRE(swapcontext(&tasks[from], &tasks[!from]) == 0);
}

static void only_alarm(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(how, &set, NULL);
}

static void task(void)
{
	volatile int me = running;

	/* Blocked by the thread, or by the handler. */
	only_alarm(SIG_UNBLOCK);
	while (switches < SWITCHES)
		work[me]++;
	only_alarm(SIG_BLOCK);
	setcontext(&back);
}

static void make_task(int i, char *stack)
{
	REQUIRE(getcontext(&tasks[i]) == 0);
	tasks[i].uc_stack.ss_sp = stack;
	tasks[i].uc_stack.ss_size = STACK;
	tasks[i].uc_link = NULL;
	makecontext(&tasks[i], task, 0);
}

static void *swaps(void *arg)
{
	static char stacks[2][2][STACK];
	volatile int done = 0;
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM};
	struct itimerspec its = {{0, 1000000}, {0, 1000000}};
	timer_t t;

	/* Only tasks are interrupted. */
	only_alarm(SIG_BLOCK);
	running = switches = work[0] = work[1] = 0;
	make_task(0, stacks[arg != NULL][0]);
	make_task(1, stacks[arg != NULL][1]);
	ev._sigev_un._tid = gettid();
	REQUIRE(timer_create(CLOCK_MONOTONIC, &ev, &t) == 0);
	REQUIRE(getcontext(&back) == 0);
	if (!done) {
		done = 1;
		REQUIRE(timer_settime(t, 0, &its, NULL) == 0);
		setcontext(&tasks[0]);
	}
	timer_delete(t);
	CHECK_EQ(switches, SWITCHES);
	CHECK(work[0] > 0 && work[1] > 0);
	CHECK(blocked(SIGALRM));
	only_alarm(SIG_UNBLOCK);
	return NULL;
}

static void left_by_a_jump(void)
{
	on(SIGUSR1, jump, 0, SIGUSR2);
	jumps_out(NULL);
	join(spawn(jumps_out, NULL));
}

static void left_by_swapcontext(void)
{
	on(SIGALRM, switch_task, SA_RESTART, 0);
	swaps(NULL);
	join(spawn(swaps, (void *)1));
	signal(SIGALRM, SIG_IGN);
}

static void end_here(int sig)
{
	(void)sig;
	pthread_exit((void *)77);
}

static void *computes(void *arg)
{
	for (volatile int i = 0;; i++)
		;
	return arg;
}

static void *sleeps(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void left_by_exit(void)
{
	on(SIGUSR1, end_here, 0, 0);
	for (int i = 0; i < 20; i++) {
		pthread_t t = spawn(i % 2 ? computes : sleeps, NULL);
		if (i % 4 < 2) /* others may be told before they have begun */
			sleep_ms(1);
		REQUIRE_OK(pthread_kill(t, SIGUSR1));
		CHECK(join(t) == (void *)77);
	}
	signal(SIGUSR1, SIG_IGN);
}

static const struct test_case cases[] = {
    {"handlers_that_wait", handlers_that_wait},
    {"posted_by_handlers", posted_by_handlers},
    {"nested", nested},
    {"left_by_a_jump", left_by_a_jump},
    {"left_by_swapcontext", left_by_swapcontext},
    {"left_by_exit", left_by_exit},
};

TEST_MAIN(cases)
