/*
 * signal(7)'s table, a row per call: every call that waits, ended by a handler (EINTR), restarted after one with
 * SA_RESTART or not, as Linux has it, ended by cancellation where it is a cancellation point, and by what it waits
 * for. Each row runs by itself, and all together, when a scheduler has other ways of waiting than alone.
 *
 * A test defines `rows` between this header and CALLS_MAIN.
 */
#ifndef CALLS_H
#define CALLS_H

#include "test.h"

/* What one waiting thread uses. */
struct ctx {
	const struct row *row;
	int fd, other, id, more[2];
	void *object;
	pid_t child;
	char path[100];
	long result;
	int err, started, done, handled;
	pthread_t t;
};

struct row {
	const char *name;
	void (*setup)(struct ctx *c);
	long (*call)(struct ctx *c);
	void (*finish)(struct ctx *c); /* makes the call succeed, from another thread */
	void (*cleanup)(struct ctx *c);
	int flags;
};
enum {
	RESTARTS = 1,    /* after a handler with SA_RESTART */
	CANCELS = 2,     /* a cancellation point */
	NEVER_EINTR = 4, /* waits on whatever handlers run */
	TIME_LEFT = 8,   /* tells of a handler by its result */
	BY_SIGNAL = 16,  /* a handler is what it waits for: nothing else ends it */
};

static char dir[64];
static int nextname;
static __thread struct ctx *self;
static const struct timespec hour = {3600, 0};
/* Blocked by all. */
static sigset_t usr2;

static void new_path(struct ctx *c)
{
	snprintf(c->path, sizeof c->path, "%s/%d", dir,
		 __atomic_add_fetch(&nextname, 1, __ATOMIC_RELAXED));
}

static void close_both(struct ctx *c)
{
	close(c->fd);
	if (c->other >= 0)
		close(c->other);
	if (c->path[0])
		unlink(c->path);
}

/* --- the runs ------------------------------------------------------------------------------------------------------- */

static void on_usr1(int sig)
{
	(void)sig;
	if (self)
		__atomic_add_fetch(&self->handled, 1, __ATOMIC_RELEASE);
}

static void *waiter(void *arg)
{
	struct ctx *c = arg;

	self = c;
	__atomic_store_n(&c->started, 1, __ATOMIC_RELEASE);
	errno = 0;
	c->result = c->row->call(c);
	c->err = errno;
	__atomic_store_n(&c->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void begin(struct ctx *c, const struct row *row)
{
	memset(c, 0, sizeof *c);
	c->row = row;
	c->fd = c->other = -1;
	row->setup(c);
	c->t = spawn(waiter, c);
}

static void still_waits(struct ctx *c, const char *when)
{
	if (__atomic_load_n(&c->done, __ATOMIC_ACQUIRE))
		FAIL("%s %s: %ld, errno %d", c->row->name, when, c->result, c->err);
}

static void ended(struct ctx *c, const char *how)
{
	if (!wait_for(&c->done, 1, 10000)) {
		FAIL("%s still waits, %s", c->row->name, how);
		pthread_detach(c->t);
		return;
	}
	join(c->t);
	c->row->cleanup(c);
}

static int eintr(const struct ctx *c)
{
	if (c->row->flags & TIME_LEFT)
		return c->result >= 3500 && c->result <= 3600;
	return c->result == -1 && c->err == EINTR;
}

enum how { UNDISTURBED, INTERRUPTED, RESTARTED, CANCELLED };

static void disturb(struct ctx *c, enum how how)
{
	int flags = c->row->flags;

	still_waits(c, "at first");
	if (how == CANCELLED && flags & CANCELS)
		REQUIRE_OK(pthread_cancel(c->t));
	else if (how == INTERRUPTED || how == RESTARTED || flags & BY_SIGNAL)
		REQUIRE_OK(pthread_kill(c->t, SIGUSR1));
}

/* Does the handler leave the call waiting? */
static int goes_on(const struct ctx *c, enum how how)
{
	int flags = c->row->flags;

	if (flags & BY_SIGNAL)
		return 0;
	return how == UNDISTURBED || flags & NEVER_EINTR ||
	       (how == RESTARTED && flags & RESTARTS) || (how == CANCELLED && !(flags & CANCELS));
}

static void conclude(struct ctx *c, enum how how)
{
	void *result;

	if (how == CANCELLED && c->row->flags & CANCELS) {
		REQUIRE_OK(pthread_join(c->t, &result));
		if (result != PTHREAD_CANCELED)
			FAIL("%s, cancelled: %ld, errno %d", c->row->name, c->result, c->err);
		c->row->cleanup(c);
		return;
	}
	if (goes_on(c, how)) {
		still_waits(c, how == RESTARTED ? "after SA_RESTART" : "undisturbed");
		c->row->finish(c);
		ended(c, "though it may end");
		if (c->result < 0)
			FAIL("%s fails, errno %d", c->row->name, c->err);
	} else {
		ended(c, "though a handler ran");
		if (!eintr(c))
			FAIL("%s after a handler: %ld, errno %d", c->row->name, c->result, c->err);
	}
	if ((how == INTERRUPTED || how == RESTARTED) && c->handled != 1)
		FAIL("%s: %d handlers ran", c->row->name, c->handled);
}

static void run(const struct row *rows, int n, enum how how, int together)
{
	static struct ctx all[64];
	struct sigaction sa = {.sa_handler = on_usr1,
			       .sa_flags = how == RESTARTED ? SA_RESTART : 0};
	int step = together ? n : 1;

	REQUIRE(n <= (int)COUNT(all));
	REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
	for (int at = 0; at < n; at += step) {
		for (int i = at; i < at + step; i++)
			begin(&all[i], &rows[i]);
		for (int i = at; i < at + step; i++)
			REQUIRE(wait_for(&all[i].started, 1, 10000));
		sleep_ms(together ? 200 : 5);
		for (int i = at; i < at + step; i++)
			disturb(&all[i], how);
		if (how == RESTARTED)
			sleep_ms(together ? 200 : 5);
		for (int i = at; i < at + step; i++)
			conclude(&all[i], how);
	}
}

static int calls_main(int argc, char **argv, const struct test_case *cases, int ncases)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof dir, "%s/goshim-calls-XXXXXX", tmp && strlen(tmp) < 30 ? tmp : "/tmp");
	REQUIRE(mkdtemp(dir));
	sigemptyset(&usr2);
	sigaddset(&usr2, SIGUSR2);
	REQUIRE_OK(pthread_sigmask(SIG_BLOCK, &usr2, NULL));
	int status = test_run(argc, argv, cases, ncases);
	rmdir(dir);
	return status;
}

#define CALLS_CASE(name, how)                   \
	static void name(void)                  \
	{                                       \
		run(rows, COUNT(rows), how, 0); \
		run(rows, COUNT(rows), how, 1); \
	}

#define CALLS_MAIN                                                  \
	CALLS_CASE(undisturbed, UNDISTURBED)                        \
	CALLS_CASE(interrupted, INTERRUPTED)                        \
	CALLS_CASE(restarted, RESTARTED)                            \
	CALLS_CASE(cancelled, CANCELLED)                            \
	static const struct test_case cases[] = {                   \
	    {"undisturbed", undisturbed},                           \
	    {"interrupted", interrupted},                           \
	    {"restarted", restarted},                               \
	    {"cancelled", cancelled},                               \
	};                                                          \
	int main(int argc, char **argv)                             \
	{                                                           \
		return calls_main(argc, argv, cases, COUNT(cases)); \
	}

#endif
