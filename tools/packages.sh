# shellcheck shell=sh disable=SC2034
# SPDX-License-Identifier: MIT
# Sourced by ./demo, ./check, `make check-kernels`, `make bench` and `make bench-malloc` (plain sh): make sure that Debian's packages are there.
#
# firn_packages NAME...   installs, by name, those that are missing, and says which.  Needs root for that;
# returns 0 when all are there in the end.

firn_missing() {
	for p in "$@"; do
		state=$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null) || state=
		[ "$state" = installed ] || printf '%s ' "$p"
	done
}

# Installing a server package would start it; a policy of exit 101 says no, for as long as we install.
firn_no_services() {
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && firn_policy=$policy
	fi
}

firn_services_again() {
	[ -z "${firn_policy:-}" ] || rm -f "$firn_policy"
	firn_policy=
}

firn_packages() {
	command -v dpkg-query >/dev/null 2>&1 || {
		echo "$0: this is not a Debian system: install by hand what matches: $*" >&2
		return 1
	}
	missing=$(firn_missing "$@")
	[ -n "$missing" ] || return 0
	echo "missing packages: $missing"
	if [ "$(id -u)" -ne 0 ]; then
		echo "$0: packages are missing: run this as root, or: sudo apt-get install $missing" >&2
		return 1
	fi
	echo "installing them with apt-get"
	log=$(mktemp) || return 1
	trap 'firn_services_again; rm -f "$log"' EXIT
	trap 'exit 130' INT TERM HUP
	firn_no_services
	export DEBIAN_FRONTEND=noninteractive
	# shellcheck disable=SC2086 # a list of names
	if ! apt-get -q update >"$log" 2>&1 ||
		! apt-get -q -y --no-install-recommends install $missing >>"$log" 2>&1; then
		tail -n 20 "$log" >&2
		echo "$0: apt-get failed: install these by hand: $missing" >&2
		return 1
	fi
	case " $missing" in
	*" redis-server "*)
		# It came for the demo and the tests, which start their own; it shall not run at boot.
		! command -v systemctl >/dev/null 2>&1 || systemctl disable redis-server >/dev/null 2>&1 || :
		;;
	esac
	firn_services_again
	rm -f "$log"
	trap - EXIT INT TERM HUP
	missing=$(firn_missing "$@")
	[ -z "$missing" ] || {
		echo "$0: still missing: $missing" >&2
		return 1
	}
}

# What it takes to build and to run the demo.
FIRN_BUILD_PACKAGES="gcc libc6-dev make meson ninja-build pkg-config liblz4-dev libzstd-dev libssl-dev
	libxxhash-dev libjson-c-dev libncurses-dev"
FIRN_DEMO_PACKAGES="$FIRN_BUILD_PACKAGES redis-server redis-tools python3 procps util-linux"
FIRN_CHECK_PACKAGES="$FIRN_DEMO_PACKAGES clang libcmocka-dev python3-pytest python3-cryptography python3-lz4
	python3-xxhash python3-prometheus-client tmux scdoc gcc-aarch64-linux-gnu libc6-dev-arm64-cross g++ gdb git systemd
	libpython3.11-testsuite perl sqlite3 strace valgrind"
# The virtual machine of `make check-kernels`: emulator, its disks, and the shell that finds them.
FIRN_GUEST_PACKAGES="$FIRN_BUILD_PACKAGES qemu-system-x86 mmdebstrap e2fsprogs busybox-static cpio kmod scdoc"
# What the benchmarks page out, and their plots.
FIRN_BENCH_PACKAGES="$FIRN_BUILD_PACKAGES gnuplot-nox redis-server python3 nodejs git mount util-linux"
# The peers and the programs of the allocator's benchmarks.
FIRN_BENCH_MALLOC_PACKAGES="$FIRN_BUILD_PACKAGES libjemalloc2 libmimalloc2.0 libtcmalloc-minimal4 gnuplot-nox
	redis-server redis-tools python3 sqlite3 perl util-linux"
