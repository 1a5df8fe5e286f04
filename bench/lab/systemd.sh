#!/bin/bash
# Runs in a machine whose first process is systemd, from a root disk (debian-root.sh) that stays the same over two lives.
#
#   systemd.sh install SEED   the package is installed, and its units do what they say; a file system is left mounted
#   systemd.sh after          after a shutdown and a boot the file system is there again, and the shutdown was in order
set -eE -u -o pipefail

step() { echo "== $(cut -d' ' -f1 /proc/uptime) s: $*"; }

complain() {
	echo "FAILED in line $1"
	systemctl --no-pager --failed
	journalctl --no-pager -b -q -n 60 -u 'cawrm*' -u srv-db.mount
	dmesg | tail -n 15
}
trap 'complain $LINENO' ERR

same() { # same WHAT GOT WANT
	[ "$2" = "$3" ] && return 0
	echo "$1: $2; it should be: $3"
	return 1
}

property() { systemctl show --value -p "$2" "$1"; }

# until_true COMMAND: waits for what takes its time on a slow machine.
until_true() {
	for _ in $(seq 300); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	echo "never true: $*"
	return 1
}

lines() { [ "$(wc -l <"$2")" -ge "$1" ]; }

install() {
	step "the package"
	dpkg --install /vm/cawrm.deb
	same "enabled by the package" "$(systemctl is-enabled cawrm.service || true)" disabled
	for d in /var/lib/cawrm /etc/cawrm; do same "$d" "$(stat -c '%U:%G %a' $d)" "cawrm:cawrm 750"; done
	same /etc/cawrm/cawrm.toml "$(stat -c '%U:%G %a' /etc/cawrm/cawrm.toml)" "cawrm:cawrm 640"

	step "the daemon"
	systemctl enable --now cawrm-nbd.socket cawrm.service
	same cawrm.service "$(systemctl is-active cawrm.service || true)" active
	cawrm create /var/lib/cawrm/db.img --size 48M
	cawrm volume add db /var/lib/cawrm/db.img

	step "a device, and a mount that waits for it"
	echo DEVICE=/dev/nbd0 >/etc/cawrm/attach/db
	systemctl enable --now cawrm-attach@db.service
	mkfs.ext4 -q /dev/nbd0
	mkdir /srv/db
	echo '/dev/nbd0 /srv/db ext4 _netdev,nofail,x-systemd.requires=cawrm-attach@db.service 0 2' >>/etc/fstab
	systemctl daemon-reload
	systemctl start srv-db.mount

	step "a load on the file system"
	: >/var/files
	TELL=/var/files /vm/guest files "$1" 2 0 /srv/db &
	load=$!
	until_true lines 10 /var/files

	step "reload, under the load"
	daemon=$(property cawrm.service MainPID)
	cp /etc/cawrm/cawrm.toml /var/good.toml
	echo 'nonsense = 1' >>/etc/cawrm/cawrm.toml
	if systemctl reload cawrm.service 2>/dev/null; then
		echo "a file with an unknown key was taken"
		return 1
	fi
	cat /var/good.toml >/etc/cawrm/cawrm.toml
	systemctl reload cawrm.service
	same "the daemon's process" "$(property cawrm.service MainPID)" "$daemon"
	same "restarts of connections" "$(dmesg | grep -c 'nbd.*: Receive control failed' || true)" 0

	step "restart, under the load"
	systemctl restart cawrm.service
	[ "$(property cawrm.service MainPID)" != "$daemon" ]
	until_true lines $(($(wc -l </var/files) + 10)) /var/files
	kill $load
	wait $load 2>/dev/null || true
	sync
	same "errors of the device" "$(dmesg | grep -c 'I/O error' || true)" 0
	/vm/guest check /srv/db /var/files

	step "left mounted"
}

# position TEXT: where the journal of the last life has it, the last time.
position() {
	grep -n -e "$1" /var/last | tail -n 1 | cut -d: -f1 | grep . || echo "the journal of the shutdown has no: $1" >&2
}

# sources awaits one at the address that cawrm-peer.socket holds.
sources() {
	step "sources are awaited where systemd listens"
	cawrm cert secret /etc/cawrm/peer.secret
	sed -i '1i peer-secret = "/etc/cawrm/peer.secret"' /etc/cawrm/cawrm.toml
	systemctl stop cawrm.service
	systemctl enable --now cawrm-peer.socket
	systemctl start cawrm.service
	cawrm create /var/lib/cawrm/copy.img --mirror
	cawrm volume add copy /var/lib/cawrm/copy.img
	cawrm create /var/source.img --size 8M
	cawrm serve /var/source.img --name source --control unix:/run/source --peer-secret /etc/cawrm/peer.secret \
		--mirror copy=cawrm://127.0.0.1:10810/copy 2>/run/source.log &
	source=$!
	fed() { cawrm status source --control unix:/run/source | grep -q 'copy.* synced'; }
	until_true fed
	# Where it connects while the daemon is away it waits, and is not refused.
	systemctl restart cawrm.service
	until_true fed
	same "refused" "$(grep -c 'connection refused' /run/source.log || true)" 0
	kill $source
	wait $source
	cawrm volume remove copy
}

after() {
	step "all of it is there again"
	for u in cawrm.service cawrm-nbd.socket cawrm-attach@db.service; do
		same $u "$(systemctl is-active $u || true)" active
	done
	until_true systemctl -q is-active srv-db.mount # with nofail nothing waits for it
	/vm/guest check /srv/db /var/files
	same "recoveries of a journal" "$(dmesg | grep -c 'recovering journal\|recovery complete' || true)" 0

	step "the shutdown was in order: file system, device, daemon"
	journalctl --no-pager -q -b -1 >/var/last
	unmounted=$(position 'Unmounted srv-db.mount')
	detached=$(position 'Stopped cawrm-attach@db.service')
	stopped=$(position 'Stopped cawrm.service')
	[ $unmounted -lt $detached ]
	[ $detached -lt $stopped ]
	same "errors of the shutdown" "$(grep -e 'I/O error' -e 'cawrm.*Failed' /var/last || true)" ""

	step "the device goes, and the mount before it"
	systemctl stop cawrm-attach@db.service
	same srv-db.mount "$(systemctl is-active srv-db.mount || true)" inactive
	same "size of the device" "$(cat /sys/block/nbd0/size)" 0

	step "the watchdog"
	mkdir /run/systemd/system/cawrm.service.d
	printf '[Service]\nWatchdogSec=3\n' >/run/systemd/system/cawrm.service.d/soon.conf
	systemctl daemon-reload
	systemctl restart cawrm.service
	daemon=$(property cawrm.service MainPID)
	kill -STOP "$daemon"
	anew() { [ "$(property cawrm.service NRestarts)" -ge 1 ] && systemctl -q is-active cawrm.service; }
	until_true anew
	journalctl --no-pager -q -b -u cawrm.service | grep -o 'Watchdog timeout.*'
	cawrm status

	rm /run/systemd/system/cawrm.service.d/soon.conf
	systemctl daemon-reload
	sources

	step "the package goes, the volumes stay"
	dpkg --remove cawrm
	same "units that are left" "$(systemctl list-units --no-pager --no-legend --plain 'cawrm*' | grep -v not-found || true)" ""
	same "links that are left" "$(find /etc/systemd -name 'cawrm*')" ""
	[ -e /var/lib/cawrm/db.img ]
}

case $1 in
install) install "$2" ;;
after) after ;;
esac
step "done"
