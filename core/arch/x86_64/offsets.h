/* offsets.h - the fields that asm.S and entry.S use, for C (proc.c and preempt.c assert them) and asm. */
#ifndef GOSHIM_OFFSETS_H
#define GOSHIM_OFFSETS_H

#define G_SCHED_SP 0
#define G_TLS 8

/* ucontext_t */
#define UC_R8 40
#define UC_R9 48
#define UC_R12 72
#define UC_R13 80
#define UC_R14 88
#define UC_R15 96
#define UC_RDI 104
#define UC_RSI 112
#define UC_RBP 120
#define UC_RBX 128
#define UC_RDX 136
#define UC_RCX 152
#define UC_RSP 160
#define UC_RIP 168
#define UC_FPREGS 224
#define UC_FPENV 424
#define UC_MXCSR 448

#endif
