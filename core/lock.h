/*
 * lock.h - runtime locks and notes, on futexes (lock_futex.c).
 *
 * Lock: a mutex for the runtime's own data, held for a few hundred
 * instructions, never across a park. The caller is on g0 or in a section
 * (sectionenter); so no signal handler can want the lock that it interrupted. In debug builds
 * (GOSHIM_DEBUG) every lock has a rank (lockrank.h) and acquiring against the
 * order throws.
 *
 * Note: a one-time event. noteclear, then one notewakeup releases one
 * sleeper, whichever comes first; a second notewakeup throws.
 */
#ifndef GOSHIM_LOCK_H
#define GOSHIM_LOCK_H

#include "annotate.h"
#include "lockrank.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct Lock {
	_Atomic uint32_t key; /* 0 free, 1 held, 2 held and someone may sleep */
	LockRank rank;
} Lock;

#define LOCK_INIT(r) \
	{            \
		0, r \
	}
void lockinit(Lock *l, LockRank rank);
void lock(Lock *l);
bool trylock(Lock *l);
void unlock(Lock *l);

/*
 * What an M holds, for the check of the order (GOSHIM_DEBUG). heldlocks
 * answers for the caller's M, whatever thread block is in FS, or for a foreign
 * thread; lock_futex.c has a weak one, by thread block.
 */
typedef struct HeldLocks {
	int n;
	Lock *l[12];
} HeldLocks;
HeldLocks *heldlocks(void);

typedef struct Note Note;
struct Note {
	_Atomic uint32_t key; /* 0 clear, 1 woken */
	/* Under the lock of the NoteList that it is linked in. */
	bool linked;
	int64_t deadline;
	Note *next, *prev;
};

void noteclear(Note *n);
void notewakeup(Note *n); /* throws "notewakeup - double wakeup" */
void notesleep(Note *n);
/* True when woken, false when ns nanoseconds passed (ns < 0: no limit). After a false
 * the note may still be woken later, once. */
bool notetsleep(Note *n, int64_t ns);

/*
 * Notes with deadlines: a NoteList holds notes that somebody checks now and
 * then, instead of each sleeper having a timer. notelink adds n with its absolute
 * deadline. A note is unlinked exactly once: by noteunlink (its owner gave
 * up), by notelistwakeup (early wake), both true when it was they who did it,
 * or by notecheck, which walks the list and unlinks and wakes every note whose
 * deadline is at or before now. It returns their number, and the earliest
 * deadline left in *next (FOREVER: none). Unlinking and waking are one step
 * under the list's lock, so after noteunlink, whatever it returned, the note's
 * memory is its owner's. (After notesleep alone it isn't: call noteunlink.) A
 * linked note must not be woken by plain notewakeup.
 */
typedef struct NoteList {
	Lock lock;
	Note *head;
	int n;
} NoteList;
void notelistinit(NoteList *l);
void notelink(NoteList *l, Note *n, int64_t deadline);
bool noteunlink(NoteList *l, Note *n);
bool notelistwakeup(NoteList *l, Note *n);
int notecheck(NoteList *l, int64_t now, int64_t *next);

#endif
