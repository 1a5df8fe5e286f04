#!/bin/busybox sh
# The guest's /init: mounts what a system has, runs /vm/script, reports its
# exit status on the port vm.rc and powers the machine off; or hands over to
# the systemd of a root disk, which does so (root-run.sh). See vm.sh.
export PATH=/bin HOME=/root TERM=dumb LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/virtio-ports
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t tmpfs shm /dev/shm
ln -s /proc/self/fd /dev/fd
date -s @"$(cat /vm/date)" >/dev/null
for m in virtio_pci virtio_blk virtio_console; do modprobe $m; done
# The ports, and then their names, appear some time after the driver: seconds on
# a busy host.
for _ in $(seq 300); do
	for p in /sys/class/virtio-ports/*; do
		[ -s "$p/name" ] && ln -sf "/dev/${p##*/}" "/dev/virtio-ports/$(cat "$p/name")"
	done
	absent=
	while read -r p; do [ -c "/dev/virtio-ports/$p" ] || absent=yes; done </vm/ports
	[ -z "$absent" ] && break
	sleep 0.1
done
[ -z "$absent" ] || { echo "no port $(cat /vm/ports) after 30 s"; poweroff -f; }
if [ -e /vm/run ]; then
	modprobe ext4
	mount -t ext4 /dev/vda /mnt
	mkdir -p /mnt/vm
	[ -d /mnt/lib/modules ] || cp -r /lib/modules /mnt/lib/
	mount -t tmpfs vm /mnt/vm
	cp -r /vm/. /mnt/vm
	for d in dev proc sys run; do mount --move /$d /mnt/$d; done
	exec switch_root /mnt /lib/systemd/systemd
fi
ip link set lo up
eval "set -- $(cat /vm/args)"
setsid /vm/script "$@" </dev/null >/dev/virtio-ports/vm.out 2>&1
rc=$?
sync
echo $rc >/dev/virtio-ports/vm.rc
sleep 0.1
poweroff -f
