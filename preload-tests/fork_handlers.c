/*
 * The order of pthread_atfork's handlers: prepare last in first out, the others first in first out, those of a
 * module that is loaded among them until it is closed. By main before there are threads, and by threads.
 */
#include "test.h"

#include <dlfcn.h>

static char order[100];

void fork_note(const char *what);
void fork_note(const char *what)
{
	strncat(order, what, sizeof order - strlen(order) - 1);
}

#define HANDLERS(n)                  \
	static void prepare##n(void) \
	{                            \
		fork_note("p" #n);   \
	}                            \
	static void parent##n(void)  \
	{                            \
		fork_note("a" #n);   \
	}                            \
	static void child##n(void)   \
	{                            \
		fork_note("c" #n);   \
	}
HANDLERS(1)
HANDLERS(2)
HANDLERS(3)

static const char *in_parent, *in_the_child;

static void *forks(void *arg)
{
	int status = -1;

	order[0] = '\0';
	pid_t pid = fork();
	if (pid == 0)
		_exit(strcmp(order, in_the_child) != 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	if (strcmp(order, in_parent) != 0)
		FAIL("handlers ran as \"%s\", not \"%s\"", order, in_parent);
	return arg;
}

static void each(const char *parent, const char *child)
{
	in_parent = parent;
	in_the_child = child;
	forks(NULL);
	join(spawn(forks, NULL));
}

static void of_the_program_and_a_module(void)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - 20);

	REQUIRE(n > 0);
	path[n] = '\0';
	strcpy(strrchr(path, '/'), "/module_atfork.so");
	CHECK_EQ(pthread_atfork(prepare1, parent1, child1), 0);
	CHECK_EQ(pthread_atfork(prepare2, parent2, child2), 0);
	each("p2p1a1a2", "p2p1c1c2");
	void *module = dlopen(path, RTLD_NOW);
	REQUIRE(module);
	CHECK_EQ(pthread_atfork(prepare3, parent3, child3), 0);
	each("p3pMp2p1a1a2aMa3", "p3pMp2p1c1c2cMc3");
	CHECK_EQ(dlclose(module), 0);
	each("p3p2p1a1a2a3", "p3p2p1c1c2c3");
}

static const struct test_case cases[] = {
    {"of_the_program_and_a_module", of_the_program_and_a_module},
};

TEST_MAIN(cases)
