/*
 * goshim_counted.c - a command that tells what a program has counted runs the program itself, and then tells.
 *
 * The program's output and its exit status are its own; what is told goes to stderr or a file.
 */
#define _GNU_SOURCE
#include "goshim.h"
#include "metrics_read.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t program;

static void passon(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (info->si_code <= 0)
		kill(program, sig);
}

int forkprogram(void)
{
	static const int ends[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP};
	struct sigaction pass = {.sa_sigaction = passon, .sa_flags = SA_SIGINFO | SA_RESTART}, old;
	sigset_t set, before;
	sigemptyset(&set);
	for (unsigned i = 0; i < sizeof ends / sizeof ends[0]; i++)
		sigaddset(&set, ends[i]);
	sigprocmask(SIG_BLOCK, &set, &before);
	program = fork();
	if (program < 0)
		fail("fork: %s", strerror(errno));
	for (unsigned i = 0; program && i < sizeof ends / sizeof ends[0]; i++)
		if (sigaction(ends[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			sigaction(ends[i], &pass, NULL);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return program;
}

static int pidof(pid_t child, int *status)
{
	while (waitpid(child, status, 0) < 0)
		if (errno != EINTR)
			fail("wait: %s", strerror(errno));
	return WIFEXITED(*status) ? WEXITSTATUS(*status) : 128 + WTERMSIG(*status);
}

int counted(const char *who, const char *const *settings, char **argv, const char *output,
	    void (*report)(MetricsSource *s))
{
	char why[WhySize];
	static OutputFile o;
	int status, n = 3, argc = 0, more = 0;
	while (settings[more])
		more++;
	while (argv[argc])
		argc++;
	MetricsSource s;
	if (output)
		outputopen(&o, who, output);
	pid_t child = forkprogram();
	if (child == 0) {
		char *args[argc + more + 4];
		memcpy(args, (char *[]){"run", "--metrics", "keep"}, 3 * sizeof *args);
		for (int i = 0; i < more; i++)
			args[n++] = (char *)settings[i];
		memcpy(args + n, argv, ((size_t)argc + 1) * sizeof *argv);
		optind = 0;
		exit(run(argc + n, args));
	}
	siginfo_t info;
	while (waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR)
		;
	/* Until it is waited for there can't be another with its number. */
	bool counted = metricsopen(&s, child, why);
	int exits = pidof(child, &status);
	if (!counted) {
		if (exits != CANTRUN && exits != NOTFOUND)
			fprintf(stderr, "goshim: %s has made no thread, so nothing was counted\n",
				argv[0]);
		return exits;
	}
	if (s.path[0])
		unlink(s.path);
	/* What reports go to. */
	fflush(stdout);
	if (output)
		outputbegin(&o);
	if (dup2(output ? fileno(o.f) : STDERR_FILENO, STDOUT_FILENO) < 0)
		fail("%s: %s", who, strerror(errno));
	report(&s);
	metricsclose(&s);
	if (output && (fflush(stdout) || ferror(stdout)))
		fail("%s: %s: %s", who, output, strerror(errno));
	if (output)
		outputend(&o);
	return exits;
}
