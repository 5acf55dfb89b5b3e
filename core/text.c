/*
 * text.c - numbers and strings in a row (text.h).
 */
#include "text.h"

#include <stdint.h>

static void putch(Text *t, char c)
{
	if (t->n + 1 < t->size)
		t->buf[t->n++] = c;
}

static void putstr(Text *t, const char *s)
{
	for (; s && *s; s++)
		putch(t, *s);
}

static void putnum(Text *t, uint64_t v, unsigned base)
{
	char tmp[20];
	int n = 0;
	do
		tmp[n++] = "0123456789abcdef"[v % base];
	while ((v /= base));
	while (n)
		putch(t, tmp[--n]);
}

static void putint(Text *t, int64_t v)
{
	if (v < 0)
		putch(t, '-');
	putnum(t, v < 0 ? -(uint64_t)v : (uint64_t)v, 10);
}

void textputv(Text *t, const char *fmt, va_list ap)
{
	for (; *fmt; fmt++) {
		if (*fmt != '%' || !fmt[1]) {
			putch(t, *fmt);
			continue;
		}
		switch (*++fmt) {
		case 's': putstr(t, va_arg(ap, const char *)); break;
		case 'd': putint(t, va_arg(ap, int64_t)); break;
		case 'c': putch(t, (char)va_arg(ap, int)); break;
		case 'p':
			putstr(t, "0x");
			putnum(t, (uintptr_t)va_arg(ap, void *), 16);
			break;
		case 'x': putnum(t, va_arg(ap, uint64_t), 16); break;
		default: putch(t, *fmt);
		}
	}
}

void textput(Text *t, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	textputv(t, fmt, ap);
	va_end(ap);
}

char *textend(Text *t)
{
	t->buf[t->n] = '\0';
	return t->buf;
}
