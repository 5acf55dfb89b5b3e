/*
 * Calls for files that few programs make, by main and by a thread: what they do to the file, and their errors.
 */
#include "test.h"

#include <sys/ioctl.h>

static void *copies(void *arg)
{
	int fds[2];
	char c = 0;

	REQUIRE(pipe(fds) == 0);
	int at = fcntl(fds[0], F_DUPFD, 100);
	CHECK_EQ(dup3(fds[1], at, O_CLOEXEC), at);
	CHECK_EQ(fcntl(at, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(write(at, "x", 1), 1);
	CHECK_EQ(read(fds[0], &c, 1), 1);
	CHECK_EQ(c, 'x');
	CHECK_ERRNO(dup3(fds[1], fds[1], 0), EINVAL);
	CHECK_ERRNO(dup3(-1, at, 0), EBADF);
	CHECK_ERRNO(dup3(fds[0], at, 0x40000000), EINVAL);
	close(at);
	close(fds[0]);
	close(fds[1]);
	return arg;
}

static void *creates(void *arg)
{
	char name[] = "/tmp/io_seldom.XXXXXX";
	int fd = mkstemp(name);
	struct stat st;

	REQUIRE(fd >= 0);
	CHECK_EQ(write(fd, "0123456789", 10), 10);
	close(fd);
	fd = creat(name, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, 0);
	CHECK_EQ(write(fd, "01234", 5), 5);
	if (fallocate(fd, 0, 0, 100000) == 0) {
		CHECK_EQ(fstat(fd, &st), 0);
		CHECK_EQ(st.st_size, 100000);
	} else {
		CHECK_EQ(errno, EOPNOTSUPP);
	}
	CHECK_ERRNO(fallocate(fd, 0, 0, 0), EINVAL);
	CHECK_EQ(sync_file_range(fd, 0, 4096, SYNC_FILE_RANGE_WRITE), 0);
	CHECK_ERRNO(sync_file_range(-1, 0, 1, 0), EBADF);
	CHECK_EQ(syncfs(fd), 0);
	CHECK_ERRNO(syncfs(-1), EBADF);
	sync();
	CHECK_ERRNO(creat("/nowhere/at/all", 0600), ENOENT);
	close(fd);
	unlink(name);
	return arg;
}

static void *by_handle(void *arg)
{
	char name[] = "/tmp/io_seldom.XXXXXX";
	union {
		struct file_handle handle;
		char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
	} h;
	int fd = mkstemp(name), mount, dir = open("/tmp", O_RDONLY | O_DIRECTORY);
	char c = 0;

	REQUIRE(fd >= 0 && dir >= 0);
	CHECK_EQ(write(fd, "x", 1), 1);
	h.handle.handle_bytes = MAX_HANDLE_SZ;
	if (name_to_handle_at(AT_FDCWD, name, &h.handle, &mount, 0) == 0) {
		int again = open_by_handle_at(dir, &h.handle, O_RDONLY);

		if (again >= 0) {
			CHECK_EQ(read(again, &c, 1), 1);
			CHECK_EQ(c, 'x');
			close(again);
		} else {
			CHECK(errno == EPERM || errno == EOPNOTSUPP);
		}
	}
	h.handle.handle_bytes = MAX_HANDLE_SZ + 1;
	errno = 0;
	CHECK_EQ(open_by_handle_at(dir, &h.handle, O_RDONLY), -1);
	CHECK(errno == EINVAL || errno == EPERM);
	close(dir);
	close(fd);
	unlink(name);
	return arg;
}

static void every_call(void)
{
	copies(NULL);
	creates(NULL);
	by_handle(NULL);
	join(spawn(copies, NULL));
	join(spawn(creates, NULL));
	join(spawn(by_handle, NULL));
}

static const struct test_case cases[] = {
    {"every_call", every_call},
};

TEST_MAIN(cases)
