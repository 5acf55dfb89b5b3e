/*
 * Whatever a descriptor is: eventfd, timerfd, inotify, terminals, FIFOs, files, directories, /dev;
 * and the calls that move data between them. Each waits for another thread when it has to, and
 * answers wrong arguments as the kernel does, at once.
 *
 * Every case runs twice: alone, and while so many threads wait in read that a scheduler would
 * rather park.
 */
#include "crowd.h"

#include <netinet/in.h>
#include <pty.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <termios.h>

static char dir[64];

static const char *in_dir(const char *name)
{
	static __thread char path[128];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

/* Does fn(arg) after 20 ms. */
struct later {
	void (*fn)(int fd);
	int fd;
};

static void *do_later(void *arg)
{
	struct later *l = arg;

	sleep_ms(20);
	l->fn(l->fd);
	return NULL;
}

static pthread_t after(struct later *l, void (*fn)(int fd), int fd)
{
	*l = (struct later){fn, fd};
	return spawn(do_later, l);
}

static void event_add(int fd)
{
	CHECK_EQ(eventfd_write(fd, 5), 0);
}

static void event_take(int fd)
{
	eventfd_t v;

	CHECK_EQ(eventfd_read(fd, &v), 0);
}

static void eventfds(void)
{
	struct later l;
	eventfd_t v = 0;
	int fd = eventfd(0, 0);

	pthread_t t = after(&l, event_add, fd);
	CHECK_EQ(eventfd_read(fd, &v), 0);
	CHECK_EQ(v, 5);
	join(t);
	t = after(&l, event_add, fd);
	CHECK_EQ(read(fd, &v, sizeof v), 8);
	CHECK_EQ(v, 5);
	join(t);
	/* Full: the writer waits. */
	CHECK_EQ(eventfd_write(fd, UINT64_MAX - 1), 0);
	t = after(&l, event_take, fd);
	CHECK_EQ(eventfd_write(fd, 7), 0);
	join(t);
	CHECK_EQ(eventfd_read(fd, &v), 0);
	CHECK_EQ(v, 7);
	CHECK_ERRNO(read(fd, &v, 4), EINVAL);
	v = UINT64_MAX;
	CHECK_ERRNO(write(fd, &v, sizeof v), EINVAL);
	CHECK_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	CHECK_ERRNO(eventfd_read(fd, &v), EAGAIN);
	close(fd);
	fd = eventfd(2, EFD_SEMAPHORE);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(eventfd_read(fd, &v), 0);
		CHECK_EQ(v, 1);
	}
	t = after(&l, event_add, fd);
	CHECK_EQ(eventfd_read(fd, &v), 0);
	CHECK_EQ(v, 1);
	join(t);
	close(fd);
}

static void timerfds(void)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, 0);
	struct itimerspec its = {{0, 10000000}, {0, 10000000}};
	int64_t start = now_ms();
	uint64_t sum = 0, v;

	CHECK_EQ(timerfd_settime(fd, 0, &its, NULL), 0);
	while (sum < 5) {
		CHECK_EQ(read(fd, &v, sizeof v), 8);
		sum += v;
	}
	CHECK(now_ms() - start >= (int64_t)sum * 10 - 1);
	close(fd);
}

static void touch(int n)
{
	char name[20];

	snprintf(name, sizeof name, "touched%d", n);
	int fd = open(in_dir(name), O_CREAT | O_WRONLY, 0600);
	CHECK(fd >= 0);
	close(fd);
	unlink(in_dir(name));
}

static void inotify(void)
{
	char buf[4096] __attribute__((aligned(8)));
	struct later l;
	int fd = inotify_init();

	CHECK(inotify_add_watch(fd, dir, IN_CREATE) >= 0);
	for (int i = 0; i < 3; i++) {
		char name[20];

		snprintf(name, sizeof name, "touched%d", i);
		pthread_t t = after(&l, touch, i);
		ssize_t n = read(fd, buf, sizeof buf);
		struct inotify_event *e = (void *)buf;
		CHECK(n >= (ssize_t)sizeof *e && strcmp(e->name, name) == 0);
		join(t);
	}
	close(fd);
}

static void type_a_line(int fd)
{
	CHECK_EQ(write(fd, "he", 2), 2);
	sleep_ms(5);
	CHECK_EQ(write(fd, "llo\n", 4), 4);
}

static void terminals(void)
{
	char buf[100];
	struct later l;
	int m, s;

	REQUIRE(openpty(&m, &s, NULL, NULL, NULL) == 0);
	pthread_t t = after(&l, type_a_line, m);
	CHECK_EQ(read(s, buf, sizeof buf), 6); /* not before the line is complete */
	CHECK(memcmp(buf, "hello\n", 6) == 0);
	join(t);
	t = after(&l, type_a_line, m);
	CHECK_EQ(read(s, buf, 3), 3); /* the rest stays */
	CHECK_EQ(read(s, buf + 3, sizeof buf - 3), 3);
	CHECK(memcmp(buf, "hello\n", 6) == 0);
	join(t);
	CHECK_EQ(write(s, "out", 3), 3);
	CHECK_EQ(tcdrain(m), 0);
	/* A read that does not wait for a byte, but for a time. */
	struct termios raw;
	REQUIRE(tcgetattr(s, &raw) == 0);
	cfmakeraw(&raw);
	raw.c_cc[VMIN] = 0;
	raw.c_cc[VTIME] = 1;
	REQUIRE(tcsetattr(s, TCSANOW, &raw) == 0);
	int64_t start = now_ms();
	CHECK_EQ(read(s, buf, sizeof buf), 0);
	CHECK(now_ms() - start >= 90);
	close(m);
	close(s);
}

static void write_fifo(int unused)
{
	(void)unused;
	int fd = open(in_dir("fifo"), O_WRONLY);

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, "fifo", 4), 4);
	close(fd);
}

/* Opening waits for the other side. */
static void fifos(void)
{
	struct later l;
	char buf[10];

	REQUIRE(mkfifo(in_dir("fifo"), 0600) == 0);
	for (int i = 0; i < 3; i++) {
		pthread_t t = after(&l, write_fifo, 0);
		int fd = i == 0   ? open(in_dir("fifo"), O_RDONLY)
			 : i == 1 ? openat(AT_FDCWD, in_dir("fifo"), O_RDONLY)
				  : open64(in_dir("fifo"), O_RDONLY | O_CLOEXEC);
		CHECK(fd >= 0);
		CHECK_EQ(read(fd, buf, sizeof buf), 4);
		CHECK_EQ(read(fd, buf, sizeof buf), 0);
		join(t);
		close(fd);
	}
	CHECK_ERRNO(open(in_dir("fifo"), O_WRONLY | O_NONBLOCK), ENXIO);
	unlink(in_dir("fifo"));
}

static void files(void)
{
	char buf[100];
	struct iovec v[3] = {{"abc", 3}, {"", 0}, {"defgh", 5}};
	int fd = open(in_dir("file"), O_CREAT | O_TRUNC | O_RDWR, 0640), app;
	struct stat st;

	CHECK(fstat(fd, &st) == 0 && (st.st_mode & 0777) == 0640);
	CHECK_EQ(write(fd, "0123456789", 10), 10);
	CHECK_EQ(writev(fd, v, 3), 8);
	CHECK_EQ(pwrite(fd, "XY", 2, 4), 2);
	CHECK_EQ(pwritev(fd, v, 3, 100), 8);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 18);
	CHECK_EQ(read(fd, buf, sizeof buf), 90);
	CHECK_EQ(read(fd, buf, sizeof buf), 0);
	CHECK_EQ(pread(fd, buf, sizeof buf, 2), 100);
	CHECK(memcmp(buf, "23XY6789abcdefgh", 16) == 0);
	struct iovec r[2] = {{buf, 1}, {buf + 1, 7}};
	CHECK_EQ(preadv(fd, r, 2, 100), 8);
	CHECK_EQ(preadv2(fd, r, 2, 100, 0), 8);
	CHECK(memcmp(buf, "abcdefgh", 8) == 0);
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	CHECK_EQ(preadv2(fd, r, 2, -1, 0), 8);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 8);
	/* O_NONBLOCK means nothing for files, and O_APPEND what it says. */
	app = open(in_dir("file"), O_RDWR | O_APPEND | O_NONBLOCK);
	CHECK_EQ(write(app, "tail", 4), 4);
	CHECK_EQ(pread(fd, buf, 10, 108), 4);
	CHECK_EQ(lseek(app, 0, SEEK_SET), 0);
	CHECK_EQ(read(app, buf, sizeof buf), 100);
	CHECK_EQ(fsync(fd), 0);
	CHECK_EQ(fdatasync(app), 0);
	CHECK_EQ(posix_fallocate(fd, 0, 1000), 0);
	CHECK_EQ(posix_fallocate(-1, 0, 1000), EBADF);
	CHECK_EQ(lseek(fd, 0, SEEK_END), 1000);
	close(app);
	close(fd);
	CHECK_ERRNO(read(fd, buf, 1), EBADF);
	fd = open(dir, O_RDONLY | O_DIRECTORY);
	CHECK_ERRNO(read(fd, buf, 1), EISDIR);
	close(fd);
	CHECK_ERRNO(open(in_dir("none"), O_RDONLY), ENOENT);
	CHECK_ERRNO(open(in_dir("file"), O_CREAT | O_EXCL, 0600), EEXIST);
	fd = open("/dev/zero", O_RDWR);
	memset(buf, 1, sizeof buf);
	CHECK_EQ(read(fd, buf, sizeof buf), 100);
	CHECK(buf[0] == 0 && buf[99] == 0);
	CHECK_EQ(write(fd, buf, 100), 100);
	close(fd);
	fd = open("/dev/null", O_RDWR);
	CHECK_EQ(read(fd, buf, 1), 0);
	CHECK_EQ(write(fd, buf, 100), 100);
	close(fd);
	unlink(in_dir("file"));
}

/* splice, tee, sendfile, vmsplice, copy_file_range. */
static void write_hello(int fd)
{
	CHECK_EQ(write(fd, "hello", 5), 5);
}

static void movers(void)
{
	int a[2], b[2], s[2], file = open(in_dir("moved"), O_CREAT | O_RDWR | O_TRUNC, 0600);
	char buf[100];
	struct later l;
	off_t off = 1;

	REQUIRE(pipe(a) == 0 && pipe(b) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0);
	pthread_t t = after(&l, write_hello, a[1]);
	CHECK_EQ(tee(a[0], b[1], 100, 0), 5);
	join(t);
	CHECK_EQ(read(b[0], buf, sizeof buf), 5);
	CHECK_EQ(splice(a[0], NULL, file, NULL, 100, 0), 5);
	t = after(&l, write_hello, s[0]);
	CHECK_EQ(splice(s[1], NULL, b[1], NULL, 100, 0), 5);
	join(t);
	CHECK_EQ(read(b[0], buf, sizeof buf), 5);
	CHECK(memcmp(buf, "hello", 5) == 0);
	CHECK_ERRNO(splice(a[0], NULL, file, NULL, 100, SPLICE_F_NONBLOCK), EAGAIN);
	CHECK_ERRNO(tee(a[0], b[1], 100, SPLICE_F_NONBLOCK), EAGAIN);
	CHECK_EQ(splice(a[0], NULL, file, NULL, 0, 0), 0);
	CHECK_ERRNO(splice(file, NULL, file, NULL, 10, 0), EINVAL);
	CHECK_EQ(sendfile(s[0], file, &off, 3), 3);
	CHECK_EQ(off, 4);
	CHECK_EQ(read(s[1], buf, sizeof buf), 3);
	CHECK(memcmp(buf, "ell", 3) == 0);
	struct iovec v = {"vm", 2};
	CHECK_EQ(vmsplice(a[1], &v, 1, 0), 2);
	CHECK_EQ(read(a[0], buf, sizeof buf), 2);
	int copy = open(in_dir("copy"), O_CREAT | O_RDWR | O_TRUNC, 0600);
	off = 0;
	CHECK_EQ(copy_file_range(file, &off, copy, NULL, 5, 0), 5);
	CHECK_EQ(pread(copy, buf, sizeof buf, 0), 5);
	CHECK(memcmp(buf, "hello", 5) == 0);
	CHECK_ERRNO(sendfile(-1, file, NULL, 1), EBADF);
	CHECK_ERRNO(splice(-1, NULL, b[1], NULL, 1, 0), EBADF);
	for (int i = 0; i < 2; i++) {
		close(a[i]);
		close(b[i]);
		close(s[i]);
	}
	close(file);
	close(copy);
	unlink(in_dir("moved"));
	unlink(in_dir("copy"));
}

static void several_messages(void)
{
	struct mmsghdr m[4];
	struct iovec v[4];
	char buf[4][16], byte;
	int s[2];
	struct timespec ts = {0, 100000000};

	memset(m, 0, sizeof m);
	for (int i = 0; i < 4; i++) {
		v[i] = (struct iovec){buf[i], sizeof buf[i]};
		m[i].msg_hdr.msg_iov = &v[i];
		m[i].msg_hdr.msg_iovlen = 1;
	}
	REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM, 0, s) == 0);
	CHECK_EQ(sendmmsg(s[0], m, 4, 0), 4);
	CHECK_EQ(recvmmsg(s[1], m, 3, 0, NULL), 3);
	CHECK_EQ(recvmmsg(s[1], m, 4, MSG_WAITFORONE, NULL), 1);
	struct later l;
	pthread_t t = after(&l, write_hello, s[0]);
	CHECK_EQ(recvmmsg(s[1], m, 4, MSG_WAITFORONE, NULL), 1);
	CHECK_EQ(m[0].msg_len, 5);
	join(t);
	CHECK_ERRNO(recvmmsg(s[1], m, 4, MSG_DONTWAIT, NULL), EAGAIN);
	/* The time is looked at after each message only. */
	t = after(&l, write_hello, s[0]);
	ts.tv_nsec = 1000000;
	CHECK_EQ(recvmmsg(s[1], m, 4, 0, &ts), 1);
	join(t);
	CHECK_ERRNO(recvmmsg(-1, m, 4, 0, NULL), EBADF);
	CHECK_ERRNO(sendmmsg(-1, m, 4, 0), EBADF);
	CHECK_EQ(recv(s[1], &byte, 1, MSG_DONTWAIT), -1);
	close(s[0]);
	close(s[1]);
}

/* Wrong arguments are judged at once, by the kernel. */
static void wrong_arguments(void)
{
	int p[2], s[2], tcp = socket(AF_INET, SOCK_STREAM, 0);
	/* volatile: the compiler would judge, too */
	char c = 0, *volatile bad = (char *)1;
	struct iovec one = {&c, 1}, badv = {bad, 1}, *volatile v = &one;
	volatile int minus = -1, many = 1025;
	struct sockaddr_in a = {.sin_family = AF_INET};

	REQUIRE(pipe(p) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0);
	CHECK_ERRNO(read(-1, &c, 1), EBADF);
	CHECK_ERRNO(read(100000, &c, 1), EBADF);
	CHECK_ERRNO(read(p[1], &c, 1), EBADF);
	CHECK_ERRNO(write(p[0], &c, 1), EBADF);
	CHECK_EQ(write(p[1], &c, 1), 1);
	CHECK_ERRNO(read(p[0], bad, 1), EFAULT);
	CHECK_ERRNO(write(p[1], bad, 1), EFAULT);
	CHECK_ERRNO(readv(p[0], v, minus), EINVAL);
	CHECK_ERRNO(readv(p[0], v, many), EINVAL);
	CHECK_ERRNO(readv(p[0], (void *)bad, 1), EFAULT);
	CHECK_ERRNO(writev(p[1], &badv, 1), EFAULT);
	CHECK_ERRNO(writev(s[1], v, many), EINVAL);
	CHECK_EQ(readv(p[0], v, 0), 0);
	CHECK_EQ(read(s[0], &c, 0), 0);
	CHECK_EQ(write(s[0], &c, 0), 0);
	CHECK_ERRNO(pread(p[0], &c, 1, 0), ESPIPE);
	CHECK_ERRNO(preadv(s[0], v, 1, 0), ESPIPE);
	CHECK_ERRNO(recv(p[0], &c, 1, 0), ENOTSOCK);
	CHECK_ERRNO(send(p[1], &c, 1, 0), ENOTSOCK);
	CHECK_ERRNO(recv(-1, &c, 1, 0), EBADF);
	CHECK_ERRNO(sendmsg(s[0], NULL, 0), EFAULT);
	CHECK_ERRNO(recvmsg(s[0], NULL, MSG_DONTWAIT), EFAULT);
	CHECK_ERRNO(recv(s[0], &c, 1, MSG_OOB | MSG_DONTWAIT), EINVAL);
	CHECK_ERRNO(recv(tcp, &c, 1, 0), ENOTCONN);
	CHECK_ERRNO(recv(tcp, &c, 1, MSG_ERRQUEUE), EAGAIN);
	CHECK_ERRNO(accept(tcp, NULL, NULL), EINVAL);
	CHECK_ERRNO(accept(p[0], NULL, NULL), ENOTSOCK);
	CHECK_ERRNO(accept(s[0], NULL, NULL), EINVAL);
	CHECK_ERRNO(accept4(tcp, NULL, NULL, 12345), EINVAL);
	CHECK_ERRNO(connect(p[0], (void *)&a, sizeof a), ENOTSOCK);
	CHECK_ERRNO(connect(tcp, (void *)&a, 1), EINVAL);
	CHECK_ERRNO(preadv2(p[0], v, 1, -1, 0x4000), EOPNOTSUPP);
	close(p[0]);
	close(p[1]);
	close(s[0]);
	close(s[1]);
	close(tcp);
	CHECK_ERRNO(close(tcp), EBADF);
}

/* errno is left alone by what succeeds. */
static void errno_stays(void)
{
	int s[2];
	char c = 'x';
	struct pollfd p;

	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0);
	errno = 4711;
	CHECK_EQ(write(s[0], &c, 1), 1);
	CHECK_EQ(read(s[1], &c, 1), 1);
	CHECK_EQ(send(s[0], &c, 1, 0), 1);
	p = (struct pollfd){s[1], POLLIN, 0};
	CHECK_EQ(poll(&p, 1, 1000), 1);
	CHECK_EQ(recv(s[1], &c, 1, 0), 1);
	CHECK_EQ(poll(&p, 1, 5), 0);
	CHECK_EQ(usleep(1000), 0);
	CHECK_EQ(errno, 4711);
	close(s[0]);
	close(s[1]);
	CHECK_EQ(errno, 4711);
}

/* Urgent data wakes who waits for nothing else. */
static void send_urgent(int fd)
{
	CHECK_EQ(send(fd, "!", 1, MSG_OOB), 1);
}

static void urgent_data(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t len = sizeof a;
	int l = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0);
	struct later later;
	char ch;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	REQUIRE(bind(l, (void *)&a, sizeof a) == 0 && listen(l, 1) == 0);
	REQUIRE(getsockname(l, (void *)&a, &len) == 0);
	REQUIRE(connect(c, (void *)&a, sizeof a) == 0);
	int s = accept(l, NULL, NULL);
	for (int i = 0; i < 2; i++) {
		pthread_t t = after(&later, send_urgent, c);
		if (i == 0) {
			struct pollfd p = {s, POLLPRI, 0};
			CHECK_EQ(poll(&p, 1, 5000), 1);
			CHECK_EQ(p.revents, POLLPRI);
		} else {
			fd_set e;
			FD_ZERO(&e);
			FD_SET(s, &e);
			struct timeval tv = {5, 0};
			CHECK_EQ(select(s + 1, NULL, NULL, &e, &tv), 1);
			CHECK(FD_ISSET(s, &e));
			CHECK(tv.tv_sec == 4 && tv.tv_usec > 0);
		}
		join(t);
		CHECK_EQ(recv(s, &ch, 1, MSG_OOB), 1);
		CHECK_EQ(ch, '!');
	}
	close(s);
	close(c);
	close(l);
}

#define CASES(X)            \
	X(eventfds)         \
	X(timerfds)         \
	X(inotify)          \
	X(terminals)        \
	X(fifos)            \
	X(files)            \
	X(movers)           \
	X(several_messages) \
	X(wrong_arguments)  \
	X(errno_stays)      \
	X(urgent_data)

CROWD_CASES

int main(int argc, char **argv)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof dir, "%s/goshim-kinds-XXXXXX", tmp && strlen(tmp) < 30 ? tmp : "/tmp");
	REQUIRE(mkdtemp(dir));
	int status = test_run(argc, argv, cases, COUNT(cases));
	rmdir(dir);
	return status;
}
