/*
 * A callback of dl_iterate_phdr that waits: ld.so's lock is held meanwhile, others who need it wait
 * in the kernel by a futex that nobody can interpose, and yet those whom the callback waits for
 * must run. With one processor that takes the runtime's noticing that the others are stuck.
 */
#include "test.h"

#include <dlfcn.h>
#include <link.h>
#include <semaphore.h>

static sem_t inside, release;
static int called;

static int count(struct dl_phdr_info *info, size_t size, void *data)
{
	(void)info;
	(void)size;
	++*(int *)data;
	return 0;
}

static int wait_inside(struct dl_phdr_info *info, size_t size, void *data)
{
	(void)info;
	(void)size;
	if ((*(int *)data)++ == 0) {
		sem_post(&inside);
		while (sem_wait(&release) != 0)
			;
	}
	return 0;
}

static void *holder(void *arg)
{
	int objects = 0;

	CHECK_EQ(dl_iterate_phdr(wait_inside, &objects), 0);
	CHECK(objects >= 2);
	return arg;
}

static void *needer(void *arg)
{
	int objects = 0;

	CHECK_EQ(dl_iterate_phdr(count, &objects), 0);
	CHECK(objects >= 2);
	__atomic_add_fetch(&called, 1, __ATOMIC_RELEASE);
	return arg;
}

static void *releaser(void *arg)
{
	for (int i = 0; i < 20; i++) {
		sched_yield();
		usleep(1000);
	}
	sem_post(&release);
	return arg;
}

static void others_need_it(void)
{
	enum { NEEDERS = 12 };

	sem_init(&inside, 0, 0);
	sem_init(&release, 0, 0);
	for (int round = 0; round < 3; round++) {
		pthread_t h, r, t[NEEDERS];

		called = 0;
		h = spawn(holder, NULL);
		CHECK_EQ(sem_wait(&inside), 0);
		for (int i = 0; i < NEEDERS; i++)
			t[i] = spawn(needer, NULL);
		sleep_ms(20);
		CHECK_EQ(__atomic_load_n(&called, __ATOMIC_ACQUIRE), 0);
		r = spawn(releaser, NULL);
		join(r);
		join(h);
		for (int i = 0; i < NEEDERS; i++)
			join(t[i]);
	}
}

/* The holder itself needs a processor back, with nothing but its own sleep to wake it. */
static int sleep_inside(struct dl_phdr_info *info, size_t size, void *data)
{
	(void)info;
	(void)size;
	(void)data;
	usleep(2000);
	sched_yield();
	return 0;
}

static void *sleeping_holder(void *arg)
{
	for (int i = 0; i < 5; i++)
		CHECK_EQ(dl_iterate_phdr(sleep_inside, NULL), 0);
	return arg;
}

static void holders_that_sleep(void)
{
	pthread_t t[6];

	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(sleeping_holder, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

/* Loading, unloading and walking at the same time. */
static pthread_barrier_t go;

static void *open_close(void *arg)
{
	pthread_barrier_wait(&go);
	for (int i = 0; i < 100; i++) {
		void *h = dlopen("libm.so.6", RTLD_NOW);
		CHECK(h != NULL);
		int objects = 0;
		dl_iterate_phdr(count, &objects);
		CHECK(objects >= 2);
		Dl_info info;
		CHECK(dladdr(__builtin_return_address(0), &info) != 0);
		if (h)
			CHECK_EQ(dlclose(h), 0);
	}
	return arg;
}

static void dlopen_at_once(void)
{
	pthread_t t[8];

	pthread_barrier_init(&go, NULL, COUNT(t));
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(open_close, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

static const struct test_case cases[] = {
    {"others_need_it", others_need_it},
    {"holders_that_sleep", holders_that_sleep},
    {"dlopen_at_once", dlopen_at_once},
};

TEST_MAIN(cases)
