/*
 * Kernel threads that the program did not ask pthread_create for: libc's helper of SIGEV_THREAD
 * timers, its threads of asynchronous I/O and of getaddrinfo_a, and whatever a library made with
 * the real function. They lock, signal, sleep, read and create threads like any other, and meet the
 * program's own threads in the same objects.
 */
#include "foreign.h"

#include <aio.h>
#include <netdb.h>
#include <semaphore.h>

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static sem_t sem;
static int count, fds[2];
static __thread int mine = 5;

static void *plus_one(void *arg)
{
	return (void *)((intptr_t)arg + 1);
}

/* What a thread may do, on a foreign one. */
static void be_a_thread(void)
{
	char ch = 'f';

	CHECK_EQ(mine, 5);
	mine = 6;
	for (int i = 0; i < 50; i++) {
		pthread_mutex_lock(&m);
		count++;
		pthread_cond_broadcast(&c);
		pthread_mutex_unlock(&m);
		sched_yield();
	}
	usleep(1000);
	CHECK_EQ(write(fds[1], &ch, 1), 1);
	struct timespec ts = after_ms(CLOCK_REALTIME, 5);
	pthread_mutex_lock(&m);
	int rc = pthread_cond_timedwait(&c, &m, &ts);
	CHECK(rc == 0 || rc == ETIMEDOUT);
	pthread_mutex_unlock(&m);
	CHECK_EQ((intptr_t)join(spawn(plus_one, (void *)3)), 4);
	free(malloc(1000));
	CHECK_EQ(mine, 6);
	sem_post(&sem);
}

static void on_timer(union sigval v)
{
	CHECK_EQ(v.sival_int, 4711);
	be_a_thread();
}

static void *contend(void *arg)
{
	for (int i = 0; i < 500; i++) {
		pthread_mutex_lock(&m);
		count++;
		pthread_mutex_unlock(&m);
		if (i % 50 == 0)
			usleep(100);
	}
	return arg;
}

static void setup(void)
{
	count = 0;
	sem_init(&sem, 0, 0);
	REQUIRE(pipe(fds) == 0);
}

static void end(void)
{
	close(fds[0]);
	close(fds[1]);
	sem_destroy(&sem);
}

static void timer_threads(void)
{
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD,
			      .sigev_notify_function = on_timer,
			      .sigev_value.sival_int = 4711};
	struct itimerspec its = {{0, 0}, {0, 5000000}};
	pthread_t t[8];
	timer_t timer;
	char ch;

	setup();
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(contend, NULL);
	for (int i = 0; i < 10; i++) {
		REQUIRE(timer_create(CLOCK_MONOTONIC, &ev, &timer) == 0);
		CHECK_EQ(timer_settime(timer, 0, &its, NULL), 0);
		CHECK_EQ(read(fds[0], &ch, 1), 1);
		while (sem_wait(&sem) != 0)
			;
		CHECK_EQ(timer_delete(timer), 0);
	}
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	CHECK_EQ(count, 10 * 50 + 500 * (int)COUNT(t));
	end();
}

static void on_aio(union sigval v)
{
	CHECK(v.sival_ptr == &sem);
	be_a_thread();
}

static void asynchronous_io(void)
{
	char buf[100] = "";
	int p[2];

	setup();
	REQUIRE(pipe(p) == 0);
	struct aiocb cb = {.aio_fildes = p[0],
			   .aio_buf = buf,
			   .aio_nbytes = sizeof buf,
			   .aio_sigevent = {.sigev_notify = SIGEV_THREAD,
					    .sigev_notify_function = on_aio,
					    .sigev_value.sival_ptr = &sem}};
	CHECK_EQ(aio_read(&cb), 0);
	sleep_ms(20);
	CHECK_EQ(aio_error(&cb), EINPROGRESS);
	CHECK_EQ(write(p[1], "asynchronous", 12), 12);
	while (sem_wait(&sem) != 0)
		;
	CHECK_EQ(aio_error(&cb), 0);
	CHECK_EQ(aio_return(&cb), 12);
	CHECK(memcmp(buf, "asynchronous", 12) == 0);
	/* And waited for by aio_suspend, while another thread writes. */
	cb.aio_sigevent.sigev_notify = SIGEV_NONE;
	CHECK_EQ(aio_read(&cb), 0);
	CHECK_EQ(write(p[1], "again", 5), 5);
	const struct aiocb *list[] = {&cb};
	int rc;
	while ((rc = aio_suspend(list, 1, NULL)) != 0 && errno == EINTR)
		;
	CHECK_EQ(rc, 0);
	CHECK_EQ(aio_return(&cb), 5);
	close(p[0]);
	close(p[1]);
	end();
}

static void on_lookup(union sigval v)
{
	(void)v;
	be_a_thread();
}

static void asynchronous_lookup(void)
{
	struct addrinfo hints = {.ai_family = AF_INET, .ai_flags = AI_NUMERICHOST};
	struct gaicb req = {.ar_name = "127.0.0.1", .ar_request = &hints};
	struct gaicb *list[] = {&req};
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_lookup};

	setup();
	CHECK_EQ(getaddrinfo_a(GAI_NOWAIT, list, 1, &ev), 0);
	while (sem_wait(&sem) != 0)
		;
	CHECK_EQ(gai_error(&req), 0);
	if (req.ar_result)
		freeaddrinfo(req.ar_result);
	end();
}

static void *real_thread(void *arg)
{
	be_a_thread();
	return (void *)((intptr_t)arg + 1);
}

static void made_by_the_real_function(void)
{
	pthread_t t[8], own[8];

	setup();
	for (unsigned i = 0; i < COUNT(own); i++)
		own[i] = spawn(contend, NULL);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn_really(real_thread, (void *)(intptr_t)i);
	/* join meets a pthread_t that isn't one of its own. */
	for (unsigned i = 0; i < COUNT(t); i++)
		CHECK_EQ((intptr_t)join(t[i]), i + 1);
	for (unsigned i = 0; i < COUNT(own); i++)
		join(own[i]);
	CHECK_EQ(count, 50 * (int)COUNT(t) + 500 * (int)COUNT(own));
	end();
}

/* A handler on a foreign thread makes the call that it has interrupted. */
static int target, foreign, stop, handled;

static void *be_named(void *arg)
{
	if (arg)
		__atomic_store_n(&target, gettid(), __ATOMIC_RELEASE);
	while (sem_wait(&sem) != 0)
		;
	return NULL;
}

static void on_usr1(int sig)
{
	(void)sig;
	if (tgkill(getpid(), target, 0) != 0)
		_exit(1);
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELEASE);
}

static void *names_it(void *arg)
{
	sigset_t usr1;
	int n = 0;

	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	CHECK_EQ(pthread_sigmask(SIG_UNBLOCK, &usr1, NULL), 0);
	__atomic_store_n(&foreign, gettid(), __ATOMIC_RELEASE);
	for (; !__atomic_load_n(&stop, __ATOMIC_ACQUIRE); n++)
		CHECK_EQ(tgkill(getpid(), target, 0), 0);
	CHECK(n > 0);
	return arg;
}

static void a_handler_makes_the_same_call(void)
{
	struct sigaction sa = {.sa_handler = on_usr1, .sa_flags = SA_RESTART};
	pthread_t t[300];

	setup();
	target = foreign = stop = handled = 0;
	REQUIRE(sigaction(SIGUSR1, &sa, NULL) == 0);
	for (unsigned i = 0; i < COUNT(t); i++)
		t[i] = spawn(be_named, i == 0 ? &t[0] : NULL);
	while (!__atomic_load_n(&target, __ATOMIC_ACQUIRE))
		sleep_ms(1);
	pthread_t f = spawn_really(names_it, NULL);
	while (!__atomic_load_n(&foreign, __ATOMIC_ACQUIRE))
		sleep_ms(1);
	for (int i = 1; i <= 500; i++) {
		CHECK_EQ(tgkill(getpid(), foreign, SIGUSR1), 0);
		while (__atomic_load_n(&handled, __ATOMIC_ACQUIRE) != i)
			sched_yield();
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	join(f);
	for (unsigned i = 0; i < COUNT(t); i++)
		sem_post(&sem);
	for (unsigned i = 0; i < COUNT(t); i++)
		join(t[i]);
	signal(SIGUSR1, SIG_DFL);
	end();
}

static const struct test_case cases[] = {
    {"timer_threads", timer_threads},
    {"asynchronous_io", asynchronous_io},
    {"asynchronous_lookup", asynchronous_lookup},
    {"made_by_the_real_function", made_by_the_real_function},
    {"a_handler_makes_the_same_call", a_handler_makes_the_same_call},
};

TEST_MAIN(cases)
