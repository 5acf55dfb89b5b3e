/*
 * A program of another libc that inherits LD_PRELOAD: musl's loader reads it as well, and what the
 * program does must be the same.
 */
#include "test.h"

#include <dlfcn.h>
#include <sys/wait.h>

static const char source[] =
    "#include <pthread.h>\n"
    "#include <stdio.h>\n"
    "static void *fn(void *arg) { return arg; }\n"
    "int main(void) {\n"
    "	pthread_t t; void *r = 0;\n"
    "	if (pthread_create(&t, 0, fn, &t) || pthread_join(t, &r)) return 1;\n"
    "	return fflush(stdout) || r != &t ? 2 : 7;\n"
    "}\n";

static int run(const char *command)
{
	int status = system(command);

	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void starts(void)
{
	char dir[] = "/tmp/process_musl_XXXXXX", name[64], command[256];

	if (run("command -v musl-gcc >/dev/null") != 0)
		SKIP_CASE("needs musl-gcc");
	REQUIRE(mkdtemp(dir));
	snprintf(name, sizeof name, "%s/a.c", dir);
	FILE *f = fopen(name, "w");
	REQUIRE(f && fputs(source, f) >= 0 && fclose(f) == 0);
	snprintf(command, sizeof command, "env -u LD_PRELOAD musl-gcc -o %s/a %s/a.c", dir, dir);
	if (run(command) != 0)
		SKIP_CASE("musl-gcc does not work");
	snprintf(command, sizeof command, "%s/a", dir);
	CHECK_EQ(run(command), 7);
	snprintf(command, sizeof command, "rm -r %s", dir);
	run(command);
}

/* How the library is told from others by that loader is no concern of ours. */
static void streams(void)
{
	FILE **found = dlsym(RTLD_DEFAULT, "stdin");

	CHECK(found && *found == stdin);
	found = dlvsym(RTLD_DEFAULT, "stdin", "GLIBC_2.2.5");
	CHECK(found == &stdin);
}

static const struct test_case cases[] = {
    {"starts", starts},
    {"streams", streams},
};

TEST_MAIN(cases)
