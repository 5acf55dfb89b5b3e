/*
 * main ends by pthread_exit and holds robust mutexes: the next to lock is told, as with any other
 * owner, though main's kernel thread is the process to the kernel. The others go on, and the last
 * one ends the process with status 0.
 */
#include "test.h"

enum { HELD = 3 };

struct how {
	int protocol, late, contended;
};

static pthread_mutex_t held[HELD];
static volatile int waiting, ended;

static void make(int protocol)
{
	pthread_mutexattr_t a;

	pthread_mutexattr_init(&a);
	REQUIRE_OK(pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST));
	REQUIRE_OK(pthread_mutexattr_setprotocol(&a, protocol));
	for (int i = 0; i < HELD; i++)
		REQUIRE_OK(pthread_mutex_init(&held[i], &a));
}

static void takeover(pthread_mutex_t *m)
{
	CHECK_EQ(pthread_mutex_lock(m), EOWNERDEAD);
	CHECK_EQ(pthread_mutex_consistent(m), 0);
	CHECK_EQ(pthread_mutex_unlock(m), 0);
}

static void *plus_one(void *arg)
{
	return (void *)((intptr_t)arg + 1);
}

static void *computes(void *arg)
{
	for (volatile int i = 0; i < 20000000; i++)
		;
	return arg;
}

/* What a process can do can be done without main, too. */
static void go_on(void)
{
	pthread_t t[4];
	int status;

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(computes, NULL);
	CHECK_EQ((intptr_t)join(spawn(plus_one, (void *)3)), 4);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	sleep_ms(5);
	CHECK_EQ(setgid(getgid()), 0);
	pid_t child = fork();
	REQUIRE(child >= 0);
	if (child == 0)
		_exit(join(spawn(plus_one, (void *)4)) == (void *)5 ? 7 : 8);
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 7 << 8);
}

static void *survivor(void *arg)
{
	const struct how *how = arg;

	if (how->contended) {
		waiting = 1;
		takeover(&held[1]);
	} else {
		REQUIRE(wait_for(&ended, 1, 10000));
		sleep_ms(20);
	}
	for (int i = 0; i < HELD; i++)
		if (i != 1 || !how->contended)
			takeover(&held[i]);
	for (int i = 0; i < HELD; i++)
		CHECK_EQ(pthread_mutex_destroy(&held[i]), 0);
	go_on();
	if (test_failures)
		_exit(99);
	return NULL;
}

static struct how how;

static int main_ends(void)
{
	make(how.protocol);
	if (how.late)
		CHECK_EQ((intptr_t)join(spawn(plus_one, (void *)1)), 2);
	for (int i = 0; i < HELD; i++)
		CHECK_EQ(pthread_mutex_lock(&held[i]), 0);
	pthread_detach(spawn(survivor, &how));
	if (how.contended) {
		REQUIRE(wait_for(&waiting, 1, 10000));
		sleep_ms(20);
	}
	ended = 1;
	pthread_exit((void *)3);
}

static void each(int protocol)
{
	for (int late = 0; late < 2; late++)
		for (int contended = 0; contended < 2; contended++) {
			how = (struct how){protocol, late, contended};
			int status = in_child(main_ends);
			if (status != 0)
				FAIL("locked %s threads, %s: status %#x", late ? "among" : "before",
				     contended ? "contended" : "free", status);
		}
}

static void plain(void)
{
	each(PTHREAD_PRIO_NONE);
}

static void inheriting(void)
{
	each(PTHREAD_PRIO_INHERIT);
}

static const struct test_case cases[] = {
    {"plain", plain},
    {"inheriting", inheriting},
};

TEST_MAIN(cases)
