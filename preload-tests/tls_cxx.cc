/*
 * C++ per-thread state under migration: exceptions in flight and caught (the runtime keeps them in
 * TLS), thread_local objects with constructors and destructors, static locals initialised once, and
 * the standard library's threads.
 */
#include "test.h"

#include <atomic>
#include <condition_variable>
#include <exception>
#include <future>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

enum { THREADS = 40, ROUNDS = 60 };

template <typename F> static void in_threads(F f, int n = THREADS)
{
	std::vector<std::thread> threads;

	for (int i = 0; i < n; i++)
		threads.emplace_back(f, i);
	for (auto &t : threads)
		t.join();
}

struct YieldOnExit {
	~YieldOnExit()
	{
		sched_yield();
	}
};

static void throw_from(int depth, int id)
{
	YieldOnExit on_the_way;
	std::string local(100, static_cast<char>('a' + id % 26));

	if (depth == 0)
		throw std::runtime_error("thrown by " + std::to_string(id));
	throw_from(depth - 1, id);
}

static void exceptions()
{
	in_threads([](int id) {
		for (int i = 0; i < ROUNDS; i++) {
			CHECK_EQ(std::uncaught_exceptions(), 0);
			try {
				throw_from(i % 10, id);
				FAIL("nothing thrown");
			} catch (const std::exception &e) {
				sched_yield();
				CHECK(e.what() == "thrown by " + std::to_string(id));
				/* Another one while this is being handled, then the first again. */
				try {
					throw id;
				} catch (int v) {
					usleep(20);
					CHECK_EQ(v, id);
				}
				try {
					sched_yield();
					throw;
				} catch (const std::runtime_error &again) {
					CHECK(&again == &e);
				}
				std::exception_ptr p = std::current_exception();
				sched_yield();
				try {
					std::rethrow_exception(p);
				} catch (const std::exception &copy) {
					CHECK(copy.what() == "thrown by " + std::to_string(id));
				}
			}
			CHECK(!std::current_exception());
		}
	});
}

struct CountsUncaught {
	int *seen;
	~CountsUncaught()
	{
		sched_yield();
		*seen = std::uncaught_exceptions();
	}
};

static void uncaught_count_follows()
{
	in_threads([](int) {
		for (int i = 0; i < ROUNDS; i++) {
			int seen = -1;
			try {
				CountsUncaught c{&seen};
				throw 1;
			} catch (int) {
			}
			CHECK_EQ(seen, 1);
		}
	});
}

static std::atomic<int> made, gone, wrong_thread;

struct Local {
	pthread_t owner = pthread_self();
	std::string text = "constructed";
	std::vector<int> numbers;
	Local()
	{
		made++;
	}
	~Local()
	{
		sched_yield();
		if (!pthread_equal(owner, pthread_self()))
			wrong_thread++;
		gone++;
	}
};

static thread_local Local local;
static thread_local std::unique_ptr<int> pointer;

static void thread_locals()
{
	made = gone = wrong_thread = 0;
	in_threads([](int id) {
		CHECK(local.text == "constructed");
		CHECK(!pointer);
		pointer = std::make_unique<int>(id);
		for (int i = 0; i < ROUNDS; i++) {
			local.numbers.push_back(id * 1000 + i);
			sched_yield();
			CHECK_EQ(local.numbers.size(), i + 1);
			CHECK_EQ(local.numbers.back(), id * 1000 + i);
			CHECK_EQ(*pointer, id);
		}
	});
	CHECK_EQ(made.load(), THREADS);
	CHECK_EQ(gone.load(), THREADS);
	CHECK_EQ(wrong_thread.load(), 0);
}

/* Destructors of thread_locals run before those of keys, in reverse order of construction. */
static thread_local std::string *order;

struct Note {
	char c;
	explicit Note(char ch) : c(ch)
	{
	}
	~Note()
	{
		if (order)
			order->push_back(c);
	}
};

static void destructor_order()
{
	static pthread_key_t key;
	std::string seen;

	REQUIRE_OK(pthread_key_create(&key, [](void *p) {
		static_cast<std::string *>(p)->push_back('k');
	}));
	std::thread([&seen] {
		order = &seen;
		pthread_setspecific(key, &seen);
		static thread_local Note first('1');
		static thread_local Note second('2');
		static thread_local Note third('3');
		CHECK_EQ(first.c + second.c + third.c, '1' + '2' + '3');
		sched_yield();
	}).join();
	if (seen != "321k")
		FAIL("destructors ran as %s, not 321k", seen.c_str());
	pthread_key_delete(key);
}

static std::atomic<int> slow_made;

struct Slow {
	int value;
	Slow()
	{
		slow_made++;
		usleep(50000);
		value = 77;
	}
};

static void static_locals_once()
{
	in_threads([](int) {
		static Slow slow;
		CHECK_EQ(slow.value, 77);
	});
	CHECK_EQ(slow_made.load(), 1);
	static std::once_flag flag;
	static std::atomic<int> runs, attempts;
	in_threads([](int) {
		try {
			std::call_once(flag, [] {
				usleep(1000);
				if (++attempts < 3)
					throw 1;
				runs++;
			});
		} catch (int) {
		}
	});
	CHECK_EQ(runs.load(), 1);
	CHECK_EQ(attempts.load(), 3);
}

static void standard_library()
{
	std::vector<std::future<int>> futures;
	std::mutex m;
	std::condition_variable cv;
	std::shared_mutex sm;
	std::timed_mutex tm;
	int value = 0;
	bool go = false;

	for (int i = 0; i < 20; i++)
		futures.push_back(std::async(std::launch::async, [&, i] {
			std::unique_lock<std::mutex> l(m);
			cv.wait(l, [&] { return go; });
			if (i == 13)
				throw std::logic_error("thirteen");
			return i * i;
		}));
	{
		std::lock_guard<std::mutex> l(m);
		go = true;
	}
	cv.notify_all();
	for (int i = 0; i < 20; i++) {
		try {
			CHECK_EQ(futures[i].get(), i * i);
			CHECK(i != 13);
		} catch (const std::logic_error &e) {
			CHECK_EQ(i, 13);
		}
	}
	in_threads([&](int id) {
		for (int i = 0; i < 50; i++) {
			if ((id + i) % 4 == 0) {
				std::unique_lock<std::shared_mutex> l(sm);
				value++;
			} else {
				std::shared_lock<std::shared_mutex> l(sm);
				int v = value;
				sched_yield();
				CHECK_EQ(v, value);
			}
			std::this_thread::sleep_for(std::chrono::microseconds(10));
		}
	});
	std::unique_lock<std::timed_mutex> held(tm);
	std::thread([&] { CHECK(!tm.try_lock_for(std::chrono::milliseconds(20))); }).join();
	std::unique_lock<std::mutex> l(m);
	CHECK(cv.wait_for(l, std::chrono::milliseconds(20)) == std::cv_status::timeout);
}

/* pthread_exit and cancellation unwind through C++ frames. */
static std::atomic<int> unwound;

struct CountUnwound {
	~CountUnwound()
	{
		unwound++;
	}
};

static void *exit_through_frames(void *arg)
{
	CountUnwound outer;
	{
		CountUnwound inner;
		sched_yield();
		pthread_exit(arg);
	}
	return nullptr;
}

static void *cancel_through_frames(void *)
{
	CountUnwound outer;

	for (;;)
		usleep(1000);
	return nullptr;
}

static void unwinding()
{
	unwound = 0;
	for (int i = 0; i < 20; i++)
		CHECK(join(spawn(exit_through_frames, &unwound)) == &unwound);
	CHECK_EQ(unwound.load(), 40);
	for (int i = 0; i < 20; i++) {
		pthread_t t = spawn(cancel_through_frames, nullptr);
		usleep(1000);
		CHECK_EQ(pthread_cancel(t), 0);
		CHECK(join(t) == PTHREAD_CANCELED);
	}
	/* A thread cancelled before it began to run has made nothing to unwind, but usleep comes
	 * after the frame. */
	CHECK_EQ(unwound.load(), 60);
}

static int uncaught_in_thread()
{
	close(2);
	std::thread([] { throw std::runtime_error("nobody catches this"); }).join();
	return 1;
}

static void uncaught_ends_the_process()
{
	CHECK_EQ(in_child(uncaught_in_thread), SIGABRT);
}

static const struct test_case cases[] = {
    {"exceptions", exceptions},
    {"uncaught_count_follows", uncaught_count_follows},
    {"thread_locals", thread_locals},
    {"destructor_order", destructor_order},
    {"static_locals_once", static_locals_once},
    {"standard_library", standard_library},
    {"unwinding", unwinding},
    {"uncaught_ends_the_process", uncaught_ends_the_process},
};

TEST_MAIN(cases)
