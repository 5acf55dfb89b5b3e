/*
 * Deadlocks as they are told of: each case is a process of its own that hangs for ever, natively without a word. What it
 * writes to stderr is read here for what it says of threads and locks, by the names of the functions that wait.
 */
#include "test.h"

#include <regex.h>
#include <sched.h>
#include <semaphore.h>
#include <threads.h>

/* --- the processes that hang ------------------------------------------------------------------ */

/* Something that could wake one of the threads, for all that the scheduler knows: a handler, and main's sleeps. */
static void on_signal(int sig)
{
	(void)sig;
}

static void busy_with_others(void)
{
	signal(SIGUSR1, on_signal);
	for (;;)
		sleep_ms(20);
}

enum { RING = 40 };
static pthread_mutex_t locks[RING];
static pthread_barrier_t all_hold;
static int ring;

static void named(const char *name)
{
	pthread_setname_np(pthread_self(), name);
}

void *takes_the_next(void *arg)
{
	int self = (int)(intptr_t)arg;
	char name[16];

	snprintf(name, sizeof name, "ring-%d", self);
	named(name);
	pthread_mutex_lock(&locks[self]);
	pthread_barrier_wait(&all_hold);
	pthread_mutex_lock(&locks[(self + 1) % ring]);
	return arg;
}

static void in_a_ring(int n)
{
	ring = n;
	pthread_barrier_init(&all_hold, NULL, n);
	for (int i = 0; i < n; i++)
		spawn(takes_the_next, (void *)(intptr_t)i);
	busy_with_others();
}

static void two(void)
{
	in_a_ring(2);
}

static void three(void)
{
	in_a_ring(3);
}

static void forty(void)
{
	in_a_ring(RING);
}

static pthread_rwlock_t book = PTHREAD_RWLOCK_INITIALIZER, other_book = PTHREAD_RWLOCK_INITIALIZER;

void *writes_then_locks(void *arg)
{
	named("writer");
	pthread_rwlock_wrlock(&book);
	pthread_barrier_wait(&all_hold);
	pthread_mutex_lock(&locks[0]);
	return arg;
}

void *locks_then_reads(void *arg)
{
	named("reader");
	pthread_mutex_lock(&locks[0]);
	pthread_barrier_wait(&all_hold);
	pthread_rwlock_rdlock(&book);
	return arg;
}

static void a_reader_and_a_writer(void)
{
	pthread_barrier_init(&all_hold, NULL, 2);
	spawn(writes_then_locks, NULL);
	spawn(locks_then_reads, NULL);
	busy_with_others();
}

void *writes_both(void *arg)
{
	pthread_rwlock_wrlock(arg ? &book : &other_book);
	pthread_barrier_wait(&all_hold);
	pthread_rwlock_wrlock(arg ? &other_book : &book);
	return arg;
}

static void two_writers(void)
{
	pthread_barrier_init(&all_hold, NULL, 2);
	spawn(writes_both, NULL);
	spawn(writes_both, &book);
	busy_with_others();
}

void *waits_its_turn(void *arg)
{
	pthread_mutex_lock(&locks[0]);
	pthread_mutex_unlock(&locks[0]);
	return arg;
}

void *locks_its_own(void *arg)
{
	pthread_mutex_lock(&locks[0]);
	pthread_mutex_lock(&locks[0]);
	return arg;
}

/* The mutex is known as one that its owner unlocks. */
static void its_own(void)
{
	pthread_mutex_lock(&locks[0]);
	pthread_t t = spawn(waits_its_turn, NULL);
	sleep_ms(50);
	pthread_mutex_unlock(&locks[0]);
	join(t);
	spawn(locks_its_own, NULL);
	busy_with_others();
}

static pthread_cond_t rung = PTHREAD_COND_INITIALIZER;
static volatile int waits;

void *relocks_after_a_wait(void *arg)
{
	pthread_mutex_lock(&locks[1]);
	pthread_mutex_lock(&locks[0]);
	waits = 1;
	pthread_cond_wait(&rung, &locks[0]);
	return arg;
}

void *rings_and_locks(void *arg)
{
	do {
		sleep_ms(1);
		pthread_mutex_lock(&locks[0]);
		if (waits)
			break;
		pthread_mutex_unlock(&locks[0]);
	} while (1);
	pthread_cond_signal(&rung);
	pthread_mutex_lock(&locks[1]);
	return arg;
}

static void after_a_condition(void)
{
	spawn(relocks_after_a_wait, NULL);
	spawn(rings_and_locks, NULL);
	busy_with_others();
}

static mtx_t c11[2];

int locks_c11(void *arg)
{
	mtx_lock(&c11[arg != NULL]);
	pthread_barrier_wait(&all_hold);
	mtx_lock(&c11[arg == NULL]);
	return 0;
}

static void of_c11(void)
{
	thrd_t t;

	pthread_barrier_init(&all_hold, NULL, 2);
	mtx_init(&c11[0], mtx_plain);
	mtx_init(&c11[1], mtx_plain);
	thrd_create(&t, locks_c11, NULL);
	thrd_create(&t, locks_c11, c11);
	busy_with_others();
}

/* Signals interrupt the waits, others come to wait as well: still one deadlock. */
static void disturbed(void)
{
	pthread_t t[2];

	ring = 2;
	signal(SIGUSR1, on_signal);
	pthread_barrier_init(&all_hold, NULL, 2);
	for (int i = 0; i < 2; i++)
		t[i] = spawn(takes_the_next, (void *)(intptr_t)i);
	for (int i = 0;; i++) {
		sleep_ms(10);
		pthread_kill(t[i % 2], SIGUSR1);
		if (i < 20)
			spawn(waits_its_turn, NULL);
	}
}

/* In a program that hands mutexes on, those that check their owner still tell. */
static void of_checking_mutexes(void)
{
	pthread_mutexattr_t a;

	pthread_mutex_lock(&locks[2]);
	spawn(locks_its_own, NULL);
	sleep_ms(50);
	pthread_mutex_unlock(&locks[0]); /* that thread's */
	sleep_ms(50);
	pthread_mutexattr_init(&a);
	for (int i = 0; i < 2; i++) {
		pthread_mutexattr_settype(&a,
					  i ? PTHREAD_MUTEX_RECURSIVE : PTHREAD_MUTEX_ERRORCHECK);
		pthread_mutex_init(&locks[i], &a);
	}
	in_a_ring(2);
}

/* --- where all sleep ------------------------------------------------------------------------- */

static sem_t never;

void *waits_for_nobody(void *arg)
{
	named("forlorn");
	sem_wait(&never);
	return arg;
}

static void on_fault(int sig)
{
	_exit(sig);
}

/* A handler of what only the process's own instructions cause wakes nobody. */
static void a_semaphore(void)
{
	signal(SIGSEGV, on_fault);
	join(spawn(waits_for_nobody, NULL));
}

void *waits_for_a_signal(void *arg)
{
	pthread_mutex_lock(&locks[0]);
	for (;;)
		pthread_cond_wait(&rung, &locks[0]);
	return arg;
}

static void a_condition(void)
{
	join(spawn(waits_for_a_signal, NULL));
}

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void takes_for_ever(void)
{
	waits_for_nobody(NULL);
}

void *waits_for_once(void *arg)
{
	pthread_once(&once, takes_for_ever);
	return arg;
}

void *meets_nobody(void *arg)
{
	pthread_barrier_wait(&all_hold);
	return arg;
}

void *upgrades(void *arg)
{
	pthread_rwlock_rdlock(&book);
	pthread_rwlock_wrlock(&book);
	return arg;
}

static void all_kinds(void)
{
	pthread_barrier_init(&all_hold, NULL, 2);
	spawn(waits_for_once, NULL);
	spawn(waits_for_once, NULL);
	spawn(meets_nobody, NULL);
	spawn(upgrades, NULL);
	pthread_mutex_lock(&locks[0]);
	pthread_mutex_lock(&locks[0]);
}

static void main_has_ended(void)
{
	spawn(waits_for_nobody, NULL);
	pthread_exit(NULL);
}

/* Main has a kernel thread of its own, and what it had started is over. */
static void of_a_wired_main(void)
{
	cpu_set_t one;

	sched_getaffinity(0, sizeof one, &one);
	pthread_t t = spawn(waits_for_nobody, NULL);
	pthread_setaffinity_np(pthread_self(), sizeof one, &one);
	sleep_ms(50);
	join(t);
}

static void in_a_fork_child(void)
{
	pthread_t t = spawn(waits_for_nobody, NULL);

	if (fork() != 0)
		for (;;)
			sleep_ms(1000);
	(void)t;
	a_condition();
}

/* --- the reader --------------------------------------------------------------------------------- */

static const struct hang {
	const char *name;
	void (*hang)(void);
	const char *lines[16]; /* regular expressions, in this order */
} hangs[] = {
/* A goroutine's stack: what it waits for, and who called that. */
#define STACK(name, why, call, by) \
	"^goroutine [0-9]+ \"" name "\" \\[" why "[^]]*\\]:$", "^" call "\\(", "^" by "\\("
#define LOCK "sync\\.Mutex\\.Lock"
#define GOROUTINE(name) "goroutine [0-9]+ \\(" name "\\)"
#define WAITS(one, kind, other)                                                                    \
	"^goshim: " GOROUTINE(one) " waits for " kind                                              \
				   " 0x[0-9a-f]+ \\(locks(\\+0x[0-9a-f]+)?\\) held by " GOROUTINE( \
				       other) "$"
    {"two",
     two,
     {"^goshim: deadlock: 2 goroutines wait for each other's locks$",
      WAITS("ring-[01]", "mutex", "ring-[01]"), WAITS("ring-[01]", "mutex", "ring-[01]"),
      STACK("ring-[01]", LOCK, "pthread_mutex_lock", "takes_the_next"),
      STACK("ring-[01]", LOCK, "pthread_mutex_lock", "takes_the_next")}},
    {"three",
     three,
     {"^goshim: deadlock: 3 goroutines wait for each other's locks$",
      WAITS("ring-[012]", "mutex", "ring-[012]"), WAITS("ring-[012]", "mutex", "ring-[012]"),
      WAITS("ring-[012]", "mutex", "ring-[012]"),
      STACK("ring-[012]", LOCK, "pthread_mutex_lock", "takes_the_next"),
      STACK("ring-[012]", LOCK, "pthread_mutex_lock", "takes_the_next"),
      STACK("ring-[012]", LOCK, "pthread_mutex_lock", "takes_the_next")}},
    {"forty",
     forty,
     {"^goshim: deadlock: 40 goroutines wait for each other's locks$", "^goshim: and 8 more$",
      "^takes_the_next\\("}},
    {"a_reader_and_a_writer",
     a_reader_and_a_writer,
     {"^goshim: deadlock: 2 goroutines", " (mutex|rwlock) 0x", " (mutex|rwlock) 0x",
      "^(pthread_mutex_lock|pthread_rwlock_rdlock)\\(", "^(writes_then_locks|locks_then_reads)\\(",
      "^(pthread_mutex_lock|pthread_rwlock_rdlock)\\(",
      "^(writes_then_locks|locks_then_reads)\\("}},
    {"two_writers",
     two_writers,
     {"^goshim: deadlock: 2 goroutines", " rwlock 0x[0-9a-f]+ \\((other_)?book\\) held by ",
      " rwlock 0x[0-9a-f]+ \\((other_)?book\\) held by ", "^pthread_rwlock_wrlock\\(",
      "^writes_both\\(", "^pthread_rwlock_wrlock\\(", "^writes_both\\("}},
    {"its_own",
     its_own,
     {"^goshim: deadlock: a goroutine waits for a lock of its own$", "^pthread_mutex_lock\\(",
      "^locks_its_own\\("}},
    {"after_a_condition",
     after_a_condition,
     {"^goshim: deadlock: 2 goroutines", "^(pthread_cond_wait|pthread_mutex_lock)\\("}},
    {"of_c11", of_c11, {"^goshim: deadlock: 2 goroutines", "^locks_c11\\(", "^locks_c11\\("}},
    {"disturbed",
     disturbed,
     {"^goshim: deadlock: 2 goroutines", "^takes_the_next\\(", "^takes_the_next\\("}},
    {"of_checking_mutexes",
     of_checking_mutexes,
     {"^goshim: deadlock: 2 goroutines", "^takes_the_next\\(", "^takes_the_next\\("}},
#define ASLEEP "^fatal error: all goroutines are asleep - deadlock!$"
    {"a_semaphore",
     a_semaphore,
     {ASLEEP, "^goroutine 1 \\[join\\]:$", "^pthread_join\\(",
      STACK("forlorn", "semacquire", "sem_wait", "waits_for_nobody")}},
    {"a_condition",
     a_condition,
     {ASLEEP, "\\[sync\\.Cond\\.Wait\\]:$", "^pthread_cond_wait\\(", "^waits_for_a_signal\\("}},
    {"all_kinds",
     all_kinds,
     {ASLEEP, "\\[sync\\.Mutex\\.Lock\\]:$", "\\[(semacquire|once)\\]:$", "^waits_for_once\\(",
      "\\[(semacquire|once)\\]:$", "^waits_for_once\\(", "\\[barrier\\]:$", "^meets_nobody\\(",
      "\\[sync\\.RWMutex\\.Lock\\]:$", "^upgrades\\("}},
    {"main_has_ended", main_has_ended, {ASLEEP, "^waits_for_nobody\\("}},
    {"of_a_wired_main", of_a_wired_main, {ASLEEP, "^pthread_join\\(", "^waits_for_nobody\\("}},
    {"in_a_fork_child", in_a_fork_child, {ASLEEP, "^pthread_join\\(", "^waits_for_a_signal\\("}},
};

static char text[1 << 20];

/* One after another from `at` on; -1: not (yet). */
static int matches(const struct hang *h)
{
	const char *at = text;

	for (size_t i = 0; i < COUNT(h->lines) && h->lines[i]; i++) {
		regex_t re;
		regmatch_t m;

		REQUIRE(regcomp(&re, h->lines[i], REG_EXTENDED | REG_NEWLINE) == 0);
		int r = regexec(&re, at, 1, &m, 0);
		regfree(&re);
		if (r != 0)
			return 0;
		at += m.rm_eo;
	}
	return 1;
}

/* What it has said was not that. */
static void wrong(const char *name)
{
	FAIL("%s says:", name);
	if (write(1, text, strlen(text)) < 0)
		FAIL("%s: its text can't be written", name);
}

static int count(const char *what)
{
	int n = 0;

	for (const char *p = text; (p = strstr(p, what)); p++)
		n++;
	return n;
}

typedef struct Process {
	pid_t pid;
	int fd;
	size_t n;
} Process;

static Process start(const struct hang *h, const char *setting)
{
	int fds[2];
	char goshim[100];

	REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
	pid_t pid = fork();
	REQUIRE(pid >= 0);
	if (pid == 0) {
		struct rlimit none = {0, 0};

		setpgid(0, 0);
		setrlimit(RLIMIT_CORE, &none);
		dup2(fds[1], 2);
		snprintf(goshim, sizeof goshim, "%s,%s", getenv("GOSHIM") ? getenv("GOSHIM") : "",
			 setting);
		setenv("GOSHIM", goshim, 1);
		execl("/proc/self/exe", "deadlock_reports", "hang", h->name, NULL);
		_exit(127);
	}
	setpgid(pid, pid);
	close(fds[1]);
	return (Process){pid, fds[0], 0};
}

/* Reads on for ms at most; false: it has ended. */
static int reads(Process *p, int ms)
{
	struct pollfd in = {p->fd, POLLIN, 0};

	if (poll(&in, 1, ms) <= 0)
		return 1;
	ssize_t n = read(p->fd, text + p->n, sizeof text - 1 - p->n);
	if (n > 0)
		p->n += n;
	text[p->n] = '\0';
	return n > 0;
}

static int ends(Process *p)
{
	int status;

	killpg(p->pid, SIGKILL);
	close(p->fd);
	REQUIRE(waitpid(p->pid, &status, 0) == p->pid);
	return status;
}

static void reads_for(Process *p, int ms)
{
	int64_t end = now_ms() + ms;

	while (now_ms() < end && reads(p, end - now_ms()))
		;
}

static void told(const struct hang *h)
{
	Process p = start(h, "deadlock=report");

	text[0] = '\0';
	if (!under_shim()) {
		/* It hangs natively, and nobody says why. */
		reads_for(&p, 300);
		int status = ends(&p);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		if (text[0])
			wrong(h->name);
		return;
	}
	while (!matches(h) && reads(&p, 60000))
		;
	/* Nothing more is said for a while. */
	reads_for(&p, 300);
	int status = ends(&p);
	if (!(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
		FAIL("%s: has ended by itself: %d", h->name, status);
	if (!matches(h) || count("deadlock: ") + count("- deadlock!") != 1)
		wrong(h->name);
}

static const struct hang *hang(const char *name)
{
	for (size_t i = 0; i < COUNT(hangs); i++)
		if (strcmp(hangs[i].name, name) == 0)
			return &hangs[i];
	return NULL;
}

static void cycles(void)
{
	for (size_t i = 0; hangs + i != hang("a_semaphore"); i++)
		told(&hangs[i]);
}

static void sleepers(void)
{
	for (size_t i = hang("a_semaphore") - hangs; i < COUNT(hangs); i++)
		told(&hangs[i]);
}

static void aborted(const char *name)
{
	Process p = start(hang(name), "deadlock=abort");
	int status;

	text[0] = '\0';
	while (reads(&p, 60000))
		;
	REQUIRE(waitpid(p.pid, &status, 0) == p.pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	if (!matches(hang(name)))
		wrong(name);
	close(p.fd);
}

static void aborts(void)
{
	if (!under_shim())
		SKIP_CASE("no library to abort");
	aborted("two");
	aborted("a_semaphore");
}

/* Whoever has read what the program says is gone: it hangs on nevertheless. */
static void unread(void)
{
	static const char *const names[] = {"two", "a_semaphore"};

	for (size_t i = 0; i < COUNT(names); i++) {
		Process p = start(hang(names[i]), "deadlock=report");

		close(p.fd);
		p.fd = open("/dev/null", O_RDONLY);
		sleep_ms(500);
		int status = ends(&p);
		if (!(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
			FAIL("%s: has ended by itself: %d", names[i], status);
	}
}

static void off(void)
{
	static const char *const names[] = {"two", "a_semaphore"};

	for (size_t i = 0; i < COUNT(names); i++) {
		Process p = start(hang(names[i]), "deadlock=off");

		text[0] = '\0';
		reads_for(&p, 500);
		ends(&p);
		if (text[0])
			wrong(names[i]);
	}
}

static const struct test_case cases[] = {
    {"cycles", cycles}, {"sleepers", sleepers}, {"aborts", aborts},
    {"unread", unread}, {"off", off},
};

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "hang") == 0) {
		sem_init(&never, 0, 0);
		for (int i = 0; i < RING; i++)
			pthread_mutex_init(&locks[i], NULL);
		hang(argv[2])->hang();
		return 0;
	}
	return test_run(argc, argv, cases, COUNT(cases));
}
