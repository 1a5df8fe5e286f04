#!/bin/bash
# Runs in the machine of vm.sh: a container on /dev/vda under dm-log-writes,
# which records in /dev/vdb. Its volume holds a file system and behind that
# regions of blocks, one for each phase; both loads mark in the log what is
# durable. Between phases the container is closed, or its daemon killed, so that
# the log has recoveries and checkpoints as well.
#
#   log-record.sh SEED FS FS-MIB REGION-BLOCKS PHASES STEPS FILES
. /lab/volumes.sh
set -eEu -o pipefail
trap 'complain $LINENO' ERR

SEED=$1 FS=$2 MIB=$3 BLOCKS=$4 PHASES=$5 STEPS=$6 FILES=$7
DISK=dm-0 NBD=nbd0
export TELL=dm:lw

modprobe nbd nbds_max=2
modprobe dm-log-writes
modprobe "$FS"
dmsetup create lw --table "0 $(blockdev --getsz /dev/vda) log-writes /dev/vda /dev/vdb"
[ -b /dev/$DISK ]
cawrm create /dev/$DISK --size $(((MIB << 20) + PHASES * BLOCKS * 4096)) >/dev/null
dmsetup message lw 0 mark created

for phase in $(seq 0 $((PHASES - 1))); do
	step "phase $phase"
	serve "$FS" $DISK $NBD
	if [ "$phase" = 0 ]; then
		make "$FS" $NBD "$MIB"
		sync
		dmsetup message lw 0 mark made
	fi
	enter "$FS" $NBD
	guest blocks /dev/$NBD $(((MIB << 20) + phase * BLOCKS * 4096)) "$BLOCKS" $((SEED + phase)) "$STEPS" &
	BLOCKWRITER=$!
	guest files $((SEED + phase)) 3 "$FILES" "/fs/$FS"
	wait $BLOCKWRITER
	umount "/fs/$FS"
	if [ $((phase % 2)) = 0 ]; then
		cawrm detach /dev/$NBD
		kill -9 "$(cat "/run/$FS.pid")"
		sleep 0.2
	else
		unserve "$FS" $NBD
	fi
done
agrees "$FS" $DISK
dmsetup remove lw
step "done"
