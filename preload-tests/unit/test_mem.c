/*
 * test_mem.c - the allocator of the runtime's own memory.
 */
#include "testhost.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mem.h"

/* The head of a free block, as mem.c writes it, for planting faults. */
typedef struct Head {
	size_t size, max;
	struct Head *left, *right;
} Head;

static bool allzero(const void *p, size_t n)
{
	const char *s = p;

	return n == 0 || (s[0] == 0 && memcmp(s, s + 1, n - 1) == 0);
}

Test(mem, blocks_are_zero_aligned_and_apart)
{
	char *a = runtime_alloc(1), *b = runtime_alloc(64), *c = runtime_alloc(65);

	cr_assert_eq((uintptr_t)a % 64, 0);
	cr_assert_eq((uintptr_t)c % 64, 0);
	cr_assert(b >= a + 64 && c >= b + 64);
	cr_assert(allzero(c, 128));
	memset(a, 1, 64);
	memset(b, 2, 64);
	memset(c, 3, 128);
	runtime_free(b, 64);
	memcheck();
	cr_assert_eq(runtime_alloc(30), b, "the lowest block that fits is taken");
	cr_assert(allzero(b, 64));
	runtime_free(NULL, 5);
}

Test(mem, freed_neighbours_merge)
{
	char *p[8];
	int free0;

	for (int i = 0; i < 8; i++)
		p[i] = runtime_alloc(128);
	free0 = memcheck();
	runtime_free(p[1], 128);
	runtime_free(p[3], 128);
	cr_assert_eq(memcheck(), free0 + 2);
	runtime_free(p[2], 128);
	cr_assert_eq(memcheck(), free0 + 1, "three blocks are one");
	cr_assert_eq(runtime_alloc(384), p[1]);
	runtime_free(p[7], 128);
	cr_assert_eq(memcheck(), free0, "merged with the rest of the region");
}

enum { Slots = 300, Steps = 4000 };

static void randomrun(int steps, size_t maxsize, uint64_t seed)
{
	static char *p[Slots];
	static size_t size[Slots];
	size_t sys, before, after;
	Rand r = {seed};

	memstats(&sys, &before);
	for (int s = 0; s < steps; s++) {
		int i = (int)(rnd(&r) % Slots);

		if (p[i] == NULL) {
			size[i] = 1 + rnd(&r) % (rnd(&r) % 8 == 0 ? maxsize : 500);
			p[i] = runtime_alloc(size[i]);
			cr_assert_not_null(p[i]);
			cr_assert(allzero(p[i], size[i]));
			memset(p[i], i % 255 + 1, size[i]);
		} else {
			for (size_t k = 0; k < size[i]; k++)
				if (p[i][k] != (char)(i % 255 + 1))
					cr_assert_fail("block %d was written to", i);
			runtime_free(p[i], size[i]);
			p[i] = NULL;
		}
		memcheck();
	}
	for (int i = 0; i < Slots; i++) {
		if (p[i] != NULL)
			runtime_free(p[i], size[i]);
		p[i] = NULL;
	}
	memcheck();
	memstats(&sys, &after);
	cr_assert_eq(after, before);
}

Test(mem, random_run_checked_after_every_step, .timeout = 60)
{
	randomrun(Steps, 5000, 1);
	randomrun(Steps / 4, 100000, 2);
}

Test(mem, random_run_with_memcheck_on, .timeout = 60)
{
	memcheck_on = true;
	randomrun(Steps / 8, 5000, 3);
}

Test(mem, large_blocks_come_back_zero)
{
	size_t n = 3 * 1024 * 1024 + 100;
	char *p = runtime_alloc(n), *guard = runtime_alloc(64);
	size_t full;

	memset(p, 7, n);
	full = rss();
	runtime_free(p, n);
	cr_assert_lt(rss(), full - 2 * 1024 * 1024, "pages went back");
	memcheck();
	cr_assert_eq(runtime_alloc(n), p);
	cr_assert(allzero(p, n));
	runtime_free(guard, 64);
}

Test(mem, region_grows_in_place)
{
	size_t n = 2 * 1024 * 1024, sys, sys2, inuse;
	char *p = runtime_alloc(n), *q;

	memstats(&sys, &inuse);
	q = runtime_alloc(n);
	memstats(&sys2, &inuse);
	cr_assert_gt(sys2, sys);
	/* Nothing else was mapped meanwhile, so the end was free. */
	cr_assert_lt((size_t)(q - p), 2 * n);
	runtime_free(p, n);
	runtime_free(q, n);
	cr_assert_eq(memcheck(), 1, "one region, one free block");
	/* More than either part alone fits without growing. */
	p = runtime_alloc(n + n / 2);
	memstats(&sys, &inuse);
	cr_assert_eq(sys, sys2);
	runtime_free(p, n + n / 2);
}

Test(mem, a_blocked_region_is_followed_by_another)
{
	enum { N = 40 };
	size_t n = 1024 * 1024;
	char *p[N];

	for (int i = 0; i < N; i++) {
		p[i] = runtime_alloc(n);
		cr_assert_not_null(p[i]);
		/* Something sits where the region would grow. */
		for (size_t off = 0; off <= 8 * n; off += 65536)
			mmap(p[i] + n + off, 4096, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		memset(p[i], i + 1, n);
		memcheck();
	}
	for (int i = 0; i < N; i += 2)
		runtime_free(p[i], n);
	memcheck();
	for (int i = 1; i < N; i += 2) {
		cr_assert_eq(p[i][0], i + 1);
		cr_assert_eq(p[i][n - 1], i + 1);
		runtime_free(p[i], n);
	}
	memcheck();
}

Test(mem, too_much_is_null)
{
	cr_assert_null(runtime_alloc((size_t)1 << 60));
	cr_assert_null(runtime_alloc(SIZE_MAX));
	cr_assert_null(runtime_alloc((size_t)200 << 40));
	cr_assert_null(persistentalloc((size_t)200 << 40, 0));
	cr_assert_not_null(runtime_alloc(10));
	memcheck();
}

enum { Many = 100000 };

Test(mem, many_holes_stay_fast, .timeout = 30)
{
	static char *p[Many];
	Rand r = {5};

	for (int i = 0; i < Many; i++)
		p[i] = runtime_alloc(200);
	for (int i = Many - 1; i > 0; i--) {
		int k = (int)(rnd(&r) % (uint64_t)(i + 1));
		char *t = p[i];

		p[i] = p[k];
		p[k] = t;
	}
	for (int i = 0; i < Many; i += 2)
		runtime_free(p[i], 200);
	memcheck();
	for (int i = 0; i < Many; i += 2)
		p[i] = runtime_alloc(200);
	for (int i = 0; i < Many; i++)
		runtime_free(p[i], 200);
	cr_assert_eq(memcheck(), 1);
}

static void *allocfree(void *arg)
{
	Rand r = {(uint64_t)(intptr_t)arg};

	for (int i = 0; i < 20000; i++) {
		size_t n = 1 + rnd(&r) % 1000;
		char *p = runtime_alloc(n);

		if (p == NULL || !allzero(p, n))
			abort();
		memset(p, 1, n);
		runtime_free(p, n);
	}
	return NULL;
}

Test(mem, threads_do_not_disturb_each_other, .timeout = 60)
{
	pthread_t t[4];

	for (intptr_t i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, allocfree, (void *)(i + 1));
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	cr_assert_eq(memcheck(), 1);
}

/* --- persistent memory ---------------------------------------------------------- */

Test(mem, persistent_memory_is_zero_aligned_and_apart)
{
	static const size_t align[] = {0, 1, 8, 16, 64, 4096};
	char *last = NULL;
	Rand r = {9};

	for (int i = 0; i < 3000; i++) {
		size_t a = align[rnd(&r) % 6], n = 1 + rnd(&r) % (i % 100 == 0 ? 100000 : 300);
		char *p = persistentalloc(n, a);

		cr_assert_not_null(p);
		cr_assert_eq((uintptr_t)p % (a == 0 ? 16 : a), 0);
		cr_assert(allzero(p, n), "zero and not handed out before");
		memset(p, 0xee, n);
		cr_assert_neq(p, last);
		last = p;
	}
}

TestThrows(mem, persistent_align_must_be_a_power_of_two)
{
	persistentalloc(8, 24);
}

/* --- misuse and corruption --------------------------------------------------------- */

TestThrows(mem, double_free_throws)
{
	char *p = runtime_alloc(100);

	runtime_alloc(64);
	runtime_free(p, 100);
	runtime_free(p, 100);
}

TestThrows(mem, free_of_foreign_memory_throws)
{
	static _Alignas(64) char foreign[64];

	runtime_alloc(64);
	runtime_free(foreign, 64);
}

/* Five free blocks with memory in use between them. */
static void holes(char *p[5])
{
	for (int i = 0; i < 5; i++) {
		p[i] = runtime_alloc(256);
		runtime_alloc(256);
	}
	for (int i = 0; i < 5; i++)
		runtime_free(p[i], 256);
	memcheck();
}

static Head *withboth(char *p[5])
{
	for (int i = 0; i < 5; i++) {
		Head *h = (Head *)p[i];

		if (h->left != NULL || h->right != NULL)
			return h;
	}
	cr_skip_test("no inner node");
	return NULL;
}

TestThrows(memcheck, finds_a_write_to_free_memory)
{
	char *p[5];

	holes(p);
	p[2][200] = 1;
	memcheck();
}

TestThrows(memcheck, finds_a_write_when_it_is_on)
{
	char *p[5];

	holes(p);
	p[2][64] = 1;
	memcheck_on = true;
	runtime_alloc(64);
}

TestThrows(memcheck, finds_a_loop)
{
	char *p[5];
	Head *h;

	holes(p);
	h = withboth(p);
	if (h->left != NULL)
		h->left->left = h->left;
	else
		h->right->right = h->right;
	memcheck();
}

TestThrows(memcheck, finds_disorder)
{
	char *p[5];
	Head *h, *t;

	holes(p);
	h = withboth(p);
	t = h->left;
	h->left = h->right;
	h->right = t;
	memcheck();
}

TestThrows(memcheck, finds_overlap)
{
	char *p[5];

	holes(p);
	((Head *)p[1])->size = 256 * 3;
	((Head *)p[1])->max = 256 * 3;
	memcheck();
}

TestThrows(memcheck, finds_a_lost_block)
{
	char *p[5];
	Head *h;

	holes(p);
	h = withboth(p);
	h->left = h->right = NULL;
	h->max = h->size;
	memcheck();
}

TestThrows(memcheck, finds_a_block_outside)
{
	static _Alignas(64) Head outside = {.size = 64, .max = 64};
	char *p[5];
	Head *h;

	holes(p);
	h = withboth(p);
	if (h->left != NULL)
		h->left->left = &outside;
	else
		h->right->right = &outside;
	memcheck();
}

TestThrows(memcheck, finds_a_bad_size)
{
	char *p[5];

	holes(p);
	((Head *)p[3])->size = 100;
	memcheck();
}

/* --- fork ---------------------------------------------------------------------------- */

Test(mem, forked_child_begins_anew)
{
	char *p = runtime_alloc(1000), *q;
	int status;
	pid_t pid;

	memset(p, 5, 1000);
	pid = fork();
	if (pid == 0) {
		memforkchild();
		q = runtime_alloc(1000);
		if (q == NULL || !allzero(q, 1000) || p[999] != 5)
			_exit(1);
		memset(q, 6, 1000);
		runtime_free(p, 1000); /* the parent's: left alone */
		if (p[0] != 5 || persistentalloc(10, 0) == NULL)
			_exit(2);
		runtime_free(q, 1000);
		_exit(memcheck() == 1 ? 0 : 3);
	}
	waitpid(pid, &status, 0);
	cr_assert_eq(status, 0);
}
