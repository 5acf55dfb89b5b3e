/*
 * Names looked up at a server that takes its time: libc sends and polls inside, by calls of its own. Until the answer
 * is there all others run, and as many as like wait at once.
 */
#include "test.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <sys/socket.h>

enum { LOOKUPS = 8 };

static int server;
static struct sockaddr_in address;
static int done;

/* This thread's questions go to our server, once. */
static void ask_us(void)
{
	REQUIRE(res_init() == 0);
	_res.nscount = 1;
	_res.nsaddr_list[0] = address;
	_res.retrans = 3600;
	_res.retry = 1;
	_res.options &= ~(RES_DNSRCH | RES_DEFNAMES);
}

static void *by_res_query(void *arg)
{
	unsigned char answer[512];
	char name[40];

	snprintf(name, sizeof name, "host%d.example", (int)(intptr_t)arg);
	ask_us();
	int n = res_query(name, C_IN, T_A, answer, sizeof answer);
	if (n < 4 || answer[n - 1] != (unsigned char)(intptr_t)arg)
		FAIL("res_query of %s: %d, errno %d", name, n, errno);
	__atomic_add_fetch(&done, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void *by_getaddrinfo(void *arg)
{
	struct addrinfo want = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *got;
	char name[40];

	snprintf(name, sizeof name, "host%d.example.", (int)(intptr_t)arg);
	ask_us();
	int rc = getaddrinfo(name, NULL, &want, &got);
	if (rc != 0) {
		FAIL("getaddrinfo of %s: %s, errno %d", name, gai_strerror(rc), errno);
	} else {
		struct sockaddr_in *a = (void *)got->ai_addr;
		CHECK_EQ(ntohl(a->sin_addr.s_addr) & 0xff, (intptr_t)arg);
		freeaddrinfo(got);
	}
	__atomic_add_fetch(&done, 1, __ATOMIC_RELEASE);
	return NULL;
}

struct question {
	struct sockaddr_in from;
	size_t n;
	unsigned char text[512];
};

static void receive(struct question *q)
{
	socklen_t len = sizeof q->from;
	ssize_t n = recvfrom(server, q->text, sizeof q->text, 0, (void *)&q->from, &len);

	REQUIRE(n > NS_HFIXEDSZ);
	q->n = (size_t)n;
}

/* host7.example is 127.1.2.7. */
static void answer(struct question *q)
{
	const unsigned char *name = q->text + NS_HFIXEDSZ;
	unsigned char host = (unsigned char)atoi((const char *)name + 5);
	size_t end = NS_HFIXEDSZ + strlen((const char *)name) + 1 + 4;
	unsigned char record[] = {0xc0, 12, 0, T_A, 0, C_IN, 0, 0, 0, 60, 0, 4, 127, 1, 2, host};

	q->text[2] = 0x81;
	q->text[3] = 0x80;
	q->text[7] = 1; /* an answer, and nothing else after the question */
	memset(q->text + 8, 0, 4);
	memcpy(q->text + end, record, sizeof record);
	ssize_t n = (ssize_t)(end + sizeof record);
	CHECK_EQ(sendto(server, q->text, (size_t)n, 0, (void *)&q->from, sizeof q->from), n);
}

static void *nap(void *arg)
{
	sleep_ms(1);
	return arg;
}

static void lookups(void *(*fn)(void *))
{
	static struct question q[LOOKUPS];
	pthread_t t[LOOKUPS];

	done = 0;
	for (int i = 0; i < LOOKUPS; i++)
		t[i] = spawn(fn, (void *)(intptr_t)(i + 1));
	for (int i = 0; i < LOOKUPS; i++)
		receive(&q[i]);
	join(spawn(nap, NULL));
	CHECK_EQ(__atomic_load_n(&done, __ATOMIC_ACQUIRE), 0);
	for (int i = 0; i < LOOKUPS; i++)
		answer(&q[i]);
	for (int i = 0; i < LOOKUPS; i++)
		join(t[i]);
}

static void resolver(void)
{
	lookups(by_res_query);
}

/* Does libc ask servers for the names of hosts? */
static int asks_servers(void)
{
	FILE *f = fopen("/etc/nsswitch.conf", "re");
	char line[200];
	int asks = f == NULL;

	while (f && fgets(line, sizeof line, f))
		asks |= strncmp(line, "hosts:", 6) == 0 && strstr(line, "dns") != NULL;
	if (f)
		fclose(f);
	return asks;
}

static void addresses(void)
{
	if (!asks_servers())
		SKIP_CASE("libc asks no servers for names here");
	lookups(by_getaddrinfo);
}

static const struct test_case cases[] = {
    {"resolver", resolver},
    {"addresses", addresses},
};

int main(int argc, char **argv)
{
	socklen_t len = sizeof address;

	address =
	    (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	server = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	REQUIRE(bind(server, (void *)&address, sizeof address) == 0);
	REQUIRE(getsockname(server, (void *)&address, &len) == 0);
	return test_run(argc, argv, cases, COUNT(cases));
}
