/*
 * Cases that run twice: alone, and among many threads that wait in read, when a scheduler has other
 * ways of waiting than alone.
 *
 * A test defines CASES(X), with a row X(name) for each function, before it uses CROWD_CASES.
 */
#ifndef CROWD_H
#define CROWD_H

#include "test.h"

enum { CROWD = 24 };

static void *wait_in_read(void *arg)
{
	char c;

	CHECK_EQ(read(*(int *)arg, &c, 1), 0);
	return NULL;
}

static void twice(void (*fn)(void))
{
	pthread_t t[CROWD];
	int fds[2];

	fn();
	REQUIRE(pipe(fds) == 0);
	for (int i = 0; i < CROWD; i++)
		t[i] = spawn(wait_in_read, &fds[0]);
	sleep_ms(20);
	fn();
	close(fds[1]);
	for (int i = 0; i < CROWD; i++)
		join(t[i]);
	close(fds[0]);
}

#define TWICE(name)                    \
	static void name##_twice(void) \
	{                              \
		twice(name);           \
	}
#define ROW(name) {#name, name##_twice},
#define CROWD_CASES  \
	CASES(TWICE) \
	static const struct test_case cases[] = {CASES(ROW)};

#endif
