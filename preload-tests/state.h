/*
 * State that the kernel keeps for a thread, a row for each kind. One thread sets it while others
 * run, wait and are made: it keeps what it has set, none of them sees it, and threads that it makes
 * itself have what the kernel gives them, which is mostly the same.
 *
 * A test defines `kinds` between this header and STATE_MAIN.
 */
#ifndef STATE_H
#define STATE_H

#include "test.h"

enum { OTHERS = 6, LATER = 12, TURNS = 400, UNTRIED = 77 };

struct kind {
	const char *name;
	int (*set)(void);  /* 0, or the kernel has no such thing */
	long (*get)(void); /* a number that tells one state from another */
	int flags;
};
enum {
	NOT_INHERITED = 1, /* by threads that the one which has it makes */
	ANEW = 2,          /* ... have one of their own */
	NO_HEIRS = 4,      /* ... cannot be made: EINVAL */
	FOR_ALL = 8,       /* not of a thread at all: all have it */
};

static const struct kind *kind;
static long before, ours;
static int marker; /* a descriptor */
static int stop, here, set_result;
static pthread_barrier_t both;

static long mix(const void *p, size_t n)
{
	unsigned long h = 5381;

	for (size_t i = 0; i < n; i++)
		h = h * 33 + ((const unsigned char *)p)[i];
	return (long)(h & 0x7fffffffffff);
}

static void expect(const char *who, long want)
{
	long got = kind->get();

	if (got != want)
		FAIL("%s: %s has %lx, not %lx", kind->name, who, got, want);
}

static void *stranger(void *arg)
{
	const char *who = arg;

	__atomic_add_fetch(&here, 1, __ATOMIC_RELEASE);
	for (int i = 0; !__atomic_load_n(&stop, __ATOMIC_ACQUIRE); i++) {
		if (!(kind->flags & FOR_ALL))
			expect(who, before);
		if (i % 8 == 0)
			usleep(300);
		else
			sched_yield();
	}
	expect(who, kind->flags & FOR_ALL ? ours : before);
	return NULL;
}

static void *once(void *arg)
{
	expect(arg, kind->flags & FOR_ALL ? ours : before);
	return NULL;
}

static void *heir_of_heir(void *arg)
{
	expect("a child's child", ours);
	return arg;
}

static void *heir(void *arg)
{
	for (int i = 0; i < 20; i++) {
		if (kind->flags & ANEW)
			CHECK(kind->get() != ours);
		else
			expect("a child", kind->flags & NOT_INHERITED ? before : ours);
		sched_yield();
	}
	if (!(kind->flags & (NOT_INHERITED | ANEW)))
		join(spawn(heir_of_heir, NULL));
	return arg;
}

static void bequeath(void)
{
	pthread_t t[2];

	for (int i = 0; i < 2; i++) {
		int r = pthread_create(&t[i], NULL, heir, NULL);
		CHECK_EQ(r, kind->flags & NO_HEIRS ? EINVAL : 0);
		if (r != 0)
			return;
	}
	join(t[0]);
	join(t[1]);
}

static void *setter(void *arg)
{
	set_result = kind->set();
	if (set_result == 0) {
		ours = kind->get();
		if (ours == before)
			FAIL("%s: nothing has changed, %lx", kind->name, ours);
	}
	pthread_barrier_wait(&both);
	for (int i = 0; i < TURNS && set_result == 0; i++) {
		sched_yield();
		if (i % 16 == 0)
			expect("who has set it", ours);
		if (i % 100 == 50)
			usleep(300);
		if (i % 100 == 0)
			bequeath();
	}
	return arg;
}

static int trial(void)
{
	pthread_t t[OTHERS], later[LATER];

	pthread_barrier_init(&both, NULL, 2);
	/* Not the lowest number, which a thread that ends in kernel mode has for a moment (docs/limits.md). */
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	marker = fcntl(null, F_DUPFD_CLOEXEC, 100);
	REQUIRE(marker >= 100);
	close(null);
	before = kind->get();
	for (int i = 0; i < OTHERS; i++)
		t[i] = spawn(stranger, "a stranger");
	REQUIRE(wait_for(&here, OTHERS, 30000));
	pthread_t s = spawn(setter, NULL);
	pthread_barrier_wait(&both);
	for (int i = 0; i < LATER && set_result == 0; i++)
		later[i] = spawn(once, "one made by main meanwhile");
	for (int i = 0; i < LATER && set_result == 0; i++)
		join(later[i]);
	join(s);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (int i = 0; i < OTHERS; i++)
		join(t[i]);
	if (set_result != 0)
		return UNTRIED;
	for (int i = 0; i < LATER; i++)
		later[i] = spawn(once, "one made afterwards");
	for (int i = 0; i < LATER; i++)
		join(later[i]);
	once("main");
	return 0;
}

static const char *only;

static void each_kind(const struct kind *kinds, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		kind = &kinds[i];
		if (only && strcmp(kind->name, only) != 0)
			continue;
		int status = in_child(trial);
		if (status == UNTRIED << 8)
			say("%s: not to be had here", kind->name);
		else if (status != 0)
			FAIL("%s: status %#x", kind->name, status);
	}
}

/* `each NAME` tries one. */
#define STATE_MAIN                                                               \
	static void each(void)                                                   \
	{                                                                        \
		each_kind(kinds, COUNT(kinds));                                  \
	}                                                                        \
	static const struct test_case cases[] = {{"each", each}};                \
	int main(int argc, char **argv)                                          \
	{                                                                        \
		if (geteuid() != 0)                                              \
			return 77;                                               \
		only = argc > 2 ? argv[2] : NULL;                                \
		return test_run(argc > 2 ? 2 : argc, argv, cases, COUNT(cases)); \
	}

#endif
