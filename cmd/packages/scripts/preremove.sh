#!/bin/sh
# Before removing, not before upgrading: a daemon in use goes on.
set -e
case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl stop 'cawrm-attach@*.service' || true # disable knows no patterns
		for link in /etc/systemd/system/*.wants/cawrm-attach@*.service; do
			[ ! -L "$link" ] || systemctl disable "${link##*/}" || true
		done
		systemctl disable --now cawrm-nbd.socket cawrm-peer.socket cawrm.service || true
	fi
	;;
esac
