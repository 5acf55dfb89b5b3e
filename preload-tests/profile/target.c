/*
 * What `goshim profile` is to look at: threads that do what their functions' names say. Prints "ready"
 * when all do, and ends at the end of its input.
 */
#include "../test.h"

#include <stdbool.h>
#include <sys/prctl.h>

pthread_mutex_t the_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static volatile bool over;
static int begun;

static int64_t clocknow(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

/* Looks at the clock seldom: libc is not what is to be seen. */
NAMED void spins(void)
{
	for (volatile int i = 0; i < 20000; i++)
		;
}

NAMED void burns_two(int64_t ns)
{
	for (int64_t end = clocknow(CLOCK_THREAD_CPUTIME_ID) + 2 * ns;
	     clocknow(CLOCK_THREAD_CPUTIME_ID) < end;)
		spins();
}

NAMED void burns_one(int64_t ns)
{
	for (int64_t end = clocknow(CLOCK_THREAD_CPUTIME_ID) + ns;
	     clocknow(CLOCK_THREAD_CPUTIME_ID) < end;)
		spins();
}

static void begin(const char *name)
{
	pthread_setname_np(pthread_self(), name);
	__atomic_fetch_add(&begun, 1, __ATOMIC_SEQ_CST);
}

static pthread_cond_t go = PTHREAD_COND_INITIALIZER;
static bool gone;
static pthread_mutex_t go_lock = PTHREAD_MUTEX_INITIALIZER;

/* From the first line of input on, until it says how long it took by the clock. */
NAMED void *mixed(void *arg)
{
	begin("mixed");
	pthread_mutex_lock(&go_lock);
	while (!gone)
		pthread_cond_wait(&go, &go_lock);
	pthread_mutex_unlock(&go_lock);
	int64_t a = clocknow(CLOCK_MONOTONIC);
	burns_two(400000000);
	int64_t b = clocknow(CLOCK_MONOTONIC);
	burns_one(400000000);
	say("wall %ld %ld", (long)(b - a), (long)(clocknow(CLOCK_MONOTONIC) - b));
	return arg;
}

NAMED void *burns(void *arg)
{
	begin("burner");
	while (!over)
		burns_one(1000000);
	return arg;
}

NAMED void *wants_the_lock(void *arg)
{
	begin("locked out");
	pthread_mutex_lock(&the_lock);
	pthread_mutex_unlock(&the_lock);
	return arg;
}

NAMED void *sleeps_long(void *arg)
{
	begin("sl<&\"'>e;ep");
	sleep(1000);
	return arg;
}

NAMED void *parks(void *arg)
{
	static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;

	begin("parked");
	pthread_mutex_lock(&m);
	for (;;)
		pthread_cond_wait(&never, &m);
	return arg;
}

/* Waits for a moment, again and again. */
NAMED void *naps(void *arg)
{
	begin("napper");
	while (!over)
		usleep(2000);
	return arg;
}

/* In a call that nobody sees coming. */
NAMED void *polls_inline(void *arg)
{
	struct pollfd p = {.fd = -1};
	long r;

	begin("inline");
	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(SYS_poll), "D"(&p), "S"(1), "d"(-1)
			 : "rcx", "r11", "memory");
	return arg;
}

NAMED int descends(int n)
{
	volatile int m = n ? descends(n - 1) : (int)sleep(1000);

	return m + 1;
}

NAMED void *is_deep(void *arg)
{
	begin("deep");
	descends(1000);
	return arg;
}

static void *echoes(void *arg)
{
	char c;
	int *fd = arg;

	pthread_setname_np(pthread_self(), "echo");
	while (read(fd[0], &c, 1) == 1 && write(fd[3], &c, 1) == 1)
		;
	return NULL;
}

/* Two that write to one another. */
static void talk(void)
{
	static int fd[4];
	char c = 0;

	REQUIRE(pipe(fd) == 0 && pipe(fd + 2) == 0);
	spawn(echoes, fd);
	while (!over && write(fd[1], &c, 1) == 1 && read(fd[2], &c, 1) == 1)
		;
}

static void *talks(void *arg)
{
	begin("talker");
	talk();
	return arg;
}

int main(int argc, char **argv)
{
	char c;
	int made = 0;

	pthread_mutex_lock(&the_lock);
	for (int i = 1; i < argc; i++) {
		const char *what = argv[i];
		int n = i + 1 < argc && atoi(argv[i + 1]) > 0 ? atoi(argv[++i]) : 1;
		void *(*f)(void *) = !strcmp(what, "mixed")    ? mixed
				     : !strcmp(what, "burns")  ? burns
				     : !strcmp(what, "lock")   ? wants_the_lock
				     : !strcmp(what, "sleep")  ? sleeps_long
				     : !strcmp(what, "parked") ? parks
				     : !strcmp(what, "naps")   ? naps
				     : !strcmp(what, "inline") ? polls_inline
				     : !strcmp(what, "deep")   ? is_deep
				     : !strcmp(what, "talk")   ? talks
							       : NULL;

		REQUIRE(f);
		made += n;
		while (n-- > 0)
			spawn(f, NULL);
	}
	while (__atomic_load_n(&begun, __ATOMIC_SEQ_CST) < made)
		sleep_ms(10);
	say("ready");
	while (read(0, &c, 1) == 1) {
		pthread_mutex_lock(&go_lock);
		gone = true;
		pthread_cond_signal(&go);
		pthread_mutex_unlock(&go_lock);
	}
	over = true;
	return 0;
}
