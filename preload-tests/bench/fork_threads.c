/*
 * Forks among threads=NUMBER blocked threads and waits for each child, which ends at once. us is
 * from the call to the end of the wait, call_us the call in the parent; page faults are counted on
 * both sides.
 */
#include "bench.h"
#include <sys/resource.h>
#include <sys/wait.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t go = PTHREAD_COND_INITIALIZER, all_in = PTHREAD_COND_INITIALIZER;
static bool open_gate;
static unsigned waiting;

static void *block(void *arg)
{
	OK(pthread_mutex_lock(&mutex));
	waiting++;
	OK(pthread_cond_signal(&all_in));
	while (!open_gate)
		OK(pthread_cond_wait(&go, &mutex));
	OK(pthread_mutex_unlock(&mutex));
	return arg;
}

static uint64_t forks(double seconds, double *took, double *called)
{
	uint64_t n = 0;
	double start = now();
	*called = 0;
	do {
		int status = -1;
		double before = now();
		pid_t pid = fork();
		CHECK(pid >= 0);
		if (pid == 0)
			_exit((int)(n & 0x7f));
		*called += now() - before;
		CHECK(waitpid(pid, &status, 0) == pid);
		CHECK(status == (int)(n & 0x7f) << 8);
		n++;
	} while ((*took = now() - start) < seconds);
	return n;
}

int main(int argc, char **argv)
{
	double took = 0, called = 0, seconds = option(argc, argv, "seconds", 1);
	unsigned threads = (unsigned)option(argc, argv, "threads", 1000);
	pthread_t *t = calloc(threads, sizeof *t);
	CHECK(t && threads);
	for (unsigned i = 0; i < threads; i++)
		OK(pthread_create(&t[i], NULL, block, (void *)(uintptr_t)(i + 1)));
	OK(pthread_mutex_lock(&mutex));
	while (waiting < threads)
		OK(pthread_cond_wait(&all_in, &mutex));
	OK(pthread_mutex_unlock(&mutex));
	forks(seconds / 10, &took, &called);

	struct rusage parent0, parent1, children0, children1;
	getrusage(RUSAGE_SELF, &parent0);
	getrusage(RUSAGE_CHILDREN, &children0);
	uint64_t n = forks(seconds, &took, &called);
	getrusage(RUSAGE_SELF, &parent1);
	getrusage(RUSAGE_CHILDREN, &children1);

	OK(pthread_mutex_lock(&mutex));
	open_gate = true;
	OK(pthread_cond_broadcast(&go));
	OK(pthread_mutex_unlock(&mutex));
	for (unsigned i = 0; i < threads; i++) {
		void *ret;
		OK(pthread_join(t[i], &ret));
		CHECK(ret == (void *)(uintptr_t)(i + 1));
	}
	printf("forks=%llu\nus=%.1f\ncall_us=%.1f\n", (unsigned long long)n, took * 1e6 / (double)n,
	       called * 1e6 / (double)n);
	printf("parent_faults=%.1f\nchild_faults=%.1f\n",
	       (double)(parent1.ru_minflt - parent0.ru_minflt) / (double)n,
	       (double)(children1.ru_minflt - children0.ru_minflt) / (double)n);
}
