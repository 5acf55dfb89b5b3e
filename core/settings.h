/*
 * settings.h - what the environment may set, and the line printed at the end.
 */
#ifndef GOSHIM_SETTINGS_H
#define GOSHIM_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

enum { MAXPROCS = 1024, FLIGHTDIR = 200 };

/* What is done about deadlocks. */
typedef enum Deadlock {
	DeadlockReport,
	DeadlockAbort, /* report, then end as by abort() */
	DeadlockOff,
} Deadlock;

/* From GOSHIM= and GOMAXPROCS; set before schedinit, read only after. */
typedef struct Debug {
	int64_t schedtrace; /* ms between lines; 0: none */
	bool scheddetail;
	bool storm;       /* preempt everything every 100 us */
	bool exitstats;   /* one line of counters at exit */
	bool metricskeep; /* the region's file, at an orderly end */
	bool metricsoff;  /* nothing is counted but what exitstats and schedtrace say */
	bool locks;       /* count each lock, and for how long it is held */
	bool requests;    /* are timed */
	int64_t flight;   /* ns: what takes longer is written to a file (flight.c); 0: nothing is */
	int64_t flightfiles; /* at most */
	char flightdir[FLIGHTDIR];
	Deadlock deadlock;
	bool nofsgsbase;     /* as if user code could not write FS base */
	int64_t slice;       /* ns before a runner is preempted */
	int64_t sysmon;      /* ns, longest tick while there is work; 0: default */
	int64_t maxm;        /* kernel threads that run goroutines, at most */
	int64_t maxkblocked; /* of these, waiting in the kernel by choice; -1: default */
	int64_t maxkwaits;   /* at a time in calls that only the kernel can wait in */
	int64_t gomaxprocs;  /* 0: ncpu() */
	int traceback;       /* GOTRACEBACK, a TracebackLevel */
} Debug;
extern Debug debug;

void exitstats(int fd);

#endif
