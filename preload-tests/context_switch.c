/*
 * getcontext, setcontext, swapcontext and makecontext: the signal mask goes with the context, whichever thread goes on from
 * it, as do registers, rounding and arguments; what follows a context, or its absence, follows its function's return.
 */
#include "test.h"

#include <execinfo.h>
#include <fenv.h>
#include <ucontext.h>

enum { STACK = 128 << 10, TASKS = 4 };

static const int sigs[] = {SIGUSR1, SIGUSR2, SIGALRM, SIGPIPE, SIGPROF, SIGTTOU};

static sigset_t mask_of(unsigned bits)
{
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < COUNT(sigs); i++)
		if (bits & (1u << i))
			sigaddset(&set, sigs[i]);
	return set;
}

static unsigned bits_of(const sigset_t *set)
{
	unsigned bits = 0;

	for (unsigned i = 0; i < COUNT(sigs); i++)
		bits |= sigismember(set, sigs[i]) ? 1u << i : 0;
	return bits;
}

static void set_mask(unsigned bits)
{
	sigset_t set = mask_of(bits);

	REQUIRE_OK(pthread_sigmask(SIG_SETMASK, &set, NULL));
}

static unsigned mask(void)
{
	sigset_t now;

	REQUIRE_OK(pthread_sigmask(SIG_SETMASK, NULL, &now));
	return bits_of(&now);
}

/* Gives the thread a reason to go on elsewhere. */
static void move(int i)
{
	if (i % 3 == 0)
		sched_yield();
	else if (i % 7 == 0)
		usleep(50);
	else
		for (volatile int k = 0; k < 500; k++)
			;
}

static void task_on(ucontext_t *uc, char *stack, ucontext_t *link)
{
	REQUIRE(getcontext(uc) == 0);
	uc->uc_stack.ss_sp = stack;
	uc->uc_stack.ss_size = STACK;
	uc->uc_link = link;
}

/* --- one context ----------------------------------------------------------------------------------------------------------- */

static void save_and_set(unsigned bits)
{
	ucontext_t uc;
	volatile int times = 0;

	set_mask(bits);
	REQUIRE(getcontext(&uc) == 0);
	CHECK_EQ(mask(), bits);
	CHECK_EQ(bits_of(&uc.uc_sigmask), bits);
	/* As often as one likes. */
	if (times++ < 3) {
		set_mask(bits * 5 + (unsigned)times);
		move((int)bits);
		setcontext(&uc);
		FAIL("setcontext returns");
	}
	CHECK_EQ(times, 4);
}

static void *saves_and_sets(void *arg)
{
	for (unsigned bits = 0; bits < 1u << COUNT(sigs); bits++)
		save_and_set(bits);
	set_mask(0);
	return arg;
}

static ucontext_t early, early_task;
static char early_stack[STACK];
static volatile int early_times;

static void early_function(void)
{
	early_times++;
	CHECK_EQ(mask(), 2);
}

/* The first case: made while there is one thread, gone on from when there are more. */
static void saved_before_the_first_thread(void)
{
	volatile int times = 0;

	set_mask(2);
	task_on(&early_task, early_stack, &early);
	makecontext(&early_task, early_function, 0);
	set_mask(1);
	REQUIRE(getcontext(&early) == 0);
	CHECK_EQ(mask(), 1);
	if (times++ == 0) {
		join(spawn(saves_and_sets, NULL));
		set_mask(4);
		setcontext(&early_task);
		FAIL("setcontext returns");
	}
	CHECK_EQ(times, 2);
	CHECK_EQ(early_times, 1);
	set_mask(0);
}

/* --- tasks that switch ------------------------------------------------------------------------------------------------------- */

struct crew {
	ucontext_t task[TASKS], home;
	char (*stacks)[STACK];
	int at, left;
	int seed;
};

static const int rounding[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};

static void next_task(struct crew *c)
{
	int from = c->at;

	c->at = (from + 1) % TASKS;
	REQUIRE(swapcontext(&c->task[from], &c->task[c->at]) == 0);
}

static void crew_task(unsigned high, unsigned low)
{
	struct crew *c = (struct crew *)((uintptr_t)high << 32 | low);
	int me = c->at;
	unsigned m = (unsigned)(me * 9 + c->seed) % (1u << COUNT(sigs));
	double a = me + 1.25, b = c->seed;

	CHECK_EQ(mask(), me);
	set_mask(m);
	fesetround(rounding[me]);
	while (c->left-- > 0) {
		move(c->left);
		next_task(c);
		CHECK_EQ(c->at, me);
		CHECK_EQ(mask(), m);
		CHECK_EQ(fegetround(), rounding[me]);
		CHECK(a == me + 1.25 && b == c->seed);
	}
	/* The others stay where they are: all of them have a stack of their own, and no more. */
	fesetround(FE_TONEAREST);
}

static struct crew *new_crew(int seed, int rounds)
{
	struct crew *c = calloc(1, sizeof *c);

	REQUIRE(c && (c->stacks = calloc(TASKS, STACK)));
	c->seed = seed;
	c->left = rounds;
	for (int i = 0; i < TASKS; i++) {
		set_mask((unsigned)i);
		task_on(&c->task[i], c->stacks[i], &c->home);
		makecontext(&c->task[i], (void (*)(void))crew_task, 2,
			    (unsigned)((uintptr_t)c >> 32), (unsigned)(uintptr_t)c);
	}
	return c;
}

static void *runs_a_crew(void *arg)
{
	int seed = (int)(intptr_t)arg;
	struct crew *c = new_crew(seed, 600);

	set_mask(3);
	REQUIRE(swapcontext(&c->home, &c->task[0]) == 0);
	CHECK_EQ(mask(), 3);
	CHECK_EQ(fegetround(), FE_TONEAREST);
	free(c->stacks);
	free(c);
	set_mask(0);
	return NULL;
}

static void crews(void)
{
	pthread_t t[6];

	for (intptr_t i = 0; i < (int)COUNT(t); i++)
		t[i] = spawn(runs_a_crew, (void *)(i + 1));
	for (int i = 0; i < (int)COUNT(t); i++)
		join(t[i]);
}

/* A task that goes on in one thread, then in another. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static ucontext_t traveller;
static __thread ucontext_t host;
static volatile int legs;

static NAMED ucontext_t *here(void)
{
	return &host;
}

static void travels(void)
{
	while (legs > 0) {
		legs--;
		CHECK_EQ(mask(), 33);
		REQUIRE(swapcontext(&traveller, here()) == 0);
	}
}

static void *carries(void *arg)
{
	unsigned m = (unsigned)(uintptr_t)arg;

	set_mask(m);
	for (int done = 0; !done;) {
		pthread_mutex_lock(&lock);
		done = legs == 0;
		if (!done)
			REQUIRE(swapcontext(here(), &traveller) == 0);
		CHECK_EQ(mask(), m);
		pthread_mutex_unlock(&lock);
		sched_yield();
	}
	return NULL;
}

static void carried_from_thread_to_thread(void)
{
	static char stack[STACK];
	pthread_t t[3];

	legs = 500;
	set_mask(33);
	task_on(&traveller, stack, NULL);
	makecontext(&traveller, travels, 0);
	set_mask(0);
	for (uintptr_t i = 0; i < COUNT(t); i++)
		t[i] = spawn(carries, (void *)(i * 7));
	for (int i = 0; i < (int)COUNT(t); i++)
		join(t[i]);
}

/* What swapcontext has saved may be gone on from more than once, after its caller's call has long returned. */
static __thread volatile int rounds;
static __thread ucontext_t again, other;

static void sets_again(void)
{
	for (;;) {
		rounds++;
		setcontext(&again);
	}
}

static void *swapped_once_set_often(void *arg)
{
	char *stack = malloc(STACK);

	rounds = 0;
	set_mask(5);
	task_on(&other, stack, NULL);
	makecontext(&other, sets_again, 0);
	set_mask(6);
	REQUIRE(swapcontext(&again, &other) == 0);
	CHECK_EQ(mask(), 6);
	set_mask(9);
	move(rounds);
	if (rounds < 30) {
		if (rounds % 2) {
			rounds++;
			setcontext(&again);
		}
		makecontext(&other, sets_again, 0);
		setcontext(&other);
	}
	CHECK(rounds >= 30);
	free(stack);
	set_mask(0);
	return arg;
}

static void swapped_once_set_often_by_both(void)
{
	swapped_once_set_often(NULL);
	join(spawn(swapped_once_set_often, NULL));
}

/* --- what follows ---------------------------------------------------------------------------------------------------------------- */

static __thread volatile int steps;

static void aligned(void)
{
	void *frames[50];

	CHECK_EQ((uintptr_t)__builtin_frame_address(0) % 16, 0);
	int n = backtrace(frames, COUNT(frames));
	CHECK(n > 0 && n < (int)COUNT(frames));
}

static void no_arguments(void)
{
	aligned();
	CHECK_EQ(mask(), 1);
	CHECK_EQ(steps++, 0);
	set_mask(40);
}

static void one_argument(int a)
{
	CHECK(a == -1);
	aligned();
	CHECK_EQ(mask(), 2);
	CHECK_EQ(steps++, 1);
}

static void six_arguments(int a, int b, int c, int d, int e, int f)
{
	CHECK(a == 1 && b == 2 && c == 3 && d == 4 && e == 5 && f == 6);
	aligned();
	CHECK_EQ(mask(), 3);
	CHECK_EQ(steps++, 2);
	set_mask(41);
	sched_yield();
}

static void seven_arguments(int a, int b, int c, int d, int e, int f, int g)
{
	CHECK(a == 1 && b == 2 && c == 3 && d == 4 && e == 5 && f == 6 && g == 7);
	aligned();
	CHECK_EQ(mask(), 4);
	CHECK_EQ(steps++, 3);
}

static void ten_arguments(int a, int b, int c, int d, int e, int f, int g, int h, long i, int j)
{
	CHECK(a == 1 && b == 2 && c == 3 && d == 4 && e == 5 && f == 6 && g == 7);
	CHECK(h == -8 && i == 0x900000009 && j == 10);
	aligned();
	CHECK_EQ(mask(), 5);
	CHECK_EQ(steps++, 4);
}

static void *follows(void *arg)
{
	char(*stacks)[STACK] = calloc(5, STACK);
	ucontext_t chain[5], back;

	for (int i = 0; i < 5; i++) {
		set_mask(i + 1);
		task_on(&chain[i], stacks[i], i < 4 ? &chain[i + 1] : &back);
	}
	for (int i = 0; i < 20; i++) {
		steps = 0;
		makecontext(&chain[0], no_arguments, 0);
		makecontext(&chain[1], (void (*)(void))one_argument, 1, -1);
		makecontext(&chain[2], (void (*)(void))six_arguments, 6, 1, 2, 3, 4, 5, 6);
		makecontext(&chain[3], (void (*)(void))seven_arguments, 7, 1, 2, 3, 4, 5, 6, 7);
		makecontext(&chain[4], (void (*)(void))ten_arguments, 10, 1, 2, 3, 4, 5, 6, 7, -8,
			    0x900000009, 10);
		set_mask(50);
		REQUIRE(swapcontext(&back, &chain[0]) == 0);
		CHECK_EQ(mask(), 50);
		CHECK_EQ(steps, 5);
	}
	free(stacks);
	set_mask(0);
	return arg;
}

static void what_follows(void)
{
	follows(NULL);
	pthread_t t = spawn(follows, NULL);
	follows(NULL);
	join(t);
}

static void at_exit(void)
{
	/* exit() is given 0; and it runs what is registered. */
	if (test_failures == 0)
		_exit(55);
}

static void *ends_the_process(void *arg)
{
	static char stack[STACK];
	ucontext_t last;

	steps = 0;
	set_mask(1);
	task_on(&last, stack, NULL);
	makecontext(&last, no_arguments, 0);
	setcontext(&last);
	FAIL("setcontext returns");
	return arg;
}

static int last_in_thread(void)
{
	atexit(at_exit);
	join(spawn(ends_the_process, NULL));
	return 1;
}

static int last_quietly(void)
{
	join(spawn(ends_the_process, NULL));
	return 1;
}

static int last_in_main(void)
{
	join(spawn(saves_and_sets, NULL));
	ends_the_process(NULL);
	return 1;
}

static void nothing_follows(void)
{
	CHECK_EQ(in_child(last_in_thread), 55 << 8);
	CHECK_EQ(in_child(last_quietly), 0);
	CHECK_EQ(in_child(last_in_main), 0);
}

/* --- signals ------------------------------------------------------------------------------------------------------------------------ */

static __thread volatile int handled;
static __thread ucontext_t from_handler, in_handler;

static void count(int sig)
{
	(void)sig;
	handled++;
}

/* Natively the kernel runs the handler as setcontext opens its signal. */
static void *opened_by_setcontext(void *arg)
{
	REQUIRE(signal(SIGUSR1, count) != SIG_ERR && signal(SIGUSR2, count) != SIG_ERR);
	for (int i = 0; i < 50; i++) {
		ucontext_t open;
		volatile int times = 0;

		handled = 0;
		set_mask(0);
		REQUIRE(getcontext(&open) == 0);
		CHECK_EQ(handled, times ? 2 : 0);
		if (times++ == 0) {
			set_mask(3);
			raise(SIGUSR1);
			raise(SIGUSR2);
			CHECK_EQ(handled, 0);
			setcontext(&open);
		}
		CHECK_EQ(mask(), 0);
	}
	return arg;
}

static void leave(int sig)
{
	(void)sig;
	handled++;
	CHECK_EQ(mask(), 5);
	REQUIRE(swapcontext(&in_handler, &from_handler) == 0);
	CHECK_EQ(mask(), 5);
}

static void back_into_it(void)
{
	CHECK_EQ(mask(), 8);
	set_mask(2);
	move(handled);
	setcontext(&in_handler);
}

static void *left_and_entered_again(void *arg)
{
	struct sigaction sa = {.sa_handler = leave};
	char *stack = malloc(STACK);

	sigaddset(&sa.sa_mask, SIGALRM);
	REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
	set_mask(8);
	task_on(&from_handler, stack, NULL);
	handled = 0;
	for (int i = 1; i <= 50; i++) {
		makecontext(&from_handler, back_into_it, 0);
		set_mask(0);
		raise(SIGUSR1);
		CHECK_EQ(handled, i);
		CHECK_EQ(mask(), 0);
	}
	free(stack);
	return arg;
}

static void handlers(void)
{
	opened_by_setcontext(NULL);
	join(spawn(opened_by_setcontext, NULL));
	left_and_entered_again(NULL);
	pthread_t t = spawn(left_and_entered_again, NULL);
	left_and_entered_again(NULL);
	join(t);
	signal(SIGUSR1, SIG_DFL);
	signal(SIGUSR2, SIG_DFL);
}

static const struct test_case cases[] = {
    {"saved_before_the_first_thread", saved_before_the_first_thread},
    {"crews", crews},
    {"carried_from_thread_to_thread", carried_from_thread_to_thread},
    {"swapped_once_set_often", swapped_once_set_often_by_both},
    {"what_follows", what_follows},
    {"nothing_follows", nothing_follows},
    {"handlers", handlers},
};

TEST_MAIN(cases)
