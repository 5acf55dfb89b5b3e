/*
 * What `goshim locks` and `goshim profile` are to look at in C++: two customers wait for a till that is taken, and one looks. Prints
 * "ready", and ends with its input.
 */
#include <cstdio>
#include <mutex>
#include <string>
#include <thread>
#include <unistd.h>

/* A function that stacks are to name: neither inlined nor cloned. */
#ifdef __clang__
#define NAMED __attribute__((noinline))
#else
#define NAMED __attribute__((noipa))
#endif

namespace shop
{

static std::mutex till;
static volatile bool open = true;

template <class T> struct Customer {
	T name;
	NAMED void pays(const std::string &what, int price) const
	{
		std::lock_guard<std::mutex> at(till);
		std::printf("%s pays %d for %s\n", name.c_str(), price, what.c_str());
	}
	NAMED void operator()(int price) const
	{
		pays("bread", price);
	}
};

NAMED void looks(volatile unsigned *at)
{
	while (open)
		++*at;
}

} // namespace shop

int main()
{
	char byte;
	unsigned seen = 0;
	shop::Customer<std::string> first{"first"}, second{"second"};
	shop::till.lock();
	std::thread a([&] { first(3); }), b([&] { second(4); }), c([&] { shop::looks(&seen); });
	std::puts("ready");
	std::fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	shop::till.unlock();
	shop::open = false;
	a.join();
	b.join();
	c.join();
	return 0;
}
