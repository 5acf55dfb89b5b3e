/*
 * test_yield.c - gosched and goturn: who waits gets the P.
 */
#include "testsched.h"

/* An event loop that always has events gives others their turn, not only after a slice. */
static void turner(void *arg)
{
	_Atomic int *mine = arg;

	for (int i = 0; i < 1000; i++) {
		goturn();
		atomic_fetch_add(mine, 1);
	}
}

static void turns(void)
{
	_Atomic int a = 0, b = 0;
	int rounds = 0;

	for (int i = 0; i < 100; i++)
		goturn(); /* alone it keeps its P */
	must(sched.allp[0]->schedtick < 100);
	spawn(turner, (void *)&a);
	spawn(turner, (void *)&b);
	while (a < 1000 || b < 1000) {
		gosched();
		rounds++;
	}
	must(rounds >= 100);
	joinall();
}

Test(yield, event_loops_take_turns, .timeout = 30)
{
	inscheduler(1, 10, turns);
}
