/*
 * Futexes by syscall(): every operation on private and on shared words, the waits for several words, and the calls of
 * Linux 6.7 which do one operation each. Who waits in one way is woken in every other that the kernel knows, nobody by
 * what is for others, and wrong arguments get the kernel's answers.
 */
#include "test.h"

#include <linux/futex.h>
#include <sys/mman.h>

enum { WAITV = 449, WAKE = 454, WAIT = 455, REQUEUE = 456, U32 = 2, U32_PRIVATE = 2 | 128 };
#define EVERY 0xffffffffUL

/* Words of this process, or shared. */
static uint32_t mine[4], *shared, *w;
static int flag; /* of the operations on w */

static long futex(uint32_t *word, int op, long val, const void *timeout, void *word2, long val3)
{
	return syscall(SYS_futex, word, op, val, timeout, word2, val3);
}

struct waitv {
	uint64_t val, uaddr;
	uint32_t flags, reserved;
};

static int has(long nr)
{
	return syscall(nr, 0, 0, 0, 0, 0, 0) != -1 || errno != ENOSYS;
}

/* --- ways to wait for w[0] == 0; 0, or the index that was woken ----------------------------- */

static long wait_plain(void)
{
	return futex(w, FUTEX_WAIT | flag, 0, NULL, NULL, 0);
}

static long wait_limited(void)
{
	struct timespec hour = {3600, 0};
	return futex(w, FUTEX_WAIT | flag, 0, &hour, NULL, 0);
}

static long wait_bits(void)
{
	return futex(w, FUTEX_WAIT_BITSET | flag, 0, NULL, NULL, 6);
}

static long wait_until(void)
{
	struct timespec end = after_ms(CLOCK_REALTIME, 3600000);
	return futex(w, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME | flag, 0, &end, NULL, 6);
}

static long wait_several(void)
{
	struct waitv v[2] = {{0, (uintptr_t)&w[1], U32 | flag, 0},
			     {0, (uintptr_t)w, U32 | flag, 0}};
	return syscall(WAITV, v, 2, 0, NULL, 0) == 1 ? 0 : -1;
}

static long wait_new(void)
{
	return syscall(WAIT, w, 0, EVERY, U32 | flag, NULL, 0);
}

static long wait_new_until(void)
{
	struct timespec end = after_ms(CLOCK_MONOTONIC, 3600000);
	return syscall(WAIT, w, 0, 6L, U32 | flag, &end, CLOCK_MONOTONIC);
}

/* --- ways to wake one; the number that was --------------------------------------------------- */

static long wake_plain(void)
{
	return futex(w, FUTEX_WAKE | flag, 1, NULL, NULL, 0);
}

static long wake_bits(void)
{
	return futex(w, FUTEX_WAKE_BITSET | flag, 1, NULL, NULL, 2);
}

static long wake_op_first(void)
{
	return futex(w, FUTEX_WAKE_OP | flag, 1, NULL, &mine[1],
		     FUTEX_OP(FUTEX_OP_SET, 0, FUTEX_OP_CMP_EQ, 1));
}

static long wake_op_second(void)
{
	static uint32_t other;
	return futex(flag ? &other : &shared[9], FUTEX_WAKE_OP | flag, 1, (void *)1L, w,
		     FUTEX_OP(FUTEX_OP_ADD, 0, FUTEX_OP_CMP_EQ, 0));
}

/* One whom the kernel has woken for no reason waits again where it began, although it was moved: seldom. */
static int went_back;

static long wake_moved(void)
{
	uint32_t *to = &w[2];
	long moved = futex(w, FUTEX_CMP_REQUEUE | flag, 0, (void *)1L, to, 0);

	if (moved <= 0)
		return moved;
	long back = futex(w, FUTEX_WAKE | flag, 1, NULL, NULL, 0);
	went_back += back == 1;
	return back + futex(to, FUTEX_WAKE | flag, 1, NULL, NULL, 0);
}

static long wake_moved_unseen(void)
{
	uint32_t *to = &w[2];
	long moved = futex(w, FUTEX_REQUEUE | flag, 0, (void *)1L, to, 0);

	return moved <= 0 ? moved : futex(to, FUTEX_WAKE | flag, 1, NULL, NULL, 0);
}

static long wake_new(void)
{
	return syscall(WAKE, w, EVERY, 1, U32 | flag);
}

static long wake_new_bits(void)
{
	return syscall(WAKE, w, 4L, 1, U32 | flag);
}

static long wake_new_moved(void)
{
	struct waitv v[2] = {{0, (uintptr_t)w, U32 | flag, 0},
			     {0, (uintptr_t)&w[2], U32 | flag, 0}};
	long moved = syscall(REQUEUE, v, 0, 0, 1);

	return moved <= 0 ? moved : futex(&w[2], FUTEX_WAKE | flag, 1, NULL, NULL, 0);
}

/* What wakes nobody. */
static long wake_other_bits(void)
{
	return futex(w, FUTEX_WAKE_BITSET | flag, 9, NULL, NULL, 1);
}

static long wake_other_word(void)
{
	return futex(&w[3], FUTEX_WAKE | flag, 9, NULL, NULL, 0);
}

enum { NEW = 1, BITS = 2, SEVERAL = 4 };
static const struct way {
	const char *name;
	long (*fn)(void);
	int flags;
} waits[] =
    {
	{"FUTEX_WAIT", wait_plain, 0},
	{"FUTEX_WAIT with a limit", wait_limited, 0},
	{"FUTEX_WAIT_BITSET", wait_bits, BITS},
	{"FUTEX_WAIT_BITSET until", wait_until, BITS},
	{"futex_waitv", wait_several, SEVERAL},
	{"futex_wait", wait_new, NEW},
	{"futex_wait until", wait_new_until, NEW | BITS},
},
  wakes[] =
      {
	  {"FUTEX_WAKE", wake_plain, 0},
	  {"FUTEX_WAKE_BITSET", wake_bits, 0},
	  {"FUTEX_WAKE_OP, first", wake_op_first, 0},
	  {"FUTEX_WAKE_OP, second", wake_op_second, 0},
	  {"FUTEX_CMP_REQUEUE", wake_moved, 0},
	  {"FUTEX_REQUEUE", wake_moved_unseen, 0},
	  {"futex_wake", wake_new, NEW},
	  {"futex_wake with bits", wake_new_bits, NEW},
	  {"futex_requeue", wake_new_moved, NEW},
},
  misses[] = {
      {"other bits", wake_other_bits, BITS},
      {"other word", wake_other_word, 0},
};

static int done;
static long result;

static void *waiter(void *arg)
{
	const struct way *way = arg;

	result = way->fn();
	__atomic_store_n(&done, 1, __ATOMIC_RELEASE);
	return NULL;
}

static int known(const struct way *way)
{
	return !(way->flags & NEW) || has(WAKE);
}

static void wakes_it(const struct way *wait, const struct way *wake)
{
	long r = 0;

	if (!known(wait) || !known(wake) || (wait->flags & SEVERAL && !has(WAITV)))
		return;
	memset(w, 0, 4 * sizeof *w);
	done = 0;
	pthread_t t = spawn(waiter, (void *)wait);
	for (unsigned i = 0; i < COUNT(misses); i++) {
		if (misses[i].flags & BITS && !(wait->flags & BITS))
			continue;
		CHECK_EQ(misses[i].fn(), 0);
	}
	/* Until it waits. */
	for (int64_t end = now_ms() + 10000; r == 0 && now_ms() < end;) {
		sched_yield();
		r = wake->fn();
	}
	if (r != 1)
		FAIL("%s by %s: %ld, errno %d", wait->name, wake->name, r, errno);
	if (!wait_for(&done, 1, 10000)) {
		FAIL("%s still waits after %s", wait->name, wake->name);
		_exit(1);
	}
	join(t);
	CHECK_EQ(result, 0);
}

static void every_pair(void)
{
	for (unsigned i = 0; i < COUNT(waits); i++)
		for (unsigned k = 0; k < COUNT(wakes); k++)
			wakes_it(&waits[i], &wakes[k]);
	CHECK(went_back <= 3);
}

static void private_words(void)
{
	static uint32_t own[16];

	w = own;
	flag = FUTEX_PRIVATE_FLAG;
	every_pair();
}

static void shared_words(void)
{
	w = shared;
	flag = 0;
	every_pair();
}

static void *answers(void *arg)
{
	struct timespec past = {1, 0}, soon = {0, 2000000}, bad = {0, 2000000000}, minus = {-1, 0};
	uint32_t *a = &mine[0], *b = &mine[1], *volatile odd = (uint32_t *)((char *)a + 1);
	int p = FUTEX_PRIVATE_FLAG;

	*a = 5;
	CHECK_ERRNO(futex(a, FUTEX_WAIT | p, 0, NULL, NULL, 0), EAGAIN);
	int64_t start = now_ns();
	CHECK_ERRNO(futex(a, FUTEX_WAIT | p, 5, &soon, NULL, 0), ETIMEDOUT);
	CHECK(now_ns() - start >= 2000000);
	CHECK_ERRNO(futex(a, FUTEX_WAIT_BITSET | p, 5, &past, NULL, EVERY), ETIMEDOUT);
	CHECK_ERRNO(futex(a, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME | p, 5, &past, NULL, EVERY),
		    ETIMEDOUT);
	CHECK_ERRNO(futex(a, FUTEX_WAIT | FUTEX_CLOCK_REALTIME | p, 5, &soon, NULL, 0), ENOSYS);
	CHECK_ERRNO(futex(a, FUTEX_WAIT | p, 5, &bad, NULL, 0), EINVAL);
	CHECK_ERRNO(futex(a, FUTEX_WAIT | p, 5, &minus, NULL, 0), EINVAL);
	CHECK_ERRNO(futex(a, FUTEX_WAIT_BITSET | p, 5, NULL, NULL, 0), EINVAL);
	CHECK_ERRNO(futex(a, FUTEX_WAKE_BITSET | p, 5, NULL, NULL, 0), EINVAL);
	CHECK_ERRNO(futex(odd, FUTEX_WAIT | p, 5, NULL, NULL, 0), EINVAL);
	CHECK_ERRNO(futex(odd, FUTEX_WAKE | p, 5, NULL, NULL, 0), EINVAL);
	CHECK_ERRNO(futex(NULL, FUTEX_WAIT | p, 5, NULL, NULL, 0), EFAULT);
	CHECK_EQ(futex(a, FUTEX_WAKE | p, -1, NULL, NULL, 0), 0);
	CHECK_ERRNO(futex(a, FUTEX_WAKE | FUTEX_CLOCK_REALTIME | p, 1, NULL, NULL, 0), ENOSYS);
	CHECK_ERRNO(futex(a, FUTEX_REQUEUE | p, -1, (void *)1L, b, 0), EINVAL);
	CHECK_ERRNO(futex(a, FUTEX_REQUEUE | p, 1, (void *)-1L, b, 0), EINVAL);
	CHECK_ERRNO(futex(a, FUTEX_REQUEUE | p, 1, (void *)1L, odd, 0), EINVAL);
	CHECK_ERRNO(futex(a, FUTEX_CMP_REQUEUE | p, 1, (void *)1L, b, 6), EAGAIN);
	CHECK_EQ(futex(a, FUTEX_CMP_REQUEUE | p, 1, (void *)1L, a, 5), 0);
	CHECK_ERRNO(futex(a, FUTEX_WAKE_OP | p, 1, (void *)1L, odd, FUTEX_OP(0, 1, 0, 0)), EINVAL);
	CHECK_ERRNO(futex(a, FUTEX_WAKE_OP | p, 1, (void *)1L, b, FUTEX_OP(7, 1, 0, 0)), ENOSYS);
	CHECK_ERRNO(futex(a, FUTEX_WAKE_OP | p, 1, (void *)1L, b, FUTEX_OP(0, 1, 9, 0)), ENOSYS);
	CHECK_ERRNO(futex(a, 99 | p, 1, NULL, NULL, 0), ENOSYS);
	static const struct {
		int op;
		uint32_t arg, before, after;
	} ops[] = {
	    {FUTEX_OP_SET, 4095, 1, UINT32_MAX},
	    {FUTEX_OP_ADD, 4095, 10, 9},
	    {FUTEX_OP_OR, 5, 10, 15},
	    {FUTEX_OP_OR | FUTEX_OP_OPARG_SHIFT, 4, 10, 26},
	    {FUTEX_OP_ADD | FUTEX_OP_OPARG_SHIFT, 31, 10, 0x8000000a},
	    {FUTEX_OP_ANDN, 4, 12, 8},
	    {FUTEX_OP_XOR, 5, 12, 9},
	};
	for (unsigned i = 0; i < COUNT(ops); i++) {
		*b = ops[i].before;
		CHECK_EQ(futex(a, FUTEX_WAKE_OP | p, 1, (void *)1L, b,
			       (long)((unsigned)ops[i].op << 28 | ops[i].arg << 12)),
			 0);
		CHECK_EQ(*b, ops[i].after);
	}
	return arg;
}

static void *new_answers(void *arg)
{
	struct timespec soon = after_ms(CLOCK_MONOTONIC, 3);
	struct waitv v[2] = {{0, (uintptr_t)&mine[0], U32_PRIVATE, 0},
			     {1, (uintptr_t)&mine[1], U32_PRIVATE, 0}};

	mine[0] = mine[1] = 0;
	if (has(WAITV)) {
		CHECK_ERRNO(syscall(WAITV, v, 2, 0, &soon, CLOCK_MONOTONIC), EAGAIN);
		v[1].val = 0;
		CHECK_ERRNO(syscall(WAITV, v, 2, 0, &soon, CLOCK_MONOTONIC), ETIMEDOUT);
		CHECK_ERRNO(syscall(WAITV, v, 0, 0, &soon, CLOCK_MONOTONIC), EINVAL);
		CHECK_ERRNO(syscall(WAITV, v, 129, 0, &soon, CLOCK_MONOTONIC), EINVAL);
		CHECK_ERRNO(syscall(WAITV, v, 2, 1, &soon, CLOCK_MONOTONIC), EINVAL);
		CHECK_ERRNO(syscall(WAITV, v, 2, 0, &soon, 7), EINVAL);
	}
	if (has(WAKE)) {
		CHECK_ERRNO(syscall(WAIT, &mine[0], 1, EVERY, U32_PRIVATE, NULL, 0), EAGAIN);
		CHECK_ERRNO(syscall(WAIT, &mine[0], 0, EVERY, U32_PRIVATE, &soon, CLOCK_MONOTONIC),
			    ETIMEDOUT);
		CHECK_ERRNO(syscall(WAIT, &mine[0], 0, EVERY, U32_PRIVATE, &soon, 7), EINVAL);
		CHECK_ERRNO(syscall(WAIT, &mine[0], 0, 0L, U32_PRIVATE, NULL, 0), EINVAL);
		CHECK_ERRNO(syscall(WAIT, &mine[0], 1L << 32, EVERY, U32_PRIVATE, NULL, 0), EINVAL);
		CHECK_ERRNO(syscall(WAKE, &mine[0], 1L << 32, 1, U32_PRIVATE), EINVAL);
		CHECK_ERRNO(syscall(WAKE, &mine[0], 0L, 1, U32_PRIVATE), EINVAL);
		CHECK_EQ(syscall(WAKE, &mine[0], EVERY, 0, U32_PRIVATE), 0);
		CHECK_ERRNO(syscall(WAKE, &mine[0], EVERY, 1, 1 | FUTEX_PRIVATE_FLAG), EINVAL);
		v[0].val = 1;
		CHECK_ERRNO(syscall(REQUEUE, v, 0, 1, 1), EAGAIN);
		CHECK_ERRNO(syscall(REQUEUE, v, 1, 1, 1), EINVAL);
		CHECK_ERRNO(syscall(REQUEUE, NULL, 0, 1, 1), EINVAL);
	}
	return arg;
}

static void wrong_arguments(void)
{
	join(spawn(answers, NULL));
	join(spawn(new_answers, NULL));
}

static const struct test_case cases[] = {
    {"private_words", private_words},
    {"shared_words", shared_words},
    {"wrong_arguments", wrong_arguments},
};

int main(int argc, char **argv)
{
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(shared != MAP_FAILED);
	return test_run(argc, argv, cases, COUNT(cases));
}
