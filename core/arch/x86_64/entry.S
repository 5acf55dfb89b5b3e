/*
 * entry.S - functions of the shim that return twice, or run on another stack.
 */
#include "offsets.h"

	.text

/*
 * pid_t vfork(void). The child runs on our stack and returns first, so the
 * return address is kept in a register that the kernel preserves for the
 * parent, and pushed again.
 */
	.globl shim_vfork
	.type shim_vfork, @function
shim_vfork:
	.cfi_startproc
	subq $8, %rsp
	.cfi_adjust_cfa_offset 8
	call vforkbegin
	addq $8, %rsp
	.cfi_adjust_cfa_offset -8
	popq %rdi
	.cfi_adjust_cfa_offset -8
	.cfi_register rip, rdi
	movl $58, %eax		/* vfork */
	syscall
	pushq %rdi
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset rip, 0
	testl %eax, %eax
	jz 1f
	pushq %rax
	.cfi_adjust_cfa_offset 8
	call vforkend
	popq %rax
	.cfi_adjust_cfa_offset -8
	cmpl $-4095, %eax
	jae 2f
1:	ret
2:	negl %eax
	movl %eax, %edi
	subq $8, %rsp
	.cfi_adjust_cfa_offset 8
	call vforkfail
	addq $8, %rsp
	.cfi_adjust_cfa_offset -8
	ret
	.cfi_endproc
	.size shim_vfork, .-shim_vfork

/* long syscall(long nr, ...) in kernel mode (shim/timed.c). */
	.globl timed_syscall
	.hidden timed_syscall
	.type timed_syscall, @function
timed_syscall:
	.cfi_startproc
	cmpq $202, %rdi		/* futex */
	je timedfutex
	cmpq $317, %rdi		/* seccomp */
	je timedseccomp
	cmpq $157, %rdi		/* prctl */
	je timedprctl
	movq realsyscall(%rip), %rax
	jmp *%rax
	.cfi_endproc
	.size timed_syscall, .-timed_syscall

/* void callonstack(fn, sig, info, uc, sp): fn(sig, info, uc) on the stack that ends at sp. */
	.globl callonstack
	.hidden callonstack
	.type callonstack, @function
callonstack:
	.cfi_startproc
	pushq %rbp
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset rbp, 0
	movq %rsp, %rbp
	.cfi_def_cfa_register rbp
	movq %r8, %rsp
	movq %rdi, %rax
	movl %esi, %edi
	movq %rdx, %rsi
	movq %rcx, %rdx
	call *%rax
	leave
	.cfi_def_cfa rsp, 8
	ret
	.cfi_endproc
	.size callonstack, .-callonstack

/*
 * void herecontext(greg_t *gregs, void *fx): what the caller has when this returns, in the order of
 * ucontext_t, r8 to rip, flags and segments; registers that a call may change are left out.
 */
	.globl herecontext
	.hidden herecontext
	.type herecontext, @function
herecontext:
	.cfi_startproc
	movq %r12, 32(%rdi)
	movq %r13, 40(%rdi)
	movq %r14, 48(%rdi)
	movq %r15, 56(%rdi)
	movq %rbp, 80(%rdi)
	movq %rbx, 88(%rdi)
	leaq 8(%rsp), %rax
	movq %rax, 120(%rdi)
	movq (%rsp), %rax
	movq %rax, 128(%rdi)
	pushfq
	.cfi_adjust_cfa_offset 8
	popq 136(%rdi)
	.cfi_adjust_cfa_offset -8
	movw %cs, 144(%rdi)
	movw %ss, 150(%rdi)
	fxsave64 (%rsi)
	ret
	.cfi_endproc
	.size herecontext, .-herecontext

/* void jumpcontext(ucontext_t *uc): goes on as *uc says, with its floating-point state. */
	.globl jumpcontext
	.hidden jumpcontext
	.type jumpcontext, @function
jumpcontext:
	movq %rdi, %rsp
	movl $15, %eax		/* rt_sigreturn */
	syscall
	ud2
	.size jumpcontext, .-jumpcontext

/*
 * int __sigsetjmp(env, savemask): the mask to save is the goroutine's, which
 * the kernel doesn't know. Without savemask, and for others, libc's. The layout of
 * env, and the mangling of pointers in it, is glibc's: eight words, then
 * whether the mask was saved, then the mask.
 */
	.globl shim___sigsetjmp
	.type shim___sigsetjmp, @function
shim___sigsetjmp:
	.cfi_startproc
	testl %esi, %esi
	jz 1f
	movq goshim_g@gottpoff(%rip), %rax
	cmpq $0, %fs:(%rax)
	jne 2f
1:	movq realsigsetjmp(%rip), %rax
	jmp *%rax
2:	movq %rbx, (%rdi)
	movq %rbp, %rax
	xorq %fs:0x30, %rax
	rolq $0x11, %rax
	movq %rax, 8(%rdi)
	movq %r12, 16(%rdi)
	movq %r13, 24(%rdi)
	movq %r14, 32(%rdi)
	movq %r15, 40(%rdi)
	leaq 8(%rsp), %rax
	xorq %fs:0x30, %rax
	rolq $0x11, %rax
	movq %rax, 48(%rdi)
	movq (%rsp), %rax
	xorq %fs:0x30, %rax
	rolq $0x11, %rax
	movq %rax, 56(%rdi)
	subq $8, %rsp
	.cfi_adjust_cfa_offset 8
	call setjmpmask
	addq $8, %rsp
	.cfi_adjust_cfa_offset -8
	xorl %eax, %eax
	ret
	.cfi_endproc
	.size shim___sigsetjmp, .-shim___sigsetjmp

/* The other names: _setjmp saves no mask and is libc's; setjmp saves it. */
	.globl shim_setjmp
	.type shim_setjmp, @function
shim_setjmp:
	movl $1, %esi
	jmp shim___sigsetjmp
	.size shim_setjmp, .-shim_setjmp

/*
 * int getcontext(ucontext_t *uc), int swapcontext(ucontext_t *old, const ucontext_t *uc): the mask that a
 * context has is the goroutine's (shim/context.c). What is kept of the registers is what libc keeps, at the same places, so
 * that either goes on from what the other saved. For others, libc's.
 */
.macro SAVECONTEXT
	movq %r8, UC_R8(%rdi)
	movq %r9, UC_R9(%rdi)
	movq %r12, UC_R12(%rdi)
	movq %r13, UC_R13(%rdi)
	movq %r14, UC_R14(%rdi)
	movq %r15, UC_R15(%rdi)
	movq %rdi, UC_RDI(%rdi)
	movq %rsi, UC_RSI(%rdi)
	movq %rbp, UC_RBP(%rdi)
	movq %rbx, UC_RBX(%rdi)
	movq %rdx, UC_RDX(%rdi)
	movq %rcx, UC_RCX(%rdi)
	leaq 8(%rsp), %rax
	movq %rax, UC_RSP(%rdi)
	movq (%rsp), %rax
	movq %rax, UC_RIP(%rdi)
	leaq UC_FPENV(%rdi), %rax
	movq %rax, UC_FPREGS(%rdi)
	fnstenv (%rax)
	fldenv (%rax)		/* the store has masked exceptions */
	stmxcsr UC_MXCSR(%rdi)
.endm

	.globl shim_getcontext
	.type shim_getcontext, @function
shim_getcontext:
	.cfi_startproc
	movq goshim_g@gottpoff(%rip), %rax
	cmpq $0, %fs:(%rax)
	jne 1f
	movq realgetcontext(%rip), %rax
	jmp *%rax
1:	SAVECONTEXT
	subq $8, %rsp
	.cfi_adjust_cfa_offset 8
	call contextmask
	addq $8, %rsp
	.cfi_adjust_cfa_offset -8
	xorl %eax, %eax
	ret
	.cfi_endproc
	.size shim_getcontext, .-shim_getcontext

	.globl shim_swapcontext
	.type shim_swapcontext, @function
shim_swapcontext:
	.cfi_startproc
	movq goshim_g@gottpoff(%rip), %rax
	cmpq $0, %fs:(%rax)
	jne 1f
	movq realswapcontext(%rip), %rax
	jmp *%rax
1:	SAVECONTEXT
	pushq %rsi
	.cfi_adjust_cfa_offset 8
	call contextmask
	popq %rdi
	.cfi_adjust_cfa_offset -8
	subq $8, %rsp
	.cfi_adjust_cfa_offset 8
	call shim_setcontext
	ud2
	.cfi_endproc
	.size shim_swapcontext, .-shim_swapcontext

/* void loadcontext(const ucontext_t *uc): what libc's setcontext does once the mask is set. */
	.globl loadcontext
	.hidden loadcontext
	.type loadcontext, @function
loadcontext:
	movq UC_FPREGS(%rdi), %rax
	fldenv (%rax)
	ldmxcsr UC_MXCSR(%rdi)
	movq UC_R8(%rdi), %r8
	movq UC_R9(%rdi), %r9
	movq UC_R12(%rdi), %r12
	movq UC_R13(%rdi), %r13
	movq UC_R14(%rdi), %r14
	movq UC_R15(%rdi), %r15
	movq UC_RSI(%rdi), %rsi
	movq UC_RBP(%rdi), %rbp
	movq UC_RBX(%rdi), %rbx
	movq UC_RDX(%rdi), %rdx
	movq UC_RCX(%rdi), %rcx
	movq UC_RSP(%rdi), %rsp
	movq UC_RIP(%rdi), %r11
	movq UC_RDI(%rdi), %rdi
	xorl %eax, %eax
	jmp *%r11
	.size loadcontext, .-loadcontext

/* Where the function of a makecontext returns to: rbx points to the context that follows. The last frame for unwinders,
 * who look at the instruction before. */
	.globl contextstart
	.hidden contextstart
	.type contextstart, @function
	.cfi_startproc
	.cfi_undefined rip
	nop
contextstart:
	movq (%rbx), %rdi
	call contextend
	ud2
	.cfi_endproc
	.size contextstart, .-contextstart

	.section .note.GNU-stack, "", @progbits
