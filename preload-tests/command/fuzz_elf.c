/*
 * Damaged programs and loaders, built with the sanitizers: none may lead goshim_elf.c beyond what it has read.
 *
 *     fuzz_elf PROGRAM DIRECTORY [ROUNDS]
 *
 * The program is copied to the directory, cut off and changed in places that mean something; once as the program itself,
 * once as the dynamic linker of another. Says how many were taken and refused.
 */
#define _GNU_SOURCE
#include "../../tools/goshim.h"

#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t seed = 88172645463325252u;
static unsigned taken, refused;

static uint64_t next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

noreturn void fail(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	exit(1);
}

static void put(const char *path, const void *data, size_t n)
{
	unlink(path); /* a file that is cut and written again is written to the disk at once */
	FILE *f = fopen(path, "w");
	if (!f || fwrite(data, 1, n, f) != n || fclose(f) || chmod(path, 0755))
		fail("%s: %m\n", path);
}

static void look(const char *path)
{
	Refusal r = {.status = -1};
	if (takeslibrary(path, &r)) {
		taken++;
		return;
	}
	if ((r.status != CANTRUN && r.status != NOTFOUND) || !*r.why || strchr(r.why, '\n'))
		fail("%s: status %d, '%s'\n", path, r.status, r.why);
	refused++;
}

/* A number that hits limits. */
static uint64_t value(size_t size)
{
	static const uint64_t edges[] = {0,          1,
					 7,          0x7fffffff,
					 0x80000000, 0xffffffff,
					 INT64_MAX,  (uint64_t)INT64_MAX + 1,
					 UINT64_MAX, UINT64_MAX - 15};
	switch (next() % 3) {
	case 0: return edges[next() % (sizeof edges / sizeof edges[0])];
	case 1: return size + next() % 64 - 32;
	default: return next() % (size + 1);
	}
}

static void change(unsigned char *p, size_t size)
{
	Elf64_Ehdr *h = (Elf64_Ehdr *)p;
	Elf64_Phdr *ph = (Elf64_Phdr *)(p + sizeof *h);
	uint64_t v = value(size);
	size_t at, width = (size_t)1 << next() % 4;
	switch (next() % 5) {
	case 0: at = next() % sizeof *h; break;
	case 1: at = sizeof *h + next() % (h->e_phnum * sizeof *ph + 1); break;
	case 2: /* the dynamic section */
		at = next() % size;
		for (int i = 0; i < 16; i++)
			if (ph[i].p_type == PT_DYNAMIC && ph[i].p_offset < size - 1024)
				at = ph[i].p_offset + next() % 1024;
		break;
	case 3: at = next() % 1024; break;
	default: at = next() % size;
	}
	if (at + width <= size)
		memcpy(p + at, &v, width);
}

int main(int argc, char **argv)
{
	char path[4096], user[4096];
	static unsigned char whole[1 << 18], copy[1 << 18];
	if (argc < 3)
		return 2;
	int rounds = argc > 3 ? atoi(argv[3]) : 5000;
	FILE *f = fopen(argv[1], "r");
	size_t size = f ? fread(whole, 1, sizeof whole, f) : 0;
	if (size < 4096)
		fail("%s: can't be read\n", argv[1]);
	fclose(f);
	snprintf(path, sizeof path, "%s/damaged", argv[2]);
	snprintf(user, sizeof user, "%s/user", argv[2]);

	for (size_t n = 0; n < size; n += n < 1200 ? 1 : 97) {
		put(path, whole, n);
		look(path);
	}
	for (int i = 0; i < rounds; i++) {
		memcpy(copy, whole, size);
		for (uint64_t k = next() % 4 + 1; k; k--)
			change(copy, size);
		put(path, copy, next() % 8 ? size : next() % size);
		look(path);
	}
	/* The same as the loader of a program that is whole but for the loader's name. */
	Elf64_Ehdr *h = (Elf64_Ehdr *)whole;
	Elf64_Phdr *ph = (Elf64_Phdr *)(whole + h->e_phoff);
	memcpy(copy, whole, size);
	for (int i = 0; i < h->e_phnum; i++)
		if (ph[i].p_type == PT_INTERP) {
			Elf64_Phdr *mine = (Elf64_Phdr *)(copy + h->e_phoff) + i;
			mine->p_offset = size;
			mine->p_filesz = strlen(path) + 1;
		}
	strcpy((char *)copy + size, path);
	put(user, copy, size + strlen(path) + 1);
	for (int i = 0; i < rounds; i++) {
		memcpy(copy, whole, size);
		for (uint64_t k = next() % 4 + 1; k; k--)
			change(copy, size);
		put(path, copy, next() % 8 ? size : next() % size);
		look(user);
	}
	/* Any text behind #!, and any bytes at all. */
	for (int i = 0; i < rounds; i++) {
		size_t n = next() % 600;
		for (size_t k = 0; k < n; k++)
			copy[k] = i % 2 ? (unsigned char)next()
					: (unsigned char)" \t/a.\n\0#!"[next() % 9];
		memcpy(copy, i % 4 < 2 ? "#!" : ELFMAG, i % 4 < 2 ? 2 : SELFMAG);
		put(path, copy, n + 4);
		look(path);
	}
	printf("taken=%u refused=%u\n", taken, refused);
	return 0;
}
