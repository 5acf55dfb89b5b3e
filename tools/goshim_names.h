/*
 * goshim_names.h - names for addresses in another process's programs and libraries, from the symbols of their files.
 */
#ifndef GOSHIM_NAMES_H
#define GOSHIM_NAMES_H

#include "../core/profile.h"

#include <stdbool.h>
#include <stddef.h>

/* What is loaded somewhere in the process, told of by r. Of the same place the last one holds. */
void namesadd(int pid, const ProfileObjectRecord *r);

typedef struct Name {
	char text[200];   /* function or object; "": not known. Long ones are cut */
	char file[64];    /* the last part of its path; "": it is in none */
	uint64_t address; /* in that file */
	uint64_t offset;  /* in what has the name */
	bool own;         /* in goshim's library */
} Name;

/* data: an object of the program's, else code. */
void nameof(uint64_t address, bool data, Name *name);

#endif
