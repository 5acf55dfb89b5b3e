/*
 * Blocking system calls made by inline assembly, which no library can interpose: threads stuck in
 * them must not keep the others from running, though there are more of them than processors, and
 * they must come back with what the kernel answered.
 */
#include "test.h"

#include <linux/futex.h>

static long raw(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

enum { STUCK = 12 };
static int fds[STUCK][2], word[STUCK], here, back;

static void *stuck_in_read(void *arg)
{
	int i = (int)(intptr_t)arg;
	char c = 0;

	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	CHECK_EQ(raw(SYS_read, fds[i][0], (long)&c, 1, 0, 0, 0), 1);
	CHECK_EQ(c, 'a' + i);
	__atomic_add_fetch(&back, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void *stuck_in_futex(void *arg)
{
	int i = (int)(intptr_t)arg;

	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	while (__atomic_load_n(&word[i], __ATOMIC_ACQUIRE) == 0) {
		long rc = raw(SYS_futex, (long)&word[i], FUTEX_WAIT_PRIVATE, 0, 0, 0, 0);
		CHECK(rc == 0 || rc == -EAGAIN || rc == -EINTR);
	}
	__atomic_add_fetch(&back, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void *stuck_in_nanosleep(void *arg)
{
	struct timespec ts = {0, 400000000};
	int64_t start = now_ns();

	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	CHECK_EQ(raw(SYS_nanosleep, (long)&ts, 0, 0, 0, 0, 0), 0);
	CHECK(now_ns() - start >= 400000000);
	__atomic_add_fetch(&back, 1, __ATOMIC_RELEASE);
	return arg;
}

static int ticks, stop;

static void *tick(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		__atomic_add_fetch(&ticks, 1, __ATOMIC_RELAXED);
		sched_yield();
	}
	return arg;
}

/* Others run, are created and talk while STUCK threads are in the kernel. */
static void others_go_on(void)
{
	pthread_t t = spawn(tick, NULL);
	int before = __atomic_load_n(&ticks, __ATOMIC_RELAXED);

	for (int i = 0; i < 50 && __atomic_load_n(&ticks, __ATOMIC_RELAXED) - before < 100; i++)
		sleep_ms(10);
	CHECK(__atomic_load_n(&ticks, __ATOMIC_RELAXED) - before >= 100);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	join(t);
	stop = 0;
}

static void in_read(void)
{
	pthread_t t[STUCK];

	here = back = 0;
	for (int i = 0; i < STUCK; i++) {
		REQUIRE(pipe(fds[i]) == 0);
		t[i] = spawn(stuck_in_read, (void *)(intptr_t)i);
	}
	CHECK(wait_for(&here, STUCK, 20000));
	sleep_ms(50);
	others_go_on();
	CHECK_EQ(back, 0);
	for (int i = 0; i < STUCK; i++) {
		char c = (char)('a' + i);
		CHECK_EQ(write(fds[i][1], &c, 1), 1);
	}
	for (int i = 0; i < STUCK; i++) {
		join(t[i]);
		close(fds[i][0]);
		close(fds[i][1]);
	}
}

static void in_futex(void)
{
	pthread_t t[STUCK];

	here = back = 0;
	memset(word, 0, sizeof word);
	for (int i = 0; i < STUCK; i++)
		t[i] = spawn(stuck_in_futex, (void *)(intptr_t)i);
	CHECK(wait_for(&here, STUCK, 20000));
	sleep_ms(50);
	others_go_on();
	CHECK_EQ(back, 0);
	for (int i = 0; i < STUCK; i++) {
		__atomic_store_n(&word[i], 1, __ATOMIC_RELEASE);
		raw(SYS_futex, (long)&word[i], FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
	}
	for (int i = 0; i < STUCK; i++)
		join(t[i]);
}

static void in_nanosleep(void)
{
	pthread_t t[STUCK];
	int64_t start = now_ms();

	here = back = 0;
	for (int i = 0; i < STUCK; i++)
		t[i] = spawn(stuck_in_nanosleep, NULL);
	others_go_on();
	for (int i = 0; i < STUCK; i++)
		join(t[i]);
	/* At the same time, not one after another. */
	CHECK(now_ms() - start < STUCK * 400 - 400);
}

/* main stuck, a thread lets it go. */
static void *release_main(void *arg)
{
	for (int i = 0; i < 200; i++)
		sched_yield();
	sleep_ms(20);
	CHECK_EQ(write(fds[0][1], "a", 1), 1);
	return arg;
}

static void main_in_read(void)
{
	char c;

	REQUIRE(pipe(fds[0]) == 0);
	pthread_t t = spawn(release_main, NULL);
	CHECK_EQ(raw(SYS_read, fds[0][0], (long)&c, 1, 0, 0, 0), 1);
	join(t);
	close(fds[0][0]);
	close(fds[0][1]);
}

/* A chain through the kernel: each is stuck until the one before has run. */
static void *chain(void *arg)
{
	int i = (int)(intptr_t)arg;
	char c;

	CHECK_EQ(raw(SYS_read, fds[i][0], (long)&c, 1, 0, 0, 0), 1);
	if (i + 1 < STUCK)
		CHECK_EQ(raw(SYS_write, fds[i + 1][1], (long)&c, 1, 0, 0, 0), 1);
	return NULL;
}

static void chain_of_reads(void)
{
	pthread_t t[STUCK];

	for (int i = 0; i < STUCK; i++)
		REQUIRE(pipe(fds[i]) == 0);
	for (int i = 0; i < STUCK; i++)
		t[i] = spawn(chain, (void *)(intptr_t)i);
	sleep_ms(20);
	CHECK_EQ(write(fds[0][1], "c", 1), 1);
	for (int i = 0; i < STUCK; i++) {
		join(t[i]);
		close(fds[i][0]);
		close(fds[i][1]);
	}
}

/* By syscall(2), which can be interposed: futex waits and wakes of both kinds meet. */
static void *futex_by_libc(void *arg)
{
	int i = (int)(intptr_t)arg;

	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	while (__atomic_load_n(&word[i], __ATOMIC_ACQUIRE) == 0)
		if (syscall(SYS_futex, &word[i], FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0) != 0)
			CHECK(errno == EAGAIN || errno == EINTR);
	return NULL;
}

static void futex_by_syscall_function(void)
{
	pthread_t t[STUCK];

	here = 0;
	memset(word, 0, sizeof word);
	for (int i = 0; i < STUCK; i++)
		t[i] = spawn(futex_by_libc, (void *)(intptr_t)i);
	CHECK(wait_for(&here, STUCK, 20000));
	sleep_ms(20);
	for (int i = 0; i < STUCK; i++) {
		__atomic_store_n(&word[i], 1, __ATOMIC_RELEASE);
		syscall(SYS_futex, &word[i], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	}
	for (int i = 0; i < STUCK; i++)
		join(t[i]);
	int w = 0;
	struct timespec ts = {0, 20000000};
	int64_t start = now_ns();
	CHECK_ERRNO(syscall(SYS_futex, &w, FUTEX_WAIT_PRIVATE, 0, &ts, NULL, 0), ETIMEDOUT);
	CHECK(now_ns() - start >= 20000000);
	CHECK_ERRNO(syscall(SYS_futex, &w, FUTEX_WAIT_PRIVATE, 1, &ts, NULL, 0), EAGAIN);
	CHECK_ERRNO(syscall(SYS_read, -1, &w, 1), EBADF);
	CHECK_EQ(syscall(SYS_getpid), getpid());
}

static const struct test_case cases[] = {
    {"in_read", in_read},
    {"in_futex", in_futex},
    {"in_nanosleep", in_nanosleep},
    {"main_in_read", main_in_read},
    {"chain_of_reads", chain_of_reads},
    {"futex_by_syscall_function", futex_by_syscall_function},
};

TEST_MAIN(cases)
