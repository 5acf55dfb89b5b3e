/*
 * Threads that end through C++ frames: destructors of every frame, in order, from pthread_exit and from each
 * kind of cancellation; handlers that catch everything and pass it on; what a program does not survive
 * natively either: a catch that keeps it, a function that may not throw.
 */
#include "test.h"

#include <atomic>
#include <condition_variable>
#include <cxxabi.h>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

static std::string order;
static volatile int here;
static std::mutex m;
static std::condition_variable cv;

struct Noted {
	char letter;

	explicit Noted(char c) : letter(c)
	{
	}
	~Noted()
	{
		order += letter;
	}
};

/* What handlers see while a thread ends. */
struct Blocks {
	~Blocks()
	{
		usleep(200);
		pthread_testcancel();
		sched_yield();
		order += '_';
	}
};

/* --- ways to end ------------------------------------------------------------------------------- */

static void by_exit()
{
	pthread_exit(PTHREAD_CANCELED);
}

static void in_a_wait()
{
	here = 1;
	for (;;)
		usleep(100000);
}

static void in_a_condition()
{
	std::unique_lock<std::mutex> lock(m);

	here = 1;
	cv.wait(lock, [] { return false; });
}

static void __attribute__((noinline)) spin()
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	here = 1;
	for (;;)
		__asm__ volatile("");
}

static void anywhere()
{
	spin();
}

static void by_itself()
{
	pthread_cancel(pthread_self());
	pthread_testcancel();
}

static const struct Way {
	const char *name;
	void (*end)();
	bool asked;
} ways[] = {
    {"pthread_exit", by_exit, false},         {"in a wait", in_a_wait, true},
    {"in a condition", in_a_condition, true}, {"anywhere", anywhere, true},
    {"by itself", by_itself, false},
};

static const Way *way;

/* --- frames ------------------------------------------------------------------------------------ */

static void __attribute__((noinline)) frames(int depth)
{
	Noted n(depth % 10 + '0');

	if (depth == 0)
		way->end();
	else if (depth % 3 == 0)
		try {
			frames(depth - 1);
		} catch (std::exception &) {
			order += '!';
		} catch (int) {
			order += '!';
		}
	else
		frames(depth - 1);
}

static void *plain_frames(void *)
{
	Noted a('a');
	Blocks b;

	frames(25);
	order += '!';
	return NULL;
}

static void *catches_all(void *)
{
	Noted a('a');

	try {
		Noted b('b');
		try {
			Noted c('c');
			frames(2);
		} catch (...) {
			order += '(';
			/* As ever, it can be told apart and passed on; meanwhile others may be thrown. */
			try {
				throw std::runtime_error("meanwhile");
			} catch (std::runtime_error &e) {
				order += e.what()[0];
			}
			usleep(100);
			throw;
		}
	} catch (abi::__forced_unwind &) {
		order += ')';
		throw;
	}
	return NULL;
}

static void *inside_a_handler(void *)
{
	Noted a('a');

	try {
		throw 5;
	} catch (int) {
		Noted b('b');
		frames(1);
	}
	return NULL;
}

static void note(void *arg)
{
	order += *(const char *)arg;
}

static void *with_c_handlers(void *)
{
	Noted a('a');

	pthread_cleanup_push(note, (void *)"h");
	Noted b('b');
	pthread_cleanup_push(note, (void *)"i");
	frames(1);
	pthread_cleanup_pop(0);
	pthread_cleanup_pop(0);
	return NULL;
}

static thread_local Noted of_thread('t');

static void *with_thread_local(void *)
{
	Noted a('a');

	of_thread.letter = 'T';
	frames(0);
	return NULL;
}

static const struct Shape {
	const char *name;
	void *(*start)(void *);
	const char *want;
} shapes[] = {
    {"frames", plain_frames, "01234567890123456789012345_a"},
    {"catch all", catches_all, "012c(mb)a"},
    {"in a handler", inside_a_handler, "01ba"},
    {"C handlers", with_c_handlers, "01ibha"},
    {"thread_local", with_thread_local, "0aT"},
};

static void run(const Shape &s)
{
	order.clear();
	here = 0;
	pthread_t t = spawn(s.start, NULL);
	if (way->asked) {
		CHECK(wait_for(&here, 1, 20000));
		CHECK_EQ(pthread_cancel(t), 0);
	}
	CHECK(join(t) == PTHREAD_CANCELED);
	if (order != s.want)
		FAIL("%s, %s: \"%s\", not \"%s\"", s.name, way->name, order.c_str(), s.want);
	/* The lock of the wait is free. */
	CHECK(m.try_lock());
	m.unlock();
}

static void every_shape()
{
	for (const Way &w : ways)
		for (const Shape &s : shapes) {
			way = &w;
			run(s);
		}
}

/* Many at once, each with its own exceptions in flight. */
static std::atomic<int> unwound, caught;

struct Counted {
	~Counted()
	{
		sched_yield();
		unwound++;
	}
};

static void __attribute__((noinline)) deep(int n)
{
	Counted c;

	if (n > 0) {
		deep(n - 1);
		return;
	}
	for (int i = 0;; i++)
		try {
			Counted d;
			if (i % 3 == 0)
				throw i;
			usleep(100);
		} catch (int x) {
			CHECK_EQ(x, i);
			caught++;
		}
}

static void *go_deep(void *arg)
{
	deep((int)(intptr_t)arg);
	return NULL;
}

static void many()
{
	for (int round = 0; round < 5; round++) {
		std::vector<pthread_t> t;

		for (int i = 0; i < 40; i++)
			t.push_back(spawn(go_deep, (void *)(intptr_t)(i % 7)));
		usleep(3000);
		for (pthread_t x : t)
			CHECK_EQ(pthread_cancel(x), 0);
		for (pthread_t x : t)
			CHECK(join(x) == PTHREAD_CANCELED);
	}
	CHECK(unwound > 0);
	CHECK(caught > 0);
}

/* --- what ends the process --------------------------------------------------------------------- */

static void *keeps_it(void *)
{
	try {
		frames(0);
	} catch (...) {
	}
	return NULL;
}

static void must_not_throw() noexcept
{
	frames(0);
}

static void *through_noexcept(void *)
{
	must_not_throw();
	return NULL;
}

static void terminated()
{
	_exit(42);
}

static int ends_with(void *(*start)(void *))
{
	here = 0;
	close(2);
	std::set_terminate(terminated);
	signal(SIGABRT, [](int) { _exit(43); });
	pthread_t t = spawn(start, NULL);
	if (way->asked) {
		wait_for(&here, 1, 20000);
		pthread_cancel(t);
	}
	pthread_join(t, NULL);
	return 1;
}

static int child_keeps_it()
{
	return ends_with(keeps_it);
}

static int child_through_noexcept()
{
	return ends_with(through_noexcept);
}

static void ends_of_the_process()
{
	for (const Way &w : ways) {
		way = &w;
		/* "FATAL: exception not rethrown", and abort. */
		int status = in_child(child_keeps_it);
		CHECK(WIFEXITED(status));
		CHECK_EQ(WEXITSTATUS(status), 43);
		status = in_child(child_through_noexcept);
		CHECK(WIFEXITED(status));
		CHECK_EQ(WEXITSTATUS(status), 42);
	}
}

/* --- the standard library's threads ------------------------------------------------------------ */

static void native_handle()
{
	for (int i = 0; i < 20; i++) {
		std::atomic<int> n{0};
		here = 0;
		std::thread t([&] {
			struct AtEnd {
				std::atomic<int> &n;
				~AtEnd()
				{
					n++;
				}
			} end{n};
			here = 1;
			std::this_thread::sleep_for(std::chrono::hours(1));
		});
		CHECK(wait_for(&here, 1, 20000));
		CHECK_EQ(pthread_cancel(t.native_handle()), 0);
		t.join();
		CHECK_EQ(n.load(), 1);
	}
}

static const struct test_case cases[] = {
    {"every_shape", every_shape},
    {"many", many},
    {"ends_of_the_process", ends_of_the_process},
    {"native_handle", native_handle},
};

TEST_MAIN(cases)
