/*
 * Callbacks from libc under preemption: a comparator may be preempted, yield, lock and sleep while
 * qsort, bsearch, twalk or scandir are below it on the stack. Several sort at once; every result is
 * checked.
 */
#include "test.h"

#include <dirent.h>
#include <search.h>

enum { N = 4000 };

static __thread long compared;
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static int how;

static int compare(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	compared++;
	switch (how) {
	case 1:
		for (volatile int i = 0; i < 200; i++)
			;
		break;
	case 2:
		if (compared % 64 == 0)
			sched_yield();
		break;
	case 3:
		pthread_mutex_lock(&m);
		pthread_mutex_unlock(&m);
		break;
	case 4:
		if (compared % 500 == 0)
			usleep(10);
		break;
	}
	return (x > y) - (x < y);
}

static void *sort_thread(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	int *v = malloc(N * sizeof *v), *count = calloc(1000, sizeof *count);

	for (int round = 0; round < 5; round++) {
		memset(count, 0, 1000 * sizeof *count);
		for (int i = 0; i < N; i++) {
			v[i] = rand_r(&seed) % 1000;
			count[v[i]]++;
		}
		compared = 0;
		qsort(v, N, sizeof *v, compare);
		CHECK(compared > N);
		for (int i = 0; i < N; i++) {
			if (i > 0 && v[i - 1] > v[i])
				FAIL("not sorted at %d", i);
			count[v[i]]--;
		}
		for (int i = 0; i < 1000; i++)
			CHECK_EQ(count[i], 0);
		int wanted = v[N / 3];
		int *found = bsearch(&wanted, v, N, sizeof *v, compare);
		CHECK(found && *found == wanted);
	}
	free(v);
	free(count);
	return NULL;
}

static void sort_in_threads(void)
{
	for (how = 0; how <= 4; how++) {
		pthread_t t[8];

		for (unsigned i = 0; i < COUNT(t); i++)
			t[i] = spawn(sort_thread, (void *)(intptr_t)(i + 1));
		for (unsigned i = 0; i < COUNT(t); i++)
			join(t[i]);
	}
	how = 0;
}

static __thread int visited;

static void visit(const void *node, VISIT which, int depth)
{
	(void)node;
	(void)depth;
	if (which == postorder || which == leaf) {
		visited++;
		if (visited % 50 == 0)
			sched_yield();
	}
}

static void *tree_thread(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	void *root = NULL;
	int *v = malloc(1000 * sizeof *v), distinct = 0;

	how = 1;
	for (int i = 0; i < 1000; i++) {
		v[i] = rand_r(&seed) % 500;
		int *found = *(int **)tsearch(&v[i], &root, compare);
		distinct += found == &v[i];
	}
	visited = 0;
	twalk(root, visit);
	CHECK_EQ(visited, distinct);
	for (int i = 0; i < 1000; i++)
		tdelete(&v[i], &root, compare);
	CHECK(root == NULL);
	free(v);
	return NULL;
}

static void trees_in_threads(void)
{
	pthread_t t[8];

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(tree_thread, (void *)(intptr_t)(i + 1));
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static int keep(const struct dirent *d)
{
	for (volatile int i = 0; i < 1000; i++)
		;
	return d->d_name[0] != '.';
}

static void *scan_thread(void *arg)
{
	for (int round = 0; round < 5; round++) {
		struct dirent **names;
		int n = scandir("/usr/lib", &names, keep, alphasort);

		CHECK(n > 0);
		for (int i = 0; i < n; i++) {
			if (i > 0)
				CHECK(strcoll(names[i - 1]->d_name, names[i]->d_name) <= 0);
			if (i > 0)
				free(names[i - 1]);
		}
		if (n > 0) {
			free(names[n - 1]);
			free(names);
		}
	}
	return arg;
}

static void directories_in_threads(void)
{
	pthread_t t[6];

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(scan_thread, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static const struct test_case cases[] = {
    {"sort_in_threads", sort_in_threads},
    {"trees_in_threads", trees_in_threads},
    {"directories_in_threads", directories_in_threads},
};

TEST_MAIN(cases)
