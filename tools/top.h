/*
 * top.h - what goshim top reads, and the tables that it makes of that.
 */
#ifndef GOSHIM_TOP_H
#define GOSHIM_TOP_H

#include "goroutines_read.h"
#include "locks_read.h"

enum { TopNames = 256 }; /* of threads; G's slots */

/* What a process is like at one moment. */
typedef struct Reading {
	Metrics m;
	LockFigures *locks;
	int nlocks;
	double running[TopNames]; /* ns, by name */
	bool ongoing;             /* ... with what has not ended yet */
} Reading;

/* Goroutines of one name. */
typedef struct TopName {
	char name[METRICSNAME + 1];
	int count[GoroutineStates], all; /* -1: not known */
	double ran;                      /* ns in the time that is shown */
	int wait, waiting; /* what most of those that wait wait for, and how many do */
} TopName;

/* A lock in the time that is shown: its counts since the start are in `now`. */
typedef struct TopLock {
	const LockFigures *now;
	double contended, ended, waited, locked, held; /* times in ns */
} TopLock;

typedef struct Top {
	MetricsSource source;
	GoroutineSource *memory; /* NULL: it may not be looked into, and why */
	char why[WhySize];
	Reading now, before;
	Goroutine *goroutine; /* of the last reading that had them; -1: none */
	int ngoroutines;
	double goroutinesat;   /* ns of CLOCK_MONOTONIC */
	double goroutinesnext; /* when they are read again, at the earliest */
	bool gone;  /* that memory is not there any more: it has become another program */
	bool ended; /* no more readings */
	bool whole; /* since the start is shown, not the last interval */
	/* Made of those by toplook. */
	Metrics part;
	double seconds; /* that it is of */
	TopName *name;
	int nnames;
	TopLock *lock;
	const LockFigures **byaddress; /* the same ones */
	int nlocks;
} Top;

/* top_read.c: a new reading. False: it can't be read any more. */
bool topread(Top *t, char *why);
/* What is to be shown of the readings. */
void toplook(Top *t);
/* Is there nothing to compare with yet? Then all since the start is shown. */
bool topwhole(const Top *t);
void topfree(Top *t);
double monotonicns(void);

typedef struct Column {
	const char *title;
	int width;
	bool left;
} Column;

/* What a cell is sorted by; as text, if that isn't NULL. */
typedef struct Key {
	const char *text;
	double number;
} Key;

enum { TopColumns = 14, TopCell = LockFullName };

/* A table. Its first column is a name, and takes what room there is. */
typedef struct View {
	const char *name;
	int ncolumns;
	int sortby; /* column; -1: as they come */
	bool rising;
	Column column[TopColumns];
	int (*rows)(const Top *t);
	Key (*cell)(const Top *t, int row, int column, char buf[TopCell]); /* "": nothing to say */
	const char *(*note)(const Top *t, char buf[TopCell]); /* what it lacks; or NULL */
} View;

/* top_views.c */
enum { NVIEWS = 5 };
extern const View views[NVIEWS];
/* Of a row that is among others like it. */
void topsummary(const Top *t, int line, char *buf, size_t size);
enum { TOPSUMMARIES = 3 };

/* How they are shown. */
typedef struct Screen {
	int view;
	int sortby[NVIEWS];
	bool rising[NVIEWS];
	int first;       /* the row that is uppermost */
	double interval; /* s */
	bool paused, helping;
} Screen;

/* top_screen.c: of a screen of curses. */
void screendraw(const Top *t, Screen *s);
int screenrows(void); /* that there is room for */

#endif
