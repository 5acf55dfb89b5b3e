/*
 * arch.h - what is particular to x86_64: raw system calls, offsets that asm.S
 * shares with C, and access to a signal context.
 *
 * The system calls are raw because libc's wrappers write errno through %fs,
 * which belongs to whichever goroutine was last on this kernel thread, and
 * because some of them are cancellation points. sysN(nr, ...) takes N
 * arguments and returns what the kernel does: a result or -errno.
 */
#ifndef GOSHIM_ARCH_H
#define GOSHIM_ARCH_H

#include "../../annotate.h"

#include <stdint.h>

static inline long sys0(long nr)
{
	long r;
	__asm__ volatile("syscall" : "=a"(r) : "a"(nr) : "rcx", "r11", "memory");
	return r;
}

static inline long sys1(long nr, long a)
{
	long r;
	__asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a) : "rcx", "r11", "memory");
	return r;
}

static inline long sys2(long nr, long a, long b)
{
	long r;
	__asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a), "S"(b) : "rcx", "r11", "memory");
	return r;
}

static inline long sys3(long nr, long a, long b, long c)
{
	long r;
	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(nr), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return r;
}

static inline long sys4(long nr, long a, long b, long c, long d)
{
	long r;
	register long r10 __asm__("r10") = d;
	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return r;
}

static inline long sys5(long nr, long a, long b, long c, long d, long e)
{
	long r;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return r;
}

static inline long sys6(long nr, long a, long b, long c, long d, long e, long f)
{
	long r;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return r;
}

/* The thread block in FS. (Its first word points to itself.) */
static inline void *fsbase(void)
{
	void *p;
	__asm__ volatile("movq %%fs:0, %0" : "=r"(p));
	return p;
}

/* Control words of SSE and x87, as mcall0 saves them. */
static inline void getcontrolwords(unsigned cw[2])
{
	__asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(cw[0]), "=m"(*(unsigned short *)&cw[1]));
}

/* Counts at a constant rate; sysmon tells how many are a microsecond. */
static inline uint64_t cputicks(void)
{
	uint32_t lo, hi;
	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (uint64_t)hi << 32 | lo;
}

/* *to += n in one instruction: whole to a signal handler here; to other CPUs only the second. */
static inline void addonce(uint64_t *to, uint64_t n)
{
	__asm__("addq %1, %0" : "+m"(*to) : "er"(n) : "cc");
}

static inline void addatomic(uint64_t *to, uint64_t n)
{
	__asm__ volatile("lock addq %1, %0" : "+m"(*to) : "er"(n) : "cc");
}

/* The same, and what it was before: for 1. */
static inline uint64_t takeonce(uint64_t *from)
{
	uint64_t n = 1;
	__asm__ volatile("xaddq %0, %1" : "+r"(n), "+m"(*from) : : "cc");
	return n;
}

/* A hint that the caller spins. */
static inline void procyield(void)
{
	__asm__ volatile("pause" ::: "memory");
}

#endif
