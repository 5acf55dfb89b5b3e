/* Registers handlers of fork when it is loaded; libc drops them with dlclose. */
#include <pthread.h>

void fork_note(const char *what);

static void prepare(void)
{
	fork_note("pM");
}

static void parent(void)
{
	fork_note("aM");
}

static void child(void)
{
	fork_note("cM");
}

__attribute__((constructor)) static void loaded(void)
{
	pthread_atfork(prepare, parent, child);
}
