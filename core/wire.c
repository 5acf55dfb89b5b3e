/*
 * wire.c - a goroutine wires another one to a kernel thread.
 *
 * A goroutine wires itself where it is. Another can be anywhere; so the world is
 * stopped. Then it has no M, and gets a new one that has run nothing yet; or it is in
 * the kernel, or computes without a P, and keeps the M that it has. On its way
 * out of there (exitsyscall0) it does not stop with the world: sched.lock keeps that apart.
 */
#include "runtime.h"

#include <errno.h>

/* The M that gp is wired to now; spare is one for it, *used says whether it took it. NULL: gp is no more. */
static M *wireto_locked(G *gp, void *hostg, M *spare, bool *used)
{
	uint32_t s = readgstatus(gp);
	if (gp->host != hostg || s == Gdead || s == Gidle)
		return NULL;
	M *mp = gp->lockedm;
	if (!mp) {
		*used = s == Grunnable || s == Gwaiting;
		mp = *used ? spare : gp->m;
		gp->lockedm = mp;
		mp->lockedg = gp;
	}
	if (!gp->mends)
		gp->lockedcount++;
	gp->mends = true;
	return mp;
}

int lockOSThreadOther(G *gp, void *hostg, void (*wired)(void *arg, int tid), void *arg)
{
	M *spare = newmwired(), *mp;
	bool used = false;
	if (!spare)
		return -EAGAIN;
	stopTheWorld();
	lock(&sched.lock);
	mp = wireto_locked(gp, hostg, spare, &used);
	if (mp)
		wired(arg, atomic_load(&mp->tid));
	unlock(&sched.lock);
	startTheWorld();
	if (!used)
		notewakeup(&spare->park); /* without a P: it ends */
	sparem();
	return mp ? 0 : -ESRCH;
}
