/*
 * Where a comparison was made: what its figures depend on, beside the server.
 */
#define _GNU_SOURCE
#include "compare.h"

#include <gnu/libc-version.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* The first line of a file that begins with a key, without the key; or "". */
static void lineof(const char *path, const char *key, char *buf, size_t size)
{
	char *line = NULL;
	size_t n = 0, len = strlen(key);
	FILE *f = fopen(path, "re");
	*buf = 0;
	while (f && !*buf && getline(&line, &n, f) > 0) {
		if (strncmp(line, key, len))
			continue;
		char *p = line + len + strspn(line + len, " \t:");
		p[strcspn(p, "\n")] = 0;
		snprintf(buf, size, "%s", p);
	}
	if (f)
		fclose(f);
	free(line);
}

void commandline(char **argv, char *buf, size_t size)
{
	FILE *f = fmemopen(buf, size, "w");
	*buf = 0;
	for (int i = 0; f && argv[i]; i++) {
		static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
					    "0123456789_-+=./:,@%{}";
		const char *w = argv[i];
		fputs(i ? " " : "", f);
		if (*w && !w[strspn(w, plain)]) {
			fputs(w, f);
			continue;
		}
		putc('\'', f);
		for (; *w; w++)
			fputs(*w == '\'' ? "'\\''" : (char[]){*w, 0}, f);
		putc('\'', f);
	}
	if (f)
		fclose(f);
	buf[size - 1] = 0;
}

static void kernel(char *buf, size_t size)
{
	struct utsname u;
	uname(&u);
	snprintf(buf, size, "%s %s %s", u.sysname, u.release, u.machine);
}

static void processors(char *buf, size_t size)
{
	char model[200], flags[4096];
	cpu_set_t set;
	CPU_ZERO(&set);
	sched_getaffinity(0, sizeof set, &set);
	lineof("/proc/cpuinfo", "model name", model, sizeof model);
	lineof("/proc/cpuinfo", "flags", flags, sizeof flags);
	snprintf(buf, size, "%s; %ld, of which %d may be used%s", model,
		 sysconf(_SC_NPROCESSORS_ONLN), CPU_COUNT(&set),
		 strstr(flags, " hypervisor") ? "; a virtual machine" : "");
}

static void governor(char *buf, size_t size)
{
	lineof("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "", buf, size);
	if (!*buf)
		snprintf(buf, size, "none to be seen");
}

static void settings(char *buf, size_t size)
{
	static const char *const names[] = {"GOMAXPROCS", "GOSHIM"};
	size_t n = 0;
	*buf = 0;
	for (int i = 0; i < 2; i++)
		if (getenv(names[i]) && n < size)
			n += (size_t)snprintf(buf + n, size - n, "%s%s=%s", n ? " " : "", names[i],
					      getenv(names[i]));
	if (!*buf)
		snprintf(buf, size, "the defaults");
}

bool environment(const Plan *p, int i, const char **name, char *value, size_t size)
{
	static const char *const names[] = {"server",   "load",     "when",   "kernel",
					    "CPUs",     "governor", "memory", "others",
					    "settings", "glibc",    "goshim"};
	static char date[64];
	time_t now = time(NULL);
	struct tm tm;
	if (i >= (int)(sizeof names / sizeof names[0]))
		return false;
	*name = names[i];
	switch (i) {
	case 0: commandline(p->server, value, size); break;
	case 1:
		snprintf(value, size, "%s", p->load);
		if (p->rate > 0)
			snprintf(value, size, "%s,rate=%g", p->load, p->rate);
		break;
	case 2:
		if (!*date)
			strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&now, &tm));
		snprintf(value, size, "%s", date);
		break;
	case 3: kernel(value, size); break;
	case 4: processors(value, size); break;
	case 5: governor(value, size); break;
	case 6: lineof("/proc/meminfo", "MemTotal", value, size); break;
	case 7: snprintf(value, size, "load average %.2f before the first round", p->busy); break;
	case 8: settings(value, size); break;
	case 9: snprintf(value, size, "%s", gnu_get_libc_version()); break;
	case 10: snprintf(value, size, VERSION); break;
	}
	return true;
}
