/*
 * pthread_exit from wherever a thread happens to be: its value reaches the joiner, cleanup handlers
 * run last in first out, key destructors after them, and the stack is really unwound rather than
 * abandoned.
 */
#include "test.h"

#include <dlfcn.h>
#include <locale.h>
#include <netdb.h>
#include <resolv.h>

int __cxa_thread_atexit_impl(void (*fn)(void *), void *arg, void *dso);
extern void *__dso_handle;

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

/* What functions of libc's keep for a thread is not met by the next one, which may have the same memory. */
static pthread_key_t left_key;
static int left_run;

static void of_left(void *arg)
{
	(void)arg;
	left_run++;
}

/* After those of thread_local variables: this one comes too late, and is never run. */
static void leave_destructor(void *arg)
{
	__cxa_thread_atexit_impl(of_left, arg, &__dso_handle);
}

static void *leave(void *arg)
{
	pthread_setspecific(left_key, arg);
	CHECK(dlopen("/nonexistent.so", RTLD_NOW) == NULL);
	CHECK_EQ(res_init(), 0);
	_res.options |= RES_DEBUG;
	errno = E2BIG;
	h_errno = TRY_AGAIN;
	uselocale(newlocale(LC_ALL_MASK, "C", NULL));
	return NULL;
}

static void *find_nothing(void *arg)
{
	CHECK_EQ(errno, 0);
	CHECK(dlerror() == NULL);
	CHECK_EQ(_res.options, 0);
	CHECK_EQ(h_errno, 0);
	CHECK(uselocale(NULL) == LC_GLOBAL_LOCALE);
	return arg;
}

static void nothing_is_left(void)
{
	REQUIRE_OK(pthread_key_create(&left_key, leave_destructor));
	for (int i = 0; i < 20; i++) {
		join(spawn(leave, &left_key));
		join(spawn(find_nothing, NULL));
	}
	CHECK_EQ(left_run, 0);
	pthread_key_delete(left_key);
}

static const struct test_case cases[] = {
    {"from_deep_in_the_stack", from_deep_in_the_stack},
    {"handlers_then_keys", handlers_then_keys},
    {"nothing_is_left", nothing_is_left},
};

TEST_MAIN(cases)
