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
	int status, to = STDERR_FILENO, n = 3, argc = 0, more = 0;
	while (settings[more])
		more++;
	while (argv[argc])
		argc++;
	MetricsSource s;
	if (output && (to = open(output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) < 0)
		fail("%s: %s: %s", who, output, strerror(errno));
	pid_t child = fork();
	if (child < 0)
		fail("fork: %s", strerror(errno));
	if (child == 0) {
		char *args[argc + more + 4];
		memcpy(args, (char *[]){"run", "--metrics", "keep"}, 3 * sizeof *args);
		for (int i = 0; i < more; i++)
			args[n++] = (char *)settings[i];
		memcpy(args + n, argv, ((size_t)argc + 1) * sizeof *argv);
		optind = 0;
		exit(run(argc + n, args));
	}
	/* They are for CMD, which has them from the terminal as well. */
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
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
	fflush(stdout);
	if (dup2(to, STDOUT_FILENO) < 0)
		fail("%s: %s", who, strerror(errno));
	report(&s);
	metricsclose(&s);
	return exits;
}
