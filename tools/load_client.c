/*
 * A load client that believes nothing it is told.
 *
 * Each connection has one request under way at a time. Every answer is checked in full. A value is computed from its
 * key and a version; each key has one writer, so for a get we know the version acknowledged when the
 * get left (lo) and the newest one sent when its answer came (hi). An answer outside lo..hi, or with
 * one byte that key and version do not give, is wrong. This catches lost updates, torn values and
 * answers that reached the wrong connection; a throughput figure from a server that mixes them up
 * is worth nothing.
 *
 * Without a rate a connection sends its next request when it has the answer (a closed loop). With one, requests leave at
 * planned times, evenly spread, and latency counts from the planned time: a server that stalls is
 * charged for all that should have left meanwhile, which a closed loop forgives it. The window is one of planned times,
 * too: all that were planned in it count, those that were answered only after its end as well, and those that
 * never left with the time that they had waited by then.
 *
 * With a pid the server's CPU time, context switches and kernel threads are read from /proc at both ends of
 * the measured window, together with the count of answers, so that "per request" means the same
 * requests. Rejected: sampling from a script around this process, which counts the connecting and
 * the warm-up too.
 *
 * Two worker threads at most: on a small machine the client competes with the server, so it must stay cheap. How late
 * it is itself with what it has planned is measured, too. A server that evicts keys fails the check: give it memory
 * for all keys.
 */
#define _GNU_SOURCE
#include "load.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_REPORTED = 5 };
enum phase { WARMUP, MEASURE, DRAIN };

struct options opt;
struct worker workers[MAX_WORKERS];
_Atomic uint64_t wrong, failed;
static _Atomic int phase = WARMUP;
static uint64_t window_from, window_until; /* of planned times */
static size_t room;                        /* for an answer, or a part of HTTP's */

uint64_t now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void sleep_ns(uint64_t ns)
{
	struct timespec ts = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
	nanosleep(&ts, NULL);
}

static void disconnect(struct conn *c)
{
	if (c->tls)
		tls_close(c->tls);
	c->tls = NULL;
	close(c->fd);
	c->fd = -1;
}

/* Counts one failure, names the first few, and closes the connection. */
static void give_up(struct conn *c, _Atomic uint64_t *counter, const char *what)
{
	uint64_t n = atomic_load(&wrong) + atomic_load(&failed);
	atomic_fetch_add(counter, 1);
	if (n < MAX_REPORTED) {
		char shown[81], asked[64];
		size_t i, len = c->inlen < sizeof shown - 1 ? c->inlen : sizeof shown - 1;
		for (i = 0; i < len; i++)
			shown[i] = isprint((unsigned char)c->in[i]) ? c->in[i] : '.';
		shown[i] = 0;
		if (opt.protocol == HTTP)
			snprintf(asked, sizeof asked, "GET of %.50s", opt.path);
		else
			snprintf(asked, sizeof asked, "%s of key %u", c->is_set ? "set" : "get",
				 c->key);
		fprintf(stderr, "load: connection %u, %s: %s", c->id, asked, what);
		if (opt.protocol == HTTP && c->http.status)
			fprintf(stderr, "; the status is %u, %llu bytes of the body are read",
				c->http.status, (unsigned long long)c->http.length);
		else
			fprintf(stderr, "; answer begins '%s'", shown);
		fputc('\n', stderr);
	}
	disconnect(c);
	c->busy = false;
}

static void watch(struct worker *w, struct conn *c, bool out)
{
	if (c->want_out == out)
		return;
	c->want_out = out;
	struct epoll_event ev = {EPOLLIN | (out ? EPOLLOUT : 0), {.ptr = c}};
	epoll_ctl(w->epfd, EPOLL_CTL_MOD, c->fd, &ev);
}

static void flush(struct worker *w, struct conn *c)
{
	while (c->outoff < c->outlen) {
		const char *rest = c->out + c->outoff;
		size_t len = c->outlen - c->outoff;
		ssize_t n = c->tls ? tls_send(c->tls, rest, len)
				   : send(c->fd, rest, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			watch(w, c, true);
			return;
		}
		if (n <= 0) {
			give_up(c, &failed, strerror(errno));
			return;
		}
		c->outoff += (size_t)n;
	}
	watch(w, c, false);
}

static void start_request(struct worker *w, struct conn *c, uint64_t t0)
{
	build_request(w, c);
	c->outoff = c->inlen = 0;
	c->busy = true;
	c->t0 = t0;
	flush(w, c);
}

/* --- connections ------------------------------------------------------------------------------ */

/* A connection, or one under way with SOCK_NONBLOCK; -1 and errno. */
static int connect_once(int flags)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port)};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	if (fd < 0)
		return -1;
	inet_pton(AF_INET, opt.host, &sa.sin_addr);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0 && errno != EINPROGRESS) {
		int e = errno;
		close(fd);
		errno = e;
		return -1;
	}
	return fd;
}

static bool adopt(struct worker *w, struct conn *c)
{
	struct epoll_event ev = {EPOLLIN, {.ptr = c}};
	c->want_out = false;
	return epoll_ctl(w->epfd, EPOLL_CTL_ADD, c->fd, &ev) == 0;
}

/* Servers of HTTP end a connection after so many requests. */
static bool reconnect(struct worker *w, struct conn *c)
{
	disconnect(c);
	w->reconnects++;
	c->fd = connect_once(opt.tls ? 0 : SOCK_NONBLOCK);
	if (c->fd >= 0 && (!opt.tls || (c->tls = tls_connect(c->fd))) && adopt(w, c))
		return true;
	give_up(c, &failed, "no new connection");
	return false;
}

static void connect_all(struct conn *conns)
{
	uint64_t until = now_ns() + (uint64_t)(opt.wait * 1e9);
	struct rlimit rl;
	if (!getrlimit(RLIMIT_NOFILE, &rl) && rl.rlim_cur < opt.connections + 64) {
		rl.rlim_cur =
		    opt.connections + 64 < rl.rlim_max ? opt.connections + 64 : rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
	for (unsigned i = 0; i < opt.connections; i++) {
		struct conn *c = &conns[i];
		struct worker *w = &workers[(uint64_t)i * opt.workers / opt.connections];
		while ((c->fd = connect_once(0)) < 0) {
			if (now_ns() > until)
				die(1, "connection %u to %s port %u: %s", i, opt.host, opt.port,
				    strerror(errno));
			sleep_ns(20000000);
		}
		if (opt.tls && !(c->tls = tls_connect(c->fd)))
			die(1, "connection %u: no TLS", i);
		c->id = i;
		c->out = malloc(room);
		c->in = malloc(room);
		if (!c->out || !c->in || !adopt(w, c))
			die(1, "connection %u: %s", i, strerror(errno));
		if (!w->conns)
			w->conns = c;
		w->nconns++;
	}
}

/* --- the loop ----------------------------------------------------------------------------------- */

/* Slot j of a worker's timetable is its connection j % nconns, at start + j * step. */
static uint64_t slot_time(const struct worker *w, uint64_t slot)
{
	return w->start + (uint64_t)((double)slot * w->step);
}

static bool in_window(uint64_t planned)
{
	return planned >= window_from && planned < window_until;
}

/* The connection is free: next request at once, or the oldest that was due while it was not. */
static void next_request(struct worker *w, struct conn *c)
{
	if (!opt.rate) {
		if (atomic_load_explicit(&phase, memory_order_relaxed) != DRAIN)
			start_request(w, c, now_ns());
	} else if (c->due) {
		c->due--;
		start_request(w, c, slot_time(w, c->slot));
		c->slot += w->nconns;
	}
}

/* Marks what has become due, and says how long it is to the next slot: of those before the window's end. */
static uint64_t run_timetable(struct worker *w)
{
	uint64_t t, now = now_ns();
	while ((t = slot_time(w, w->cursor)) <= now && t < window_until) {
		struct conn *c = &w->conns[w->cursor++ % w->nconns];
		if (c->fd < 0)
			continue;
		c->due++;
		if (c->busy)
			continue;
		if (in_window(t))
			hist_record(&w->late, now - t);
		next_request(w, c);
	}
	return t < window_until ? t - now : UINT64_MAX;
}

static void answered(struct worker *w, struct conn *c)
{
	c->busy = false;
	int ph = atomic_load_explicit(&phase, memory_order_relaxed);
	/* Without a rate one that is still under way when the time is up counts with its whole latency: a
	 * server that stalls then is no faster for it. */
	if (opt.rate ? in_window(c->t0) : ph != WARMUP) {
		hist_record(&w->hist, now_ns() - c->t0);
		if (c->is_set)
			w->sets++;
		else
			w->gets++;
	}
	atomic_store_explicit(&w->answers, w->answers + 1, memory_order_relaxed);
	if (opt.protocol == HTTP && c->http.closes && !reconnect(w, c))
		return;
	next_request(w, c);
}

/* The server has closed the connection. */
static void closed(struct worker *w, struct conn *c)
{
	const char *why = "server closed the connection";
	int r = 0;
	if (opt.protocol == HTTP && !c->busy) {
		reconnect(w, c);
		return;
	}
	if (opt.protocol == HTTP && (r = http_closed(c, &why)) > 0)
		answered(w, c);
	else
		give_up(c, r < 0 ? &wrong : &failed, why);
}

/* Takes what has come; true if there may be more of it that the kernel doesn't tell of. */
static bool readable(struct worker *w, struct conn *c)
{
	const char *why = NULL;
	ssize_t n = c->tls ? tls_recv(c->tls, c->in + c->inlen, room - c->inlen)
			   : recv(c->fd, c->in + c->inlen, room - c->inlen, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n == 0) {
		closed(w, c);
		return false;
	}
	if (n < 0) {
		give_up(c, &failed, strerror(errno));
		return false;
	}
	c->inlen += (size_t)n;
	int r = c->busy ? check_answer(w, c, &why) : -1;
	if (r < 0) {
		give_up(c, &wrong, why ? why : "answer to no request");
		return false;
	}
	if (r > 0)
		answered(w, c);
	else if (c->inlen == room)
		give_up(c, &wrong, "answer too long");
	return c->tls != NULL;
}

/* What the time did not suffice for: as late as it is by now. */
static void abandon(struct worker *w)
{
	uint64_t now = now_ns();
	for (unsigned i = 0; i < w->nconns; i++) {
		struct conn *c = &w->conns[i];
		for (; c->fd >= 0 && c->due; c->due--, c->slot += w->nconns) {
			uint64_t planned = slot_time(w, c->slot);
			if (in_window(planned))
				hist_record(&w->hist, now - planned);
			w->unsent++;
		}
		if (!c->busy)
			continue;
		if (in_window(c->t0) && opt.rate)
			hist_record(&w->hist, now - c->t0);
		give_up(c, &failed, "no answer in time");
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct epoll_event evs[256];
	uint64_t drain_from = 0;
	for (unsigned i = 0; i < w->nconns; i++) {
		w->conns[i].slot = i;
		next_request(w, &w->conns[i]);
	}
	for (;;) {
		struct timespec wait = {0, 50000000};
		if (opt.rate) {
			uint64_t ns = run_timetable(w);
			if (ns < 50000000)
				wait.tv_nsec = (long)ns;
		}
		int n = epoll_pwait2(w->epfd, evs, 256, &wait, NULL);
		for (int i = 0; i < n; i++) {
			struct conn *c = evs[i].data.ptr;
			if (c->fd >= 0 && (evs[i].events & EPOLLOUT))
				flush(w, c);
			if (c->fd >= 0 && (evs[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
				while (readable(w, c) && c->fd >= 0)
					;
		}
		unsigned alive = 0, busy = 0;
		if ((n > 0 || opt.rate) &&
		    atomic_load_explicit(&phase, memory_order_relaxed) != DRAIN)
			continue;
		for (unsigned i = 0; i < w->nconns; i++) {
			alive += w->conns[i].fd >= 0;
			busy += w->conns[i].busy || (w->conns[i].fd >= 0 && w->conns[i].due);
		}
		if (!alive)
			return NULL;
		if (atomic_load(&phase) != DRAIN)
			continue;
		if (opt.rate && slot_time(w, w->cursor) < window_until)
			continue; /* planned, and not yet due when last looked at */
		if (!drain_from)
			drain_from = now_ns();
		if (!busy)
			return NULL;
		if (now_ns() - drain_from > opt.timeout * 1e9) {
			abandon(w);
			return NULL;
		}
	}
}

/* --- a run ---------------------------------------------------------------------------------------- */

static void collect(struct result *r)
{
	for (unsigned i = 0; i < opt.workers; i++) {
		const struct worker *w = &workers[i];
		hist_add(&r->hist, &w->hist);
		hist_add(&r->late, &w->late);
		r->gets += w->gets;
		r->sets += w->sets;
		r->hits += w->hits;
		r->misses += w->misses;
		r->reconnects += w->reconnects;
		r->unsent += w->unsent;
		r->answers += w->answers;
	}
	r->wrong = wrong;
	r->failed = failed;
	http_body(&r->digest, &r->length);
}

int load_run(const struct options *o, struct result *r)
{
	opt = *o;
	signal(SIGPIPE, SIG_IGN);
	room = opt.protocol == HTTP ? HTTP_ROOM : opt.value_size + SLACK;
	bool memory = init_keys();
	if (opt.tls)
		tls_init(opt.tls);
	struct conn *conns = calloc(opt.connections, sizeof *conns);
	for (unsigned i = 0; i < opt.workers; i++) {
		workers[i].epfd = epoll_create1(EPOLL_CLOEXEC);
		workers[i].expect = malloc(opt.value_size);
		workers[i].rng = now_ns() * 2 + i + 1;
		if (!memory || !conns || !workers[i].expect || workers[i].epfd < 0)
			die(1, "no memory or descriptors: %s", strerror(errno));
	}
	connect_all(conns);
	uint64_t start = now_ns();
	window_from = start + (uint64_t)(opt.warmup * 1e9);
	window_until = window_from + (uint64_t)(opt.seconds * 1e9);
	for (unsigned i = 0; i < opt.workers; i++) {
		workers[i].step = opt.rate ? 1e9 * opt.workers / opt.rate : 0;
		workers[i].start = start + (uint64_t)(opt.rate ? 1e9 * i / opt.rate : 0);
		if ((errno = pthread_create(&workers[i].thread, NULL, work, &workers[i])))
			die(1, "pthread_create: %s", strerror(errno));
	}
	for (uint64_t t; (t = now_ns()) < window_from;)
		sleep_ns(window_from - t);
	if (opt.syscalls && !count_syscalls(opt.pid))
		die(1, "--syscalls: the kernel doesn't let us count (%s)", strerror(errno));
	take_sample(&r->from, opt.pid, opt.group);
	atomic_store(&phase, MEASURE);
	uint64_t end = opt.rate ? window_until : r->from.t + (uint64_t)(opt.seconds * 1e9);
	for (;;) {
		uint64_t t = now_ns();
		sleep_ns(end > t ? (end - t < 250000000 ? end - t : 250000000) : 0);
		take_sample(&r->until, opt.pid, opt.group);
		if (r->until.threads > r->max_threads)
			r->max_threads = r->until.threads;
		if (r->until.t >= end)
			break;
	}
	atomic_store(&phase, DRAIN);
	for (unsigned i = 0; i < opt.workers; i++)
		pthread_join(workers[i].thread, NULL);
	collect(r);
	return r->wrong || r->failed || !r->until.answers;
}
