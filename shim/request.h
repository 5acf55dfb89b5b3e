/*
 * request.h - telling core/requests.c what a server does.
 */
#ifndef GOSHIM_REQUEST_H
#define GOSHIM_REQUEST_H

#include "block.h"

/* fd was accepted from the listening socket `from`. */
void requestaccept(int from, int fd);
/* An epoll instance has reported them; how the caller has waited. */
void requestevents(const struct epoll_event *events, long n, Seen seen, uint64_t when);

#endif
