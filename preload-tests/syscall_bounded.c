/*
 * Far more threads wait in the kernel than a library that runs threads on fewer kernel threads may have of these
 * (GOSHIM=maxthreads=16): in calls that nothing but the kernel can wait in, and in inline ones that no library sees.
 * All come to their end, those too for which another of them has to act first, and the bound holds.
 */
#include "test.h"

#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { MOST = 2000, BOUND = 16, PIPES = 40, CHAIN = 60 };

static pthread_t t[MOST];
static int threads, begun, done, most;
static char path[200];
static int file, held[CHAIN], pipes[PIPES][2], listener, sems;
static struct sockaddr_un address = {.sun_family = AF_UNIX};

static int reopened(void)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	REQUIRE(fd >= 0);
	return fd;
}

static void is_done(void)
{
	__atomic_add_fetch(&done, 1, __ATOMIC_RELAXED);
}

static void begin(void *(*fn)(void *), int n)
{
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	threads = n;
	begun = done = 0;
	for (int i = 0; i < n; i++)
		REQUIRE_OK(pthread_create(&t[i], &attr, fn, (void *)(intptr_t)i));
	pthread_attr_destroy(&attr);
}

static void look(void)
{
	int have = kernel_threads();

	most = have > most ? have : most;
}

static void end(void)
{
	for (int i = 0; i < threads; i++) {
		join(t[i]);
		if (i % 50 == 0)
			look();
	}
	CHECK_EQ(done, threads);
	/* The scheduler has two of its own. */
	if (under_shim())
		CHECK(most <= BOUND + 2);
}

/* --- one lock for all ------------------------------------------------------------------------------------- */

static void *flocks(void *arg)
{
	int fd = reopened();

	CHECK_EQ(flock(fd, LOCK_EX), 0);
	done++;
	CHECK_EQ(flock(fd, LOCK_UN), 0);
	close(fd);
	return arg;
}

static void in_flock(void)
{
	int fd = reopened();

	CHECK_EQ(flock(fd, LOCK_EX), 0);
	begin(flocks, MOST);
	sleep_ms(50);
	look();
	CHECK_EQ(done, 0);
	CHECK_EQ(flock(fd, LOCK_UN), 0);
	end();
	close(fd);
}

static void *locks_a_byte(void *arg)
{
	struct flock l = {.l_type = F_WRLCK, .l_start = (intptr_t)arg, .l_len = 1};

	CHECK_EQ(fcntl(file, F_SETLKW, &l), 0);
	l.l_type = F_UNLCK;
	CHECK_EQ(fcntl(file, F_SETLKW, &l), 0);
	is_done();
	return NULL;
}

/* Another process has the whole file. */
static void in_setlkw(void)
{
	int ready[2], go[2];
	char c;

	REQUIRE(pipe(ready) == 0 && pipe(go) == 0);
	pid_t pid = fork();
	REQUIRE(pid >= 0);
	if (pid == 0) {
		struct flock l = {.l_type = F_WRLCK};
		int fd = reopened();

		close(go[1]);
		REQUIRE(fcntl(fd, F_SETLK, &l) == 0);
		REQUIRE(write(ready[1], "r", 1) == 1);
		_exit((int)read(go[0], &c, 1));
	}
	CHECK_EQ(read(ready[0], &c, 1), 1);
	begin(locks_a_byte, MOST);
	sleep_ms(50);
	look();
	CHECK_EQ(done, 0);
	close(go[1]);
	end();
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	close(go[0]);
	close(ready[0]);
	close(ready[1]);
}

/* --- for which another of them has to act first --------------------------------------------------------------- */

/* In this order. */
static void my_turn(int n)
{
	while (__atomic_load_n(&begun, __ATOMIC_ACQUIRE) != n)
		sched_yield();
	__atomic_store_n(&begun, n + 1, __ATOMIC_RELEASE);
}

/* Waits for a byte that the next one has locked, and will until it has got its own. */
static void *waits_for_the_next(void *arg)
{
	int me = (int)(intptr_t)arg;
	struct flock l = {.l_type = F_WRLCK, .l_start = me, .l_len = 1};

	my_turn(me);
	CHECK_EQ(fcntl(held[me], F_OFD_SETLKW, &l), 0);
	is_done();
	l.l_start = me - 1;
	l.l_type = F_UNLCK;
	if (me > 0)
		CHECK_EQ(fcntl(held[me], F_OFD_SETLKW, &l), 0);
	return NULL;
}

static void in_a_chain(void)
{
	for (int i = 0; i < CHAIN; i++) {
		struct flock l = {.l_type = F_WRLCK, .l_start = i - 1, .l_len = 1};

		held[i] = reopened();
		if (i > 0)
			CHECK_EQ(fcntl(held[i], F_OFD_SETLK, &l), 0);
	}
	begin(waits_for_the_next, CHAIN);
	end();
	for (int i = 0; i < CHAIN; i++)
		close(held[i]);
}

/* Passes the semaphore on: the last in line has to act first. */
static void *takes_and_gives(void *arg)
{
	int me = (int)(intptr_t)arg;
	struct sembuf take = {.sem_num = (unsigned short)me, .sem_op = -1};
	struct sembuf give = {.sem_num = (unsigned short)(me + 1), .sem_op = 1};

	my_turn(threads - 1 - me);
	CHECK_EQ(semop(sems, &take, 1), 0);
	is_done();
	if (me + 1 < threads)
		CHECK_EQ(semop(sems, &give, 1), 0);
	return NULL;
}

static void in_semop(void)
{
	struct sembuf give = {.sem_num = 0, .sem_op = 1};

	sems = semget(IPC_PRIVATE, CHAIN, 0600);
	if (sems < 0)
		SKIP_CASE("no System V semaphores");
	begin(takes_and_gives, CHAIN);
	sleep_ms(20);
	CHECK_EQ(semop(sems, &give, 1), 0);
	end();
	semctl(sems, 0, IPC_RMID);
}

/* --- others ----------------------------------------------------------------------------------------------- */

static void *syncs(void *arg)
{
	int fd = reopened();

	CHECK_EQ(write(fd, "x", 1), 1);
	CHECK_EQ(fsync(fd), 0);
	close(fd);
	is_done();
	return arg;
}

static void in_fsync(void)
{
	begin(syncs, 500);
	end();
}

static void *connects(void *arg)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char c;

	CHECK(fd >= 0);
	CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
	CHECK_EQ(read(fd, &c, 1), 0);
	close(fd);
	is_done();
	return arg;
}

static void *accepts(void *arg)
{
	for (int i = 0; i < threads; i++) {
		int fd = accept(listener, NULL, NULL);

		CHECK(fd >= 0);
		close(fd);
	}
	return arg;
}

/* The queue of the listener is short. */
static void in_connect(void)
{
	int n = snprintf(address.sun_path, sizeof address.sun_path, "%s.s", path);

	REQUIRE(n < (int)sizeof address.sun_path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	REQUIRE(bind(listener, (struct sockaddr *)&address, sizeof address) == 0);
	REQUIRE(listen(listener, 1) == 0);
	begin(connects, 800);
	sleep_ms(20);
	look();
	pthread_t acceptor = spawn(accepts, NULL);
	end();
	join(acceptor);
	close(listener);
	unlink(address.sun_path);
}

static void *polls(void *arg)
{
	struct pollfd p[PIPES];

	for (int i = 0; i < PIPES; i++)
		p[i] = (struct pollfd){.fd = pipes[i][0], .events = POLLIN};
	CHECK_EQ(poll(p, PIPES, -1), 1);
	CHECK(p[PIPES - 1].revents & POLLIN);
	is_done();
	return arg;
}

static void in_poll(void)
{
	for (int i = 0; i < PIPES; i++)
		REQUIRE(pipe(pipes[i]) == 0);
	begin(polls, 500);
	sleep_ms(20);
	look();
	CHECK_EQ(done, 0);
	CHECK_EQ(write(pipes[PIPES - 1][1], "x", 1), 1);
	end();
	for (int i = 0; i < PIPES; i++) {
		close(pipes[i][0]);
		close(pipes[i][1]);
	}
}

static void *sleeps_unseen(void *arg)
{
	struct timespec ts = {0, 2000000};
	long r;

	/* A signal for preemption may meet one that has just begun (docs/limits.md). */
	do
		__asm__ volatile("syscall"
				 : "=a"(r)
				 : "a"(SYS_nanosleep), "D"(&ts), "S"(0)
				 : "rcx", "r11", "memory");
	while (under_shim() && r == -EINTR);
	CHECK_EQ(r, 0);
	is_done();
	return arg;
}

static void in_calls_unseen(void)
{
	begin(sleeps_unseen, 100);
	end();
}

/* --- and it is told why ----------------------------------------------------------------------------------- */

/* Ends by SIGQUIT while many stand in line. */
static int quits_in_line(void)
{
	int fd = reopened();

	CHECK_EQ(flock(fd, LOCK_EX), 0);
	begin(flocks, 3 * BOUND);
	while (kernel_threads() < BOUND)
		sleep_ms(1);
	sleep_ms(50);
	raise(SIGQUIT);
	return 1;
}

static void told_by_stacks(void)
{
	static char text[1 << 20];
	size_t n = 0;
	ssize_t r;
	int out[2], old = dup(2);

	REQUIRE(pipe2(out, O_CLOEXEC) == 0);
	fcntl(out[1], F_SETPIPE_SZ, sizeof text);
	dup2(out[1], 2);
	close(out[1]);
	int status = in_child(quits_in_line);
	dup2(old, 2);
	close(old);
	while (n < sizeof text - 1 && (r = read(out[0], text + n, sizeof text - 1 - n)) > 0)
		n += r;
	close(out[0]);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGQUIT);
	if (under_shim())
		CHECK(strstr(text, " [kernel thread]:"));
}

static const struct test_case cases[] = {
    {"in_flock", in_flock},
    {"in_setlkw", in_setlkw},
    {"in_a_chain", in_a_chain},
    {"in_semop", in_semop},
    {"in_fsync", in_fsync},
    {"in_connect", in_connect},
    {"in_poll", in_poll},
    {"in_calls_unseen", in_calls_unseen},
    {"told_by_stacks", told_by_stacks},
};

int main(int argc, char **argv)
{
	const char *settings = getenv("GOSHIM"), *dir = getenv("TMPDIR");
	struct rlimit files;
	char more[200];

	if (!settings || !strstr(settings, "maxthreads")) {
		snprintf(more, sizeof more, "%s%smaxthreads=%d", settings ? settings : "",
			 settings ? "," : "", BOUND);
		setenv("GOSHIM", more, 1);
		execv("/proc/self/exe", argv);
	}
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max < 4096 ? files.rlim_max : 4096;
	setrlimit(RLIMIT_NOFILE, &files);
	snprintf(path, sizeof path, "%s/goshim-XXXXXX", dir && strlen(dir) < 60 ? dir : "/tmp");
	file = mkstemp(path);
	REQUIRE(file >= 0);
	int status = test_run(argc, argv, cases, COUNT(cases));
	unlink(path);
	return status;
}
