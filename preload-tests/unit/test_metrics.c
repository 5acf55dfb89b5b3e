/*
 * test_metrics.c - histograms at every edge, and that the times of goroutines add up.
 */
#include "testsched.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- buckets ---------------------------------------------------------------------------- */

Test(metrics, every_bucket_begins_where_the_last_ends)
{
	for (uint32_t i = 0; i + 1 < HistBuckets; i++) {
		uint64_t lo = histlow(i, HistSubBits), next = histlow(i + 1, HistSubBits);

		cr_assert(next > lo, "bucket %u", i);
		cr_assert(histindex(lo) == i && histindex(next - 1) == i &&
			      histindex(next) == i + 1,
			  "bucket %u: %lu to %lu", i, lo, next);
		cr_assert(histindex(lo + (next - lo) / 2) == i);
		/* Two digits: the middle is at most 1 % from what it stands for. */
		cr_assert(next - lo == 1 || (next - lo) * 50 <= lo);
	}
	cr_assert(histindex(0) == 0 && histlow(0, HistSubBits) == 0);
}

Test(metrics, what_is_too_long_is_in_the_last)
{
	uint64_t end = 1ull << HistMaxBits;

	cr_assert(histindex(end - 1) == HistBuckets - 1);
	for (int i = HistMaxBits; i < 64; i++)
		cr_assert(histindex(1ull << i) == HistBuckets - 1);
	cr_assert(histindex(UINT64_MAX) == HistBuckets - 1);
	/* An hour, with a fast counter. */
	cr_assert(end / 4.8 > 3600e9);
}

/* --- counting ---------------------------------------------------------------------------- */

static uint64_t sumof(Hist h)
{
	uint64_t n = nobodys.shard->sum[h];
	for (int i = 0; i < sched.gomaxprocs; i++)
		n += sched.allp[i]->meter.shard->sum[h];
	return n;
}

static uint64_t countof(Hist h)
{
	uint64_t n = 0;
	for (int i = 0; i <= sched.gomaxprocs; i++) {
		Shard *s = i < sched.gomaxprocs ? sched.allp[i]->meter.shard : nobodys.shard;
		for (int k = 0; k < HistBuckets; k++)
			n += s->buckets[h][k];
	}
	return n;
}

static uint64_t moved(uint32_t from, uint32_t to)
{
	uint64_t n = nobodys.shard->moves[from][to];
	for (int i = 0; i < sched.gomaxprocs; i++)
		n += sched.allp[i]->meter.shard->moves[from][to];
	return n;
}

static _Atomic int64_t slept;

static void napper(void *us)
{
	for (int i = 0; i < 10; i++) {
		int64_t begin = nanotime();
		gosleep(begin + (intptr_t)us * 1000, 0);
		atomic_fetch_add(&slept, nanotime() - begin);
	}
}

static void counted(void)
{
	for (int i = 0; i < 8; i++)
		spawn(yielder, (void *)100);
	for (int i = 0; i < 8; i++)
		spawn(napper, (void *)200);
	spawn(sleepsyscall, (void *)1000);
	joinall();
	must(moved(Gdead, Grunnable) == 17 && moved(Gdead, Grunning) == 1);
	must(moved(Grunning, Gdead) == 17);
	must(countof((Hist)WaitSleep) >= 80);
	must(countof(HistRunnable) == moved(Grunnable, Grunning));
	must(moved(Grunning, Grunnable) >= 800);
	must(countof(HistSyscall) + countof(HistSyscallLost) == moved(Grunning, Gsyscall));
	must(moved(Grunning, Gsyscall) >= 5);
	/* The sleepers' own time has all of it, and the way there and back. */
	double waited = (double)ticksns(sumof((Hist)WaitSleep));
	must(waited <= (double)slept * 1.001 &&
	     waited + (double)ticksns(sumof(HistRunnable) + sumof(HistRunning)) >=
		 (double)slept * 0.999);
	/* 5 calls of 1 ms. */
	must((double)ticksns(sumof(HistSyscall) + sumof(HistSyscallLost)) >= 5000000 * 0.99);
}

Test(metrics, every_change_is_counted, .timeout = 60)
{
	inscheduler(1, 20, counted);
	inscheduler(4, 20, counted);
}

/* One goroutine's life, from its first moment to now: the histograms have all of it but what it is doing. */
static void alone(void)
{
	uint64_t begin = getg()->since, sum = 0, before = 0;
	for (int h = 0; h <= HistSyscallLost; h++)
		before += sumof((Hist)h);
	for (int i = 0; i < 50; i++) {
		gosleep(nanotime() + 100000, 0);
		gosched();
		entersyscall();
		usleep_os(100);
		exitsyscall();
	}
	for (int h = 0; h <= HistSyscallLost; h++)
		sum += sumof((Hist)h);
	must(sum - before == getg()->since - begin);
}

Test(metrics, the_parts_add_up_to_the_whole, .timeout = 60)
{
	inscheduler(1, 1, alone);
	inscheduler(4, 1, alone);
}

/* The counter is denied: by the kernel's clock, in the same ticks. */
static void denied(void)
{
	gosleep(nanotime() + 30000000, 0);
	uint64_t before = ticksnow();
	avoidtsc();
	uint64_t after = ticksnow();
	must((int64_t)(after - before) >= 0 && ticksns(after - before) < 1000000000);
	before = sumof((Hist)WaitSleep);
	gosleep(nanotime() + 30000000, 0);
	must((double)ticksns(sumof((Hist)WaitSleep) - before) >= 30000000 * 0.9);
	alone();
}

Test(metrics, without_the_counter, .timeout = 60)
{
	inscheduler(2, 1, denied);
}

/* More Ps than the region has room for share what those without one have. */
static void grown(void)
{
	must(setgomaxprocs(6) == 0);
	for (int i = 0; i < 8; i++)
		spawn(yielder, (void *)100);
	joinall();
	must(sched.allp[5]->meter.shard == NULL);
	must(setgomaxprocs(2) == 0);
	must(moved(Grunning, Gdead) == 8);
}

Test(metrics, more_processors, .timeout = 60)
{
	inscheduler(2, 10, grown);
}
