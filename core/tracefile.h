/*
 * tracefile.h - the events that a process records for `goshim trace`, in its metrics region: the layout, for
 * the runtime that writes them and for readers in other processes.
 *
 * The region's entry of kind MetricTrace says where the TraceHeader is. Behind it are the heads of the rings, one
 * for each P and one for all that have none, and elsewhere in the region the rings. Nothing is recorded until a
 * reader has written a moment to `until`; it sees before that there is memory for the rings, since a full file system would
 * be the process's death, and moves the moment on as long as it reads: who dies leaves nothing switched on.
 *
 * A writer takes a place in the ring by adding to `next`, writes the event, and its `seq` last. A reader
 * believes what it has copied after it saw the right seq there, if `next` has not gone round since: what was overwritten
 * before it came is lost, and it knows how many.
 *
 * A file of the flight recorder has a copy of the region, with holes for most of it, in which the last second's events are.
 */
#ifndef GOSHIM_TRACEFILE_H
#define GOSHIM_TRACEFILE_H

#include <stdint.h>

enum {
	TRACE_VERSION = 1,
	TraceRingEvents = 1 << 15, /* of which a busy P makes half a million a second */
};

typedef struct TraceEvent {
	uint64_t seq; /* its number in the ring, from 1 on, once it is complete */
	uint64_t ticks;
	uint64_t what; /* TRACEWHAT */
	uint64_t arg;
} TraceEvent;

typedef struct TraceHead {
	uint64_t next;  /* events that were begun */
	uint64_t first; /* in a file of the flight recorder: the first that is there */
	uint64_t unused[6];
} TraceHead;

typedef struct TraceHeader {
	uint32_t version, eventsize;
	uint32_t nrings, nevents; /* a power of two in each */
	uint64_t heads, headsize; /* the first one's offset in the region */
	uint64_t rings, ringsize; /* ... and the first event's */
	uint64_t from, to; /* in a file of the flight recorder: ticks, all between is there */
	uint64_t until;    /* ticks: up to then events are recorded; its cache line is its own */
	uint64_t unused2[7];
} TraceHeader;

/*
 * A goroutine's change of status has as type from * 8 + to; arg is, on the way to waiting, what is waited for; to
 * runnable, the goroutine that made it so, or 0; to a system call, its number + 1, or 0: not known. Other types:
 */
enum {
	TraceCount = 64, /* + Count: nobody's goroutine */
	TraceTimer = 96, /* a timer fired; arg: so many ns late */
	TraceAsked,      /* processor number arg is to be left by what runs on it, */
	TraceTaken,      /* ... or was taken from it */
	TraceWorld,      /* the world goes on; arg: it stood for so many ticks */
	TraceStall,      /* of the goroutine: it has waited for too long, arg ticks (flight.c) */
};

/* What a file of the flight recorder begins with; then, in 10 digits, where in it the region is, and a newline. What
 * follows up to there is for people. */
#define FLIGHT_TITLE "goshim flight recorder, version 1, events at byte "

/* name: the slot of the goroutine's name (MetricNames). why: its WaitReason. */
#define TRACEWHAT(type, why, name, goid)                                             \
	((uint64_t)(type) | (uint64_t)(why) << 8 | (uint64_t)(uint8_t)(name) << 16 | \
	 (uint64_t)(goid) << 24)

#endif
