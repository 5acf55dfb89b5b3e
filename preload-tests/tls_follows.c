/*
 * Everything that hangs on the thread pointer follows the thread when it moves to another kernel
 * thread: errno, __thread variables, malloc's caches, stdio's lock owner, the locale, strtol and
 * ctype, key values, the resolver.
 *
 * Each thread checks all of it, over and over, with yields, short sleeps and waits in between that
 * move it.
 */
#include "test.h"

#include <ctype.h>
#include <limits.h>
#include <locale.h>
#include <netdb.h>
#include <sys/socket.h>
#include <wchar.h>
#include <wctype.h>

enum { THREADS = 60, ROUNDS = 60 };

static pthread_barrier_t all;
static pthread_key_t key;

/* Something that moves the thread. */
static void move(int i)
{
	switch (i % 5) {
	case 0:
	case 1:
	case 2: sched_yield(); break;
	case 3: usleep(50); break;
	case 4:
		for (volatile int k = 0; k < 3000; k++)
			;
		break;
	}
}

static void in_threads(void *(*fn)(void *), int n)
{
	pthread_t t[THREADS];

	REQUIRE_OK(pthread_barrier_init(&all, NULL, n));
	for (int i = 0; i < n; i++)
		t[i] = spawn(fn, (void *)(intptr_t)(i + 1));
	for (int i = 0; i < n; i++)
		join(t[i]);
	pthread_barrier_destroy(&all);
}

static void *errno_thread(void *arg)
{
	int id = (int)(intptr_t)arg;
	char c;

	pthread_barrier_wait(&all);
	for (int i = 0; i < ROUNDS; i++) {
		errno = 1000 + id;
		move(i);
		/* usleep and sched_yield succeed, which leaves errno alone. */
		CHECK_EQ(errno, 1000 + id);
		CHECK(read(-1, &c, 1) == -1 && errno == EBADF);
		move(i + 1);
		CHECK_EQ(errno, EBADF);
		CHECK(open("/nonexistent", O_RDONLY) == -1);
		move(i + 2);
		CHECK_EQ(errno, ENOENT);
	}
	return NULL;
}

static void errno_is_the_threads(void)
{
	in_threads(errno_thread, THREADS);
}

static __thread int counter = 42;
static __thread char big[5000];
static __thread _Alignas(64) long aligned = 7;
static _Thread_local void *null_at_start;

static void *variable_thread(void *arg)
{
	int id = (int)(intptr_t)arg;
	int *where = &counter;

	CHECK_EQ(counter, 42);
	CHECK_EQ(aligned, 7);
	CHECK(null_at_start == NULL);
	CHECK_EQ((uintptr_t)&aligned % 64, 0);
	for (unsigned k = 0; k < sizeof big; k++)
		CHECK_EQ(big[k], 0);
	pthread_barrier_wait(&all);
	counter = id * 1000;
	aligned = id;
	null_at_start = &where;
	memset(big, id, sizeof big);
	for (int i = 0; i < ROUNDS; i++) {
		move(i);
		CHECK_EQ(counter, id * 1000 + i);
		CHECK(&counter == where);
		CHECK_EQ(aligned, id);
		CHECK(null_at_start == &where);
		CHECK_EQ(big[i * 83], (char)id);
		counter++;
	}
	return NULL;
}

static void variables_are_the_threads(void)
{
	for (int round = 0; round < 5; round++)
		in_threads(variable_thread, THREADS);
}

static void *malloc_thread(void *arg)
{
	int id = (int)(intptr_t)arg;
	unsigned seed = id;
	unsigned char *p[100] = {NULL};
	size_t size[100] = {0};

	pthread_barrier_wait(&all);
	for (int i = 0; i < ROUNDS * 30; i++) {
		unsigned k = rand_r(&seed) % 100;
		if (p[k]) {
			CHECK_EQ(p[k][0], (unsigned char)id);
			CHECK_EQ(p[k][size[k] - 1], (unsigned char)id);
			if (i % 3)
				free(p[k]);
			else
				p[k] = realloc(p[k], 1);
			if (i % 3)
				p[k] = NULL;
			else
				size[k] = 1;
		} else {
			size[k] = 1 + rand_r(&seed) % (i % 10 == 0 ? 200000 : 2000);
			p[k] = malloc(size[k]);
			memset(p[k], id, size[k]);
		}
		if (i % 13 == 0)
			move(i);
	}
	for (int k = 0; k < 100; k++)
		free(p[k]);
	return NULL;
}

static void malloc_under_migration(void)
{
	in_threads(malloc_thread, THREADS);
}

static void *strings_thread(void *arg)
{
	int id = (int)(intptr_t)arg;
	char buf[200], want[50];

	pthread_barrier_wait(&all);
	for (int i = 0; i < ROUNDS; i++) {
		snprintf(buf, sizeof buf, "%d %s %.3f %x", id * 7919 + i, "text", id / 8.0, i);
		move(i);
		char *end;
		CHECK_EQ(strtol(buf, &end, 10), id * 7919 + i);
		CHECK(strncmp(end, " text ", 6) == 0);
		CHECK(strtod(end + 6, &end) == (double)((long)(id / 8.0 * 1000 + 0.5)) / 1000);
		CHECK_EQ(strtol(end, NULL, 16), i);
		move(i + 1);
		errno = 0;
		CHECK(strtol("99999999999999999999", NULL, 10) == LONG_MAX && errno == ERANGE);
		for (int ch = 'a'; ch <= 'z'; ch++)
			CHECK(isalpha(ch) && islower(ch) && toupper(ch) == ch - 32);
		struct tm tm;
		time_t when = 86400 * id;
		gmtime_r(&when, &tm);
		CHECK_EQ(tm.tm_yday, id % 365);
		snprintf(want, sizeof want, "%s", strerror(i % 30 + 1));
		move(i);
		CHECK(strcmp(want, strerror(i % 30 + 1)) == 0);
		/* strerror of an unknown number makes its text in a buffer of the thread. */
		char *mine = strerror(100000 + id);
		snprintf(want, sizeof want, "Unknown error %d", 100000 + id);
		move(i + 3);
		CHECK(strcmp(mine, want) == 0);
		char text[] = "a,b,c", *save;
		CHECK(strcmp(strtok_r(text, ",", &save), "a") == 0);
		move(i);
		CHECK(strcmp(strtok_r(NULL, ",", &save), "b") == 0);
	}
	return NULL;
}

static void strings_and_numbers(void)
{
	in_threads(strings_thread, THREADS);
}

static void *locale_thread(void *arg)
{
	int id = (int)(intptr_t)arg;
	locale_t utf8 = newlocale(LC_ALL_MASK, "C.UTF-8", NULL);

	if (!utf8)
		return (void *)1;
	CHECK(uselocale(NULL) == LC_GLOBAL_LOCALE);
	if (id % 2)
		uselocale(utf8);
	pthread_barrier_wait(&all);
	for (int i = 0; i < ROUNDS; i++) {
		wchar_t wc = 0;
		mbstate_t st;

		memset(&st, 0, sizeof st);
		move(i);
		size_t n = mbrtowc(&wc, "\xc3\xa9", 2, &st);
		if (id % 2) {
			CHECK_EQ(n, 2);
			CHECK_EQ(wc, 0xe9);
			CHECK(iswalpha_l(0xe9, utf8));
			CHECK_EQ(MB_CUR_MAX, 6);
			CHECK(uselocale(NULL) == utf8);
		} else {
			CHECK(n != 2);
			CHECK_EQ(MB_CUR_MAX, 1);
			CHECK(uselocale(NULL) == LC_GLOBAL_LOCALE);
		}
	}
	uselocale(LC_GLOBAL_LOCALE);
	freelocale(utf8);
	return NULL;
}

static void *try_locale(void *arg)
{
	locale_t l = newlocale(LC_ALL_MASK, "C.UTF-8", NULL);

	if (l)
		freelocale(l);
	(void)arg;
	return l ? (void *)1 : NULL;
}

static void locale_is_the_threads(void)
{
	if (!join(spawn(try_locale, NULL)))
		SKIP_CASE("no locale C.UTF-8");
	in_threads(locale_thread, THREADS);
}

static void *key_thread(void *arg)
{
	CHECK(pthread_getspecific(key) == NULL);
	pthread_barrier_wait(&all);
	CHECK_EQ(pthread_setspecific(key, arg), 0);
	for (int i = 0; i < ROUNDS; i++) {
		move(i);
		CHECK(pthread_getspecific(key) == arg);
	}
	return NULL;
}

static void keys_are_the_threads(void)
{
	REQUIRE_OK(pthread_key_create(&key, NULL));
	in_threads(key_thread, THREADS);
	pthread_key_delete(key);
}

static void *recursive_thread(void *arg)
{
	static pthread_mutex_t m = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
	static FILE *f;
	static long count;

	if ((intptr_t)arg == 1)
		f = fopen("/dev/null", "w");
	pthread_barrier_wait(&all);
	REQUIRE(f);
	for (int i = 0; i < ROUNDS; i++) {
		/* Owners are threads: both locks are taken again after a move, and by nobody
		 * else in between. */
		pthread_mutex_lock(&m);
		long c = count;
		move(i);
		CHECK_EQ(pthread_mutex_trylock(&m), 0);
		move(i + 1);
		count = c + 1;
		pthread_mutex_unlock(&m);
		pthread_mutex_unlock(&m);
		flockfile(f);
		move(i);
		CHECK_EQ(ftrylockfile(f), 0);
		CHECK(fprintf(f, "%d", i) > 0);
		funlockfile(f);
		funlockfile(f);
	}
	pthread_barrier_wait(&all);
	if ((intptr_t)arg == 1) {
		CHECK_EQ(count % (20 * ROUNDS), 0);
		fclose(f);
	}
	return NULL;
}

static void owners_are_threads(void)
{
	in_threads(recursive_thread, 20);
}

static void *resolver_thread(void *arg)
{
	int id = (int)(intptr_t)arg;

	pthread_barrier_wait(&all);
	for (int i = 0; i < 5; i++) {
		struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM},
				*res = NULL;
		char port[16], host[50], serv[20];

		snprintf(port, sizeof port, "%d", 1000 + id);
		int rc = getaddrinfo("localhost", port, &hints, &res);
		if (rc != 0) {
			FAIL("getaddrinfo: %s", gai_strerror(rc));
			return NULL;
		}
		move(i);
		rc = getnameinfo(res->ai_addr, res->ai_addrlen, host, sizeof host, serv,
				 sizeof serv, NI_NUMERICHOST | NI_NUMERICSERV);
		CHECK_EQ(rc, 0);
		CHECK(strcmp(host, "127.0.0.1") == 0);
		CHECK(strcmp(serv, port) == 0);
		freeaddrinfo(res);
		/* Sets h_errno, which is the thread's as well. */
		CHECK(getaddrinfo("999.999.999.999", NULL,
				  &(struct addrinfo){.ai_flags = AI_NUMERICHOST},
				  &res) == EAI_NONAME);
		h_errno = id;
		move(i + 1);
		CHECK_EQ(h_errno, id);
	}
	return NULL;
}

static void resolver_in_threads(void)
{
	in_threads(resolver_thread, 20);
}

/* New threads made from the blocks of ended ones see everything as new. */
static void *dirty(void *arg)
{
	CHECK_EQ(counter, 42);
	CHECK_EQ(big[4000], 0);
	CHECK_EQ(errno, 0);
	CHECK(uselocale(NULL) == LC_GLOBAL_LOCALE);
	CHECK(isalpha('x'));
	counter = 1;
	big[4000] = 1;
	errno = 99;
	uselocale(newlocale(LC_ALL_MASK, "C", NULL));
	return arg;
}

static void reused_blocks_are_new(void)
{
	for (int i = 0; i < 300; i++)
		join(spawn(dirty, NULL));
}

static const struct test_case cases[] = {
    {"errno_is_the_threads", errno_is_the_threads},
    {"variables_are_the_threads", variables_are_the_threads},
    {"malloc_under_migration", malloc_under_migration},
    {"strings_and_numbers", strings_and_numbers},
    {"locale_is_the_threads", locale_is_the_threads},
    {"keys_are_the_threads", keys_are_the_threads},
    {"owners_are_threads", owners_are_threads},
    {"resolver_in_threads", resolver_in_threads},
    {"reused_blocks_are_new", reused_blocks_are_new},
};

TEST_MAIN(cases)
