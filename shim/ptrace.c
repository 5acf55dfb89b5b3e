/*
 * ptrace.c - tracers are kernel threads.
 *
 * A goroutine that attaches to a process is wired to its kernel thread from then on. A child that asks to be traced
 * (PTRACE_TRACEME) has the kernel thread that forked it for its tracer, and the goroutine may have left that before it knows
 * that it is one. So what the kernel denies it is asked for once more, by the child's tracer, if that is a kernel thread
 * that is nobody's own.
 *
 * Rejected: wiring whoever forks, since few of them trace; wiring whom the kernel grants such a call: children of others
 * may have the same tracer.
 */
#include "pin.h"
#include "sched.h"

#include <stdarg.h>

/* Who traces pid, as /proc has it; 0: nobody. */
static int tracerof(long pid)
{
	enum { SIZE = 1024 };
	char path[40] = "/proc/", digits[12], text[SIZE];
	static const char name[] = "\nTracerPid:\t";
	int n = 0, at = 6, tid = 0;

	if (pid <= 0 || pid > INT32_MAX)
		return 0;
	for (; pid; pid /= 10)
		digits[n++] = (char)('0' + pid % 10);
	while (n)
		path[at++] = digits[--n];
	memcpy(path + at, "/status", 8);
	long fd = sys3(SYS_open, (long)path, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return 0;
	long got = sys3(SYS_read, fd, (long)text, SIZE - 1);
	sys1(SYS_close, fd);
	text[got > 0 ? got : 0] = '\0';
	char *s = strstr(text, name);
	for (s = s ? s + sizeof name - 1 : NULL; s && *s >= '0' && *s <= '9'; s++)
		tid = tid * 10 + (*s - '0');
	return tid;
}

struct owned {
	int tid;
	bool owned;
};

static bool owns(Thread *th, void *arg)
{
	struct owned *o = arg;
	o->owned |= th->pinned && th->ktid == o->tid;
	return !o->owned;
}

/* It is the kernel thread of one goroutine alone, which traces by its own will, or not. */
static bool isowned(int tid)
{
	struct owned o = {tid, false};
	threadseach(owns, &o);
	return o.owned;
}

/* The caller becomes tracer, or traced. */
static bool binds(long request)
{
	return request == PTRACE_TRACEME || request == PTRACE_ATTACH || request == PTRACE_SEIZE;
}

long trace(const long *a)
{
	unsigned new = binds(a[0]) ? pin(PinSelf) : 0;
	long r = sys4(SYS_ptrace, a[0], a[1], a[2], a[3]);
	if (r < 0)
		unpin(new);
	if (r != -ESRCH || binds(a[0]))
		return r;
	int tid = tracerof(a[1]);
	return tid && !isowned(tid) ? syscallon(tid, SYS_ptrace, a) : r;
}

SHIM(long, ptrace, enum __ptrace_request request, ...)
{
	long a[4] = {request}, word;
	bool peeks = request >= PTRACE_PEEKTEXT && request <= PTRACE_PEEKUSER;
	va_list ap;
	va_start(ap, request);
	for (int i = 1; i < 4; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (!getg())
		return real.ptrace(request, a[1], a[2], a[3]);
	if (peeks)
		a[3] = (long)&word;
	long r = errnoret(trace(a));
	if (!peeks || r < 0)
		return r;
	errno = 0;
	return word;
}
