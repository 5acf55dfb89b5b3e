/*
 * test_wire.c - goroutines are wired by others: whatever they do, they run on the thread that was
 * told from then on, and it ends with them.
 */
#include "testsched.h"

#include <errno.h>
#include <sys/syscall.h>
#include <time.h>

typedef struct Target {
	G *gp;
	void *host;
	_Atomic int started, tid, go, ended;
	void (*act)(struct Target *t);
} Target;

static void yields(Target *t)
{
	while (!atomic_load(&t->go))
		gosched();
}

PREEMPTIBLE static void spins(Target *t)
{
	while (!atomic_load(&t->go))
		;
}

static bool notyet(void *arg)
{
	return !atomic_load(&((Target *)arg)->go);
}

static void parks(Target *t)
{
	while (notyet(t))
		semapark(&t->go, notyet, NULL, t, 0, WaitSem, FOREVER, 0);
}

static void sleepsinkernel(Target *t)
{
	struct timespec ts = {0, 300000};

	while (!atomic_load(&t->go))
		blockingsyscall(SYS_nanosleep, (long)&ts, 0, 0, 0, 0, 0);
}

/* Out of the kernel and in again all the time: on its way when the world stops. */
static void callsquickly(Target *t)
{
	while (!atomic_load(&t->go)) {
		entersyscall();
		sys0(SYS_getpid);
		exitsyscall();
	}
}

static void target(void *arg)
{
	Target *t = arg;

	t->gp = getg();
	t->host = ghost(getg());
	atomic_store(&t->started, 1);
	t->act(t);
	for (int i = 0; i < 30; i++) {
		must(gettid_os() == atomic_load(&t->tid));
		gosched();
	}
	atomic_store(&t->ended, 1);
}

static void told(void *arg, int tid)
{
	atomic_store(&((Target *)arg)->tid, tid);
}

static void wire(void)
{
	static void (*const acts[])(Target *) = {yields, spins, parks, sleepsinkernel,
						 callsquickly};

	for (int i = 0; i < 60; i++) {
		Target t = {.act = acts[i % 5]};

		spawn(target, &t);
		while (!atomic_load(&t.started))
			gosched();
		for (int k = 0; k < i / 5; k++)
			gosched();
		must(lockOSThreadOther(t.gp, t.host, told, &t) == 0);
		must(atomic_load(&t.tid) != 0 && atomic_load(&t.tid) != gettid_os());
		must(t.gp->lockedcount == 1 && t.gp->mends);
		if (i % 2)
			must(lockOSThreadOther(t.gp, t.host, told, &t) == 0);
		must(t.gp->lockedcount == 1);
		atomic_store(&t.go, 1);
		semaready(&t.go, 1, NULL, NULL, NULL, 0);
		joinall();
		must(atomic_load(&t.ended) == 1);
		must(lockOSThreadOther(t.gp, &t, told, &t) == -ESRCH);
	}
	must(sched.mcount < 30);
}

Test(wire, by_another_whatever_it_does, .timeout = 60)
{
	inscheduler(1, 6, wire);
	inscheduler(4, 6, wire);
}
