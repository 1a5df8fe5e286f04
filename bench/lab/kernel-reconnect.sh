#!/bin/bash
# Runs in the machine of vm.sh: the daemon goes away under a device that is in
# use, and comes back.
#
#   kernel-reconnect.sh SEED
. /lab/volumes.sh
set -eEu -o pipefail
trap 'complain $LINENO' ERR

C="--control unix:/run/x.sock"

start() {
	cawrm serve /dev/vda --name x --nbd unix:/run/x.nbd $C >>/run/x.log 2>&1 &
	P=$!
	for _ in $(seq 200); do
		cawrm status x $C >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	echo "no daemon"
	return 1
}

modprobe nbd nbds_max=1
cawrm create /dev/vda --size 64M >/dev/null
start
cawrm attach x /dev/nbd0 $C

step "stopped in order and started anew, under load"
touch /run/told
TELL=/run/told guest blocks /dev/nbd0 0 2048 "$1" 600 &
LOAD=$!
while [ "$(wc -l </run/told)" -lt 10 ]; do sleep 0.1; done
kill $P
wait $P
start
cawrm attach x /dev/nbd0 --reconnect $C
wait $LOAD
dmesg | grep 'I/O error' && exit 1
guest compare /dev/nbd0 0 2048 "$1" /run/told

step "killed right after a write was answered"
dd if=/dev/urandom of=/dev/nbd0 bs=4096 count=1 oflag=direct conv=notrunc status=none
kill -9 $P
wait $P 2>/dev/null || true
start
if cawrm attach x /dev/nbd0 --reconnect $C 2>/run/refusal; then
	echo "the device was given back though writes may be gone"
	exit 1
fi
grep 'was not closed in order' /run/refusal
cawrm detach /dev/nbd0 --force
cawrm attach x /dev/nbd0 $C
dd if=/dev/nbd0 of=/dev/null bs=4096 count=16 iflag=direct status=none
cawrm detach /dev/nbd0
step "done"
