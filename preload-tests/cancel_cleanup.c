/*
 * Cleanup handlers, in the form that a C compiler gets without -fexceptions (a jump buffer registered with
 * libc); cancel_cleanup_tables.c is the same with the other form (the cleanup attribute, found by the
 * unwinder). However a thread ends, in whatever state it is then: last in first out, each once, with their
 * scope's variables, and cancellation asked for meanwhile acts no second time.
 */
#include "test.h"

static char order[32];
static int steps, fds[2];
static volatile int here, go;
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;

static void note(void *arg)
{
	if (steps < (int)sizeof order - 1)
		order[steps++] = (char)(intptr_t)arg;
}
#define LETTER(l) ((void *)(intptr_t)(l))

static void begin(void)
{
	memset(order, 0, sizeof order);
	steps = here = go = 0;
}

static void expect(const char *what, const char *want)
{
	if (strcmp(order, want) != 0)
		FAIL("%s: handlers ran as \"%s\", not \"%s\"", what, order, want);
}

/* --- ways to end ------------------------------------------------------------------------------- */

static void ends_by_exit(void)
{
	pthread_exit(PTHREAD_CANCELED);
}

static void ends_in_a_wait(void)
{
	here = 1;
	pause();
}

static void ends_in_cond_wait(void)
{
	pthread_mutex_lock(&m);
	here = 1;
	for (;;)
		pthread_cond_wait(&c, &m);
}

static void ends_at_a_test(void)
{
	here = 1;
	for (;;) {
		pthread_testcancel();
		sched_yield();
	}
}

static void ends_anywhere(void)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	here = 1;
	for (;;)
		__asm__ volatile("");
}

static void ends_by_itself(void)
{
	pthread_cancel(pthread_self());
	pthread_testcancel();
}

static void ends_by_itself_at_once(void)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	pthread_cancel(pthread_self());
	note(LETTER('!'));
}

static void ends_when_enabled(void)
{
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	here = 1;
	while (!go)
		usleep(500);
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	/* Deferred: that was no point. */
	note(LETTER('.'));
	pthread_testcancel();
}

static void ends_when_enabled_async(void)
{
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	here = 1;
	while (!go)
		usleep(500);
	note(LETTER('.'));
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	note(LETTER('!'));
}

static const struct way {
	const char *name;
	void (*end)(void);
	int asked;         /* somebody has to cancel it */
	const char *first; /* noted before the end */
} ways[] = {
    {"pthread_exit", ends_by_exit, 0, ""},
    {"in a wait", ends_in_a_wait, 1, ""},
    {"in pthread_cond_wait", ends_in_cond_wait, 1, ""},
    {"at pthread_testcancel", ends_at_a_test, 1, ""},
    {"anywhere", ends_anywhere, 1, ""},
    {"by itself", ends_by_itself, 0, ""},
    {"by itself at once", ends_by_itself_at_once, 0, ""},
    {"when enabled", ends_when_enabled, 1, "."},
    {"when enabled, asynchronous", ends_when_enabled_async, 1, "."},
};

/* --- handlers in nested frames ----------------------------------------------------------------- */

static const struct way *way;

/* With the mutex of a wait on a condition held again. */
static void release(void *arg)
{
	(void)arg;
	if (way->end == ends_in_cond_wait) {
		CHECK_EQ(pthread_mutex_trylock(&m), EBUSY);
		CHECK_EQ(pthread_mutex_unlock(&m), 0);
	}
}

static void __attribute__((noinline)) inner(void)
{
	int of_this_frame = 'c';

	pthread_cleanup_push(note, LETTER(of_this_frame));
	pthread_cleanup_push(release, NULL);
	pthread_cleanup_push(note, LETTER('x'));
	pthread_cleanup_pop(0);
	way->end();
	pthread_cleanup_pop(0);
	pthread_cleanup_pop(0);
}

static void __attribute__((noinline)) between(int depth)
{
	volatile char frame[500];

	frame[depth] = 1;
	if (depth == 0)
		inner();
	else
		between(depth - 1);
	frame[0] = frame[depth];
}

static void *nested(void *arg)
{
	pthread_cleanup_push(note, LETTER('a'));
	pthread_cleanup_push(note, LETTER('y'));
	pthread_cleanup_pop(1);
	pthread_cleanup_push(note, LETTER('b'));
	between(20);
	pthread_cleanup_pop(0);
	pthread_cleanup_pop(0);
	return arg;
}

static void in_nested_frames(void)
{
	for (unsigned i = 0; i < COUNT(ways) * 2; i++) {
		char want[32];

		way = &ways[i / 2];
		begin();
		pthread_t t = spawn(nested, NULL);
		if (way->asked) {
			CHECK(wait_for(&here, 1, 20000));
			if (i & 1)
				sleep_ms(3);
			CHECK_EQ(pthread_cancel(t), 0);
			go = 1;
		}
		CHECK(join(t) == PTHREAD_CANCELED);
		snprintf(want, sizeof want, "y%scba", way->first);
		expect(way->name, want);
	}
}

/* --- what handlers and destructors do ----------------------------------------------------------- */

static pthread_key_t key;

/* Points that wait, though cancellation was asked for, once more while they run. */
static void waits_in_handler(void *arg)
{
	char ch = 0;

	note(LETTER('('));
	here = 2;
	while (!go)
		usleep(500);
	pthread_testcancel();
	CHECK_EQ(write(fds[1], &ch, 1), 1);
	CHECK_EQ(read(fds[0], &ch, 1), 1);
	CHECK_EQ(poll(NULL, 0, 1), 0);
	struct timespec ts = after_ms(CLOCK_REALTIME, 2);
	pthread_mutex_lock(&m);
	CHECK_EQ(pthread_cond_timedwait(&c, &m, &ts), ETIMEDOUT);
	pthread_mutex_unlock(&m);
	note(arg);
}

static void destructor(void *arg)
{
	usleep(100);
	pthread_testcancel();
	note(arg);
}

static void *ends_slowly(void *arg)
{
	pthread_setspecific(key, LETTER('k'));
	pthread_cleanup_push(note, LETTER('z'));
	pthread_cleanup_push(waits_in_handler, LETTER(')'));
	if (arg) {
		pthread_exit(PTHREAD_CANCELED);
	} else {
		here = 1;
		pause();
	}
	pthread_cleanup_pop(0);
	pthread_cleanup_pop(0);
	return NULL;
}

static void handlers_that_wait(void)
{
	REQUIRE(pipe(fds) == 0);
	REQUIRE_OK(pthread_key_create(&key, destructor));
	for (int exits = 0; exits < 2; exits++) {
		begin();
		pthread_t t = spawn(ends_slowly, exits ? &m : NULL);
		if (!exits) {
			CHECK(wait_for(&here, 1, 20000));
			CHECK_EQ(pthread_cancel(t), 0);
		}
		CHECK(wait_for(&here, 2, 20000));
		CHECK_EQ(pthread_cancel(t), 0);
		go = 1;
		CHECK(join(t) == PTHREAD_CANCELED);
		expect(exits ? "exit" : "cancel", "()zk");
	}
	pthread_key_delete(key);
	close(fds[0]);
	close(fds[1]);
}

#ifdef __EXCEPTIONS
/* A handler that ends the thread itself: the others run once, and its value is the thread's. (Of the other
 * form libc's finds the same handler again.) */
static void exits_in_handler(void *arg)
{
	note(LETTER('e'));
	pthread_exit(arg);
}

static void *exits_twice(void *arg)
{
	pthread_cleanup_push(note, LETTER('a'));
	pthread_cleanup_push(exits_in_handler, LETTER(77));
	pthread_cleanup_push(note, LETTER('b'));
	if (arg)
		pthread_cancel(pthread_self());
	pthread_testcancel();
	pthread_exit(NULL);
	pthread_cleanup_pop(0);
	pthread_cleanup_pop(0);
	pthread_cleanup_pop(0);
	return NULL;
}

static void handlers_that_exit(void)
{
	for (int cancelled = 0; cancelled < 2; cancelled++) {
		begin();
		CHECK(join(spawn(exits_twice, cancelled ? &m : NULL)) == LETTER(77));
		expect("exit in a handler", "bea");
	}
}
#endif

/* --- the form that defers cancellation ---------------------------------------------------------- */

static void *defers(void *arg)
{
	int type = -1;

	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	pthread_cleanup_push_defer_np(note, LETTER('d'));
	here = 1;
	for (volatile int i = 0; !go && i < 2000000000; i++)
		;
	note(LETTER('.'));
	pthread_testcancel();
	note(LETTER('!'));
	pthread_cleanup_pop_restore_np(0);
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
	CHECK_EQ(type, PTHREAD_CANCEL_ASYNCHRONOUS);
	return arg;
}

static void deferred_form(void)
{
	begin();
	pthread_t t = spawn(defers, NULL);
	CHECK(wait_for(&here, 1, 20000));
	CHECK_EQ(pthread_cancel(t), 0);
	sleep_ms(5);
	go = 1;
	CHECK(join(t) == PTHREAD_CANCELED);
	expect("defer_np", ".d");
	begin();
	go = 1;
	t = spawn(defers, &m);
	CHECK(join(t) == &m);
	expect("defer_np, not cancelled", ".!");
}

/* --- state and type ---------------------------------------------------------------------------- */

static void *state_and_type(void *arg)
{
	int old = -1;

	CHECK_EQ(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old), 0);
	CHECK_EQ(old, PTHREAD_CANCEL_ENABLE);
	CHECK_EQ(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old), 0);
	CHECK_EQ(old, PTHREAD_CANCEL_DISABLE);
	CHECK_EQ(pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old), 0);
	CHECK_EQ(old, PTHREAD_CANCEL_DEFERRED);
	CHECK_EQ(pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &old), 0);
	CHECK_EQ(old, PTHREAD_CANCEL_ASYNCHRONOUS);
	static const int bad[] = {-1, 2, 99};
	for (unsigned i = 0; i < COUNT(bad); i++) {
		old = 7;
		CHECK_EQ(pthread_setcancelstate(bad[i], &old), EINVAL);
		CHECK_EQ(pthread_setcanceltype(bad[i], &old), EINVAL);
		CHECK_EQ(old, 7);
	}
	CHECK_EQ(pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, NULL), 0);
	CHECK_EQ(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL), 0);
	return arg;
}

/* A new thread has neither from its maker. */
static void *makes_another(void *arg)
{
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	join(spawn(state_and_type, arg));
	return arg;
}

static void states(void)
{
	state_and_type(NULL);
	join(spawn(state_and_type, NULL));
	join(spawn(makes_another, NULL));
}

static const struct test_case cases[] = {
    {"in_nested_frames", in_nested_frames},     {"handlers_that_wait", handlers_that_wait},
#ifdef __EXCEPTIONS
    {"handlers_that_exit", handlers_that_exit},
#endif
    {"deferred_form", deferred_form},           {"states", states},
};

TEST_MAIN(cases)
