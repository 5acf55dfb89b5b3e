/*
 * One FILE, hundreds of writers, every write checked. A prototype once counted fewer lines in the
 * file than were printed; whether a disk or the scheduler lost them was never found out. So: each
 * call's result is checked, each line carries its writer, number and a checksum, and the file must
 * hold each of them once and whole.
 *
 * Lines are made by printf, puts, fwrite and putc under flockfile, with yields in between and, in
 * the last case, writers that spin so that they are preempted at odd places.
 */
#include "test.h"

enum { MAX_WRITERS = 400, MAX_LINES = 1000 };

static FILE *file;
static int writers, lines, spin;
static unsigned char seen[MAX_WRITERS][MAX_LINES];

static unsigned check_sum(int w, int n)
{
	unsigned h = (unsigned)w * 2654435761u ^ (unsigned)n * 40503u;

	return (h ^ h >> 15) & 0xffffff;
}

static void *write_lines(void *arg)
{
	int w = (int)(intptr_t)arg;
	char line[100];

	for (int n = 0; n < lines; n++) {
		int len =
		    snprintf(line, sizeof line, "w%03d n%04d %06x %.*s", w, n, check_sum(w, n),
			     n % 40, "........................................");
		switch ((w + n) % 5) {
		case 0: CHECK_EQ(fprintf(file, "%s\n", line), len + 1); break;
		case 1:
			flockfile(file);
			CHECK(fputs(line, file) >= 0);
			CHECK_EQ(putc_unlocked('\n', file), '\n');
			funlockfile(file);
			break;
		case 2:
			line[len] = '\n';
			CHECK_EQ(fwrite(line, 1, len + 1, file), len + 1);
			break;
		case 3:
			CHECK_EQ(fprintf(file, "w%03d n%04d %06x %.*s\n", w, n, check_sum(w, n),
					 n % 40, "........................................"),
				 len + 1);
			break;
		case 4:
			flockfile(file);
			for (int i = 0; i < len; i++)
				CHECK_EQ(putc(line[i], file), (unsigned char)line[i]);
			if (n % 16 == 4)
				sched_yield();
			CHECK_EQ(putc('\n', file), '\n');
			funlockfile(file);
			break;
		}
		if (n % 50 == 7)
			CHECK_EQ(fflush(file), 0);
		if (n % 8 == 3)
			sched_yield();
		if (spin)
			for (volatile int i = 0; i < 300; i++)
				;
	}
	return NULL;
}

static void write_and_check(int how_buffered, size_t size)
{
	char name[200];
	const char *dir = getenv("TMPDIR");
	pthread_t t[MAX_WRITERS];

	snprintf(name, sizeof name, "%s/goshim-stdio-XXXXXX", dir ? dir : "/tmp");
	int fd = mkstemp(name);
	REQUIRE(fd >= 0);
	unlink(name);
	file = fdopen(fd, "w+");
	REQUIRE(file);
	REQUIRE(setvbuf(file, NULL, how_buffered, size) == 0);
	memset(seen, 0, sizeof seen);
	for (int i = 0; i < writers; i++)
		t[i] = spawn(write_lines, (void *)(intptr_t)i);
	for (int i = 0; i < writers; i++)
		join(t[i]);
	CHECK_EQ(fflush(file), 0);
	CHECK_EQ(ferror(file), 0);
	rewind(file);
	char line[200];
	long count = 0;
	while (fgets(line, sizeof line, file)) {
		int w, n, end = 0;
		unsigned sum;
		count++;
		if (sscanf(line, "w%3d n%4d %6x%n", &w, &n, &sum, &end) != 3 || w >= writers ||
		    n >= lines || sum != check_sum(w, n) ||
		    (int)strlen(line) != end + 1 + n % 40 + 1 || seen[w][n]++) {
			FAIL("line %ld is damaged or there twice: %s", count, line);
			if (test_failures > 20)
				break;
		}
	}
	CHECK_EQ(count, (long)writers * lines);
	CHECK_EQ(fclose(file), 0);
}

static void fully_buffered(void)
{
	writers = scale(100, 400);
	lines = 400;
	spin = 0;
	write_and_check(_IOFBF, 4096);
}

static void small_buffer(void)
{
	writers = scale(50, 200);
	lines = 200;
	write_and_check(_IOFBF, 64);
}

static void line_buffered(void)
{
	writers = scale(50, 200);
	lines = 200;
	write_and_check(_IOLBF, 1024);
}

static void unbuffered(void)
{
	writers = scale(20, 64);
	lines = 50;
	write_and_check(_IONBF, 0);
}

static void while_preempted(void)
{
	writers = scale(50, 300);
	lines = 300;
	spin = 1;
	write_and_check(_IOFBF, 1024);
	spin = 0;
}

static const struct test_case cases[] = {
    {"fully_buffered", fully_buffered},   {"small_buffer", small_buffer},
    {"line_buffered", line_buffered},     {"unbuffered", unbuffered},
    {"while_preempted", while_preempted},
};

TEST_MAIN(cases)
