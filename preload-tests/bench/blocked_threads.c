/*
 * As many threads as asked for, or as the system gives, all blocked on one condition: how many can
 * be alive, and what each costs in memory. Then all are released and joined. Their stacks have the default size, or
 * stack=KIB.
 *
 * rss is what the process itself has; pte its page tables; kstack what the whole machine's kernel
 * stacks grew by, which VmRSS doesn't show and which native threads need too.
 */
#include "bench.h"
#include <fcntl.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t go = PTHREAD_COND_INITIALIZER, all_in = PTHREAD_COND_INITIALIZER;
static bool open_gate;
static unsigned waiting;
static uint64_t sum;

static long field(const char *path, const char *name)
{
	static char buf[16384];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	ssize_t n = read(fd, buf, sizeof buf - 1);
	close(fd);
	CHECK(n > 0);
	buf[n] = 0;
	char *p = strstr(buf, name);
	return p ? strtol(p + strlen(name), NULL, 10) : 0;
}

static void *block(void *arg)
{
	OK(pthread_mutex_lock(&mutex));
	waiting++;
	OK(pthread_cond_signal(&all_in));
	while (!open_gate)
		OK(pthread_cond_wait(&go, &mutex));
	sum += (uintptr_t)arg;
	OK(pthread_mutex_unlock(&mutex));
	return arg;
}

int main(int argc, char **argv)
{
	unsigned wanted = (unsigned)option(argc, argv, "threads", 100000), n;
	pthread_t *t = calloc(wanted, sizeof *t);
	long stack = (long)option(argc, argv, "stack", 0);
	pthread_attr_t attr;
	CHECK(wanted && t);
	OK(pthread_attr_init(&attr));
	if (stack)
		OK(pthread_attr_setstacksize(&attr, (size_t)stack << 10));
	memset(t, 1, wanted * sizeof *t); /* its pages are not the threads' */
	pthread_t first;
	open_gate = true;
	OK(pthread_create(&first, NULL, block, NULL)); /* nor is what starts once */
	OK(pthread_join(first, NULL));
	open_gate = false;
	waiting = 0;

	long rss0 = field("/proc/self/status", "VmRSS:"),
	     pte0 = field("/proc/self/status", "VmPTE:");
	long kstack0 = field("/proc/meminfo", "KernelStack:");
	double start = now();
	int err = 0;
	for (n = 0; n < wanted; n++)
		if ((err = pthread_create(&t[n], &attr, block, (void *)(uintptr_t)(n + 1))))
			break;
	CHECK(n > 0 && (n == wanted || err == EAGAIN));
	OK(pthread_mutex_lock(&mutex));
	while (waiting < n)
		OK(pthread_cond_wait(&all_in, &mutex));
	OK(pthread_mutex_unlock(&mutex));
	double created = now() - start;
	long rss1 = field("/proc/self/status", "VmRSS:"),
	     pte1 = field("/proc/self/status", "VmPTE:");
	long kstack1 = field("/proc/meminfo", "KernelStack:"),
	     tasks = field("/proc/self/status", "Threads:");

	start = now();
	OK(pthread_mutex_lock(&mutex));
	open_gate = true;
	OK(pthread_cond_broadcast(&go));
	OK(pthread_mutex_unlock(&mutex));
	for (unsigned i = 0; i < n; i++) {
		void *ret;
		OK(pthread_join(t[i], &ret));
		CHECK(ret == (void *)(uintptr_t)(i + 1));
	}
	double joined = now() - start;
	CHECK(sum == (uint64_t)n * (n + 1) / 2);
	printf("threads=%u\nkernel_threads=%ld\nrss_kib=%.2f\npte_kib=%.2f\nkstack_kib=%.2f\n", n,
	       tasks, (double)(rss1 - rss0) / n, (double)(pte1 - pte0) / n,
	       (double)(kstack1 - kstack0) / n);
	printf("total_kib=%.2f\n", (double)(rss1 - rss0 + pte1 - pte0 + kstack1 - kstack0) / n);
	printf("create_us=%.2f\nrelease_us=%.2f\nrss_left_kib=%ld\n", created * 1e6 / n,
	       joined * 1e6 / n, field("/proc/self/status", "VmRSS:") - rss0);
}
