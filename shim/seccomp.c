/*
 * seccomp.c - filters of system calls.
 *
 * One of the caller's own wires it (pin.c). One for all threads reaches the runtime's, too, which
 * is right: what natively needs a system call here needs it of some M. But it may forbid new threads
 * where natively all are there already, by the death of the process, and Ms are made when they are
 * needed. So such a filter is asked beforehand what it would say to that; if death, as many Ms
 * are made as there are threads, which is what they have natively, and none from then on.
 */
#include "pin.h"
#include "sync.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>

enum { CLONE3 = 435 };

/* What the filter says of a system call: the kernel's machine, whose programs it has checked or will refuse. */
static uint32_t verdict(const struct sock_fprog *prog, const struct seccomp_data *d)
{
	uint32_t a = 0, x = 0, mem[BPF_MEMWORDS] = {0};
	for (uint32_t pc = 0; pc < prog->len; pc++) {
		const struct sock_filter *f = &prog->filter[pc];
		uint32_t k = f->k, v = BPF_SRC(f->code) == BPF_X ? x : k;
		switch (f->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			if (k > sizeof *d - 4)
				return SECCOMP_RET_ALLOW;
			memcpy(&a, (const char *)d + k, 4);
			break;
		case BPF_LD | BPF_W | BPF_LEN: a = sizeof *d; break;
		case BPF_LDX | BPF_W | BPF_LEN: x = sizeof *d; break;
		case BPF_LD | BPF_IMM: a = k; break;
		case BPF_LDX | BPF_IMM: x = k; break;
		case BPF_LD | BPF_MEM: a = mem[k % BPF_MEMWORDS]; break;
		case BPF_LDX | BPF_MEM: x = mem[k % BPF_MEMWORDS]; break;
		case BPF_ST: mem[k % BPF_MEMWORDS] = a; break;
		case BPF_STX: mem[k % BPF_MEMWORDS] = x; break;
		case BPF_MISC | BPF_TAX: x = a; break;
		case BPF_MISC | BPF_TXA: a = x; break;
		case BPF_ALU | BPF_ADD | BPF_K:
		case BPF_ALU | BPF_ADD | BPF_X: a += v; break;
		case BPF_ALU | BPF_SUB | BPF_K:
		case BPF_ALU | BPF_SUB | BPF_X: a -= v; break;
		case BPF_ALU | BPF_MUL | BPF_K:
		case BPF_ALU | BPF_MUL | BPF_X: a *= v; break;
		case BPF_ALU | BPF_DIV | BPF_K:
		case BPF_ALU | BPF_DIV | BPF_X: a = v ? a / v : 0; break;
		case BPF_ALU | BPF_AND | BPF_K:
		case BPF_ALU | BPF_AND | BPF_X: a &= v; break;
		case BPF_ALU | BPF_OR | BPF_K:
		case BPF_ALU | BPF_OR | BPF_X: a |= v; break;
		case BPF_ALU | BPF_XOR | BPF_K:
		case BPF_ALU | BPF_XOR | BPF_X: a ^= v; break;
		case BPF_ALU | BPF_LSH | BPF_K:
		case BPF_ALU | BPF_LSH | BPF_X: a = v < 32 ? a << v : 0; break;
		case BPF_ALU | BPF_RSH | BPF_K:
		case BPF_ALU | BPF_RSH | BPF_X: a = v < 32 ? a >> v : 0; break;
		case BPF_ALU | BPF_NEG: a = -a; break;
		case BPF_JMP | BPF_JA: pc += k; break;
		case BPF_JMP | BPF_JEQ | BPF_K:
		case BPF_JMP | BPF_JEQ | BPF_X: pc += a == v ? f->jt : f->jf; break;
		case BPF_JMP | BPF_JGT | BPF_K:
		case BPF_JMP | BPF_JGT | BPF_X: pc += a > v ? f->jt : f->jf; break;
		case BPF_JMP | BPF_JGE | BPF_K:
		case BPF_JMP | BPF_JGE | BPF_X: pc += a >= v ? f->jt : f->jf; break;
		case BPF_JMP | BPF_JSET | BPF_K:
		case BPF_JMP | BPF_JSET | BPF_X: pc += a & v ? f->jt : f->jf; break;
		case BPF_RET | BPF_K: return k;
		case BPF_RET | BPF_A: return a;
		default: return SECCOMP_RET_ALLOW;
		}
	}
	return SECCOMP_RET_ALLOW;
}

/* Does the process, or a thread, die of it? */
static bool deadly(uint32_t verdict)
{
	switch (verdict & SECCOMP_RET_ACTION_FULL) {
	case SECCOMP_RET_KILL_PROCESS:
	case SECCOMP_RET_KILL_THREAD:
	case SECCOMP_RET_TRAP: return true;
	}
	return false;
}

/* Is it deadly to make a thread, as libc does? By clone, if there is no clone3. */
static bool forbidsthreads(const struct sock_fprog *prog)
{
	enum {
		FLAGS = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SYSVSEM | CLONE_SIGHAND |
			CLONE_THREAD | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID
	};
	struct seccomp_data d = {.nr = CLONE3, .arch = AUDIT_ARCH_X86_64, .args = {4096, 88}};
	uint32_t v = verdict(prog, &d);
	if (v != (SECCOMP_RET_ERRNO | ENOSYS))
		return deadly(v);
	d = (struct seccomp_data){.nr = SYS_clone,
				  .arch = AUDIT_ARCH_X86_64,
				  .args = {FLAGS, 4096}};
	return deadly(verdict(prog, &d));
}

long seccomp(const long *a)
{
	const struct sock_fprog *prog = (const struct sock_fprog *)a[2];
	metricscomplete();
	if (a[0] != SECCOMP_SET_MODE_STRICT && a[0] != SECCOMP_SET_MODE_FILTER)
		return sys3(SYS_seccomp, a[0], a[1], a[2]);
	if (a[0] == SECCOMP_SET_MODE_STRICT || !(a[1] & SECCOMP_FILTER_FLAG_TSYNC))
		return changes(PinMore, SYS_seccomp, a);
	bool last = prog && forbidsthreads(prog);
	if (last)
		lastms(atomic_load(&nthreads));
	long r = sys3(SYS_seccomp, a[0], a[1], a[2]);
	/* What the filter needs of the caller all have with it. (Else a positive result is a thread.) */
	if (r == 0 || (r > 0 && a[1] & SECCOMP_FILTER_FLAG_NEW_LISTENER))
		unpin(PinPrivs);
	else if (last)
		lastms(0);
	return r;
}
