/*
 * A program that is not position-independent and takes malloc's address: the address is then that of
 * its own PLT entry, for every object, and says nothing about who has malloc. A spinner in such a
 * program loses the processor as in any other.
 */
#include "test.h"

extern const char __executable_start[], etext[];

static int flag;
static void *(*volatile allocate)(size_t);

static void address_is_our_own(void)
{
	allocate = malloc;
	CHECK((uintptr_t)allocate >= (uintptr_t)__executable_start &&
	      (uintptr_t)allocate < (uintptr_t)etext);
	free(allocate(1));
}

static void *set_flag(void *arg)
{
	__atomic_store_n(&flag, 1, __ATOMIC_RELEASE);
	return arg;
}

static void main_spins(void)
{
	for (int round = 0; round < 5; round++) {
		flag = 0;
		pthread_t t = spawn(set_flag, NULL);
		while (!__atomic_load_n(&flag, __ATOMIC_ACQUIRE))
			;
		join(t);
	}
}

static void *spin(void *arg)
{
	while (!__atomic_load_n(&flag, __ATOMIC_ACQUIRE))
		;
	return arg;
}

static void threads_spin(void)
{
	pthread_t t[6];

	flag = 0;
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(spin, NULL);
	sleep_ms(20);
	set_flag(NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static const struct test_case cases[] = {
    {"address_is_our_own", address_is_our_own},
    {"main_spins", main_spins},
    {"threads_spin", threads_spin},
};

TEST_MAIN(cases)
