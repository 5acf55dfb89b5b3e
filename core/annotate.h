/*
 * annotate.h - roles of the code, written on prototypes and checked twice.
 *
 * A function of the runtime may demand to run on an M's g0 stack, or to own a
 * P. clang's thread-safety analysis checks these demands when it compiles
 * (-Wthread-safety); check_g0() and check_p() in runtime.h check them when they
 * run, in every build. With gcc the macros are empty.
 *
 *   ON_G0              runs on the g0 stack, M's own thread block in FS
 *   NEEDS_P            caller owns a P
 *   GIVES_P, DROPS_P   acquires / releases the P for the caller
 *   MAY_RUN_WITHOUT_P  may run while the world is stopped and without a P, so it
 *                      touches only what is safe there: nothing of a P's queues.
 *                      (clang proves it: a call to a NEEDS_P function is refused.)
 *   SIGSAFE            may be called from a signal handler; calls only SIGSAFE code
 *   NO_PREEMPT         reads M or P state across statements; sound because code in
 *                      our text is never switched away from by SIGURG
 */
#ifndef GOSHIM_ANNOTATE_H
#define GOSHIM_ANNOTATE_H

#ifdef __clang__
struct __attribute__((capability("role"))) Role {
	char unused;
};
extern struct Role role_g0, role_p;
#define ON_G0 __attribute__((requires_capability(role_g0)))
#define ASSERTS_G0 __attribute__((assert_capability(role_g0)))
#define NEEDS_P __attribute__((requires_capability(role_p)))
#define ASSERTS_P __attribute__((assert_capability(role_p)))
#define GIVES_P __attribute__((acquire_capability(role_p)))
#define DROPS_P __attribute__((release_capability(role_p)))
#define UNCHECKED_ROLES __attribute__((no_thread_safety_analysis))
#else
#define ON_G0
#define ASSERTS_G0
#define NEEDS_P
#define ASSERTS_P
#define GIVES_P
#define DROPS_P
#define UNCHECKED_ROLES
#endif

#define MAY_RUN_WITHOUT_P
#define SIGSAFE
#define NO_PREEMPT

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define noreturn_fn __attribute__((noreturn))
#define noinline_fn __attribute__((noinline))
#define nelem(a) (sizeof(a) / sizeof((a)[0]))

#endif
