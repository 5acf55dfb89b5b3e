/* offsets.h - the fields that asm.S reads, for C (proc.c asserts them) and asm. */
#ifndef GOSHIM_OFFSETS_H
#define GOSHIM_OFFSETS_H

#define G_SCHED_SP 0
#define G_TLS 8

#endif
