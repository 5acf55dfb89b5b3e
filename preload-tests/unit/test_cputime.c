/*
 * test_cputime.c - a goroutine's CPU time is its own: of all that take turns on the same Ms, and
 * whoever asks.
 */
#include "testsched.h"

#include <errno.h>

typedef struct Spender {
	G *gp;
	_Atomic int started, go;
	int64_t had;
} Spender;

static Spender spenders[4];

static int64_t mine(void)
{
	return gcputime(getg(), ghost(getg()));
}

/* Computes for 10 ms of its own time, in turns. */
static void spends(void *arg)
{
	Spender *s = arg;
	int64_t start = mine(), last = start;

	s->gp = getg();
	atomic_store(&s->started, 1);
	while (last < start + 10 * MS) {
		int64_t now = mine();

		must(now >= last);
		last = now;
		gosched();
	}
	s->had = last - start;
	while (!atomic_load(&s->go))
		gosleep(nanotime() + MS, 0);
}

static void several(void)
{
	int64_t began = nanotime(), sum = 0;

	for (unsigned i = 0; i < nelem(spenders); i++) {
		spenders[i] = (Spender){0};
		spawn(spends, &spenders[i]);
	}
	for (unsigned i = 0; i < nelem(spenders); i++) {
		Spender *s = &spenders[i];

		while (!atomic_load(&s->started))
			gosleep(nanotime() + MS, 0);
		must(gcputime(s->gp, ghost(s->gp)) >= 0);
		must(gcputime(s->gp, s) == -ESRCH);
		atomic_store(&s->go, 1);
	}
	joinall();
	for (unsigned i = 0; i < nelem(spenders); i++) {
		must(spenders[i].had >= 10 * MS);
		sum += spenders[i].had;
		must(gcputime(spenders[i].gp, &spenders[i]) == -ESRCH);
	}
	must(sum <= (nanotime() - began) * sched.gomaxprocs);
}

Test(cputime, of_goroutines_that_take_turns, .timeout = 60)
{
	inscheduler(1, 5, several);
	inscheduler(3, 5, several);
}

static void spinning(void)
{
	spawn(spinner, NULL);
	while (tally.started == 0)
		gosched();
	G *gp = NULL;
	for (; !gp; gosched())
		for (G *g = atomic_load(&sched.allg); g; g = g->alllink)
			if (readgstatus(g) == Grunning && g != getg())
				gp = g;
	int64_t first = gcputime(gp, ghost(gp));
	must(first >= 0);
	/* It is not switched, and nobody had asked before. */
	while (gcputime(gp, ghost(gp)) < first + 5 * MS)
		gosleep(nanotime() + MS, 0);
	atomic_store(&tally.stop, true);
	joinall();
}

Test(cputime, of_one_that_computes_already, .timeout = 60)
{
	inscheduler(2, 2, spinning);
}
