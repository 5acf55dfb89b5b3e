/*
 * wire.c - goroutines that are wired to kernel threads.
 *
 * A goroutine wires itself where it is. Another can be anywhere; so the world is
 * stopped. Then it has no M, and gets a new one that has run nothing yet; or it is in
 * the kernel, or computes without a P, and keeps the M that it has. On its way
 * out of there (exitsyscall0) it does not stop with the world: sched.lock keeps that apart.
 */
#include "runtime.h"

#include <errno.h>

/* The M of this g0 is wired to a G: sleeps until that G is handed to it.
 * Returns with acquired P. */
void stoplockedm(void) UNCHECKED_ROLES
{
	M *mp = getg()->m;
	if (!mp->lockedg || mp->lockedg->lockedm != mp)
		throw("stoplockedm: inconsistent locking");
	if (getp(mp))
		handoffp(releasep(mp));
	lastidle();
	notesleep(&mp->park);
	noteclear(&mp->park);
	if (readgstatus(mp->lockedg) != Grunnable)
		throw("stoplockedm: not runnable");
	P *pp = mp->nextp;
	mp->nextp = NULL;
	acquirep(mp, pp);
}

/* Hands gp, wired to another M, to that M together with our P. Returns with
 * another P, when there is work again. */
void startlockedm(G *gp) UNCHECKED_ROLES
{
	M *mp = getg()->m, *target = gp->lockedm;
	if (target == mp)
		throw("startlockedm: locked to me");
	if (target->nextp)
		throw("startlockedm: m has p");
	target->nextp = releasep(mp);
	notewakeup(&target->park);
	stopm();
}

void lockOSThread(void)
{
	G *gp = getg();
	if (!gp)
		return;
	M *mp = acquirem();
	gp->lockedm = mp;
	mp->lockedg = gp;
	gp->lockedcount++;
	releasem(mp);
}

void lockOSThreadForever(void)
{
	G *gp = getg();
	if (!gp || gp->mends)
		return;
	lockOSThread();
	gp->mends = true;
	sparem();
}

void unlockOSThreadForever(void)
{
	G *gp = getg();
	if (!gp || !gp->mends)
		return;
	gp->mends = false;
	unlockOSThread();
}

void endOSThread(void)
{
	G *gp = getg();
	lockOSThreadForever();
	if (gp)
		gp->mendsmain = true;
}

void unlockOSThread(void)
{
	G *gp = getg();
	if (!gp)
		return;
	M *mp = acquirem();
	if (gp->lockedcount == 0 || gp->lockedm != mp)
		throw("unlockOSThread: not locked");
	if (--gp->lockedcount == 0) {
		gp->lockedm = NULL;
		mp->lockedg = NULL;
	}
	releasem(mp);
}

/* --- by another -------------------------------------------------------------------- */

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
