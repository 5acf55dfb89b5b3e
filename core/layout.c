/*
 * layout.c - the scheduler's part of the description that debuggers read (layout.h).
 */
#include "layout.h"

#include "runtime.h"

#define F(type, field) LAYOUT_FIELD(type, field, #field)
#define C(name) LAYOUT_CONST(name)

/* Not const: these are not to be in pages that a core file leaves out. */
static LayoutEntry entries[] = {
    LAYOUT_FIELD(G, sched.sp, "sp"),
    F(G, tls),
    F(G, stacklo),
    F(G, stackhi),
    F(G, m),
    F(G, status),
    F(G, waitreason),
    F(G, since),
    F(G, waitobj),
    F(G, nameslot),
    F(G, goid),
    F(G, alllink),
    F(G, lockedm),
    F(G, host),
    F(M, g0),
    F(M, curg),
    F(M, p),
    F(M, locks),
    F(M, spinning),
    F(M, schedlink),
    F(M, taken),
    F(M, id),
    F(M, tid),
    F(M, lockedg),
    F(M, alllink),
    F(P, id),
    F(P, status),
    F(P, schedtick),
    F(P, syscalltick),
    F(P, m),
    F(P, runqhead),
    F(P, runqtail),
    F(P, runnext),
    F(P, ntimers),
    F(P, timer0when),
    F(Sched, started),
    F(Sched, runqsize),
    F(Sched, npidle),
    F(Sched, midle),
    F(Sched, nmidle),
    F(Sched, mcount),
    F(Sched, nmspinning),
    F(Sched, lastpoll),
    F(Sched, sysmonwait),
    F(Sched, sysmontid),
    F(Sched, pid),
    F(Sched, allg),
    F(Sched, allm),
    F(Sched, allp),
    F(Sched, gomaxprocs),
    F(Sched, nglive),
    F(Sched, goidgen),
    F(TickPoints, startns),
    F(TickPoints, startticks),
    F(TickPoints, lastns),
    F(TickPoints, lastticks),
    F(Handle, addr),
    F(Handle, contended),
    F(Handle, why),
    F(Handle, child),
    C(Gidle),
    C(Grunnable),
    C(Grunning),
    C(Gsyscall),
    C(Gwaiting),
    C(Gdead),
    C(Pidle),
    C(Prunning),
    C(Psyscall),
    C(Pgcstop),
    C(Pdead),
    C(WaitNone),
    C(WaitMutex),
    C(WaitCond),
    C(WaitRWMutexR),
    C(WaitRWMutexW),
    C(WaitSem),
    C(WaitBarrier),
    C(WaitOnce),
    C(WaitJoin),
    C(WaitFutex),
    C(WaitSleep),
    C(WaitIORead),
    C(WaitIOWrite),
    C(WaitIOPoll),
    C(WaitSignal),
    C(WaitThread),
    C(WaitKernel),
};

static LayoutAddress addresses[] = {
    {"sched", &sched},
    {"tickpoints", &tickpoints},  /* TickPoints: how G.since compares with CLOCK_MONOTONIC */
    {"waitreasons", waitreasons}, /* char[][24], by WaitReason */
    {"handles", &handles},        /* Handle *, of two children each */
};

const Layout core_layout = {
    LAYOUT_MAGIC,     LAYOUT_VERSION, sizeof(Layout), nelem(entries),
    nelem(addresses), entries,        addresses,      NULL,
};
