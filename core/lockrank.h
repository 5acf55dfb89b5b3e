/*
 * lockrank.h - the order of runtime locks. A lock may be taken only while all
 * locks held by this M (or foreign thread) have a smaller rank; equal ranks
 * nest in address order only where NEST is said.
 */
#ifndef GOSHIM_LOCKRANK_H
#define GOSHIM_LOCKRANK_H

typedef enum LockRank {
	RankUnranked = 0, /* a zeroed lock: not checked */
	RankSema,         /* queues by address; NEST, in bucket order (semarequeue) */
	RankNetpoll,      /* a PollDesc */
	RankSched,        /* run queues, idle lists, allm */
	RankAllg,
	RankTimers, /* a P's timer heap; NEST (procresize holds sched.lock meanwhile) */
	RankSysmon, /* the list of Ms to be made: newm is called under any of the above */
	RankNoteList,
	RankStack,
	RankMem, /* leaf: allocator */
	RankCpu, /* leaf: a goroutine's CPU time */
	RankDebug,
	RankCount
} LockRank;

/* May locks of this rank be held together, taken by rising address? */
static inline int lockranknests(LockRank r)
{
	return r == RankSema || r == RankTimers;
}

#endif
