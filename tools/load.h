/*
 * Shared by the files of the load generator: load.c (options, connections, the loop), load_check.c (what is
 * asked and what must be answered), load_report.c (what is measured), load_tls.c,
 * load_syscalls.c.
 */
#ifndef LOAD_H
#define LOAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { MAX_VALUE = 65536, MAX_WORKERS = 2, SLACK = 256 };
enum protocol { MEMCACHED, REDIS, ECHO };
extern const char *const protocol_names[];

/* Log-linear histogram of nanoseconds: SUB steps a power of two. */
enum { SUB_BITS = 6, SUB = 1 << SUB_BITS, BUCKETS = (64 - SUB_BITS + 1) * SUB };

struct conn {
	int fd; /* -1 once it failed */
	void *tls;
	unsigned id;
	bool busy, is_set, want_out;
	uint32_t key, version; /* of the request under way; version only for a set */
	uint32_t lo;           /* for a get: version acknowledged when it left */
	uint32_t seeded;       /* own keys written once */
	uint64_t t0;
	uint64_t slot; /* with --rate: the oldest slot not yet used, and how many are due */
	uint32_t due;
	size_t outlen, outoff, inlen;
	char *out, *in;
};

struct worker {
	pthread_t thread;
	int epfd;
	struct conn *conns;
	unsigned nconns;
	uint64_t rng;
	uint64_t start, cursor; /* the timetable of --rate: begin, next slot; ns between slots */
	double step;
	uint64_t hist[BUCKETS];
	uint64_t gets, sets, hits, misses, max_ns, sum_ns, measured;
	_Atomic uint64_t answers;
	char *expect;
};

struct options {
	enum protocol protocol;
	char host[64];
	unsigned port, connections, keys, value_size, workers;
	double seconds, warmup, set_ratio, timeout, wait, rate;
	pid_t pid;
	const char *tls;
	bool json, syscalls;
};

/* The server's /proc, with the count of answers at the same moment. */
struct sample {
	uint64_t cpu_us, voluntary, involuntary, syscalls, answers, t;
	unsigned threads;
};

extern struct options opt;
extern struct worker workers[MAX_WORKERS];
extern _Atomic uint64_t wrong, failed; /* answers, connections */

uint64_t now_ns(void);
_Noreturn void die(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* load_check.c: false when there is no memory. */
bool init_keys(void);
void build_request(struct worker *w, struct conn *c);
/* 1 complete and right, 0 incomplete, -1 wrong with *why set. */
int check_answer(struct worker *w, struct conn *c, const char **why);

/* load_tls.c */
void tls_init(const char *authority);
void *tls_connect(int fd);
ssize_t tls_send(void *tls, const void *buf, size_t n);
ssize_t tls_recv(void *tls, void *buf, size_t n);

/* load_syscalls.c: from now on; false when the kernel doesn't let us. */
bool count_syscalls(pid_t pid);
uint64_t syscalls_counted(void);

/* load_report.c */
void record(struct worker *w, const struct conn *c, uint64_t t1);
void take_sample(struct sample *s);
void report(const struct sample *a, const struct sample *b, unsigned max_threads);

#endif
