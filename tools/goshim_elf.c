/*
 * Whether the library will be in the process that a file becomes: asked before, since afterwards nobody says so. A
 * static program ignores LD_PRELOAD without a word, musl's loader and glibc's secure mode do, too (docs/limits.md).
 *
 * The file is read as the kernel and the loader read it: through #! lines to the interpreter, by program headers,
 * never by section headers, which need not be there. It may hold anything and change meanwhile: every
 * offset is checked against the size, and all is copied by pread, since a mapping of a file that gets shorter kills.
 */
#define _GNU_SOURCE
#include "goshim.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

enum {
	SCRIPTLINE = 256,  /* what the kernel reads of a #! line */
	SCRIPTDEPTH = 5,   /* and how many of them it follows */
	MAXHEADERS = 1170, /* 64 KiB of program headers, the kernel's limit */
	BUILDINFO = 65536, /* where Go looks for its own mark */
};

typedef struct File {
	const char *path;
	int fd;
	uint64_t size;
	Elf64_Ehdr h;
	Elf64_Phdr ph[MAXHEADERS];
	int nph;
	/* Of the dynamic section, as offsets in the file; 0: none. */
	uint64_t strings, nstrings, soname, flags1;
} File;

static bool refuse(Refusal *r, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static bool refuse(Refusal *r, int status, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	r->status = status;
	vsnprintf(r->why, sizeof r->why, fmt, ap);
	va_end(ap);
	for (char *p = r->why; *p; p++) /* names come from the file */
		if ((unsigned char)*p < ' ' || *p == 127)
			*p = '?';
	return false;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* All n bytes at an offset, or false. */
static bool get(const File *f, uint64_t offset, void *buf, uint64_t n)
{
	char *p = buf;
	if (offset > f->size || n > f->size - offset)
		return false;
	while (n) {
		ssize_t r = pread(f->fd, p, n, (off_t)offset);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return false;
		p += r;
		offset += (uint64_t)r;
		n -= (uint64_t)r;
	}
	return true;
}

/* Does the part of the file hold the bytes? */
static bool contains(const File *f, uint64_t offset, uint64_t n, const void *what, size_t len)
{
	enum { CHUNK = 1 << 16 };
	char *buf = malloc(CHUNK);
	bool found = false;
	if (offset > f->size)
		n = 0;
	else if (n > f->size - offset)
		n = f->size - offset;
	while (buf && !found && n >= len) {
		uint64_t part = n < CHUNK ? n : CHUNK;
		if (!get(f, offset, buf, part))
			break;
		found = memmem(buf, part, what, len) != NULL;
		if (part == n)
			break;
		/* What begins in the last bytes may end in the next part. */
		offset += part - (len - 1);
		n -= part - (len - 1);
	}
	free(buf);
	return found;
}

static bool text(const File *f, uint64_t offset, char *buf, size_t size)
{
	uint64_t n = offset < f->size ? f->size - offset : 0;
	n = n < size ? n : size;
	return n && get(f, offset, buf, n) && memchr(buf, 0, n);
}

/* The offset in the file of an address, or 0. */
static uint64_t offsetof_address(const File *f, uint64_t address)
{
	for (int i = 0; i < f->nph; i++) {
		const Elf64_Phdr *p = &f->ph[i];
		if (p->p_type == PT_LOAD && address >= p->p_vaddr &&
		    address - p->p_vaddr < p->p_filesz)
			return p->p_offset + (address - p->p_vaddr);
	}
	return 0;
}

static const Elf64_Phdr *segment(const File *f, uint32_t type)
{
	for (int i = 0; i < f->nph; i++)
		if (f->ph[i].p_type == type)
			return &f->ph[i];
	return NULL;
}

static void readdynamic(File *f)
{
	const Elf64_Phdr *p = segment(f, PT_DYNAMIC);
	uint64_t soname = 0;
	bool named = false;
	for (uint64_t i = 0; p && i < p->p_filesz / sizeof(Elf64_Dyn); i++) {
		Elf64_Dyn d;
		if (!get(f, p->p_offset + i * sizeof d, &d, sizeof d) || d.d_tag == DT_NULL)
			break;
		switch (d.d_tag) {
		case DT_STRTAB: f->strings = offsetof_address(f, d.d_un.d_ptr); break;
		case DT_STRSZ: f->nstrings = d.d_un.d_val; break;
		case DT_SONAME:
			soname = d.d_un.d_val;
			named = true;
			break;
		case DT_FLAGS_1: f->flags1 = d.d_un.d_val; break;
		}
	}
	if (f->strings && named && soname < f->nstrings)
		f->soname = f->strings + soname;
}

/* Headers and dynamic section of a file for this machine; false: damaged. */
static bool readheaders(File *f)
{
	if (!get(f, 0, &f->h, sizeof f->h) || f->h.e_phentsize != sizeof f->ph[0] ||
	    f->h.e_phnum == 0 || f->h.e_phnum > MAXHEADERS ||
	    !get(f, f->h.e_phoff, f->ph, f->h.e_phnum * sizeof f->ph[0]))
		return false;
	f->nph = f->h.e_phnum;
	readdynamic(f);
	return true;
}

/* An empty one: nothing of it can be read. */
static File *openfile(const char *path)
{
	struct stat st;
	File *f = calloc(1, sizeof *f);
	if (!f)
		fail("out of memory");
	f->path = path;
	f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (f->fd >= 0 && fstat(f->fd, &st) == 0 && S_ISREG(st.st_mode))
		f->size = (uint64_t)st.st_size;
	return f;
}

static void closefile(File *f)
{
	if (f->fd >= 0)
		close(f->fd);
	free(f);
}

/* --- what is refused ---------------------------------------------------------------------------- */

static const char *machine(unsigned number)
{
	switch (number) {
	case EM_AARCH64: return "AArch64";
	case EM_ARM: return "Arm";
	case EM_RISCV: return "RISC-V";
	case EM_PPC:
	case EM_PPC64: return "POWER";
	case EM_S390: return "IBM Z";
	case EM_MIPS: return "MIPS";
	case EM_SPARC:
	case EM_SPARCV9: return "SPARC";
	case EM_IA_64: return "Itanium";
	case EM_LOONGARCH: return "LoongArch";
	default: return "another machine";
	}
}

/* Both of cgo and not, stripped or not: by the note of the build, by what Go's own tools look for, and by what
 * the library itself looks for. */
static bool isgo(const File *f)
{
	static const char note[12] = {4, [8] = 4}; /* name's length, text's (any), type */
	static const char mark[] = "\xff Go buildinf:", symbol[] = "\0_cgo_topofstack";
	for (int i = 0; i < f->nph; i++) {
		const Elf64_Phdr *p = &f->ph[i];
		char head[16];
		if (p->p_type == PT_NOTE && get(f, p->p_offset, head, sizeof head) &&
		    !memcmp(head, note, 4) && !memcmp(head + 8, note + 8, 4) &&
		    !memcmp(head + 12, "Go\0", 4))
			return true;
		if (p->p_type == PT_LOAD && (p->p_flags & PF_W) &&
		    contains(f, p->p_offset, p->p_filesz < BUILDINFO ? p->p_filesz : BUILDINFO,
			     mark, sizeof mark - 1))
			return true;
	}
	return f->strings && contains(f, f->strings, f->nstrings, symbol, sizeof symbol);
}

static bool isloader(const File *f)
{
	char name[64];
	return f->soname && text(f, f->soname, name, sizeof name) &&
	       !strcmp(name, "ld-linux-x86-64.so.2");
}

static bool checkloader(const char *who, const char *path, Refusal *r)
{
	char real[PATH_MAX];
	if (access(path, F_OK) && errno == ENOENT)
		return refuse(r, NOTFOUND, "%s: its dynamic linker %s is not there", who, path);
	if (strstr(path, "ld-musl-") || (realpath(path, real) && strstr(real, "musl")))
		return refuse(r, CANTRUN, "%s: a program of musl, whose dynamic linker takes no %s",
			      who, LIBRARY);
	File *f = openfile(path);
	bool ok = f->size == 0 || (readheaders(f) && isloader(f));
	closefile(f);
	return ok ||
	       refuse(r, CANTRUN, "%s: its dynamic linker %s is not glibc's for x86_64", who, path);
}

/* A hexadecimal set of capabilities in /proc/self/status. */
static uint64_t capset(const char *status, const char *name)
{
	const char *p = strstr(status, name);
	return p ? strtoull(p + strlen(name), NULL, 16) : 0;
}

/* Would capabilities of the file make the loader's mode secure? For root they add nothing. */
static bool gainscapabilities(const char *path, bool nonew)
{
	struct vfs_ns_cap_data cap = {0};
	char status[4096];
	ssize_t n = getxattr(path, "security.capability", &cap, sizeof cap);
	uint32_t magic = cap.magic_etc;
	if (n < (ssize_t)XATTR_CAPS_SZ_1 || getuid() == 0)
		return false;
	if ((magic & VFS_CAP_REVISION_MASK) == VFS_CAP_REVISION_3 && cap.rootid != 0)
		return false; /* another user namespace's */
	if (magic & VFS_CAP_FLAGS_EFFECTIVE)
		return true;
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, status, sizeof status - 1);
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return true;
	status[n] = 0;
	bool two = (magic & VFS_CAP_REVISION_MASK) != VFS_CAP_REVISION_1;
	uint64_t permitted =
	    cap.data[0].permitted | (two ? (uint64_t)cap.data[1].permitted << 32 : 0);
	uint64_t inheritable =
	    cap.data[0].inheritable | (two ? (uint64_t)cap.data[1].inheritable << 32 : 0);
	uint64_t gets =
	    (permitted & capset(status, "CapBnd:")) | (inheritable & capset(status, "CapInh:"));
	if (nonew)
		gets &= capset(status, "CapPrm:");
	return (gets & ~capset(status, "CapAmb:")) != 0;
}

/* As the kernel finds AT_SECURE. Who runs a setuid program as its owner already gets no other rights by it. */
static bool checksecure(const char *path, Refusal *r)
{
	const char *what = NULL;
	struct stat st;
	struct statvfs fs;
	if (stat(path, &st))
		return true; /* execve says why */
	bool ignored = statvfs(path, &fs) == 0 && (fs.f_flag & ST_NOSUID);
	bool nonew = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
	if (!ignored && !nonew && (st.st_mode & S_ISUID) && st.st_uid != geteuid())
		what = "setuid";
	else if (!ignored && !nonew && (st.st_mode & S_ISGID) && (st.st_mode & S_IXGRP) &&
		 st.st_gid != getegid())
		what = "setgid";
	else if (!ignored && gainscapabilities(path, nonew))
		what = "file capabilities";
	else if (getuid() != geteuid() || getgid() != getegid())
		what = "goshim itself is setuid";
	return !what ||
	       refuse(r, CANTRUN, "%s: %s: with rights beyond its user's a program loads no %s",
		      path, what, LIBRARY);
}

static bool checkelf(File *f, const unsigned char *ident, Refusal *r)
{
	char loader[PATH_MAX];
	uint16_t number;
	if (!get(f, offsetof(Elf64_Ehdr, e_machine), &number, sizeof number) ||
	    !get(f, offsetof(Elf64_Ehdr, e_type), &f->h.e_type, sizeof f->h.e_type))
		return refuse(r, CANTRUN, "%s: a damaged ELF file", f->path);
	if (ident[EI_DATA] == ELFDATA2MSB)
		number = (uint16_t)(number >> 8 | number << 8);
	if (number != EM_X86_64 && number != EM_386)
		return refuse(r, CANTRUN, "%s: a program for %s (ELF machine %u), not x86_64",
			      f->path, machine(number), number);
	if (ident[EI_CLASS] == ELFCLASS32)
		return refuse(r, CANTRUN, "%s: a 32-bit program; %s is for 64 bits", f->path,
			      LIBRARY);
	if (f->h.e_type != ET_EXEC && f->h.e_type != ET_DYN)
		return refuse(r, CANTRUN, "%s: an ELF file, but no program", f->path);
	if (ident[EI_CLASS] != ELFCLASS64 || number != EM_X86_64 || ident[EI_DATA] != ELFDATA2LSB ||
	    !readheaders(f))
		return refuse(r, CANTRUN, "%s: a damaged ELF file", f->path);
	if (isgo(f))
		return refuse(r, CANTRUN, "%s: a Go program, which has goroutines of its own",
			      f->path);
	const Elf64_Phdr *p = segment(f, PT_INTERP);
	if (!p && isloader(f))
		return true;
	if (!p && f->h.e_type == ET_DYN && f->strings && !(f->flags1 & DF_1_PIE))
		return refuse(r, CANTRUN, "%s: a library, not a program", f->path);
	if (!p)
		return refuse(r, CANTRUN,
			      "%s: a static%s program, which has no dynamic linker to load %s",
			      f->path, f->h.e_type == ET_DYN ? "-pie" : "", LIBRARY);
	if (p->p_filesz < 2 || p->p_filesz > sizeof loader ||
	    !get(f, p->p_offset, loader, p->p_filesz) || loader[p->p_filesz - 1])
		return refuse(r, CANTRUN, "%s: a damaged ELF file", f->path);
	return checkloader(f->path, loader, r);
}

/* The interpreter in a #! line, as the kernel reads it; false: it is no script, or cut off. */
static bool interpreter(char *line, size_t n, char *out)
{
	size_t end = strnlen(line, n);
	char *newline = memchr(line, '\n', end);
	bool cut = !newline && end == SCRIPTLINE;
	end = newline ? (size_t)(newline - line) : end;
	line[end] = 0;
	char *p = line + 2 + strspn(line + 2, " \t");
	size_t len = strcspn(p, " \t");
	if (len == 0 || (cut && !p[len]))
		return false;
	memcpy(out, p, len);
	out[len] = 0;
	return true;
}

static bool check(const char *path, int depth, Refusal *r)
{
	struct stat st;
	char line[SCRIPTLINE + 1], next[SCRIPTLINE];
	if (stat(path, &st))
		return refuse(r, errno == ENOENT || errno == ENOTDIR ? NOTFOUND : CANTRUN, "%s: %s",
			      path, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return refuse(r, CANTRUN, "%s: a directory", path);
	if (!S_ISREG(st.st_mode))
		return refuse(r, CANTRUN, "%s: not a file that can be run", path);
	if (faccessat(AT_FDCWD, path, X_OK, AT_EACCESS))
		return refuse(r, CANTRUN, "%s: %s", path, strerror(errno));
	File *f = openfile(path);
	size_t n = f->size < SCRIPTLINE ? f->size : SCRIPTLINE;
	if (f->fd < 0 || (n && !get(f, 0, line, n))) {
		/* May be run, though not read: the kernel does. */
		closefile(f);
		return checksecure(path, r);
	}
	bool ok, script = n > 2 && line[0] == '#' && line[1] == '!';
	line[n] = 0;
	if (!script && n >= EI_NIDENT && !memcmp(line, ELFMAG, SELFMAG)) {
		ok = checkelf(f, (unsigned char *)line, r) && checksecure(path, r);
	} else if (!script || !interpreter(line, n, next)) {
		ok = refuse(r, CANTRUN, "%s: neither an ELF program nor a script with a #! line",
			    path);
	} else if (depth == SCRIPTDEPTH) {
		ok = refuse(r, CANTRUN, "%s: too many interpreters of interpreters", path);
	} else if (!(ok = check(next, depth + 1, r))) {
		Refusal inner = *r;
		refuse(r, inner.status, "%s: its interpreter %s", path, inner.why);
	}
	closefile(f);
	return ok;
}

bool takeslibrary(const char *path, Refusal *r)
{
	return check(path, 0, r);
}
