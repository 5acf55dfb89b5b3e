// Threads in all the states that a debugger may find: waiting deep in C++ frames, computing and preempted
// while computing, in a system call, on a stack of the program's own.
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdexcept>
#include <string>
#include <sys/file.h>
#include <unistd.h>

namespace shop
{

struct Counter {
	pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t c = PTHREAD_COND_INITIALIZER;
	std::string name{"counter"};

	template <typename Item> __attribute__((noinline)) void serve(const Item &item)
	{
		pthread_mutex_lock(&m);
		while (item != Item{})
			pthread_cond_wait(&c, &m);
		pthread_mutex_unlock(&m);
	}
	__attribute__((noinline)) void open(int customers)
	{
		if (customers > 0)
			open(customers - 1);
		else
			serve(7);
		asm volatile("" ::: "memory");
	}
};

static Counter counter;

} // namespace shop

static void *nested(void *arg)
{
	shop::counter.open(2);
	return arg;
}

static __attribute__((noinline)) unsigned long crunch(unsigned long seed)
{
	for (;;) {
		seed = seed * 6364136223846793005ul + 1442695040888963407ul;
		asm volatile("" : "+r"(seed));
	}
	return seed;
}

static void *computes(void *arg)
{
	crunch(reinterpret_cast<unsigned long>(arg));
	return nullptr;
}

static const char *path;

static void *locks_file(void *arg)
{
	int fd = open(path, O_RDWR);

	flock(fd, LOCK_EX);
	return arg;
}

static sem_t never;
alignas(4096) static char stack[256 << 10];

static void *on_own_stack(void *arg)
{
	sem_wait(&never);
	return arg;
}

int main(int, char **argv)
{
	pthread_attr_t attr;
	pthread_t t;

	path = argv[1];
	int fd = open(path, O_RDWR | O_CREAT, 0600);

	if (fd < 0 || flock(fd, LOCK_EX))
		return 1;
	sem_init(&never, 0, 0);
	pthread_create(&t, nullptr, nested, nullptr);
	pthread_create(&t, nullptr, locks_file, nullptr);
	pthread_attr_init(&attr);
	pthread_attr_setstack(&attr, stack, sizeof stack);
	pthread_create(&t, &attr, on_own_stack, nullptr);
	usleep(200000);
	for (unsigned long i = 0; i < 4; i++)
		pthread_create(&t, nullptr, computes, reinterpret_cast<void *>(i));
	usleep(300000);
	write(1, "ready\n", 6);
	pause();
	return 0;
}
