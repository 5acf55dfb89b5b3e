/*
 * A pre-forking server: the master has threads, forks workers from several of them, which accept on the one socket and
 * answer each connection in a thread of its own; they end after a number of connections and are replaced. Clients in a
 * process of their own check every answer.
 */
#include "test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum { WORKERS = 4, CLIENTS = 8, ROUNDS = 40, A_WORKERS_LIFE = 12, LINE = 32 };

static int listener;
static struct sockaddr_in address;
static struct shared {
	int answered, replaced, threads;
} * shared;
static pthread_mutex_t started = PTHREAD_MUTEX_INITIALIZER;
static volatile int stop;

/* --- a worker ---------------------------------------------------------------------------------------------------- */

static pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t all_done = PTHREAD_COND_INITIALIZER;
static int busy;

static int line_from(int fd, char *line)
{
	int n = 0;

	while (n < LINE) {
		ssize_t r = read(fd, line + n, LINE - n);
		if (r <= 0)
			return r == 0 && n == 0 ? 0 : -1;
		n += r;
	}
	return 1;
}

static void *answers(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char line[LINE + 1] = "", answer[LINE + 1];

	while (line_from(fd, line) > 0) {
		char *p = malloc(100);
		snprintf(p, 100, "%-*ld", LINE, strtol(line, NULL, 10) * 3 + 1);
		memcpy(answer, p, LINE);
		free(p);
		if (send(fd, answer, LINE, MSG_NOSIGNAL) != LINE)
			break;
		__atomic_add_fetch(&shared->answered, 1, __ATOMIC_RELAXED);
	}
	close(fd);
	pthread_mutex_lock(&own);
	if (--busy == 0)
		pthread_cond_broadcast(&all_done);
	pthread_mutex_unlock(&own);
	return NULL;
}

static int worker(void)
{
	pthread_t t;

	CHECK_EQ(gettid(), getpid());
	for (int i = 0; i < A_WORKERS_LIFE; i++) {
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			break; /* the master has shut it down */
		pthread_mutex_lock(&own);
		busy++;
		pthread_mutex_unlock(&own);
		REQUIRE_OK(pthread_create(&t, NULL, answers, (void *)(intptr_t)fd));
		pthread_detach(t);
		__atomic_add_fetch(&shared->threads, 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_lock(&own);
	while (busy)
		pthread_cond_wait(&all_done, &own);
	pthread_mutex_unlock(&own);
	return test_failures ? 99 : 7;
}

/* --- the master -------------------------------------------------------------------------------------------------- */

static void *keeps_a_worker(void *arg)
{
	while (!stop) {
		int status = -1;
		pid_t pid = fork();

		REQUIRE(pid >= 0);
		if (pid == 0)
			exit(worker());
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		if (status != 7 << 8)
			FAIL("a worker ends with %#x", status);
		__atomic_add_fetch(&shared->replaced, 1, __ATOMIC_RELAXED);
	}
	return arg;
}

static void *housekeeping(void *arg)
{
	while (!stop) {
		pthread_mutex_lock(&started);
		free(malloc(5000));
		pthread_mutex_unlock(&started);
		usleep(200);
	}
	return arg;
}

/* --- clients ----------------------------------------------------------------------------------------------------- */

static void *asks(void *arg)
{
	char line[LINE + 1], answer[LINE + 1] = "";

	for (int i = 0; i < ROUNDS; i++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		REQUIRE(fd >= 0);
		REQUIRE(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
		for (long j = 0; j < 4; j++) {
			long n = (intptr_t)arg * 100000 + i * 100 + j;
			snprintf(line, sizeof line, "%-*ld", LINE, n);
			CHECK_EQ(send(fd, line, LINE, MSG_NOSIGNAL), LINE);
			CHECK_EQ(line_from(fd, answer), 1);
			CHECK_EQ(strtol(answer, NULL, 10), n * 3 + 1);
		}
		close(fd);
	}
	return arg;
}

static int clients(void)
{
	pthread_t t[CLIENTS];

	for (intptr_t i = 0; i < CLIENTS; i++)
		t[i] = spawn(asks, (void *)i);
	for (int i = 0; i < CLIENTS; i++)
		join(t[i]);
	return 8;
}

static void serves(void)
{
	pthread_t keepers[WORKERS], housekeeper;
	socklen_t len = sizeof address;

	shared =
	    mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	REQUIRE(shared != MAP_FAILED && listener >= 0);
	REQUIRE(bind(listener, (struct sockaddr *)&address, sizeof address) == 0);
	REQUIRE(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
	REQUIRE(listen(listener, 100) == 0);
	housekeeper = spawn(housekeeping, NULL);
	for (int i = 0; i < WORKERS; i++)
		keepers[i] = spawn(keeps_a_worker, NULL);
	CHECK_EQ(in_child(clients), 8 << 8);
	stop = 1;
	shutdown(listener, SHUT_RDWR);
	for (int i = 0; i < WORKERS; i++)
		join(keepers[i]);
	join(housekeeper);
	close(listener);
	CHECK_EQ(shared->answered, CLIENTS * ROUNDS * 4);
	CHECK_EQ(shared->threads, CLIENTS * ROUNDS);
	CHECK(shared->replaced > CLIENTS * ROUNDS / A_WORKERS_LIFE - WORKERS);
}

static const struct test_case cases[] = {
    {"serves", serves},
};

TEST_MAIN(cases)
