/*
 * layout.c - the description of our records that debuggers read, under its exported name
 * (core/layout.h): what a thread is to the program, and the objects it waits for.
 */
#include "layout.h"

#include "sync.h"
#include "thread.h"

#define F(type, field) LAYOUT_FIELD(type, field, #field)

/* Not const: these are not to be in pages that a core file leaves out. */
static LayoutEntry entries[] = {
    F(Thread, state),
    F(Thread, tid),
    F(Thread, block),
    F(Thread, gp),
    F(Thread, start),
    F(Thread, name),
    F(Thread, ktid),
    F(Thread, joining),
    F(Thread, creator),
    F(Thread, creatorpc),
    F(Mutex, owner),
    F(Mutex, kind),
    F(Mutex, contended),
    LAYOUT_FIELD(pthread_rwlock_t, __data.__readers, "readers"),   /* who reads waits here, */
    LAYOUT_FIELD(pthread_rwlock_t, __data.__cur_writer, "writer"), /* who writes here */
    LAYOUT_FIELD(pthread_rwlock_t, __data.__writers, "contended"),
};

static LayoutAddress addresses[] = {
    {"mainthread", &mainthread},
};

shim_exported const Layout goshim_layout = {
    LAYOUT_MAGIC,     LAYOUT_VERSION, sizeof(Layout), nelem(entries),
    nelem(addresses), entries,        addresses,      &core_layout,
};
