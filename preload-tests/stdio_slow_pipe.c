/*
 * stdio over a pipe whose other side is slow. libc's own read and write are not interposed, so a
 * thread waits in the kernel while it holds the FILE's lock, others wait for that lock, and the
 * writer they all wait for must still run.
 */
#include "test.h"

static int fds[2];

enum { LINES = 60 };

static void *slow_writer(void *arg)
{
	char line[64];

	for (int i = 0; i < LINES; i++) {
		int n = snprintf(line, sizeof line, "line %d of the slow writer\n", i);
		for (int at = 0; at < n; at += 7) {
			int piece = n - at < 7 ? n - at : 7;
			CHECK_EQ(write(fds[1], line + at, piece), piece);
			if (i % 4 == 0)
				usleep(500);
		}
	}
	close(fds[1]);
	return arg;
}

static void fgets_waits(void)
{
	char line[100], want[100];
	int i = 0;

	REQUIRE(pipe(fds) == 0);
	FILE *f = fdopen(fds[0], "r");
	pthread_t t = spawn(slow_writer, NULL);
	while (fgets(line, sizeof line, f)) {
		snprintf(want, sizeof want, "line %d of the slow writer\n", i++);
		if (strcmp(line, want) != 0)
			FAIL("read \"%s\" instead of \"%s\"", line, want);
	}
	CHECK_EQ(i, LINES);
	CHECK(feof(f));
	join(t);
	fclose(f);
}

/* More readers than processors, one FILE: each line goes to one of them, in pieces of a line at
 * least. */
static FILE *shared;
static int lines_read;

static void *read_lines(void *arg)
{
	char line[100];
	int i;

	while (fgets(line, sizeof line, shared)) {
		CHECK_EQ(sscanf(line, "line %d of the slow writer", &i), 1);
		__atomic_add_fetch(&lines_read, 1, __ATOMIC_RELAXED);
	}
	return arg;
}

static void many_readers_of_one_file(void)
{
	pthread_t t[12];

	REQUIRE(pipe(fds) == 0);
	lines_read = 0;
	shared = fdopen(fds[0], "r");
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(read_lines, NULL);
	sleep_ms(30);
	pthread_t w = spawn(slow_writer, NULL);
	join(w);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(lines_read, LINES);
	fclose(shared);
}

/* The other way round: many printers into a pipe that is drained slowly. */
static void *print_lines(void *arg)
{
	for (int i = 0; i < 500; i++)
		CHECK(fprintf(shared, "printer %03d says %06d and some more to fill the pipe up\n",
			      (int)(intptr_t)arg, i) > 0);
	return NULL;
}

static void *drain_slowly(void *arg)
{
	static char buf[4096];
	size_t all = 0;
	ssize_t n;

	while ((n = read(fds[0], buf, sizeof buf)) > 0) {
		all += n;
		if (all % 5 == 0)
			usleep(300);
	}
	(void)arg;
	return (void *)all;
}

static void many_printers_to_one_file(void)
{
	pthread_t t[16];

	REQUIRE(pipe(fds) == 0);
	shared = fdopen(fds[1], "w");
	pthread_t r = spawn(drain_slowly, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(print_lines, (void *)(intptr_t)i);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(fclose(shared), 0);
	size_t line = strlen("printer 000 says 000000 and some more to fill the pipe up\n");
	CHECK_EQ((size_t)join(r), line * 500 * COUNT(t));
	close(fds[0]);
}

/* flockfile held over a sleep: the others wait in libc, and the sleeper must wake. */
static void *print_held(void *arg)
{
	flockfile(shared);
	fprintf(shared, "<%d", (int)(intptr_t)arg);
	sleep_ms(2);
	sched_yield();
	fprintf(shared, "|%d>", (int)(intptr_t)arg);
	CHECK_EQ(ftrylockfile(shared), 0);
	funlockfile(shared);
	funlockfile(shared);
	return NULL;
}

static void flockfile_over_a_sleep(void)
{
	pthread_t t[24];
	char *text = NULL;
	size_t size;

	shared = open_memstream(&text, &size);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(print_held, (void *)(intptr_t)i);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	fclose(shared);
	int seen = 0;
	for (const char *p = text; *p; seen++) {
		int a, b, n = 0;
		if (sscanf(p, "<%d|%d>%n", &a, &b, &n) != 2 || n == 0 || a != b) {
			FAIL("output mixed at \"%.20s\"", p);
			break;
		}
		p += n;
	}
	CHECK_EQ(seen, COUNT(t));
	free(text);
}

static const struct test_case cases[] = {
    {"fgets_waits", fgets_waits},
    {"many_readers_of_one_file", many_readers_of_one_file},
    {"many_printers_to_one_file", many_printers_to_one_file},
    {"flockfile_over_a_sleep", flockfile_over_a_sleep},
};

TEST_MAIN(cases)
