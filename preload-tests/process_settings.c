/*
 * Settings from the environment: a value that is not allowed gets one line on stderr, whatever its
 * length and its characters, and the program runs as without it. The good ones get none. Natively
 * the variables mean nothing.
 */
#include "test.h"

static char self[4096];

static void *nothing(void *arg)
{
	return arg;
}

/* Runs this program, which makes a thread, with the variable set. Returns how many lines came on stderr. */
static int lines(const char *name, const char *value)
{
	int out[2], count = 0, status = -1;
	static char text[100000];
	size_t n = 0;
	ssize_t r;

	REQUIRE(pipe(out) == 0);
	pid_t child = fork();
	REQUIRE(child >= 0);
	if (child == 0) {
		unsetenv("GOSHIM");
		unsetenv("GOMAXPROCS");
		setenv(name, value, 1);
		dup2(out[1], 2);
		close(out[0]);
		close(out[1]);
		execl(self, self, "thread", (char *)NULL);
		_exit(127);
	}
	close(out[1]);
	while (n < sizeof text - 1 && (r = read(out[0], text + n, sizeof text - 1 - n)) > 0)
		n += r;
	text[n] = '\0';
	close(out[0]);
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	for (size_t i = 0; i < n; i++) {
		count += text[i] == '\n';
		CHECK(text[i] == '\n' || (unsigned char)text[i] >= ' ');
	}
	CHECK(n == 0 || strncmp(text, "goshim: ", 8) == 0);
	return count;
}

static void bad(void)
{
	static const struct {
		const char *name, *value;
	} values[] = {
	    {"GOSHIM", "bogus"},
	    {"GOSHIM", "bogus=1"},
	    {"GOSHIM", "=5"},
	    {"GOSHIM", "storm=2"},
	    {"GOSHIM", "storm="},
	    {"GOSHIM", " storm"},
	    {"GOSHIM", "slice=99999999999999999999"},
	    {"GOSHIM", "slice=-1"},
	    {"GOSHIM", "storm,bogus,storm"},
	    {"GOSHIM", "mode"},
	    {"GOSHIM", "mode=native"},
	    {"GOSHIM", "mode=kernels"},
	    {"GOSHIM", "mode=kernel,mode="},
	    {"GOSHIM", "mode=kernel,bogus"},
	    {"GOSHIM", "mode=kernel,metrics=off"},
	    {"GOSHIM", "metrics"},
	    {"GOSHIM", "metrics=none"},
	    {"GOSHIM", "metrics=off,flight=1s"},
	    {"GOSHIM", "requests,metrics=off"},
	    {"GOSHIM", "locks,metrics=off"},
	    {"GOSHIM", "deadlock"},
	    {"GOSHIM", "deadlock=1"},
	    {"GOSHIM", "deadlock=aborts"},
	    {"GOSHIM", "deadlock="},
	    {"GOSHIM", "two\nlines"},
	    {"GOSHIM", "\033[31mred\177"},
	    {"GOMAXPROCS", "0"},
	    {"GOMAXPROCS", "-1"},
	    {"GOMAXPROCS", "99999999"},
	    {"GOMAXPROCS", "1\n2"},
	};

	for (unsigned i = 0; i < COUNT(values); i++) {
		int n = lines(values[i].name, values[i].value);
		if (n != preloaded())
			FAIL("%s=%s: %d lines", values[i].name, values[i].value, n);
	}
}

static void long_ones(void)
{
	static char text[5000];

	for (int n = 20; n < (int)sizeof text; n = n * 5 / 4) {
		memset(text, '1', n);
		text[n] = '\0';
		CHECK_EQ(lines("GOSHIM", text), preloaded());
		CHECK_EQ(lines("GOMAXPROCS", text), preloaded());
	}
	/* Too long, though each of them is right. */
	text[0] = '\0';
	for (int i = 0; i < 300; i++)
		strcat(text, "storm,");
	CHECK_EQ(lines("GOSHIM", text), preloaded());
}

static void good(void)
{
	static const char *const values[] = {"",
					     ",,",
					     "storm",
					     "storm=0",
					     "mode=kernel",
					     "mode=goroutines",
					     "mode=kernel,metrics=remove",
					     "metrics=off",
					     "locks,metrics=off,metrics=keep,metrics=remove",
					     "slice=100",
					     "maxthreads=8",
					     "sysmon=100",
					     "kernelwaits",
					     "kernelcalls=1",
					     "storm,slice=1000,",
					     "deadlock=abort",
					     "deadlock=off,deadlock=report"};

	for (unsigned i = 0; i < COUNT(values); i++)
		CHECK_EQ(lines("GOSHIM", values[i]), 0);
	CHECK_EQ(lines("GOMAXPROCS", ""), 0);
	CHECK_EQ(lines("GOMAXPROCS", "3"), 0);
}

static const struct test_case cases[] = {
    {"good", good},
    {"bad", bad},
    {"long_ones", long_ones},
};

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "thread") == 0) {
		pthread_t t;
		return pthread_create(&t, NULL, nothing, NULL) || pthread_join(t, NULL);
	}
	REQUIRE(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
	return test_run(argc, argv, cases, COUNT(cases));
}
