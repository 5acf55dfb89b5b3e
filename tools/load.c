/*
 * A load generator that believes nothing it is told.
 *
 * Each connection runs a closed loop: one request, one answer, the next request. Every answer is
 * checked in full. A value is computed from its key and a version; each key has one writer, so for
 * a get we know the version acknowledged when the get left (lo) and the newest one sent when its
 * answer came (hi). An answer outside lo..hi, or with one byte that key and version do not give,
 * is wrong. This catches lost updates, torn values and answers that reached the wrong connection;
 * a throughput figure from a server that mixes them up is worth nothing.
 *
 * With --rate requests leave at planned times instead, evenly spread, and latency counts from the
 * planned time: a server that stalls is charged for all that should have left meanwhile, which a
 * closed loop forgives it.
 *
 * Latencies go into a log-linear histogram (64 steps a power of two, so within 1.6 %). With --pid
 * the server's CPU time, context switches and kernel threads are read from /proc at both ends of
 * the measured window, together with the count of answers, so that "per request" means the same
 * requests. Rejected: sampling from a script around this process, which counts the connecting and
 * the warm-up too.
 *
 * Protocols: memcached's text, redis's RESP, and plain echo; each also over TLS. Two worker threads at most: on a
 * small machine the generator competes with the server, so it must stay cheap. A server that
 * evicts keys fails the check: give it memory for --keys times --size.
 */
#define _GNU_SOURCE
#include "load.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_REPORTED = 5 };
enum phase { WARMUP, MEASURE, DRAIN };

const char *const protocol_names[] = {"memcached", "redis", "echo"};
struct options opt = {.host = "127.0.0.1",
		      .connections = 100,
		      .value_size = 100,
		      .workers = 1,
		      .seconds = 3,
		      .warmup = 0.5,
		      .set_ratio = 0.1,
		      .timeout = 10};
struct worker workers[MAX_WORKERS];
_Atomic uint64_t wrong, failed;
static _Atomic int phase = WARMUP;

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

_Noreturn void die(int code, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	fprintf(stderr, "load: ");
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	exit(code);
}

/* Counts one failure, names the first few, and closes the connection. */
static void give_up(struct conn *c, _Atomic uint64_t *counter, const char *what)
{
	uint64_t n = atomic_load(&wrong) + atomic_load(&failed);
	atomic_fetch_add(counter, 1);
	if (n < MAX_REPORTED) {
		char shown[81];
		size_t i, len = c->inlen < sizeof shown - 1 ? c->inlen : sizeof shown - 1;
		for (i = 0; i < len; i++)
			shown[i] = isprint((unsigned char)c->in[i]) ? c->in[i] : '.';
		shown[i] = 0;
		fprintf(stderr, "load: connection %u, %s of key %u: %s; answer begins '%s'\n",
			c->id, c->is_set ? "set" : "get", c->key, what, shown);
	}
	close(c->fd);
	c->fd = -1;
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
		if (n < 0) {
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

/* Slot j of a worker's timetable is its connection j % nconns, at start + j * step. */
static uint64_t slot_time(const struct worker *w, uint64_t slot)
{
	return w->start + (uint64_t)((double)slot * w->step);
}

/* The connection is free: next request at once, or the oldest that was due while it was not. */
static void next_request(struct worker *w, struct conn *c)
{
	if (!opt.rate) {
		start_request(w, c, now_ns());
	} else if (c->due) {
		c->due--;
		start_request(w, c, slot_time(w, c->slot));
		c->slot += w->nconns;
	}
}

/* Marks what has become due, and says when the next slot is. */
static uint64_t run_timetable(struct worker *w)
{
	uint64_t t, now = now_ns();
	while ((t = slot_time(w, w->cursor)) <= now) {
		struct conn *c = &w->conns[w->cursor++ % w->nconns];
		if (c->fd < 0)
			continue;
		c->due++;
		if (!c->busy)
			next_request(w, c);
	}
	return t - now;
}

static void readable(struct worker *w, struct conn *c)
{
	const char *why = NULL;
	size_t room = opt.value_size + SLACK;
	ssize_t n = c->tls ? tls_recv(c->tls, c->in + c->inlen, room - c->inlen)
			   : recv(c->fd, c->in + c->inlen, room - c->inlen, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		give_up(c, &failed, n ? strerror(errno) : "server closed the connection");
		return;
	}
	c->inlen += (size_t)n;
	int r = c->busy ? check_answer(w, c, &why) : -1;
	if (r < 0) {
		give_up(c, &wrong, why ? why : "answer to no request");
		return;
	}
	if (r == 0 && c->inlen < room)
		return;
	if (r == 0) {
		give_up(c, &wrong, "answer too long");
		return;
	}
	c->busy = false;
	int ph = atomic_load_explicit(&phase, memory_order_relaxed);
	/* A request that is still under way when the time is up counts with its whole latency: a
	 * server that stalls then is no faster for it. */
	if (ph == MEASURE || (ph == DRAIN && !opt.rate))
		record(w, c, now_ns());
	atomic_store_explicit(&w->answers, w->answers + 1, memory_order_relaxed);
	if (ph != DRAIN)
		next_request(w, c);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct epoll_event evs[256];
	uint64_t drain_from = 0;
	w->start = now_ns();
	w->step = opt.rate ? 1e9 * opt.workers / opt.rate : 0;
	for (unsigned i = 0; i < w->nconns; i++) {
		w->conns[i].slot = i;
		next_request(w, &w->conns[i]);
	}
	for (;;) {
		struct timespec wait = {0, 50000000};
		if (opt.rate && atomic_load(&phase) != DRAIN) {
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
				readable(w, c);
		}
		unsigned alive = 0, busy = 0;
		if ((n > 0 || opt.rate) &&
		    atomic_load_explicit(&phase, memory_order_relaxed) != DRAIN)
			continue;
		for (unsigned i = 0; i < w->nconns; i++) {
			alive += w->conns[i].fd >= 0;
			busy += w->conns[i].busy;
		}
		if (!alive)
			return NULL;
		if (atomic_load(&phase) != DRAIN)
			continue;
		if (!drain_from)
			drain_from = now_ns();
		if (!busy)
			return NULL;
		if (now_ns() - drain_from > opt.timeout * 1e9) {
			for (unsigned i = 0; i < w->nconns; i++)
				if (w->conns[i].busy)
					give_up(&w->conns[i], &failed, "no answer in time");
			return NULL;
		}
	}
}

static int connect_once(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port)};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		die(1, "socket: %s", strerror(errno));
	inet_pton(AF_INET, opt.host, &sa.sin_addr);
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0) {
		int e = errno;
		close(fd);
		errno = e;
		return -1;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return fd;
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
		while ((c->fd = connect_once()) < 0) {
			if (now_ns() > until)
				die(1, "connection %u to %s port %u: %s", i, opt.host, opt.port,
				    strerror(errno));
			sleep_ns(20000000);
		}
		if (opt.tls && !(c->tls = tls_connect(c->fd)))
			die(1, "connection %u: no TLS", i);
		c->id = i;
		c->out = malloc(opt.value_size + SLACK);
		c->in = malloc(opt.value_size + SLACK);
		struct epoll_event ev = {EPOLLIN, {.ptr = c}};
		if (!c->out || !c->in || epoll_ctl(w->epfd, EPOLL_CTL_ADD, c->fd, &ev) < 0)
			die(1, "connection %u: %s", i, strerror(errno));
		if (!w->conns)
			w->conns = c;
		w->nconns++;
	}
}

static void usage(FILE *f)
{
	fprintf(
	    f,
	    "usage: load --port PORT [options]\n"
	    "Loads a server over TCP, checks every answer, prints key=value lines.\n"
	    "  --protocol memcached|redis|echo   (memcached)\n"
	    "  --host ADDRESS       IPv4 address (127.0.0.1)\n"
	    "  --connections N      1-60000 (100)\n"
	    "  --seconds S          measured time, 0.1-3600 (3)\n"
	    "  --warmup S           time before it, 0-60 (0.5)\n"
	    "  --threads N          1 or 2 (1)\n"
	    "  --size BYTES         value or message size, 8-65536 (100)\n"
	    "  --keys N             keys in all (10 a connection)\n"
	    "  --set-ratio X        share of sets, 0-1 (0.1)\n"
	    "  --pid PID            the server's: adds CPU, context switches, threads\n"
	    "  --syscalls           with --pid: counts the server's system calls, too\n"
	    "  --rate N             requests a second, at planned times, 1-10000000 (as fast as\n"
	    "                       they are answered)\n"
	    "  --tls FILE           over TLS; FILE has the server's certificate or its issuer's\n"
	    "  --timeout S          an answer that takes longer is a failure, 0.1-600 (10)\n"
	    "  --wait S             keep trying to connect for so long, 0-600 (0)\n"
	    "  --json               one JSON object instead of lines\n"
	    "Exit: 0 every answer right, 1 wrong or missing answers, 2 bad usage.\n");
}

static double number(const char *name, const char *text, double min, double max, bool whole)
{
	char *end;
	errno = 0;
	double v = strtod(text, &end);
	if (!*text || *end || errno || !(v >= min && v <= max) ||
	    (whole && v != (double)(long long)v))
		die(2, "--%s %s: want %s from %g to %g", name, text,
		    whole ? "a whole number" : "a number", min, max);
	return v;
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {{"protocol", 1, 0, 'P'},
					      {"host", 1, 0, 'H'},
					      {"port", 1, 0, 'p'},
					      {"connections", 1, 0, 'c'},
					      {"seconds", 1, 0, 's'},
					      {"warmup", 1, 0, 'w'},
					      {"threads", 1, 0, 't'},
					      {"size", 1, 0, 'z'},
					      {"keys", 1, 0, 'k'},
					      {"set-ratio", 1, 0, 'r'},
					      {"rate", 1, 0, 'R'},
					      {"pid", 1, 0, 'i'},
					      {"tls", 1, 0, 'T'},
					      {"timeout", 1, 0, 'o'},
					      {"wait", 1, 0, 'W'},
					      {"syscalls", 0, 0, 'y'},
					      {"json", 0, 0, 'j'},
					      {"help", 0, 0, 'h'},
					      {0}};
	int ch, at = 0;
	struct in_addr a;
	opterr = 0;
	while ((ch = getopt_long(argc, argv, "", longs, &at)) != -1) {
		const char *name = ch == '?' ? "" : longs[at].name;
		switch (ch) {
		case 'P':
			for (opt.protocol = 0; strcmp(optarg, protocol_names[opt.protocol]);)
				if (++opt.protocol > ECHO)
					die(2, "--protocol %s: want memcached, redis or echo",
					    optarg);
			break;
		case 'H':
			if (inet_pton(AF_INET, optarg, &a) != 1 ||
			    strlen(optarg) >= sizeof opt.host)
				die(2, "--host %s: want an IPv4 address", optarg);
			strcpy(opt.host, optarg);
			break;
		case 'p': opt.port = (unsigned)number(name, optarg, 1, 65535, true); break;
		case 'c': opt.connections = (unsigned)number(name, optarg, 1, 60000, true); break;
		case 's': opt.seconds = number(name, optarg, 0.1, 3600, false); break;
		case 'w': opt.warmup = number(name, optarg, 0, 60, false); break;
		case 't': opt.workers = (unsigned)number(name, optarg, 1, MAX_WORKERS, true); break;
		case 'z':
			opt.value_size = (unsigned)number(name, optarg, 8, MAX_VALUE, true);
			break;
		case 'k': opt.keys = (unsigned)number(name, optarg, 1, 10e6, true); break;
		case 'R': opt.rate = number(name, optarg, 1, 10e6, false); break;
		case 'r': opt.set_ratio = number(name, optarg, 0, 1, false); break;
		case 'T': opt.tls = optarg; break;
		case 'i': opt.pid = (pid_t)number(name, optarg, 1, 1 << 30, true); break;
		case 'o': opt.timeout = number(name, optarg, 0.1, 600, false); break;
		case 'W': opt.wait = number(name, optarg, 0, 600, false); break;
		case 'y': opt.syscalls = true; break;
		case 'j': opt.json = true; break;
		case 'h': usage(stdout); exit(0);
		default:
			die(2, "%s: unknown, or its value is missing; see load --help",
			    argv[optind - 1]);
		}
	}
	if (optind < argc)
		die(2, "unexpected argument %s; see load --help", argv[optind]);
	if (!opt.port)
		die(2, "--port is needed; see load --help");
	if (opt.syscalls && !opt.pid)
		die(2, "--syscalls needs --pid; see load --help");
	if (!opt.keys)
		opt.keys = 10 * opt.connections;
	if (opt.keys < opt.connections)
		die(2, "--keys %u: want at least one a connection (%u)", opt.keys, opt.connections);
	if (opt.workers > opt.connections)
		opt.workers = opt.connections;
}

int main(int argc, char **argv)
{
	struct sample a, b;
	unsigned max_threads = 0;
	parse(argc, argv);
	signal(SIGPIPE, SIG_IGN);
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
	for (unsigned i = 0; i < opt.workers; i++)
		if ((errno = pthread_create(&workers[i].thread, NULL, work, &workers[i])))
			die(1, "pthread_create: %s", strerror(errno));
	sleep_ns((uint64_t)(opt.warmup * 1e9));
	if (opt.syscalls && !count_syscalls(opt.pid))
		die(1, "--syscalls: the kernel doesn't let us count (%s)", strerror(errno));
	take_sample(&a);
	atomic_store(&phase, MEASURE);
	uint64_t end = a.t + (uint64_t)(opt.seconds * 1e9);
	for (;;) {
		uint64_t t = now_ns();
		sleep_ns(end > t ? (end - t < 250000000 ? end - t : 250000000) : 0);
		take_sample(&b);
		max_threads = b.threads > max_threads ? b.threads : max_threads;
		if (b.t >= end)
			break;
	}
	atomic_store(&phase, DRAIN);
	for (unsigned i = 0; i < opt.workers; i++)
		pthread_join(workers[i].thread, NULL);
	report(&a, &b, max_threads);
	if (!b.answers)
		die(1, "not one answer");
	if (wrong || failed)
		die(1, "%" PRIu64 " wrong answers, %" PRIu64 " failed connections", wrong, failed);
	return 0;
}
