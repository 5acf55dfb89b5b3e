/*
 * asleep.c - what could wake a goroutine while all of them sleep: handlers of signals, kernel
 * threads that are not the scheduler's, and processes that share our memory.
 */
#include "sched.h"
#include "sigcore.h"

bool hashandlers(void)
{
	for (int s = 1; s <= NSIGS; s++)
		if (!(BIT(s) & (SYNCSIGS | NEVERMASKED)) && handled(s))
			return true;
	return false;
}

static _Atomic bool memoryshared;

void sharesmemory(void)
{
	atomic_store(&memoryshared, true);
}

/* For the time of a look; there is one at a time, sysmon's. */
static bool (*scheduler)(int tid);
static bool stranger;

static void look(int tid)
{
	stranger |= tid != (int)sys0(SYS_getpid) && tid != cleanthread() && !scheduler(tid);
}

bool hasoutsiders(bool (*known)(int tid))
{
	if (atomic_load(&memoryshared))
		return true;
	scheduler = known;
	stranger = false;
	return !alltasks(look) || stranger;
}
