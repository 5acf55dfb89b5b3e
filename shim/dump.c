/*
 * dump.c - answering `goshim dump` and `goshim profile` (dump.h), and writing the flight recorder's files.
 *
 * A handler notes the request, sysmon has an M without a P answer it: goroutines that
 * compute for ever hold no M that sleeps, and sysmon has no time. One after another, since a
 * traceback waits for the one before it. The asker repeats itself until somebody
 * connects: signals of one kind coalesce, and there is room for a few requests only. A profile lasts, so who makes it
 * answers the others between its samples.
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
#define PROFILE (4ull << 32)

static _Atomic bool answering; /* somebody runs answerall, or is about to */

bool dumpasked(const siginfo_t *info)
{
	uint64_t value = (uint64_t)info->si_value.sival_ptr, number = (uint32_t)value;

	if (info->si_code != SI_QUEUE ||
	    (value - number != DUMPREQUEST && value - number != PROFILEREQUEST))
		return false;
	uint64_t kind = value - number == PROFILEREQUEST ? PROFILE : 0;
	for (int i = 0; i < ASKERS; i++)
		if (atomic_load(&asked[i]) && (uint32_t)atomic_load(&asked[i]) == number)
			return true; /* it repeats itself */
	for (int i = 0; i < ASKERS; i++) {
		uint64_t none = 0;
		if (atomic_compare_exchange_strong(&asked[i], &none, NOTED | kind | number))
			break;
	}
	wakesysmon();
	return true;
}

static bool anynoted(void)
{
	if (flightasked())
		return true;
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

static void telldump(int fd)
{
	DumpHeader h = {LAYOUT_MAGIC, core_layout.version};

	if (sendall(fd, &h, sizeof h) == sizeof h && traceback(fd, NULL, 0))
		sendall(fd, "", 1);
}

static void answernoted(void);

static void tellprofile(int fd)
{
	static bool profiling; /* of the one thread that answers */
	ProfileRequest r;
	ProfileHeader busy = {PROFILE_MAGIC, PROFILE_VERSION, ProfileBusy};
	long n;

	do
		n = sys6(SYS_recvfrom, fd, (long)&r, sizeof r, MSG_WAITALL, 0, 0);
	while (n == -EINTR);
	if (n != sizeof r || memcmp(r.magic, PROFILE_MAGIC, sizeof r.magic))
		return;
	if (profiling) {
		sendall(fd, &busy, sizeof busy);
		return;
	}
	profiling = true;
	profile(fd, &r, answernoted);
	profiling = false;
}

static void tell(int fd, uint64_t what)
{
	struct timeval patience = {PATIENCE, 0};
	struct sockaddr_un a;
	socklen_t n = dumpaddress(&a, (uint32_t)what);
	long r;

	sys5(SYS_setsockopt, fd, SOL_SOCKET, SO_RCVTIMEO, (long)&patience, sizeof patience);
	sys5(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, (long)&patience, sizeof patience);
	do
		r = sys3(SYS_connect, fd, (long)&a, n);
	while (r == -EINTR);
	if (r < 0 || !trusted(fd))
		return; /* it gave up, or is none of ours */
	if (what & PROFILE)
		tellprofile(fd);
	else
		telldump(fd);
	/* A child of fork may have inherited the descriptor: the reader's end shall come now. */
	sys2(SYS_shutdown, fd, SHUT_RDWR);
}

static void answer(uint64_t what)
{
	ownfdmake();
	int fd = ownfdmade((int)sys3(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));

	if (fd >= 0)
		tell(fd, what);
	ownfdclose(fd);
}

static void answernoted(void)
{
	flightwrite();
	for (int i = 0; i < ASKERS; i++) {
		uint64_t a = atomic_load(&asked[i]);
		if (!(a & NOTED))
			continue;
		atomic_store(&asked[i], ANSWERING | (a & ~NOTED));
		answer(a);
		atomic_store(&asked[i], 0);
	}
}

static void answerall(void)
{
	do {
		answernoted();
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
