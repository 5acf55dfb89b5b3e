/*
 * ids_all_threads.c - setuid and its kin change every kernel thread of the process, or none.
 *
 * Credentials are read back from /proc/self/task for all of them, while threads work; in a child, since
 * there is no way back. Needs root.
 */
#include "foreign.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <grp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int stop;

static void *busy(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		usleep(500);
	return arg;
}

static void *computes(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		;
	return arg;
}

/* The first two numbers in the line `name` of a thread's status; false: it has ended. */
static int status_line(const char *tid, const char *name, unsigned id[2])
{
	char path[300], line[256];
	int seen = 0;

	snprintf(path, sizeof path, "/proc/self/task/%s/status", tid);
	FILE *f = fopen(path, "r");
	if (!f)
		return 0;
	id[0] = id[1] = 0;
	while (fgets(line, sizeof line, f))
		if (!strncmp(line, name, strlen(name)))
			seen = sscanf(line + strlen(name), "%u %u", &id[0], &id[1]);
	fclose(f);
	return seen > 0;
}

/* Every thread's line `name` begins with these two. Returns how many threads there were. */
static int all_are(const char *name, unsigned first, unsigned second)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	int n = 0;

	REQUIRE(d != NULL);
	while ((e = readdir(d)) != NULL) {
		unsigned id[2];

		if (e->d_name[0] == '.' || !status_line(e->d_name, name, id))
			continue;
		n++;
		if (id[0] == first && id[1] == second)
			continue;
		/* libc leaves out those that are about to end. */
		for (int i = 0; i < 1000 && !under_shim() && status_line(e->d_name, name, id); i++)
			sleep_ms(5);
		if (status_line(e->d_name, name, id))
			FAIL("%s has %u %u, not %u %u", name, id[0], id[1], first, second);
	}
	closedir(d);
	return n;
}

static int all_have(const char *name, unsigned want)
{
	return all_are(name, want, want);
}

static int drop(void)
{
	pthread_t t[8];

	for (int i = 0; i < 8; i++)
		REQUIRE(pthread_create(&t[i], NULL, i < 2 ? computes : busy, NULL) == 0);
	usleep(20000);
	CHECK(all_have("Uid:", 0) >= 2);
	CHECK_EQ(setgroups(0, NULL), 0);
	CHECK_EQ(setgid(65534), 0);
	CHECK(all_have("Gid:", 65534) >= 2);
	CHECK_EQ(setuid(65534), 0);
	CHECK(all_have("Uid:", 65534) >= 2);
	/* None: the call fails, and nobody has changed. */
	CHECK_EQ(setuid(0), -1);
	CHECK(all_have("Uid:", 65534) >= 2);
	stop = 1;
	for (int i = 0; i < 8; i++)
		pthread_join(t[i], NULL);
	return 0;
}

static void under_work(void)
{
	CHECK_EQ(in_child(drop), 0);
}

/* --- a server under load, whose ids go there and back ---------------------------------------------- */

static int listener, served;
static __thread int used;

static void *serve(void *arg)
{
	char buf[100];
	int fd = (int)(intptr_t)arg;
	ssize_t n;

	while ((n = read(fd, buf, sizeof buf)) > 0 || (n < 0 && errno == EINTR)) {
		if (n > 0)
			CHECK_EQ(write(fd, buf, (size_t)n), n);
		__atomic_add_fetch(&served, 1, __ATOMIC_RELAXED);
		used++;
	}
	close(fd);
	return NULL;
}

static void *accept_all(void *arg)
{
	int fd;

	while ((fd = accept(listener, NULL, NULL)) >= 0 || errno == EINTR)
		if (fd >= 0)
			pthread_detach(spawn(serve, (void *)(intptr_t)fd));
	return arg;
}

static void *client(void *arg)
{
	const struct sockaddr_in *to = arg;

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		char c = 'x';

		CHECK_EQ(connect(fd, (const struct sockaddr *)to, sizeof *to), 0);
		for (int i = 0; i < 20; i++) {
			ssize_t n;

			CHECK_EQ(write(fd, &c, 1), 1);
			while ((n = read(fd, &c, 1)) < 0 && errno == EINTR)
				;
			CHECK_EQ(n, 1);
		}
		close(fd);
	}
	return NULL;
}

static void *nothing(void *arg)
{
	return arg;
}

static void *makes_threads(void *arg)
{
	struct sched_param batch = {0};

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		join(spawn(nothing, NULL));
	/* Kernel threads of their own come and go, too. */
	CHECK_EQ(sched_setscheduler(0, SCHED_BATCH, &batch), 0);
	return arg;
}

static void *makes_own_threads(void *arg)
{
	struct sched_param batch = {0};

	CHECK_EQ(sched_setscheduler(0, SCHED_BATCH, &batch), 0);
	return makes_threads(arg);
}

static void on_timer(union sigval v)
{
	(void)v;
	usleep(500);
}

static void *foreign(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		usleep(200);
	return arg;
}

static void change_ids(int rounds)
{
	gid_t groups[] = {1234, 2345};

	for (int i = 0; i < rounds; i++) {
		CHECK_EQ(setgroups(2, groups), 0);
		CHECK_EQ(setegid(65534), 0);
		CHECK_EQ(seteuid(65534), 0);
		CHECK(all_are("Uid:", 0, 65534) >= 3);
		CHECK(all_are("Gid:", 0, 65534) >= 3);
		CHECK(all_are("Groups:", 1234, 2345) >= 3);
		CHECK_ERRNO(setgroups(0, NULL), EPERM);
		CHECK_ERRNO(setresuid(77, 77, 77), EPERM);
		CHECK_ERRNO(setresgid(77, 77, 77), EPERM);
		CHECK(all_are("Uid:", 0, 65534) >= 3);
		CHECK(all_are("Groups:", 1234, 2345) >= 3);
		CHECK_EQ(setreuid(-1, 0), 0);
		CHECK_EQ(setresgid(-1, 0, -1), 0);
		CHECK(all_are("Uid:", 0, 0) >= 3);
		CHECK(all_are("Gid:", 0, 0) >= 3);
		CHECK_EQ(initgroups("root", 4711), 0);
		CHECK(all_are("Groups:", 4711, 0) >= 3);
	}
}

static void *changer(void *arg)
{
	change_ids(*(int *)arg);
	return NULL;
}

static int server(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof addr;
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_timer};
	struct itimerspec every = {{0, 3000000}, {0, 3000000}};
	timer_t timer;
	pthread_t clients[4], makers[2], f, acceptor;
	int rounds = 12;

	listener = socket(AF_INET, SOCK_STREAM, 0);
	REQUIRE(bind(listener, (struct sockaddr *)&addr, len) == 0 && listen(listener, 50) == 0);
	REQUIRE(getsockname(listener, (struct sockaddr *)&addr, &len) == 0);
	acceptor = spawn(accept_all, NULL);
	for (int i = 0; i < 4; i++)
		clients[i] = spawn(client, &addr);
	makers[0] = spawn(makes_threads, NULL);
	makers[1] = spawn(makes_own_threads, NULL);
	f = spawn_really(foreign, NULL);
	REQUIRE(timer_create(CLOCK_MONOTONIC, &ev, &timer) == 0);
	CHECK_EQ(timer_settime(timer, 0, &every, NULL), 0);
	while (__atomic_load_n(&served, __ATOMIC_RELAXED) < 100)
		usleep(1000);
	change_ids(rounds);
	join(spawn(changer, &rounds));
	join(spawn_really(changer, &rounds));
	int before = served;
	CHECK_EQ(setresgid(65534, 65534, 65534), 0);
	CHECK_EQ(setuid(65534), 0);
	CHECK(all_have("Gid:", 65534) >= 3);
	CHECK(all_have("Uid:", 65534) >= 3);
	while (__atomic_load_n(&served, __ATOMIC_RELAXED) < before + 100)
		usleep(1000);
	CHECK_ERRNO(setuid(0), EPERM);
	CHECK(all_have("Uid:", 65534) >= 3);
	CHECK_EQ(timer_delete(timer), 0);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (int i = 0; i < 4; i++)
		join(clients[i]);
	join(makers[0]);
	join(makers[1]);
	join(f);
	shutdown(listener, SHUT_RDWR);
	join(acceptor);
	return 0;
}

static void server_under_load(void)
{
	CHECK_EQ(in_child(server), 0);
}

static void *goes_back_and_forth(void *arg)
{
	for (int i = 0; i < 50; i++) {
		CHECK_EQ(setegid(*(gid_t *)arg), 0);
		CHECK_EQ(setegid(0), 0);
	}
	return arg;
}

static int several(void)
{
	gid_t g[4] = {11, 12, 13, 14};
	pthread_t t[4], w;

	w = spawn(busy, NULL);
	for (int i = 0; i < 4; i++)
		t[i] = i == 3 ? spawn_really(goes_back_and_forth, &g[i])
			      : spawn(goes_back_and_forth, &g[i]);
	for (int i = 0; i < 4; i++)
		join(t[i]);
	CHECK(all_are("Gid:", 0, 0) >= 2);
	stop = 1;
	join(w);
	return 0;
}

static void several_at_once(void)
{
	CHECK_EQ(in_child(several), 0);
}

static const struct test_case cases[] = {
    {"under_work", under_work},
    {"server_under_load", server_under_load},
    {"several_at_once", several_at_once},
};

int main(int argc, char **argv)
{
	if (geteuid() != 0)
		return 77;
	return test_run(argc, argv, cases, COUNT(cases));
}
