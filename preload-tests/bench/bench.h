/*
 * What the benchmark programs share. They are ordinary pthread programs that know nothing of
 * goshim: `run` starts each natively and preloaded in turn. Each takes its options as NAME=NUMBER,
 * checks that it computed what it should, prints key=value lines and exits 0, or 1 with one line.
 */
#ifndef BENCH_H
#define BENCH_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHECK(cond)                                                                          \
	do {                                                                                 \
		if (!(cond)) {                                                               \
			fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #cond, \
				errno);                                                      \
			exit(1);                                                             \
		}                                                                            \
	} while (0)

/* For calls that return an error number. */
#define OK(call)                                                                      \
	do {                                                                          \
		int err_ = (call);                                                    \
		if (err_) {                                                           \
			fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, \
				strerror(err_));                                      \
			exit(1);                                                      \
		}                                                                     \
	} while (0)

static inline double now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* The value of NAME=NUMBER among the arguments, or the default. */
static inline double option(int argc, char **argv, const char *name, double otherwise)
{
	size_t n = strlen(name);
	for (int i = 1; i < argc; i++) {
		if (strncmp(argv[i], name, n) || argv[i][n] != '=')
			continue;
		char *end;
		double v = strtod(argv[i] + n + 1, &end);
		if (*end || end == argv[i] + n + 1 || !(v >= 0)) {
			fprintf(stderr, "%s: want %s=NUMBER\n", argv[i], name);
			exit(2);
		}
		return v;
	}
	return otherwise;
}

#endif
