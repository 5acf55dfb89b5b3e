/*
 * Creation beyond memory and limits: EAGAIN, the process alive, all threads made so far at work,
 * and creation works again when there is room again.
 */
#include "test.h"

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static int go;

static void *wait_go(void *arg)
{
	pthread_mutex_lock(&m);
	while (!go)
		pthread_cond_wait(&c, &m);
	pthread_mutex_unlock(&m);
	return arg;
}

static void *plus_one(void *arg)
{
	return (void *)((intptr_t)arg + 1);
}

static long vm_kib(void)
{
	long pages = 0;
	char buf[100];
	int fd = open("/proc/self/statm", O_RDONLY);
	ssize_t n = read(fd, buf, sizeof buf - 1);

	close(fd);
	REQUIRE(n > 0);
	buf[n] = '\0';
	REQUIRE(sscanf(buf, "%ld", &pages) == 1);
	return pages * 4;
}

/* Creates until it fails or `most` are there; everybody is released and joined. Returns how many
 * there were. */
static int fill(int most)
{
	pthread_t *t = malloc(most * sizeof *t);
	int n = 0, rc = 0;

	go = 0;
	while (n < most && (rc = pthread_create(&t[n], NULL, wait_go, (void *)(intptr_t)n)) == 0)
		n++;
	if (n < most)
		CHECK_EQ(rc, EAGAIN);
	/* Failing again is no different. */
	for (int i = 0; n < most && i < 20; i++) {
		rc = pthread_create(&t[n], NULL, wait_go, (void *)(intptr_t)n);
		if (rc == 0)
			n++;
		else
			CHECK_EQ(rc, EAGAIN);
	}
	pthread_mutex_lock(&m);
	go = 1;
	pthread_cond_broadcast(&c);
	pthread_mutex_unlock(&m);
	for (int i = 0; i < n; i++)
		CHECK_EQ((intptr_t)join(t[i]), i);
	free(t);
	return n;
}

static int limited_address_space(int started)
{
	struct rlimit rl, old;

	if (started)
		CHECK_EQ((intptr_t)join(spawn(plus_one, (void *)1)), 2);
	getrlimit(RLIMIT_AS, &old);
	rl = old;
	rl.rlim_cur = (vm_kib() + 300 * 1024) * 1024ul;
	REQUIRE(setrlimit(RLIMIT_AS, &rl) == 0);
	int n = fill(2000);
	if (!under_shim())
		CHECK(n < 100);
	CHECK(n > 0 || under_shim());
	CHECK(fill(2000) > 0 || under_shim());
	REQUIRE(setrlimit(RLIMIT_AS, &old) == 0);
	CHECK_EQ(fill(100), 100);
	return 0;
}

static int limited_from_the_start(void)
{
	return limited_address_space(0);
}

static int limited_later(void)
{
	return limited_address_space(1);
}

static void address_space(void)
{
	CHECK_EQ(in_child(limited_from_the_start), 0);
	CHECK_EQ(in_child(limited_later), 0);
}

static void stack_too_large(void)
{
	static const size_t sizes[] = {1ul << 46, 1ul << 47, 1ul << 60};

	for (unsigned i = 0; i < COUNT(sizes); i++) {
		pthread_attr_t attr;
		pthread_t t;

		pthread_attr_init(&attr);
		CHECK_EQ(pthread_attr_setstacksize(&attr, sizes[i]), 0);
		int rc = pthread_create(&t, &attr, plus_one, NULL);
		if (rc == 0)
			join(t);
		if (sizes[i] > 1ul << 46 || rc != 0)
			CHECK_EQ(rc, EAGAIN);
		pthread_attr_destroy(&attr);
		CHECK_EQ((intptr_t)join(spawn(plus_one, (void *)1)), 2);
	}
}

static void *guarded(void *arg)
{
	return arg;
}

static void guard_too_large(void)
{
	pthread_attr_t attr;
	pthread_t t;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 1 << 20);
	pthread_attr_setguardsize(&attr, 1ul << 60);
	int rc = pthread_create(&t, &attr, guarded, NULL);
	CHECK(rc == EINVAL || rc == EAGAIN);
	pthread_attr_destroy(&attr);
	CHECK_EQ((intptr_t)join(spawn(plus_one, (void *)1)), 2);
}

/* A user of no importance, with no other processes: they count, too. */
static int become_nobody(void)
{
	unsigned id = 1000000 + (unsigned)getpid();

	return setgid(id) == 0 && setuid(id) == 0;
}

/* No more processes or threads for this user: kernel threads run out, goroutines need not. */
static int no_more_processes(void)
{
	struct rlimit rl = {20, 20};

	if (!become_nobody())
		return 77;
	REQUIRE(setrlimit(RLIMIT_NPROC, &rl) == 0);
	int n = fill(500);
	if (!under_shim())
		CHECK(n < 30);
	CHECK(n > 0);
	CHECK(fill(500) > 0);
	return 0;
}

/*
 * All kernel threads wait for one whose thread sleeps: it has to wake though there is none left to
 * look after it. An inheriting mutex ties its holder to a kernel thread.
 */
static pthread_mutex_t inheriting;
static int has_it;

static void *holds_for_a_while(void *arg)
{
	CHECK_EQ(pthread_mutex_lock(&inheriting), 0);
	__atomic_store_n(&has_it, 1, __ATOMIC_RELEASE);
	sleep_ms(50);
	CHECK_EQ(pthread_mutex_unlock(&inheriting), 0);
	return arg;
}

static int all_wait_for_a_sleeper(void)
{
	struct rlimit rl = {4, 4};
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	REQUIRE_OK(pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT));
	REQUIRE_OK(pthread_mutex_init(&inheriting, &attr));
	CHECK_EQ((intptr_t)join(spawn(plus_one, (void *)1)), 2);
	if (!become_nobody())
		return 77;
	REQUIRE(setrlimit(RLIMIT_NPROC, &rl) == 0);
	pthread_t t = spawn(holds_for_a_while, NULL);
	while (!__atomic_load_n(&has_it, __ATOMIC_ACQUIRE))
		sleep_ms(1);
	CHECK_EQ(pthread_mutex_lock(&inheriting), 0);
	CHECK_EQ(pthread_mutex_unlock(&inheriting), 0);
	join(t);
	return 0;
}

static void as_a_poor_user(int (*fn)(void))
{
	if (geteuid() != 0)
		SKIP_CASE("needs root, to become a user of no importance");
	int status = in_child(fn);
	if (status == 77 << 8)
		SKIP_CASE("cannot change the user");
	CHECK_EQ(status, 0);
}

static void process_limit(void)
{
	as_a_poor_user(no_more_processes);
}

static void process_limit_and_wired(void)
{
	as_a_poor_user(all_wait_for_a_sleeper);
}

static const struct test_case cases[] = {
    {"stack_too_large", stack_too_large}, {"guard_too_large", guard_too_large},
    {"process_limit", process_limit},     {"process_limit_and_wired", process_limit_and_wired},
    {"address_space", address_space},
};

TEST_MAIN(cases)
