/*
 * What is asked, and what must be answered: values, requests, answers.
 *
 * acked[] and sent[] hold for each key the newest version acknowledged and the newest sent; with
 * one writer a key these bound what a get may return, whichever connection and worker asks.
 */
#include "load.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEYLEN = 32 };

static _Atomic uint32_t *acked, *sent;
static char run_id[12]; /* so that an earlier run's values are not ours */

bool init_keys(void)
{
	snprintf(run_id, sizeof run_id, "%x",
		 (unsigned)(now_ns() / 1000 ^ (uint64_t)getpid() << 16));
	acked = calloc(opt.keys, sizeof *acked);
	sent = calloc(opt.keys, sizeof *sent);
	return acked && sent;
}

static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* opt.value_size printable bytes that only this key and version give. */
static void make_value(char *p, uint32_t key, uint32_t version)
{
	static const char digits[] =
	    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
	uint64_t s = ((uint64_t)key << 32 | version) * 0x9e3779b97f4a7c15u + 1;
	size_t n = opt.value_size, i;
	for (i = 0; i < 8; i++)
		p[i] = digits[version >> (28 - 4 * i) & 15];
	while (i < n) {
		uint64_t r = next_random(&s);
		for (int k = 0; k < 10 && i < n; k++, r >>= 6)
			p[i++] = digits[r & 63];
	}
}

static bool read_version(const char *p, uint32_t *version)
{
	uint32_t v = 0;
	for (int i = 0; i < 8; i++) {
		int ch = p[i];
		if (ch >= '0' && ch <= '9')
			v = v << 4 | (uint32_t)(ch - '0');
		else if (ch >= 'a' && ch <= 'f')
			v = v << 4 | (uint32_t)(ch - 'a' + 10);
		else
			return false;
	}
	*version = v;
	return true;
}

static int make_key(char *p, uint32_t key)
{
	return snprintf(p, KEYLEN, "gs%s-%08u", run_id, key);
}

void build_request(struct worker *w, struct conn *c)
{
	char key[KEYLEN];
	if (opt.protocol == HTTP) {
		http_request(c);
		return;
	}
	if (opt.protocol == ECHO) {
		c->is_set = true;
		c->key = c->id;
		c->version++;
		make_value(c->out, c->key, c->version);
		c->outlen = opt.value_size;
		return;
	}
	/* Key k belongs to connection k % connections; first write each own key once. */
	unsigned own = opt.keys / opt.connections;
	uint64_t r = next_random(&w->rng);
	if (c->seeded < own) {
		c->is_set = true;
		c->key = c->seeded++ * opt.connections + c->id;
	} else {
		c->is_set = (r & 0xffff) < opt.set_ratio * 65536;
		r >>= 16;
		c->key = c->is_set ? (uint32_t)(r % own) * opt.connections + c->id
				   : (uint32_t)(r % (own * opt.connections));
	}
	int klen = make_key(key, c->key);
	int n;
	if (!c->is_set) {
		c->lo = atomic_load(&acked[c->key]);
		n = opt.protocol == MEMCACHED
			? sprintf(c->out, "get %s\r\n", key)
			: sprintf(c->out, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", klen, key);
	} else {
		c->version = atomic_load(&sent[c->key]) + 1;
		atomic_store(&sent[c->key], c->version);
		n = opt.protocol == MEMCACHED
			? sprintf(c->out, "set %s 0 0 %u\r\n", key, opt.value_size)
			: sprintf(c->out, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%u\r\n", klen, key,
				  opt.value_size);
		make_value(c->out + n, c->key, c->version);
		n += (int)opt.value_size;
		memcpy(c->out + n, "\r\n", 2);
		n += 2;
	}
	c->outlen = (size_t)n;
}

/* The checks return 1 for complete and right, 0 for incomplete, -1 for wrong, with why set. */
static int starts(const struct conn *c, const char *want, const char **why)
{
	size_t n = strlen(want);
	if (memcmp(c->in, want, c->inlen < n ? c->inlen : n) != 0) {
		*why = "unexpected answer";
		return -1;
	}
	if (c->inlen > n) {
		*why = "bytes after the answer";
		return -1;
	}
	return c->inlen == n;
}

static int check_get(struct worker *w, struct conn *c, const char **why)
{
	const char *miss = opt.protocol == MEMCACHED ? "END\r\n" : "$-1\r\n";
	const char *tail = opt.protocol == MEMCACHED ? "\r\nEND\r\n" : "\r\n";
	char key[KEYLEN], head[KEYLEN + SLACK];
	size_t mlen = strlen(miss);

	if (c->inlen >= mlen && !memcmp(c->in, miss, mlen)) {
		if (c->inlen > mlen) {
			*why = "bytes after the answer";
			return -1;
		}
		if (c->lo != 0) {
			*why = "miss of a key that was stored";
			return -1;
		}
		w->misses++;
		return 1;
	}
	make_key(key, c->key);
	size_t hlen = (size_t)(opt.protocol == MEMCACHED
				   ? sprintf(head, "VALUE %s 0 %u\r\n", key, opt.value_size)
				   : sprintf(head, "$%u\r\n", opt.value_size));
	size_t tlen = strlen(tail), total = hlen + opt.value_size + tlen;
	if (c->inlen < total) {
		size_t have = c->inlen < hlen ? c->inlen : hlen;
		if (memcmp(c->in, head, have) && memcmp(c->in, miss, have < mlen ? have : mlen)) {
			*why = "unexpected answer";
			return -1;
		}
		return 0;
	}
	uint32_t version, hi = atomic_load(&sent[c->key]);
	if (c->inlen > total)
		*why = "bytes after the answer";
	else if (memcmp(c->in, head, hlen) || memcmp(c->in + hlen + opt.value_size, tail, tlen))
		*why = "wrong frame around the value";
	else if (!read_version(c->in + hlen, &version))
		*why = "value without a version";
	else if (version < c->lo || version > hi)
		*why = version < c->lo ? "stale value" : "value never sent";
	else {
		make_value(w->expect, c->key, version);
		if (!memcmp(w->expect, c->in + hlen, opt.value_size)) {
			w->hits++;
			return 1;
		}
		*why = "value differs from what was stored";
	}
	return -1;
}

int check_answer(struct worker *w, struct conn *c, const char **why)
{
	if (opt.protocol == HTTP)
		return http_answer(c, why);
	if (opt.protocol == ECHO) {
		if (c->inlen < opt.value_size)
			return 0;
		if (c->inlen == opt.value_size && !memcmp(c->in, c->out, c->inlen))
			return 1;
		*why = "echo differs";
		return -1;
	}
	if (!c->is_set)
		return check_get(w, c, why);
	int r = starts(c, opt.protocol == MEMCACHED ? "STORED\r\n" : "+OK\r\n", why);
	if (r > 0)
		atomic_store(&acked[c->key], c->version);
	return r;
}
