/*
 * Which sockets listen, and whose they are: /proc/net has the first, the descriptors of a process the second.
 */
#define _GNU_SOURCE
#include "compare.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

/* The sockets in a table of /proc/net that listen: on the port, or all. */
static void readtable(Listeners *l, const char *path, long port)
{
	char line[512];
	FILE *f = fopen(path, "re");
	while (f && fgets(line, sizeof line, f) && l->n < 256) {
		unsigned long inode, flags;
		unsigned local, state;
		if (strstr(path, "unix")) {
			if (port ||
			    sscanf(line, "%*x: %*x %*x %lx %*x %*x %lu", &flags, &inode) != 2 ||
			    !(flags & 0x10000))
				continue;
		} else if (sscanf(line,
				  " %*d: %*[0-9A-F]:%x %*[0-9A-F]:%*x %x %*x:%*x %*x:%*x %*x %*u "
				  "%*u %lu",
				  &local, &state, &inode) != 3 ||
			   state != 10 || (port && local != port)) {
			continue;
		}
		l->inode[l->n++] = inode;
	}
	if (f)
		fclose(f);
}

static bool amonglisteners(const Listeners *l, const char *target)
{
	unsigned long inode;
	if (sscanf(target, "socket:[%lu]", &inode) != 1)
		return false;
	for (int i = 0; i < l->n; i++)
		if (l->inode[i] == inode)
			return true;
	return false;
}

int holdslistener(const Listeners *l, const char *pid)
{
	char path[300], target[64];
	int found = 0;
	snprintf(path, sizeof path, "/proc/%s/fd", pid);
	DIR *d = opendir(path);
	if (!d)
		return errno == EACCES ? -1 : 0;
	for (struct dirent *e; !found && (e = readdir(d));) {
		ssize_t n = readlinkat(dirfd(d), e->d_name, target, sizeof target - 1);
		if (n < 0 && errno == EACCES)
			found = -1;
		if (n <= 0)
			continue;
		target[n] = 0;
		if (amonglisteners(l, target))
			found = 1;
	}
	closedir(d);
	return found;
}

void findlisteners(Listeners *l, long port)
{
	l->n = 0;
	readtable(l, "/proc/net/tcp", port);
	readtable(l, "/proc/net/tcp6", port);
	readtable(l, "/proc/net/unix", port);
}
