/*
 * HTTP/1.1 as far as a GET needs it: the answer's status and length, with a length or in chunks or up to the end
 * of the connection, and a body that is the same every time. The body is not kept, only its digest
 * (FNV-1a): that of the first answer is what all others must have, unless one was given.
 */
#define _GNU_SOURCE
#include "load.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const uint64_t FNV_BASIS = 14695981039346656037u, FNV_PRIME = 1099511628211u;

static pthread_mutex_t learning = PTHREAD_MUTEX_INITIALIZER;
static _Atomic bool known;
static uint64_t body_digest, body_length; /* written once, before known */

void http_body(uint64_t *digest, uint64_t *length)
{
	*digest = body_digest;
	*length = body_length;
}

void http_request(struct conn *c)
{
	/* path was checked to fit, and to have no spaces. */
	c->outlen = (size_t)sprintf(c->out,
				    "GET %s HTTP/1.1\r\nHost: %s:%u\r\nUser-Agent: goshim\r\n"
				    "Accept: */*\r\n\r\n",
				    opt.path, opt.host, opt.port);
	c->http = (struct http){.digest = FNV_BASIS};
}

static int bad(const char **why, const char *text)
{
	*why = text;
	return -1;
}

static void drop(struct conn *c, size_t n)
{
	c->inlen -= n;
	memmove(c->in, c->in + n, c->inlen);
}

/* What a header of this name says, in its line. */
static const char *header(const char *line, const char *name)
{
	size_t n = strlen(name);
	if (strncasecmp(line, name, n) || line[n] != ':')
		return NULL;
	return line + n + 1 + strspn(line + n + 1, " \t");
}

static bool length(const char *text, int base, uint64_t *out)
{
	char *end;
	/* strtoull would take spaces, signs and nothing at all. */
	if (!*text || !strchr(base == 10 ? "0123456789" : "0123456789abcdefABCDEF", *text))
		return false;
	*out = strtoull(text, &end, base);
	return (size_t)(end - text) <= 16 && !end[strspn(end, " \t")];
}

/* The head, of which each line ends with a zero. */
static int read_head(struct http *h, char *line, const char *end, const char **why)
{
	unsigned minor, status;
	bool has_length = false, chunked = false;
	if (sscanf(line, "HTTP/1.%u %3u", &minor, &status) != 2)
		return bad(why, "no answer of HTTP/1");
	if (status >= 100 && status < 200)
		return 1; /* the real one comes behind it */
	h->status = status;
	h->closes = minor == 0;
	for (line += strlen(line) + 2; line < end; line += strlen(line) + 2) {
		const char *v;
		if ((v = header(line, "Content-Length"))) {
			if (has_length || !length(v, 10, &h->left))
				return bad(why, "wrong Content-Length");
			has_length = true;
		} else if ((v = header(line, "Transfer-Encoding"))) {
			if (strcasecmp(v, "chunked"))
				return bad(why, "a Transfer-Encoding that was not asked for");
			chunked = true;
		} else if ((v = header(line, "Connection"))) {
			if (strcasestr(v, "close"))
				h->closes = true;
			else if (strcasestr(v, "keep-alive"))
				h->closes = false;
		}
	}
	if (status != opt.status)
		return bad(why, "another status");
	if (chunked && has_length)
		return bad(why, "chunks and a Content-Length");
	if (status == 204 || status == 304) {
		h->left = 0;
		has_length = true;
	}
	h->state = chunked ? CHUNK_HEAD : has_length ? BODY : UNTIL_CLOSE;
	h->closes |= h->state == UNTIL_CLOSE;
	return 1;
}

static void hash(struct conn *c, size_t n)
{
	uint64_t d = c->http.digest;
	for (size_t i = 0; i < n; i++)
		d = (d ^ (unsigned char)c->in[i]) * FNV_PRIME;
	c->http.digest = d;
	c->http.length += n;
	c->http.left -= n;
	drop(c, n);
}

static int complete(struct conn *c, const char **why)
{
	struct http *h = &c->http;
	if (c->inlen)
		return bad(why, "bytes after the answer");
	if (!atomic_load_explicit(&known, memory_order_acquire)) {
		pthread_mutex_lock(&learning);
		if (!known) {
			body_digest = opt.digest ? opt.digest : h->digest;
			body_length = h->length;
			atomic_store_explicit(&known, true, memory_order_release);
		}
		pthread_mutex_unlock(&learning);
	}
	if (h->digest != body_digest)
		return bad(why, opt.digest && h->length == body_length ? "a body of another digest"
								       : "another body");
	return 1;
}

/* Ends the text up to `mark` with a zero; its length with the mark, or 0 when that is not there yet. */
static size_t upto(struct conn *c, const char *mark)
{
	char *end = memmem(c->in, c->inlen, mark, strlen(mark));
	if (!end)
		return 0;
	*end = 0;
	return (size_t)(end - c->in) + strlen(mark);
}

int http_answer(struct conn *c, const char **why)
{
	struct http *h = &c->http;
	for (;;) {
		size_t n;
		switch (h->state) {
		case HEAD:
			if (!(n = upto(c, "\r\n\r\n")))
				return 0;
			if (memchr(c->in, 0, n - 4))
				return bad(why, "a zero in the head");
			for (char *p = c->in; (p = strstr(p, "\r\n"));)
				*p = 0, p += 2;
			if (read_head(h, c->in, c->in + n - 4, why) < 0)
				return -1;
			drop(c, n);
			break;
		case BODY:
			hash(c, h->left < c->inlen ? h->left : c->inlen);
			return h->left ? 0 : complete(c, why);
		case UNTIL_CLOSE: hash(c, c->inlen); return 0;
		case CHUNK_HEAD:
			if (!(n = upto(c, "\r\n")))
				return 0;
			c->in[strcspn(c->in, ";")] = 0;
			if (!length(c->in, 16, &h->left))
				return bad(why, "wrong length of a chunk");
			h->state = h->left ? CHUNK : TRAILER;
			drop(c, n);
			break;
		case CHUNK:
			hash(c, h->left < c->inlen ? h->left : c->inlen);
			if (h->left)
				return 0;
			h->state = CHUNK_END;
			break;
		case CHUNK_END:
			if (c->inlen < 2)
				return 0;
			if (memcmp(c->in, "\r\n", 2))
				return bad(why, "no end of a chunk");
			drop(c, 2);
			h->state = CHUNK_HEAD;
			break;
		case TRAILER:
			if (!(n = upto(c, "\r\n")))
				return 0;
			drop(c, n);
			if (n == 2)
				return complete(c, why);
			break;
		}
	}
}

int http_closed(struct conn *c, const char **why)
{
	return c->http.state == UNTIL_CLOSE ? complete(c, why) : 0;
}
