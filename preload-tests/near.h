/*
 * For tests of what is no deadlock: each case is a process of its own, since what is known of another's habits
 * would keep quiet about it, and what it has written to stderr is read at its end.
 */
#ifndef NEAR_H
#define NEAR_H

#include "test.h"

enum { ASLEEP = 100 /* ms: longer than anybody who looks for sleepers takes */ };

static int errors = -1; /* what stderr is */

/* Nothing about deadlocks has been written since the last time. */
static inline void quiet(void)
{
	static char text[65536];
	ssize_t n = pread(errors, text, sizeof text - 1, 0);

	REQUIRE(n >= 0);
	text[n] = '\0';
	char *said = strstr(text, "deadlock");
	if (said) {
		while (said > text && said[-1] != '\n')
			said--;
		FAIL("somebody says: %.300s", said);
	}
	REQUIRE(ftruncate(errors, 0) == 0);
}

static inline void errors_to_file(void)
{
	char path[] = "/tmp/stderr-XXXXXX";

	errors = mkstemp(path);
	REQUIRE(errors >= 0);
	unlink(path);
	REQUIRE(fcntl(errors, F_SETFL, O_APPEND) == 0);
	REQUIRE(dup2(errors, 2) == 2);
}

static void (*alone)(void);

static inline int runs_alone(void)
{
	alone();
	return 0;
}

#define ALONE(name)                                \
	static void name##_alone(void)             \
	{                                          \
		alone = name;                      \
		CHECK_EQ(in_child(runs_alone), 0); \
	}

#define NEAR_MAIN(cases)                                          \
	int main(int argc, char **argv)                           \
	{                                                         \
		errors_to_file();                                 \
		return test_run(argc, argv, cases, COUNT(cases)); \
	}

#endif
