/*
 * asm.S - the switch between stacks and thread blocks, the first frame of a
 * goroutine, and a system call that a signal handler can call off.
 *
 * What a switch saves is what the ABI lets a function expect to survive a
 * call: six registers, and the control words of SSE and x87 (a thread's
 * rounding mode is its own). The thread block changes in the same breath as
 * the stack; signal handlers run on the M's gsignal stack, so the instructions
 * between the two writes may be interrupted, and code in this file is never
 * switched away from (unsafepc).
 */
#include "offsets.h"

	.text

/* Writes %rax to FS base: by the instruction, or where the CPU or the kernel
 * hasn't it by the system call. Clobbers rax rcx r8 r9 r11. */
.macro SETFS
	cmpb $0, have_fsgsbase(%rip)
	je 90f
	wrfsbase %rax
	jmp 91f
90:	movq %rdi, %r8
	movq %rsi, %r9
	movq %rax, %rsi
	movl $0x1002, %edi	/* ARCH_SET_FS */
	movl $158, %eax		/* arch_prctl */
	syscall
	movq %r8, %rdi
	movq %r9, %rsi
91:
.endm

/* void mcall0(void (*fn)(G *), G *gp, G *g0) */
	.globl mcall0
	.hidden mcall0
	.type mcall0, @function
	.p2align 4
mcall0:
	.cfi_startproc
	pushq %rbp
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset rbp, 0
	movq %rsp, %rbp
	.cfi_def_cfa_register rbp
	pushq %rbx
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	.cfi_rel_offset rbx, -8
	.cfi_rel_offset r12, -16
	.cfi_rel_offset r13, -24
	.cfi_rel_offset r14, -32
	.cfi_rel_offset r15, -40
	subq $8, %rsp
	stmxcsr (%rsp)
	fnstcw 4(%rsp)
	movq %rsp, G_SCHED_SP(%rsi)
	movq G_TLS(%rdx), %rax
	movq G_SCHED_SP(%rdx), %r10
	SETFS
	movq %r10, %rsp
	xorl %ebp, %ebp
	movq %rdi, %rax
	movq %rsi, %rdi
	callq *%rax
	ud2
	.cfi_endproc
	.size mcall0, .-mcall0

/* void gogo(G *gp): the other half. */
	.globl gogo
	.hidden gogo
	.type gogo, @function
	.p2align 4
gogo:
	.cfi_startproc
	movq G_TLS(%rdi), %rax
	SETFS
	movq G_SCHED_SP(%rdi), %rsp
	.cfi_def_cfa rsp, 64
	.cfi_rel_offset rbp, 48
	.cfi_rel_offset rip, 56
	ldmxcsr (%rsp)
	fldcw 4(%rsp)
	addq $8, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbx
	popq %rbp
	ret
	.cfi_endproc
	.size gogo, .-gogo

/* Where a new goroutine begins: the bottom of its stack for unwinders. */
	.globl gostart
	.hidden gostart
	.type gostart, @function
	.p2align 4
gostart:
	.cfi_startproc
	.cfi_undefined rip
	xorl %ebp, %ebp
	callq goroutinestart
	ud2
	.cfi_endproc
	.size gostart, .-gostart

/* void onstack0(void (*fn)(void *), void *arg, uintptr_t sp) */
	.globl onstack0
	.hidden onstack0
	.type onstack0, @function
	.p2align 4
onstack0:
	.cfi_startproc
	pushq %rbp
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset rbp, 0
	movq %rsp, %rbp
	.cfi_def_cfa_register rbp
	movq %rdx, %rsp
	movq %rdi, %rax
	movq %rsi, %rdi
	callq *%rax
	leave
	.cfi_def_cfa rsp, 8
	ret
	.cfi_endproc
	.size onstack0, .-onstack0

/*
 * long syscalltramp(nr, a, b, c, d, e, f, _Atomic uint32_t *intr)
 *
 * Between begin and end a handler that has set *intr moves the program
 * counter to intr (preempt.c): so a signal that arrives after the check and
 * before the call, or one after which the kernel would restart the call,
 * ends it with -ERESTARTSYS. One that the kernel does not restart ends with its -EINTR.
 */
	.globl syscalltramp, syscalltramp_begin, syscalltramp_end, syscalltramp_intr
	.hidden syscalltramp, syscalltramp_begin, syscalltramp_end, syscalltramp_intr
	.type syscalltramp, @function
	.p2align 4
syscalltramp:
	.cfi_startproc
	movq %rdi, %rax
	movq %rsi, %rdi
	movq %rdx, %rsi
	movq %rcx, %rdx
	movq %r8, %r10
	movq %r9, %r8
	movq 8(%rsp), %r9
	movq 16(%rsp), %rcx
syscalltramp_begin:
	cmpl $0, (%rcx)
	jne syscalltramp_intr
	syscall
syscalltramp_end:
	ret
syscalltramp_intr:
	movq $-512, %rax	/* -ERESTARTSYS */
	ret
	.cfi_endproc
	.size syscalltramp, .-syscalltramp

/*
 * Return address of an injected handler (preempt.c): the kernel's signal
 * frame lies above it, and rsp points to its ucontext. Some unwinders go by what is
 * written of it, where the instruction before belongs to it; others know the bytes, and, where there
 * is a name, this one (libc's).
 */
#define CFA_AT_GREG(at) .cfi_escape 0x0f, 5, 0x77, 0x80 | ((at) & 0x7f), 0x80 | ((at) >> 7), 0, 0x06
#define REG_AT_GREG(reg, at) .cfi_escape 0x10, reg, 4, 0x77, 0x80 | ((at) & 0x7f), 0x80 | ((at) >> 7), 0
	.globl __restore_rt
	.hidden __restore_rt
	.type __restore_rt, @function
	.p2align 4
	.cfi_startproc simple
	.cfi_signal_frame
	CFA_AT_GREG(160)
	REG_AT_GREG(0, 144)	/* rax */
	REG_AT_GREG(1, 136)	/* rdx */
	REG_AT_GREG(2, 152)	/* rcx */
	REG_AT_GREG(3, 128)	/* rbx */
	REG_AT_GREG(4, 112)	/* rsi */
	REG_AT_GREG(5, 104)	/* rdi */
	REG_AT_GREG(6, 120)	/* rbp */
	REG_AT_GREG(7, 160)	/* rsp */
	REG_AT_GREG(8, 40)
	REG_AT_GREG(9, 48)
	REG_AT_GREG(10, 56)
	REG_AT_GREG(11, 64)
	REG_AT_GREG(12, 72)
	REG_AT_GREG(13, 80)
	REG_AT_GREG(14, 88)
	REG_AT_GREG(15, 96)
	REG_AT_GREG(16, 168)	/* rip */
	nop
__restore_rt:
	movq $15, %rax
	syscall
	ud2
	.cfi_endproc
	.size __restore_rt, .-__restore_rt

	.section .note.GNU-stack, "", @progbits
