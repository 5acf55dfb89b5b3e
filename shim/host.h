/* host.h - see sched.h. */
#ifndef GOSHIM_SHIM_HOST_H
#define GOSHIM_SHIM_HOST_H
#include "sched.h"
#endif
