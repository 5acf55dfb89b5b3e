/*
 * test_stack.c - goroutine stacks: guards, reuse, exhaustion, memory given back.
 */
#include "testhost.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "annotate.h"
#include "mem.h"
#include "stack.h"

#define KIB 1024UL
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

static Stack must(size_t size, size_t guard)
{
	Stack s;

	cr_assert_eq(stackalloc(size, guard, &s), 0, "%zu bytes", size);
	cr_assert_geq(s.hi - s.lo, size);
	cr_assert_geq(s.lo - s.guard, guard);
	cr_assert_eq(s.hi % 64, 0);
	cr_assert_eq(s.lo % 4096, 0);
	return s;
}

static void push(Stack s)
{
	*(volatile char *)(s.hi - 1) = 1;
	*(volatile char *)(s.hi - 4000) = 1;
}

static int mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	int c, n = 0;

	while ((c = fgetc(f)) != EOF)
		n += c == '\n';
	fclose(f);
	return n;
}

Test(stack, is_writable_and_its_guard_faults)
{
	static const size_t size[] = {1, 4 * KIB, 16 * KIB, 100000, 8 * MIB, 1 * GIB};
	static const size_t guard[] = {1, 4 * KIB, 5 * KIB, 64 * KIB, 3 * MIB};

	for (size_t i = 0; i < 6; i++) {
		for (size_t k = 0; k < 5; k++) {
			Stack s = must(size[i], guard[k]);
			void *at;

			cr_assert_eq(faults((void *)(s.hi - 1), NULL), 0);
			cr_assert_eq(faults((void *)s.lo, NULL), 0);
			cr_assert_eq(faults((void *)(s.lo - 1), &at), SIGSEGV);
			cr_assert_eq((uintptr_t)at, s.lo - 1);
			cr_assert_eq(faults((void *)s.guard, NULL), SIGSEGV);
			cr_assert(stackguarded(s.lo - 1));
			cr_assert(stackguarded(s.guard));
			cr_assert_not(stackguarded(s.lo));
			cr_assert_not(stackguarded(s.hi - 1));
			stackfree(s);
		}
	}
	cr_assert_not(stackguarded(0));
	cr_assert_not(stackguarded((uintptr_t)&faults));
}

Test(stack, neighbours_are_apart)
{
	enum { N = 600 };
	static Stack s[N];

	for (int i = 0; i < N; i++) {
		s[i] = must(64 * KIB, i % 2 == 0 ? 4 * KIB : 0);
		memset((void *)s[i].lo, i % 251 + 1, s[i].hi - s[i].lo);
	}
	for (int i = 0; i < N; i++) {
		cr_assert_eq(*(unsigned char *)s[i].lo, i % 251 + 1);
		cr_assert_eq(*(unsigned char *)(s[i].hi - 1), i % 251 + 1);
		cr_assert_eq(stackguarded(s[i].lo - 1), i % 2 == 0 || stackguarded(s[i].lo - 1));
	}
	for (int i = 0; i < N; i++)
		stackfree(s[i]);
}

Test(stack, is_reused_with_its_guard)
{
	Stack a = must(256 * KIB, 4096), b;
	size_t inuse, pooled;

	push(a);
	stackfree(a);
	stackstats(&inuse, &pooled);
	cr_assert_eq(inuse, 0);
	cr_assert_eq(pooled, 1);
	b = must(260 * KIB, 4000);
	cr_assert_eq(a.lo, b.lo, "same class, last in first out");
	cr_assert_eq(*(char *)(b.hi - 1), 1, "dirty");
	cr_assert_eq(faults((void *)(b.lo - 1), NULL), SIGSEGV);
	stackstats(&inuse, &pooled);
	cr_assert_eq(inuse, 1);
	cr_assert_eq(pooled, 0);
	/* Another size or guard is another class. */
	stackfree(b);
	cr_assert_neq(must(256 * KIB, 0).lo, a.lo);
	cr_assert_neq(must(512 * KIB, 4096).lo, a.lo);
}

TestThrows(stack, freeing_twice_throws)
{
	Stack s = must(64 * KIB, 4096);

	stackfree(s);
	stackfree(s);
}

Test(stack, a_hundred_thousand_of_eight_mib, .timeout = 60)
{
	enum { N = 100000 };
	static Stack s[N];
	size_t before = rss(), used;
	int maps = mappings();

	for (int i = 0; i < N; i++)
		if (stackalloc(8 * MIB, 4096, &s[i]) != 0) {
			/* Without guard markers the map limit ends it. */
			cr_assert_gt(i, 1000);
			cr_skip_test("no guard markers in this kernel");
		}
	for (int i = 0; i < N; i++)
		*(volatile char *)(s[i].hi - 1) = 1;
	used = rss() - before;
	cr_log_info("%zu bytes resident each", used / N);
	cr_assert_lt(used / N, 4300UL, "one page each and the records");
	/* The first few thousand have a guard that is a mapping, for gdb's sake. */
	cr_assert_lt(mappings() - maps, 10000);
	for (int i = 0; i < N; i += 997)
		cr_assert_eq(faults((void *)(s[i].lo - 1), NULL), SIGSEGV);
	for (int i = 0; i < N; i++)
		stackfree(s[i]);
	stacktrim(100);
	cr_assert_lt(rss(), before + 20 * MIB, "trimmed");
	/* The trimmed ones are as good as before. */
	for (int i = 0; i < N; i++) {
		s[i] = must(8 * MIB, 4096);
		push(s[i]);
	}
	for (int i = 0; i < N; i += 997)
		cr_assert_eq(faults((void *)(s[i].lo - 1), NULL), SIGSEGV);
}

Test(stack, a_million_can_be_reserved, .timeout = 60)
{
	Stack s;
	int i;

	for (i = 0; i < 1000000; i++)
		if (stackalloc(8 * MIB, 0, &s) != 0)
			break;
	cr_assert_eq(i, 1000000);
	push(s);
}

Test(stack, trim_keeps_what_it_is_told)
{
	enum { N = 64 };
	Stack s[N];
	size_t full, inuse, pooled;

	for (int i = 0; i < N; i++) {
		s[i] = must(512 * KIB, 4096);
		memset((void *)s[i].lo, 1, s[i].hi - s[i].lo);
	}
	full = rss();
	for (int i = 0; i < N; i++)
		stackfree(s[i]);
	stacktrim(N);
	cr_assert_gt(rss(), full - MIB);
	stacktrim(16);
	cr_assert_lt(rss(), full - 22 * MIB);
	cr_assert_gt(rss(), full - 26 * MIB);
	stacktrim(0);
	cr_assert_lt(rss(), full - 30 * MIB);
	stackstats(&inuse, &pooled);
	cr_assert_eq(pooled, N);
	s[0] = must(512 * KIB, 4096);
	cr_assert_eq(*(char *)(s[0].hi - 1), 0, "reads as zero");
	cr_assert_eq(faults((void *)(s[0].lo - 1), NULL), SIGSEGV);
}

Test(stack, impossible_sizes_are_eagain)
{
	Stack s;

	cr_assert_eq(stackalloc((size_t)1 << 60, 4096, &s), -EAGAIN);
	cr_assert_eq(stackalloc(SIZE_MAX, 4096, &s), -EAGAIN);
	cr_assert_eq(stackalloc(4096, SIZE_MAX, &s), -EAGAIN);
	cr_assert_eq(stackalloc((size_t)1 << 46, (size_t)1 << 46, &s), -EAGAIN);
	must(4096, 4096);
}

Test(stack, exhausted_address_space_is_eagain_and_passes)
{
	enum { N = 2000 };
	static Stack s[N];
	struct rlimit lim, old;
	int n, m;

	getrlimit(RLIMIT_AS, &old);
	lim = old;
	lim.rlim_cur = 4 * GIB;
	if (SANITIZED)
		cr_skip_test("limits address space");
	cr_assert_eq(setrlimit(RLIMIT_AS, &lim), 0);
	for (n = 0; n < N && stackalloc(8 * MIB, 4096, &s[n]) == 0; n++)
		push(s[n]);
	cr_assert_gt(n, 300);
	cr_assert_lt(n, 520);
	stackfree(s[--n]);
	cr_assert_eq(stackalloc(8 * MIB, 4096, &s[n]), 0, "one free, one to be had");
	n++;
	/* What is pooled makes room for others. */
	for (m = 0; m < n; m++)
		stackfree(s[m]);
	cr_assert_eq(stackalloc(1 * GIB, 4096, &s[0]), 0);
	push(s[0]);
	stackfree(s[0]);
	for (m = 0; m < N && stackalloc(8 * MIB, 4096, &s[m]) == 0; m++)
		push(s[m]);
	cr_assert_geq(m, n - 1);
	cr_assert_eq(faults((void *)(s[0].lo - 1), NULL), SIGSEGV);
	setrlimit(RLIMIT_AS, &old);
	must(8 * MIB, 4096);
}

Test(stack, huge_ones_give_their_mapping_back)
{
	int maps = mappings();

	for (int i = 0; i < 1000; i++) {
		Stack s = must(2 * GIB, 4096);

		push(s);
		stackfree(s);
	}
	cr_assert_leq(mappings() - maps, 4);
}

/* From here on this is a kernel before 6.13. */
static void refuseguardmarkers(void)
{
	struct sock_filter code[] = {
	    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
	    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 102, 0, 1),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {nelem(code), code};

	cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) != 0)
		cr_skip_test("no seccomp");
	cr_assert_eq(madvise((void *)0x10000, 4096, 102), -1);
	cr_assert_eq(errno, EINVAL);
}

Test(stack, without_guard_markers_guards_are_closed_pages)
{
	Stack s[50];
	void *at;

	refuseguardmarkers();
	for (int i = 0; i < 50; i++) {
		s[i] = must(1 * MIB, i % 3 * 4096);
		push(s[i]);
		if (i % 3 != 0) {
			cr_assert_eq(faults((void *)(s[i].lo - 1), &at), SIGSEGV);
			cr_assert_eq((uintptr_t)at, s[i].lo - 1);
			cr_assert(stackguarded(s[i].lo - 1));
		}
	}
	for (int i = 0; i < 50; i++)
		stackfree(s[i]);
	stacktrim(0);
	for (int i = 0; i < 50; i++) {
		s[i] = must(1 * MIB, i % 3 * 4096);
		push(s[i]);
		if (i % 3 != 0)
			cr_assert_eq(faults((void *)s[i].guard, NULL), SIGSEGV);
	}
}

Test(stack, without_guard_markers_the_map_limit_is_eagain, .timeout = 60)
{
	enum { N = 400000 };
	static Stack s[N];
	int n;

	if (SANITIZED)
		cr_skip_test("needs mappings of its own");
	refuseguardmarkers();
	for (n = 0; n < N && stackalloc(64 * KIB, 4096, &s[n]) == 0; n++)
		;
	cr_assert_gt(n, 1000);
	if (n == N)
		cr_skip_test("vm.max_map_count is very large");
	cr_log_info("%d stacks", n);
	push(s[0]);
	push(s[n - 1]);
	cr_assert_eq(faults((void *)(s[n - 1].lo - 1), NULL), SIGSEGV);
	stackfree(s[17]);
	cr_assert_eq(must(64 * KIB, 4096).lo, s[17].lo);
	cr_assert_eq(stackalloc(64 * KIB, 4096, &s[17]), -EAGAIN);
}

static void *churn(void *arg)
{
	Rand r = {(uint64_t)(intptr_t)arg};
	Stack s[16];
	int n = 0;

	for (int i = 0; i < 20000; i++) {
		if (n < 16 && (n == 0 || rnd(&r) % 2 == 0)) {
			if (stackalloc((size_t)1 << (14 + rnd(&r) % 4), 4096, &s[n]) != 0)
				abort();
			*(volatile uintptr_t *)(s[n].hi - 8) = s[n].hi ^ (uintptr_t)arg;
			n++;
		} else {
			n--;
			if (*(volatile uintptr_t *)(s[n].hi - 8) != (s[n].hi ^ (uintptr_t)arg))
				abort();
			stackfree(s[n]);
			if (rnd(&r) % 64 == 0)
				stacktrim(4);
		}
	}
	while (n > 0)
		stackfree(s[--n]);
	return NULL;
}

Test(stack, threads_never_share_one, .timeout = 60)
{
	size_t inuse, pooled;
	pthread_t t[4];

	for (intptr_t i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, churn, (void *)(i + 1));
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	stackstats(&inuse, &pooled);
	cr_assert_eq(inuse, 0);
	/* More than are alive at once only while a trim has some in hand. */
	cr_assert_lt(pooled, 2000);
}

Test(stack, locked_memory_has_guards_too)
{
	struct rlimit lim;
	Stack s;
	void *at;

	getrlimit(RLIMIT_MEMLOCK, &lim);
	if (SANITIZED)
		cr_skip_test("would lock its shadow");
	if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
		cr_skip_test("mlockall is not allowed");
	for (int i = 0; i < 20; i++) {
		s = must(1 * MIB, 4096);
		push(s);
		cr_assert_eq(faults((void *)(s.lo - 1), &at), SIGSEGV);
	}
	stackfree(s);
	stacktrim(0);
	push(must(1 * MIB, 4096));
}

Test(stack, forked_child_reuses_all_but_its_own)
{
	enum { N = 20 };
	static Stack s[N];
	size_t inuse, pooled;
	int status;
	pid_t pid;

	for (int i = 0; i < N; i++) {
		s[i] = must(64 * KIB, 4096);
		push(s[i]);
	}
	stackfree(s[3]);
	pid = fork();
	if (pid == 0) {
		uintptr_t mine = s[7].lo + 100;

		memforkchild();
		stackforkchild(&mine, 1);
		stackstats(&inuse, &pooled);
		if (inuse != 1 || pooled != N - 1)
			_exit(1);
		for (int i = 0; i < N - 1; i++) {
			Stack t;

			if (stackalloc(64 * KIB, 4096, &t) != 0 || t.lo == s[7].lo)
				_exit(2);
			if (faults((void *)(t.lo - 1), NULL) != SIGSEGV)
				_exit(3);
		}
		stackfree(s[7]);
		stackalloc(64 * KIB, 4096, &s[0]);
		stackalloc(64 * KIB, 4096, &s[1]);
		push(s[1]);
		_exit(s[0].lo == s[7].lo && stackguarded(s[1].lo - 1) ? 0 : 4);
	}
	waitpid(pid, &status, 0);
	cr_assert_eq(status, 0);
}
