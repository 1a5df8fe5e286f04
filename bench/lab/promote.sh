#!/bin/bash
# Runs in the machine: /dev/vda is a volume that the host serves and mirrors.
#
#   promote.sh SEED write    ext4, and files with fsync until the machine is killed
#   promote.sh SEED check    what was told durable is there, and the file system is sound
. /lab/volumes.sh
set -eEu -o pipefail
trap 'complain $LINENO' ERR

case $2 in
write)
	mkfs.ext4 -q /dev/vda
	enter ext4 vda
	sync
	echo begin >/dev/virtio-ports/told
	TELL=/dev/virtio-ports/told guest files "$1" 3 0 /fs/ext4
	;;
check)
	enter ext4 vda
	guest check /fs/ext4 /lab/told
	umount /fs/ext4
	sound ext4 vda
	;;
esac
