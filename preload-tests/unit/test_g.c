/*
 * test_g.c - goroutines as records: status changes, pools.
 */
#include "testsched.h"

#include <string.h>

static P ps[2];

static void setup(void)
{
	memset(&sched, 0, sizeof(sched));
	lockinit(&sched.lock, RankSched);
	lockinit(&sched.allglock, RankAllg);
	memset(ps, 0, sizeof(ps));
}

TestSuite(g, .init = setup);

Test(g, status_changes_only_from_what_it_was)
{
	G *gp = gfget(NULL);

	cr_assert_eq(readgstatus(gp), Gdead);
	casgstatus(gp, Gdead, Grunnable);
	casgstatus(gp, Grunnable, Grunning);
	casgstatus(gp, Grunning, Gwaiting);
	cr_assert_eq(readgstatus(gp), Gwaiting);
}

TestThrows(g, a_wrong_status_throws, .init = setup)
{
	casgstatus(gfget(NULL), Grunning, Gwaiting);
}

TestThrows(g, pooling_one_that_lives_throws, .init = setup)
{
	G *gp = gfget(NULL);

	casgstatus(gp, Gdead, Grunnable);
	gfput(&ps[0], gp);
}

Test(g, finished_ones_are_reused_and_all_are_known)
{
	enum { N = 500 };
	static G *gp[N];
	int n = 0;

	for (int i = 0; i < N; i++) {
		gp[i] = gfget(&ps[0]);
		cr_assert_eq((uintptr_t)gp[i] % 64, 0);
	}
	for (int i = 0; i < N; i++)
		gfput(&ps[0], gp[i]);
	cr_assert_lt(ps[0].ngfree, 64);
	cr_assert_eq(ps[0].ngfree + sched.ngfree, N);
	/* Another P gets them through the scheduler's pool. */
	for (int i = 0; i < N; i++) {
		G *g = i % 3 == 0 ? gfget(NULL) : gfget(&ps[i % 2]);

		cr_assert_not_null(g);
	}
	for (G *g = sched.allg; g != NULL; g = g->alllink)
		n++;
	cr_assert_leq(n, N + 32, "few more than there were at once");
	cr_assert_geq(n, N);
}
