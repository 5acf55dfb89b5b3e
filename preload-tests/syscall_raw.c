/*
 * Blocking system calls made by inline assembly, which no library can interpose: threads stuck in
 * them must not keep the others from running, though there are more of them than processors, and
 * they must come back with what the kernel answered. The same in a process that may not look at itself in /proc: it has
 * dropped root, is in a directory of its own, or a filter refuses to open files.
 */
#include "test.h"

#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

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
	long rc;

	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	/* A signal for preemption may meet one that has just begun (docs/limits.md). */
	do
		rc = raw(SYS_nanosleep, (long)&ts, (long)&ts, 0, 0, 0, 0);
	while (under_shim() && rc == -EINTR);
	CHECK_EQ(rc, 0);
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

static void *stuck_in_poll(void *arg)
{
	int i = (int)(intptr_t)arg;
	struct pollfd p = {.fd = fds[i][0], .events = POLLIN};
	long rc;

	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	/* A signal for preemption may meet one that has just begun (docs/limits.md). */
	do
		rc = raw(SYS_poll, (long)&p, 1, -1, 0, 0, 0);
	while (under_shim() && rc == -EINTR);
	CHECK_EQ(rc, 1);
	__atomic_add_fetch(&back, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void in_poll(void)
{
	pthread_t t[STUCK];

	here = back = 0;
	for (int i = 0; i < STUCK; i++) {
		REQUIRE(pipe(fds[i]) == 0);
		t[i] = spawn(stuck_in_poll, (void *)(intptr_t)i);
	}
	CHECK(wait_for(&here, STUCK, 20000));
	sleep_ms(20);
	others_go_on();
	CHECK_EQ(back, 0);
	for (int i = 0; i < STUCK; i++)
		CHECK_EQ(write(fds[i][1], "p", 1), 1);
	for (int i = 0; i < STUCK; i++) {
		join(t[i]);
		close(fds[i][0]);
		close(fds[i][1]);
	}
}

static int listener;

static void *stuck_in_accept(void *arg)
{
	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	long fd = raw(SYS_accept4, listener, 0, 0, SOCK_CLOEXEC, 0, 0);

	CHECK(fd >= 0);
	close((int)fd);
	__atomic_add_fetch(&back, 1, __ATOMIC_RELEASE);
	return arg;
}

static void in_accept(void)
{
	struct sockaddr_un any = {.sun_family = AF_UNIX};
	socklen_t len = sizeof any;
	pthread_t t[STUCK];

	here = back = 0;
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	REQUIRE(bind(listener, (struct sockaddr *)&any, sizeof any.sun_family) == 0); /* abstract */
	REQUIRE(getsockname(listener, (struct sockaddr *)&any, &len) == 0);
	REQUIRE(listen(listener, STUCK) == 0);
	for (int i = 0; i < STUCK; i++)
		t[i] = spawn(stuck_in_accept, NULL);
	CHECK(wait_for(&here, STUCK, 20000));
	sleep_ms(20);
	others_go_on();
	CHECK_EQ(back, 0);
	for (int i = 0; i < STUCK; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		CHECK_EQ(connect(fd, (struct sockaddr *)&any, len), 0);
		close(fd);
	}
	for (int i = 0; i < STUCK; i++)
		join(t[i]);
	close(listener);
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

/* --- without a look at itself --------------------------------------------------------------------------------- */

static void *nothing(void *arg)
{
	return arg;
}

static int all_are_stuck(void)
{
	in_read();
	in_futex();
	in_poll();
	in_accept();
	main_in_read();
	chain_of_reads();
	return 0;
}

static char jail[] = "/tmp/goshim-test-XXXXXX";

static void drop_root(void)
{
	REQUIRE(chroot(jail) == 0 && chdir("/") == 0);
	REQUIRE(setgid(65534) == 0 && setuid(65534) == 0);
	CHECK_EQ(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
	CHECK(open("/proc/self/stat", O_RDONLY) < 0);
}

static int dropped_at_first(void)
{
	drop_root();
	return all_are_stuck();
}

static int dropped_later(void)
{
	join(spawn(nothing, NULL));
	drop_root();
	return all_are_stuck();
}

static void without_proc(void)
{
	if (geteuid() != 0)
		SKIP_CASE("needs root");
	REQUIRE(mkdtemp(jail));
	CHECK_EQ(in_child(dropped_at_first), 0);
	CHECK_EQ(in_child(dropped_later), 0);
	rmdir(jail);
}

/* What a server needs no more once it runs: EPERM. */
static int filtered(void)
{
	struct sock_filter f[] = {
	    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_open, 6, 0),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 5, 0),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sched_setattr, 4, 0),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sched_getaffinity, 3, 0),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prlimit64, 2, 0),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_execve, 1, 0),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
	};
	struct sock_fprog prog = {COUNT(f), f};

	join(spawn(nothing, NULL));
	REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog) != 0)
		return 77;
	CHECK_ERRNO(open("/proc/self/stat", O_RDONLY), EPERM);
	return all_are_stuck();
}

static void with_a_filter(void)
{
	int status = in_child(filtered);

	if (status == 77 << 8)
		SKIP_CASE("no filters for all threads");
	CHECK_EQ(status, 0);
}

static const struct test_case cases[] = {
    {"in_read", in_read},
    {"in_futex", in_futex},
    {"in_nanosleep", in_nanosleep},
    {"in_poll", in_poll},
    {"in_accept", in_accept},
    {"main_in_read", main_in_read},
    {"chain_of_reads", chain_of_reads},
    {"futex_by_syscall_function", futex_by_syscall_function},
    {"without_proc", without_proc},
    {"with_a_filter", with_a_filter},
};

TEST_MAIN(cases)
