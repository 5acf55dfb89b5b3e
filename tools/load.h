/*
 * The load client, of which `load` and `goshim compare` are users: load_client.c (connections, the loop),
 * load_check.c and load_http.c (what is asked and what must be answered), load_hist.c (latencies),
 * load_report.c and load_syscalls.c (what is measured), load_options.c, load_tls.c.
 */
#ifndef LOAD_H
#define LOAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

enum { MAX_VALUE = 65536, MAX_WORKERS = 2, SLACK = 256, HTTP_ROOM = 32768 };
enum protocol { MEMCACHED, REDIS, ECHO, HTTP };
extern const char *const protocol_names[];

/* Nanoseconds, SUB steps a power of two: within 0.8 %, HdrHistogram's two digits. */
enum { SUB_BITS = 7, SUB = 1 << SUB_BITS, BUCKETS = (64 - SUB_BITS + 1) * SUB };
struct hist {
	uint64_t total, sum, max, count[BUCKETS];
};

/* An answer of HTTP as it comes in pieces. */
struct http {
	enum { HEAD, BODY, CHUNK_HEAD, CHUNK, CHUNK_END, TRAILER, UNTIL_CLOSE } state;
	bool closes; /* the server ends the connection behind it */
	unsigned status;
	uint64_t left, length, digest;
};

struct conn {
	int fd; /* -1 once it failed */
	void *tls;
	unsigned id;
	bool busy, is_set, want_out;
	uint32_t key, version; /* of the request under way; version only for a set */
	uint32_t lo;           /* for a get: version acknowledged when it left */
	uint32_t seeded;       /* own keys written once */
	struct http http;
	uint64_t t0;
	uint64_t slot; /* with a rate: the oldest slot not yet used, and how many are due */
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
	uint64_t start, cursor; /* the timetable of a rate: begin, next slot; ns between slots */
	double step;
	struct hist hist, late; /* answers; how late the client itself was */
	uint64_t gets, sets, hits, misses, reconnects, unsent;
	_Atomic uint64_t answers;
	char *expect;
};

struct options {
	enum protocol protocol;
	char host[64], path[1024];
	unsigned port, connections, keys, value_size, workers, status;
	double seconds, warmup, set_ratio, timeout, wait, rate;
	uint64_t digest; /* of HTTP's body; 0: the first answer's */
	int pid;         /* of the server, and whether its process group belongs to it */
	bool group, syscalls;
	const char *tls; /* a file with certificates */
};

/* The server as /proc shows it, with the count of answers at the same moment. */
struct sample {
	uint64_t cpu_us, voluntary, involuntary, syscalls, answers, t;
	unsigned threads;
	uint64_t rss_kb;    /* the most that it has been so far */
	uint64_t queued_ns; /* threads that live have waited for a CPU */
};

struct result {
	struct sample from, until;
	unsigned max_threads;
	struct hist hist, late;
	uint64_t gets, sets, hits, misses, reconnects, unsent, answers, wrong, failed;
	uint64_t digest, length; /* HTTP's body */
};

extern struct options opt; /* of the run under way */
extern struct worker workers[MAX_WORKERS];
extern _Atomic uint64_t wrong, failed; /* answers, connections */

uint64_t now_ns(void);
_Noreturn void die(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* load_client.c: one run in the life of a process, whose descriptors and memory go with it. Says what
 * failed; 0 if every answer was right, else 1. */
int load_run(const struct options *o, struct result *r);

/* load_options.c. False: why says what was wanted. */
extern const struct options load_defaults;
bool load_set(struct options *o, const char *name, const char *value, char *why, size_t size);
/* PROTOCOL:[HOST:]PORT[/PATH][,NAME=VALUE]... */
bool load_spec(struct options *o, const char *spec, char *why, size_t size);
/* What is left to be chosen, and contradictions. */
bool load_complete(struct options *o, char *why, size_t size);
/* The names that load_set knows, from 0 on; then NULL. */
const char *load_option_name(int i);

/* load_check.c: false when there is no memory. */
bool init_keys(void);
void build_request(struct worker *w, struct conn *c);
/* 1 complete and right, 0 incomplete, -1 wrong with *why set. */
int check_answer(struct worker *w, struct conn *c, const char **why);

/* load_http.c */
void http_request(struct conn *c);
int http_answer(struct conn *c, const char **why);
/* The server has closed: is the answer whole by that? */
int http_closed(struct conn *c, const char **why);
/* The body that all answers had. */
void http_body(uint64_t *digest, uint64_t *length);

/* load_hist.c */
void hist_record(struct hist *h, uint64_t ns);
void hist_add(struct hist *h, const struct hist *more);
/* The latency in ns that a share q of all did not exceed. */
uint64_t hist_value(const struct hist *h, double q);
/* As HdrHistogram's outputPercentileDistribution, in ms. */
void hist_write(const struct hist *h, FILE *f);
/* How many were in each bucket up to this one's last ns. */
uint64_t hist_top(unsigned bucket);

/* load_tls.c */
void tls_init(const char *authority);
void *tls_connect(int fd);
void tls_close(void *tls);
ssize_t tls_send(void *tls, const void *buf, size_t n);
ssize_t tls_recv(void *tls, void *buf, size_t n);

/* load_syscalls.c: from now on; false when the kernel doesn't let us. */
bool count_syscalls(pid_t pid);
uint64_t syscalls_counted(void);

/* load_report.c */
void take_sample(struct sample *s, int pid, bool group);
void report(const struct options *o, const struct result *r, bool json);

#endif
