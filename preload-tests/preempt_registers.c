/*
 * Register survival: whatever a loop without calls holds in registers must be there after it was
 * preempted, had other threads run in between and was continued, perhaps by another kernel thread.
 * This is our checkasm.
 *
 * Each kind of state has a leaf in assembly that loads a pattern, spins on a counter and stores
 * what it finds. Several threads with patterns of their own run each leaf at the same time, with
 * fewer processors than threads. Half of them do it on a stack that they have switched to by themselves.
 */
#include "test.h"

#include <ucontext.h>

enum { THREADS = 6, VECTOR_BYTES = 32 * 64 };

/* rdi: 15 words to load, rsi: 15 to store, rdx: iterations. The counter lies on the stack, all
 * registers but rsp hold the pattern. */
__asm__(
    ".text\n"
    ".type spin_general, @function\n"
    "spin_general:\n"
    "	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n"
    "	push %rsi\n	push %rdx\n"
    "	mov 0(%rdi), %rax\n	mov 8(%rdi), %rbx\n	mov 16(%rdi), %rcx\n	mov 24(%rdi), %rdx\n"
    "	mov 32(%rdi), %rsi\n	mov 40(%rdi), %rbp\n	mov 48(%rdi), %r8\n	mov 56(%rdi), %r9\n"
    "	mov 64(%rdi), %r10\n	mov 72(%rdi), %r11\n	mov 80(%rdi), %r12\n	mov 88(%rdi), %r13\n"
    "	mov 96(%rdi), %r14\n	mov 104(%rdi), %r15\n	mov 112(%rdi), %rdi\n"
    "1:	decq (%rsp)\n"
    "	jnz 1b\n"
    "	push %rdi\n"
    "	mov 16(%rsp), %rdi\n"
    "	mov %rax, 0(%rdi)\n	mov %rbx, 8(%rdi)\n	mov %rcx, 16(%rdi)\n	mov %rdx, 24(%rdi)\n"
    "	mov %rsi, 32(%rdi)\n	mov %rbp, 40(%rdi)\n	mov %r8, 48(%rdi)\n	mov %r9, 56(%rdi)\n"
    "	mov %r10, 64(%rdi)\n	mov %r11, 72(%rdi)\n	mov %r12, 80(%rdi)\n	mov %r13, 88(%rdi)\n"
    "	mov %r14, 96(%rdi)\n	mov %r15, 104(%rdi)\n"
    "	pop %rax\n"
    "	mov %rax, 112(%rdi)\n"
    "	pop %rdx\n	pop %rsi\n"
    "	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	pop %rbx\n"
    "	ret\n"
    ".size spin_general, . - spin_general\n");
void spin_general(const uint64_t *in, uint64_t *out, long iterations);

/* rdi: seed, rsi: iterations. Fills the 128 bytes below the stack pointer; returns how many
 * words changed. */
__asm__(".type spin_red_zone, @function\n"
	"spin_red_zone:\n"
	"	mov %rdi, %rax\n"
	"	mov $-16, %rcx\n"
	"1:	mov %rax, (%rsp,%rcx,8)\n"
	"	add $7, %rax\n"
	"	inc %rcx\n"
	"	jnz 1b\n"
	"2:	dec %rsi\n"
	"	jnz 2b\n"
	"	xor %eax, %eax\n"
	"	mov $-16, %rcx\n"
	"3:	cmp %rdi, (%rsp,%rcx,8)\n"
	"	je 4f\n"
	"	inc %rax\n"
	"4:	add $7, %rdi\n"
	"	inc %rcx\n"
	"	jnz 3b\n"
	"	ret\n"
	".size spin_red_zone, . - spin_red_zone\n");
long spin_red_zone(uint64_t seed, long iterations);

/* rdi: flags to set, rsi: iterations; returns the flags found. lea and jrcxz leave them alone. */
__asm__(".type spin_flags, @function\n"
	"spin_flags:\n"
	"	mov %rsi, %rcx\n"
	"	push %rdi\n"
	"	popfq\n"
	"1:	lea -1(%rcx), %rcx\n"
	"	jrcxz 2f\n"
	"	jmp 1b\n"
	"2:	pushfq\n"
	"	pop %rax\n"
	"	cld\n"
	"	ret\n"
	".size spin_flags, . - spin_flags\n");
uint64_t spin_flags(uint64_t flags, long iterations);

/* rdi: what to load, rsi: where to store, rdx: iterations. */
#define ALL16 "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"
#define ALL32 ALL16 ",16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"
__asm__(".type spin_xmm, @function\n"
	"spin_xmm:\n"
	".irp n," ALL16 "\n	movdqu 16*\\n(%rdi), %xmm\\n\n.endr\n"
	"1:	dec %rdx\n"
	"	jnz 1b\n"
	".irp n," ALL16 "\n	movdqu %xmm\\n, 16*\\n(%rsi)\n.endr\n"
	"	ret\n"
	".size spin_xmm, . - spin_xmm\n"
	".type spin_ymm, @function\n"
	"spin_ymm:\n"
	".irp n," ALL16 "\n	vmovdqu 32*\\n(%rdi), %ymm\\n\n.endr\n"
	"1:	dec %rdx\n"
	"	jnz 1b\n"
	".irp n," ALL16 "\n	vmovdqu %ymm\\n, 32*\\n(%rsi)\n.endr\n"
	"	vzeroupper\n"
	"	ret\n"
	".size spin_ymm, . - spin_ymm\n"
	".type spin_zmm, @function\n"
	"spin_zmm:\n"
	".irp n," ALL32 "\n	vmovdqu64 64*\\n(%rdi), %zmm\\n\n.endr\n"
	"1:	dec %rdx\n"
	"	jnz 1b\n"
	".irp n," ALL32 "\n	vmovdqu64 %zmm\\n, 64*\\n(%rsi)\n.endr\n"
	"	vzeroupper\n"
	"	ret\n"
	".size spin_zmm, . - spin_zmm\n"
	".type spin_mask, @function\n"
	"spin_mask:\n"
	".irp n,0,1,2,3,4,5,6,7\n	kmovw 8*\\n(%rdi), %k\\n\n.endr\n"
	"1:	dec %rdx\n"
	"	jnz 1b\n"
	".irp n,0,1,2,3,4,5,6,7\n	kmovw %k\\n, 8*\\n(%rsi)\n.endr\n"
	"	ret\n"
	".size spin_mask, . - spin_mask\n");
void spin_xmm(const void *in, void *out, long iterations);
void spin_ymm(const void *in, void *out, long iterations);
void spin_zmm(const void *in, void *out, long iterations);
void spin_mask(const void *in, void *out, long iterations);

/* rdi: 8 values of 10 bytes at distances of 16, rsi: where to store, rdx: iterations. */
__asm__(".type spin_x87, @function\n"
	"spin_x87:\n"
	"	fninit\n"
	".irp n,0,1,2,3,4,5,6,7\n	fldt 16*\\n(%rdi)\n.endr\n"
	"1:	dec %rdx\n"
	"	jnz 1b\n"
	".irp n,7,6,5,4,3,2,1,0\n	fstpt 16*\\n(%rsi)\n.endr\n"
	"	ret\n"
	".size spin_x87, . - spin_x87\n");
void spin_x87(const void *in, void *out, long iterations);

/* rdi: MXCSR and x87 control word to load, rsi: where to store, rdx: iterations. The defaults
 * are put back. */
__asm__(".type spin_control, @function\n"
	"spin_control:\n"
	"	stmxcsr -8(%rsp)\n"
	"	fnstcw -16(%rsp)\n"
	"	ldmxcsr 0(%rdi)\n"
	"	fldcw 4(%rdi)\n"
	"1:	dec %rdx\n"
	"	jnz 1b\n"
	"	stmxcsr 0(%rsi)\n"
	"	fnstcw 4(%rsi)\n"
	"	ldmxcsr -8(%rsp)\n"
	"	fldcw -16(%rsp)\n"
	"	ret\n"
	".size spin_control, . - spin_control\n");
void spin_control(const void *in, void *out, long iterations);

static long iterations;

/* So many that a leaf takes some 20 ms. */
static void calibrate(void)
{
	long n = 1000000;

	if (iterations)
		return;
	int64_t start = now_ns();
	spin_flags(0, n);
	int64_t took = now_ns() - start;
	iterations = took > 0 ? n * 20000000 / took : n * 10;
	if (iterations < n)
		iterations = n;
	if (iterations > 200 * n)
		iterations = 200 * n;
}

static void *(*elsewheres)(void *);

static void call_there(int i)
{
	elsewheres((void *)(intptr_t)i);
}

static void *elsewhere(void *arg)
{
	enum { STACK = 64 << 10 };
	ucontext_t here, there;
	char *stack = malloc(STACK);

	REQUIRE(getcontext(&there) == 0);
	there.uc_stack.ss_sp = stack;
	there.uc_stack.ss_size = STACK;
	there.uc_link = &here;
	makecontext(&there, (void (*)(void))call_there, 1, (int)(intptr_t)arg);
	REQUIRE(swapcontext(&here, &there) == 0);
	free(stack);
	return NULL;
}

static void in_threads(void *(*fn)(void *))
{
	pthread_t t[THREADS];

	calibrate();
	elsewheres = fn;
	for (int i = 0; i < THREADS; i++)
		t[i] = spawn(i % 2 ? elsewhere : fn, (void *)(intptr_t)(i + 1));
	for (int i = 0; i < THREADS; i++)
		join(t[i]);
}

/* GOSHIM_TEST_SECONDS: so long, more or less, instead of a moment. A round of all cases takes two. */
static int rounds(void)
{
	const char *s = getenv("GOSHIM_TEST_SECONDS");

	return s && atoi(s) > 0 ? 1 + atoi(s) / 2 : scale(3, 5);
}

static void fill(void *p, size_t n, uint64_t seed)
{
	unsigned char *b = p;

	for (size_t i = 0; i < n; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		b[i] = (unsigned char)(seed >> 33);
	}
}

static void *general_thread(void *arg)
{
	uint64_t in[15], out[15];

	for (int r = 0; r < rounds(); r++) {
		fill(in, sizeof in, (uintptr_t)arg * 100 + r);
		memset(out, 0, sizeof out);
		spin_general(in, out, iterations / 4);
		for (unsigned i = 0; i < COUNT(in); i++)
			if (in[i] != out[i])
				FAIL("general register %u: %#lx became %#lx", i, in[i], out[i]);
	}
	return NULL;
}

static void general_registers(void)
{
	in_threads(general_thread);
}

static void *red_zone_thread(void *arg)
{
	for (int r = 0; r < rounds(); r++)
		CHECK_EQ(spin_red_zone((uintptr_t)arg * 0x123456789ul + r, iterations), 0);
	return NULL;
}

static void red_zone(void)
{
	in_threads(red_zone_thread);
}

static void *flags_thread(void *arg)
{
	/* CF PF AF ZF SF DF OF; bit 1 and IF are always set. */
	static const uint64_t bits[] = {0x001, 0x004, 0x010, 0x040, 0x080, 0x400, 0x800};
	uint64_t all = 0;

	for (unsigned i = 0; i < COUNT(bits); i++)
		all |= bits[i];
	for (int r = 0; r < rounds(); r++) {
		uint64_t want = 0;
		unsigned pick = (unsigned)(uintptr_t)arg * 37 + r * 11;
		for (unsigned i = 0; i < COUNT(bits); i++)
			if (pick >> i & 1)
				want |= bits[i];
		uint64_t got = spin_flags(want | 0x202, iterations);
		if ((got & all) != want)
			FAIL("flags %#lx became %#lx", want, got & all);
	}
	return NULL;
}

static void flags(void)
{
	in_threads(flags_thread);
}

static void vectors(void (*leaf)(const void *, void *, long), size_t size, unsigned seed,
		    const char *name)
{
	unsigned char in[VECTOR_BYTES], out[VECTOR_BYTES];

	for (int r = 0; r < rounds(); r++) {
		fill(in, size, seed * 100 + r);
		memset(out, 0, size);
		leaf(in, out, iterations);
		for (size_t i = 0; i < size; i++)
			if (in[i] != out[i]) {
				FAIL("%s: byte %zu is %#x, not %#x", name, i, out[i], in[i]);
				break;
			}
	}
}

static void *xmm_thread(void *arg)
{
	vectors(spin_xmm, 16 * 16, (unsigned)(uintptr_t)arg, "xmm");
	return NULL;
}

static void xmm(void)
{
	in_threads(xmm_thread);
}

static void *ymm_thread(void *arg)
{
	vectors(spin_ymm, 16 * 32, (unsigned)(uintptr_t)arg, "ymm");
	return NULL;
}

static void ymm(void)
{
	if (!__builtin_cpu_supports("avx"))
		SKIP_CASE("no AVX");
	in_threads(ymm_thread);
}

static void *zmm_thread(void *arg)
{
	vectors(spin_zmm, 32 * 64, (unsigned)(uintptr_t)arg, "zmm");
	return NULL;
}

static void zmm(void)
{
	if (!__builtin_cpu_supports("avx512f"))
		SKIP_CASE("no AVX-512");
	in_threads(zmm_thread);
}

static void *mask_thread(void *arg)
{
	uint64_t in[8], out[8];

	for (int r = 0; r < rounds(); r++) {
		for (unsigned i = 0; i < COUNT(in); i++)
			in[i] = ((uintptr_t)arg * 4711 + r * 13 + i * 8191) & 0xffff;
		memset(out, 0, sizeof out);
		spin_mask(in, out, iterations);
		for (unsigned i = 0; i < COUNT(in); i++)
			if (in[i] != out[i])
				FAIL("k%u: %#lx became %#lx", i, in[i], out[i]);
	}
	return NULL;
}

static void mask_registers(void)
{
	if (!__builtin_cpu_supports("avx512f"))
		SKIP_CASE("no AVX-512");
	in_threads(mask_thread);
}

/* Different kinds at the same time: a thread that uses no vectors must not clear those of one
 * that does. */
static void *mixed_thread(void *arg)
{
	switch ((uintptr_t)arg % 3) {
	case 0: return general_thread(arg);
	case 1: return xmm_thread(arg);
	default:
		return __builtin_cpu_supports("avx512f") ? zmm_thread(arg)
		       : __builtin_cpu_supports("avx")   ? ymm_thread(arg)
							 : xmm_thread(arg);
	}
}

static void mixed(void)
{
	in_threads(mixed_thread);
}

static void *x87_thread(void *arg)
{
	long double in[8], out[8];

	for (int r = 0; r < rounds(); r++) {
		memset(in, 0, sizeof in);
		memset(out, 0, sizeof out);
		for (unsigned i = 0; i < COUNT(in); i++)
			in[i] = ((long double)(uintptr_t)arg * 3 + r) / (7 + i);
		spin_x87(in, out, iterations);
		for (unsigned i = 0; i < COUNT(in); i++)
			if (memcmp(&in[i], &out[i], 10) != 0)
				FAIL("x87 value %u: %Lg became %Lg", i, in[i], out[i]);
	}
	return NULL;
}

static void x87(void)
{
	in_threads(x87_thread);
}

struct control {
	uint32_t mxcsr;
	uint16_t x87, pad;
};

static void *control_thread(void *arg)
{
	for (int r = 0; r < rounds(); r++) {
		unsigned rounding = ((unsigned)(uintptr_t)arg + r) & 3;
		/* All exceptions masked; rounding, and for some flush-to-zero, as the thread
		 * likes. */
		struct control in = {0x1f80 | rounding << 13 | (r & 1) << 15,
				     (uint16_t)(0x037f | rounding << 10), 0},
			       out = {0};
		spin_control(&in, &out, iterations);
		if (in.mxcsr != out.mxcsr)
			FAIL("MXCSR %#x became %#x", in.mxcsr, out.mxcsr);
		if (in.x87 != out.x87)
			FAIL("x87 control word %#x became %#x", in.x87, out.x87);
	}
	return NULL;
}

static void control_words(void)
{
	in_threads(control_thread);
}

/* String instructions, forwards and backwards, interrupted in the middle. */
enum { STRING = 1 << 20 };

static void *string_thread(void *arg)
{
	unsigned char *a = malloc(STRING), *b = malloc(STRING);

	for (int r = 0; r < rounds() * 10; r++) {
		void *di = a, *si = a;
		long n = STRING;

		fill(a, 64, (uintptr_t)arg + r);
		/* Spread the first 64 bytes over all of a. */
		di = a + 64;
		n = STRING - 64;
		__asm__ volatile("rep movsb" : "+D"(di), "+S"(si), "+c"(n) : : "memory");
		CHECK_EQ(n, 0);
		CHECK(di == a + STRING);
		/* Backwards into b. */
		di = b + STRING - 1;
		si = a + STRING - 1;
		n = STRING;
		__asm__ volatile("std\n\trep movsb\n\tcld"
				 : "+D"(di), "+S"(si), "+c"(n)
				 :
				 : "memory", "cc");
		CHECK_EQ(n, 0);
		CHECK(di == b - 1);
		/* And compared. */
		di = a;
		si = b;
		n = STRING;
		unsigned char equal;
		__asm__ volatile("cmp %%al, %%al\n\trepe cmpsb\n\tsete %0"
				 : "=q"(equal), "+D"(di), "+S"(si), "+c"(n)
				 :
				 : "memory", "cc");
		CHECK(equal);
		CHECK_EQ(n, 0);
		long k = r % STRING;
		CHECK_EQ(b[k], a[k % 64]);
		/* Filled, and the fill found to end where it should. */
		di = b;
		n = STRING / 8 - 1;
		__asm__ volatile("rep stosq"
				 : "+D"(di), "+c"(n)
				 : "a"(0x0101010101010101ul * (uintptr_t)arg)
				 : "memory");
		CHECK_EQ(b[STRING - 9], (unsigned char)(uintptr_t)arg);
		CHECK_EQ(b[STRING - 8], a[STRING - 8]);
		di = b;
		n = STRING;
		__asm__ volatile("repe scasb"
				 : "+D"(di), "+c"(n)
				 : "a"((uintptr_t)arg)
				 : "memory", "cc");
		CHECK((unsigned char *)di >= b + STRING - 8);
	}
	free(a);
	free(b);
	return NULL;
}

static void string_instructions(void)
{
	in_threads(string_thread);
}

/* Compiled code: the same sums, with integers, doubles and carries, must come out in every
 * thread. */
static uint64_t long_sum(unsigned seed)
{
	uint64_t h = seed, lo = seed, hi = 1;
	double d = 1.0 + seed;
	long double ld = seed;

	for (long i = 1; i < 3000000; i++) {
		h = (h ^ i) * 0x9e3779b97f4a7c15u;
		__asm__("add %2, %0\n\tadc %3, %1"
			: "+r"(lo), "+r"(hi)
			: "r"(h), "r"((uint64_t)i)
			: "cc");
		d = d * 1.0000001 + 1.0 / (double)i;
		if (i % 64 == 0)
			ld = ld / 1.5L + (long double)i;
		h ^= hi >> 7;
	}
	uint64_t bits;
	memcpy(&bits, &d, sizeof bits);
	return h ^ lo ^ bits ^ (uint64_t)(ld * 1e6L);
}

static uint64_t expected[THREADS + 1];

static void *sum_thread(void *arg)
{
	for (int r = 0; r < rounds() * 2; r++)
		if (long_sum((unsigned)(uintptr_t)arg) != expected[(uintptr_t)arg])
			FAIL("thread %lu computes another sum", (unsigned long)(uintptr_t)arg);
	return NULL;
}

static void compiled_code(void)
{
	for (unsigned i = 1; i <= THREADS; i++)
		expected[i] = long_sum(i);
	in_threads(sum_thread);
}

static const struct test_case cases[] = {
    {"general_registers", general_registers},
    {"red_zone", red_zone},
    {"flags", flags},
    {"xmm", xmm},
    {"ymm", ymm},
    {"zmm", zmm},
    {"mask_registers", mask_registers},
    {"mixed", mixed},
    {"x87", x87},
    {"control_words", control_words},
    {"string_instructions", string_instructions},
    {"compiled_code", compiled_code},
};

TEST_MAIN(cases)
