/*
 * What threads may do, done by every kind of thread that the program did not ask pthread_create for:
 * each object in both directions with the program's own threads, threads made, joined, cancelled and
 * signalled, keys, names, masks, handlers, and the ways to end: return, pthread_exit, cancellation,
 * fork, exec, exit.
 */
#include "foreign.h"

#include <aio.h>
#include <mqueue.h>
#include <netdb.h>
#include <semaphore.h>
#include <setjmp.h>
#include <spawn.h>
#include <sys/mman.h>

/* --- kinds of foreign threads ---------------------------------------------------------------------------------------- */

static void (*body)(void);
static sem_t finished;

static void run_body(union sigval v)
{
	CHECK_EQ(v.sival_int, 4711);
	body();
	sem_post(&finished);
}

static struct sigevent notification(void)
{
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD,
			      .sigev_notify_function = run_body,
			      .sigev_value.sival_int = 4711};
	return ev;
}

static timer_t timer;

static void by_timer(void)
{
	struct sigevent ev = notification();
	struct itimerspec its = {{0, 0}, {0, 1000000}};

	REQUIRE(timer_create(CLOCK_MONOTONIC, &ev, &timer) == 0);
	CHECK_EQ(timer_settime(timer, 0, &its, NULL), 0);
}

static char iobuf[10];
static struct aiocb cb;

static void by_aio(void)
{
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);

	cb = (struct aiocb){.aio_fildes = fd,
			    .aio_buf = iobuf,
			    .aio_nbytes = sizeof iobuf,
			    .aio_sigevent = notification()};
	CHECK_EQ(aio_read(&cb), 0);
}

static mqd_t queue;

static void by_message(void)
{
	struct sigevent ev = notification();
	char name[50];

	snprintf(name, sizeof name, "/goshim-test-%d", (int)getpid());
	queue = mq_open(name, O_CREAT | O_RDWR, 0600, NULL);
	if (queue == (mqd_t)-1) {
		test_skipped = "no message queues";
		sem_post(&finished);
		return;
	}
	mq_unlink(name);
	CHECK_EQ(mq_notify(queue, &ev), 0);
	CHECK_EQ(mq_send(queue, "m", 1, 0), 0);
}

static void by_lookup(void)
{
	static struct addrinfo hints = {.ai_family = AF_INET, .ai_flags = AI_NUMERICHOST};
	static struct gaicb req;
	static struct gaicb *list[] = {&req};
	struct sigevent ev = notification();

	req = (struct gaicb){.ar_name = "127.0.0.1", .ar_request = &hints};
	CHECK_EQ(getaddrinfo_a(GAI_NOWAIT, list, 1, &ev), 0);
}

static void *real_body(void *arg)
{
	run_body((union sigval){.sival_int = 4711});
	return arg;
}

static void by_the_real_function(void)
{
	pthread_detach(spawn_really(real_body, NULL));
}

static void (*const makers[])(void) = {by_timer, by_aio, by_message, by_lookup,
				       by_the_real_function};

/* fn on a thread of each kind; meanwhile, if any, on one of the program's own. */
static void on_each(void (*fn)(void), void (*before)(void), void (*meanwhile)(void))
{
	for (unsigned i = 0; i < COUNT(makers); i++) {
		REQUIRE(sem_init(&finished, 0, 0) == 0);
		body = fn;
		if (before)
			before();
		makers[i]();
		if (meanwhile && !test_skipped)
			meanwhile();
		while (sem_wait(&finished) != 0)
			;
		if (makers[i] == by_timer)
			timer_delete(timer);
		test_skipped = NULL;
	}
}

/* --- objects --------------------------------------------------------------------------------------------------------- */

enum { KINDS = 9, TURNS = 40 };

static pthread_mutex_t m[KINDS];
static pthread_cond_t c[KINDS];
static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
static pthread_spinlock_t spin;
static pthread_barrier_t barrier;
static sem_t ping, pong;
static pthread_once_t once;
static int count[KINDS], turn[KINDS], read_by, spun, initialised;

static void make_objects(void)
{
	static const struct {
		int type, robust, protocol, shared;
	} kinds[KINDS] = {
	    {PTHREAD_MUTEX_NORMAL, 0, 0, 0},     {PTHREAD_MUTEX_RECURSIVE, 0, 0, 0},
	    {PTHREAD_MUTEX_ERRORCHECK, 0, 0, 0}, {PTHREAD_MUTEX_ADAPTIVE_NP, 0, 0, 0},
	    {PTHREAD_MUTEX_NORMAL, 1, 0, 0},     {PTHREAD_MUTEX_NORMAL, 0, 1, 0},
	    {PTHREAD_MUTEX_RECURSIVE, 1, 1, 0},  {PTHREAD_MUTEX_NORMAL, 0, 0, 1},
	    {PTHREAD_MUTEX_ERRORCHECK, 0, 0, 1},
	};

	for (int i = 0; i < KINDS; i++) {
		pthread_mutexattr_t a;
		pthread_condattr_t ca;

		pthread_mutexattr_init(&a);
		pthread_mutexattr_settype(&a, kinds[i].type);
		pthread_mutexattr_setrobust(&a, kinds[i].robust);
		pthread_mutexattr_setprotocol(&a, kinds[i].protocol);
		pthread_mutexattr_setpshared(&a, kinds[i].shared);
		REQUIRE_OK(pthread_mutex_init(&m[i], &a));
		pthread_condattr_init(&ca);
		pthread_condattr_setpshared(&ca, kinds[i].shared);
		REQUIRE_OK(pthread_cond_init(&c[i], &ca));
		count[i] = turn[i] = 0;
	}
	pthread_spin_init(&spin, 0);
	pthread_barrier_init(&barrier, NULL, 2);
	sem_init(&ping, 0, 0);
	sem_init(&pong, 0, 0);
	once = PTHREAD_ONCE_INIT;
	read_by = spun = initialised = 0;
}

static void initialise(void)
{
	usleep(1000);
	__atomic_add_fetch(&initialised, 1, __ATOMIC_RELEASE);
}

/* me: 0 a foreign thread, 1 one of the program's own. */
static void use_objects(int me)
{
	for (int k = 0; k < KINDS; k++) {
		for (int i = 0; i < TURNS; i++) {
			CHECK_EQ(pthread_mutex_lock(&m[k]), 0);
			int v = count[k];
			if (i % 8 == 0)
				usleep(20);
			count[k] = v + 1;
			CHECK_EQ(pthread_mutex_unlock(&m[k]), 0);
		}
		CHECK_EQ(pthread_mutex_lock(&m[k]), 0);
		while (turn[k] < TURNS) {
			if (turn[k] % 2 == me) {
				turn[k]++;
				CHECK_EQ(pthread_cond_signal(&c[k]), 0);
				continue;
			}
			struct timespec ts = after_ms(CLOCK_REALTIME, 30000);
			CHECK_EQ(turn[k] % 4 < 2 ? pthread_cond_wait(&c[k], &m[k])
						 : pthread_cond_timedwait(&c[k], &m[k], &ts),
				 0);
		}
		CHECK_EQ(pthread_mutex_unlock(&m[k]), 0);
	}
	for (int i = 0; i < TURNS; i++) {
		if (i % 2 == me) {
			CHECK_EQ(pthread_rwlock_rdlock(&rw), 0);
			(void)__atomic_load_n(&read_by, __ATOMIC_RELAXED);
		} else {
			CHECK_EQ(pthread_rwlock_wrlock(&rw), 0);
			read_by++;
		}
		if (i % 8 == 0)
			usleep(20);
		CHECK_EQ(pthread_rwlock_unlock(&rw), 0);
		CHECK_EQ(pthread_spin_lock(&spin), 0);
		spun++;
		CHECK_EQ(pthread_spin_unlock(&spin), 0);
		int r = pthread_barrier_wait(&barrier);
		CHECK(r == 0 || r == PTHREAD_BARRIER_SERIAL_THREAD);
		CHECK_EQ(sem_post(me ? &ping : &pong), 0);
		CHECK_EQ(sem_wait(me ? &pong : &ping), 0);
	}
	CHECK_EQ(pthread_once(&once, initialise), 0);
	CHECK_EQ(initialised, 1);
}

static void objects_foreign(void)
{
	use_objects(0);
}

static void *objects_own(void *arg)
{
	use_objects(1);
	return arg;
}

static void objects_meanwhile(void)
{
	join(spawn(objects_own, NULL));
	for (int k = 0; k < KINDS; k++)
		CHECK_EQ(count[k], 2 * TURNS);
	CHECK_EQ(read_by, TURNS);
	CHECK_EQ(spun, 2 * TURNS);
}

static void objects(void)
{
	on_each(objects_foreign, make_objects, objects_meanwhile);
}

/* --- threads --------------------------------------------------------------------------------------------------------- */

static int fds[2];
static pthread_key_t key;
static volatile int destroyed, got_signal, cleaned;

static void *waits_in_read(void *arg)
{
	char ch;

	if (read(fds[0], &ch, 1) == 1)
		return arg;
	return NULL;
}

static void *adds_one(void *arg)
{
	return (char *)arg + 1;
}

static void on_usr1(int sig)
{
	(void)sig;
	got_signal++;
}

static void *waits_for_signal(void *arg)
{
	sigset_t none;

	sigemptyset(&none);
	__atomic_store_n((int *)arg, 1, __ATOMIC_RELEASE);
	while (!got_signal)
		sigsuspend(&none);
	return NULL;
}

static sigjmp_buf fault;
static volatile int *volatile nowhere;

static void on_segv(int sig)
{
	(void)sig;
	siglongjmp(fault, 1);
}

/* Also when the thread has been used before: it may be one of a pool. */
static void handle_threads(void)
{
	pthread_t self = pthread_self(), t, u;
	pthread_attr_t attr;
	char name[20] = "";
	void *result;
	sigset_t usr1, old;
	int waiting = 0, here = 0;

	/* Itself. */
	CHECK(pthread_equal(self, pthread_self()));
	CHECK_EQ(pthread_setname_np(self, "stranger"), 0);
	CHECK_EQ(pthread_getname_np(self, name, sizeof name), 0);
	CHECK_EQ(strcmp(name, "stranger"), 0);
	CHECK_EQ(pthread_getattr_np(self, &attr), 0);
	void *stack;
	size_t size;
	CHECK_EQ(pthread_attr_getstack(&attr, &stack, &size), 0);
	CHECK((char *)&here >= (char *)stack && (char *)&here < (char *)stack + size);
	pthread_attr_destroy(&attr);
	CHECK(gettid() != getpid());
	CHECK_EQ(tgkill(getpid(), gettid(), 0), 0);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGSEGV);
	CHECK_EQ(pthread_sigmask(SIG_UNBLOCK, &usr1, &old), 0);
	if (sigsetjmp(fault, 1) == 0)
		*nowhere = 1;
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	CHECK_EQ(pthread_sigmask(SIG_UNBLOCK, &usr1, NULL), 0);
	got_signal = 0;
	CHECK_EQ(pthread_kill(self, SIGUSR1), 0);
	CHECK_EQ(got_signal, 1);
	CHECK_EQ(raise(SIGUSR1), 0);
	CHECK_EQ(got_signal, 2);
	CHECK_EQ(pthread_sigmask(SIG_BLOCK, &usr1, NULL), 0);
	CHECK_EQ(raise(SIGUSR1), 0);
	CHECK_EQ(sigwaitinfo(&usr1, NULL), SIGUSR1);
	CHECK_EQ(got_signal, 2);
	CHECK_EQ(pthread_sigmask(SIG_SETMASK, &old, NULL), 0);
	clockid_t clock;
	struct timespec ts;
	CHECK_EQ(pthread_getcpuclockid(self, &clock), 0);
	CHECK_EQ(clock_gettime(clock, &ts), 0);

	/* Others. */
	t = spawn(adds_one, &here);
	CHECK(!pthread_equal(t, self));
	CHECK(join(t) == (char *)&here + 1);
	t = spawn(waits_in_read, &here);
	CHECK_EQ(pthread_setname_np(t, "own"), 0);
	CHECK_EQ(pthread_tryjoin_np(t, &result), EBUSY);
	ts = after_ms(CLOCK_REALTIME, 5);
	CHECK_EQ(pthread_timedjoin_np(t, &result, &ts), ETIMEDOUT);
	u = spawn(waits_in_read, NULL);
	usleep(1000);
	CHECK_EQ(pthread_cancel(u), 0);
	CHECK(join(u) == PTHREAD_CANCELED);
	CHECK_EQ(write(fds[1], "x", 1), 1);
	CHECK(join(t) == &here);
	got_signal = 0;
	CHECK_EQ(pthread_sigmask(SIG_BLOCK, &usr1, &old), 0);
	t = spawn(waits_for_signal, &waiting);
	CHECK_EQ(pthread_sigmask(SIG_SETMASK, &old, NULL), 0);
	while (!__atomic_load_n(&waiting, __ATOMIC_ACQUIRE))
		sched_yield();
	CHECK_EQ(pthread_kill(t, SIGUSR1), 0);
	join(t);
	CHECK_EQ(got_signal, 1);
	pthread_detach(spawn(adds_one, NULL));
	usleep(1000);
	free(malloc(100000));
}

static void threads_before(void)
{
	static int made;
	struct sigaction sa = {.sa_handler = on_usr1}, segv = {.sa_handler = on_segv};

	if (made)
		return;
	made = 1;
	REQUIRE(pipe(fds) == 0);
	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGSEGV, &segv, NULL);
	join(spawn(adds_one, NULL));
}

static void threads(void)
{
	on_each(handle_threads, threads_before, NULL);
}

/* --- ways to end ----------------------------------------------------------------------------------------------------- */

static void destroy(void *p)
{
	CHECK(p == &destroyed);
	destroyed++;
	sem_post(&finished);
}

static void clean(void *p)
{
	(void)p;
	cleaned++;
}

static void exits_by_pthread_exit(void)
{
	CHECK_EQ(pthread_setspecific(key, (void *)&destroyed), 0);
	pthread_cleanup_push(clean, NULL);
	pthread_exit(NULL);
	pthread_cleanup_pop(0);
}

static void is_cancelled(void)
{
	CHECK_EQ(pthread_setspecific(key, (void *)&destroyed), 0);
	pthread_cleanup_push(clean, NULL);
	CHECK_EQ(pthread_cancel(pthread_self()), 0);
	for (;;)
		usleep(1000);
	pthread_cleanup_pop(0);
}

/* The thread does not get to the end of its function: a destructor says when it has ended. */
static void ends_early(void)
{
	static void (*const ways[])(void) = {exits_by_pthread_exit, is_cancelled};
	static void (*const from[])(void) = {by_timer, by_the_real_function};

	REQUIRE_OK(pthread_key_create(&key, destroy));
	join(spawn(adds_one, NULL));
	for (unsigned w = 0; w < COUNT(ways); w++)
		for (unsigned f = 0; f < COUNT(from); f++)
			for (int i = 0; i < 5; i++) {
				REQUIRE(sem_init(&finished, 0, 0) == 0);
				destroyed = cleaned = 0;
				body = ways[w];
				from[f]();
				while (sem_wait(&finished) != 0)
					;
				CHECK_EQ(destroyed, 1);
				CHECK_EQ(cleaned, 1);
				if (from[f] == by_timer)
					timer_delete(timer);
			}
	pthread_key_delete(key);
}

static void forks(void)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		void *r = join(spawn(adds_one, (void *)6));
		pthread_t t[8];

		for (int i = 0; i < 8; i++)
			t[i] = spawn(adds_one, NULL);
		for (int i = 0; i < 8; i++)
			join(t[i]);
		exit((int)(intptr_t)r);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 7 << 8);
	CHECK_EQ(system("exit 5"), 5 << 8);
	char *argv[] = {"sh", "-c", "exit 6", NULL};
	CHECK_EQ(posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, NULL), 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 6 << 8);
	pid = vfork();
	if (pid == 0) {
		execve("/bin/sh", argv, NULL);
		_exit(1);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 6 << 8);
}

static void new_processes(void)
{
	threads_before();
	on_each(forks, NULL, NULL);
}

static void exits(void)
{
	exit(3);
}

static void execs(void)
{
	execl("/bin/sh", "sh", "-c", "exit 4", NULL);
}

static void *sleeps(void *arg)
{
	for (;;)
		usleep(1000);
	return arg;
}

/* In a process of its own from the start: libc's helpers don't survive a fork. */
static int process_to_end(const char *maker, const char *how)
{
	threads_before();
	for (int i = 0; i < 4; i++)
		pthread_detach(spawn(sleeps, NULL));
	REQUIRE(sem_init(&finished, 0, 0) == 0);
	body = strcmp(how, "exits") == 0 ? exits : execs;
	makers[atoi(maker)]();
	while (!test_skipped)
		pause();
	return 77;
}

static int maker;
static const char *how;

static int run_process_to_end(void)
{
	char number[10];

	snprintf(number, sizeof number, "%d", maker);
	execl("/proc/self/exe", "foreign_calls", "end", number, how, NULL);
	return 1;
}

static void end_of_process(void)
{
	for (maker = 0; maker < (int)COUNT(makers); maker++) {
		how = "exits";
		int status = in_child(run_process_to_end);
		CHECK(status == 3 << 8 || status == 77 << 8);
		how = "execs";
		status = in_child(run_process_to_end);
		CHECK(status == 4 << 8 || status == 77 << 8);
	}
}

/* --- the other way: what the program's threads do with a foreign one ------------------------------------------------- */

static void *stays(void *arg)
{
	*(int *)arg = 1;
	pthread_cleanup_push(clean, NULL);
	for (;;)
		usleep(500);
	pthread_cleanup_pop(0);
	return NULL;
}

static void *own_acts(void *arg)
{
	char name[20] = "";
	int waiting, policy;
	struct sched_param param;
	struct timespec ts;
	cpu_set_t set;
	void *result;

	threads_before();
	for (int i = 0; i < 5; i++) {
		volatile int up = 0;
		pthread_t f = spawn_really(stays, (void *)&up);

		while (!up)
			sched_yield();
		CHECK_EQ(pthread_setname_np(f, "far"), 0);
		CHECK_EQ(pthread_getname_np(f, name, sizeof name), 0);
		CHECK_EQ(strcmp(name, "far"), 0);
		CHECK_EQ(pthread_getschedparam(f, &policy, &param), 0);
		CHECK_EQ(policy, SCHED_OTHER);
		CHECK_EQ(pthread_getaffinity_np(f, sizeof set, &set), 0);
		CHECK_EQ(pthread_setaffinity_np(f, sizeof set, &set), 0);
		CHECK_EQ(pthread_kill(f, 0), 0);
		CHECK_EQ(pthread_tryjoin_np(f, &result), EBUSY);
		ts = after_ms(CLOCK_REALTIME, 3);
		CHECK_EQ(pthread_timedjoin_np(f, &result, &ts), ETIMEDOUT);
		cleaned = 0;
		CHECK_EQ(pthread_cancel(f), 0);
		CHECK(join(f) == PTHREAD_CANCELED);
		CHECK_EQ(cleaned, 1);
		got_signal = waiting = 0;
		f = spawn_really(waits_for_signal, &waiting);
		while (!__atomic_load_n(&waiting, __ATOMIC_ACQUIRE))
			sched_yield();
		while (!got_signal) {
			CHECK_EQ(pthread_kill(f, SIGUSR1), 0);
			usleep(1000);
		}
		join(f);
	}
	return arg;
}

static void acted_upon(void)
{
	own_acts(NULL);
	join(spawn(own_acts, NULL));
}

/* --- one that libc doesn't know, either ------------------------------------------------------------------------------ */

enum { RAW_STACK = 256 << 10 };

static int raw_tid;

static int raw_thread(void *arg)
{
	for (int i = 0; i < TURNS; i++) {
		pthread_mutex_lock(&m[0]);
		count[0]++;
		while (turn[0] % 2 != 0)
			pthread_cond_wait(&c[0], &m[0]);
		turn[0]++;
		pthread_cond_broadcast(&c[0]);
		pthread_mutex_unlock(&m[0]);
		pthread_barrier_wait(&barrier);
		sem_post(&pong);
		while (sem_wait(&ping) != 0)
			;
		usleep(10);
	}
	(void)arg;
	syscall(SYS_exit, 0);
	return 0;
}

/* With thread-local storage as the loader makes it. */
static void start_raw(void)
{
	void *(*allocate)(void *) =
	    (__typeof__(allocate))(uintptr_t)dlsym(RTLD_DEFAULT, "_dl_allocate_tls");
	char *stack =
	    mmap(NULL, RAW_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *self = (char *)pthread_self();

	REQUIRE(allocate && stack != MAP_FAILED);
	char *block = allocate(NULL);
	REQUIRE(block);
	*(void **)block = block;
	*(void **)(block + 16) = block;
	memcpy(block + 0x28, self + 0x28, 16); /* what guards stacks and pointers */
	raw_tid = 1;
	int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
		    CLONE_SYSVSEM | CLONE_SETTLS | CLONE_CHILD_CLEARTID;
	REQUIRE(clone(raw_thread, stack + RAW_STACK, flags, NULL, NULL, block, &raw_tid) > 0);
}

static void *with_raw(void *arg)
{
	make_objects();
	start_raw();
	for (int i = 0; i < TURNS; i++) {
		pthread_mutex_lock(&m[0]);
		count[0]++;
		while (turn[0] % 2 != 1)
			pthread_cond_wait(&c[0], &m[0]);
		turn[0]++;
		pthread_cond_broadcast(&c[0]);
		pthread_mutex_unlock(&m[0]);
		pthread_barrier_wait(&barrier);
		while (sem_wait(&pong) != 0)
			;
		CHECK_EQ(sem_post(&ping), 0);
	}
	CHECK(wait_for(&raw_tid, 0, 30000));
	CHECK_EQ(count[0], 2 * TURNS);
	return arg;
}

static void raw_clone(void)
{
	for (int i = 0; i < 5; i++)
		join(spawn(with_raw, NULL));
}

static const struct test_case cases[] = {
    {"objects", objects},
    {"raw_clone", raw_clone},
    {"threads", threads},
    {"ends_early", ends_early},
    {"new_processes", new_processes},
    {"end_of_process", end_of_process},
    {"acted_upon", acted_upon},
};

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "end") == 0)
		return process_to_end(argv[2], argv[3]);
	return test_run(argc, argv, cases, COUNT(cases));
}
