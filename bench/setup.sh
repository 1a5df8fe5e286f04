#!/bin/bash
# Installs what the tests use besides Go, gcc, git and make: the NBD clients
# and servers they are tried against, and the virtual machine of bench/lab.
#
# Only what is missing is installed, and only as root where there is apt-get.
# Elsewhere it says what is missing and succeeds: the tests that need it then
# say that they were skipped.
set -u

PACKAGES="libnbd-bin python3-libnbd nbdkit nbd-server qemu-utils fio nbd-client e2fsprogs xfsprogs
 btrfs-progs dmsetup util-linux qemu-system-x86 busybox-static cpio kmod"
# What looks at metrics, packages, the web page and completions, a database, a disk to boot from, and a systemd: without it those tests are
# skipped.
EXTRA="prometheus rpm chromium zsh fish postgresql syslinux mtools fdisk systemd-sysv udev dash adduser"

missing() {
	for p in "$@"; do
		dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || echo "$p"
	done
}

apt() {
	DEBIAN_FRONTEND=noninteractive apt-get -y -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"
}

# again CMD: a few tries, with a fresh index before each, since an index that
# lags behind names packages that are gone.
again() {
	for try in 1 2 3; do
		apt update && "$@" && return 0
		echo "setup: try $try of 3 failed: $*" >&2
		sleep $((try * 5))
	done
	return 1
}

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
	echo "setup: no apt-get here. SKIPPED: installing $PACKAGES" >&2
	exit 0
fi
absent=$(missing $PACKAGES)
if [ -n "$absent" ] && [ "$(id -u)" != 0 ]; then
	echo "setup: not root. SKIPPED: installing" $absent >&2
	exit 0
fi
if [ -n "$absent" ]; then
	echo "setup: installing" $absent
	again apt install --no-install-recommends $absent >/dev/null || {
		echo "setup: FAILED to install" $(missing $PACKAGES) >&2
		exit 1
	}
fi

absent=$(missing $EXTRA)
if [ -n "$absent" ] && [ "$(id -u)" = 0 ]; then
	echo "setup: installing" $absent
	again apt install --no-install-recommends $absent >/dev/null || echo "setup: SKIPPED, could not be installed:" $(missing $EXTRA) >&2
fi

# The kernel of the virtual machine, into its cache.
lab=$(dirname "$0")/lab/vm.sh
if ! "$lab" --build; then
	if [ "$(id -u)" = 0 ]; then
		again "$lab" --build || exit 1
	else
		echo "setup: SKIPPED: no kernel for the virtual machine, and not root to fetch the package index" >&2
	fi
fi
