/*
 * test_yield.c - gosched and goturn: who waits gets the P.
 */
#include "testsched.h"

static _Atomic bool over;

/* An event loop that always has events gives others their turn, not only after a slice. */
static void turner(void *arg)
{
	(void)arg;
	while (!over)
		goturn();
}

static void turns(void)
{
	enum { ROUNDS = 100 };

	for (int i = 0; i < ROUNDS; i++)
		goturn(); /* alone it keeps its P */
	must(sched.allp[0]->schedtick < ROUNDS);
	over = false;
	spawn(turner, NULL);
	spawn(turner, NULL);
	/* In each round both make way. */
	int64_t preempted = metricscounted(CountPreempted);
	for (int i = 0; i < ROUNDS; i++)
		gosched();
	must(metricscounted(CountPreempted) - preempted < ROUNDS);
	over = true;
	joinall();
}

Test(yield, event_loops_take_turns, .timeout = 30)
{
	inscheduler(1, 10, turns);
}
