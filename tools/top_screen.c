/*
 * top_screen.c - goshim top's screen: some lines about the process, one table, and a line of what that lacks.
 *
 * Drawing looks at the size of the window each time, and leaves out what there is no room for: columns from the right, then all
 * but the first line.
 */
#define _GNU_SOURCE
#include "goshim.h"
#include "top.h"

#include <curses.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of a row: its number, and what it is sorted by. */
typedef struct Place {
	int row;
	double number;
	char text[40];
} Place;

enum { HEAD = TOPSUMMARIES + 2 /* lines above the rows */ };

static const Top *t;
static Screen *s;

/* As much of it as there is room for. */
static void put(int y, int x, int attributes, const char *what)
{
	if (y < 0 || y >= LINES || x < 0 || x >= COLS)
		return;
	attrset(attributes);
	mvaddnstr(y, x, what, COLS - x);
	attrset(A_NORMAL);
}

static void putright(int y, int left, int attributes, const char *what)
{
	int x = COLS - (int)strlen(what);
	if (x > left)
		put(y, x, attributes, what);
}

static int byplace(const void *a, const void *b)
{
	const Place *x = a, *y = b;
	int way = strcmp(x->text, y->text);
	if (!way)
		way = (x->number > y->number) - (x->number < y->number);
	if (!s->rising[s->view])
		way = -way;
	return way ? way : (x->row > y->row) - (x->row < y->row);
}

/* Malloc'ed. */
static Place *sorted(const View *v, int n)
{
	Place *p = calloc((size_t)n + 1, sizeof *p);
	for (int i = 0; p && i < n; i++) {
		char buf[TopCell] = "";
		p[i].row = i;
		if (s->sortby[s->view] < 0)
			continue;
		Key k = v->cell(t, i, s->sortby[s->view], buf);
		p[i].number = k.number;
		if (k.text)
			snprintf(p[i].text, sizeof p[i].text, "%s", k.text);
	}
	if (p && s->sortby[s->view] >= 0)
		qsort(p, (size_t)n, sizeof *p, byplace);
	return p;
}

/* How many of a view's columns there is room for, and how wide the s->first one is. */
static int columns(const View *v, int *width)
{
	int n = 1, used = v->column[0].width;
	while (n < v->ncolumns && used + 1 + v->column[n].width <= COLS)
		used += 1 + v->column[n++].width;
	/* The last one, if it is text, may be as long as it likes: the room is for the name otherwise. */
	*width = v->column[0].width;
	if (!v->column[n - 1].left || n == 1)
		*width += COLS - used;
	if (*width > 60)
		*width = 60;
	return n;
}

static void cell(int y, int *x, const Column *c, int width, int attributes, const char *what,
		 bool last)
{
	char buf[TopCell + 1];
	if (c->left && last)
		snprintf(buf, sizeof buf, "%s", what);
	else
		snprintf(buf, sizeof buf, c->left ? "%-*.*s" : "%*.*s", width, width, what);
	put(y, *x, attributes, buf);
	*x += width + 1;
}

static void drawrow(const View *v, int y, int row)
{
	char buf[TopCell];
	int width, n = columns(v, &width), x = 0;
	for (int i = 0; i < n; i++) {
		buf[0] = 0;
		v->cell(t, row, i, buf);
		cell(y, &x, &v->column[i], i ? v->column[i].width : width, A_NORMAL, buf,
		     i == n - 1);
	}
}

static void drawhead(const View *v, int y)
{
	int width, n = columns(v, &width), x = 0;
	for (int i = 0; i < COLS && y < LINES; i++)
		mvaddch(y, i, ' ' | A_REVERSE);
	for (int i = 0; i < n; i++)
		cell(y, &x, &v->column[i], i ? v->column[i].width : width,
		     A_REVERSE | (i == s->sortby[s->view] ? A_BOLD | A_UNDERLINE : 0),
		     v->column[i].title, i == n - 1);
}

static void drawtabs(int y)
{
	char buf[120];
	int x = 0;
	for (int i = 0; i < NVIEWS; i++) {
		int n = snprintf(buf, sizeof buf, i == s->view ? "[%d %s]" : " %d %s ", i + 1,
				 views[i].name);
		put(y, x, i == s->view ? A_BOLD : A_NORMAL, buf);
		x += n;
	}
	if (topwhole(t))
		snprintf(buf, sizeof buf, " since its start  ? help");
	else
		snprintf(buf, sizeof buf, " in the last %s  ? help", duration(t->seconds * 1e9));
	putright(y, x, A_DIM, buf);
}

static void drawsummary(void)
{
	char buf[400];
	for (int i = 0; i < TOPSUMMARIES; i++) {
		topsummary(t, i, buf, sizeof buf);
		put(i, 0, i ? A_NORMAL : A_BOLD, buf);
		if (i)
			continue;
		if (t->ended)
			putright(0, 0, A_REVERSE, " ENDED: q leaves ");
		else if (s->paused)
			putright(0, 0, A_REVERSE, " PAUSED ");
		else {
			char every[40];
			snprintf(every, sizeof every, " every %g s", s->interval);
			putright(0, (int)strlen(buf), A_DIM, every);
		}
	}
}

static void drawhelp(void)
{
	static const char *const lines[] = {
	    "1 2 3 4 5, Tab   what is s->view: threads by name, goroutines, locks,",
	    "                 listening sockets, the scheduler",
	    "< >              sort by the column to the left, to the right",
	    "r                the other way round",
	    "arrows, Page Up, Page Down, Home, End",
	    "                 other rows",
	    "a                all since the start; what happened since the last reading",
	    "+ -              read less often, more often",
	    "space            read now",
	    "p                pause",
	    "?, h             this help",
	    "q, Ctrl-C        leave",
	    "",
	    "Times are of what has ended meanwhile; LONGEST is since the start.",
	};
	put(0, 0, A_BOLD, "goshim top");
	for (int i = 0; i < (int)(sizeof lines / sizeof lines[0]); i++)
		put(i + 2, 0, A_NORMAL, lines[i]);
	put(LINES - 1, 0, A_DIM, "Any key goes back.");
}

int screenrows(void)
{
	return LINES > HEAD + 1 ? LINES - HEAD - 1 : LINES > HEAD ? 1 : 0;
}

static void drawtable(void)
{
	const View *v = &views[s->view];
	char note[TopCell];
	int n = v->rows(t), room = screenrows();
	const char *says = v->note(t, note);
	Place *place = sorted(v, n);
	s->first = s->first > n - room ? n - room : s->first;
	s->first = s->first < 0 ? 0 : s->first;
	drawhead(v, HEAD - 1);
	for (int i = 0; place && i < room && s->first + i < n; i++)
		drawrow(v, HEAD + i, place[s->first + i].row);
	if (LINES > HEAD + 1 && says)
		put(LINES - 1, 0, A_DIM, says);
	else if (LINES > HEAD + 1 && n > room) {
		snprintf(note, sizeof note, "%d to %d of %d", s->first + 1, s->first + room, n);
		put(LINES - 1, 0, A_DIM, note);
	}
	free(place);
}

void screendraw(const Top *top, Screen *screen)
{
	t = top;
	s = screen;
	erase();
	if (s->helping)
		drawhelp();
	else {
		drawsummary();
		drawtabs(TOPSUMMARIES);
		drawtable();
	}
	refresh();
}
