/*
 * close.h - the end of descriptors, for raw system calls.
 */
#ifndef GOSHIM_CLOSE_H
#define GOSHIM_CLOSE_H

/* close(2), and who waits for fd is told. 0 or -errno. */
long closefd(int fd);
/* After a dup2(by, to): `to`, or what it failed with. */
int replaced(int to, int by);

#endif
