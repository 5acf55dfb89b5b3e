/*
 * Answers to goshim dump and goshim profile that are damaged, lie, never end, drip, or break off since who gives them dies: the
 * commands, built with the sanitizers, say one line or show what there is, and don't crash, hang, or write what steers a terminal.
 *
 *     fuzz_answer ROUNDS SEED COMMAND [OPTION ...]
 *
 * Who answers is a process of its own, which looks like one under goshim: a thread has the monitor's name. Says how often the
 * command has shown something, how often it refused, and the longest time it took.
 */
#define _GNU_SOURCE
#include "../../tools/goshim_ask.h"
#include "../../tools/goshim_names.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#undef main
int goshim_main(int argc, char **argv);

const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

enum { PATIENCE = 60 /* s */, ROOM = 1 << 20 };

typedef enum Manner {
	Whole,
	Changed, /* bytes of it are others */
	Cut,
	Wild, /* it is anything */
	Silent,
	Hangup,
	Dies,
	Drips,
	Endless, /* records or text that are in order, and no end */
	NMANNERS
} Manner;

static uint64_t seed;
static bool profiles;
static char fifo[100];

static uint64_t next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static _Noreturn void quit(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t value(void)
{
	static const uint64_t edges[] = {0,          1,          250,       251,        0x7fffffff,
					 0xffffffff, 1ull << 62, INT64_MAX, 1ull << 63, UINT64_MAX};
	return next() % 2 ? next() % 64 : edges[next() % (sizeof edges / sizeof edges[0])];
}

/* --- what is answered --------------------------------------------------------------------------- */

static size_t add(char *to, size_t at, const void *p, size_t n)
{
	memcpy(to + at, p, n);
	return at + n;
}

/* Records as a process sends them, with paths that must not be waited at. */
static size_t records(char *to, uint32_t first, bool ticks)
{
	const char *paths[] = {"/proc/self/exe", fifo,         "/dev/zero", "/dev/tty", "/",
			       "nowhere",        "/etc/passwd"};
	size_t at = 0;
	for (uint32_t i = 0; i < 20; i++) {
		ProfileObjectRecord o = {.record = {ProfileObject, sizeof o}};
		o.lo = 0x1000 * (next() % 8);
		o.hi = o.lo + 0x4000;
		o.base = next() % 2 ? o.lo : value();
		o.headers = value();
		o.nheaders = (uint32_t)value();
		o.own = next() % 2;
		memset(o.path, 'x', sizeof o.path);
		if (next() % 8)
			strcpy(o.path, paths[next() % (sizeof paths / sizeof paths[0])]);
		at = add(to, at, &o, sizeof o);

		ProfileStackRecord s = {.record = {ProfileStack, 0},
					.id = first + i,
					.goid = (int64_t)i};
		s.state = (uint16_t)(next() % 6);
		s.scheduler = !(next() % 4);
		s.object = value();
		s.cut = next() % 2;
		s.nframes = (uint32_t)(next() % (ProfileFrames + 1));
		s.record.size = (uint32_t)(sizeof s + 8 * s.nframes);
		for (unsigned k = 0; k < sizeof s.name; k++)
			s.name[k] = (char)next(), s.wait[k] = (char)next();
		at = add(to, at, &s, sizeof s);
		for (uint32_t k = 0; k < s.nframes; k++) {
			uint64_t frame =
			    next() % 0x9000 | (next() % 8 ? 0 : value() & ~PROFILE_ADDRESS);
			at = add(to, at, &frame, sizeof frame);
		}

		ProfileSampleRecord p = {{ProfileSample, sizeof p}, first + i, next() % 2};
		at = add(to, at, &p, sizeof p);
		ProfileTickRecord t = {.record = {ProfileTick, sizeof t}, .walked = 1, .all = 1};
		t.ns = next() % 2 ? (int64_t)(next() % 1000000000) : (int64_t)value();
		if (next() % 4 == 0)
			t.all = value(), t.walked = value(), t.cpu = (int64_t)value();
		if (ticks)
			at = add(to, at, &t, sizeof t);
	}
	return at;
}

static size_t text(char *to)
{
	size_t at = 0;
	for (int i = 0; i < 100; i++) {
		char name[16];
		for (unsigned k = 0; k + 1 < sizeof name; k++)
			name[k] = (char)(next() % 255 + 1);
		name[15] = 0;
		at += (size_t)sprintf(to + at,
				      "goroutine %d \"%s\" [sleep]:\nf(...)\n\t/x:0x1 +0x2\n\n", i,
				      name);
	}
	return at;
}

static size_t answer(char *to)
{
	if (profiles) {
		ProfileHeader h = {PROFILE_MAGIC, PROFILE_VERSION,
				   next() % 8 ? ProfileBegins : (uint32_t)value()};
		return add(to, 0, &h, sizeof h) + records(to + sizeof h, 0, true);
	}
	DumpHeader h = {LAYOUT_MAGIC, LAYOUT_VERSION};
	size_t n = add(to, 0, &h, sizeof h);
	n += text(to + n);
	to[n++] = 0;
	return n;
}

static bool give(int fd, const char *p, size_t n)
{
	for (ssize_t r; n; p += r, n -= (size_t)r)
		if ((r = send(fd, p, n, MSG_NOSIGNAL)) <= 0)
			return false;
	return true;
}

static void nap(long ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static void respond(int fd, Manner how)
{
	static char data[ROOM];
	uint32_t first = 20;
	size_t n = answer(data);
	switch (how) {
	case Changed:
		for (uint64_t k = 1 + next() % 20; k; k--) {
			uint64_t v = value();
			memcpy(data + next() % (next() % 2 ? 400 : n - 8), &v, 1u << next() % 4);
		}
		break;
	case Cut: n = next() % (next() % 2 ? 64 : n); break;
	case Wild:
		n = 1 + next() % 100000;
		for (size_t i = profiles && next() % 2 ? sizeof(ProfileHeader) : 0; i < n; i++)
			data[i] = (char)next();
		break;
	case Silent: n = next() % 2 ? 0 : sizeof(DumpHeader); break;
	case Hangup: return;
	case Dies: give(fd, data, next() % n); _exit(0);
	case Endless:
		if (profiles)
			n = add(data, 0,
				&(ProfileHeader){PROFILE_MAGIC, PROFILE_VERSION, ProfileBegins},
				sizeof(ProfileHeader)) +
			    records(data + sizeof(ProfileHeader), 0, false);
		if (!give(fd, data, profiles ? n : n - 1))
			return;
		if (profiles)
			for (;; first += 20)
				if (!give(fd, data, records(data, first, false)))
					return;
		for (size_t k = sizeof(DumpHeader); k < sizeof data; k++)
			data[k] = data[sizeof(DumpHeader) + k % 64];
		while (give(fd, data + sizeof(DumpHeader), sizeof data - sizeof(DumpHeader)))
			;
		return;
	default: break;
	}
	if (how == Drips) {
		while (give(fd, data, 1))
			nap(10);
		return;
	}
	give(fd, data, n);
	if (how == Silent || (profiles && next() % 2))
		nap(PATIENCE * 1000); /* it doesn't hang up */
}

/* Until it is killed. */
static _Noreturn void answerer(Manner how)
{
	sigset_t urgent;
	siginfo_t info;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, MONITOR);
	sigemptyset(&urgent);
	sigaddset(&urgent, SIGURG);
	for (uint64_t from = seed;; seed = from) {
		struct sockaddr_un a;
		if (sigwaitinfo(&urgent, &info) < 0)
			continue;
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		socklen_t n = dumpaddress(&a, (uint32_t)(uint64_t)info.si_value.sival_ptr);
		if (connect(fd, (struct sockaddr *)&a, n) == 0)
			respond(fd, how);
		close(fd);
	}
}

/* --- who asks --------------------------------------------------------------------------------------- */

/* Its exit status, and what it wrote. */
static int command(int argc, char **argv, int out, int err)
{
	int status;
	pid_t child = fork();
	if (child < 0)
		quit("fork");
	if (child == 0) {
		dup2(out, STDOUT_FILENO);
		dup2(err, STDERR_FILENO);
		alarm(PATIENCE);
		exit(goshim_main(argc, argv));
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static bool isline(const char *s)
{
	const char *end = strchr(s, '\n');
	return !strncmp(s, "goshim: ", 8) && end && !end[1];
}

/* Nothing that a terminal obeys. */
static bool tame(const char *s, size_t n)
{
	for (; n; s++, n--)
		if ((unsigned char)*s < ' ' ? *s != '\n' && *s != '\t' : *s == 127)
			return false;
	return true;
}

static char *contents(int fd, size_t *n)
{
	struct stat st;
	fstat(fd, &st);
	char *p = calloc(1, (size_t)st.st_size + 1);
	ssize_t r = p ? pread(fd, p, (size_t)st.st_size, 0) : -1;
	if (r < 0)
		quit("what it wrote");
	*n = (size_t)r;
	return p;
}

static double clocknow(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	char pid[20];
	unsigned shown = 0, refused = 0;
	double longest = 0;
	sigset_t urgent;
	if (argc < 4)
		return 2;
	seed = 88172645463325252u ^ strtoull(argv[2], NULL, 10) << 20;
	profiles = !strcmp(argv[3], "profile");
	snprintf(fifo, sizeof fifo, "/tmp/fuzz-answer.%d", (int)getpid());
	if (mkfifo(fifo, 0600))
		quit(fifo);
	sigemptyset(&urgent);
	sigaddset(&urgent, SIGURG);
	sigprocmask(SIG_BLOCK, &urgent, NULL);
	char **args = calloc((size_t)argc, sizeof *args);
	args[0] = (char *)"goshim";
	memcpy(args + 1, argv + 3, (size_t)(argc - 3) * sizeof *args);
	args[argc - 2] = pid;
	for (int i = 0; i < atoi(argv[1]); i++) {
		Manner how = (Manner)(i % NMANNERS);
		int out = memfd_create("stdout", MFD_CLOEXEC),
		    err = memfd_create("stderr", MFD_CLOEXEC);
		size_t nout, nerr;
		next();
		pid_t other = fork();
		if (other < 0 || out < 0 || err < 0)
			quit("fork");
		if (other == 0)
			answerer(how);
		snprintf(pid, sizeof pid, "%d", (int)other);
		/* It has its name when it waits for the signal; until then it is no process under goshim. */
		char path[64], name[32] = "";
		snprintf(path, sizeof path, "/proc/%d/comm", (int)other);
		while (strcmp(name, MONITOR "\n") != 0) {
			int fd = open(path, O_RDONLY | O_CLOEXEC);
			ssize_t r = read(fd, name, sizeof name - 1);
			name[r > 0 ? r : 0] = 0;
			close(fd);
		}
		double start = clocknow();
		int status = command(argc - 1, args, out, err);
		double took = clocknow() - start;
		longest = took > longest ? took : longest;
		kill(other, SIGKILL);
		waitpid(other, NULL, 0);
		char *said = contents(out, &nout), *complains = contents(err, &nerr);
		if ((status != 0 && status != 2) || (status == 2 && (!isline(complains) || nout)) ||
		    (status == 0 && nerr) || !tame(said, nout) || !tame(complains, nerr)) {
			printf("round %d, manner %d: status %d, '%s'\n", i, (int)how, status,
			       complains);
			printf("'%.3000s'\n", said);
			unlink(fifo);
			return 1;
		}
		status ? refused++ : shown++;
		free(said);
		free(complains);
		close(out);
		close(err);
	}
	unlink(fifo);
	printf("shown=%u refused=%u longest=%.1f\n", shown, refused, longest);
	return 0;
}
