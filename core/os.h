/*
 * os.h - the operating system as the runtime sees it. Raw system calls
 * (arch.h: sysN) return -errno.
 */
#ifndef GOSHIM_OS_H
#define GOSHIM_OS_H

#include "annotate.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Waits while *addr == val, at most ns nanoseconds (ns < 0: no limit). May
 * return early. SIGSAFE */
void futexsleep(_Atomic uint32_t *addr, uint32_t val, int64_t ns);
/* Wakes up to cnt waiters. SIGSAFE */
void futexwakeup(_Atomic uint32_t *addr, uint32_t cnt);
int64_t nanotime(void);
void osyield(void);
void usleep_os(uint32_t us);
int gettid_os(void);
/* Zeroed pages; NULL when memory is short. */
void *sysalloc(size_t n);
void sysfree(void *p, size_t n);
/* Address space without access rights, to be opened piece by piece: what is closed counts
 * against no limit but RLIMIT_AS, mlockall does not fill it, and it is in no core file. */
void *sysreserveclosed(size_t n);
int sysopen(void *p, size_t n);  /* read and write: 0 or -errno */
int sysclose(void *p, size_t n); /* no access; contents are kept */
/* One touched byte shall cost one small page here. */
void sysnohugepages(void *p, size_t n);
/* Zeroed pages at exactly p; false when something is there, or memory is short. */
bool sysallocat(void *p, size_t n);
/* Gives pages back, they read as zero after: 0, or -errno (locked memory) and nothing is done. */
int sysunused(void *p, size_t n);
/* CPUs this process may use: sched_getaffinity, bounded by the cgroup CPU
 * limit (v2 cpu.max and v1 cfs quota of the process's own cgroup and all its
 * ancestors that are visible), rounded up, at least 1 (Go 1.25: at least 2
 * unless affinity says 1). */
int ncpu(void);
/* The same for files under `root` (tests) and a given number of usable CPUs. */
int ncpuunder(const char *root, int naffinity);
/* CPUs in the caller's affinity mask, at least 1. */
int naffinity(void);
/* CPU time of kernel thread tid of this process in ns, or -1. Needs neither
 * /proc nor permission. SIGSAFE */
int64_t threadcputime(int tid);
/* Reads a small file into buf; returns bytes or -errno. */
long readfile(const char *path, char *buf, size_t n);
/* The names in a directory, one after the other: diropen, dirnext until NULL, dirclose. False: it can't be read. */
typedef struct Dir {
	long fd, n, at;
	char buf[4096] __attribute__((aligned(8)));
} Dir;
bool diropen(Dir *d, const char *path);
const char *dirnext(Dir *d);
void dirclose(Dir *d);
/* Sends sig to kernel thread tid of this process. SIGSAFE */
int tgkill_os(int tid, int sig);
/* write(2) of all n bytes, EINTR and short writes handled. SIGSAFE */
void writeall(int fd, const void *p, size_t n);

/*
 * May lo..hi be written? The kernel is asked, and answers without a signal; it writes a word to
 * each page, so what is there is lost. SIGSAFE
 */
bool writable_os(uintptr_t lo, uintptr_t hi);

/* Orders memory accesses of this thread against those of every thread of the process,
 * without their help. The register call comes once, before the first; 0 or -errno. */
int membarrierregister(void);
void membarrier(void);

#endif
