/*
 * Modules with thread-local variables, loaded while threads exist: each thread, old or new, blocked
 * or running, sees the initial value first and its own afterwards, in both TLS models; and
 * unloading and loading again starts anew.
 */
#include "test.h"

#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>

static const struct {
	const char *file;
	int initial;
} modules[] = {
    {"module_dynamic.so", 11},
    {"module_initial.so", 22},
};

static unsigned which;
static int *(*module_value)(void);
static char *(*module_room)(void);
static pthread_barrier_t loaded;

static void *load(void)
{
	char self[PATH_MAX], path[PATH_MAX + 50];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

	REQUIRE(n > 0);
	self[n] = '\0';
	snprintf(path, sizeof path, "%s/%s", dirname(self), modules[which].file);
	void *h = dlopen(path, RTLD_NOW);
	if (!h) {
		say("dlopen: %s", dlerror());
		_exit(1);
	}
	module_value = (int *(*)(void))(uintptr_t)dlsym(h, "module_value");
	module_room = (char *(*)(void))(uintptr_t)dlsym(h, "module_room");
	REQUIRE(module_value && module_room);
	return h;
}

static void use_module(int id)
{
	int *where = module_value();

	CHECK_EQ(*where, modules[which].initial);
	CHECK_EQ(*module_room(), 0);
	*where = id * 100;
	*module_room() = (char)id;
	for (int i = 0; i < 50; i++) {
		sched_yield();
		CHECK(module_value() == where);
		CHECK_EQ(*module_value(), id * 100 + i);
		CHECK_EQ(*module_room(), (char)id);
		++*module_value();
	}
}

static void *before_and_after(void *arg)
{
	pthread_barrier_wait(&loaded);
	/* Blocked here while the module is loaded. */
	pthread_barrier_wait(&loaded);
	use_module((int)(intptr_t)arg);
	pthread_barrier_wait(&loaded);
	return NULL;
}

static void *only_after(void *arg)
{
	use_module((int)(intptr_t)arg);
	return NULL;
}

static void *end_now(void *arg)
{
	return arg;
}

static void load_among_threads(void)
{
	enum { OLD = 50, NEW = 50 };
	pthread_t t[OLD + NEW];

	for (which = 0; which < COUNT(modules); which++)
		for (int round = 0; round < 3; round++) {
			/* Some ended threads first, whose blocks may be used again. */
			for (int i = 0; i < 20; i++)
				join(spawn(end_now, NULL));
			pthread_barrier_init(&loaded, NULL, OLD + 1);
			for (int i = 0; i < OLD; i++)
				t[i] = spawn(before_and_after, (void *)(intptr_t)(i + 2));
			pthread_barrier_wait(&loaded);
			sleep_ms(5);
			void *h = load();
			pthread_barrier_wait(&loaded);
			for (int i = OLD; i < OLD + NEW; i++)
				t[i] = spawn(only_after, (void *)(intptr_t)(i + 2));
			use_module(1);
			for (int i = OLD; i < OLD + NEW; i++)
				join(t[i]);
			pthread_barrier_wait(&loaded);
			for (int i = 0; i < OLD; i++)
				join(t[i]);
			CHECK_EQ(dlclose(h), 0);
			pthread_barrier_destroy(&loaded);
		}
}

/* Loaded, used and unloaded by threads that go on to live. */
static void *load_in_thread(void *arg)
{
	static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

	for (int i = 0; i < 5; i++) {
		pthread_mutex_lock(&one_at_a_time);
		void *h = load();
		use_module((int)(intptr_t)arg);
		CHECK_EQ(dlclose(h), 0);
		pthread_mutex_unlock(&one_at_a_time);
		sched_yield();
	}
	return NULL;
}

static void load_by_threads(void)
{
	pthread_t t[10];

	for (which = 0; which < COUNT(modules); which++) {
		for (unsigned i = 0; i < COUNT(t); i++)
			t[i] = spawn(load_in_thread, (void *)(intptr_t)(i + 1));
		for (unsigned i = 0; i < COUNT(t); i++)
			join(t[i]);
	}
}

/* Many at once: dlopen and dlclose of the same module, with lookups by name. */
static void *open_often(void *arg)
{
	for (int i = 0; i < 50; i++) {
		void *h = load();
		CHECK(dlsym(h, "module_value") != NULL);
		CHECK(dlsym(h, "no such symbol") == NULL);
		/* The message is the thread's. */
		sched_yield();
		const char *why = dlerror();
		CHECK(why && strstr(why, "no such symbol"));
		CHECK(dlerror() == NULL);
		CHECK_EQ(dlclose(h), 0);
	}
	return arg;
}

static void at_once(void)
{
	pthread_t t[10];

	which = 0;
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(open_often, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
}

/* Modules come and go while the runtime itself looks into the list of what is loaded. */
static int closing;

static void *open_and_close(void *arg)
{
	while (__atomic_load_n(&closing, __ATOMIC_RELAXED) == 0)
		CHECK_EQ(dlclose(load()), 0);
	return arg;
}

/* Has state of the kernel's from then on, so it needs a kernel thread of its own. */
static void *be_nice(void *arg)
{
	errno = 0;
	nice(0);
	CHECK_EQ(errno, 0);
	return arg;
}

static void kernel_threads_meanwhile(void)
{
	which = 0;
	closing = 0;
	pthread_t opener = spawn(open_and_close, NULL);
	for (int i = 0; i < 150; i++)
		join(spawn(be_nice, NULL));
	__atomic_store_n(&closing, 1, __ATOMIC_RELAXED);
	join(opener);
}

static const struct test_case cases[] = {
    {"load_among_threads", load_among_threads},
    {"load_by_threads", load_by_threads},
    {"at_once", at_once},
    {"kernel_threads_meanwhile", kernel_threads_meanwhile},
};

TEST_MAIN(cases)
