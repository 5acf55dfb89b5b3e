/*
 * What a handler with SA_SIGINFO is told of the place that it interrupts, and what it changes there: mask, alternate
 * stack, registers, in a loop, at a call that waits and at a fault.
 */
#include "test.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <semaphore.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

static void on(int sig, void (*fn)(int, siginfo_t *, void *), int flags)
{
	struct sigaction sa = {.sa_sigaction = fn, .sa_flags = SA_SIGINFO | flags};

	sigaddset(&sa.sa_mask, SIGUSR2);
	REQUIRE(sigaction(sig, &sa, NULL) == 0);
}

static greg_t *gregs(void *uc)
{
	return ((ucontext_t *)uc)->uc_mcontext.gregs;
}

/* --- places where a signal finds its thread ------------------------------------------------------------------- */

static __thread volatile int handled;
static __thread int pipefd[2];

NAMED void in_loop(void)
{
	while (!handled)
		;
	__asm__ volatile("" ::: "memory");
}

NAMED void in_read(void)
{
	char c;

	while (!handled)
		CHECK_ERRNO(read(pipefd[0], &c, 1), EINTR);
	__asm__ volatile("" ::: "memory");
}

NAMED void in_sleep(void)
{
	struct timespec hour = {3600, 0};

	while (!handled)
		nanosleep(&hour, NULL);
	__asm__ volatile("" ::: "memory");
}

NAMED void in_sem(void)
{
	sem_t s;

	REQUIRE(sem_init(&s, 0, 0) == 0);
	while (!handled)
		sem_wait(&s);
	__asm__ volatile("" ::: "memory");
}

NAMED void in_pause(void)
{
	while (!handled)
		pause();
	__asm__ volatile("" ::: "memory");
}

NAMED void in_raise(void)
{
	raise(SIGUSR1);
	__asm__ volatile("" ::: "memory");
}

NAMED void in_sigmask(void)
{
	sigset_t set, old;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	raise(SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	__asm__ volatile("" ::: "memory");
}

struct place {
	const char *name;
	void (*fn)(void);
	int itself; /* sends the signal */
};

static const struct place places[] = {
    {"loop", in_loop, 0},       {"read", in_read, 0}, {"sleep", in_sleep, 0},
    {"pause", in_pause, 0},     {"sem", in_sem, 0},   {"raise", in_raise, 1},
    {"sigmask", in_sigmask, 1},
};

struct visit {
	const struct place *place;
	int altstack;
	volatile int ready;
	pthread_t t;
};

static void *killer(void *arg)
{
	struct visit *v = arg;

	REQUIRE(wait_for(&v->ready, 1, 10000));
	sleep_ms(5);
	REQUIRE_OK(pthread_kill(v->t, SIGUSR1));
	return NULL;
}

static __thread struct visit *visiting;

static void *visit_place(void *arg)
{
	struct visit *v = arg;
	pthread_t k = 0;

	visiting = v;
	handled = 0;
	REQUIRE(pipe(pipefd) == 0);
	v->t = pthread_self();
	v->ready = 0;
	if (!v->place->itself)
		k = spawn(killer, v);
	__atomic_store_n(&v->ready, 1, __ATOMIC_RELEASE);
	v->place->fn();
	if (handled != 1)
		FAIL("%s: handled is %d", v->place->name, handled);
	if (k)
		join(k);
	close(pipefd[0]);
	close(pipefd[1]);
	return NULL;
}

/* Each place, on main and on a thread. */
static void everywhere(void (*handler)(int, siginfo_t *, void *), int flags)
{
	on(SIGUSR1, handler, flags);
	for (unsigned i = 0; i < COUNT(places); i++) {
		struct visit v = {.place = &places[i]};
		visit_place(&v);
		join(spawn(visit_place, &v));
	}
}

/* --- the context as given ------------------------------------------------------------------------------------------- */

static void see_mask(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;
	sigset_t now;

	handled++;
	CHECK_EQ(info->si_signo, sig);
	CHECK_EQ(info->si_code, SI_TKILL);
	CHECK_EQ(info->si_pid, getpid());
	CHECK_EQ(info->si_uid, getuid());
	CHECK(!sigismember(&uc->uc_sigmask, SIGUSR1));
	CHECK(!sigismember(&uc->uc_sigmask, SIGUSR2));
	CHECK(sigismember(&uc->uc_sigmask, SIGTERM));
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	CHECK(sigismember(&now, SIGUSR1));
	CHECK(sigismember(&now, SIGUSR2));
	CHECK(sigismember(&now, SIGTERM));
	CHECK(!sigismember(&now, SIGINT));
}

static void masks(void)
{
	sigset_t set, now;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	everywhere(see_mask, 0);
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	CHECK(sigismember(&now, SIGTERM));
	CHECK(!sigismember(&now, SIGUSR1));
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void see_no_stack(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;

	(void)sig, (void)info;
	handled++;
	CHECK(uc->uc_link == NULL);
	CHECK(uc->uc_stack.ss_sp == NULL);
	CHECK_EQ(uc->uc_stack.ss_size, 0);
	/* 0 for main that never had one. */
	CHECK_EQ(uc->uc_stack.ss_flags & ~SS_DISABLE, 0);
}

static void no_alternate_stack(void)
{
	everywhere(see_no_stack, SA_ONSTACK);
}

static char altstack[2][64 << 10];
static __thread char *mine;

static void see_stack(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;
	stack_t now;
	char here;

	(void)sig, (void)info;
	handled++;
	CHECK(uc->uc_stack.ss_sp == mine);
	CHECK_EQ(uc->uc_stack.ss_size, sizeof altstack[0]);
	CHECK_EQ(uc->uc_stack.ss_flags, 0);
	CHECK(&here >= mine && &here < mine + sizeof altstack[0]);
	CHECK((char *)gregs(uc)[REG_RSP] < mine ||
	      (char *)gregs(uc)[REG_RSP] >= mine + sizeof altstack[0]);
	REQUIRE(sigaltstack(NULL, &now) == 0);
	CHECK_EQ(now.ss_flags, SS_ONSTACK);
}

static void *visit_with_stack(void *arg)
{
	struct visit *v = arg;
	stack_t ss = {.ss_sp = altstack[v->altstack], .ss_size = sizeof altstack[0]};
	stack_t none = {.ss_flags = SS_DISABLE};

	mine = ss.ss_sp;
	REQUIRE(sigaltstack(&ss, NULL) == 0);
	visit_place(v);
	REQUIRE(sigaltstack(&none, NULL) == 0);
	return NULL;
}

static void alternate_stacks(void)
{
	on(SIGUSR1, see_stack, SA_ONSTACK);
	for (unsigned i = 0; i < COUNT(places); i++) {
		struct visit v = {.place = &places[i]}, w = {.place = &places[i], .altstack = 1};
		pthread_t t = spawn(visit_with_stack, &w);
		visit_with_stack(&v);
		join(t);
	}
}

/* The registers are those of a place in the thread: its stack pointer is there, and what they say of
 * callers leads to the function that was interrupted. */
static char *text_of(void (*fn)(void))
{
	return (char *)(uintptr_t)fn;
}

static void see_registers(int sig, siginfo_t *info, void *ctx)
{
	greg_t *r = gregs(ctx);
	char here, *sp = (char *)r[REG_RSP];
	Dl_info of;

	(void)sig, (void)info;
	handled++;
	CHECK(sp > &here && sp - &here < 65536);
	CHECK(dladdr((void *)r[REG_RIP], &of) != 0);
	if (visiting->place->fn == in_loop) {
		char *pc = (char *)r[REG_RIP];
		CHECK(pc >= text_of(in_loop) && pc < text_of(in_loop) + 100);
	}
	/* The floating-point state is there to be read. */
	fpregset_t fp = ((ucontext_t *)ctx)->uc_mcontext.fpregs;
	if (!fp) {
		FAIL("%s: no floating-point state", visiting->place->name);
		return;
	}
	CHECK_EQ(fp->mxcsr & 0xffc0, 0x1f80);
	CHECK_EQ(fp->cwd, 0x37f);
	/* And callers are found. */
	void *pc[64];
	int n = backtrace(pc, COUNT(pc)), found = 0;
	for (int i = 0; i < n; i++) {
		char *at = pc[i], *fn = text_of(visiting->place->fn);
		found |= at >= fn && at < fn + 300;
	}
	if (!found)
		FAIL("%s: not in the backtrace of %d frames", visiting->place->name, n);
}

static void registers(void)
{
	void *warm[4];

	backtrace(warm, COUNT(warm));
	everywhere(see_registers, 0);
}

/* --- what handlers change ------------------------------------------------------------------------------------------- */

static void change_mask(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;

	(void)sig, (void)info;
	handled++;
	sigaddset(&uc->uc_sigmask, SIGTERM);
	sigdelset(&uc->uc_sigmask, SIGINT);
	sigaddset(&uc->uc_sigmask, SIGKILL);
}

static void *visit_and_see_mask(void *arg)
{
	sigset_t now, old;

	pthread_sigmask(SIG_SETMASK, NULL, &old);
	sigaddset(&old, SIGINT);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	visit_place(arg);
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	const char *name = ((struct visit *)arg)->place->name;
	/* There the call itself sets the mask, after the handler. */
	if (((struct visit *)arg)->place->fn != in_sigmask && !sigismember(&now, SIGTERM))
		FAIL("%s: SIGTERM not blocked", name);
	if (sigismember(&now, SIGINT))
		FAIL("%s: SIGINT blocked", name);
	CHECK(!sigismember(&now, SIGKILL));
	CHECK(!sigismember(&now, SIGUSR1));
	sigdelset(&old, SIGINT);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return NULL;
}

static void changed_mask(void)
{
	on(SIGUSR1, change_mask, 0);
	for (unsigned i = 0; i < COUNT(places); i++) {
		struct visit v = {.place = &places[i]};
		visit_and_see_mask(&v);
		join(spawn(visit_and_see_mask, &v));
	}
}

/* Out of a loop without end by its program counter. */
void endless(void);
void endless_end(void);
__asm__(".type endless, @function\n"
	"endless:\n"
	"	jmp endless\n"
	"endless_end:\n"
	"	ret\n"
	".size endless, . - endless\n");

static void leave_loop(int sig, siginfo_t *info, void *ctx)
{
	(void)sig, (void)info;
	handled++;
	if (gregs(ctx)[REG_RIP] == (greg_t)endless)
		gregs(ctx)[REG_RIP] = (greg_t)endless_end;
}

static void *loop_until_left(void *arg)
{
	struct visit v = {.t = pthread_self()};

	v.ready = 0;
	for (int i = 0; i < 5; i++) {
		pthread_t k = spawn(killer, &v);
		__atomic_store_n(&v.ready, 1, __ATOMIC_RELEASE);
		endless();
		join(k);
	}
	return arg;
}

static void changed_program_counter(void)
{
	on(SIGUSR1, leave_loop, 0);
	loop_until_left(NULL);
	join(spawn(loop_until_left, NULL));
}

/* Out of a call that waits: to code that never comes back to it. */
static __thread jmp_buf *out;
static __thread volatile int elsewhere_arg;
static void elsewhere(int n)
{
	elsewhere_arg = n;
	siglongjmp(*out, 1);
}

static void go_elsewhere(int sig, siginfo_t *info, void *ctx)
{
	(void)sig, (void)info;
	handled++;
	greg_t *r = gregs(ctx);
	r[REG_RSP] = ((r[REG_RSP] - 256) & ~15) - 8;
	r[REG_RDI] = 4711;
	r[REG_RIP] = (greg_t)elsewhere;
}

static void *leave_by_registers(void *arg)
{
	sigjmp_buf env;
	volatile int came = 0;

	out = &env;
	elsewhere_arg = 0;
	if (sigsetjmp(env, 1) == 0)
		visit_place(arg);
	else
		came = 1;
	if (!came || elsewhere_arg != 4711)
		FAIL("%s: the call went on", ((struct visit *)arg)->place->name);
	sigset_t now;
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	CHECK(!sigismember(&now, SIGUSR1));
	return NULL;
}

static void changed_in_calls(void)
{
	on(SIGUSR1, go_elsewhere, 0);
	for (unsigned i = 0; i < COUNT(places); i++) {
		struct visit v = {.place = &places[i]};
		leave_by_registers(&v);
		join(spawn(leave_by_registers, &v));
	}
}

/* A vector register of the interrupted loop. */
static void change_vector(int sig, siginfo_t *info, void *ctx)
{
	(void)sig, (void)info;
	if (gregs(ctx)[REG_RIP] < (greg_t)endless || gregs(ctx)[REG_RIP] >= (greg_t)endless_end)
		return;
	handled++;
	((ucontext_t *)ctx)->uc_mcontext.fpregs->_xmm[7].element[0] = 123456;
	gregs(ctx)[REG_R12] += 1000;
	gregs(ctx)[REG_RIP] = (greg_t)endless_end;
}

static void *loop_with_vector(void *arg)
{
	struct visit v = {.t = pthread_self()};
	pthread_t k = spawn(killer, &v);
	uint32_t low = 0;
	uint64_t r12 = 0;

	__atomic_store_n(&v.ready, 1, __ATOMIC_RELEASE);
	__asm__ volatile("pxor %%xmm7, %%xmm7\n"
			 "	movl $77, %%r12d\n"
			 "	call endless\n"
			 "	movd %%xmm7, %0\n"
			 "	movq %%r12, %1\n"
			 : "=r"(low), "=r"(r12)
			 :
			 : "memory", "xmm7", "r12", "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9",
			   "r10", "r11");
	join(k);
	CHECK_EQ(low, 123456);
	CHECK_EQ(r12, 1077);
	return arg;
}

static void changed_registers(void)
{
	on(SIGUSR1, change_vector, 0);
	loop_with_vector(NULL);
	join(spawn(loop_with_vector, NULL));
}

/* Another alternate stack is that of the handler: on return the thread has the old one again. */
static char third[64 << 10];

static void change_stack(int sig, siginfo_t *info, void *ctx)
{
	stack_t ss = {.ss_sp = third, .ss_size = sizeof third}, now;

	(void)sig, (void)info, (void)ctx;
	handled++;
	CHECK_EQ(sigaltstack(&ss, NULL), 0);
	CHECK_EQ(sigaltstack(NULL, &now), 0);
	CHECK(now.ss_sp == third);
}

static void *visit_and_see_stack(void *arg)
{
	struct visit *v = arg;
	stack_t ss = {.ss_sp = altstack[0], .ss_size = sizeof altstack[0]}, now;
	stack_t none = {.ss_flags = SS_DISABLE};

	REQUIRE(sigaltstack(&ss, NULL) == 0);
	visit_place(arg);
	REQUIRE(sigaltstack(NULL, &now) == 0);
	if (now.ss_sp != altstack[0] || now.ss_flags)
		FAIL("%s: %p, flags %#x", v->place->name, now.ss_sp, now.ss_flags);
	REQUIRE(sigaltstack(&none, NULL) == 0);
	return NULL;
}

static void changed_stack(void)
{
	on(SIGUSR1, change_stack, 0);
	for (unsigned i = 0; i < COUNT(places); i++) {
		struct visit v = {.place = &places[i]};
		visit_and_see_stack(&v);
		join(spawn(visit_and_see_stack, &v));
	}
}

/* Disarmed while a handler runs on it, which may then leave it and let others have it. */
enum { AUTODISARM = (int)(1u << 31) };

static void see_disarmed(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;
	stack_t now;
	char here;

	(void)sig, (void)info;
	handled++;
	CHECK(&here >= mine && &here < mine + sizeof altstack[0]);
	CHECK_EQ(sigaltstack(NULL, &now), 0);
	CHECK_EQ(now.ss_flags, SS_DISABLE);
	CHECK(now.ss_sp == NULL);
	CHECK(uc->uc_stack.ss_sp == mine);
	CHECK_EQ(uc->uc_stack.ss_flags, AUTODISARM);
	stack_t other = {.ss_sp = third, .ss_size = sizeof third};
	CHECK_EQ(sigaltstack(&other, NULL), 0);
}

static void *visit_disarmed(void *arg)
{
	struct visit *v = arg;
	stack_t ss = {.ss_sp = altstack[v->altstack],
		      .ss_size = sizeof altstack[0],
		      .ss_flags = AUTODISARM},
		now;
	stack_t none = {.ss_flags = SS_DISABLE};

	mine = ss.ss_sp;
	REQUIRE(sigaltstack(&ss, NULL) == 0);
	REQUIRE(sigaltstack(NULL, &now) == 0);
	CHECK_EQ(now.ss_flags, AUTODISARM);
	visit_place(v);
	REQUIRE(sigaltstack(NULL, &now) == 0);
	CHECK(now.ss_sp == mine);
	CHECK_EQ(now.ss_flags, AUTODISARM);
	CHECK_EQ(now.ss_size, sizeof altstack[0]);
	REQUIRE(sigaltstack(&none, NULL) == 0);
	return NULL;
}

static void disarmed_stack(void)
{
	on(SIGUSR1, see_disarmed, SA_ONSTACK);
	for (unsigned i = 0; i < COUNT(places); i++) {
		struct visit v = {.place = &places[i]};
		visit_disarmed(&v);
		join(spawn(visit_disarmed, &v));
	}
}

static const struct test_case cases[] = {
    {"masks", masks},
    {"no_alternate_stack", no_alternate_stack},
    {"alternate_stacks", alternate_stacks},
    {"registers", registers},
    {"changed_mask", changed_mask},
    {"changed_program_counter", changed_program_counter},
    {"changed_registers", changed_registers},
    {"changed_in_calls", changed_in_calls},
    {"changed_stack", changed_stack},
    {"disarmed_stack", disarmed_stack},
};

TEST_MAIN(cases)
