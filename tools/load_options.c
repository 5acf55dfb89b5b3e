/*
 * What can be chosen about a load, by name: for the options of `load`, and for goshim compare's --load.
 */
#include "load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

const char *const protocol_names[] = {"memcached", "redis", "echo", "http", NULL};

const struct options load_defaults = {.host = "127.0.0.1",
				      .path = "/",
				      .connections = 100,
				      .value_size = 100,
				      .workers = 1,
				      .status = 200,
				      .seconds = 3,
				      .warmup = 0.5,
				      .set_ratio = 0.1,
				      .timeout = 10};

enum kind { WHOLE, NUMBER, TEXT };
static const struct row {
	const char *name;
	enum kind kind;
	double min, max;
	size_t offset;
} rows[] = {
    {"connections", WHOLE, 1, 60000, offsetof(struct options, connections)},
    {"seconds", NUMBER, 0.1, 3600, offsetof(struct options, seconds)},
    {"warmup", NUMBER, 0, 60, offsetof(struct options, warmup)},
    {"threads", WHOLE, 1, MAX_WORKERS, offsetof(struct options, workers)},
    {"rate", NUMBER, 1, 10e6, offsetof(struct options, rate)},
    {"size", WHOLE, 8, MAX_VALUE, offsetof(struct options, value_size)},
    {"keys", WHOLE, 1, 10e6, offsetof(struct options, keys)},
    {"set-ratio", NUMBER, 0, 1, offsetof(struct options, set_ratio)},
    {"timeout", NUMBER, 0.1, 600, offsetof(struct options, timeout)},
    {"wait", NUMBER, 0, 600, offsetof(struct options, wait)},
    {"status", WHOLE, 200, 599, offsetof(struct options, status)},
    {"port", WHOLE, 1, 65535, offsetof(struct options, port)},
    {"pid", WHOLE, 1, 1 << 30, offsetof(struct options, pid)},
    {"protocol", TEXT, 0, 0, 0},
    {"host", TEXT, 0, 0, 0},
    {"path", TEXT, 0, 0, 0},
    {"digest", TEXT, 0, 0, 0},
    {"tls", TEXT, 0, 0, 0},
};
enum { NROWS = sizeof rows / sizeof rows[0] };

const char *load_option_name(int i)
{
	return i < NROWS ? rows[i].name : NULL;
}

static bool wants(char *why, size_t size, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static bool wants(char *why, size_t size, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(why, size, fmt, ap);
	va_end(ap);
	return false;
}

static bool set_protocol(struct options *o, const char *value)
{
	for (int i = 0; protocol_names[i]; i++) {
		if (strcmp(value, protocol_names[i]))
			continue;
		o->protocol = (enum protocol)i;
		return true;
	}
	return false;
}

static bool set_host(struct options *o, const char *value)
{
	struct in_addr a;
	if (inet_pton(AF_INET, value, &a) != 1 || strlen(value) >= sizeof o->host)
		return false;
	strcpy(o->host, value);
	return true;
}

static bool set_path(struct options *o, const char *value)
{
	if (*value != '/' || strlen(value) >= sizeof o->path)
		return false;
	for (const char *p = value; *p; p++)
		if ((unsigned char)*p <= ' ' || *p == 127)
			return false;
	strcpy(o->path, value);
	return true;
}

static bool set_digest(struct options *o, const char *value)
{
	if (strlen(value) != 16 || value[strspn(value, "0123456789abcdef")])
		return false;
	o->digest = strtoull(value, NULL, 16);
	return true;
}

static bool set_text(struct options *o, const char *name, const char *value, char *why, size_t size)
{
	if (!strcmp(name, "protocol"))
		return set_protocol(o, value) ||
		       wants(why, size, "%s %s: want memcached, redis, echo or http", name, value);
	if (!strcmp(name, "host"))
		return set_host(o, value) ||
		       wants(why, size, "%s %s: want an IPv4 address", name, value);
	if (!strcmp(name, "path"))
		return set_path(o, value) ||
		       wants(why, size, "%s %s: want a path that begins with / and has no spaces",
			     name, value);
	if (!strcmp(name, "digest"))
		return set_digest(o, value) ||
		       wants(why, size, "%s %s: want 16 hexadecimal digits", name, value);
	return (o->tls = strdup(value)) != NULL;
}

bool load_set(struct options *o, const char *name, const char *value, char *why, size_t size)
{
	for (int i = 0; i < NROWS; i++) {
		const struct row *r = &rows[i];
		char *end;
		if (strcmp(name, r->name))
			continue;
		if (r->kind == TEXT)
			return set_text(o, name, value, why, size);
		errno = 0;
		double v = strtod(value, &end);
		if (!*value || *end || errno || !(v >= r->min && v <= r->max) ||
		    (r->kind == WHOLE && v != (double)(long long)v))
			return wants(why, size, "%s %s: want %s from %g to %g", name, value,
				     r->kind == WHOLE ? "a whole number" : "a number", r->min,
				     r->max);
		if (r->kind == NUMBER)
			*(double *)((char *)o + r->offset) = v;
		else
			*(unsigned *)((char *)o + r->offset) = (unsigned)v;
		return true;
	}
	return wants(why, size, "%s: no such option of a load", name);
}

/* The text up to one of the marks, and what is behind it; false: too long. */
static bool part(const char **p, const char *marks, char *buf, size_t size)
{
	size_t n = strcspn(*p, marks);
	if (n >= size)
		return false;
	memcpy(buf, *p, n);
	buf[n] = 0;
	*p += n;
	return true;
}

bool load_spec(struct options *o, const char *spec, char *why, size_t size)
{
	char word[sizeof o->path], value[sizeof o->path];
	const char *p = spec;
	if (!part(&p, ":", word, sizeof word) || !set_protocol(o, word) || *p++ != ':')
		return wants(why, size,
			     "want memcached:PORT, redis:PORT, echo:PORT or http:PORT/PATH");
	if (!part(&p, ":/,", word, sizeof word))
		return wants(why, size, "no port behind %s:", protocol_names[o->protocol]);
	if (*p == ':') {
		if (!load_set(o, "host", word, why, size))
			return false;
		p++;
		if (!part(&p, "/,", word, sizeof word))
			return wants(why, size, "no port behind %s:", o->host);
	}
	if (!load_set(o, "port", word, why, size))
		return false;
	if (*p == '/' && (o->protocol != HTTP || !part(&p, ",", word, sizeof word) ||
			  !load_set(o, "path", word, why, size)))
		return o->protocol == HTTP || wants(why, size, "a path is for http");
	while (*p == ',') {
		p++;
		if (!part(&p, "=,", word, sizeof word) || *p++ != '=' ||
		    !part(&p, ",", value, sizeof value))
			return wants(why, size, "want NAME=VALUE behind each comma");
		if (!load_set(o, word, value, why, size))
			return false;
	}
	return true;
}

bool load_complete(struct options *o, char *why, size_t size)
{
	if (!o->port)
		return wants(why, size, "port is needed");
	if (!o->keys)
		o->keys = 10 * o->connections;
	if (o->keys < o->connections)
		return wants(why, size, "keys %u: want at least one a connection (%u)", o->keys,
			     o->connections);
	if (o->workers > o->connections)
		o->workers = o->connections;
	return true;
}
