/*
 * A pipeline of 50 stages and 1,000 threads, 20 to a stage, with a bounded queue (one mutex, two
 * conditions) between stages: more threads than processors, each waiting for its neighbour, which
 * is where kernel threads hurt most.
 *
 * Stage 0 makes items, every stage adds its number to them, the last checks the sum and counts.
 * After the measured time stage 0 stops, each queue closes when the stage before it has ended, and
 * every item made must have arrived.
 */
#include "bench.h"

enum { MAX_STAGES = 200, CAPACITY = 32 };

struct queue {
	pthread_mutex_t mutex;
	pthread_cond_t not_empty, not_full;
	unsigned head, len, writers;
	uint64_t items[CAPACITY];
};

static struct queue queues[MAX_STAGES]; /* queues[i] leads from stage i to i+1 */
static unsigned stages, per_stage;
static atomic_bool stop;
static _Atomic uint64_t made, arrived;
static uint64_t want;

static void put(struct queue *q, uint64_t item)
{
	OK(pthread_mutex_lock(&q->mutex));
	while (q->len == CAPACITY)
		OK(pthread_cond_wait(&q->not_full, &q->mutex));
	q->items[(q->head + q->len++) % CAPACITY] = item;
	OK(pthread_cond_signal(&q->not_empty));
	OK(pthread_mutex_unlock(&q->mutex));
}

/* False when the queue is empty and will stay so. */
static bool get(struct queue *q, uint64_t *item)
{
	bool got = false;
	OK(pthread_mutex_lock(&q->mutex));
	while (!q->len && q->writers)
		OK(pthread_cond_wait(&q->not_empty, &q->mutex));
	if (q->len) {
		*item = q->items[q->head];
		q->head = (q->head + 1) % CAPACITY;
		q->len--;
		got = true;
		OK(pthread_cond_signal(&q->not_full));
	}
	OK(pthread_mutex_unlock(&q->mutex));
	return got;
}

static void leave(struct queue *q)
{
	OK(pthread_mutex_lock(&q->mutex));
	if (--q->writers == 0)
		OK(pthread_cond_broadcast(&q->not_empty));
	OK(pthread_mutex_unlock(&q->mutex));
}

static void *stage(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	uint64_t item;
	if (me == 0) {
		while (!atomic_load(&stop)) {
			atomic_fetch_add(&made, 1);
			put(&queues[0], 0);
		}
	} else {
		while (get(&queues[me - 1], &item)) {
			item += me;
			if (me + 1 < stages) {
				put(&queues[me], item);
			} else {
				CHECK(item == want);
				atomic_fetch_add(&arrived, 1);
			}
		}
	}
	if (me + 1 < stages)
		leave(&queues[me]);
	return NULL;
}

int main(int argc, char **argv)
{
	double seconds = option(argc, argv, "seconds", 1);
	stages = (unsigned)option(argc, argv, "stages", 50);
	per_stage = (unsigned)option(argc, argv, "per_stage", 20);
	CHECK(stages >= 2 && stages <= MAX_STAGES && per_stage >= 1);
	want = (uint64_t)stages * (stages - 1) / 2;
	pthread_t *t = calloc((size_t)stages * per_stage, sizeof *t);
	CHECK(t);
	for (unsigned i = 0; i < stages; i++) {
		OK(pthread_mutex_init(&queues[i].mutex, NULL));
		OK(pthread_cond_init(&queues[i].not_empty, NULL));
		OK(pthread_cond_init(&queues[i].not_full, NULL));
		queues[i].writers = per_stage;
	}
	/* The last stage first, so that nothing runs before its readers are there. */
	for (unsigned i = stages; i-- > 0;)
		for (unsigned k = 0; k < per_stage; k++)
			OK(pthread_create(&t[i * per_stage + k], NULL, stage,
					  (void *)(uintptr_t)i));
	usleep((useconds_t)(seconds * 0.3e6));
	uint64_t before = atomic_load(&arrived);
	double start = now();
	usleep((useconds_t)(seconds * 1e6));
	uint64_t after = atomic_load(&arrived);
	double took = now() - start;
	atomic_store(&stop, true);
	for (unsigned i = 0; i < stages * per_stage; i++)
		OK(pthread_join(t[i], NULL));
	CHECK(arrived == made);
	printf("threads=%u\nitems=%llu\nper_second=%.1f\n", stages * per_stage,
	       (unsigned long long)(after - before), (double)(after - before) / took);
}
