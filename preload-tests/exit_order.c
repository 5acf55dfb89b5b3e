/*
 * What runs at the end of a thread and of the process, and in which order: cleanup handlers, destructors of
 * thread_local variables, of keys and of tss_create, handlers of atexit and at_quick_exit, destructors of the
 * program. In nine ways to end, by threads, by main in four situations, and in fork children.
 *
 * The odd ones are glibc's: main that ends by pthread_exit runs no destructors of thread_local variables, unless
 * exit() does, after the keys'; and a thread that ends by the system call is never the last one.
 */
#include "test.h"

#include <sys/mman.h>
#include <threads.h>

int __cxa_thread_atexit_impl(void (*fn)(void *), void *arg, void *dso);
extern void *__dso_handle;

/* Shared with the children. */
static struct {
	volatile int n;
	char letters[100];
} * trace;
static int traced;
static pthread_key_t first, second;
static tss_t third;

static void note(char letter)
{
	int n = __atomic_fetch_add(&trace->n, 1, __ATOMIC_RELAXED);

	if (n < (int)sizeof trace->letters - 1)
		trace->letters[n] = letter;
}

static void cleanup(void *arg)
{
	(void)arg;
	note('c');
}

/* A capital: the other key still has its value. */
static void of_first(void *value)
{
	(void)value;
	note(pthread_getspecific(second) ? 'K' : 'k');
}

static void of_second(void *value)
{
	(void)value;
	note(pthread_getspecific(first) ? 'L' : 'l');
}

static void of_third(void *value)
{
	(void)value;
	note('s');
}

static void of_variable(void *variable)
{
	(void)variable;
	note(pthread_getspecific(first) ? 't' : 'T');
}

static void of_next_variable(void *variable)
{
	(void)variable;
	note('u');
}

static void handler_one(void)
{
	note('a');
}

static void handler_two(void)
{
	note('b');
}

__attribute__((destructor)) static void at_the_end(void)
{
	if (traced)
		note('F');
}

enum how {
	RETURN,
	PTHREAD_EXIT,
	THRD_EXIT,
	CANCEL,
	CANCEL_ASYNC,
	EXIT,
	QUICK_EXIT,
	EXIT_NOW,
	SYS,
	HOWS
};
static const char *const hows[] = {"return",           "pthread_exit",
				   "thrd_exit",        "pthread_cancel",
				   "... asynchronous", "exit",
				   "quick_exit",       "_exit",
				   "SYS_exit"};

static void *end(void *how)
{
	pthread_setspecific(first, &first);
	pthread_setspecific(second, &second);
	tss_set(third, &third);
	__cxa_thread_atexit_impl(of_variable, NULL, &__dso_handle);
	__cxa_thread_atexit_impl(of_next_variable, NULL, &__dso_handle);
	pthread_cleanup_push(cleanup, NULL);
	switch ((enum how)(intptr_t)how) {
	case PTHREAD_EXIT: pthread_exit((void *)7);
	case THRD_EXIT: thrd_exit(7);
	case CANCEL:
		pthread_cancel(pthread_self());
		for (;;)
			pause();
	case CANCEL_ASYNC:
		pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
		pthread_cancel(pthread_self());
		for (;;)
			;
	case EXIT: exit(5);
	case QUICK_EXIT: quick_exit(6);
	case EXIT_NOW: _exit(8);
	case SYS: syscall(SYS_exit, 0);
	case RETURN:
	case HOWS: break;
	}
	pthread_cleanup_pop(0);
	return (void *)7;
}

static void *returns(void *arg)
{
	return arg;
}

static enum how how;

static int by_a_thread(void)
{
	void *result = join(spawn(end, (void *)how));

	note(result == PTHREAD_CANCELED ? 'C' : (char)('0' + (intptr_t)result));
	return 1;
}

static int by_the_last_thread(void)
{
	pthread_attr_t attr;
	pthread_t t;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	REQUIRE_OK(pthread_create(&t, &attr, end, (void *)how));
	pthread_exit(NULL);
}

static int by_main_before_threads(void)
{
	end((void *)how);
	return 3;
}

static int by_main_after_threads(void)
{
	join(spawn(returns, NULL));
	end((void *)how);
	return 3;
}

static pthread_t main_thread;

static void *joins_main(void *arg)
{
	void *result = NULL;

	(void)arg;
	CHECK_EQ(pthread_join(main_thread, &result), 0);
	note(result == PTHREAD_CANCELED ? 'C' : (char)('0' + (intptr_t)result));
	return NULL;
}

static int by_main_before_a_thread(void)
{
	main_thread = pthread_self();
	spawn(joins_main, NULL);
	sleep_ms(2);
	end((void *)how);
	return 3;
}

/* The parent's end leaves no letters. */
static int ends_as(pid_t child)
{
	int status = 0;

	CHECK_EQ(waitpid(child, &status, 0), child);
	note('P');
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 99);
}

static void *forks(void *arg)
{
	pid_t pid = fork();

	if (pid == 0)
		return end(arg);
	ends_as(pid);
	return NULL;
}

static int by_a_thread_in_a_child(void)
{
	join(spawn(forks, (void *)how));
	return 9;
}

static int by_main_in_a_child(void)
{
	join(spawn(returns, NULL));
	pid_t pid = fork();
	if (pid == 0) {
		end((void *)how);
		return 9;
	}
	return ends_as(pid);
}

static const struct place {
	int (*run)(void);
	const char *name;
	struct {
		const char *letters;
		int status;
	} want[HOWS];
} places[] = {
    {by_a_thread,
     "by a thread",
     {{"utKls7baF", 1},
      {"cutKls7baF", 1},
      {"cutKls7baF", 1},
      {"cutKlsCbaF", 1},
      {"cutKlsCbaF", 1},
      {"utbaF", 5},
      {"a", 6},
      {"", 8},
      {"0baF", 1}}},
    {by_the_last_thread,
     "by the last thread",
     {{"utKlsbaF", 0},
      {"cutKlsbaF", 0},
      {"cutKlsbaF", 0},
      {"cutKlsbaF", 0},
      {"cutKlsbaF", 0},
      {"utbaF", 5},
      {"a", 6},
      {"", 8},
      {"", 0}}},
    {by_main_before_threads,
     "by main before there are threads",
     {{"utbaF", 3},
      {"cKlsuTbaF", 0},
      {"cKlsuTbaF", 0},
      {"cKlsuTbaF", 0},
      {"cKlsuTbaF", 0},
      {"utbaF", 5},
      {"a", 6},
      {"", 8},
      {"", 0}}},
    {by_main_after_threads,
     "by main after all threads",
     {{"utbaF", 3},
      {"cKlsuTbaF", 0},
      {"cKlsuTbaF", 0},
      {"cKlsuTbaF", 0},
      {"cKlsuTbaF", 0},
      {"utbaF", 5},
      {"a", 6},
      {"", 8},
      {"", 0}}},
    {by_main_before_a_thread,
     "by main before a thread",
     {{"utbaF", 3},
      {"cKls7baF", 0},
      {"cKls7baF", 0},
      {"cKlsCbaF", 0},
      {"cKlsCbaF", 0},
      {"utbaF", 5},
      {"a", 6},
      {"", 8},
      {"0", 0}}},
    {by_a_thread_in_a_child,
     "by a thread in a fork child",
     {{"utKlsbaFP", 0},
      {"cutKlsbaFP", 0},
      {"cutKlsbaFP", 0},
      {"cutKlsbaFP", 0},
      {"cutKlsbaFP", 0},
      {"utbaFP", 5},
      {"aP", 6},
      {"P", 8},
      {"P", 0}}},
    {by_main_in_a_child,
     "by main in a fork child",
     {{"utbaFP", 9},
      {"cKlsuTbaFP", 0},
      {"cKlsuTbaFP", 0},
      {"cKlsuTbaFP", 0},
      {"cKlsuTbaFP", 0},
      {"utbaFP", 5},
      {"aP", 6},
      {"P", 8},
      {"P", 0}}},
};

static const struct place *place;

static int prepared(void)
{
	traced = 1;
	atexit(handler_one);
	atexit(handler_two);
	at_quick_exit(handler_one);
	REQUIRE_OK(pthread_key_create(&first, of_first));
	REQUIRE_OK(pthread_key_create(&second, of_second));
	REQUIRE(tss_create(&third, of_third) == thrd_success);
	return place->run();
}

static void each_place_and_way(void)
{
	trace =
	    mmap(NULL, sizeof *trace, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(trace != MAP_FAILED);
	for (place = places; place < places + COUNT(places); place++) {
		for (how = RETURN; how < HOWS; how++) {
			memset(trace, 0, sizeof *trace);
			int status = in_child(prepared);
			if (strcmp(trace->letters, place->want[how].letters) != 0 ||
			    status != place->want[how].status << 8)
				FAIL("%s %s: \"%s\" and wait status %#x, not \"%s\" and %#x",
				     hows[how], place->name, trace->letters, status,
				     place->want[how].letters, place->want[how].status << 8);
		}
	}
}

static const struct test_case cases[] = {
    {"each_place_and_way", each_place_and_way},
};

TEST_MAIN(cases)
