/*
 * real.h - libc's own functions, found without dlsym.
 *
 * dlsym takes locks and allocates, and an allocator that is itself starting
 * up then re-enters us (jemalloc, tcmalloc: hangs before main). So real.c reads
 * the loader's tables itself, once, while our own relocations are processed:
 * before any constructor of any library has run.
 *
 * The rows of symbols.def make `struct Real`, the declarations of shim_*
 * and the EXPORT_* directives; its head says how a symbol is added.
 */
#ifndef GOSHIM_REAL_H
#define GOSHIM_REAL_H

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#include "annotate.h"

#define shim_exported __attribute__((visibility("default")))
#define shim_hidden   __attribute__((visibility("hidden")))

/* What the headers do not declare. */
extern int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv,
	int (*init)(int, char **, char **), void (*fini)(void), void (*rtld_fini)(void),
	void *stack_end);
/* (<pthread.h> has these only without -fexceptions.) */
extern void __pthread_register_cancel(__pthread_unwind_buf_t *buf);
extern void __pthread_unregister_cancel(__pthread_unwind_buf_t *buf);
extern void __pthread_register_cancel_defer(__pthread_unwind_buf_t *buf);
extern void __pthread_unregister_cancel_restore(__pthread_unwind_buf_t *buf);
extern noreturn_fn void __pthread_unwind_next(__pthread_unwind_buf_t *buf);

/* struct Real and its one instance, `real`; shim_NAME; EXPORT_NAME. */
#include "symbols.h"

/* Defines and exports the function that takes NAME's place. */
#define SHIM(ret, name, ...)                                                                       \
	EXPORT(name);                                                                              \
	ret shim_##name(__VA_ARGS__)
/* The export alone, for functions defined in assembler. */
#define EXPORT(name) EXPORT_##name

/*
 * Fills `real`. Has been called when any code of ours runs; again is
 * harmless. False when libc lacks something required; realmissing() is then the
 * name of the first such symbol ("libc.so.6" when that is not there at all).
 */
bool realinit(void);
const char *realmissing(void);

/*
 * A symbol of libc.so.6 or ld.so by version ("GLIBC_PRIVATE", ...; NULL: the
 * default version). An indirect function is resolved; a thread-local variable
 * yields its offset within its module's block. NULL when there is none. Takes no
 * lock, allocates nothing. SIGSAFE once loaded.
 */
void *libcsym(const char *name, const char *version);

#endif
