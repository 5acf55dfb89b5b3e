/*
 * jmp.c - the signal mask in sigsetjmp and siglongjmp.
 *
 * libc saves and restores the kernel thread's mask; a goroutine's is ours. So
 * sigsetjmp notes the goroutine's (entry.S, setjmpmask), and siglongjmp sets
 * it, then has libc jump without a mask to restore.
 */
#include "sigcore.h"
#include "thread.h"

#include <setjmp.h>

void setjmpmask(struct __jmp_buf_tag *env);
void setjmpmask(struct __jmp_buf_tag *env)
{
	env->__mask_was_saved = 1;
	memset(&env->__saved_mask, 0, sizeof env->__saved_mask);
	uint64_t m = curthread()->mask;
	memcpy(&env->__saved_mask, &m, 8);
}

/* Sets the saved mask; what libc is to jump with. */
static struct __jmp_buf_tag *unmasked(struct __jmp_buf_tag *env, struct __jmp_buf_tag *copy)
{
	if (!getg() || !env->__mask_was_saved)
		return env;
	*copy = *env;
	copy->__mask_was_saved = 0;
	sigmaskset((const sigset_t *)&env->__saved_mask);
	return copy;
}

SHIM(void, siglongjmp, struct __jmp_buf_tag *env, int val)
{
	struct __jmp_buf_tag copy;
	real.siglongjmp(unmasked(env, &copy), val);
}

SHIM(void, __longjmp_chk, struct __jmp_buf_tag *env, int val)
{
	struct __jmp_buf_tag copy;
	/* The check is of the kernel's alternate stack, which is the M's: a jump off a
	 * goroutine's own would look like one down the stack. */
	Thread *th = curthread();
	if (th && onaltstack(th, currentsp()))
		real.siglongjmp(unmasked(env, &copy), val);
	real.__longjmp_chk(unmasked(env, &copy), val);
}
