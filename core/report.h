/*
 * report.h - texts with stacks in them, as tracebacks are made (traceback.c).
 */
#ifndef GOSHIM_REPORT_H
#define GOSHIM_REPORT_H

#include "capture.h"
#include "text.h"

/*
 * Has tell(arg) write a report to fd, where tracebacks are made: what it says goes through the functions below. 0, or
 * -errno of what could not be written. A signal that a failed write makes (SIGPIPE, SIGXFSZ) is taken back.
 */
long report(int fd, void (*tell)(void *arg), void *arg);
/* The same to memory; what has no room there is cut off. */
void reportkeep(Text *t, void (*tell)(void *arg), void *arg);
void reporttext(const char *fmt, ...); /* as textput */
void reportplain(const char *s, size_t n);
void reportobject(
    uintptr_t address); /* its symbol and how far it is in that, in brackets, if it has one */
void reportcall(uintptr_t pc);      /* the function that goes on there */
bool reportgoroutine(int64_t goid); /* what it does now, and its stack; false: it has ended */
void reportstack(const Capture *c);
bool reportflush(void); /* false: it could not be written */
void reportfailed(long error);

#endif
