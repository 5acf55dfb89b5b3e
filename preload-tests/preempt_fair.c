/*
 * Fairness: computations without end, in the program or in libc where nothing is preempted, do not keep a thousand short requests
 * from their answers, nor one another; and callbacks of libc that hold its locks may be preempted, wait and be waited for.
 *
 * Nothing is timed: what is starved never ends.
 */
#include "test.h"

#include <link.h>
#include <locale.h>
#include <sys/socket.h>

static volatile int stop;
static volatile unsigned long turns[8];

static void *in_program(void *arg)
{
	volatile unsigned long *n = arg;

	while (!stop)
		++*n;
	return NULL;
}

static void *in_strcoll(void *arg)
{
	volatile unsigned long *n = arg;
	char a[4096], b[4096];

	memset(a, 'x', sizeof a);
	memset(b, 'x', sizeof b);
	a[sizeof a - 1] = b[sizeof b - 1] = 0;
	a[sizeof a - 2] = 'y';
	while (!stop) {
		if (strcoll(a, b) <= 0)
			FAIL("strcoll");
		++*n;
	}
	return NULL;
}

static void *in_memcpy(void *arg)
{
	volatile unsigned long *n = arg;
	char *a = malloc(1 << 20), *b = malloc(1 << 20);

	memset(a, 1, 1 << 20);
	while (!stop) {
		memcpy(b, a, 1 << 20);
		memcpy(a, b, 1 << 20);
		++*n;
	}
	free(a);
	free(b);
	return NULL;
}

static int compare(const void *a, const void *b)
{
	return strcoll(*(char *const *)a, *(char *const *)b);
}

static void *in_sort(void *arg)
{
	volatile unsigned long *n = arg;
	enum { WORDS = 2000 };
	static char words[2][WORDS][8];
	char *all[WORDS];
	long me = n - turns;

	while (!stop) {
		for (int i = 0; i < WORDS; i++) {
			snprintf(words[me][i], sizeof words[me][i], "%05d", i * 7919 % 10007);
			all[i] = words[me][i];
		}
		qsort(all, WORDS, sizeof *all, compare);
		for (int i = 1; i < WORDS; i++)
			CHECK(strcmp(all[i - 1], all[i]) <= 0);
		++*n;
	}
	return NULL;
}

static void *in_malloc(void *arg)
{
	volatile unsigned long *n = arg;
	void *p[64] = {NULL};
	unsigned x = 1;

	while (!stop) {
		x = x * 1103515245 + 12345;
		void **q = &p[x >> 26];
		free(*q);
		*q = malloc(x >> 20);
		++*n;
	}
	for (unsigned i = 0; i < COUNT(p); i++)
		free(p[i]);
	return NULL;
}

static void *answer(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char c;

	while (read(fd, &c, 1) == 1)
		if (write(fd, &c, 1) != 1)
			break;
	close(fd);
	return NULL;
}

/* Fifty in a batch, each by a thread of its own, with an answer and a nap. */
static void *request(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char c = 'x';

	CHECK_EQ(write(fd, &c, 1), 1);
	CHECK_EQ(read(fd, &c, 1), 1);
	sleep_ms(1);
	close(fd);
	return NULL;
}

static void requests_beside(void *(*fn)(void *), int n, int batches)
{
	pthread_t t[8], server[50], client[50];

	stop = 0;
	for (int i = 0; i < n; i++) {
		turns[i] = 0;
		t[i] = spawn(fn, (void *)&turns[i]);
	}
	for (int batch = 0; batch < batches; batch++) {
		for (int i = 0; i < 50; i++) {
			int fds[2];
			REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
			server[i] = spawn(answer, (void *)(intptr_t)fds[0]);
			client[i] = spawn(request, (void *)(intptr_t)fds[1]);
		}
		for (int i = 0; i < 50; i++) {
			join(client[i]);
			join(server[i]);
		}
	}
	/* And they share what there is. */
	for (int i = 0; i < n; i++) {
		unsigned long was = turns[i];
		while (turns[i] == was)
			sleep_ms(1);
	}
	stop = 1;
	for (int i = 0; i < n; i++)
		join(t[i]);
}

static void computation(void)
{
	requests_beside(in_program, 5, 20);
}

static void life_in_libc(void)
{
	setlocale(LC_ALL, "C.UTF-8");
	requests_beside(in_strcoll, 3, 2);
	requests_beside(in_memcpy, 3, 2);
	requests_beside(in_sort, 2, 2);
	requests_beside(in_malloc, 4, 2);
}

/* --- callbacks under libc's locks -------------------------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long held;

static void spin(void)
{
	for (volatile int i = 0; i < 20000; i++)
		;
}

static void crossing(void)
{
	spin();
	pthread_mutex_lock(&lock);
	held++;
	spin();
	pthread_mutex_unlock(&lock);
	sched_yield();
}

static ssize_t cookie_write(void *cookie, const char *buf, size_t n)
{
	(void)buf;
	crossing();
	*(size_t *)cookie += n;
	return (ssize_t)n;
}

static FILE *shared_file;
static size_t written;

static void *prints(void *arg)
{
	for (int i = 0; i < 30; i++) {
		if (i % 3 == 0) {
			flockfile(shared_file);
			fputs("01234", shared_file);
			crossing();
			fputs("56789\n", shared_file);
			funlockfile(shared_file);
		} else {
			CHECK(fprintf(shared_file, "%010d\n", i) == 11);
		}
		fflush(shared_file);
	}
	return arg;
}

static int object(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)info, (void)size;
	crossing();
	++*(int *)arg;
	return 0;
}

static void *iterates(void *arg)
{
	for (int i = 0; i < 10; i++) {
		int n = 0;
		dl_iterate_phdr(object, &n);
		CHECK(n >= 2);
	}
	return arg;
}

static int numbers(const void *a, const void *b)
{
	if ((*(const int *)a & 63) == 0)
		crossing();
	return (*(const int *)a > *(const int *)b) - (*(const int *)a < *(const int *)b);
}

static void *sorts(void *arg)
{
	int v[256];

	for (int k = 0; k < 3; k++) {
		for (int i = 0; i < 256; i++)
			v[i] = i * 167 % 256;
		qsort(v, 256, sizeof *v, numbers);
		for (int i = 0; i < 256; i++)
			CHECK_EQ(v[i], i);
	}
	return arg;
}

static void callbacks(void)
{
	cookie_io_functions_t io = {.write = cookie_write};
	pthread_t t[9];

	written = 0;
	shared_file = fopencookie(&written, "w", io);
	REQUIRE(shared_file);
	for (int i = 0; i < 9; i++)
		t[i] = spawn(i % 3 == 0 ? prints : i % 3 == 1 ? iterates : sorts, NULL);
	for (int i = 0; i < 9; i++)
		join(t[i]);
	CHECK_EQ(fclose(shared_file), 0);
	CHECK_EQ(written, 3 * 30 * 11);
	CHECK(held > 0);
}

static const struct test_case cases[] = {
    {"computation", computation},
    {"life_in_libc", life_in_libc},
    {"callbacks", callbacks},
};

TEST_MAIN(cases)
