/*
 * Answers of HTTP in pieces of any size, whole and damaged, built with the sanitizers: whole ones are right however
 * they come, and damaged ones lead tools/load_http.c nowhere beyond its buffer.
 *
 *     fuzz_http [ROUNDS]
 */
#include "../../tools/load.h"

#include <stdlib.h>
#include <string.h>

enum { BODY_LENGTH = 3000 };

struct options opt = {.status = 200, .path = "/", .host = "127.0.0.1", .port = 80};
static uint64_t seed = 88172645463325252u;
static unsigned right, refused, incomplete;

static uint64_t next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static size_t answer(char *p, int kind)
{
	static char body[BODY_LENGTH];
	char *start = p;
	for (int i = 0; i < BODY_LENGTH; i++)
		body[i] = "ab\r\n\0:;0"[i % 8];
	if (kind == 0) {
		p += sprintf(p, "HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length:  %d \r\n\r\n",
			     BODY_LENGTH);
		memcpy(p, body, BODY_LENGTH);
		return (size_t)(p + BODY_LENGTH - start);
	}
	if (kind == 1) {
		p += sprintf(p, "HTTP/1.0 200 OK\r\n\r\n");
		memcpy(p, body, BODY_LENGTH);
		return (size_t)(p + BODY_LENGTH - start);
	}
	p +=
	    sprintf(p, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n"
		       "Connection: keep-alive\r\n\r\n");
	for (int at = 0; at < BODY_LENGTH;) {
		int n = 1 + (int)(next() % 700);
		n = n < BODY_LENGTH - at ? n : BODY_LENGTH - at;
		p += sprintf(p, next() % 2 ? "%x\r\n" : "%04X;name=value\r\n", (unsigned)n);
		memcpy(p, body + at, (size_t)n);
		p += n;
		p += sprintf(p, "\r\n");
		at += n;
	}
	p += sprintf(p, "0\r\nTrailer: x\r\n\r\n");
	return (size_t)(p - start);
}

/* What the client makes of it: 1 right, 0 incomplete, -1 refused. */
static int feed(struct conn *c, const char *data, size_t n, const char **why)
{
	size_t at = 0;
	int r = 0;
	http_request(c);
	c->inlen = 0;
	while (at < n && r == 0) {
		size_t piece = 1 + next() % (next() % 4 ? 40 : HTTP_ROOM),
		       room = HTTP_ROOM - c->inlen;
		piece = piece < n - at ? piece : n - at;
		piece = piece < room ? piece : room;
		if (!piece)
			return -1; /* too long for the client, too */
		memcpy(c->in + c->inlen, data + at, piece);
		c->inlen += piece;
		at += piece;
		r = http_answer(c, why);
		if (c->inlen > HTTP_ROOM || (r > 0 && c->inlen))
			abort();
	}
	return r ? r : http_closed(c, why);
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 20000;
	struct conn c = {.in = malloc(HTTP_ROOM), .out = malloc(HTTP_ROOM)};
	char *data = malloc(2 * HTTP_ROOM);
	const char *why = NULL;
	for (int i = 0; i < rounds; i++) {
		size_t n = answer(data, i % 3);
		if (feed(&c, data, n, &why) != 1) {
			printf("a whole answer of kind %d is refused: %s\n", i % 3, why);
			return 1;
		}
	}
	for (int i = 0; i < rounds; i++) {
		size_t n = answer(data, i % 3);
		for (uint64_t k = 1 + next() % 4; k; k--)
			data[next() % (next() % 2 ? 120 : n)] =
			    next() % 2 ? (char)next() : "\r\n:; -0fx"[next() % 10];
		n = next() % 4 ? n : next() % n;
		int r = feed(&c, data, n, &why);
		right += r > 0;
		refused += r < 0;
		incomplete += r == 0;
	}
	free(data);
	free(c.in);
	free(c.out);
	printf("right=%u refused=%u incomplete=%u\n", right, refused, incomplete);
	return 0;
}
