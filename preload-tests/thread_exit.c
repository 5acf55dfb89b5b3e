/*
 * pthread_exit from wherever a thread happens to be: its value reaches the joiner, cleanup handlers
 * run last in first out, key destructors after them, and the stack is really unwound rather than
 * abandoned.
 */
#include "test.h"

static char order[16];
static int steps;

static void note(void *arg)
{
	if (steps < (int)sizeof order - 1)
		order[steps++] = (char)(intptr_t)arg;
}

static int __attribute__((noinline)) dive(int depth)
{
	volatile char pad[100];

	pad[3] = (char)depth;
	if (depth == 0)
		pthread_exit((void *)123);
	return depth > 0 ? dive(depth - 1) + pad[3] : 0;
}

static void *exit_deep(void *arg)
{
	dive((int)(intptr_t)arg);
	return (void *)-1;
}

static void from_deep_in_the_stack(void)
{
	static const int depths[] = {0, 1, 100, 5000};

	for (unsigned i = 0; i < COUNT(depths); i++)
		CHECK_EQ((intptr_t)join(spawn(exit_deep, (void *)(intptr_t)depths[i])), 123);
}

static void key_note(void *arg)
{
	note(arg);
}

static void *exit_with_handlers(void *arg)
{
	pthread_setspecific(*(pthread_key_t *)arg, (void *)(intptr_t)'k');
	pthread_cleanup_push(note, (void *)(intptr_t)'a');
	pthread_cleanup_push(note, (void *)(intptr_t)'b');
	pthread_cleanup_push(note, (void *)(intptr_t)'x');
	pthread_cleanup_pop(0);
	pthread_cleanup_push(note, (void *)(intptr_t)'c');
	pthread_cleanup_pop(1);
	pthread_exit((void *)9);
	pthread_cleanup_pop(0);
	pthread_cleanup_pop(0);
	return NULL;
}

static void handlers_then_keys(void)
{
	pthread_key_t key;

	REQUIRE_OK(pthread_key_create(&key, key_note));
	steps = 0;
	memset(order, 0, sizeof order);
	CHECK_EQ((intptr_t)join(spawn(exit_with_handlers, &key)), 9);
	if (strcmp(order, "cbak") != 0)
		FAIL("handlers ran as \"%s\", not \"cbak\"", order);
	pthread_key_delete(key);
}

static const struct test_case cases[] = {
    {"from_deep_in_the_stack", from_deep_in_the_stack},
    {"handlers_then_keys", handlers_then_keys},
};

TEST_MAIN(cases)
