/*
 * What every function of semaphores answers, unnamed, shared and named: values and times that can't be,
 * overflow, waits that handlers interrupt or restart, cancelled waits; names, flags and permissions of
 * sem_open, and how long what it gives stays.
 */
#include "test.h"

#include <limits.h>
#include <semaphore.h>
#include <sys/mman.h>

static sem_t *s; /* in memory that processes share */
static int pshared;

static void make(unsigned value)
{
	memset(s, 0x5a, sizeof *s);
	CHECK_EQ(sem_init(s, pshared, value), 0);
}

static int value(void)
{
	int v = -1;

	CHECK_EQ(sem_getvalue(s, &v), 0);
	return v;
}

static int timed(void)
{
	struct timespec ts = after_ms(CLOCK_REALTIME, 5);
	return sem_timedwait(s, &ts);
}

static int clocked(clockid_t clock, long ms)
{
	struct timespec ts = after_ms(clock == CLOCK_MONOTONIC ? clock : CLOCK_REALTIME, ms);
	return sem_clockwait(s, clock, &ts);
}

static void *answers(void *arg)
{
	CHECK_ERRNO(sem_init(s, pshared, (unsigned)SEM_VALUE_MAX + 1), EINVAL);
	CHECK_ERRNO(sem_init(s, pshared, -1u), EINVAL);
	make(0);
	CHECK_EQ(value(), 0);
	CHECK_ERRNO(sem_trywait(s), EAGAIN);
	CHECK_ERRNO(timed(), ETIMEDOUT);
	CHECK_ERRNO(clocked(CLOCK_REALTIME, 5), ETIMEDOUT);
	CHECK_ERRNO(clocked(CLOCK_MONOTONIC, 5), ETIMEDOUT);
	CHECK_ERRNO(clocked(CLOCK_MONOTONIC, -5000), ETIMEDOUT);
	CHECK_ERRNO(clocked(CLOCK_REALTIME, -5000), ETIMEDOUT);
	CHECK_ERRNO(clocked(CLOCK_PROCESS_CPUTIME_ID, 5), EINVAL);
	CHECK_ERRNO(clocked(CLOCK_BOOTTIME, 5), EINVAL);
	CHECK_ERRNO(clocked(99, 5), EINVAL);
	struct timespec before_epoch = {-1, 0};
	CHECK_ERRNO(sem_timedwait(s, &before_epoch), ETIMEDOUT);
	static const long bad[] = {-1, 1000000000, LONG_MAX, LONG_MIN};
	for (unsigned i = 0; i < COUNT(bad); i++) {
		struct timespec ts = {time(NULL) + 1000, bad[i]};
		CHECK_ERRNO(sem_timedwait(s, &ts), EINVAL);
		CHECK_ERRNO(sem_clockwait(s, CLOCK_MONOTONIC, &ts), EINVAL);
		/* Also where there is nothing to wait for. */
		CHECK_EQ(sem_post(s), 0);
		CHECK_ERRNO(sem_timedwait(s, &ts), EINVAL);
		CHECK_EQ(sem_trywait(s), 0);
	}
	CHECK_EQ(value(), 0);
	/* A token is had whatever the time. */
	CHECK_EQ(sem_post(s), 0);
	CHECK_EQ(clocked(CLOCK_MONOTONIC, -5000), 0);
	CHECK_EQ(sem_post(s), 0);
	CHECK_EQ(value(), 1);
	CHECK_EQ(sem_wait(s), 0);
	CHECK_EQ(value(), 0);
	CHECK_EQ(sem_destroy(s), 0);

	make(SEM_VALUE_MAX - 1);
	CHECK_EQ(value(), SEM_VALUE_MAX - 1);
	CHECK_EQ(sem_post(s), 0);
	CHECK_EQ(value(), SEM_VALUE_MAX);
	CHECK_ERRNO(sem_post(s), EOVERFLOW);
	CHECK_ERRNO(sem_post(s), EOVERFLOW);
	CHECK_EQ(value(), SEM_VALUE_MAX);
	CHECK_EQ(sem_trywait(s), 0);
	CHECK_EQ(sem_post(s), 0);
	CHECK_EQ(sem_destroy(s), 0);
	/* Neither changes errno when it goes well. */
	make(1);
	errno = 12345;
	CHECK_EQ(sem_wait(s), 0);
	CHECK_EQ(sem_post(s), 0);
	CHECK_EQ(errno, 12345);
	CHECK_EQ(sem_destroy(s), 0);
	return arg;
}

static void both(void *(*fn)(void *))
{
	for (pshared = 0; pshared < 2; pshared++) {
		fn(NULL);
		join(spawn(fn, NULL));
	}
}

static void every_function(void)
{
	both(answers);
}

/* --- handlers ---------------------------------------------------------------------------------- */

static int handled, started;

static void on_usr1(int sig)
{
	(void)sig;
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELEASE);
}

static void on_usr2(int sig)
{
	int saved = errno;

	(void)sig;
	sem_post(s);
	errno = saved;
}

struct waiter {
	int way, result, err;
	volatile int done;
};

static void *wait_it(void *arg)
{
	struct waiter *w = arg;

	__atomic_store_n(&started, 1, __ATOMIC_RELEASE);
	errno = 0;
	switch (w->way) {
	case 0: w->result = sem_wait(s); break;
	case 1: w->result = clocked(CLOCK_REALTIME, 600000); break;
	case 2: w->result = clocked(CLOCK_MONOTONIC, 600000); break;
	}
	w->err = errno;
	__atomic_store_n(&w->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* A handler ends the wait, but for sem_wait's when it has SA_RESTART. */
static void interrupted(void)
{
	for (pshared = 0; pshared < 2; pshared++)
		for (int i = 0; i < 6; i++) {
			int restart = i / 3;
			struct sigaction sa = {.sa_handler = on_usr1,
					       .sa_flags = restart ? SA_RESTART : 0};
			struct waiter w = {.way = i % 3};

			REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
			make(0);
			handled = started = 0;
			pthread_t t = spawn(wait_it, &w);
			CHECK(wait_for(&started, 1, 20000));
			sleep_ms(20);
			if (restart && w.way == 0) {
				REQUIRE_OK(pthread_kill(t, SIGUSR1));
				CHECK(wait_for(&handled, 1, 20000));
				sleep_ms(5);
				CHECK_EQ(w.done, 0);
				CHECK_EQ(sem_post(s), 0);
				join(t);
				CHECK_EQ(w.result, 0);
			} else {
				/* The first may come before the wait. */
				for (; !w.done; sleep_ms(5))
					REQUIRE_OK(pthread_kill(t, SIGUSR1));
				join(t);
				CHECK_EQ(w.result, -1);
				CHECK_EQ(w.err, EINTR);
			}
			CHECK_EQ(value(), 0);
			CHECK_EQ(sem_destroy(s), 0);
		}
}

/* The handler posts what the interrupted thread waits for. */
static void posted_by_its_own_handler(void)
{
	struct sigaction sa = {.sa_handler = on_usr2, .sa_flags = SA_RESTART};

	REQUIRE(sigaction(SIGUSR2, &sa, NULL) == 0);
	for (pshared = 0; pshared < 2; pshared++)
		for (int i = 0; i < 30; i++) {
			struct waiter w = {.way = 0};

			make(0);
			started = 0;
			pthread_t t = spawn(wait_it, &w);
			CHECK(wait_for(&started, 1, 20000));
			if (i & 1)
				sleep_ms(1);
			REQUIRE_OK(pthread_kill(t, SIGUSR2));
			join(t);
			CHECK_EQ(w.result, 0);
			CHECK_EQ(value(), 0);
			CHECK_EQ(sem_destroy(s), 0);
		}
}

/* --- cancellation ------------------------------------------------------------------------------ */

static int cleaned;

static void clean(void *arg)
{
	(void)arg;
	__atomic_add_fetch(&cleaned, 1, __ATOMIC_RELAXED);
}

static void *wait_and_clean(void *arg)
{
	pthread_cleanup_push(clean, NULL);
	wait_it(arg);
	pthread_cleanup_pop(0);
	return NULL;
}

/* Who is cancelled has taken nothing, and a pending request comes before a token. */
static void cancelled(void)
{
	for (pshared = 0; pshared < 2; pshared++)
		for (int i = 0; i < 6; i++) {
			struct waiter w = {.way = i % 3};

			make(0);
			started = cleaned = 0;
			pthread_t t = spawn(wait_and_clean, &w);
			CHECK(wait_for(&started, 1, 20000));
			if (i >= 3)
				sleep_ms(5);
			CHECK_EQ(pthread_cancel(t), 0);
			CHECK(join(t) == PTHREAD_CANCELED);
			CHECK_EQ(cleaned, 1);
			CHECK_EQ(sem_post(s), 0);
			CHECK_EQ(value(), 1);
			CHECK_EQ(sem_trywait(s), 0);
			CHECK_EQ(sem_destroy(s), 0);
		}
}

static void *cancel_then_wait(void *arg)
{
	pthread_cancel(pthread_self());
	/* No cancellation point. */
	CHECK_EQ(sem_trywait(s), 0);
	CHECK_EQ(sem_post(s), 0);
	CHECK_EQ(value(), 1);
	sem_wait(s);
	return arg;
}

static void request_before_token(void)
{
	for (pshared = 0; pshared < 2; pshared++) {
		make(1);
		CHECK(join(spawn(cancel_then_wait, NULL)) == PTHREAD_CANCELED);
		CHECK_EQ(value(), 1);
		CHECK_EQ(sem_destroy(s), 0);
	}
}

/* --- names ------------------------------------------------------------------------------------- */

static char name[64];

#define OPEN_FAILS(call, want)                                                                    \
	do {                                                                                      \
		errno = 0;                                                                        \
		sem_t *got_ = call;                                                               \
		if (got_ != SEM_FAILED || errno != (want))                                        \
			FAIL("%s gives %p, errno %d, not %s", #call, (void *)got_, errno, #want); \
	} while (0)

static void bad_names(void)
{
	char longname[300];

	longname[0] = '/';
	memset(longname + 1, 'x', sizeof longname - 2);
	longname[sizeof longname - 1] = '\0';
	OPEN_FAILS(sem_open("", O_CREAT, 0600, 1), EINVAL);
	OPEN_FAILS(sem_open("/", O_CREAT, 0600, 1), EINVAL);
	OPEN_FAILS(sem_open("/a/b", O_CREAT, 0600, 1), EINVAL);
	OPEN_FAILS(sem_open(longname, O_CREAT, 0600, 1), EINVAL);
	longname[260] = '\0';
	OPEN_FAILS(sem_open(longname, O_CREAT, 0600, 1), EINVAL);
	OPEN_FAILS(sem_open(name, 0), ENOENT);
	OPEN_FAILS(sem_open(name, O_EXCL), ENOENT);
	OPEN_FAILS(sem_open(name, O_CREAT, 0600, (unsigned)SEM_VALUE_MAX + 1), EINVAL);
	OPEN_FAILS(sem_open(name, 0), ENOENT);
	CHECK_ERRNO(sem_unlink(""), ENOENT);
	CHECK_ERRNO(sem_unlink("/a/b"), ENOENT);
	CHECK_ERRNO(sem_unlink(longname), ENOENT);
	CHECK_ERRNO(sem_unlink(name), ENOENT);
	CHECK_ERRNO(sem_close(s), EINVAL);
}

static void *post_once(void *arg)
{
	sem_t *mine = sem_open(name, 0);

	CHECK(mine == arg); /* one address in a process */
	CHECK_EQ(sem_post(mine), 0);
	CHECK_EQ(sem_close(mine), 0);
	return NULL;
}

static void names(void)
{
	snprintf(name, sizeof name, "/goshim-answers-%d", (int)getpid());
	sem_t *a = sem_open(name, O_CREAT | O_EXCL, 0600, 1);
	if (a == SEM_FAILED && (errno == ENOSYS || errno == EACCES || errno == ENOENT))
		SKIP_CASE("no shared memory to be had here");
	REQUIRE(a != SEM_FAILED);
	OPEN_FAILS(sem_open(name, O_CREAT | O_EXCL, 0600, 1), EEXIST);
	/* The mode and the value count for the first only. */
	CHECK(sem_open(name, O_CREAT, 0, 99) == a);
	CHECK_EQ(sem_close(a), 0);
	/* The slash is optional, though another name to libc. */
	sem_t *alias = sem_open(name + 1, 0);
	REQUIRE(alias != SEM_FAILED);
	CHECK_EQ(sem_trywait(alias), 0);
	CHECK_ERRNO(sem_trywait(a), EAGAIN);
	CHECK_EQ(sem_post(a), 0);
	CHECK_EQ(sem_close(alias), 0);
	CHECK_EQ(sem_wait(a), 0);
	CHECK_ERRNO(sem_trywait(a), EAGAIN);
	pthread_t t = spawn(post_once, a);
	CHECK_EQ(sem_wait(a), 0);
	join(t);
	/* Without its name it is still ours, and the name is free for another. */
	CHECK_EQ(sem_unlink(name), 0);
	CHECK_ERRNO(sem_unlink(name), ENOENT);
	OPEN_FAILS(sem_open(name, 0), ENOENT);
	sem_t *b = sem_open(name, O_CREAT, 0600, 5);
	REQUIRE(b != SEM_FAILED);
	CHECK(a != b);
	int v = -1;
	CHECK_EQ(sem_post(a), 0);
	CHECK_EQ(sem_getvalue(a, &v), 0);
	CHECK_EQ(v, 1);
	CHECK_EQ(sem_getvalue(b, &v), 0);
	CHECK_EQ(v, 5);
	/* A child has it too. */
	int status = -1;
	pid_t pid = fork();
	if (pid == 0)
		_exit(sem_wait(b) || sem_post(a) || sem_close(b));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	CHECK_EQ(sem_getvalue(a, &v), 0);
	CHECK_EQ(v, 2);
	CHECK_EQ(sem_getvalue(b, &v), 0);
	CHECK_EQ(v, 4);
	CHECK_EQ(sem_close(a), 0);
	CHECK_ERRNO(sem_close(a), EINVAL);
	CHECK_EQ(sem_close(b), 0);
	CHECK_EQ(sem_unlink(name), 0);
	bad_names();
}

static void *open_and_close(void *arg)
{
	for (int i = 0; i < 200; i++) {
		sem_t *mine = sem_open(name, O_CREAT, 0600, 0);
		REQUIRE(mine != SEM_FAILED);
		CHECK_EQ(sem_post(mine), 0);
		CHECK_EQ(sem_wait(mine), 0);
		CHECK_EQ(sem_close(mine), 0);
	}
	return arg;
}

static void opened_by_many(void)
{
	pthread_t t[8];

	snprintf(name, sizeof name, "/goshim-many-%d", (int)getpid());
	sem_t *a = sem_open(name, O_CREAT, 0600, 0);
	if (a == SEM_FAILED)
		SKIP_CASE("no shared memory to be had here");
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(open_and_close, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	int v = -1;
	CHECK_EQ(sem_getvalue(a, &v), 0);
	CHECK_EQ(v, 0);
	CHECK_EQ(sem_close(a), 0);
	CHECK_ERRNO(sem_close(a), EINVAL);
	CHECK_EQ(sem_unlink(name), 0);
}

static const struct test_case cases[] = {
    {"every_function", every_function},
    {"interrupted", interrupted},
    {"posted_by_its_own_handler", posted_by_its_own_handler},
    {"cancelled", cancelled},
    {"request_before_token", request_before_token},
    {"names", names},
    {"opened_by_many", opened_by_many},
};

int main(int argc, char **argv)
{
	s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(s != MAP_FAILED);
	return test_run(argc, argv, cases, COUNT(cases));
}
