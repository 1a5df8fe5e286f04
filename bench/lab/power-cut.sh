#!/bin/bash
# Runs in the machine of vm.sh: one life between two power cuts.
#
#   power-cut.sh SEED first|again|last FS...
#
# The first life makes the containers and the file systems; every other opens
# what the cut has left and checks it. Then files are written until the power
# goes; the last life ends in order instead.
. /lab/volumes.sh
set -eEu -o pipefail
trap 'complain $LINENO' ERR

SEED=$1 LIFE=$2
shift 2
FS=$*

begin() { # FS DISK NBD
	cawrm create "/dev/$2" --size 448M >/dev/null
	serve "$@"
	make "$1" "$3"
	enter "$1" "$3"
}

reopen() { # FS DISK NBD
	agrees "$1" "$2"
	serve "$@"
	enter "$1" "$3"
	guest check "/fs/$1" /lab/told
	umount "/fs/$1"
	sound "$1" "$3"
	enter "$1" "$3"
}

finish() { # FS DISK NBD
	umount "/fs/$1"
	unserve "$1" "$3"
	agrees "$1" "$2"
}

modprobe nbd nbds_max=4
for m in $FS; do modprobe "$m"; done
if [ "$LIFE" = first ]; then
	step "make"
	each begin
else
	step "open what is left"
	each reopen
fi
if [ "$LIFE" = last ]; then
	step "end"
	each finish
	step "done"
	exit 0
fi
step "write"
echo begin >/dev/virtio-ports/told
# shellcheck disable=SC2086
TELL=/dev/virtio-ports/told guest files "$SEED" 3 0 $(printf '/fs/%s ' $FS)
