# Shared by tools/demo and tools/test: packages, builds, and running a command in such a way that
# an interrupt reaches it. Sourced; expects $root (the tree) and $tmp (a directory of the caller's).
# shellcheck shell=bash

say() { printf '%s\n' "$*"; }
fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
bad_usage() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 2; }

# want_number OPTION VALUE MIN MAX: VALUE is a whole number in the range, or one line and exit 2.
want_number() {
	[[ $2 =~ ^[0-9]{1,9}$ ]] && ((10#$2 >= $3 && 10#$2 <= $4)) ||
		bad_usage "$1 '$2': want a whole number from $3 to $4"
}

# Runs a command that a trap can end: bash runs no trap while it waits for a foreground command.
# The command's id is in $running meanwhile. Returns its status.
running=
run_waiting() {
	local status=0
	"$@" </dev/null &
	running=$!
	wait "$running" || status=$?
	running=
	return "$status"
}

# Ends a process of ours and waits until it is gone: TERM, and KILL after the given seconds.
# Returns 1 when KILL was needed.
end_process() {
	local pid=$1 seconds=${2:-5} i
	kill -TERM "$pid" 2>/dev/null || { wait "$pid" 2>/dev/null || true; return 0; }
	for ((i = 0; i < seconds * 20; i++)); do
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.05
	done
	if kill -KILL "$pid" 2>/dev/null; then
		wait "$pid" 2>/dev/null || true
		return 1
	fi
	wait "$pid" 2>/dev/null || true
}

# logged WHAT LOG COMMAND...: runs it quietly; when it fails, shows the log's end and exits. The
# command is a function of ours, or run_waiting and one from outside.
logged() {
	local what=$1 log=$2 status=0
	shift 2
	"$@" >"$log" 2>&1 || status=$?
	((status == 0)) && return
	say "--- the end of its output:"
	tail -n 30 "$log"
	fail "$what failed (status $status)"
}

# need_packages PACKAGE...: installs what is missing on Debian 12; elsewhere names the packages,
# by Debian's names, and stops, unless the commands named in $commands are all there already.
need_packages() {
	local missing=() p c release
	release=$(. /etc/os-release 2>/dev/null && printf '%s %s' "${ID:-}" "${VERSION_ID:-}") || release=
	if [[ $release != 'debian 12' ]]; then
		for c in $commands; do
			command -v "$c" >/dev/null || missing+=("$c")
		done
		((${#missing[@]} == 0)) && return
		say "This is not Debian 12, so nothing is installed for you. Not found: ${missing[*]}"
		say "Install the equivalents of these Debian packages and run ${0##*/} again:"
		say "    $*"
		exit 1
	fi
	for p in "$@"; do
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null) == installed ]] || missing+=("$p")
	done
	((${#missing[@]} == 0)) && return
	local as_root=()
	if ((EUID != 0)); then
		if ! command -v sudo >/dev/null; then
			say "Not root and no sudo; as root, run:  apt-get install ${missing[*]}"
			exit 1
		fi
		as_root=(sudo)
		[[ -t 0 ]] || as_root=(sudo -n)
		"${as_root[@]}" true || fail "sudo refused; as root, run: apt-get install ${missing[*]}"
	fi
	say "Installing: ${missing[*]}"
	local env=(env DEBIAN_FRONTEND=noninteractive)
	local install=(apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=120 "${missing[@]}")
	# A fresh machine has no package lists, or old ones.
	run_waiting "${as_root[@]}" "${env[@]}" "${install[@]}" >"$tmp/apt.log" 2>&1 && return
	logged 'apt-get update' "$tmp/apt.log" run_waiting "${as_root[@]}" "${env[@]}" apt-get update -q
	logged 'apt-get install' "$tmp/apt.log" run_waiting "${as_root[@]}" "${env[@]}" "${install[@]}"
}

# configure DIR [MESON OPTION...]: a configured build directory. One left half-made by an interrupt,
# or by another version of the tree, is made anew.
configure() {
	local dir=$1
	shift
	if [[ -f $root/$dir/build.ninja && -f $root/$dir/.goshim-options &&
		$(<"$root/$dir/.goshim-options") == "$*" ]]; then
		return
	fi
	rm -rf "${root:?}/$dir"
	run_waiting meson setup "$root/$dir" "$root" "$@" || return
	printf '%s' "$*" >"$root/$dir/.goshim-options"
}

# The release build in build/: the library as $lib, the command as $goshim, the load generator as $load, and a server
# with a thread a connection as $server_program. tools/test
# configures build/ with the tests, which need a C++ compiler and Criterion; that is used when it is
# there, and left out when it is not.
build_release() {
	[[ -f $root/build/.goshim-options && $(<"$root/build/.goshim-options") == --buildtype=release ]] ||
		configure build --buildtype=release -Dtests=false || return
	lib=$root/build/shim/libgoshim.so goshim=$root/build/tools/goshim load=$root/build/demo-load
	server_program=$root/build/demo-server
	run_waiting ninja -C "$root/build" shim/libgoshim.so tools/goshim &&
		run_waiting cc -O2 -pthread -D_GNU_SOURCE -o "$server_program" "$root/preload-tests/command/server.c" &&
		run_waiting cc -O2 -pthread -o "$load" "$root"/tools/load*.c -lm
}
