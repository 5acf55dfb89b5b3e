/*
 * testhost.c - the host of the core library in unit tests.
 *
 * A test of one file of core/ must not depend on the rest, so what every file
 * calls is defined here weakly: tests that link the real thing get that.
 */
#include "testhost.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "api.h"
#include "host.h"

__attribute__((weak)) void throw(const char *what)
{
	fprintf(stderr, "throw: %s\n", what);
	abort();
}

static int test_clock_gettime(int clock, void *ts)
{
	return clock_gettime(clock, ts);
}

__attribute__((weak)) Host host = {.clock_gettime = test_clock_gettime};

/* The runtime's own definition of host begins empty. */
__attribute__((constructor)) static void sethost(void)
{
	host.clock_gettime = test_clock_gettime;
	host.die = abort;
}

/* The tests fault on purpose, and expect SIGABRT to be SIGABRT. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "handle_segv=0:handle_sigbus=0:handle_abort=0:detect_leaks=0:"
	       "allow_user_segv_handler=1";
}

static sigjmp_buf faulted;
static void *faultaddr;

static void onfault(int sig, siginfo_t *info, void *ctx)
{
	(void)ctx;
	faultaddr = info->si_addr;
	siglongjmp(faulted, sig);
}

int faults(void *p, void **at)
{
	struct sigaction sa, segv, bus;
	int sig;

	memset(&sa, 0, sizeof(sa));
	sa.sa_sigaction = onfault;
	sa.sa_flags = SA_SIGINFO;
	sigaction(SIGSEGV, &sa, &segv);
	sigaction(SIGBUS, &sa, &bus);
	faultaddr = NULL;
	sig = sigsetjmp(faulted, 1);
	if (sig == 0)
		__asm__ volatile("movb $0, %0" : "=m"(*(volatile char *)p));
	sigaction(SIGSEGV, &segv, NULL);
	sigaction(SIGBUS, &bus, NULL);
	if (at != NULL)
		*at = faultaddr;
	return sig;
}

size_t rss(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	size_t size, resident = 0;

	if (f == NULL || fscanf(f, "%zu %zu", &size, &resident) != 2)
		abort();
	fclose(f);
	return resident * (size_t)sysconf(_SC_PAGESIZE);
}
