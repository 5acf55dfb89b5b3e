/*
 * netpoll.h - between the two halves of the network poller: netpoll.c, which asks the kernel, and
 * polldesc.c, which knows who waits for what.
 */
#ifndef GOSHIM_NETPOLL_H
#define GOSHIM_NETPOLL_H

#include "runtime.h"

enum { PollAny = PollRead | PollWrite | PollHup };

/* A list of claimed goroutines, by schedlink. */
typedef struct Glist {
	G *head, **tail;
	int32_t n;
} Glist;

/* netpoll.c: asks the kernel for events of fd: 0 or -errno. */
int netpollask(int fd);

/* polldesc.c */
void pollready(G *list); /* readies goroutines that were claimed */
/* Counts an event that our instance epfd reports, seen `when` (netpollwhen), and claims who waits for it. False: no such
 * descriptor. */
bool pollevent(int epfd, uint64_t fd, int mode, uint64_t when, Glist *list);
void pollwakeall(Glist *list); /* no registration is good any more: claims all that wait */
void polldescforkchild(void);

#endif
