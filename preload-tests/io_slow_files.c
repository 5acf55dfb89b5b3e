/*
 * Files of a slow file system. A server of our own (FUSE) answers a request only when the test says so: until then the
 * caller waits, in whatever call it is or where it touched a page, and all others run. Natively this goes without saying;
 * with fewer processors than callers they must be given away by each. What is in memory is read without
 * a request, and RWF_NOWAIT, which this file system doesn't know, costs nobody an answer.
 */
#include "crowd.h"
#include "slow_server.h"

#include <dirent.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <sys/xattr.h>

enum { FILES = 24 };

/* --- who waits ---------------------------------------------------------------------------------------------------- */

struct wait {
	const struct call *call;
	int fd, file, done;
	long result;
	char *page;
};

static void path_of(char *path, const struct wait *w)
{
	snprintf(path, 100, "%s/f%d", dir, w->file);
}

static char buf_[FILES][PAGE];
#define BUF(w) buf_[(w)->file]

static long check_page(const struct wait *w, long n, long page)
{
	char want = pattern((uint64_t)w->file + 2, (uint64_t)page * PAGE);

	return n == PAGE && BUF(w)[0] == want && BUF(w)[PAGE - 1] == want ? 0 : -1;
}

static long by_read(struct wait *w)
{
	return check_page(w, read(w->fd, BUF(w), PAGE), 0);
}

static long by_pread(struct wait *w)
{
	return check_page(w, pread(w->fd, BUF(w), PAGE, PAGE), 1);
}

static long by_readv(struct wait *w)
{
	struct iovec v[2] = {{BUF(w), 1}, {BUF(w) + 1, PAGE - 1}};
	return check_page(w, readv(w->fd, v, 2), 0);
}

static long by_preadv2(struct wait *w)
{
	struct iovec v = {BUF(w), PAGE};
	return check_page(w, preadv2(w->fd, &v, 1, 2 * PAGE, 0), 2);
}

static long by_fread(struct wait *w)
{
	FILE *f = fdopen(dup(w->fd), "r");
	long n = (long)fread(BUF(w), 1, PAGE, f);

	fclose(f);
	return check_page(w, n, 0);
}

static long by_touch(struct wait *w)
{
	memcpy(BUF(w), w->page, PAGE);
	return check_page(w, PAGE, 0);
}

/* A system call that doesn't wait by itself reads the page. */
static long by_write_of_page(struct wait *w)
{
	int fds[2];

	if (pipe(fds) != 0)
		return -1;
	long n = write(fds[1], w->page, PAGE);
	if (n == PAGE)
		n = read(fds[0], BUF(w), PAGE);
	close(fds[0]);
	close(fds[1]);
	return check_page(w, n, 0);
}

static long by_sendfile(struct wait *w)
{
	int fds[2];
	off_t at = 0;

	if (pipe(fds) != 0)
		return -1;
	long n = sendfile(fds[1], w->fd, &at, PAGE);
	if (n == PAGE)
		n = read(fds[0], BUF(w), PAGE);
	close(fds[0]);
	close(fds[1]);
	return check_page(w, n, 0);
}

static long by_splice(struct wait *w)
{
	int fds[2];
	loff_t at = 0;

	if (pipe(fds) != 0)
		return -1;
	long n = splice(w->fd, &at, fds[1], NULL, PAGE, 0);
	if (n == PAGE)
		n = read(fds[0], BUF(w), PAGE);
	close(fds[0]);
	close(fds[1]);
	return check_page(w, n, 0);
}

static long by_open(struct wait *w)
{
	char path[100];

	path_of(path, w);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -1 : close(fd);
}

static long by_fopen(struct wait *w)
{
	char path[100];

	path_of(path, w);
	FILE *f = fopen(path, "re");
	return !f ? -1 : fclose(f);
}

static long by_stat(struct wait *w)
{
	char path[100];
	struct stat st;

	path_of(path, w);
	return stat(path, &st) == 0 && st.st_size == SIZE ? 0 : -1;
}

static long by_fstat(struct wait *w)
{
	struct stat st;

	return fstat(w->fd, &st) == 0 && st.st_size == SIZE ? 0 : -1;
}

static long by_access(struct wait *w)
{
	char path[100];

	path_of(path, w);
	return access(path, R_OK);
}

static long by_readdir(struct wait *w)
{
	(void)w;
	DIR *d = opendir(dir);
	if (!d)
		return -1;
	struct dirent *e = readdir(d);
	long r = e && strcmp(e->d_name, "f0") == 0 ? 0 : -1;
	closedir(d);
	return r;
}

static long by_statfs(struct wait *w)
{
	struct statfs st;

	(void)w;
	return statfs(dir, &st);
}

static long by_getxattr(struct wait *w)
{
	char path[100], value[8];

	path_of(path, w);
	return getxattr(path, "user.x", value, sizeof value) < 0 && errno == ENODATA ? 0 : -1;
}

static long by_unlink(struct wait *w)
{
	char path[100];

	path_of(path, w);
	return unlink(path);
}

static long by_truncate(struct wait *w)
{
	return ftruncate(w->fd, SIZE);
}

static long by_fallocate(struct wait *w)
{
	return fallocate(w->fd, FALLOC_FL_KEEP_SIZE, 0, PAGE);
}

static long by_write(struct wait *w)
{
	return write(w->fd, BUF(w), PAGE) == PAGE ? 0 : -1;
}

static long by_pwritev(struct wait *w)
{
	struct iovec v = {BUF(w), PAGE};
	return pwritev(w->fd, &v, 1, PAGE) == PAGE ? 0 : -1;
}

static long by_fsync(struct wait *w)
{
	return fsync(w->fd);
}

static long by_fdatasync(struct wait *w)
{
	return fdatasync(w->fd);
}

static long by_close(struct wait *w)
{
	return close(dup(w->fd));
}

static long by_dup2(struct wait *w)
{
	int fd = dup(w->fd);
	int r = dup2(go[1], fd);

	close(fd);
	return r == fd ? 0 : -1;
}

enum { MAPPED = 1 };
static const struct call {
	const char *name;
	uint32_t request;
	long (*fn)(struct wait *w);
	int flags;
} calls[] = {
    {"read", FUSE_READ, by_read, 0},
    {"pread", FUSE_READ, by_pread, 0},
    {"readv", FUSE_READ, by_readv, 0},
    {"preadv2", FUSE_READ, by_preadv2, 0},
    {"fread", FUSE_READ, by_fread, 0},
    {"a page", FUSE_READ, by_touch, MAPPED},
    {"write of a page", FUSE_READ, by_write_of_page, MAPPED},
    {"sendfile", FUSE_READ, by_sendfile, 0},
    {"splice", FUSE_READ, by_splice, 0},
    {"open", FUSE_OPEN, by_open, 0},
    {"fopen", FUSE_OPEN, by_fopen, 0},
    {"opendir", FUSE_OPENDIR, by_readdir, 0},
    {"readdir", FUSE_READDIR, by_readdir, 0},
    {"stat", FUSE_LOOKUP, by_stat, 0},
    {"fstat", FUSE_GETATTR, by_fstat, 0},
    {"access", FUSE_ACCESS, by_access, 0},
    {"statfs", FUSE_STATFS, by_statfs, 0},
    {"getxattr", FUSE_GETXATTR, by_getxattr, 0},
    {"unlink", FUSE_UNLINK, by_unlink, 0},
    {"ftruncate", FUSE_SETATTR, by_truncate, 0},
    {"fallocate", FUSE_FALLOCATE, by_fallocate, 0},
    {"write", FUSE_WRITE, by_write, 0},
    {"pwritev", FUSE_WRITE, by_pwritev, 0},
    {"fsync", FUSE_FSYNC, by_fsync, 0},
    {"fdatasync", FUSE_FSYNC, by_fdatasync, 0},
    {"close", FUSE_FLUSH, by_close, 0},
    {"dup2", FUSE_FLUSH, by_dup2, 0},
};

static void *waiter(void *arg)
{
	struct wait *w = arg;

	w->result = w->call->fn(w);
	__atomic_store_n(&w->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* Opening anew drops what is in memory. */
static void begin(struct wait *w, const struct call *call, int file)
{
	char path[100];

	*w = (struct wait){.call = call, .file = file};
	path_of(path, w);
	w->fd = open(path, O_RDWR | O_CLOEXEC);
	REQUIRE(w->fd >= 0);
	/* No more than is asked for is read. */
	REQUIRE(posix_fadvise(w->fd, 0, 0, POSIX_FADV_RANDOM) == 0);
	if (call->flags & MAPPED) {
		w->page = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, w->fd, 0);
		REQUIRE(w->page != MAP_FAILED);
		REQUIRE(madvise(w->page, PAGE, MADV_RANDOM) == 0);
	}
}

static void end(struct wait *w)
{
	if (w->page)
		munmap(w->page, PAGE);
	close(w->fd);
}

/* The server has seen what was asked before. */
static int have_been_asked(void)
{
	struct pollfd p = {asked[0], POLLIN, 0};
	struct statfs st;

	CHECK_EQ(statfs(dir, &st), 0);
	return poll(&p, 1, 0);
}

static void *nap(void *arg)
{
	sleep_ms(1);
	return arg;
}

/* --- cases -------------------------------------------------------------------------------------------------------- */

/* An operation may take more than one request of its kind. */
static void let_go(struct wait *w)
{
	struct pollfd p = {asked[0], POLLIN, 0};
	char byte;

	while (!__atomic_load_n(&w->done, __ATOMIC_ACQUIRE)) {
		if (poll(&p, 1, 1) == 1) {
			REQUIRE(read(asked[0], &byte, 1) == 1);
			REQUIRE(write(go[1], "!", 1) == 1);
		}
	}
}

/* Nothing is kept any more. */
static void settle(void)
{
	char byte;

	*slow = 0;
	while (have_been_asked()) {
		REQUIRE(read(asked[0], &byte, 1) == 1);
		REQUIRE(write(go[1], "!", 1) == 1);
	}
}

static void others_run_meanwhile(void)
{
	char byte;

	for (size_t i = 0; i < COUNT(calls); i++) {
		struct wait w;

		begin(&w, &calls[i], 0);
		*slow = calls[i].request;
		pthread_t t = spawn(waiter, &w);
		/* It waits; and we are here. So can others be, and new ones. */
		REQUIRE(read(asked[0], &byte, 1) == 1);
		join(spawn(nap, NULL));
		if (w.done)
			FAIL("%s has ended before its time: %ld", calls[i].name, w.result);
		REQUIRE(write(go[1], "!", 1) == 1);
		let_go(&w);
		join(t);
		settle();
		if (w.result != 0)
			FAIL("%s: %ld, errno %d", calls[i].name, w.result, errno);
		end(&w);
	}
}

/* As many as there are wait at once, more than there are processors, and none has its answer before all have asked. */
static void many_at_once(void)
{
	static struct wait w[FILES];
	pthread_t t[FILES];
	char byte;

	for (int i = 0; i < FILES; i++)
		begin(&w[i], &calls[i % 7], i);
	*slow = FUSE_READ;
	for (int i = 0; i < FILES; i++)
		t[i] = spawn(waiter, &w[i]);
	for (int i = 0; i < FILES; i++)
		REQUIRE(read(asked[0], &byte, 1) == 1);
	for (int i = 0; i < FILES; i++)
		CHECK_EQ(w[i].done, 0);
	for (int i = 0; i < FILES; i++)
		REQUIRE(write(go[1], "!", 1) == 1);
	for (int i = 0; i < FILES; i++)
		let_go(&w[i]);
	settle();
	for (int i = 0; i < FILES; i++) {
		join(t[i]);
		if (w[i].result != 0)
			FAIL("%s of f%d: %ld", w[i].call->name, i, w[i].result);
		end(&w[i]);
	}
}

static void *reads_again(void *arg)
{
	struct wait *w = arg;

	for (int i = 0; i < 100; i++) {
		CHECK_EQ(lseek(w->fd, 0, SEEK_SET), 0);
		CHECK_EQ(by_read(w), 0);
		CHECK_EQ(by_pread(w), 0);
	}
	return NULL;
}

static void no_request_for_what_is_there(void)
{
	struct wait w;

	begin(&w, &calls[0], 1);
	w.page = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, w.fd, 0);
	REQUIRE(w.page != MAP_FAILED && mlock(w.page, SIZE) == 0);
	*slow = FUSE_READ;
	join(spawn(reads_again, &w));
	CHECK_EQ(have_been_asked(), 0);
	settle();
	munmap(w.page + PAGE, SIZE - PAGE);
	end(&w);
}

static long inline_call(long nr, long a, long b)
{
	long r;

	__asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a), "S"(b) : "rcx", "r11", "memory");
	return r;
}

static long by_read_of_replaced(struct wait *w)
{
	int fds[2];
	char ch;

	/* A pipe's number, and then the file's, by calls that nobody sees. */
	if (pipe(fds) != 0 || write(fds[1], "x", 1) != 1 || read(fds[0], &ch, 1) != 1)
		return -1;
	if (inline_call(SYS_dup2, w->fd, fds[0]) != fds[0])
		return -1;
	struct iovec v = {BUF(w), PAGE};
	long now = preadv2(fds[0], &v, 1, 0, RWF_NOWAIT);
	if (now != -1 || (errno != EOPNOTSUPP && errno != EAGAIN))
		return -2;
	long n = read(fds[0], BUF(w), PAGE);
	close(fds[0]);
	close(fds[1]);
	return check_page(w, n, 0);
}

/* Who takes it for a pipe asks in a way that the file system refuses, or that finds nothing in memory. */
static void taken_for_a_pipe(void)
{
	static const struct call call = {"read of what was a pipe", FUSE_READ, by_read_of_replaced,
					 0};
	struct wait w;
	char byte;

	for (int i = 0; i < 3; i++) {
		begin(&w, &call, 2 + i);
		*slow = FUSE_READ;
		pthread_t t = spawn(waiter, &w);
		REQUIRE(read(asked[0], &byte, 1) == 1);
		join(spawn(nap, NULL));
		CHECK_EQ(w.done, 0);
		REQUIRE(write(go[1], "!", 1) == 1);
		let_go(&w);
		join(t);
		settle();
		CHECK_EQ(w.result, 0);
		end(&w);
	}
}

#define CASES(X)                        \
	X(others_run_meanwhile)         \
	X(many_at_once)                 \
	X(no_request_for_what_is_there) \
	X(taken_for_a_pipe)

CROWD_CASES

int main(int argc, char **argv)
{
	pid_t server = slow_server();

	if (server == 0) {
		say("SKIP no file system of one's own may be mounted here (errno %d)", errno);
		return 77;
	}
	int status = test_run(argc, argv, cases, COUNT(cases));
	end_server(server);
	return status;
}
