/*
 * dump.c - answering `goshim dump` (dump.h).
 *
 * A handler notes the request, sysmon has an M without a P answer it: goroutines that
 * compute for ever hold no M that sleeps, and sysmon has no time. One after another, since a
 * traceback waits for the one before it. The asker repeats itself until somebody
 * connects: signals of one kind coalesce, and there is room for a few requests only.
 */
#include "dump.h"

#include "../core/layout.h"
#include "shim.h"

#include <stdatomic.h>

enum { ASKERS = 8, PATIENCE = 5 /* seconds that an asker may take nothing */ };

/* Of one asker: its number and what became of it; 0: free. */
static _Atomic uint64_t asked[ASKERS];
#define NOTED (1ull << 32)
#define ANSWERING (2ull << 32)

static _Atomic bool answering; /* somebody runs answerall, or is about to */

bool dumpasked(const siginfo_t *info)
{
	uint64_t value = (uint64_t)info->si_value.sival_ptr, number = (uint32_t)value;

	if (info->si_code != SI_QUEUE || value - number != DUMPREQUEST)
		return false;
	for (int i = 0; i < ASKERS; i++)
		if (atomic_load(&asked[i]) && (uint32_t)atomic_load(&asked[i]) == number)
			return true; /* it repeats itself */
	for (int i = 0; i < ASKERS; i++) {
		uint64_t none = 0;
		if (atomic_compare_exchange_strong(&asked[i], &none, NOTED | number))
			break;
	}
	wakesysmon();
	return true;
}

static bool anynoted(void)
{
	for (int i = 0; i < ASKERS; i++)
		if (atomic_load(&asked[i]) & NOTED)
			return true;
	return false;
}

/* Whoever can signal us may be another user still, natively unable to look at our memory. */
static bool trusted(int fd)
{
	struct ucred peer;
	socklen_t n = sizeof peer;

	return sys5(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, (long)&peer, (long)&n) == 0 &&
	       (peer.uid == 0 || peer.uid == (uid_t)sys0(SYS_geteuid));
}

static long sendall(int fd, const void *p, long n)
{
	long r;

	do
		r = sys6(SYS_sendto, fd, (long)p, n, MSG_NOSIGNAL, 0, 0);
	while (r == -EINTR);
	return r;
}

static void tell(int fd, uint32_t number)
{
	struct timeval patience = {PATIENCE, 0};
	struct sockaddr_un a;
	socklen_t n = dumpaddress(&a, number);
	DumpHeader h = {LAYOUT_MAGIC, core_layout.version};
	long r;

	sys5(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, (long)&patience, sizeof patience);
	do
		r = sys3(SYS_connect, fd, (long)&a, n);
	while (r == -EINTR);
	if (r < 0 || !trusted(fd))
		return; /* it gave up, or is none of ours */
	if (sendall(fd, &h, sizeof h) == sizeof h && traceback(fd, NULL, 0))
		sendall(fd, "", 1);
	/* A child of fork may have inherited the descriptor: the reader's end shall come now. */
	sys2(SYS_shutdown, fd, SHUT_RDWR);
}

static void answer(uint32_t number)
{
	ownfdmake();
	int fd = ownfdmade((int)sys3(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));

	if (fd >= 0)
		tell(fd, number);
	ownfdclose(fd);
}

static void answerall(void)
{
	do {
		for (int i = 0; i < ASKERS; i++) {
			uint64_t a = atomic_load(&asked[i]);
			if (!(a & NOTED))
				continue;
			atomic_store(&asked[i], ANSWERING | (uint32_t)a);
			answer((uint32_t)a);
			atomic_store(&asked[i], 0);
		}
		atomic_store(&answering, false);
		/* One that came meanwhile saw that somebody answers. */
	} while (anynoted() && !atomic_exchange(&answering, true));
}

bool dumpneeded(void)
{
	return anynoted() && !atomic_load(&answering);
}

void dumptick(void)
{
	if (anynoted() && !atomic_exchange(&answering, true))
		runonm(answerall);
}

void dumpforkchild(void)
{
	for (int i = 0; i < ASKERS; i++)
		atomic_store(&asked[i], 0);
	atomic_store(&answering, false);
}
