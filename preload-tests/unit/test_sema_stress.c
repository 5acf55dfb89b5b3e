/*
 * test_sema_stress.c - waiting by address under load: nothing may be lost when
 * deadlines, interrupts, picky wakers and foreign threads meet in one queue.
 * test_sema.c has the single steps.
 */
#include "testsched.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

static int word;

/* A counting semaphore: every token is taken by one, whatever deadlines,
 * interrupts, requeues and picky wakers do. */
enum { Workers = 24, RoundsEach = 2000 };
static _Atomic int tokens, takenn, queued;
static _Atomic bool stop;

static bool notoken(void *arg)
{
	(void)arg;
	int t = atomic_load(&tokens);

	while (t > 0)
		if (atomic_compare_exchange_weak(&tokens, &t, t - 1))
			return false;
	atomic_fetch_add(&queued, 1);
	return true;
}

static void unqueue(void *arg)
{
	(void)arg;
	atomic_fetch_sub(&queued, 1);
}

static void onpost(void *arg, int w, int l)
{
	(void)arg;
	(void)l;
	atomic_fetch_sub(&queued, w);
	if (w == 0)
		atomic_fetch_add(&tokens, 1);
}

static int picksome(void *arg, uint64_t tag)
{
	(void)arg;
	return tag % 3 != 0;
}

static void worker(void *arg)
{
	Rand r = {(uint64_t)(uintptr_t)arg + 1};

	for (int i = 0; i < RoundsEach; i++) {
		int64_t deadline = FOREVER;

		if (rnd(&r) % 2 == 0)
			deadline = nanotime() + (int64_t)(rnd(&r) % 50000);
		int e = semapark(&word, notoken, unqueue, NULL, rnd(&r) % 8, WaitSem, deadline,
				 rnd(&r) % 2 == 0 ? ParkIntr : 0);
		if (e == 0 || e == -EAGAIN) {
			atomic_fetch_add(&takenn, 1);
			if (rnd(&r) % 4 == 0)
				gosched();
			semaready(&word, 1, rnd(&r) % 4 == 0 ? picksome : NULL, onpost, NULL,
				  rnd(&r) % 2 == 0 ? ParkHandoff : 0);
		}
		if (e == -EINTR)
			gclearinterrupt();
	}
}

static void disturber(void *arg)
{
	Rand r = {4711};

	(void)arg;
	while (!atomic_load(&stop)) {
		for (G *gp = atomic_load(&sched.allg); gp != NULL; gp = gp->alllink)
			if (rnd(&r) % 8 == 0 && gp != getg() && gp->goid != 1 &&
			    readgstatus(gp) == Gwaiting)
				ginterrupt(gp);
		/* What picky wakers left lying. */
		if (semaready(&word, 1, NULL, NULL, NULL, 0) == 1)
			atomic_fetch_sub(&queued, 1);
		else
			gosleep(nanotime() + 100000, 0);
	}
}

static void stress(void)
{
	atomic_store(&tokens, 3);
	for (int i = 0; i < Workers; i++)
		spawn(worker, (void *)(uintptr_t)i);
	while (livegs() > 0) {
		/* A waiter without deadline may be the last: feed it. */
		must(gosleep(nanotime() + MS, 0) == 0);
		must(semaready(&word, 1, NULL, onpost, NULL, 0) >= 0);
	}
	joinall();
	must(queued == 0 && semawaiters(&word) == 0);
	must(takenn > Workers * 100);
}

Test(sema, tokens_are_kept_under_deadlines_and_picky_wakers, .timeout = 60)
{
	inscheduler(4, Workers + 1, stress);
}

static void stressintr(void)
{
	atomic_store(&tokens, 3);
	spawn(disturber, NULL);
	for (int i = 0; i < Workers; i++)
		spawn(worker, (void *)(uintptr_t)i);
	while (livegs() > 1) {
		must(gosleep(nanotime() + MS, 0) == 0);
		semaready(&word, 1, NULL, onpost, NULL, 0);
	}
	atomic_store(&stop, true);
	joinall();
	must(queued == 0 && semawaiters(&word) == 0);
}

Test(sema, tokens_are_kept_under_interrupts, .timeout = 60)
{
	inscheduler(4, Workers + 1, stressintr);
}

static void *foreignworker(void *arg)
{
	worker(arg);
	return NULL;
}

static void mixed(void)
{
	pthread_t t[4];

	atomic_store(&tokens, 3);
	for (int i = 0; i < 4; i++)
		must(pthread_create(&t[i], NULL, foreignworker, (void *)(uintptr_t)(100 + i)) == 0);
	for (int i = 0; i < 12; i++)
		spawn(worker, (void *)(uintptr_t)i);
	while (livegs() > 0 || takenn < 16 * RoundsEach / 4) {
		must(gosleep(nanotime() + MS, 0) == 0);
		semaready(&word, 1, NULL, onpost, NULL, 0);
	}
	for (int i = 0; i < 4; i++) {
		entersyscall();
		while (pthread_tryjoin_np(t[i], NULL) != 0) {
			usleep(1000);
			exitsyscall();
			semaready(&word, 1, NULL, onpost, NULL, 0);
			entersyscall();
		}
		exitsyscall();
	}
	must(queued == 0 && semawaiters(&word) == 0);
}

Test(sema, goroutines_and_foreign_threads_share_queues, .timeout = 60)
{
	inscheduler(2, 12, mixed);
}
