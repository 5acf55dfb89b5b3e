/*
 * cancel_cleanup.c as a compiler with -fexceptions sees it: each handler is a cleanup attribute's, which
 * the unwinder finds in tables.
 */
#ifndef __EXCEPTIONS
#error "to be compiled with -fexceptions"
#endif
#include "cancel_cleanup.c"
