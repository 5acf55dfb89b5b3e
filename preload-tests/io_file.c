/*
 * Files: reads, writes and locks that the kernel cannot make wait on a poll, by many threads at
 * once; locks held by another process are waited for without holding up the other threads.
 */
#include "test.h"

#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

enum { BLOCK = 4096, BLOCKS = 64, WRITERS = 16 };

static char name[200];
static int fd;

static void make_file(void)
{
	const char *dir = getenv("TMPDIR");

	snprintf(name, sizeof name, "%s/goshim-file-XXXXXX", dir ? dir : "/tmp");
	fd = mkostemp(name, O_CLOEXEC);
	REQUIRE(fd >= 0);
}

static void end_file(void)
{
	unlink(name);
	close(fd);
}

static void *write_blocks(void *arg)
{
	char buf[BLOCK], back[BLOCK];
	int me = (int)(intptr_t)arg;

	for (int i = 0; i < BLOCKS; i++) {
		off_t at = ((off_t)i * WRITERS + me) * BLOCK;

		memset(buf, me * 31 + i, sizeof buf);
		if (i % 2) {
			CHECK_EQ(pwrite(fd, buf, sizeof buf, at), sizeof buf);
		} else {
			struct iovec iov[2] = {{buf, 100}, {buf + 100, sizeof buf - 100}};
			CHECK_EQ(pwritev(fd, iov, 2, at), sizeof buf);
		}
		if (i % 16 == 0)
			CHECK_EQ(fdatasync(fd), 0);
		if (i % 3) {
			CHECK_EQ(pread(fd, back, sizeof back, at), sizeof back);
		} else {
			struct iovec iov[2] = {{back, 1000}, {back + 1000, sizeof back - 1000}};
			CHECK_EQ(preadv(fd, iov, 2, at), sizeof back);
		}
		CHECK(memcmp(buf, back, sizeof buf) == 0);
	}
	return NULL;
}

static void blocks_of_many(void)
{
	pthread_t t[WRITERS];
	struct stat st;

	make_file();
	for (int i = 0; i < WRITERS; i++)
		t[i] = spawn(write_blocks, (void *)(intptr_t)i);
	for (int i = 0; i < WRITERS; i++)
		join(t[i]);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_size, (off_t)BLOCK * BLOCKS * WRITERS);
	CHECK_EQ(fsync(fd), 0);
	end_file();
}

/* O_APPEND by many: whole records, none lost; the file offset shared by read() of many: each
 * byte once. */
static int appender, taken[1000];

static void *append(void *arg)
{
	for (int i = 0; i < 100; i++) {
		char rec[16];
		int n = snprintf(rec, sizeof rec, "r%03d-%03d.......", (int)(intptr_t)arg, i);
		CHECK_EQ(write(appender, rec, 15), 15);
		CHECK(n == 15);
		if (i % 16 == 0)
			sched_yield();
	}
	return NULL;
}

static void *take(void *arg)
{
	char rec[16] = "";
	int who, i;

	while (read(fd, rec, 15) == 15) {
		CHECK_EQ(sscanf(rec, "r%3d-%3d.......", &who, &i), 2);
		if (who * 100 + i < (int)COUNT(taken))
			__atomic_add_fetch(&taken[who * 100 + i], 1, __ATOMIC_RELAXED);
	}
	return arg;
}

static void appended_and_taken(void)
{
	pthread_t t[10];

	make_file();
	memset(taken, 0, sizeof taken);
	appender = open(name, O_WRONLY | O_APPEND | O_CLOEXEC);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(append, (void *)(intptr_t)i);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(take, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	for (unsigned i = 0; i < COUNT(taken); i++)
		CHECK_EQ(taken[i], 1);
	close(appender);
	end_file();
}

static int got_lock, ticks, stop;

static int lock_by_flock(void)
{
	int mine = open(name, O_RDWR | O_CLOEXEC);
	int rc = flock(mine, LOCK_EX);

	close(mine);
	return rc;
}

static int lock_by_fcntl(void)
{
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int rc = fcntl(fd, F_SETLKW, &fl);

	fl.l_type = F_UNLCK;
	CHECK_EQ(fcntl(fd, F_SETLK, &fl), 0);
	return rc;
}

static int lock_by_ofd(void)
{
	int mine = open(name, O_RDWR | O_CLOEXEC);
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int rc = fcntl(mine, F_OFD_SETLKW, &fl);

	close(mine);
	return rc;
}

static int (*const locks[])(void) = {lock_by_flock, lock_by_fcntl, lock_by_ofd};

static void *wait_for_lock(void *arg)
{
	CHECK_EQ(locks[(intptr_t)arg](), 0);
	__atomic_add_fetch(&got_lock, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void *tick(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		ticks++;
		sched_yield();
	}
	return arg;
}

static void locks_of_another_process(void)
{
	make_file();
	for (unsigned k = 0; k < COUNT(locks); k++) {
		int ready[2], done[2];
		char ch;
		pthread_t t[6], w;

		REQUIRE(pipe(ready) == 0 && pipe(done) == 0);
		pid_t pid = fork();
		if (pid == 0) {
			int mine = open(name, O_RDWR);
			struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
			int rc = k == 0 ? flock(mine, LOCK_EX)
					: fcntl(mine, k == 1 ? F_SETLK : F_OFD_SETLK, &fl);
			if (write(ready[1], "r", 1) != 1 || read(done[0], &ch, 1) != 1)
				_exit(1);
			_exit(rc != 0);
		}
		CHECK_EQ(read(ready[0], &ch, 1), 1);
		got_lock = ticks = stop = 0;
		for (unsigned i = 0; i < COUNT(t); i++)
			t[i] = spawn(wait_for_lock, (void *)(intptr_t)k);
		w = spawn(tick, NULL);
		/* They wait, and this goes on. */
		sleep_ms(50);
		while (__atomic_load_n(&ticks, __ATOMIC_RELAXED) <= 50)
			sleep_ms(1);
		CHECK_EQ(__atomic_load_n(&got_lock, __ATOMIC_ACQUIRE), 0);
		CHECK_EQ(write(done[1], "d", 1), 1);
		int status = -1;
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK_EQ(status, 0);
		for (unsigned i = 0; i < COUNT(t); i++)
			join(t[i]);
		__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
		join(w);
		close(ready[0]);
		close(ready[1]);
		close(done[0]);
		close(done[1]);
	}
	end_file();
}

/* Opening a FIFO waits for the other side. */
static void *open_writer(void *arg)
{
	sleep_ms(30);
	int w = open(arg, O_WRONLY);
	CHECK(w >= 0);
	CHECK_EQ(write(w, "fifo", 4), 4);
	close(w);
	return NULL;
}

static void fifos(void)
{
	char fifo[220], buf[10];

	make_file();
	snprintf(fifo, sizeof fifo, "%s.fifo", name);
	REQUIRE(mkfifo(fifo, 0600) == 0);
	for (int i = 0; i < 5; i++) {
		pthread_t t = spawn(open_writer, fifo);
		int r = open(fifo, O_RDONLY);
		CHECK(r >= 0);
		CHECK_EQ(read(r, buf, sizeof buf), 4);
		CHECK_EQ(read(r, buf, sizeof buf), 0);
		close(r);
		join(t);
	}
	unlink(fifo);
	end_file();
}

static int out[2];

static void *drain(void *arg)
{
	static char buf[8192];
	ssize_t n;
	size_t all = 0;

	while ((n = read(out[0], buf, sizeof buf)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			if (buf[i] != (char)((all + i) / BLOCK))
				FAIL("byte %zu is %d", all + i, buf[i]);
		all += n;
	}
	(void)arg;
	return (void *)all;
}

static void sendfile_and_splice(void)
{
	enum { SIZE = 100 * BLOCK };
	char *map;

	make_file();
	CHECK_EQ(ftruncate(fd, SIZE), 0);
	map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	REQUIRE(map != MAP_FAILED);
	for (int i = 0; i < SIZE; i++)
		map[i] = (char)(i / BLOCK);
	CHECK_EQ(msync(map, SIZE, MS_SYNC), 0);
	for (int way = 0; way < 2; way++) {
		REQUIRE(pipe(out) == 0);
		pthread_t t = spawn(drain, NULL);
		off64_t at = 0;
		while (at < SIZE) {
			ssize_t n = way ? splice(fd, &at, out[1], NULL, SIZE - at, 0)
					: sendfile64(out[1], fd, &at, SIZE - at);
			if (n <= 0) {
				FAIL("way %d: %zd, errno %d", way, n, errno);
				break;
			}
		}
		close(out[1]);
		CHECK_EQ((size_t)join(t), SIZE);
		close(out[0]);
	}
	munmap(map, SIZE);
	end_file();
}

static const struct test_case cases[] = {
    {"blocks_of_many", blocks_of_many},
    {"appended_and_taken", appended_and_taken},
    {"locks_of_another_process", locks_of_another_process},
    {"fifos", fifos},
    {"sendfile_and_splice", sendfile_and_splice},
};

TEST_MAIN(cases)
