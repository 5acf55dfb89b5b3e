/*
 * Threads outside main's time: made by constructors before main, by constructors of modules within
 * dlopen, and used by destructors and atexit handlers after main.
 */
#include "test.h"

#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static pthread_t early;
static int early_runs, stop, early_count;

static void *early_thread(void *arg)
{
	pthread_mutex_lock(&m);
	early_runs = 1;
	pthread_cond_broadcast(&c);
	while (!stop) {
		early_count++;
		pthread_cond_wait(&c, &m);
	}
	pthread_mutex_unlock(&m);
	return arg;
}

__attribute__((constructor)) static void before_main(void)
{
	if (pthread_create(&early, NULL, early_thread, &m) != 0)
		_exit(1);
	pthread_mutex_lock(&m);
	while (!early_runs)
		pthread_cond_wait(&c, &m);
	pthread_mutex_unlock(&m);
}

static void *end_now(void *arg)
{
	return arg;
}

/* The thread of the constructor, and new ones, after main has returned. */
__attribute__((destructor)) static void after_main(void)
{
	void *ret = NULL;

	pthread_mutex_lock(&m);
	stop = 1;
	pthread_cond_broadcast(&c);
	pthread_mutex_unlock(&m);
	if (pthread_join(early, &ret) != 0 || ret != &m)
		_exit(98);
	pthread_t t;
	if (pthread_create(&t, NULL, end_now, &c) != 0 || pthread_join(t, &ret) != 0 || ret != &c)
		_exit(97);
	if (getenv("GOSHIM_TEST_DESTRUCTOR"))
		_exit(55);
}

static void thread_of_a_constructor(void)
{
	CHECK_EQ(early_runs, 1);
	int count = 0;
	for (int i = 0; i < 10 || (count <= 1 && i < 10000); i++) {
		pthread_mutex_lock(&m);
		count = early_count;
		pthread_cond_broadcast(&c);
		pthread_mutex_unlock(&m);
		sleep_ms(1);
	}
	CHECK(count > 1);
	join(spawn(end_now, NULL));
}

static void *load_and_unload(void *arg)
{
	char self[PATH_MAX], path[PATH_MAX + 50];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

	REQUIRE(n > 0);
	self[n] = '\0';
	snprintf(path, sizeof path, "%s/module_constructor.so", dirname(self));
	for (int i = 0; i < 10; i++) {
		void *h = dlopen(path, RTLD_NOW);
		REQUIRE(h);
		int *ready = dlsym(h, "module_ready");
		CHECK(ready && *ready == 1);
		CHECK_EQ(dlclose(h), 0);
	}
	return arg;
}

static void modules_with_threads(void)
{
	load_and_unload(NULL);
	join(spawn(load_and_unload, NULL));
}

/* By a program of its own, whose destructor says that it got through. */
static void destructors_after_main(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		setenv("GOSHIM_TEST_DESTRUCTOR", "1", 1);
		execl("/proc/self/exe", "process_constructors", "thread_of_a_constructor",
		      (char *)NULL);
		_exit(1);
	}
	int status = -1;
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 55 << 8);
}

static const struct test_case cases[] = {
    {"thread_of_a_constructor", thread_of_a_constructor},
    {"modules_with_threads", modules_with_threads},
    {"destructors_after_main", destructors_after_main},
};

TEST_MAIN(cases)
