/*
 * poison.h - included before every file of core/: names that a scheduler below
 * malloc and stdio must not use. Headers that declare them cannot be included either.
 */
#pragma GCC poison printf fprintf sprintf snprintf vprintf vfprintf vsnprintf puts fputs fwrite
#pragma GCC poison malloc calloc realloc free memalign posix_memalign aligned_alloc
#pragma GCC poison pthread_mutex_lock pthread_cond_wait pthread_create dlsym dlvsym
