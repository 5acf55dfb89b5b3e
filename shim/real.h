/*
 * real.h - libc's own functions, found without dlsym.
 *
 * dlsym takes locks and allocates, and an allocator that is itself starting
 * up then re-enters us (jemalloc, tcmalloc: hangs before main). So real.c reads
 * the loader's tables itself, once, while our own relocations are processed:
 * before any constructor of any library has run.
 *
 * The rows of symbols.def make `struct Real`, the declarations of shim_*
 * and what is exported; its head says how a symbol is added.
 */
#ifndef GOSHIM_REAL_H
#define GOSHIM_REAL_H

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <link.h>
#include <linux/capability.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/fsuid.h>
#include <sys/personality.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <termios.h>
#include <threads.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "api.h"

#define shim_exported __attribute__((visibility("default")))
#define shim_hidden __attribute__((visibility("hidden")))

/* What the headers do not declare. */
extern int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv,
			     int (*init)(int, char **, char **), void (*fini)(void),
			     void (*rtld_fini)(void), void *stack_end);
/* (Before the size was an argument; set and get.) */
extern int affinity_old(pthread_t t, cpu_set_t *set);
extern int schedaffinity_old(pid_t tid, cpu_set_t *set);
/* (Before a timer_t was a pointer.) */
extern int timercreate_old(clockid_t clock, struct sigevent *ev, int *timer);
extern int timernumber_old(int timer);
extern int timersettime_old(int timer, int flags, const struct itimerspec *value,
			    struct itimerspec *old);
extern int timergettime_old(int timer, struct itimerspec *value);
/* (<pthread.h> has these only without -fexceptions.) */
extern void __pthread_register_cancel(__pthread_unwind_buf_t *buf);
extern void __pthread_unregister_cancel(__pthread_unwind_buf_t *buf);
extern void __pthread_register_cancel_defer(__pthread_unwind_buf_t *buf);
extern void __pthread_unregister_cancel_restore(__pthread_unwind_buf_t *buf);
/* (System calls that are functions of libc.) */
extern int capget(cap_user_header_t header, cap_user_data_t data);
extern int capset(cap_user_header_t header, const cap_user_data_t data);
extern int arch_prctl(int code, unsigned long addr);
struct sigvec;
extern int sigvec(int sig, const struct sigvec *vec, struct sigvec *old);
struct __jmp_buf_tag;
extern int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void),
			     void *dso);
extern noreturn_fn void __pthread_unwind_next(__pthread_unwind_buf_t *buf);
extern void _pthread_cleanup_push(struct _pthread_cleanup_buffer *buf, void (*fn)(void *),
				  void *arg);
extern void _pthread_cleanup_pop(struct _pthread_cleanup_buffer *buf, int execute);

/* (One per feature set of <signal.h>.) */
extern int __xpg_sigpause(int sig);
extern int __sigpause(int sigormask, int issig);
/* Fortified names, which <bits/...2.h> has where _FORTIFY_SOURCE is set. */
extern ssize_t __read_chk(int fd, void *buf, size_t n, size_t len);
extern ssize_t __pread64_chk(int fd, void *buf, size_t n, off_t offset, size_t len);
extern ssize_t __recv_chk(int fd, void *buf, size_t n, size_t len, int flags);
extern ssize_t __recvfrom_chk(int fd, void *buf, size_t n, size_t len, int flags,
			      __SOCKADDR_ARG addr, socklen_t *addrlen);
extern int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t len);
extern int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
		       const sigset_t *mask, size_t len);
extern int __open_2(const char *path, int flags);
extern int __openat_2(int dir, const char *path, int flags);

/* struct Real and its one instance, `real`; shim_NAME, timed_NAME. */
/* (Exported for its name, and never another object's.) */
#define SHIMMED __attribute__((visibility("protected")))
#include "symbols.h"

/* Defines the function that takes NAME's place: on goroutines, in kernel mode. */
#define SHIM(ret, name, ...) ret shim_##name(__VA_ARGS__)
#define TIMED(ret, name, ...) ret timed_##name(__VA_ARGS__)

/* GOSHIM=mode=kernel: threads stay kernel threads, and nothing but `real` and TIMED functions is called. */
extern bool kernelmode;

/*
 * Fills `real`. Has been called when any code of ours runs; again is
 * harmless. False when libc lacks something required; realmissing() is then the
 * name of the first such symbol ("libc.so.6" when that is not there at all).
 */
bool realinit(void);
/* For entry.S. */
extern int (*realsigsetjmp)(struct __jmp_buf_tag *, int);
extern int (*realgetcontext)(ucontext_t *);
extern int (*realswapcontext)(ucontext_t *, const ucontext_t *);
extern long (*realsyscall)(long, ...);
const char *realmissing(void);

/*
 * A symbol of libc.so.6 or ld.so by version ("GLIBC_PRIVATE", ...; NULL: the
 * default version). An indirect function is resolved; a thread-local variable
 * yields its offset within its module's block. NULL when there is none. Takes no
 * lock, allocates nothing. SIGSAFE once loaded.
 */
void *libcsym(const char *name, const char *version);

/* The function that the loaded objects define under this name, the first in their order. As libcsym. */
void *firstdefinition(const char *name);

#endif
