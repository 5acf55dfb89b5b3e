/*
 * A thread that the program has not asked pthread_create for: made by libc's own function, which a
 * library finds that looks it up behind a preloaded one, as jemalloc does.
 */
#ifndef FOREIGN_H
#define FOREIGN_H

#include "test.h"

#include <dlfcn.h>

static inline pthread_t spawn_really(void *(*fn)(void *), void *arg)
{
	void *libc = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
	int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
	pthread_t t;

	REQUIRE(libc);
	create = (__typeof__(create))(uintptr_t)dlsym(libc, "pthread_create");
	REQUIRE(create);
	REQUIRE_OK(create(&t, NULL, fn, arg));
	dlclose(libc);
	return t;
}

#endif
