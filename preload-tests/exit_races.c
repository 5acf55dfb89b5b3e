/*
 * exit() while other threads compute, wait, allocate, print, make threads and end: the handlers run once, what
 * stdio holds is written once, and the status is the caller's. From main, threads, handlers, destructors and
 * cleanup handlers, by several at once, and with stdio's lock held by another.
 */
#include "test.h"

#include <stdbool.h>
#include <sys/mman.h>

enum { LINES = 20, BYTES = LINES * 5, ROUNDS = 5 };

/* Shared with the children. */
static volatile int *handlers_run;
static int out[2];
static pthread_key_t key;

static void handler(void)
{
	__atomic_add_fetch(handlers_run, 1, __ATOMIC_RELAXED);
	usleep(500);
}

static void *computes(void *arg)
{
	for (volatile long i = 0;; i++)
		;
	return arg;
}

static void *waits(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void *allocates(void *arg)
{
	for (;;)
		free(malloc(100));
	return arg;
}

static void *prints(void *arg)
{
	for (;;)
		fprintf(stderr, "%s", "");
	return arg;
}

static void *ends(void *arg)
{
	return arg;
}

static void *makes_threads(void *arg)
{
	pthread_attr_t attr;
	pthread_t t;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	for (;;)
		pthread_create(&t, &attr, ends, NULL);
	return arg;
}

static void company(void)
{
	spawn(computes, NULL);
	spawn(waits, NULL);
	spawn(allocates, NULL);
	spawn(prints, NULL);
	spawn(makes_threads, NULL);
	usleep(1000);
}

static void *exits(void *status)
{
	exit((int)(intptr_t)status);
}

static int by_main(void)
{
	company();
	exit(40);
}

static int by_a_thread(void)
{
	company();
	join(spawn(exits, (void *)41));
	return 1;
}

static int by_four_at_once(void)
{
	for (int i = 0; i < 4; i++)
		spawn(exits, (void *)42);
	waits(NULL);
	return 1;
}

static void *locks_stdout(void *locked)
{
	flockfile(stdout);
	__atomic_store_n((int *)locked, 1, __ATOMIC_RELEASE);
	return waits(NULL);
}

static int with_stdout_locked(void)
{
	int locked = 0;

	spawn(locks_stdout, &locked);
	REQUIRE(wait_for(&locked, 1, 60000));
	exit(43);
}

static void exits_again(void)
{
	exit(44);
}

static int in_a_handler(void)
{
	atexit(exits_again);
	company();
	exit(1);
}

static void destructor(void *value)
{
	(void)value;
	exit(45);
}

static void *sets_key(void *arg)
{
	pthread_setspecific(key, &key);
	return arg;
}

static int in_a_destructor(void)
{
	REQUIRE_OK(pthread_key_create(&key, destructor));
	company();
	join(spawn(sets_key, NULL));
	return 1;
}

static void cleanup(void *arg)
{
	(void)arg;
	exit(46);
}

static void *unwinds(void *arg)
{
	pthread_cleanup_push(cleanup, NULL);
	pthread_exit(arg);
	pthread_cleanup_pop(0);
}

static int in_a_cleanup_handler(void)
{
	company();
	join(spawn(unwinds, NULL));
	return 1;
}

static void *exits_quickly(void *arg)
{
	(void)arg;
	quick_exit(47);
}

static int quickly(void)
{
	company();
	join(spawn(exits_quickly, NULL));
	return 1;
}

static const struct {
	const char *name;
	int (*end)(void);
	int status, bytes;
	/* libc of this version only sees to it that no handler runs twice: who finds none left ends the process. */
	bool raced;
} ways[] = {
    {"by main", by_main, 40, BYTES, false},
    {"by a thread", by_a_thread, 41, BYTES, false},
    {"by four at once", by_four_at_once, 42, BYTES, true},
    {"with stdout locked", with_stdout_locked, 43, BYTES, false},
    {"in a handler", in_a_handler, 44, BYTES, false},
    {"in a destructor", in_a_destructor, 45, BYTES, false},
    {"in a cleanup handler", in_a_cleanup_handler, 46, BYTES, false},
    {"quick_exit", quickly, 47, 0, false},
};

static unsigned way;

static int child(void)
{
	dup2(out[1], 1);
	atexit(handler);
	at_quick_exit(handler);
	for (int i = 0; i < LINES; i++)
		printf("line\n");
	return ways[way].end();
}

static void each_way(void)
{
	char buf[4096];

	handlers_run =
	    mmap(NULL, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(handlers_run != MAP_FAILED);
	for (int round = 0; round < ROUNDS; round++) {
		for (way = 0; way < COUNT(ways); way++) {
			ssize_t n, bytes = 0;

			*handlers_run = 0;
			REQUIRE(pipe(out) == 0);
			int status = in_child(child);
			close(out[1]);
			while ((n = read(out[0], buf, sizeof buf)) > 0)
				bytes += n;
			close(out[0]);
			bool as_one = *handlers_run == 1 && bytes == ways[way].bytes;
			if (ways[way].raced)
				as_one = *handlers_run <= 1;
			if (status != ways[way].status << 8 || !as_one)
				FAIL("%s: wait status %#x, %d handlers, %zd bytes", ways[way].name,
				     status, *handlers_run, bytes);
		}
	}
}

static const struct test_case cases[] = {
    {"each_way", each_way},
};

TEST_MAIN(cases)
