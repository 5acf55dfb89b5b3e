/*
 * C++20's threads: async, jthread with stop tokens, latch, barrier, semaphores, atomic waits. Prints what it has counted.
 */
#include <atomic>
#include <barrier>
#include <condition_variable>
#include <cstdio>
#include <future>
#include <latch>
#include <mutex>
#include <queue>
#include <semaphore>
#include <shared_mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

template <typename F> static void in_threads(int n, F f)
{
	std::vector<std::jthread> t;

	for (int i = 0; i < n; i++)
		t.emplace_back([=] { f(i); });
}

static void futures()
{
	std::vector<std::future<int>> f;
	int sum = 0, thrown = 0;

	for (int i = 0; i < 200; i++)
		f.push_back(std::async(std::launch::async, [i] {
			if (i % 7 == 0)
				throw std::to_string(i);
			std::this_thread::sleep_for(1ms);
			return i;
		}));
	for (auto &x : f)
		try {
			sum += x.get();
		} catch (std::string &s) {
			thrown += std::stoi(s);
		}
	std::promise<void> p;
	std::future<void> at_exit = p.get_future();
	bool late = at_exit.wait_for(5ms) == std::future_status::timeout;
	std::thread([&] { p.set_value_at_thread_exit(); }).join();
	at_exit.get();
	std::printf("futures %d thrown %d late %d\n", sum, thrown, late);
}

static void stop_tokens()
{
	std::mutex m;
	std::condition_variable_any changed;
	std::queue<int> queue;
	std::atomic<long> sum{0}, stopped{0};

	{
		std::vector<std::jthread> t;
		for (int i = 0; i < 8; i++)
			t.emplace_back([&](std::stop_token st) {
				for (;;) {
					std::unique_lock l(m);
					if (!changed.wait(l, st, [&] { return !queue.empty(); }))
						break;
					sum += queue.front();
					queue.pop();
				}
				stopped++;
			});
		for (int i = 0; i < 3000; i++) {
			std::lock_guard l(m);
			queue.push(i);
			changed.notify_one();
		}
		for (bool empty = false; !empty; std::this_thread::yield()) {
			std::lock_guard l(m);
			empty = queue.empty();
		}
	}
	std::printf("jthreads %ld stopped %ld\n", sum.load(), stopped.load());
}

/* Not more than one that waits for a counting semaphore: with two, libstdc++ 12 may forget one (its bug 104928). */
static void waits()
{
	static std::counting_semaphore<10> tokens[2]{std::counting_semaphore<10>(3),
						     std::counting_semaphore<10>(0)};
	static std::binary_semaphore one(1), none(0);
	static std::latch done(20);
	static std::atomic<int> inside, beyond, mixed, phases[100], ball, passed;
	static std::barrier all(5);

	in_threads(2, [](int me) {
		for (int i = 0; i < 2000; i++) {
			tokens[me].acquire();
			passed++;
			tokens[!me].release();
		}
	});
	in_threads(20, [](int) {
		for (int k = 0; k < 50; k++) {
			one.acquire();
			beyond += ++inside > 1;
			std::this_thread::yield();
			inside--;
			one.release();
		}
		done.arrive_and_wait();
	});
	done.wait();
	in_threads(5, [](int) {
		for (auto &phase : phases) {
			phase++;
			all.arrive_and_wait();
			mixed += phase != 5;
		}
	});
	in_threads(2, [](int me) {
		for (int i = 0; i < 2000; i++) {
			for (int b; (b = ball) % 2 != me;)
				ball.wait(b);
			ball++;
			ball.notify_all();
		}
	});
	bool timeout = !none.try_acquire_for(2ms);
	std::printf("semaphores %d beyond %d mixed phases %d ball %d timeout %d\n", passed.load(),
		    beyond.load(), mixed.load(), ball.load(), timeout);
}

static void locks()
{
	static std::shared_timed_mutex m;
	static std::once_flag flag;
	static long a, b;
	static std::atomic<int> torn, runs, threw, made;
	thread_local static struct Made {
		Made()
		{
			made++;
		}
	} own;

	in_threads(12, [](int me) {
		for (int i = 0; i < 1000; i++) {
			if (me < 3) {
				std::unique_lock l(m);
				a++, b++;
			} else {
				std::shared_lock l(m, 1s);
				torn += l && a != b;
			}
		}
		(void)&own;
		try {
			std::call_once(flag, [] {
				if (runs++ < 3)
					throw 1;
			});
		} catch (int) {
			threw++;
		}
	});
	std::printf("locks %ld torn %d once %d threw %d\n", a, torn.load(), runs.load(),
		    threw.load());
}

int main()
{
	futures();
	stop_tokens();
	waits();
	locks();
}
