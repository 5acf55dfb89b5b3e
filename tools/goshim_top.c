/*
 * goshim top: what a process's goroutines do, while they do it.
 *
 * The screen is one table at a time, drawn anew after each reading and each key. Signals are read from a descriptor that is waited for
 * together with the keys, so nothing is done in a handler, and the terminal is given back whichever way this
 * ends. What the process leaves when it ends stays on the screen.
 */
#define _GNU_SOURCE
#include "goshim.h"
#include "top.h"

#include <curses.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <term.h>
#include <unistd.h>

static Top top;
static Screen screen = {.interval = 1};
static double due; /* ns of CLOCK_MONOTONIC */

/* --- keys ---------------------------------------------------------------------------------------- */

static void faster(bool more)
{
	static const double steps[] = {0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60};
	enum { STEPS = sizeof steps / sizeof steps[0] };
	int i = 0;
	while (i < STEPS && steps[i] < screen.interval - 1e-9)
		i++;
	if (more)
		i--;
	else if (i < STEPS && steps[i] < screen.interval + 1e-9)
		i++;
	screen.interval = steps[i < 0 ? 0 : i >= STEPS ? STEPS - 1 : i];
	due = 0;
}

static void sortother(int by)
{
	int n = views[screen.view].ncolumns;
	screen.sortby[screen.view] = (screen.sortby[screen.view] + by + n) % n;
	screen.rising[screen.view] = views[screen.view].column[screen.sortby[screen.view]].left;
	screen.first = 0;
}

static void show(int view)
{
	screen.view = (view + NVIEWS) % NVIEWS;
	screen.first = 0;
}

/* False: leave. */
static bool key(int ch)
{
	if (screen.helping) {
		screen.helping = false;
		return ch != 'q';
	}
	switch (ch) {
	case 'q': return false;
	case '?':
	case 'h': screen.helping = true; break;
	case '\t': show(screen.view + 1); break;
	case KEY_BTAB: show(screen.view - 1); break;
	case '<':
	case ',':
	case KEY_LEFT: sortother(-1); break;
	case '>':
	case '.':
	case KEY_RIGHT: sortother(1); break;
	case 'r': screen.rising[screen.view] = !screen.rising[screen.view]; break;
	case 'a':
		top.whole = !top.whole;
		toplook(&top);
		break;
	case '+': faster(false); break;
	case '-': faster(true); break;
	case ' ': due = 0; break;
	case 'p': screen.paused = !screen.paused; break;
	case KEY_UP: screen.first--; break;
	case KEY_DOWN: screen.first++; break;
	case KEY_PPAGE: screen.first -= screenrows(); break;
	case KEY_NPAGE: screen.first += screenrows(); break;
	case KEY_HOME: screen.first = 0; break;
	case KEY_END: screen.first = INT_MAX / 2; break;
	default:
		if (ch >= '1' && ch < '1' + NVIEWS)
			show(ch - '1');
	}
	return true;
}

/* --- the loop ------------------------------------------------------------------------------------ */

static void read1(void)
{
	char why[WhySize];
	if (!topread(&top, why))
		top.ended = true; /* and what was read last stays */
	toplook(&top);
	due = monotonicns() + screen.interval * 1e9;
}

/* What the process leaves; where it is screen.view is what the terminal says now. */
static void resized(void)
{
	struct winsize w;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row && w.ws_col)
		resizeterm(w.ws_row, w.ws_col);
	clearok(curscr, TRUE);
}

/* The signal that ends this command, or 0: a key did. */
static int loop(int signals)
{
	for (;;) {
		double now = monotonicns();
		if (!top.ended && !screen.paused && now >= due)
			read1();
		screendraw(&top, &screen);
		struct pollfd p[] = {{.fd = STDIN_FILENO, .events = POLLIN},
				     {.fd = signals, .events = POLLIN}};
		double left = (due - monotonicns()) / 1e6;
		int ms = top.ended || screen.paused ? -1
			 : left > 0                 ? (int)fmin(ceil(left), INT_MAX)
						    : 0;
		if (poll(p, 2, ms) < 0 && errno != EINTR)
			return SIGHUP;
		struct signalfd_siginfo info;
		while (read(signals, &info, sizeof info) == sizeof info) {
			if (info.ssi_signo != SIGWINCH)
				return (int)info.ssi_signo;
			resized();
		}
		for (int ch; (ch = getch()) != ERR;)
			if (!key(ch))
				return 0;
		if (p[0].revents & (POLLHUP | POLLERR | POLLNVAL))
			return SIGHUP;
	}
}

static void opens(int pid)
{
	char why[WhySize];
	if (!metricsopen(&top.source, pid, why) || !topread(&top, why))
		fail("%s", why);
	if (!top.ended && !metricskernel(&top.now.m))
		top.memory = goroutinesopen(top.source.pid, top.why);
}

static SCREEN *terminal(void)
{
	int status;
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		fail("top: this is no terminal; goshim stat --interval 1 %d writes to files",
		     top.source.pid);
	const char *name = getenv("TERM");
	if (setupterm(name, STDOUT_FILENO, &status) == ERR)
		fail("top: TERM=%s: no such terminal is known", name ? name : "");
	if (!cursor_address || !clear_screen)
		fail("top: TERM=%s: it can't write anywhere but in the next line", name);
	SCREEN *s = newterm(name, stdout, stdin);
	if (!s)
		fail("top: TERM=%s: it can't be used", name);
	return s;
}

int top_(int argc, char **argv)
{
	enum { Interval = 1, View_ };
	static const struct option longs[] = {{"interval", 1, 0, Interval},
					      {"view", 1, 0, View_},
					      {0}};
	int ch;
	opterr = 0;
	for (int i = 0; i < NVIEWS; i++) {
		screen.sortby[i] = views[i].sortby;
		screen.rising[i] = views[i].rising;
	}
	while ((ch = getopt_long(argc, argv, "+", longs, NULL)) != -1) {
		switch (ch) {
		case Interval:
			screen.interval = number("top: --interval", optarg, 0.05, 3600);
			break;
		case View_:
			for (screen.view = 0;
			     screen.view < NVIEWS && strcmp(optarg, views[screen.view].name);)
				screen.view++;
			if (screen.view == NVIEWS)
				fail(
				    "top: --view '%s': want names, goroutines, locks, sockets or scheduler",
				    optarg);
			break;
		default:
			fail("top: %s: unknown, or its value is missing; see goshim top --help",
			     argv[optind - 1]);
		}
	}
	if (optind + 1 != argc)
		fail("top: want one process id; see goshim top --help");
	top.ngoroutines = -1;
	opens((int)wholenumber("top: process", argv[optind], 1, INT_MAX));

	sigset_t set;
	sigemptyset(&set);
	for (const int *i = (const int[]){SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, 0}; *i; i++)
		sigaddset(&set, *i);
	SCREEN *s = terminal();
	sigprocmask(SIG_BLOCK, &set, NULL);
	int signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	cbreak();
	noecho();
	nodelay(stdscr, TRUE);
	keypad(stdscr, TRUE);
	set_escdelay(50);
	curs_set(0);
	toplook(&top);
	due = monotonicns() + screen.interval * 1e9;
	int ends = signals < 0 ? 0 : loop(signals);
	endwin();
	delscreen(s);
	topfree(&top);
	if (ends == 0 || ends == SIGINT)
		return 0;
	signal(ends, SIG_DFL);
	raise(ends);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	return 128 + ends;
}
