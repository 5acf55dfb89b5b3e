/*
 * text.h - text under construction, for what the runtime says: no allocation, no locale. What doesn't fit is
 * cut off.
 */
#ifndef GOSHIM_TEXT_H
#define GOSHIM_TEXT_H

#include <stdarg.h>
#include <stddef.h>

typedef struct Text {
	char *buf;
	size_t size, n;
} Text;

static inline Text textin(char *buf, size_t size)
{
	return (Text){buf, size, 0};
}

/* %s const char *, %d int64_t, %x uint64_t, %p void *, %c int */
void textput(Text *t, const char *fmt, ...);
void textputv(Text *t, const char *fmt, va_list ap);
/* Ends it with a zero, which is not counted; returns buf. */
char *textend(Text *t);

#endif
