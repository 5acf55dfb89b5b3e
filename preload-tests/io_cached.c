/*
 * Reading files. What is in memory is read without a change of hands: a processor isn't given away for the microseconds
 * that takes, however many other threads could use one (told by the library's own counts at exit; natively there is
 * nothing to count). What is not in memory, and files of other kinds, give the same bytes.
 */
#include "test.h"

#include <sys/mman.h>

enum { BLOCK = 4096, BLOCKS = 256, ROUNDS = 16, READS = BLOCKS * ROUNDS };

static int fd, stop;

static void *tick(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		sched_yield();
	return arg;
}

static void fill(int to)
{
	char block[BLOCK];

	for (int i = 0; i < BLOCKS; i++) {
		memset(block, i, sizeof block);
		REQUIRE(write(to, block, sizeof block) == sizeof block);
	}
}

static void check_all(int from)
{
	_Alignas(BLOCK) static char block[BLOCK];

	CHECK_EQ(lseek(from, 0, SEEK_SET), 0);
	for (int i = 0; i < BLOCKS; i++) {
		ssize_t n =
		    i % 2 ? pread(from, block, BLOCK, (off_t)i * BLOCK) : read(from, block, BLOCK);
		CHECK_EQ(n, BLOCK);
		CHECK(block[0] == (char)i && block[BLOCK - 1] == (char)i);
		if (i % 2)
			CHECK(lseek(from, BLOCK, SEEK_CUR) > 0);
	}
}

static int make(const char *flavour)
{
	const char *dir = getenv("TMPDIR");
	char path[200];

	if (strcmp(flavour, "memfd") == 0)
		return memfd_create("cached", MFD_CLOEXEC);
	snprintf(path, sizeof path, "%s/goshim-XXXXXX", dir ? dir : "/tmp");
	int file = mkostemp(path, O_CLOEXEC);
	REQUIRE(file >= 0);
	unlink(path);
	return file;
}

static void *reads(void *arg)
{
	for (int i = 0; i < ROUNDS; i++)
		check_all(fd);
	return arg;
}

/* Among threads that would take any processor they can get. */
static int counted(void)
{
	pthread_t t[4];

	fd = make("file");
	fill(fd);
	for (unsigned i = 1; i < COUNT(t); i++)
		t[i] = spawn(tick, NULL);
	t[0] = spawn(reads, NULL);
	join(t[0]);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (unsigned i = 1; i < COUNT(t); i++)
		join(t[i]);
	return 0;
}

static long count_of(const char *line, const char *name)
{
	const char *at = strstr(line, name);

	return at ? atol(at + strlen(name)) : -1;
}

static void no_change_of_hands(void)
{
	char line[4096] = "";
	int out[2], old = dup(2);

	REQUIRE(pipe(out) == 0);
	dup2(out[1], 2);
	close(out[1]);
	int status = in_child(counted);
	dup2(old, 2);
	close(old);
	ssize_t n = read(out[0], line, sizeof line - 1);
	close(out[0]);
	CHECK_EQ(status, 0);
	if (!under_shim())
		return;
	CHECK(n > 0);
	/* A reader that the kernel sets aside in a call for long is taken for one that waits: seldom. */
	long hands = count_of(line, " handoffs="), taken = count_of(line, " retaken=");
	if (hands < 0 || taken < 0 || hands + taken > READS / 8)
		FAIL("%d reads, but %.300s", READS, line);
}

static void not_in_memory(void)
{
	fd = make("file");
	fill(fd);
	CHECK_EQ(fsync(fd), 0);
	pthread_t t = spawn(tick, NULL);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
		check_all(fd);
	}
	/* Past the page cache, where the file system can. */
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	int direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (direct >= 0) {
		check_all(direct);
		close(direct);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	join(t);
	stop = 0;
	close(fd);
}

static void of_other_kinds(void)
{
	char text[64] = "";
	pthread_t t = spawn(tick, NULL);
	int file = make("memfd");

	fill(file);
	check_all(file);
	close(file);
	/* Made when it is read; preadv2's RWF_NOWAIT is refused. */
	file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	CHECK(read(file, text, 5) == 5 && memcmp(text, "Name:", 5) == 0);
	CHECK(pread(file, text, 5, 0) == 5 && memcmp(text, "Name:", 5) == 0);
	close(file);
	file = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	CHECK_EQ(read(file, text, sizeof text), sizeof text);
	CHECK(text[0] == 0 && text[63] == 0);
	close(file);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	join(t);
	stop = 0;
}

static const struct test_case cases[] = {
    {"no_change_of_hands", no_change_of_hands},
    {"not_in_memory", not_in_memory},
    {"of_other_kinds", of_other_kinds},
};

int main(int argc, char **argv)
{
	const char *settings = getenv("GOSHIM");
	char more[200];

	if (!settings || !strstr(settings, "exitstats")) {
		snprintf(more, sizeof more, "%s%sexitstats", settings ? settings : "",
			 settings ? "," : "");
		setenv("GOSHIM", more, 1);
		execv("/proc/self/exe", argv);
	}
	return test_run(argc, argv, cases, COUNT(cases));
}
