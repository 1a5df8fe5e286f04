#!/bin/bash
# Runs in a machine that has booted from /dev/vda, a volume that the host serves and mirrors: boot loader, kernel and this script
# came from there. The first time it makes a file system on the second partition and writes files with fsync, until the machine is
# killed; when a second disk has the list of what was told durable, it checks that all of it is there.
. /lab/volumes.sh
set -eEu -o pipefail
trap 'complain $LINENO' ERR

grep -q BOOT_IMAGE /proc/cmdline # the boot loader says so
if [ -b /dev/vdb ]; then
	tr -d '\0' </dev/vdb >/told
	enter ext4 vda2
	guest check /fs/ext4 /told
	umount /fs/ext4
	sound ext4 vda2
else
	mkfs.ext4 -q /dev/vda2
	enter ext4 vda2
	sync
	echo begin >/dev/virtio-ports/told
	TELL=/dev/virtio-ports/told guest files "$1" 2 0 /fs/ext4
fi
