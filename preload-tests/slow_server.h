/*
 * A file system (FUSE) whose server keeps its answers to requests of one kind until it is told to give them. It has
 * files f0, f1, ..., whose bytes are known, and forgets what is written.
 */
#ifndef SLOW_SERVER_H
#define SLOW_SERVER_H

#include "test.h"

#include <dirent.h>
#include <linux/fuse.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/uio.h>

enum { PAGE = 4096, SIZE = 4 * PAGE, KEPT = 64 };

static char dir[64];
/* The requests that are kept: a byte of `asked` for each, and one of `go` for its answer, in turn. 0: none. */
static volatile uint32_t *slow;
static int asked[2], go[2];

/* Byte of a file. */
static char pattern(uint64_t node, uint64_t at)
{
	return (char)(node * 31 + at / PAGE);
}

struct request {
	struct fuse_in_header h;
	char body[4096 + SIZE];
};

static int device;

static void reply(const struct request *r, int error, const void *data, size_t n)
{
	struct fuse_out_header out = {(uint32_t)(sizeof out + n), error, r->h.unique};
	struct iovec v[2] = {{&out, sizeof out}, {(void *)data, n}};

	/* ENOENT: who asked has gone. */
	if (writev(device, v, 2) < 0 && errno != ENOENT)
		_exit(3);
}

static struct fuse_attr attr_of(uint64_t node)
{
	int isdir = node == FUSE_ROOT_ID;

	return (struct fuse_attr){.ino = node,
				  .size = isdir ? 0 : SIZE,
				  .mode = isdir ? S_IFDIR | 0755 : S_IFREG | 0644,
				  .nlink = 1,
				  .blksize = PAGE};
}

static void reply_entry(const struct request *r, uint64_t node)
{
	struct fuse_entry_out e = {.nodeid = node, .attr = attr_of(node)};

	reply(r, 0, &e, sizeof e);
}

static void reply_read(const struct request *r)
{
	const struct fuse_read_in *in = (const void *)r->body;
	static char data[SIZE];
	size_t n = 0;

	for (uint64_t at = in->offset; at < SIZE && n < in->size; at++)
		data[n++] = pattern(r->h.nodeid, at);
	reply(r, 0, data, n);
}

static void reply_directory(const struct request *r)
{
	const struct fuse_read_in *in = (const void *)r->body;
	char data[FUSE_NAME_OFFSET + 8] = "";
	struct fuse_dirent *d = (void *)data;

	*d = (struct fuse_dirent){.ino = 2, .off = 1, .namelen = 2, .type = DT_REG};
	memcpy(d->name, "f0", 2);
	reply(r, 0, data, in->offset ? 0 : sizeof data);
}

static void answer(const struct request *r)
{
	switch (r->h.opcode) {
	case FUSE_INIT: {
		const struct fuse_init_in *in = (const void *)r->body;
		struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION,
					    .minor = in->minor < FUSE_KERNEL_MINOR_VERSION
							 ? in->minor
							 : FUSE_KERNEL_MINOR_VERSION,
					    .max_background = KEPT,
					    .congestion_threshold = KEPT,
					    .max_write = SIZE};
		reply(r, 0, &out, sizeof out);
		return;
	}
	case FUSE_LOOKUP:
		if (r->body[0] == 'f')
			reply_entry(r, 2 + (uint64_t)atoi(r->body + 1));
		else
			reply(r, -ENOENT, NULL, 0);
		return;
	case FUSE_GETATTR:
	case FUSE_SETATTR: {
		struct fuse_attr_out out = {.attr = attr_of(r->h.nodeid)};
		reply(r, 0, &out, sizeof out);
		return;
	}
	case FUSE_OPEN:
	case FUSE_OPENDIR: {
		struct fuse_open_out out = {0};
		reply(r, 0, &out, sizeof out);
		return;
	}
	case FUSE_READ: reply_read(r); return;
	case FUSE_READDIR: reply_directory(r); return;
	case FUSE_WRITE: {
		const struct fuse_write_in *in = (const void *)r->body;
		struct fuse_write_out out = {.size = in->size};
		reply(r, 0, &out, sizeof out);
		return;
	}
	case FUSE_STATFS: {
		struct fuse_statfs_out out = {.st = {.bsize = PAGE, .namelen = 64}};
		reply(r, 0, &out, sizeof out);
		return;
	}
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT: return;
	case FUSE_GETXATTR:
	case FUSE_SETXATTR: reply(r, -ENODATA, NULL, 0); return;
	case FUSE_FLUSH:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_FSYNC:
	case FUSE_FSYNCDIR:
	case FUSE_FALLOCATE:
	case FUSE_ACCESS:
	case FUSE_UNLINK: reply(r, 0, NULL, 0); return;
	}
	reply(r, -ENOSYS, NULL, 0);
}

static void serve(void)
{
	static struct request kept[KEPT];
	unsigned first = 0, n = 0;
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		struct pollfd p[2] = {{device, POLLIN, 0}, {go[0], POLLIN, 0}};

		if (poll(p, 2, -1) < 0)
			_exit(2);
		if (p[1].revents) {
			if (read(go[0], &byte, 1) != 1)
				_exit(0);
			answer(&kept[first++ % COUNT(kept)]);
			n--;
		}
		if (!p[0].revents)
			continue;
		struct request *r = &kept[(first + n) % COUNT(kept)];
		if (read(device, r, sizeof *r) <= 0) {
			if (errno == ENODEV)
				_exit(0);
			continue;
		}
		if (r->h.opcode != *slow) {
			answer(r);
			continue;
		}
		if (++n == COUNT(kept) || write(asked[1], "?", 1) != 1)
			_exit(4);
	}
}

static void put_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		(void)!write(fd, text, strlen(text));
		close(fd);
	}
}

/* A mount that this process alone sees; false where that is not allowed. */
static int mount_server(void)
{
	char options[100], ids[100];
	const char *tmp = getenv("TMPDIR");
	unsigned uid = geteuid(), gid = getegid();

	if (unshare(CLONE_NEWNS) != 0) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
			return 0;
		put_file("/proc/self/setgroups", "deny");
		snprintf(ids, sizeof ids, "%u %u 1", uid, uid);
		put_file("/proc/self/uid_map", ids);
		snprintf(ids, sizeof ids, "%u %u 1", gid, gid);
		put_file("/proc/self/gid_map", ids);
	}
	device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (device < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
		return 0;
	snprintf(dir, sizeof dir, "%s/goshim-slow-XXXXXX", tmp && strlen(tmp) < 30 ? tmp : "/tmp");
	REQUIRE(mkdtemp(dir));
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%u,group_id=%u", device,
		 uid, gid);
	if (mount("slow", dir, "fuse", MS_NOSUID | MS_NODEV, options) != 0) {
		rmdir(dir);
		return 0;
	}
	return 1;
}

/* Its process, or 0 where that is not allowed. */
static pid_t slow_server(void)
{
	if (!mount_server())
		return 0;
	slow = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(slow != MAP_FAILED && pipe2(asked, O_CLOEXEC) == 0 && pipe2(go, O_CLOEXEC) == 0);
	pid_t server = fork();
	REQUIRE(server >= 0);
	if (server == 0) {
		close(go[1]);
		serve();
	}
	close(device);
	return server;
}

static void end_server(pid_t server)
{
	umount2(dir, MNT_DETACH);
	rmdir(dir);
	close(go[1]);
	waitpid(server, NULL, 0);
}

#endif
