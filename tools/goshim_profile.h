/*
 * goshim_profile.h - a profile as a tree of calls: what goshim profile collects, and writes in several forms.
 */
#ifndef GOSHIM_PROFILE_TOOL_H
#define GOSHIM_PROFILE_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* What a stack was doing: the colour of its frames. */
typedef enum Doing { DoingRuns, DoingWaits, DoingQueues, DoingNothing } Doing;

/* A frame beneath those that lead to it. Times are in ns. */
typedef struct Node Node;
struct Node {
	const char *name;
	Doing doing;
	double self, total; /* total: with all above it; calltotals counts that */
	Node *child, *next; /* in the order of their names, after calltotals */
	const Node *parent;
	Node *chain; /* of callchild's table */
};

/* The child of that name; made if there is none. No node is ever freed. */
Node *callchild(Node *n, const char *name, Doing doing);
void calltotals(Node *n);

/* What a picture says beside its frames. */
typedef struct Title {
	char text[200], detail[300];
} Title;

/* goshim_flame.c */
void writeflame(FILE *f, const Node *root, const Title *title);
/* A line for each stack, outermost first: a;b;c and the microseconds spent there. */
void writefolded(FILE *f, const Node *root);

#endif
