/*
 * Signals that threads cause themselves, as runtimes live on them: each kind arrives in its thread with the right code and
 * address; a write barrier made of mprotect, safepoints that are a page, null checks left by changing the context, and
 * pages that userfaultfd fills, in several threads at once, while they are preempted.
 */
#include "test.h"

#include <linux/userfaultfd.h>
#include <setjmp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { THREADS = 4, PAGE = 4096, PAGES = 64 };

static greg_t *gregs(void *uc)
{
	return ((ucontext_t *)uc)->uc_mcontext.gregs;
}

static void on(int sig, void (*fn)(int, siginfo_t *, void *), int flags)
{
	struct sigaction sa = {.sa_sigaction = fn, .sa_flags = SA_SIGINFO | flags};

	REQUIRE(sigaction(sig, &sa, NULL) == 0);
}

static void in_threads(void *(*fn)(void *))
{
	pthread_t t[THREADS];

	fn((void *)THREADS);
	for (intptr_t i = 0; i < THREADS; i++)
		t[i] = spawn(fn, (void *)i);
	for (int i = 0; i < THREADS; i++)
		join(t[i]);
}

static void *pages(int n, int prot)
{
	void *p = mmap(NULL, (size_t)n * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(p != MAP_FAILED);
	return p;
}

/* --- kinds ------------------------------------------------------------------------------------------------------- */

static __thread siginfo_t seen;
static __thread greg_t seen_trap, seen_cr2, seen_pc;
static __thread sigjmp_buf env;

static void take_down(int sig, siginfo_t *info, void *uc)
{
	(void)sig;
	seen = *info;
	seen_trap = gregs(uc)[REG_TRAPNO];
	seen_cr2 = gregs(uc)[REG_CR2];
	seen_pc = gregs(uc)[REG_RIP];
	siglongjmp(env, 1);
}

static void expect(const char *what, int sig, int code, const void *addr, int trap)
{
	if (seen.si_signo != sig || seen.si_code != code)
		FAIL("%s: signal %d, code %d", what, seen.si_signo, seen.si_code);
	if (seen.si_addr != addr)
		FAIL("%s: address %p, not %p", what, seen.si_addr, addr);
	if (seen_trap != trap)
		FAIL("%s: trap %lld, not %d", what, (long long)seen_trap, trap);
	if (trap == 14 && (void *)seen_cr2 != addr)
		FAIL("%s: cr2 %llx", what, (long long)seen_cr2);
	memset(&seen, 0, sizeof seen);
}

static void *all_kinds(void *arg)
{
	char *none = pages(2, PROT_NONE), *read_only = pages(1, PROT_READ);
	char path[] = "/tmp/fault-XXXXXX";
	int zero = 0;
	int fd = mkstemp(path);

	REQUIRE(fd >= 0);
	unlink(path);
	char *beyond = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	REQUIRE(beyond != MAP_FAILED);
	for (int i = 0; i < 20; i++) {
		if (!sigsetjmp(env, 1))
			*(volatile char *)(none + 100 + i) = 1;
		expect("no access", SIGSEGV, SEGV_ACCERR, none + 100 + i, 14);
		if (!sigsetjmp(env, 1))
			*(volatile char *)(read_only + 5) = 1;
		expect("read only", SIGSEGV, SEGV_ACCERR, read_only + 5, 14);
		if (!sigsetjmp(env, 1))
			*(volatile char *)(uintptr_t)(16 + i) = 1;
		expect("null", SIGSEGV, SEGV_MAPERR, (void *)(uintptr_t)(16 + i), 14);
		if (!sigsetjmp(env, 1))
			*(volatile char *)0x8000000000000000ul = 1;
		expect("not an address", SIGSEGV, SI_KERNEL, NULL, 13);
		if (!sigsetjmp(env, 1))
			beyond[7] = 1;
		expect("beyond the file", SIGBUS, BUS_ADRERR, beyond + 7, 14);
		if (!sigsetjmp(env, 1))
			__asm__ volatile("cltd\n\tidivl %1" : : "a"(1), "r"(zero) : "edx", "cc");
		expect("division", SIGFPE, FPE_INTDIV, (void *)seen_pc, 0);
		if (!sigsetjmp(env, 1))
			__asm__ volatile("ud2");
		expect("illegal", SIGILL, ILL_ILLOPN, (void *)seen_pc, 6);
		if (!sigsetjmp(env, 1))
			__asm__ volatile("int3");
		expect("breakpoint", SIGTRAP, SI_KERNEL, NULL, 3);
	}
	munmap(none, 2 * PAGE);
	munmap(read_only, PAGE);
	munmap(beyond, PAGE);
	close(fd);
	return arg;
}

static void kinds(void)
{
	on(SIGSEGV, take_down, 0);
	on(SIGBUS, take_down, 0);
	on(SIGFPE, take_down, 0);
	on(SIGILL, take_down, 0);
	on(SIGTRAP, take_down, 0);
	in_threads(all_kinds);
	signal(SIGBUS, SIG_DFL);
	signal(SIGFPE, SIG_DFL);
	signal(SIGTRAP, SIG_DFL);
}

/* Instructions stepped over, and results put in their place. */
static void emulate(int sig, siginfo_t *info, void *uc)
{
	(void)info;
	greg_t *r = gregs(uc);
	if (sig == SIGILL) {
		r[REG_RAX] = r[REG_RDI] * 3;
		r[REG_RIP] += 2;
	} else {
		/* As a null check: on at the place that the code has left in r11. */
		r[REG_RAX] = -1;
		r[REG_RIP] = r[REG_R11];
	}
}

static void *emulated(void *arg)
{
	for (long i = 0; i < 2000; i++) {
		long a = 0, b = 0;
		__asm__ volatile("ud2" : "=a"(a) : "D"(i + (intptr_t)arg) : "memory");
		CHECK_EQ(a, 3 * (i + (intptr_t)arg));
		__asm__ volatile("leaq 1f(%%rip), %%r11\n"
				 "	movq (%%rdi), %%rax\n"
				 "	ud2\n"
				 "1:\n"
				 : "=a"(b)
				 : "D"(8l)
				 : "r11", "memory");
		CHECK_EQ(b, -1);
	}
	return NULL;
}

static void stepped_over(void)
{
	on(SIGILL, emulate, 0);
	on(SIGSEGV, emulate, SA_NODEFER);
	in_threads(emulated);
	signal(SIGILL, SIG_DFL);
}

/* --- a write barrier ------------------------------------------------------------------------------------------------- */

static char *heap;
static volatile char dirty[PAGES];
static volatile int faults;

static void barrier(int sig, siginfo_t *info, void *uc)
{
	long at = ((char *)info->si_addr - heap) / PAGE;

	(void)sig, (void)uc;
	if (at < 0 || at >= PAGES)
		_exit(90);
	dirty[at] = 1;
	__atomic_add_fetch(&faults, 1, __ATOMIC_RELAXED);
	if (mprotect(heap + at * PAGE, PAGE, PROT_READ | PROT_WRITE))
		_exit(91);
}

static volatile int mutators;

static void *mutate(void *arg)
{
	intptr_t me = (intptr_t)arg;

	/* Each has words of its own in every page. */
	for (long i = 0; i < 200 * PAGES; i++) {
		volatile long *w = (long *)(heap + i % PAGES * PAGE) + me;
		long v = *w;
		*w = v + 1;
		if (*w != v + 1)
			FAIL("a write is lost");
	}
	__atomic_sub_fetch(&mutators, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void write_barrier(void)
{
	pthread_t t[THREADS];

	heap = pages(PAGES, PROT_READ); /* they may be done before the collector's first cycle */
	on(SIGSEGV, barrier, SA_RESTART);
	mutators = THREADS;
	for (intptr_t i = 0; i < THREADS; i++)
		t[i] = spawn(mutate, (void *)i);
	/* The collector protects all again and again. */
	int cycles = 0;
	while (__atomic_load_n(&mutators, __ATOMIC_ACQUIRE) || cycles < 5) {
		REQUIRE(mprotect(heap, (size_t)PAGES * PAGE, PROT_READ) == 0);
		cycles++;
		sleep_ms(1);
	}
	for (int i = 0; i < THREADS; i++)
		join(t[i]);
	for (int p = 0; p < PAGES; p++)
		for (int i = 0; i < THREADS; i++)
			CHECK_EQ(((long *)(heap + (long)p * PAGE))[i], 200);
	CHECK(faults > 0);
	munmap(heap, (size_t)PAGES * PAGE);
	signal(SIGSEGV, SIG_DFL);
}

/* --- safepoints: a page that becomes unreadable, and a handler that waits until it is readable ---------------------- */

static char *poll_page;
static volatile int at_safepoint, go, ended;
static pthread_mutex_t world = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t started = PTHREAD_COND_INITIALIZER;

static void safepoint(int sig, siginfo_t *info, void *uc)
{
	(void)sig, (void)uc;
	if (info->si_addr != poll_page)
		_exit(92);
	pthread_mutex_lock(&world);
	at_safepoint++;
	int turn = go;
	while (go == turn)
		pthread_cond_wait(&started, &world);
	at_safepoint--;
	pthread_mutex_unlock(&world);
}

static void *mutator(void *arg)
{
	volatile char *p = poll_page;
	unsigned long *n = arg;

	while (!ended) {
		(void)*p;
		++*n;
	}
	return NULL;
}

static void safepoints(void)
{
	pthread_t t[THREADS];
	static unsigned long n[THREADS];

	poll_page = pages(1, PROT_READ);
	on(SIGSEGV, safepoint, SA_RESTART | SA_NODEFER);
	ended = 0;
	for (int i = 0; i < THREADS; i++)
		t[i] = spawn(mutator, &n[i]);
	for (int round = 0; round < 20; round++) {
		unsigned long before[THREADS];
		REQUIRE(mprotect(poll_page, PAGE, PROT_NONE) == 0);
		CHECK(wait_for(&at_safepoint, THREADS, 20000));
		/* All stand still. */
		memcpy(before, n, sizeof n);
		sleep_ms(1);
		CHECK(memcmp(before, n, sizeof n) == 0);
		REQUIRE(mprotect(poll_page, PAGE, PROT_READ) == 0);
		pthread_mutex_lock(&world);
		go++;
		pthread_cond_broadcast(&started);
		pthread_mutex_unlock(&world);
		CHECK(wait_for(&at_safepoint, 0, 20000));
	}
	ended = 1;
	for (int i = 0; i < THREADS; i++)
		join(t[i]);
	signal(SIGSEGV, SIG_DFL);
}

/* --- userfaultfd ---------------------------------------------------------------------------------------------------------- */

static int uffd = -1;

static void *fill_pages(void *arg)
{
	char *page = pages(1, PROT_READ | PROT_WRITE);
	struct uffd_msg msg;
	int left = PAGES;

	while (left) {
		struct pollfd p = {uffd, POLLIN, 0};
		CHECK_EQ(poll(&p, 1, 20000), 1);
		if (read(uffd, &msg, sizeof msg) != sizeof msg)
			continue;
		CHECK_EQ(msg.event, UFFD_EVENT_PAGEFAULT);
		uint64_t at = msg.arg.pagefault.address & ~(uint64_t)(PAGE - 1);
		memset(page, (int)((at - (uintptr_t)heap) / PAGE) + 1, PAGE);
		struct uffdio_copy copy = {.dst = at, .src = (uintptr_t)page, .len = PAGE};
		if (ioctl(uffd, UFFDIO_COPY, &copy) == 0)
			left--;
		else if (errno != EEXIST) {
			FAIL("UFFDIO_COPY: errno %d", errno);
			break;
		}
	}
	munmap(page, PAGE);
	return arg;
}

static void *touch_pages(void *arg)
{
	for (long i = 0; i < PAGES; i++) {
		long p = (i * 7 + (intptr_t)arg * 13) % PAGES;
		CHECK_EQ(((volatile char *)heap)[p * PAGE + (intptr_t)arg], p + 1);
	}
	return NULL;
}

static void filled_by_a_thread(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	pthread_t t[THREADS];

	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (uffd < 0)
		SKIP_CASE("no userfaultfd");
	REQUIRE(ioctl(uffd, UFFDIO_API, &api) == 0);
	heap = pages(PAGES, PROT_READ | PROT_WRITE);
	struct uffdio_register reg = {.range = {(uintptr_t)heap, (size_t)PAGES * PAGE},
				      .mode = UFFDIO_REGISTER_MODE_MISSING};
	REQUIRE(ioctl(uffd, UFFDIO_REGISTER, &reg) == 0);
	pthread_t filler = spawn(fill_pages, NULL);
	for (intptr_t i = 0; i < THREADS; i++)
		t[i] = spawn(touch_pages, (void *)i);
	for (int i = 0; i < THREADS; i++)
		join(t[i]);
	join(filler);
	munmap(heap, (size_t)PAGES * PAGE);
	close(uffd);
}

/* --- one in the handler of another ---------------------------------------------------------------------------------------- */

static __thread volatile int outer, inner;
static char *closed;

static void inside(int sig, siginfo_t *info, void *uc)
{
	(void)sig, (void)info;
	inner++;
	gregs(uc)[REG_RIP] += 2;
}

static void outside(int sig, siginfo_t *info, void *uc)
{
	(void)sig;
	CHECK(info->si_addr == closed + 8);
	__asm__ volatile("ud2" ::: "memory");
	outer++;
	gregs(uc)[REG_RIP] += 3;
}

static void *nest(void *arg)
{
	static char stacks[THREADS + 1][64 << 10];
	stack_t ss = {.ss_sp = stacks[(intptr_t)arg], .ss_size = sizeof stacks[0]};
	stack_t none = {.ss_flags = SS_DISABLE};

	REQUIRE(sigaltstack(&ss, NULL) == 0);
	for (int i = 1; i <= 200; i++) {
		__asm__ volatile(".byte 0x48, 0x8b, 0x07" /* mov (%rdi), %rax */
				 :
				 : "D"(closed + 8)
				 : "rax", "memory");
		CHECK_EQ(outer, i);
		CHECK_EQ(inner, i);
	}
	outer = inner = 0;
	REQUIRE(sigaltstack(&none, NULL) == 0);
	return NULL;
}

static void nested(void)
{
	closed = pages(1, PROT_NONE);
	on(SIGSEGV, outside, SA_ONSTACK);
	on(SIGILL, inside, SA_ONSTACK);
	in_threads(nest);
	signal(SIGSEGV, SIG_DFL);
	signal(SIGILL, SIG_DFL);
}

static const struct test_case cases[] = {
    {"kinds", kinds},
    {"stepped_over", stepped_over},
    {"write_barrier", write_barrier},
    {"safepoints", safepoints},
    {"filled_by_a_thread", filled_by_a_thread},
    {"nested", nested},
};

TEST_MAIN(cases)
