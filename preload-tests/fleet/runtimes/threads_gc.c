/*
 * A garbage collector that stops the world by signals (Boehm's): threads build and drop trees while it collects, as it is and
 * in steps, with a write barrier of page faults. What is kept must be whole.
 */
#define GC_THREADS
#include <gc.h>
#include <pthread.h>
#include <stdio.h>

enum { THREADS = 12, DEPTH = 11, ROUNDS = 40 };

struct node {
	struct node *left, *right;
	long value;
};

static long want;
static int bad;

static struct node *tree(int depth, long value)
{
	struct node *n = GC_MALLOC(sizeof *n);

	n->value = value;
	if (depth) {
		n->left = tree(depth - 1, value + 1);
		n->right = tree(depth - 1, value + 1);
	}
	return n;
}

static long sum(const struct node *n)
{
	return n ? n->value + sum(n->left) + sum(n->right) : 0;
}

static void *work(void *arg)
{
	struct node *keep = tree(DEPTH, 0);

	for (int i = 0; i < ROUNDS; i++) {
		keep->left = tree(DEPTH - 1, 1);
		tree(DEPTH, 0);
		if (sum(keep) != want)
			__sync_fetch_and_add(&bad, 1);
	}
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t[THREADS];

	(void)argv;
	GC_INIT();
	if (argc > 1)
		GC_enable_incremental();
	want = sum(tree(DEPTH, 0));
	for (int i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, work, NULL);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	printf("incremental: %d\ncollected: %d\nbad: %d\n", GC_is_incremental_mode(),
	       GC_get_gc_no() > 2, bad);
	return bad != 0;
}
