/*
 * flight.h - the flight recorder: what has happened in the last second is written to a file when a wait has taken
 * too long. See flight.c; the file is described in tracefile.h.
 */
#ifndef GOSHIM_FLIGHT_H
#define GOSHIM_FLIGHT_H

#include "capture.h"
#include "metricsfile.h"
#include "text.h"

#include <stddef.h>

typedef enum StallKind { StallQueue, StallLock, StallRequest } StallKind;

/* What took too long. */
typedef struct Stall {
	StallKind kind;
	WaitReason why;
	uintptr_t obj;
	int64_t goid, by; /* who has waited, and who has ended that; 0: not known */
	uint8_t name, byname;
	uint64_t began, ended; /* ticks */
	uint64_t parts[Parts]; /* of a request */
	uint64_t missed;       /* so many more since the last file */
	bool stack;            /* there is one of `by` then: */
	Capture holder;
} Stall;

/* Waits of that many ticks are looked at; UINT64_MAX: none. A tick is no longer than a ns, so shorter ones are within
 * the limit. */
extern uint64_t flightlimit;

/* gp's status changes, after a time that may be too long. SIGSAFE */
void flightmove(const G *gp, uint32_t from, uint32_t to, uint64_t now);
/* A request was answered, by gp if that isn't NULL; in ticks. */
void flightrequest(const G *gp, uint64_t began, uint64_t ended, const uint64_t parts[Parts]);

bool flightlock(WaitReason why); /* is that a wait for a lock that is looked at? */

/* flightlook.c: what is in the way of waits that last. sysmon looks at all, and says when it wants to again; */
int64_t flightlook(int64_t now);
/* ... an M without a P takes the stacks. */
bool flightlookwanted(void);
void flightlooktake(void);
/* The same: what was seen while that stall lasted, n bytes of text, and when; NULL: nothing was. */
const char *flightlooked(const Stall *s, uint64_t *at, size_t *n);
void flightlookreset(void); /* nobody waits, and nothing is remembered */

/* How many events each of n rings is to hold. */
uint64_t flightevents(int32_t n);
/* rings: there are some of that size in all, and have memory. */
void flightinit(bool rings, uint64_t size);
void flightforbidden(
    void);            /* the system may refuse to open a file from now on, by the process's death */
void flightend(void); /* the process ends: waits for what is being written */
void flightforkchild(void);

/* flightreport.c: writes it all to fd, an empty file, on an M without a P. 0 or -errno. */
long flightreport(int fd, const Stall *s);
void stalltext(Text *t, const Stall *s); /* "waited 31.250 ms for a processor" */

#endif
