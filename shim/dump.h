/*
 * dump.h - how `goshim dump` and `goshim profile` ask a process, and how that answers.
 *
 * The asker listens on an abstract unix socket whose name is made of a random number, and sends SIGURG
 * with that number to the monitor's kernel thread. That signal is ignored by whoever doesn't know
 * it, and the thread has no system call of the program's to be interrupted. The process connects, and, for a dump,
 * writes a DumpHeader, text, and a zero byte, without which the text is not whole. It needs
 * no file and no path, so a server that dropped root or changed its root can do that.
 */
#ifndef GOSHIM_DUMP_H
#define GOSHIM_DUMP_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#define MONITOR "goshim-sysmon" /* the kernel thread's name */

/* The signal's value: the upper half says whose it is and what is asked for, the lower is the number. */
#define DUMPREQUEST ((uint64_t)0x676f7368 << 32)
#define PROFILEREQUEST ((uint64_t)0x676f7370 << 32) /* core/profile.h says what follows */

typedef struct DumpHeader {
	char magic[8]; /* LAYOUT_MAGIC */
	uint32_t version;
} DumpHeader;

/* The address of the asker with that number; its length. */
static inline socklen_t dumpaddress(struct sockaddr_un *a, uint32_t number)
{
	static const char name[] = "goshim-dump-";
	size_t n = sizeof name - 1;

	*a = (struct sockaddr_un){.sun_family = AF_UNIX};
	__builtin_memcpy(a->sun_path + 1, name, n); /* a zero before it: abstract */
	for (int shift = 28; shift >= 0; shift -= 4)
		a->sun_path[++n] = "0123456789abcdef"[number >> shift & 15];
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n);
}

/* The library's side. */
bool dumpasked(const siginfo_t *info); /* SIGURG: is it a request? Then it is noted. SIGSAFE */
bool dumpneeded(void);                 /* dumptick has something to do */
void dumptick(void);                   /* on sysmon: has noted requests answered */
void dumpforkchild(void);

#endif
