/*
 * What a thread may do: ids, capabilities, keyrings, seccomp filters, Landlock. state.h says what is tried.
 */
#include "state.h"

#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <stddef.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

static int set_keepcaps(void)
{
	return prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
}

static long get_keepcaps(void)
{
	return prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0);
}

static int set_securebits(void)
{
	return prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0);
}

static long get_securebits(void)
{
	return prctl(PR_GET_SECUREBITS, 0, 0, 0, 0);
}

static int set_no_new_privs(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static long get_no_new_privs(void)
{
	return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
}

static int set_bounding(void)
{
	return prctl(PR_CAPBSET_DROP, CAP_SYS_TIME, 0, 0, 0);
}

static long get_bounding(void)
{
	return prctl(PR_CAPBSET_READ, CAP_SYS_TIME, 0, 0, 0);
}

static struct __user_cap_data_struct caps[2];
static struct __user_cap_header_struct capheader = {.version = _LINUX_CAPABILITY_VERSION_3};

static int get_caps(struct __user_cap_data_struct *c)
{
	struct __user_cap_header_struct h = capheader;

	return (int)syscall(SYS_capget, &h, c);
}

static int set_caps(void)
{
	struct __user_cap_header_struct h = capheader;

	if (get_caps(caps) != 0)
		return -1;
	caps[0].effective &= ~(1u << CAP_SYS_CHROOT);
	caps[0].inheritable = caps[0].effective;
	return (int)syscall(SYS_capset, &h, caps);
}

static long get_all_caps(void)
{
	struct __user_cap_data_struct c[2];

	return get_caps(c) ? -1 : mix(c, sizeof c);
}

static int set_ambient(void)
{
	return set_caps() || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0);
}

static long get_ambient(void)
{
	return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0);
}

static int set_fsuid(void)
{
	setfsuid(1234);
	return setfsuid(-1) == 1234 ? 0 : -1;
}

static long get_fsuid(void)
{
	return setfsuid(-1);
}

static int set_fsgid(void)
{
	setfsgid(1234);
	return setfsgid(-1) == 1234 ? 0 : -1;
}

static long get_fsgid(void)
{
	return setfsgid(-1);
}

static int set_uid(void)
{
	return (int)syscall(SYS_setresuid, -1, 1234, -1);
}

static long get_uid(void)
{
	return geteuid();
}

static int set_gid(void)
{
	return (int)syscall(SYS_setregid, -1, 1234);
}

static long get_gid(void)
{
	return getegid();
}

static int set_groups(void)
{
	gid_t g[] = {1234, 2345};

	return (int)syscall(SYS_setgroups, 2, g);
}

static long get_groups(void)
{
	gid_t g[100];
	int n = getgroups(100, g);

	return n < 0 ? -1 : mix(g, (size_t)n * sizeof g[0]);
}

static int set_session_keyring(void)
{
	return syscall(SYS_keyctl, 1 /* JOIN_SESSION_KEYRING */, NULL) < 0 ? -1 : 0;
}

static long get_session_keyring(void)
{
	return syscall(SYS_keyctl, 0 /* GET_KEYRING_ID */, -3, 0);
}

static int set_thread_keyring(void)
{
	return syscall(SYS_keyctl, 0 /* GET_KEYRING_ID */, -1, 1) < 0 ? -1 : 0;
}

static long get_thread_keyring(void)
{
	return syscall(SYS_keyctl, 0, -1, 0);
}

static int set_request_keyring(void)
{
	return syscall(SYS_keyctl, 14 /* SET_REQKEY_KEYRING */, 2) < 0 ? -1 : 0;
}

static long get_request_keyring(void)
{
	return syscall(SYS_keyctl, 14, -1);
}

/* getrusage with a strange number tells whether the filter is there. */
static struct sock_filter code[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrusage, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EXDEV),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};
static struct sock_fprog filter = {COUNT(code), code};

static int set_filter(void)
{
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

static int set_filter_by_seccomp(void)
{
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter);
}

static int set_filter_for_all(void)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC,
			    &filter);
}

static long get_filter(void)
{
	struct rusage u;

	return getrusage(RUSAGE_SELF, &u) == 0 ? 0 : errno;
}

static int set_landlock(void)
{
	struct landlock_ruleset_attr a = {.handled_access_fs = LANDLOCK_ACCESS_FS_READ_DIR};
	int fd = (int)syscall(SYS_landlock_create_ruleset, &a, sizeof a, 0);

	if (fd < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return -1;
	int r = (int)syscall(SYS_landlock_restrict_self, fd, 0);
	close(fd);
	return r;
}

static long get_landlock(void)
{
	int fd = open("/usr", O_RDONLY | O_DIRECTORY);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static const struct kind kinds[] = {
    {"kept capabilities", set_keepcaps, get_keepcaps, 0},
    {"securebits", set_securebits, get_securebits, 0},
    {"no new privileges", set_no_new_privs, get_no_new_privs, 0},
    {"bounding set", set_bounding, get_bounding, 0},
    {"capabilities", set_caps, get_all_caps, 0},
    {"ambient capabilities", set_ambient, get_ambient, 0},
    {"fsuid", set_fsuid, get_fsuid, 0},
    {"fsgid", set_fsgid, get_fsgid, 0},
    {"user", set_uid, get_uid, 0},
    {"group", set_gid, get_gid, 0},
    {"groups", set_groups, get_groups, 0},
    {"session keyring", set_session_keyring, get_session_keyring, 0},
    {"thread keyring", set_thread_keyring, get_thread_keyring, ANEW},
    {"default keyring", set_request_keyring, get_request_keyring, 0},
    {"seccomp by prctl", set_filter, get_filter, 0},
    {"seccomp", set_filter_by_seccomp, get_filter, 0},
    {"seccomp for all", set_filter_for_all, get_filter, FOR_ALL},
    {"landlock", set_landlock, get_landlock, 0},
};

STATE_MAIN
