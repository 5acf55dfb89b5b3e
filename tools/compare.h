/*
 * compare.h - goshim compare: what its files share. goshim_compare.c has the plan and the order of things, goshim_round.c one
 * server and its load, goshim_listens.c who listens, goshim_spent.c what the server's threads have spent, goshim_figures.c
 * what the rounds come to, goshim_report.c and goshim_chart.c the page.
 */
#ifndef GOSHIM_COMPARE_H
#define GOSHIM_COMPARE_H

#include "goshim.h"
#include "goshim_spent.h"
#include "load.h"

#include <sys/types.h>

enum { MAXMODES = 3, MAXROUNDS = 100 };

/* How a server is run. */
typedef struct Mode {
	const char *name, *what;
	bool library, kernel; /* is in it; and threads stay the kernel's */
	const char *settings; /* added to GOSHIM, or NULL */
} Mode;

enum {
	THROUGHPUT,
	P50,
	P90,
	P99,
	P999,
	MAX,
	SECONDS,
	CPUREQUEST,
	CPURUN,
	QUEUEREQUEST,
	GOQUEUEREQUEST,
	LOCKREQUEST,
	SWITCHREQUEST,
	SWITCHRUN,
	RSS,
	THREADS,
	CLIENTLATE,
	NMETRICS
};

typedef struct Metric {
	const char *key;  /* in JSON; of a load's own figures, too, for the first ones */
	const char *name; /* with the unit */
	int better;       /* 1: more is, -1: less is, 0: neither */
} Metric;
extern const Metric metrics[NMETRICS];

typedef struct Round {
	double value[NMETRICS]; /* NAN: not known */
	struct hist *hist;      /* NULL: not known */
	Spent spent;
	bool idle; /* the library was there, and had no thread to run */
} Round;

typedef struct Plan {
	const Mode *modes[MAXMODES]; /* the others are compared with the first */
	int nmodes, rounds;
	char **server; /* its command line; "{port}" is a free port of each round */
	const char *load;
	bool builtin;
	struct options client; /* of the built-in client */
	double rate, wait;
	double busy; /* the load average before the first round */
	long port;   /* to wait for; 0: any that the server listens on */
	const char *output;
	bool quiet;
	Round result[MAXMODES][MAXROUNDS];
} Plan;

/* What the rounds of a mode come to. */
typedef struct Summary {
	double median, min, max;
	int n;
} Summary;

typedef enum Verdict { NOTHING, ONEROUND, NOISE, BETTER, WORSE, MORE, LESS } Verdict;

/* goshim_round.c: one server, loaded once. Ends the process with a line when that fails. */
void oneround(const Plan *p, const Mode *mode, Round *out);
/* The line on stderr that says where we are. */
void progress(const Plan *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void endprogress(void);
/* From now on SIGINT and such end what runs, then us. */
void watchsignals(void);

/* goshim_listens.c: sockets that listen, on the port or, if that is 0, on any. */
typedef struct Listeners {
	unsigned long inode[256];
	int n;
} Listeners;
void findlisteners(Listeners *l, long port);
/* 1: the process has one of them open; 0: not; -1: that is not to be seen. */
int holdslistener(const Listeners *l, const char *pid);

/* goshim_figures.c */
Summary summary(const Plan *p, int mode, int metric);
Verdict verdict(const Plan *p, int mode, int metric, double *ratio);
/* With "perhaps" where chance alone would do it too often. */
const char *verdictword(const Plan *p, Verdict v);
/* All that a value needs of digits: 3 that say something. */
const char *figure(double v, char *buf, size_t size);
const char *times(double ratio, char *buf, size_t size);
/* Both alike, in how many of 100 comparisons would their rounds lie apart? */
double chance(int rounds);
bool known(const Plan *p, int metric);
/* What makes the figures doubtful, or false. */
bool caution(const Plan *p, char *buf, size_t size);
/* Those that a mode's threads waited for longest, in all rounds together. How many. */
int worstlocks(const Plan *p, int mode, LockSum *locks, int most);
void totalhist(const Plan *p, int mode, struct hist *h);
void printtable(const Plan *p);
void writejson(const Plan *p, FILE *f);

/* goshim_environment.c: a name and a value at a time, until false. */
bool environment(const Plan *p, int i, const char **name, char *value, size_t size);
/* The command line as one would type it. */
void commandline(char **argv, char *buf, size_t size);

/* goshim_report.c, goshim_chart.c */
void writereport(const Plan *p, FILE *f);
void chart(const Plan *p, FILE *f, const char *class, int width, int height);
void spentchart(const Plan *p, FILE *f, const char *class, int width);
void strip(const Plan *p, FILE *f, int metric);
void escape(FILE *f, const char *text);

#endif
