/*
 * Takes the place of a libpthread.so.0 of before glibc 2.34 while thread_old_link.c is linked: the program asks for these
 * functions of that library then, under the versions that they had there.
 */
#define NAMED(name)      \
	void name(void); \
	void name(void)  \
	{                \
	}

NAMED(pthread_create)
NAMED(pthread_join)
NAMED(pthread_cond_wait)
NAMED(pthread_cond_broadcast)
NAMED(sem_post)
NAMED(sem_wait)
