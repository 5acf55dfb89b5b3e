/*
 * goshim dump: asks a process for its goroutines, and prints the answer.
 */
#define _GNU_SOURCE
#include "goshim_ask.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	MOSTANSWER = 1 << 29, /* bytes: 5 KiB each of 100,000 goroutines */
	LEASTRATE = 64,       /* bytes a ms, beyond the time that nothing may come */
};

/* --- the answer --------------------------------------------------------------------------------- */

/* All of it, at once: a pager shall not keep the process waiting. One that only drips, or has no end, is none. */
static char *receive(Target *t, int fd, size_t *len)
{
	size_t size = 1 << 16, n = 0;
	char *buf = malloc(size);
	int64_t start = now(), patience = (int64_t)(t->timeout * 1000);
	while (buf) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (n >= MOSTANSWER)
			fail("process %d gave an answer that is not goshim's", t->pid);
		if (n == size && !(buf = realloc(buf, size *= 2)))
			break;
		if (now() > start + patience + (int64_t)(n / LEASTRATE) ||
		    poll(&p, 1, (int)patience) == 0)
			silent(t);
		ssize_t r = recv(fd, buf + n, size - n, 0);
		if (r == 0 || (r < 0 && errno == ECONNRESET)) {
			*len = n;
			return buf;
		}
		if (r < 0 && errno != EINTR)
			fail("process %d: %s", t->pid, strerror(errno));
		n += r > 0 ? (size_t)r : 0;
	}
	fail("out of memory");
}

/* Is there all of the text? What else can be wrong ends with a line. */
static bool whole(const Target *t, const char *buf, size_t n)
{
	DumpHeader h;
	uid_t me = geteuid();
	if (n == 0 && me != 0 && me != t->user)
		fail("process %d belongs to another user", t->pid);
	if (n < sizeof h)
		return false;
	memcpy(&h, buf, sizeof h);
	if (memcmp(h.magic, LAYOUT_MAGIC, sizeof h.magic))
		fail("process %d gave an answer that is not goshim's", t->pid);
	if (h.version != LAYOUT_VERSION)
		fail("process %d runs another version of goshim (%u, this command knows %d)",
		     t->pid, h.version, LAYOUT_VERSION);
	return n > sizeof h && buf[n - 1] == 0;
}

/* Again, until it is whole: a program that closes all descriptors may close that of the answer. */
static char *answer(Target *t, size_t *n)
{
	for (int64_t end = now() + (int64_t)(t->timeout * 1000);;) {
		int fd = ask(t, DUMPREQUEST);
		char *buf = receive(t, fd, n);
		close(fd);
		if (whole(t, buf, *n))
			return buf;
		free(buf);
		if (now() > end)
			silent(t);
	}
}

int dump(int argc, char **argv)
{
	static const struct option longs[] = {{"timeout", 1, 0, 't'}, {"force", 0, 0, 'f'}, {0}};
	double timeout = 10;
	bool force = false;
	int ch;
	opterr = 0;
	while ((ch = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (ch) {
		case 't': timeout = number("dump: --timeout", optarg, 0.1, 3600); break;
		case 'f': force = true; break;
		default:
			fail("dump: %s: unknown, or its value is missing; see goshim dump --help",
			     argv[optind - 1]);
		}
	}
	if (optind + 1 != argc)
		fail("dump: want one process id; see goshim dump --help");
	Target t;
	target(&t, (int)wholenumber("dump: process", argv[optind], 1, INT_MAX), timeout, force,
	       "dump");
	size_t n;
	char *buf = answer(&t, &n);
	puttext(buf + sizeof(DumpHeader), n - sizeof(DumpHeader) - 1);
	free(buf);
	return 0;
}
