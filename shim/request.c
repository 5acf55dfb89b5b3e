/*
 * request.c - which descriptors are connections of which listening socket: core/requests.c times what goes on there.
 *
 * An address is asked for once for each listening socket. A program's epoll instance names descriptors by whatever the
 * program has given with them, so epoll_ctl is listened to. Datagrams have no connections, and what came
 * from another process (SCM_RIGHTS, exec) was not seen being accepted: neither is counted.
 */
#include "request.h"

#include <arpa/inet.h>
#include <sys/un.h>

static size_t put(char *to, size_t at, size_t size, const char *s)
{
	while (*s && at + 1 < size)
		to[at++] = *s++;
	to[at] = 0;
	return at;
}

static size_t putport(char *to, size_t at, size_t size, unsigned port)
{
	char digits[8] = "", *p = digits + sizeof digits - 1;
	do
		*--p = (char)('0' + port % 10);
	while (port /= 10);
	return put(to, put(to, at, size, ":"), size, p);
}

static void addressof(int fd, char *to, size_t size)
{
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
		char bytes[sizeof(struct sockaddr_storage) + 1];
	} a = {0};
	socklen_t len = sizeof a - 1;
	size_t at = 0;

	if (sysnow(SYS_getsockname, fd, &a, &len) < 0)
		put(to, 0, size, "(unknown)");
	else if (a.any.sa_family == AF_INET &&
		 inet_ntop(AF_INET, &a.in.sin_addr, to, (socklen_t)size))
		putport(to, strlen(to), size, ntohs(a.in.sin_port));
	else if (a.any.sa_family == AF_INET6 &&
		 inet_ntop(AF_INET6, &a.in6.sin6_addr, to + 1, (socklen_t)size - 1)) {
		to[0] = '[';
		at = put(to, strlen(to), size, "]");
		putport(to, at, size, ntohs(a.in6.sin6_port));
	} else if (a.any.sa_family == AF_UNIX) {
		at = put(to, 0, size, a.un.sun_path[0] ? "unix:" : "unix:@");
		put(to, at, size, a.un.sun_path + !a.un.sun_path[0]);
	} else
		put(to, 0, size, "(other)");
}

void requestaccept(int from, int fd)
{
	char address[64];
	KEEP_ERRNO;

	if (!requestswanted() || from == fd)
		return;
	if (!requestlistens(from)) {
		addressof(from, address, sizeof address);
		requestlisten(from, address);
	}
	requestaccepted(from, fd);
}

void requestevents(const struct epoll_event *events, long n, Seen seen, uint64_t when)
{
	for (long i = 0; i < n; i++) {
		uint64_t data;
		memcpy(&data, (const char *)&events[i] + offsetof(struct epoll_event, data),
		       sizeof data);
		Conn *c = events[i].events & EPOLLIN ? requestbydata(data) : NULL;
		if (c)
			requestready(c, n > 1, seen, when);
	}
}

SHIM(int, epoll_ctl, int epfd, int op, int fd, struct epoll_event *event)
{
	int r = real.epoll_ctl(epfd, op, fd, event);

	if (r == 0 && op != EPOLL_CTL_DEL && getg() && requestconn(fd))
		requestdata(fd, event->data.u64);
	return r;
}
