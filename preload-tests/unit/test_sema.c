/*
 * test_sema.c - waiting by address, one step at a time: goroutines and foreign
 * threads. What holds under load is in test_sema_stress.c.
 */
#include "testsched.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int word, other;
static _Atomic int started, woken, timedout, interrupted, left;
static _Atomic int order[16];
static _Atomic int norder;

static void onleave(void *arg)
{
	(void)arg;
	atomic_fetch_add(&left, 1);
}

/* Waits until n wait at addr. */
static void waitersat(const void *addr, int n)
{
	while (semawaiters(addr) != n) {
		if (getg() != NULL)
			gosched();
		else
			usleep(100);
	}
}

static void count(int r)
{
	if (r == 0)
		atomic_fetch_add(&woken, 1);
	else if (r == -ETIMEDOUT)
		atomic_fetch_add(&timedout, 1);
	else if (r == -EINTR)
		atomic_fetch_add(&interrupted, 1);
	else
		must(!"result of semapark");
}

/* arg: its tag. */
static void waiter(void *arg)
{
	uint64_t tag = (uint64_t)(uintptr_t)arg;

	atomic_fetch_add(&started, 1);
	count(semapark(&word, NULL, onleave, NULL, tag, WaitSem, FOREVER, 0));
	atomic_store(&order[atomic_fetch_add(&norder, 1) % 16], (int)tag);
}

static void spawnwaiters(int n)
{
	for (int i = 0; i < n; i++) {
		spawn(waiter, (void *)(uintptr_t)(i + 1));
		waitersat(&word, i + 1);
	}
}

/* --- goroutines ------------------------------------------------------------------- */

static bool never(void *arg)
{
	(void)arg;
	return false;
}

static void no_wait(void)
{
	must(semapark(&word, never, onleave, NULL, 0, WaitSem, FOREVER, 0) == -EAGAIN);
	must(left == 0);
	must(semapark(&word, NULL, onleave, NULL, 0, WaitSem, 0, 0) == -ETIMEDOUT);
	must(left == 1);
	must(semaready(&word, 1, NULL, NULL, NULL, 0) == 0);
	must(semawaiters(&word) == 0);
}

Test(sema, check_and_past_deadline_do_not_wait, .timeout = 20)
{
	inscheduler(2, 1, no_wait);
}

static void fifo(void)
{
	spawnwaiters(5);
	for (int i = 0; i < 5; i++) {
		must(semaready(&word, 1, NULL, NULL, NULL, 0) == 1);
		while (norder <= i)
			gosched();
		must(order[i] == i + 1);
	}
	joinall();
	must(woken == 5 && left == 0);
}

Test(sema, wakes_in_queue_order, .timeout = 20)
{
	inscheduler(2, 5, fifo);
}

static void lifowaiter(void *arg)
{
	count(semapark(&word, NULL, NULL, NULL, (uintptr_t)arg, WaitSem, FOREVER, ParkLIFO));
	atomic_store(&order[atomic_fetch_add(&norder, 1)], (int)(uintptr_t)arg);
}

static void lifo(void)
{
	spawnwaiters(2);
	spawn(lifowaiter, (void *)9);
	waitersat(&word, 3);
	static const int want[] = {9, 1, 2};
	for (int i = 0; i < 3; i++) {
		must(semaready(&word, 1, NULL, NULL, NULL, ParkHandoff) == 1);
		while (norder <= i)
			gosched();
		must(order[i] == want[i]);
	}
	joinall();
}

Test(sema, lifo_goes_to_the_head, .timeout = 20)
{
	inscheduler(2, 3, lifo);
}

static int pickodd(void *arg, uint64_t tag)
{
	++*(int *)arg;
	return tag % 2 == 1;
}

static int pickuntil3(void *arg, uint64_t tag)
{
	++*(int *)arg;
	return tag == 3 ? -1 : 1;
}

static int donewoken, doneleft;

static void ondone(void *arg, int w, int l)
{
	(void)arg;
	donewoken = w;
	doneleft = l;
}

static void picks(void)
{
	int asked = 0;

	spawnwaiters(6);
	must(semaready(&word, 2, pickodd, ondone, &asked, 0) == 2);
	must(asked == 3 && donewoken == 2 && doneleft == 4); /* 2 4 5 6 */
	asked = 0;
	must(semaready(&word, 10, pickodd, ondone, &asked, 0) == 1);
	must(asked == 4 && doneleft == 3);
	asked = 0;
	must(semaready(&word, 10, pickodd, ondone, &asked, 0) == 0);
	must(asked == 3 && donewoken == 0 && doneleft == 3);
	must(semaready(&word, 10, NULL, ondone, NULL, 0) == 3);
	must(doneleft == 0);
	joinall();
	norder = 0;
	spawnwaiters(4);
	asked = 0;
	must(semaready(&word, 10, pickuntil3, ondone, &asked, 0) == 2);
	must(asked == 3 && doneleft == 2);
	must(semaready(&word, 10, NULL, NULL, NULL, 0) == 2);
	joinall();
}

Test(sema, pick_chooses_skips_and_stops, .timeout = 20)
{
	inscheduler(2, 6, picks);
}

static void timedwaiter(void *arg)
{
	int64_t ns = (int64_t)(uintptr_t)arg, deadline = nanotime() + ns;
	int r = semapark(&word, NULL, onleave, NULL, 0, WaitSem, deadline, 0);

	if (r == -ETIMEDOUT)
		must(nanotime() >= deadline);
	count(r);
}

static void timeouts(void)
{
	spawnwaiters(1);
	for (int i = 0; i < 10; i++)
		spawn(timedwaiter, (void *)(uintptr_t)((10 - i) * MS));
	while (timedout != 10)
		must(gosleep(nanotime() + MS, 0) == 0);
	must(left == 10 && semawaiters(&word) == 1);
	spawn(timedwaiter, (void *)(uintptr_t)(100000 * MS));
	waitersat(&word, 2);
	must(semaready(&word, 5, NULL, NULL, NULL, 0) == 2);
	joinall();
	must(woken == 2 && left == 10);
}

Test(sema, deadlines_end_waits_in_the_middle_of_the_queue, .timeout = 20)
{
	inscheduler(2, 11, timeouts);
}

Test(sema, deadlines_with_one_p, .timeout = 20)
{
	inscheduler(1, 11, timeouts);
}

static G *_Atomic victim;

static void intrwaiter(void *arg)
{
	(void)arg;
	atomic_store(&victim, getg());
	count(semapark(&word, NULL, onleave, NULL, 0, WaitSem, FOREVER, ParkIntr));
	gclearinterrupt();
}

static void deafwaiter(void *arg)
{
	(void)arg;
	atomic_store(&victim, getg());
	count(semapark(&word, NULL, onleave, NULL, 0, WaitSem, FOREVER, 0));
	must(ginterrupted());
	gclearinterrupt();
}

static void interrupts(void)
{
	spawn(intrwaiter, NULL);
	waitersat(&word, 1);
	ginterrupt(victim);
	joinall();
	must(interrupted == 1 && left == 1 && semawaiters(&word) == 0);
	spawn(deafwaiter, NULL);
	waitersat(&word, 1);
	ginterrupt(victim);
	gosleep(nanotime() + 5 * MS, 0);
	must(semawaiters(&word) == 1);
	semaready(&word, 1, NULL, NULL, NULL, 0);
	joinall();
	must(interrupted == 1 && woken == 1);
}

Test(sema, interrupts_end_waits_that_want_it, .timeout = 20)
{
	inscheduler(2, 1, interrupts);
}

static void requeues(void)
{
	int moved = -1;

	spawnwaiters(6);
	must(semarequeue(&word, &other, 1, 3, never, NULL, &moved) == -EAGAIN);
	must(semarequeue(&word, &other, 1, 3, NULL, NULL, &moved) == 1);
	must(moved == 3 && semawaiters(&word) == 2 && semawaiters(&other) == 3);
	for (int i = 0; i < 3; i++) {
		must(semaready(&other, 1, NULL, NULL, NULL, 0) == 1);
		while (norder < i + 2)
			gosched();
		must(order[i + 1] == i + 2);
	}
	must(semarequeue(&word, &word, 0, 10, NULL, NULL, &moved) == 0);
	must(moved == 0 && semawaiters(&word) == 2);
	must(semarequeue(&word, &other, 10, 10, NULL, NULL, NULL) == 2);
	joinall();
	must(left == 0);
}

Test(sema, requeue_wakes_and_moves, .timeout = 20)
{
	inscheduler(2, 6, requeues);
}

static void movedtimeout(void)
{
	int moved = 0;

	/* With so much time that all still wait when they are moved. */
	for (int64_t ns = 5 * MS; moved < 8; ns *= 2) {
		timedout = left = 0;
		for (int i = 0; i < 8; i++)
			spawn(timedwaiter, (void *)(uintptr_t)ns);
		while (semawaiters(&word) + timedout < 8)
			gosched();
		must(semarequeue(&word, &other, 0, 8, NULL, NULL, &moved) == 0);
		joinall();
		must(timedout == 8 && left == 8 && semawaiters(&other) == 0);
	}
}

Test(sema, a_moved_waiter_times_out_where_it_is, .timeout = 20)
{
	inscheduler(2, 8, movedtimeout);
}

/* While a picky waker holds the claim of a waiter that it will not take, the
 * waiter's deadline passes, or it is interrupted: that must not be lost. */
static int64_t pickdeadline;

static int pickpastdeadline(void *arg, uint64_t tag)
{
	bool ran;

	(void)arg;
	(void)tag;
	while (nanotime() < pickdeadline)
		procyield();
	for (int i = 0; i < sched.nallp; i++)
		checktimers(sched.allp[i], nanotime(), &ran);
	return 0;
}

static int pickinterrupting(void *arg, uint64_t tag)
{
	(void)arg;
	(void)tag;
	ginterrupt(victim);
	return -1;
}

static void deadlinewaiter(void *arg)
{
	(void)arg;
	count(semapark(&word, NULL, onleave, NULL, 0, WaitSem, pickdeadline, 0));
}

static void claims(void)
{
	for (int i = 0; i < 20; i++) {
		pickdeadline = nanotime() + 5 * MS;
		spawn(deadlinewaiter, NULL);
		while (semawaiters(&word) == 0 && timedout == i)
			gosched();
		semaready(&word, 1, pickpastdeadline, NULL, NULL, 0);
		joinall();
		must(timedout == i + 1 && left == timedout);
	}
	left = 0;
	for (int i = 0; i < 20; i++) {
		spawn(intrwaiter, NULL);
		waitersat(&word, 1);
		must(semaready(&word, 1, pickinterrupting, NULL, NULL, 0) == 0);
		joinall();
		must(interrupted == i + 1 && left == interrupted);
	}
}

Test(sema, what_ends_a_wait_is_not_lost_to_a_picky_waker, .timeout = 20)
{
	inscheduler(1, 1, claims);
	inscheduler(2, 1, claims);
}

/* --- foreign threads ------------------------------------------------------------------ */

static void *foreignwaiter(void *arg)
{
	waiter(arg);
	return NULL;
}

static void *foreigntimed(void *arg)
{
	timedwaiter(arg);
	return NULL;
}

Test(sema, foreign_threads_wait_before_any_start, .timeout = 20)
{
	pthread_t t[4];

	for (int i = 0; i < 4; i++) {
		pthread_create(&t[i], NULL, foreignwaiter, (void *)(uintptr_t)(i + 1));
		waitersat(&word, i + 1);
	}
	cr_assert_eq(semaready(&word, 1, NULL, NULL, NULL, 0), 1);
	pthread_join(t[0], NULL);
	cr_assert_eq(order[0], 1);
	cr_assert_eq(semaready(&word, 9, NULL, ondone, NULL, 0), 3);
	cr_assert_eq(doneleft, 0);
	for (int i = 1; i < 4; i++)
		pthread_join(t[i], NULL);
	cr_assert_eq(woken, 4);
	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, foreigntimed, (void *)(uintptr_t)(5 * MS));
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	cr_assert_eq(timedout, 4);
	cr_assert_eq(left, 4);
	cr_assert_eq(semawaiters(&word), 0);
}

static void onusr(int sig)
{
	(void)sig;
}

static pthread_t foreign;

static void *foreignintr(void *arg)
{
	int flags = (int)(uintptr_t)arg;

	count(semapark(&word, NULL, onleave, NULL, 0, WaitSem, FOREVER, flags));
	return NULL;
}

Test(sema, a_handler_ends_a_foreign_wait_that_wants_it, .timeout = 20)
{
	struct sigaction sa = {.sa_handler = onusr};
	sigset_t set;

	sigaction(SIGUSR1, &sa, NULL);
	pthread_create(&foreign, NULL, foreignintr, (void *)(uintptr_t)ParkIntr);
	waitersat(&word, 1);
	/* It is queued a little before it sleeps. */
	while (interrupted == 0) {
		pthread_kill(foreign, SIGUSR1);
		usleep(1000);
	}
	pthread_join(foreign, NULL);
	cr_assert_eq(left, 1);
	cr_assert_eq(semawaiters(&word), 0);

	pthread_create(&foreign, NULL, foreignintr, NULL);
	waitersat(&word, 1);
	for (int i = 0; i < 20; i++) {
		pthread_kill(foreign, SIGUSR1);
		usleep(1000);
	}
	cr_assert_eq(semawaiters(&word), 1);
	semaready(&word, 1, NULL, NULL, NULL, 0);
	pthread_join(foreign, NULL);
	cr_assert_eq(woken, 1);
	pthread_sigmask(SIG_SETMASK, NULL, &set);
	cr_assert_not(sigismember(&set, SIGUSR1));
	cr_assert_not(sigismember(&set, SIGTERM));
}

static void *foreigncrowd(void *arg)
{
	count(semapark(arg, NULL, NULL, NULL, 0, WaitSem, FOREVER, 0));
	return NULL;
}

Test(sema, many_addresses_do_not_disturb_each_other, .timeout = 60)
{
	enum { N = 300 };
	static char object[N * 8];
	static pthread_t t[N];
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	for (int i = 0; i < N; i++)
		pthread_create(&t[i], &attr, foreigncrowd, &object[i / 2 * 8]);
	for (int i = 0; i < N; i += 2)
		waitersat(&object[i / 2 * 8], 2);
	for (int i = N - 2; i >= 0; i -= 2) {
		cr_assert_eq(semaready(&object[i / 2 * 8 + 1], 5, NULL, NULL, NULL, 0), 0);
		cr_assert_eq(semaready(&object[i / 2 * 8], 5, NULL, NULL, NULL, 0), 2);
	}
	for (int i = 0; i < N; i++)
		pthread_join(t[i], NULL);
	cr_assert_eq(woken, N);
}

Test(sema, forked_child_has_no_waiters, .timeout = 20)
{
	int status;
	pid_t pid;

	pthread_create(&foreign, NULL, foreignwaiter, (void *)1);
	waitersat(&word, 1);
	pid = fork();
	if (pid == 0) {
		semaforkchild();
		if (semawaiters(&word) != 0 || semaready(&word, 1, NULL, NULL, NULL, 0) != 0)
			_exit(1);
		pthread_create(&foreign, NULL, foreignwaiter, (void *)2);
		waitersat(&word, 1);
		semaready(&word, 1, NULL, NULL, NULL, 0);
		pthread_join(foreign, NULL);
		semaforkchild();
		_exit(semawaiters(&word));
	}
	waitpid(pid, &status, 0);
	cr_assert_eq(status, 0);
	cr_assert_eq(semaready(&word, 1, NULL, NULL, NULL, 0), 1);
	pthread_join(foreign, NULL);
}

/* --- sleeping ---------------------------------------------------------------------------- */

static void sleeper(void *arg)
{
	int64_t until = nanotime() + (int64_t)(uintptr_t)arg;

	must(gosleep(until, 0) == 0);
	must(nanotime() >= until);
}

static void sleeps(void)
{
	for (int i = 0; i < 100; i++)
		spawn(sleeper, (void *)(uintptr_t)(i % 10 * MS));
	joinall();
	sleeper((void *)(uintptr_t)(3 * MS));
	must(gosleep(0, 0) == 0);
	must(gosleep(-5, 0) == 0);
}

Test(gosleep, wakes_after_its_time, .timeout = 20)
{
	inscheduler(1, 100, sleeps);
	inscheduler(4, 100, sleeps);
}

static void intrsleeper(void *arg)
{
	(void)arg;
	atomic_store(&victim, getg());
	atomic_fetch_add(&started, 1);
	must(gosleep(nanotime() + 100000 * MS, ParkIntr) == -EINTR);
	gclearinterrupt();
}

static void intrsleep(void)
{
	for (int i = 0; i < 50; i++) {
		started = 0;
		spawn(intrsleeper, NULL);
		while (started == 0 || readgstatus(victim) != Gwaiting)
			gosched();
		ginterrupt(victim);
		joinall();
	}
}

Test(gosleep, an_interrupt_ends_it, .timeout = 20)
{
	inscheduler(2, 1, intrsleep);
}

Test(gosleep, foreign_threads_sleep_in_the_kernel, .timeout = 20)
{
	int64_t until = nanotime() + 5 * MS;

	cr_assert_eq(gosleep(until, 0), 0);
	cr_assert_geq(nanotime(), until);
	cr_assert_eq(gosleep(0, 0), 0);
}
