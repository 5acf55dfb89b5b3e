/*
 * profile.h - where goroutines run and where they wait, by samples: what a process writes to who has asked.
 *
 * The asker, connected (shim/dump.h), writes a ProfileRequest; the process answers with a ProfileHeader and, unless it
 * refuses, records until the asker hangs up. A sample is of what the goroutine did at a tick, and stands for the time
 * since the tick before. Not all who wait are looked at each time: of those samples each stands for all/walked as much.
 */
#ifndef GOSHIM_PROFILE_H
#define GOSHIM_PROFILE_H

#include <stdint.h>

#define PROFILE_MAGIC "goshimP"
enum { PROFILE_VERSION = 1 };

enum { ProfileOnCPU = 1, ProfileOffCPU = 2 };

typedef struct ProfileRequest {
	char magic[8];
	uint32_t version;
	uint32_t what; /* ProfileOnCPU | ProfileOffCPU */
	uint32_t hz;
} ProfileRequest;

enum { ProfileBegins, ProfileBusy, ProfileNoThread, ProfileNoMemory };

typedef struct ProfileHeader {
	char magic[8];
	uint32_t version, status;
} ProfileHeader;

enum { ProfileObject = 1, ProfileStack, ProfileSample, ProfileTick };

/* Each record begins with it; size is that of the whole. Who doesn't know a kind passes over it. */
typedef struct ProfileRecord {
	uint32_t kind, size;
} ProfileRecord;

/* A program or library; it comes before stacks with addresses in it. */
typedef struct ProfileObjectRecord {
	ProfileRecord record;
	uint64_t lo, hi, base;  /* where it is; what is added to addresses in the file */
	uint64_t headers;       /* profiledigest of its program headers */
	uint32_t nheaders, own; /* so many were digested; it is this library */
	char path[256];
} ProfileObjectRecord;

enum { ProfileRuns, ProfileBlocked, ProfileWaits, ProfileRunnable, ProfileSyscall };

enum { ProfileFrames = 250 };

/* What a goroutine did, for samples that follow. */
typedef struct ProfileStackRecord {
	ProfileRecord record;
	uint32_t id;
	uint16_t state;
	uint16_t scheduler; /* it is no goroutine's, but of the scheduler itself */
	int64_t goid;
	uint64_t object;       /* that it waits for; 0: none that has an address */
	char name[16];         /* of the thread; "": the process's */
	char wait[16];         /* what it waits for */
	uint32_t nframes, cut; /* cut: there are more */
	uint64_t frame[];      /* the innermost first: addresses, and the bits below */
} ProfileStackRecord;
#define PROFILE_INTERRUPTED (1ull << 63) /* it was interrupted there; else a call returns there */
#define PROFILE_SIGNAL (1ull << 62)      /* what a signal handler returns to */
#define PROFILE_ADDRESS (PROFILE_SIGNAL - 1)

typedef struct ProfileSampleRecord {
	ProfileRecord record;
	uint32_t stack;
	uint32_t share; /* not all of its kind were looked at */
} ProfileSampleRecord;

/* Of the samples since the last one. */
typedef struct ProfileTickRecord {
	ProfileRecord record;
	int64_t ns; /* that they stand for */
	uint64_t all, walked;
	int64_t cpu; /* ns that sampling has cost the process, in all */
} ProfileTickRecord;

static inline uint64_t profiledigest(const void *p, uint64_t n)
{
	const unsigned char *s = p;
	uint64_t h = 0xcbf29ce484222325ull;
	while (n-- > 0)
		h = (h ^ *s++) * 0x100000001b3ull;
	return h;
}

/*
 * Samples this process and writes to fd, a connected socket, until that is closed, or takes nothing for seconds. Calls
 * between() after each sample. On an M without a P, one at a time.
 */
void profile(int fd, const ProfileRequest *r, void (*between)(void));

#endif
