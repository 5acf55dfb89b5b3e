/*
 * Files that a command writes.
 *
 * They are opened before the work begins: nobody is to wait for what can't be written. What is there from another time stays until
 * there is something to put in its place. What could not be written whole is not left to be taken for whole, nor is an empty file
 * when nothing came of it; devices and what was there before are never removed.
 */
#define _GNU_SOURCE
#include "goshim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static OutputFile *unfinished;
static pid_t owner;

static void drop(OutputFile *o)
{
	struct stat st;
	int fd = dup(fileno(o->f));
	fclose(o->f); /* else exit would write what is still in the buffer */
	if (o->begun && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && ftruncate(fd, 0) < 0)
		o->made = true; /* rather nothing than a part */
	if (o->made)
		unlink(o->path);
}

/* At exit, for whatever reason; not that of a child. */
static void dropall(void)
{
	for (OutputFile *o = getpid() == owner ? unfinished : NULL; o; o = o->next)
		drop(o);
}

static noreturn void unwritten(const OutputFile *o, int error)
{
	fail("%s: %s: %s", o->who, o->path, strerror(error));
}

void outputopen(OutputFile *o, const char *who, const char *path)
{
	*o = (OutputFile){.who = who, .path = path};
	if (!strcmp(path, "-")) {
		o->f = stdout;
		return;
	}
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	o->made = fd >= 0;
	if (fd < 0)
		fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	o->f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!o->f)
		unwritten(o, errno);
	if (!owner)
		atexit(dropall);
	owner = getpid();
	o->next = unfinished;
	unfinished = o;
}

FILE *outputbegin(OutputFile *o)
{
	if (o->f != stdout && ftruncate(fileno(o->f), 0) && errno != EINVAL)
		unwritten(o, errno);
	o->begun = true;
	return o->f;
}

static void forget(const OutputFile *o)
{
	OutputFile **at = &unfinished;
	while (*at && *at != o)
		at = &(*at)->next;
	if (*at)
		*at = o->next;
}

void outputend(OutputFile *o)
{
	errno = 0;
	if (fflush(o->f) || ferror(o->f)) {
		int error = errno ? errno : EIO;
		if (o->f == stdout)
			clearerr(stdout); /* it has been said */
		unwritten(o, error);
	}
	if (o->f == stdout)
		return;
	/* Where a file is elsewhere, that may be known only now. */
	int fd = dup(fileno(o->f));
	bool bad = fclose(o->f);
	int error = errno;
	o->f = bad ? fdopen(fd, "w") : NULL;
	if (!o->f)
		forget(o);
	if (bad)
		unwritten(o, error);
	close(fd);
}
