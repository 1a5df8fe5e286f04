#!/bin/bash
# Runs in the machine of vm.sh: two sites on a real file system, their volume
# as a kernel block device by nbd-client and by cawrm attach, ext4 on it, and
# the mirror's image mounted and compared.
set -eu -o pipefail

step() { echo "== $(cut -d' ' -f1 /proc/uptime) s: $*"; }

trap 'echo "FAILED in line $LINENO"; dmesg | tail -n 20; tail -n 40 /run/a.log /run/b.log' ERR

A="--control unix:/run/a.sock"
B="--control unix:/run/b.sock"

# synced waits until the mirror lacks nothing: nothing is written meanwhile.
synced() {
	for _ in $(seq 300); do
		if cawrm status vol $A --json | tr -d ' \n\t' | grep -q '"state":"synced"'; then
			return 0
		fi
		sleep 0.1
	done
	cawrm status vol $A --json
	echo "the mirror is not synced after 30 s"
	return 1
}

ready() { # ready LOG CONTROL: waits for a daemon
	for _ in $(seq 200); do
		cawrm status vol --control "$2" >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	echo "no daemon at $2"
	cat "$1"
	return 1
}

# content reads a device past the kernel's cache, in pieces that suit a slow
# machine.
content() { dd if="$1" bs=4M iflag=direct status=none; }

modprobe nbd nbds_max=8
mkfs.ext4 -q /dev/vda
mkdir /data /fs
mount -t ext4 /dev/vda /data

step "two sites, a source and its mirror"
cawrm create /data/b --mirror
cawrm create /data/a --size 96M
cawrm serve /data/b --name vol --nbd 127.0.0.1:10810 --peer 127.0.0.1:7001 $B >/run/b.log 2>&1 &
PB=$!
ready /run/b.log unix:/run/b.sock
cawrm serve /data/a --name vol --nbd 127.0.0.1:10809 --mirror cawrm://127.0.0.1:7001/vol $A >/run/a.log 2>&1 &
PA=$!
ready /run/a.log unix:/run/a.sock

step "ext4 on a device of nbd-client"
nbd-client -N vol 127.0.0.1 10809 /dev/nbd0
# The devices of cawrm attach have logical blocks of 4 KiB.
mkfs.ext4 -q /dev/nbd0
mount -t ext4 /dev/nbd0 /fs
mkdir /fs/old
for i in $(seq 40); do dd if=/dev/urandom of=/fs/old/$i bs=4k count=$((i * 3)) status=none; done
dd if=/dev/urandom of=/fs/large bs=1M count=16 conv=fsync status=none
(cd /fs && sha256sum large old/* >/run/sums)
sync
umount /fs
e2fsck -fn /dev/nbd0
nbd-client -d /dev/nbd0

step "the same file system on a device of cawrm attach"
cawrm attach vol /dev/nbd1 $A
[ "$(blockdev --getsize64 /dev/nbd1)" = $((96 << 20)) ]
mount -t ext4 -o discard /dev/nbd1 /fs
(cd /fs && sha256sum -c --quiet /run/sums)
rm -r /fs/old
dd if=/dev/urandom of=/fs/new bs=64k count=100 status=none
fstrim -v /fs
(cd /fs && sha256sum large new >/run/sums)
sync

step "the volume grows, and the device with it while it is mounted"
cawrm resize vol --size 128M $A | grep '/dev/nbd1 has it now'
[ "$(blockdev --getsize64 /dev/nbd1)" = $((128 << 20)) ]
head -c 4096 /dev/urandom >/run/tail
dd if=/run/tail of=/dev/nbd1 bs=4k seek=$((128 * 256 - 1)) oflag=direct status=none
cmp /run/tail <(dd if=/dev/nbd1 bs=4k skip=$((128 * 256 - 1)) iflag=direct status=none)
dd if=/dev/zero of=/fs/more bs=64k count=10 conv=fsync status=none
umount /fs
e2fsck -fn /dev/nbd1
blockdev --flushbufs /dev/nbd1

step "the mirror's image is the same file system"
synced
cawrm attach vol /dev/nbd2 $B
[ "$(blockdev --getro /dev/nbd2)" = 1 ]
mount -t ext4 -o ro /dev/nbd2 /fs
(cd /fs && sha256sum -c --quiet /run/sums)
umount /fs
e2fsck -fn /dev/nbd2
cmp <(content /dev/nbd1) <(content /dev/nbd2)

step "a discarded device is empty on both sides"
blkdiscard -f /dev/nbd1
cmp <(content /dev/nbd1) <(dd if=/dev/zero bs=4M count=32 status=none)
blockdev --flushbufs /dev/nbd1
cawrm detach /dev/nbd2
synced
cawrm attach vol /dev/nbd2 $B
cmp <(content /dev/nbd2) <(dd if=/dev/zero bs=4M count=32 status=none)
cawrm detach /dev/nbd1
cawrm detach /dev/nbd2

step "a clean end, and nothing wrong in the containers"
kill $PA; wait $PA
kill $PB; wait $PB
cawrm check /data/a
cawrm check /data/b
step "done"
