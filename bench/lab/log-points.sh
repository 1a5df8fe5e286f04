#!/bin/bash
# Runs in the machine of vm.sh: each disk is a container as a crash left it. It
# is opened, and the file system on its volume mounted and checked.
#
#   log-points.sh FS-POINT...
. /lab/volumes.sh
set -eEu -o pipefail
trap 'complain $LINENO' ERR

FS=$*

# One after the other: the points are one file system at several times, which
# the kernel does not mount twice.
modprobe nbd nbds_max=1
n=0
for fs in $FS; do
	disk=vd$(printf "\\x$(printf %x $((0x61 + n)))")
	modprobe "${fs%%-*}"
	agrees "$fs" "$disk"
	serve "$fs" "$disk" nbd0
	enter "$fs" nbd0
	guest check "/fs/$fs" /lab/told
	umount "/fs/$fs"
	sound "$fs" nbd0
	[ "${fs%%-*}" != btrfs ] || btrfs device scan --forget
	unserve "$fs" nbd0
	agrees "$fs" "$disk"
	n=$((n + 1))
done
