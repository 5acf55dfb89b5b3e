/*
 * Computing on stacks that the program has switched to by itself: coroutines by makecontext and by instructions of its
 * own, a small stack that is nearly used up, a stack pointer that points nowhere. Others run meanwhile, nothing is
 * written there, coroutines go on in other threads, and threads end there and fork.
 */
#include "coroutine.h"

#include <limits.h>
#include <sys/mman.h>
#include <ucontext.h>

static void spin_in_coroutine(struct coroutine *c)
{
	until_stopped();
	finish(c);
}

static void *call_spinner(void *arg)
{
	char *stack = malloc(STACK);
	struct coroutine c;

	prepare(&c, spin_in_coroutine, stack, STACK);
	go_on(&c);
	CHECK(c.ended);
	free(stack);
	return arg;
}

/* Each waits for its number: as many switches as there are steps. */
static int turn;
enum { CHAIN = 16, STEPS = 2 };

static void wait_for_turns(struct coroutine *c)
{
	for (int s = 0; s < STEPS; s++) {
		while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) != s * CHAIN + (int)c->steps)
			;
		__atomic_add_fetch(&turn, 1, __ATOMIC_RELEASE);
	}
	finish(c);
}

static void *take_turns(void *arg)
{
	char *stack = malloc(STACK);
	struct coroutine c;

	prepare(&c, wait_for_turns, stack, STACK);
	c.steps = (uintptr_t)arg;
	go_on(&c);
	CHECK(c.ended);
	free(stack);
	return NULL;
}

static void others_get_their_turns(void)
{
	pthread_t t[CHAIN];

	turn = 0;
	for (int i = 0; i < CHAIN; i++)
		t[i] = spawn(take_turns, (void *)(intptr_t)i);
	for (int i = 0; i < CHAIN; i++)
		join(t[i]);
	CHECK_EQ(turn, CHAIN * STEPS);
}

/* When all have begun, each that can't be preempted has a kernel thread for itself. */
static void they_share_kernel_threads(void)
{
	enum { SPINNERS = 40 };
	pthread_t t[SPINNERS];

	begin();
	for (int i = 0; i < SPINNERS; i++)
		t[i] = spawn(call_spinner, NULL);
	while (__atomic_load_n(&begun, __ATOMIC_ACQUIRE) != SPINNERS)
		sleep_ms(1);
	int n = kernel_threads();
	end();
	for (int i = 0; i < SPINNERS; i++)
		join(t[i]);
	if (under_shim() && n >= SPINNERS)
		FAIL("%d kernel threads for %d coroutines that compute", n, SPINNERS);
}

/* --- little or no room ---------------------------------------------------------------------------------------- */

/* rdi: the new stack pointer, rsi: the flag that ends it. No register but rax and rdx is in use, nothing is written. */
__asm__(".type spin_at, @function\n"
	"spin_at:\n"
	"	mov %rsp, %rdx\n"
	"	mov %rdi, %rsp\n"
	"1:	mov (%rsi), %eax\n"
	"	test %eax, %eax\n"
	"	jz 1b\n"
	"	mov %rdx, %rsp\n"
	"	ret\n"
	".size spin_at, . - spin_at\n");
void spin_at(void *sp, int *flag);

/* A page between two that are closed, all but full. */
static void *compute_without_room(void *arg)
{
	enum { PAGE = 4096 };
	static const int left[] = {0, 8, 128, 1000};
	int room = left[(uintptr_t)arg % COUNT(left)];
	unsigned char *m = mmap(NULL, 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(m != MAP_FAILED && mprotect(m + PAGE, PAGE, PROT_READ | PROT_WRITE) == 0);
	for (int i = 0; i < PAGE; i++)
		m[PAGE + i] = (unsigned char)(i * 7 + (uintptr_t)arg);
	spin_at(m + PAGE + room, &stop);
	for (int i = 0; i < PAGE; i++)
		if (m[PAGE + i] != (unsigned char)(i * 7 + (uintptr_t)arg)) {
			FAIL("byte %d of a stack pointed to at %d was written", i, room);
			break;
		}
	munmap(m, 3 * PAGE);
	return NULL;
}

/* No stack at all: a program may keep something else in that register as long as no signal comes. */
static void *compute_nowhere(void *arg)
{
	static const uintptr_t sp[] = {0, 64, 0x8000000000000000, UINTPTR_MAX - 15};

	spin_at((void *)sp[(uintptr_t)arg % COUNT(sp)], &stop);
	return NULL;
}

/* The last bytes of a thread's own stack. */
static void *compute_at_the_end(void *arg)
{
	pthread_attr_t a;
	void *lo;
	size_t size;

	REQUIRE_OK(pthread_getattr_np(pthread_self(), &a));
	REQUIRE_OK(pthread_attr_getstack(&a, &lo, &size));
	pthread_attr_destroy(&a);
	spin_at((char *)lo + 64 * (uintptr_t)arg, &stop);
	return NULL;
}

static void nothing_is_written(void)
{
	among_spinners(compute_without_room, STACK);
}

static void no_stack(void)
{
	among_spinners(compute_nowhere, STACK);
}

static void at_the_end_of_its_stack(void)
{
	among_spinners(compute_at_the_end, PTHREAD_STACK_MIN);
}

/* --- coroutines that go from thread to thread -------------------------------------------------------------------- */

enum { MOVERS = 12, WORKERS = 5, MOVES = 30 };

static pthread_mutex_t ready_lock = PTHREAD_MUTEX_INITIALIZER;
static struct coroutine *ready;
static int left;

enum { ROUND = 60000 };

static void compute_and_pause(struct coroutine *c)
{
	double d = 1;
	uint64_t h = (uintptr_t)c->stack[0];

	for (int m = 0; m < MOVES; m++) {
		for (int i = 0; i < ROUND; i++) {
			h = mix(h, i);
			d = d * 1.0000001 + 1e-9;
		}
		c->steps++;
		pause_here(c);
	}
	uint64_t bits;
	memcpy(&bits, &d, sizeof bits);
	c->sum = h ^ bits;
	finish(c);
}

static void *work(void *arg)
{
	for (;;) {
		pthread_mutex_lock(&ready_lock);
		struct coroutine *c = ready;
		int n = left;
		if (c)
			ready = c->next;
		pthread_mutex_unlock(&ready_lock);
		if (n == 0)
			return arg;
		if (!c) {
			sched_yield();
			continue;
		}
		go_on(c);
		pthread_mutex_lock(&ready_lock);
		if (c->ended) {
			left--;
		} else {
			struct coroutine **at = &ready;
			while (*at)
				at = &(*at)->next;
			c->next = NULL;
			*at = c;
		}
		pthread_mutex_unlock(&ready_lock);
	}
}

static void moved_between_threads(void)
{
	static struct coroutine c[MOVERS];
	static char stacks[MOVERS][STACK];
	pthread_t t[WORKERS];
	uint64_t want = 0;

	ready = NULL;
	left = MOVERS;
	for (int i = 0; i < MOVERS; i++) {
		prepare(&c[i], compute_and_pause, stacks[i], STACK);
		c[i].next = ready;
		ready = &c[i];
	}
	for (int i = 0; i < WORKERS; i++)
		t[i] = spawn(work, NULL);
	for (int i = 0; i < WORKERS; i++)
		join(t[i]);
	for (int i = 0; i < MOVERS; i++) {
		CHECK_EQ(c[i].steps, MOVES);
		if (i == 0)
			want = c[i].sum;
		if (c[i].sum != want)
			FAIL("coroutine %d computes another sum", i);
	}
}

/* The same by libc's functions, two coroutines of one thread in turn, many threads. */
struct pair {
	ucontext_t main, uc[2];
	uint64_t sum[2];
};

static void swap_and_compute(unsigned lo, unsigned hi, int me)
{
	struct pair *p = (struct pair *)((uintptr_t)hi << 32 | lo);
	uint64_t h = 1;

	for (int m = 1; m <= MOVES; m++) {
		for (int i = 0; i < ROUND / 2; i++)
			h = mix(h, i);
		p->sum[me] = h;
		REQUIRE(swapcontext(&p->uc[me], m < MOVES || me == 0 ? &p->uc[!me] : &p->main) ==
			0);
	}
}

static void make_context(struct pair *p, int i, char *stack)
{
	REQUIRE(getcontext(&p->uc[i]) == 0);
	p->uc[i].uc_stack.ss_sp = stack;
	p->uc[i].uc_stack.ss_size = STACK;
	makecontext(&p->uc[i], (void (*)(void))swap_and_compute, 3, (unsigned)(uintptr_t)p,
		    (unsigned)((uintptr_t)p >> 32), i);
}

static void *swap_contexts(void *arg)
{
	struct pair *p = calloc(1, sizeof *p);
	char *stacks = malloc(2 * STACK);

	make_context(p, 0, stacks);
	make_context(p, 1, stacks + STACK);
	REQUIRE(swapcontext(&p->main, &p->uc[0]) == 0);
	uint64_t want = 1;
	for (int m = 0; m < MOVES; m++)
		for (int i = 0; i < ROUND / 2; i++)
			want = mix(want, i);
	CHECK(p->sum[0] == want);
	CHECK(p->sum[1] == want);
	free(stacks);
	free(p);
	return arg;
}

static void contexts_in_turn(void)
{
	pthread_t t[6];

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(swap_contexts, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

/* --- the ends ---------------------------------------------------------------------------------------------------------------- */

static void exit_in_coroutine(struct coroutine *c)
{
	for (volatile int i = 0; i < 3000000; i++)
		;
	pthread_exit(c->stack);
}

static void *end_in_coroutine(void *stack)
{
	struct coroutine c;

	prepare(&c, exit_in_coroutine, stack, STACK);
	go_on(&c);
	FAIL("a thread that has ended goes on");
	return NULL;
}

static void threads_that_end_there(void)
{
	enum { AT_A_TIME = 6 };
	static char stacks[AT_A_TIME][STACK];
	pthread_t t[AT_A_TIME];

	for (int round = 0; round < 10; round++) {
		for (int i = 0; i < AT_A_TIME; i++)
			t[i] = spawn(end_in_coroutine, stacks[i]);
		for (int i = 0; i < AT_A_TIME; i++)
			CHECK(join(t[i]) == stacks[i]);
	}
}

/* The child of a coroutine makes threads and goes back to its thread's stack. */
static void fork_in_coroutine(struct coroutine *c)
{
	for (volatile int i = 0; i < 3000000; i++)
		;
	c->ended = fork();
	if (c->ended == 0) {
		pthread_t t[8];
		for (unsigned i = 0; i < COUNT(t); i++)
			t[i] = spawn(call_spinner, NULL);
		sleep_ms(20);
		end();
		for (unsigned i = 0; i < COUNT(t); i++)
			join(t[i]);
	}
	pause_here(c);
}

static void *call_fork(void *arg)
{
	char *stack = malloc(STACK);
	unsigned char mine[4096];
	struct coroutine c;
	int status;

	memset(mine, 0x5a, sizeof mine);
	__asm__ volatile("" : : "r"(mine) : "memory");
	prepare(&c, fork_in_coroutine, stack, STACK);
	go_on(&c);
	if (c.ended == 0) {
		for (size_t i = 0; i < sizeof mine; i++)
			if (mine[i] != 0x5a)
				_exit(1);
		_exit(test_failures ? 99 : 0);
	}
	REQUIRE(waitpid(c.ended, &status, 0) == c.ended);
	CHECK_EQ(status, 0);
	free(stack);
	return arg;
}

static void children_made_there(void)
{
	pthread_t t[3], spinner;

	begin();
	spinner = spawn(call_spinner, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(call_fork, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	end();
	join(spinner);
}

static const struct test_case cases[] = {
    {"others_get_their_turns", others_get_their_turns},
    {"they_share_kernel_threads", they_share_kernel_threads},
    {"nothing_is_written", nothing_is_written},
    {"no_stack", no_stack},
    {"at_the_end_of_its_stack", at_the_end_of_its_stack},
    {"moved_between_threads", moved_between_threads},
    {"contexts_in_turn", contexts_in_turn},
    {"threads_that_end_there", threads_that_end_there},
    {"children_made_there", children_made_there},
};

TEST_MAIN(cases)
